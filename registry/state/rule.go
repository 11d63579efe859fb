package state

import (
	"cmp"
	"slices"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
)

// Rule is a quarantine rule: one that a record made, or a shipped one.
type Rule struct {
	ID string `json:"id"`
	// Record is the quarantine record that made it or amended it last, "" for a
	// shipped rule that none is about yet.
	Record record.ID `json:"record"`
	// Ended is the approve record by which it ended, "" while it has not.
	Ended record.ID `json:"ended"`
	// Proposal is the release record that waits for votes, "" if none does.
	Proposal record.ID `json:"proposal"`
	// Rule is what it says. Of a shipped rule the state does not hold it: what this
	// version ships is filled in on reading.
	Rule particle.QuarantineRule `json:"rule,omitzero"`
}

// Shipped reports whether r still is, or ended as, what this version ships.
func (r Rule) Shipped() bool { return r.Record == "" }

// InForce reports whether r binds now (as its mode says).
func (r Rule) InForce(now time.Time) bool { return r.Ended == "" && !r.Expired(now) }

// Expired reports whether r's own time is over.
func (r Rule) Expired(now time.Time) bool {
	return r.Rule.Expires != nil && !now.Before(r.Rule.Expires.Time)
}

const rulePrefix = "rule/"

// RulePrefix begins the keys of all rules that records are about.
func RulePrefix() string { return rulePrefix }

// RuleKey is the key of the Rule id.
func RuleKey(id string) string { return rulePrefix + id }

// RuleOf returns the rule id, also a shipped one that no record is about.
func RuleOf(s Store, id string) (v Rule, ok bool, err error) {
	v, ok, err = get[Rule](s, RuleKey(id))
	if err != nil {
		return Rule{}, false, err
	}
	if !ok {
		v = Rule{ID: id}
	}
	v, shipped := v.filledIn()
	return v, ok || shipped, nil
}

// DecodeRule reads a value under RulePrefix.
func DecodeRule(value []byte) (Rule, error) {
	v, err := decode[Rule](value)
	if err != nil {
		return Rule{}, err
	}
	v, _ = v.filledIn()
	return v, nil
}

// filledIn returns r with what this version ships, where that is what it is.
func (r Rule) filledIn() (filled Rule, shipped bool) {
	if r.Record != "" {
		return r, false
	}
	r.Rule, shipped = particle.Shipped(r.ID)
	return r, shipped
}

// AllRules returns the rules that the state holds and the shipped ones that it
// does not, in the order of their ids.
func AllRules(held []Rule) []Rule {
	all := slices.Clone(held)
	for _, shipped := range particle.ShippedRules() {
		if !slices.ContainsFunc(held, func(r Rule) bool { return r.ID == shipped.ID }) {
			all = append(all, Rule{ID: shipped.ID, Rule: shipped.QuarantineRule})
		}
	}
	slices.SortFunc(all, func(a, b Rule) int { return cmp.Compare(a.ID, b.ID) })
	return all
}
