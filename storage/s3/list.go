package s3

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/minio/minio-go/v7"

	"phoenix-lab.org/aln-registry/storage"
)

const (
	// blobFolder begins the keys of blobs, below the store's prefix.
	blobFolder = "blobs/"
	// afterBlobs sorts after every blob and before whatever else there may be.
	afterBlobs = "blobs/~"
	// pageSize is how many keys stores list at once, at most.
	pageSize = 1000
)

// List implements storage.Blobs. What was stored there by others and is no key
// is passed over.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if err := storage.CheckPrefix(prefix); err != nil {
			yield("", err)
			return
		}
		for info, err := range s.listed(ctx, prefix, after) {
			if err != nil {
				yield("", fmt.Errorf("list objects: %w", err))
				return
			}
			if key := info.Key; storage.CheckKey(key) == nil && !yield(key, nil) {
				return
			}
		}
	}
}

// listed yields what is stored under keys that begin with prefix and sort after
// after, keys without the store's prefix. Blobs are passed over, but where
// prefix asks for them.
func (s *Store) listed(ctx context.Context, prefix, after string) iter.Seq2[minio.ObjectInfo, error] {
	return func(yield func(minio.ObjectInfo, error) bool) {
		if after > prefix && !strings.HasPrefix(after, prefix) { // nothing there begins with prefix
			return
		}
		jump := !strings.HasPrefix(prefix, blobFolder)
		for {
			page, last, err := s.page(ctx, prefix, after)
			if err != nil {
				yield(minio.ObjectInfo{}, err)
				return
			}
			for _, info := range page {
				if after = info.Key; jump && strings.HasPrefix(after, blobFolder) {
					after, jump, last = afterBlobs, false, false
					break
				}
				if !yield(info, nil) {
					return
				}
			}
			if last {
				return
			}
		}
	}
}

// page lists up to pageSize keys, and says whether these are the last ones.
func (s *Store) page(ctx context.Context, prefix, after string) (page []minio.ObjectInfo, last bool, err error) {
	options := minio.ListObjectsOptions{Prefix: s.place.prefix + prefix, Recursive: true, MaxKeys: s.pageSize, FetchOwner: new(bool)}
	if strings.HasPrefix(after, prefix) && after != "" {
		options.StartAfter = s.place.prefix + after
	}
	err = s.try(ctx, "list", 0, func(ctx context.Context, p *pace) error {
		page, last = page[:0], true
		// minio-go's sequence goes on to the next pages, unless it is left.
		for info := range s.core.ListObjectsIter(ctx, s.place.bucket, options) {
			if info.Err != nil {
				return s.answer(info.Err)
			}
			p.moved()
			if page = append(page, info); len(page) == s.pageSize {
				last = false
				break
			}
		}
		if err := ctx.Err(); err != nil { // minio-go's sequence ends as if that were all
			return err
		}
		return s.inOrder(page, prefix, after)
	})
	return page, last, err
}

// inOrder takes the store's prefix off the keys and checks that they are those
// asked for: a page that has changed on the way does not pass for shorter.
func (s *Store) inOrder(page []minio.ObjectInfo, prefix, after string) error {
	for i, info := range page {
		key, ours := strings.CutPrefix(info.Key, s.place.prefix)
		if !ours || !strings.HasPrefix(key, prefix) || key <= after && after != "" {
			return fmt.Errorf("the store lists %q, which was not asked for, or not in order", info.Key)
		}
		page[i].Key, after = key, key
	}
	return nil
}
