package durable

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/windows"
)

// createTemporary makes an empty file beside path. A private one has its access
// list from the beginning: who opened it before would read what is written later.
func createTemporary(path string, mode fs.FileMode) (*os.File, error) {
	if !private(mode) {
		return os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*")
	}
	attributes, err := ownerAlone("")
	if err != nil {
		return nil, err
	}
	name := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp-"+rand.Text())
	return open(name, windows.GENERIC_READ|windows.GENERIC_WRITE, 0, attributes, windows.CREATE_NEW, windows.FILE_ATTRIBUTE_NORMAL)
}

// CreateUnnamed makes a private file in folder ("" is the system's) that is gone
// when it is closed, or with this process, however that ends. (Until then it has a
// name: Windows removes no name of an open file at once.)
func CreateUnnamed(folder string) (*os.File, error) {
	attributes, err := ownerAlone("")
	if err != nil {
		return nil, err
	}
	if folder == "" {
		folder = os.TempDir()
	}
	name := filepath.Join(folder, "unnamed-"+rand.Text())
	return open(name, windows.GENERIC_READ|windows.GENERIC_WRITE|windows.DELETE, windows.FILE_SHARE_DELETE, attributes,
		windows.CREATE_NEW, windows.FILE_ATTRIBUTE_TEMPORARY|windows.FILE_FLAG_DELETE_ON_CLOSE)
}

// shareAll lets others do with an open file what Unix lets them.
const shareAll = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE

func open(path string, access, share uint32, attributes *windows.SecurityAttributes, how, flags uint32) (*os.File, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err == nil {
		var handle windows.Handle
		if handle, err = windows.CreateFile(name, access, share, attributes, how, flags, 0); err == nil {
			return os.NewFile(uintptr(handle), path), nil
		}
	}
	return nil, &fs.PathError{Op: "open", Path: path, Err: err}
}

// Open opens the file at path for reading, and keeps nobody from replacing or
// removing it meanwhile, as os.Open does on Windows.
func Open(path string) (f *os.File, err error) {
	err = patiently(func() error {
		f, err = open(path, windows.GENERIC_READ, shareAll, nil, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS)
		return err
	})
	return f, err
}

// Replace gives the closed file temporary the name path, atomically, whatever file
// has it. MoveFileEx does so unless somebody has that file open. A rename by the
// rules of POSIX (Windows 10, NTFS) does so then too, if they share its deletion, as
// Open, Rust's programs and so cargo do; for all others it waits a little.
// ReplaceFile would keep the old file's access list, and can fail half-way.
func Replace(temporary, path string) error {
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		return &os.LinkError{Op: "rename", Old: temporary, New: path, Err: fs.ErrExist}
	}
	return patiently(func() error {
		err := os.Rename(temporary, path)
		if inUse(err) && renamePOSIX(temporary, path) == nil {
			return nil
		}
		return err
	})
}

// Place gives the closed file temporary the name path, atomically, unless there is
// something of that name (fs.ErrExist). The file may keep its first name too, which
// is the caller's to remove.
func Place(temporary, path string) error {
	err := patiently(func() error { return move(temporary, path) })
	if err != nil {
		return &os.LinkError{Op: "rename", Old: temporary, New: path, Err: err}
	}
	return nil
}

func move(from, to string) error {
	source, err := windows.UTF16PtrFromString(from)
	if err != nil {
		return err
	}
	target, err := windows.UTF16PtrFromString(to)
	if err != nil {
		return err
	}
	return windows.MoveFileEx(source, target, 0) // without MOVEFILE_REPLACE_EXISTING
}

// renamePOSIX renames as os.Root does: FILE_RENAME_POSIX_SEMANTICS, within the
// nearest folder that holds both.
func renamePOSIX(from, to string) error {
	for folder := filepath.Dir(to); ; folder = filepath.Dir(folder) {
		source, err := filepath.Rel(folder, from)
		if err != nil {
			return err
		}
		if !filepath.IsLocal(source) && folder != filepath.Dir(folder) {
			continue
		}
		target, err := filepath.Rel(folder, to)
		if err != nil {
			return err
		}
		root, err := os.OpenRoot(folder)
		if err != nil {
			return err
		}
		defer root.Close()
		return root.Rename(source, target)
	}
}

// attempts bounds how long patiently tries: about two seconds.
const attempts = 12

// patiently does what another program may be in the way of: a scanner that looks
// into each new file, a reader that shares nothing. Windows says then that access is
// denied, as it does where it always will be.
func patiently(do func() error) error {
	wait := time.Millisecond
	for attempt := 1; ; attempt++ {
		err := do()
		if !inUse(err) || attempt == attempts {
			return err
		}
		time.Sleep(wait)
		wait *= 2
	}
}

func inUse(err error) bool {
	return errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_ACCESS_DENIED)
}

func mkdir(folder string, mode fs.FileMode) error {
	if !private(mode) {
		return os.Mkdir(folder, mode)
	}
	attributes, err := ownerAlone("OICI") // also what will be made in it
	if err != nil {
		return err
	}
	name, err := windows.UTF16PtrFromString(folder)
	if err == nil {
		err = windows.CreateDirectory(name, attributes)
	}
	if err != nil {
		return &fs.PathError{Op: "mkdir", Path: folder, Err: err}
	}
	return nil
}

// The rights by which names are put into a folder; either is one to flush it by.
const (
	addFile      = windows.FILE_WRITE_DATA
	addSubfolder = windows.FILE_APPEND_DATA
)

// syncDir flushes the folder, which NTFS, ReFS and shares take from whoever may put
// names into it. (NTFS journals names anyway, in order; but not durably at once.)
func syncDir(folder string) error {
	var f *os.File
	var err error
	for _, right := range []uint32{addFile, addSubfolder} {
		f, err = open(folder, right|windows.SYNCHRONIZE, shareAll, nil, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS)
		if err == nil {
			defer f.Close()
			return f.Sync()
		}
	}
	return err
}
