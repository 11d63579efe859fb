//go:build unix

package catalog_test

import (
	"fmt"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// upstreamRows is all that a catalog has noted of other registries.
type upstreamRows struct {
	Files   []catalog.UpstreamFile
	Blobs   []catalog.UpstreamBlob
	Sources []catalog.UpstreamSource
	Pins    []catalog.UpstreamPin
	Lacks   []catalog.UpstreamLack
	Alarms  []catalog.UpstreamAlarm
}

func allOfUpstream(t *testing.T, db *catalog.DB, files int) (all upstreamRows) {
	t.Helper()
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range files {
		f, ok, err := db.UpstreamFile(ctx, "crates-io", fmt.Sprint("crate-", i))
		must(err)
		if ok {
			all.Files = append(all.Files, f)
		}
	}
	var err error
	all.Blobs, err = db.UpstreamBlobsAfter(ctx, storage.CID{}, 10_000)
	must(err)
	all.Sources, err = db.UpstreamSourcesAfter(ctx, catalog.UpstreamSource{}, 10_000)
	must(err)
	locks, err := db.UpstreamLocks(ctx, "", 10_000)
	must(err)
	for _, l := range locks {
		pins, err := db.UpstreamPins(ctx, l.Lock, storage.CID{}, 10_000)
		must(err)
		all.Pins = append(all.Pins, pins...)
		lacks, err := db.UpstreamLacks(ctx, catalog.UpstreamLack{Lock: l.Lock}, 10_000)
		must(err)
		all.Lacks = append(all.Lacks, lacks...)
	}
	all.Alarms, err = db.UpstreamAlarms(ctx, "crates-io", 1<<60, 10_000)
	must(err)
	for i := range all.Alarms { // the order is what counts
		all.Alarms[i].ID = 0
	}
	return all
}

func TestWhatIsNotedOfOthersIsTakenOver(t *testing.T) {
	t.Parallel()
	const many = 1003
	sqlite := func() *catalog.DB {
		db, err := catalog.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "catalog.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		return db
	}
	from, ctx := sqlite(), t.Context()
	if n, err := sqlite().CopyUpstream(ctx, from); err != nil || n != (catalog.UpstreamCopied{}) {
		t.Errorf("of nothing: %+v, %v", n, err)
	}
	at := time.Unix(2_000_000_000, 0).UTC()
	var files []catalog.UpstreamFile
	var blobs []catalog.UpstreamBlob
	var ids []storage.CID
	for i := range many {
		id, name := storage.CIDOf(fmt.Append(nil, i)), fmt.Sprint("crate-", i)
		ids = append(ids, id)
		files = append(files, catalog.UpstreamFile{Upstream: "crates-io", Name: name, ETag: `"x"`, LastModified: "y", IndexURL: "https://index.example/", Snapshot: id, Status: 200, Checked: at})
		blobs = append(blobs, catalog.UpstreamBlob{CID: id, Upstream: "crates-io", Name: name, Version: "1.0.0", Size: int64(i), Fetched: at, Used: at.Add(time.Duration(i) * time.Second)})
	}
	err := from.PutUpstreamFiles(ctx, files)
	if err == nil {
		err = from.Update(ctx, func(tx *catalog.Tx) error { return tx.PutUpstreamBlobs(ctx, blobs) })
	}
	if err == nil { // some of them another has served, too
		for i := range blobs[:7] {
			blobs[i].Upstream = "mirror"
		}
		err = from.Update(ctx, func(tx *catalog.Tx) error { return tx.PutUpstreamBlobs(ctx, blobs[:7]) })
	}
	for i := 0; i < 2 && err == nil; i++ {
		err = from.PinUpstream(ctx, fmt.Sprint("lock-", i), "did:key:a", ids[i:many/2], at)
	}
	for i := 0; i < many && err == nil; i++ {
		err = from.LackUpstream(ctx, []catalog.UpstreamLack{{Lock: fmt.Sprint("lock-", 1+i%2), Upstream: "crates-io", Name: fmt.Sprint("lack-", i), CID: storage.CIDOf(fmt.Append(nil, "lack", i)), Why: "absent", DID: "did:key:a", Since: at}})
	}
	for i := 0; i < 7 && err == nil; i++ {
		err = from.AddUpstreamAlarm(ctx, catalog.UpstreamAlarm{Upstream: "crates-io", Name: fmt.Sprint(i), Version: "1.0.0", Kind: "changed", Detail: "d", At: at}, 5)
	}
	if err != nil {
		t.Fatal(err)
	}
	newest, err := from.UpstreamAlarms(ctx, "crates-io", 1<<60, 1)
	if err == nil {
		_, _, err = from.SeeUpstreamAlarm(ctx, "crates-io", newest[0].ID, catalog.AlarmSeen{By: "did:key:1", Why: "looked", At: at})
	}
	if err != nil {
		t.Fatal(err)
	}
	want := allOfUpstream(t, from, many)
	counts := catalog.UpstreamCopied{Files: many, Blobs: many, Sources: many + 7, Pins: 2*(many/2) - 1, Lacks: many, Alarms: 5}
	if len(want.Files) != many || len(want.Blobs) != many || len(want.Pins) != int(counts.Pins) || len(want.Lacks) != many || len(want.Alarms) != 5 {
		t.Fatalf("there are %d, %d, %d, %d, %d rows", len(want.Files), len(want.Blobs), len(want.Pins), len(want.Lacks), len(want.Alarms))
	}
	// There and back: each database reads, and is written to.
	postgres, back := openPostgres(t, testbed.SharedPostgres(t).URL), sqlite()
	for _, way := range [][2]*catalog.DB{{from, postgres}, {postgres, back}} {
		if n, err := way[1].CopyUpstream(ctx, way[0]); err != nil || n != counts {
			t.Fatalf("CopyUpstream: %+v, %v", n, err)
		}
		if got := allOfUpstream(t, way[1], many); !reflect.DeepEqual(got, want) {
			t.Errorf("the copy differs: %d, %d, %d, %d, %d rows", len(got.Files), len(got.Blobs), len(got.Pins), len(got.Lacks), len(got.Alarms))
		}
	}
	for _, db := range []*catalog.DB{postgres, back} {
		if err := db.AddUpstreamAlarm(ctx, catalog.UpstreamAlarm{Upstream: "crates-io", Name: "later"}, 5); err != nil {
			t.Errorf("an alarm after the copy: %v", err)
		}
		if got := allOfUpstream(t, db, 0).Alarms; len(got) != 5 || got[0].Name != "later" {
			t.Errorf("alarms after the copy: %v", got)
		}
	}
	gone, err := catalog.OpenSQLite(ctx, filepath.Join(t.TempDir(), "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	into := sqlite()
	if n, err := into.CopyUpstream(ctx, gone); err == nil || n != (catalog.UpstreamCopied{}) {
		t.Errorf("of one that cannot be read: %+v, %v", n, err)
	}
}
