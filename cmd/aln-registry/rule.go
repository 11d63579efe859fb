package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/storage"
)

// ruleFlags are what quarantine add and test are told of a rule.
type ruleFlags struct {
	names, hashes, publishers, sources, content []string
	versions, reason, evidence, expires, grace  string
	mode, effect, file                          string
	dryRun                                      bool
	given                                       func(flag string) bool
}

// never is the time that takes --expires or --grace from a rule.
const never = "never"

// matchFlags are those that describe what a rule hits.
var matchFlags = []string{"name", "version", "hash", "publisher", "source", "content"}

func (f *ruleFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringSliceVar(&f.names, "name", nil, "name, or `PATTERN` in which * is anything; case, - and _ alike (repeatable)")
	flags.StringVar(&f.versions, "version", "", "requirement on the version, as in Cargo.toml: '<2', '>=1.2, <1.4'; '=1.2.3' is that one alone, '1.2.3' all that are compatible with it")
	flags.StringSliceVar(&f.hashes, "hash", nil, "sha256 or CID of the bytes (repeatable)")
	flags.StringSliceVar(&f.publishers, "publisher", nil, "`DID` of the publisher (repeatable)")
	flags.StringSliceVar(&f.sources, "source", nil, "where it comes from: hosted, crates-io, upstream/NAME, mirror/NAME (repeatable)")
	flags.StringSliceVar(&f.content, "content", nil, "what is recognised in the bytes: blake3 (repeatable)")
	flags.StringVar(&f.reason, "reason", "", "why; it is printed to everybody whom the rule stops")
	flags.StringVar(&f.evidence, "evidence", "", "CID, or KIND/NAME@VERSION of an artifact here, that says more")
	flags.StringVar(&f.expires, "expires", "", "when the rule ends: a time from now such as 12h or 30d, a day or second in UTC, or never")
	flags.StringVar(&f.grace, "grace", "", "until when locked builds still download what it hits, written as --expires; never: not at all")
	flags.StringVar(&f.mode, "mode", "", "enforce (default), or dry_run: it only tells what it would deny")
	flags.BoolVar(&f.dryRun, "dry-run-rule", false, "the same as --mode dry_run")
	flags.StringVar(&f.effect, "effect", "", "deny (default), or waive_min_age: what it describes waits for no cooldown")
	flags.StringVar(&f.file, "rule", "", "`FILE` with a whole rule in JSON, as quarantine show --json prints under rule")
	c.MarkFlagsMutuallyExclusive("mode", "dry-run-rule")
}

// describes reports whether the flags say what a rule hits.
func (f *ruleFlags) describes() bool {
	return f.file != "" || slices.ContainsFunc(matchFlags, f.given)
}

// rule is the rule that the flags make: of before, where there is one.
func (f *ruleFlags) rule(ctx context.Context, r *client.Registry, before *particle.QuarantineRule) (particle.QuarantineRule, error) {
	now, err := r.Time()
	if err != nil {
		return particle.QuarantineRule{}, err
	}
	var evidence *storage.CID
	if f.evidence != "" {
		list, err := evidenceOf(ctx, r, []string{f.evidence})
		if err != nil {
			return particle.QuarantineRule{}, err
		}
		evidence = &list[0]
	}
	return f.compose(before, evidence, now)
}

// compose is rule with all that had to be asked for.
func (f *ruleFlags) compose(before *particle.QuarantineRule, evidence *storage.CID, now time.Time) (rule particle.QuarantineRule, err error) {
	rule = particle.QuarantineRule{Effect: particle.EffectDeny, Mode: particle.ModeEnforce}
	if before != nil {
		rule = *before
	}
	if f.file != "" {
		raw, err := readSmallFile(f.file)
		if err != nil {
			return rule, fmt.Errorf("--rule: %w", err)
		}
		rule = particle.QuarantineRule{}
		if err := json.Unmarshal(raw, &rule, json.RejectUnknownMembers(true)); err != nil {
			return rule, fmt.Errorf("--rule %s: %w", f.file, err)
		}
	}
	if slices.ContainsFunc(matchFlags, f.given) {
		match, err := f.match()
		if err != nil {
			return rule, err
		}
		if !slices.ContainsFunc(rule.Match, func(m particle.RuleMatch) bool { return reflect.DeepEqual(m, match) }) {
			rule.Match = append(slices.Clip(rule.Match), match)
		}
	}
	for _, s := range []struct {
		to   *string
		from string
	}{{&rule.Reason, f.reason}, {&rule.Mode, f.mode}, {&rule.Effect, f.effect}} {
		if s.from != "" {
			*s.to = s.from
		}
	}
	if f.dryRun {
		rule.Mode = particle.ModeDryRun
	}
	if evidence != nil {
		rule.Evidence = evidence
	}
	for _, t := range []struct {
		to         **particle.Time
		flag, from string
	}{{&rule.Expires, "expires", f.expires}, {&rule.Grace, "grace", f.grace}} {
		if err := setTime(t.to, t.flag, t.from, now); err != nil {
			return rule, err
		}
	}
	return rule, checkRule(rule)
}

func setTime(to **particle.Time, flag, text string, now time.Time) error {
	switch text {
	case "":
		return nil
	case never:
		*to = nil
		return nil
	}
	t, err := parseTime(flag, text, now)
	if err == nil && !now.Before(t.Time) {
		return usageError{fmt.Errorf("--%s %s: that is past; to take it from the rule write never", flag, text)}
	}
	*to = &t
	return err
}

// match is what the flags describe.
func (f *ruleFlags) match() (particle.RuleMatch, error) {
	for _, name := range f.names {
		if name, version, ok := strings.Cut(name, "@"); ok {
			return particle.RuleMatch{}, usageError{fmt.Errorf("--name holds no version; write --name '%.80s' --version '=%.80s'", name, version)}
		}
	}
	publishers, err := parseDIDs("--publisher", f.publishers)
	return particle.RuleMatch{
		Names: append([]string{}, f.names...), Versions: f.versions, Hashes: append([]string{}, f.hashes...),
		Publishers: append([]did.DID{}, publishers...), Sources: append([]string{}, f.sources...), Content: append([]string{}, f.content...),
	}, err
}

// checkRule says, before anything is signed, what the registry would refuse.
func checkRule(rule particle.QuarantineRule) error {
	switch {
	case len(rule.Match) == 0:
		return usageError{errors.New("what is the rule about? Give at least one of --" + strings.Join(matchFlags, ", --") + ", --rule")}
	case rule.Reason == "":
		return usageError{errors.New("--reason is missing: it is printed to everybody whom the rule stops")}
	}
	if err := rule.Check(); err != nil {
		return usageError{errors.New(strings.TrimPrefix(err.Error(), particle.ErrMalformed.Error()+": "))}
	}
	for _, m := range rule.Match {
		if m.Versions == "" {
			continue
		}
		if _, err := cargo.ParseReq(m.Versions); err != nil {
			return usageError{fmt.Errorf("--version: %w", err)}
		}
	}
	return nil
}

// matchText is what a rule describes, in a line.
func matchText(matches []particle.RuleMatch) string {
	var all []string
	for _, m := range matches {
		var says []string
		for _, l := range []struct {
			what string
			list []string
		}{{"", m.Names}, {"version ", nonEmpty(m.Versions)}, {"hash ", m.Hashes}, {"publisher ", didTexts(m.Publishers)}, {"source ", m.Sources}, {"content ", m.Content}} {
			if len(l.list) > 0 {
				says = append(says, l.what+strings.Join(l.list, "|"))
			}
		}
		all = append(all, strings.Join(says, " and "))
	}
	return strings.Join(all, "; or ")
}

func nonEmpty(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

func didTexts(list []did.DID) []string {
	var texts []string
	for _, d := range list {
		texts = append(texts, string(d))
	}
	return texts
}

// ruleRows are a rule for people: a name and a value each.
func ruleRows(r particle.QuarantineRule) [][]string {
	return [][]string{
		{"effect", r.Effect}, {"mode", r.Mode}, {"match", matchText(r.Match)}, {"reason", r.Reason},
		{"evidence", cidText(r.Evidence)}, {"expires", timeText(r.Expires)}, {"grace", graceText(r.Grace)},
	}
}

func timeText(t *particle.Time) string {
	if t == nil {
		return never
	}
	return t.String()
}

func graceText(t *particle.Time) string {
	if t == nil {
		return "none"
	}
	return "until " + t.String()
}

// ruleDifferences are the rows in which two rules differ: name, before, after.
func ruleDifferences(before, after particle.QuarantineRule) [][]string {
	var rows [][]string
	old := ruleRows(before)
	for i, row := range ruleRows(after) {
		if row[1] != old[i][1] {
			rows = append(rows, []string{"  " + row[0], old[i][1], "->", row[1]})
		}
	}
	return rows
}
