//go:build unix

package main

import (
	"os"
	"path/filepath"
	"testing"
)

// Cargo reads the configurations above the folder that it really runs in, whatever
// link leads there, and those of the folder where it runs, whatever lock is named.
func TestPreflightLooksWhereCargoReads(t *testing.T) {
	top := t.TempDir()
	t.Setenv("CARGO_HOME", filepath.Join(top, "home"))
	for name, text := range map[string]string{
		"above/.cargo/config.toml":     "paths = [\"/over\"]\n",
		"above/p/Cargo.toml":           "[package]\nname = \"app\"\nversion = \"0.1.0\"\n[workspace]\nmembers = [\"m\"]\n",
		"above/p/Cargo.lock":           "version = 4\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\n",
		"above/p/m/Cargo.toml":         "[package]\nname = \"m\"\nversion = \"0.1.0\"\n",
		"above/p/m/.cargo/config.toml": "paths = [\"/member\"]\n",
	} {
		path := filepath.Join(top, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, path, text)
	}
	link := filepath.Join(top, "link")
	if err := os.Symlink(filepath.Join(top, "above", "p"), link); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		dir, lock string
		want      int
	}{
		"the project":              {"above/p", "", 1},
		"by a link":                {"link", "", 1},
		"a member":                 {"above/p/m", "", 2},
		"a member by a link":       {"link/m", "", 2},
		"a lock named in a member": {"above/p/m", "../Cargo.lock", 2},
		"a lock named by a link":   {".", "link/Cargo.lock", 1},
	} {
		t.Chdir(filepath.Join(top, filepath.FromSlash(c.dir)))
		b, err := readBuild(preflightFlags{lock: c.lock})
		if err != nil || len(b.Overrides) != c.want {
			t.Errorf("%s: %+v, want %d; %v", name, b.Overrides, c.want, err)
		}
	}
}
