package verify

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// judge goes through a trail in log order and says of each line whether its
// signature and its authority hold. It keeps what the sound lines before have
// put in force, as far as the evidence goes.
type judge struct {
	trail *trail
	council
	members map[did.DID]*line // last member record of each
	docs    map[did.DID]document
	// releases are the proposals to end rules.
	releases map[record.ID]*release
}

// document is a DID document in force, and the line that put it there.
type document struct {
	cid storage.CID
	by  *line
	// root is the last line up to by that brought a document but was not signed by
	// the DID itself: those after it changed their keys themselves, down to by.
	root *line
}

func newJudge(t *trail) *judge {
	return &judge{
		trail: t, members: map[did.DID]*line{}, docs: map[did.DID]document{}, releases: map[record.ID]*release{},
		council: council{proposals: map[record.ID]*proposal{}, inForce: map[record.ID]bool{}},
	}
}

// judge decides signature and authority of every line: first as state.Apply does,
// then what of it is still believed where did records say that keys were compromised.
func (t *trail) judge() {
	j := newJudge(t)
	for _, l := range t.lines {
		j.line(l)
	}
	t.council = &j.council
	t.belief = t.believe()
	t.disown()
}

func (j *judge) line(l *line) {
	l.signature = j.checkSignature(l)
	l.authority = j.checkAuthority(l)
	if l.sound() {
		j.enact(l)
	}
}

// enact notes what a sound line puts in force, as state.Apply does.
func (j *judge) enact(l *line) {
	switch body := l.record.Body().(type) {
	case *record.Registry:
		l.enacts = j.propose(l)
	case *record.Release:
		j.releases[l.record.ID()] = &release{line: l, open: true}
	case *record.Approve:
		if l.record.Subject().Rule() == "" {
			l.enacts = j.vote(l, body)
		} else {
			j.releases[body.Record].vote(l, body)
		}
	case *record.Member:
		d := l.record.Subject().Member()
		j.members[d] = l
		l.vouches = j.putDocument(d, body.DIDDocument, l)
	case *record.DIDChange:
		d := l.record.Subject().Member()
		l.vouches = j.putDocument(d, &body.DIDDocument, l)
		l.root = j.docs[d].root
	}
	if p := l.enacts; p != nil {
		settings := p.line.record.Body().(*record.Registry)
		l.vouches = j.putDocument(settings.DID, settings.DIDDocument, p.line)
	}
}

// putDocument leaves a document that is in force already to the line that first
// brought it, and returns the line that signatures by it have to cite.
func (j *judge) putDocument(d did.DID, cid *storage.CID, by *line) *line {
	if cid == nil {
		return nil
	}
	old := j.docs[d]
	if old.cid == *cid {
		return old.by
	}
	root := by
	if by.record.Header().Signer.DID == d && old.by != nil {
		root = old.root
	}
	j.docs[d] = document{*cid, by, root}
	return by
}

// checkSignature finds the signer's key in the document in force and verifies.
func (j *judge) checkSignature(l *line) error {
	doc, err := j.signerDocument(l.record, l)
	if err != nil {
		return err
	}
	if l.entry.DIDDocument != doc {
		return errors.New("the entry names another DID document than the signer's in force")
	}
	l.key, err = j.verify(l.record, doc)
	return err
}

// signerDocument returns the document in force of r's signer at the line at
// (zero for did:key), having held r's `key` to it.
func (j *judge) signerDocument(r *record.Record, at *line) (storage.CID, error) {
	h := r.Header()
	var inForce document
	switch d := h.Signer.DID; {
	case d.Method() == "key":
	case r == at.record && j.bringsOwn(at):
		inForce.cid = *namedDocument(r)
	default:
		inForce = j.docs[d]
		if inForce.by == nil {
			return storage.CID{}, fmt.Errorf("no record given puts a DID document of %s in force", d)
		}
	}
	var want record.ID
	if inForce.by != nil {
		want = inForce.by.record.ID()
	}
	if h.Key != want {
		if below := j.trail.byID[h.Key]; below != nil && !below.sound() {
			return storage.CID{}, fmt.Errorf("the DID document it is signed by was put in force by %s, which does not hold: %w", below, errors.Join(below.signature, below.authority))
		}
		return storage.CID{}, fmt.Errorf("key does not name the record that put the DID document of %s in force", h.Signer.DID)
	}
	return inForce.cid, nil
}

// bringsOwn reports whether l brings the document that it is signed by: entry 0,
// and entry 1, the first admin's own member record (FORMATS §4).
func (j *judge) bringsOwn(l *line) bool {
	switch body := l.record.Body().(type) {
	case *record.Registry:
		return l.item.Index == 0 && body.DIDDocument != nil
	case *record.Member:
		return l.item.Index == 1 && body.DIDDocument != nil && l.record.Subject().Member() == l.record.Header().Signer.DID
	}
	return false
}

// verify returns the key by which r holds.
func (j *judge) verify(r *record.Record, doc storage.CID) (did.PublicKey, error) {
	var parsed *did.Document
	if !doc.IsZero() {
		var err error
		if parsed, err = j.trail.document(doc); err != nil {
			return did.PublicKey{}, err
		}
	}
	signer := r.Header().Signer
	key, err := did.ResolveKey(signer, r.Type().Relationship(), parsed)
	if err != nil {
		return did.PublicKey{}, fmt.Errorf("%s: %w", signer, err)
	}
	if err := r.Verify(key); err != nil {
		return did.PublicKey{}, fmt.Errorf("signature by %s: %w", signer, err)
	}
	return key, nil
}

// checkAuthority judges whether the record that l cites entitles its signer to
// it (FORMATS §2, the table).
func (j *judge) checkAuthority(l *line) error {
	h := l.record.Header()
	if h.Registry != j.trail.origin {
		return fmt.Errorf("signed for the registry %s, not %s", h.Registry, j.trail.origin)
	}
	if err := checkWindow(h, l.entry.Time, state.MaxValidity); err != nil {
		return err
	}
	if l.item.Index == 0 {
		return j.checkGenesis(l)
	}
	for _, id := range l.cites()[1:] {
		if id != "" {
			if _, err := j.cited(id, l); err != nil {
				return err
			}
		}
	}
	by, err := j.cited(h.By, l)
	if err != nil {
		return err
	}
	switch body := l.record.Body().(type) {
	case *record.Registry:
		return j.checkRegistry(l, body, by)
	case *record.Member:
		if l.record.Subject().Member() == j.trail.origin {
			return errors.New("the registry is not its own member")
		}
		return j.checkAdmin(l, by, h.Signer.DID)
	case *record.DIDChange:
		return j.checkDIDChange(l, body, by)
	case *record.Publish:
		return j.checkPublish(l, by)
	case *record.Yank:
		return j.checkOwnerOrAdmin(l, by, h.Signer.DID)
	case *record.Own:
		if body.Intent != nil {
			return j.checkIntent(l, by)
		}
		return j.checkOwnerOrAdmin(l, by, h.Signer.DID)
	case *record.Approve:
		if l.record.Subject().Rule() != "" {
			return j.checkReleaseVote(l, body, by)
		}
		return j.checkApprove(l, body, by)
	case *record.Grant, *record.Revoke:
		return j.checkRole(l, by, state.RoleGrantor)
	case *record.Quarantine, *record.Release:
		return j.checkRole(l, by, state.RoleReviewer)
	case *record.Import:
		return j.checkOwn(l, by)
	}
	return fmt.Errorf("a record of type %s is never an entry of the log", l.record.Type())
}

func checkWindow(h record.Header, at time.Time, longest time.Duration) error {
	switch validity := h.Expires.Sub(h.IssuedAt); {
	case validity <= 0:
		return errors.New("the record expires before it is issued")
	case validity > longest:
		return fmt.Errorf("the record is valid for %s, at most %s is allowed", validity, longest)
	case at.Before(h.IssuedAt.Add(-state.Skew)):
		return fmt.Errorf("the record was issued at %s, after its entry's time %s", h.IssuedAt.Format(time.RFC3339), at.Format(time.RFC3339))
	case at.After(h.Expires.Add(state.Skew)):
		return fmt.Errorf("the record expired at %s, before its entry's time %s", h.Expires.Format(time.RFC3339), at.Format(time.RFC3339))
	}
	return nil
}

// checkGenesis judges entry 0, where all authority ends.
func (j *judge) checkGenesis(l *line) error {
	h := l.record.Header()
	body, ok := l.record.Body().(*record.Registry)
	switch {
	case !ok:
		return fmt.Errorf("entry 0 is a %s record, not the registry's own", l.record.Type())
	case body.DID != j.trail.origin || h.Signer.DID != j.trail.origin:
		return fmt.Errorf("entry 0 is of %s, signed by %s; the registry is %s", body.DID, h.Signer.DID, j.trail.origin)
	case h.By != "" || h.Prev != "" || h.Key != "":
		return errors.New("entry 0 cites records before it, of which there are none")
	}
	return nil
}

// cited returns the sound earlier line of the record id.
func (j *judge) cited(id record.ID, l *line) (*line, error) {
	below := j.trail.byID[id]
	switch {
	case id == "":
		return nil, errors.New("by is null: nothing entitles the signer")
	case below == nil:
		return nil, fmt.Errorf("it cites the record %s, which is missing from the evidence", id)
	case below.item.Index >= l.item.Index:
		return nil, fmt.Errorf("it cites %s, which does not come before it", below)
	}
	if err := errors.Join(below.signature, below.authority); err != nil {
		return nil, fmt.Errorf("it rests on %s, which does not hold: %w", below, err)
	}
	return below, nil
}

// checkAdmin demands that by is the registry record in force and d an admin of it,
// and notes that l rests on that.
func (j *judge) checkAdmin(l, by *line, d did.DID) error {
	body, ok := by.record.Body().(*record.Registry)
	switch {
	case !ok:
		return fmt.Errorf("by names %s, not a registry record", by)
	case by != j.registry:
		return fmt.Errorf("by names %s, which %s had replaced", by, j.registry)
	case !slices.Contains(body.Admins, d):
		return fmt.Errorf("%s is not an admin by %s", d, by)
	}
	l.admin = d
	return nil
}

// checkOwn demands that the registry itself signed l, by the settings in force.
func (j *judge) checkOwn(l, by *line) error {
	switch h := l.record.Header(); {
	case h.Signer.DID != j.trail.origin:
		return errors.New("only the registry itself says what it saw of another one")
	case by != j.registry:
		return fmt.Errorf("by names %s, not the settings in force", by)
	}
	return nil
}

func (j *judge) checkDIDChange(l *line, body *record.DIDChange, by *line) error {
	d, signer := l.record.Subject().Member(), l.record.Header().Signer.DID
	if d == j.trail.origin {
		return errors.New("the registry's own document changes by registry records")
	}
	if doc, err := j.trail.document(body.DIDDocument); err != nil {
		return err
	} else if doc.ID() != d {
		return fmt.Errorf("it brings the DID document of %s", doc.ID())
	}
	if body.CompromisedSince != nil && *body.CompromisedSince > l.item.Index {
		return fmt.Errorf("compromised_since %d is beyond this entry", *body.CompromisedSince)
	}
	if signer == d && by == j.docs[d].by {
		return nil
	}
	return j.checkAdmin(l, by, signer)
}

// checkPublish: a new name is for a publisher by their own member record, a
// known one for its owners.
func (j *judge) checkPublish(l *line, by *line) error {
	h := l.record.Header()
	if h.Prev != "" {
		return j.checkOwner(l, by, h.Signer.DID)
	}
	return j.checkHolder("a new name", by, h.Signer.DID, state.RolePublisher)
}

func (j *judge) checkOwnerOrAdmin(l *line, by *line, d did.DID) error {
	if by.record.Type() == record.TypeRegistry {
		return j.checkAdmin(l, by, d)
	}
	return j.checkOwner(l, by, d)
}

// checkOwner demands that by made d an owner of the very thing that l is about.
// Whether d still was one, the history tells.
func (j *judge) checkOwner(l *line, by *line, d did.DID) error {
	thing := l.record.Subject().Thing()
	if by.record.Subject().Thing() != thing {
		return fmt.Errorf("by names %s, which entitles nobody to %s", by, thing)
	}
	switch body := by.record.Body().(type) {
	case *record.Publish:
		h := by.record.Header()
		if h.Prev != "" || h.Signer.DID != d {
			return fmt.Errorf("%s did not make %s an owner of %s", by, d, thing)
		}
	case *record.Own:
		if !slices.Contains(body.Add, d) {
			return fmt.Errorf("%s did not make %s an owner of %s", by, d, thing)
		}
	default:
		return fmt.Errorf("by names %s, which makes nobody an owner", by)
	}
	if m := j.members[d]; m != nil && len(m.record.Body().(*record.Member).Roles) == 0 {
		return fmt.Errorf("%s had been removed from the members by %s", d, m)
	}
	return nil
}

// checkIntent judges an owner change that the registry signed for cargo.
func (j *judge) checkIntent(l *line, by *line) error {
	h, intent := l.record.Header(), l.intent
	if h.Signer.DID != j.trail.origin {
		return errors.New("only the registry signs on the strength of an own-intent")
	}
	if intent == nil {
		return errors.New("its own-intent is missing from the evidence or malformed")
	}
	ih := intent.Header()
	switch {
	case intent.Type() != record.TypeOwnIntent || intent.Subject().Thing() != l.record.Subject().Thing():
		return fmt.Errorf("what it names as intent is a %s record about %s", intent.Type(), intent.Subject())
	case ih.Registry != j.trail.origin:
		return fmt.Errorf("its own-intent is for the registry %s", ih.Registry)
	case ih.By != h.By:
		return errors.New("its by is not that of its own-intent")
	}
	if err := checkWindow(ih, l.entry.Time, state.MaxIntentValidity); err != nil {
		return fmt.Errorf("own-intent: %w", err)
	}
	doc, err := j.signerDocument(intent, l)
	if err != nil {
		return fmt.Errorf("own-intent: %w", err)
	}
	if l.intentKey, err = j.verify(intent, doc); err != nil {
		return fmt.Errorf("own-intent: %w", err)
	}
	return j.checkOwnerOrAdmin(l, by, ih.Signer.DID)
}
