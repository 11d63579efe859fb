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
	OutcomeSilent    = "silent"     // a rule that describes it and says nothing now
)

// Explain says what each rule says of f, in the order in which Decide asks them.
// It tells all of it: whether the asker may know of f is the Decision's to say.
func Explain(asker *Asker, t *Terms, f *Facts, now time.Time) []Step {
	if d, ok := admits(asker, t, f, now); !ok {
		return []Step{{Rule: d.Rule, ID: d.RuleID, Outcome: OutcomeDeny, Reason: d.Reason()}}
	}
	q := caseOf(asker, t, f, now.Unix())
	rule, text, _ := gate(asker, &t.Settings)
	steps := []Step{{Rule: rule, Outcome: OutcomeAllow, Reason: text}}
	quarantine, scan := q.explainRules()
	steps = append(steps, quarantine...)
	if !q.audit && !asker.Anonymous() {
		steps = append(steps, q.explainGrant())
	}
	return append(append(steps, q.explainCooldown()...), scan...)
}

func step(rule Rule, id, outcome string, r reason) Step {
	return Step{Rule: rule, ID: id, Outcome: outcome, Reason: r.String()}
}

// explainRules: denials first, each kind by id; the scan that is missing apart.
func (q *question) explainRules() (steps, scan []Step) {
	for _, r := range q.terms.Rules.describing(q.facts) {
		text := reason{kind: sayText, text: r.reason}
		switch {
		case !r.deny: // the cooldown tells of it
		case q.at >= r.expires:
			steps = append(steps, step(RuleQuarantine, r.id, OutcomeSilent, reason{kind: sayText, text: "the rule ended at " + second(r.expires)}))
		case r.match == unscanned && r.enforced && q.at >= r.grace:
			scan = append(scan, step(RuleQuarantine, r.id, OutcomeDeny, reason{kind: sayUnscanned}))
		case r.match == unscanned:
			steps = append(steps, step(RuleQuarantine, r.id, OutcomeSilent, reason{kind: sayUnscanned}))
		case !r.enforced:
			steps = append(steps, step(RuleQuarantine, r.id, OutcomeWouldDeny, text))
		case q.at < r.grace:
			steps = append(steps, step(RuleQuarantine, r.id, OutcomeGrace, reason{kind: sayGrace, text: r.reason, at: r.grace}))
		default:
			steps = append(steps, step(RuleQuarantine, r.id, OutcomeDeny, text))
		}
	}
	order := []string{OutcomeDeny, OutcomeGrace, OutcomeWouldDeny, OutcomeSilent}
	slices.SortStableFunc(steps, func(a, b Step) int {
		return slices.Index(order, a.Outcome) - slices.Index(order, b.Outcome)
	})
	return steps, scan
}

func (q *question) explainGrant() Step {
	if q.grant == nil {
		return step(RuleTier, "", OutcomeAllow, reason{kind: sayText, text: "hosts of this tier read without an EnvGrant, and none is in force"})
	}
	if r := q.grant.judge(q.asker.DID, q.facts, q.at); r.kind != sayNothing {
		return step(ruleOf(r), q.grant.CID, OutcomeDeny, r)
	}
	return step(RuleAllowed, q.grant.CID, OutcomeAllow, reason{kind: sayText, text: "the EnvGrant allows it"})
}

// explainCooldown tells also of waivers that change nothing.
func (q *question) explainCooldown() []Step {
	var steps []Step
	young := q.cooldown()
	switch {
	case young.kind != sayNothing:
		steps = append(steps, step(RuleCooldown, "", OutcomeDeny, young))
	case q.waiver == nil:
		steps = append(steps, step(RuleCooldown, "", OutcomeAllow, reason{kind: sayText, text: "no cooldown holds it back"}))
	}
	for _, r := range q.terms.Rules.describing(q.facts) {
		if r.deny || r.match != hits {
			continue
		}
		outcome := OutcomeSilent
		if q.waiver != nil && r.enforced && q.at < r.expires {
			outcome = OutcomeWaived
		}
		steps = append(steps, step(RuleCooldown, r.id, outcome, reason{kind: sayText, text: r.reason}))
	}
	return steps
}
