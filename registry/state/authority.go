package state

import (
	"slices"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// applyRegistry puts settings in force: at entry 0, or when admin_threshold is
// one; else it opens a proposal that the other admins approve.
func (a *application) applyRegistry(body *record.Registry) error {
	if a.entry.Index == 0 {
		if a.record.Header().By != "" {
			return refuse(ErrInvalid, "entry 0 has nothing to cite as by")
		}
		return a.enactRegistry(a.record.ID(), *body)
	}
	if err := a.requireAdmin(); err != nil {
		return err
	}
	if body.DID != a.settings.Origin {
		return refuse(ErrInvalid, "the registry's did never changes after entry 0")
	}
	if err := a.checkDocument(body.DIDDocument, body.DID); err != nil {
		return err
	}
	if err := a.requireMembers(body.Admins); err != nil {
		return err
	}
	if a.settings.AdminThreshold == 1 {
		return a.enactRegistry(a.record.ID(), *body)
	}
	if _, err := a.nextLogKeys(a.record.ID(), body.LogKeys); err != nil {
		return err // nobody should vote on what can never be
	}
	return a.propose(Proposal{
		Base: a.settings.Record, Approvals: []did.DID{a.record.Header().Signer.DID}, Registry: *body,
	})
}

// requireMembers demands that all admins-to-be are members now.
func (a *application) requireMembers(admins []did.DID) error {
	for _, admin := range admins {
		if m, _, err := MemberOf(a.store, admin); err != nil {
			return err
		} else if !m.Active() {
			return refuse(ErrInvalid, "%s, to be an admin, is not a member; admit it first", admin)
		}
	}
	return nil
}

// enactRegistry puts body in force on the strength of the registry record id.
func (a *application) enactRegistry(id record.ID, body record.Registry) error {
	keys, err := a.nextLogKeys(id, body.LogKeys)
	if err != nil {
		return err
	}
	next := Settings{Record: id, Origin: body.DID, LogKeysHistory: keys, Registry: body, DocumentRecord: a.settings.DocumentRecord}
	old := a.settings.DIDDocument
	if body.DIDDocument != nil && (old == nil || *old != *body.DIDDocument) {
		next.DocumentRecord = id
	}
	return a.put(keySettings, next)
}

// nextLogKeys holds a change of log_keys by the registry record id to its rules;
// nil as long as they are entry 0's.
func (a *application) nextLogKeys(id record.ID, next []string) (*LogKeys, error) {
	if a.entry.Index == 0 {
		return nil, nil
	}
	keys, err := a.settings.History().Next(a.settings.LogKeys, next, id, a.entry.Index, a.entry.Time)
	if err != nil {
		return nil, refuse(ErrInvalid, "%v", err)
	}
	if keys.Record == "" {
		return nil, nil
	}
	return &keys, nil
}

// applyMember admits, changes or removes a member.
func (a *application) applyMember(body *record.Member) error {
	if err := a.requireAdmin(); err != nil {
		return err
	}
	d := a.record.Subject().Member()
	if d == a.settings.Origin {
		return refuse(ErrInvalid, "the registry is not its own member")
	}
	old, known, err := MemberOf(a.store, d)
	if err != nil {
		return err
	}
	if len(body.Roles) == 0 {
		if !old.Active() {
			return refuse(ErrNoChange, "%s is not a member", d)
		}
		if slices.Contains(a.settings.Admins, d) {
			return refuse(ErrInvalid, "%s is an admin; take it out of the registry's admins first", d)
		}
	}
	if err := a.checkDocument(body.DIDDocument, d); err != nil {
		return err
	}
	next := Member{
		DID: d, Roles: body.Roles, Tier: body.Tier, StakeholderAddrs: body.StakeholderAddrs,
		Record: a.record.ID(), Documents: []Document{},
	}
	if known {
		next.Documents = old.Documents
	}
	if body.DIDDocument != nil {
		next.Documents = a.withDocument(next.Documents, *body.DIDDocument)
	}
	return a.put(keyMember(d), next)
}

// withDocument appends doc unless it is the one in force already.
func (a *application) withDocument(docs []Document, doc storage.CID) []Document {
	if n := len(docs); n > 0 && docs[n-1].CID == doc {
		return docs
	}
	return append(slices.Clone(docs), Document{CID: doc, Record: a.record.ID(), Since: a.entry.Index})
}

// applyDIDChange replaces a did:web member's document, or says more of the one in
// force: signed by a key of the document in force before, or by an admin.
func (a *application) applyDIDChange(body *record.DIDChange) error {
	d, h := a.record.Subject().Member(), a.record.Header()
	m, _, err := MemberOf(a.store, d)
	if err != nil {
		return err
	}
	if !m.Active() || len(m.Documents) == 0 {
		return refuse(ErrMissing, "%s is not a did:web member", d)
	}
	docs := slices.Clone(m.Documents)
	last := &docs[len(docs)-1]
	switch isAdmin := slices.Contains(a.settings.Admins, h.Signer.DID); {
	case h.Signer.DID == d && h.By == last.Record:
	case h.Signer.DID == d && !isAdmin:
		return refuse(ErrNotEntitled, "by does not name the record that put the replaced document in force, %s", last.Record)
	default:
		if err := a.requireAdmin(); err != nil {
			return err
		}
	}
	if err := a.checkDocument(&body.DIDDocument, d); err != nil {
		return err
	}
	since := body.CompromisedSince
	if since != nil && *since > a.entry.Index {
		return refuse(ErrInvalid, "compromised_since %d is beyond this entry, %d", *since, a.entry.Index)
	}
	if last.CID == body.DIDDocument {
		return a.callEarlierCompromised(m, since)
	}
	if since != nil {
		last.CompromisedSince = since
	}
	m.Documents = append(docs, Document{CID: body.DIDDocument, Record: a.record.ID(), Since: a.entry.Index})
	return a.put(keyMember(d), m)
}

// callEarlierCompromised lets a did record repeat the document in force, as if the
// record that put it in force had said since: a theft may be noticed when the key
// was replaced long ago. No document replaces itself, so it has to say more of the
// keys before than was said.
func (a *application) callEarlierCompromised(m Member, since *int64) error {
	docs := slices.Clone(m.Documents)
	last := len(docs) - 1
	switch {
	case since == nil:
		return refuse(ErrNoChange, "that document of %s is in force already", m.DID)
	case last == 0:
		return refuse(ErrNoChange, "that document of %s is in force already and its first: no key was there before that could be called compromised", m.DID)
	case *since >= docs[last].Since:
		return refuse(ErrNoChange, "that document of %s is in force already, since entry %d: the keys before it signed nothing from entry %d on", m.DID, docs[last].Since, *since)
	}
	before := &docs[last-1]
	if said := before.CompromisedSince; said != nil && *said <= *since {
		return refuse(ErrNoChange, "that document of %s is in force already, and the keys before it are called compromised from entry %d on", m.DID, *said)
	}
	before.CompromisedSince = since
	m.Documents = docs
	return a.put(keyMember(m.DID), m)
}

// checkDocument requires a named document to be attached, well formed and d's.
func (a *application) checkDocument(doc *storage.CID, d did.DID) error {
	if doc == nil {
		return nil
	}
	parsed, err := a.document(*doc)
	if err != nil {
		return err
	}
	if parsed.ID() != d {
		return refuse(ErrInvalid, "the DID document %s is of %s, not %s", doc, parsed.ID(), d)
	}
	return nil
}

// requireAdmin demands that the signer is an admin and cites the settings in force.
func (a *application) requireAdmin() error {
	h := a.record.Header()
	if !slices.Contains(a.settings.Admins, h.Signer.DID) {
		return refuse(ErrNotEntitled, "%s is not an admin", h.Signer.DID)
	}
	if h.By != a.settings.Record {
		return refuse(ErrNotEntitled, "by does not name the registry record in force, %s", a.settings.Record)
	}
	return nil
}

// requireRole demands that the signer is an admin and cites the settings in force,
// or a member with role and cites its member record in force.
func (a *application) requireRole(role string) error {
	h := a.record.Header()
	if h.By == a.settings.Record {
		return a.requireAdmin()
	}
	m, err := a.requireMember(h.Signer.DID)
	if err != nil {
		return err
	}
	switch {
	case m.Has(role) && h.By == m.Record:
		return nil
	case m.Has(role):
		return refuse(ErrNotEntitled, "by does not name the member record of %s in force, %s", m.DID, m.Record)
	case slices.Contains(a.settings.Admins, m.DID):
		return refuse(ErrNotEntitled, "by does not name the registry record in force, %s", a.settings.Record)
	}
	return refuse(ErrNotEntitled, "%s has not got the role %s; an admin gives it with `aln-registry member add`, which is told all roles that are to stay", m.DID, role)
}

// requireMember demands that d is a member now.
func (a *application) requireMember(d did.DID) (Member, error) {
	m, _, err := MemberOf(a.store, d)
	if err != nil {
		return Member{}, err
	}
	if !m.Active() {
		return Member{}, refuse(ErrNotEntitled, "%s is not a member; an admin admits it with `aln-registry member add %s --role publisher`", d, d)
	}
	return m, nil
}
