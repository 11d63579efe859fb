// Package s3 keeps blobs and log objects in a bucket of an object store that
// speaks S3: MinIO, Ceph's RADOS Gateway, or another. In the bucket, below the
// prefix that the store was opened with ("" or ending in a slash), lie
//
//	<prefix>blobs/<cid>   a blob
//	<prefix><key>         an object, for instance log/entry/0000000000000007
package s3

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// Options are what an address does not say.
type Options struct {
	// AccessKey and SecretKey are the credentials; without them the usual places
	// are asked: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,
	// AWS_SHARED_CREDENTIALS_FILE, and the machine's role (IAM).
	AccessKey, SecretKey string
	// Spool is the folder of temporary files; "" is the system's.
	Spool string
	// Patience is how long an operation tries again where the store does not
	// answer as it should; large blobs get more. 0 is 15 seconds.
	Patience time.Duration
}

// Store is a storage.Blobs and a storage.Inventory in a bucket.
type Store struct{}

var (
	_ storage.Blobs     = (*Store)(nil)
	_ storage.Inventory = (*Store)(nil)
)

// Open opens the store that address names,
//
//	s3://bucket[/prefix]?endpoint=https://host[:port][&region=R][&ca=FILE][&path_style=true|false]
//
// and asks whether the bucket is there, which is never made.
func Open(ctx context.Context, address string, o Options) (*Store, error) {
	return nil, errors.New("not there yet")
}

// Close closes idle connections. Open blobs stay readable.
func (s *Store) Close() error { return nil }

// Put implements storage.Blobs.
func (s *Store) Put(ctx context.Context, id storage.CID, size int64, r io.Reader) error { return nil }

// Open implements storage.Blobs.
func (s *Store) Open(ctx context.Context, id storage.CID) (storage.Blob, error) { return nil, nil }

// Stat implements storage.Blobs.
func (s *Store) Stat(ctx context.Context, id storage.CID) (int64, error) { return 0, nil }

// Create implements storage.Blobs.
func (s *Store) Create(ctx context.Context, key string, data []byte) error { return nil }

// Read implements storage.Blobs.
func (s *Store) Read(ctx context.Context, key string) ([]byte, error) { return nil, nil }

// List implements storage.Blobs.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[string, error] { return nil }

// Probe implements storage.Blobs.
func (s *Store) Probe(ctx context.Context) error { return nil }

// All implements storage.Inventory.
func (s *Store) All(ctx context.Context, after storage.CID) iter.Seq2[storage.Stored, error] {
	return nil
}

// Remove implements storage.Inventory.
func (s *Store) Remove(ctx context.Context, id storage.CID) error { return nil }
