package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
)

func (a *app) whyCommand() *cobra.Command {
	source := ""
	c := &cobra.Command{
		Use: "why [KIND/]NAME[@VERSION]", Short: "Explain, rule by rule, whether a build may use an artifact", Args: cobra.ExactArgs(1),
		Long: "Explain, rule by rule, how the registry decides about an artifact's versions, or about one: as you are judged,\nor under the grant of --grant, which may be another host's if you are a grantor, reviewer, auditor or admin.\nWith --source crates-io (or upstream/NAME) it is about a crate of that registry, by what was seen of it there.\nExit status 0 when it may be used (of several versions: when one may), 1 when it is denied, or when that is\nnot known yet, since a rule asks what its bytes hold and nobody had them fetched.",
		RunE: func(c *cobra.Command, args []string) error { return a.why(c.Context(), source, args[0]) },
	}
	c.Flags().StringVar(&source, "source", particle.SourceHosted, "`where` the crate is from: hosted, crates-io or upstream/NAME")
	return c
}

func (a *app) why(ctx context.Context, source, what string) error {
	s, err := reference(what)
	if err != nil {
		return err
	}
	if _, ok := particle.UpstreamOf(source); source != particle.SourceHosted && (!ok || particle.CheckSource(source) != nil || s.Kind() != record.KindCrate) {
		return usageError{fmt.Errorf("--source %.80q is not hosted, or, for crates, crates-io or upstream/NAME", source)}
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	r = judgedAs(ctx, r)
	decisions, err := r.Why(ctx, source, s, a.grant.id)
	if isAbsent(err) && s.Kind() == record.KindCrate {
		err = a.elsewhere(ctx, r, source, s, err)
	}
	if err != nil {
		return err
	}
	if len(decisions) == 1 && s.Version() == "" { // the same as if it had been named: looked into as well
		if s, err = record.VersionSubject(s.Kind(), s.Name(), decisions[0].Version); err != nil {
			return fmt.Errorf("%w: %w", client.ErrAnswer, err)
		}
		if decisions, err = r.Why(ctx, source, s, a.grant.id); err != nil {
			return err
		}
	}
	if len(decisions) == 0 {
		return fmt.Errorf("the registry knows of no version of %s, or may not tell you of it", s)
	}
	untaken := a.untaken(ctx, r, source)
	allowed := false
	for _, d := range decisions {
		allowed = allowed || d.Allow
	}
	if a.json {
		err = a.printJSON(struct {
			Allowed   bool              `json:"allowed"`
			Decisions []client.Decision `json:"decisions"`
		}{allowed, decisions})
	} else {
		a.printWhy(source, decisions)
	}
	if err == nil {
		err = untaken
	}
	if err == nil && !allowed {
		err = errSilent
	}
	return err
}

// untaken says of a source that the registry no longer takes crates from that no build gets any, whatever
// was decided of them; nil where it takes them, or does not tell.
func (a *app) untaken(ctx context.Context, r *client.Registry, source string) error {
	if source == particle.SourceHosted {
		return nil
	}
	upstreams, _, err := r.Upstreams(ctx)
	if err != nil || slices.ContainsFunc(upstreams, func(u client.Upstream) bool { return u.Source == source }) {
		return nil
	}
	return fmt.Errorf("whatever the rules say, no build gets it: this registry takes crates from no --source %s now (`aln-registry upstream list` says from which)", source)
}

func isAbsent(err error) bool {
	var refused *client.APIError
	return errors.As(err, &refused) && refused.Status == http.StatusNotFound
}

// elsewhere is err, that there is nothing to tell of s from source, with what to do. It knows no
// more than the registry tells who asks.
func (a *app) elsewhere(ctx context.Context, r *client.Registry, source string, s record.Subject, err error) error {
	upstreams, offline, failed := r.Upstreams(ctx)
	if failed != nil {
		return err
	}
	if source != particle.SourceHosted {
		switch i := slices.IndexFunc(upstreams, func(u client.Upstream) bool { return u.Source == source }); {
		case i < 0:
			return fmt.Errorf("%w; this registry takes crates from no --source %s now (`aln-registry upstream list` says from which)", err, source)
		case offline:
			return fmt.Errorf("%w; it has not been seen there yet, or is not for you, and this registry is offline", err)
		default:
			return fmt.Errorf("%w; it has not been seen there yet, or is not for you: `aln-registry prefetch --all-versions-of %s --from %s` has the registry look", err, s.Name(), upstreams[i].Name)
		}
	}
	if u, ok := a.whoHas(ctx, r, upstreams, s); ok {
		return fmt.Errorf("%w; %s has it: `aln-registry why %s --source %s`", err, u.Name, bare(s), u.Source)
	}
	return err
}

// whoHas is the first of upstreams of which the registry knows such a crate, and tells us so.
func (a *app) whoHas(ctx context.Context, r *client.Registry, upstreams []client.Upstream, s record.Subject) (client.Upstream, bool) {
	for _, u := range upstreams {
		if found, err := r.Why(ctx, u.Source, s, a.grant.id); err == nil && len(found) > 0 {
			return u, true
		}
	}
	return client.Upstream{}, false
}

// theirs is err, and where that says that there is no crate s here and another registry has one, which
// that is. instead is what to type for that, with the crate and the source put in.
func (a *app) theirs(ctx context.Context, r *client.Registry, s record.Subject, err error, instead string) error {
	if !isAbsent(err) || s.Kind() != record.KindCrate {
		return err
	}
	upstreams, _, failed := r.Upstreams(ctx)
	if failed != nil { // for members
		return err
	}
	if u, ok := a.whoHas(ctx, r, upstreams, s); ok {
		return fmt.Errorf("%w; %s has it: "+instead, err, u.Name, bare(s), u.Source)
	}
	return err
}

// bare is a crate's name, and version where s has one.
func bare(s record.Subject) string {
	if s.Version() == "" {
		return s.Name()
	}
	return s.Name() + "@" + s.Version()
}

// judgedAs is r with sessions that name its grant, where the registry gives any:
// a grant that is another's, or is over, can still be asked about.
func judgedAs(ctx context.Context, r *client.Registry) *client.Registry {
	_, err := r.Session(ctx, "read", "", 0)
	var refused *client.APIError
	if errors.As(err, &refused) && refused.Status == http.StatusForbidden {
		return r.Bare()
	}
	return r
}

func (a *app) printWhy(source string, decisions []client.Decision) {
	for i, d := range decisions {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		fmt.Fprintf(a.out, "%s/%s@%s: %s\n", tidy(d.Kind), tidy(d.Name), tidy(d.Version), tidy(verdictOf(d)))
		var rows [][]string
		for _, step := range d.Steps {
			rows = append(rows, []string{"  " + step.Outcome, string(step.Rule), step.ID, step.Reason})
		}
		a.table(rows)
		if d.Gone != nil {
			fmt.Fprintf(a.out, "  listed as yanked here since %s: upstream %s\n", d.Gone.UTC().Format(time.RFC3339), goneAs(d.GoneAs))
		}
		for _, c := range d.SaidLater {
			what := "other bytes, sha256 " + c.SHA256
			if c.Kind == "altered" {
				what = "other dependencies or features of the same bytes"
			}
			if c.Snapshot != "" {
				what += ", in the index file " + c.Snapshot
			}
			fmt.Fprintf(a.out, "  at %s it was said to have %s: not believed\n", c.Time.UTC().Format(time.RFC3339), tidy(what))
		}
		if d.ValidUntil != nil {
			fmt.Fprintf(a.out, "  decided anew at %s at the latest\n", d.ValidUntil.UTC().Format(time.RFC3339))
		}
	}
	a.printUnscanned(source, decisions)
}

// goneAs is what upstream does where it does not list a version as it first did.
func goneAs(kind string) string {
	const alarm = " (an alarm)"
	switch kind {
	case "changed":
		return "names other bytes for it, which are never served" + alarm
	case "altered":
		return "gives it other dependencies or features, which are not believed" + alarm
	case "dropped":
		return "does not list it any more" + alarm
	}
	return "does not list it as it first did"
}

// printUnscanned says how it is found out what is not known yet of crates of another registry.
func (a *app) printUnscanned(source string, decisions []client.Decision) {
	upstream, ok := particle.UpstreamOf(source)
	i := slices.IndexFunc(decisions, isUnscanned)
	if !ok || i < 0 {
		return
	}
	from := ""
	if upstream != particle.SourceCratesIO {
		from = " --from " + upstream
	}
	d := decisions[i]
	if _, err := cargo.ParseVersion(d.Version); err != nil || cargo.ValidateName(d.Name) != nil {
		return // a registry says what it likes, and this is to be typed
	}
	fmt.Fprintf(a.out, "What is not known yet nobody had the registry fetch since the rule is there. The first download of it finds out, and so does: echo %s %s | aln-registry prefetch -%s\n", tidy(d.Name), tidy(d.Version), from)
}

// isUnscanned reports whether d is denied for no more than that its bytes were not looked at.
func isUnscanned(d client.Decision) bool { return d.Unscanned && !d.Allow }

// verdictOf is a decision in a line.
func verdictOf(d client.Decision) string {
	says := "denied"
	switch {
	case d.Allow && d.Listed:
		says = "allowed"
	case d.Allow:
		says = "in grace"
	case isUnscanned(d):
		says = "not known yet,"
	}
	rule := d.Rule
	if d.RuleID != "" {
		rule += " " + d.RuleID
	}
	if rule != "" {
		says += " by rule " + rule
	}
	if d.Reason != "" {
		says += ": " + d.Reason
	}
	return says
}
