package state

import (
	"fmt"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// Skew is how far an entry's time may lie outside a record's validity, and
// MaxValidity the longest validity of a record; an own-intent's is MaxIntentValidity.
const (
	Skew              = 120 * time.Second
	MaxValidity       = 24 * time.Hour
	MaxIntentValidity = 120 * time.Second
)

// application is one run of Apply: what the checks and rules need.
type application struct {
	store       Store
	entry       Entry
	record      *record.Record
	attachments Attachments
	// settings in force before the entry; zero at entry 0.
	settings Settings
	changes  []Change
}

// Apply returns what the record r at entry e changes, given the state of all
// entries before e, or why it is refused (one of the Err… of this package; any
// other error is the Store's).
func Apply(s Store, e Entry, r *record.Record, att Attachments) ([]Change, error) {
	// A log entry holds whole seconds of UTC; another spelling of the same time
	// must not make another state.
	e.Time = e.Time.UTC().Truncate(time.Second)
	a := &application{store: s, entry: e, record: r, attachments: att}
	settings, ok, err := SettingsOf(s)
	if err != nil {
		return nil, err
	}
	a.settings = settings
	if ok == (e.Index == 0) || e.Index < 0 {
		return nil, refuse(ErrInvalid, "entry %d cannot follow this state", e.Index)
	}
	if err := a.checkGenesis(); err != nil {
		return nil, err
	}
	if err := a.checkHeader(); err != nil {
		return nil, err
	}
	if err := a.checkSignature(); err != nil {
		return nil, err
	}
	if err := a.checkPrev(); err != nil {
		return nil, err
	}
	if err := a.applyBody(); err != nil {
		return nil, err
	}
	h := r.Header()
	head := Head{Record: r.ID(), Type: r.Type(), Index: e.Index, Signer: h.Signer.DID}
	if err := a.put(keyHead(r.Subject().Thing()), head); err != nil {
		return nil, err
	}
	return a.changes, nil
}

// checkGenesis holds the first two entries to FORMATS §4: the registry's own
// record, then the first admin's member record.
func (a *application) checkGenesis() error {
	switch a.entry.Index {
	case 0:
		body, ok := a.record.Body().(*record.Registry)
		if !ok {
			return refuse(ErrInvalid, "entry 0 is a registry record, not %s", a.record.Type())
		}
		if body.DID != a.record.Header().Signer.DID {
			return refuse(ErrNotEntitled, "entry 0 is signed by the registry itself, %s", body.DID)
		}
	case 1:
		if a.record.Type() != record.TypeMember || a.record.Subject().Member() != a.record.Header().Signer.DID {
			return refuse(ErrInvalid, "entry 1 is the first admin's own member record; it is made when that admin types `aln-registry login`")
		}
	}
	return nil
}

func (a *application) checkHeader() error {
	h := a.record.Header()
	if origin := a.origin(); h.Registry != origin {
		return refuse(ErrInvalid, "signed for the registry %s; this is %s", h.Registry, origin)
	}
	return checkWindow(h, a.entry.Time, MaxValidity)
}

// origin is entry 0's did, also while entry 0 itself is applied.
func (a *application) origin() did.DID {
	if body, ok := a.record.Body().(*record.Registry); ok && a.entry.Index == 0 {
		return body.DID
	}
	return a.settings.Origin
}

func checkWindow(h record.Header, at time.Time, longest time.Duration) error {
	switch validity := h.Expires.Sub(h.IssuedAt); {
	case validity <= 0:
		return refuse(ErrInvalid, "expires before it is issued")
	case validity > longest:
		return refuse(ErrInvalid, "valid for %s; at most %s", validity, longest)
	case at.Before(h.IssuedAt.Add(-Skew)):
		return refuse(ErrInvalid, "issued at %s, after this entry's time %s; check the signer's clock", h.IssuedAt.Format(time.RFC3339), at.Format(time.RFC3339))
	case at.After(h.Expires.Add(Skew)):
		return refuse(ErrInvalid, "expired at %s, before this entry's time %s; sign it again", h.Expires.Format(time.RFC3339), at.Format(time.RFC3339))
	}
	return nil
}

// checkSignature finds the signer's key in the document in force and verifies.
func (a *application) checkSignature() error {
	h := a.record.Header()
	doc, docRecord, err := a.signerDocument(h.Signer.DID)
	if err != nil {
		return err
	}
	if a.entry.DIDDocument != doc {
		return refuse(ErrInvalid, "the entry names another DID document than the signer's in force")
	}
	if h.Key != docRecord {
		return refuse(ErrNotEntitled, "key does not name the record that put the DID document of %s in force", h.Signer.DID)
	}
	return a.verifyWith(a.record, doc)
}

// verifyWith checks r's signature by the key that its signer's document doc
// (zero for did:key) holds in the relationship that r's type demands.
func (a *application) verifyWith(r *record.Record, doc storage.CID) error {
	var parsed *did.Document
	if !doc.IsZero() {
		var err error
		if parsed, err = a.document(doc); err != nil {
			return err
		}
	}
	signer := r.Header().Signer
	key, err := did.ResolveKey(signer, r.Type().Relationship(), parsed)
	if err != nil {
		return refuse(ErrNotEntitled, "%s: %v", signer, err)
	}
	if err := r.Verify(key); err != nil {
		return refuse(ErrInvalid, "signature by %s: %v", signer, err)
	}
	return nil
}

// document returns the attached DID document named id.
func (a *application) document(id storage.CID) (*did.Document, error) {
	raw, err := a.attachment(id)
	if err != nil {
		return nil, err
	}
	parsed, err := did.ParseDocument(raw)
	if err != nil {
		return nil, refuse(ErrInvalid, "DID document %s: %v", id, err)
	}
	return parsed, nil
}

// attachment returns the attached bytes named id, which must hash to it: Apply
// believes no caller that they do.
func (a *application) attachment(id storage.CID) ([]byte, error) {
	raw, ok := a.attachments[id]
	if !ok {
		return nil, refuse(ErrInvalid, "the blob %s is not attached", id)
	}
	if storage.CIDOf(raw) != id {
		return nil, refuse(ErrInvalid, "the bytes attached as %s are others", id)
	}
	return raw, nil
}

// signerDocument returns the CID of the document in force of d and the record
// that put it there; both zero for did:key.
func (a *application) signerDocument(d did.DID) (storage.CID, record.ID, error) {
	if d.Method() == "key" {
		return storage.CID{}, "", nil
	}
	if body, ok := a.record.Body().(*record.Registry); ok && a.entry.Index == 0 {
		return *body.DIDDocument, "", nil
	}
	if d == a.settings.Origin {
		return *a.settings.DIDDocument, a.settings.DocumentRecord, nil
	}
	m, ok, err := MemberOf(a.store, d)
	if err != nil {
		return storage.CID{}, "", err
	}
	if ok && len(m.Documents) > 0 {
		last := m.Documents[len(m.Documents)-1]
		return last.CID, last.Record, nil
	}
	// The first admin's own member record brings the document it is signed by.
	if body, ok := a.record.Body().(*record.Member); ok && a.entry.Index == 1 && body.DIDDocument != nil {
		return *body.DIDDocument, "", nil
	}
	return storage.CID{}, "", refuse(ErrNotEntitled, "no DID document of %s is in force; an admin admits it with `aln-registry member add`", d)
}

func (a *application) checkPrev() error {
	thing := a.record.Subject().Thing()
	head, _, err := HeadOf(a.store, thing)
	if err != nil {
		return err
	}
	prev := a.record.Header().Prev
	switch {
	case prev == head.Record:
		return nil
	case head.Record == "":
		return refuse(ErrStale, "there is no record about %s yet, but prev names one", thing)
	}
	return refuse(ErrStale, "%s was changed by a %s record of %s (entry %d, %s) that came between; ask for its head again and sign anew",
		thing, head.Type, head.Signer, head.Index, head.Record)
}

func (a *application) applyBody() error {
	switch body := a.record.Body().(type) {
	case *record.Registry:
		return a.applyRegistry(body)
	case *record.Member:
		return a.applyMember(body)
	case *record.DIDChange:
		return a.applyDIDChange(body)
	case *record.Publish:
		return a.applyPublish(body)
	case *record.Yank:
		return a.applyYank(body)
	case *record.Own:
		return a.applyOwn(body)
	case *record.Approve:
		return a.applyApprove(body)
	case *record.Grant:
		return a.applyGrant()
	case *record.Revoke:
		return a.applyRevoke()
	case *record.Quarantine:
		return a.applyQuarantine(body)
	case *record.Release:
		return a.applyRelease()
	case *record.Import:
		return a.applyImport()
	}
	return refuse(ErrInvalid, "a record of type %s is never an entry of the log", a.record.Type())
}

func (a *application) put(key string, v any) error {
	change, err := put(key, v)
	if err != nil {
		return err
	}
	a.changes = append(a.changes, change)
	return nil
}

func refuse(sentinel error, format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{sentinel}, args...)...)
}
