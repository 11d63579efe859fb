package catalog

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"phoenix-lab.org/aln-registry/migrations"
	"phoenix-lab.org/aln-registry/storage"
)

// firstSchema is what the first release migrated to.
func firstSchema(t *testing.T) fs.FS {
	t.Helper()
	const name = "00001_init.sql"
	text, err := fs.ReadFile(migrations.SQLite, "sqlite/"+name)
	if err != nil {
		t.Fatal(err)
	}
	return fstest.MapFS{name: &fstest.MapFile{Data: text}}
}

func TestMigrationFindsTheVersionsOfACIDInState(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(privateFolder(t), "catalog.db")
	db, err := openSQLiteWith(ctx, path, firstSchema(t))
	if err != nil {
		t.Fatal(err)
	}
	one, other := storage.CIDOf([]byte("one")), storage.CIDOf([]byte("other"))
	for idx, row := range []struct {
		key string
		id  storage.CID
	}{
		{"version/crate/a/1.0.0", one}, {"version/crate/b/1.0.0", other}, {"versions/x", one}, {"member/version/x", one},
		{"version/crate/a/1.0.0", one}, {"version/manifest/c/2.0.0", one},
	} {
		err := db.Update(ctx, func(tx *Tx) error {
			value := fmt.Sprintf(`{"kind":"crate","cid":%q,"yanked":%t}`, row.id, idx == 4)
			return errors.Join(tx.AppendEntry(ctx, testEntry(int64(idx))), tx.PutState(ctx, row.key, int64(idx), []byte(value)))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	db.Close()
	db = openSQLite(t, path)
	for before, want := range map[int64][]string{
		0: nil, 1: {"version/crate/a/1.0.0"}, 5: {"version/crate/a/1.0.0"}, 6: {"version/crate/a/1.0.0", "version/manifest/c/2.0.0"},
	} {
		if got, err := db.VersionsByCID(ctx, one, before); err != nil || !slices.Equal(got, want) {
			t.Errorf("as of %d: %v, %v, want %v", before, got, err, want)
		}
	}
	if got, err := db.VersionsByCID(ctx, other, 6); err != nil || !slices.Equal(got, []string{"version/crate/b/1.0.0"}) {
		t.Errorf("of the other: %v, %v", got, err)
	}
}

func TestAuditTrailIsTakenOver(t *testing.T) {
	ctx, folder := t.Context(), privateFolder(t)
	from, to := openSQLite(t, filepath.Join(folder, "from.db")), openSQLite(t, filepath.Join(folder, "to.db"))
	if n, err := to.CopyAudit(ctx, from); err != nil || n != 0 {
		t.Errorf("of an empty trail: %d, %v", n, err)
	}
	const kept = 2*auditPage + 3
	var batch []AuditEntry
	for i := range kept + 10 {
		batch = append(batch, AuditEntry{Time: time.Unix(int64(i), 0), What: fmt.Sprint("crate/", i), Outcome: "denied", Count: 1})
	}
	if err := from.AppendAudit(ctx, batch, kept); err != nil {
		t.Fatal(err)
	}
	want, err := from.Audit(ctx, math.MaxInt64, kept+1)
	if err != nil || len(want) != kept {
		t.Fatalf("the trail holds %d, %v", len(want), err)
	}
	if n, err := to.CopyAudit(ctx, from); err != nil || n != kept {
		t.Errorf("CopyAudit: %d, %v", n, err)
	}
	if got, err := to.Audit(ctx, math.MaxInt64, kept+1); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("the copy differs (%d entries, %v)", len(got), err)
	}
	if err := to.AppendAudit(ctx, batch[:1], kept+1); err != nil {
		t.Fatal(err)
	}
	if next, err := to.Audit(ctx, math.MaxInt64, 1); err != nil || next[0].ID != want[0].ID+1 {
		t.Errorf("the trail goes on with %v, %v, want ID %d", next, err, want[0].ID+1)
	}
	if n, err := to.CopyAudit(ctx, from); err == nil || n != 0 {
		t.Errorf("a trail was taken over twice: %d, %v", n, err)
	}
}
