package registry

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// GrantInfo is a grant with whether it is in force now, and why it is not.
type GrantInfo struct {
	state.Grant
	InForce bool
	// Why is "" for one in force.
	Why string
}

// GrantFilter says which grants are asked for.
type GrantFilter struct {
	// Subject is the host's DID, "" for all.
	Subject did.DID
	// InForce: only those in force now.
	InForce bool
}

// grantsPage is how many grants are read at once.
const grantsPage = 500

// Grants lists grants in the order of their CIDs: at most limit behind the one
// whose CID is after ("": from the beginning). next is the after of the next page,
// "" at the end.
func (r *Registry) Grants(ctx context.Context, of GrantFilter, after string, limit int) (found []GrantInfo, next string, err error) {
	if after != "" {
		if _, err := storage.ParseCID(after); err != nil {
			return nil, "", fmt.Errorf("%w: after is not what an earlier page gave as next", ErrRequest)
		}
	}
	if of.Subject != "" && of.InForce {
		found, err = r.heads(ctx, of.Subject, after)
	} else {
		found, err = r.scanGrants(ctx, of, after, limit+1)
	}
	if err == nil && len(found) > limit {
		found = found[:limit]
		next = found[limit-1].CID.String()
	}
	return found, next, err
}

// heads are the grants of a host that are in force: only heads of chains are.
func (r *Registry) heads(ctx context.Context, subject did.DID, after string) ([]GrantInfo, error) {
	host, _, err := cachedState(ctx, r, state.HostKey(subject), state.DecodeHost)
	if err != nil {
		return nil, err
	}
	var found []GrantInfo
	for _, g := range host.Grants {
		info, err := r.grantInfo(ctx, g)
		if err != nil {
			return nil, err
		}
		if info.InForce && g.CID.String() > after {
			found = append(found, info)
		}
	}
	slices.SortFunc(found, func(a, b GrantInfo) int { return cmp.Compare(a.CID.String(), b.CID.String()) })
	return found, nil
}

// scanGrants reads grants behind after until it has found most of those asked for.
func (r *Registry) scanGrants(ctx context.Context, of GrantFilter, after string, most int) (found []GrantInfo, err error) {
	prefix, at := state.GrantPrefix(), r.Size()
	from := prefix
	if after != "" {
		from += after + "\x01"
	}
	for {
		rows, err := r.Catalog.StateRange(ctx, from, catalog.PrefixEnd(prefix), at, grantsPage)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			g, err := state.DecodeGrant(row.Value)
			if err != nil {
				return nil, err
			}
			if of.Subject != "" && g.Subject != of.Subject {
				continue
			}
			info, err := r.grantInfo(ctx, g)
			if err != nil {
				return nil, err
			}
			if of.InForce && !info.InForce {
				continue
			}
			if found = append(found, info); len(found) == most {
				return found, nil
			}
		}
		if len(rows) < grantsPage {
			return found, nil
		}
		from = rows[len(rows)-1].Key + "\x01"
	}
}

// Grant returns the grant whose blob is id. ErrNotFound when there is none.
func (r *Registry) Grant(ctx context.Context, id storage.CID) (GrantInfo, error) {
	g, ok, err := cachedState(ctx, r, state.GrantKey(id), state.DecodeGrant)
	if err != nil {
		return GrantInfo{}, err
	}
	if !ok {
		return GrantInfo{}, fmt.Errorf("%w: no record puts the grant %s in force", ErrNotFound, id)
	}
	return r.grantInfo(ctx, g)
}

// EnvGrant reads the blob of a grant that is in the log.
func (r *Registry) EnvGrant(ctx context.Context, id storage.CID) (particle.EnvGrant, error) {
	raw, err := readBlob(ctx, r.Blobs, id, maxAttachment)
	if err != nil {
		return particle.EnvGrant{}, err
	}
	return particle.ParseEnvGrant(raw)
}

func (r *Registry) grantInfo(ctx context.Context, g state.Grant) (GrantInfo, error) {
	issuer, _, err := cachedState(ctx, r, state.MemberKey(g.Issuer), state.DecodeMember)
	if err != nil {
		return GrantInfo{}, err
	}
	info := GrantInfo{Grant: g, Why: whyNot(g, r.Settings(), issuer, r.Clock())}
	info.InForce = info.Why == ""
	return info, nil
}

// whyNot says why g is not in force at now, "" where it is.
func whyNot(g state.Grant, s state.Settings, issuer state.Member, now time.Time) string {
	switch {
	case g.Revoked != "":
		return "revoked by record " + string(g.Revoked)
	case g.SupersededBy != nil:
		return "superseded by " + g.SupersededBy.String()
	case now.Before(g.NotBefore):
		return "not before " + particle.At(g.NotBefore).String()
	case !g.InTime(now):
		return "expired at " + particle.At(g.Expires).String()
	case !g.IssuerHolds(s, issuer):
		return "its issuer does not hold the role any more"
	}
	return ""
}
