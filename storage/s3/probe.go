package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/minio/minio-go/v7"

	"phoenix-lab.org/aln-registry/storage"
)

// probePrefix begins the names of what Probe writes; no key of an object does.
const probePrefix = ".probe-"

// errReplaces: the log would not be safe there.
var errReplaces = errors.New("the bucket replaces what is stored although it is told not to (If-None-Match: *); " +
	"Ceph does so where a bucket has versions: suspend them, with aws s3api put-bucket-versioning --versioning-configuration Status=Suspended")

// Probe implements storage.Blobs. It also asks whether the bucket still keeps
// what it is told not to replace. A store's probes come one after the other and
// all use one name, so that what an interrupted one left is the next one's.
func (s *Store) Probe(ctx context.Context) error {
	select {
	case s.probing <- struct{}{}:
		defer func() { <-s.probing }()
	case <-ctx.Done():
		return fmt.Errorf("probe the bucket: %w", ctx.Err())
	}
	if err := s.probe(ctx); err != nil {
		return fmt.Errorf("probe the bucket: %w", err)
	}
	return nil
}

func (s *Store) probe(ctx context.Context) error {
	data := []byte("can this be written and read?")
	info, err := s.store(ctx, s.probeKey, data, false)
	if err != nil {
		return err
	}
	err = s.probeCreate(ctx)
	if err == nil {
		var read []byte
		if read, err = s.load(ctx, s.probeKey); err == nil && !bytes.Equal(read, data) {
			err = storage.ErrCorrupt
		}
	}
	if err = errors.Join(err, s.remove(ctx, s.probeKey)); err == nil && hasVersions(info) {
		s.versions.Store(true)
	}
	return err
}

// probeCreate tries to create what is there.
func (s *Store) probeCreate(ctx context.Context) error {
	_, err := s.store(ctx, s.probeKey, []byte("this must not be written"), true)
	switch {
	case err == nil:
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, errReplaces)
	case errors.Is(err, errTaken):
		return nil
	}
	return err
}

func hasVersions(info minio.UploadInfo) bool { return info.VersionID != "" && info.VersionID != "null" }

// checkVersions looks, when the bucket has versions of which it was not known
// that it keeps its word with them, whether it does.
func (s *Store) checkVersions(ctx context.Context, info minio.UploadInfo) error {
	if !hasVersions(info) || s.versions.Load() {
		return nil
	}
	return s.Probe(ctx)
}
