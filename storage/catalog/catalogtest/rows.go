package catalogtest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// fill makes a log of n entries, each with a version of one of three crates.
func fill(t *testing.T, db *catalog.DB, n int64) {
	t.Helper()
	for i := range n {
		grow(t, db, func(tx *catalog.Tx, idx int64) error {
			name := fmt.Sprintf("crate%d", i%3)
			key := fmt.Sprintf("version/crate/%s/%d.0.0", name, i)
			hash := entry(i).LeafHash
			return firstError(
				tx.PutHashes(t.Context(), idx, [][32]byte{hash}),
				tx.PutState(t.Context(), key, idx, []byte("value")),
				tx.PutState(t.Context(), "artifact/crate/"+name, idx, []byte("owner")),
				tx.PutVersionCID(t.Context(), storage.CIDOf([]byte(key)), key, idx),
				tx.PutCrateLine(t.Context(), catalog.CrateLine{NameKey: name, Version: fmt.Sprint(i), Index: idx, Line: []byte("line"), Description: "A Crate", Keywords: "Some Words"}),
			)
		})
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// paged reads all rows, some at once, and counts them; they have to be in order.
func paged[T any](t *testing.T, what string, zero T, read func(after T) ([]T, error), less func(a, b T) bool) (all []T) {
	t.Helper()
	for last := zero; ; {
		page, err := read(last)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if len(page) == 0 {
			break
		}
		all = append(all, page...)
		last = page[len(page)-1]
	}
	for i := range len(all) - 1 {
		if !less(all[i], all[i+1]) {
			t.Errorf("%s: %v comes before %v", what, all[i], all[i+1])
		}
	}
	return all
}

func testRows(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	if e, err := db.Ends(ctx); err != nil || e != (catalog.Ends{}) {
		t.Errorf("Ends of nothing: %+v, %v", e, err)
	}
	const n, before = 20, 15
	fill(t, db, n)
	if e, err := db.Ends(ctx); err != nil || e != (catalog.Ends{Head: n, Entries: n, Hashes: n}) {
		t.Errorf("Ends: %+v, %v", e, err)
	}
	if beyond, err := db.Beyond(ctx); err != nil || len(beyond) > 0 {
		t.Errorf("Beyond: %v, %v", beyond, err)
	}
	entries, err := db.EntryRows(ctx, 18, 25)
	if err != nil || len(entries) != 2 || entries[0].Index != 18 || string(entries[1].Bytes) != "entry 19" || entries[1].RecordID != entry(19).RecordID || entries[1].RecordCID != entry(19).Record.String() {
		t.Errorf("EntryRows: %+v, %v", entries, err)
	}
	hashes, err := db.HashRows(ctx, 4, 6)
	if want := entry(4).LeafHash; err != nil || len(hashes) != 2 || hashes[0].Position != 4 || !slices.Equal(hashes[0].Hash, want[:]) {
		t.Errorf("HashRows: %v, %v", hashes, err)
	}
	states := paged(t, "StateRows", catalog.StateRow{}, func(after catalog.StateRow) ([]catalog.StateRow, error) {
		return db.StateRows(ctx, catalog.StateKey{Key: after.Key, Index: after.Index}, before, 4)
	}, func(a, b catalog.StateRow) bool { return a.Key < b.Key || a.Key == b.Key && a.Index < b.Index })
	if len(states) != 2*before || states[0].Key != "artifact/crate/crate0" || string(states[0].Value) != "owner" {
		t.Errorf("%d rows of state, of which the first is %+v", len(states), states[0])
	}
	lines := paged(t, "CrateRows", catalog.CrateRow{CrateLine: catalog.CrateLine{Index: -1}}, func(after catalog.CrateRow) ([]catalog.CrateRow, error) {
		return db.CrateRows(ctx, after.Index, before, 4)
	}, func(a, b catalog.CrateRow) bool { return a.Index < b.Index })
	if len(lines) != before || lines[0].Search != "a crate\nsome words" || lines[0].NameKey != "crate0" {
		t.Errorf("%d lines, of which the first is %+v", len(lines), lines[0])
	}
	versions := paged(t, "VersionCIDs", catalog.VersionCID{}, func(after catalog.VersionCID) ([]catalog.VersionCID, error) {
		return db.VersionCIDs(ctx, after, before, 4)
	}, func(a, b catalog.VersionCID) bool { return a.CID < b.CID || a.CID == b.CID && a.Key < b.Key })
	if len(versions) != before {
		t.Errorf("%d versions", len(versions))
	}
}

// What is put back of entries that are committed changes nothing that is there.
func testRestored(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	fill(t, db, 3)
	lines, err := db.CrateRows(ctx, -1, 3, 10)
	if err != nil || len(lines) != 3 {
		t.Fatal(lines, err)
	}
	versions, err := db.VersionCIDs(ctx, catalog.VersionCID{}, 3, 10)
	if err != nil || len(versions) != 3 {
		t.Fatal(versions, err)
	}
	other := lines[1]
	other.Index, other.Version = 2, "new"
	update(t, db, func(tx *catalog.Tx) error {
		for what, try := range map[string]func() (bool, error){
			"a line that is there":          func() (bool, error) { return tx.RestoreCrateLine(ctx, lines[0]) },
			"a line of an entry with one":   func() (bool, error) { return tx.RestoreCrateLine(ctx, other) },
			"a version's CID that is there": func() (bool, error) { return tx.RestoreVersionCID(ctx, versions[0]) },
		} {
			if added, err := try(); added || err != nil {
				t.Errorf("%s: %t, %v", what, added, err)
			}
		}
		added, err := tx.RestoreVersionCID(ctx, catalog.VersionCID{CID: storage.CIDOf(nil).String(), Key: "version/crate/x/1.0.0", Index: 1})
		if !added || err != nil {
			t.Errorf("a version's CID that is not: %t, %v", added, err)
		}
		return nil
	})
	if again, err := db.VersionsByCID(ctx, storage.CIDOf(nil), 2); err != nil || !slices.Equal(again, []string{"version/crate/x/1.0.0"}) {
		t.Errorf("found are %v, %v", again, err)
	}
}

func testCondemnations(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	var ids []storage.CID
	for i := range 600 { // more than one statement asks for
		ids = append(ids, storage.CIDOf([]byte{byte(i), byte(i >> 8)}))
	}
	at := time.Unix(2_000_000_000, 0).UTC()
	update(t, db, func(tx *catalog.Tx) error {
		if err := tx.Condemn(ctx, ids[:550], at); err != nil {
			return err
		}
		return tx.Condemn(ctx, ids[:1], at.Add(time.Second))
	})
	found, err := db.Condemnations(ctx, ids)
	if err != nil || len(found) != 550 || !found[ids[0]].Equal(at.Add(time.Second)) || !found[ids[549]].Equal(at) {
		t.Errorf("%d are condemned, %v", len(found), err)
	}
	if found, err := db.Condemnations(ctx, nil); err != nil || len(found) > 0 {
		t.Errorf("of none: %v, %v", found, err)
	}
}
