package registry

import (
	"context"
	"fmt"
	"strings"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// A session of a did:web names the key that asked for it, in host_did, and holds
// that key's Multikey behind this sign in jti (FORMATS §5): the same name may
// stand for another key tomorrow, and then the session is nobody's.
const keySign = "."

// verifyAssertion checks t's signature by a key in force of its signer. Of a
// did:web, all refusals are in the same words: who is a member, and by which
// keys, is not for strangers to probe.
func (r *Registry) verifyAssertion(ctx context.Context, t policy.Token[policy.Assertion]) (did.PublicKey, error) {
	document, known, err := r.memberDocument(ctx, t.KeyID.DID)
	if err != nil {
		return did.PublicKey{}, err
	}
	if known {
		key, err := did.ResolveKey(t.KeyID, did.Authentication, document)
		if err == nil && t.Verify(key) == nil {
			return key, nil
		}
	}
	if t.KeyID.DID.Method() == "web" {
		return did.PublicKey{}, fmt.Errorf("%w: assertion: %w: this registry knows no such key of %s for signing in; an admin admits it with `aln-registry member add %s --role publisher`, and after a change of keys `aln-registry did update` makes the new document known",
			ErrUnauthenticated, did.ErrSignature, t.KeyID.DID, t.KeyID.DID)
	}
	return did.PublicKey{}, fmt.Errorf("%w: assertion: %w", ErrUnauthenticated, did.ErrSignature)
}

// memberDocument returns the document in force of d, nil for a did:key; known is
// false where a did:web is no member or has none.
func (r *Registry) memberDocument(ctx context.Context, d did.DID) (document *did.Document, known bool, err error) {
	if d.Method() == "key" {
		return nil, true, nil
	}
	m, _, err := cachedState(ctx, r, state.MemberKey(d), state.DecodeMember)
	if err != nil || !m.Active() || len(m.Documents) == 0 {
		return nil, false, err
	}
	document, err = r.document(ctx, m.Documents[len(m.Documents)-1].CID)
	return document, err == nil, err
}

// document returns a stored DID document, from memory where it was read before: which
// one is in force the state says, what its CID names never changes.
func (r *Registry) document(ctx context.Context, id storage.CID) (*did.Document, error) {
	value, err := r.cache.get(ctx, thing{family: documentFamily, name: id.String()}, r.Size, func(ctx context.Context, _ int64) (found, error) {
		raw, err := readBlob(ctx, r.Blobs, id, maxAttachment)
		if err != nil {
			return found{}, err
		}
		document, err := did.ParseDocument(raw)
		return found{document, stateBytes + int64(len(raw))}, err
	})
	if err != nil {
		return nil, err
	}
	return value.(*did.Document), nil
}

// bindKey makes the session claims that of one key of a did:web.
func bindKey(claims *particle.SessionToken, id did.URL, key did.PublicKey) {
	if id.DID.Method() == "web" {
		claims.HostDID = id.String()
		claims.ID += keySign + key.Multikey()
	}
}

// checkKey refuses a session whose key is no more one that its holder signs in
// with: looked at on every request, so that a key removed is refused at the next.
func (r *Registry) checkKey(ctx context.Context, claims particle.SessionToken) error {
	if claims.Subject.Method() == "key" {
		return nil
	}
	document, known, err := r.memberDocument(ctx, claims.Subject)
	if err != nil {
		return err
	}
	id, err := did.ParseURL(claims.HostDID)
	if err == nil && known && id.DID == claims.Subject {
		key, err := did.ResolveKey(id, did.Authentication, document)
		_, minted, _ := strings.Cut(claims.ID, keySign)
		if err == nil && key.Multikey() == minted {
			return nil
		}
	}
	return fmt.Errorf("%w: the session was made with a key of %s that is not in force any more; sign in with the new one", ErrUnauthenticated, claims.Subject)
}
