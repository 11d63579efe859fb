package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/storage"
)

// heldNames is how many names All holds at a time, 80 bytes each.
const heldNames = 1 << 18

// All implements storage.Inventory. The folders that blobs lie in do not follow
// the order of their names, so all folders are read for each heldNames blobs:
// the next ones in order are kept, the others read again.
func (s *Store) All(ctx context.Context, after storage.CID) iter.Seq2[storage.Stored, error] {
	return s.all(ctx, after.String(), heldNames)
}

func (s *Store) all(ctx context.Context, after string, most int) iter.Seq2[storage.Stored, error] {
	return func(yield func(storage.Stored, error) bool) {
		stray := func(name string) bool {
			return yield(storage.Stored{}, fmt.Errorf("%w: %s", storage.ErrStray, filepath.Join(s.root, blobFolder, name)))
		}
		for {
			next := &smallest{most: most}
			more, err := s.scan(ctx, after, next, stray)
			if err != nil {
				yield(storage.Stored{}, fmt.Errorf("list blobs: %w", err))
			}
			if !more || err != nil || !s.describe(ctx, next.sorted(), yield) || len(next.names) < most {
				return
			}
			after = next.names[most-1]
			stray = func(string) bool { return true } // told of once
		}
	}
}

// smallest keeps the smallest names of those it is given.
type smallest struct {
	most  int
	names []string
	limit string // once there are enough, none above it matters
}

func (k *smallest) add(name string) {
	if k.limit != "" && name > k.limit {
		return
	}
	if k.names = append(k.names, name); len(k.names) == 2*k.most {
		k.sorted()
		k.limit = k.names[k.most-1]
	}
}

func (k *smallest) sorted() []string {
	slices.Sort(k.names)
	if len(k.names) > k.most {
		clear(k.names[k.most:]) // so that they can be freed
		k.names = k.names[:k.most]
	}
	return k.names
}

// scan gives next the names of blobs after after, and stray whatever else there
// is, until that returns false; then so does scan.
func (s *Store) scan(ctx context.Context, after string, next *smallest, stray func(name string) bool) (bool, error) {
	more := true
	err := entries(ctx, filepath.Join(s.root, blobFolder), func(folder fs.DirEntry) (bool, error) {
		if !folder.IsDir() {
			more = stray(folder.Name())
			return more, nil
		}
		return more, entries(ctx, filepath.Join(s.root, blobFolder, folder.Name()), func(e fs.DirEntry) (bool, error) {
			_, err := storage.ParseCID(e.Name())
			if err != nil || shard(e.Name()) != folder.Name() || !e.Type().IsRegular() {
				more = stray(filepath.Join(folder.Name(), e.Name()))
			} else if e.Name() > after {
				next.add(e.Name())
			}
			return more, nil
		})
	})
	return more && err == nil, err
}

// entries calls f with what is in folder, in no order and never all at once,
// until it returns false or an error. A folder that is gone is empty.
func entries(ctx context.Context, folder string, f func(fs.DirEntry) (bool, error)) error {
	d, err := os.Open(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		some, err := d.ReadDir(512)
		for _, e := range some {
			if more, err := f(e); err != nil || !more {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// describe yields the blobs of these names that are still there. It returns
// false when the sequence has ended.
func (s *Store) describe(ctx context.Context, names []string, yield func(storage.Stored, error) bool) bool {
	for _, name := range names {
		one, err := s.stored(ctx, name)
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			continue
		}
		if err != nil {
			yield(storage.Stored{}, fmt.Errorf("list blobs: %w", err))
			return false
		}
		if !yield(one, nil) {
			return false
		}
	}
	return true
}

func (s *Store) stored(ctx context.Context, name string) (storage.Stored, error) {
	if err := ctx.Err(); err != nil {
		return storage.Stored{}, err
	}
	id, err := storage.ParseCID(name)
	if err != nil {
		return storage.Stored{}, err
	}
	info, err := os.Lstat(s.blobPath(id))
	if err != nil {
		return storage.Stored{}, err
	}
	return storage.Stored{CID: id, Size: info.Size(), Modified: info.ModTime()}, nil
}

// Remove implements storage.Inventory.
func (s *Store) Remove(ctx context.Context, id storage.CID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if id.IsZero() { // names nothing
		return nil
	}
	path := s.blobPath(id)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove blob %s: %w", id, err)
	}
	// Also where it is not there: whoever removed it may not have synced that yet.
	err := durable.SyncDir(filepath.Dir(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove blob %s: %w", id, err)
	}
	return nil
}
