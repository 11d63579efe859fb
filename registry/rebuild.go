package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// replayLimits are above every limit that a crate may have been accepted by.
var replayLimits = cargo.Limits{CrateBytes: 1 << 40, UnpackedBytes: 1 << 40, Entries: 1 << 24, Ratio: 1 << 20, PathBytes: 1 << 12}

// Rebuilt says what Rebuild did.
type Rebuilt struct {
	Origin did.DID
	// Entries were replayed; Checkpoint is the size of the largest stored one.
	// What lies between was committed but not yet published, and is adopted.
	Entries, Checkpoint int64
	// Root is the log's root over all the Entries.
	Root tlog.Hash
	// Refused are entries that Apply refuses: void, and an alarm. Withheld are
	// published crates that today's rules for tarballs do not take: their records
	// stand, but the index does not list them. An alarm, too.
	Refused, Withheld []Refused
}

// Refused is an entry of the log that is not what it should be, and why.
type Refused struct {
	Index  int64
	Reason error
}

// Rebuild derives the catalog, which must be empty, from blob storage alone: it
// replays every stored entry through Apply, checks the result against every
// stored checkpoint, and adopts the contiguous tail above it. progress
// is called after each entry. Errors: ErrFork when the stored log contradicts
// a checkpoint or has a gap.
func Rebuild(ctx context.Context, c Config, progress func(done int64)) (Rebuilt, error) {
	r := offline(c.withClock())
	done := Rebuilt{Origin: r.origin}
	head, err := c.Catalog.Head(ctx)
	if err != nil {
		return done, err
	}
	if head != 0 {
		return done, fmt.Errorf("%w: the catalog to rebuild into has %d entries already", ErrRequest, head)
	}
	if done.Checkpoint, err = lastKey(ctx, c.Blobs, translog.CheckpointPrefix, "", translog.ParseCheckpointKey); err != nil {
		return done, err
	}
	done.Checkpoint = max(done.Checkpoint, 0)
	if err := r.replayStored(ctx, &done, progress); err != nil {
		return done, err
	}
	if done.Entries < done.Checkpoint {
		return done, fmt.Errorf("%w: a checkpoint of %d entries is stored, but entry %d is missing", ErrFork, done.Checkpoint, done.Entries)
	}
	if err := r.checkCheckpoints(ctx); err != nil {
		return done, err
	}
	if done.Root, err = translog.TreeHash(done.Entries, storedHashes(ctx, &r.Catalog.Reader)); err != nil {
		return done, err
	}
	if done.Checkpoint > 0 {
		if err := r.adopt(ctx, done.Checkpoint); err != nil {
			return done, err
		}
	}
	return done, r.publish(ctx)
}

// HasLog reports whether blob storage holds anything of a log.
func HasLog(ctx context.Context, blobs storage.Blobs) (bool, error) {
	for _, prefix := range []string{translog.EntryPrefix, translog.CheckpointPrefix} {
		if there, err := holds(blobs.List(ctx, prefix, "")); err != nil || there {
			return there, err
		}
	}
	return false, nil
}

// CheckOrigin refuses blob storage that holds another registry's log than that of c's keys.
// Where that cannot be read from its first entry nothing is known.
func CheckOrigin(ctx context.Context, c Config) error {
	raw, err := c.Blobs.Read(ctx, translog.EntryKey(0))
	if err != nil {
		return nil
	}
	entry, err := translog.ParseEntry(raw)
	if err != nil {
		return nil
	}
	envelope, err := readBlob(ctx, c.Blobs, entry.Record, record.MaxEnvelope)
	if err != nil {
		return nil
	}
	rec, err := record.Parse(envelope)
	if err != nil {
		return nil
	}
	if first, ok := rec.Body().(*record.Registry); ok && first.DID != c.Keys.DID() {
		return othersLog(c.Keys.DID(), first.DID)
	}
	return nil
}

func othersLog(key, log did.DID) error {
	return fmt.Errorf("the key file is that of %s, but blob storage holds the log of %s; correct --blobs, or give the key file that belongs to it", key, log)
}

// Lacks is the last entry that the catalog old, which is to be replaced, has published, where
// blob storage lacks it; else -1. All that old says of its end must say so: what is damaged
// is no witness.
func Lacks(ctx context.Context, blobs storage.Blobs, old *catalog.DB) (entry int64, err error) {
	size, _, err := old.Published(ctx)
	if err != nil {
		return -1, noWitness(err)
	}
	ends, err := old.Ends(ctx)
	if err != nil {
		return -1, noWitness(err)
	}
	last := min(size, ends.Head, ends.Entries) - 1
	if last < 0 {
		return -1, nil
	}
	_, err = blobs.Read(ctx, translog.EntryKey(last))
	if errors.Is(err, storage.ErrNotFound) {
		return last, nil
	}
	return -1, err
}

func noWitness(err error) error {
	if errors.Is(err, catalog.ErrDamaged) {
		return nil
	}
	return err
}

// checkCheckpoints holds every stored checkpoint against the replayed entries:
// one of another root was signed for another log, whatever its size.
func (r *Registry) checkCheckpoints(ctx context.Context) error {
	type stored struct {
		size int64
		note []byte
	}
	notes := ahead(ctx, r.Blobs.List(ctx, translog.CheckpointPrefix, ""), func(ctx context.Context, key string) (c stored, err error) {
		if c.size, err = translog.ParseCheckpointKey(key); err != nil {
			return c, fmt.Errorf("%w: stray object %s in blob storage", ErrFork, key)
		}
		c.note, err = r.Blobs.Read(ctx, key)
		return c, err
	})
	for c, err := range notes {
		if err != nil {
			return err
		}
		root, err := translog.TreeHash(c.size, storedHashes(ctx, &r.Catalog.Reader))
		if err != nil {
			return err
		}
		if err := r.checkNote(ctx, &r.Catalog.Reader, translog.CheckpointKey(c.size), c.note, c.size, root); err != nil {
			return err
		}
	}
	return nil
}

// adopt publishes up to a checkpoint that is stored but not yet in the catalog, as it is
// stored now: it has to be what the catalog's entries say.
func (r *Registry) adopt(ctx context.Context, size int64) error {
	note, err := r.Blobs.Read(ctx, translog.CheckpointKey(size))
	if err != nil {
		return err
	}
	return r.publishing(ctx, func(ctx context.Context, p *catalog.Publication) (*checkpoint, error) {
		return r.believed(ctx, &p.Reader, catalog.Published{Size: size, Checkpoint: note})
	})
}

const (
	// replayBytes is how many bytes of attachments are in memory before they are replayed.
	replayBytes = 16 << 20
	// largeSnapshot is the size from which an index file of another registry is read when its
	// turn has come, and not ahead of it: one of a crate of many versions is entered anew, and
	// whole, with each of them.
	largeSnapshot = 256 << 10
)

// replayStored replays entry objects in order, a page to a transaction.
func (r *Registry) replayStored(ctx context.Context, done *Rebuilt, progress func(int64)) error {
	const most = 256
	var page []storedEntry
	var attached int64
	flush := func() error {
		before := *done
		err := r.Catalog.Update(ctx, func(tx *catalog.Tx) error {
			*done = before // it may be done again
			for _, e := range page {
				if err := r.replayOne(ctx, tx, e, done); err != nil {
					return err
				}
			}
			return nil
		})
		done.Entries += int64(len(page))
		page, attached = page[:0], 0
		progress(done.Entries)
		return err
	}
	for e, err := range ahead(ctx, r.Blobs.List(ctx, translog.EntryPrefix, ""), r.fetchEntry) {
		if err != nil {
			return err
		}
		if want := done.Entries + int64(len(page)); e.index != want {
			return fmt.Errorf("%w: entry %d is missing from blob storage, entry %d is there; if no checkpoint covers the gap, move the objects %s* from this one on aside and rebuild again", ErrFork, want, e.index, translog.EntryPrefix)
		}
		for _, raw := range e.attachments {
			attached += int64(len(raw))
		}
		if page = append(page, e); len(page) == most || attached >= replayBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// storedEntry is an entry as it is stored, with its record and what that names.
type storedEntry struct {
	index       int64
	entry       translog.Entry
	record      *record.Record
	attachments state.Attachments
	// large is not read yet, zero for none.
	large storage.CID
}

// fetchEntry reads the entry object of that key and what belongs to it.
func (r *Registry) fetchEntry(ctx context.Context, key string) (e storedEntry, err error) {
	if e.index, err = translog.ParseEntryKey(key); err != nil {
		return e, fmt.Errorf("%w: stray object %s in blob storage", ErrFork, key)
	}
	raw, err := r.Blobs.Read(ctx, key)
	if err != nil {
		return e, err
	}
	if e.entry, err = translog.ParseEntry(raw); err != nil {
		return e, fmt.Errorf("%w: entry %d: %v", ErrFork, e.index, err)
	}
	envelope, err := readBlob(ctx, r.Blobs, e.entry.Record, record.MaxEnvelope)
	if err == nil {
		e.record, err = record.Parse(envelope)
	}
	if err != nil {
		return e, fmt.Errorf("record of entry %d: %w", e.index, err)
	}
	s := &submission{record: e.record, attachments: state.Attachments{}}
	for _, id := range append(e.record.Attachments(), e.entry.DIDDocument) {
		large := false
		if id == e.record.Snapshot() && !id.IsZero() {
			size, err := r.Blobs.Stat(ctx, id)
			if err != nil {
				return e, fmt.Errorf("attachment of entry %d: %w", e.index, err)
			}
			large = size >= largeSnapshot
		}
		if large {
			e.large = id
		} else if err := r.attach(ctx, s, id); err != nil {
			return e, fmt.Errorf("attachment of entry %d: %w", e.index, err)
		}
	}
	e.attachments = s.attachments
	return e, nil
}

// replayOne enters a stored entry as it stands, with what Apply makes of it.
func (r *Registry) replayOne(ctx context.Context, tx *catalog.Tx, e storedEntry, done *Rebuilt) error {
	index, rec := e.index, e.record
	if first, ok := rec.Body().(*record.Registry); ok && index == 0 && first.DID != r.origin {
		return othersLog(r.origin, first.DID)
	}
	s := &submission{record: rec, attachments: maps.Clone(e.attachments)}
	if err := r.attach(ctx, s, e.large); err != nil {
		return fmt.Errorf("attachment of entry %d: %w", index, err)
	}
	entry, changes, void, err := r.reapply(ctx, tx, index, e.entry, s)
	if err != nil {
		return fmt.Errorf("entry %d: %w", index, err)
	}
	if void != nil {
		done.Refused = append(done.Refused, Refused{Index: index, Reason: void})
		return enter(ctx, tx, entry, rec, nil, nil)
	}
	line, err := r.replayCrate(ctx, r.viewAt(ctx, &tx.Reader, index), entry, s)
	if isCrateProblem(err) {
		done.Withheld = append(done.Withheld, Refused{Index: index, Reason: err})
	} else if err != nil {
		return fmt.Errorf("crate of entry %d: %w", index, err)
	}
	return enter(ctx, tx, entry, rec, changes, line)
}

// reapply is what Apply makes of the stored entry at index over the state in tx: its
// changes, or why it is void. An error says that this could not be found out.
func (r *Registry) reapply(ctx context.Context, tx *catalog.Tx, index int64, stored translog.Entry, s *submission) (entry state.Entry, changes []state.Change, void, err error) {
	before := r.viewAt(ctx, &tx.Reader, index)
	entry, refusal, err := r.entryFor(ctx, before, s, index, stored.Time)
	if err == nil {
		err = refusal
	}
	if err != nil {
		return entry, nil, nil, err
	}
	entry.DIDDocument = stored.DIDDocument
	if changes, err = state.Apply(before, entry, s.record, s.attachments); err != nil && isRefusal(err) {
		return entry, nil, err, nil
	}
	return entry, changes, nil, err
}

// replayCrate reads a published .crate again for its index line. A breach of
// ingest's rules withholds the version's line; it does not void the record. What
// passed the limits of its day is not held to today's.
func (r *Registry) replayCrate(ctx context.Context, before state.Store, entry state.Entry, s *submission) (*catalog.CrateLine, error) {
	subject := s.record.Subject()
	if s.record.Type() != record.TypePublish || subject.Kind() != record.KindCrate {
		return nil, nil
	}
	blob, err := r.Blobs.Open(ctx, storage.CIDFromDigest(s.record.Digest()))
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	if s.crate, err = cargo.Inspect(blob, subject.Name(), subject.Version(), replayLimits); err != nil {
		return nil, err
	}
	return crateLine(before, entry, s)
}
