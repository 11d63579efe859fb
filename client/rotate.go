package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// A did:web identity's keys change in three steps, each of which can be repeated:
// Rotate writes the next key beside the one in use; its owner publishes a document
// that holds it; UpdateDID makes that document known to a registry, signed by the
// key in use, and then puts the next key into its place. The old key file stays,
// for the other registries that know the identity.

// nextSuffix ends the name of the file with the key that is to come.
const nextSuffix = ".next"

// ErrNoDocument: a did:key has no document, and so no other key than its own.
var ErrNoDocument = errors.New("a did:key is its own key for ever: it has no document; make a did:web identity with `aln-registry key new --did did:web:HOST NAME`, or have an admin admit a new did:key")

// webKey makes a key of the did:web d, named by its own Multikey: no two keys of
// one DID ever have one name.
func webKey(d did.DID, rand io.Reader) (did.NamedKey, error) {
	if d.Method() != "web" {
		return did.NamedKey{}, ErrNoDocument
	}
	key, err := did.GenerateEd25519(rand)
	if err != nil {
		return did.NamedKey{}, err
	}
	id := did.URL{DID: d, Fragment: key.Public().Multikey()}
	return did.NamedKey{ID: id.String(), Key: key}, nil
}

// CreateWebIdentity makes an identity of the did:web d with a new Ed25519 key and
// writes it durably. "" is DefaultIdentity. ErrIdentityExists, ErrNoDocument.
func (h Home) CreateWebIdentity(name string, d did.DID, rand io.Reader) (Identity, error) {
	key, err := webKey(d, rand)
	if err != nil {
		return Identity{}, err
	}
	return h.ImportIdentity(name, key)
}

// Next returns the identity with the key that is to come; ok is false where no
// rotation is under way.
func (i Identity) Next() (next Identity, ok bool, err error) {
	next, err = LoadIdentity(i.Path + nextSuffix)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Identity{}, false, nil
	case err != nil:
		return Identity{}, false, err
	case next.DID() != i.DID():
		return Identity{}, false, fmt.Errorf("%w: %s is a key of %s, not %s", did.ErrKeyFile, next.Path, next.DID(), i.DID())
	}
	next.Name = i.Name
	return next, true, nil
}

// Rotate writes a new key beside i's. Nothing changes by that alone. ErrNoDocument,
// ErrIdentityExists where a rotation is under way.
func (i Identity) Rotate(rand io.Reader) (next Identity, err error) {
	key, err := webKey(i.DID(), rand)
	if err != nil {
		return Identity{}, err
	}
	path := i.Path + nextSuffix
	if next, err = newIdentity(i.Name, path, key); err != nil {
		return Identity{}, err
	}
	err = did.WriteKeyFile(path, []did.NamedKey{key})
	if errors.Is(err, fs.ErrExist) {
		return Identity{}, fmt.Errorf("%w: %s: a change of keys is under way; publish what `aln-registry key document` prints, then type `aln-registry did update`", ErrIdentityExists, path)
	}
	return next, err
}

// Document is the DID document for i to publish: with the key that is to come
// where there is one, and with the one in use if there is none, or both is wanted.
func (i Identity) Document(both bool) ([]byte, error) {
	if i.DID().Method() != "web" {
		return nil, ErrNoDocument
	}
	next, rotating, err := i.Next()
	if err != nil {
		return nil, err
	}
	var keys []did.DocumentKey
	if rotating {
		keys = append(keys, did.DocumentKey{ID: next.id, Key: next.key.Key.Public()})
	}
	if !rotating || both {
		keys = append(keys, did.DocumentKey{ID: i.id, Key: i.key.Key.Public()})
	}
	return did.NewDocument(i.DID(), keys)
}

// finishRotation puts the next key into the place of the one in use, whose file
// gets another name: at no moment is there none.
func (i Identity) finishRotation() (old string, err error) {
	name := strings.Map(func(r rune) rune { // no path, and nothing that Windows takes in no name
		if strings.ContainsRune("-_", r) || '0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' {
			return r
		}
		return '-'
	}, i.id.Fragment)
	old = i.Path + ".old-" + name[max(0, len(name)-8):]
	if err := os.Link(i.Path, old); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("keep the old key: %w", err)
	}
	if err := durable.Replace(i.Path+nextSuffix, i.Path); err != nil {
		return "", fmt.Errorf("put the new key into use: %w", err)
	}
	return old, durable.SyncDir(filepath.Dir(i.Path))
}

// DIDUpdate is the outcome of UpdateDID.
type DIDUpdate struct {
	Submitted
	DID      did.DID     `json:"did"`
	Document storage.CID `json:"document"`
	// Known: the registry had the document already; then there is no record.
	Known bool `json:"known"`
	// Repeated: the document was in force; the record says only since when the keys
	// before it were compromised.
	Repeated bool `json:"repeated"`
	// OldKey is the file that the replaced key is in now, "" where our key stayed.
	OldKey string `json:"old_key"`
	// Shut: the document does not hold our own key: it signs nothing there any more.
	Shut bool `json:"shut"`
	// Disowned are the keys, as Multikeys, that are called compromised; Kept those that
	// were there from that index on too, but stand in the document and stay believed.
	Disowned []string `json:"disowned"`
	Kept     []string `json:"kept"`
}

// UpdateDID makes document the one in force of the did:web member d: ours, signed
// by the key in use, or as an admin anybody's. Where it brings our next key, that
// is put into use. compromisedSince, unless nil, is the log index from which on
// nothing is to be believed that a key signed which the document does not hold;
// with the document in force it says that of the keys before it. ErrNothingDisowned.
func (r *Registry) UpdateDID(ctx context.Context, d did.DID, document []byte, compromisedSince *int64) (DIDUpdate, error) {
	update := DIDUpdate{DID: d, Document: storage.CIDOf(document), Disowned: []string{}, Kept: []string{}}
	if r.identity == nil {
		return update, r.nobody()
	}
	if err := checkDocument(document, d); err != nil {
		return update, err
	}
	next, rotating, err := r.nextKey(d, document)
	if err != nil {
		return update, err
	}
	if rotating {
		if compromisedSince != nil && holdsKey(document, r.identity.key.Key.Public()) {
			return update, fmt.Errorf("%w: the document holds the key that is in use, the one that is being replaced; publish what `aln-registry key document` prints without --both", ErrNothingDisowned)
		}
		taken, err := r.as(next).isTaken(ctx)
		if err != nil {
			return update, err
		}
		if taken {
			return r.resume(ctx, next, update, document, compromisedSince)
		}
	}
	if compromisedSince != nil {
		if err := r.disown(ctx, &update, document, *compromisedSince); err != nil {
			return update, err
		}
	}
	update.Submitted, err = r.SignAndSubmit(ctx, Draft{
		Subject: record.MemberSubject(d), Attachments: [][]byte{document},
		Body: &record.DIDChange{DIDDocument: update.Document, CompromisedSince: compromisedSince},
	})
	if err != nil {
		return update, err
	}
	if rotating {
		update.OldKey, err = r.identity.finishRotation()
		return update, err
	}
	update.Shut = d == r.identity.DID() && !canSign(*r.identity, document)
	return update, nil
}

// isTaken reports whether the registry knows our key: whether the document in force holds it.
func (r *Registry) isTaken(ctx context.Context) (bool, error) {
	_, err := r.mint(ctx, particle.ScopeRead, "", 0)
	if refused := (*APIError)(nil); errors.As(err, &refused) && refused.Status == http.StatusUnauthorized {
		return false, nil
	}
	return err == nil, err
}

// resume finishes an update that was interrupted once the registry had taken a
// document with the next key: that is put into use, and the rest done by it.
func (r *Registry) resume(ctx context.Context, next Identity, update DIDUpdate, document []byte, compromisedSince *int64) (DIDUpdate, error) {
	old, err := r.identity.finishRotation()
	if err != nil {
		return update, err
	}
	next.Path = r.identity.Path
	r = r.as(next)
	inForce, err := r.tenures(ctx, update.DID)
	if err == nil {
		if last := inForce[len(inForce)-1]; last.cid == update.Document && last.says(compromisedSince) {
			update.Known = true
		} else {
			update, err = r.UpdateDID(ctx, update.DID, document, compromisedSince)
		}
	}
	if update.OldKey = old; err != nil {
		return update, fmt.Errorf("the new key is in use now, the old one in %s: the registry had it already; but %w", old, err)
	}
	return update, nil
}

// nextKey returns our key that is to come, which document must hold.
func (r *Registry) nextKey(d did.DID, document []byte) (next Identity, rotating bool, err error) {
	if d != r.identity.DID() {
		return Identity{}, false, nil
	}
	next, rotating, err = r.identity.Next()
	if err != nil || !rotating {
		return next, false, err
	}
	if !canSign(next, document) {
		return next, false, fmt.Errorf("%w: it does not hold the new key in %s; publish what `aln-registry key document` prints, or give up the new key by removing that file", did.ErrDocument, next.Path)
	}
	return next, true, nil
}

// canSign reports whether document lets i's key do all that records and sessions need.
func canSign(i Identity, document []byte) bool {
	parsed, err := did.ParseDocument(document)
	if err != nil {
		return false
	}
	for _, use := range []did.Relationship{did.Authentication, did.AssertionMethod, did.CapabilityInvocation} {
		if key, err := did.ResolveKey(i.id, use, parsed); err != nil || key != i.key.Key.Public() {
			return false
		}
	}
	return true
}

// holdsKey reports whether the document has key, for whatever use.
func holdsKey(document []byte, key did.PublicKey) bool {
	parsed, err := did.ParseDocument(document)
	return err == nil && parsed.Holds(key)
}

// as is r asked as another identity.
func (r *Registry) as(i Identity) *Registry {
	other := *r
	other.identity = &i
	return &other
}

// MemberDocument fetches the DID document that the last record about the did:web
// member d brought: the one in force.
func (r *Registry) MemberDocument(ctx context.Context, d did.DID) ([]byte, error) {
	h, err := r.Heads(ctx, record.MemberSubject(d))
	if err != nil {
		return nil, err
	}
	if h.Prev == "" {
		return nil, fmt.Errorf("%w: there is no record about %s", ErrNotMember, d)
	}
	rec, _, err := r.Record(ctx, string(h.Prev))
	if err != nil {
		return nil, err
	}
	for _, id := range rec.Attachments() {
		return r.Attachment(ctx, string(h.Prev), id)
	}
	return nil, fmt.Errorf("%w: the record %s brings no document of %s", ErrAnswer, h.Prev, d)
}

// ErrNotMember: somebody is and was no member.
var ErrNotMember = errors.New("not a member")
