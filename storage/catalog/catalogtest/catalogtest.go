// Package catalogtest is the one suite that the catalog has to pass over every
// database.
package catalogtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// Run runs the suite. open returns a new, empty catalog that lives as long as
// the test given to it.
func Run(t *testing.T, open func(t *testing.T) *catalog.DB) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, db *catalog.DB)
	}{
		{"a new catalog is empty", testEmpty},
		{"entries come back as they went in", testEntries},
		{"entries only continue the log", testAppendRefused},
		{"a refused update changes nothing", testRollback},
		{"a panic changes nothing", testPanic},
		{"a transaction sees its own changes and nobody else does", testIsolation},
		{"updates run one at a time", testSerial},
		{"log hashes come back as they went in", testHashes},
		{"state is read as of any entry", testStateAsOf},
		{"many keys are read at once as of any entry", testStates},
		{"a range has the newest value of each key", testStateRange},
		{"a search looks behind the prefix", testStateSearch},
		{"keys are compared byte by byte", testKeyOrder},
		{"history cannot be changed", testHistory},
		{"state needs its entry", testStateWithoutEntry},
		{"unclean keys are refused", testBadKeys},
		{"crate lines are read as of any entry", testCrateLines},
		{"search", testSearch},
		{"what is published only grows", testPublished},
		{"what is published is held by its publisher", testPublish},
		{"one publishes at a time", testPublishAlone},
		{"a panic gives up the right to publish", testPublishPanic},
		{"a lease is given to who has seen what is published", testLeases},
		{"a lease ends by itself", testLeaseEnds},
		{"publications are signalled until nobody listens", testWatch},
		{"what entries changed is found by their indexes", testStateKeys},
		{"records are found where they stand, if that is published", testPublishedRecords},
		{"condemned blobs are remembered until they are forgotten", testCondemned},
		{"an assertion is used once", testAssertions},
		{"an assertion is used once by many at once", testAssertionRace},
		{"facts can be replaced", testMeta},
		{"equal state has equal digests", testDigest},
		{"a scan is kept until another takes its place", testScans},
		{"what was not scanned is found", testUnscanned},
		{"versions are found by their bytes as of any entry", testVersionsByCID},
		{"the audit trail is paged newest first, and bounded", testAudit},
		{"the audit trail stores whatever it is given", testAuditTexts},
		{"index files of others are noted", testUpstreamFiles},
		{"what is held of others is found by its bytes", testUpstreamBlobs},
		{"what is held of others is measured", testUpstreamHeld},
		{"what is held is held of who has served it, and of nobody else", testUpstreamSources},
		{"what was not used for longest is found first, and never what is pinned", testUpstreamUse},
		{"pins are a list's", testUpstreamPins},
		{"a list may lack", testUpstreamLacks},
		{"a list lacks anew", testUpstreamLacksAnew},
		{"alarms are paged newest first, and bounded for each", testUpstreamAlarms},
		{"an alarm that was looked into stays so, and a later one is new", testSeenUpstreamAlarms},
		{"what is noted of others is no state", testUpstreamIsNoState},
		{"rows are read as they stand, a page at once", testRows},
		{"what is put back changes nothing that is there", testRestored},
		{"when what is condemned was", testCondemnations},
		{"a cancelled context is obeyed", testCancelled},
		{"a thousand entries", testThousand},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, open(t))
		})
	}
}

const always = math.MaxInt64 // as of the end of time

// entry returns the i-th entry of the tests' log.
func entry(i int64) catalog.Entry {
	data := fmt.Appendf(nil, "entry %d", i)
	return catalog.Entry{
		Index: i, Bytes: data, LeafHash: sha256.Sum256(append([]byte{0}, data...)),
		Record: storage.CIDOf(data), RecordID: fmt.Sprintf("%x", sha256.Sum256(data)),
	}
}

func update(t *testing.T, db *catalog.DB, f func(*catalog.Tx) error) {
	t.Helper()
	if err := db.Update(t.Context(), f); err != nil {
		t.Fatalf("Update: %v", err)
	}
}

// grow appends an entry and calls change, which may be nil, in one transaction.
func grow(t *testing.T, db *catalog.DB, change func(tx *catalog.Tx, idx int64) error) {
	t.Helper()
	update(t, db, func(tx *catalog.Tx) error {
		idx, err := tx.Head(t.Context())
		if err != nil {
			return err
		}
		if err := tx.AppendEntry(t.Context(), entry(idx)); err != nil {
			return err
		}
		if change == nil {
			return nil
		}
		return change(tx, idx)
	})
}

// set appends an entry that sets key to value.
func set(t *testing.T, db *catalog.DB, key, value string) {
	t.Helper()
	grow(t, db, func(tx *catalog.Tx, idx int64) error { return tx.PutState(t.Context(), key, idx, []byte(value)) })
}

func wantHead(t *testing.T, db *catalog.DB, want int64) {
	t.Helper()
	if got, err := db.Head(t.Context()); err != nil || got != want {
		t.Errorf("Head: %d, %v, want %d", got, err, want)
	}
}

func equalEntries(a, b catalog.Entry) bool {
	return a.Index == b.Index && bytes.Equal(a.Bytes, b.Bytes) && a.LeafHash == b.LeafHash &&
		a.Record == b.Record && a.RecordID == b.RecordID
}

func testEmpty(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	wantHead(t, db, 0)
	if _, err := db.Entry(ctx, 0); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("Entry: error %v, want ErrNotFound", err)
	}
	if entries, err := db.Entries(ctx, 0, 10); err != nil || len(entries) != 0 {
		t.Errorf("Entries: %v, %v", entries, err)
	}
	if _, ok, err := db.EntryByRecord(ctx, "x"); err != nil || ok {
		t.Errorf("EntryByRecord: %t, %v", ok, err)
	}
	if value, ok, err := db.State(ctx, "x", always); err != nil || ok || value != nil {
		t.Errorf("State: %q, %t, %v", value, ok, err)
	}
	if size, checkpoint, err := db.Published(ctx); err != nil || size != 0 || checkpoint != nil {
		t.Errorf("Published: %d, %q, %v", size, checkpoint, err)
	}
	if _, ok, err := db.Meta(ctx, "x"); err != nil || ok {
		t.Errorf("Meta: %t, %v", ok, err)
	}
	var now time.Time
	update(t, db, func(tx *catalog.Tx) (err error) { now, err = tx.Now(ctx); return err })
	since, err := db.AssertionsSince(ctx)
	if err != nil || since.After(now) || now.Sub(since) > time.Minute {
		t.Errorf("AssertionsSince: %v, %v, want just before %v", since, err, now)
	}
	if now.Location() != time.UTC || now.Nanosecond() != 0 || time.Since(now).Abs() > time.Minute {
		t.Errorf("Now: %v, want whole seconds UTC", now)
	}
}

func testEntries(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	for range 5 {
		grow(t, db, nil)
	}
	wantHead(t, db, 5)
	for i := range int64(5) {
		got, err := db.Entry(ctx, i)
		if err != nil || !equalEntries(got, entry(i)) {
			t.Errorf("Entry %d: %v, %v", i, got, err)
		}
		got, ok, err := db.EntryByRecord(ctx, entry(i).RecordID)
		if err != nil || !ok || !equalEntries(got, entry(i)) {
			t.Errorf("EntryByRecord %d: %v, %t, %v", i, got, ok, err)
		}
	}
	for _, span := range []struct {
		from, to int64
		want     []int64
	}{{0, 5, []int64{0, 1, 2, 3, 4}}, {1, 3, []int64{1, 2}}, {3, 9, []int64{3, 4}}, {5, 9, nil}, {3, 3, nil}, {3, 1, nil}, {-2, 1, []int64{0}}} {
		entries, err := db.Entries(ctx, span.from, span.to)
		var got []int64
		for _, e := range entries {
			got = append(got, e.Index)
		}
		if err != nil || !slices.Equal(got, span.want) {
			t.Errorf("Entries from %d to %d: %v, %v, want %v", span.from, span.to, got, err, span.want)
		}
	}
}

func testAppendRefused(t *testing.T, db *catalog.DB) {
	grow(t, db, nil)
	grow(t, db, nil)
	again := entry(2)
	again.RecordID = entry(0).RecordID
	nameless, unidentified := entry(2), entry(2)
	nameless.Record = storage.CID{}
	unidentified.RecordID = ""
	for _, test := range []struct {
		name  string
		entry catalog.Entry
		want  error
	}{
		{"a gap", entry(3), catalog.ErrNotNext},
		{"an index that is taken", entry(1), catalog.ErrNotNext},
		{"a negative index", entry(-1), catalog.ErrNotNext},
		{"a record that is there", again, catalog.ErrRecordExists},
		{"no record", nameless, catalog.ErrBadText},
		{"no identity", unidentified, catalog.ErrBadText},
	} {
		err := db.Update(t.Context(), func(tx *catalog.Tx) error { return tx.AppendEntry(t.Context(), test.entry) })
		if !errors.Is(err, test.want) {
			t.Errorf("%s: error %v, want %v", test.name, err, test.want)
		}
	}
	wantHead(t, db, 2)
}

var errRefused = errors.New("refused")

func testRollback(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	grow(t, db, nil)
	before, err := db.StateDigest(ctx)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(ctx, func(tx *catalog.Tx) error {
		if err := everything(ctx, tx, 1); err != nil {
			return err
		}
		return errRefused
	})
	if !errors.Is(err, errRefused) {
		t.Errorf("Update: error %v, want the function's own", err)
	}
	wantUntouched(t, db, before)
	update(t, db, func(tx *catalog.Tx) error { return everything(ctx, tx, 1) }) // nothing is in the way
	wantHead(t, db, 2)
}

// everything appends entry idx with one row of each kind.
func everything(ctx context.Context, tx *catalog.Tx, idx int64) error {
	return errors.Join(
		tx.AppendEntry(ctx, entry(idx)),
		tx.PutHashes(ctx, 0, [][32]byte{{1}, {2}}),
		tx.PutState(ctx, "key", idx, []byte("value")),
		tx.PutCrateLine(ctx, catalog.CrateLine{NameKey: "demo", Version: "1.0.0", Index: idx, Line: []byte("{}\n")}))
}

func wantUntouched(t *testing.T, db *catalog.DB, before [32]byte) {
	t.Helper()
	wantHead(t, db, 1)
	if after, err := db.StateDigest(t.Context()); err != nil || after != before {
		t.Errorf("the state has changed (%v)", err)
	}
	if _, err := db.Hashes(t.Context(), []int64{0}); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("Hashes: error %v, want ErrNotFound", err)
	}
	if _, err := db.Entry(t.Context(), 1); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("Entry: error %v, want ErrNotFound", err)
	}
}

func testPanic(t *testing.T, db *catalog.DB) {
	grow(t, db, nil)
	before, err := db.StateDigest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() {
			if r, _ := recover().(error); !errors.Is(r, errRefused) {
				t.Errorf("recovered %v, want the function's own panic", r)
			}
		}()
		_ = db.Update(t.Context(), func(tx *catalog.Tx) error {
			if err := everything(t.Context(), tx, 1); err != nil {
				t.Error(err)
			}
			panic(errRefused)
		})
	}()
	wantUntouched(t, db, before)
	grow(t, db, nil) // the lock is free again
}

func testIsolation(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	set(t, db, "key", "old")
	update(t, db, func(tx *catalog.Tx) error {
		if err := tx.AppendEntry(ctx, entry(1)); err != nil {
			return err
		}
		if err := tx.PutState(ctx, "key", 1, []byte("new")); err != nil {
			return err
		}
		if value, _, err := tx.State(ctx, "key", always); err != nil || string(value) != "new" {
			t.Errorf("in the transaction key is %q, %v", value, err)
		}
		if value, _, err := db.State(ctx, "key", always); err != nil || string(value) != "old" {
			t.Errorf("outside the transaction key is %q, %v", value, err)
		}
		if head, err := tx.Head(ctx); err != nil || head != 2 {
			t.Errorf("in the transaction the head is %d, %v", head, err)
		}
		wantHead(t, db, 1)
		return nil
	})
	if value, _, err := db.State(ctx, "key", always); err != nil || string(value) != "new" {
		t.Errorf("after the commit key is %q, %v", value, err)
	}
}

func testSerial(t *testing.T, db *catalog.DB) {
	const writers, rounds = 8, 10
	var group sync.WaitGroup
	for range writers {
		group.Go(func() {
			for range rounds {
				err := db.Update(t.Context(), func(tx *catalog.Tx) error {
					idx, err := tx.Head(t.Context())
					if err != nil {
						return err
					}
					value, _, err := tx.State(t.Context(), "sum", always)
					if err != nil {
						return err
					}
					return errors.Join(tx.AppendEntry(t.Context(), entry(idx)), tx.PutState(t.Context(), "sum", idx, append(value, '+')))
				})
				if err != nil {
					t.Errorf("Update: %v", err)
				}
			}
		})
	}
	group.Wait()
	wantHead(t, db, writers*rounds)
	if value, _, err := db.State(t.Context(), "sum", always); err != nil || len(value) != writers*rounds {
		t.Errorf("the sum is %d, %v, want %d", len(value), err, writers*rounds)
	}
}

func testHashes(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	hashes := make([][32]byte, 600)
	for i := range hashes {
		hashes[i] = sha256.Sum256(fmt.Append(nil, i))
	}
	update(t, db, func(tx *catalog.Tx) error { return tx.PutHashes(ctx, 0, hashes[:1]) })
	update(t, db, func(tx *catalog.Tx) error {
		return errors.Join(tx.PutHashes(ctx, 1, hashes[1:500]), tx.PutHashes(ctx, 500, hashes[500:]), tx.PutHashes(ctx, 600, nil))
	})
	positions := []int64{599, 0, 0, 256, 7}
	for i := range int64(600) {
		positions = append(positions, i)
	}
	got, err := db.Hashes(ctx, positions)
	if err != nil || len(got) != len(positions) {
		t.Fatalf("Hashes: %d, %v", len(got), err)
	}
	for i, p := range positions {
		if got[i] != hashes[p] {
			t.Errorf("hash %d is %x, want %x", p, got[i], hashes[p])
		}
	}
	for _, missing := range []int64{600, -1, math.MaxInt64} {
		if _, err := db.Hashes(ctx, []int64{0, missing}); !errors.Is(err, catalog.ErrNotFound) {
			t.Errorf("Hashes with %d: error %v, want ErrNotFound", missing, err)
		}
	}
	if got, err := db.Hashes(ctx, nil); err != nil || len(got) != 0 {
		t.Errorf("no hashes: %v, %v", got, err)
	}
	for _, first := range []int64{0, 599, 601, -1} {
		err := db.Update(ctx, func(tx *catalog.Tx) error { return tx.PutHashes(ctx, first, hashes[:1]) })
		if !errors.Is(err, catalog.ErrNotNext) {
			t.Errorf("PutHashes at %d: error %v, want ErrNotNext", first, err)
		}
	}
}

func testDigest(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	seen := map[[32]byte]string{}
	step := func(name string, changes bool) {
		t.Helper()
		digest, err := db.StateDigest(ctx)
		if err != nil {
			t.Fatal(err)
		}
		earlier, ok := seen[digest]
		if ok == changes {
			t.Errorf("after %s the digest is as after %q; want a change: %t", name, earlier, changes)
		}
		seen[digest] = name
	}
	step("nothing", true)
	set(t, db, "ab", "c")
	step("state", true)
	set(t, db, "a", "bc")
	step("the same letters at other places", true)
	set(t, db, "a", "bc")
	step("the same value again", true)
	publish(t, db, "demo", "1.0.0", "a", "b")
	step("a crate", true)
	publish(t, db, "demo", "1.0.1", "", "ab")
	step("another", true)
	grow(t, db, nil)
	step("an entry without effect", false)
	if err := errors.Join(db.SetMeta(ctx, "x", "y"), db.Publish(ctx, one(1, "note"))); err != nil {
		t.Fatal(err)
	}
	step("what is not derived", false)
}

func testCancelled(t *testing.T, db *catalog.DB) {
	set(t, db, "key", "value")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	now := time.Now()
	calls := map[string]func() error{
		"Update":           func() error { return db.Update(ctx, func(*catalog.Tx) error { return nil }) },
		"Head":             func() error { _, err := db.Head(ctx); return err },
		"Entry":            func() error { _, err := db.Entry(ctx, 0); return err },
		"Entries":          func() error { _, err := db.Entries(ctx, 0, 1); return err },
		"EntryByRecord":    func() error { _, _, err := db.EntryByRecord(ctx, "x"); return err },
		"Hashes":           func() error { _, err := db.Hashes(ctx, []int64{0}); return err },
		"State":            func() error { _, _, err := db.State(ctx, "key", 1); return err },
		"States":           func() error { _, err := db.States(ctx, []string{"key"}, 1); return err },
		"StateSearch":      func() error { _, err := db.StateSearch(ctx, "a", "", "", 1, 1); return err },
		"StateRange":       func() error { _, err := db.StateRange(ctx, "a", "z", 1, 1); return err },
		"StateHistory":     func() error { _, err := db.StateHistory(ctx, "key", 1); return err },
		"CrateLines":       func() error { _, err := db.CrateLines(ctx, "x", 1); return err },
		"SearchCrates":     func() error { _, _, err := db.SearchCrates(ctx, "x", 1, 1, 0); return err },
		"Published":        func() error { _, _, err := db.Published(ctx); return err },
		"Publish":          func() error { return db.Publish(ctx, one(1, "x")) },
		"Confirm":          func() error { _, err := db.Confirm(ctx, "x", 0, time.Hour); return err },
		"Unconfirmed":      func() error { _, err := db.Unconfirmed(ctx, 0); return err },
		"Leave":            func() error { return db.Leave(ctx, "x") },
		"StateKeys":        func() error { _, err := db.StateKeys(ctx, 0, 1, 1); return err },
		"PublishedRecords": func() error { _, err := db.PublishedRecords(ctx, []int64{0}); return err },
		"Condemned":        func() error { _, err := db.Condemned(ctx, []storage.CID{entry(0).Record}); return err },
		"UseAssertion":     func() error { _, err := db.UseAssertion(ctx, "a", "b", now.Add(time.Hour), now); return err },
		"AssertionsSince":  func() error { _, err := db.AssertionsSince(ctx); return err },
		"Meta":             func() error { _, _, err := db.Meta(ctx, "x"); return err },
		"SetMeta":          func() error { return db.SetMeta(ctx, "x", "y") },
		"StateDigest":      func() error { _, err := db.StateDigest(ctx); return err },
		"ScanOf":           func() error { _, _, err := db.ScanOf(ctx, entry(0).Record); return err },
		"PutScan":          func() error { return db.PutScan(ctx, catalog.Scan{CID: entry(0).Record}) },
		"PutScans":         func() error { return db.PutScans(ctx, []catalog.Scan{{CID: entry(0).Record}}) },
		"CountFindings":    func() error { _, err := db.CountFindings(ctx); return err },
		"ScansOf":          func() error { _, err := db.ScansOf(ctx, 1, []storage.CID{entry(0).Record}); return err },
		"Unscanned":        func() error { _, err := db.Unscanned(ctx, "version/", 1, storage.CID{}, 1); return err },
		"VersionsByCID":    func() error { _, err := db.VersionsByCID(ctx, entry(0).Record, 1); return err },
		"Audit":            func() error { _, err := db.Audit(ctx, 1, 1); return err },
		"AuditOf":          func() error { _, err := db.AuditOf(ctx, "a", 1, 1); return err },
		"AppendAudit":      func() error { return db.AppendAudit(ctx, []catalog.AuditEntry{{}}, 1) },
		"UpstreamFile":     func() error { _, _, err := db.UpstreamFile(ctx, "a", "b"); return err },
		"PutUpstreamFiles": func() error { return db.PutUpstreamFiles(ctx, []catalog.UpstreamFile{{Upstream: "a", Name: "b"}}) },
		"UpstreamBlobs":    func() error { _, err := db.UpstreamBlobs(ctx, []storage.CID{entry(0).Record}); return err },
		"UseUpstreamBlobs": func() error { return db.UseUpstreamBlobs(ctx, []storage.CID{entry(0).Record}, now) },
		"PinUpstream":      func() error { return db.PinUpstream(ctx, "a", "b", []storage.CID{entry(0).Record}, now) },
		"UnpinUpstream":    func() error { _, err := db.UnpinUpstream(ctx, "a", now); return err },
		"LackUpstream": func() error {
			return db.LackUpstream(ctx, []catalog.UpstreamLack{{Lock: "a", Upstream: "b", Name: "c", DID: "d"}})
		},
		"HaveUpstream":         func() error { return db.HaveUpstream(ctx, []catalog.UpstreamLack{{Lock: "a"}}) },
		"LackUpstreamAnew":     func() error { return db.LackUpstreamAnew(ctx, "a", "b", nil) },
		"UpstreamLacks":        func() error { _, err := db.UpstreamLacks(ctx, catalog.UpstreamLack{Lock: "a"}, 1); return err },
		"UpstreamAlarms":       func() error { _, err := db.UpstreamAlarms(ctx, "a", 1, 1); return err },
		"UnseenUpstreamAlarms": func() error { _, err := db.UnseenUpstreamAlarms(ctx, "a", 1, 1); return err },
		"SeeUpstreamAlarm":     func() error { _, _, err := db.SeeUpstreamAlarm(ctx, "a", 1, catalog.AlarmSeen{}); return err },
		"AddUpstreamAlarm":     func() error { return db.AddUpstreamAlarm(ctx, catalog.UpstreamAlarm{}, 1) },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: error %v, want context.Canceled", name, err)
		}
	}

	ctx, cancel = context.WithCancel(t.Context())
	err := db.Update(ctx, func(tx *catalog.Tx) error {
		if err := tx.AppendEntry(ctx, entry(1)); err != nil {
			return err
		}
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Update cancelled before its commit: error %v, want context.Canceled", err)
	}
	wantHead(t, db, 1)

	// Who waits for the lock can give up.
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	update(t, db, func(*catalog.Tx) error {
		if err := db.Update(ctx, func(*catalog.Tx) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Update that waits for another: error %v, want context.DeadlineExceeded", err)
		}
		return nil
	})
	grow(t, db, nil)
}

func testThousand(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	const n, batch = 1000, 100
	started := time.Now()
	for first := int64(0); first < n; first += batch {
		update(t, db, func(tx *catalog.Tx) error {
			for idx := first; idx < first+batch; idx++ {
				err := errors.Join(
					tx.AppendEntry(ctx, entry(idx)),
					tx.PutHashes(ctx, idx, [][32]byte{entry(idx).LeafHash}),
					tx.PutState(ctx, fmt.Sprintf("key/%d", idx%10), idx, fmt.Append(nil, idx)))
				if err != nil {
					return err
				}
				if idx%4 != 0 {
					continue
				}
				line := catalog.CrateLine{NameKey: fmt.Sprintf("crate%d", idx%100), Version: fmt.Sprint(idx), Index: idx}
				if err := tx.PutCrateLine(ctx, line); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for before := int64(10); before <= n; before += 90 {
		rows, err := db.StateRange(ctx, "key/", catalog.PrefixEnd("key/"), before, 100)
		if err != nil || len(rows) != 10 {
			t.Fatalf("StateRange as of %d: %d rows, %v", before, len(rows), err)
		}
		for _, row := range rows {
			if row.Index < before-10 || row.Index >= before || string(row.Value) != fmt.Sprint(row.Index) {
				t.Errorf("as of %d %s is %s of entry %d", before, row.Key, row.Value, row.Index)
			}
		}
	}
	if _, total, err := db.SearchCrates(ctx, "crate", always, 10, 0); err != nil || total != 25 {
		t.Errorf("search finds %d, %v, want 25", total, err)
	}
	if took := time.Since(started); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
}
