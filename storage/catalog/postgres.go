package catalog

import (
	"context"
	"errors"
)

var errNotYet = errors.New("not yet")

// OpenPostgres opens the catalog in the PostgreSQL database at url, which is
// made where the database is empty. A schema with pending migrations is
// ErrOldSchema, one newer than this program's ErrNewerSchema.
func OpenPostgres(ctx context.Context, url string) (*DB, error) { return nil, errNotYet }

// Schema is what a database has of this program's migrations.
type Schema struct {
	Current, Known int64 // versions: the database's, and the newest that this program knows
	Pending        []string
}

// PostgresSchema reads what the database at url has. It writes nothing.
func PostgresSchema(ctx context.Context, url string) (Schema, error) { return Schema{}, errNotYet }

// MigratePostgres migrates the database at url to what this program knows,
// alone, and calls step, which may be nil, after each migration. It returns what the database has then.
func MigratePostgres(ctx context.Context, url string, step func(name string)) (Schema, error) {
	return Schema{}, errNotYet
}
