package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// How blobs that nothing refers to are removed while others publish, on stores that
// cannot remove on a condition (docs/ARCHITECTURE.md, "Garbage", says why nothing
// acknowledged is lost, interleaving by interleaving):
//
//   - condemn: CollectGarbage writes a tombstone for a blob that no entry names, holding
//     the head's lock.
//   - remove: holding the lock again, it removes those whose tombstone is the very one it
//     wrote, within removalWindow. The tombstone stays for longer than any publisher
//     can be under way.
//   - Whoever enters a record looks, holding the lock, for tombstones of all the blobs it
//     names. Where there are any the record is not entered, and its publisher claims them:
//     the tombstone is written anew, so that nobody removes by it any more, the blob is stored
//     again (or found to be there), then the tombstone is taken away if it is still the
//     publisher's own, and the record is sent again.
//
// Who holds a crate of another registry (Hold) does what who enters a record does, and an
// Evictor what CollectGarbage does, but that a row names the blob, which goes when it is
// condemned.
//
// A removal that a process asked for and did not live to see may still happen. Where the
// parts do not lie on one host, nobody claims a tombstone that is younger than
// removalSettles: by then what was asked for has happened, or never will.

const (
	// removalWindow is how long after it was condemned a blob may be removed, and
	// batchRemoval how long one transaction may take for that.
	removalWindow = 30 * time.Second
	batchRemoval  = 5 * time.Second
	// removalSettles is longer than from condemning a blob to the last moment at which a
	// store carries its removal out. It is asked for within removalWindow and batchRemoval, by a request that
	// is valid for 60 seconds by the store's clock, and a store that is set back by up to 15
	// minutes still takes requests signed by ours.
	removalSettles = 20 * time.Minute
	// condemnedKept is longer than from storing a blob to entering its record: a record
	// is accepted for 24 hours and twice the skew of clocks.
	condemnedKept = 48 * time.Hour
	// claims is how often a publisher takes tombstones away that come again.
	claims = 5
)

// ErrRemoving: bytes that a record names, and that nothing has named for long, are just
// being removed; when that is over they can be stored again.
var ErrRemoving = fmt.Errorf("%w: bytes that this names are just being removed here, since nothing named them until now", ErrUnavailable)

// condemned refuses to enter a record that names blobs with tombstones.
type condemned struct{ ids []storage.CID }

func (c *condemned) Error() string {
	return fmt.Sprintf("%d of the blobs that it names were about to be removed, since nothing named them", len(c.ids))
}

// Unwrap makes it something that is tried again.
func (c *condemned) Unwrap() error { return ErrUnavailable }

// brought is a blob that a submission brings.
type brought struct {
	id    storage.CID
	size  int64
	bytes io.ReadSeeker
}

// blobs are all that s brings, the artifact first, the record last.
func (s *submission) blobs() []brought {
	var all []brought
	if s.artifact != nil {
		all = append(all, *s.artifact)
	}
	for id, raw := range s.attachments {
		all = append(all, brought{id, int64(len(raw)), bytes.NewReader(raw)})
	}
	return append(all, *blobOf(s.record.Envelope()))
}

func blobOf(raw []byte) *brought {
	return &brought{storage.CIDOf(raw), int64(len(raw)), bytes.NewReader(raw)}
}

// store makes what s brings durable.
func (r *Registry) store(ctx context.Context, s *submission) error {
	for _, b := range s.blobs() {
		if _, err := b.bytes.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("read the upload again: %w", err)
		}
		if err := r.Blobs.Put(ctx, b.id, b.size, b.bytes); err != nil {
			return err
		}
	}
	return nil
}

// checkCondemned refuses a record of which a blob is condemned; tx holds the head's lock.
func checkCondemned(ctx context.Context, tx *catalog.Tx, batch ...*submission) error {
	var all []storage.CID
	for _, s := range batch {
		if s.condemned = nil; s.named == nil {
			if err := s.name(); err != nil {
				return err
			}
		}
		all = append(all, s.named...)
	}
	found, err := tx.Condemned(ctx, all)
	if err != nil || len(found) == 0 {
		return err
	}
	for _, s := range batch {
		if own := slices.DeleteFunc(slices.Clone(s.named), func(id storage.CID) bool { return !slices.Contains(found, id) }); len(own) > 0 {
			s.condemned = &condemned{own}
		}
	}
	return nil
}

// name notes which blobs s names. The document that its signer is judged by is not
// among them: an entry before names it, or s brings it.
func (s *submission) name() (err error) {
	s.named, err = namedBy(translog.Entry{}, s.record, s.attachments)
	return err
}

// claim takes the tombstones of what s names away, and sees to it that the blobs are
// there: those that s brings are stored anew, the others must not be gone.
func (r *Registry) claim(ctx context.Context, s *submission, ids []storage.CID) error {
	mine, err := r.mark(ctx, ids)
	if err != nil {
		return err
	}
	if err := r.store(ctx, s); err != nil {
		return err
	}
	if err := r.there(ctx, mine); err != nil {
		return err
	}
	return r.release(ctx, mine)
}

// there is nil if all blobs in mine are stored. The tombstone of one that is gone stays,
// for whoever has stored it before it went, and not entered a record yet.
func (r *Registry) there(ctx context.Context, mine map[storage.CID]time.Time) error {
	for id := range mine {
		_, err := r.Blobs.Stat(ctx, id)
		if errors.Is(err, storage.ErrNotFound) {
			return fmt.Errorf("%w: it names %s, which was removed here since nothing referred to it; publish those bytes first", ErrRequest, id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// release takes away those of the tombstones in mine that are still the same, so that nobody
// has removed a blob by another meanwhile, and whose blob is there: another claimant may have
// taken the tombstone away, and somebody condemned the blob anew, by the same second. Whoever
// finds one that stays claims it once more.
func (r *Registry) release(ctx context.Context, mine map[storage.CID]time.Time) error {
	ids := slices.Collect(maps.Keys(mine))
	return r.Catalog.Update(ctx, func(tx *catalog.Tx) error {
		until, cancel := context.WithTimeout(ctx, batchRemoval)
		defer cancel()
		now, err := tx.Condemnations(ctx, ids)
		if err != nil {
			return err
		}
		var free []storage.CID
		for id, at := range now {
			if !at.Equal(mine[id]) {
				continue
			}
			if _, err := r.Blobs.Stat(until, id); err == nil {
				free = append(free, id)
			} else if !errors.Is(err, storage.ErrNotFound) {
				return err
			}
		}
		return tx.Pardon(ctx, free)
	})
}

// mark writes the tombstones of ids anew, so that whoever wrote them removes nothing by
// them any more, and returns them.
func (r *Registry) mark(ctx context.Context, ids []storage.CID) (mine map[storage.CID]time.Time, err error) {
	err = r.Catalog.Update(ctx, func(tx *catalog.Tx) error {
		mine = map[storage.CID]time.Time{}
		found, err := tx.Condemnations(ctx, ids)
		if err != nil {
			return err
		}
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		for id, at := range found {
			if err := r.settling(at, now); err != nil {
				return err
			}
			if mine[id], err = condemnAnew(ctx, tx, id, at, now); err != nil {
				return err
			}
		}
		return nil
	})
	return mine, err
}

// settling is ErrRemoving where what was condemned at may still be removed.
func (r *Registry) settling(at, now time.Time) error {
	if left := at.Add(removalSettles).Sub(now); !r.Embedded && left > 0 {
		return fmt.Errorf("%w: in %s they can be stored again; try again then", ErrRemoving, left.Round(time.Second))
	}
	return nil
}

// condemnAnew writes a tombstone that is no other's: later than the one of before.
func condemnAnew(ctx context.Context, tx *catalog.Tx, id storage.CID, before, now time.Time) (time.Time, error) {
	at := now
	if !before.IsZero() {
		at = time.Unix(max(now.Unix(), before.Unix()+1), 0).UTC()
	}
	return at, tx.Condemn(ctx, []storage.CID{id}, at)
}

// storeAndSubmit makes the record's blobs durable, then queues it. Blobs of a record
// that is refused only then (two changes raced) stay behind unreferenced, for CollectGarbage.
func (r *Registry) storeAndSubmit(ctx context.Context, s *submission) (Receipt, error) {
	if err := s.name(); err != nil {
		return Receipt{}, err
	}
	if err := r.store(ctx, s); err != nil {
		return Receipt{}, err
	}
	for claimed := 0; ; claimed++ {
		receipt, err := r.submit(ctx, s)
		var c *condemned
		if !errors.As(err, &c) || claimed == claims {
			return receipt, err
		}
		if err := r.claim(ctx, s, c.ids); err != nil {
			return Receipt{}, err
		}
	}
}
