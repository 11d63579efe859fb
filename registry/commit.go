package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// Receipt says where a record stands in the log.
type Receipt struct {
	Record record.ID
	Index  int64
	// Repeated: the same bytes had been published before; nothing was appended.
	Repeated bool
}

// submission is a record on its way into the log. Its blobs are durable already.
type submission struct {
	record      *record.Record
	attachments state.Attachments
	// crate is what the .crate says, for publish records of crates.
	crate *cargo.Crate
	// scan is what was found in it, nil where nobody has looked yet.
	scan *catalog.Scan
	// artifact are the bytes that it publishes, nil where it publishes none.
	artifact *brought
	// named are the blobs that it names, condemned those of them with tombstones.
	named     []storage.CID
	condemned *condemned
	// result receives exactly one outcome.
	result chan outcome

	receipt Receipt
	refusal error
	// changes are what it did to the state, if it was entered; found: it was found to be
	// in the log already, and what it changed is not known here.
	changes []state.Change
	found   bool
}

type outcome struct {
	receipt Receipt
	err     error
}

func (s *submission) answer(err error) { s.result <- outcome{receipt: s.receipt, err: err} }

// clockTolerance is how far the database's clock may lie behind the last entry.
const clockTolerance = 60 * time.Second

// applyBatch judges and enters what waits, and may be called again for the same batch.
// doubt: an earlier transaction with it may have been committed, and has ended, since this
// one has the head's lock. So what is there already is found by its identity: judged
// anew, it would be refused as repeating itself.
func (r *Registry) applyBatch(ctx context.Context, tx *catalog.Tx, batch []*submission, doubt bool) error {
	now, err := r.entryTime(ctx, tx)
	if err != nil {
		return err
	}
	if err := checkCondemned(ctx, tx, batch...); err != nil {
		return err
	}
	var scans []catalog.Scan
	for _, s := range batch {
		s.receipt, s.refusal, s.changes, s.found = Receipt{}, nil, nil, false
		if doubt {
			if s.found, err = findEntered(ctx, tx, s); err != nil {
				return err
			}
			if s.found {
				continue
			}
		}
		if s.refusal, err = r.applyOne(ctx, tx, s, now); err != nil {
			return err
		}
		if s.scan != nil && s.changes != nil { // it was entered now
			scans = append(scans, *s.scan)
		}
	}
	return tx.PutScans(ctx, scans)
}

// findEntered looks for s in the log.
func findEntered(ctx context.Context, tx *catalog.Tx, s *submission) (found bool, err error) {
	row, found, err := tx.EntryByRecord(ctx, string(s.record.ID()))
	if found {
		s.receipt = Receipt{Record: s.record.ID(), Index: row.Index}
	}
	return found, err
}

// entryTime is the later of the last entry's time and the database's clock.
func (r *Registry) entryTime(ctx context.Context, tx *catalog.Tx) (time.Time, error) {
	now, err := tx.Now(ctx)
	if err != nil {
		return time.Time{}, err
	}
	head, err := tx.Head(ctx)
	if err != nil || head == 0 {
		return now, err
	}
	if p := r.published.Load(); p != nil && head < p.Size {
		return time.Time{}, putBack(p.Size, head)
	}
	row, err := tx.Entry(ctx, head-1)
	if err != nil {
		return time.Time{}, err
	}
	last, err := translog.ParseEntry(row.Bytes)
	if err != nil {
		return time.Time{}, err
	}
	if last.Time.Sub(now) > clockTolerance {
		return time.Time{}, fmt.Errorf("%w: the database's clock is %s behind the log", ErrUnavailable, last.Time.Sub(now))
	}
	if now.Before(last.Time) {
		return last.Time, nil
	}
	return now, nil
}

// applyOne judges one record against the state as it is in tx and enters it.
func (r *Registry) applyOne(ctx context.Context, tx *catalog.Tx, s *submission, now time.Time) (refusal, err error) {
	if s.condemned != nil {
		return s.condemned, nil
	}
	index, err := tx.Head(ctx)
	if err != nil {
		return nil, err
	}
	before := r.viewAt(ctx, &tx.Reader, index)
	entry, refusal, err := r.entryFor(ctx, before, s, index, now)
	if refusal != nil || err != nil {
		return refusal, err
	}
	changes, err := state.Apply(before, entry, s.record, s.attachments)
	if err != nil {
		if !isRefusal(err) {
			return nil, err
		}
		if receipt, ok := republished(before, s.record, err); ok {
			s.receipt = receipt
			return nil, nil
		}
		return refusalFor(before, s.record, err), nil
	}
	if refusal, err := r.checkOwn(ctx, before, changes, s.attachments); refusal != nil || err != nil {
		return refusal, err
	}
	line, err := crateLine(before, entry, s)
	if isCrateProblem(err) {
		return err, nil
	}
	if err != nil {
		return nil, err
	}
	if refusal, err := checkIndexFile(ctx, tx, line); refusal != nil || err != nil {
		return refusal, err
	}
	if err := enter(ctx, tx, entry, s.record, changes, line); err != nil {
		return nil, err
	}
	s.receipt, s.changes = Receipt{Record: s.record.ID(), Index: index}, changes
	return nil, nil
}

// isRefusal tells a record's own fault from a failing store.
func isRefusal(err error) bool {
	for _, sentinel := range []error{state.ErrInvalid, state.ErrNotEntitled, state.ErrStale, state.ErrTaken, state.ErrNoChange, state.ErrMissing} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

// isCrateProblem tells a crate that cannot have an index line from a failing store.
func isCrateProblem(err error) bool {
	var problem *cargo.Problem
	return errors.As(err, &problem) || errors.Is(err, cargo.ErrForeignRegistry)
}

// republished finds the earlier entry when an owner publishes the same bytes
// under the same version again, which succeeds without a new entry: a client
// whose answer was lost asks again (FORMATS §3). Apply has checked signature
// and time before it refused for one of these two reasons.
func republished(before state.Store, rec *record.Record, refusal error) (Receipt, bool) {
	if rec.Type() != record.TypePublish || !(errors.Is(refusal, state.ErrTaken) || errors.Is(refusal, state.ErrStale)) {
		return Receipt{}, false
	}
	subject, signer := rec.Subject(), rec.Header().Signer.DID
	version, ok, err := state.VersionOf(before, subject)
	if err != nil || !ok || version.Name != subject.Name() || version.Version != subject.Version() || version.CID.Digest() != rec.Digest() {
		return Receipt{}, false
	}
	artifact, _, err := state.ArtifactOf(before, subject.Kind(), subject.Name())
	if err != nil {
		return Receipt{}, false
	}
	member, _, err := state.MemberOf(before, signer)
	if _, owner := artifact.Owner(signer); err != nil || !owner || !member.Active() {
		return Receipt{}, false
	}
	return Receipt{Record: version.Record, Index: version.Index, Repeated: true}, true
}

// refusalFor tells who lost a race for a version that the version is gone: to
// sign anew, as a stale record is told, would be in vain.
func refusalFor(before state.Store, rec *record.Record, refusal error) error {
	if rec.Type() != record.TypePublish || !errors.Is(refusal, state.ErrStale) {
		return refusal
	}
	version, ok, err := state.VersionOf(before, rec.Subject())
	if err != nil || !ok {
		return refusal
	}
	return fmt.Errorf("%w: %s@%s was published by entry %d; a version's bytes never change, publish a new version", state.ErrTaken, version.Name, version.Version, version.Index)
}

// entryFor makes the entry that s.record would stand in and completes
// s.attachments with the signers' DID documents in force. A document that cannot
// be had is the refusal of this record alone, whatever the reason.
func (r *Registry) entryFor(ctx context.Context, before state.Store, s *submission, index int64, now time.Time) (entry state.Entry, refusal, err error) {
	entry = state.Entry{Index: index, Time: now}
	if entry.DIDDocument, err = documentInForce(before, s.record, index); err != nil {
		return entry, nil, err
	}
	wanted := []storage.CID{entry.DIDDocument}
	if own, ok := s.record.Body().(*record.Own); ok && own.Intent != nil {
		intent, err := record.Parse(s.attachments[*own.Intent])
		if err == nil && intent.Type() == record.TypeOwnIntent {
			document, err := documentInForce(before, intent, index)
			if err != nil {
				return entry, nil, err
			}
			wanted = append(wanted, document)
		}
	}
	for _, id := range wanted {
		if err := r.attach(ctx, s, id); err != nil {
			return entry, fmt.Errorf("%w: a DID document that this record is judged by: %v", ErrUnavailable, err), nil
		}
	}
	return entry, nil, nil
}

func (r *Registry) attach(ctx context.Context, s *submission, id storage.CID) error {
	if _, have := s.attachments[id]; have || id.IsZero() {
		return nil
	}
	raw, err := readBlob(ctx, r.Blobs, id, s.record.MostAttached())
	if err != nil {
		return err
	}
	s.attachments[id] = raw
	return nil
}

// documentInForce is the CID of the DID document that rec's signer is judged
// by at index; zero for did:key and for signers that nothing is known of. Only
// the two genesis entries may bring the document they are signed by themselves.
func documentInForce(before state.Store, rec *record.Record, index int64) (storage.CID, error) {
	signer := rec.Header().Signer.DID
	if signer.Method() == "key" {
		return storage.CID{}, nil
	}
	if index < genesisEntries {
		switch body := rec.Body().(type) {
		case *record.Registry:
			return orZero(body.DIDDocument), nil
		case *record.Member:
			return orZero(body.DIDDocument), nil
		}
	}
	settings, _, err := state.SettingsOf(before)
	if err != nil {
		return storage.CID{}, err
	}
	if signer == settings.Origin {
		return orZero(settings.DIDDocument), nil
	}
	member, _, err := state.MemberOf(before, signer)
	if err != nil || len(member.Documents) == 0 {
		return storage.CID{}, err
	}
	return member.Documents[len(member.Documents)-1].CID, nil
}

func orZero(id *storage.CID) storage.CID {
	if id == nil {
		return storage.CID{}
	}
	return *id
}

// crateLine makes what the catalog keeps of a crate besides its state: its
// index line, a function of the .crate, the entry's time and the settings.
func crateLine(before state.Store, entry state.Entry, s *submission) (*catalog.CrateLine, error) {
	if s.crate == nil {
		return nil, nil
	}
	settings, _, err := state.SettingsOf(before)
	if err != nil {
		return nil, err
	}
	line, err := s.crate.Line(s.record.Digest(), entry.Time, false, indexSettings(settings))
	if err != nil {
		return nil, err
	}
	return &catalog.CrateLine{
		NameKey: cargo.CanonicalName(line.Name), Version: s.crate.Version.WithoutBuild(), Index: entry.Index,
		Line: line.Marshal(), Description: s.crate.Description, Keywords: strings.Join(s.crate.Keywords, " "),
	}, nil
}

// maxIndexFile bounds a crate's index file, in bytes: what every resolve of it has to fetch.
const maxIndexFile = 32 << 20

// checkIndexFile refuses the version with which the crate's index file would grow too large.
func checkIndexFile(ctx context.Context, tx *catalog.Tx, line *catalog.CrateLine) (refusal, err error) {
	if line == nil {
		return nil, nil
	}
	size, err := tx.CrateBytes(ctx, line.NameKey)
	if err != nil {
		return nil, err
	}
	if size+int64(len(line.Line)) > maxIndexFile {
		return fmt.Errorf("%w: the index file of %s would be larger than %d bytes; go on under a new name", cargo.ErrTooLarge, line.NameKey, maxIndexFile), nil
	}
	return nil, nil
}

// enter writes one entry with everything that follows from it.
func enter(ctx context.Context, tx *catalog.Tx, e state.Entry, rec *record.Record, changes []state.Change, line *catalog.CrateLine) error {
	raw, err := translog.Entry{Time: e.Time, Record: rec.CID(), DIDDocument: e.DIDDocument}.Marshal()
	if err != nil {
		return err
	}
	leaf := translog.LeafHash(raw)
	row := catalog.Entry{Index: e.Index, Bytes: raw, LeafHash: leaf, Record: rec.CID(), RecordID: string(rec.ID())}
	if err := tx.AppendEntry(ctx, row); err != nil {
		return err
	}
	if err := enterHashes(ctx, tx, e.Index, leaf); err != nil {
		return err
	}
	for _, c := range changes {
		if err := tx.PutState(ctx, c.Key, e.Index, c.Value); err != nil {
			return err
		}
		if err := enterCID(ctx, tx, e.Index, c); err != nil {
			return err
		}
	}
	if line != nil {
		return tx.PutCrateLine(ctx, *line)
	}
	return nil
}

// enterHashes writes the hashes that an entry adds to the log.
func enterHashes(ctx context.Context, tx *catalog.Tx, index int64, leaf tlog.Hash) error {
	hashes, first, err := translog.StoredHashes(index, leaf, storedHashes(ctx, &tx.Reader))
	if err != nil {
		return err
	}
	plain := make([][32]byte, len(hashes))
	for i, h := range hashes {
		plain[i] = h
	}
	return tx.PutHashes(ctx, first, plain)
}

// enterCID notes the bytes of a version, so that it is found by them. A yank
// changes nothing about that.
func enterCID(ctx context.Context, tx *catalog.Tx, index int64, c state.Change) error {
	if !strings.HasPrefix(c.Key, state.VersionsPrefix()) {
		return nil
	}
	v, err := state.DecodeVersion(c.Value)
	if err != nil {
		return err
	}
	return tx.PutVersionCID(ctx, v.CID, c.Key, index)
}
