package catalog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"phoenix-lab.org/aln-registry/migrations"
)

// schema is the released migrations with more behind them, each adding a table.
func schema(t *testing.T, more ...string) fs.FS {
	t.Helper()
	folder := fstest.MapFS{}
	released, err := fs.Sub(migrations.SQLite, "sqlite")
	if err != nil {
		t.Fatal(err)
	}
	names, err := fs.Glob(released, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := fs.ReadFile(released, name)
		if err != nil {
			t.Fatal(err)
		}
		folder[name] = &fstest.MapFile{Data: text}
	}
	for i, statement := range more {
		folder[[]string{"90001_more.sql", "90002_more.sql"}[i]] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + statement + "\n")}
	}
	return folder
}

// copies lists what lies beside the catalog besides SQLite's own files.
func copies(t *testing.T, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if n := e.Name(); !slices.Contains([]string{"catalog.db", "catalog.db-wal", "catalog.db-shm"}, n) {
			names = append(names, n)
		}
	}
	return names
}

// withFact makes a catalog of the released schema with one fact in it.
func withFact(t *testing.T) string {
	t.Helper()
	path := filepath.Join(privateFolder(t), "catalog.db")
	db := openSQLite(t, path)
	if err := db.SetMeta(t.Context(), "fact", "kept"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	if names := copies(t, path); len(names) != 0 {
		t.Fatalf("a new catalog has copies: %v", names)
	}
	return path
}

func wantFact(t *testing.T, db *DB) {
	t.Helper()
	if value, ok, err := db.Meta(t.Context(), "fact"); err != nil || !ok || value != "kept" {
		t.Errorf("the fact is %q, %v, %v", value, ok, err)
	}
}

func TestCatalogIsCopiedBeforeAMigration(t *testing.T) {
	path := withFact(t)
	more := schema(t, "CREATE TABLE more (id INTEGER PRIMARY KEY);")
	for range 2 { // the second time there is nothing to migrate
		db, err := openSQLiteWith(t.Context(), path, more)
		if err != nil {
			t.Fatal(err)
		}
		wantFact(t, db)
		db.Close()
		if names := copies(t, path); !slices.Equal(names, []string{"catalog.db.before-90001"}) {
			t.Fatalf("beside the catalog lie %v", names)
		}
	}
	copied := path + ".before-90001"
	if err := ownerOnly(t, copied); err != nil {
		t.Errorf("the copy: %v", err)
	}
	if _, err := OpenSQLite(t.Context(), path); !errors.Is(err, ErrNewerSchema) || !strings.Contains(err.Error(), "upgrade aln-registry") {
		t.Errorf("the program before opens the migrated catalog: %v", err)
	}
	// The copy is what the program before goes on with.
	db := openSQLite(t, copied)
	wantFact(t, db)
	if err := db.SetMeta(t.Context(), "other", "written"); err != nil {
		t.Error(err)
	}
}

func TestMigrationThatFailsLeavesTheCatalogAndNoCopy(t *testing.T) {
	path := withFact(t)
	if _, err := openSQLiteWith(t.Context(), path, schema(t, "CREATE TABLE meta (id INTEGER);")); err == nil {
		t.Fatal("a table was made twice")
	}
	if names := copies(t, path); len(names) != 0 {
		t.Errorf("beside the catalog lie %v", names)
	}
	wantFact(t, openSQLite(t, path))
}

func TestHalfOfTwoMigrationsKeepsTheCopy(t *testing.T) {
	path := withFact(t)
	if _, err := openSQLiteWith(t.Context(), path, schema(t, "CREATE TABLE more (id INTEGER);", "CREATE TABLE more (id INTEGER);")); err == nil {
		t.Fatal("a table was made twice")
	}
	if len(copies(t, path)) == 0 {
		t.Error("the copy from before the migration that succeeded is gone")
	}
	wantFact(t, openSQLite(t, path+".before-90002"))
}

func TestWithoutACopyNothingIsMigrated(t *testing.T) {
	path := withFact(t)
	if err := os.MkdirAll(filepath.Join(path+".copying", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := openSQLiteWith(t.Context(), path, schema(t, "CREATE TABLE more (id INTEGER);"))
	if !errors.Is(err, errNoCopy) {
		t.Fatalf("migrated without a copy: %v", err)
	}
	wantFact(t, openSQLite(t, path)) // with the released schema still
}

func TestCopiesAreBounded(t *testing.T) {
	path := withFact(t)
	aside := path + ".before-rebuild"
	if err := os.WriteFile(aside, []byte("somebody else's"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range copiesKept + 2 {
		db := openSQLite(t, path)
		if _, err := copyBefore(t.Context(), db.write, path, 7); err != nil {
			t.Fatal(err)
		}
		db.Close()
	}
	if names := copies(t, path); len(names) != copiesKept+1 || !slices.Contains(names, "catalog.db.before-rebuild") {
		t.Errorf("beside the catalog lie %v", names)
	}
}
