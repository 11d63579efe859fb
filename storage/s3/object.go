package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/minio/minio-go/v7"

	"phoenix-lab.org/aln-registry/storage"
)

// Create implements storage.Blobs.
func (s *Store) Create(ctx context.Context, key string, data []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := storage.CheckObject(key, data); err != nil {
		return err
	}
	if err := s.create(ctx, key, data); err != nil {
		return fmt.Errorf("create object %s: %w", key, err)
	}
	return nil
}

func (s *Store) create(ctx context.Context, key string, data []byte) error {
	for range rounds {
		info, err := s.store(ctx, s.place.prefix+key, data, true)
		if err == nil {
			return s.checkVersions(ctx, info)
		}
		if !errors.Is(err, errTaken) {
			return err
		}
		// Taken by others, by an earlier attempt of ours, or not at all: only
		// what is stored there says which.
		stored, err := s.Read(ctx, key)
		switch {
		case err == nil && bytes.Equal(stored, data):
			return nil
		case err == nil:
			return storage.ErrExists
		case !errors.Is(err, storage.ErrNotFound):
			return err
		}
	}
	return fmt.Errorf("%w: the store says that it is there, and does not find it", storage.ErrUnavailable)
}

// store uploads a few bytes under a whole key.
func (s *Store) store(ctx context.Context, key string, data []byte, create bool) (minio.UploadInfo, error) {
	sum := sha256.Sum256(data)
	src := &source{r: bytes.NewReader(data)}
	return s.upload(ctx, key, src, int64(len(data)), hex.EncodeToString(sum[:]), create)
}

// Read implements storage.Blobs. The bytes are verified against the digest
// stored beside them.
func (s *Store) Read(ctx context.Context, key string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := storage.CheckKey(key); err != nil {
		return nil, err
	}
	data, err := s.load(ctx, s.place.prefix+key)
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", key, err)
	}
	return data, nil
}

// load downloads a few bytes until they agree with the digest beside them. Where
// they do not mostAlike times running, in the same way, that is how they are
// stored: storage.ErrCorrupt. An object without a digest has to come twice alike.
func (s *Store) load(ctx context.Context, key string) ([]byte, error) {
	var data []byte
	var wrong wrong
	err := s.try(ctx, "read", 0, func(ctx context.Context, p *pace) error {
		for range rounds {
			var sum string
			var err error
			if data, sum, err = s.download(ctx, key, p); err != nil {
				return s.answer(err)
			}
			has := storage.CIDOf(data).Hex()
			came := has + " for " + sum
			if sum == has || sum == "" && came == wrong.last {
				return nil
			}
			if err := wrong.again(came, fmt.Errorf("%w: %d bytes hash to %s", storage.ErrCorrupt, len(data), has)); err != nil {
				return err
			}
		}
		return errChanged
	})
	return data, err
}

// download returns the bytes under key and the digest stored beside them.
func (s *Store) download(ctx context.Context, key string, p *pace) ([]byte, string, error) {
	from, info, header, err := s.core.GetObject(ctx, s.place.bucket, key, minio.GetObjectOptions{})
	if err != nil {
		return nil, "", err
	}
	defer from.Close()
	_, whole, err := extent(header)
	if err != nil {
		return nil, "", err
	}
	p.expect(storage.MaxObject)
	data, err := io.ReadAll(io.LimitReader(&watched{from, p.moved}, storage.MaxObject+1))
	if err != nil {
		return nil, "", err
	}
	if len(data) > storage.MaxObject {
		return nil, "", settled{fmt.Errorf("it has more than %d bytes", storage.MaxObject)}
	}
	if int64(len(data)) != whole {
		return nil, "", io.ErrUnexpectedEOF
	}
	return data, info.UserMetadata[metaSum], nil
}
