package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
)

func TestExplainTellsTheRulesInTheirOrder(t *testing.T) {
	a := goodAsked(t)
	a.under(t, func(g *particle.EnvGrant) { g.MinAgeDays = 3 })
	a.facts.Scanned, a.facts.Digest, a.facts.Since = false, hashOf(9), now
	dry, grace, ended := denyRule("dry", names("demo")), denyRule("grace", names("demo")), denyRule("ended", names("demo"))
	dry.Mode = particle.ModeDryRun
	later, past := particle.At(now.Add(time.Hour)), particle.At(now)
	grace.Grace, ended.Expires = &later, &past
	lapsed := waiveRule("lapsed", names("demo"))
	lapsed.Expires = &past
	a.rules = []NamedRule{
		dry, grace, ended, denyRule("z", names("demo")), denyRule("b", names("demo")), denyRule("missed", names("x")),
		denyRule("content", particle.RuleMatch{Content: []string{"blake3"}}), lapsed,
	}
	a.compile(t)
	want := [][3]string{
		{"scope", "", "allow"}, {"quarantine", "b", "deny"}, {"quarantine", "z", "deny"}, {"quarantine", "grace", "grace"},
		{"quarantine", "dry", "would_deny"}, {"quarantine", "ended", "silent"}, {"allowed-crates", "bafkrei-grant", "deny"},
		{"cooldown", "", "deny"}, {"cooldown", "lapsed", "silent"}, {"quarantine", "content", "silent"},
	}
	if got := outline(t, Explain(&a.asker, &a.terms, &a.facts, now)); !slices.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
	a.facts.Digest, a.facts.Scanned = hashOf(1), true
	a.rules = []NamedRule{waiveRule("waived", names("demo"))}
	a.compile(t)
	want = [][3]string{{"scope", "", "allow"}, {"allowed-crates", "bafkrei-grant", "allow"}, {"cooldown", "waived", "waived"}}
	if got := outline(t, Explain(&a.asker, &a.terms, &a.facts, now)); !slices.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
	a.asker.Grant = nil
	want = [][3]string{{"scope", "", "allow"}, {"tier-default", "", "allow"}, {"cooldown", "", "allow"}, {"cooldown", "waived", "silent"}}
	if got := outline(t, Explain(&a.asker, &a.terms, &a.facts, now)); !slices.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
	a.asker.Barred = deny(RuleGrant, "revoked")
	want = [][3]string{{"grant", "", "deny"}}
	if got := outline(t, Explain(&a.asker, &a.terms, &a.facts, now)); !slices.Equal(got, want) {
		t.Errorf("somebody barred is told of rules: %v", got)
	}
}

// That bytes were looked through, and nothing was found, is said of each rule that asks for it; of a
// rule that describes the crate by another of its members, or has ended, it is not.
func TestExplainSaysWhatWasLookedForAndNotFound(t *testing.T) {
	a := goodAsked(t)
	past := particle.At(now)
	ended := denyRule("ended", particle.RuleMatch{Content: []string{"blake3"}})
	ended.Expires = &past
	a.facts.Scanned = true
	a.rules = []NamedRule{
		denyRule("content", particle.RuleMatch{Content: []string{"blake3"}}), ended,
		denyRule("elsewhere", particle.RuleMatch{Names: []string{"x"}, Content: []string{"blake3"}}),
	}
	a.compile(t)
	var said []string
	for _, s := range Explain(&a.asker, &a.terms, &a.facts, now) {
		if s.Rule == RuleQuarantine {
			said = append(said, s.ID+" "+s.Outcome+" "+s.Reason)
		}
	}
	if len(said) != 1 || !strings.HasPrefix(said[0], "content silent its bytes were looked through") {
		t.Errorf("%q", said)
	}
	a.facts.Findings = []string{"blake3"}
	for _, s := range Explain(&a.asker, &a.terms, &a.facts, now) {
		if strings.Contains(s.Reason, "looked through") {
			t.Errorf("%+v, though it was found", s)
		}
	}
}

// What is not known of bytes that were not scanned denies only where the rule is enforced, and its grace over.
func TestExplainAContentRuleWithoutAScan(t *testing.T) {
	later := particle.At(now.Add(time.Hour))
	for want, alter := range map[string]func(*NamedRule){
		OutcomeDeny:         func(*NamedRule) {},
		OutcomeSilent:       func(r *NamedRule) { r.Mode = particle.ModeDryRun },
		OutcomeSilent + " ": func(r *NamedRule) { r.Grace = &later },
	} {
		a := goodAsked(t)
		a.facts.Scanned = false
		r := denyRule("r", particle.RuleMatch{Content: []string{"blake3"}})
		alter(&r)
		a.rules = []NamedRule{r}
		a.compile(t)
		steps := Explain(&a.asker, &a.terms, &a.facts, now)
		if i := slices.IndexFunc(steps, func(s Step) bool { return s.ID == "r" }); i < 0 || steps[i].Outcome != strings.TrimSpace(want) {
			t.Errorf("%s: %+v", want, steps)
		}
	}
}

func outline(t *testing.T, steps []Step) (all [][3]string) {
	t.Helper()
	for _, s := range steps {
		if s.Reason == "" {
			t.Errorf("no words: %+v", s)
		}
		all = append(all, [3]string{string(s.Rule), s.ID, s.Outcome})
	}
	return all
}
