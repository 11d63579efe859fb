package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// mostRules bounds the rules that can be in force; ended ones count too, since
// state keeps them.
const mostRules = 100_000

// terms are what binds everybody at some size of the log, made ready once per
// change of a rule or of the settings. They are shown together with the size, so
// that whoever asks after a change was acknowledged is judged by it.
type terms struct {
	policy.Terms
	// epoch is the index of the last record about a rule or the settings: what was
	// decided under another epoch is decided anew.
	epoch int64
	// inside are the rules, not ended, that ask what bytes hold.
	inside []state.Rule
}

// Rules returns the rules at the published size, shipped and ended ones too, in
// the order of their ids.
func (r *Registry) Rules(ctx context.Context) ([]state.Rule, error) {
	rules, _, err := r.rulesAt(ctx, r.Size())
	return rules, err
}

// rulesAt returns the rules at a size, and the index of the last change of any.
func (r *Registry) rulesAt(ctx context.Context, size int64) (rules []state.Rule, epoch int64, err error) {
	prefix := state.RulePrefix()
	rows, err := r.Catalog.StateRange(ctx, prefix, catalog.PrefixEnd(prefix), size, mostRules)
	if err != nil {
		return nil, 0, err
	}
	if len(rows) == mostRules { // better none than all but one
		return nil, 0, fmt.Errorf("there have been more than %d rules", mostRules)
	}
	var held []state.Rule
	for _, row := range rows {
		rule, err := state.DecodeRule(row.Value)
		if err != nil {
			return nil, 0, err
		}
		held, epoch = append(held, rule), max(epoch, row.Index)
	}
	return state.AllRules(held), epoch, nil
}

// termsAt makes ready what binds everybody at a size whose settings are s. Where
// a rule cannot be made ready nothing is allowed, until a record mends that.
func (r *Registry) termsAt(ctx context.Context, s state.Settings, size int64) (*terms, error) {
	rules, epoch, err := r.rulesAt(ctx, size)
	if err != nil {
		return nil, err
	}
	head, _, err := state.HeadOf(r.viewAt(ctx, &r.Catalog.Reader, size), record.RegistrySubject().Thing())
	if err != nil {
		return nil, err
	}
	t := &terms{epoch: max(epoch, head.Index)}
	var named []policy.NamedRule
	for _, rule := range rules {
		if rule.Ended == "" {
			if asksInside(rule) {
				t.inside = append(t.inside, rule)
			}
			named = append(named, policy.NamedRule{ID: rule.ID, QuarantineRule: rule.Rule})
		}
	}
	set, err := policy.CompileRules(named)
	if err != nil {
		r.Log.Error("a rule cannot be read: nothing may be read here until it is amended or released", "error", err)
		set = nil
	}
	t.Terms = policy.Terms{
		Settings:   policy.Settings{AnonymousRead: r.AnonymousRead, DenyTiers: deniedTiers(s.TierDefault)},
		MinAgeDays: int64(s.MinAgeDays), Rules: set,
	}
	return t, nil
}

func deniedTiers(d record.TierDefault) (denied []string) {
	for _, of := range []struct {
		tier   string
		access record.TierAccess
	}{
		{particle.TierCoreStakeholder, d.CoreStakeholder}, {particle.TierCollaborator, d.Collaborator}, {particle.TierGuest, d.Guest},
	} {
		if of.access != record.Allow {
			denied = append(denied, of.tier)
		}
	}
	return denied
}

func asksInside(r state.Rule) bool {
	return slices.ContainsFunc(r.Rule.Match, func(m particle.RuleMatch) bool { return len(m.Content) > 0 })
}

// looksInside reports whether a rule in force now asks what bytes hold, so that
// they have to be looked at.
func (t *terms) looksInside(now time.Time) bool {
	return slices.ContainsFunc(t.inside, func(r state.Rule) bool { return r.InForce(now) })
}

// bindsEverybody reports whether a change of t is one of the rules or the settings.
func bindsEverybody(t thing) bool {
	return t.family == stateFamily && (strings.HasPrefix(t.name, state.RulePrefix()) || t.name == state.SettingsKey())
}
