package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// ownerOnly is OwnerOnly of the file or folder at path.
func ownerOnly(t *testing.T, path string) error {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return OwnerOnly(f)
}

// wantOnly checks that folder holds one file of that name and content.
func wantOnly(t *testing.T, folder, name, content string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != name {
		t.Errorf("the folder holds %v, want only %s", entries, name)
	}
	got, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil || string(got) != content {
		t.Errorf("%s holds %q (%v), want %q", name, got, err, content)
	}
}

func TestWriteFileReplaces(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "pin")
	for _, content := range []string{"first, and long", "second", ""} {
		if err := WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatalf("WriteFile: %v", err)
		}
		wantOnly(t, folder, "pin", content)
	}
}

func TestCreateFileNeverReplaces(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "key")
	if err := CreateFile(path, []byte("first"), 0o600); err != nil {
		t.Fatalf("CreateFile: %v", err)
	}
	if err := CreateFile(path, []byte("second"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("CreateFile over a file: error %v, want fs.ErrExist", err)
	}
	wantOnly(t, folder, "key", "first")
}

func TestOfManyCreatorsOneWins(t *testing.T) {
	folder := t.TempDir()
	var group sync.WaitGroup
	var winners atomic.Int32
	for range 16 {
		group.Go(func() {
			err := CreateFile(filepath.Join(folder, "key"), []byte("content"), 0o600)
			if err == nil {
				winners.Add(1)
			} else if !errors.Is(err, fs.ErrExist) {
				t.Errorf("CreateFile: error %v, want fs.ErrExist", err)
			}
		})
	}
	group.Wait()
	if n := winners.Load(); n != 1 {
		t.Errorf("%d creators won, want 1", n)
	}
	wantOnly(t, folder, "key", "content")
}

func TestReadersNeverSeeHalfAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pin")
	contents := []string{strings.Repeat("a", 100_000), strings.Repeat("b", 50_000)}
	if err := WriteFile(path, []byte(contents[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		for i := range 30 {
			if err := WriteFile(path, []byte(contents[i%2]), 0o600); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		got, err := readAll(path)
		if err != nil || (string(got) != contents[0] && string(got) != contents[1]) {
			t.Fatalf("read %d bytes, %v: neither the old file nor the new one", len(got), err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}

func readAll(path string) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

func TestAnOpenFileIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "blob")
	goesOn(t, path, func() error { return WriteFile(path, []byte("new"), 0o600) })
}

func TestAnOpenFileIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "blob")
	goesOn(t, path, func() error { return os.Remove(path) })
}

// goesOn checks that who has a file open reads on in it while change changes what is at path.
func goesOn(t *testing.T, path string, change func() error) {
	t.Helper()
	if err := WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := change(); err != nil {
		t.Errorf("while the file is open: %v", err)
	}
	if got, err := io.ReadAll(f); err != nil || string(got) != "old" {
		t.Errorf("the open file says %q, %v", got, err)
	}
}

// Other programs open files so that Windows lets nobody replace them.
func TestAReaderThatSharesNothingIsWaitedFor(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "pin")
	if err := WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, func() { f.Close() })
	if err := WriteFile(path, []byte("new"), 0o600); err != nil {
		t.Errorf("WriteFile: %v", err)
	}
	wantOnly(t, folder, "pin", "new")
}

func TestPrivateFilesAreTheOwnersAlone(t *testing.T) {
	folder := t.TempDir()
	for name, write := range map[string]func(string, []byte, fs.FileMode) error{"written": WriteFile, "created": CreateFile} {
		path := filepath.Join(folder, name)
		if err := write(path, []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ownerOnly(t, path); err != nil {
			t.Errorf("%s with mode 0600: %v", name, err)
		}
	}
}

func TestAnUnnamedFileIsGoneWhenItIsClosed(t *testing.T) {
	folder := t.TempDir()
	f, err := CreateUnnamed(folder)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("an upload"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(f); err != nil || string(got) != "an upload" {
		t.Errorf("it holds %q, %v", got, err)
	}
	if err := OwnerOnly(f); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 0 {
		t.Errorf("the folder holds %v, %v", entries, err)
	}
	if _, err := CreateUnnamed(filepath.Join(folder, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a folder that is not there: %v", err)
	}
}

func TestAMissingFolderIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing", "file")
	for name, write := range map[string]func(string, []byte, fs.FileMode) error{"WriteFile": WriteFile, "CreateFile": CreateFile} {
		if err := write(path, nil, 0o600); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v, want fs.ErrNotExist with the path", name, err)
		}
	}
	if err := SyncDir(filepath.Dir(path)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("SyncDir: error %v, want fs.ErrNotExist", err)
	}
}

func TestAFailedReplacementLeavesNothing(t *testing.T) {
	folder := t.TempDir()
	if err := os.MkdirAll(filepath.Join(folder, "taken", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(folder, "taken"), []byte("x"), 0o600); err == nil {
		t.Error("WriteFile replaced a folder")
	}
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v (%v), want only what was there", entries, err)
	}
}

func TestMkdirAll(t *testing.T) {
	root := t.TempDir()
	folder := filepath.Join(root, "a", "b", "c")
	for range 2 {
		if err := MkdirAll(folder, 0o700); err != nil {
			t.Fatalf("MkdirAll: %v", err)
		}
	}
	for _, name := range []string{"a", "a/b", "a/b/c"} {
		if err := ownerOnly(t, filepath.Join(root, name)); err != nil {
			t.Errorf("%s, made with mode 0700: %v", name, err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := MkdirAll(filepath.Join(root, "file"), 0o700); !errors.Is(err, fs.ErrExist) {
		t.Errorf("MkdirAll where a file is: error %v, want fs.ErrExist", err)
	}
	if err := MkdirAll(filepath.Join(root, "file", "below"), 0o700); err == nil {
		t.Error("MkdirAll made a folder below a file")
	}
}

func TestMkdirAllTakesRelativeNames(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := MkdirAll(filepath.Join("x", "y"), 0o700); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat("x/y"); err != nil || !info.IsDir() {
		t.Errorf("x/y: %v, %v", info, err)
	}
}

func TestMkdirAllAtOnce(t *testing.T) {
	root := t.TempDir()
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			if err := MkdirAll(filepath.Join(root, "a", "b", "c"), 0o700); err != nil {
				t.Errorf("MkdirAll: %v", err)
			}
		})
	}
	group.Wait()
}
