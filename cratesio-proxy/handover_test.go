package cratesioproxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// unreadable blobs are stored, and cannot be opened.
type unreadable struct{ *blobs }

func (unreadable) Open(context.Context, storage.CID) (storage.Blob, error) {
	return nil, storage.ErrCorrupt
}

// sequential blobs are read by one at a time alone.
type sequential struct{ *blobs }

func (s sequential) Open(ctx context.Context, id storage.CID) (storage.Blob, error) {
	b, err := s.blobs.Open(ctx, id)
	return struct{ storage.Blob }{b}, err
}

// However slowly a crate is read that is stored by now, it takes no room that others need, and is
// what it is also where it is evicted meanwhile. What cannot be read from where it is stored is read
// from the spool.
func TestSlowReadersOfWhatIsStoredTakeNoSpool(t *testing.T) {
	const readers = 5
	for name, tt := range map[string]struct {
		blobs func(*blobs) storage.Blobs
		spool bool // they go on to read from there
	}{
		"handed over":         {func(b *blobs) storage.Blobs { return b }, false},
		"it cannot be opened": {func(b *blobs) storage.Blobs { return unreadable{b} }, true},
		"it is read by one":   {func(b *blobs) storage.Blobs { return sequential{b} }, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, func(c *Config) { c.Stall = 10 * time.Second; c.Blobs = tt.blobs(c.Blobs.(*blobs)) })
			data, want := crate("some", 300_000)
			gate := make(chan struct{})
			l.on(dlPath(want), func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", strconv.Itoa(len(data)))
				w.Write(data[:200_000])
				w.(http.Flusher).Flush()
				<-gate
				w.Write(data[200_000:])
			})
			all := map[string]io.ReadCloser{}
			began := map[string][]byte{}
			for i := range readers {
				c, err := l.upstream.Crate(t.Context(), want)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				select {
				case <-c.Arrived():
					t.Error("all of it is said to be here")
				default:
				}
				some := make([]byte, 1000*(i+1))
				if _, err := io.ReadFull(c, some); err != nil {
					t.Fatal(err)
				}
				name := fmt.Sprint("reader ", i)
				all[name], began[name] = c, some
				if i == readers-1 {
					close(gate)
					<-c.Arrived()
					whole, err := c.Whole(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					defer whole.Close()
					all["whole"] = whole
				}
			}
			until(t, "it is stored", func() bool { return l.blobs.has(want.ID) && l.proxy.Figures().Receiving == 0 })
			if !tt.spool {
				until(t, "the spool is free again", func() bool { return l.upstream.spool.used() == 0 })
				l.blobs.mu.Lock()
				delete(l.blobs.held, want.ID) // evicted
				l.blobs.mu.Unlock()
			}
			for name, r := range all {
				rest, err := io.ReadAll(r)
				if got := append(began[name], rest...); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s has %d bytes, %v", name, len(got), err)
				}
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			}
			if used := l.upstream.spool.used(); used != 0 {
				t.Errorf("%d bytes of spool are in use in the end", used)
			}
		})
	}
}
