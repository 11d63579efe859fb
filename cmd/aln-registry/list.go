package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// mostListed bounds a listing: who has more narrows it.
const mostListed = 10_000

func (a *app) listCommand() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use: "list [KIND | KIND/NAME]", Short: "List artifacts, or the versions of one", Args: cobra.MaximumNArgs(1),
		Long: "List the registry's artifacts, all or those of a kind, each with its newest version; with KIND/NAME the\nversions of that one, newest first. It is what the registry says: `verify` and `get` prove it. Kinds:\n" + kindNames() + ".",
		RunE: func(c *cobra.Command, args []string) error { return a.list(c.Context(), append(args, "")[0], name) },
	}
	c.Flags().StringVar(&name, "name", "", "only artifacts with this in their name (case, - and _ alike)")
	return c
}

func (a *app) list(ctx context.Context, what, name string) error {
	if strings.Contains(what, "/") {
		s, err := nameReference(what)
		if err != nil {
			return err
		}
		if name != "" {
			return usageError{fmt.Errorf("--name narrows a list of artifacts; %s is one", s)}
		}
		return a.listVersions(ctx, s)
	}
	var kind record.Kind
	if what != "" {
		var err error
		if kind, err = record.ParseKind(what); err != nil {
			return notAKind(what, err)
		}
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	found, more, err := r.Artifacts(ctx, kind, name, mostListed)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			Artifacts []client.ArtifactName `json:"artifacts"`
			More      bool                  `json:"more"`
		}{append([]client.ArtifactName{}, found...), more})
	}
	rows := [][]string{{"KIND", "NAME", "NEWEST", "VERSIONS", "PUBLISHED", "BY"}}
	for _, f := range found {
		rows = append(rows, []string{
			string(f.Kind), f.Name, shownVersion(f.Newest), fmt.Sprint(f.VersionCount), f.Newest.Time.Format(time.RFC3339), string(f.Newest.Publisher),
		})
	}
	a.table(rows)
	if more {
		fmt.Fprintf(a.err, "there are more than these %d; narrow them with a kind or --name\n", len(found))
	}
	return nil
}

// notAKind is the error about a word that was typed where a kind belongs; most
// such words are names of crates.
func notAKind(what string, err error) error {
	if s, failed := nameReference(what); failed == nil {
		return fmt.Errorf("%w; write `aln-registry list %s` for the versions of a crate, or `aln-registry list --name %s` to look for names", plainly(err), s, what)
	}
	return plainly(err)
}

func shownVersion(v client.Artifact) string {
	if v.Yanked {
		return v.Version + " (yanked)"
	}
	return v.Version
}

func (a *app) listVersions(ctx context.Context, s record.Subject) error {
	r, err := a.open()
	if err != nil {
		return err
	}
	name, versions, err := r.Versions(ctx, s, mostListed)
	if err != nil {
		return err
	}
	slices.SortFunc(versions, func(v, w client.Artifact) int { return compareVersions(w.Version, v.Version) })
	if a.json {
		return a.printJSON(struct {
			client.ArtifactName
			Versions []client.Artifact `json:"versions"`
		}{name, append([]client.Artifact{}, versions...)})
	}
	rows := [][]string{{"VERSION", "LOG INDEX", "PUBLISHED", "BY", "CID"}}
	marks, denied := decidedMarks(ctx, r, s)
	for _, v := range versions {
		rows = append(rows, []string{shownVersion(v) + marks[v.Version], fmt.Sprint(v.Index), v.Time.Format(time.RFC3339), string(v.Publisher), v.CID.String()})
	}
	a.table(rows)
	if name.VersionCount > len(versions) {
		fmt.Fprintf(a.err, "these are %d of %d versions\n", len(versions), name.VersionCount)
	}
	if denied {
		fmt.Fprintf(a.err, "`aln-registry why %s` says why you may not build with those that are denied\n", s)
	}
	return nil
}

// decidedMarks say of the versions of s which are denied, or in grace; none where
// the registry does not say.
func decidedMarks(ctx context.Context, r *client.Registry, s record.Subject) (marks map[string]string, denied bool) {
	decisions, err := r.Why(ctx, particle.SourceHosted, s, storage.CID{})
	if err != nil {
		return nil, false
	}
	marks = map[string]string{}
	for _, d := range decisions {
		switch {
		case !d.Allow:
			marks[d.Version], denied = " (denied)", true
		case !d.Listed:
			marks[d.Version] = " (in grace)"
		}
	}
	return marks, denied
}

// compareVersions orders by SemVer precedence; what is no version comes last.
func compareVersions(a, b string) int {
	v, err := cargo.ParseVersion(a)
	w, failed := cargo.ParseVersion(b)
	if err != nil || failed != nil {
		return strings.Compare(a, b)
	}
	return v.Compare(w)
}
