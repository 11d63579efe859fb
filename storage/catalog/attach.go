package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pressly/goose/v3"

	"phoenix-lab.org/aln-registry/migrations"
)

// AttachSQLite opens the catalog in the file at path as it is, beside whoever else
// has it open: it makes no file (fs.ErrNotExist) and changes no schema; an older
// one than this program's is ErrOldSchema, a newer one ErrNewerSchema.
func AttachSQLite(ctx context.Context, path string) (*DB, error) {
	db, err := openSQLiteFile(path)
	if err != nil {
		return nil, err
	}
	if err := db.checkSchema(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open catalog %s: %w", path, err), db.Close())
	}
	return db, nil
}

// PeekSQLite is AttachSQLite whatever the schema is: only what every release has
// stored alike may be asked for, which is the head, entries, hashes and what is published.
func PeekSQLite(path string) (*DB, error) { return openSQLiteFile(path) }

func openSQLiteFile(path string) (*DB, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	if info, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("open catalog: %w", err)
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("open catalog %s: it is no file", path)
	}
	return openSQLitePools(path)
}

// checkSchema compares the schema with this program's.
func (db *DB) checkSchema(ctx context.Context) error {
	folder, err := fs.Sub(migrations.SQLite, "sqlite")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db.write, folder, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	var current int64
	row := db.q.QueryRowContext(ctx, "SELECT COALESCE(MAX(version_id), 0) FROM "+goose.DefaultTablename+" WHERE is_applied")
	if err := row.Scan(&current); err != nil {
		return failed(ctx, "read the schema's version", err)
	}
	sources := provider.ListSources()
	switch known := sources[len(sources)-1].Version; {
	case current > known:
		return fmt.Errorf("%w (its schema has version %d, this release knows up to %d)", ErrNewerSchema, current, known)
	case current < known:
		return fmt.Errorf("%w (its schema has version %d, this release's is %d; the next start of the server brings it up to date)", ErrOldSchema, current, known)
	}
	return nil
}

// copyTo is the query that writes a database into a new file.
const copyTo = "VACUUM INTO $1"

// CopySQLite writes what db holds at one moment to a new file at path, whole and
// durable, while others go on reading and writing. A file that is there is replaced when the
// copy is complete.
func (db *DB) CopySQLite(ctx context.Context, path string) error {
	return failed(ctx, "copy the catalog", copySQLite(ctx, db.read, path+".copying", path))
}

// SetPublishedIn makes the catalog in the file at path, which nobody has open and
// which no registry was ever served from, say that p is published: smaller than it
// said, if need be. It is for copies.
func SetPublishedIn(ctx context.Context, path string, p Published) error {
	db, err := openSQLiteFile(path)
	if err != nil {
		return err
	}
	_, err = db.write.ExecContext(ctx, "UPDATE published SET size = $1, checkpoint = $2 WHERE id = 1 AND $1 <= (SELECT size FROM head WHERE id = 1)",
		p.Size, blob(p.Checkpoint))
	return errors.Join(failed(ctx, "set what a copy says is published", err), db.Close())
}
