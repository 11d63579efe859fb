package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// Backup is a copy of a registry being made: of its blobs and its log, as far as a copy
// of its catalog, which was made before, knows of them. What is copied is
// verified while it is, and durable. What the copy has already is not read again.
type Backup struct {
	// From are the registry's, which may go on meanwhile; Inventory lists From.Blobs.
	From      Config
	Inventory storage.Inventory
	// Catalog is the copy of the catalog, To where blobs and log go.
	Catalog  *catalog.DB
	To       storage.Blobs
	Progress Progress

	Done BackedUp
}

// BackedUp is what a Backup copied.
type BackedUp struct {
	// Entries are in the copy's catalog, of which Published are published.
	Entries, Published int64
	// Blobs were listed, of which Copied, of Bytes in all, were not there yet.
	Blobs, Copied, Bytes int64
	// Objects of the log were copied.
	Objects int64
	// Damaged blobs of the registry were left out: nothing needs them.
	Damaged int64
}

// Begin reads how far the copy of the catalog goes.
func (b *Backup) Begin(ctx context.Context) (err error) {
	if b.Done.Published, _, err = b.Catalog.Published(ctx); err != nil {
		return err
	}
	b.Done.Entries, err = b.Catalog.Head(ctx)
	return err
}

// Extends is nil if the registry's log begins with that of an earlier copy, whose catalog
// that is: only such a copy can be brought up to date.
func (b *Backup) Extends(ctx context.Context, earlier *catalog.DB) error {
	size, err := earlier.Head(ctx)
	if err != nil || size == 0 {
		return err
	}
	if size > b.Done.Entries {
		return fmt.Errorf("%w: the backup has %d entries, the registry %d; it was put back to an earlier state, or the backup is another's", ErrRequest, size, b.Done.Entries)
	}
	theirs, err := translog.TreeHash(size, storedHashes(ctx, &earlier.Reader))
	if err != nil {
		return err
	}
	ours, err := translog.TreeHash(size, storedHashes(ctx, &b.Catalog.Reader))
	if err == nil && theirs != ours {
		err = fmt.Errorf("%w: the backup is of another log: its %d entries have the root %s, this registry's first %d have %s", ErrRequest, size, theirs, size, ours)
	}
	return err
}

// CopyBlobs copies every blob that the copy has not got, and then checks that it has all
// that its entries need. Those that are stored meanwhile may be copied, too.
func (b *Backup) CopyBlobs(ctx context.Context) error {
	var page []storage.Stored
	flush := func() error {
		defer func() { page = page[:0] }()
		return b.copyPage(ctx, page)
	}
	err := listBlobs(ctx, b.Inventory, func(one storage.Stored) error {
		if page = append(page, one); len(page) < walkPage {
			return nil
		}
		return flush()
	}, func(error) {})
	if err != nil {
		return err
	}
	if err := flush(); err != nil {
		return err
	}
	return b.check(ctx)
}

// copied is what became of one blob.
type copied struct {
	bytes   int64
	there   bool
	damaged bool
}

func (b *Backup) copyPage(ctx context.Context, page []storage.Stored) error {
	all := make([]copied, len(page))
	err := inParallel(ctx, len(page), func(ctx context.Context, i int) (err error) {
		all[i], err = b.copyBlob(ctx, page[i])
		return err
	})
	for _, c := range all {
		b.Done.Blobs++
		switch {
		case c.damaged:
			b.Done.Damaged++
		case !c.there:
			b.Done.Copied++
			b.Done.Bytes += c.bytes
		}
	}
	b.Progress.tell("looked at blobs", b.Done.Blobs, 0)
	return err
}

func (b *Backup) copyBlob(ctx context.Context, one storage.Stored) (copied, error) {
	size, err := b.To.Stat(ctx, one.CID)
	if err == nil && size == one.Size {
		return copied{there: true}, nil
	}
	if err != nil && !errors.Is(err, storage.ErrNotFound) && !errors.Is(err, storage.ErrCorrupt) {
		return copied{}, err
	}
	blob, err := b.From.Blobs.Open(ctx, one.CID)
	if errors.Is(err, storage.ErrCorrupt) || errors.Is(err, storage.ErrNotFound) { // whether that matters is seen later
		return copied{damaged: true}, nil
	}
	if err != nil {
		return copied{}, err
	}
	defer blob.Close()
	return copied{bytes: blob.Size()}, b.To.Put(ctx, one.CID, blob.Size(), blob)
}

// registry looks at the log of From by the copy of the catalog.
func (b *Backup) registry() *Registry {
	of := b.From
	of.Catalog = b.Catalog
	return offline(of)
}

// mostLacked is how many things are named that a copy lacks.
const mostLacked = 5

// check sees to it that the copy has what its entries need, and that its entries are
// those that the log has signed.
func (b *Backup) check(ctx context.Context) error {
	_, note, err := b.Catalog.Published(ctx)
	if err != nil {
		return err
	}
	w := &walk{catalog: b.Catalog, blobs: b.To, bytes: lookThere}
	var log translog.Frontier
	var lacks []string
	err = w.run(ctx, 0, b.Done.Entries, func(page []*walked) error {
		for _, l := range page {
			for _, p := range l.problems {
				lacks = append(lacks, p.what+": "+p.detail)
			}
			if len(lacks) > mostLacked {
				return nil
			}
			if log.Add(translog.LeafHash(l.raw)); log.Size() == b.Done.Published {
				if err := b.registry().checkSigned(ctx, log.Size(), log.Root(), note); err != nil {
					return err
				}
			}
		}
		b.Progress.tell("checked entries", log.Size(), b.Done.Entries)
		return nil
	})
	if err != nil || len(lacks) == 0 {
		return err
	}
	return fmt.Errorf("%w: the registry itself lacks what its log needs, so the backup is not complete (`aln-registry fsck` says what mends that):\n%s", ErrLost, strings.Join(lacks, "\n"))
}

// CopyLog copies the log's objects: of the entries that the copy of the catalog has, in
// order, then the checkpoints up to what it says is published.
func (b *Backup) CopyLog(ctx context.Context) error {
	last, err := lastKey(ctx, b.To, translog.EntryPrefix, "", translog.ParseEntryKey)
	if err != nil {
		return err
	}
	for from := max(last, 0); from < b.Done.Entries; from += walkPage {
		to := min(from+walkPage, b.Done.Entries)
		rows, err := b.Catalog.EntryRows(ctx, from, to)
		if err != nil {
			return err
		}
		for _, row := range rows {
			done, err := b.copyEntry(ctx, row)
			if err != nil {
				return err
			}
			if !done { // neither is any that follows
				return b.copyCheckpoints(ctx)
			}
		}
		b.Progress.tell("copied entries", to, b.Done.Entries)
	}
	return b.copyCheckpoints(ctx)
}

// copyEntry reports false for one that is not published yet: a start of the copy does that.
func (b *Backup) copyEntry(ctx context.Context, row catalog.EntryRow) (bool, error) {
	key := translog.EntryKey(row.Index)
	object, err := b.From.Blobs.Read(ctx, key)
	switch {
	case errors.Is(err, storage.ErrNotFound) && row.Index >= b.Done.Published:
		return false, nil
	case err != nil:
		return false, err
	case !bytes.Equal(object, row.Bytes):
		return false, fmt.Errorf("%w: %s is not what the catalog has; `aln-registry fsck` says more", ErrFork, key)
	}
	b.Done.Objects++
	return true, b.To.Create(ctx, key, object)
}

func (b *Backup) copyCheckpoints(ctx context.Context) error {
	r := b.registry()
	last, err := lastKey(ctx, b.To, translog.CheckpointPrefix, "", translog.ParseCheckpointKey)
	if err != nil {
		return err
	}
	after := ""
	if last >= 0 {
		after = translog.CheckpointKey(last)
	}
	for key, err := range b.From.Blobs.List(ctx, translog.CheckpointPrefix, after) {
		if err != nil {
			return err
		}
		size, err := translog.ParseCheckpointKey(key)
		if err != nil || size > b.Done.Published {
			return err
		}
		note, err := b.From.Blobs.Read(ctx, key)
		if err != nil {
			return err
		}
		root, err := translog.TreeHash(size, storedHashes(ctx, &r.Catalog.Reader))
		if err != nil {
			return err
		}
		if err := r.checkNote(ctx, &r.Catalog.Reader, key, note, size, root); err != nil {
			return err
		}
		if err := b.To.Create(ctx, key, note); err != nil {
			return err
		}
		b.Done.Objects++
		b.Progress.tell("copied checkpoints", size, b.Done.Published)
	}
	return nil
}
