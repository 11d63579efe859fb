package policy

import (
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
)

// Grant is an EnvGrant made ready to be asked, by CompileGrant. It does not
// change any more: any number may ask it at once.
type Grant struct {
	// CID names the blob.
	CID string
	particle.EnvGrant

	unreadable string
}

// CompileGrant makes a grant ready. list is the blob that allowed_crates_list
// names, obtained says whether it could be had; what could not be had or read, or
// is another blob than the one named, allows nothing (Unreadable).
func CompileGrant(cid string, g particle.EnvGrant, list []byte, obtained bool) *Grant { return nil }

// Unreadable says why the grant allows nothing, "" if it can be read.
func (g *Grant) Unreadable() string { return g.unreadable }

// Listed is how many hashes the grant holds: about 40 bytes of memory each.
func (g *Grant) Listed() int { return 0 }

// HostGrant is what the state says of one grant of a host.
type HostGrant struct {
	// CID names the EnvGrant, SupersededBy the one that took its place, "" for the head of a chain.
	CID, SupersededBy string
	// NotBefore ≤ time < Expires is when it can be in force.
	NotBefore, Expires time.Time
	Revoked            bool
	// Entitled: its issuer still holds the role.
	Entitled bool
}

// ResolveGrant says which of a host's grants judges it: the head of the chain of
// the one named, else the only one in force; "" with no denial: none, and the tier
// says what it gets. until is when the answer may change with time alone, the zero time: never.
func ResolveGrant(named string, grants []HostGrant, now time.Time) (cid string, until time.Time, denial *Denial) {
	return "", time.Time{}, deny(RuleGrant, "not written yet")
}
