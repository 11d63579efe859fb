// Package durable writes files that survive a crash at any moment: a file is
// written under a temporary name, synced, closed, renamed into place and its
// folder synced. A reader never sees half a file, and one that opened the file
// with Open goes on reading the old one. Key files, pins and the blob directory
// are all written through it.
//
// A mode that lets nobody but the owner in (0600, 0700) holds on every system: on
// Windows the file or folder is made with an access list of its own that names
// the user alone and inherits nothing. Other modes mean nothing there; such files
// are as open as their folder says.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFile replaces the file at path with data, durably and atomically. The
// folder must exist. The file gets exactly mode, whatever the umask.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, Replace)
}

// CreateFile is WriteFile for a file that must not exist yet: if path exists
// the error satisfies errors.Is(err, fs.ErrExist) and the file is untouched.
func CreateFile(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, Place)
}

func write(path string, data []byte, mode fs.FileMode, place func(temporary, path string) error) (err error) {
	f, err := createTemporary(path, mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		f.Close()
		if removeErr := os.Remove(f.Name()); removeErr != nil && !errors.Is(removeErr, fs.ErrNotExist) && err == nil {
			err = removeErr
		}
	}()
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	if err := f.Close(); err != nil { // Windows renames no open file
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := place(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}

// private reports whether mode lets nobody but the owner in.
func private(mode fs.FileMode) bool { return mode.Perm()&0o077 == 0 }

// SyncDir makes the names in folder durable.
func SyncDir(folder string) error {
	if err := syncDir(folder); err != nil {
		return fmt.Errorf("sync folder %s: %w", folder, err)
	}
	return nil
}

// MkdirAll makes folder and its parents with mode, and makes every new name
// durable, also one that another process has made and not synced yet.
func MkdirAll(folder string, mode fs.FileMode) error {
	if info, err := os.Stat(folder); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("make folder %s: %w", folder, &fs.PathError{Op: "mkdir", Path: folder, Err: fs.ErrExist})
		}
		// A parent that may not be read was made by somebody else, long ago.
		if err := SyncDir(filepath.Dir(folder)); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
		return nil
	}
	parent := filepath.Dir(folder)
	if parent != folder {
		if err := MkdirAll(parent, mode); err != nil {
			return err
		}
	}
	return Mkdir(folder, mode)
}

// Mkdir makes folder with mode where it is not there, and makes its name durable, whoever made it.
// The parent is there, and durable.
func Mkdir(folder string, mode fs.FileMode) error {
	if err := mkdir(folder, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make folder %s: %w", folder, err)
	}
	return SyncDir(filepath.Dir(folder))
}
