package state

import (
	"slices"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
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

// tierRank orders the tiers; one that is not known is below all.
func tierRank(tier string) int {
	return slices.Index([]string{particle.TierGuest, particle.TierCollaborator, particle.TierCoreStakeholder}, tier)
}

// applyGrant puts the EnvGrant that the subject names in force.
func (a *application) applyGrant() error {
	if err := a.requireRole(RoleGrantor); err != nil {
		return err
	}
	id := a.record.Subject().Grant()
	if old, exists, err := GrantOf(a.store, id); err != nil {
		return err
	} else if exists && old.Revoked != "" {
		return refuse(ErrInvalid, "that EnvGrant was revoked by %s and never comes back; make a new one, of another time", old.Revoked)
	} else if exists {
		return refuse(ErrNoChange, "that EnvGrant was put in force by entry %d already", old.Index)
	}
	raw, err := a.attachment(id)
	if err != nil {
		return err
	}
	granted, err := particle.ParseEnvGrant(raw)
	if err != nil {
		return refuse(ErrInvalid, "EnvGrant %s: %v", id, err)
	}
	if err := a.checkEnvGrant(granted); err != nil {
		return err
	}
	h := a.record.Header()
	next := Grant{
		CID: id, Record: a.record.ID(), Index: a.entry.Index, Issuer: granted.Issuer, Subject: granted.Subject,
		ByAdmin:   h.By == a.settings.Record || granted.Subject == granted.Issuer,
		NotBefore: granted.NotBefore.Time, Expires: granted.Expires.Time, Tier: granted.Tier, Offshore: granted.OffshoreFlag,
		Chain: id, Supersedes: granted.Supersedes,
	}
	if err := a.supersede(&next); err != nil {
		return err
	}
	if err := a.put(GrantKey(id), next); err != nil {
		return err
	}
	return a.putHead(next)
}

// checkEnvGrant holds a grant's blob to its record and to the members that it names.
func (a *application) checkEnvGrant(g particle.EnvGrant) error {
	signer := a.record.Header().Signer.DID
	subject, _, err := MemberOf(a.store, g.Subject)
	if err != nil {
		return err
	}
	switch {
	case g.Registry != a.settings.Origin:
		return refuse(ErrInvalid, "the EnvGrant is for the registry %s; this is %s", g.Registry, a.settings.Origin)
	case g.Issuer != signer:
		return refuse(ErrInvalid, "the EnvGrant's issuer is %s; it is who signs the record, %s", g.Issuer, signer)
	case !subject.Active():
		return refuse(ErrInvalid, "the EnvGrant's subject %s is not a member; an admin admits it with `aln-registry member add %s --role ROLE`", g.Subject, g.Subject)
	case g.Subject == signer && !slices.Contains(a.settings.Admins, signer):
		return refuse(ErrNotEntitled, "nobody but an admin grants to themselves; ask another grantor")
	case tierRank(g.Tier) > tierRank(subject.Tier):
		return refuse(ErrInvalid, "the EnvGrant's tier %s is above that of %s, %s; grant at most that, or have an admin change the member's", g.Tier, g.Subject, subject.Tier)
	case !a.entry.Time.Before(g.Expires.Time):
		return refuse(ErrInvalid, "the EnvGrant expires at %s, which is past; make one with a later time", g.Expires)
	}
	return nil
}

// supersede takes the place of the grant that next names as superseded, which has
// to be the head of one of its host's chains.
func (a *application) supersede(next *Grant) error {
	if next.Supersedes == nil {
		return nil
	}
	old, ok, err := GrantOf(a.store, *next.Supersedes)
	switch {
	case err != nil:
		return err
	case !ok:
		return refuse(ErrMissing, "there is no grant %s to supersede", next.Supersedes)
	case old.Subject != next.Subject:
		return refuse(ErrInvalid, "the grant %s to supersede is of %s, not of %s", old.CID, old.Subject, next.Subject)
	case old.Revoked != "":
		return refuse(ErrInvalid, "the grant %s to supersede was revoked; make one that supersedes nothing", old.CID)
	case old.SupersededBy != nil:
		return refuse(ErrInvalid, "the grant %s was superseded by %s; supersede the last of them", old.CID, old.SupersededBy)
	}
	next.Chain, old.SupersededBy = old.Chain, &next.CID
	return a.put(GrantKey(old.CID), old)
}

// putHead makes g the head of its chain among its host's grants, and leaves out
// those of them that are over.
func (a *application) putHead(g Grant) error {
	host, _, err := HostOf(a.store, g.Subject)
	if err != nil {
		return err
	}
	heads := slices.DeleteFunc(slices.Clone(host.Grants), func(old Grant) bool {
		return old.Chain == g.Chain || old.Over(a.entry.Time)
	})
	if len(heads) >= MaxGrants {
		return refuse(ErrInvalid, "%s has %d grants that are not over, the most that one host may have; revoke some, or supersede one", g.Subject, len(heads))
	}
	return a.put(HostKey(g.Subject), Host{DID: g.Subject, Grants: append(heads, g)})
}

// applyRevoke ends a grant for good.
func (a *application) applyRevoke() error {
	if err := a.requireRole(RoleGrantor); err != nil {
		return err
	}
	g, ok, err := GrantOf(a.store, a.record.Subject().Grant())
	switch {
	case err != nil:
		return err
	case !ok:
		return refuse(ErrMissing, "no record puts the grant %s in force", a.record.Subject().Grant())
	case g.Revoked != "":
		return refuse(ErrNoChange, "the grant %s was revoked by %s already", g.CID, g.Revoked)
	}
	g.Revoked = a.record.ID()
	if err := a.put(GrantKey(g.CID), g); err != nil {
		return err
	}
	host, _, err := HostOf(a.store, g.Subject)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(host.Grants, func(head Grant) bool { return head.CID == g.CID })
	if i < 0 { // superseded, or over for long
		return nil
	}
	host.Grants = slices.Clone(host.Grants)
	host.Grants[i] = g
	return a.put(HostKey(g.Subject), host)
}
