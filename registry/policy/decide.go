package policy

import (
	"errors"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
)

// Facts are what is known of one version of an artifact.
type Facts struct {
	// Kind is the artifact's kind, Name its canonical name, Version as published.
	Kind, Name, Version string
	// Digest is the sha256 of its bytes: Cargo's cksum.
	Digest    [32]byte
	Publisher did.DID
	// Source is particle.SourceHosted, SourceCratesIO or mirror/<name>.
	Source string
	// Since is when its age begins: the later of its publication (missing: first
	// seen) and of when it was first seen again after a disappearance.
	Since time.Time
	// Scanned: the recognisers have looked at its bytes; Findings are those that hit.
	Scanned  bool
	Findings []string
}

// Terms are what binds everybody: the registry's settings and its rules.
type Terms struct {
	Settings
	// MinAgeDays is the registry's cooldown.
	MinAgeDays int64
	// Rules are all that are in force; nil: they could not be read, and nothing is allowed.
	Rules *RuleSet
}

// Rule names of decisions about artifacts. That of a quarantine names its id besides.
const (
	RuleQuarantine Rule = "quarantine"
	RuleCooldown   Rule = "cooldown"
	RuleTier       Rule = "tier-default"
	RuleAllowed    Rule = "allowed-crates"
	RuleUnknown    Rule = "unknown"
)

// KindCrate is the kind that allowed_crates is about.
const KindCrate = "crate"

// RuleSet is rules made ready to be asked, by CompileRules.
type RuleSet struct{}

// NamedRule is a rule with its id.
type NamedRule struct {
	ID string
	particle.QuarantineRule
}

// ErrRule: a rule cannot be read, or two have one id.
var ErrRule = errors.New("unreadable rule")

// CompileRules makes rules ready; without any, too. The error names the rule and wraps ErrRule.
func CompileRules(rules []NamedRule) (*RuleSet, error) { return nil, ErrRule }

// Hits are the ids of the rules that describe f, in order, whatever their mode,
// effect and expiry. A content rule hits what was scanned and found.
func (s *RuleSet) Hits(f *Facts) []string { return nil }

// FindingUnreadable among Facts.Findings: the bytes could not be looked through.
// It hits every content rule that denies.
const FindingUnreadable = "unreadable"

// Decide is the one function that says what asker may see of f, now.
func Decide(asker *Asker, t *Terms, f *Facts, now time.Time) Decision { return Decision{} }

// Step is one rule's say about an artifact, for people.
type Step struct {
	Rule Rule `json:"rule"`
	// ID is a quarantine rule's or a grant's.
	ID string `json:"id"`
	// Outcome is allow, deny, would_deny (a dry run), grace, waived or silent.
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
}

// Explain says what each rule says of f, in the order in which Decide asks them.
func Explain(asker *Asker, t *Terms, f *Facts, now time.Time) []Step { return nil }
