package s3

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/minio/minio-go/v7"

	"phoenix-lab.org/aln-registry/storage"
)

// All implements storage.Inventory.
func (s *Store) All(ctx context.Context, after storage.CID) iter.Seq2[storage.Stored, error] {
	return func(yield func(storage.Stored, error) bool) {
		start := ""
		if !after.IsZero() {
			start = blobFolder + after.String()
		}
		for info, err := range s.listed(ctx, blobFolder, start) {
			if err != nil {
				yield(storage.Stored{}, fmt.Errorf("list blobs: %w", err))
				return
			}
			one, err := stored(info)
			if !yield(one, err) {
				return
			}
		}
	}
}

func stored(info minio.ObjectInfo) (storage.Stored, error) {
	id, err := storage.ParseCID(strings.TrimPrefix(info.Key, blobFolder))
	if err != nil {
		return storage.Stored{}, fmt.Errorf("%w: %q", storage.ErrStray, info.Key)
	}
	return storage.Stored{CID: id, Size: info.Size, Modified: info.LastModified}, nil
}

// Remove implements storage.Inventory. In a bucket with versions the bytes stay
// as an older one, for as long as the bucket's rules say.
func (s *Store) Remove(ctx context.Context, id storage.CID) error {
	if id.IsZero() {
		return nil
	}
	err := s.removed(ctx, func(ctx context.Context) error { return s.removeSoon(ctx, s.blobKey(id), removalValid) })
	if err != nil {
		return fmt.Errorf("remove blob %s: %w", id, err)
	}
	s.shared.remove(id)
	return nil
}

// remove removes what is stored under a whole key, if anything is: of what is of no
// worth, since a store may obey a request that was held on the way a quarter of an
// hour later.
func (s *Store) remove(ctx context.Context, key string) error {
	return s.removed(ctx, func(ctx context.Context) error {
		return s.core.RemoveObject(ctx, s.place.bucket, key, minio.RemoveObjectOptions{})
	})
}

func (s *Store) removed(ctx context.Context, send func(context.Context) error) error {
	return s.try(ctx, "remove", 0, func(ctx context.Context, _ *pace) error {
		err := send(ctx)
		if e := minio.ToErrorResponse(err); e.Code == minio.NoSuchKey {
			return nil
		}
		return s.answer(err)
	})
}
