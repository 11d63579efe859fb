package policy

import (
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/storage"
)

// goodGrant lists hash 1 and is in force now.
func goodGrant(tb testing.TB) particle.EnvGrant {
	one := hashOf(1)
	return particle.EnvGrant{
		Registry: newKey(tb, 1).Public().DID(), Issuer: newKey(tb, 3).Public().DID(), Subject: newKey(tb, 2).Public().DID(),
		NotBefore: particle.At(now.Add(-time.Hour)), Expires: particle.At(now.Add(time.Hour)),
		AllowedCrates: []string{storage.CIDFromDigest(one).Hex()}, AllowedProtocols: []string{}, AllowedEndpoints: []string{},
		Tier: particle.TierGuest,
	}
}

// goodFacts are of a crate that was published a month ago and scanned.
func goodFacts(tb testing.TB) Facts {
	return Facts{
		Kind: KindCrate, Name: "demo", Version: "1.2.0", Digest: hashOf(1), Publisher: newKey(tb, 4).Public().DID(),
		Source: particle.SourceHosted, Since: now.Add(-30 * 24 * time.Hour), Scanned: true,
	}
}

func ruleWith(id, effect string, match ...particle.RuleMatch) NamedRule {
	for i := range match {
		m := &match[i]
		m.Names, m.Hashes, m.Publishers = some(m.Names), some(m.Hashes), some(m.Publishers)
		m.Sources, m.Content = some(m.Sources), some(m.Content)
	}
	return NamedRule{id, particle.QuarantineRule{Effect: effect, Mode: particle.ModeEnforce, Match: match, Reason: "because of " + id}}
}

func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func denyRule(id string, match ...particle.RuleMatch) NamedRule {
	return ruleWith(id, particle.EffectDeny, match...)
}

func waiveRule(id string, match ...particle.RuleMatch) NamedRule {
	return ruleWith(id, particle.EffectWaiveMinAge, match...)
}

func compiled(tb testing.TB, rules ...NamedRule) *RuleSet {
	tb.Helper()
	s, err := CompileRules(rules)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func names(list ...string) particle.RuleMatch { return particle.RuleMatch{Names: list} }

// asked is a question that is answered with yes; cases alter it.
type asked struct {
	asker Asker
	terms Terms
	facts Facts
	rules []NamedRule
	grant *particle.EnvGrant
	list  []byte
	now   time.Time
}

func goodAsked(tb testing.TB) *asked {
	asker := Asker{DID: newKey(tb, 2).Public().DID(), Scopes: []string{particle.ScopeRead}, Tier: particle.TierGuest}
	return &asked{asker: asker, facts: goodFacts(tb), now: now}
}

// under puts the grant, altered, over the asker.
func (a *asked) under(tb testing.TB, alter func(*particle.EnvGrant)) {
	g := goodGrant(tb)
	if alter != nil {
		alter(&g)
	}
	a.grant = &g
}

func (a *asked) compile(tb testing.TB) {
	tb.Helper()
	a.terms.Rules = compiled(tb, a.rules...)
	if a.grant != nil {
		a.asker.Grant = CompileGrant("bafkrei-grant", *a.grant, a.list, a.list != nil)
	}
}

func (a *asked) decide(tb testing.TB) Decision {
	tb.Helper()
	a.compile(tb)
	return Decide(&a.asker, &a.terms, &a.facts, a.now)
}

func somebody(tb testing.TB) []did.DID { return []did.DID{newKey(tb, 4).Public().DID()} }
