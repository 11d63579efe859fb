package registry

import (
	"context"
	"slices"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// Holder returns what the published state says of d, with the grants at the heads
// of its chains.
func (r *Registry) Holder(ctx context.Context, d did.DID) (policy.Holder, error) {
	return r.holder(ctx, keysOf(d), "")
}

// holderKeys are the keys of what the state says of d.
type holderKeys struct {
	did          did.DID
	member, host string
}

func keysOf(d did.DID) holderKeys { return holderKeys{d, state.MemberKey(d), state.HostKey(d)} }

// holder is Holder with the grant that a session names among the grants, where it
// is one of the holder's, however it ended.
func (r *Registry) holder(ctx context.Context, of holderKeys, named string) (policy.Holder, error) {
	m, _, err := cachedState(ctx, r, of.member, state.DecodeMember)
	if err != nil {
		return policy.Holder{}, err
	}
	h := policy.Holder{
		DID: of.did, Member: m.Active(), Admin: slices.Contains(r.Settings().Admins, of.did),
		Roles: m.Roles, StakeholderAddrs: m.StakeholderAddrs, Tier: m.Tier,
	}
	h.Grants, err = r.hostGrants(ctx, of, named)
	return h, err
}

// hostGrants is what the state says of a holder's grants: first the one named, where it is
// no head, then the heads. What superseded one another is told of as one step, from
// the grant named to the head that judges it.
func (r *Registry) hostGrants(ctx context.Context, of holderKeys, named string) ([]policy.HostGrant, error) {
	host, _, err := cachedState(ctx, r, of.host, state.DecodeHost)
	if err != nil {
		return nil, err
	}
	var grants []policy.HostGrant
	if named != "" {
		if grants, err = r.namedGrant(ctx, host, of.did, named); err != nil {
			return nil, err
		}
	}
	for _, head := range host.Grants {
		if len(grants) > 0 && grants[0].CID == head.CID.String() {
			continue
		}
		if err := r.addGrant(ctx, &grants, head, ""); err != nil {
			return nil, err
		}
	}
	return grants, nil
}

// namedGrant is the one grant of host, which is d, that a session names; none where
// it names no such.
func (r *Registry) namedGrant(ctx context.Context, host state.Host, d did.DID, named string) (grants []policy.HostGrant, err error) {
	id, err := storage.ParseCID(named)
	if err != nil {
		return nil, nil // and is denied as naming none
	}
	g, ok, err := cachedState(ctx, r, state.GrantKey(id), state.DecodeGrant)
	if err != nil || !ok || g.Subject != d {
		return nil, err
	}
	next := ""
	if g.SupersededBy != nil {
		next = g.SupersededBy.String()
		if head, ok := host.Head(g); ok {
			next = head.CID.String()
		}
	}
	return grants, r.addGrant(ctx, &grants, g, next)
}

func (r *Registry) addGrant(ctx context.Context, to *[]policy.HostGrant, g state.Grant, supersededBy string) error {
	issuer, _, err := cachedState(ctx, r, state.MemberKey(g.Issuer), state.DecodeMember)
	if err != nil {
		return err
	}
	*to = append(*to, policy.HostGrant{
		CID: g.CID.String(), SupersededBy: supersededBy, NotBefore: g.NotBefore, Expires: g.Expires,
		Revoked: g.Revoked != "", Entitled: g.IssuerHolds(r.Settings(), issuer),
	})
	return nil
}

// resolve completes asker with the grant that judges what it reads, or with why
// nothing may be read. Only the state of the store is an error.
func (r *Registry) resolve(ctx context.Context, asker *policy.Asker, grants []policy.HostGrant, now time.Time) error {
	if asker.HasScope(particle.ScopeAudit) { // no grant binds it
		return nil
	}
	cid, until, denial := policy.ResolveGrant(asker.GrantNamed, grants, now)
	asker.GrantUntil, asker.Barred = until, denial
	if denial != nil || cid == "" {
		return nil
	}
	g, denial, err := r.grants.get(ctx, r, cid)
	asker.Grant, asker.Barred = g, denial
	return err
}

// Under completes asker with what a session that names the grant (its CID, ""
// for none) would read under: asker's own rights, or those of the grant's subject
// where subject is another.
func (r *Registry) Under(ctx context.Context, asker policy.Asker, subject did.DID, grant string) (policy.Asker, error) {
	holder, err := r.holder(ctx, keysOf(subject), grant)
	if err != nil {
		return policy.Asker{}, err
	}
	asker.DID, asker.Tier, asker.GrantNamed = subject, holder.Tier, grant
	asker.Grant, asker.Barred, asker.GrantUntil = nil, nil, time.Time{}
	asker.Scopes = slices.DeleteFunc(slices.Clone(asker.Scopes), func(s string) bool { return s == particle.ScopeAudit })
	if !slices.Contains(asker.Scopes, particle.ScopeRead) {
		asker.Scopes = append(asker.Scopes, particle.ScopeRead)
	}
	return asker, r.resolve(ctx, &asker, holder.Grants, r.Clock())
}

// Names of what somebody reads under without a grant.
const (
	underNothing = ""
	underAudit   = "audit"
)

// under names what asker reads under, beside the rules and the settings: all who
// read under the same and may read at all see the same.
func under(asker *policy.Asker) string {
	switch {
	case asker.HasScope(particle.ScopeAudit):
		return underAudit
	case asker.Grant == nil:
		return underNothing
	case asker.Grant.Unreadable() != "": // not what is seen when it can be read
		return asker.Grant.CID + "?"
	}
	return asker.Grant.CID
}

// hides reports whether there may be artifacts that asker may not know of.
func hides(asker *policy.Asker) bool {
	return asker.Grant != nil && asker.Grant.OffshoreFlag && !asker.HasScope(particle.ScopeAudit)
}
