package integration

import (
	"math"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// Neither the audit trail nor what is held of other registries is in the log: a rebuild takes both over from the catalog that
// is there, and goes on without where that cannot be read.
func TestRebuildTakesTheAuditTrailOver(t *testing.T) {
	l := newLab(t)
	l.stop()
	path := filepath.Join(l.data, "catalog.db")
	open := func() *catalog.DB {
		t.Helper()
		db, err := catalog.OpenSQLite(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	trail := func() []catalog.AuditEntry {
		t.Helper()
		db := open()
		defer db.Close()
		entries, err := db.Audit(t.Context(), math.MaxInt64, 100)
		if err != nil {
			t.Fatal(err)
		}
		return entries
	}
	db := open()
	err := db.AppendAudit(t.Context(), []catalog.AuditEntry{
		{Time: time.Unix(1900000000, 0).UTC(), Asker: "did:key:z", What: "crate/a@1.0.0", Rule: "quarantine", RuleID: "blake3", Outcome: "denied", Count: 3},
		{Time: time.Unix(1900000001, 0).UTC(), What: "grant/x", Outcome: "accepted", Count: 1},
	}, 100)
	held := catalog.UpstreamBlob{CID: storage.CIDOf(nil), Upstream: "crates-io", Name: "a", Version: "1.0.0", Fetched: time.Unix(0, 0).UTC(), Used: time.Unix(0, 0).UTC()}
	if err == nil {
		err = db.Update(t.Context(), func(tx *catalog.Tx) error { return tx.PutUpstreamBlobs(t.Context(), []catalog.UpstreamBlob{held}) })
	}
	db.Close()
	if err != nil {
		t.Fatal(err)
	}
	holds := func() []catalog.UpstreamBlob {
		t.Helper()
		db := open()
		defer db.Close()
		blobs, err := db.UpstreamBlobsAfter(t.Context(), storage.CID{}, 10)
		if err != nil {
			t.Fatal(err)
		}
		return blobs
	}
	before := trail()
	printed := must(t, l.operator.aln(t.TempDir(), "rebuild", "--data", l.data)).stdout
	if !strings.Contains(printed, "2 entries of the audit trail taken over") || !strings.Contains(printed, "1 crate of other registries held") {
		t.Errorf("rebuild says\n%s", printed)
	}
	if after := trail(); len(after) != 2 || !reflect.DeepEqual(after, before) {
		t.Errorf("the trail was %v and is %v", before, after)
	}
	if got := holds(); len(got) != 1 || got[0] != held {
		t.Errorf("held are %v, want %v", got, held)
	}

	writeFiles(t, l.data, map[string]string{"catalog.db": strings.Repeat("this is no database ", 1000)})
	done := must(t, l.operator.aln(t.TempDir(), "rebuild", "--data", l.data))
	if !strings.Contains(done.stderr, "the audit trail is not taken over") || strings.Contains(done.stdout, "of the audit trail") {
		t.Errorf("rebuild without a readable catalog says\n%s\n%s", done.stdout, done.stderr)
	}
	if got := holds(); len(got) != 0 {
		t.Errorf("held are %v, of which nothing was stored", got)
	}
	if after := trail(); len(after) != 0 {
		t.Errorf("out of nothing came %v", after)
	}
	l.start()
}
