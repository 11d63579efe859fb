package registry

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"phoenix-lab.org/aln-registry/storage"
)

// weighedBlobs notes how much memory is in use whenever one of some blobs is opened.
type weighedBlobs struct {
	storage.Blobs
	mu      sync.Mutex
	weighed map[storage.CID]bool
	most    uint64
	opened  int
}

// Open implements storage.Blobs.
func (b *weighedBlobs) Open(ctx context.Context, id storage.CID) (storage.Blob, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.weighed[id] {
		b.opened++
		b.most = max(b.most, liveBytes())
	}
	return b.Blobs.Open(ctx, id)
}

func liveBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A crate of which a large index file was entered again and again is replayed with few of those
// in memory, however many there are.
func TestARebuildKeepsFewIndexFilesInMemory(t *testing.T) {
	const files, size, allowed = 60, 1 << 20, 24 << 20
	c := newCourt(t)
	weighed := map[storage.CID]bool{}
	file := ""
	for n := range files {
		file += seenLine("grows", fmt.Sprintf("1.%d.0", n), strings.Repeat("y", 700))
		snapshot := file + seenLine("grows", "0.1.0", strings.Repeat("x", size-files*1024))
		c.sees("grows", snapshot)
		weighed[storage.CIDOf([]byte(snapshot))] = true
	}
	digest, err := c.r.Catalog.StateDigest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.w.closeAll(c.r)
	w := c.w
	w.stores()
	defer w.close()
	w.config.Catalog = w.catalog("again.db")
	blobs := &weighedBlobs{Blobs: w.config.Blobs, weighed: weighed}
	w.config.Blobs = blobs
	before := liveBytes()
	if _, err := Rebuild(t.Context(), w.config, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d index files of %d bytes: %d MiB at most, and %d before", blobs.opened, size, blobs.most>>20, before>>20)
	if blobs.opened < files || blobs.most > before+allowed {
		t.Errorf("%d were opened; %d MiB were in memory, and %d before; %d MiB more are allowed", blobs.opened, blobs.most>>20, before>>20, allowed>>20)
	}
	if again, err := w.config.Catalog.StateDigest(t.Context()); err != nil || again != digest {
		t.Errorf("another state: %v", err)
	}
}
