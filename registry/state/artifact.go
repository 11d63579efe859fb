package state

import (
	"bytes"
	"slices"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// MaxOwners bounds the owners of one artifact.
const MaxOwners = 256

// applyPublish enters a version: of a known name by an owner, of a new name by
// a publisher, who becomes its owner.
func (a *application) applyPublish(body *record.Publish) error {
	subject, h := a.record.Subject(), a.record.Header()
	m, err := a.requireMember(h.Signer.DID)
	if err != nil {
		return err
	}
	artifact, known, err := ArtifactOf(a.store, subject.Kind(), subject.Name())
	if err != nil {
		return err
	}
	switch {
	case known && artifact.Name != subject.Name():
		return refuse(ErrTaken, "%s %q exists as %q; names that differ only in case, - and _ are one name", subject.Kind(), subject.Name(), artifact.Name)
	case known:
		if err := a.requireOwner(artifact); err != nil {
			return err
		}
	case !m.Has(RolePublisher):
		return refuse(ErrNotEntitled, "a new name needs the role publisher; %s has not got it", m.DID)
	case h.By != m.Record:
		return refuse(ErrNotEntitled, "by does not name the member record of %s in force, %s", m.DID, m.Record)
	default:
		artifact = Artifact{Kind: subject.Kind(), Name: subject.Name(), Owners: []Owner{{DID: m.DID, Record: a.record.ID()}}}
	}
	if old, exists, err := VersionOf(a.store, subject); err != nil {
		return err
	} else if exists {
		return refuse(ErrTaken, "%s@%s was published by entry %d; a version's bytes never change, publish a new version", old.Name, old.Version, old.Index)
	}
	if err := a.putArtifact(artifact, nil); err != nil {
		return err
	}
	key, err := keyVersion(subject)
	if err != nil {
		return err
	}
	return a.put(key, Version{
		Kind: subject.Kind(), Name: subject.Name(), Version: subject.Version(),
		CID: storage.CIDFromDigest(a.record.Digest()), MediaType: body.MediaType, Evidence: body.Evidence,
		Publisher: h.Signer.DID, Record: a.record.ID(), Index: a.entry.Index, Time: a.entry.Time,
	})
}

func (a *application) applyYank(body *record.Yank) error {
	subject := a.record.Subject()
	artifact, err := a.requireArtifact()
	if err != nil {
		return err
	}
	if err := a.requireOwnerOrAdmin(artifact); err != nil {
		return err
	}
	version, ok, err := VersionOf(a.store, subject)
	if err != nil {
		return err
	}
	switch {
	case !ok || version.Name != subject.Name() || version.Version != subject.Version():
		return refuse(ErrMissing, "there is no %s", subject)
	case version.Yanked == body.Yanked:
		return refuse(ErrNoChange, "%s is in that state already", subject)
	}
	if err := a.putArtifact(artifact, nil); err != nil {
		return err
	}
	version.Yanked = body.Yanked
	key, err := keyVersion(subject)
	if err != nil {
		return err
	}
	return a.put(key, version)
}

func (a *application) applyOwn(body *record.Own) error {
	artifact, err := a.requireArtifact()
	if err != nil {
		return err
	}
	if body.Intent != nil {
		err = a.checkIntent(artifact, *body.Intent)
	} else {
		err = a.requireOwnerOrAdmin(artifact)
	}
	if err != nil {
		return err
	}
	owners, err := a.changeOwners(artifact, body)
	if err != nil {
		return err
	}
	artifact.Owners = owners
	return a.putArtifact(artifact, body.Intent)
}

// changeOwners returns artifact's owners after body.
func (a *application) changeOwners(artifact Artifact, body *record.Own) ([]Owner, error) {
	owners := slices.Clone(artifact.Owners)
	for _, d := range body.Remove {
		i := slices.IndexFunc(owners, func(o Owner) bool { return o.DID == d })
		if i < 0 {
			return nil, refuse(ErrNoChange, "%s is not an owner of %s", d, artifact.Name)
		}
		owners = slices.Delete(owners, i, i+1)
	}
	for _, d := range body.Add {
		if m, _, err := MemberOf(a.store, d); err != nil {
			return nil, err
		} else if !m.Active() {
			return nil, refuse(ErrInvalid, "%s is not a member and so cannot be an owner; an admin admits it with `aln-registry member add %s --role publisher`", d, d)
		}
		if _, already := artifact.Owner(d); already {
			return nil, refuse(ErrNoChange, "%s is an owner of %s already", d, artifact.Name)
		}
		owners = append(owners, Owner{DID: d, Record: a.record.ID()})
	}
	if len(owners) > MaxOwners {
		return nil, refuse(ErrInvalid, "%s would have %d owners; at most %d", artifact.Name, len(owners), MaxOwners)
	}
	for _, o := range owners {
		if m, _, err := MemberOf(a.store, o.DID); err != nil || m.Active() {
			return owners, err
		}
	}
	return nil, refuse(ErrInvalid, "%s would be left without an owner who is a member; add another one first", artifact.Name)
}

// checkIntent judges an own record that the registry signs on the strength of
// an owner's own-intent: in its time, the registry's signature, the owner's
// entitlement, and no change since the intent that does not cite it.
func (a *application) checkIntent(artifact Artifact, id storage.CID) error {
	h := a.record.Header()
	if h.Signer.DID != a.settings.Origin {
		return refuse(ErrNotEntitled, "only the registry signs on the strength of an own-intent")
	}
	raw, err := a.attachment(id)
	if err != nil {
		return err
	}
	intent, err := record.Parse(raw)
	if err != nil {
		return refuse(ErrInvalid, "own-intent %s: %v", id, err)
	}
	ih := intent.Header()
	switch {
	case intent.Type() != record.TypeOwnIntent || intent.Subject().Thing() != a.record.Subject().Thing():
		return refuse(ErrInvalid, "%s is not an own-intent for %s", id, a.record.Subject())
	case ih.Registry != a.settings.Origin:
		return refuse(ErrInvalid, "the own-intent is for the registry %s", ih.Registry)
	case h.By != ih.By:
		return refuse(ErrNotEntitled, "by is not the own-intent's")
	}
	if err := checkWindow(ih, a.entry.Time, MaxIntentValidity); err != nil {
		return err
	}
	if err := a.checkIntentSignature(intent); err != nil {
		return err
	}
	if ih.Prev != h.Prev && (artifact.Intent == nil || *artifact.Intent != id) {
		return refuse(ErrStale, "%s was changed after the own-intent was signed", a.record.Subject())
	}
	return a.requireOwnerBy(artifact, ih.Signer.DID, ih.By, true)
}

func (a *application) checkIntentSignature(intent *record.Record) error {
	ih := intent.Header()
	doc, docRecord, err := a.signerDocument(ih.Signer.DID)
	if err != nil {
		return err
	}
	if ih.Key != docRecord {
		return refuse(ErrNotEntitled, "the own-intent's key does not name the record that put the DID document of %s in force", ih.Signer.DID)
	}
	return a.verifyWith(intent, doc)
}

func (a *application) requireArtifact() (Artifact, error) {
	subject := a.record.Subject()
	artifact, ok, err := ArtifactOf(a.store, subject.Kind(), subject.Name())
	if err != nil {
		return Artifact{}, err
	}
	if !ok || artifact.Name != subject.Name() {
		return Artifact{}, refuse(ErrMissing, "there is no %s named %q", subject.Kind(), subject.Name())
	}
	return artifact, nil
}

func (a *application) requireOwner(artifact Artifact) error {
	h := a.record.Header()
	return a.requireOwnerBy(artifact, h.Signer.DID, h.By, false)
}

func (a *application) requireOwnerOrAdmin(artifact Artifact) error {
	h := a.record.Header()
	return a.requireOwnerBy(artifact, h.Signer.DID, h.By, true)
}

// requireOwnerBy demands that d is a member who owns artifact and cites the
// record that made them owner, or (where admins may) an admin who cites the settings.
func (a *application) requireOwnerBy(artifact Artifact, d did.DID, by record.ID, orAdmin bool) error {
	if orAdmin && by == a.settings.Record && slices.Contains(a.settings.Admins, d) {
		return nil
	}
	if _, err := a.requireMember(d); err != nil {
		return err
	}
	owner, ok := artifact.Owner(d)
	if !ok {
		return refuse(ErrNotEntitled, "%s is not an owner of %s; an owner adds it with `%s`", d, artifact.Name, record.AddOwnerCommand(artifact.Kind, artifact.Name, d))
	}
	if by != owner.Record {
		return refuse(ErrNotEntitled, "by does not name the record that made %s an owner, %s", d, owner.Record)
	}
	return nil
}

// putArtifact writes artifact unless it is unchanged in everything; intent is
// the own-intent that this change cites.
func (a *application) putArtifact(artifact Artifact, intent *storage.CID) error {
	artifact.Intent = intent
	change, err := put(keyArtifact(artifact.Kind, artifact.Name), artifact)
	if err != nil {
		return err
	}
	old, ok, err := a.store.Get(change.Key)
	if err != nil {
		return err
	}
	if !ok || !bytes.Equal(old, change.Value) {
		a.changes = append(a.changes, change)
	}
	return nil
}
