package catalogtest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

var noted = time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)

func testUpstreamFiles(t *testing.T, db *catalog.DB) {
	ctx, snapshot := t.Context(), storage.CIDOf([]byte("an index file"))
	if f, ok, err := db.UpstreamFile(ctx, "crates-io", "serde"); err != nil || ok {
		t.Errorf("before the first: %+v, %t, %v", f, ok, err)
	}
	of := func(f catalog.UpstreamFile) catalog.UpstreamFile {
		f.Upstream, f.Name = "crates-io", "serde"
		return f
	}
	for name, test := range map[string]struct{ put, want catalog.UpstreamFile }{
		"all of it": {
			catalog.UpstreamFile{ETag: `W/"é"`, LastModified: "Thu, 01 Jan 1970 00:00:00 GMT", IndexURL: "https://index.example/", Snapshot: snapshot, Status: 200, Checked: noted},
			catalog.UpstreamFile{ETag: `W/"é"`, LastModified: "Thu, 01 Jan 1970 00:00:00 GMT", IndexURL: "https://index.example/", Snapshot: snapshot, Status: 200, Checked: noted},
		},
		"that there is none": {catalog.UpstreamFile{Status: 404, Checked: noted.Add(time.Second)}, catalog.UpstreamFile{Status: 404, Checked: noted.Add(time.Second)}},
		"a part of a second": {catalog.UpstreamFile{Status: 200, Checked: noted.Add(1)}, catalog.UpstreamFile{Status: 200, Checked: noted}},
		"what cannot be kept as it is": {
			catalog.UpstreamFile{ETag: strings.Repeat("x", 1025), LastModified: "a\x00b", Snapshot: snapshot, Checked: noted},
			catalog.UpstreamFile{Snapshot: snapshot, Checked: noted},
		},
	} {
		if err := db.PutUpstreamFiles(ctx, []catalog.UpstreamFile{{Upstream: "other", Name: "serde", Checked: noted}, of(test.put)}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, ok, err := db.UpstreamFile(ctx, "crates-io", "serde"); err != nil || !ok || got != of(test.want) {
			t.Errorf("%s: %+v, %t, %v, want %+v", name, got, ok, err, of(test.want))
		}
	}
	for name, bad := range map[string]catalog.UpstreamFile{"of nobody": {Name: "serde"}, "no name": {Upstream: "crates-io"}, "unclean": {Upstream: "a", Name: "\xff"}} {
		if err := db.PutUpstreamFiles(ctx, []catalog.UpstreamFile{{Upstream: "third", Name: "good"}, bad}); !errors.Is(err, catalog.ErrBadText) {
			t.Errorf("%s: error %v, want ErrBadText", name, err)
		}
	}
	if _, ok, err := db.UpstreamFile(ctx, "third", "good"); err != nil || ok {
		t.Errorf("half of what was refused is there: %t, %v", ok, err)
	}
}

// heldCrates are n crates, in the order in which they were used.
func heldCrates(n int) (all []catalog.UpstreamBlob) {
	for i := range n {
		all = append(all, catalog.UpstreamBlob{
			CID: storage.CIDOf([]byte{byte(i)}), Upstream: "crates-io", Name: fmt.Sprint("crate-", i), Version: "1.0.0", Size: int64(i + 1),
			Fetched: noted, Used: noted.Add(time.Duration(i) * time.Hour),
		})
	}
	return all
}

func hold(t *testing.T, db *catalog.DB, blobs ...catalog.UpstreamBlob) {
	t.Helper()
	update(t, db, func(tx *catalog.Tx) error { return tx.PutUpstreamBlobs(t.Context(), blobs) })
}

func idsOf(blobs []catalog.UpstreamBlob) (ids []storage.CID) {
	for _, b := range blobs {
		ids = append(ids, b.CID)
	}
	return ids
}

func byText(ids []storage.CID) []storage.CID {
	return slices.SortedFunc(slices.Values(ids), func(a, b storage.CID) int { return strings.Compare(a.String(), b.String()) })
}

func testUpstreamBlobs(t *testing.T, db *catalog.DB) {
	ctx, all := t.Context(), heldCrates(600) // more than one statement asks for
	for i := range all {
		all[i].CID = storage.CIDOf(fmt.Append(nil, i))
	}
	hold(t, db, all[:598]...)
	got, err := db.UpstreamBlobs(ctx, idsOf(all))
	if want := byText(idsOf(all[:598])); err != nil || !slices.Equal(idsOf(got), want) {
		t.Fatalf("of 600 are held %d, %v", len(got), err)
	}
	if got, err := db.UpstreamBlobs(ctx, idsOf(all[3:4])); err != nil || len(got) != 1 || got[0] != all[3] {
		t.Errorf("one is %+v, %v, want %+v", got, err, all[3])
	}
	if got, err := db.UpstreamBlobs(ctx, append(idsOf(all[598:]), storage.CIDOf(nil))); err != nil || len(got) > 0 {
		t.Errorf("what is not held is %v, %v", got, err)
	}
	var paged []storage.CID
	for last := (storage.CID{}); ; {
		page, err := db.UpstreamBlobsAfter(ctx, last, 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		paged, last = append(paged, idsOf(page)...), page[len(page)-1].CID
	}
	if !slices.Equal(paged, byText(idsOf(all[:598]))) {
		t.Errorf("page by page there are %d", len(paged))
	}

	again := catalog.UpstreamBlob{CID: all[3].CID, Upstream: "mirror", Name: "other", Version: "9.0.0", Size: 77, Fetched: noted.Add(time.Hour), Used: noted}
	hold(t, db, again)
	want := all[3]
	want.Fetched = again.Fetched
	if got, err := db.UpstreamBlobs(ctx, idsOf(all[3:4])); err != nil || len(got) != 1 || got[0] != want {
		t.Errorf("held again it is %+v, %v, want %+v", got, err, want)
	}

	update(t, db, func(tx *catalog.Tx) error { return tx.RemoveUpstreamBlobs(ctx, idsOf(append(all[:3:3], all[599]))) })
	if got, err := db.UpstreamBlobs(ctx, idsOf(all[:5])); err != nil || len(got) != 2 {
		t.Errorf("after three were removed: %v, %v", got, err)
	}
	for name, bad := range map[string]catalog.UpstreamBlob{
		"no bytes": {Upstream: "a", Name: "b", Version: "c"}, "fewer than none": {CID: all[0].CID, Upstream: "a", Name: "b", Version: "c", Size: -1},
		"of nobody": {CID: all[0].CID, Name: "b", Version: "c"}, "no name": {CID: all[0].CID, Upstream: "a", Version: "c"}, "no version": {CID: all[0].CID, Upstream: "a", Name: "b"},
	} {
		err := db.Update(ctx, func(tx *catalog.Tx) error { return tx.PutUpstreamBlobs(ctx, []catalog.UpstreamBlob{bad}) })
		if !errors.Is(err, catalog.ErrBadText) {
			t.Errorf("%s: error %v, want ErrBadText", name, err)
		}
	}
}

func testUpstreamHeld(t *testing.T, db *catalog.DB) {
	if got, err := db.UpstreamHeld(t.Context()); err != nil || len(got) > 0 {
		t.Errorf("of nothing: %v, %v", got, err)
	}
	all := heldCrates(3)
	all[1].Upstream, all[2].Size = "mirror", 1<<40
	hold(t, db, all...)
	want := []catalog.UpstreamHeld{{Upstream: "crates-io", Blobs: 2, Bytes: 1<<40 + 1}, {Upstream: "mirror", Blobs: 1, Bytes: 2}}
	if got, err := db.UpstreamHeld(t.Context()); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
}

func testUpstreamSources(t *testing.T, db *catalog.DB) {
	ctx, all := t.Context(), heldCrates(600) // more than one statement asks for
	for i := range all {
		all[i].CID = storage.CIDOf(fmt.Append(nil, i))
	}
	holds := func(upstream string, want []catalog.UpstreamBlob) {
		t.Helper()
		got, err := db.UpstreamHolds(ctx, upstream, idsOf(all))
		slices.SortFunc(got, func(a, b storage.CID) int { return strings.Compare(a.String(), b.String()) })
		if err != nil || !slices.Equal(got, byText(idsOf(want))) {
			t.Errorf("of %s are held %d, want %d, %v", upstream, len(got), len(want), err)
		}
	}
	holds("crates-io", nil)
	hold(t, db, all[:598]...)
	both := slices.Clone(all[590:599])
	for i := range both {
		both[i].Upstream, both[i].Name = "mirror", "as there"
	}
	hold(t, db, both...)
	holds("crates-io", all[:598])
	holds("mirror", both)
	holds("another", nil)
	sums := []catalog.UpstreamHeld{{Upstream: "crates-io", Blobs: 598}, {Upstream: "mirror", Blobs: 9}}
	total := int64(0)
	for i, b := range all[:599] {
		if total += b.Size; i < 598 {
			sums[0].Bytes += b.Size
		}
		if i >= 590 {
			sums[1].Bytes += b.Size
		}
	}
	if got, err := db.UpstreamHeld(ctx); err != nil || !slices.Equal(got, sums) {
		t.Errorf("of each are held %v, want %v, %v", got, sums, err)
	}
	if got, err := db.UpstreamHeldBytes(ctx); err != nil || got != total {
		t.Errorf("%d bytes are held, want %d, %v", got, total, err)
	}
	served, err := db.UpstreamServed(ctx, idsOf(all))
	twice := slices.Index(served, catalog.UpstreamSource{CID: all[590].CID, Upstream: "crates-io", Name: all[590].Name, Version: all[590].Version})
	if err != nil || len(served) != 598+9 || twice < 0 || served[twice+1] != (catalog.UpstreamSource{CID: all[590].CID, Upstream: "mirror", Name: "as there", Version: all[590].Version}) {
		t.Errorf("%d are held by who served them, one of them at %d, %v", len(served), twice, err)
	}
	if got, err := db.UpstreamSourcesAfter(ctx, catalog.UpstreamSource{}, 1000); err != nil || len(got) != 607 {
		t.Errorf("%d were served, %v", len(got), err)
	}

	// What is removed and held again, since it was not removed after all, is held of both.
	gone := all[592:596]
	update(t, db, func(tx *catalog.Tx) error { return tx.RemoveUpstreamBlobs(ctx, idsOf(gone)) })
	holds("mirror", append(slices.Clone(both[:2]), both[6:]...))
	hold(t, db, gone[:2]...)
	update(t, db, func(tx *catalog.Tx) error { return tx.ForgetUpstreamSources(ctx, idsOf(gone)) })
	holds("mirror", append(slices.Clone(both[:4]), both[6:]...))
	hold(t, db, gone[2:]...)
	holds("mirror", append(slices.Clone(both[:4]), both[6:]...))
	holds("crates-io", all[:598])
}

func testUpstreamUse(t *testing.T, db *catalog.DB) {
	ctx, all := t.Context(), heldCrates(6)
	hold(t, db, all...)
	unused := func(after catalog.UpstreamBlob, limit int, want ...int) {
		t.Helper()
		got, err := db.UnusedUpstreamBlobs(ctx, after, limit)
		if err != nil {
			t.Fatal(err)
		}
		var names, wanted []string
		for _, b := range got {
			names = append(names, b.Name)
		}
		for _, i := range want {
			wanted = append(wanted, all[i].Name)
		}
		if !slices.Equal(names, wanted) {
			t.Errorf("not used for longest are %v, want %v", names, wanted)
		}
	}
	unused(catalog.UpstreamBlob{}, 9, 0, 1, 2, 3, 4, 5)
	unused(catalog.UpstreamBlob{}, 2, 0, 1)
	unused(all[1], 2, 2, 3)
	unused(all[5], 2)
	unused(all[0], -1)

	later := noted.Add(100 * time.Hour)
	if err := db.UseUpstreamBlobs(ctx, []storage.CID{all[1].CID, storage.CIDOf(nil), all[0].CID, all[1].CID}, later); err != nil {
		t.Fatal(err)
	}
	if err := db.UseUpstreamBlobs(ctx, []storage.CID{all[1].CID}, noted); err != nil { // written late
		t.Fatal(err)
	}
	if got, err := db.UpstreamBlobs(ctx, idsOf(all[1:2])); err != nil || len(got) != 1 || !got[0].Used.Equal(later) {
		t.Errorf("used it is %v, %v", got, err)
	}
	unused(catalog.UpstreamBlob{}, 4, 2, 3, 4, 5)
	if got, err := db.UnusedUpstreamBlobs(ctx, all[5], 9); err != nil || !slices.Equal(idsOf(got), byText(idsOf(all[:2]))) {
		t.Errorf("used at the same moment are %v, %v", got, err)
	}
	if err := db.PinUpstream(ctx, "a lock", "did:key:a", idsOf(all[2:4]), noted); err != nil {
		t.Fatal(err)
	}
	unused(catalog.UpstreamBlob{}, 2, 4, 5)
}

func testUpstreamPins(t *testing.T, db *catalog.DB) {
	ctx, all := t.Context(), heldCrates(4)
	hold(t, db, all[:2]...)
	pin := func(lock string, at time.Time, which ...int) {
		t.Helper()
		var ids []storage.CID
		for _, i := range which {
			ids = append(ids, all[i].CID)
		}
		if err := db.PinUpstream(ctx, lock, "did:key:"+lock, ids, at); err != nil {
			t.Fatal(err)
		}
	}
	pins := func(lock string) (got []storage.CID) {
		t.Helper()
		for last := (storage.CID{}); ; {
			page, err := db.UpstreamPins(ctx, lock, last, 2)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				return got
			}
			for _, p := range page {
				got, last = append(got, p.CID), p.CID
				if p.Lock != lock || p.DID != "did:key:"+lock {
					t.Errorf("a pin of %s is %+v", lock, p)
				}
			}
		}
	}
	pin("a", noted, 0, 1, 2, 2)
	pin("b", noted, 2, 3)
	if got, want := pins("a"), byText(idsOf(all[:3])); !slices.Equal(got, want) {
		t.Errorf("pins are %v, want %v", got, want)
	}
	want := []catalog.UpstreamLock{
		{Lock: "a", DID: "did:key:a", Since: noted, Pins: 3, Held: 2, Bytes: 3}, {Lock: "b", DID: "did:key:b", Since: noted, Pins: 2},
	}
	if got, err := db.UpstreamLocks(ctx, "", 9); err != nil || !slices.Equal(got, want) {
		t.Errorf("lists are %+v, %v, want %+v", got, err, want)
	}
	if got, err := db.UpstreamLocks(ctx, "a", 1); err != nil || !slices.Equal(got, want[1:]) {
		t.Errorf("lists behind the first are %+v, %v", got, err)
	}

	for n, who := range []string{"did:key:z", "did:key:c"} { // the last one is not the greatest
		at := noted.Add(time.Duration(n+1) * time.Second)
		if err := db.PinUpstream(ctx, "shared", who, idsOf(all[n:n+1]), at); err != nil {
			t.Fatal(err)
		}
		if got, err := db.UpstreamLocks(ctx, "b", 1); err != nil || len(got) != 1 || got[0].DID != who || !got[0].Since.Equal(at) {
			t.Errorf("%s pinned last: %+v, %v", who, got, err)
		}
	}
	if n, err := db.UnpinUpstream(ctx, "shared", time.Time{}); err != nil || n != 2 {
		t.Errorf("unpinned what two have pinned: %d, %v", n, err)
	}

	pin("a", noted.Add(time.Minute), 0, 3) // the list of today
	if n, err := db.UnpinUpstream(ctx, "a", noted.Add(time.Minute)); err != nil || n != 2 {
		t.Errorf("unpinned what is older: %d, %v", n, err)
	}
	if got, want := pins("a"), byText([]storage.CID{all[0].CID, all[3].CID}); !slices.Equal(got, want) {
		t.Errorf("pins are %v, want %v", got, want)
	}
	if got, err := db.UpstreamPinned(ctx, append(idsOf(all), storage.CIDOf(nil))); err != nil || !slices.Equal(got, byText([]storage.CID{all[0].CID, all[2].CID, all[3].CID})) {
		t.Errorf("pinned are %v, %v", got, err)
	}
	if n, err := db.UnpinUpstream(ctx, "b", time.Time{}); err != nil || n != 2 || len(pins("b")) > 0 {
		t.Errorf("unpinned all: %d, %v", n, err)
	}
	if n, err := db.UnpinUpstream(ctx, "b", time.Time{}); err != nil || n != 0 {
		t.Errorf("again: %d, %v", n, err)
	}
	for _, bad := range [][2]string{{"", "did:key:a"}, {"a", ""}, {"\xff", "did:key:a"}} {
		if err := db.PinUpstream(ctx, bad[0], bad[1], nil, noted); !errors.Is(err, catalog.ErrBadText) {
			t.Errorf("%q: error %v, want ErrBadText", bad, err)
		}
	}
}

// What is noted of other registries is no state: it changes no digest.
func testUpstreamIsNoState(t *testing.T, db *catalog.DB) {
	set(t, db, "key", "value")
	before, err := db.StateDigest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hold(t, db, heldCrates(1)...)
	err = errors.Join(
		db.PutUpstreamFiles(t.Context(), []catalog.UpstreamFile{{Upstream: "a", Name: "b"}}),
		db.PinUpstream(t.Context(), "a", "b", idsOf(heldCrates(1)), noted), db.AddUpstreamAlarm(t.Context(), catalog.UpstreamAlarm{}, 9))
	if err != nil {
		t.Fatal(err)
	}
	if after, err := db.StateDigest(t.Context()); err != nil || after != before {
		t.Errorf("the digest has changed (%v)", err)
	}
}

// A list in place of the one before is noted in pieces. Where that ends in the middle nothing is
// forgotten that the list before lacks: half of a list is not told to be all of it.
func testUpstreamLacksAnew(t *testing.T, db *catalog.DB) {
	ctx, held := t.Context(), heldCrates(2)
	lack := func(name string, id storage.CID) catalog.UpstreamLack {
		return catalog.UpstreamLack{Lock: "a", Upstream: "crates-io", Name: name, Version: "1.0.0", CID: id, DID: "did:key:a", Since: noted}
	}
	old, stays := lack("old", storage.CID{}), lack("crate-0000", storage.CID{})
	elsewhere, others := old, old
	elsewhere.Upstream, others.Lock = "bonn", "b"
	if err := db.LackUpstream(ctx, []catalog.UpstreamLack{old, stays, elsewhere, others}); err != nil {
		t.Fatal(err)
	}
	var anew []catalog.UpstreamLack
	for n := range 2500 { // more than two pieces
		anew = append(anew, lack(fmt.Sprintf("crate-%04d", 2499-n), storage.CID{}))
	}
	lacking := func(lock string, want int64) {
		t.Helper()
		locks, err := db.UpstreamLocks(ctx, "", 9)
		n := slices.IndexFunc(locks, func(l catalog.UpstreamLock) bool { return l.Lock == lock })
		if err != nil || n < 0 || locks[n].Lacking != want {
			t.Errorf("lists are %+v, %v: %s is to lack %d", locks, err, lock, want)
		}
	}
	bad := anew[0]
	bad.Name = "zz\xff"
	if err := db.LackUpstreamAnew(ctx, "a", "crates-io", append(slices.Clone(anew), bad)); !errors.Is(err, catalog.ErrBadText) {
		t.Fatalf("error %v, want ErrBadText", err)
	}
	lacking("a", 2000+2)
	if got, err := db.UpstreamLacks(ctx, catalog.UpstreamLack{Lock: "a", Upstream: "crates-io", Name: "crate-1999", Version: "1.0.0"}, 9); err != nil || !slices.Equal(got, []catalog.UpstreamLack{old}) {
		t.Errorf("what the list lacked before: %+v, %v", got, err)
	}
	// What is held and pinned by now is not lacking, whoever noted that it is.
	anew[0].CID = held[0].CID
	if err := db.LackUpstreamAnew(ctx, "a", "crates-io", anew); err != nil {
		t.Fatal(err)
	}
	lacking("a", 2500+1)
	if err := db.PinUpstream(ctx, "a", "did:key:a", idsOf(held[:1]), noted); err != nil {
		t.Fatal(err)
	}
	lacking("a", 2499+1)
	if err := db.LackUpstreamAnew(ctx, "a", "crates-io", anew); err != nil {
		t.Fatal(err)
	}
	lacking("a", 2499+1)
	if err := db.LackUpstreamAnew(ctx, "a", "crates-io", nil); err != nil {
		t.Fatal(err)
	}
	lacking("a", 1)
	lacking("b", 1)
}

// What a list lacks is noted until it is pinned, or had by name, or the list is let go.
func testUpstreamLacks(t *testing.T, db *catalog.DB) {
	ctx, all := t.Context(), heldCrates(4)
	hold(t, db, all[:2]...)
	lack := func(lock, name, version, why string, id storage.CID) catalog.UpstreamLack {
		return catalog.UpstreamLack{Lock: lock, Upstream: "crates-io", Name: name, Version: version, CID: id, Why: why, DID: "did:key:a", Since: noted}
	}
	named, whole, other := lack("a", "one", "1.0.0", "", all[0].CID), lack("a", "two", "", "absent", storage.CID{}), lack("b", "three", "1.0.0", "denied", all[2].CID)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	lacks := func(lock string, want ...catalog.UpstreamLack) {
		t.Helper()
		var got []catalog.UpstreamLack
		for after := (catalog.UpstreamLack{Lock: lock}); ; {
			page, err := db.UpstreamLacks(ctx, after, 1)
			must(err)
			if len(page) == 0 {
				break
			}
			got, after = append(got, page...), page[0]
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s lacks %+v, want %+v", lock, got, want)
		}
	}
	locks := func(after string, limit int, want ...catalog.UpstreamLock) {
		t.Helper()
		if got, err := db.UpstreamLocks(ctx, after, limit); err != nil || !slices.Equal(got, want) {
			t.Errorf("lists are %+v, %v, want %+v", got, err, want)
		}
	}
	must(db.LackUpstream(ctx, []catalog.UpstreamLack{named, whole, other}))
	lacks("a", named, whole)
	a, b := catalog.UpstreamLock{Lock: "a", DID: "did:key:a", Since: noted, Lacking: 2}, catalog.UpstreamLock{Lock: "b", DID: "did:key:a", Since: noted, Lacking: 1}
	locks("", 9, a, b)
	locks("", 1, a)
	locks("a", 9, b)
	named.Why = "failed"
	must(db.LackUpstream(ctx, []catalog.UpstreamLack{named}))
	lacks("a", named, whole)

	// Pinned it lacks no more, and is not said to.
	must(db.PinUpstream(ctx, "a", "did:key:a", idsOf(all[:2]), noted))
	must(db.LackUpstream(ctx, []catalog.UpstreamLack{named}))
	lacks("a", whole)
	a = catalog.UpstreamLock{Lock: "a", DID: "did:key:a", Since: noted, Pins: 2, Held: 2, Bytes: 3, Lacking: 1}
	locks("", 9, a, b)
	must(db.PinUpstream(ctx, "c", "did:key:a", idsOf(all[2:3]), noted)) // not b's
	lacks("b", other)
	must(db.HaveUpstream(ctx, []catalog.UpstreamLack{{Lock: "a", Upstream: "crates-io", Name: "two"}, {Lock: "b", Upstream: "bonn", Name: "three", Version: "1.0.0"}}))
	lacks("a")
	lacks("b", other)
	must(db.LackUpstreamAnew(ctx, "b", "bonn", nil))
	lacks("b", other)
	must(db.LackUpstreamAnew(ctx, "b", "crates-io", nil))
	lacks("b")

	// The same bytes from two upstreams: the one is held, and the other still lacks.
	ours, theirs := lack("d", "three", "1.0.0", "", all[2].CID), lack("d", "three", "1.0.0", "", all[2].CID)
	theirs.Upstream = "bonn"
	must(db.LackUpstream(ctx, []catalog.UpstreamLack{ours, theirs}))
	hold(t, db, all[2])
	must(db.PinUpstream(ctx, "d", "did:key:a", idsOf(all[2:3]), noted))
	lacks("d", theirs)
	theirs.Why = "absent"
	must(db.LackUpstream(ctx, []catalog.UpstreamLack{ours, theirs}))
	lacks("d", theirs)
	also := all[2]
	also.Upstream = "bonn"
	hold(t, db, also)
	must(db.PinUpstream(ctx, "d", "did:key:a", idsOf(all[2:3]), noted))
	lacks("d")
	must(db.LackUpstream(ctx, []catalog.UpstreamLack{ours, theirs}))
	lacks("d")
	if n, err := db.UnpinUpstream(ctx, "d", time.Time{}); err != nil || n != 1 {
		t.Errorf("let go: %d, %v", n, err)
	}

	// Let go, or replaced: what was noted since, by whoever else is at it, still lacks.
	since := lack("a", "four", "1.0.0", "", storage.CID{})
	since.Since = noted.Add(time.Second)
	must(db.LackUpstream(ctx, []catalog.UpstreamLack{whole, other, since}))
	if n, err := db.UnpinUpstream(ctx, "a", noted.Add(time.Second)); err != nil || n != 2 {
		t.Errorf("replaced: %d, %v", n, err)
	}
	lacks("a", since)
	if n, err := db.UnpinUpstream(ctx, "b", time.Time{}); err != nil || n != 1 {
		t.Errorf("let go: %d, %v", n, err)
	}
	locks("", 9, catalog.UpstreamLock{Lock: "a", DID: "did:key:a", Since: since.Since, Lacking: 1}, catalog.UpstreamLock{Lock: "c", DID: "did:key:a", Since: noted, Pins: 1, Held: 1, Bytes: 3})
	for _, bad := range []catalog.UpstreamLack{{}, lack("", "a", "1.0.0", "", storage.CID{}), lack("a", "", "1.0.0", "", storage.CID{}), lack("a", "b", "\xff", "", storage.CID{})} {
		if err := db.LackUpstream(ctx, []catalog.UpstreamLack{bad}); !errors.Is(err, catalog.ErrBadText) {
			t.Errorf("%+v: error %v, want ErrBadText", bad, err)
		}
	}
}
