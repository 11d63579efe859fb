package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// storedHashes reads the log's hashes from the catalog.
func storedHashes(ctx context.Context, reader *catalog.Reader) tlog.HashReader {
	return tlog.HashReaderFunc(func(positions []int64) ([]tlog.Hash, error) {
		plain, err := reader.Hashes(ctx, positions)
		if err != nil {
			return nil, err
		}
		hashes := make([]tlog.Hash, len(plain))
		for i, h := range plain {
			hashes[i] = h
		}
		return hashes, nil
	})
}

// publish makes everything committed visible: entry objects in index order,
// then the checkpoint object, then the published row. Each step repeats
// harmlessly, so a crash between any two is mended by the next call.
func (r *Registry) publish(ctx context.Context) error {
	head, err := r.Catalog.Head(ctx)
	if err != nil {
		return err
	}
	from := int64(0)
	if p := r.published.Load(); p != nil {
		from = p.Size
	}
	if head == from {
		return nil
	}
	if err := r.storeEntries(ctx, from, head); err != nil {
		return err
	}
	root, err := translog.TreeHash(head, storedHashes(ctx, &r.Catalog.Reader))
	if err != nil {
		return err
	}
	cp := translog.Checkpoint{Origin: string(r.origin), Size: head, Root: root}
	r.signing.Lock()
	defer r.signing.Unlock()
	note, err := r.storeCheckpoint(ctx, cp)
	if err != nil {
		return err
	}
	if err := r.Catalog.SetPublished(ctx, head, note); err != nil {
		return err
	}
	return r.show(ctx, note)
}

// storeEntries writes the entry objects from ≤ index < to. An object that is
// there with other bytes is a fork.
func (r *Registry) storeEntries(ctx context.Context, from, to int64) error {
	const page = 256
	for ; from < to; from += page {
		entries, err := r.Catalog.Entries(ctx, from, min(from+page, to))
		if err != nil {
			return err
		}
		for _, e := range entries {
			err := r.Blobs.Create(ctx, translog.EntryKey(e.Index), e.Bytes)
			if errors.Is(err, storage.ErrExists) {
				return r.forkedEntry(ctx, e)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// forkedEntry names both entries that stand under one index. Both are kept where
// they are, in blob storage and in the catalog, for whoever has to find out why.
func (r *Registry) forkedEntry(ctx context.Context, e catalog.Entry) error {
	stored, err := r.Blobs.Read(ctx, translog.EntryKey(e.Index))
	if err != nil {
		return fmt.Errorf("%w: entry %d is stored with other bytes, which cannot be read: %w", ErrFork, e.Index, err)
	}
	return fmt.Errorf("%w: blob storage has %s with the leaf hash %s, the catalog's entry %d has %s; both are kept as they are",
		ErrFork, translog.EntryKey(e.Index), translog.LeafHash(stored), e.Index, translog.LeafHash(e.Bytes))
}

// storeCheckpoint signs and stores the checkpoint object. One of this size that
// is stored already (a crash came after it, or the answer was lost) must be ours
// and of the same root; what is published is the note made now. The stored one may
// have been cosigned before a smaller one that was shown meanwhile, and what is
// cosigned later says that nothing larger is known (C2SP tlog-cosignature).
func (r *Registry) storeCheckpoint(ctx context.Context, cp translog.Checkpoint) ([]byte, error) {
	settings, err := r.settingsAt(ctx, cp.Size)
	if err != nil {
		return nil, err
	}
	note, err := r.sign(cp, settings, r.signingTime())
	if err != nil {
		return nil, err
	}
	key := translog.CheckpointKey(cp.Size)
	err = r.Blobs.Create(ctx, key, note)
	if !errors.Is(err, storage.ErrExists) {
		return note, err
	}
	stored, err := r.Blobs.Read(ctx, key)
	if err != nil {
		return nil, err
	}
	return note, r.checkNote(ctx, key, stored, cp.Size, cp.Root)
}

// signingTime is now, but not before the cosignature that is shown.
func (r *Registry) signingTime() time.Time {
	at := r.Clock().UTC().Truncate(time.Second)
	if p := r.published.Load(); p != nil && at.Before(p.cosigned) {
		return p.cosigned
	}
	return at
}

func (r *Registry) sign(cp translog.Checkpoint, settings state.Settings, at time.Time) ([]byte, error) {
	keys, err := r.Keys.signers(settings, at)
	if err != nil {
		return nil, err
	}
	return translog.Sign(cp, keys, at)
}

// show makes the checkpoint in note the visible one, in memory. The cache gives
// up what changes with it first: what is visible is never older than what was.
func (r *Registry) show(ctx context.Context, note []byte) error {
	cp, err := readCheckpoint(ctx, r, note)
	if err != nil {
		return err
	}
	shown, from := r.published.Load(), int64(-1)
	if shown != nil {
		from = shown.Size
	}
	changed, known := r.changedBetween(from, cp.Size)
	if known && !slices.ContainsFunc(changed, bindsEverybody) {
		cp.terms = shown.terms
	} else if cp.terms, err = r.termsAt(ctx, cp.settings, cp.Size); err != nil {
		return err
	}
	r.cache.advance(cp.Size, changed, known)
	r.published.Store(cp)
	return nil
}

// resigned is cp with the signatures that are due now.
func (r *Registry) resigned(cp *checkpoint) (*checkpoint, error) {
	at := r.signingTime()
	if at.Before(cp.cosigned) {
		at = cp.cosigned
	}
	note, err := r.sign(cp.Checkpoint, cp.settings, at)
	if err != nil {
		return nil, err
	}
	signed := *cp
	signed.note, signed.cosigned = note, at
	return &signed, nil
}

func readCheckpoint(ctx context.Context, r *Registry, note []byte) (*checkpoint, error) {
	opened, settings, err := r.openNote(ctx, note)
	if err != nil {
		return nil, fmt.Errorf("published checkpoint: %w", err)
	}
	return &checkpoint{Checkpoint: opened.Checkpoint, note: note, cosigned: opened.CosignedAt, settings: settings}, nil
}

const (
	// renewAfter is the age at which a checkpoint's cosignature is made anew.
	renewAfter = time.Hour
	// renewRetry is how long a renewal that failed is not tried again: anybody may
	// ask for the checkpoint, as often as they like.
	renewRetry = time.Minute
)

// Checkpoint returns the signed note of what is published, its cosignature not
// older than an hour as long as the catalog takes a renewed one: it is noted before
// it is shown, so that no later process cosigns a larger tree earlier, whatever
// happens to the clock.
func (r *Registry) Checkpoint(ctx context.Context) ([]byte, error) {
	if p := r.published.Load(); r.Clock().Sub(p.cosigned) < renewAfter {
		return p.note, nil
	}
	r.signing.Lock()
	defer r.signing.Unlock()
	p, now := r.published.Load(), r.Clock()
	if now.Sub(p.cosigned) < renewAfter || now.Sub(r.renewFailed).Abs() < renewRetry {
		return p.note, nil
	}
	// Who asks may go away; what is begun is for the others too.
	if err := r.vouch(context.WithoutCancel(ctx)); err != nil {
		r.renewFailed = now
		r.Log.Error("the log's cosignature is not renewed", "of", p.cosigned, "error", err)
	}
	return r.published.Load().note, nil
}

// recover compares the catalog with blob storage and finishes what a crash
// interrupted. A catalog that knows less than the largest stored checkpoint or
// entry, or otherwise, is not served.
func (r *Registry) recover(ctx context.Context) error {
	size, note, err := r.Catalog.Published(ctx)
	if err != nil {
		return err
	}
	head, err := r.Catalog.Head(ctx)
	if err != nil {
		return err
	}
	stored, err := lastKey(ctx, r.Blobs, translog.CheckpointPrefix, afterKey(translog.CheckpointKey, size), translog.ParseCheckpointKey)
	if err != nil {
		return err
	}
	lastEntry, err := lastKey(ctx, r.Blobs, translog.EntryPrefix, afterKey(translog.EntryKey, head), translog.ParseEntryKey)
	if err != nil {
		return err
	}
	if stored > head || lastEntry >= head {
		return fmt.Errorf("%w (catalog: %d entries; blob storage: checkpoint of %d, entry %d)", ErrBehind, head, stored, lastEntry)
	}
	if head == 0 {
		return fmt.Errorf("%w: the log is empty", ErrBehind)
	}
	settings, err := r.settingsAt(ctx, head)
	if err != nil {
		return err
	}
	if _, err := r.Keys.signers(settings, r.Clock()); err != nil {
		return err
	}
	if size > 0 {
		if err := r.checkPublished(ctx, size, note); err != nil {
			return err
		}
		if err := r.checkEntries(ctx, size); err != nil {
			return err
		}
		if err := r.show(ctx, note); err != nil {
			return err
		}
	}
	if stored > size { // a checkpoint was stored, the published row not yet written
		if err := r.adopt(ctx, stored); err != nil {
			return err
		}
	}
	if r.published.Load() != nil {
		if err := r.vouch(ctx); err != nil {
			return err
		}
	}
	return r.publish(ctx)
}

// checkPublished holds the published note and the stored checkpoint against the catalog's hashes.
func (r *Registry) checkPublished(ctx context.Context, size int64, note []byte) error {
	root, err := translog.TreeHash(size, storedHashes(ctx, &r.Catalog.Reader))
	if err != nil {
		return err
	}
	if err := r.checkNote(ctx, "the catalog's published checkpoint", note, size, root); err != nil {
		return err
	}
	stored, err := r.Blobs.Read(ctx, translog.CheckpointKey(size))
	if errors.Is(err, storage.ErrNotFound) {
		return fmt.Errorf("%w: the checkpoint of size %d is missing", ErrLost, size)
	}
	if err != nil {
		return fmt.Errorf("stored checkpoint of size %d: %w", size, err)
	}
	return r.checkNote(ctx, translog.CheckpointKey(size), stored, size, root)
}

// checkNote holds the note called what against the root over the catalog's entries.
func (r *Registry) checkNote(ctx context.Context, what string, note []byte, size int64, root tlog.Hash) error {
	opened, _, err := r.openNote(ctx, note)
	if err != nil {
		return fmt.Errorf("%w: %s: %v", ErrFork, what, err)
	}
	if opened.Size != size || opened.Root != root {
		return fmt.Errorf("%w: %s, signed by this log, says %d entries with root %s, the catalog's %d entries have root %s; both are kept as they are",
			ErrFork, what, opened.Size, opened.Root, size, root)
	}
	return nil
}

// checkedEntries is how many of the newest entries are held against blob
// storage at each start: where a crash, or a copy restored in part, shows. A
// rebuild reads all of them.
const checkedEntries = 1024

// checkEntries holds the catalog's newest published entries against their objects.
func (r *Registry) checkEntries(ctx context.Context, size int64) error {
	entries, err := r.Catalog.Entries(ctx, max(0, size-checkedEntries), size)
	if err != nil {
		return err
	}
	for _, e := range entries {
		stored, err := r.Blobs.Read(ctx, translog.EntryKey(e.Index))
		if errors.Is(err, storage.ErrNotFound) {
			return fmt.Errorf("%w: entry %d is missing", ErrLost, e.Index)
		}
		if err != nil {
			return err
		}
		if !bytes.Equal(stored, e.Bytes) {
			return r.forkedEntry(ctx, e)
		}
	}
	return nil
}

// adopt publishes up to a checkpoint that is stored but not yet in the catalog.
func (r *Registry) adopt(ctx context.Context, size int64) error {
	note, err := r.Blobs.Read(ctx, translog.CheckpointKey(size))
	if err != nil {
		return err
	}
	if err := r.checkPublished(ctx, size, note); err != nil {
		return err
	}
	if err := r.Catalog.SetPublished(ctx, size, note); err != nil {
		return err
	}
	return r.show(ctx, note)
}

// vouch signs anew what is published and notes that in the catalog: hourly, and at
// a start, since the process before may have shown a smaller one that it had cosigned
// later than this one was stored.
func (r *Registry) vouch(ctx context.Context) error {
	signed, err := r.resigned(r.published.Load())
	if err != nil {
		return err
	}
	if err := r.Catalog.SetPublished(ctx, signed.Size, signed.note); err != nil {
		return err
	}
	r.published.Store(signed)
	return nil
}

// afterKey is the last key that need not be looked at when n are known.
func afterKey(key func(int64) string, n int64) string {
	if n == 0 {
		return ""
	}
	return key(n - 1)
}

// lastKey returns the number of the last object under prefix after a key, -1 for none.
func lastKey(ctx context.Context, blobs storage.Blobs, prefix, after string, parse func(string) (int64, error)) (int64, error) {
	last := int64(-1)
	for key, err := range blobs.List(ctx, prefix, after) {
		if err != nil {
			return -1, err
		}
		if last, err = parse(key); err != nil {
			return -1, fmt.Errorf("%w: stray object %s in blob storage", ErrFork, key)
		}
	}
	return last, nil
}
