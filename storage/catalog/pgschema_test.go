//go:build unix

package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/migrations"
)

func admin(t *testing.T, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func run(t *testing.T, db *sql.DB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func opened(t *testing.T, url string) *DB {
	t.Helper()
	db, err := OpenPostgres(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func config(t *testing.T, url string) *pgx.ConnConfig {
	t.Helper()
	c, err := postgresConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// upTo is the released migrations up to number n, and more behind them.
func upTo(t *testing.T, n int, more ...string) fs.FS {
	t.Helper()
	tree := fstest.MapFS{}
	names, err := fs.Glob(migrations.Postgres, "postgres/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names[:min(n, len(names))] {
		text, err := fs.ReadFile(migrations.Postgres, name)
		if err != nil {
			t.Fatal(err)
		}
		tree[name] = &fstest.MapFile{Data: text}
	}
	for i, statement := range more {
		tree[fmt.Sprintf("postgres/9000%d_more.sql", i+1)] = &fstest.MapFile{Data: []byte(statement)}
	}
	return tree
}

const all = 1000

func TestManyMakeOnePostgresCatalogAtOnce(t *testing.T) {
	t.Parallel()
	url := testbed.SharedPostgres(t).URL
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			db, err := OpenPostgres(t.Context(), url)
			if err != nil {
				t.Errorf("OpenPostgres: %v", err)
				return
			}
			defer db.Close()
			if _, err := appendNext(t.Context(), db); err != nil {
				t.Errorf("append: %v", err)
			}
		})
	}
	group.Wait()
	if head, err := opened(t, url).Head(t.Context()); err != nil || head != 6 {
		t.Errorf("the head is %d, %v, want 6", head, err)
	}
}

func TestMigrationsAreOrderedByPeople(t *testing.T) {
	t.Parallel()
	ctx, url := t.Context(), testbed.SharedPostgres(t).URL
	if s, err := PostgresSchema(ctx, url); err != nil || s.Current != 0 || s.Known < 3 || len(s.Pending) != int(s.Known) {
		t.Errorf("an empty database: %v, %v", s, err)
	}
	if s, err := PostgresSchema(ctx, url); err != nil || s.Current != 0 { // looking writes nothing
		t.Errorf("an empty database that was looked at: %v, %v", s, err)
	}
	if err := migratePostgres(ctx, config(t, url), upTo(t, 2), false, nil); err != nil {
		t.Fatal(err)
	}
	run(t, admin(t, url), "INSERT INTO entry VALUES (0, '', decode(repeat('00', 32), 'hex'), 'x', 'y')", "UPDATE head SET size = 1")
	_, err := OpenPostgres(ctx, url)
	if !errors.Is(err, ErrOldSchema) || !strings.Contains(err.Error(), "migrate it first") {
		t.Errorf("a catalog of an older schema is opened: %v", err)
	}
	s, err := PostgresSchema(ctx, url)
	if err != nil || s.Current != 2 || s.Pending[0] != "00003_replicas.sql" {
		t.Errorf("its schema: %v, %v", s, err)
	}
	var steps []string
	after, err := MigratePostgres(ctx, url, func(name string) { steps = append(steps, name) })
	if err != nil || after.Current != after.Known || len(after.Pending) != 0 || !slices.Equal(steps, s.Pending) {
		t.Errorf("migrated to %v by %v, %v", after, steps, err)
	}
	if again, err := MigratePostgres(ctx, url, func(name string) { t.Errorf("%s again", name) }); err != nil || again.Current != after.Known {
		t.Errorf("migrated again to %v, %v", again, err)
	}
	if head, err := opened(t, url).Head(ctx); err != nil || head != 1 {
		t.Errorf("the head is %d, %v", head, err)
	}
}

func TestNewerPostgresSchemaIsRefused(t *testing.T) {
	t.Parallel()
	ctx, url := t.Context(), testbed.SharedPostgres(t).URL
	if err := migratePostgres(ctx, config(t, url), upTo(t, all, "-- +goose Up\nCREATE TABLE more (id BIGINT);"), false, nil); err != nil {
		t.Fatal(err)
	}
	_, err := OpenPostgres(ctx, url)
	_, migrateErr := MigratePostgres(ctx, url, nil)
	for _, err := range []error{err, migrateErr} {
		if !errors.Is(err, ErrNewerSchema) || !strings.Contains(err.Error(), "upgrade aln-registry") {
			t.Errorf("a newer schema: %v", err)
		}
	}
	if s, err := PostgresSchema(ctx, url); err != nil || s.Current != 90001 || len(s.Pending) != 0 {
		t.Errorf("its schema: %v, %v", s, err)
	}
}

// A first start that was interrupted is finished by the next.
func TestUnusedPostgresCatalogIsFinished(t *testing.T) {
	t.Parallel()
	url := testbed.SharedPostgres(t).URL
	if err := migratePostgres(t.Context(), config(t, url), upTo(t, 1), false, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := appendNext(t.Context(), opened(t, url)); err != nil {
		t.Error(err)
	}
}

// Whoever only looks makes no catalog and migrates none, also where the log is empty.
func TestAttachingToPostgresChangesNothing(t *testing.T) {
	t.Parallel()
	ctx, url := t.Context(), testbed.SharedPostgres(t).URL
	attach := func(want error) {
		t.Helper()
		before, err := PostgresSchema(ctx, url)
		if err != nil {
			t.Fatal(err)
		}
		db, err := AttachPostgres(ctx, url)
		if !errors.Is(err, want) {
			t.Errorf("at schema %d: error %v, want %v", before.Current, err, want)
		}
		if err == nil {
			if head, err := db.Head(ctx); err != nil || head != 0 {
				t.Errorf("the head is %d, %v", head, err)
			}
			db.Close()
		}
		if after, err := PostgresSchema(ctx, url); err != nil || after.Current != before.Current {
			t.Errorf("the schema was %d and is %d, %v", before.Current, after.Current, err)
		}
	}
	attach(fs.ErrNotExist)
	opened(t, url)
	attach(nil)
	db := admin(t, url)
	run(t, db, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (90001, true)")
	attach(ErrNewerSchema)
	run(t, db, "DELETE FROM goose_db_version WHERE version_id > 2")
	attach(ErrOldSchema)
}

func TestFailedPostgresMigrationChangesNothing(t *testing.T) {
	t.Parallel()
	ctx, url := t.Context(), testbed.SharedPostgres(t).URL
	db := opened(t, url)
	err := migratePostgres(ctx, config(t, url), upTo(t, all, "-- +goose Up\nCREATE TABLE more (id BIGINT);\nCREATE TABLE meta (id BIGINT);"), false, nil)
	if err == nil {
		t.Fatal("a table was made twice")
	}
	if _, err := admin(t, url).ExecContext(ctx, "SELECT id FROM more"); err == nil {
		t.Error("half of it is there")
	}
	if _, err := appendNext(ctx, db); err != nil {
		t.Error(err)
	}
	opened(t, url)
}

// A migration that needs a table which others hold gives up, instead of making
// all who come later wait behind it, and can be tried again.
func TestMigrationDoesNotQueueForEver(t *testing.T) {
	t.Parallel()
	ctx, url := t.Context(), testbed.SharedPostgres(t).URL
	opened(t, url)
	tx, err := admin(t, url).BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, "SELECT value FROM meta"); err != nil {
		t.Fatal(err)
	}
	tree := upTo(t, all, "-- +goose Up\nALTER TABLE meta ADD COLUMN more BIGINT;")
	began := time.Now()
	err = migratePostgres(ctx, config(t, url), tree, false, nil)
	if took := time.Since(began); !errors.Is(err, ErrUnavailable) || took > 4*migrationLockTimeout {
		t.Errorf("error %v after %s, want ErrUnavailable", err, took)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := migratePostgres(ctx, config(t, url), tree, false, nil); err != nil {
		t.Errorf("the second time: %v", err)
	}
}

// Who waits for the lock does not keep CREATE INDEX CONCURRENTLY from ending,
// and finds the work done.
func TestOneMigratesAndTheOthersWait(t *testing.T) {
	t.Parallel()
	url := testbed.SharedPostgres(t).URL
	opened(t, url)
	tree := upTo(t, all, "-- +goose NO TRANSACTION\n-- +goose Up\nCREATE INDEX CONCURRENTLY IF NOT EXISTS meta_by_value ON meta (value);\nSELECT pg_sleep(0.3);")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var steps []string
	var mutex sync.Mutex
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			err := migratePostgres(ctx, config(t, url), tree, false, func(name string) {
				mutex.Lock()
				steps = append(steps, name)
				mutex.Unlock()
			})
			if err != nil {
				t.Errorf("migrate: %v", err)
			}
		})
	}
	group.Wait()
	if !slices.Equal(steps, []string{"90001_more.sql"}) {
		t.Errorf("the steps were %v", steps)
	}
}

// Whatever is configured for the server, the database or the role.
func TestPostgresSessionsAreSet(t *testing.T) {
	t.Parallel()
	url := testbed.SharedPostgres(t).URL
	run(t, admin(t, url), `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database());
		EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', current_database());
		EXECUTE format('ALTER DATABASE %I SET standard_conforming_strings = off', current_database());
		EXECUTE format('ALTER DATABASE %I SET statement_timeout = 7000', current_database()); END $$`)
	db := opened(t, url)
	for name, pool := range map[string]struct {
		*sql.DB
		connections int
		statement   string
	}{"reader": {db.read, pgReaders, "30s"}, "writer": {db.write, pgWriters, "30s"}, "control": {db.control, pgControl, "1min"}} {
		var held []*sql.Conn // so that every connection of the pool is looked at
		for range pool.connections {
			conn, err := pool.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, conn)
			for setting, want := range map[string]string{
				"synchronous_commit": "on", "transaction_isolation": "read committed", "standard_conforming_strings": "on", "jit": "off",
				"statement_timeout": pool.statement, "idle_in_transaction_session_timeout": "30s", "application_name": "aln-registry",
			} {
				var got string
				if err := conn.QueryRowContext(t.Context(), "SELECT current_setting($1)", setting).Scan(&got); err != nil || got != want {
					t.Errorf("%s: %s is %q, %v, want %q", name, setting, got, err, want)
				}
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, err := pool.Conn(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: there are more than %d connections (%v)", name, pool.connections, err)
		}
		cancel()
		for _, conn := range held {
			conn.Close()
		}
	}
	if _, err := appendNext(t.Context(), db); err != nil {
		t.Error(err)
	}
	if hits, _, err := db.SearchCrates(t.Context(), `\'`, 1, 1, 0); err != nil || len(hits) != 0 {
		t.Errorf("search: %v, %v", hits, err)
	}
}

// What a stronger server promises is not taken back.
func TestSynchronousReplicationStays(t *testing.T) {
	t.Parallel()
	url := testbed.SharedPostgres(t).URL
	run(t, admin(t, url), `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = remote_apply', current_database()); END $$`)
	var got string
	if err := opened(t, url).write.QueryRowContext(t.Context(), "SHOW synchronous_commit").Scan(&got); err != nil || got != "remote_apply" {
		t.Errorf("synchronous_commit is %q, %v", got, err)
	}
}

func TestUnfitServersAreRefused(t *testing.T) {
	t.Parallel()
	p := testbed.Postgres(t)
	db := opened(t, p.URL)
	admin := admin(t, p.URL)
	run(t, admin, "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
	_, err := OpenPostgres(t.Context(), strings.Replace(p.URL, "/aln1", "/latin", 1))
	if !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "ENCODING 'UTF8'") {
		t.Errorf("LATIN1: %v", err)
	}
	run(t, admin, "ALTER DATABASE aln1 SET default_transaction_read_only = on")
	db.read.SetMaxIdleConns(0) // so that the next connection is a new one
	if _, err := db.Head(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("read only: error %v, want ErrUnavailable", err)
	}
	db.read.SetMaxIdleConns(1)
	run(t, admin, "SET default_transaction_read_only = off", "ALTER DATABASE aln1 RESET default_transaction_read_only")
	if _, err := db.Head(t.Context()); err != nil {
		t.Errorf("read and write: %v", err)
	}
	run(t, admin, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
	eventually(t, func() bool {
		_, err = OpenPostgres(t.Context(), p.URL)
		return errors.Is(err, ErrUnfit) && strings.Contains(err.Error(), "fsync")
	})
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 20 seconds")
		}
	}
}

// No error of opening says the password, whatever part of the URL it is in and
// whatever is wrong with the rest.
func TestErrorsDoNotTellThePassword(t *testing.T) {
	t.Parallel()
	const secret = "hunter2/x@y:z"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	server := testbed.SharedPostgres(t).URL
	passfile := filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(passfile, []byte("*:*:*:*:"+strings.ReplaceAll(secret, ":", `\:`)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	escaped := url.QueryEscape(secret)
	for name, text := range map[string]string{
		"nobody there":          "postgres://u:" + escaped + "@" + nobody + "/d?sslmode=disable",
		"in the query":          "postgres://u@" + nobody + "/d?sslmode=disable&password=" + escaped,
		"in a file":             "postgres://u@" + nobody + "/d?sslmode=disable&passfile=" + url.QueryEscape(passfile),
		"no such database":      strings.Replace(strings.Replace(server, "postgres@", "postgres:"+escaped+"@", 1), "/aln", "/none", 1),
		"no such user":          strings.Replace(server, "postgres@", "nobody:"+escaped+"@", 1),
		"not escaped":           "postgres://u:" + secret + "@" + nobody + "/d",
		"a port that is none":   "postgres://u:" + escaped + "@host:port/d",
		"the port is missing":   "postgres://u@host:" + escaped + "/d",
		"a bad mode":            "postgres://u:" + escaped + "@host/d?sslmode=perhaps",
		"a bad mode, secret":    "postgres://u:" + escaped + "@host/d?sslmode=" + escaped,
		"a missing authority":   "postgres://u:" + escaped + "@host/d?sslmode=verify-full&sslrootcert=/none",
		"a bad escape":          "postgres://u:" + escaped + "%zz@host/d",
		"not a URL":             "host=h user=u password=" + escaped,
		"another scheme":        "mysql://u:" + escaped + "@host/d",
		"a setting of nonsense": "postgres://u:" + escaped + "@" + strings.TrimPrefix(strings.Split(server, "@")[1], "") + "&nonsense=" + escaped,
	} {
		_, err := OpenPostgres(t.Context(), text)
		_, attachErr := AttachPostgres(t.Context(), text)
		_, schemaErr := PostgresSchema(t.Context(), text)
		_, migrateErr := MigratePostgres(t.Context(), text, nil)
		for _, err := range []error{err, attachErr, schemaErr, migrateErr} {
			if err == nil {
				t.Errorf("%s: no error", name)
				continue
			}
			for _, telling := range []string{"hunter2", "y:z"} {
				if strings.Contains(fmt.Sprintf("%v %+v %q", err, err, err), telling) {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
	for name, text := range map[string]string{
		"sslmode is invalid": "postgres://u:tr0ub4dor@host/d?sslmode=perhaps", "no such file": "postgres://u:tr0ub4dor@host/d?sslmode=verify-full&sslrootcert=/none",
	} {
		if _, err := OpenPostgres(t.Context(), text); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not say %q", err, name)
		}
	}
}

func TestUnreachableServerIsUnavailable(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	for _, address := range []string{l.Addr().String(), "nobody.invalid:1"} {
		_, err := OpenPostgres(t.Context(), "postgres://u@"+address+"/d?sslmode=disable")
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v, want ErrUnavailable", address, err)
		}
	}
}

// A server that takes what it is sent and says nothing is given up.
func TestSilentServerIsGivenUp(t *testing.T) {
	t.Parallel()
	here, there := net.Pipe()
	defer there.Close()
	conn := &impatientConn{Conn: here, most: 20 * time.Millisecond}
	wantTimeout := func(what string, err error) {
		t.Helper()
		if timeout := net.Error(nil); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%s: error %v, want a timeout", what, err)
		}
	}
	_, err := conn.Read(make([]byte, 1))
	wantTimeout("reading", err)
	_, err = conn.Write(make([]byte, 1))
	wantTimeout("writing", err)
	// A deadline that somebody has set stays until he takes it back.
	if err := conn.SetDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		read <- err
	}()
	select {
	case err := <-read:
		t.Errorf("reading ended before its deadline: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if err := conn.SetDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	wantTimeout("reading behind its deadline", <-read)
	if err := conn.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	_, err = conn.Read(make([]byte, 1))
	wantTimeout("reading again", err)
}

// The index for searches needs an extension that the database's owner may
// create; whoever may not has a catalog without it.
func TestSearchHasAnIndexWhereItMay(t *testing.T) {
	t.Parallel()
	server := testbed.SharedPostgres(t)
	root := admin(t, server.URL)
	run(t, root, "DO $$ BEGIN CREATE ROLE lab LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
	for name, indexes := range map[string]int{"owner": 1, "guest": 0} {
		address := server.NewDatabase(t)
		database := strings.TrimSuffix(address[strings.LastIndex(address, "/")+1:], "?sslmode=disable")
		if name == "owner" {
			run(t, root, "ALTER DATABASE "+database+" OWNER TO lab")
		} else {
			run(t, admin(t, address), "GRANT CREATE ON SCHEMA public TO lab")
		}
		db := opened(t, strings.Replace(address, "postgres@", "lab@", 1))
		if _, err := appendNext(t.Context(), db); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var n int
		err := db.read.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM pg_indexes WHERE indexname = 'crate_line_by_part'").Scan(&n)
		if err != nil || n != indexes {
			t.Errorf("the %s has %d indexes for searches, %v, want %d", name, n, err, indexes)
		}
		if _, total, err := db.SearchCrates(t.Context(), "nothing", 9, 1, 0); err != nil || total != 0 {
			t.Errorf("%s: search: %v", name, err)
		}
	}
}
