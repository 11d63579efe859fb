package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
)

func (a *app) approveCommand() *cobra.Command {
	var reject bool
	var reason string
	c := &cobra.Command{
		Use: "approve RECORD|rule/ID", Short: "Vote on a proposal: of settings (admins), or to end a quarantine (reviewers, admins)", Args: cobra.ExactArgs(1),
		Long: "Vote on a proposal by the identity of its record, or on the one that is open to end a rule by rule/ID.\n`aln-registry settings show` lists proposals of settings, `aln-registry quarantine list` those to end rules.\nThe vote that makes enough of them executes the proposal; one rejection ends it. Who proposed to end a rule\nhas no vote on that.",
		RunE: func(c *cobra.Command, args []string) error { return a.approve(c.Context(), args[0], reject, reason) },
	}
	c.Flags().BoolVar(&reject, "reject", false, "reject it, which ends it")
	c.Flags().StringVar(&reason, "reason", "", "why, for the log")
	return c
}

func (a *app) approve(ctx context.Context, text string, reject bool, reason string) error {
	rule, ofRule := strings.CutPrefix(text, "rule/")
	var id record.ID
	var err error
	if ofRule {
		err = checkRuleID(rule)
	} else if id, err = record.ParseID(text); err != nil {
		err = usageError{fmt.Errorf("%w; or write rule/ID (`aln-registry settings show` and `aln-registry quarantine list` list the proposals)", err)}
	}
	if err != nil {
		return err
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	if ofRule {
		if id, err = openRelease(ctx, r, rule); err != nil {
			return err
		}
	}
	p, err := r.ProposalOf(ctx, id)
	if err != nil {
		return err
	}
	if p.Release != nil {
		return a.approveRelease(ctx, r, p, reject, reason)
	}
	return a.approveSettings(ctx, r, id, reject, reason)
}

// checkRuleID refuses what names no rule.
func checkRuleID(id string) error {
	if err := particle.CheckRuleID(id); err != nil {
		return usageError{errors.New(strings.TrimPrefix(err.Error(), particle.ErrMalformed.Error()+": "))}
	}
	return nil
}

// openRelease is the one proposal that is open to end a rule.
func openRelease(ctx context.Context, r *client.Registry, id string) (record.ID, error) {
	rule, err := r.Rule(ctx, id)
	if err != nil {
		return "", err
	}
	var open []string
	for _, p := range rule.Proposals {
		if p.Open {
			open = append(open, string(p.Record))
		}
	}
	switch len(open) {
	case 0:
		return "", fmt.Errorf("nobody proposes to end the rule %s; a reviewer does with `aln-registry quarantine release %s --reason TEXT`", id, id)
	case 1:
		return record.ParseID(open[0])
	}
	return "", fmt.Errorf("there are several proposals to end the rule %s; name one: %s", id, strings.Join(open, ", "))
}

func (a *app) approveRelease(ctx context.Context, r *client.Registry, p client.Proposed, reject bool, reason string) error {
	rule, err := r.Rule(ctx, p.Rule)
	if err != nil {
		return err
	}
	if !a.json {
		fmt.Fprintf(a.out, "the proposal ends the rule %s, because: %s\n", p.Rule, tidy(p.Release.Reason))
		if p.Release.Evidence != nil {
			fmt.Fprintln(a.out, "evidence:", p.Release.Evidence)
		}
		a.table(indented(ruleRows(rule.Rule)))
	}
	vote, err := r.ApproveRelease(ctx, p, reject, reason)
	switch {
	case errors.Is(err, record.ErrMalformed):
		return usageError{err}
	case err != nil:
		return err
	case a.json:
		said := releaseVoteJSON{Submitted: vote.Submitted, Rule: p.Rule, Ended: vote.Ended}
		if vote.Unsure != nil {
			said.Unsure = vote.Unsure.Error()
		}
		return a.printJSON(said)
	}
	outcome := "approved; it waits for more votes"
	switch {
	case reject:
		outcome = "rejected, which ends the proposal"
	case vote.Unsure != nil:
		outcome = "approved; `aln-registry quarantine show " + p.Rule + "` tells whether the rule has ended (" + tidy(vote.Unsure.Error()) + ")"
	case vote.Ended:
		outcome = "approved; the rule has ended now"
	}
	fmt.Fprintf(a.out, "%s: record %s, log index %d\n", outcome, vote.Record, vote.Index)
	return nil
}

// releaseVoteJSON is a vote on the end of a rule for programs.
type releaseVoteJSON struct {
	client.Submitted
	Rule string `json:"rule"`
	// Ended: the rule is in force no more.
	Ended bool `json:"ended"`
	// Unsure is why that is not known, "" where it is.
	Unsure string `json:"unsure,omitzero"`
}

func indented(rows [][]string) [][]string {
	for _, row := range rows {
		row[0] = "  " + row[0]
	}
	return rows
}

func (a *app) approveSettings(ctx context.Context, r *client.Registry, id record.ID, reject bool, reason string) error {
	display := func(before, proposed *record.Registry) error {
		if !a.json {
			fmt.Fprintln(a.out, "the proposal changes")
			a.table(differences(before, proposed))
		}
		return nil
	}
	vote, err := r.Approve(ctx, id, reject, reason, display)
	switch {
	case errors.Is(err, client.ErrNotEntitled):
		return fmt.Errorf("only an admin of the registry can do this: %w", err)
	case errors.Is(err, record.ErrMalformed): // a reason that is none
		return usageError{err}
	case err != nil:
		return err
	}
	if a.json {
		said := changeJSON{Submitted: vote.Submitted, Enacted: vote.Enacted, Settings: vote.Proposed}
		if vote.Unsure != nil {
			said.Unsure = vote.Unsure.Error()
		}
		return a.printJSON(said)
	}
	outcome := "approved; it waits for more votes"
	switch {
	case reject:
		outcome = "rejected, which ends it"
	case vote.Unsure != nil:
		outcome = "approved; `aln-registry settings show` tells whether it is in force (" + tidy(vote.Unsure.Error()) + ")"
	case vote.Enacted:
		outcome = "approved; it is in force now"
	}
	fmt.Fprintf(a.out, "%s: record %s, log index %d\n", outcome, vote.Record, vote.Index)
	return nil
}
