//go:build unix

package durable

import (
	"io/fs"
	"os"
	"path/filepath"
)

// createTemporary makes an empty file beside path, with exactly mode.
func createTemporary(path string, mode fs.FileMode) (*os.File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(mode); err != nil {
		f.Close()
		os.Remove(f.Name())
		return nil, err
	}
	return f, nil
}

// CreateUnnamed makes a private file in folder ("" is the system's) that is gone
// when it is closed, or with this process, however that ends.
func CreateUnnamed(folder string) (*os.File, error) {
	f, err := os.CreateTemp(folder, "unnamed-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Open opens the file at path for reading, and keeps nobody from replacing or
// removing it meanwhile.
func Open(path string) (*os.File, error) { return os.Open(path) }

// Replace gives the closed file temporary the name path, atomically, whatever file has it.
func Replace(temporary, path string) error { return os.Rename(temporary, path) }

// Place gives the closed file temporary the name path, atomically, unless there is
// something of that name (fs.ErrExist): unlike rename, link never replaces. The
// file may keep its first name too, which is the caller's to remove.
func Place(temporary, path string) error { return os.Link(temporary, path) }

func mkdir(folder string, mode fs.FileMode) error { return os.Mkdir(folder, mode) }

func syncDir(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
