package registry

import (
	"bytes"
	"container/list"
	"context"
	"io"
	"sync"

	"phoenix-lab.org/aln-registry/storage"
)

// blobCache keeps small blobs in memory, verified when they were read: what is
// served from here is not hashed again, and is right whatever becomes of the
// disk. Its bound holds for all that is in use: a blob that slow clients still
// read makes no room, and where there is none, blobs are read from the store,
// hashed at each opening.
type blobCache struct {
	mu     sync.Mutex
	limit  int64
	bytes  int64 // held or being read in
	at     map[storage.CID]*list.Element
	order  *list.List // of *heldBlob, the last used first
	counts Stats
}

// heldBlob is a blob in memory, in use by users.
type heldBlob struct {
	id    storage.CID
	bytes []byte
	users int
	// ready is closed when bytes are there or err says why not.
	ready chan struct{}
	err   error
}

// largestBlobShare: a blob of more than this part of the cache is not kept in it.
const largestBlobShare = 4

func newBlobCache(limit int64) *blobCache {
	return &blobCache{limit: limit, at: map[storage.CID]*list.Element{}, order: list.New()}
}

// open returns the blob id, from memory where it is or may be.
func (c *blobCache) open(ctx context.Context, blobs storage.Blobs, id storage.CID) (storage.Blob, error) {
	if h := c.hold(id); h != nil {
		return c.opened(ctx, h)
	}
	size, err := blobs.Stat(ctx, id)
	if err != nil {
		return nil, err
	}
	h, first := c.reserve(id, size)
	switch {
	case h == nil:
		return blobs.Open(ctx, id)
	case first:
		c.fill(ctx, blobs, h, size)
	}
	return c.opened(ctx, h)
}

// cached returns the blob id where it is in memory or on its way there, else nil.
func (c *blobCache) cached(ctx context.Context, id storage.CID) (storage.Blob, error) {
	h := c.hold(id)
	if h == nil {
		return nil, nil
	}
	return c.opened(ctx, h)
}

// hold takes a use of id, nil when it is not here.
func (c *blobCache) hold(id storage.CID) *heldBlob {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.at[id]
	if !ok {
		return nil
	}
	c.counts.CacheHits++
	c.order.MoveToFront(e)
	h := e.Value.(*heldBlob)
	h.users++
	return h
}

// reserve makes room for size bytes and takes a use of them, nil where there is
// no room; first is true for the one who has to read them in.
func (c *blobCache) reserve(id storage.CID, size int64) (h *heldBlob, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.at[id]; ok { // another was faster
		c.counts.CacheHits++
		h := e.Value.(*heldBlob)
		h.users++
		return h, false
	}
	c.counts.CacheMisses++
	if size > c.limit/largestBlobShare || !c.makeRoom(size) {
		return nil, false
	}
	h = &heldBlob{id: id, bytes: make([]byte, size), users: 1, ready: make(chan struct{})}
	c.at[id] = c.order.PushFront(h)
	c.bytes += size
	return h, true
}

// makeRoom evicts what nobody uses, the longest unused first, if that suffices.
func (c *blobCache) makeRoom(size int64) bool {
	idle := int64(0)
	for e := c.order.Back(); e != nil && c.bytes-idle+size > c.limit; e = e.Prev() {
		if h := e.Value.(*heldBlob); h.users == 0 {
			idle += int64(len(h.bytes))
		}
	}
	if c.bytes-idle+size > c.limit {
		return false
	}
	for e := c.order.Back(); c.bytes+size > c.limit; {
		previous := e.Prev()
		if h := e.Value.(*heldBlob); h.users == 0 {
			c.drop(h)
			c.counts.CacheEvictions++
		}
		e = previous
	}
	return true
}

func (c *blobCache) drop(h *heldBlob) {
	c.order.Remove(c.at[h.id])
	delete(c.at, h.id)
	c.bytes -= int64(len(h.bytes))
}

// fill reads h in from the store, which verifies it, whatever becomes of ctx:
// others wait for it.
func (c *blobCache) fill(ctx context.Context, blobs storage.Blobs, h *heldBlob, size int64) {
	h.err = ErrUnavailable // a panic's, whose cause its own caller reports
	defer c.filled(h)
	blob, err := blobs.Open(context.WithoutCancel(ctx), h.id)
	if err != nil {
		h.err = err
		return
	}
	defer blob.Close()
	if blob.Size() != size { // replaced since Stat: whoever asks again gets it
		return
	}
	if _, h.err = io.ReadFull(blob, h.bytes); h.err != nil {
		return
	}
	// The file was verified when it was opened; it may have been written to since.
	if storage.CIDOf(h.bytes) != h.id {
		h.err = storage.ErrCorrupt
	}
}

// filled tells who waits for h. What could not be read in is not kept.
func (c *blobCache) filled(h *heldBlob) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.err != nil {
		c.drop(h)
	}
	close(h.ready)
}

// opened waits for h's bytes, on the strength of a use that it takes over.
func (c *blobCache) opened(ctx context.Context, h *heldBlob) (storage.Blob, error) {
	var err error
	select {
	case <-h.ready:
		err = h.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		c.release(h)
		return nil, err
	}
	return &memoryBlob{Reader: bytes.NewReader(h.bytes), cache: c, held: h}, nil
}

// release gives up a use.
func (c *blobCache) release(h *heldBlob) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h.users--
}

func (c *blobCache) stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.counts
	s.CacheEntries, s.CacheBytes, s.CacheLimit = len(c.at), c.bytes, c.limit
	return s
}

// memoryBlob is an open blob in memory.
type memoryBlob struct {
	*bytes.Reader
	cache  *blobCache
	held   *heldBlob
	closed sync.Once
}

// Bytes are all of it; nobody changes them, and nobody uses them after Close.
func (b *memoryBlob) Bytes() []byte { return b.held.bytes }

// Close implements storage.Blob.
func (b *memoryBlob) Close() error {
	b.closed.Do(func() { b.cache.release(b.held) })
	return nil
}
