package registry

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
)

// heldCheckpoints keep who stores a checkpoint waiting, while there is a gate.
type heldCheckpoints struct {
	storage.Blobs
	gate    atomic.Pointer[chan struct{}]
	waiting chan struct{}
}

func (b *heldCheckpoints) Create(ctx context.Context, key string, data []byte) error {
	if gate := b.gate.Load(); gate != nil && strings.HasPrefix(key, translog.CheckpointPrefix) {
		b.waiting <- struct{}{}
		<-*gate
	}
	return b.Blobs.Create(ctx, key, data)
}

// What is entered is not shown before it is published: neither a crate that was not known, nor
// a version more of one that was.
func TestAnImportIsNotSeenBeforeItIsPublished(t *testing.T) {
	blobs := &heldCheckpoints{waiting: make(chan struct{}, 1)}
	c := newCourt(t, func(config *Config) { blobs.Blobs, config.Blobs = config.Blobs, blobs })
	before := thereLine("old", "1.0.0", "a", notYankedThere)
	c.imported("old", before)
	for name, file := range map[string]string{"fresh": thereLine("fresh", "1.0.0", "b", notYankedThere), "old": before + thereLine("old", "1.1.0", "c", notYankedThere)} {
		was, size := c.there(reader, name), c.r.Size()
		gate := make(chan struct{})
		blobs.gate.Store(&gate)
		done := make(chan error, 1)
		go func() {
			_, err := c.r.Import(context.Background(), cratesIO, name, []byte(file))
			done <- err
		}()
		<-blobs.waiting
		if head, err := c.r.Catalog.Head(t.Context()); err != nil || head != size+1 {
			t.Errorf("%s: it is not entered yet: %d entries, %v", name, head, err)
		}
		if got := c.there(reader, name); got != was || c.r.Size() != size {
			t.Errorf("%s is shown before it is published:\n%s", name, got)
		}
		select {
		case err := <-done:
			t.Errorf("%s is told before it is published: %v", name, err)
		default:
		}
		blobs.gate.Store(nil)
		close(gate)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		c.imported(name, file) // again, which notes that its crates were looked into
		if got := c.there(reader, name); got != file {
			t.Errorf("%s is not shown once it is published:\n%s", name, got)
		}
	}
}
