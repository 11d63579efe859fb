package cargoconfig

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// FindProject returns the root of the project that cargo, run in dir, works on:
// its Cargo.lock lies there, and all of the project reads the .cargo/config.toml
// there. It is the root of the workspace that the nearest Cargo.toml belongs to,
// by cargo's own rule, or the folder of that one. false when dir is in no project.
func FindProject(dir string) (string, bool) {
	nearest, found := "", false
	for {
		m, ok := readManifest(dir)
		if ok && !found {
			nearest, found = dir, true
		}
		switch root := m.pointer; {
		case ok && filepath.IsAbs(root):
			return filepath.Clean(root), true
		case ok && root != "":
			return filepath.Join(dir, filepath.FromSlash(root)), true
		case ok && m.workspace != nil && !m.excludes(dir, nearest):
			return dir, true
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return nearest, found
		}
		dir = parent
	}
}

// manifest is what a Cargo.toml says of its package and of workspaces.
type manifest struct {
	// name is its package.name, "" for none.
	name string
	// workspace is its [workspace], nil for none.
	workspace map[string]any
	// pointer is its package.workspace, the way to the root, "" for none.
	pointer string
}

// readManifest reads the Cargo.toml in dir; one that is no TOML says nothing.
func readManifest(dir string) (manifest, bool) {
	data, err := os.ReadFile(filepath.Join(dir, "Cargo.toml"))
	if err != nil {
		return manifest{}, false
	}
	var m manifest
	var decoded map[string]any
	if toml.Unmarshal(data, &decoded) == nil {
		m.workspace, _ = decoded["workspace"].(map[string]any)
		pointer, _ := lookup(decoded, "package", "workspace")
		m.pointer, _ = pointer.(string)
		name, _ := lookup(decoded, "package", "name")
		m.name, _ = name.(string)
	}
	return m, true
}

// PackageIn is the name of the package whose Cargo.toml is in dir, "" where there is none.
func PackageIn(dir string) string {
	m, _ := readManifest(dir)
	return m.name
}

// excludes reports whether the workspace at root leaves member out: below a
// folder that it excludes, and below none that it names as a member.
func (m manifest) excludes(root, member string) bool {
	below := func(key string) bool {
		list, _ := m.workspace[key].([]any)
		for _, element := range list {
			text, _ := element.(string)
			folder := filepath.Join(root, filepath.FromSlash(text))
			if member == folder || strings.HasPrefix(member, folder+string(filepath.Separator)) {
				return true
			}
		}
		return false
	}
	return below("exclude") && !below("members")
}
