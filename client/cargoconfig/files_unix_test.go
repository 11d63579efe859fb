//go:build unix

package cargoconfig

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Opening a pipe would wait for ever, and no signal would end it.
func TestPipesAreNotOpened(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, ".cargo"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, ".cargo", "config.toml"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := SetIndex(dir, filepath.Join(dir, "cargo"), "aln", index); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("%v", err)
	}
}

func TestFileKeepsItsModeNameAndLink(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	real := filepath.Join(elsewhere, "dotfile")
	if err := os.WriteFile(real, []byte("[build]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, ".cargo"), 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, ".cargo", "config") // the older name, which cargo prefers
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(link+".toml", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	change, err := SetIndex(dir, filepath.Join(dir, "cargo"), "aln", index)
	if err != nil || !change.Changed || change.Path != link {
		t.Fatalf("%+v, %v", change, err)
	}
	data, _ := os.ReadFile(real)
	info, _ := os.Stat(real)
	linkInfo, _ := os.Lstat(link)
	if !strings.Contains(string(data), index) || info.Mode().Perm() != 0o600 || linkInfo.Mode()&os.ModeSymlink == 0 {
		t.Errorf("%s with mode %v, link %v", data, info.Mode(), linkInfo.Mode())
	}
	if other, _ := os.ReadFile(link + ".toml"); len(other) != 0 {
		t.Errorf("the other file has %s", other)
	}
}
