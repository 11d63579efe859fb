//go:build unix

package did

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestReadKeyFileRefusesFilesOpenToOthers(t *testing.T) {
	for _, mode := range []fs.FileMode{0o644, 0o640, 0o604, 0o660, 0o602, 0o601, 0o777} {
		path := privateFile(t, jwkEd25519, mode)
		keys, err := ReadKeyFile(path)
		if !errors.Is(err, ErrKeyFileMode) || keys != nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %o: %v, %v; want ErrKeyFileMode and what to do", mode, keys, err)
		}
	}
}

// Opening a pipe would wait for ever.
func TestReadKeyFileOpensNoPipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKeyFile(pipe); !errors.Is(err, ErrKeyFile) {
		t.Errorf("pipe: %v; want ErrKeyFile", err)
	}
}
