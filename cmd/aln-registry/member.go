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
)

func (a *app) memberCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "member", Short: "Who may use the registry", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.memberAddCommand(),
		&cobra.Command{
			Use: "list", Short: "List the members", Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error { return a.memberList(c.Context()) },
		},
		&cobra.Command{
			Use: "remove DID", Short: "Remove a member: refused from the next request on (admins)", Args: cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, args []string) error {
				return a.memberChange(c.Context(), args[0], &record.Member{
					Roles: []string{}, Tier: particle.TierGuest, StakeholderAddrs: []string{},
				}, "removed")
			},
		})
	return c
}

func (a *app) memberAddCommand() *cobra.Command {
	var roles, addresses []string
	var tier string
	c := &cobra.Command{
		Use: "add DID", Short: "Admit a member, or change a member's roles (admins)", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(roles) == 0 {
				return usageError{errors.New("member add needs at least one --role: publisher, grantor, reviewer, auditor, mirror, or a role of your own")}
			}
			return a.memberChange(c.Context(), args[0], &record.Member{
				Roles: roles, Tier: tier, StakeholderAddrs: append([]string{}, addresses...),
			}, "admitted")
		},
	}
	c.Flags().StringSliceVar(&roles, "role", nil, "role: publisher, grantor, reviewer, auditor, mirror, or one of your own (repeatable)")
	c.Flags().StringVar(&tier, "tier", particle.TierCoreStakeholder, "tier: core_stakeholder, collaborator, guest")
	c.Flags().StringSliceVar(&addresses, "stakeholder-addr", nil, "address in the member's system that may act (repeatable)")
	return c
}

// memberChange signs a member record about d.
func (a *app) memberChange(ctx context.Context, who string, body *record.Member, verb string) error {
	d, err := did.Parse(who)
	if err != nil {
		return usageError{err}
	}
	if d.Method() != "key" {
		return fmt.Errorf("%s: only did:key members can be admitted by this version", d)
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	done, err := r.SignAndSubmit(ctx, client.Draft{Subject: record.MemberSubject(d), Body: body})
	if errors.Is(err, client.ErrNotEntitled) {
		return fmt.Errorf("only an admin of the registry can do this: %w", err)
	}
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(done)
	}
	fmt.Fprintf(a.out, "%s %s: record %s, log index %d\n", verb, d, done.Record, done.Index)
	return nil
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
	rows := [][]string{{"DID", "ROLES", "TIER"}}
	for _, m := range members {
		rows = append(rows, []string{string(m.DID), strings.Join(m.Roles, ","), m.Tier})
	}
	a.table(rows)
	return nil
}
