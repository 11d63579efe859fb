package registry

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// stubborn is an inventory of which nothing can be removed while it is so, but so many.
type stubborn struct {
	storage.Inventory
	is   bool
	lets int
}

func (s *stubborn) Remove(ctx context.Context, id storage.CID) error {
	if s.is && s.lets == 0 {
		return errors.New("read-only file system")
	}
	s.lets--
	return s.Inventory.Remove(ctx, id)
}

// What could not be removed is not forgotten: it is held again, or where it may not be yet,
// removed before anything else is.
func TestWhatCannotBeRemovedIsNotForgotten(t *testing.T) {
	for name, oneHost := range map[string]bool{"on one host": true, "on engines": false} {
		t.Run(name, func(t *testing.T) {
			c := newCourt(t, func(cfg *Config) { embedded(cfg); cfg.Embedded = oneHost })
			var all []catalog.UpstreamBlob
			for n := range 2 * removalBatch {
				all = append(all, fetched(t, c.r.Blobs, fmt.Sprint("crate-", n), time.Duration(n)*time.Second))
			}
			if err := c.r.Hold(t.Context(), all); err != nil {
				t.Fatal(err)
			}
			whole := c.evictor()
			store := &stubborn{whole.inventory, true, 3}
			e := c.r.NewEvictor(store)
			t.Cleanup(func() {
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			})
			for range 3 { // it does not go on with others
				if _, err := e.MakeRoom(t.Context(), 0); err == nil {
					t.Error("nothing is said of what cannot be removed")
				}
			}
			there, held := 0, 0
			for _, b := range all {
				if _, err := c.r.Blobs.Stat(t.Context(), b.CID); err == nil {
					there++
				}
				if isHeld(t, c.r, b.CID) {
					held++
				}
			}
			forgotten := 0
			if !oneHost {
				forgotten = removalBatch - 3
			}
			if there != len(all)-3 || held != there-forgotten || len(e.left) != forgotten {
				t.Errorf("%d of %d are stored, %d held, %d left for later", there, len(all), held, len(e.left))
			}
			served := func(want int) {
				t.Helper()
				if n := (&archive{world: c.w}).count("SELECT COUNT(*) FROM upstream_source"); n != int64(want) {
					t.Errorf("of %d it is known who served them, want %d", n, want)
				}
			}
			served(there)
			store.is = false
			if _, err := e.MakeRoom(t.Context(), 0); err != nil {
				t.Error(err)
			}
			for _, b := range all {
				if _, err := c.r.Blobs.Stat(t.Context(), b.CID); !errors.Is(err, storage.ErrNotFound) || isHeld(t, c.r, b.CID) {
					t.Errorf("%s is still there: %v", b.Name, err)
				}
			}
			served(0)
		})
	}
}

// Tombstones are forgotten after something was removed, and not again and again.
func TestAnIdleEvictorForgetsNothing(t *testing.T) {
	c := newCourt(t, embedded)
	a := &archive{world: c.w}
	e := c.evictor()
	held := func(text string) {
		t.Helper()
		if err := c.r.Hold(t.Context(), []catalog.UpstreamBlob{fetched(t, c.r.Blobs, text, 0)}); err != nil {
			t.Fatal(err)
		}
	}
	old := func(text string) {
		a.exec(fmt.Sprintf("INSERT INTO condemned VALUES ('%s', 1)", storage.CIDOf([]byte(text))))
	}
	count := func(want int64) {
		t.Helper()
		if n := a.count("SELECT COUNT(*) FROM condemned WHERE condemned_at = 1"); n != want {
			t.Errorf("%d old tombstones, want %d", n, want)
		}
	}
	old("a")
	held("first")
	for n, want := range []int64{0, 1, 1} {
		if _, err := e.MakeRoom(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if count(want); n == 0 {
			old("b")
		}
	}
	held("second")
	if _, err := e.MakeRoom(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	count(0)
}
