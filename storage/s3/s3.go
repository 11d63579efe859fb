// Package s3 keeps blobs and log objects in a bucket of an object store that
// speaks S3: MinIO, Ceph's RADOS Gateway, or another. In the bucket, below the
// prefix that the store was opened with ("" or ending in a slash), lie
//
//	<prefix>blobs/<cid>    a blob
//	<prefix><key>          an object, for instance log/entry/0000000000000007
//	<prefix>.probe-<text>  for a moment, what Probe writes
//
// each with the sha256 and the number of its bytes as user metadata.
//
// Invariants: whatever is stored comes in one request, signed over the digest of
// its bytes; what must not be replaced, with If-None-Match: *. These two every
// store honours, and what some do not is not relied on (docs/ARCHITECTURE.md).
// Nothing that a store or the network says about bytes is believed: a blob is
// hashed before a reader gets any of it, and that something is there already only
// after it was read. An operation is tried again, with growing pauses, until it
// succeeds or the store's patience ends (storage.ErrUnavailable).
package s3

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"

	"phoenix-lab.org/aln-registry/storage"
)

// Options are what an address does not say.
type Options struct {
	// AccessKey and SecretKey are the credentials; without them the usual places
	// are asked: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,
	// AWS_SHARED_CREDENTIALS_FILE, and the machine's role (IAM).
	AccessKey, SecretKey string
	// Spool is the folder of temporary files, which exists; "" is the system's.
	// Blobs of more than 1 MiB take their size of it while they are open, once
	// however many read them, and a moment longer.
	Spool string
	// SpoolBytes is how many bytes open blobs may take there in all; who opens one
	// that there is no room for waits for Patience. 0 is 4 GiB.
	SpoolBytes int64
	// Patience is how long an operation is tried while nothing moves; what moves
	// large blobs gets somewhat more. 0 is 15 seconds.
	Patience time.Duration
	// OpenPatience is Patience for the question of Open whether the bucket is there; 0 is no other.
	OpenPatience time.Duration
}

const defaultPatience = 15 * time.Second

// Store is a storage.Blobs and a storage.Inventory in a bucket. Several stores,
// in several processes, may work on one bucket and prefix.
type Store struct {
	place     place
	core      minio.Core
	wire      http.RoundTripper // over transport
	transport *http.Transport
	folder    string // of temporary files
	shared    *shared
	patience  time.Duration
	pageSize  int
	probeKey  string
	probing   chan struct{} // holds whoever probes
	versions  atomic.Bool   // the bucket has versions, and replaces nothing all the same
}

var (
	_ storage.Blobs     = (*Store)(nil)
	_ storage.Inventory = (*Store)(nil)
)

// Open opens the store that address names,
//
//	s3://bucket[/prefix]?endpoint=https://host[:port][&region=R][&ca=FILE][&path_style=true|false]
//
// and asks whether the bucket is there, which is never made: an error says how
// to. A bucket that replaces what it is told not to is refused; it is probed for
// that, but one that cannot be written now is opened, to be read. The region is us-east-1 unless said; ca is a file of the only certificates
// to trust, in PEM; path_style false puts the bucket into the host's name, as
// Amazon's stores want it (which is known of them). No error says a secret.
func Open(ctx context.Context, address string, o Options) (*Store, error) {
	s, err := newStore(address, o)
	if err != nil {
		return nil, err
	}
	patience := s.patience
	s.patience = cmp.Or(o.OpenPatience, patience)
	err = s.checkBucket(ctx)
	s.patience = patience
	if err == nil {
		if probed := s.Probe(ctx); errors.Is(probed, errReplaces) || ctx.Err() != nil {
			err = probed
		}
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("open blobs in %s: %w", s, err)
	}
	return s, nil
}

// newStore makes the store and asks nothing of the network.
func newStore(address string, o Options) (*Store, error) {
	p, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	transport, err := newTransport(p)
	if err != nil {
		return nil, err
	}
	wire := onlyS3{transport}
	core, err := newClient(p, keys(o), wire)
	if err != nil {
		return nil, err
	}
	s := &Store{
		place: p, core: core, wire: wire, transport: transport, folder: o.Spool, shared: newShared(o.Spool, o.SpoolBytes), patience: o.Patience, pageSize: pageSize,
		probeKey: p.prefix + probePrefix + rand.Text(), probing: make(chan struct{}, 1),
	}
	if s.patience <= 0 {
		s.patience = defaultPatience
	}
	return s, nil
}

// String is where the store is, without anything secret.
func (s *Store) String() string { return s.place.String() }

// Close closes idle connections. Open blobs stay readable.
func (s *Store) Close() error {
	s.shared.close()
	s.transport.CloseIdleConnections()
	return nil
}
