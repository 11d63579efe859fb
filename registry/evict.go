package registry

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// Evictor removes crates that are held of other registries. What a record names, a grant
// lists by hash that is in force or still to come, or somebody has pinned, stays. It may be at
// work beside others, publishers, and CollectGarbage: it removes as that does, by the same
// tombstones.
type Evictor struct {
	r         *Registry
	inventory storage.Inventory
	// turn is held by whoever uses what follows.
	turn chan struct{}
	// g knows what the log names, which is read once; nil before. forgot is how much it had
	// removed when tombstones were last forgotten.
	g      *garbage
	forgot int64
	// left are no longer held, and were not removed: that is tried again before anything else.
	left []catalog.UpstreamBlob
}

// Evicted is what an Evictor did.
type Evicted struct {
	// Held is how many bytes were held before.
	Held int64
	// Removed are gone now. Kept were looked at and stay: they are named, or were used,
	// pinned or stored anew meanwhile.
	Removed, RemovedBytes, Kept int64
}

const (
	// evictPage is how many crates are looked at together.
	evictPage = 4096
	// evictTombs is how much longer than needed tombstones are kept, as gc's by its grace.
	evictTombs = 24 * time.Hour
)

// NewEvictor makes one. The blobs of r are removed from inventory.
func (r *Registry) NewEvictor(inventory storage.Inventory) *Evictor {
	return &Evictor{r: r, inventory: inventory, turn: make(chan struct{}, 1)}
}

// Close gives up what is known of the log.
func (e *Evictor) Close() error {
	e.turn <- struct{}{}
	defer func() { <-e.turn }()
	return e.giveUp()
}

func (e *Evictor) giveUp() error {
	if e.g == nil {
		return nil
	}
	names := e.g.names
	e.g, e.forgot = nil, 0
	return names.Close()
}

// MakeRoom removes crates until no more than most bytes are held, what was not used for
// longest first, or until none is left that may go. The first call reads the whole log. It
// removes nothing (ErrUnproved, ErrBehind) where it cannot be told what that names. A grant whose
// list cannot be had allows nothing, and keeps nothing.
func (e *Evictor) MakeRoom(ctx context.Context, most int64) (done Evicted, err error) {
	err = e.alone(ctx, func() error {
		if done.Held, err = e.r.Catalog.UpstreamHeldBytes(ctx); err != nil {
			return err
		}
		if done.Held <= most && len(e.left) == 0 {
			return nil
		}
		if err := e.readLog(ctx); err != nil {
			return err
		}
		if err := e.removeLeft(ctx); err != nil || done.Held <= most {
			return err
		}
		for after := (catalog.UpstreamBlob{}); ; {
			page, err := e.r.Catalog.UnusedUpstreamBlobs(ctx, after, evictPage)
			if err != nil || len(page) == 0 {
				return err
			}
			if err := e.evict(ctx, page, done.Held-most, &done); err != nil || done.Held-done.RemovedBytes <= most {
				return err
			}
			after = page[len(page)-1]
		}
	})
	return done, err
}

// alone calls f when nobody else uses e, and forgets old tombstones then.
func (e *Evictor) alone(ctx context.Context, f func() error) error {
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := f(); err != nil || e.g == nil || e.g.done.Removed == e.forgot {
		return err
	}
	if err := e.g.forget(ctx); err != nil {
		return err
	}
	e.forgot = e.g.done.Removed
	return nil
}

// readLog brings up to date what is known of the log.
func (e *Evictor) readLog(ctx context.Context) (err error) {
	if e.g == nil {
		g := newGarbage(e.r.Config, GCOptions{Inventory: e.inventory, Delete: true, Grace: evictTombs, Temp: e.r.Spool})
		if g.names, err = newSpill(g.Temp); err != nil {
			return err
		}
		if err := g.readLog(ctx); err != nil {
			return errors.Join(err, g.names.Close())
		}
		e.g = g
	}
	if err := e.g.catchUp(ctx); err != nil {
		return err
	}
	return e.settle()
}

// settle moves to the files what came to be named since.
func (e *Evictor) settle() error {
	for id := range e.g.since {
		if err := e.g.names.add(storage.Stored{CID: id}); err != nil {
			return errors.Join(err, e.giveUp())
		}
	}
	clear(e.g.since)
	return nil
}

// evict removes those of page that may go, in their order, until that was most bytes.
func (e *Evictor) evict(ctx context.Context, page []catalog.UpstreamBlob, most int64, done *Evicted) error {
	if err := e.settle(); err != nil {
		return err
	}
	asOf := e.r.Size()
	keep, err := e.kept(ctx, page)
	if err != nil {
		return err
	}
	var batch []catalog.UpstreamBlob
	planned := done.RemovedBytes
	flush := func() error {
		defer func() { batch, planned = batch[:0], done.RemovedBytes }()
		if len(batch) == 0 {
			return nil
		}
		return e.remove(ctx, batch, asOf, done)
	}
	for _, b := range page {
		if planned >= most {
			if err := flush(); err != nil || done.RemovedBytes >= most {
				return err
			}
		}
		if keep[b.CID] {
			done.Kept++
			continue
		}
		planned += b.Size
		if batch = append(batch, b); len(batch) == removalBatch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// kept are those of page that something names which was published.
func (e *Evictor) kept(ctx context.Context, page []catalog.UpstreamBlob) (map[storage.CID]bool, error) {
	named, err := e.g.names.find(cidsOf(page))
	if err != nil {
		return nil, err
	}
	keep := map[storage.CID]bool{}
	for id := range named {
		keep[id] = true
	}
	prefix, from, size := state.GrantPrefix(), state.GrantPrefix(), e.r.Size()
	for {
		rows, err := e.r.Catalog.StateRange(ctx, from, catalog.PrefixEnd(prefix), size, grantsPage)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			g, err := state.DecodeGrant(row.Value)
			if err == nil {
				err = e.keepListed(ctx, g, page, keep)
			}
			if err != nil {
				return nil, err
			}
		}
		if len(rows) < grantsPage {
			return keep, nil
		}
		from = rows[len(rows)-1].Key + "\x01"
	}
}

// keepListed adds to keep those of page that g lists, if it is in force or may come to be.
func (e *Evictor) keepListed(ctx context.Context, g state.Grant, page []catalog.UpstreamBlob, keep map[storage.CID]bool) error {
	if g.Revoked != "" || g.SupersededBy != nil || !e.r.Clock().Before(g.Expires.Add(state.Skew)) {
		return nil
	}
	made, barred, err := e.r.grants.get(ctx, e.r, g.CID.String())
	if err != nil || barred != nil { // it was logged, and nobody gets anything by it
		return err
	}
	for _, b := range page {
		if made.Names(b.CID.Digest()) {
			keep[b.CID] = true
		}
	}
	return nil
}

// remove takes back that those of batch are held that may still go, and removes them.
func (e *Evictor) remove(ctx context.Context, batch []catalog.UpstreamBlob, asOf int64, done *Evicted) error {
	if err := e.g.catchUp(ctx); err != nil {
		return err
	}
	begun := e.g.moment()
	tombs, err := e.condemn(ctx, batch, asOf)
	if err != nil {
		return err
	}
	var stored []storage.Stored
	for _, b := range batch {
		if _, ok := tombs[b.CID]; ok {
			stored = append(stored, storage.Stored{CID: b.CID, Size: b.Size})
		}
	}
	before := e.g.done
	if len(stored) > 0 {
		err = e.g.removeCondemned(ctx, stored, tombs, begun)
	}
	done.Removed += e.g.done.Removed - before.Removed
	done.RemovedBytes += e.g.done.RemovedBytes - before.RemovedBytes
	done.Kept += int64(len(batch)) - (e.g.done.Removed - before.Removed)
	if e.g.done.Removed-before.Removed < int64(len(stored)) {
		return errors.Join(err, e.holdAgain(ctx, batch, tombs))
	}
	if err != nil || len(stored) == 0 {
		return err
	}
	return e.forgetSources(ctx, cidsOf(batch))
}

// holdAgainTime is for noting again what could not be removed, whoever waits.
const holdAgainTime = 10 * time.Second

// holdAgain notes as held what was condemned and is still there: what is not removed is not
// forgotten. What may not be held yet, since a store may still remove it, is left for later. Of the
// rest, which was removed, it is forgotten who served it.
func (e *Evictor) holdAgain(ctx context.Context, batch []catalog.UpstreamBlob, tombs map[storage.CID]time.Time) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), holdAgainTime)
	defer cancel()
	var there []catalog.UpstreamBlob
	for _, b := range batch {
		if _, ok := tombs[b.CID]; !ok {
			continue
		}
		if _, err := e.r.Blobs.Stat(ctx, b.CID); !errors.Is(err, storage.ErrNotFound) {
			there = append(there, b)
		}
	}
	unheld, err := e.r.HoldEach(ctx, there)
	for _, b := range there {
		if why := unheld[b.CID]; err != nil || why != nil && !errors.Is(why, ErrGone) {
			e.left = append(e.left, b)
		}
	}
	isLeft := func(id storage.CID) bool {
		return slices.ContainsFunc(e.left, func(b catalog.UpstreamBlob) bool { return b.CID == id })
	}
	return errors.Join(err, e.forgetSources(ctx, slices.DeleteFunc(cidsOf(batch), isLeft)))
}

// removeLeft removes what is left of before, but for what is named or held by now.
func (e *Evictor) removeLeft(ctx context.Context) error {
	if len(e.left) == 0 {
		return nil
	}
	named, err := e.g.names.find(cidsOf(e.left))
	if err != nil {
		return err
	}
	var stored []storage.Stored
	for _, b := range e.left {
		if _, ok := named[b.CID]; !ok {
			stored = append(stored, storage.Stored{CID: b.CID, Size: b.Size})
		}
	}
	if err := e.g.remove(ctx, stored); err != nil {
		return err
	}
	left := cidsOf(e.left)
	e.left = nil
	return e.forgetSources(ctx, left)
}

// forgetSources forgets who served what is not held any more.
func (e *Evictor) forgetSources(ctx context.Context, ids []storage.CID) error {
	return e.r.Catalog.Update(ctx, func(tx *catalog.Tx) error { return tx.ForgetUpstreamSources(ctx, ids) })
}

// condemn takes back that batch is held, and writes tombstones, but for what is named,
// pinned, or was used meanwhile; and for all of it where a grant may have come into force
// since asOf.
func (e *Evictor) condemn(ctx context.Context, batch []catalog.UpstreamBlob, asOf int64) (tombs map[storage.CID]time.Time, err error) {
	err = e.g.underLock(ctx, func(tx *catalog.Tx) error {
		tombs = map[storage.CID]time.Time{}
		if changed, err := grantsChanged(ctx, tx, asOf); err != nil || changed {
			return err
		}
		ids := cidsOf(batch)
		held, err := heldOf(ctx, tx, ids)
		if err != nil {
			return err
		}
		pinned, err := tx.UpstreamPinned(ctx, ids)
		if err != nil {
			return err
		}
		before, err := tx.Condemnations(ctx, ids)
		if err != nil {
			return err
		}
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		var gone []storage.CID
		for _, b := range batch {
			row, ok := held[b.CID]
			if !ok || !row.Used.Equal(b.Used) || e.g.since[b.CID] || slices.Contains(pinned, b.CID) {
				continue
			}
			if tombs[b.CID], err = condemnAnew(ctx, tx, b.CID, before[b.CID], now); err != nil {
				return err
			}
			gone = append(gone, b.CID)
		}
		return tx.RemoveUpstreamBlobs(ctx, gone)
	})
	return tombs, err
}

// grantsChanged reports whether an entry from asOf on may have put a grant in force.
func grantsChanged(ctx context.Context, tx *catalog.Tx, asOf int64) (bool, error) {
	head, err := tx.Head(ctx)
	if err != nil {
		return false, err
	}
	for from := asOf; from < head; {
		to := min(from+walkPage, head)
		keys, err := tx.StateKeys(ctx, from, to, maxKeys)
		if err != nil {
			return false, err
		}
		if len(keys) == maxKeys || slices.ContainsFunc(keys, func(k catalog.StateKey) bool { return strings.HasPrefix(k.Key, state.GrantPrefix()) }) {
			return true, nil
		}
		from = to
	}
	return false, nil
}

// maxKeys is more than walkPage entries change.
const maxKeys = 64 * walkPage
