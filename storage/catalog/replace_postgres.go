package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrInUse: somebody works with the catalog that is to be replaced.
var ErrInUse = errors.New("the catalog is in use")

// Replacement is a catalog in the making that is to take the place of the one in a
// PostgreSQL database. It grows in a schema of its own, beside the other; Finish
// exchanges the two in one transaction, so that there is one whole catalog at every
// moment. Whatever ends before that leaves the old one as it is.
type Replacement struct {
	// DB is the new catalog, empty at first.
	DB *DB

	admin   *sql.DB // of one connection, which holds the lock against a second replacement
	place   string  // the schema that the catalog is in
	watcher watcher
}

// The schemas beside that of the catalog, whose name goes before.
const (
	rebuildingSuffix = "_rebuilding"
	asideSuffix      = "_before_rebuild_"
	// longestPlace leaves room for both in a name of 63 bytes.
	longestPlace = 30
)

// ReplacePostgres begins a replacement of the catalog in the database at address,
// which needs not have one. What an earlier one left is removed. ErrInUse while a
// replica has a lease (that of a killed one is waited for), or another replacement is under way; ErrNewerSchema where a
// newer release may have made tables that this one does not know. What others hold of the
// catalog is waited for, here and in Finish, for replacePatience each; waits, which may be nil,
// is told every second who these are, and after that it is ErrInUse.
func ReplacePostgres(ctx context.Context, address string, waits func([]Session)) (*Replacement, error) {
	config, err := postgresConfig(address)
	if err != nil {
		return nil, err
	}
	return replacePostgres(ctx, config, replacePatience, waits)
}

func replacePostgres(ctx context.Context, config *pgx.ConnConfig, patience time.Duration, waits func([]Session)) (*Replacement, error) {
	schema, err := schemaOf(ctx, config)
	if err == nil && schema.Current > schema.Known {
		err = schema.newer()
	}
	if err != nil {
		return nil, fmt.Errorf("replace catalog %s: %w", whereabouts(config), err)
	}
	config = cancelling(config)
	config.RuntimeParams["application_name"] += rebuildingName
	r := &Replacement{admin: pgSession{lock: patience, readWrite: true}.pool(config, 1)}
	r.admin.SetConnMaxIdleTime(0) // the lock is the connection's
	r.admin.SetConnMaxLifetime(0)
	r.watcher = watcher{pool: pgSession{statement: leaseTimeout, lock: leaseTimeout}.pool(config, 1), patience: patience, told: waits}
	if err := r.begin(ctx, config); err != nil {
		return nil, errors.Join(fmt.Errorf("replace catalog %s: %w", whereabouts(config), err), r.Close())
	}
	return r, nil
}

func (r *Replacement) begin(ctx context.Context, config *pgx.ConnConfig) error {
	var locked bool
	err := Reader{q: r.admin}.one(ctx, "lock the catalog for a rebuild", []any{&r.place, &locked},
		"SELECT current_schema(), pg_try_advisory_lock(hashtext('aln-registry rebuild'), hashtext(current_schema()))")
	if err != nil {
		return err
	}
	if !locked {
		return fmt.Errorf("%w: another rebuild is under way", ErrInUse)
	}
	if len(r.place) > longestPlace {
		return fmt.Errorf("the schema %q has a name of more than %d bytes, which leaves no room for one beside it", r.place, longestPlace)
	}
	return r.watcher.bounded(ctx, true, func(ctx context.Context) error {
		if err := r.outlive(ctx); err != nil {
			return err
		}
		return r.grow(ctx, config)
	})
}

// grow makes the empty catalog beside the other.
func (r *Replacement) grow(ctx context.Context, config *pgx.ConnConfig) error {
	rebuilding := quoted(r.place + rebuildingSuffix)
	for _, statement := range []string{"DROP SCHEMA IF EXISTS " + rebuilding + " CASCADE", "CREATE SCHEMA " + rebuilding} {
		if _, err := r.admin.ExecContext(ctx, statement); err != nil {
			return failed(ctx, "make a schema for the new catalog (whoever rebuilds needs CREATE on the database)", err)
		}
	}
	if err := r.extend(ctx); err != nil {
		return err
	}
	beside := config.Copy()
	beside.RuntimeParams["search_path"] = rebuilding
	db, err := openPostgres(ctx, beside)
	r.DB = db
	return err
}

// extend makes the extension for searches in the catalog's own schema, where the database
// has none: the migrations would make it in the new catalog's, and whoever owns a database
// may create it, but not move it, since its functions belong to a superuser. Who may not
// create it either goes without it, as the migrations do.
func (r *Replacement) extend(ctx context.Context) error {
	_, err := r.admin.ExecContext(ctx, "DO $$ BEGIN CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA "+quoted(r.place)+`;
EXCEPTION WHEN insufficient_privilege OR feature_not_supported OR undefined_file OR undefined_object THEN NULL;
END $$`)
	return failed(ctx, "make the extension for searches", err)
}

func quoted(name ...string) string { return pgx.Identifier(name).Sanitize() }

// leasePatience is how long leases are waited for that may be those of killed servers;
// one that runs renews its own all the time.
const leasePatience = 8 * time.Second

// outlive waits until no replica has a lease, as long as that may come by waiting.
func (r *Replacement) outlive(ctx context.Context) error {
	deadline := time.Now().Add(leasePatience)
	for {
		left, err := r.refuseReplicas(ctx, r.admin)
		if !errors.Is(err, ErrInUse) || time.Now().Add(left).After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(left):
		}
	}
}

// refuseReplicas is ErrInUse while a replica of the catalog has a lease, of which
// the last one is over in left.
func (r *Replacement) refuseReplicas(ctx context.Context, q querier) (left time.Duration, err error) {
	var there bool
	err = Reader{q: q}.one(ctx, "look for servers", []any{&there}, "SELECT to_regclass($1) IS NOT NULL", quoted(r.place, "replica"))
	if err != nil || !there {
		return 0, err
	}
	var names string
	var millis int64
	err = Reader{q: q}.one(ctx, "look for servers", []any{&names, &millis},
		"SELECT COALESCE(string_agg(name, ', ' ORDER BY name), ''), COALESCE(MAX(expires_ms - "+postgres.nowMillis+"), 0) FROM "+
			quoted(r.place, "replica")+" WHERE expires_ms > "+postgres.nowMillis)
	if err != nil {
		return 0, err
	}
	if names == "" {
		return 0, nil
	}
	return time.Duration(millis+1) * time.Millisecond, fmt.Errorf("%w: these servers run on it: %s; stop them first", ErrInUse, names)
}

// Finish puts the new catalog in the place of the old one, durably, and what was
// condemned meanwhile with it. The old one is kept in the schema kept, named by the
// time at, "" where there was none. Errors: ErrInUse for a server that was started
// meanwhile, and for others who hold what is exchanged for too long. DB is closed.
func (r *Replacement) Finish(ctx context.Context, at time.Time) (kept string, err error) {
	err = r.DB.Close()
	r.DB = nil
	if err != nil {
		return "", err
	}
	tx, err := r.admin.BeginTx(ctx, nil)
	if err != nil {
		return "", failed(ctx, "begin", err)
	}
	defer tx.Rollback() // after a commit this does nothing
	err = r.watcher.bounded(ctx, false, func(ctx context.Context) (err error) {
		kept, err = r.exchange(ctx, tx, r.place+asideSuffix+at.UTC().Format("20060102t150405z"))
		return err
	})
	if err != nil {
		return "", err
	}
	return kept, failed(ctx, "commit", tx.Commit())
}

func (r *Replacement) exchange(ctx context.Context, tx *sql.Tx, aside string) (kept string, err error) {
	do := func(statement string) error {
		_, err := tx.ExecContext(ctx, statement)
		return failed(ctx, "exchange the catalogs", err)
	}
	rebuilding := r.place + rebuildingSuffix
	tables, err := tablesOf(ctx, tx, rebuilding)
	if err != nil {
		return "", err
	}
	old, err := tablesOf(ctx, tx, r.place)
	if err != nil {
		return "", err
	}
	if slices.Contains(old, "head") {
		kept = aside
		if err := do("CREATE SCHEMA " + quoted(aside)); err != nil {
			return "", err
		}
	}
	if slices.Contains(old, "replica") { // whoever starts now waits for this lock, and then finds the new one
		if err := do("LOCK TABLE " + quoted(r.place, "replica") + " IN ACCESS EXCLUSIVE MODE"); err != nil {
			return "", err
		}
		if _, err := r.refuseReplicas(ctx, tx); err != nil {
			return "", err
		}
	}
	if slices.Contains(old, "condemned") {
		if err := do("LOCK TABLE " + quoted(r.place, "condemned") + " IN ACCESS EXCLUSIVE MODE"); err != nil {
			return "", err
		}
		err := do("INSERT INTO " + quoted(rebuilding, "condemned") + " (cid, condemned_at) SELECT cid, condemned_at FROM " + quoted(r.place, "condemned") + " ON CONFLICT DO NOTHING")
		if err != nil {
			return "", err
		}
	}
	if slices.Contains(old, "crate_line") { // pg_restore --clean could not drop the extension under what is kept
		if err := do("DROP INDEX IF EXISTS " + quoted(r.place, "crate_line_by_part")); err != nil {
			return "", err
		}
	}
	for _, name := range tables {
		if slices.Contains(old, name) {
			if err := do("ALTER TABLE " + quoted(r.place, name) + " SET SCHEMA " + quoted(aside)); err != nil {
				return "", err
			}
		}
		if err := do("ALTER TABLE " + quoted(rebuilding, name) + " SET SCHEMA " + quoted(r.place)); err != nil {
			return "", err
		}
	}
	return kept, do("DROP SCHEMA " + quoted(rebuilding))
}

// tablesOf are the names of the tables in a schema.
func tablesOf(ctx context.Context, tx *sql.Tx, schema string) ([]string, error) {
	return collect(ctx, Reader{q: tx}, "list the tables", scanText,
		"SELECT tablename FROM pg_tables WHERE schemaname = $1 ORDER BY tablename", schema)
}

// Close gives up a replacement that was not finished, and the lock.
func (r *Replacement) Close() error {
	var failed error
	if r.DB != nil {
		failed = r.DB.Close()
	}
	return errors.Join(failed, r.admin.Close(), r.watcher.pool.Close())
}
