package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/disk"
)

// storedBlobs is a store with blobs of size bytes each.
func storedBlobs(t *testing.T, n, size int) (storage.Blobs, string, []storage.CID) {
	t.Helper()
	folder := t.TempDir()
	store, err := disk.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	var ids []storage.CID
	for i := range n {
		raw := bytes.Repeat([]byte{byte(i)}, size)
		ids = append(ids, storage.CIDOf(raw))
		if err := store.Put(t.Context(), ids[i], int64(size), bytes.NewReader(raw)); err != nil {
			t.Fatal(err)
		}
	}
	return store, folder, ids
}

// pathOf is where a blob lies.
func pathOf(t *testing.T, folder string, id storage.CID) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(folder, "blobs", "*", id.String()))
	if err != nil || len(found) != 1 {
		t.Fatalf("%v %v", found, err)
	}
	return found[0]
}

func wholeBlob(t *testing.T, c *blobCache, blobs storage.Blobs, id storage.CID) error {
	t.Helper()
	b, err := c.open(t.Context(), blobs, id)
	if err != nil {
		return err
	}
	defer b.Close()
	raw, err := io.ReadAll(b)
	if err != nil {
		return err
	}
	if storage.CIDOf(raw) != id || b.Size() != int64(len(raw)) {
		t.Errorf("%d bytes of %s are others", len(raw), id)
	}
	return nil
}

// Whatever happens to the files below a running server, what it serves hashes
// to its name: from memory it is what was verified, from a damaged file nothing.
func TestFilesAlteredUnderTheCacheAreNeverServed(t *testing.T) {
	const size = 1000
	store, folder, ids := storedBlobs(t, 3, size)
	c := newBlobCache(4 * size)
	if err := wholeBlob(t, c, store, ids[0]); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		path := pathOf(t, folder, id)
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		raw[size/2] ^= 1
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := wholeBlob(t, c, store, ids[0]); err != nil {
		t.Errorf("what is in memory is right still: %v", err)
	}
	for range 2 { // a failure is not remembered as anything else
		for _, id := range ids[1:] {
			if err := wholeBlob(t, c, store, id); !errors.Is(err, storage.ErrCorrupt) {
				t.Errorf("a damaged file: %v", err)
			}
		}
	}
	if c.bytes != size {
		t.Errorf("%d bytes are held for one blob of %d", c.bytes, size)
	}
	c.mu.Lock()
	c.makeRoom(4 * size)
	c.mu.Unlock()
	if err := wholeBlob(t, c, store, ids[0]); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("once it has left memory the damage shows: %v", err)
	}
}

// Open blobs count: however many clients read slowly, memory is bounded, and
// who finds no room is served from the store.
func TestBlobsInUseMakeNoRoom(t *testing.T) {
	const size, limit = 1000, 4000
	store, _, ids := storedBlobs(t, 10, size)
	c := newBlobCache(limit)
	var open []storage.Blob
	for _, id := range ids {
		b, err := c.open(t.Context(), store, id)
		if err != nil {
			t.Fatal(err)
		}
		if _, inMemory := b.(*memoryBlob); inMemory != (len(open) < limit/size) {
			t.Errorf("blob %d is in memory: %v", len(open), inMemory)
		}
		open = append(open, b)
		if c.bytes > limit {
			t.Fatalf("%d bytes of %d", c.bytes, limit)
		}
	}
	for i, b := range open {
		raw, err := io.ReadAll(b)
		if err != nil || storage.CIDOf(raw) != ids[i] {
			t.Errorf("blob %d: %v", i, err)
		}
		b.Close()
		b.Close() // harmless
	}
	if err := wholeBlob(t, c, store, ids[9]); err != nil || c.at[ids[9]] == nil {
		t.Errorf("what was closed makes room: %v", err)
	}
}

func TestLargeBlobsAreNotHeld(t *testing.T) {
	store, _, ids := storedBlobs(t, 1, 1001)
	c := newBlobCache(4000)
	if err := wholeBlob(t, c, store, ids[0]); err != nil || c.bytes != 0 {
		t.Errorf("%d bytes, %v", c.bytes, err)
	}
	if _, err := c.open(t.Context(), store, storage.CIDOf([]byte("nothing"))); !errors.Is(err, storage.ErrNotFound) {
		t.Error(err)
	}
}

// countedOpens counts how often a store's blobs are opened.
type countedOpens struct {
	storage.Blobs
	mu sync.Mutex
	n  int
}

func (s *countedOpens) Open(ctx context.Context, id storage.CID) (storage.Blob, error) {
	s.mu.Lock()
	s.n++
	s.mu.Unlock()
	return s.Blobs.Open(ctx, id)
}

func TestManyReadersShareBlobs(t *testing.T) {
	store, _, ids := storedBlobs(t, 8, 1000)
	counted := &countedOpens{Blobs: store}
	c := newBlobCache(8000)
	var readers sync.WaitGroup
	for i := range 16 {
		readers.Go(func() {
			for j := range 50 {
				if err := wholeBlob(t, c, counted, ids[(i+j)%len(ids)]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	readers.Wait()
	if counted.n != len(ids) {
		t.Errorf("%d blobs were opened %d times", len(ids), counted.n)
	}
	for _, e := range c.at {
		if users := e.Value.(*heldBlob).users; users != 0 {
			t.Errorf("%d uses are left", users)
		}
	}
}
