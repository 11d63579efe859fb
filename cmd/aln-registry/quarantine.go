package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
)

func (a *app) quarantineCommand() *cobra.Command {
	return group("quarantine", "Rules about what nobody may build with",
		a.quarantineAddCommand(),
		&cobra.Command{
			Use: "list", Short: "List the rules, and the proposals to end them", Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error { return a.quarantineList(c.Context()) },
		},
		&cobra.Command{
			Use: "show ID", Short: "Show a rule", Args: cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, args []string) error { return a.quarantineShow(c.Context(), args[0]) },
		},
		a.quarantineTestCommand(), a.quarantineReleaseCommand())
}

func (a *app) quarantineAddCommand() *cobra.Command {
	var f ruleFlags
	c := &cobra.Command{
		Use: "add ID", Short: "Make a rule, or amend one: in force from the next request on (reviewers, admins)", Args: cobra.ExactArgs(1),
		Long: "Make a rule that denies what it describes to everybody, owners too. What it describes fits all of the flags\ngiven (and any value of each): --name foo --version '<2' is every foo before 2. On a rule that there is\nalready, a shipped one among them, it amends that: what --name, --version, --hash, --publisher, --source and\n--content describe together is added to what it describes, the other flags say anew what they name, and what\nno flag names stays. A rule that is in force can only be made stricter so; to loosen or end it takes a release.\nThe difference is shown, and proposals to end the rule are void. `quarantine test` with the same flags says\nwhat it would hit.",
		RunE: func(c *cobra.Command, args []string) error {
			f.given = c.Flags().Changed
			return a.quarantineAdd(c.Context(), args[0], &f)
		},
	}
	f.register(c)
	return c
}

// madeRuleJSON is quarantine add for programs.
type madeRuleJSON struct {
	changedJSON
	Amended bool                    `json:"amended"`
	Rule    particle.QuarantineRule `json:"rule"`
}

func (a *app) quarantineAdd(ctx context.Context, id string, f *ruleFlags) error {
	if err := checkRuleID(id); err != nil {
		return err
	}
	subject, err := record.RuleSubject(id)
	if err != nil {
		return usageError{err}
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	before, err := ruleBefore(ctx, r, id)
	if err != nil {
		return err
	}
	rule, err := f.rule(ctx, r, before)
	if err != nil {
		return err
	}
	done, err := r.SignAndSubmit(ctx, client.Draft{Subject: subject, Body: &record.Quarantine{QuarantineRule: rule}})
	switch {
	case errors.Is(err, record.ErrMalformed):
		return plainly(err)
	case err != nil:
		return err
	case a.json:
		return a.printJSON(madeRuleJSON{changedJSON{subject.String(), done}, before != nil, rule})
	}
	if before == nil {
		fmt.Fprintf(a.out, "made the rule %s: record %s, log index %d\n", id, done.Record, done.Index)
		a.table(indented(ruleRows(rule)))
		a.noteAbsent(ctx, r, f.sources)
		return nil
	}
	fmt.Fprintf(a.out, "amended the rule %s: record %s, log index %d\n", id, done.Record, done.Index)
	a.table(ruleDifferences(*before, rule))
	a.noteAbsent(ctx, r, f.sources)
	return nil
}

// noteAbsent says which of sources are upstreams that the registry does not take crates from now:
// a rule about one is no mistake, but a slip of the pen looks the same.
func (a *app) noteAbsent(ctx context.Context, r *client.Registry, sources []string) {
	upstreams, _, err := r.Upstreams(ctx)
	if err != nil {
		return // the rule is made
	}
	for _, source := range sources {
		_, ok := particle.UpstreamOf(source)
		if ok && !slices.ContainsFunc(upstreams, func(u client.Upstream) bool { return u.Source == source }) {
			fmt.Fprintf(a.out, "note: this registry takes no crates from %s now (`aln-registry upstream list` says from where)\n", source)
		}
	}
}

// ruleBefore is the rule of that id in force or expired, nil where there is none.
func ruleBefore(ctx context.Context, r *client.Registry, id string) (*particle.QuarantineRule, error) {
	rule, err := r.Rule(ctx, id)
	var refused *client.APIError
	switch {
	case errors.As(err, &refused) && refused.Status == http.StatusNotFound:
		return nil, nil
	case err != nil:
		return nil, err
	case rule.State == client.RuleEnded:
		return nil, nil
	}
	return &rule.Rule, nil
}

func (a *app) quarantineList(ctx context.Context) error {
	r, err := a.open()
	if err != nil {
		return err
	}
	rules, err := r.Rules(ctx)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			Rules []client.RuleInfo `json:"rules"`
		}{append([]client.RuleInfo{}, rules...)})
	}
	rows := [][]string{{"RULE", "STATE", "EFFECT", "DESCRIBES", "REASON"}}
	for _, rule := range rules {
		rows = append(rows, []string{rule.ID, stateText(rule), effectText(rule.Rule), matchText(rule.Rule.Match), rule.Rule.Reason})
	}
	a.table(rows)
	for _, rule := range rules {
		a.printProposals(rule)
	}
	return nil
}

func (a *app) printProposals(rule client.RuleInfo) {
	for _, p := range rule.Proposals {
		if !p.Open {
			continue
		}
		fmt.Fprintf(a.out, "\nproposal %s of %s to end %s: %s\n", tidy(string(p.Record)), tidy(string(p.By)), tidy(rule.ID), counted(int64(len(p.Approvals)), "approval", "approvals"))
	}
}

func stateText(rule client.RuleInfo) string {
	state := strings.ReplaceAll(rule.State, "_", " ")
	if rule.Shipped {
		state += ", shipped"
	}
	return state
}

// effectText is what a rule does.
func effectText(r particle.QuarantineRule) string {
	switch {
	case r.Mode == particle.ModeDryRun:
		return r.Effect + " (dry run)"
	case r.Grace != nil:
		return r.Effect + ", grace " + graceText(r.Grace)
	}
	return r.Effect
}

func (a *app) quarantineShow(ctx context.Context, id string) error {
	if err := checkRuleID(id); err != nil {
		return err
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	rule, err := r.Rule(ctx, id)
	var refused *client.APIError
	switch {
	case errors.As(err, &refused) && refused.Status == http.StatusNotFound:
		return noRule(id)
	case err != nil:
		return err
	}
	if a.json {
		return a.printJSON(rule)
	}
	made := string(rule.Record)
	if rule.Shipped {
		made = "none: it is built in"
	}
	a.table(append([][]string{{"rule", rule.ID}, {"state", stateText(rule)}, {"record", made}}, ruleRows(rule.Rule)...))
	a.printProposals(rule)
	return nil
}

func noRule(id string) error {
	return fmt.Errorf("there is no rule %s; `aln-registry quarantine list` shows them", id)
}

func (a *app) quarantineTestCommand() *cobra.Command {
	var f ruleFlags
	c := &cobra.Command{
		Use: "test [ID]", Short: "Say what a rule hits, before it is made", Args: cobra.MaximumNArgs(1),
		Long: "Say which of the artifacts published here, or seen of other registries, a rule hits: one that there is, by its ID, or the one that\n`quarantine add` would make with the same flags. Nothing is entered.",
		RunE: func(c *cobra.Command, args []string) error {
			f.given = c.Flags().Changed
			return a.quarantineTest(c.Context(), append(args, "")[0], &f)
		},
	}
	f.register(c)
	return c
}

func (a *app) quarantineTest(ctx context.Context, id string, f *ruleFlags) error {
	if id != "" {
		if err := checkRuleID(id); err != nil {
			return err
		}
	}
	if id == "" && !f.describes() {
		return usageError{errors.New("quarantine test needs the ID of a rule, or what it would describe: --name, --version, --hash, --publisher, --source, --content or --rule")}
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	var before *particle.QuarantineRule
	if id != "" {
		if before, err = ruleBefore(ctx, r, id); err != nil {
			return err
		}
		if before == nil && !f.describes() {
			return noRule(id)
		}
	}
	if f.reason == "" {
		f.reason = "a test"
	}
	rule, err := f.rule(ctx, r, before)
	if err != nil {
		return err
	}
	hits, err := r.TestRule(ctx, rule)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(hits)
	}
	rows := [][]string{}
	for _, h := range hits.Hits {
		from := ""
		if h.Source != "" && h.Source != particle.SourceHosted {
			from = "from " + h.Source
		}
		rows = append(rows, []string{h.Kind + "/" + h.Name + "@" + h.Version, h.CID, from})
	}
	a.table(rows)
	fmt.Fprintf(a.out, "it hits %s\n", counted(int64(hits.Total), "version", "versions"))
	if len(hits.Hits) < hits.Total {
		fmt.Fprintf(a.err, "these are the first %d\n", len(hits.Hits))
	}
	return nil
}

func (a *app) quarantineReleaseCommand() *cobra.Command {
	var reason, evidence string
	c := &cobra.Command{
		Use: "release ID --reason TEXT", Short: "Propose to end a rule (reviewers, admins)", Args: cobra.ExactArgs(1),
		SuggestFor: []string{"remove", "delete", "end", "lift"},
		Long:       "Propose to end a rule. It ends when as many reviewers or admins as the settings say (release_k), you not\namong them, approve of it; one rejection ends the proposal, and so does a change of the rule.",
		RunE: func(c *cobra.Command, args []string) error {
			return a.quarantineRelease(c.Context(), args[0], reason, evidence)
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the log and those who vote")
	c.Flags().StringVar(&evidence, "evidence", "", "CID, or KIND/NAME@VERSION of an artifact here, that says more")
	return c
}

func (a *app) quarantineRelease(ctx context.Context, id, reason, evidence string) error {
	if err := checkRuleID(id); err != nil {
		return err
	}
	if strings.TrimSpace(reason) == "" {
		return usageError{errors.New("--reason is missing: those who vote ask why")}
	}
	subject, err := record.RuleSubject(id)
	if err != nil {
		return usageError{err}
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	body := &record.Release{Reason: reason}
	if evidence != "" {
		list, err := evidenceOf(ctx, r, []string{evidence})
		if err != nil {
			return err
		}
		body.Evidence = &list[0]
	}
	done, err := r.SignAndSubmit(ctx, client.Draft{Subject: subject, Body: body})
	switch {
	case errors.Is(err, record.ErrMalformed):
		return plainly(err)
	case err != nil:
		return err
	case a.json:
		return a.printJSON(changedJSON{subject.String(), done})
	}
	fmt.Fprintf(a.out, "proposed to end the rule %s: record %s, log index %d\n", id, done.Record, done.Index)
	needed := "as many reviewers as release_k says"
	if in, err := r.Settings(ctx); err == nil {
		needed = counted(int64(in.Settings.ReleaseK), "reviewer or admin", "reviewers or admins")
	}
	fmt.Fprintf(a.out, "It ends once %s, not you, approved:  aln-registry approve %s\n", needed, done.Record)
	return nil
}
