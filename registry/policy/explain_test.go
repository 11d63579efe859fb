package policy

import (
	"slices"
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
		{"cooldown", "", "deny"}, {"cooldown", "lapsed", "silent"}, {"quarantine", "content", "deny"},
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
