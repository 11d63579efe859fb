package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"

	"phoenix-lab.org/aln-registry/migrations"
)

// Schema is what a database has of this program's migrations.
type Schema struct {
	Current, Known int64    // versions: the database's, and the newest that this program knows
	Pending        []string // file names of the migrations between, in order
}

// PostgresSchema reads what the database at url has; Current is 0 where it is
// empty. It writes nothing.
func PostgresSchema(ctx context.Context, url string) (Schema, error) {
	config, err := postgresConfig(url)
	if err != nil {
		return Schema{}, err
	}
	return schemaOf(ctx, config)
}

// MigratePostgres brings the schema of the database at url up to date, alone
// among all who try, and calls step, which may be nil, after each migration. It
// returns what the database has then. A migration that fails changes nothing;
// those before it stay. Of one that waits for more than some seconds for a table
// that is in use, the error is ErrUnavailable. A newer schema is ErrNewerSchema.
func MigratePostgres(ctx context.Context, url string, step func(name string)) (Schema, error) {
	config, err := postgresConfig(url)
	if err != nil {
		return Schema{}, err
	}
	if err := migratePostgres(ctx, config, migrations.Postgres, false, step); err != nil {
		return Schema{}, fmt.Errorf("migrate catalog %s: %w", whereabouts(config), err)
	}
	return schemaOf(ctx, config)
}

// readyPostgres sees to it that the database has the schema of this program. One
// with an empty log, which nobody has begun to use, is migrated.
func readyPostgres(ctx context.Context, config *pgx.ConnConfig) error {
	schema, err := schemaOf(ctx, config)
	if err != nil {
		return err
	}
	if schema.Current == schema.Known {
		return nil
	}
	if schema.Current > schema.Known {
		return schema.newer()
	}
	return migratePostgres(ctx, config, migrations.Postgres, true, nil)
}

func (s Schema) newer() error {
	return fmt.Errorf("%w (its schema has version %d, this release knows up to %d)", ErrNewerSchema, s.Current, s.Known)
}

func (s Schema) older() error {
	return fmt.Errorf("%w (its schema has version %d, this release needs %d)", ErrOldSchema, s.Current, s.Known)
}

// schemaOf reads what the database has of this program's migrations.
func schemaOf(ctx context.Context, config *pgx.ConnConfig) (Schema, error) {
	folder, err := fs.Sub(migrations.Postgres, "postgres")
	if err != nil {
		return Schema{}, err
	}
	pool := pgSession{statement: statementTimeout, lock: lockTimeout}.pool(config, 1)
	defer pool.Close()
	return schemaBy(ctx, pool, folder)
}

// schemaBy reads what the database has of the migrations in folder.
func schemaBy(ctx context.Context, pool *sql.DB, folder fs.FS) (schema Schema, err error) {
	if err := inASchema(ctx, pool); err != nil {
		return Schema{}, err
	}
	if schema.Current, err = schemaVersion(ctx, pool); err != nil {
		return Schema{}, failed(ctx, "read its schema", err)
	}
	err = schema.compare(folder)
	return schema, err
}

// inASchema refuses a database in which the address's search_path names no schema that is
// there: nothing would find a place.
func inASchema(ctx context.Context, pool *sql.DB) error {
	var there bool
	var named, user string
	err := pool.QueryRowContext(ctx, "SELECT current_schema() IS NOT NULL, current_setting('search_path'), current_user").Scan(&there, &named, &user)
	if err != nil {
		return failed(ctx, "look for its schema", err)
	}
	if there {
		return nil
	}
	if i := strings.LastIndex(named, ","); i >= 0 { // "$user" comes first
		named = named[i+1:]
	}
	name := quoted(strings.Trim(named, ` "`))
	return fmt.Errorf("there is no schema %[1]s that this role may use (search_path in the database's URL); in that database, CREATE SCHEMA %[1]s AUTHORIZATION %[2]s makes it", name, quoted(user))
}

// schemaVersion is the newest migration that the database has; 0 for none.
func schemaVersion(ctx context.Context, pool *sql.DB) (version int64, err error) {
	var there bool
	if err := pool.QueryRowContext(ctx, "SELECT to_regclass('"+goose.DefaultTablename+"') IS NOT NULL").Scan(&there); err != nil || !there {
		return 0, err
	}
	err = pool.QueryRowContext(ctx, "SELECT COALESCE(MAX(version_id), 0) FROM "+goose.DefaultTablename).Scan(&version)
	return version, err
}

// migrationLock is the advisory lock that whoever migrates has: "aln" and a
// number, as one. It is not goose's, which knows only its own.
const migrationLock = 0x616c6e_00000001

// migrationLockTimeout is how long a migration waits for a table. While it
// waits, all who come later wait behind it.
const migrationLockTimeout = 5 * time.Second

// migratePostgres migrates by tree. All is done over one connection, which has the
// advisory lock from its first moment to its end: with the lock the migration is lost.
// With onlyUnused an older catalog whose log has entries is ErrOldSchema instead.
func migratePostgres(ctx context.Context, config *pgx.ConnConfig, tree fs.FS, onlyUnused bool, step func(name string)) error {
	folder, err := fs.Sub(tree, "postgres")
	if err != nil {
		return err
	}
	pool := pgSession{lock: migrationLockTimeout, readWrite: true, prepare: lockMigrations}.pool(config, 1)
	defer pool.Close()
	pool.SetConnMaxIdleTime(0)
	pool.SetConnMaxLifetime(0)
	schema, err := schemaBy(ctx, pool, folder)
	if err != nil {
		return err
	}
	if schema.Current > schema.Known {
		return schema.newer()
	}
	if onlyUnused && schema.Current > 0 && schema.Current < schema.Known {
		var size int64
		if err := pool.QueryRowContext(ctx, "SELECT size FROM head WHERE id = 1").Scan(&size); err != nil {
			return failed(ctx, "read the head", err)
		}
		if size > 0 {
			return schema.older()
		}
	}
	return failed(ctx, "migrate", migrateEach(ctx, pool, folder, step))
}

func migrateEach(ctx context.Context, pool *sql.DB, folder fs.FS, step func(name string)) error {
	provider, err := goose.NewProvider(goose.DialectPostgres, pool, folder, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	for {
		done, err := provider.UpByOne(ctx)
		if errors.Is(err, goose.ErrNoNextVersion) {
			return nil
		}
		if err != nil {
			return err
		}
		if step != nil {
			step(path.Base(done.Source.Path))
		}
	}
}

// lockMigrations takes the advisory lock for the session. It asks again and
// again instead of waiting in the server: CREATE INDEX CONCURRENTLY waits for
// every statement that has begun, also for one that waits for its lock.
func lockMigrations(ctx context.Context, conn *pgx.Conn) error {
	for {
		var locked bool
		if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", int64(migrationLock)).Scan(&locked); err != nil || locked {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
