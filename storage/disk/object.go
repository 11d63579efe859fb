package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/storage"
)

// Create implements storage.Blobs. Of concurrent callers the one whose file
// comes first wins: Place never replaces a file.
func (s *Store) Create(ctx context.Context, key string, data []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := storage.CheckObject(key, data); err != nil {
		return err
	}
	err := s.create(s.objectPath(key), data)
	var taken *os.LinkError
	if errors.As(err, &taken) && errors.Is(err, fs.ErrExist) {
		return s.same(ctx, key, data)
	}
	if err != nil {
		return fmt.Errorf("create object %s: %w", key, storage.Full(err))
	}
	return nil
}

func (s *Store) create(path string, data []byte) error {
	if err := s.makeFolder(filepath.Dir(path)); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.incoming(), "object-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil { // Windows renames no open file
		return err
	}
	if err := durable.Place(f.Name(), path); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

// same is nil if data is what is stored under key, ErrExists otherwise (also
// where key is a folder). The other caller may not have synced its name yet.
func (s *Store) same(ctx context.Context, key string, data []byte) error {
	stored, err := s.Read(ctx, key)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	if err != nil || !bytes.Equal(stored, data) {
		return fmt.Errorf("object %s: %w", key, storage.ErrExists)
	}
	return s.syncNames(filepath.Dir(s.objectPath(key)))
}

// Read implements storage.Blobs.
func (s *Store) Read(ctx context.Context, key string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := storage.CheckKey(key); err != nil {
		return nil, err
	}
	f, err := durable.Open(s.objectPath(key))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, fmt.Errorf("object %s: %w", key, storage.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", key, err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, fmt.Errorf("object %s: %w", key, err)
	} else if !info.Mode().IsRegular() { // a folder: key is a prefix of others
		return nil, fmt.Errorf("object %s: %w", key, storage.ErrNotFound)
	}
	data, err := io.ReadAll(storage.ReaderOf(ctx, io.LimitReader(f, storage.MaxObject+1)))
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", key, err)
	}
	if len(data) > storage.MaxObject {
		return nil, fmt.Errorf("object %s has more than %d bytes", key, storage.MaxObject)
	}
	return data, nil
}

// List implements storage.Blobs.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if err := storage.CheckPrefix(prefix); err != nil {
			yield("", err)
			return
		}
		folder := prefix[:strings.LastIndexByte(prefix, '/')+1]
		s.walk(ctx, folder, prefix, after, yield)
	}
}

// walk yields the keys below folder ("" or ending in a slash) that begin with
// prefix and sort after after. It returns false when the sequence has ended.
func (s *Store) walk(ctx context.Context, folder, prefix, after string, yield func(string, error) bool) bool {
	if err := ctx.Err(); err != nil {
		yield("", err)
		return false
	}
	entries, err := os.ReadDir(filepath.Join(s.root, filepath.FromSlash(folder)))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return true
	}
	if err != nil {
		yield("", fmt.Errorf("list objects: %w", err))
		return false
	}
	for _, name := range keyNames(folder, entries) {
		var more bool
		switch {
		case !strings.HasPrefix(name, prefix) && !strings.HasPrefix(prefix, name):
			more = true
		case strings.HasSuffix(name, "/"):
			// A folder lies wholly before after unless after is within it.
			more = name < after && !strings.HasPrefix(after, name) || s.walk(ctx, name, prefix, after, yield)
		default:
			more = name <= after || !strings.HasPrefix(name, prefix) || yield(name, nil)
		}
		if !more {
			return false
		}
	}
	return true
}

// keyNames returns what may be keys in folder, folders with a slash at the
// end: so sorted, the keys below them come in byte order too ("a-b" < "a/b").
func keyNames(folder string, entries []fs.DirEntry) []string {
	var names []string
	for _, e := range entries {
		name := folder + e.Name()
		if storage.CheckKey(name) != nil {
			continue
		}
		if e.IsDir() {
			name += "/"
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (s *Store) objectPath(key string) string { return filepath.Join(s.root, filepath.FromSlash(key)) }
