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
	// at is in Unix seconds.
	at, days int64
}

type say uint8

const (
	sayNothing say = iota
	sayText
	sayGrace
	sayUnscanned
	sayYoung
	sayForeign
	sayTooEarly
	sayTooLate
	sayUnreadable
	sayUnlisted
)

// String makes the words.
func (r reason) String() string {
	switch r.kind {
	case sayGrace:
		return fmt.Sprintf("only builds whose lockfile has it still get it, until %s: %s", second(r.at), r.text)
	case sayUnscanned:
		return "its bytes have not yet been looked through for what the rule is about"
	case sayYoung:
		if r.at == never {
			return fmt.Sprintf("it has to be %d days old, and its age is not known", r.days)
		}
		return fmt.Sprintf("it has to be %d days old, which it is at %s", r.days, second(r.at))
	case sayForeign:
		return "the EnvGrant is another host's"
	case sayTooEarly:
		return "the EnvGrant is in force only from " + second(r.at) + " on"
	case sayTooLate:
		return "the EnvGrant ended at " + second(r.at)
	case sayUnreadable:
		return "the EnvGrant allows nothing: " + r.text
	case sayUnlisted:
		if r.text == KindCrate {
			return "the EnvGrant does not list it"
		}
		return "the EnvGrant is offshore, and neither names nor lists it"
	}
	return r.text
}

func second(at int64) string { return particle.At(time.Unix(at, 0)).String() }

// ruleOf names the rule of what a grant says.
func ruleOf(r reason) Rule {
	if r.kind == sayUnlisted || r.kind == sayUnreadable {
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
func (d Decision) Refusal(name, version string) string {
	rule := string(d.Rule)
	if d.RuleID != "" {
		rule += " " + d.RuleID
	}
	return fmt.Sprintf("%s %s is denied by rule %s: %s; %s (aln-registry why %s@%s says more)", name, version, rule, d.Reason(), d.whomToAsk(), name, version)
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
