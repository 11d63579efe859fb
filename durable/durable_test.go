package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

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

func TestCreateFileDoesNotFollowADanglingLink(t *testing.T) {
	folder, elsewhere := t.TempDir(), t.TempDir()
	target := filepath.Join(elsewhere, "target")
	path := filepath.Join(folder, "key")
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	if err := CreateFile(path, []byte("secret"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("CreateFile over a link: error %v, want fs.ErrExist", err)
	}
	if _, err := os.Stat(target); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the link's target was written (%v)", err)
	}
}

func TestWriteFileReplacesALinkNotItsTarget(t *testing.T) {
	folder, elsewhere := t.TempDir(), t.TempDir()
	target := filepath.Join(elsewhere, "target")
	if err := os.WriteFile(target, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "pin")
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, folder, "pin", "new")
	wantOnly(t, elsewhere, "target", "untouched")
}

func TestModeIsExactWhateverTheUmask(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	folder := t.TempDir()
	for name, mode := range map[string]fs.FileMode{"secret": 0o600, "public": 0o644, "program": 0o755} {
		for _, write := range []func(string, []byte, fs.FileMode) error{CreateFile, WriteFile} {
			if err := write(filepath.Join(folder, name), nil, mode); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(filepath.Join(folder, name))
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != mode {
				t.Errorf("%s has mode %v, want %v", name, info.Mode(), mode)
			}
		}
	}
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
		got, err := os.ReadFile(path)
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
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil || !info.IsDir() || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v, want a folder with mode 0700", name, info, err)
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
