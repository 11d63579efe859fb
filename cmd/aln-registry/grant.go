package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

func (a *app) grantCommand() *cobra.Command {
	return group("grant", "EnvGrants: what a build may see and use", a.grantNewCommand(),
		&cobra.Command{
			Use: "show CID", Short: "Show an EnvGrant, and whether it is in force", Args: cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, args []string) error { return a.grantShow(c.Context(), args[0]) },
		},
		a.grantListCommand(), a.grantRevokeCommand(), a.grantDiffCommand())
}

func (a *app) grantListCommand() *cobra.Command {
	var subject string
	var inForce bool
	c := &cobra.Command{
		Use: "list", Short: "List the EnvGrants, and why those that are not in force are not", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.grantList(c.Context(), subject, inForce) },
	}
	c.Flags().StringVar(&subject, "subject", "", "only those of the host with this `DID`")
	c.Flags().BoolVar(&inForce, "in-force", false, "only those in force")
	return c
}

func (a *app) grantList(ctx context.Context, subject string, inForce bool) error {
	var of did.DID
	if subject != "" {
		var err error
		if of, err = did.Parse(subject); err != nil {
			return usageError{fmt.Errorf("--subject: %w", err)}
		}
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	found, err := r.Grants(ctx, of, inForce)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			Grants []client.GrantInfo `json:"grants"`
		}{append([]client.GrantInfo{}, found...)})
	}
	rows := [][]string{{"CID", "SUBJECT", "TIER", "EXPIRES", "IN FORCE"}}
	for _, g := range found {
		rows = append(rows, []string{g.CID.String(), string(g.Subject), g.Tier, g.Expires.String(), inForceText(g)})
	}
	a.table(rows)
	return nil
}

// inForceText is yes, or why not.
func inForceText(g client.GrantInfo) string {
	switch {
	case g.InForce:
		return "yes"
	case g.Why == "":
		return "no"
	}
	return "no: " + g.Why
}

// shownGrant is grant show for programs.
type shownGrant struct {
	client.GrantInfo
	Grant particle.EnvGrant `json:"grant"`
}

func (a *app) grantShow(ctx context.Context, text string) error {
	id, err := parseGrant(text)
	if err != nil {
		return usageError{err}
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	g, err := r.Grant(ctx, id)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(shownGrant{g.GrantInfo, g.Env})
	}
	rows := append([][]string{{"cid", g.CID.String()}}, grantRows(g.Env)...)
	if g.SupersededBy != nil {
		rows = append(rows, []string{"superseded_by", g.SupersededBy.String()})
	}
	a.table(append(rows, []string{"record", fmt.Sprintf("%s, log index %d", g.Record, g.Index)}, []string{"in force", inForceText(g.GrantInfo)}))
	return nil
}

// grantRows are an EnvGrant for people: a name and a value each.
func grantRows(g particle.EnvGrant) [][]string {
	crates := counted(int64(len(g.AllowedCrates)), "hash", "hashes")
	switch _, all, _ := g.Hashes(); {
	case all:
		crates = "* (all that nothing else forbids)"
	case g.AllowedCratesList != nil:
		crates = "those of the list " + g.AllowedCratesList.String()
	}
	return [][]string{
		{"registry", string(g.Registry)}, {"issuer", string(g.Issuer)}, {"subject", string(g.Subject)},
		{"not_before", g.NotBefore.String()}, {"expires", g.Expires.String()},
		{"max_mem_mb", fmt.Sprint(g.MaxMemMB)}, {"max_disk_mb", fmt.Sprint(g.MaxDiskMB)},
		{"allowed_crates", crates}, {"min_age_days", fmt.Sprint(g.MinAgeDays)},
		{"allowed_protocols", strings.Join(g.AllowedProtocols, " ")}, {"allowed_endpoints", strings.Join(g.AllowedEndpoints, " ")},
		{"offshore_flag", fmt.Sprint(g.OffshoreFlag)}, {"tier", g.Tier},
		{"memory_pool", cidText(g.MemoryPool)}, {"execution_domain", cidText(g.ExecutionDomain)}, {"supersedes", cidText(g.Supersedes)},
	}
}

func cidText(id *storage.CID) string {
	if id == nil {
		return "none"
	}
	return id.String()
}

func (a *app) grantRevokeCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "revoke CID --reason TEXT", Short: "End an EnvGrant, from the next request on (grantors, admins)", Args: cobra.ExactArgs(1),
		Long: "End an EnvGrant, from the next request on: who names it is denied. A host that names none and has no other\nreads again what hosts of its tier read without a grant (`settings show`, tier_default): to shut it out\nwholly, an admin types `member remove`.",
		RunE: func(c *cobra.Command, args []string) error { return a.grantRevoke(c.Context(), args[0], reason) },
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the log")
	return c
}

func (a *app) grantRevoke(ctx context.Context, text, reason string) error {
	id, err := parseGrant(text)
	if err != nil {
		return usageError{err}
	}
	if strings.TrimSpace(reason) == "" {
		return usageError{errors.New("--reason is missing: the host whose grant ends asks why")}
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	done, err := r.SignAndSubmit(ctx, client.RevokeDraft(id, reason))
	switch {
	case errors.Is(err, record.ErrMalformed):
		return plainly(err)
	case err != nil:
		return err
	}
	notes := []string{}
	if g, err := r.Grant(ctx, id); err == nil {
		notes = append(notes, grantNotes(ctx, r, g.Subject, nil)...)
	}
	if a.json {
		return a.printJSON(struct {
			changedJSON
			Notes []string `json:"notes"`
		}{changedJSON{record.GrantSubject(id).String(), done}, notes})
	}
	fmt.Fprintf(a.out, "revoked %s: record %s, log index %d\n", id, done.Record, done.Index)
	for _, note := range notes {
		fmt.Fprintln(a.out, "note:", note)
	}
	return nil
}
