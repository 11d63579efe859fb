package state

import (
	"cmp"
	"reflect"
	"slices"
	"time"

	"phoenix-lab.org/aln-registry/did"
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

// MaxRules bounds the ids that quarantine records can be about, those that ended
// included: an id whose rule ended can be used again.
const MaxRules = 10_000

// ruleIDs counts the ids that records are about.
type ruleIDs struct {
	Count int64 `json:"count"`
}

const (
	rulePrefix = "rule/"
	keyRuleIDs = "rules"
)

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

// applyQuarantine makes a rule, or amends the one of that id. Who amends one that
// denies can only add to it: ending it takes more than one (release).
func (a *application) applyQuarantine(body *record.Quarantine) error {
	if err := a.requireRole(RoleReviewer); err != nil {
		return err
	}
	id, next := a.record.Subject().Rule(), body.QuarantineRule
	if next.Expires != nil && !a.entry.Time.Before(next.Expires.Time) {
		return refuse(ErrInvalid, "the rule would expire at %s, which is past", next.Expires)
	}
	old, ok, err := RuleOf(a.store, id)
	if err != nil {
		return err
	}
	if ok && old.InForce(a.entry.Time) {
		if old.Record != "" && reflect.DeepEqual(old.Rule, next) {
			return refuse(ErrNoChange, "the rule %s says that already", id)
		}
		if what := weakens(old.Rule, next); what != "" {
			return refuse(ErrNotEntitled, "the rule %s is in force, and an amendment may only add to what it denies: this one %s; make a narrower rule under another id, then propose to end this one with `aln-registry quarantine release %s`", id, what, id)
		}
	}
	return a.putRule(Rule{ID: id, Record: a.record.ID(), Rule: next})
}

// countRule enters an id that no record was about before.
func (a *application) countRule(id string) error {
	if _, known, err := a.store.Get(RuleKey(id)); err != nil || known {
		return err
	}
	ids, _, err := get[ruleIDs](a.store, keyRuleIDs)
	if err != nil {
		return err
	}
	if ids.Count >= MaxRules {
		return refuse(ErrInvalid, "there are %d rules, the most that there can be; use the id of one that ended", ids.Count)
	}
	ids.Count++
	return a.put(keyRuleIDs, ids)
}

// weakens says in which way next, in the place of old, would let pass what old
// denies, "" if in none. Patterns and requirements are compared as they are
// spelled: what only looks weaker is refused too.
func weakens(old, next particle.QuarantineRule) string {
	if old.Effect != particle.EffectDeny || old.Mode != particle.ModeEnforce {
		return "" // it denies nothing
	}
	switch {
	case next.Effect != particle.EffectDeny:
		return "denies nothing"
	case next.Mode != particle.ModeEnforce:
		return "is a dry run"
	case next.Expires != nil && (old.Expires == nil || next.Expires.Before(old.Expires.Time)):
		return "expires earlier"
	case next.Grace != nil && (old.Grace == nil || next.Grace.After(old.Grace.Time)):
		return "gives more grace"
	}
	for _, m := range old.Match {
		if !slices.ContainsFunc(next.Match, func(n particle.RuleMatch) bool { return covers(n, m) }) {
			return "leaves out what its match describes"
		}
	}
	return ""
}

// covers reports whether n surely matches all that m does: each of n's members
// is empty or lists all that m's does.
func covers(n, m particle.RuleMatch) bool {
	return listCovers(n.Names, m.Names) && (n.Versions == "" || n.Versions == m.Versions) && listCovers(n.Hashes, m.Hashes) &&
		listCovers(n.Publishers, m.Publishers) && listCovers(n.Sources, m.Sources) && listCovers(n.Content, m.Content)
}

func listCovers[T comparable](n, m []T) bool {
	if len(n) == 0 {
		return true
	}
	for _, v := range m {
		if !slices.Contains(n, v) {
			return false
		}
	}
	return len(m) > 0
}

// applyRelease proposes to end a rule.
func (a *application) applyRelease() error {
	if err := a.requireRole(RoleReviewer); err != nil {
		return err
	}
	rule, ok, err := RuleOf(a.store, a.record.Subject().Rule())
	switch {
	case err != nil:
		return err
	case !ok:
		return refuse(ErrMissing, "there is no rule %s", a.record.Subject().Rule())
	case !rule.InForce(a.entry.Time):
		return refuse(ErrNoChange, "the rule %s is not in force any more", rule.ID)
	case rule.Proposal != "":
		return refuse(ErrNoChange, "its release is proposed already; reviewers vote on that with `aln-registry approve %s`", rule.Proposal)
	}
	err = a.propose(Proposal{
		Base: rule.Record, Approvals: []did.DID{}, Rule: rule.ID, Proposer: a.record.Header().Signer.DID,
	})
	if err != nil {
		return err
	}
	rule.Proposal = a.record.ID()
	return a.putRule(rule)
}

// putRule writes rule, of a shipped one not what it says.
func (a *application) putRule(rule Rule) error {
	if err := a.countRule(rule.ID); err != nil {
		return err
	}
	if rule.Shipped() {
		rule.Rule = particle.QuarantineRule{}
	}
	return a.put(RuleKey(rule.ID), rule)
}
