package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// ErrGone: bytes that were stored to be held were removed before that was noted, since
// nothing named them until then. Stored anew, they can be held.
var ErrGone = fmt.Errorf("%w: removed while it was being stored", ErrUnavailable)

// Hold is HoldEach for whoever wants all of blobs held: an error says that some are not.
func (r *Registry) Hold(ctx context.Context, blobs []catalog.UpstreamBlob) error {
	unheld, err := r.HoldEach(ctx, blobs)
	failures := []error{err}
	for _, b := range blobs {
		if why := unheld[b.CID]; why != nil {
			failures = append(failures, fmt.Errorf("hold %s %s of %s: %w", b.Name, b.Version, b.Upstream, why))
		}
	}
	return errors.Join(failures...)
}

// HoldEach notes, durably, that blobs, which are stored durably already, are held of other
// registries: CollectGarbage does not remove them from then on, and an Evictor takes that back
// first. It may be repeated. unheld says of those that are not held why: ErrGone, or
// ErrRemoving where a store may still carry out a removal (Settling). After an error it is not
// known which are held.
func (r *Registry) HoldEach(ctx context.Context, blobs []catalog.UpstreamBlob) (unheld map[storage.CID]error, err error) {
	unheld = map[storage.CID]error{}
	for claimed := 0; len(blobs) > 0; claimed++ {
		tombs, err := r.hold(ctx, blobs)
		if err != nil {
			return unheld, err
		}
		blobs = slices.DeleteFunc(slices.Clone(blobs), func(b catalog.UpstreamBlob) bool {
			if slices.Contains(tombs, b.CID) && claimed == claims {
				unheld[b.CID] = &condemned{[]storage.CID{b.CID}}
			}
			return !slices.Contains(tombs, b.CID) || claimed == claims
		})
		blobs = slices.DeleteFunc(blobs, func(b catalog.UpstreamBlob) bool {
			err := r.claimStored(ctx, b.CID)
			if err != nil {
				unheld[b.CID] = err
			}
			return err != nil
		})
	}
	return unheld, nil
}

// Settling is nil where a blob may be held once it is stored. ErrRemoving: the same bytes were
// removed a short while ago, and the store may still carry a removal out, so that storing
// them now is of no use.
func (r *Registry) Settling(ctx context.Context, id storage.CID) error {
	if r.Embedded {
		return nil
	}
	found, err := r.Catalog.Condemnations(ctx, []storage.CID{id})
	if err != nil || len(found) == 0 {
		return err
	}
	now, err := r.Catalog.Now(ctx)
	if err != nil {
		return err
	}
	return r.settling(found[id], now)
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
// those that are stored: it is there still, or it is ErrGone and the tombstone stays.
func (r *Registry) claimStored(ctx context.Context, id storage.CID) error {
	mine, err := r.mark(ctx, []storage.CID{id})
	if err != nil {
		return err
	}
	_, err = r.Blobs.Stat(ctx, id)
	if errors.Is(err, storage.ErrNotFound) {
		return fmt.Errorf("%w (%s)", ErrGone, id)
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

// forgetServed forgets who served what is not held any more: an Evictor that is killed before it
// does so leaves that. What has a tombstone may still be held again.
func forgetServed(ctx context.Context, db *catalog.DB) error {
	for last := (catalog.UpstreamSource{}); ; {
		page, err := db.UpstreamSourcesAfter(ctx, last, heldPage)
		if err != nil || len(page) == 0 {
			return err
		}
		var ids []storage.CID
		for _, s := range page {
			ids = append(ids, s.CID)
		}
		held, err := db.UpstreamBlobs(ctx, ids)
		if err != nil {
			return err
		}
		of := make(map[storage.CID]bool, len(held))
		for _, b := range held {
			of[b.CID] = true
		}
		if gone := slices.DeleteFunc(ids, func(id storage.CID) bool { return of[id] }); len(gone) > 0 {
			err = db.Update(ctx, func(tx *catalog.Tx) error {
				tombs, err := tx.Condemned(ctx, gone)
				if err != nil {
					return err
				}
				return tx.ForgetUpstreamSources(ctx, slices.DeleteFunc(slices.Clone(gone), func(id storage.CID) bool { return slices.Contains(tombs, id) }))
			})
		}
		if err != nil {
			return err
		}
		last = page[len(page)-1]
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
