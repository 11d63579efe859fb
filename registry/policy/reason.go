package policy

import (
	"fmt"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
)

// reason is what a Decision says in words, before anybody has asked for them.
type reason struct {
	kind say
	text string
	// rule and grant are those of the kinds that tell of one.
	rule  *rule
	grant *Grant
	// at is in Unix seconds.
	at, days int64
}

type say uint8

const (
	sayNothing say = iota
	// What text says.
	sayText
	// Of a quarantine rule.
	sayRule
	sayGrace
	sayUnscanned
	sayScanned
	sayEnded
	// Of the cooldown.
	sayYoung
	sayOld
	// Of a grant that does not allow it.
	sayForeign
	sayTooEarly
	sayTooLate
	sayUnreadable
	sayUnlisted
	sayNotNamed
	// Of what allows it.
	sayListed
	sayAudit
	sayEverybody
	sayTier
)

// said are the kinds that are the same words always.
var said = map[say]string{
	sayUnscanned: "its bytes have not yet been looked through for what the rule is about",
	sayScanned:   "its bytes were looked through for what the rule is about, and nothing of it was found",
	sayOld:       "no cooldown holds it back",
	sayForeign:   "the EnvGrant is another host's",
	sayUnlisted:  "the EnvGrant does not list it",
	sayNotNamed:  "the EnvGrant is offshore, and neither names nor lists it",
	sayListed:    "the EnvGrant allows it",
	sayAudit:     "the session is for an audit",
	sayEverybody: "this registry lets everybody read",
	sayTier:      "hosts of this tier read without an EnvGrant, and none is in force for this one",
}

// String makes the words.
func (r reason) String() string {
	switch r.kind {
	case sayText:
		return r.text
	case sayRule:
		return r.rule.reason
	case sayGrace:
		return fmt.Sprintf("only builds whose lockfile has it still get it, until %s: %s", second(r.rule.grace), r.rule.reason)
	case sayEnded:
		return "the rule ended at " + second(r.rule.expires)
	case sayYoung:
		if r.at == never {
			return fmt.Sprintf("it has to be %d days old, and nobody knows when it is", r.days)
		}
		return fmt.Sprintf("it has to be %d days old, which it is at %s", r.days, second(r.at))
	case sayTooEarly:
		return "the EnvGrant is in force only from " + second(r.grant.from) + " on"
	case sayTooLate:
		return "the EnvGrant ended at " + second(r.grant.to)
	case sayUnreadable:
		return "the EnvGrant allows nothing: " + r.grant.unreadable
	}
	return said[r.kind]
}

func second(at int64) string { return particle.At(time.Unix(at, 0)).String() }

// grantRule names the rule of what a grant says.
func (s say) grantRule() Rule {
	switch s {
	case sayUnlisted, sayNotNamed, sayUnreadable:
		return RuleAllowed
	}
	return RuleGrant
}

// Reason says why in words, for the one who asked.
func (d Decision) Reason() string { return d.say.String() }

// Denial is the decision as an error, nil if it allows.
func (d Decision) Denial() *Denial {
	if d.Allow {
		return nil
	}
	return &Denial{Rule: d.Rule, Reason: d.Reason()}
}

// Refusal is the whole sentence for somebody who asked for the bytes of name and
// version, both as published, and does not get them: rule, reason, whom to ask.
// It tells of the artifact: where it is not Known, it is not for the asker.
func (d Decision) Refusal(name, version string) string { return d.refusal(name, version, "") }

// RefusalFrom is Refusal of what is from source, as in Facts.
func (d Decision) RefusalFrom(source, name, version string) string {
	if source == "" || source == particle.SourceHosted {
		return d.Refusal(name, version)
	}
	return d.refusal(name, version, " --source "+source)
}

func (d Decision) refusal(name, version, flags string) string {
	rule := string(d.Rule)
	if d.RuleID != "" {
		rule += " " + d.RuleID
	}
	return fmt.Sprintf("%s %s is denied by rule %s: %s; %s (aln-registry why %s@%s%s says more)", name, version, rule, d.Reason(), d.whomToAsk(), name, version, flags)
}

func (d Decision) whomToAsk() string {
	switch d.Rule {
	case RuleQuarantine:
		return "ask a reviewer of this registry"
	case RuleCooldown:
		return "wait, or ask a reviewer of this registry for an exception"
	case RuleGrant, RuleAllowed, RuleTier:
		return "ask a grantor of this registry"
	case RuleAnonymous, RuleScope, RuleLifetime:
		return "log in with a session for reading"
	}
	return "ask an admin of this registry"
}
