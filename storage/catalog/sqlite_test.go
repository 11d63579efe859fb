package catalog

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/storage"
)

func openSQLite(t *testing.T, path string) *DB {
	t.Helper()
	db, err := OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatalf("OpenSQLite: %v", err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestSQLiteSettingsAreInForce(t *testing.T) {
	db := openSQLite(t, filepath.Join(t.TempDir(), "catalog.db"))
	want := map[string]string{
		"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "10000", "trusted_schema": "0", "query_only": "0", "fullfsync": "1",
	}
	check := func(name string, pool *sql.DB, connections int) {
		var held []*sql.Conn // so that every connection of the pool is looked at
		for range connections {
			conn, err := pool.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, conn)
			for pragma, value := range want {
				var got string
				if err := conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != value {
					t.Errorf("%s: %s is %q, %v, want %q", name, pragma, got, err, value)
				}
			}
		}
		for _, conn := range held {
			conn.Close()
		}
	}
	check("writer", db.write, 1)
	want["query_only"] = "1"
	check("reader", db.read, readers)
	if n := db.write.Stats().MaxOpenConnections; n != 1 {
		t.Errorf("there are %d writers, want 1", n)
	}
}

func TestReadersCannotWrite(t *testing.T) {
	db := openSQLite(t, filepath.Join(t.TempDir(), "catalog.db"))
	if _, err := db.read.ExecContext(t.Context(), "UPDATE head SET size = 7"); err == nil {
		t.Error("a reading connection wrote")
	}
}

func TestUpdateLocksFromTheStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	db, other := openSQLite(t, path), openSQLite(t, path) // as two processes
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := db.Update(t.Context(), func(*Tx) error { // which has written nothing yet
		err := other.Update(ctx, func(*Tx) error { return nil })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a second writer began: error %v, want context.DeadlineExceeded", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Update(t.Context(), func(*Tx) error { return nil }); err != nil {
		t.Errorf("after the first has ended: %v", err)
	}
}

func testEntry(idx int64) Entry {
	data := fmt.Append(nil, idx)
	return Entry{Index: idx, Bytes: data, Record: storage.CIDOf(data), RecordID: fmt.Sprint(idx)}
}

// appendNext appends an entry with one row of state.
func appendNext(ctx context.Context, db *DB) (idx int64, err error) {
	err = db.Update(ctx, func(tx *Tx) error {
		if idx, err = tx.Head(ctx); err != nil {
			return err
		}
		return errors.Join(tx.AppendEntry(ctx, testEntry(idx)), tx.PutState(ctx, "key", idx, fmt.Append(nil, idx)))
	})
	return idx, err
}

func TestTwoProcessesShareTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	var group sync.WaitGroup
	for range 2 {
		db := openSQLite(t, path)
		for range 2 {
			group.Go(func() {
				for range 10 {
					if _, err := appendNext(t.Context(), db); err != nil {
						t.Errorf("append: %v", err)
					}
				}
			})
		}
	}
	group.Wait()
	if head, err := openSQLite(t, path).Head(t.Context()); err != nil || head != 40 {
		t.Errorf("the head is %d, %v, want 40", head, err)
	}
}

func TestManyMakeOneCatalogAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			db, err := OpenSQLite(t.Context(), path)
			if err != nil {
				t.Errorf("OpenSQLite: %v", err)
				return
			}
			if _, err := appendNext(t.Context(), db); err != nil {
				t.Errorf("append: %v", err)
			}
			if err := db.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	group.Wait()
	if head, err := openSQLite(t, path).Head(t.Context()); err != nil || head != 4 {
		t.Errorf("the head is %d, %v, want 4", head, err)
	}
}

func TestContentSurvivesReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	db := openSQLite(t, path)
	if _, err := appendNext(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	digest, err := db.StateDigest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	since, err := db.AssertionsSince(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = openSQLite(t, path)
	if again, err := db.StateDigest(t.Context()); err != nil || again != digest {
		t.Errorf("the state has changed (%v)", err)
	}
	if again, err := db.AssertionsSince(t.Context()); err != nil || !again.Equal(since) {
		t.Errorf("the catalog was created at %v (%v), now at %v", since, err, again)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	db := openSQLite(t, path)
	if _, err := appendNext(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	_, err := db.write.ExecContext(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)")
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	if db, err := OpenSQLite(t.Context(), path); !errors.Is(err, ErrNewerSchema) {
		t.Errorf("OpenSQLite: %v, error %v, want ErrNewerSchema", db, err)
	}
}

func TestFilesAreThePropertyOfTheirOwner(t *testing.T) {
	folder := privateFolder(t)
	db := openSQLite(t, filepath.Join(folder, "catalog.db"))
	if _, err := appendNext(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != 3 {
		t.Errorf("the folder holds %v (%v), want the database, its WAL and its shared memory", entries, err)
	}
	for _, e := range entries {
		if err := ownerOnly(t, filepath.Join(folder, e.Name())); err != nil {
			t.Errorf("%s: %v", e.Name(), err)
		}
	}
}

// privateFolder makes a folder as a data folder is made.
func privateFolder(t *testing.T) string {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "data")
	if err := durable.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	return folder
}

func ownerOnly(t *testing.T, path string) error {
	t.Helper()
	f, err := durable.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return durable.OwnerOnly(f)
}

func TestAnyPathWillDo(t *testing.T) {
	names := []string{"with space", "per%20cent", "a#b", "a&b=c", "ümlaut", "a;b"}
	if runtime.GOOS != "windows" { // which has no such names
		names = append(names, "what?mode=memory")
	}
	for _, name := range names {
		folder := filepath.Join(t.TempDir(), name)
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(folder, name+".db")
		db := openSQLite(t, path)
		if _, err := appendNext(t.Context(), db); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		db.Close()
		if info, err := os.Stat(path); err != nil || info.Size() == 0 {
			t.Errorf("%s: the file is elsewhere (%v)", name, err)
		}
	}
}

func TestOpenFailures(t *testing.T) {
	folder := t.TempDir()
	garbage := filepath.Join(folder, "garbage")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("this is no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"a missing folder": filepath.Join(folder, "missing", "catalog.db"), "a folder": folder, "another file": garbage,
	} {
		if db, err := OpenSQLite(t.Context(), path); err == nil {
			db.Close()
			t.Errorf("%s was opened as a catalog", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := OpenSQLite(ctx, filepath.Join(folder, "catalog.db")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: error %v, want context.Canceled", err)
	}
}

const childVariable = "CATALOG_TEST_APPEND_TO"

// TestAcknowledgedSurvivesKill runs this test's binary as a child that appends
// without end and says each index that was acknowledged, and kills it midway.
func TestAcknowledgedSurvivesKill(t *testing.T) {
	if path := os.Getenv(childVariable); path != "" {
		appendForEver(t, path)
	}
	path := filepath.Join(t.TempDir(), "catalog.db")
	acknowledged := int64(-1)
	for round := range 3 {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAcknowledgedSurvivesKill$")
		child.Env = append(os.Environ(), childVariable+"="+path)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 5 + 7*round {
			if !lines.Scan() {
				t.Fatal("the child ended by itself")
			}
			if _, err := fmt.Sscanf(lines.Text(), "ack %d", &acknowledged); err != nil {
				t.Fatalf("the child says %q", lines.Text())
			}
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		child.Wait() // its error is that it was killed
		db := openSQLite(t, path)
		head, err := db.Head(t.Context())
		if err != nil || head <= acknowledged {
			t.Fatalf("the head is %d, %v; entry %d was acknowledged", head, err, acknowledged)
		}
		rows, err := db.StateHistory(t.Context(), "key", math.MaxInt64)
		if err != nil || int64(len(rows)) != head {
			t.Fatalf("%d entries have %d rows of state, %v", head, len(rows), err)
		}
		db.Close()
	}
}

func appendForEver(t *testing.T, path string) {
	db, err := OpenSQLite(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	for {
		idx, err := appendNext(context.Background(), db)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("ack %d\n", idx)
	}
}
