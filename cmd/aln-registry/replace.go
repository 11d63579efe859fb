package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// replacement is a catalog in the making, in the place of the one that is there.
type replacement struct {
	db *catalog.DB // empty at first
	// old opens the one that is there; fs.ErrNotExist where there is none.
	old func(ctx context.Context) (*catalog.DB, error)
	// peek is old that does not migrate: only where the log ends may be asked for.
	peek func(ctx context.Context) (*catalog.DB, error)
	// finish closes db and puts it in place, durably. The old one is kept as kept.
	finish func(ctx context.Context) (kept string, err error)
	// close gives up what was not finished; the old one stays.
	close func()
}

// replaceCatalog begins a replacement of n's catalog; waits is told for whom a database waits.
func (n *node) replaceCatalog(ctx context.Context, waits func([]catalog.Session)) (replacement, error) {
	if n.engines.db == "" {
		return replaceFile(ctx, n.folder)
	}
	var r *catalog.Replacement
	err := n.engines.await(ctx, n.config.Log, "the database", func() (err error) {
		r, err = catalog.ReplacePostgres(ctx, n.engines.db, waits)
		return err
	})
	if err != nil {
		return replacement{}, err
	}
	old := func(ctx context.Context) (*catalog.DB, error) { return catalog.AttachPostgres(ctx, n.engines.db) }
	return replacement{
		db: r.DB, close: func() { r.Close() },
		old: old, peek: old,
		finish: func(ctx context.Context) (string, error) { return r.Finish(ctx, time.Now()) },
	}, nil
}

// rebuildingFile is the new catalog while it is not complete.
const rebuildingFile = catalogFile + ".rebuilding"

func replaceFile(ctx context.Context, folder string) (replacement, error) {
	current, rebuilding := filepath.Join(folder, catalogFile), filepath.Join(folder, rebuildingFile)
	if err := removeCatalog(rebuilding); err != nil {
		return replacement{}, err
	}
	db, err := catalog.OpenSQLite(ctx, rebuilding)
	if err != nil {
		return replacement{}, err
	}
	return replacement{
		db: db, close: func() { db.Close() },
		old: func(ctx context.Context) (*catalog.DB, error) {
			if _, err := os.Stat(current); err != nil {
				return nil, err
			}
			return catalog.OpenSQLite(ctx, current)
		},
		peek: func(context.Context) (*catalog.DB, error) { return catalog.PeekSQLite(current) },
		finish: func(context.Context) (kept string, err error) {
			if err := db.Close(); err != nil { // so that all of it is in one file
				return "", err
			}
			if _, err := os.Stat(current); err == nil {
				if kept, err = setAside(current); err != nil {
					return "", err
				}
			} else if err := removeCatalog(current); err != nil { // a WAL without its database
				return "", err
			}
			if err := durable.Replace(rebuilding, current); err != nil {
				return "", err
			}
			return kept, durable.SyncDir(folder)
		},
	}, nil
}

// setAside renames the catalog at path, with what belongs to it, to a free name.
func setAside(path string) (kept string, err error) {
	kept = path + ".before-rebuild"
	for i := 2; ; i++ {
		if _, err := os.Stat(kept); errors.Is(err, fs.ErrNotExist) {
			break
		}
		kept = fmt.Sprintf("%s.before-rebuild-%d", path, i)
	}
	for _, suffix := range catalogSuffixes {
		err := durable.Replace(path+suffix, kept+suffix)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return kept, nil
}

// catalogSuffixes are the files of an SQLite database, itself last: until its
// rename the old state is whole.
var catalogSuffixes = []string{"-shm", "-wal", ""}

func removeCatalog(path string) error {
	for _, suffix := range catalogSuffixes {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
