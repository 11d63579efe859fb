package catalogtest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/storage/catalog"
)

func testStateAsOf(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	set(t, db, "key", "zero")
	grow(t, db, nil)
	set(t, db, "key", "") // empty is a value
	set(t, db, "key2", "other")
	set(t, db, "key", "four")
	for _, test := range []struct {
		before int64
		value  string
		ok     bool
	}{{-1, "", false}, {0, "", false}, {1, "zero", true}, {2, "zero", true}, {3, "", true}, {4, "", true}, {5, "four", true}, {always, "four", true}} {
		value, ok, err := db.State(ctx, "key", test.before)
		if err != nil || ok != test.ok || string(value) != test.value || ok != (value != nil) {
			t.Errorf("State as of %d: %q, %t, %v, want %q, %t", test.before, value, ok, err, test.value, test.ok)
		}
	}
	for before, want := range map[int64]string{0: "", 1: "0:zero ", 3: "0:zero 2: ", always: "0:zero 2: 4:four "} {
		rows, err := db.StateHistory(ctx, "key", before)
		got := ""
		for _, row := range rows {
			got += fmt.Sprintf("%d:%s ", row.Index, row.Value)
		}
		if err != nil || got != want {
			t.Errorf("StateHistory as of %d: %q, %v, want %q", before, got, err, want)
		}
	}
	if _, ok, err := db.State(ctx, "ke", always); err != nil || ok {
		t.Errorf("a prefix of a key has a value (%v)", err)
	}
}

// show writes rows as "key@index=value …".
func show(rows []catalog.StateRow) string {
	var b strings.Builder
	for _, row := range rows {
		fmt.Fprintf(&b, "%s@%d=%s ", row.Key, row.Index, row.Value)
	}
	return b.String()
}

func testStateRange(t *testing.T, db *catalog.DB) {
	for i, key := range []string{"owner/a", "owner/b", "owner/a", "owner0", "owner/c/d", "owner/a", "owner"} {
		set(t, db, key, fmt.Sprint(i))
	}
	for _, test := range []struct {
		from, to string
		before   int64
		limit    int
		want     string
	}{
		{"owner/", catalog.PrefixEnd("owner/"), always, 9, "owner/a@5=5 owner/b@1=1 owner/c/d@4=4 "},
		{"owner/", catalog.PrefixEnd("owner/"), 5, 9, "owner/a@2=2 owner/b@1=1 owner/c/d@4=4 "},
		{"owner/", catalog.PrefixEnd("owner/"), 2, 9, "owner/a@0=0 owner/b@1=1 "},
		{"owner/", catalog.PrefixEnd("owner/"), 0, 9, ""},
		{"owner/", catalog.PrefixEnd("owner/"), always, 2, "owner/a@5=5 owner/b@1=1 "},
		{"owner/", catalog.PrefixEnd("owner/"), always, 0, ""},
		{"owner/", catalog.PrefixEnd("owner/"), always, -1, ""},
		{"", catalog.PrefixEnd(""), always, 9, "owner@6=6 owner/a@5=5 owner/b@1=1 owner/c/d@4=4 owner0@3=3 "},
		{"owner/a", "owner/b", always, 9, "owner/a@5=5 "},
		{"owner/a\x01", "owner/b\x01", always, 9, "owner/b@1=1 "},
		{"z", "a", always, 9, ""},
	} {
		rows, err := db.StateRange(t.Context(), test.from, test.to, test.before, test.limit)
		if err != nil || show(rows) != test.want {
			t.Errorf("StateRange %q to %q as of %d, limit %d:\n got %q, %v\nwant %q",
				test.from, test.to, test.before, test.limit, show(rows), err, test.want)
		}
	}
}

func testStateSearch(t *testing.T, db *catalog.DB) {
	for i, key := range []string{"name/a_one", "name/b%two", "name/a_one", "name", "name/", "nameaone", "namf/a_one", `name/c\x`, "name/aXone"} {
		set(t, db, key, fmt.Sprint(i))
	}
	for _, test := range []struct {
		after, part string
		before      int64
		limit       int
		want        string
	}{
		{"", "", always, 9, `name/@4=4 name/aXone@8=8 name/a_one@2=2 name/b%two@1=1 name/c\x@7=7 `},
		{"", "", 2, 9, "name/a_one@0=0 name/b%two@1=1 "},
		{"", "one", always, 9, "name/aXone@8=8 name/a_one@2=2 "},
		{"", "a_o", always, 9, "name/a_one@2=2 "},
		{"", "%", always, 9, "name/b%two@1=1 "},
		{"", `\`, always, 9, `name/c\x@7=7 `},
		{"", "name", always, 9, ""},
		{"", "/", always, 9, ""},
		{"name/a_one", "", always, 9, `name/b%two@1=1 name/c\x@7=7 `},
		{"name/a_one", "one", always, 9, ""},
		{"name/aX", "o", always, 1, "name/aXone@8=8 "},
		{"", "o", always, 0, ""},
		{"zzz", "", always, 9, ""},
	} {
		rows, err := db.StateSearch(t.Context(), "name/", test.after, test.part, test.before, test.limit)
		if err != nil || show(rows) != test.want {
			t.Errorf("StateSearch of %q after %q as of %d, limit %d:\n got %q, %v\nwant %q",
				test.part, test.after, test.before, test.limit, show(rows), err, test.want)
		}
	}
	for _, bad := range []string{strings.Repeat("a", 1025), "a\xff"} {
		if _, err := db.StateSearch(t.Context(), "name/", "", bad, always, 9); !errors.Is(err, catalog.ErrBadText) {
			t.Errorf("StateSearch of %.10q: %v", bad, err)
		}
	}
}

func testKeyOrder(t *testing.T, db *catalog.DB) {
	keys := []string{"a", "B", "b", "A", "a-b", "a_b", "a b", "a/b", "ab", "é", "z", "Z", "~", "0", "日本", "𝕏", "a'b", `a"b`, "a%b", "a$1"}
	for _, key := range keys {
		set(t, db, key, key)
	}
	slices.Sort(keys)
	rows, err := db.StateRange(t.Context(), "", catalog.PrefixEnd(""), always, 100)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range rows {
		got = append(got, row.Key)
		if string(row.Value) != row.Key {
			t.Errorf("%q holds %q", row.Key, row.Value)
		}
	}
	if !slices.Equal(got, keys) {
		t.Errorf("keys come as %q, want %q", got, keys)
	}
}

func testHistory(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	grow(t, db, func(tx *catalog.Tx, idx int64) error {
		return errors.Join(
			tx.PutState(ctx, "key", idx, []byte("value")),
			tx.PutCrateLine(ctx, catalog.CrateLine{NameKey: "demo", Version: "1.0.0", Index: idx}))
	})
	line := func(version string, idx int64) catalog.CrateLine {
		return catalog.CrateLine{NameKey: "demo", Version: version, Index: idx}
	}
	for name, change := range map[string]func(tx *catalog.Tx) error{
		"state of an old entry":     func(tx *catalog.Tx) error { return tx.PutState(ctx, "new", 0, nil) },
		"state that is set":         func(tx *catalog.Tx) error { return tx.PutState(ctx, "key", 0, []byte("other")) },
		"state before the log":      func(tx *catalog.Tx) error { return tx.PutState(ctx, "key", -1, nil) },
		"a line of an old entry":    func(tx *catalog.Tx) error { return tx.PutCrateLine(ctx, line("1.0.1", 0)) },
		"a version that has a line": func(tx *catalog.Tx) error { return tx.PutCrateLine(ctx, line("1.0.0", 1)) },
		"a second line of one entry": func(tx *catalog.Tx) error {
			return twice(tx.PutCrateLine(ctx, line("2.0.0", 1)), tx.PutCrateLine(ctx, line("3.0.0", 1)))
		},
		"a key twice at one entry": func(tx *catalog.Tx) error { return twice(tx.PutState(ctx, "k", 1, nil), tx.PutState(ctx, "k", 1, nil)) },
	} {
		err := db.Update(ctx, func(tx *catalog.Tx) error { return errors.Join(tx.AppendEntry(ctx, entry(1)), change(tx)) })
		if !errors.Is(err, catalog.ErrHistory) {
			t.Errorf("%s: error %v, want ErrHistory", name, err)
		}
	}
	wantHead(t, db, 1)
	if value, _, err := db.State(ctx, "key", always); err != nil || string(value) != "value" {
		t.Errorf("key is %q, %v", value, err)
	}
}

// twice is the second error, if the first call succeeded.
func twice(first, second error) error {
	if first != nil {
		return fmt.Errorf("already the first time: %s", first)
	}
	return second
}

func testStateWithoutEntry(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	update(t, db, func(tx *catalog.Tx) error { // before its entry is in order
		return errors.Join(tx.PutState(ctx, "key", 0, nil), tx.AppendEntry(ctx, entry(0)))
	})
	for name, change := range map[string]func(tx *catalog.Tx) error{
		"state": func(tx *catalog.Tx) error { return tx.PutState(ctx, "key", 1, nil) },
		"a crate line": func(tx *catalog.Tx) error {
			return tx.PutCrateLine(ctx, catalog.CrateLine{NameKey: "x", Version: "1", Index: 7})
		},
	} {
		if err := db.Update(ctx, change); err == nil {
			t.Errorf("%s was committed without its entry", name)
		}
	}
	if rows, err := db.StateHistory(ctx, "key", always); err != nil || len(rows) != 1 {
		t.Errorf("history is %q, %v", show(rows), err)
	}
	grow(t, db, nil) // the catalog still works
}

func testBadKeys(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	for _, bad := range []string{"", "a\x00b", "a\xff", strings.Repeat("a", 1025), "a\U0010FFFF"} {
		for name, change := range map[string]func(tx *catalog.Tx) error{
			"PutState":             func(tx *catalog.Tx) error { return tx.PutState(ctx, bad, 0, nil) },
			"PutCrateLine name":    func(tx *catalog.Tx) error { return tx.PutCrateLine(ctx, catalog.CrateLine{NameKey: bad, Version: "1"}) },
			"PutCrateLine version": func(tx *catalog.Tx) error { return tx.PutCrateLine(ctx, catalog.CrateLine{NameKey: "a", Version: bad}) },
		} {
			if err := db.Update(ctx, change); !errors.Is(err, catalog.ErrBadText) {
				t.Errorf("%s %q: error %v, want ErrBadText", name, bad, err)
			}
		}
		if err := db.SetMeta(ctx, bad, "x"); !errors.Is(err, catalog.ErrBadText) {
			t.Errorf("SetMeta %q: error %v, want ErrBadText", bad, err)
		}
		now := time.Now()
		if fresh, err := db.UseAssertion(ctx, "issuer", bad, now.Add(time.Minute), now); fresh || !errors.Is(err, catalog.ErrBadText) {
			t.Errorf("UseAssertion %q: %t, error %v, want ErrBadText", bad, fresh, err)
		}
		if _, _, err := db.SearchCrates(ctx, bad, always, 10, 0); bad != "" && !errors.Is(err, catalog.ErrBadText) {
			t.Errorf("SearchCrates %q: error %v, want ErrBadText", bad, err)
		}
	}
}

func publish(t *testing.T, db *catalog.DB, name, version, description, keywords string) {
	t.Helper()
	grow(t, db, func(tx *catalog.Tx, idx int64) error {
		return tx.PutCrateLine(t.Context(), catalog.CrateLine{
			NameKey: name, Version: version, Index: idx, Line: []byte(name + " " + version + "\n"),
			Description: description, Keywords: keywords,
		})
	})
}

func testCrateLines(t *testing.T, db *catalog.DB) {
	publish(t, db, "demo", "0.2.0", "second first", "")
	publish(t, db, "demo_two", "1.0.0", "", "")
	publish(t, db, "demo", "0.1.0", "Für \"alle\"", "a b")
	for before, want := range map[int64]string{0: "", 1: "0.2.0 ", 2: "0.2.0 ", 3: "0.2.0 0.1.0 ", always: "0.2.0 0.1.0 "} {
		lines, err := db.CrateLines(t.Context(), "demo", before)
		got := ""
		for _, line := range lines {
			got += line.Version + " "
		}
		if err != nil || got != want {
			t.Errorf("CrateLines as of %d: %q, %v, want %q", before, got, err, want)
		}
	}
	lines, err := db.CrateLines(t.Context(), "demo", always)
	if err != nil || len(lines) != 2 {
		t.Fatalf("CrateLines: %v, %v", lines, err)
	}
	last := lines[1]
	if last.NameKey != "demo" || last.Index != 2 || string(last.Line) != "demo 0.1.0\n" ||
		last.Description != "Für \"alle\"" || last.Keywords != "a b" {
		t.Errorf("the line came back as %+v", last)
	}
	if lines, err := db.CrateLines(t.Context(), "dem", always); err != nil || len(lines) != 0 {
		t.Errorf("CrateLines of a prefix: %v, %v", lines, err)
	}
}

func testSearch(t *testing.T, db *catalog.DB) {
	publish(t, db, "json", "1.0.0", "A parser", "data")                  // 0
	publish(t, db, "serde_json", "1.0.0", "100% safe", "json data")      // 1
	publish(t, db, "toml", "0.5.0", "not json", "")                      // 2
	publish(t, db, "toml", "0.5.1", "a config PARSER", "Ümlaut")         // 3
	publish(t, db, "xjson", "0.1.0", "underscore_here", `back\slash 'q`) // 4
	for _, test := range []struct {
		query         string
		before        int64
		limit, offset int
		want          string
		total         int
	}{
		{"json", always, 9, 0, "json@0! serde_json@1 xjson@4 ", 3},
		{"JSON", always, 9, 0, "json@0! serde_json@1 xjson@4 ", 3},
		{"json", 3, 9, 0, "json@0! serde_json@1 toml@2 ", 3}, // toml's old description
		{"json", 0, 9, 0, "", 0},
		{"json", always, 1, 0, "json@0! ", 3},
		{"json", always, 1, 1, "serde_json@1 ", 3},
		{"json", always, 9, 3, "", 3},
		{"json", always, 0, 0, "", 3},
		{"json", always, -1, -1, "", 3},
		{"serde-json", always, 9, 0, "serde_json@1! ", 1},
		{"Serde_JSON", always, 9, 0, "serde_json@1! ", 1},
		{"parser", always, 9, 0, "json@0 toml@3 ", 2},
		{"data", always, 9, 0, "json@0 serde_json@1 ", 2},
		{"ÜMLAUT", always, 9, 0, "toml@3 ", 1},
		{"%", always, 9, 0, "serde_json@1 ", 1},
		{"_", always, 9, 0, "serde_json@1 xjson@4 ", 2},
		{`\`, always, 9, 0, "xjson@4 ", 1},
		{"'q", always, 9, 0, "xjson@4 ", 1},
		{"' OR 1=1 --", always, 9, 0, "", 0},
		{"", always, 9, 0, "json@0 serde_json@1 toml@3 xjson@4 ", 4},
	} {
		hits, total, err := db.SearchCrates(t.Context(), test.query, test.before, test.limit, test.offset)
		got := ""
		for _, hit := range hits {
			got += fmt.Sprintf("%s@%d", hit.NameKey, hit.Index)
			if hit.Exact {
				got += "!"
			}
			got += " "
		}
		if err != nil || got != test.want || total != test.total {
			t.Errorf("search %q as of %d, limit %d, offset %d:\n got %q of %d, %v\nwant %q of %d",
				test.query, test.before, test.limit, test.offset, got, total, err, test.want, test.total)
		}
	}
}
