//go:build unix

package catalog_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// Two servers that write the same rows, each in its own order, wait for one another and for nobody
// else: the database need not undo what one of them did.
func TestWhoWritesTheSameRowsWaitsForNoDeadlock(t *testing.T) {
	t.Parallel()
	url := testbed.SharedPostgres(t).URL
	when := time.Unix(1_800_000_000, 0)
	ids := []storage.CID{storage.CIDOf([]byte("1")), storage.CIDOf([]byte("2")), storage.CIDOf([]byte("3"))}
	slices.SortFunc(ids, func(a, b storage.CID) int { return strings.Compare(a.String(), b.String()) })
	names := []string{"a", "m", "z"}
	// The names of what lacks go by the other order than their bytes.
	lacks := func(order ...int) (all []catalog.UpstreamLack) {
		for _, i := range order {
			all = append(all, catalog.UpstreamLack{Lock: "ci", Upstream: "crates-io", Name: names[i], Version: "1.0.0", CID: ids[2-i], DID: "did:key:a", Since: when})
		}
		return all
	}
	files := func(db *catalog.DB, order ...int) error {
		var all []catalog.UpstreamFile
		for _, i := range order {
			all = append(all, catalog.UpstreamFile{Upstream: "crates-io", Name: names[i], Checked: when})
		}
		return db.PutUpstreamFiles(t.Context(), all)
	}
	scans := func(db *catalog.DB, order ...int) error {
		var all []catalog.Scan
		for _, i := range order {
			all = append(all, catalog.Scan{CID: ids[i], Time: when})
		}
		return db.PutScans(t.Context(), all)
	}
	blobs := func(db *catalog.DB, order ...int) error {
		var all []catalog.UpstreamBlob
		for _, i := range order {
			all = append(all, catalog.UpstreamBlob{CID: ids[i], Upstream: "crates-io", Name: names[i], Version: "1.0.0", Fetched: when, Used: when})
		}
		return db.Update(t.Context(), func(tx *catalog.Tx) error { return tx.PutUpstreamBlobs(t.Context(), all) })
	}
	lack := func(db *catalog.DB, order ...int) error { return db.LackUpstream(t.Context(), lacks(order...)) }
	pin := func(db *catalog.DB) error { return db.PinUpstream(t.Context(), "ci", "did:key:a", ids, when) }
	unpin := func(db *catalog.DB, before time.Time) error {
		_, err := db.UnpinUpstream(t.Context(), "ci", before)
		return err
	}
	// The rows are there, in the order in which who does not look finds them last to first.
	lacking := func(db *catalog.DB) error { return lack(db, 2, 1, 0) }
	const middleLack = "SELECT 1 FROM upstream_lack WHERE name = 'm' FOR UPDATE"
	for _, test := range []struct {
		name   string
		before func(*catalog.DB) error
		middle string
		a, b   func(*catalog.DB) error
	}{
		{"index files", func(db *catalog.DB) error { return files(db, 1) }, "SELECT 1 FROM upstream_file WHERE name = 'm' FOR UPDATE",
			func(db *catalog.DB) error { return files(db, 0, 1, 2) }, func(db *catalog.DB) error { return files(db, 2, 1, 0) }},
		{"scans", func(db *catalog.DB) error { return scans(db, 1) }, "SELECT 1 FROM scan WHERE cid = '" + ids[1].String() + "' FOR UPDATE",
			func(db *catalog.DB) error { return scans(db, 0, 1, 2) }, func(db *catalog.DB) error { return scans(db, 2, 1, 0) }},
		{"what is held, and used", func(db *catalog.DB) error { return blobs(db, 0, 1, 2) }, "SELECT 1 FROM upstream_blob WHERE name = 'm' FOR UPDATE",
			func(db *catalog.DB) error { return blobs(db, 2, 1, 0) },
			func(db *catalog.DB) error { return db.UseUpstreamBlobs(t.Context(), ids, when.Add(time.Hour)) }},
		{"what lacks", func(db *catalog.DB) error { return lack(db, 1) }, middleLack,
			func(db *catalog.DB) error { return lack(db, 0, 1, 2) }, func(db *catalog.DB) error { return lack(db, 2, 1, 0) }},
		{"what lacks no more", lacking, middleLack,
			func(db *catalog.DB) error { return lack(db, 0, 1, 2) }, func(db *catalog.DB) error { return db.HaveUpstream(t.Context(), lacks(2, 1, 0)) }},
		{"what lacks and is pinned", func(db *catalog.DB) error { return errors.Join(blobs(db, 0, 1, 2), lacking(db)) }, middleLack, pin, func(db *catalog.DB) error {
			named := lacks(0, 1, 2)
			for i := range named {
				named[i].CID = storage.CID{}
			}
			return db.LackUpstream(t.Context(), named)
		}},
		{"what lacks and is let go of", lacking, middleLack,
			func(db *catalog.DB) error { return unpin(db, time.Time{}) }, func(db *catalog.DB) error { return lack(db, 0, 1, 2) }},
		{"what lacks, all of it", lacking, middleLack,
			func(db *catalog.DB) error { return db.LackUpstreamAnew(t.Context(), "ci", "crates-io", nil) }, func(db *catalog.DB) error { return lack(db, 0, 1, 2) }},
		{"what is pinned and let go of", func(db *catalog.DB) (err error) {
			for _, id := range slices.Backward(ids) {
				err = errors.Join(err, db.PinUpstream(t.Context(), "ci", "did:key:a", []storage.CID{id}, when))
			}
			return err
		}, "SELECT 1 FROM upstream_pin WHERE cid = '" + ids[1].String() + "' FOR UPDATE",
			func(db *catalog.DB) error { return unpin(db, when.Add(time.Hour)) }, pin},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := openTwoIn(t, url)
			w.empty(t)
			if err := test.before(w.a); err != nil {
				t.Fatal(err)
			}
			release, before := w.holdRow(t, test.middle), w.deadlocks(t)
			done := make(chan error, 2)
			for n, write := range []func() error{func() error { return test.a(w.a) }, func() error { return test.b(w.b) }} {
				go func() { done <- write() }()
				eventually(t, "a session that waits", func() bool { return w.blocked(t) == n+1 })
			}
			release()
			if err := errors.Join(<-done, <-done); err != nil {
				t.Error(err)
			}
			w.leave(t)
			if n := w.deadlocks(t) - before; n > 0 {
				t.Errorf("there were %d deadlocks", n)
			}
		})
	}
}

// What one server notes as lacking, while another pins it for the same list, lacks no more when both are done.
func TestWhatIsPinnedMeanwhileDoesNotLack(t *testing.T) {
	t.Parallel()
	w := openTwo(t)
	lacks := []catalog.UpstreamLack{{Lock: "ci", Upstream: "crates-io", Name: "a", CID: storage.CIDOf([]byte("a")), DID: "did:key:a"}, {Lock: "ci", Upstream: "crates-io", Name: "m", DID: "did:key:a"}}
	if err := w.a.LackUpstream(t.Context(), lacks[1:]); err != nil {
		t.Fatal(err)
	}
	release, done := w.holdRow(t, "SELECT 1 FROM upstream_lack WHERE name = 'm' FOR UPDATE"), make(chan error, 1)
	go func() { done <- w.a.LackUpstream(t.Context(), lacks) }()
	eventually(t, "it waits for the second", func() bool { return w.blocked(t) == 1 })
	if err := w.b.PinUpstream(t.Context(), "ci", "did:key:a", []storage.CID{lacks[0].CID}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got, err := w.b.UpstreamLacks(t.Context(), catalog.UpstreamLack{Lock: "ci"}, 9); err != nil || len(got) != 1 || got[0].Name != "m" {
		t.Errorf("it lacks %+v, %v; one of them is pinned", got, err)
	}
}

// Of two servers that each put a list in place of the one before the later one's stands: the other
// does not forget what was noted since it began, else nothing is said to lack of either list.
func TestOfTwoListsAnewOneStands(t *testing.T) {
	t.Parallel()
	w := openTwo(t)
	when := time.Unix(1_800_000_000, 0)
	lack := func(name string, since time.Time) catalog.UpstreamLack {
		return catalog.UpstreamLack{Lock: "ci", Upstream: "crates-io", Name: name, Version: "1.0.0", DID: "did:key:a", Since: since}
	}
	pinned := lack("pinned", when)
	pinned.CID = storage.CIDOf([]byte("pinned"))
	if err := w.a.LackUpstream(t.Context(), []catalog.UpstreamLack{lack("a", when), lack("b", when), lack("old", when), pinned}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.admin.ExecContext(t.Context(), "INSERT INTO upstream_pin (cid, lock, since, did) VALUES ($1, 'ci', 1, 'did:key:a')", pinned.CID.String()); err != nil {
		t.Fatal(err)
	}
	release := w.holdRow(t, "SELECT 1 FROM upstream_lack WHERE name = 'pinned' FOR UPDATE") // which both are to forget
	done, later := make(chan error, 2), when.Add(time.Minute)
	for n, list := range [][]catalog.UpstreamLack{{lack("a", later), lack("new-a", later)}, {lack("b", later), lack("new-b", later)}} {
		go func() { done <- []*catalog.DB{w.a, w.b}[n].LackUpstreamAnew(t.Context(), "ci", "crates-io", list) }()
		eventually(t, "it has noted its own", func() bool { return w.blocked(t) == n+1 })
	}
	release()
	if err := errors.Join(<-done, <-done); err != nil {
		t.Fatal(err)
	}
	var names []string
	got, err := w.b.UpstreamLacks(t.Context(), catalog.UpstreamLack{Lock: "ci"}, 9)
	for _, l := range got {
		names = append(names, l.Name)
	}
	if want := []string{"b", "new-b"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("it lacks %v, want %v, %v", names, want, err)
	}
}

// empty forgets what an earlier one has written.
func (w two) empty(t *testing.T) {
	t.Helper()
	for _, table := range []string{"upstream_file", "upstream_blob", "upstream_source", "upstream_pin", "upstream_lack", "scan"} {
		if _, err := w.admin.ExecContext(t.Context(), "DELETE FROM "+table); err != nil {
			t.Fatal(err)
		}
	}
}

// holdRow locks what query says until release is called.
func (w two) holdRow(t *testing.T, query string) (release func()) {
	t.Helper()
	tx, err := w.admin.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tx.Rollback() })
	if result, err := tx.ExecContext(t.Context(), query); err != nil {
		t.Fatal(err)
	} else if n, err := result.RowsAffected(); err != nil || n != 1 {
		t.Fatalf("%d rows are locked, %v", n, err)
	}
	return func() { tx.Rollback() }
}

// blocked is how many sessions wait for others.
func (w two) blocked(t *testing.T) (n int) {
	t.Helper()
	err := w.admin.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// leave ends the sessions of both, and so has them tell what they counted.
func (w two) leave(t *testing.T) {
	t.Helper()
	if err := errors.Join(w.a.Close(), w.b.Close()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all sessions have ended", func() bool {
		var n int
		err := w.admin.QueryRowContext(context.WithoutCancel(t.Context()), `SELECT COUNT(*) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'aln-registry'`).Scan(&n)
		return err == nil && n == 0
	})
}

// deadlocks is how many the database has undone.
func (w two) deadlocks(t *testing.T) (n int) {
	t.Helper()
	if err := w.admin.QueryRowContext(t.Context(), "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
