package disk

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/blobtest"
)

func open(t *testing.T, root string) *Store {
	t.Helper()
	s, err := Open(root)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(t *testing.T, s *Store, data string) storage.CID {
	t.Helper()
	id := storage.CIDOf([]byte(data))
	if err := s.Put(t.Context(), id, int64(len(data)), strings.NewReader(data)); err != nil {
		t.Fatalf("Put: %v", err)
	}
	return id
}

// flip changes one bit in the middle of the blob's file.
func flip(t *testing.T, s *Store, id storage.CID) {
	t.Helper()
	data, err := os.ReadFile(s.blobPath(id))
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(s.blobPath(id), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestBlobs(t *testing.T) {
	blobtest.Run(t, blobtest.Engine{
		Open:    func(t *testing.T) blobtest.Store { return open(t, t.TempDir()) },
		Corrupt: func(t *testing.T, store blobtest.Store, id storage.CID) { flip(t, store.(*Store), id) },
		Stray: func(t *testing.T, store blobtest.Store, name string) {
			folder := filepath.Join(store.(*Store).root, blobFolder, "aa")
			if err := os.MkdirAll(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(folder, name), []byte("stray"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	})
}

func TestLayout(t *testing.T) {
	root := filepath.Join(t.TempDir(), "new", "store")
	s := open(t, root)
	put(t, s, "hello\n")
	if err := s.Create(t.Context(), "log/entry/0000000000000007", []byte("entry")); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"blobs/6a/bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am": "hello\n",
		"log/entry/0000000000000007": "entry",
		"lock":                       "",
	}
	got := files(t, root)
	if len(got) != len(want) {
		t.Errorf("files are %q, want %q", got, want)
	}
	for name, content := range want {
		if c, ok := got[name]; !ok || c != content {
			t.Errorf("%s holds %q (there: %t), want %q", name, c, ok, content)
		}
	}
	folder, err := durable.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	if err := durable.OwnerOnly(folder); err != nil {
		t.Errorf("the folder: %v", err)
	}
}

// files returns the content of every file below root.
func files(t *testing.T, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(root, path)
		found[filepath.ToSlash(name)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestContentSurvivesReopening(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	id := put(t, s, "kept")
	if err := s.Create(t.Context(), "log/kept", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, root)
	blob, err := s.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	blob.Close()
	if data, err := s.Read(t.Context(), "log/kept"); err != nil || string(data) != "kept" {
		t.Errorf("Read: %q, %v", data, err)
	}
}

func TestRefusedBytesLeaveNoFile(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	id := storage.CIDOf([]byte("right"))
	for _, wrong := range []string{"wrong", "", "right and more"} {
		if err := s.Put(t.Context(), id, 5, strings.NewReader(wrong)); !errors.Is(err, storage.ErrMismatch) {
			t.Errorf("Put: %v", err)
		}
	}
	if err := s.Create(t.Context(), "log/x", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(t.Context(), "log/x", []byte("2")); !errors.Is(err, storage.ErrExists) {
		t.Errorf("Create: %v", err)
	}
	got := files(t, root)
	if len(got) != 2 || got["log/x"] != "1" {
		t.Errorf("files are %q, want only the lock and log/x", got)
	}
}

func TestLeftoversAreRemovedAtOpen(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	leftover := filepath.Join(root, "incoming", "blob-123")
	if err := os.WriteFile(leftover, []byte("half a bl"), 0o600); err != nil {
		t.Fatal(err)
	}

	second := open(t, root) // while the first is open the file may be in use
	if _, err := os.Stat(leftover); err != nil {
		t.Errorf("a second process took the file of the first away: %v", err)
	}
	s.Close()
	second.Close()

	open(t, root)
	if _, err := os.Stat(leftover); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the leftover is still there (%v)", err)
	}
}

func TestForeignFilesAreNotListed(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	put(t, s, "a blob")
	if err := s.Create(t.Context(), "log/entry/1", nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"log/entry/.1.tmp-9", "log/entry/1~", "incoming/object-1", "lost+found", "log/README"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var keys []string
	for key, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	if len(keys) != 1 || keys[0] != "log/entry/1" {
		t.Errorf("listed are %q", keys)
	}
}

func TestReservedKeysAreRefused(t *testing.T) {
	s := open(t, t.TempDir())
	id := put(t, s, "a blob").String()
	for _, key := range []string{"blobs", "blobs/x", "blobs/" + id[56:58] + "/" + id, "incoming/x", "lock", "lock/x"} {
		if err := s.Create(t.Context(), key, []byte("x")); !errors.Is(err, storage.ErrBadKey) {
			t.Errorf("Create %s: error %v, want ErrBadKey", key, err)
		}
		if data, err := s.Read(t.Context(), key); !errors.Is(err, storage.ErrBadKey) {
			t.Errorf("Read %s: %q, error %v, want ErrBadKey", key, data, err)
		}
		for listed, err := range s.List(t.Context(), key, "") {
			if err == nil {
				t.Errorf("List %s yields %s", key, listed)
			}
		}
	}
}

func TestKeyAndFolderOfOneName(t *testing.T) {
	s := open(t, t.TempDir())
	if err := s.Create(t.Context(), "log/entry", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(t.Context(), "log/entry/1", []byte("x")); err == nil {
		t.Error("an object was stored below another")
	}
	if _, err := s.Read(t.Context(), "log/entry/1"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("Read below an object: error %v, want ErrNotFound", err)
	}
	if err := s.Create(t.Context(), "log", []byte("x")); !errors.Is(err, storage.ErrExists) {
		t.Errorf("Create over a folder: error %v, want ErrExists", err)
	}
	if _, err := s.Read(t.Context(), "log"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("Read of a folder: error %v, want ErrNotFound", err)
	}
}

func TestPutHealsACorruptBlob(t *testing.T) {
	s := open(t, t.TempDir())
	const data = "bytes that were damaged"
	id := put(t, s, data)
	damages := map[string]func(){
		"a flipped bit": func() { flip(t, s, id) },
		"cut short": func() {
			if err := os.Truncate(s.blobPath(id), 3); err != nil {
				t.Fatal(err)
			}
		},
		"grown": func() {
			if err := os.WriteFile(s.blobPath(id), []byte(data+data), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			damage()
			if _, err := s.Open(t.Context(), id); !errors.Is(err, storage.ErrCorrupt) {
				t.Fatalf("Open: error %v, want ErrCorrupt", err)
			}
			// Wrong bytes do not heal it, and do not make it worse.
			if err := s.Put(t.Context(), id, int64(len(data)), bytes.NewReader(make([]byte, len(data)))); !errors.Is(err, storage.ErrMismatch) {
				t.Errorf("Put of wrong bytes: error %v, want ErrMismatch", err)
			}
			put(t, s, data)
			blob, err := s.Open(t.Context(), id)
			if err != nil {
				t.Fatalf("Open after Put: %v", err)
			}
			blob.Close()
		})
	}
}

func TestOpenedBlobSurvivesReplacement(t *testing.T) {
	s := open(t, t.TempDir())
	id := put(t, s, "old")
	blob, err := s.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	if err := os.Remove(s.blobPath(id)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 3)
	if _, err := blob.Read(got); err != nil || string(got) != "old" {
		t.Errorf("Read: %q, %v", got, err)
	}
}

func TestOpenRefusesAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(path); err == nil {
		s.Close()
		t.Error("a file was opened as a store")
	}
}
