package state

import (
	"slices"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// MaxGrants bounds the chains of grants of one host that are not over.
const MaxGrants = 256

// Grant is an EnvGrant that a grant record put in force, or that once was. Of the
// blob it holds what is needed to say whether it is in force.
type Grant struct {
	CID storage.CID `json:"cid"`
	// Record is the grant record, Index its log index.
	Record  record.ID `json:"record"`
	Index   int64     `json:"index"`
	Issuer  did.DID   `json:"issuer"`
	Subject did.DID   `json:"subject"`
	// ByAdmin: it holds only while its issuer is an admin, since it cites the
	// settings or is the issuer's own. Otherwise also while it is a grantor.
	ByAdmin bool `json:"by_admin"`
	// NotBefore ≤ time < Expires is when it can be in force.
	NotBefore time.Time `json:"not_before"`
	Expires   time.Time `json:"expires"`
	Tier      string    `json:"tier"`
	Offshore  bool      `json:"offshore"`
	// Chain is the first of the grants that superseded one another down to this
	// one, itself where it supersedes none: the same for all of them.
	Chain        storage.CID  `json:"chain"`
	Supersedes   *storage.CID `json:"supersedes"`
	SupersededBy *storage.CID `json:"superseded_by"`
	// Revoked is the record that revoked this very grant, "" if none did.
	Revoked record.ID `json:"revoked"`
}

// InTime reports whether now lies in the grant's time.
func (g Grant) InTime(now time.Time) bool {
	return !now.Before(g.NotBefore) && now.Before(g.Expires)
}

// Over reports whether nothing can bring g back in force: it is revoked or expired.
func (g Grant) Over(now time.Time) bool { return g.Revoked != "" || !now.Before(g.Expires) }

// IssuerHolds reports whether g's issuer still is what it was issued as, by the
// settings in force and what the state says of the issuer as a member.
func (g Grant) IssuerHolds(s Settings, issuer Member) bool {
	if issuer.DID != g.Issuer || !issuer.Active() {
		return false
	}
	return slices.Contains(s.Admins, g.Issuer) || !g.ByAdmin && issuer.Has(RoleGrantor)
}

// Host is a DID with the grants that it was given.
type Host struct {
	DID did.DID `json:"did"`
	// Grants are the heads of its chains of grants, the one granted last at the
	// end. Chains whose head is over are left out once another grant comes, so
	// one that is not here is over. At most MaxGrants.
	Grants []Grant `json:"grants"`
}

// Head returns the head of the chain that g, a grant of this host, belongs to:
// what a token that names g is judged by unless g itself is revoked. false: that
// chain is over.
func (h Host) Head(g Grant) (Grant, bool) {
	i := slices.IndexFunc(h.Grants, func(head Grant) bool { return head.Chain == g.Chain })
	if i < 0 || g.Subject != h.DID {
		return Grant{}, false
	}
	return h.Grants[i], true
}

const (
	grantPrefix = "grant/"
	hostPrefix  = "host/"
)

// GrantPrefix begins the keys of all grants.
func GrantPrefix() string { return grantPrefix }

// GrantKey is the key of the Grant whose blob is id.
func GrantKey(id storage.CID) string { return grantPrefix + id.String() }

// HostKey is the key of the Host d.
func HostKey(d did.DID) string { return hostPrefix + string(d) }

// GrantOf returns the grant whose blob is id, however it ended.
func GrantOf(s Store, id storage.CID) (v Grant, ok bool, err error) {
	return get[Grant](s, GrantKey(id))
}

// HostOf returns what was granted to d.
func HostOf(s Store, d did.DID) (v Host, ok bool, err error) { return get[Host](s, HostKey(d)) }

// DecodeGrant reads a value under GrantPrefix.
func DecodeGrant(value []byte) (Grant, error) { return decode[Grant](value) }

// DecodeHost reads a value under HostKey.
func DecodeHost(value []byte) (Host, error) { return decode[Host](value) }
