package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// States of a rule.
const (
	RuleInForce = "in_force"
	RuleExpired = "expired"
	RuleEnded   = "ended"
)

// RuleInfo is a quarantine rule with its state now and the proposals to end it.
type RuleInfo struct {
	state.Rule
	State     string
	Proposals []ReleaseProposal
}

// ReleaseProposal is a proposal to end a rule.
type ReleaseProposal struct {
	state.Proposal
	// StillOpen: reviewers can vote on it now.
	StillOpen bool
}

// RulesWithVotes returns all rules, shipped and ended ones too, in the order of
// their ids, each with its proposals, the oldest first.
func (r *Registry) RulesWithVotes(ctx context.Context) ([]RuleInfo, error) {
	rules, err := r.Rules(ctx)
	if err != nil {
		return nil, err
	}
	proposals, err := r.releases(ctx, rules, mostProposals)
	if err != nil {
		return nil, err
	}
	now := r.Clock()
	infos := make([]RuleInfo, len(rules))
	for i, rule := range rules {
		infos[i] = RuleInfo{Rule: rule, State: stateOf(rule, now)}
		for _, p := range proposals[rule.ID] {
			infos[i].Proposals = append(infos[i].Proposals, ReleaseProposal{p, p.Open && p.Record == rule.Proposal && rule.InForce(now)})
		}
	}
	return infos, nil
}

// RuleWithVotes is one of RulesWithVotes. ErrNotFound when there is none.
func (r *Registry) RuleWithVotes(ctx context.Context, id string) (RuleInfo, error) {
	if err := particle.CheckRuleID(id); err != nil {
		return RuleInfo{}, fmt.Errorf("%w: %v", ErrNotFound, err)
	}
	rules, err := r.RulesWithVotes(ctx)
	if err != nil {
		return RuleInfo{}, err
	}
	i := slices.IndexFunc(rules, func(rule RuleInfo) bool { return rule.ID == id })
	if i < 0 {
		return RuleInfo{}, fmt.Errorf("%w: there is no rule %s", ErrNotFound, id)
	}
	return rules[i], nil
}

func stateOf(rule state.Rule, now time.Time) string {
	switch {
	case rule.Ended != "":
		return RuleEnded
	case rule.Expired(now):
		return RuleExpired
	}
	return RuleInForce
}

// releases are all proposals to end rules, by the rule, in the order of the log.
// Where there have been most of any kind they are the open ones alone, so that no
// reviewer who proposes over and over keeps the others from seeing and voting.
func (r *Registry) releases(ctx context.Context, rules []state.Rule, most int) (map[string][]state.Proposal, error) {
	prefix := state.ProposalPrefix()
	rows, err := r.Catalog.StateRange(ctx, prefix, catalog.PrefixEnd(prefix), r.Size(), most)
	if err != nil {
		return nil, err
	}
	if len(rows) == most {
		return r.openReleases(ctx, rules)
	}
	slices.SortStableFunc(rows, func(a, b catalog.StateRow) int { return int(a.Index - b.Index) })
	found := map[string][]state.Proposal{}
	for _, row := range rows {
		p, err := state.DecodeProposal(row.Value)
		if err != nil {
			return nil, err
		}
		if p.Rule != "" {
			found[p.Rule] = append(found[p.Rule], p)
		}
	}
	return found, nil
}

// openReleases are the proposals that rules wait for, by the rule.
func (r *Registry) openReleases(ctx context.Context, rules []state.Rule) (map[string][]state.Proposal, error) {
	s, found := r.visible(ctx), map[string][]state.Proposal{}
	for _, rule := range rules {
		if rule.Proposal == "" {
			continue
		}
		p, ok, err := state.ProposalOf(s, rule.Proposal)
		if err != nil {
			return nil, err
		}
		if ok {
			found[rule.ID] = []state.Proposal{p}
		}
	}
	return found, nil
}

// Hit is a version, published here or seen of another registry, that a rule describes.
type Hit struct {
	Kind    record.Kind
	Name    string
	Version string
	CID     storage.CID
	Source  string // as in Judged
}

// Bounds on a rule's test.
const (
	mostHits   = 1000
	testPeriod = time.Minute
	testPage   = 1000
)

// TestRule says what rule would hit among what is published, then what was seen of other
// registries, as far as asker may know of it: the first 1,000, and how many there are. Where
// it asks what bytes hold, those published here that were not looked at yet are. ErrRequest for a rule that is none; ErrUnavailable where
// it takes more than a minute.
func (r *Registry) TestRule(ctx context.Context, asker policy.Asker, rule particle.QuarantineRule) (hits []Hit, total int, err error) {
	if err := rule.Check(); err != nil {
		return nil, 0, fmt.Errorf("%w: %v", ErrRequest, err)
	}
	set, err := policy.CompileRules([]policy.NamedRule{{ID: "tested", QuarantineRule: rule}})
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %v", ErrRequest, err)
	}
	t := r.published.Load().terms
	if err := r.gate(&asker, t); err != nil {
		return nil, 0, err
	}
	limited, cancel := context.WithTimeout(ctx, testPeriod)
	defer cancel()
	inside := asksInside(state.Rule{Rule: rule})
	add := func(v state.Version, source string) {
		if total++; total <= mostHits {
			hits = append(hits, Hit{v.Kind, v.Name, v.Version, v.CID, source})
		}
	}
	err = r.eachVersion(limited, func(v state.Version) error {
		hit, err := r.ruleHits(limited, &asker, t, set, v, inside)
		if err == nil && hit {
			add(v, particle.SourceHosted)
		}
		return err
	})
	if err == nil {
		err = r.eachUpstream(limited, func(l *lineage) error { return r.upstreamHits(limited, &asker, t, set, l, inside, add) })
	}
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = fmt.Errorf("%w: to try the rule on everything takes more than %s now; what was looked at is remembered", ErrUnavailable, testPeriod)
	}
	if err != nil {
		return nil, 0, err
	}
	return hits, total, nil
}

// ruleHits reports whether the only rule of set describes v, and asker may know of v.
func (r *Registry) ruleHits(ctx context.Context, asker *policy.Asker, t *terms, set *policy.RuleSet, v state.Version, inside bool) (bool, error) {
	f := plainFacts(v)
	hit := len(set.Hits(&f)) > 0
	if !hit && inside {
		var err error
		if f, err = r.inside(ctx, v, f); err != nil {
			return false, err
		}
		hit = len(set.Hits(&f)) > 0
	}
	if !hit || !hides(asker) {
		return hit, nil
	}
	d := policy.Decide(asker, &t.Terms, &f, r.Clock())
	return d.Known, nil
}

// eachVersion calls see for every published version, in the order of their keys,
// some in memory at once.
func (r *Registry) eachVersion(ctx context.Context, see func(state.Version) error) error {
	at := r.Size()
	from, end := state.VersionsPrefix(), catalog.PrefixEnd(state.VersionsPrefix())
	for {
		rows, err := r.Catalog.StateRange(ctx, from, end, at, testPage)
		if err != nil {
			return err
		}
		for _, row := range rows {
			v, err := state.DecodeVersion(row.Value)
			if err == nil {
				err = see(v)
			}
			if err != nil {
				return err
			}
		}
		if len(rows) < testPage {
			return nil
		}
		from = rows[len(rows)-1].Key + "\x01"
	}
}
