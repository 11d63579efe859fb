package catalog

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/durable"
)

// copiesKept is how many copies from before migrations there are at most.
const copiesKept = 3

// errNoCopy: the database could not be copied, so it was not migrated either.
var errNoCopy = errors.New("the catalog cannot be copied before its migration; make room beside it")

// copyBefore copies the database db at path, whole and durable, to
// <path>.before-<version>, or with -2, -3, … where that is taken, before it is
// migrated to version; older copies than the newest few are removed. undo
// removes the copy. To go back to the program before: stop the server and put
// the copy in the catalog's place.
func copyBefore(ctx context.Context, db *sql.DB, path string, version int64) (undo func(), err error) {
	name, err := freeName(fmt.Sprintf("%s.before-%d", path, version))
	if err == nil {
		err = copySQLite(ctx, db, path+".copying", name)
	}
	if err == nil {
		err = removeOldCopies(path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoCopy, err)
	}
	return func() { os.Remove(name) }, nil
}

// freeName is name, or name-2, name-3, …: the first that nothing has.
func freeName(name string) (string, error) {
	free := name
	for i := 2; ; i++ {
		_, err := os.Lstat(free)
		if errors.Is(err, fs.ErrNotExist) {
			return free, nil
		}
		if err != nil {
			return "", err
		}
		free = fmt.Sprintf("%s-%d", name, i)
	}
}

// copySQLite writes db to the file at temporary and renames it to path when it is durable.
func copySQLite(ctx context.Context, db *sql.DB, temporary, path string) error {
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := touch(temporary); err != nil {
		return err
	}
	defer os.Remove(temporary)
	if _, err := db.ExecContext(ctx, "VACUUM INTO $1", temporary); err != nil {
		return err
	}
	f, err := os.OpenFile(temporary, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := durable.Replace(temporary, path); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

// removeOldCopies leaves the newest copies of the database at path.
func removeOldCopies(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	type copied struct {
		name string
		time time.Time
	}
	var copies []copied
	for _, e := range entries {
		version, ours := strings.CutPrefix(e.Name(), filepath.Base(path)+".before-")
		if !ours || strings.Trim(version, "0123456789-") != "" { // what rebuild has set aside is not ours
			continue
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		copies = append(copies, copied{e.Name(), info.ModTime()})
	}
	slices.SortFunc(copies, func(a, b copied) int { return cmp.Or(b.time.Compare(a.time), cmp.Compare(b.name, a.name)) })
	for _, c := range copies[min(copiesKept, len(copies)):] {
		if err := os.Remove(filepath.Join(filepath.Dir(path), c.name)); err != nil {
			return err
		}
	}
	return nil
}
