// Package disk keeps blobs and log objects in a folder of the local file
// system:
//
//	blobs/<xx>/<cid>   a blob; xx are the two characters before the CID's last
//	<key>              an object, for instance log/entry/0000000000000007
//	incoming/          files being written
//	lock               held by every process that has the store open
//
// Invariants: a file appears under its final name only when it is complete and
// synced, and what was acknowledged has all its names synced up to the root; a
// blob's bytes are hashed before a reader gets any of them.
package disk

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/storage"
)

// Store is a storage.Blobs in a folder. Several processes may have one open.
type Store struct {
	root    string
	lock    *os.File
	folders sync.Map // folders below root known to be durable
}

var (
	_ storage.Blobs     = (*Store)(nil)
	_ storage.Inventory = (*Store)(nil)
)

// Open opens the store in the folder root, which is made (0700) when there is
// none. What an interrupted process left in incoming is removed, unless
// another process has the store open: its files are there too.
func Open(root string) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open blob folder: %w", err)
	}
	s := &Store{root: root}
	for _, folder := range []string{root, s.incoming(), filepath.Join(root, blobFolder)} {
		if err := durable.MkdirAll(folder, 0o700); err != nil {
			return nil, err
		}
	}
	if err := s.begin(filepath.Join(root, lockFile)); err != nil {
		return nil, fmt.Errorf("open blob folder %s: %w", root, err)
	}
	return s, nil
}

// Names in root that are not objects.
const (
	blobFolder     = "blobs"
	incomingFolder = "incoming"
	lockFile       = "lock"
)

func (s *Store) incoming() string { return filepath.Join(s.root, incomingFolder) }

// begin empties incoming if nobody else has the store open, and takes the
// shared lock that tells others so.
func (s *Store) begin(path string) error {
	alone, err := durable.Lock(path)
	if err == nil {
		err = removeContents(s.incoming())
		alone.Close()
	}
	if err != nil && !errors.Is(err, durable.ErrLocked) {
		return err
	}
	s.lock, err = durable.LockShared(path)
	return err
}

func removeContents(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(folder, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// Close gives up the store's lock. Open blobs stay readable.
func (s *Store) Close() error { return s.lock.Close() }

func (s *Store) blobPath(id storage.CID) string {
	name := id.String()
	return filepath.Join(s.root, blobFolder, shard(name), name)
}

// shard is the folder that a blob of that name lies in.
func shard(name string) string { return name[len(name)-3 : len(name)-1] }

// Put implements storage.Blobs. A blob that is there already is read and
// hashed before it is acknowledged; one found corrupt is replaced.
func (s *Store) Put(ctx context.Context, id storage.CID, size int64, r io.Reader) error {
	if id.IsZero() || size < 0 {
		return fmt.Errorf("put blob %q of %d bytes: %w", id, size, storage.ErrMismatch)
	}
	path := s.blobPath(id)
	present, err := s.present(ctx, id, size)
	if err != nil {
		return err
	}
	if present {
		return s.syncNames(filepath.Dir(path))
	}
	if err := s.receive(ctx, id, size, r, path); err != nil {
		return fmt.Errorf("put blob %s: %w", id, storage.Full(err))
	}
	return nil
}

// present reports whether size bytes that hash to id are stored.
func (s *Store) present(ctx context.Context, id storage.CID, size int64) (bool, error) {
	blob, err := s.Open(ctx, id)
	switch {
	case errors.Is(err, storage.ErrNotFound), errors.Is(err, storage.ErrCorrupt):
		return false, nil
	case err != nil:
		return false, err
	}
	defer blob.Close()
	if blob.Size() != size {
		return false, fmt.Errorf("put blob %s: it has %d bytes, not %d: %w", id, blob.Size(), size, storage.ErrMismatch)
	}
	return true, nil
}

func (s *Store) receive(ctx context.Context, id storage.CID, size int64, r io.Reader, path string) error {
	f, err := os.CreateTemp(s.incoming(), "blob-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // does nothing once it is renamed
	defer f.Close()
	if err := storage.CopyVerified(ctx, f, r, id, size); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := s.makeFolder(filepath.Dir(path)); err != nil {
		return err
	}
	if err := f.Close(); err != nil { // Windows renames no open file
		return err
	}
	if err := durable.Replace(f.Name(), path); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

// makeFolder makes a folder below root and its parents, durably. That a
// folder exists does not say so yet: whoever made it may not have synced it.
func (s *Store) makeFolder(folder string) error {
	if _, known := s.folders.Load(folder); known {
		return nil
	}
	if folder == s.root { // made, and synced, by Open
		return nil
	}
	if err := s.makeFolder(filepath.Dir(folder)); err != nil {
		return err
	}
	if err := durable.Mkdir(folder, 0o700); err != nil {
		return err
	}
	s.folders.Store(folder, nil)
	return nil
}

// syncNames makes durable the names in folder, and folder itself: those that
// another process has just made too.
func (s *Store) syncNames(folder string) error {
	if err := s.makeFolder(folder); err != nil {
		return err
	}
	return durable.SyncDir(folder)
}

// Open implements storage.Blobs. The whole file is hashed first.
func (s *Store) Open(ctx context.Context, id storage.CID) (storage.Blob, error) {
	f, size, err := s.openBlob(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := verify(ctx, f, id, size); err != nil {
		f.Close()
		return nil, fmt.Errorf("blob %s: %w", id, err)
	}
	return blob{File: f, size: size}, nil
}

// blob is a verified blob; the file is open for reading only.
type blob struct {
	*os.File
	size int64
}

func (b blob) Size() int64 { return b.size }

func (s *Store) openBlob(ctx context.Context, id storage.CID) (*os.File, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	if id.IsZero() {
		return nil, 0, fmt.Errorf("blob without a name: %w", storage.ErrNotFound)
	}
	f, err := durable.Open(s.blobPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("blob %s: %w", id, storage.ErrNotFound)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("blob %s: %w", id, err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("blob %s: %w", id, err)
	}
	if !info.Mode().IsRegular() {
		f.Close()
		return nil, 0, fmt.Errorf("blob %s is not a file: %w", id, storage.ErrCorrupt)
	}
	return f, info.Size(), nil
}

// verify hashes f and goes back to its beginning.
func verify(ctx context.Context, f *os.File, id storage.CID, size int64) error {
	h := sha256.New()
	n, err := io.Copy(h, storage.ReaderOf(ctx, f))
	if err != nil {
		return err
	}
	if n != size || [sha256.Size]byte(h.Sum(nil)) != id.Digest() {
		return fmt.Errorf("%w: %d bytes hash to %x", storage.ErrCorrupt, n, h.Sum(nil))
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}

// Stat implements storage.Blobs.
func (s *Store) Stat(ctx context.Context, id storage.CID) (int64, error) {
	f, size, err := s.openBlob(ctx, id)
	if err != nil {
		return 0, err
	}
	return size, f.Close()
}
