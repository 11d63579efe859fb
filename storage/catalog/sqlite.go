package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/migrations"
)

var sqlite = dialect{
	now: "SELECT CAST(strftime('%s', 'now') AS INTEGER)",
	// BEGIN IMMEDIATE has locked the whole database already.
	lockHead:  "SELECT size FROM head WHERE id = 1",
	nowMillis: "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
	faults:    "PRAGMA integrity_check(10)", quickFaults: "PRAGMA quick_check(10)",
	send: func(ctx context.Context, _ *sql.Conn, p *pending, statements []statement) error {
		return p.sendEach(ctx, statements)
	},
}

// readers is how many connections read at once.
const readers = 4

// OpenSQLite opens the catalog in the file at path, which is made (readable by
// its owner only) when there is none, and brings its schema up to date; before a
// migration the file is copied beside it (copyBefore). A schema newer than this
// program's is ErrNewerSchema. The folder must exist.
func OpenSQLite(ctx context.Context, path string) (*DB, error) {
	folder, err := fs.Sub(migrations.SQLite, "sqlite")
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	return openSQLiteWith(ctx, path, folder)
}

// openSQLiteWith is OpenSQLite by the migrations in folder.
func openSQLiteWith(ctx context.Context, path string, folder fs.FS) (*DB, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	if err := touch(path); err != nil {
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	db, err := openSQLitePools(path)
	if err != nil {
		return nil, err
	}
	if err := migrateSQLite(ctx, db.write, path, folder); err != nil {
		return nil, errors.Join(fmt.Errorf("open catalog %s: %w", path, err), db.Close())
	}
	if err := durable.SyncDir(filepath.Dir(path)); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// openSQLitePools makes the connections to the file at path, which are opened when
// they are needed.
func openSQLitePools(path string) (*DB, error) {
	write, err := sql.Open("sqlite", sqliteName(path, "_txlock=immediate"))
	if err != nil {
		return nil, fmt.Errorf("open catalog %s: %w", path, err)
	}
	write.SetMaxOpenConns(1)
	read, err := sql.Open("sqlite", sqliteName(path, "_pragma=query_only(1)"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open catalog %s: %w", path, err), write.Close())
	}
	read.SetMaxOpenConns(readers)
	read.SetMaxIdleConns(readers)
	db := &DB{
		Reader: Reader{q: read}, write: write, read: read, control: write, leases: write, dialect: sqlite,
		writing: make(chan struct{}, 1), publishing: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	db.close = sync.OnceValue(func() error {
		close(db.closed)
		return errors.Join(read.Close(), write.Close())
	})
	return db, nil
}

// touch makes the file with mode 0600 if there is none: SQLite would leave it
// to the umask. Its WAL and shared memory inherit the mode.
func touch(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// sqliteName is the data source name. synchronous=FULL makes every commit
// reach the disk; in WAL mode SQLite's default would lose the last ones. fullfsync
// does what macOS needs for that, whose fsync leaves them in the drive's cache.
func sqliteName(path, extra string) string {
	path = filepath.ToSlash(path)
	if filepath.VolumeName(path) != "" && path[0] != '/' { // C:/data; SQLite takes the slash before it off again
		path = "/" + path
	}
	return "file://" + (&url.URL{Path: path}).EscapedPath() +
		"?_defensive=1&_dqs=0&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=fullfsync(1)" +
		"&_pragma=foreign_keys(1)&_pragma=trusted_schema(0)&" + extra
}

// migrateSQLite brings the schema up to date. Another process may be at it:
// goose has no lock for SQLite, but a migration is one transaction, so the one
// that comes second fails, and finds the work done when it looks again.
func migrateSQLite(ctx context.Context, db *sql.DB, path string, folder fs.FS) error {
	const attempts = 5
	for attempt := 1; ; attempt++ {
		err := migrate(ctx, goose.DialectSQLite3, db, folder, func(version int64) (func(), error) { return copyBefore(ctx, db, path, version) })
		if errors.Is(err, ErrNewerSchema) { // the one sentence says all
			return err
		}
		if err == nil || errors.Is(err, errNoCopy) || attempt == attempts || ctx.Err() != nil {
			return failed(ctx, "migrate", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(attempt) * 50 * time.Millisecond):
		}
	}
}

// migrate brings the schema of db up to date. before is called first, with the
// version to come, unless the database is new; what it returns takes back what it
// did, for when nothing was changed after all.
func migrate(ctx context.Context, dialect goose.Dialect, db *sql.DB, folder fs.FS, before func(version int64) (undo func(), err error)) error {
	provider, err := goose.NewProvider(dialect, db, folder, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	current, known, err := provider.GetVersions(ctx)
	if err != nil {
		return err
	}
	if current > known {
		return Schema{Current: current, Known: known}.newer()
	}
	if current == known {
		return nil
	}
	undo := func() {}
	if current > 0 {
		if undo, err = before(known); err != nil {
			return err
		}
	}
	if _, err = provider.Up(ctx); err == nil {
		return nil
	}
	if now, versionErr := provider.GetDBVersion(ctx); versionErr == nil && now == current {
		undo()
	}
	return err
}
