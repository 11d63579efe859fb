//go:build unix

package registry

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/storage/catalog"
)

// However many publish at once, those who wait for a transaction share the next one, and
// its publication: durable publishes scale past one transaction each, on both dialects.
func TestWhoWaitsSharesATransaction(t *testing.T) {
	t.Parallel()
	const waiting = 32
	for name, open := range map[string]func(*testing.T, func(Batch)) (*world, *Registry){
		"SQLite": func(t *testing.T, told func(Batch)) (*world, *Registry) {
			w := newWorld(t)
			w.stores()
			if err := w.genesis(); err != nil {
				t.Fatal(err)
			}
			w.config.Batch = told
			r, err := Open(t.Context(), w.config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { w.closeAll(r) })
			return w, r
		},
		"PostgreSQL": func(t *testing.T, told func(Batch)) (*world, *Registry) {
			g := newGroup(t)
			r, err := g.openAt("a", g.url, func(c *Config) { c.Batch = told })
			if err != nil {
				t.Fatal(err)
			}
			return g.world, r.Registry
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var batches []int
			w, r := open(t, func(b Batch) {
				mu.Lock()
				defer mu.Unlock()
				batches = append(batches, b.Records)
			})
			before := checkpoints(t, r)
			held, release := make(chan struct{}), make(chan struct{})
			var all sync.WaitGroup
			all.Go(func() {
				err := r.Catalog.Update(context.Background(), func(*catalog.Tx) error { close(held); <-release; return nil })
				if err != nil {
					t.Error(err)
				}
			})
			<-held
			first := uploads("first-", 1)[0]
			all.Go(func() {
				if _, err := w.publish(r, first); err != nil {
					t.Error(err)
				}
			})
			within(t, "the first is being entered", func() bool { return r.enteringSince.Load() != 0 })
			all.Go(func() {
				_, errs := w.publishAll(r, uploads("together-", waiting))
				for _, err := range errs {
					if err != nil {
						t.Error(err)
					}
				}
			})
			within(t, "the others wait", func() bool { return len(r.queue) == waiting })
			close(release)
			all.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(batches, []int{1, waiting}) {
				t.Errorf("%d changes that waited together went in by batches of %v", waiting, batches)
			}
			if n := checkpoints(t, r) - before; n > 2 {
				t.Errorf("they were published by %d checkpoints", n)
			}
		})
	}
}

// checkpoints counts what r's log has signed.
func checkpoints(t *testing.T, r *Registry) (n int) {
	t.Helper()
	for _, err := range r.Blobs.List(t.Context(), "log/checkpoint/", "") {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// within waits a while for something to come true.
func within(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("it never came to this: %s", what)
			return
		}
	}
}
