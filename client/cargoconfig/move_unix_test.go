//go:build unix

package cargoconfig

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A lock that is a link stays one, as a configuration does, and what it leads to is moved.
func TestMoveIndexKeepsALinkedLock(t *testing.T) {
	const to = "sparse+https://registry.example/index/"
	project, elsewhere := t.TempDir(), t.TempDir()
	real, link := filepath.Join(elsewhere, "locked"), filepath.Join(project, "Cargo.lock")
	lock := "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"" + index + "\"\n"
	if err := os.WriteFile(real, []byte(lock), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	changes, err := MoveIndex(project, index, to)
	if err != nil || len(changes) != 2 || changes[1] != (Change{Path: link, Changed: true}) {
		t.Fatalf("%+v, %v", changes, err)
	}
	info, err := os.Lstat(link)
	if err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", info.Mode(), err)
	}
	moved, err := os.ReadFile(real)
	if err != nil || string(moved) != strings.Replace(lock, index, to, 1) {
		t.Errorf("%s, %v", moved, err)
	}
}
