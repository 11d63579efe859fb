package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// shelf is a store of a few large blobs that may be made to hold its answers back.
type shelf struct {
	*Store
	blobs map[string][]byte // by path
	gets  atomic.Int32
	gone  atomic.Int32 // answers that nobody wanted any more
	hold  chan struct{}
}

func newShelf(t *testing.T, limit int64, blobs ...[]byte) *shelf {
	t.Helper()
	h := &shelf{blobs: map[string][]byte{}, hold: make(chan struct{})}
	h.Store = played(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		h.gets.Add(1)
		data := h.blobs[r.URL.Path]
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data[:1])
		w.(http.Flusher).Flush()
		select {
		case <-h.hold:
			w.Write(data[1:])
		case <-r.Context().Done():
			h.gone.Add(1)
		}
	})
	h.shared = newShared(h.folder, limit)
	for _, data := range blobs {
		h.blobs["/bucket/"+h.blobKey(storage.CIDOf(data))] = data
	}
	return h
}

// large is a blob that goes to a file.
func large(i int) []byte { return bytes.Repeat([]byte{byte('a' + i)}, 2<<20) }

// users waits until so many use id.
func (h *shelf) users(id storage.CID, want int) {
	for {
		h.shared.mu.Lock()
		c, n := h.shared.at[id], 0
		if c != nil {
			n = c.users
		}
		h.shared.mu.Unlock()
		if n == want {
			return
		}
		runtime.Gosched()
	}
}

// opened is what one Open came to.
type opened struct {
	blob storage.Blob
	err  error
}

func (h *shelf) open(ctx context.Context, id storage.CID) <-chan opened {
	done := make(chan opened, 1)
	go func() {
		blob, err := h.Open(ctx, id)
		done <- opened{blob, err}
	}()
	return done
}

// isEmpty: nothing is left of what was open, but what is kept.
func (h *shelf) isEmpty(t *testing.T) {
	t.Helper()
	h.shared.close()
	h.shared.mu.Lock()
	defer h.shared.mu.Unlock()
	if len(h.shared.at) != 0 || h.shared.taken != 0 || h.shared.kept != 0 {
		t.Errorf("%d blobs are left, %d bytes, %d of them kept", len(h.shared.at), h.shared.taken, h.shared.kept)
	}
	if left, err := os.ReadDir(h.folder); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
}

func files(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range names {
		if to, err := os.Readlink("/proc/self/fd/" + name.Name()); err == nil && strings.Contains(to, "(deleted)") {
			n++
		}
	}
	return n
}

func TestManyWhoOpenABlobDownloadItOnce(t *testing.T) {
	before := files(t)
	data := large(0)
	id := storage.CIDOf(data)
	h := newShelf(t, 0, data)
	var all []<-chan opened
	for range 20 {
		all = append(all, h.open(t.Context(), id))
	}
	h.users(id, 20)
	close(h.hold)
	var group sync.WaitGroup
	for _, one := range all {
		group.Go(func() {
			o := <-one
			if o.err != nil {
				t.Error(o.err)
				return
			}
			defer o.blob.Close()
			defer o.blob.Close() // gives up its own use only
			if got, err := io.ReadAll(o.blob); err != nil || !bytes.Equal(got, data) || o.blob.Size() != int64(len(data)) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	group.Wait()
	for range 3 { // as requests for ranges come, one after the other
		if got, err := read(t, h.Store, id); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	if n := h.gets.Load(); n != 1 {
		t.Errorf("%d downloads, want 1", n)
	}
	h.isEmpty(t)
	if after := files(t); after != before {
		t.Errorf("%d files without a name are open, there were %d", after, before)
	}
}

func TestWhoGoesAwayTakesNobodysDownload(t *testing.T) {
	data := large(0)
	id := storage.CIDOf(data)
	h := newShelf(t, 0, data)
	ctx, cancel := context.WithCancel(t.Context())
	first := h.open(ctx, id)
	h.users(id, 1)
	second := h.open(t.Context(), id)
	h.users(id, 2)
	cancel()
	if o := <-first; !errors.Is(o.err, context.Canceled) {
		t.Errorf("who has gone: error %v", o.err)
	}
	close(h.hold)
	o := <-second
	if o.err != nil {
		t.Fatal(o.err)
	}
	if got, err := io.ReadAll(o.blob); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	o.blob.Close()
	if n := h.gets.Load(); n != 1 {
		t.Errorf("%d downloads, want 1", n)
	}
	h.isEmpty(t)
}

func TestADownloadThatNobodyWaitsForEnds(t *testing.T) {
	data := large(0)
	id := storage.CIDOf(data)
	h := newShelf(t, 0, data)
	ctx, cancel := context.WithCancel(t.Context())
	var all []<-chan opened
	for i := range 3 {
		all = append(all, h.open(ctx, id))
		h.users(id, i+1)
	}
	for h.gets.Load() == 0 {
		runtime.Gosched()
	}
	cancel()
	for _, one := range all {
		if o := <-one; !errors.Is(o.err, context.Canceled) {
			t.Errorf("error %v", o.err)
		}
	}
	for h.gone.Load() == 0 || h.used() != 0 {
		runtime.Gosched()
	}
	close(h.hold)
	if got, err := read(t, h.Store, id); err != nil || !bytes.Equal(got, data) { // a new one, not the cancelled one
		t.Errorf("%d bytes, %v", len(got), err)
	}
	h.isEmpty(t)
}

func (h *shelf) used() int64 {
	h.shared.mu.Lock()
	defer h.shared.mu.Unlock()
	return h.shared.taken
}

func TestACorruptBlobFailsAllWhoWait(t *testing.T) {
	data := large(0)
	id := storage.CIDOf([]byte("others"))
	h := newShelf(t, 0, data)
	h.blobs["/bucket/"+h.blobKey(id)] = data
	var all []<-chan opened
	for range 5 {
		all = append(all, h.open(t.Context(), id))
	}
	h.users(id, 5)
	close(h.hold)
	for _, one := range all {
		if o := <-one; !errors.Is(o.err, storage.ErrCorrupt) || o.blob != nil {
			t.Errorf("error %v, want ErrCorrupt", o.err)
		}
	}
	if n := h.gets.Load(); n != mostAlike {
		t.Errorf("%d downloads, want %d", n, mostAlike)
	}
	h.isEmpty(t)
}

// Slow readers take no more than the bound: others wait for them, in vain are told
// to come again, and get all of it in the end.
func TestOpenBlobsStayWithinTheirBound(t *testing.T) {
	var blobs [][]byte
	for i := range 6 {
		blobs = append(blobs, large(i))
	}
	const limit = 5 << 20 // two and a half of them
	h := newShelf(t, limit, blobs...)
	close(h.hold)
	var slow []storage.Blob
	for _, data := range blobs[:2] {
		blob, err := h.Open(t.Context(), storage.CIDOf(data))
		if err != nil {
			t.Fatal(err)
		}
		slow = append(slow, blob)
	}
	h.patience = 100 * time.Millisecond
	if _, err := h.Open(t.Context(), storage.CIDOf(blobs[2])); !unavailable(err) || !errors.Is(err, storage.ErrNoRoom) || !errors.Is(err, errNoRoom) || errors.Is(err, storage.ErrFull) {
		t.Errorf("without room: error %v, want ErrUnavailable", err)
	}
	h.patience = time.Minute
	var group sync.WaitGroup
	for i := range 24 {
		group.Go(func() {
			data := blobs[i%len(blobs)]
			blob, err := h.Open(t.Context(), storage.CIDOf(data))
			if err != nil {
				t.Error(err)
				return
			}
			defer blob.Close()
			if used := h.used(); used > limit {
				t.Errorf("%d bytes are taken of %d", used, limit)
			}
			if got, err := io.ReadAll(blob); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	for i, blob := range slow {
		if got, err := io.ReadAll(blob); err != nil || !bytes.Equal(got, blobs[i]) {
			t.Errorf("a slow reader: %d bytes, %v", len(got), err)
		}
		blob.Close()
	}
	group.Wait()
	h.isEmpty(t)
}

// A blob of more than the bound is read when nothing else is.
func TestABlobLargerThanTheBoundIsReadAlone(t *testing.T) {
	blobs := [][]byte{large(0), append(large(1), large(1)...)}
	h := newShelf(t, 3<<20, blobs...)
	close(h.hold)
	first, err := h.Open(t.Context(), storage.CIDOf(blobs[0]))
	if err != nil {
		t.Fatal(err)
	}
	second := h.open(t.Context(), storage.CIDOf(blobs[1]))
	first.Close()
	o := <-second
	if o.err != nil {
		t.Fatal(o.err)
	}
	o.blob.Close()
	h.isEmpty(t)
}

// What is kept for a moment goes when it is removed, and when its time is over.
func TestWhatIsKeptGoes(t *testing.T) {
	data := large(0)
	id := storage.CIDOf(data)
	h := newShelf(t, 0, data)
	close(h.hold)
	for range 2 {
		if _, err := read(t, h.Store, id); err != nil {
			t.Fatal(err)
		}
		if h.used() != int64(len(data)) {
			t.Errorf("%d bytes are kept, want %d", h.used(), len(data))
		}
		if err := h.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if n := h.gets.Load(); n != 2 {
		t.Errorf("%d downloads, want 2", n)
	}
	if _, err := read(t, h.Store, id); err != nil {
		t.Fatal(err)
	}
	h.shared.expire(h.shared.at[id])
	h.isEmpty(t)
}
