// Package particle holds the ALN particles as the registry exchanges them: the
// small signed documents of the platform (../../docs/FORMATS.md §5 and §7).
// The types here are the particles' own fields by their own names; who may have
// what is package policy's business. It is a leaf and pure.
package particle

import (
	"slices"
	"strings"

	"phoenix-lab.org/aln-registry/did"
)

// Tiers of members. The memory each may use is part of the EnvGrant particle.
const (
	TierCoreStakeholder = "core_stakeholder"
	TierCollaborator    = "collaborator"
	TierGuest           = "guest"
)

// Scopes of a session token: what it is for.
const (
	ScopeRead    = "read"
	ScopeBuild   = "build"
	ScopePublish = "publish"
	ScopeAudit   = "audit"
	ScopeAdmin   = "admin"
	ScopeChat    = "chat"
	ScopeOTA     = "OTA"
)

// KnownScope reports whether s is a scope of the particle.
func KnownScope(s string) bool {
	switch s {
	case ScopeRead, ScopeBuild, ScopePublish, ScopeAudit, ScopeAdmin, ScopeChat, ScopeOTA:
		return true
	}
	return false
}

// SessionToken is the particle of that name as JWT claims (FORMATS §5). The
// particle's `expiry` is the claim exp.
type SessionToken struct {
	// Issuer is the DID of the mint, Subject the host's, Audience the origin of the one registry it is for.
	Issuer   did.DID `json:"iss"`
	Subject  did.DID `json:"sub"`
	Audience did.DID `json:"aud"`
	// IssuedAt and Expiry are Unix seconds.
	IssuedAt int64  `json:"iat"`
	Expiry   int64  `json:"exp"`
	ID       string `json:"jti"`
	// HostDID is the subject, or a DID URL of it.
	HostDID         string   `json:"host_did"`
	StakeholderAddr string   `json:"stakeholder_addr,omitzero"`
	Roles           []string `json:"roles"`
	// Scope is a space-separated list of scopes.
	Scope string `json:"scope"`
	// MaxJoules and MaxMemMB cap what is done under the token; 0: not stated.
	MaxJoules   uint64 `json:"max_joules,omitzero"`
	MaxMemMB    uint64 `json:"max_mem_mb,omitzero"`
	EvidenceHex string `json:"evidence_hex,omitzero"`
	// Grant is the CID of the EnvGrant it is bound to, Rec the identity of the one record it may submit.
	Grant string `json:"grant,omitzero"`
	Rec   string `json:"rec,omitzero"`
}

// Scopes returns the scopes that the token lists.
func (t SessionToken) Scopes() []string { return strings.Fields(t.Scope) }

// HasScope reports whether the token lists scope.
func (t SessionToken) HasScope(scope string) bool { return slices.Contains(t.Scopes(), scope) }
