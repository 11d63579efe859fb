package registry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/content"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

const cratesIO = particle.SourceCratesIO

// thereLine is a line of crates.io's index file; of is what the bytes are of, and more
// are members, with a comma before each.
func thereLine(name, version, of, more string) string {
	return fmt.Sprintf(`{"name":%q,"vers":%q,"deps":[],"cksum":%q,"features":{"yanked":[]}%s}`+"\n", name, version, storage.CIDOf([]byte(of)).Hex(), more)
}

const (
	notYankedThere = `,"yanked":false`
	yankedThere    = `,"yanked":true`
)

// imported imports file as it was seen at crates.io. Nothing is to be found in its crates.
func (c *court) imported(crate, file string) Imported {
	c.t.Helper()
	seen, err := cargo.ParseUpstreamFile(crate, []byte(file))
	for _, l := range seen.Lines {
		err = errors.Join(err, c.r.Catalog.PutScan(c.t.Context(), catalog.Scan{CID: storage.CIDFromDigest(l.Digest), Recognisers: content.Version, Time: c.now()}))
	}
	if err != nil {
		c.t.Fatal(err)
	}
	in, err := c.r.Import(c.t.Context(), cratesIO, crate, []byte(file))
	if err != nil {
		c.t.Fatal(err)
	}
	return in
}

// there is what asker sees of a crate of crates.io, "" for nothing.
func (c *court) there(asker policy.Asker, name string) string {
	c.t.Helper()
	file, err := c.r.UpstreamIndexFile(c.t.Context(), asker, cratesIO, name, nil)
	if errors.Is(err, ErrNotFound) {
		return ""
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return string(file.Plain.Bytes)
}

// thereVersion is a version of crates.io whose bytes are of.
func (c *court) thereVersion(asker policy.Asker, name, version, of string) (Judged, error) {
	c.t.Helper()
	return c.r.UpstreamVersion(c.t.Context(), asker, cratesIO, name, version, storage.CIDOf([]byte(of)).Digest())
}

func TestAnImportIsSeenOnceItIsEntered(t *testing.T) {
	c := newCourt(t)
	file := thereLine("Serde", "1.0.0", "a", notYankedThere)
	if _, ok, err := c.r.UpstreamCrate(t.Context(), cratesIO, "serde"); ok || err != nil {
		t.Fatalf("before: %v, %v", ok, err)
	}
	first := c.imported("serde", file)
	again := c.imported("serde", file)
	if first.Repeated || !again.Repeated || again.Record != first.Record || again.Index != first.Index {
		t.Errorf("%+v, then %+v", first, again)
	}
	for _, name := range []string{"serde", "Serde"} {
		u, ok, err := c.r.UpstreamCrate(t.Context(), cratesIO, name)
		if err != nil || !ok || u.Name != "Serde" || u.Snapshot != storage.CIDOf([]byte(file)) || u.Record != first.Record || u.Index != first.Index {
			t.Errorf("%s: %+v, %v, %v", name, u, ok, err)
		}
	}
	if got := c.there(reader, "serde"); got != file {
		t.Errorf("the index file is\n%s", got)
	}
	for _, name := range []string{"Serde", "ser_de", "a/b", "\x00", ""} {
		if got := c.there(reader, name); got != "" {
			t.Errorf("%q: %s", name, got)
		}
	}
	if _, err := c.r.UpstreamIndexFile(t.Context(), reader, "another", "serde", nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("of another upstream: %v", err)
	}
	next := file + thereLine("Serde", "1.1.0", "b", notYankedThere)
	if c.imported("serde", next); c.there(reader, "serde") != next {
		t.Error("the index file is not the new one")
	}
	if _, err := c.r.UpstreamIndexFile(t.Context(), policy.Asker{}, cratesIO, "serde", nil); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("for nobody: %v", err)
	}
	c.w.rebuilds(c.r)
}

func TestWhatIsNoIndexFileIsNotImported(t *testing.T) {
	c := newCourt(t)
	settings := c.r.Settings().Registry
	settings.PrivateNames = []string{"Lab-"}
	c.admin.enter(c.registrySubject(), &settings)
	c.imported("left-pad", thereLine("left-pad", "1.0.0", "a", notYankedThere))
	size := c.r.Size()
	for name, test := range map[string]struct {
		upstream, crate, file string
		want                  error
	}{
		"another crate's":          {cratesIO, "serde", thereLine("rand", "1.0.0", "a", notYankedThere), ErrSnapshot},
		"not JSON":                 {cratesIO, "serde", "<html>\n", ErrSnapshot},
		"nothing of nothing":       {cratesIO, "serde", "", ErrSnapshot},
		"spelled otherwise":        {cratesIO, "left_pad", thereLine("left_pad", "1.0.0", "a", notYankedThere), nil},
		"a private name":           {cratesIO, "lab_tools", thereLine("lab_tools", "1.0.0", "a", notYankedThere), ErrRequest},
		"an upstream of no name":   {"", "serde", thereLine("serde", "1.0.0", "a", notYankedThere), ErrSnapshot},
		"an upstream with a slash": {"a/b", "serde", thereLine("serde", "1.0.0", "a", notYankedThere), ErrSnapshot},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.r.Import(t.Context(), test.upstream, test.crate, []byte(test.file))
			if !errors.Is(err, test.want) || test.want == nil && err != nil {
				t.Errorf("%v, want %v", err, test.want)
			}
			if test.want != nil && c.r.Size() != size {
				t.Error("it was entered")
			}
			size = c.r.Size()
		})
	}
}

func TestVersionsOfUpstreamsCratesAreBounded(t *testing.T) {
	c := newCourt(t)
	var all strings.Builder
	for i := range state.MaxUpstreamVersions {
		all.WriteString(thereLine("big", fmt.Sprintf("1.0.%d", i), "big", notYankedThere))
	}
	if _, err := c.r.Import(t.Context(), cratesIO, "big", []byte(all.String())); err != nil {
		t.Fatal(err)
	}
	if got := c.there(reader, "big"); got != all.String() {
		t.Errorf("%d bytes, not %d", len(got), all.Len())
	}
	for version, want := range map[string]error{"2.0.0": ErrSnapshot, "1.0.7+other": nil} {
		if _, err := c.r.Import(t.Context(), cratesIO, "big", []byte(thereLine("big", version, "one more", notYankedThere))); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%s: %v", version, err)
		}
	}
}

// A cold resolve is a few batches' worth of waiting.
func TestImportsShareBatches(t *testing.T) {
	const crates = 60
	var batches, records atomic.Int64
	c := newCourt(t, func(config *Config) {
		config.Batch = func(b Batch) { batches.Add(1); records.Add(int64(b.Records)) }
	})
	batches.Store(0)
	records.Store(0)
	var all sync.WaitGroup
	for i := range crates {
		all.Go(func() {
			name := fmt.Sprintf("crate%d", i)
			if _, err := c.r.Import(t.Context(), cratesIO, name, []byte(thereLine(name, "1.0.0", name, notYankedThere))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if records.Load() != crates || batches.Load() > crates/3 {
		t.Errorf("%d records in %d batches", records.Load(), batches.Load())
	}
}

// Who imports the same crate at the same time is not told so.
func TestImportsOfOneCrateDoNotFail(t *testing.T) {
	c := newCourt(t)
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			file := thereLine("serde", "1.0.0", "a", notYankedThere) + thereLine("serde", fmt.Sprintf("1.%d.0", 1+i/2), "b", notYankedThere)
			if _, err := c.r.Import(t.Context(), cratesIO, "serde", []byte(file)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := strings.Count(c.there(reader, "serde"), "\n"); got != 4 {
		t.Errorf("%d versions", got)
	}
}

// What upstream says stands there byte for byte, but for what a decision changes.
func TestUpstreamsLinesAreVerbatimButForYanked(t *testing.T) {
	c := newCourt(t)
	line := func(version, more string) string { return thereLine("odd", version, version, more) }
	for i, test := range []struct{ line, yanked string }{
		{line("1.0.0", notYankedThere), line("1.0.0", yankedThere)},
		{line("1.1.0", `, "yanked" : false ,"links":null`), line("1.1.0", `, "yanked" : true ,"links":null`)},
		{line("1.2.0", ``), line("1.2.0", yankedThere)},
		{line("1.3.0", `,"yanked":null`), ""}, // of a form that cargo does not know either, or does: see below
		{line("1.4.0", yankedThere), line("1.4.0", yankedThere)},
		{line("1.5.0", `,"y\u0061nked":false,"pubtime":"2020-01-01T00:00:00Z"`), line("1.5.0", `,"y\u0061nked":true,"pubtime":"2020-01-01T00:00:00Z"`)},
		{strings.TrimSuffix(line("1.6.0", notYankedThere), "\n") + "\r\n", strings.TrimSuffix(line("1.6.0", yankedThere), "\n") + "\r\n"},
		{strings.Replace(line("1.7.0", ""), `{"name"`, `{"yanked":false,"name"`, 1), strings.Replace(line("1.7.0", ""), `{"name"`, `{"yanked":true,"name"`, 1)},
	} {
		name := fmt.Sprintf("odd%d", i)
		named := func(s string) string { return strings.Replace(s, `"odd"`, `"`+name+`"`, 1) }
		if test.yanked == "" {
			test.yanked = strings.Replace(test.line, "null", "true", 1)
		}
		before, after := thereLine(name, "0.1.0", "before", notYankedThere), thereLine(name, "2.0.0", "after", notYankedThere)
		c.imported(name, before+named(test.line)+after)
		if got := c.there(reader, name); got != before+named(test.line)+after {
			t.Errorf("under no grant:\n%s", got)
		}
		host := c.member(particle.TierGuest)
		c.grant(c.admin, host, func(g *particle.EnvGrant) {
			g.AllowedCrates = []string{storage.CIDOf([]byte("before")).Hex(), storage.CIDOf([]byte("after")).Hex()}
		})
		if got := c.there(c.asker(host, "read", ""), name); got != before+named(test.yanked)+after {
			t.Errorf("where it is denied:\n%s", got)
		}
	}
}

func TestGrantsBindUpstreamsCrates(t *testing.T) {
	c := newCourt(t)
	one, two := thereLine("serde", "1.0.0", "one", notYankedThere), thereLine("serde", "2.0.0", "two", notYankedThere)
	c.imported("serde", one+two)
	c.imported("rand", thereLine("rand", "1.0.0", "rand", notYankedThere))
	bound := func(offshore bool) policy.Asker {
		host := c.member(particle.TierGuest)
		c.grant(c.admin, host, func(g *particle.EnvGrant) {
			g.OffshoreFlag, g.AllowedCrates = offshore, []string{storage.CIDOf([]byte("one")).Hex()}
		})
		return c.asker(host, "read", "")
	}
	near, far := bound(false), bound(true)
	yanked := thereLine("serde", "2.0.0", "two", yankedThere)
	for _, test := range []struct {
		who         string
		asker       policy.Asker
		serde, rand string
		two         error
	}{
		{"nobody's", reader, one + two, thereLine("rand", "1.0.0", "rand", notYankedThere), nil},
		{"an auditor's", c.asker(c.admin, "audit", ""), one + two, thereLine("rand", "1.0.0", "rand", notYankedThere), nil},
		{"a host's", near, one + yanked, thereLine("rand", "1.0.0", "rand", yankedThere), &policy.Denial{}},
		{"one's offshore", far, one, "", ErrNotFound},
	} {
		for range 2 {
			if got := c.there(test.asker, "serde"); got != test.serde {
				t.Errorf("%s view of serde:\n%s", test.who, got)
			}
			if got := c.there(test.asker, "rand"); got != test.rand {
				t.Errorf("%s view of rand:\n%s", test.who, got)
			}
		}
		if v, err := c.thereVersion(test.asker, "serde", "1.0.0", "one"); err != nil || v.Refusal() != nil || v.Source != cratesIO {
			t.Errorf("%s 1.0.0: %+v, %v", test.who, v, err)
		}
		v, err := c.thereVersion(test.asker, "serde", "2.0.0", "two")
		if err == nil {
			err = v.Refusal()
		}
		if denial := (*policy.Denial)(nil); errors.As(test.two, &denial) {
			wantDenial(t, err, policy.RuleAllowed)
			if !strings.Contains(err.Error(), "aln-registry why serde@2.0.0 --source crates-io says more") {
				t.Errorf("how to ask why is not said: %v", err)
			}
		} else if !errors.Is(err, test.two) || test.two == nil && err != nil {
			t.Errorf("%s 2.0.0: %v", test.who, err)
		}
	}
	for _, name := range []struct{ name, version, of string }{{"Serde", "1.0.0", "one"}, {"serde", "1.0.0+b", "one"}, {"serde", "1.0.0", "two"}, {"serde", "3.0.0", "one"}, {"\x00", "1.0.0", "one"}} {
		if v, err := c.thereVersion(reader, name.name, name.version, name.of); !errors.Is(err, ErrNotFound) {
			t.Errorf("%v: %+v, %v", name, v, err)
		}
	}
	event, ok := DenialOf(&Denied{Version: mustVersion(c.thereVersion(near, "serde", "2.0.0", "two")).Version, Source: cratesIO}, near, "", "")
	if !ok || event.What != "upstream/crates-io/serde@2.0.0" {
		t.Errorf("%+v", event)
	}
}

func mustVersion(v Judged, err error) Judged {
	if err != nil {
		panic(err)
	}
	return v
}

// Its age is that by pubtime, or where there is none, since it was first seen.
func TestTheCooldownBindsUpstreamsCrates(t *testing.T) {
	c := newCourt(t)
	settings := c.r.Settings().Registry
	settings.MinAgeDays = 7
	c.admin.enter(c.registrySubject(), &settings)
	at := func(days int) string {
		return fmt.Sprintf(`,"yanked":false,"pubtime":%q`, time.Now().UTC().AddDate(0, 0, -days).Format("2006-01-02T15:04:05Z"))
	}
	c.imported("serde", thereLine("serde", "1.0.0", "old", at(8))+thereLine("serde", "1.1.0", "new", at(6))+thereLine("serde", "1.2.0", "silent", notYankedThere))
	listed := func() (versions string) {
		for line := range strings.Lines(c.there(reader, "serde")) {
			versions += map[bool]string{true: "-", false: "+"}[strings.Contains(line, yankedThere)]
		}
		return versions
	}
	for _, step := range []struct {
		days int
		want string
	}{{0, "+--"}, {2, "++-"}, {8, "+++"}} {
		c.clockAt(time.Now().AddDate(0, 0, step.days))
		if got := listed(); got != step.want {
			t.Errorf("after %d days %s, want %s", step.days, got, step.want)
		}
		v, err := c.thereVersion(reader, "serde", "1.1.0", "new")
		if err != nil || (v.Refusal() == nil) != (step.want[1] == '+') {
			t.Errorf("after %d days %v, %v", step.days, v.Refusal(), err)
		}
	}
}

// The first digest seen of a version stands, and what upstream drops goes on as yanked.
func TestWhatUpstreamTakesBackIsNotBelieved(t *testing.T) {
	c := newCourt(t)
	line := func(version, of, more string) string { return thereLine("serde", version, of, more) }
	one, two, three := line("1.0.0", "one", notYankedThere), line("2.0.0", "two", notYankedThere), line("3.0.0", "three", notYankedThere)
	c.imported("serde", one+two+three)
	in := c.imported("serde", one+line("2.0.0", "other", notYankedThere))
	if !slices.Equal(in.Changed, []string{"2.0.0"}) || !slices.Equal(in.Dropped, []string{"3.0.0"}) {
		t.Errorf("%+v", in)
	}
	want := one + line("2.0.0", "two", yankedThere) + line("3.0.0", "three", yankedThere)
	if got := c.there(reader, "serde"); got != want {
		t.Errorf("\n%s", got)
	}
	if v, err := c.thereVersion(reader, "serde", "2.0.0", "other"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the later digest: %+v, %v", v, err)
	}
	for version, of := range map[string]string{"2.0.0": "two", "3.0.0": "three"} {
		if v, err := c.thereVersion(reader, version[:0]+"serde", version, of); err != nil || v.Refusal() != nil || !v.Yanked {
			t.Errorf("%s: %+v, %v", version, v, err)
		}
	}
	if in := c.imported("serde", one+line("2.0.0", "other", yankedThere)); len(in.Changed)+len(in.Dropped) > 0 {
		t.Errorf("told twice: %+v", in)
	}
	in = c.imported("serde", "")
	if !slices.Equal(in.Dropped, []string{"1.0.0"}) || len(in.Changed) > 0 {
		t.Errorf("%+v", in)
	}
	if got := c.there(reader, "serde"); got != line("1.0.0", "one", yankedThere)+line("2.0.0", "two", yankedThere)+line("3.0.0", "three", yankedThere) {
		t.Errorf("of what is gone:\n%s", got)
	}
	if in := c.imported("serde", one+two+three); len(in.Changed)+len(in.Dropped) > 0 || c.there(reader, "serde") != one+two+three {
		t.Errorf("as it was: %+v\n%s", in, c.there(reader, "serde"))
	}
	c.w.rebuilds(c.r)
}

// However often upstream drops what it had, a file is put together from few snapshots.
func TestWhatIsPutTogetherIsBounded(t *testing.T) {
	c := newCourt(t)
	const steps = mostSnapshots + 5
	for i := range steps {
		c.imported("serde", thereLine("serde", fmt.Sprintf("1.%d.0", i), "bytes", notYankedThere))
	}
	got := c.there(reader, "serde")
	if n := strings.Count(got, "\n"); n != mostSnapshots || !strings.Contains(got, fmt.Sprintf(`"1.%d.0"`, steps-1)) || strings.Contains(got, `"1.0.0"`) {
		t.Errorf("%d lines:\n%s", n, got)
	}
}

func TestPrivateNamesAreNoneOfUpstreams(t *testing.T) {
	c := newCourt(t)
	c.imported("lab-tools", thereLine("lab-tools", "1.0.0", "a", notYankedThere))
	if c.r.PrivateName("lab-tools") || c.there(reader, "lab-tools") == "" {
		t.Fatal("it is private already")
	}
	settings := c.r.Settings().Registry
	settings.PrivateNames = []string{"Lab-"}
	c.admin.enter(c.registrySubject(), &settings)
	for name, private := range map[string]bool{"lab-tools": true, "LAB_x": true, "lab-": true, "lab": false, "label": false, "my-lab-x": false} {
		if c.r.PrivateName(name) != private {
			t.Errorf("%s: private is not %v", name, private)
		}
	}
	if got := c.there(reader, "lab-tools"); got != "" {
		t.Error(got)
	}
	if _, err := c.thereVersion(reader, "lab-tools", "1.0.0", "a"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	told, err := c.r.Decisions(t.Context(), c.asker(c.admin, "read", ""), "", []Asked{{Name: "lab_tools", Version: "1.0.0", SHA256: storage.CIDOf([]byte("a")).Digest(), Source: cratesIO}})
	if err != nil || told[0].Allow || told[0].Rule != policy.RuleUnknown {
		t.Errorf("%+v, %v", told, err)
	}
}

// Under a content rule what upstream has is listed until somebody looks inside, and no
// byte of it leaves before.
func TestContentRulesBindUpstreamsCrates(t *testing.T) {
	c := newCourt(t)
	hidden, plain := uploadWith("hidden", blake3Source), newUpload("plain")
	for _, u := range []upload{hidden, plain} {
		if _, err := c.r.Import(t.Context(), cratesIO, u.name, []byte(thereLine(u.name, "1.0.0", string(u.crate), notYankedThere))); err != nil {
			t.Fatal(err)
		}
	}
	get := func(u upload) Judged {
		t.Helper()
		v, err := c.thereVersion(reader, u.name, "1.0.0", string(u.crate))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, u := range []upload{hidden, plain} {
		v := get(u)
		if !v.Decision.Unscanned || v.Refusal() == nil || strings.Contains(c.there(reader, u.name), yankedThere) {
			t.Errorf("%s, before: %+v", u.name, v.Decision)
		}
		if _, err := c.r.OpenHeld(t.Context(), v); err == nil {
			t.Errorf("%s is opened unseen", u.name)
		}
		if _, err := c.r.LookInto(t.Context(), reader, v); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("%s, not held: %v", u.name, err)
		}
		if err := c.r.Blobs.Put(t.Context(), v.CID, int64(len(u.crate)), strings.NewReader(string(u.crate))); err != nil {
			t.Fatal(err)
		}
	}
	v, err := c.r.LookInto(t.Context(), reader, get(plain))
	if err != nil || v.Refusal() != nil || strings.Contains(c.there(reader, "plain"), yankedThere) {
		t.Errorf("plain: %+v, %v", v, err)
	}
	blob, err := c.r.OpenHeld(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	blob.Close()
	v, err = c.r.LookInto(t.Context(), reader, get(hidden))
	if err != nil {
		t.Fatal(err)
	}
	wantDenial(t, v.Refusal(), policy.RuleQuarantine)
	if !strings.Contains(c.there(reader, "hidden"), yankedThere) {
		t.Error("what was found is not known to the index")
	}
	told, err := c.r.WhyUpstream(t.Context(), reader, cratesIO, "hidden", "1.0.0", "")
	if err != nil || len(told) != 1 || told[0].Allow || told[0].Listed || told[0].Rule != policy.RuleQuarantine {
		t.Errorf("why: %+v, %v", told, err)
	}
}

// Offline, a resolver is offered only what it can have.
func TestAnOfflineIndexHasOnlyWhatIsHeld(t *testing.T) {
	c := newCourt(t)
	one, two := thereLine("serde", "1.0.0", "one", notYankedThere), thereLine("serde", "2.0.0", "two", notYankedThere)
	c.imported("serde", one+two)
	here := map[storage.CID]bool{}
	held := func(_ context.Context, ids []storage.CID) (map[storage.CID]bool, error) {
		if len(ids) != 2 {
			t.Errorf("%d are asked for", len(ids))
		}
		return here, nil
	}
	host := c.member(particle.TierGuest)
	c.grant(c.admin, host, func(g *particle.EnvGrant) { g.AllowedCrates = []string{storage.CIDOf([]byte("one")).Hex()} })
	bound := c.asker(host, "read", "")
	see := func(asker policy.Asker, want string) {
		t.Helper()
		file, err := c.r.UpstreamIndexFile(t.Context(), asker, cratesIO, "serde", held)
		if want == "" {
			var hidden *Hidden
			if !errors.Is(err, ErrNotFound) || errors.As(err, &hidden) {
				t.Errorf("%v", err)
			}
			return
		}
		if err != nil || string(file.Plain.Bytes) != want {
			t.Errorf("%v: %+v, want\n%s", err, file, want)
		}
	}
	for range 2 {
		see(reader, "")
	}
	here[storage.CIDOf([]byte("two"))] = true
	see(reader, two)
	see(bound, thereLine("serde", "2.0.0", "two", yankedThere))
	here[storage.CIDOf([]byte("one"))] = true
	for range 2 {
		see(reader, one+two)
	}
	delete(here, storage.CIDOf([]byte("two")))
	see(reader, one)
	see(bound, one)
	if c.there(reader, "serde") != one+two {
		t.Error("what is not held is missing where upstream is asked")
	}
	failing := errors.New("no database")
	if _, err := c.r.UpstreamIndexFile(t.Context(), reader, cratesIO, "serde", func(context.Context, []storage.CID) (map[storage.CID]bool, error) { return nil, failing }); !errors.Is(err, failing) {
		t.Error(err)
	}
}

// Who is bound by a grant learns from records no more than from the index.
func TestImportRecordsTellWhoMayKnowAllOfThem(t *testing.T) {
	c := newCourt(t)
	whole := c.imported("serde", thereLine("serde", "1.0.0", "one", notYankedThere))
	part := c.imported("rand", thereLine("rand", "1.0.0", "one", notYankedThere)+thereLine("rand", "2.0.0", "two", notYankedThere))
	host := c.member(particle.TierGuest)
	c.grant(c.admin, host, func(g *particle.EnvGrant) {
		g.OffshoreFlag, g.AllowedCrates = true, []string{storage.CIDOf([]byte("one")).Hex()}
	})
	far, audit := c.asker(host, "read", ""), c.asker(c.admin, "audit", "")
	for _, test := range []struct {
		name  string
		asker policy.Asker
		id    record.ID
		want  error
	}{
		{"all of it known", far, whole.Record, nil}, {"a part", far, part.Record, ErrNotFound}, {"an auditor", audit, part.Record, nil}, {"nobody", policy.Asker{}, whole.Record, ErrUnauthenticated},
	} {
		if _, err := c.r.Record(t.Context(), test.asker, test.id); !errors.Is(err, test.want) || test.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
	if heads, err := c.r.HeadsFor(t.Context(), far, "upstream/crates-io/rand"); err != nil || heads.Prev != "" {
		t.Errorf("%+v, %v", heads, err)
	}
	if heads, err := c.r.HeadsFor(t.Context(), far, "upstream/crates-io/serde"); err != nil || heads.Prev != whole.Record {
		t.Errorf("%+v, %v", heads, err)
	}
	v, err := c.thereVersion(reader, "serde", "1.0.0", "one")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.r.Bundle(t.Context(), v); !errors.Is(err, ErrNotFound) {
		t.Errorf("a proof that it was published here: %v", err)
	}
}

// A lock is judged by what was seen of upstream, not by what it says.
func TestLocksAreJudgedByWhatIsKnownOfUpstream(t *testing.T) {
	c := newCourt(t)
	settings := c.r.Settings().Registry
	settings.MinAgeDays = 7
	c.admin.enter(c.registrySubject(), &settings)
	old := `,"yanked":false,"pubtime":"2020-01-01T00:00:00Z"`
	c.imported("serde", thereLine("serde", "1.0.0", "one", old)+thereLine("serde", "2.0.0", "two", notYankedThere))
	asker := c.asker(c.admin, "read", "")
	ask := func(who policy.Asker, name, version, of string) Judgement {
		t.Helper()
		a := Asked{Name: name, Version: version, Source: cratesIO}
		if of != "" {
			a.SHA256 = storage.CIDOf([]byte(of)).Digest()
		}
		told, err := c.r.Decisions(t.Context(), who, "", []Asked{a})
		if err != nil {
			t.Fatal(err)
		}
		return told[0]
	}
	for _, test := range []struct {
		name, version, of string
		allow             bool
		rule              policy.Rule
	}{
		{"serde", "1.0.0", "one", true, policy.RuleTier},
		{"Serde", "1.0.0", "", true, policy.RuleTier},
		{"serde", "2.0.0", "two", false, policy.RuleCooldown},
		{"serde", "1.0.0", "two", false, policy.RuleUnknown},
		{"serde", "3.0.0", "three", false, policy.RuleCooldown}, // nothing is known of its age
		{"rand", "1.0.0", "rand", false, policy.RuleCooldown},
	} {
		if j := ask(asker, test.name, test.version, test.of); j.Allow != test.allow || j.Rule != test.rule {
			t.Errorf("%s@%s (%s): %+v", test.name, test.version, test.of, j)
		}
	}
	why := func(who policy.Asker, version string) (says []string) {
		t.Helper()
		told, err := c.r.WhyUpstream(t.Context(), who, cratesIO, "serde", version, "")
		if err != nil && !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		for _, j := range told {
			says = append(says, fmt.Sprint(j.Version, " ", j.Allow, " ", len(j.Steps) > 0))
		}
		return says
	}
	if got := why(asker, ""); !slices.Equal(got, []string{"2.0.0 false true", "1.0.0 true true"}) {
		t.Errorf("%q", got)
	}
	if got := why(asker, "1.0.0"); !slices.Equal(got, []string{"1.0.0 true true"}) {
		t.Errorf("%q", got)
	}
	host := c.member(particle.TierGuest)
	c.grant(c.admin, host, func(g *particle.EnvGrant) {
		g.OffshoreFlag, g.AllowedCrates = true, []string{storage.CIDOf([]byte("two")).Hex()}
	})
	far := c.asker(host, "read", "")
	if got := why(far, "1.0.0"); got != nil {
		t.Errorf("%q", got)
	}
	known, none := ask(far, "serde", "1.0.0", "one"), ask(far, "nothing", "1.0.0", "one")
	known.Name, known.Reason = none.Name, strings.ReplaceAll(known.Reason, "serde", "nothing")
	if fmt.Sprint(known) != fmt.Sprint(none) {
		t.Errorf("what is there and what is not: %+v, %+v", known, none)
	}
}

// A rule that is tried hits what is known of other registries too.
func TestARuleIsTriedOnUpstreamsCrates(t *testing.T) {
	c := newCourt(t)
	c.publish("demo")
	c.imported("demo", thereLine("demo", "1.0.0", "one", notYankedThere)+thereLine("demo", "2.0.0", "two", notYankedThere))
	for i := range 2*upstreamsAtOnce + 1 {
		c.imported(fmt.Sprintf("other%d", i), thereLine(fmt.Sprintf("other%d", i), "1.0.0", "other", notYankedThere))
	}
	if err := c.r.Catalog.PutScan(t.Context(), catalog.Scan{CID: storage.CIDOf([]byte("two")), Recognisers: content.Version, Findings: []string{content.BLAKE3}, Time: c.now()}); err != nil {
		t.Fatal(err)
	}
	host := c.member(particle.TierGuest)
	c.grant(c.admin, host, func(g *particle.EnvGrant) {
		g.OffshoreFlag, g.AllowedCrates = true, []string{storage.CIDOf([]byte("two")).Hex()}
	})
	for name, test := range map[string]struct {
		asker policy.Asker
		match particle.RuleMatch
		want  []string
	}{
		"by name":         {reader, particle.RuleMatch{Names: []string{"demo"}}, []string{"hosted 1.0.0", "crates-io 1.0.0", "crates-io 2.0.0"}},
		"by source":       {reader, particle.RuleMatch{Names: []string{"demo"}, Sources: []string{cratesIO}}, []string{"crates-io 1.0.0", "crates-io 2.0.0"}},
		"of another":      {reader, particle.RuleMatch{Names: []string{"demo"}, Sources: []string{"upstream/lab"}}, nil},
		"by content":      {reader, particle.RuleMatch{Content: []string{particle.ContentBLAKE3}}, []string{"crates-io 2.0.0"}},
		"as far as known": {c.asker(host, "read", ""), particle.RuleMatch{Names: []string{"demo"}}, []string{"crates-io 2.0.0"}},
	} {
		m := test.match
		for _, list := range []*[]string{&m.Names, &m.Hashes, &m.Sources, &m.Content} {
			if *list == nil {
				*list = []string{}
			}
		}
		m.Publishers = []did.DID{}
		hits, total, err := c.r.TestRule(t.Context(), test.asker, particle.QuarantineRule{Effect: particle.EffectDeny, Mode: particle.ModeEnforce, Reason: "a test", Match: []particle.RuleMatch{m}})
		var got []string
		for _, h := range hits {
			got = append(got, h.Source+" "+h.Version)
		}
		if err != nil || total != len(test.want) || !slices.Equal(got, test.want) {
			t.Errorf("%s: %q (%d), %v", name, got, total, err)
		}
	}
	all := particle.QuarantineRule{Effect: particle.EffectDeny, Mode: particle.ModeEnforce, Reason: "a test", Match: []particle.RuleMatch{{
		Names: []string{"other*"}, Hashes: []string{}, Publishers: []did.DID{}, Sources: []string{}, Content: []string{},
	}}}
	if _, total, err := c.r.TestRule(t.Context(), reader, all); err != nil || total != 2*upstreamsAtOnce+1 {
		t.Errorf("%d, %v", total, err)
	}
}

// Who first publishes a name that another registry has is told so, and so are admins.
func TestAFirstPublishIsToldOfUpstreams(t *testing.T) {
	var asked []string
	c := newCourt(t, func(config *Config) {
		config.KnownUpstream = func(ctx context.Context, name string) []string {
			asked = append(asked, name)
			if _, bounded := ctx.Deadline(); !bounded {
				t.Error("it may take for ever")
			}
			if name == "serde" {
				return []string{cratesIO}
			}
			return nil
		}
	})
	settings := c.r.Settings().Registry
	settings.PrivateNames = []string{"lab-"}
	c.admin.enter(c.registrySubject(), &settings)
	for _, test := range []struct {
		name string
		want []string
	}{{"serde", []string{cratesIO}}, {"serde", nil}, {"ours", nil}, {"lab-serde", nil}} {
		p, err := c.w.publish(c.r, newUpload(test.name))
		if err != nil || !slices.Equal(p.Upstreams, test.want) {
			t.Errorf("%s: %q, %v", test.name, p.Upstreams, err)
		}
	}
	if !slices.Equal(asked, []string{"serde", "ours"}) {
		t.Errorf("asked for %q", asked)
	}
	entries, _, err := c.r.Audit(t.Context(), 0, 10)
	if err != nil || !slices.ContainsFunc(entries, func(e AuditEntry) bool {
		return e.What == "crate/serde@1.0.0" && e.Rule == RuleKnownUpstream && e.RuleID == cratesIO && e.Outcome == OutcomeAccepted
	}) {
		t.Errorf("%+v, %v", entries, err)
	}
}

// Who has a file imported reads it next: it is not fetched back for that, once.
func TestWhatWasJustImportedIsAtHand(t *testing.T) {
	c := newCourt(t)
	file := thereLine("serde", "1.0.0", "a", notYankedThere)
	c.imported("serde", file)
	id := storage.CIDOf([]byte(file))
	c.blobs.hidden.Store(&id)
	if got := c.there(reader, "serde"); got != file {
		t.Errorf("%s", got)
	}
	if _, ok := c.r.snapshots.take(id); ok {
		t.Error("it is kept for good")
	}
	large := thereLine("large", "1.0.0", "a", notYankedThere+`,"x":"`+strings.Repeat("x", freshBytes)+`"`)
	c.imported("large", large)
	if _, ok := c.r.snapshots.take(storage.CIDOf([]byte(large))); ok || c.there(reader, "large") != large {
		t.Error("what is too large is kept, or not served")
	}
}

// Whatever upstream shows one day after another, each version that was ever seen is there,
// in the order first seen, with the bytes first said, as it stood when it was last listed.
func TestAnIndexFileIsAFunctionOfAllThatWasSeen(t *testing.T) {
	c := newCourt(t)
	type known struct{ version, of, line string } // line as last listed, "" for none by now
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(6, seed))
	for crate := range 4 {
		name := fmt.Sprintf("crate%d", crate)
		var all []*known
		for range 12 {
			var file strings.Builder
			listed := map[string]bool{}
			for v := range 6 {
				if random.IntN(3) == 0 {
					continue
				}
				version, of := fmt.Sprintf("1.%d.0", v), fmt.Sprint(random.IntN(4)/3)
				line := thereLine(name, version, of, []string{notYankedThere, yankedThere, ""}[random.IntN(3)])
				file.WriteString(line)
				i := slices.IndexFunc(all, func(k *known) bool { return k.version == version })
				if i < 0 {
					i = len(all)
					all = append(all, &known{version: version, of: of})
				}
				if all[i].of == of {
					all[i].line, listed[version] = line, true
				}
			}
			if len(all) == 0 {
				continue
			}
			c.imported(name, file.String())
			var want strings.Builder
			for _, k := range all {
				line := k.line
				if !listed[k.version] {
					if line = strings.Replace(line, notYankedThere, yankedThere, 1); !strings.Contains(line, yankedThere) {
						line = strings.Replace(line, "}\n", yankedThere+"}\n", 1)
					}
				}
				want.WriteString(line)
			}
			if got := c.there(reader, name); got != want.String() {
				t.Fatalf("%s is\n%s\nwant\n%s", name, got, want.String())
			}
		}
	}
	c.w.rebuilds(c.r)
}
