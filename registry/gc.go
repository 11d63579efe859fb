package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// GCOptions say what CollectGarbage may remove.
type GCOptions struct {
	// Inventory lists what Config.Blobs holds, and removes.
	Inventory storage.Inventory
	// Delete removes; otherwise it is only said what would be.
	Delete bool
	// Grace is how old a blob has to be that is removed. That nothing acknowledged is lost
	// does not rest on it; that publishers seldom have to store twice does.
	Grace time.Duration
	// Temp is the folder for lists, "" for the system's.
	Temp string
	// Found is called with each blob that nothing refers to and that is old enough.
	Found func(storage.Stored)
	// Stray is called with what lies among the blobs and is none; it stays.
	Stray    func(error)
	Progress Progress
}

// Collected is what CollectGarbage saw and did.
type Collected struct {
	// Entries were read, of which the published ones are proved by a signed root.
	Entries int64
	// Held are crates of other registries that are held: they stay.
	Held int64
	// Blobs were listed, of Bytes in all.
	Blobs, Bytes int64
	// Unreferenced are named by no entry, not held of another registry, and older than the
	// grace; Young are only not so old.
	Unreferenced, UnreferencedBytes int64
	Young, YoungBytes               int64
	// Removed are gone now; Spared were named, or claimed, meanwhile.
	Removed, RemovedBytes, Spared int64
}

// ErrUnproved: what the log refers to cannot be told for sure, so nothing may be removed.
var ErrUnproved = errors.New("it cannot be proved what the log refers to, so nothing is removed; `aln-registry fsck` says what is wrong")

// removalBatch is how many blobs are removed in one transaction, while whoever publishes waits.
const removalBatch = 16

// garbage is a collection of it.
type garbage struct {
	Config
	GCOptions
	done  Collected
	walk  *walk
	names *spill
	// since are what entries name that were entered after the first look.
	since map[storage.CID]bool
}

func newGarbage(c Config, o GCOptions) *garbage {
	return &garbage{
		Config: c.withClock(), GCOptions: o, since: map[storage.CID]bool{},
		walk: &walk{catalog: c.Catalog, blobs: c.Blobs, names: true},
	}
}

// CollectGarbage finds the blobs that no entry of the log names in any way (namedBy) and
// that are no crate held of another registry, and with Delete removes those that are older
// than the grace. It may run beside
// servers and beside itself. It refuses where the catalog is behind the stored log
// (ErrBehind), or where an entry or its record cannot be read (ErrUnproved).
func CollectGarbage(ctx context.Context, c Config, o GCOptions) (Collected, error) {
	g := newGarbage(c, o)
	var err error
	if g.names, err = newSpill(o.Temp); err != nil {
		return g.done, err
	}
	defer g.names.Close()
	if err := g.readLog(ctx); err != nil {
		return g.done, err
	}
	if g.done.Held, err = nameHeld(ctx, g.Catalog, g.names); err != nil {
		return g.done, err
	}
	listed, err := newSpill(o.Temp)
	if err != nil {
		return g.done, err
	}
	defer listed.Close()
	err = listBlobs(ctx, o.Inventory, func(b storage.Stored) error {
		g.done.Blobs++
		g.done.Bytes += b.Size
		g.Progress.tell("listed blobs", g.done.Blobs, 0)
		return listed.add(b)
	}, g.stray)
	if err != nil {
		return g.done, err
	}
	return g.done, g.collect(ctx, listed)
}

func (g *garbage) stray(err error) {
	if g.Stray != nil {
		g.Stray(err)
	}
}

// readLog notes what all entries name, and holds the published ones against the root
// that the log has signed, here and in blob storage.
func (g *garbage) readLog(ctx context.Context) error {
	published, note, err := g.Catalog.Published(ctx)
	if err != nil {
		return err
	}
	head, err := g.Catalog.Head(ctx)
	if err != nil {
		return err
	}
	if err := g.notBehind(ctx, head); err != nil {
		return err
	}
	var log translog.Frontier
	proved := false
	err = g.walk.run(ctx, 0, head, func(page []*walked) error {
		for _, l := range page {
			ids, err := g.namesOf(l)
			if err != nil {
				return err
			}
			for _, id := range ids {
				if err := g.names.add(storage.Stored{CID: id}); err != nil {
					return err
				}
			}
			if log.Add(translog.LeafHash(l.raw)); log.Size() == published {
				if err := offline(g.Config).checkSigned(ctx, log.Size(), log.Root(), note); err != nil {
					return fmt.Errorf("%w (%v)", ErrUnproved, err)
				}
				proved = true
			}
		}
		g.Progress.tell("read entries", log.Size(), head)
		return nil
	})
	if g.done.Entries = log.Size(); err == nil && !proved {
		return fmt.Errorf("%w (the catalog says that %d entries are published, of %d)", ErrUnproved, published, head)
	}
	return err
}

// namesOf is what an entry names, ErrUnproved where not all of it can be known.
func (g *garbage) namesOf(l *walked) ([]storage.CID, error) {
	for _, p := range l.problems {
		return nil, fmt.Errorf("%w (%s: %s)", ErrUnproved, p.what, p.detail)
	}
	if l.rec == nil || !l.whole {
		return nil, fmt.Errorf("%w (%s)", ErrUnproved, l.name())
	}
	ids, err := namedBy(l.entry, l.rec, l.attachments)
	if err != nil {
		return nil, fmt.Errorf("%w (%s: %v)", ErrUnproved, l.name(), err)
	}
	return ids, nil
}

// notBehind is ErrBehind where blob storage has an entry at head, which the catalog has
// not: it was put back, and what was entered since would look like garbage.
func (g *garbage) notBehind(ctx context.Context, head int64) error {
	if head == 0 {
		return fmt.Errorf("%w: the catalog has no entry", ErrUnproved)
	}
	behind := notAhead(ctx, g.Blobs, head)
	if !errors.Is(behind, ErrBehind) {
		return behind
	}
	if again, err := g.Catalog.Head(ctx); err != nil || again > head { // entered meanwhile
		return err
	}
	return behind
}

// collect goes through the blobs that were listed and are not named.
func (g *garbage) collect(ctx context.Context, listed *spill) error {
	now := g.Clock()
	var batch []storage.Stored
	flush := func() error {
		defer func() { batch = batch[:0] }()
		if !g.Delete || len(batch) == 0 {
			return nil
		}
		return g.remove(ctx, batch)
	}
	err := listed.without(g.names, func(b storage.Stored) error {
		if b.Modified.After(now.Add(-g.Grace)) {
			g.done.Young++
			g.done.YoungBytes += b.Size
			return nil
		}
		g.done.Unreferenced++
		g.done.UnreferencedBytes += b.Size
		if g.Found != nil {
			g.Found(b)
		}
		if batch = append(batch, b); len(batch) < removalBatch {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	if err := flush(); err != nil || !g.Delete {
		return err
	}
	if err := g.forget(ctx); err != nil {
		return err
	}
	return forgetServed(ctx, g.Catalog)
}

// forget forgets tombstones that are old enough.
func (g *garbage) forget(ctx context.Context) error {
	return g.Catalog.Update(ctx, func(tx *catalog.Tx) error {
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		return tx.ForgetCondemned(ctx, now.Add(-condemnedKept-g.Grace))
	})
}

// remove condemns a batch, and then removes what stays condemned.
func (g *garbage) remove(ctx context.Context, batch []storage.Stored) error {
	if err := g.catchUp(ctx); err != nil {
		return err
	}
	begun := g.moment()
	tombs, err := g.condemn(ctx, batch)
	if err != nil {
		return err
	}
	return g.removeCondemned(ctx, batch, tombs, begun)
}

// catchUp reads what was entered since, so that little is left to read under the lock.
func (g *garbage) catchUp(ctx context.Context) error {
	head, err := g.Catalog.Head(ctx)
	if err != nil {
		return err
	}
	return g.readSince(ctx, head)
}

// readSince notes what the entries up to head name that were not read yet.
func (g *garbage) readSince(ctx context.Context, head int64) error {
	return g.walk.run(ctx, g.done.Entries, head, func(page []*walked) error {
		for _, l := range page {
			ids, err := g.namesOf(l)
			if err != nil {
				return err
			}
			for _, id := range ids {
				g.since[id] = true
			}
			g.done.Entries++
		}
		return nil
	})
}

// underLock runs f with the head locked, once it is known that the catalog is not behind
// the stored log, and what all entries name. f must be repeatable.
func (g *garbage) underLock(ctx context.Context, f func(tx *catalog.Tx) error) error {
	return g.Catalog.Update(ctx, func(tx *catalog.Tx) error {
		head, err := tx.Head(ctx)
		if err != nil {
			return err
		}
		if head < g.done.Entries {
			return fmt.Errorf("%w (catalog: %d entries, of which there were %d)", ErrBehind, head, g.done.Entries)
		}
		if err := g.notBehind(ctx, head); err != nil {
			return err
		}
		if err := g.readSince(ctx, head); err != nil {
			return err
		}
		return f(tx)
	})
}

// condemn writes tombstones for those of batch that are still not named.
func (g *garbage) condemn(ctx context.Context, batch []storage.Stored) (tombs map[storage.CID]time.Time, err error) {
	err = g.underLock(ctx, func(tx *catalog.Tx) error {
		tombs = map[storage.CID]time.Time{}
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		before, err := tx.Condemnations(ctx, idsOf(batch))
		if err != nil {
			return err
		}
		held, err := heldOf(ctx, tx, idsOf(batch))
		if err != nil {
			return err
		}
		for _, b := range batch {
			if _, ok := held[b.CID]; ok || g.since[b.CID] {
				continue
			}
			if tombs[b.CID], err = condemnAnew(ctx, tx, b.CID, before[b.CID], now); err != nil {
				return err
			}
		}
		return nil
	})
	return tombs, err
}

// removeCondemned removes those of batch whose tombstones are the very ones in tombs,
// which were written after begun. Who has lost the head's lock, or slept for so long that
// whoever claims them need not wait any more, removes no more.
func (g *garbage) removeCondemned(ctx context.Context, batch []storage.Stored, tombs map[storage.CID]time.Time, begun moment) error {
	gone := map[storage.CID]bool{}
	err := g.underLock(ctx, func(tx *catalog.Tx) error {
		until, cancel := context.WithTimeout(ctx, batchRemoval)
		defer cancel()
		still, err := tx.Condemnations(ctx, idsOf(batch))
		if err != nil {
			return err
		}
		held, err := heldOf(ctx, tx, idsOf(batch))
		if err != nil {
			return err
		}
		for _, b := range batch {
			at, ok := tombs[b.CID]
			if _, again := held[b.CID]; again || !ok || !at.Equal(still[b.CID]) || g.since[b.CID] {
				continue
			}
			if err := tx.Hold(until); err != nil {
				return err
			}
			if !g.within(begun, removalWindow) {
				return nil
			}
			if err := g.Inventory.Remove(until, b.CID); err != nil {
				return err
			}
			gone[b.CID] = true
		}
		return nil
	})
	for _, b := range batch {
		if gone[b.CID] {
			g.done.Removed++
			g.done.RemovedBytes += b.Size
		} else {
			g.done.Spared++
		}
	}
	g.Progress.tell("removed blobs", g.done.Removed, 0)
	return err
}

func idsOf(batch []storage.Stored) []storage.CID {
	ids := make([]storage.CID, len(batch))
	for i, b := range batch {
		ids[i] = b.CID
	}
	return ids
}
