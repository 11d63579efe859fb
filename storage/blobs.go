// Package storage names bytes by their content (CID) and says what a store of
// such bytes promises (Blobs). It is a leaf: it knows nothing of records, logs
// or policy. Implementations stand below it (disk; later s3) and all pass the
// one suite in blobtest.
//
// Invariants: a CID has one spelling; bytes are handed out under a CID only
// after they were seen to hash to it; what Put or Create acknowledged survives
// the loss of power.
package storage

import (
	"context"
	"errors"
	"io"
	"iter"
)

// Errors that every Blobs returns, wrapped with the name concerned.
var (
	// ErrNotFound: nothing is stored under that name.
	ErrNotFound = errors.New("not found in blob storage")
	// ErrExists: Create met an object of that key with other bytes.
	ErrExists = errors.New("already exists with other bytes")
	// ErrMismatch: bytes offered to Put do not hash to the CID, or are not as many as said. Nothing was stored.
	ErrMismatch = errors.New("bytes do not match their name")
	// ErrCorrupt: stored bytes no longer hash to the CID they are stored under.
	ErrCorrupt = errors.New("stored bytes are corrupt")
	// ErrBadKey: an object key is not slash-separated segments of [a-z0-9-].
	ErrBadKey = errors.New("bad object key")
)

// Blob is an open blob: its bytes have been verified against the CID.
type Blob interface {
	io.ReadSeekCloser
	// Size is the number of bytes.
	Size() int64
}

// Blobs stores content-addressed blobs and, beside them, the log's few named
// objects (entries and checkpoints), which are written once and never changed.
// All methods may be called concurrently, also by several processes on one
// store, and honour ctx. Every method is safe to repeat after an error.
type Blobs interface {
	// Put stores size bytes read from r under id. When it returns nil the blob
	// is durable. Storing what is already there succeeds. Bytes that do not hash
	// to id, or more or fewer than size, are ErrMismatch and leave nothing behind.
	Put(ctx context.Context, id CID, size int64, r io.Reader) error
	// Open returns the blob after verifying that its bytes hash to id
	// (ErrCorrupt otherwise, ErrNotFound when there is none).
	Open(ctx context.Context, id CID) (Blob, error)
	// Stat returns the size of the blob, ErrNotFound when there is none. It does
	// not read the bytes.
	Stat(ctx context.Context, id CID) (int64, error)
	// Create stores data under key if nothing is stored there. When it returns
	// nil the object is durable. The same bytes again succeed; other bytes are
	// ErrExists: of several concurrent callers with different bytes exactly one wins.
	Create(ctx context.Context, key string, data []byte) error
	// Read returns the whole object stored under key, at most 1 MiB.
	Read(ctx context.Context, key string) ([]byte, error)
	// List yields the keys that begin with prefix and sort after the key after
	// ("" for all), in byte order. An error ends the sequence.
	List(ctx context.Context, prefix, after string) iter.Seq2[string, error]
	// Probe writes a few bytes durably, reads them again and removes them: nil
	// means that the store can be worked with now. It leaves nothing behind.
	Probe(ctx context.Context) error
}
