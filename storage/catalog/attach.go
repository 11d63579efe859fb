package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// AttachSQLite opens the catalog in the file at path as it is, beside whoever else
// has it open: it makes no file (fs.ErrNotExist) and changes no schema; an older
// one than this program's is ErrOldSchema, a newer one ErrNewerSchema.
func AttachSQLite(ctx context.Context, path string) (*DB, error) {
	schema, err := SQLiteSchema(ctx, path)
	switch {
	case err != nil:
		return nil, err
	case schema.Current > schema.Known:
		return nil, fmt.Errorf("open catalog %s: %w", path, schema.newer())
	case schema.Current < schema.Known:
		return nil, fmt.Errorf("open catalog %s: %w", path, ErrOldSchema)
	}
	return PeekSQLite(path)
}

// AttachPostgres is OpenPostgres for who only looks: where there is no catalog it makes
// none (fs.ErrNotExist), and it migrates nothing, also where the log is empty.
func AttachPostgres(ctx context.Context, url string) (*DB, error) {
	config, err := postgresConfig(url)
	if err != nil {
		return nil, err
	}
	schema, err := schemaOf(ctx, config)
	switch {
	case err != nil:
	case schema.Current == 0:
		return nil, fmt.Errorf("the database %s holds no catalog: %w", whereabouts(config), fs.ErrNotExist)
	case schema.Current > schema.Known:
		err = schema.newer()
	case schema.Current < schema.Known:
		err = schema.older()
	}
	if err != nil {
		return nil, fmt.Errorf("open catalog %s: %w", whereabouts(config), err)
	}
	return connectPostgres(ctx, config)
}

// PeekSQLite is AttachSQLite whatever the schema is: only what every release has
// stored alike may be asked for, which is the head, entries, hashes and what is published.
func PeekSQLite(path string) (*DB, error) {
	path, err := existing(path)
	if err != nil {
		return nil, err
	}
	return openSQLitePools(path)
}

// existing makes path absolute; nothing there is fs.ErrNotExist.
func existing(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return "", fmt.Errorf("open catalog: %w", err)
	}
	return path, nil
}

// CopySQLite writes what db holds at one moment to a new file at path, whole and
// durable, while others go on reading and writing. A file that is there is replaced when the
// copy is complete.
func (db *DB) CopySQLite(ctx context.Context, path string) error {
	return failed(ctx, "copy the catalog", copySQLite(ctx, db.write, path+".copying", path))
}

// SetPublishedIn makes the catalog in the file at path, which nobody has open and
// which no registry was ever served from, say that p is published, also if that is less than
// it said; above its head is ErrPublishedAhead. It is for copies.
func SetPublishedIn(ctx context.Context, path string, p Published) error {
	db, err := PeekSQLite(path)
	if err != nil {
		return err
	}
	err = db.Update(ctx, func(t *Tx) error { return t.setPublished(ctx, 0, p) })
	return errors.Join(err, db.Close())
}
