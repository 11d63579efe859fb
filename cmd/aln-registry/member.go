package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// builtInRoles are those that the registry's rules mention.
var builtInRoles = []string{state.RolePublisher, state.RoleGrantor, state.RoleReviewer, state.RoleAuditor, state.RoleMirror}

var tiers = []string{particle.TierCoreStakeholder, particle.TierCollaborator, particle.TierGuest}

func (a *app) memberCommand() *cobra.Command {
	return group("member", "Who may use the registry", a.memberAddCommand(),
		&cobra.Command{
			Use: "list", Short: "List the members", Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error { return a.memberList(c.Context()) },
		},
		&cobra.Command{
			Use: "remove DID", Short: "Remove a member: refused from the next request on (admins)", Args: cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, args []string) error {
				return a.memberChange(c.Context(), args[0], &record.Member{
					Roles: []string{}, Tier: particle.TierGuest, StakeholderAddrs: []string{},
				}, nil)
			},
		})
}

func (a *app) memberAddCommand() *cobra.Command {
	var roles, addresses []string
	var tier string
	var f documentFlags
	c := &cobra.Command{
		Use: "add DID", Short: "Admit a member, or change a member's roles (admins)", Args: cobra.ExactArgs(1),
		Long: "Admit a member, or change one: the roles, the tier and the addresses given replace those that the\nmember has, so give all that are to stay. Roles that the registry knows: " + strings.Join(builtInRoles, ", ") + ";\nany other is one of your own, which by itself lets nobody do anything, such as builder. (Admins.)\n\nThe document of a did:web is fetched from its host, or taken from --document, and goes into the log with\nthe record: its keys are the member's until `did update` brings another one.",
		RunE: func(c *cobra.Command, args []string) error {
			if len(roles) == 0 {
				return usageError{fmt.Errorf("member add needs at least one --role: %s, or a role of your own", strings.Join(builtInRoles, ", "))}
			}
			if err := checkRoles(roles); err != nil {
				return err
			}
			if !slices.Contains(tiers, tier) {
				return usageError{fmt.Errorf("--tier %.80q is none of %s", tier, strings.Join(tiers, ", "))}
			}
			return a.memberChange(c.Context(), args[0], &record.Member{
				Roles: roles, Tier: tier, StakeholderAddrs: append([]string{}, addresses...),
			}, &f)
		},
	}
	c.Flags().StringSliceVar(&roles, "role", nil, "role: "+strings.Join(builtInRoles, ", ")+", or one of your own (repeatable; replaces the member's roles)")
	c.Flags().StringVar(&tier, "tier", particle.TierCoreStakeholder, "tier: "+strings.Join(tiers, ", ")+"; as shipped, the last two read nothing without a grant")
	f.register(c)
	c.Flags().StringSliceVar(&addresses, "stakeholder-addr", nil, "address in the member's system that may act (repeatable)")
	return c
}

// memberResult is what a change of a member prints with --json.
type memberResult struct {
	client.Submitted
	DID   did.DID  `json:"did"`
	Roles []string `json:"roles"`
	Tier  string   `json:"tier"`
	// Document is a did:web's, null for a did:key.
	Document *storage.CID `json:"did_document"`
	// Before is null for who was no member.
	Before *memberBefore `json:"before"`
	Notes  []string      `json:"notes"`
}

type memberBefore struct {
	Roles []string `json:"roles"`
	Tier  string   `json:"tier"`
}

// memberChange signs a member record about who. Of a did:web it brings the
// document that from says where to find; nil: the one in force.
func (a *app) memberChange(ctx context.Context, who string, body *record.Member, from *documentFlags) error {
	d, err := did.Parse(who)
	if err != nil {
		return usageError{err}
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	attachments, err := memberDocument(ctx, r, d, from)
	if err != nil {
		return err
	}
	for _, raw := range attachments {
		id := storage.CIDOf(raw)
		body.DIDDocument = &id
	}
	members, err := r.Members(ctx)
	if err != nil {
		return err
	}
	result := memberResult{DID: d, Roles: body.Roles, Tier: body.Tier, Document: body.DIDDocument, Notes: append(roleNotes(body.Roles), keyNotes(attachments, from != nil)...)}
	if i := slices.IndexFunc(members, func(m client.Member) bool { return m.DID == d }); i >= 0 {
		result.Before = &memberBefore{members[i].Roles, members[i].Tier}
	}
	result.Submitted, err = r.SignAndSubmit(ctx, client.Draft{Subject: record.MemberSubject(d), Body: body, Attachments: attachments})
	switch {
	case errors.Is(err, client.ErrNotEntitled):
		return fmt.Errorf("only an admin of the registry can do this: %w", err)
	case errors.Is(err, record.ErrMalformed): // a role or an address that is none
		return usageError{err}
	case err != nil:
		return err
	}
	if from != nil && result.Tier != particle.TierCoreStakeholder {
		result.Notes = append(result.Notes, grantNotes(ctx, r, d, nil)...)
	}
	if a.json {
		return a.printJSON(result)
	}
	fmt.Fprintf(a.out, "%s: record %s, log index %d\n", result.change(), result.Record, result.Index)
	for _, note := range result.Notes {
		fmt.Fprintln(a.out, "note:", note)
	}
	return nil
}

// memberDocument is the document that a record about d brings: none for a did:key.
func memberDocument(ctx context.Context, r *client.Registry, d did.DID, from *documentFlags) ([][]byte, error) {
	switch {
	case d.Method() == "key":
		if from != nil && from.file != "" {
			return nil, usageError{fmt.Errorf("--document: %s is a did:key, which has none", d)}
		}
		return nil, nil
	case from == nil:
		document, err := r.MemberDocument(ctx, d)
		return [][]byte{document}, err
	}
	document, err := from.get(ctx, d)
	return [][]byte{document}, err
}

// keyNotes names the keys that a document lets somebody sign by, for the admin to
// compare by another way.
func keyNotes(documents [][]byte, wanted bool) []string {
	notes := []string{}
	for _, raw := range documents {
		document, err := did.ParseDocument(raw)
		if err != nil || !wanted {
			continue
		}
		for _, key := range document.Keys() {
			notes = append(notes, "signs by the key "+key.String())
		}
		slices.Sort(notes)
	}
	return notes
}

// change says what the record changed.
func (m memberResult) change() string {
	roles := strings.Join(m.Roles, ",")
	switch {
	case len(m.Roles) == 0:
		return fmt.Sprintf("removed %s", m.DID)
	case m.Before == nil:
		return fmt.Sprintf("admitted %s as %s (%s)", m.DID, roles, m.Tier)
	}
	text := fmt.Sprintf("changed %s: roles %s -> %s", m.DID, strings.Join(m.Before.Roles, ","), roles)
	if m.Before.Tier != m.Tier {
		text += fmt.Sprintf(", tier %s -> %s", m.Before.Tier, m.Tier)
	}
	return text
}

// checkRoles refuses a role that is a slip of the finger: who was to publish could
// not, and would be told by cargo, days later. A first letter is seldom mistyped, and
// to demand it leaves names such as "editor" to those who have editors.
func checkRoles(roles []string) error {
	for _, role := range roles {
		meant := nearestRole(role)
		if meant != "" && !slices.Contains(builtInRoles, role) && strings.EqualFold(role[:1], meant[:1]) {
			return usageError{fmt.Errorf("--role %.80q: did you mean %s? A role of your own needs a name that cannot be taken for it", role, meant)}
		}
	}
	return nil
}

// roleNotes says of roles that no rule mentions what they do not do, since a
// slip of the finger looks the same.
func roleNotes(roles []string) []string {
	notes := []string{}
	for _, role := range roles {
		if slices.Contains(builtInRoles, role) {
			continue
		}
		note := fmt.Sprintf("%q is a role of your own; it lets nobody publish", role)
		if meant := nearestRole(role); meant != "" {
			note += fmt.Sprintf(" (did you mean %s?)", meant)
		}
		notes = append(notes, note)
	}
	return notes
}

// nearestRole is the built-in role at most two slips away from role, "" for none.
func nearestRole(role string) string {
	nearest, least := "", 3
	for _, known := range builtInRoles {
		if d := distance(strings.ToLower(role), known); d < least {
			nearest, least = known, d
		}
	}
	return nearest
}

// distance is the number of letters to insert, drop or replace to make b of a
// (Levenshtein's).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}

func (a *app) memberList(ctx context.Context) error {
	r, err := a.open()
	if err != nil {
		return err
	}
	members, err := r.Members(ctx)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(members)
	}
	rows := [][]string{{"DID", "ROLES", "TIER", "ADMIN"}}
	for _, m := range members {
		row := []string{string(m.DID), strings.Join(m.Roles, ","), m.Tier}
		if m.Admin {
			row = append(row, "yes")
		}
		rows = append(rows, row)
	}
	a.table(rows)
	return nil
}
