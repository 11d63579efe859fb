package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// Bounds on what a record may bring along.
const (
	maxAttachment  = record.MaxAttachment // but an import record's (record.MostAttached)
	maxAttachments = 4
)

// indexSettings are the settings that bear on index lines.
func indexSettings(s state.Settings) cargo.IndexSettings {
	return cargo.IndexSettings{IndexURLs: s.IndexURLs, DependencyRegistries: s.DependencyRegistries}
}

// Submit enters any record but a publish: of members, settings, owners, yanks,
// grants, rules and approvals. The session must be the signer's own and have the scope that
// the record's type needs. attachments are the blobs that the record names.
func (r *Registry) Submit(ctx context.Context, asker policy.Asker, envelope []byte, attachments [][]byte) (Receipt, error) {
	rec, err := record.Parse(envelope)
	if err != nil {
		return Receipt{}, err
	}
	switch rec.Type() {
	case record.TypePublish:
		return Receipt{}, fmt.Errorf("%w: a publish record comes with the bytes it is about", ErrRequest)
	case record.TypeImport:
		return Receipt{}, fmt.Errorf("%w: what is seen of another registry is nobody's to submit; the registry looks itself", ErrRequest)
	}
	if err := checkSession(asker, rec, rec.Scope()); err != nil {
		return Receipt{}, err
	}
	named, err := matchAttachments(rec, attachments)
	if err != nil {
		return Receipt{}, err
	}
	if err := r.checkOwnDocument(rec, named); err != nil {
		return Receipt{}, err
	}
	s := &submission{record: rec, attachments: named}
	if _, err := r.precheck(ctx, asker, s); err != nil {
		return Receipt{}, err
	}
	if err := r.checkNamed(ctx, rec, named); err != nil {
		return Receipt{}, err
	}
	return r.storeAndSubmit(ctx, s)
}

// precheck judges s against the published state before anything of it is
// stored, so that who may not change anything cannot fill the disk either. The
// sequencer judges again; what is stale here is stale there, since prev can only
// come from what was published. repeated: an owner's same bytes are there already.
// Of what asker may not know of a refusal says nothing.
//
// What another replica published a moment ago may be what the signer goes by: nothing is
// refused before that is looked at.
func (r *Registry) precheck(ctx context.Context, asker policy.Asker, s *submission) (repeated *Receipt, err error) {
	return caughtUp(ctx, r, isRefusal, func() (*Receipt, error) { return r.prejudge(ctx, asker, s) })
}

func (r *Registry) prejudge(ctx context.Context, asker policy.Asker, s *submission) (repeated *Receipt, err error) {
	before := r.visible(ctx)
	entry, refusal, err := r.entryFor(ctx, before, s, before.before, r.Clock())
	if err == nil {
		err = refusal
	}
	if err != nil {
		return nil, err
	}
	changes, err := state.Apply(before, entry, s.record, s.attachments)
	if err == nil {
		refusal, err := r.checkOwn(ctx, before, changes, s.attachments)
		if err == nil {
			err = refusal
		}
		return nil, err
	}
	if receipt, ok := republished(before, s.record, err); ok {
		return &receipt, nil
	}
	if isRefusal(err) {
		err = r.toldOf(ctx, asker, before, entry, s, refusalFor(before, s.record, err))
	}
	return nil, err
}

// checkSession holds a record against the session that brings it.
func checkSession(asker policy.Asker, rec *record.Record, scope string) error {
	if denial := policy.Submit(asker, string(rec.ID()), scope); denial != nil {
		return denial
	}
	if signer := rec.Header().Signer.DID; signer != asker.DID {
		return &policy.Denial{Rule: policy.RuleToken, Reason: fmt.Sprintf("the record is signed by %s, the session is that of %s", signer, asker.DID)}
	}
	return nil
}

// matchAttachments takes exactly the attachments that rec names.
func matchAttachments(rec *record.Record, attachments [][]byte) (state.Attachments, error) {
	wanted := rec.Attachments()
	if len(attachments) > maxAttachments {
		return nil, fmt.Errorf("%w: more than %d attachments", ErrRequest, maxAttachments)
	}
	named := state.Attachments{}
	for _, raw := range attachments {
		id := storage.CIDOf(raw)
		if !slices.Contains(wanted, id) || len(raw) > maxAttachment {
			return nil, fmt.Errorf("%w: the record does not name the attachment %s, or it is larger than %d bytes", ErrRequest, id, maxAttachment)
		}
		named[id] = raw
	}
	return named, nil
}

// ChangeOwners signs and enters an own record for cargo, on the strength of the
// own-intent that the asker's credential provider signed.
func (r *Registry) ChangeOwners(ctx context.Context, asker policy.Asker, name string, intentEnvelope []byte, add, remove []did.DID) (Receipt, error) {
	intent, err := record.Parse(intentEnvelope)
	if err != nil {
		return Receipt{}, err
	}
	if err := checkSession(asker, intent, particle.ScopePublish); err != nil {
		return Receipt{}, err
	}
	if intent.Type() != record.TypeOwnIntent || intent.Subject().Kind() != record.KindCrate || intent.Subject().Name() != name {
		return Receipt{}, fmt.Errorf("%w: the token's own-intent is not for %s", ErrRequest, name)
	}
	// Another change may be in flight; its prev is then not ours, and the next attempt sees it.
	const attempts = 3
	for attempt := 1; ; attempt++ {
		rec, err := r.signOwn(ctx, asker, intent, add, remove)
		if err != nil {
			return Receipt{}, err
		}
		s := &submission{record: rec, attachments: state.Attachments{intent.CID(): intentEnvelope}}
		if _, err := r.precheck(ctx, asker, s); err != nil {
			return Receipt{}, err
		}
		receipt, err := r.storeAndSubmit(ctx, s)
		if !errors.Is(err, state.ErrStale) || attempt == attempts {
			return receipt, err
		}
	}
}

func (r *Registry) signOwn(ctx context.Context, asker policy.Asker, intent *record.Record, add, remove []did.DID) (*record.Record, error) {
	seen, err := r.stateFor(ctx, asker, r.visible(ctx), intent.Subject())
	if err != nil {
		return nil, err
	}
	head, _, err := state.HeadOf(seen, intent.Subject().Thing())
	if err != nil {
		return nil, err
	}
	now, id := r.Clock().UTC(), intent.CID()
	return record.Sign(record.Draft{
		Subject: intent.Subject(),
		Header: record.Header{
			Registry: r.origin, IssuedAt: now, Expires: now.Add(recordValidity),
			Prev: head.Record, By: intent.Header().By, Key: r.Settings().DocumentRecord,
		},
		Body: &record.Own{Add: orEmpty(add), Remove: orEmpty(remove), Intent: &id},
	}, r.Keys.Signer())
}

func orEmpty(dids []did.DID) []did.DID {
	if dids == nil {
		return []did.DID{}
	}
	return dids
}

// errTooLong: a blob has more bytes than belong where it is named.
var errTooLong = errors.New("too long")

// readBlob reads a whole blob of at most most bytes.
func readBlob(ctx context.Context, blobs storage.Blobs, id storage.CID, most int64) ([]byte, error) {
	return readBlobWhen(ctx, blobs, id, most, func(int64) error { return nil })
}

// readBlobWhen is readBlob that reads when may, which knows the size, returns nil.
func readBlobWhen(ctx context.Context, blobs storage.Blobs, id storage.CID, most int64, may func(size int64) error) ([]byte, error) {
	size, err := blobs.Stat(ctx, id) // opening hashes all of it
	if err != nil {
		return nil, err
	}
	if size > most {
		return nil, fmt.Errorf("%w: blob %s has %d bytes; at most %d were expected", errTooLong, id, size, most)
	}
	if err := may(size); err != nil {
		return nil, err
	}
	blob, err := blobs.Open(ctx, id)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	var data bytes.Buffer
	data.Grow(int(size) + bytes.MinRead) // one that grows by itself leaves as much behind again
	_, err = data.ReadFrom(io.LimitReader(blob, most))
	return data.Bytes(), err
}
