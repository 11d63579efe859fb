//go:build unix

package registry

import (
	"context"
	"errors"
	"testing"

	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// interrupted does something after the first removal.
type interrupted struct {
	storage.Inventory
	then func()
}

func (i *interrupted) Remove(ctx context.Context, id storage.CID) error {
	err := i.Inventory.Remove(ctx, id)
	if i.then != nil {
		i.then()
		i.then = nil
	}
	return err
}

// A collection whose session ends in the middle of a batch has lost the head's lock, and
// removes nothing more of what others may have claimed meanwhile.
func TestACollectionWithoutTheLockRemovesNothing(t *testing.T) {
	t.Parallel()
	g := newGroup(t)
	a, b := g.replica("a"), g.replica("b")
	b.Embedded = true // nobody waits here for what a store may do late
	first, second := litter(t, a.Blobs, "first"), litter(t, a.Blobs, "second")
	store := &interrupted{Inventory: a.blobs.Blobs.(storage.Inventory)}
	c := newGarbage(a.Config, GCOptions{Inventory: store, Delete: true})
	c.done.Entries = a.Size()
	batch, begun := []storage.Stored{{CID: first}, {CID: second}}, c.moment()
	tombs, err := c.condemn(t.Context(), batch)
	if err != nil || len(tombs) != 2 {
		t.Fatalf("condemned %v, %v", tombs, err)
	}
	store.then = func() {
		g.maintenance("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '" + g.database() + "' AND state = 'idle in transaction'")
		if _, err := b.mark(t.Context(), []storage.CID{second}); err != nil {
			t.Error(err)
		}
	}
	if err := c.removeCondemned(t.Context(), batch, tombs, begun); !errors.Is(err, catalog.ErrUnavailable) {
		t.Errorf("removed without a lock: %v", err)
	}
	if _, err := a.Blobs.Stat(t.Context(), second); err != nil || c.done.Removed != 1 || c.done.Spared != 1 {
		t.Errorf("what is claimed: %v; %+v", err, c.done)
	}
}
