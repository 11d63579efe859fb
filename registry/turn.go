package registry

import (
	"context"
	"fmt"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
)

// Index files beyond largeFile bytes are put together, cut to a view and packed mostLargeFiles
// at a time: each takes several times its size, and any member may ask for many at once.
const (
	largeFile      = 1 << 20
	mostLargeFiles = 2
	turnTime       = 20 * time.Second // that a turn is waited for
)

// turn is a place among of, taken once what it is for has become large. It is for one goroutine.
type turn struct {
	of    chan struct{}
	bytes int64
	has   bool
}

// wait counts so many bytes more, and waits for a place where they are large in all.
func (t *turn) wait(ctx context.Context, bytes int64) error {
	t.bytes += bytes
	if t.has || t.bytes <= largeFile {
		return nil
	}
	patience := time.NewTimer(turnTime)
	defer patience.Stop()
	select {
	case t.of <- struct{}{}:
		t.has = true
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-patience.C:
		return fmt.Errorf("%w: too many large index files are being read", ErrUnavailable)
	}
}

// end gives the place back.
func (t *turn) end() {
	if t.has {
		<-t.of
		t.has = false
	}
}

// textBytes is how much text lines make at most.
func textBytes(lines map[int]cargo.UpstreamLine) int {
	n := 0
	for _, l := range lines {
		n += len(l.Raw) + len(sayYanked) + 1
	}
	return n
}
