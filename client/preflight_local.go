package client

import (
	"fmt"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
)

// noBytes stands for bytes that nobody has hashed.
var noBytes = [32]byte{0xff}

// CheckLocal holds the packages that lie in the project itself, or that a path
// leads to, against the rules in force, by their names and versions: a copy of what
// nobody may build with is no better for being vendored. What a rule says of bytes
// is not looked at here. The error is of a rule that this version cannot read.
func (b Build) CheckLocal(rules []RuleInfo, now time.Time) ([]Finding, error) {
	var named []policy.NamedRule
	for _, r := range rules {
		if r.State == RuleInForce {
			named = append(named, policy.NamedRule{ID: r.ID, QuarantineRule: r.Rule})
		}
	}
	set, err := policy.CompileRules(named)
	if err != nil {
		return nil, fmt.Errorf("the rules of the registry: %w; a newer aln-registry may know them", err)
	}
	// An auditor is bound by the rules and by nothing else.
	asker := policy.Asker{DID: "did:web:preflight.invalid", Scopes: []string{particle.ScopeAudit}}
	terms := policy.Terms{Rules: set}
	var all []Finding
	for _, p := range b.Locked {
		if p.Place.Kind != PlaceProject {
			continue
		}
		facts := policy.Facts{Kind: policy.KindCrate, Name: p.Name, Version: p.Version, Digest: noBytes, Source: particle.SourceHosted, Scanned: true}
		if d := policy.Decide(&asker, &terms, &facts, now); d.Rule == policy.RuleQuarantine && !d.Allow {
			all = append(all, found(ClauseCrates, "take it out of the project", "%s %s, which lies in the project itself, may not be built with: it is denied by rule %s %s", p.Name, p.Version, d.Rule, d.RuleID))
		}
	}
	return all, nil
}
