//go:build unix

package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Windows lets only administrators make symbolic links.

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

func TestExposedModes(t *testing.T) {
	tests := map[fs.FileMode]struct{ others, everybody bool }{
		0o600: {}, 0o400: {}, 0o700: {},
		0o640: {others: true}, 0o660: {others: true}, 0o610: {others: true},
		0o644: {true, true}, 0o604: {true, true}, 0o601: {true, true}, 0o602: {true, true}, 0o777: {true, true},
	}
	path := filepath.Join(t.TempDir(), "key")
	for mode, want := range tests {
		if err := WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		wantExposed(t, OwnerOnly(f), want.others, "chmod 600 "+path)
		wantExposed(t, NotPublic(f), want.everybody, "chmod 600 "+path)
		f.Close()
	}
	folder := t.TempDir()
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	wantExposed(t, ownerOnly(t, folder), true, "chmod 700 "+folder)
}

func wantExposed(t *testing.T, err error, want bool, mend string) {
	t.Helper()
	var exposed *ExposedError
	switch found := errors.As(err, &exposed); {
	case found != want, err != nil && !found:
		t.Errorf("exposed: %v (%v), want %v", found, err, want)
	case want && (exposed.Mend != mend || !strings.Contains(err.Error(), mend)):
		t.Errorf("%v: mended by %q, want %q", err, exposed.Mend, mend)
	}
}
