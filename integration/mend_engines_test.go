package integration

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/disk"
	"phoenix-lab.org/aln-registry/storage/s3"
)

// blobs is the lab's store, behind its server's back.
func (l *lab) blobs() interface {
	storage.Blobs
	storage.Inventory
} {
	l.t.Helper()
	if l.engines == nil || l.engines.blobs == "" {
		store, err := disk.Open(filepath.Join(l.data, "store"))
		if err != nil {
			l.t.Fatal(err)
		}
		l.t.Cleanup(func() { store.Close() })
		return store
	}
	credentials := map[string]string{}
	for _, variable := range l.engines.env {
		name, value, _ := strings.Cut(variable, "=")
		credentials[name] = value
	}
	store, err := s3.Open(l.t.Context(), l.engines.blobs, s3.Options{AccessKey: credentials["AWS_ACCESS_KEY_ID"], SecretKey: credentials["AWS_SECRET_ACCESS_KEY"]})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { store.Close() })
	return store
}

// looked is what `fsck --json` prints.
type looked struct {
	Size         int64            `json:"size"`
	Unreferenced int64            `json:"unreferenced"`
	Counts       map[string]int64 `json:"counts"`
	Repaired     int64            `json:"repaired"`
}

// look runs fsck, which must end with that status, and returns what it found.
func (l *lab) look(status int, flags ...string) looked {
	l.t.Helper()
	out := l.mend("fsck", append(flags, "--json")...)
	if out.status != status {
		l.t.Fatalf("status %d is wanted\n%s", status, out)
	}
	var seen looked
	if err := json.Unmarshal([]byte(out.stdout), &seen); err != nil {
		l.t.Fatalf("%v\n%s", err, out)
	}
	return seen
}

// sql changes the lab's catalog behind its server's back.
func (l *lab) sql(statement string) {
	l.t.Helper()
	if l.engines != nil && l.engines.db != "" {
		execPostgres(l.t, l.engines.db, statement)
		return
	}
	execSQLite(l.t, filepath.Join(l.data, "catalog.db"), statement)
}

// execSQLite runs a statement in the database at path, which others may have open.
func execSQLite(t testing.TB, path, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// fsck, its repairs, and gc do the same on every pair of engines, beside their servers.
func TestFsckAndGCOnEveryPairOfEngines(t *testing.T) {
	t.Parallel()
	for _, p := range append(slices.Clone(pairsOfEngines), ceph) {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			fsckAndCollect(t, newLabOn(t, p.open(t)))
		})
	}
}

func fsckAndCollect(t *testing.T, l *lab) {
	u := l.operator
	for n := range 3 {
		name := fmt.Sprint("note-", n)
		writeFiles(t, u.folder, map[string]string{name: "bytes of " + name})
		must(t, u.aln(u.folder, "publish", filepath.Join(u.folder, name), "--kind", "manifest", "--name", name, "--version", "1.0.0"))
	}
	if seen := l.look(0); seen.Size != 5 || seen.Unreferenced != 0 {
		t.Errorf("%+v", seen)
	}

	// What lies in the store and nobody names is garbage, and no more.
	store := l.blobs()
	left := storage.CIDOf([]byte("left behind"))
	if err := store.Put(t.Context(), left, 11, bytes.NewReader([]byte("left behind"))); err != nil {
		t.Fatal(err)
	}
	if seen := l.look(0, "--quick"); seen.Unreferenced != 1 {
		t.Errorf("%+v", seen)
	}
	wantSays(t, must(t, l.mend("gc")).stdout, "1 blob of 11 bytes that none names, stored within 24h0m0s: left alone", "nothing to remove")
	wantSays(t, must(t, l.mend("gc", "--grace", "0s", "--delete")).stdout, left.String(), "1 blob of 11 bytes removed")
	if _, err := store.Stat(t.Context(), left); err == nil {
		t.Error("the garbage is still there")
	}
	if seen := l.look(0); seen.Unreferenced != 0 {
		t.Errorf("%+v", seen)
	}

	// Who publishes just that waits, where a removal may still be under way, and not for ever.
	writeFiles(t, u.folder, map[string]string{"late": "left behind"})
	late := []string{"publish", filepath.Join(u.folder, "late"), "--kind", "manifest", "--name", "late", "--version", "1.0.0"}
	mustFail(t, u.aln(u.folder, late...), "just being removed", "they can be stored again")
	l.sql("UPDATE condemned SET condemned_at = condemned_at - 1200")
	must(t, u.aln(u.folder, late...))

	// A row that is gone is put back, bytes that are gone are named, and put back by who has them.
	l.sql("DELETE FROM version_cid")
	if err := store.Remove(t.Context(), storage.CIDOf([]byte("bytes of note-1"))); err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{"version-cid-missing": 4, "artifact-missing": 1}
	if seen := l.look(1); !maps.Equal(seen.Counts, want) {
		t.Errorf("found %v, want %v", seen.Counts, want)
	}
	if seen := l.look(1, "--repair"); seen.Repaired != 4 {
		t.Errorf("%+v", seen)
	}
	if seen := l.look(1); !maps.Equal(seen.Counts, map[string]int64{"artifact-missing": 1}) {
		t.Errorf("found %v", seen.Counts)
	}
	must(t, u.aln(u.folder, "publish", filepath.Join(u.folder, "note-1"), "--kind", "manifest", "--name", "note-1", "--version", "1.0.0"))
	l.look(0)

	// A catalog that is behind the stored log is no ground to remove anything.
	l.stop()
	for _, table := range []string{"version_cid", "state", "entry"} {
		l.sql("DELETE FROM " + table + " WHERE idx = 5")
	}
	l.sql("UPDATE head SET size = 5")
	l.sql(fmt.Sprintf("DELETE FROM log_hash WHERE position >= %d", translog.LeafPosition(5)))
	mustFail(t, l.mend("gc", "--grace", "0s", "--delete"), "behind blob storage", "aln-registry rebuild")
	if seen := l.look(1); seen.Counts["catalog-behind"] != 1 {
		t.Errorf("found %v", seen.Counts)
	}
	must(t, l.mend("rebuild"))
	if seen := l.look(0); seen.Size != 6 {
		t.Errorf("%+v", seen)
	}
	l.start()
}
