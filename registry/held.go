package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// Hold notes, durably, that blobs, which are stored durably already, are held of other
// registries: CollectGarbage does not remove them from then on, and an Evictor takes that back
// first. It may be repeated. An error says that some are not held; the others are. What was
// removed while it was being stored, or may still be, is ErrUnavailable: it has to be stored
// anew.
func (r *Registry) Hold(ctx context.Context, blobs []catalog.UpstreamBlob) error {
	var failures []error
	for claimed := 0; len(blobs) > 0; claimed++ {
		tombs, err := r.hold(ctx, blobs)
		if err != nil {
			return errors.Join(append(failures, err)...)
		}
		blobs = slices.DeleteFunc(slices.Clone(blobs), func(b catalog.UpstreamBlob) bool { return !slices.Contains(tombs, b.CID) })
		if len(blobs) > 0 && claimed == claims {
			return errors.Join(append(failures, &condemned{tombs})...)
		}
		blobs = slices.DeleteFunc(blobs, func(b catalog.UpstreamBlob) bool {
			err := r.claimStored(ctx, b.CID)
			if err != nil {
				failures = append(failures, fmt.Errorf("hold %s %s of %s: %w", b.Name, b.Version, b.Upstream, err))
			}
			return err != nil
		})
	}
	return errors.Join(failures...)
}

// hold notes those of blobs that have no tombstone, and returns those that have one: as a
// record that names them is not entered (applyBatch).
func (r *Registry) hold(ctx context.Context, blobs []catalog.UpstreamBlob) (tombs []storage.CID, err error) {
	err = r.Catalog.Update(ctx, func(tx *catalog.Tx) error {
		if tombs, err = tx.Condemned(ctx, cidsOf(blobs)); err != nil {
			return err
		}
		return tx.PutUpstreamBlobs(ctx, slices.DeleteFunc(slices.Clone(blobs), func(b catalog.UpstreamBlob) bool { return slices.Contains(tombs, b.CID) }))
	})
	return tombs, err
}

// claimStored claims the tombstone of a blob of which there are no other bytes here than
// those that are stored: it is there still, or it is ErrUnavailable and the tombstone stays.
func (r *Registry) claimStored(ctx context.Context, id storage.CID) error {
	mine, err := r.mark(ctx, []storage.CID{id})
	if err != nil {
		return err
	}
	_, err = r.Blobs.Stat(ctx, id)
	if errors.Is(err, storage.ErrNotFound) {
		return fmt.Errorf("%w: %s was removed while it was being stored", ErrUnavailable, id)
	}
	if err != nil {
		return err
	}
	return r.release(ctx, mine)
}

// heldPage is how many rows are read at once of what is held.
const heldPage = 1000

// nameHeld adds to names all that is held of other registries, and says how much that is.
func nameHeld(ctx context.Context, db *catalog.DB, names *spill) (held int64, err error) {
	for last := (storage.CID{}); ; {
		page, err := db.UpstreamBlobsAfter(ctx, last, heldPage)
		if err != nil || len(page) == 0 {
			return held, err
		}
		for _, b := range page {
			if err := names.add(storage.Stored{CID: b.CID, Size: b.Size}); err != nil {
				return held, err
			}
		}
		held, last = held+int64(len(page)), page[len(page)-1].CID
	}
}

// heldOf are those of ids that are held of other registries; tx holds the head's lock.
func heldOf(ctx context.Context, tx *catalog.Tx, ids []storage.CID) (map[storage.CID]catalog.UpstreamBlob, error) {
	rows, err := tx.UpstreamBlobs(ctx, ids)
	if err != nil {
		return nil, err
	}
	held := make(map[storage.CID]catalog.UpstreamBlob, len(rows))
	for _, b := range rows {
		held[b.CID] = b
	}
	return held, nil
}

// cidsOf are the CIDs of blobs.
func cidsOf(blobs []catalog.UpstreamBlob) []storage.CID {
	ids := make([]storage.CID, len(blobs))
	for i, b := range blobs {
		ids[i] = b.CID
	}
	return ids
}
