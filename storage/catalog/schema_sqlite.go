package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"

	"phoenix-lab.org/aln-registry/migrations"
)

// SQLiteSchema reads what the catalog in the file at path has, which must be there
// (fs.ErrNotExist). It changes nothing; others may have it open.
func SQLiteSchema(ctx context.Context, path string) (schema Schema, err error) {
	if path, err = existing(path); err != nil {
		return Schema{}, err
	}
	db, err := sql.Open("sqlite", sqliteName(path, "_pragma=query_only(1)"))
	if err != nil {
		return Schema{}, fmt.Errorf("open catalog %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var there int
	row := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM sqlite_master WHERE name = $1", goose.DefaultTablename)
	if err := row.Scan(&there); err != nil {
		return Schema{}, fmt.Errorf("open catalog %s: %w", path, failed(ctx, "read the schema", err))
	}
	if there > 0 {
		row := db.QueryRowContext(ctx, "SELECT COALESCE(MAX(version_id), 0) FROM "+goose.DefaultTablename+" WHERE is_applied = 1")
		if err := row.Scan(&schema.Current); err != nil {
			return Schema{}, fmt.Errorf("open catalog %s: %w", path, failed(ctx, "read the schema", err))
		}
	}
	folder, err := fs.Sub(migrations.SQLite, "sqlite")
	if err != nil {
		return Schema{}, err
	}
	err = schema.compare(folder)
	return schema, err
}

// compare fills in what the migrations in folder would do to a schema of version Current.
func (s *Schema) compare(folder fs.FS) error {
	names, err := fs.Glob(folder, "*.sql") // sorted
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return errors.New("no migrations")
	}
	for _, name := range names {
		version, err := goose.NumericComponent(name)
		if err != nil {
			return err
		}
		if s.Known = version; version > s.Current {
			s.Pending = append(s.Pending, name)
		}
	}
	return nil
}
