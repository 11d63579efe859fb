package s3

import (
	lists "container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

const (
	// spoolBytes is how much of their folder open blobs take, where nobody says.
	spoolBytes = 4 << 30
	// keptShare: what nobody reads takes at most this part of that, and is there
	// for who comes back for another part of it within keptFor.
	keptShare = 4
	keptFor   = 20 * time.Second
)

// shared are the blobs that are being read, each downloaded once for all who read
// it at the same time. Their files take no more than limit bytes, but for a blob
// that is larger alone.
type shared struct {
	folder string
	limit  int64

	mu      sync.Mutex
	taken   int64 // bytes of files, there or to come
	kept    int64 // of them, what nobody reads
	at      map[storage.CID]*copied
	waiting *lists.List   // of *copied that nobody reads, the longest unread first
	freed   chan struct{} // closed when bytes are given back
}

// copied is a blob on this side, in use by users.
type copied struct {
	*spool
	in     *shared
	id     storage.CID
	cancel context.CancelFunc // of the download
	done   chan struct{}      // closed when size is known, or err says why not
	size   int64
	err    error

	// Under the mutex of in:
	users int
	room  int64 // bytes taken for the file
	lacks int64 // bytes that there was no room for
	kept  *lists.Element
	until *time.Timer
}

// errNoRoom: others' blobs take all the room for files.
var errNoRoom = errors.New("open blobs take all the room for temporary files")

func newShared(folder string, limit int64) *shared {
	if limit <= 0 {
		limit = spoolBytes
	}
	return &shared{folder: folder, limit: limit, at: map[storage.CID]*copied{}, waiting: lists.New(), freed: make(chan struct{})}
}

// Open implements storage.Blobs. The whole blob is downloaded and hashed first,
// into memory or a temporary file; who opens it meanwhile waits for that.
func (s *Store) Open(ctx context.Context, id storage.CID) (storage.Blob, error) {
	if id.IsZero() {
		return nil, fmt.Errorf("blob without a name: %w", storage.ErrNotFound)
	}
	err := ctx.Err()
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", id, err)
	}
	c := s.shared.join(ctx, id, s.fill)
	select {
	case <-c.done:
		err = c.err
	case <-ctx.Done():
		err = fmt.Errorf("blob %s: %w", id, ctx.Err())
	}
	if err != nil {
		s.shared.leave(c)
		return nil, err
	}
	return &blob{SectionReader: io.NewSectionReader(c.spool, 0, c.size), copied: c}, nil
}

// blob is a verified blob, open once.
type blob struct {
	*io.SectionReader
	copied *copied
	closed sync.Once
}

// Close implements storage.Blob.
func (b *blob) Close() error {
	b.closed.Do(func() { b.copied.in.leave(b.copied) })
	return nil
}

// join takes a use of id, which is downloaded for as long as anybody waits for it.
func (h *shared) join(ctx context.Context, id storage.CID, download func(context.Context, *copied) (int64, error)) *copied {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c, ok := h.at[id]; ok {
		c.users++
		h.unkeep(c)
		return c
	}
	c := &copied{spool: &spool{folder: h.folder}, in: h, id: id, done: make(chan struct{}), users: 1}
	ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	h.at[id] = c
	go func() {
		size, err := download(ctx, c)
		h.downloaded(c, size, err)
	}()
	return c
}

// downloaded tells who waits for c.
func (h *shared) downloaded(c *copied, size int64, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.cancel()
	if c.size, c.err = size, err; err != nil || c.users == 0 {
		h.drop(c)
	}
	close(c.done)
}

// leave gives up a use.
func (h *shared) leave(c *copied) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.users--; c.users > 0 {
		return
	}
	select {
	case <-c.done:
	default: // nobody joins what is cancelled
		c.cancel()
		h.forget(c)
		return
	}
	if c.err != nil {
		return // dropped already
	}
	if h.at[c.id] != c || c.room == 0 || h.kept+c.room > h.limit/keptShare {
		h.drop(c)
		return
	}
	h.kept += c.room
	c.kept = h.waiting.PushBack(c)
	c.until = time.AfterFunc(keptFor, func() { h.expire(c) })
}

// unkeep: somebody reads c again, or nobody will.
func (h *shared) unkeep(c *copied) {
	if c.kept == nil {
		return
	}
	c.until.Stop()
	h.waiting.Remove(c.kept)
	h.kept -= c.room
	c.kept = nil
}

// expire ends the time for which c was kept, if it still is.
func (h *shared) expire(c *copied) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.kept != nil {
		h.drop(c)
	}
}

// forget lets nobody join c any more.
func (h *shared) forget(c *copied) {
	if h.at[c.id] == c {
		delete(h.at, c.id)
	}
}

// drop gives back what c takes.
func (h *shared) drop(c *copied) {
	h.unkeep(c)
	h.forget(c)
	c.free()
	if h.taken -= c.room; c.room > 0 {
		close(h.freed)
		h.freed = make(chan struct{})
	}
	c.room = 0
}

// remove forgets the blob id, which is no longer what is stored.
func (h *shared) remove(id storage.CID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c, ok := h.at[id]; ok {
		if h.forget(c); c.kept != nil {
			h.drop(c)
		}
	}
}

// close drops what nobody reads.
func (h *shared) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.waiting.Len() > 0 {
		h.drop(h.waiting.Front().Value.(*copied))
	}
}

// take takes room for what c lacks, from what nobody reads if need be. Where there
// is none, more is closed when it is worth asking again.
func (h *shared) take(c *copied) (ok bool, more <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.taken+c.lacks > h.limit && h.waiting.Len() > 0 {
		h.drop(h.waiting.Front().Value.(*copied))
	}
	if others := h.taken - c.room; others > 0 && h.taken+c.lacks > h.limit {
		return false, h.freed
	}
	h.taken += c.lacks
	c.room += c.lacks
	c.lacks = 0
	return true, nil
}

// expect implements sink: of a blob of size bytes nothing is written before there
// is room for all of it.
func (c *copied) expect(size int64) error {
	if size <= inMemory || size <= c.room {
		return nil
	}
	c.lacks = size - c.room
	if ok, _ := c.in.take(c); !ok {
		return settled{errNoRoom}
	}
	return nil
}

// fill downloads the blob c, and waits for room where there is none: for as long
// as the store's patience, without a connection.
func (s *Store) fill(ctx context.Context, c *copied) (size int64, err error) {
	patience := time.NewTimer(s.patience)
	defer patience.Stop()
	for {
		size, err = s.fetch(ctx, c.id, c)
		if !errors.Is(err, errNoRoom) {
			break
		}
		if err = errors.Join(c.reset(), s.shared.wait(ctx, c, patience.C)); err != nil {
			break
		}
	}
	if err == nil || !errors.Is(err, storage.ErrFull) {
		return size, err
	}
	// The blob is well, and nothing was to be stored: others' files take the disk.
	return 0, fmt.Errorf("blob %s: %w: %v", c.id, storage.ErrNoRoom, err)
}

// wait takes room for c as soon as there is some.
func (h *shared) wait(ctx context.Context, c *copied, patience <-chan time.Time) error {
	for {
		ok, more := h.take(c)
		if ok {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("blob %s: %w", c.id, ctx.Err())
		case <-patience:
			return fmt.Errorf("blob %s: %w: %w", c.id, storage.ErrNoRoom, errNoRoom)
		}
	}
}
