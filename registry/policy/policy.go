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
	RuleBudget    Rule = "budget"
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
	// Tier is the member's, "" for an admin who is none.
	Tier string
	// Grants are DID's and no others', as ResolveGrant needs them.
	Grants []HostGrant
	// Balances are the ledger's; nil where none is kept, as long as there is no
	// ledger: then nothing is held against them.
	Balances *Balances
}

// Asker is who asks, after the token was checked against the state. The zero
// Asker is nobody: an anonymous request.
type Asker struct {
	DID    did.DID
	Admin  bool
	Roles  []string
	Scopes []string
	// Tier is the member's; one that is unknown gets what the strictest gets.
	Tier string
	// Rec is the identity of the one record that this session may submit, "" for any.
	Rec string
	// Until is when the session ends; the zero time: it is not known to end.
	Until time.Time
	// GrantNamed is the CID that the token names, "" for none. CheckSession fills
	// it; ResolveGrant makes Grant, Barred and GrantUntil of it. A name that
	// nobody resolved is a denial.
	GrantNamed string
	// Grant judges what is read; nil: tier and rules alone do.
	Grant *Grant
	// Barred is why nothing may be read: a revoked grant and the like.
	Barred *Denial
	// GrantUntil is when ResolveGrant may answer otherwise; the zero time: never.
	GrantUntil time.Time
	// Budget caps what is done under the session.
	Budget Budget
}

// Budget is what may be spent; 0 of anything: not stated.
type Budget struct {
	Joules uint64
	// MemMB is in MiB.
	MemMB uint64
}

// Balances are what a ledger says a holder has.
type Balances struct {
	// Joules that it may still spend.
	Joules uint64
}

// Anonymous reports whether nobody is asking.
func (a Asker) Anonymous() bool { return a.DID == "" }

// HasScope reports whether the session was minted for scope.
func (a Asker) HasScope(scope string) bool { return slices.Contains(a.Scopes, scope) }

// Decision is the outcome of a question. Its text is made when it is asked for:
// Reason, Refusal and Denial (reason.go).
type Decision struct {
	// Known: the asker may be told of it. Listed: a resolver may pick it.
	// Allow: its bytes may leave.
	Known, Listed, Allow bool
	// Unscanned: nothing stands against it but that its bytes have not been
	// looked at while a content rule is in force: scan them, then ask anew.
	Unscanned bool
	// Rule decided; RuleID is a quarantine rule's id or a grant's CID.
	Rule   Rule
	RuleID string
	// DryRun is the id of a rule in dry_run that would have denied, "" for none.
	DryRun string
	// ValidUntil is when the same question may be answered otherwise without any
	// change of state; the zero time: never. Caches obey it.
	ValidUntil time.Time
	// Budget is what may be spent on what is allowed: the session's.
	Budget Budget

	say reason
}

// Settings are the registry's settings that bear on reading.
type Settings struct {
	// AnonymousRead: artifacts are public (serve --anonymous-read).
	AnonymousRead bool
	// DenyTiers are the tiers whose hosts read nothing without a grant. Where
	// there is one, a tier that is unknown is denied too.
	DenyTiers []string
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
