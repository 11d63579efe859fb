package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// recover compares the catalog with blob storage and finishes what a crash
// interrupted. A catalog that knows less than the largest stored checkpoint or
// entry, or otherwise, is not served.
func (r *Registry) recover(ctx context.Context) error {
	size, note, err := r.Catalog.Published(ctx)
	if err != nil {
		return err
	}
	head, err := notBehind(ctx, r.Config, size)
	if err != nil {
		return err
	}
	if head == 0 {
		return fmt.Errorf("%w: the log is empty", ErrBehind)
	}
	settings, err := r.settingsAt(ctx, &r.Catalog.Reader, head)
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
	return r.takeUp(ctx)
}

// notBehind returns the catalog's head, ErrBehind where blob storage has more. Others
// may go on meanwhile: what is stored was committed before, so a head that is read after
// blob storage was listed is behind only where the catalog is.
func notBehind(ctx context.Context, c Config, published int64) (head int64, err error) {
	if head, err = c.Catalog.Head(ctx); err != nil {
		return 0, err
	}
	stored, err := lastCheckpoint(ctx, c.Blobs, published)
	if err != nil {
		return 0, err
	}
	lastEntry, err := lastKey(ctx, c.Blobs, translog.EntryPrefix, afterKey(translog.EntryKey, head), translog.ParseEntryKey)
	if err != nil {
		return 0, err
	}
	if head, err = c.Catalog.Head(ctx); err != nil {
		return 0, err
	}
	if stored > head || lastEntry >= head {
		return 0, fmt.Errorf("%w (catalog: %d entries; blob storage: checkpoint of %d, entry %d)", ErrBehind, head, stored, lastEntry)
	}
	return head, nil
}

// takeUp publishes what was committed, by whomever, and not published, and signs anew
// what is published where that is nothing: the process before may have shown a smaller
// checkpoint that it had cosigned later than this one was stored.
func (r *Registry) takeUp(ctx context.Context) error { return r.publishing(ctx, r.renew) }

// checkUnpublished holds the largest checkpoint that is stored, but not published, against
// the catalog's head entries: whoever stored it was interrupted, since nobody is at it.
func (r *Registry) checkUnpublished(ctx context.Context, reader *catalog.Reader, published, head int64) error {
	stored, err := lastCheckpoint(ctx, r.Blobs, published)
	if err != nil || stored <= published {
		return err
	}
	if stored > head {
		return fmt.Errorf("%w (catalog: %d entries; blob storage: checkpoint of %d)", ErrBehind, head, stored)
	}
	root, err := translog.TreeHash(stored, storedHashes(ctx, reader))
	if err != nil {
		return err
	}
	note, err := r.Blobs.Read(ctx, translog.CheckpointKey(stored))
	if err != nil {
		return err
	}
	return r.checkNote(ctx, reader, translog.CheckpointKey(stored), note, stored, root)
}

// lastCheckpoint is the size of the largest stored checkpoint above size, at most size for none.
func lastCheckpoint(ctx context.Context, blobs storage.Blobs, size int64) (int64, error) {
	return lastKey(ctx, blobs, translog.CheckpointPrefix, afterKey(translog.CheckpointKey, size), translog.ParseCheckpointKey)
}

// checkPublished holds the published note and the stored checkpoint against the catalog's hashes.
func (r *Registry) checkPublished(ctx context.Context, size int64, note []byte) error {
	root, err := translog.TreeHash(size, storedHashes(ctx, &r.Catalog.Reader))
	if err != nil {
		return err
	}
	return r.checkSigned(ctx, size, root, note)
}

// checkSigned holds the published note and the stored checkpoint against the root over the
// entries that they are of.
func (r *Registry) checkSigned(ctx context.Context, size int64, root tlog.Hash, note []byte) error {
	if err := r.checkNote(ctx, &r.Catalog.Reader, "the catalog's published checkpoint", note, size, root); err != nil {
		return err
	}
	stored, err := r.Blobs.Read(ctx, translog.CheckpointKey(size))
	if errors.Is(err, storage.ErrNotFound) {
		return fmt.Errorf("%w: the checkpoint of size %d is missing", ErrLost, size)
	}
	if err != nil {
		return fmt.Errorf("stored checkpoint of size %d: %w", size, err)
	}
	return r.checkNote(ctx, &r.Catalog.Reader, translog.CheckpointKey(size), stored, size, root)
}

// checkNote holds the note called what against the root over the catalog's entries.
func (r *Registry) checkNote(ctx context.Context, reader *catalog.Reader, what string, note []byte, size int64, root tlog.Hash) error {
	opened, _, err := r.openNoteBy(ctx, reader, note)
	if errors.Is(err, errNote) {
		return fmt.Errorf("%w: %s: %v", ErrFork, what, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
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
	keys := func(yield func(string, error) bool) {
		for _, e := range entries {
			if !yield(translog.EntryKey(e.Index), nil) {
				return
			}
		}
	}
	i := 0
	for stored, err := range ahead(ctx, keys, r.Blobs.Read) {
		if errors.Is(err, storage.ErrNotFound) {
			return fmt.Errorf("%w: entry %d is missing", ErrLost, entries[i].Index)
		}
		if err != nil {
			return err
		}
		if !bytes.Equal(stored, entries[i].Bytes) {
			return r.forkedEntry(ctx, entries[i])
		}
		i++
	}
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
