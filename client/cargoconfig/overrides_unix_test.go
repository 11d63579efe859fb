//go:build unix

package cargoconfig

import (
	"os"
	"path/filepath"
	"testing"
)

// What leads out of the project by a link is without it.
func TestOverridesFollowLinks(t *testing.T) {
	root, home := project(t, map[string]string{"p/Cargo.toml": crate + "[dependencies]\nv = { path = \"v\" }\n", "v/Cargo.toml": crate})
	if err := os.Symlink(filepath.Join("..", "v"), filepath.Join(root, "v")); err != nil {
		t.Fatal(err)
	}
	found, err := Overrides(root, root, home)
	if err != nil || len(found) != 1 || found[0].Kind != OverridePath {
		t.Errorf("%+v, %v", found, err)
	}
}
