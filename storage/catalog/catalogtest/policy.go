package catalogtest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

func testScans(t *testing.T, db *catalog.DB) {
	ctx, id := t.Context(), storage.CIDOf([]byte("a crate"))
	if s, ok, err := db.ScanOf(ctx, id); err != nil || ok {
		t.Errorf("before the first: %v, %t, %v", s, ok, err)
	}
	at := time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)
	for _, want := range []catalog.Scan{
		{CID: id, Recognisers: 1, Findings: []string{"blake3"}, Detail: "src/lib.rs: \"permutation\"", Time: at},
		{CID: id, Recognisers: 2, Findings: []string{"blake3", "another"}, Time: at.Add(time.Second)},
		{CID: id, Recognisers: 2, Time: at},
		{CID: id, Recognisers: 1, Failure: "nested too deep", Time: at},
	} {
		if err := db.PutScan(ctx, want); err != nil {
			t.Fatal(err)
		}
		if got, ok, err := db.ScanOf(ctx, id); err != nil || !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("ScanOf: %+v, %t, %v, want %+v", got, ok, err, want)
		}
		found := int64(0)
		if want.Findings != nil || want.Failure != "" {
			found = 1
		}
		if n, err := db.CountFindings(ctx); err != nil || n != found {
			t.Errorf("%d findings, %v, want %d", n, err, found)
		}
		for _, recognisers := range []int{1, 2} {
			got, err := db.ScansOf(ctx, recognisers, []storage.CID{storage.CIDOf([]byte("another")), id})
			if s, ok := got[id]; err != nil || ok != (recognisers == want.Recognisers) || ok && !reflect.DeepEqual(s, want) || ok != (len(got) == 1) {
				t.Errorf("ScansOf by %d: %+v, %v, want %+v", recognisers, got, err, want)
			}
		}
	}
	if _, ok, err := db.ScanOf(ctx, storage.CIDOf([]byte("another"))); err != nil || ok {
		t.Errorf("of other bytes: %t, %v", ok, err)
	}
	if none, err := db.ScansOf(ctx, 1, nil); err != nil || len(none) > 0 {
		t.Errorf("of nothing: %v, %v", none, err)
	}
	many := []storage.CID{id}
	for i := range 3000 {
		many = append(many, storage.CIDOf(fmt.Append(nil, i)))
	}
	if got, err := db.ScansOf(ctx, 1, many); err != nil || len(got) != 1 {
		t.Errorf("of many: %v, %v", got, err)
	}
	for name, bad := range map[string]catalog.Scan{
		"no bytes": {}, "a line break": {CID: id, Findings: []string{"a\nb"}}, "an empty finding": {CID: id, Findings: []string{""}},
	} {
		if err := db.PutScan(ctx, bad); !errors.Is(err, catalog.ErrBadText) {
			t.Errorf("%s: error %v, want ErrBadText", name, err)
		}
	}
}

func testUnscanned(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	var ids []storage.CID
	for i := range 5 {
		ids = append(ids, storage.CIDOf([]byte{byte(i)}))
	}
	slices.SortFunc(ids, func(a, b storage.CID) int { return strings.Compare(a.String(), b.String()) })
	grow(t, db, func(tx *catalog.Tx, idx int64) error {
		return errors.Join(
			tx.PutVersionCID(ctx, ids[3], "version/crate/a/1.0.0", idx), tx.PutVersionCID(ctx, ids[0], "version/crate/a/2.0.0", idx),
			tx.PutVersionCID(ctx, ids[1], "version/crate/a/3.0.0", idx), tx.PutVersionCID(ctx, ids[1], "version/crate/b/3.0.0", idx),
			tx.PutVersionCID(ctx, ids[2], "version/manifest/a/1.0.0", idx), tx.PutVersionCID(ctx, ids[4], "version/crate/c/1.0.0", idx),
			tx.PutScan(ctx, catalog.Scan{CID: ids[4], Recognisers: 7}), tx.PutScan(ctx, catalog.Scan{CID: ids[0], Recognisers: 6, Failure: "x"}))
	})
	for _, test := range []struct {
		recognisers int
		after       storage.CID
		limit       int
		want        []storage.CID
	}{
		{7, storage.CID{}, 9, []storage.CID{ids[0], ids[1], ids[3]}}, {6, storage.CID{}, 9, []storage.CID{ids[1], ids[3], ids[4]}},
		{7, storage.CID{}, 2, []storage.CID{ids[0], ids[1]}}, {7, ids[1], 2, []storage.CID{ids[3]}}, {7, ids[3], 2, nil}, {7, storage.CID{}, -1, nil},
	} {
		if got, err := db.Unscanned(ctx, "version/crate/", test.recognisers, test.after, test.limit); err != nil || !slices.Equal(got, test.want) {
			t.Errorf("by %d, behind %v, at most %d: %v, %v, want %v", test.recognisers, test.after, test.limit, got, err, test.want)
		}
	}
}

func testVersionsByCID(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	one, other := storage.CIDOf([]byte("one")), storage.CIDOf([]byte("other"))
	put := func(id storage.CID, keys ...string) {
		grow(t, db, func(tx *catalog.Tx, idx int64) error {
			for _, key := range keys {
				if err := tx.PutVersionCID(ctx, id, key, idx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	put(one, "version/crate/z/1.0.0")
	put(other, "version/crate/b/1.0.0")
	put(one, "version/manifest/b/1.0.0", "version/manifest/a/1.0.0")
	put(one, "version/crate/z/1.0.0") // a yank: the bytes are the same
	for before, want := range [][]string{
		nil, {"version/crate/z/1.0.0"}, {"version/crate/z/1.0.0"},
		{"version/crate/z/1.0.0", "version/manifest/a/1.0.0", "version/manifest/b/1.0.0"},
		{"version/crate/z/1.0.0", "version/manifest/a/1.0.0", "version/manifest/b/1.0.0"},
	} {
		if got, err := db.VersionsByCID(ctx, one, int64(before)); err != nil || !slices.Equal(got, want) {
			t.Errorf("as of %d: %v, %v, want %v", before, got, err, want)
		}
	}
	if got, err := db.VersionsByCID(ctx, storage.CIDOf([]byte("nobody's")), always); err != nil || len(got) != 0 {
		t.Errorf("of bytes that no version has: %v, %v", got, err)
	}

	for name, test := range map[string]struct {
		id   storage.CID
		key  string
		idx  int64
		want error
	}{
		"no key": {one, "", 4, catalog.ErrBadText}, "no bytes": {storage.CID{}, "version/x", 4, catalog.ErrBadText},
		"an old entry": {one, "version/x", 2, catalog.ErrHistory},
	} {
		err := db.Update(ctx, func(tx *catalog.Tx) error { return tx.PutVersionCID(ctx, test.id, test.key, test.idx) })
		if !errors.Is(err, test.want) {
			t.Errorf("%s: error %v, want %v", name, err, test.want)
		}
	}
	if err := db.Update(ctx, func(tx *catalog.Tx) error { return tx.PutVersionCID(ctx, one, "version/x", 4) }); err == nil {
		t.Error("a version without its entry was noted")
	}

	var many []string
	for i := range catalog.MaxVersionsOfCID + 1 {
		many = append(many, fmt.Sprintf("version/manifest/m/%04d.0.0", i))
	}
	put(storage.CIDOf(nil), many...)
	if got, err := db.VersionsByCID(ctx, storage.CIDOf(nil), always); err != nil || !slices.Equal(got, many[:catalog.MaxVersionsOfCID]) {
		t.Errorf("of many %d are told, %v", len(got), err)
	}
}

func testAudit(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	at := time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)
	n := 0
	add := func(many int, keep int64) {
		t.Helper()
		var batch []catalog.AuditEntry
		for range many {
			batch = append(batch, catalog.AuditEntry{
				ID: 77, Time: at.Add(time.Duration(n) * time.Second), Asker: "did:key:a", What: fmt.Sprint("crate/", n),
				Rule: "quarantine", RuleID: "blake3", Outcome: "denied", Request: fmt.Sprint("r", n), Count: int64(n + 1),
			})
			n++
		}
		if err := db.AppendAudit(ctx, batch, keep); err != nil {
			t.Fatal(err)
		}
	}
	// pages reads all of it, size at a time, and returns what each entry is about.
	pages := func(size int) (about []string) {
		t.Helper()
		for before := int64(always); ; {
			page, err := db.Audit(ctx, before, size)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) > size {
				t.Fatalf("a page of %d has %d", size, len(page))
			}
			if len(page) == 0 {
				return about
			}
			for _, e := range page {
				if e.ID >= before {
					t.Fatalf("entry %d comes after %d", e.ID, before)
				}
				before, about = e.ID, append(about, e.What)
			}
		}
	}
	if got := pages(5); got != nil {
		t.Errorf("a new trail holds %v", got)
	}
	add(7, 100)
	if got, want := pages(3), []string{"crate/6", "crate/5", "crate/4", "crate/3", "crate/2", "crate/1", "crate/0"}; !slices.Equal(got, want) {
		t.Errorf("the trail is %v, want %v", got, want)
	}
	newest, err := db.Audit(ctx, always, 1)
	want := catalog.AuditEntry{
		Time: at.Add(6 * time.Second), Asker: "did:key:a", What: "crate/6", Rule: "quarantine", RuleID: "blake3", Outcome: "denied", Request: "r6", Count: 7,
	}
	if err != nil || len(newest) != 1 {
		t.Fatalf("the newest is %v, %v", newest, err)
	}
	if want.ID = newest[0].ID; newest[0] != want {
		t.Errorf("the newest is %+v, want %+v", newest[0], want)
	}
	if none, err := db.Audit(ctx, always, -1); err != nil || len(none) != 0 {
		t.Errorf("a page of none is %v, %v", none, err)
	}

	other := catalog.AuditEntry{Time: at, What: "crate/other", Rule: "known-upstream", Outcome: "accepted", Count: 1}
	if err := db.AppendAudit(ctx, []catalog.AuditEntry{other}, 100); err != nil {
		t.Fatal(err)
	}
	for rule, want := range map[string]int{"known-upstream": 1, "quarantine": 3, "": 0, "known": 0} { // of the 3 newest at most
		got, err := db.AuditOf(ctx, rule, always, 3)
		if err != nil || len(got) != want || want == 1 && got[0].What != other.What {
			t.Errorf("of rule %q the trail has %v, %v", rule, got, err)
		}
	}
	if none, err := db.AuditOf(ctx, "quarantine", newest[0].ID-6, 3); err != nil || len(none) != 0 {
		t.Errorf("before the first of a rule there are %v, %v", none, err)
	}

	add(2, 4)
	if got, want := pages(10), []string{"crate/8", "crate/7", "crate/other", "crate/6"}; !slices.Equal(got, want) {
		t.Errorf("trimmed, the trail is %v, want %v", got, want)
	}
	add(9, 4) // a batch of more than are kept
	if got, want := pages(10), []string{"crate/17", "crate/16", "crate/15", "crate/14"}; !slices.Equal(got, want) {
		t.Errorf("trimmed, the trail is %v, want %v", got, want)
	}
	last, err := db.Audit(ctx, always, 1)
	if err != nil {
		t.Fatal(err)
	}
	add(0, 0)
	if got := pages(10); got != nil {
		t.Errorf("of none kept the trail is %v", got)
	}
	add(1, 4)
	if again, err := db.Audit(ctx, always, 1); err != nil || len(again) != 1 || again[0].ID <= last[0].ID {
		t.Errorf("after %v comes %v, %v: an ID was given twice", last, again, err)
	}
}

func testAuditTexts(t *testing.T, db *catalog.DB) {
	for _, text := range []string{"", "\x00", "a\xffb", "Für \"alle\"\n", "\U0010FFFF", strings.Repeat("ü", 5000), strings.Repeat("x", 1023) + "ü", strings.Repeat("\xff", 3000)} {
		if err := db.AppendAudit(t.Context(), []catalog.AuditEntry{{What: text, Asker: text, Time: time.Unix(0, 0)}}, 100); err != nil {
			t.Fatalf("%.20q: %v", text, err)
		}
		got, err := db.Audit(t.Context(), always, 1)
		if err != nil || len(got) != 1 {
			t.Fatalf("%.20q: %v, %v", text, got, err)
		}
		what := got[0].What
		if !utf8.ValidString(what) || strings.Contains(what, "\x00") || len(what) > 1024 || got[0].Asker != what {
			t.Errorf("%.20q is kept as %q", text, what)
		}
		if clean := utf8.ValidString(text) && !strings.Contains(text, "\x00"); clean && !strings.HasPrefix(text, what) || clean && len(text) <= 1024 && what != text {
			t.Errorf("%.20q is kept as %q", text, what)
		}
	}
}
