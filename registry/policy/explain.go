package policy

import (
	"slices"
	"time"
)

// Step is one rule's say about an artifact, for people.
type Step struct {
	Rule Rule `json:"rule"`
	// ID is a quarantine rule's or a grant's.
	ID string `json:"id"`
	// Outcome is one of the Outcome constants.
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
}

// Outcomes of a Step. The artifact is allowed iff none is OutcomeDeny, and the
// first that is names the Decision's rule.
const (
	OutcomeAllow     = "allow"
	OutcomeDeny      = "deny"
	OutcomeWouldDeny = "would_deny" // a dry run
	OutcomeGrace     = "grace"      // denied later, and already for resolvers
	OutcomeWaived    = "waived"     // the cooldown, by a rule
	OutcomeSilent    = "silent"     // a rule that describes it, or was to look into it, and says nothing now
)

// Explain says what each rule says of f, in the order in which Decide asks them.
// It tells all of it: whether the asker may know of f is the Decision's to say.
func Explain(asker *Asker, t *Terms, f *Facts, now time.Time) []Step {
	rule, text, ok := admits(asker, t, f, now)
	if !ok {
		return []Step{{Rule: rule, Outcome: OutcomeDeny, Reason: text}}
	}
	var q question
	q.pose(asker, t, f, now.Unix())
	steps := []Step{{Rule: rule, Outcome: OutcomeAllow, Reason: text}}
	quarantine, scan := q.explainRules()
	steps = append(steps, quarantine...)
	if q.grant != nil || !q.audit && !asker.Anonymous() {
		steps = append(steps, q.explainGrant())
	}
	steps = append(steps, q.explainCooldown()...)
	if slices.ContainsFunc(steps, func(s Step) bool { return s.Outcome == OutcomeDeny }) {
		for i := range scan { // what is denied anyway nobody has to look through
			scan[i].Outcome = OutcomeSilent
		}
	}
	return append(steps, scan...)
}

func ruleStep(rule Rule, r *rule, outcome string, kind say) Step {
	return Step{Rule: rule, ID: r.id, Outcome: outcome, Reason: reason{kind: kind, rule: r}.String()}
}

// explainRules: denials first, each kind by id, and last the content rules that found nothing; the
// scan that is missing apart.
func (q *question) explainRules() (steps, scan []Step) {
	for _, r := range q.terms.Rules.describing(q.facts) {
		outcome, kind := q.ruleSays(r)
		switch {
		case !r.deny: // the cooldown tells of it
		case kind == sayUnscanned && outcome == OutcomeDeny:
			scan = append(scan, ruleStep(RuleQuarantine, r.rule, outcome, kind))
		default:
			steps = append(steps, ruleStep(RuleQuarantine, r.rule, outcome, kind))
		}
	}
	for _, r := range q.terms.Rules.lookedInto(q.facts) {
		if q.at < r.expires {
			steps = append(steps, ruleStep(RuleQuarantine, r, OutcomeSilent, sayScanned))
		}
	}
	order := []string{OutcomeDeny, OutcomeGrace, OutcomeWouldDeny, OutcomeSilent}
	slices.SortStableFunc(steps, func(a, b Step) int {
		return slices.Index(order, a.Outcome) - slices.Index(order, b.Outcome)
	})
	return steps, scan
}

func (q *question) ruleSays(r described) (outcome string, kind say) {
	switch {
	case q.at >= r.expires:
		return OutcomeSilent, sayEnded
	case r.match == unscanned && r.enforced && q.at >= r.grace:
		return OutcomeDeny, sayUnscanned
	case r.match == unscanned:
		return OutcomeSilent, sayUnscanned
	case !r.enforced:
		return OutcomeWouldDeny, sayRule
	case q.at < r.grace:
		return OutcomeGrace, sayGrace
	}
	return OutcomeDeny, sayRule
}

func (q *question) explainGrant() Step {
	if q.grant == nil {
		return Step{Rule: RuleTier, Outcome: OutcomeAllow, Reason: reason{kind: sayTier}.String()}
	}
	s := Step{Rule: RuleAllowed, ID: q.grant.CID, Outcome: OutcomeAllow}
	kind := q.grant.judge(q.asker.DID, q.facts, q.at)
	if kind == sayNothing {
		kind = sayListed
	} else {
		s.Rule, s.Outcome = kind.grantRule(), OutcomeDeny
	}
	s.Reason = reason{kind: kind, grant: q.grant}.String()
	return s
}

// explainCooldown tells also of waivers that change nothing.
func (q *question) explainCooldown() []Step {
	var steps []Step
	switch young := q.young(); {
	case young:
		steps = append(steps, Step{Rule: RuleCooldown, Outcome: OutcomeDeny, Reason: reason{kind: sayYoung, at: q.due, days: q.days}.String()})
	case q.waiver == nil:
		steps = append(steps, Step{Rule: RuleCooldown, Outcome: OutcomeAllow, Reason: reason{kind: sayOld}.String()})
	}
	for _, r := range q.terms.Rules.describing(q.facts) {
		switch {
		case r.deny || r.match != hits:
		case q.at >= r.expires:
			steps = append(steps, ruleStep(RuleCooldown, r.rule, OutcomeSilent, sayEnded))
		case q.waiver != nil && r.enforced:
			steps = append(steps, ruleStep(RuleCooldown, r.rule, OutcomeWaived, sayRule))
		default:
			steps = append(steps, ruleStep(RuleCooldown, r.rule, OutcomeSilent, sayRule))
		}
	}
	return steps
}
