package policy

import (
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
	// AnonymousRead: artifacts are public (serve --anonymous-read).
	AnonymousRead bool
	// DenyTiers are the tiers whose hosts see nothing without a grant.
	DenyTiers []string
	// MinAgeDays is the registry's cooldown.
	MinAgeDays int64
	Rules      *RuleSet
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

var _ = particle.EffectDeny
