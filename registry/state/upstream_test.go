package state

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

var update = flag.Bool("update", false, "write the golden files in testdata")

const leftPadThere = "upstream/crates-io/left-pad"

// there is a line of another registry's index file.
type there struct {
	version string
	sum     byte // all bytes of the digest
	// published is the pubtime, "" for none.
	published string
	yanked    bool
	// deps are the members of deps, as they are written.
	deps string
}

// resolves is what a line of these dependencies resolves to.
func (l there) resolves(t interface{ Fatal(...any) }) Digest {
	f, err := cargo.ParseUpstreamFile("a", []byte(indexFile("a", there{version: "1.0.0", deps: l.deps})))
	if err != nil {
		t.Fatal(err)
	}
	return f.Lines[0].Resolves
}

func (l there) digest() (d [32]byte) {
	copy(d[:], bytes.Repeat([]byte{l.sum}, len(d)))
	return d
}

// unread: cargo does not read the line.
func (l there) unread() bool { return l.published != "" && l.pubtime().IsZero() }

func (l there) pubtime() time.Time {
	at, err := time.Parse("2006-01-02T15:04:05Z", l.published)
	if err != nil {
		return time.Time{}
	}
	return at
}

// indexFile is the index file of the crate name that has these lines.
func indexFile(name string, lines ...there) string {
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, `{"name":%q,"vers":%q,"deps":[%s],"cksum":"%x","features":{},"yanked":%v`, name, l.version, l.deps, l.digest(), l.yanked)
		if l.published != "" {
			fmt.Fprintf(&b, `,"pubtime":%q`, l.published)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// see tries to enter that the registry saw file as the index file of a crate.
func (w *world) see(text, file string, edits ...func(*attempt)) error {
	w.t.Helper()
	id := *w.attach([]byte(file))
	return w.try(registry, text, &record.Import{}, append([]func(*attempt){func(a *attempt) { a.draft.Digest = id.Digest() }}, edits...)...)
}

func (w *world) mustSee(text, file string) Upstream {
	w.t.Helper()
	if err := w.see(text, file); err != nil {
		w.t.Fatal(err)
	}
	return w.upstream(text)
}

func (w *world) upstream(text string) Upstream {
	w.t.Helper()
	s := subject(w.t, text)
	u, ok, err := UpstreamOf(w.store, s.Upstream(), s.Crate())
	if err != nil || !ok {
		w.t.Fatalf("%s: %v, %v", text, ok, err)
	}
	return u
}

func asOther(a actor) func(*attempt) { return func(at *attempt) { at.who = a } }

func TestImportsAreTheRegistrysAlone(t *testing.T) {
	file := indexFile("left-pad", there{version: "1.0.0", sum: 1})
	see := func(edits ...func(*attempt)) func(*world) error {
		return func(w *world) error { return w.see(leftPadThere, file, edits...) }
	}
	runCases(t, []applyCase{
		{"as it should be", see(), nil},
		{"by an admin", see(asOther(alice)), ErrNotEntitled},
		{"by a publisher", see(asOther(pat)), ErrNotEntitled},
		{"by a stranger", see(asOther(mallory)), ErrNotEntitled},
		{"with somebody's key", see(signedBy(mallory.key)), ErrInvalid},
		{"by no settings", see(by("")), ErrNotEntitled},
		{"by a member's record", func(w *world) error { return w.see(leftPadThere, file, by(w.member(pat.id()).Record)) }, ErrNotEntitled},
		{"by settings that were replaced", func(w *world) error {
			old := w.settings().Record
			w.must(alice, "registry", settings(func(r *record.Registry) { r.ReleaseK = 2 }))
			return w.see(leftPadThere, file, by(old))
		}, ErrNotEntitled},
		{"after something", see(prev(otherID)), ErrStale},
		{"for another registry", see(forRegistry(mallory.id())), ErrInvalid},
		{"without its bytes", see(detached), ErrInvalid},
		{"with other bytes", see(swapped([]byte(indexFile("left-pad", there{version: "1.0.0", sum: 2})))), ErrInvalid},
	})
}

func TestImportsHaveToBeOfThatCrate(t *testing.T) {
	one, two := there{version: "1.0.0", sum: 1}, there{version: "2.0.0", sum: 2}
	file := indexFile("left-pad", one)
	twice := func(first, second, spelled string) func(*world) error {
		return func(w *world) error {
			w.mustSee(leftPadThere, first)
			return w.see(spelled, second)
		}
	}
	runCases(t, []applyCase{
		{"another crate's", func(w *world) error { return w.see(leftPadThere, indexFile("right-pad", one)) }, ErrInvalid},
		{"spelled otherwise", func(w *world) error { return w.see(leftPadThere, indexFile("left_pad", one)) }, ErrInvalid},
		{"spelled as by its newest line", func(w *world) error {
			return w.see(leftPadThere, indexFile("Left_Pad", one)+indexFile("left-pad", two))
		}, nil},
		{"a page", func(w *world) error { return w.see(leftPadThere, "<html>") }, ErrInvalid},
		{"too large", func(w *world) error { return w.see(leftPadThere, strings.Repeat("\n", cargo.MaxUpstreamFile+1)) }, ErrInvalid},
		{"nothing of what is unknown", func(w *world) error { return w.see(leftPadThere, "") }, ErrInvalid},
		{"nothing any more", twice(file, "", leftPadThere), nil},
		{"nothing any more, spelled otherwise", twice(file, "", "upstream/crates-io/left_pad"), ErrInvalid},
		{"the same", twice(file, file, leftPadThere), ErrNoChange},
		{"something else", twice(file, indexFile("left-pad", two), leftPadThere), nil},
		{"the same, of another registry", twice(file, file, "upstream/lab-2/left-pad"), nil},
		{"spelled anew", twice(file, indexFile("left_pad", one), "upstream/crates-io/left_pad"), nil},
		{"what was before", func(w *world) error {
			w.mustSee(leftPadThere, file)
			w.mustSee(leftPadThere, indexFile("left-pad", two))
			return w.see(leftPadThere, file)
		}, nil},
	})
}

// Nobody can make what is read for one crate grow for ever, one snapshot after the other.
func TestVersionsOfAnUpstreamCrateAreBounded(t *testing.T) {
	lines := make([]there, MaxUpstreamVersions)
	for i := range lines {
		lines[i] = there{version: fmt.Sprintf("0.0.%d", i), sum: 1}
	}
	var u Upstream
	file, err := cargo.ParseUpstreamFile("left-pad", []byte(indexFile("left-pad", lines...)))
	if err != nil {
		t.Fatal(err)
	}
	u.see(file, storage.CIDOf(nil), start)
	w := newWorld(t)
	if err := w.see(leftPadThere, indexFile("left-pad", lines[:2]...)); err != nil {
		t.Fatal(err)
	}
	u.Record, u.Snapshot = otherID, storage.CIDOf(nil)
	change, err := put(UpstreamKey("crates-io", "left-pad"), u)
	if err != nil {
		t.Fatal(err)
	}
	w.store.Put([]Change{change})
	if err := w.see(leftPadThere, indexFile("left-pad", there{version: "1.0.0", sum: 1})); err == nil || !strings.Contains(err.Error(), "20001 versions") {
		t.Error(err)
	}
	if err := w.see(leftPadThere, indexFile("left-pad", lines[1:]...)); err != nil {
		t.Error(err)
	}
}

// What upstream says later about a version that is known is evidence at most.
func TestAChangedDigestIsKeptAndNotBelieved(t *testing.T) {
	w := newWorld(t)
	good := there{version: "1.0.0", sum: 1, published: "2026-01-01T00:00:00Z"}
	w.mustSee(leftPadThere, indexFile("left-pad", good))
	changed := w.now
	bad := indexFile("left-pad", there{version: "1.0.0", sum: 2}, there{version: "1.0.0+b", sum: 3})
	u := w.mustSee(leftPadThere, bad)
	if len(u.Versions) != 1 {
		t.Fatalf("%+v", u)
	}
	v := u.Versions[0]
	if v.Digest != good.digest() || !v.Gone.Equal(changed) || len(v.Other) != 1 || v.Other[0].Digest != (there{sum: 2}).digest() || !v.Other[0].Time.Equal(changed) ||
		v.Other[0].Snapshot != storage.CIDOf([]byte(bad)) || v.Line != storage.CIDOf([]byte(indexFile("left-pad", good))) {
		t.Errorf("%+v", v)
	}
	for sum := byte(3); sum < 9; sum++ {
		u = w.mustSee(leftPadThere, indexFile("left-pad", there{version: "1.0.0", sum: sum}))
	}
	if v = u.Versions[0]; len(v.Other) != MaxUpstreamClaims || !v.Gone.Equal(changed) {
		t.Errorf("%+v", v)
	}
	u = w.mustSee(leftPadThere, indexFile("left-pad", good))
	if v = u.Versions[0]; !v.Gone.IsZero() || !v.Since.Equal(good.pubtime()) || v.Line != u.Snapshot {
		t.Errorf("%+v", v)
	}
	if found, ok := u.Find("1.0.0+other"); !ok || !reflect.DeepEqual(found, v) {
		t.Errorf("%+v, %v", found, ok)
	}
	if _, ok := u.Find("1.0.1"); ok {
		t.Error("found")
	}
}

// A line of a known version that resolves to something else is as one of other bytes:
// evidence, and the version is gone until its first line is listed again.
func TestAnAlteredLineIsKeptAndNotBelieved(t *testing.T) {
	w := newWorld(t)
	good := there{version: "1.0.0", sum: 1, published: "2026-01-01T00:00:00Z", deps: `{"name":"a","req":"^1"}`}
	first := indexFile("left-pad", good)
	w.mustSee(leftPadThere, first)
	bad, changed := good, w.now
	bad.deps += `,{"name":"evil","req":"*"}`
	u := w.mustSee(leftPadThere, indexFile("left-pad", bad))
	want := []UpstreamClaim{{Digest: good.digest(), Resolves: bad.resolves(t), Time: changed, Snapshot: u.Snapshot}}
	v := u.Versions[0]
	if v.Resolves != good.resolves(t) || !v.Gone.Equal(changed) || v.Line != storage.CIDOf([]byte(first)) || !reflect.DeepEqual(v.Other, want) || !v.Other[0].SameBytes() {
		t.Errorf("%+v", v)
	}
	bad.yanked = true
	other := there{version: "1.0.0", sum: 2, deps: bad.deps}
	u = w.mustSee(leftPadThere, indexFile("left-pad", bad, other))
	if v = u.Versions[0]; len(v.Other) != 2 || v.Other[1].SameBytes() || v.Other[1].Digest != other.digest() || v.Yanked {
		t.Errorf("%+v", v)
	}
	written := good // in another way, beside what is not believed
	written.deps = `{"features":[],"req":"^1","kind":"normal","package":null,"name":"a","since":1}`
	u = w.mustSee(leftPadThere, indexFile("left-pad", bad, written))
	if v = u.Versions[0]; !v.Gone.IsZero() || v.Line != u.Snapshot || !v.Since.Equal(good.pubtime()) || len(v.Other) != 2 {
		t.Errorf("%+v", v)
	}
	w.checkReplay()
}

// TestUpstreamVectors holds the value that FORMATS §3 tells of, which any
// implementation makes of these three snapshots.
func TestUpstreamVectors(t *testing.T) {
	w := newWorld(t)
	for i, lines := range [][]there{
		{{"1.0.0", 1, "2026-06-01T08:30:00Z", false, ""}, {"1.0.1+b", 2, "", false, ""}, {"1.1.0", 3, "2026-06-30T00:00:00Z", false, ""}},
		{{"1.0.0", 1, "2026-06-01T08:30:00Z", true, ""}, {"1.1.0", 4, "2026-06-30T00:00:00Z", false, ""}, {"2.0.0", 5, "2026-07-01T12:00:00Z", false, ""}},
		{{"1.0.0", 1, "2026-05-01T00:00:00Z", true, ""}, {"1.0.1+b", 2, "2026-06-02T00:00:00Z", false, ""}, {"2.0.0", 5, "2026-07-01T12:00:00Z", false, `{"name":"a","req":"^1"}`}},
	} {
		file := indexFile("left-pad", lines...)
		golden(t, fmt.Sprintf("upstream-%d.txt", i+1), []byte(file))
		w.mustSee(leftPadThere, file)
	}
	golden(t, "upstream.json", append(bytes.Clone(w.store["upstream/crates-io/left_pad"]), '\n'))
	w.checkReplay()
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n got %s\nwant %s", name, got, want)
	}
}

// sight is a snapshot of a history, as the property test tells it.
type sight struct {
	at    time.Time
	id    storage.CID
	lines []there
}

// TestRandomSnapshots: however snapshots come, what is known of each version is what
// its rules say of all of them together: the digest and the dependencies said first stand,
// as does that cargo can read it, First never moves, Gone is set as long as the last snapshot does not list it, and Since is the
// first pubtime (First where none was said), or when it was not there yet, if that is later.
func TestRandomSnapshots(t *testing.T) {
	line := rapid.Custom(func(rt *rapid.T) there {
		return there{
			version:   rapid.SampledFrom([]string{"1.0.0", "1.0.0+b", "1.1.0", "2.0.0-rc.1", "0.9.0"}).Draw(rt, "version"),
			sum:       rapid.SampledFrom([]byte{1, 1, 1, 1, 2, 3, 4, 5, 6, 7}).Draw(rt, "sum"),
			published: rapid.SampledFrom([]string{"", "2026-06-01T00:00:00Z", "2026-06-02T00:00:00Z", "2026-07-01T12:00:08Z", "2027-01-01T00:00:00Z", "yesterday"}).Draw(rt, "published"),
			yanked:    rapid.Bool().Draw(rt, "yanked"),
			deps:      rapid.SampledFrom([]string{"", "", "", `{"name":"a","req":"^1"}`, `{"req":"^1","name":"a"}`, `{"name":"b","req":"^1"}`}).Draw(rt, "deps"),
		}
	})
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		var seen []sight
		var last Upstream
		for range rapid.IntRange(1, 12).Draw(rt, "snapshots") {
			lines := rapid.SliceOfN(line, 0, 6).Draw(rt, "lines")
			file, at := indexFile("left-pad", lines...), w.now
			err := w.see(leftPadThere, file)
			same := len(seen) > 0 && last.Snapshot == storage.CIDOf([]byte(file))
			if refused := len(lines) == 0 && len(seen) == 0 || same; refused != (err != nil) {
				rt.Fatalf("%q after %q: %v", file, last.Snapshot, err)
			}
			if err != nil {
				continue
			}
			if rapid.Bool().Draw(rt, "in the same second") {
				w.now = at
			}
			seen = append(seen, sight{at, storage.CIDOf([]byte(file)), lines})
			last = w.upstream(leftPadThere)
			if want := told(rt, seen); !reflect.DeepEqual(last.Versions, want) {
				rt.Fatalf("after %+v:\n got %+v\nwant %+v", seen, last.Versions, want)
			}
			if last.Name != "left-pad" || last.Upstream != "crates-io" || last.Record != w.last.ID() || last.Index != w.next-1 || !last.Seen.Equal(at) || last.Size != int64(len(file)) {
				rt.Fatalf("%+v", last)
			}
		}
		w.checkReplay()
	})
}

// told is what is known of all versions that were seen, by the rules and from the whole
// history.
func told(t *rapid.T, seen []sight) []UpstreamVersion {
	var all []UpstreamVersion
	for _, s := range seen {
		for _, l := range s.lines {
			known := false
			for _, v := range all {
				known = known || withoutBuild(v.Version) == withoutBuild(l.version)
			}
			if !known {
				all = append(all, toldOf(t, l, seen))
			}
		}
	}
	return all
}

// toldOf is what is known of the version that was first seen as first.
func toldOf(t *rapid.T, first there, seen []sight) UpstreamVersion {
	v := UpstreamVersion{Version: first.version, Digest: first.digest(), Resolves: first.resolves(t), Unread: first.unread()}
	listedBefore := false
	for i, s := range seen {
		listed := false
		for _, l := range s.lines {
			same := l.sum == first.sum && l.resolves(t) == v.Resolves
			switch {
			case l.version != first.version || v.First.IsZero() && !listed && !same:
			case same && (!listed && (v.Unread || !l.unread()) || v.Unread && !l.unread()): // one that cargo reads goes before one that it does not
				listed, v.Unread = true, l.unread()
				if v.First.IsZero() {
					v.First = s.at
					if i > 0 {
						v.Absent = seen[i-1].at
					}
				}
				v.Yanked, v.Line = l.yanked, s.id
				if p := l.pubtime(); v.Published.IsZero() && !p.IsZero() {
					v.Published = earlier(p, v.First)
				}
			case !same:
				claim := UpstreamClaim{Digest: l.digest(), Time: s.at, Snapshot: s.id}
				if l.sum == first.sum {
					claim.Resolves = l.resolves(t)
				}
				fresh := len(v.Other) < 4
				for _, o := range v.Other {
					fresh = fresh && (o.Digest != claim.Digest || o.Resolves != claim.Resolves)
				}
				if fresh {
					v.Other = append(v.Other, claim)
				}
			}
		}
		switch {
		case listed:
			v.Gone = time.Time{}
		case listedBefore:
			v.Gone = s.at
		}
		listedBefore = listed
	}
	v.Since = v.Published
	if v.Published.IsZero() {
		v.Since = v.First
	}
	if v.Absent.After(v.Since) {
		v.Since = v.Absent
	}
	return v
}

// TestNothingSaidLaterMakesAVersionYounger: whatever upstream takes back, puts back, or says
// of when a version was published, the age that it had at first is the least that it has:
// a cooldown that is over stays over, and builds with a lock go on.
func TestNothingSaidLaterMakesAVersionYounger(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var u Upstream
		at, before := start, map[string]UpstreamVersion{}
		for i := range rapid.IntRange(2, 10).Draw(rt, "snapshots") {
			at = at.Add(time.Duration(rapid.IntRange(0, 1000).Draw(rt, "hours")) * time.Hour)
			var lines []there
			for range rapid.IntRange(0, 4).Draw(rt, "lines") {
				l := there{version: rapid.SampledFrom([]string{"1.0.0", "1.1.0", "1.2.0"}).Draw(rt, "version"), sum: rapid.SampledFrom([]byte{1, 1, 2}).Draw(rt, "sum")}
				if rapid.Bool().Draw(rt, "says when") {
					l.published = start.Add(time.Duration(rapid.IntRange(-9000, 9000).Draw(rt, "published")) * time.Hour).Format("2006-01-02T15:04:05Z")
				}
				lines = append(lines, l)
			}
			file, err := cargo.ParseUpstreamFile("a", []byte(indexFile("a", lines...)))
			if err != nil {
				rt.Fatal(err)
			}
			u.see(file, storage.CIDOf(fmt.Append(nil, i)), at)
			u.Seen = at
			for _, v := range u.Versions {
				old, known := before[v.Version]
				if known && v.Since.After(old.Since) {
					rt.Fatalf("from %s on, and once it was said at %s from %s on", old.Since, at, v.Since)
				}
				if known && !old.Published.IsZero() && !v.Since.Equal(old.Since) {
					rt.Fatalf("an age that was settled is another one: %+v, then %+v", old, v)
				}
				if v.Since.After(v.First) || v.Since.Before(v.Absent) {
					rt.Fatalf("%+v", v)
				}
				before[v.Version] = v
			}
		}
	})
}

// Upstream's word on when a version was published makes it neither older than the last
// look at which it was not there, nor younger than the entry that says it.
func TestAnAgeRestsOnWhatWasSeen(t *testing.T) {
	w := newWorld(t)
	first := there{version: "1.0.0", sum: 1, published: "2099-01-01T00:00:00Z"}
	before := w.now
	if v := w.mustSee(leftPadThere, indexFile("left-pad", first)).Versions[0]; !v.Since.Equal(before) || !v.Published.Equal(before) || !v.Absent.IsZero() {
		t.Errorf("published in the future: %+v", v)
	}
	first.published = "2015-01-01T00:00:00Z"
	late := there{version: "1.0.1", sum: 2, published: "2015-01-01T00:00:00Z"}
	u := w.mustSee(leftPadThere, indexFile("left-pad", first, late))
	if v := u.Versions[0]; !v.Since.Equal(before) {
		t.Errorf("what was said of the future is not taken back: %+v", v)
	}
	if v := u.Versions[1]; !v.Since.Equal(before) || !v.Absent.Equal(before) {
		t.Errorf("one that was not there at the last look is old at once: %+v", v)
	}
	late.yanked = true // what is said of it later does not make it older either
	if v := w.mustSee(leftPadThere, indexFile("left-pad", first, late)).Versions[1]; !v.Since.Equal(before) {
		t.Errorf("%+v", v)
	}
	w.checkReplay()
}

// TestStateOfUpstreamIsApartFromOurs: a crate of another registry touches nothing of an
// artifact of that name, and the other way round.
func TestStateOfUpstreamIsApartFromOurs(t *testing.T) {
	w := newWorld(t)
	ours := w.version(demo + "@1.0.0")
	w.mustSee("upstream/crates-io/demo-one", indexFile("demo-one", there{version: "1.0.0", sum: 9}))
	w.must(pat, demo+"@1.1.0", &record.Publish{})
	if w.version(demo+"@1.0.0").CID != ours.CID {
		t.Error("a version of ours was changed")
	}
	if u := w.upstream("upstream/crates-io/Demo_One"); len(u.Versions) != 1 || u.Versions[0].Version != "1.0.0" {
		t.Errorf("%+v", u)
	}
	if h := w.headID("upstream/crates-io/demo_one"); h == "" || h == w.headID("crate/demo_one") {
		t.Errorf("head %q", h)
	}
	for _, k := range []string{UpstreamKey("crates-io", "Demo-One"), UpstreamPrefix("crates-io") + "demo_one", UpstreamsPrefix() + "crates-io/demo_one"} {
		if _, ok := w.store[k]; !ok {
			t.Errorf("there is no %s", k)
		}
	}
}

// A batch of a cold resolve, 64 imports of crates with 100 versions each, is applied
// with the head locked: in some 80 ms (docs/ARCHITECTURE.md).
func BenchmarkApplyImports(b *testing.B) {
	const crates, versions = 64, 100
	for name, again := range map[string]bool{"first": false, "again": true} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b)
			var ready []logged
			for i := range crates {
				text, file := fmt.Sprintf("upstream/crates-io/crate-%d", i), benchFile(fmt.Sprintf("crate-%d", i), versions)
				if again {
					if err := w.see(text, file[:len(file)/2+strings.Index(file[len(file)/2:], "\n")+1]); err != nil {
						b.Fatal(err)
					}
				}
				id := *w.attach([]byte(file))
				at := w.prepare(registry, text, &record.Import{})
				at.draft.Digest = id.Digest()
				at.draft.Header.IssuedAt, at.draft.Header.Expires = start, start.Add(time.Hour)
				ready = append(ready, logged{at.entry, w.sign(at)})
			}
			b.ResetTimer()
			for range b.N {
				for i, l := range ready {
					l.entry.Index = w.next + int64(i)
					if _, err := Apply(w.store, l.entry, l.record, w.attachments); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// benchFile has lines of some 1,000 bytes, as crates.io has on average.
func benchFile(name string, versions int) string {
	var b strings.Builder
	dep := `{"name":"some-dependency","req":"^1.0.%d","features":["derive","std"],"optional":true,"default_features":false,"target":"cfg(unix)","kind":"normal"}`
	for i := range versions {
		fmt.Fprintf(&b, `{"name":%q,"vers":"1.%d.0","deps":[%s],"cksum":"%x","features":{"default":["std"],"std":["some-dependency/std"]},"yanked":false,"pubtime":"2026-06-01T08:30:00Z","v":2}`+"\n",
			name, i, strings.Repeat(fmt.Sprintf(dep, 30)+",", 4)+fmt.Sprintf(dep, 100+i), fmt.Sprintf("%32d", i))
	}
	return b.String()
}

// A line that cargo does not read says nothing of a version that it had read; where there was never
// another it stands until there is.
func TestALineThatCargoDoesNotReadListsNothing(t *testing.T) {
	fine, odd := there{version: "1.0.0", sum: 1}, there{version: "1.0.0", sum: 1, published: "some day"}
	other := there{version: "2.0.0", sum: 2}
	yanked := fine
	yanked.yanked = true
	w := newWorld(t)
	at := func(file string, listed, unread bool) UpstreamVersion {
		t.Helper()
		u := w.mustSee(leftPadThere, file)
		v := u.Versions[0]
		if v.Gone.IsZero() != listed || v.Unread != unread || len(v.Other) > 0 || listed && v.Line != u.Snapshot {
			t.Errorf("%s is known as %+v", file, v)
		}
		return v
	}
	was := at(indexFile("left-pad", fine), true, false)
	if v := at(indexFile("left-pad", odd), false, false); v.Line != was.Line {
		t.Errorf("its line is in %s, and was in %s", v.Line, was.Line)
	}
	at(indexFile("left-pad", odd, other), false, false)
	if v := at(indexFile("left-pad", odd, yanked), true, false); !v.Yanked {
		t.Error("the line that cargo reads is not the version's")
	}

	w = newWorld(t)
	at(indexFile("left-pad", odd), true, true)
	at(indexFile("left-pad", odd, other), true, true)
	at(indexFile("left-pad", odd, fine), true, false)
	at(indexFile("left-pad", odd), false, false)
	at(indexFile("left-pad", fine), true, false)
}

// What is not listed as it was is called as the alarm was, and by no name where that is not known.
func TestAVersionIsGoneAsItWasSaid(t *testing.T) {
	before, gone, since := time.Unix(1, 0), time.Unix(2, 0), time.Unix(3, 0)
	changed, altered := UpstreamClaim{Digest: Digest{1}}, UpstreamClaim{Resolves: Digest{1}}
	at := func(c UpstreamClaim, at time.Time) UpstreamClaim { c.Time = at; return c }
	for want, versions := range map[string][]UpstreamVersion{
		"":        {{}, {Other: []UpstreamClaim{at(changed, gone)}}, {Gone: gone, Other: []UpstreamClaim{at(changed, before)}}},
		"dropped": {{Gone: gone}},
		"changed": {{Gone: gone, Other: []UpstreamClaim{at(changed, gone)}}, {Gone: gone, Other: []UpstreamClaim{at(altered, gone), at(changed, since)}}},
		"altered": {{Gone: gone, Other: []UpstreamClaim{at(changed, before), at(altered, gone)}}},
	} {
		for _, v := range versions {
			if got := v.GoneAs(); got != want {
				t.Errorf("%+v is gone as %q, want %q", v, got, want)
			}
		}
	}
}
