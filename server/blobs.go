package server

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// Blobs returns b, whose operations are counted from now on.
func (m *Metrics) Blobs(b storage.Blobs) storage.Blobs { return countedBlobs{b, m} }

// countedBlobs promises what the store behind it does; what it opens is the
// store's own, so that files stay files.
type countedBlobs struct {
	storage.Blobs
	metrics *Metrics
}

// done counts an operation that began at start. What is not there, and what is
// there already, are answers and no failures.
func (c countedBlobs) done(operation string, start time.Time, err error) {
	outcome := "ok"
	switch {
	case err == nil:
	case errors.Is(err, storage.ErrNotFound):
		outcome = "missing"
	case errors.Is(err, storage.ErrExists):
		outcome = "exists"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		outcome = "canceled"
	case errors.Is(err, storage.ErrCorrupt):
		outcome = "corrupt"
	case errors.Is(err, storage.ErrFull):
		outcome = "full"
	case errors.Is(err, storage.ErrUnavailable):
		outcome = "unavailable"
	default:
		outcome = "failed"
	}
	c.metrics.blobDurations.WithLabelValues(operation, outcome).Observe(time.Since(start).Seconds())
}

func (c countedBlobs) moved(direction string, bytes int64) {
	c.metrics.blobBytes.WithLabelValues(direction).Add(float64(bytes))
}

// Put implements storage.Blobs.
func (c countedBlobs) Put(ctx context.Context, id storage.CID, size int64, r io.Reader) error {
	start := time.Now()
	err := c.Blobs.Put(ctx, id, size, r)
	c.done("put", start, err)
	if err == nil {
		c.moved("written", size)
	}
	return err
}

// Open implements storage.Blobs. It reads all of the blob.
func (c countedBlobs) Open(ctx context.Context, id storage.CID) (storage.Blob, error) {
	start := time.Now()
	blob, err := c.Blobs.Open(ctx, id)
	c.done("open", start, err)
	if err == nil {
		c.moved("read", blob.Size())
	}
	return blob, err
}

// Stat implements storage.Blobs.
func (c countedBlobs) Stat(ctx context.Context, id storage.CID) (int64, error) {
	start := time.Now()
	size, err := c.Blobs.Stat(ctx, id)
	c.done("stat", start, err)
	return size, err
}

// Create implements storage.Blobs.
func (c countedBlobs) Create(ctx context.Context, key string, data []byte) error {
	start := time.Now()
	err := c.Blobs.Create(ctx, key, data)
	c.done("create", start, err)
	if err == nil {
		c.moved("written", int64(len(data)))
	}
	return err
}

// Read implements storage.Blobs.
func (c countedBlobs) Read(ctx context.Context, key string) ([]byte, error) {
	start := time.Now()
	data, err := c.Blobs.Read(ctx, key)
	c.done("read", start, err)
	c.moved("read", int64(len(data)))
	return data, err
}

// List implements storage.Blobs. Its time is the listing's and what is done meanwhile.
func (c countedBlobs) List(ctx context.Context, prefix, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		start, failed := time.Now(), error(nil)
		defer func() { c.done("list", start, failed) }()
		for key, err := range c.Blobs.List(ctx, prefix, after) {
			failed = err
			if !yield(key, err) {
				return
			}
		}
	}
}

// Probe implements storage.Blobs.
func (c countedBlobs) Probe(ctx context.Context) error {
	start := time.Now()
	err := c.Blobs.Probe(ctx)
	c.done("probe", start, err)
	return err
}
