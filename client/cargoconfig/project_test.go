package cargoconfig

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A project's root is where cargo itself says that it is.
func TestFindProject(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	crate := func(name, more string) string {
		return "[package]\nname = \"" + name + "\"\nversion = \"0.1.0\"\nedition = \"2021\"\n" + more
	}
	for path, data := range map[string]string{
		"ws/Cargo.toml": "[workspace]\nmembers = [\"a\", \"out/kept\", \"../beside\"]\nexclude = [\"out\"]\nresolver = \"2\"\n", "ws/a/Cargo.toml": crate("a", ""),
		"ws/out/Cargo.toml": crate("out", ""), "ws/outer/Cargo.toml": crate("outer", "[workspace]\n"), "ws/out/kept/Cargo.toml": crate("kept", ""),
		"beside/Cargo.toml": crate("beside", "workspace = \"../ws\"\n"), "alone/Cargo.toml": crate("alone", ""), "alone/deep/er/x": "", "none/x": "",
	} {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Join(filepath.Dir(path), "src"), 0o755); err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string]string{path: data, filepath.Join(filepath.Dir(path), "src", "lib.rs"): ""} {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for dir, want := range map[string]string{
		"ws": "ws", "ws/a": "ws", "ws/a/src": "ws", "ws/out": "ws/out", "ws/out/src": "ws/out", "ws/out/kept": "ws", "ws/outer": "ws/outer",
		"beside": "ws", "beside/src": "ws", "alone": "alone", "alone/deep/er": "alone",
	} {
		dir = filepath.Join(root, dir)
		if got, ok := FindProject(dir); !ok || got != filepath.Join(root, want) {
			t.Errorf("%s: %s, %v", dir, got, ok)
		}
		locate := exec.Command("cargo", "locate-project", "--workspace", "--message-format", "plain")
		locate.Dir = dir
		if said, err := locate.CombinedOutput(); err != nil || strings.TrimSpace(string(said)) != filepath.Join(root, want, "Cargo.toml") {
			t.Errorf("%s: cargo says %s (%v), want %s", dir, said, err, want)
		}
	}
	if got, ok := FindProject(filepath.Join(root, "none")); ok {
		t.Errorf("none: %s", got)
	}
}
