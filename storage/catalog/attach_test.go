package catalog

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"phoenix-lab.org/aln-registry/storage"
)

func openTemporary(t *testing.T) (*DB, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "catalog.db")
	return openSQLite(t, path), path
}

// appendEntries adds n entries to the log.
func appendEntries(ctx context.Context, db *DB, n int) error {
	return db.Update(ctx, func(tx *Tx) error {
		for range n {
			idx, err := tx.Head(ctx)
			if err != nil {
				return err
			}
			raw := []byte{byte(idx), byte(idx >> 8)}
			if err := tx.AppendEntry(ctx, Entry{Index: idx, Bytes: raw, Record: storage.CIDOf(raw), RecordID: string(rune('a'+idx%26)) + storage.CIDOf(raw).Hex()}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Whoever attaches to a catalog makes no file, and changes no schema.
func TestAttachingChangesNothing(t *testing.T) {
	db, path := openTemporary(t)
	if err := appendEntries(t.Context(), db, 3); err != nil {
		t.Fatal(err)
	}
	attached, err := AttachSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer attached.Close()
	if head, err := attached.Head(t.Context()); err != nil || head != 3 {
		t.Errorf("Head: %d, %v", head, err)
	}
	missing := filepath.Join(filepath.Dir(path), "missing.db")
	if _, err := AttachSQLite(t.Context(), missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing one: %v", err)
	}
	if _, err := PeekSQLite(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing one: %v", err)
	}
	if _, err := os.Stat(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was made: %v", err)
	}
	for statement, want := range map[string]error{
		"DELETE FROM goose_db_version WHERE version_id = 5":                      ErrOldSchema,
		"INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)":   ErrNewerSchema,
		"UPDATE goose_db_version SET version_id = 5, is_applied = 1 WHERE FALSE": nil,
	} {
		other := filepath.Join(t.TempDir(), "other.db")
		if err := db.CopySQLite(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		changed, err := PeekSQLite(other)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := changed.write.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
		changed.Close()
		attached, err := AttachSQLite(t.Context(), other)
		if !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", statement, err, want)
		}
		if err == nil {
			attached.Close()
		}
	}
}

// A copy that is made while entries are being appended has one moment of them, and
// nothing is left beside it.
func TestACopyIsOfOneMoment(t *testing.T) {
	db, path := openTemporary(t)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		for ctx.Err() == nil {
			if err := appendEntries(t.Context(), db, 2); err != nil {
				t.Error(err)
				return
			}
		}
	})
	last := int64(0)
	for range 5 {
		attached, err := AttachSQLite(t.Context(), path) // as another process does
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(t.TempDir(), "copy.db")
		if err := errors.Join(attached.CopySQLite(t.Context(), to), attached.Close()); err != nil {
			t.Fatal(err)
		}
		copied, err := AttachSQLite(t.Context(), to)
		if err != nil {
			t.Fatal(err)
		}
		ends, err := copied.Ends(t.Context())
		faults, failed := copied.Faults(t.Context(), false)
		if err := errors.Join(err, failed, copied.Close()); err != nil || len(faults) > 0 {
			t.Fatalf("%v, %v", faults, err)
		}
		if ends.Head != ends.Entries || ends.Head%2 != 0 || ends.Head < last {
			t.Errorf("%+v after %d", ends, last)
		}
		last = ends.Head
		left, err := os.ReadDir(filepath.Dir(to))
		if err != nil || len(left) != 1 {
			t.Errorf("left are %v, %v", left, err)
		}
		if info, err := os.Stat(to); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%v, %v", info, err)
		}
	}
	cancel()
	all.Wait()
}

// Of a copy it can be said that less is published than there is, and not more.
func TestWhatACopySaysIsPublished(t *testing.T) {
	db, _ := openTemporary(t)
	if err := appendEntries(t.Context(), db, 4); err != nil {
		t.Fatal(err)
	}
	err := db.Publish(t.Context(), func(context.Context, *Publication) (Published, error) {
		return Published{Size: 4, Checkpoint: []byte("four")}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "copy.db")
	if err := db.CopySQLite(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		set  Published
		want string
	}{{Published{2, []byte("two")}, "two"}, {Published{0, nil}, ""}, {Published{5, []byte("five")}, "ahead"}} {
		err := SetPublishedIn(t.Context(), to, c.set)
		if c.want == "ahead" {
			if !errors.Is(err, ErrPublishedAhead) {
				t.Errorf("%+v: %v", c.set, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		copied, err := PeekSQLite(to)
		if err != nil {
			t.Fatal(err)
		}
		size, note, err := copied.Published(t.Context())
		if err := errors.Join(err, copied.Close()); err != nil || size != c.set.Size || string(note) != c.want {
			t.Errorf("%d, %q, %v", size, note, err)
		}
	}
}

// The database tells what is wrong with itself, and that a row is gone that it always has.
func TestADatabaseTellsItsFaults(t *testing.T) {
	db, path := openTemporary(t)
	if err := appendEntries(t.Context(), db, 300); err != nil {
		t.Fatal(err)
	}
	for _, quick := range []bool{true, false} {
		if faults, err := db.Faults(t.Context(), quick); err != nil || len(faults) > 0 {
			t.Errorf("of a whole one: %v, %v", faults, err)
		}
	}
	if _, err := db.write.ExecContext(t.Context(), "DELETE FROM head"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Head(t.Context()); !errors.Is(err, ErrDamaged) {
		t.Errorf("Head: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.LastIndex(string(raw), storage.CIDOf([]byte{200, 0}).String())
	copy(raw[at:], "bafkreiXX") // in the index, which the row contradicts now
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if db, err = PeekSQLite(path); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if faults, err := db.Faults(t.Context(), false); err != nil || len(faults) == 0 {
		t.Errorf("of a damaged one: %v, %v", faults, err)
	}
}
