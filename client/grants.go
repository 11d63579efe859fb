package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

const (
	grantsPath = "/v1/grants"
	// pageOfGrants is how many grants are asked for at once, mostGrants how many at all.
	pageOfGrants = 100
	mostGrants   = 10_000
)

// GrantInfo is an EnvGrant as the registry tells it: a claim, save for CID.
type GrantInfo struct {
	CID     storage.CID   `json:"cid"`
	Record  record.ID     `json:"record"`
	Index   int64         `json:"index"`
	Issuer  did.DID       `json:"issuer"`
	Subject did.DID       `json:"subject"`
	From    particle.Time `json:"not_before"`
	Expires particle.Time `json:"expires"`
	Tier    string        `json:"tier"`
	// Offshore: what the grant does not list is not told of at all.
	Offshore     bool         `json:"offshore_flag"`
	Supersedes   *storage.CID `json:"supersedes"`
	SupersededBy *storage.CID `json:"superseded_by"`
	Revoked      bool         `json:"revoked"`
	InForce      bool         `json:"in_force"`
	// Why says why it is not in force, "" where it is.
	Why string `json:"why"`
}

// Grants lists the EnvGrants of subject ("": of everybody), or only those in force.
func (r *Registry) Grants(ctx context.Context, subject did.DID, inForce bool) ([]GrantInfo, error) {
	asked := url.Values{"limit": {strconv.Itoa(pageOfGrants)}}
	if subject != "" {
		asked.Set("subject", string(subject))
	}
	if inForce {
		asked.Set("in_force", "true")
	}
	var found []GrantInfo
	for {
		var page struct {
			Grants []GrantInfo `json:"grants"`
			Next   string      `json:"next"`
		}
		if err := r.Bare().readJSON(ctx, grantsPath+"?"+asked.Encode(), maxBundle, &page); err != nil {
			return nil, err
		}
		for _, g := range page.Grants {
			if g.CID.IsZero() || subject != "" && g.Subject != subject {
				return nil, fmt.Errorf("%w: asked for the grants of %s, got one of %.80q", ErrAnswer, subject, g.Subject)
			}
		}
		found = append(found, page.Grants...)
		if page.Next == "" || len(page.Grants) == 0 {
			return found, nil
		}
		if len(found) > mostGrants {
			return nil, fmt.Errorf("%w: more than %d grants; ask for those of one host", ErrAnswer, mostGrants)
		}
		asked.Set("after", page.Next)
	}
}

// Grant is an EnvGrant with its bytes, which hash to its CID.
type Grant struct {
	GrantInfo
	Raw []byte
	Env particle.EnvGrant
}

// ErrUnknownGrant: the registry knows of no grant of that CID.
var ErrUnknownGrant = errors.New("unknown grant")

// Grant fetches the EnvGrant whose CID id is. Its bytes hash to that; what they
// say, and who signed the record that put it in force, is held against what the
// registry says. Errors: ErrUnknownGrant, ErrAnswer, particle.ErrMalformed.
func (r *Registry) Grant(ctx context.Context, id storage.CID) (Grant, error) {
	r = r.Bare()
	var g Grant
	err := r.readJSON(ctx, grantsPath+"/"+id.String(), maxAnswer, &g.GrantInfo)
	var refused *APIError
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		return Grant{}, fmt.Errorf("%w: %s; `aln-registry grant list` shows those that there are", ErrUnknownGrant, id)
	}
	if err != nil {
		return Grant{}, err
	}
	if g.CID != id {
		return Grant{}, fmt.Errorf("%w: asked for the grant %s, got %s", ErrAnswer, id, g.CID)
	}
	rec, _, err := r.Record(ctx, string(g.Record))
	if err != nil {
		return Grant{}, err
	}
	if g.Raw, err = r.Attachment(ctx, string(g.Record), id); err != nil {
		return Grant{}, err
	}
	if g.Env, err = particle.ParseEnvGrant(g.Raw); err != nil {
		return Grant{}, fmt.Errorf("the EnvGrant %s: %w", id, err)
	}
	return g, g.agrees(rec, r.pin.Origin)
}

// agrees holds what the registry says of a grant against its bytes and its record.
func (g Grant) agrees(rec *record.Record, origin did.DID) error {
	switch {
	case rec.Type() != record.TypeGrant || rec.Subject().Grant() != g.CID:
		return fmt.Errorf("%w: the record %s does not put the grant %s in force", ErrAnswer, rec.ID(), g.CID)
	case g.Env.Registry != origin:
		return fmt.Errorf("%w: the grant %s is for %s, not %s", ErrAnswer, g.CID, g.Env.Registry, origin)
	case g.Env.Issuer != rec.Header().Signer.DID || g.Env.Subject != g.Subject:
		return fmt.Errorf("%w: the grant %s is not what the registry says of it", ErrAnswer, g.CID)
	}
	return nil
}

// mostSuperseded bounds a chain of grants.
const mostSuperseded = 1000

// HeadOf follows the grants that superseded g to the last of them, by which a
// session that names g is judged.
func (r *Registry) HeadOf(ctx context.Context, g Grant) (Grant, error) {
	seen := []storage.CID{g.CID}
	for g.SupersededBy != nil {
		if slices.Contains(seen, *g.SupersededBy) || len(seen) > mostSuperseded {
			return Grant{}, fmt.Errorf("%w: the grants that superseded %s have no end", ErrAnswer, seen[0])
		}
		seen = append(seen, *g.SupersededBy)
		subject := g.Subject
		var err error
		if g, err = r.Grant(ctx, *g.SupersededBy); err != nil {
			return Grant{}, err
		}
		if g.Subject != subject {
			return Grant{}, fmt.Errorf("%w: a grant of %s is superseded by one of %s", ErrAnswer, subject, g.Subject)
		}
	}
	return g, nil
}

// ErrSeveralGrants: a host has several grants in force and named none.
var ErrSeveralGrants = errors.New("several grants are in force")

// ErrNoGrant: a host has no grant in force.
var ErrNoGrant = errors.New("no grant is in force")

// OwnGrant is the grant that a session of ours is judged by: the head of the chain
// of the one that this Registry names, otherwise the only one in force. What is
// named need not be in force, or ours. Errors: ErrNoGrant, ErrSeveralGrants, and
// those of Grant.
func (r *Registry) OwnGrant(ctx context.Context) (Grant, error) {
	if r.identity == nil {
		return Grant{}, r.nobody()
	}
	if r.grant != "" {
		id, err := storage.ParseCID(r.grant)
		if err != nil {
			return Grant{}, err
		}
		named, err := r.Grant(ctx, id)
		if err != nil || named.Revoked {
			return named, err
		}
		return r.HeadOf(ctx, named)
	}
	mine, err := r.Grants(ctx, r.identity.DID(), true)
	switch {
	case err != nil:
		return Grant{}, err
	case len(mine) == 0:
		return Grant{}, fmt.Errorf("%w for %s", ErrNoGrant, r.identity.DID())
	case len(mine) > 1:
		ids := ""
		for _, g := range mine {
			ids += " " + g.CID.String()
		}
		return Grant{}, fmt.Errorf("%w for %s; name one with --grant or ALN_GRANT:%s", ErrSeveralGrants, r.identity.DID(), ids)
	}
	return r.Grant(ctx, mine[0].CID)
}

// GrantDraft is the record that puts g, whose bytes are raw, in force.
func GrantDraft(raw []byte) Draft {
	id := storage.CIDOf(raw)
	return Draft{Subject: record.GrantSubject(id), Digest: id.Digest(), Body: &record.Grant{}, Attachments: [][]byte{raw}}
}

// RevokeDraft is the record that ends the grant id.
func RevokeDraft(id storage.CID, reason string) Draft {
	return Draft{Subject: record.GrantSubject(id), Digest: id.Digest(), Body: &record.Revoke{Reason: reason}}
}
