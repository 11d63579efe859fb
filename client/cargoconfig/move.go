package cargoconfig

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"phoenix-lab.org/aln-registry/durable"
)

// maxLock bounds a Cargo.lock, in bytes.
const maxLock = 64 << 20

// MoveIndex writes to where old, the index URL of a registry that has moved,
// stands in the project at dir: as the index of a registry in its
// .cargo/config.toml, and as the source of packages in its Cargo.lock, whose
// checksums stay and hold the new place to the same bytes. Errors: ErrManual.
func MoveIndex(dir, old, to string) ([]Change, error) {
	lines := fmt.Sprintf("index = %s\n", quote(to))
	config, err := edit(filepath.Join(dir, ".cargo"), lines, func(d *document) error {
		name := nameOf(d.decoded, old)
		if name == "" {
			return nil
		}
		if other := nameOf(d.decoded, to); other != "" {
			return fmt.Errorf("it calls the registry's new URL %q already; remove the old one", other)
		}
		return d.replace([]string{"registries", name, "index"}, quote(to), to)
	})
	if err != nil {
		return nil, err
	}
	lock, err := moveLock(filepath.Join(dir, "Cargo.lock"), old, to)
	return []Change{config, lock}, err
}

// moveLock replaces the source of packages in a Cargo.lock, which cargo alone
// writes and always spells alike. Where a link leads to it, that stays.
func moveLock(path, old, to string) (Change, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Change{Path: path}, nil
	}
	if err != nil {
		return Change{}, fmt.Errorf("cargo's lock file: %w", err)
	}
	info, err := os.Stat(real)
	if err != nil {
		return Change{}, fmt.Errorf("cargo's lock file: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxLock {
		return Change{}, fmt.Errorf("cargo's lock file: %s is not a regular file of at most %d bytes", path, maxLock)
	}
	data, err := os.ReadFile(real)
	if err != nil {
		return Change{}, fmt.Errorf("cargo's lock file: %w", err)
	}
	moved := bytes.ReplaceAll(data, []byte("\nsource = "+quote(old)), []byte("\nsource = "+quote(to)))
	// Where two packages have one name, dependencies are written "name version (source)".
	moved = bytes.ReplaceAll(moved, []byte(" ("+old+")\""), []byte(" ("+to+")\""))
	if bytes.Equal(moved, data) {
		return Change{Path: path}, nil
	}
	return Change{Path: path, Changed: true}, durable.WriteFile(real, moved, info.Mode().Perm())
}
