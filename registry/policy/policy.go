// Package policy is the embedded policy module: it reads session tokens and
// assertions, admits holders to sessions, and decides what an asker may see.
// It has no I/O: time, keys and facts are arguments, and the same arguments
// always give the same Decision (docs/FORMATS.md §5, DESIGN invariants 4 and 9).
//
// Invariants: anything unknown, unreadable, expired or contradictory is a
// denial; every denial names its rule; a token only ever narrows what its
// holder may do by the registry's state.
package policy

import (
	"fmt"
	"slices"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
)

// Rule names the rule that decided.
type Rule string

// The rules of this version.
const (
	RuleAnonymous Rule = "anonymous-read"
	RuleMember    Rule = "membership"
	RuleScope     Rule = "scope"
	RuleRole      Rule = "role"
	RuleLifetime  Rule = "lifetime"
	RuleAudience  Rule = "audience"
	RuleIssuer    Rule = "issuer"
	RuleGrant     Rule = "grant"
	RuleAddress   Rule = "stakeholder-addr"
	RuleToken     Rule = "token"
)

// Denial is a refusal as an error: which rule, and why in words for the one refused.
type Denial struct {
	Rule   Rule
	Reason string
}

// Error implements error.
func (d *Denial) Error() string { return fmt.Sprintf("denied by rule %s: %s", d.Rule, d.Reason) }

func deny(rule Rule, format string, args ...any) *Denial {
	return &Denial{Rule: rule, Reason: fmt.Sprintf(format, args...)}
}

// Holder is what the registry's state says of a DID now.
type Holder struct {
	DID              did.DID
	Member           bool
	Admin            bool
	Roles            []string
	StakeholderAddrs []string
}

// Asker is who asks, after the token was checked against the state. The zero
// Asker is nobody: an anonymous request.
type Asker struct {
	DID    did.DID
	Admin  bool
	Roles  []string
	Scopes []string
	// Rec is the identity of the one record that this session may submit, "" for any.
	Rec string
	// Until is when the session ends.
	Until time.Time
}

// Anonymous reports whether nobody is asking.
func (a Asker) Anonymous() bool { return a.DID == "" }

// HasScope reports whether the session was minted for scope.
func (a Asker) HasScope(scope string) bool { return slices.Contains(a.Scopes, scope) }

// Decision is the outcome of a question.
type Decision struct {
	Allow  bool
	Rule   Rule
	Reason string
	// ValidUntil is when the same question may be answered otherwise without any
	// change of state; the zero time: never. Caches obey it.
	ValidUntil time.Time
}

// Settings are the registry's settings that bear on reading.
type Settings struct {
	// AnonymousRead: artifacts are public (serve --anonymous-read).
	AnonymousRead bool
}

// Read decides whether asker may see artifacts and what is told of them. Every
// route that yields an artifact or tells of one asks it.
func Read(asker Asker, s Settings) Decision {
	if asker.Anonymous() {
		if s.AnonymousRead {
			return Decision{Allow: true, Rule: RuleAnonymous, Reason: "this registry lets everybody read"}
		}
		return Decision{Rule: RuleAnonymous, Reason: "this registry answers only its members; type `aln-registry login URL`"}
	}
	for _, scope := range []string{particle.ScopeRead, particle.ScopeBuild, particle.ScopePublish, particle.ScopeAudit, particle.ScopeAdmin} {
		if asker.HasScope(scope) {
			return Decision{Allow: true, Rule: RuleScope, Reason: "the session has the scope " + scope, ValidUntil: asker.Until}
		}
	}
	return Decision{Rule: RuleScope, Reason: "the session has none of the scopes read, build, publish, audit, admin", ValidUntil: asker.Until}
}

// ReadRecords decides whether asker may read a record: entry 0 is everybody's,
// since all trust starts there; authority records (of members, owners,
// settings) are every member's; the others auditors', mirrors' and admins', and
// theirs who may read the artifact that the record is about.
func ReadRecords(asker Asker, index int64, artifact bool, s Settings) Decision {
	if index == 0 {
		return Decision{Allow: true, Rule: RuleAnonymous, Reason: "entry 0 is public"}
	}
	if artifact {
		return Read(asker, s)
	}
	if asker.Anonymous() {
		return Decision{Rule: RuleAnonymous, Reason: "records of authority are for members; type `aln-registry login URL`"}
	}
	return Read(asker, s)
}

// ReadFigures decides whether asker may read the figures that the registry's
// operators watch: they tell how much is done here, though not by whom.
func ReadFigures(asker Asker) Decision {
	if asker.Anonymous() {
		return Decision{Rule: RuleAnonymous, Reason: "the metrics are for auditors and admins; ask with a session, as `aln-registry token --scope audit` prints it"}
	}
	for _, scope := range []string{particle.ScopeAudit, particle.ScopeAdmin} {
		if asker.HasScope(scope) {
			return Decision{Allow: true, Rule: RuleScope, Reason: "the session has the scope " + scope, ValidUntil: asker.Until}
		}
	}
	return Decision{Rule: RuleScope, Reason: "the metrics need a session with the scope audit or admin; `aln-registry token --scope audit` prints one to auditors and admins", ValidUntil: asker.Until}
}

// Submit decides whether asker's session may carry the record rec.
func Submit(asker Asker, rec string, scope string) *Denial {
	switch {
	case asker.Anonymous():
		return deny(RuleAnonymous, "a change needs a session; type `aln-registry login URL`")
	case !asker.HasScope(scope):
		return deny(RuleScope, "the session has not got the scope %s", scope)
	case asker.Rec != "" && asker.Rec != rec:
		return deny(RuleToken, "the session was minted for another record")
	}
	return nil
}
