package registry

import (
	"context"
	"fmt"

	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
)

// checkBeyond looks for objects of the log that the catalog does not know of. They are
// listed first, the checkpoints by checkCheckpoints, and the head is read then: objects are
// written after their entry was committed, so a server that goes on meanwhile is no finding.
func (f *fsck) checkBeyond(ctx context.Context) error {
	last := int64(-1)
	for key, err := range f.Blobs.List(ctx, translog.EntryPrefix, "") {
		if err != nil {
			return err
		}
		index, err := translog.ParseEntryKey(key)
		if err != nil {
			f.found(codeLogStray, key, err.Error())
			continue
		}
		last = index
	}
	if f.Catalog == nil {
		return nil
	}
	ends, err := f.Catalog.Ends(ctx)
	if err != nil {
		return f.orLost(err)
	}
	head := max(ends.Head, ends.Entries, f.done.Size)
	switch {
	case last >= head:
		f.found(codeCatalogBehind, translog.EntryKey(last), fmt.Sprintf("the catalog has %d entries", head))
	case f.largest > head:
		f.found(codeCatalogBehind, translog.CheckpointKey(f.largest), fmt.Sprintf("the catalog has %d entries", head))
	}
	return nil
}

// repairObjects puts back, or tells of, the objects of entries that are missing.
func (f *fsck) repairObjects(ctx context.Context) error {
	w := &walk{catalog: f.Catalog, blobs: f.Blobs, objects: true}
	for _, from := range f.lacking {
		err := w.run(ctx, from, min(from+walkPage, f.done.Size), func(page []*walked) error {
			for _, l := range page {
				if !l.has(codeObjectMissing) {
					continue
				}
				if err := f.repairObject(ctx, l); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// repairObject writes the object of an entry whose row is proved by the signed root.
func (f *fsck) repairObject(ctx context.Context, l *walked) error {
	key := translog.EntryKey(l.index)
	suffers, err := f.suffering(ctx, l)
	if err != nil {
		return err
	}
	if !f.Repair || !f.proved {
		f.found(codeObjectMissing, key, "it is not there", suffers...)
		return nil
	}
	proved, err := f.replay.Catalog.Hashes(ctx, []int64{translog.LeafPosition(l.index)})
	if err != nil {
		return err
	}
	if translog.LeafHash(l.raw) != proved[0] {
		f.found(codeObjectMissing, key, "it is not there, and the row has changed", suffers...)
		return nil
	}
	if err := f.Blobs.Create(ctx, key, l.raw); err != nil {
		return fmt.Errorf("put back %s: %w", key, err)
	}
	f.mended(codeObjectMissing, key, "it was not there", suffers...)
	return nil
}

// checkInventory looks for what is in blob storage and nobody refers to.
func (f *fsck) checkInventory(ctx context.Context, folder string) error {
	listed, err := newSpill(folder)
	if err != nil {
		return err
	}
	defer listed.Close()
	err = listBlobs(ctx, f.Inventory, func(b storage.Stored) error {
		f.done.Blobs++
		f.done.Bytes += b.Size
		f.Progress.tell("listed blobs", f.done.Blobs, 0)
		return listed.add(b)
	}, func(stray error) { f.found(codeStray, "blob storage", stray.Error()) })
	if err != nil {
		return err
	}
	if f.done.Replayed < f.done.Size { // what else is named is not known
		return nil
	}
	if f.Catalog != nil {
		if _, err := nameHeld(ctx, f.Catalog, f.names); err != nil {
			return f.orLost(err)
		}
	}
	return listed.without(f.names, func(b storage.Stored) error {
		f.done.Unreferenced++
		f.done.UnreferencedBytes += b.Size
		return nil
	})
}
