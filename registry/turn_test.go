package registry

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/storage"
)

// gatedBlobs hold whoever opens a large one, while there is a gate.
type gatedBlobs struct {
	storage.Blobs
	gate atomic.Pointer[chan struct{}]
	now  atomic.Int64
}

func (b *gatedBlobs) Open(ctx context.Context, id storage.CID) (storage.Blob, error) {
	size, err := b.Stat(ctx, id)
	if gate := b.gate.Load(); err == nil && gate != nil && size > largeFile {
		b.now.Add(1)
		<-*gate
	}
	return b.Blobs.Open(ctx, id)
}

// However many large index files are asked for at once, few of them are in memory to be put
// together; small ones do not wait for that.
func TestLargeIndexFilesAreReadFewAtATime(t *testing.T) {
	blobs := &gatedBlobs{}
	c := newCourt(t, func(config *Config) { blobs.Blobs, config.Blobs = config.Blobs, blobs })
	const all = 5
	name := func(i int) string { return fmt.Sprintf("large%d", i) }
	lines := func(i int) string { return thereLine(name(i), "1.0.0", name(i), notYankedThere) }
	for i := range all {
		c.imported(name(i), lines(i)+strings.Repeat("\n", freshBytes/largestShare)) // too large to be kept from the import on
	}
	small := thereLine("small", "1.0.0", "small", notYankedThere)
	c.imported("small", small)
	gate := make(chan struct{})
	blobs.gate.Store(&gate)
	got := make(chan error, all)
	for i := range all {
		go func() {
			file, err := c.r.UpstreamIndexFile(t.Context(), reader, cratesIO, name(i), nil)
			if err == nil && string(file.Plain.Bytes) != lines(i) {
				err = fmt.Errorf("%s is not what it was", name(i))
			}
			got <- err
		}()
	}
	eventually(t, 10*time.Second, func() error {
		if n := blobs.now.Load(); n < mostLargeFiles {
			return fmt.Errorf("%d are read", n)
		}
		return nil
	})
	if c.there(reader, "small") != small {
		t.Error("a small one is another")
	}
	time.Sleep(50 * time.Millisecond) // in which more would come
	if n := blobs.now.Load(); n != mostLargeFiles {
		t.Errorf("%d large index files are read at a time, want %d", n, mostLargeFiles)
	}
	close(gate)
	for range all {
		if err := <-got; err != nil {
			t.Error(err)
		}
	}
	if len(c.r.large) != 0 {
		t.Errorf("%d places are not given back", len(c.r.large))
	}
}

// A view of a large index file is cut and packed when there is a place for that.
func TestViewsOfLargeIndexFilesWaitForTheirTurn(t *testing.T) {
	c := newCourt(t)
	var file, yanked strings.Builder
	for i := range 6 {
		version, more := fmt.Sprintf("1.0.%d", i), `,"more":"`+strings.Repeat("y", 200<<10)+`"`
		file.WriteString(thereLine("long", version, version, more+notYankedThere))
		yanked.WriteString(thereLine("long", version, version, more+yankedThere))
	}
	c.imported("long", file.String())
	if known, ok, err := c.r.UpstreamCrate(t.Context(), cratesIO, "long"); err != nil || !ok || known.Versions != 6 {
		t.Errorf("%+v, %v", known, err)
	}
	if c.there(reader, "long") != file.String() {
		t.Fatal("it is not what it was")
	}
	host := c.member(particle.TierGuest)
	c.grant(c.admin, host, func(g *particle.EnvGrant) { g.AllowedCrates = []string{storage.CIDOf([]byte("none")).Hex()} })
	asker := c.asker(host, "read", "")
	for range mostLargeFiles {
		c.r.large <- struct{}{}
	}
	got := make(chan string, 1)
	go func() {
		file, err := c.r.UpstreamIndexFile(t.Context(), asker, cratesIO, "long", nil)
		if err != nil {
			got <- err.Error()
			return
		}
		got <- string(file.Plain.Bytes)
	}()
	select {
	case <-got:
		t.Fatal("it does not wait")
	case <-time.After(50 * time.Millisecond):
	}
	for range mostLargeFiles {
		<-c.r.large
	}
	if text := <-got; text != yanked.String() {
		t.Errorf("it is not the view: %.200s", text)
	}
	if len(c.r.large) != 0 {
		t.Error("its place is not given back")
	}
}
