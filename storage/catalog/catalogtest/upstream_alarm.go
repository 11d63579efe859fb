package catalogtest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/storage/catalog"
)

func testUpstreamAlarms(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	add := func(upstream string, n int, keep int64) {
		t.Helper()
		err := db.AddUpstreamAlarm(ctx, catalog.UpstreamAlarm{
			ID: 77, Upstream: upstream, Name: fmt.Sprint("crate-", n), Version: "1.0.0", Kind: "mismatch", Detail: strings.Repeat("ü", 5000) + "\x00", At: noted,
		}, keep)
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(upstream string, names ...string) {
		t.Helper()
		var got []string
		for before := int64(always); ; {
			page, err := db.UpstreamAlarms(ctx, upstream, before, 2)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, a := range page {
				if a.ID >= before {
					t.Fatalf("alarm %d comes after %d", a.ID, before)
				}
				got, before = append(got, a.Name), a.ID
				a.ID = 0
				if w := (catalog.UpstreamAlarm{Upstream: upstream, Name: a.Name, Version: "1.0.0", Kind: "mismatch", Detail: strings.Repeat("ü", 512), At: noted}); !reflect.DeepEqual(a, w) {
					t.Errorf("an alarm is %+v, want %+v", a, w)
				}
			}
		}
		if !slices.Equal(got, names) {
			t.Errorf("alarms of %s are %v, want %v", upstream, got, names)
		}
	}
	want("crates-io")
	for n := range 6 {
		add("crates-io", n, 4)
		if n%3 == 0 {
			add("mirror", n, 4)
		}
	}
	want("crates-io", "crate-5", "crate-4", "crate-3", "crate-2")
	want("mirror", "crate-3", "crate-0")
	newest, err := db.UpstreamAlarms(ctx, "mirror", always, 1)
	if err != nil {
		t.Fatal(err)
	}
	add("mirror", 7, 0)
	want("mirror")
	want("crates-io", "crate-5", "crate-4", "crate-3", "crate-2")
	add("mirror", 8, 1)
	if again, err := db.UpstreamAlarms(ctx, "mirror", always, 1); err != nil || len(again) != 1 || again[0].ID <= newest[0].ID {
		t.Errorf("after %v comes %v, %v: an ID was given twice", newest, again, err)
	}
}

func testSeenUpstreamAlarms(t *testing.T, db *catalog.DB) {
	ctx := t.Context()
	add := func(upstream, detail string) int64 {
		t.Helper()
		if err := db.AddUpstreamAlarm(ctx, catalog.UpstreamAlarm{Upstream: upstream, Name: "a", Version: "1.0.0", Kind: "changed", Detail: detail, At: noted}, 5); err != nil {
			t.Fatal(err)
		}
		all, err := db.UpstreamAlarms(ctx, upstream, always, 1)
		if err != nil || len(all) != 1 || all[0].Seen != (catalog.AlarmSeen{}) {
			t.Fatalf("%+v, %v", all, err)
		}
		return all[0].ID
	}
	see := func(upstream string, id int64, by string, want int64) {
		t.Helper()
		a, marked, err := db.SeeUpstreamAlarm(ctx, upstream, id, catalog.AlarmSeen{By: by, Why: "a mirror\x00", At: noted})
		if err != nil || marked != want || a.ID != id || a.Kind != "changed" {
			t.Errorf("alarm %d: %d are marked of %+v, %v", id, marked, a, err)
		}
	}
	unseen := func(upstream string, want ...int64) {
		t.Helper()
		all, err := db.UnseenUpstreamAlarms(ctx, upstream, always, 9)
		var got []int64
		for _, a := range all {
			got = append(got, a.ID)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("nobody has looked into %v of %s, want %v, %v", got, upstream, want, err)
		}
	}
	first, other, same, far := add("crates-io", "to one"), add("crates-io", "to two"), add("crates-io", "to one"), add("mirror", "to one")
	later := add("crates-io", "to one")
	see("crates-io", same, "did:key:1", 2) // with the first, which says the same
	unseen("crates-io", later, other)
	unseen("mirror", far)
	see("crates-io", same, "did:key:2", 0)
	see("crates-io", first, "did:key:2", 0)
	all, err := db.UpstreamAlarms(ctx, "crates-io", always, 9)
	if err != nil || len(all) != 4 || all[0].Seen.By != "" || all[1].Seen != (catalog.AlarmSeen{By: "did:key:1", Why: "a mirror\uFFFD", At: noted}) || all[3].Seen != all[1].Seen {
		t.Errorf("%+v, %v", all, err)
	}
	for upstream, id := range map[string]int64{"mirror": later, "crates-io": later + 99} {
		if _, n, err := db.SeeUpstreamAlarm(ctx, upstream, id, catalog.AlarmSeen{At: noted}); !errors.Is(err, catalog.ErrNotFound) || n != 0 {
			t.Errorf("alarm %d of %s: %d, %v", id, upstream, n, err)
		}
	}
	see("crates-io", later, "did:key:1", 1)
	unseen("crates-io", other)
	for range 5 {
		add("crates-io", "to three") // they are bounded as all are
	}
	if all, err := db.UpstreamAlarms(ctx, "crates-io", always, 99); err != nil || len(all) != 5 {
		t.Errorf("%d are kept, %v", len(all), err)
	}
}
