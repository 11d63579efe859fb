package blobtest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// inParallel runs f n times, sixteen at once, and returns their errors.
func inParallel(n int, f func(i int) error) []error {
	failures := make([]error, n)
	var group sync.WaitGroup
	for worker := range 16 {
		group.Go(func() {
			for i := worker; i < n; i += 16 {
				failures[i] = f(i)
			}
		})
	}
	group.Wait()
	return failures
}

func testLongList(t *testing.T, store storage.Blobs) {
	const count = 1100 // S3 lists at most a thousand at once
	keys := make([]string, count)
	for i := range keys {
		keys[i] = fmt.Sprintf("log/entry/%016d", i)
	}
	failures := inParallel(count, func(i int) error { return store.Create(t.Context(), keys[i], []byte(keys[i])) })
	if err := errors.Join(failures...); err != nil {
		t.Fatal(err)
	}
	if got := list(t, store, "log/entry/", ""); !slices.Equal(got, keys) {
		t.Errorf("List: %d keys, want %d in order", len(got), count)
	}
	for _, i := range []int{0, 999, 1000, count - 2, count - 1} {
		if got := list(t, store, "log/entry/", keys[i]); !slices.Equal(got, keys[i+1:]) {
			t.Errorf("List after key %d: %d keys, want %d", i, len(got), count-i-1)
		}
	}
}

// testMemory stores and opens a blob that is far larger than what may be taken
// of memory meanwhile.
func testMemory(t *testing.T, store storage.Blobs) {
	const (
		size = 96 << 20
		most = 24 << 20
	)
	h := sha256.New()
	if _, err := io.Copy(h, newSource(size)); err != nil {
		t.Fatal(err)
	}
	id := storage.CIDFromDigest([sha256.Size]byte(h.Sum(nil)))
	taken := watchMemory(func() {
		if err := store.Put(t.Context(), id, size, newSource(size)); err != nil {
			t.Fatalf("Put: %v", err)
		}
	})
	if taken > most {
		t.Errorf("Put of %d bytes took %d of memory", size, taken)
	}
	taken = watchMemory(func() {
		blob, err := store.Open(t.Context(), id)
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		defer blob.Close()
		h.Reset()
		if _, err := io.Copy(h, blob); err != nil || [sha256.Size]byte(h.Sum(nil)) != id.Digest() {
			t.Errorf("read: %v, the bytes hash to %x", err, h.Sum(nil))
		}
	})
	if taken > most {
		t.Errorf("Open of %d bytes took %d of memory", size, taken)
	}
}

// watchMemory is how much larger than before the heap was at most during f.
func watchMemory(f func()) uint64 {
	runtime.GC()
	before := heap()
	done, most := make(chan struct{}), make(chan uint64)
	go func() {
		highest := before
		for {
			select {
			case <-done:
				most <- highest - before
				return
			case <-time.After(5 * time.Millisecond):
				highest = max(highest, heap())
			}
		}
	}()
	defer func() { // also where f ends the test
		select {
		case <-done:
		default:
			close(done)
			<-most
		}
	}()
	f()
	close(done)
	return <-most
}

func heap() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
