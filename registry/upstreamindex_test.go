package registry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/storage"
)

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
	for _, name := range []struct{ name, version, of string }{{"serd", "1.0.0", "one"}, {"serde", "1.0.0+b", "one"}, {"serde", "1.0.0", "two"}, {"serde", "3.0.0", "one"}, {"\x00", "1.0.0", "one"}} {
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

// The first digest seen of a version stands, and what upstream drops goes on as yanked.
func TestWhatUpstreamTakesBackIsNotBelieved(t *testing.T) {
	c := newCourt(t)
	line := func(version, of, more string) string { return thereLine("serde", version, of, more) }
	one, two, three := line("1.0.0", "one", notYankedThere), line("2.0.0", "two", notYankedThere), line("3.0.0", "three", notYankedThere)
	c.imported("serde", one+two+three)
	in := c.imported("serde", one+line("2.0.0", "other", notYankedThere))
	if !slices.Equal(versionsOf(in.Changed), []string{"2.0.0"}) || !slices.Equal(versionsOf(in.Dropped), []string{"3.0.0"}) {
		t.Errorf("%+v", in)
	}
	digest := func(of string) string { return storage.CIDOf([]byte(of)).Hex() }
	before, now := storage.CIDOf([]byte(one+two+three)), storage.CIDOf([]byte(one+line("2.0.0", "other", notYankedThere)))
	wantSaid(t, in.Changed, digest("two"), digest("other"), "last in index file "+before.String(), "now in index file "+now.String(), string(in.Record), fmt.Sprintf("entry %d,", in.Index))
	wantSaid(t, in.Dropped, digest("three"), "last in index file "+before.String(), string(in.Record))
	want := one + line("2.0.0", "two", yankedThere) + line("3.0.0", "three", yankedThere)
	if got := c.there(reader, "serde"); got != want {
		t.Errorf("\n%s", got)
	}
	if v, err := c.thereVersion(reader, "serde", "2.0.0", "other"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the later digest: %+v, %v", v, err)
	}
	if known, _, err := c.r.UpstreamCrate(t.Context(), cratesIO, "serde"); err != nil || known.Versions != 3 || known.Claims != 1 {
		t.Errorf("known are %d versions and %d other digests, %v", known.Versions, known.Claims, err)
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
	if !slices.Equal(versionsOf(in.Dropped), []string{"1.0.0"}) || len(in.Changed) > 0 {
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

// What a known version resolves to stands as its bytes do: a line that brings along another
// crate is not served, and the version goes on as yanked with its first line.
func TestALineThatResolvesToSomethingElseIsNotServed(t *testing.T) {
	c := newCourt(t)
	line := func(version, deps, more string) string {
		return strings.Replace(thereLine("serde", version, version, more), `"deps":[]`, `"deps":[`+deps+`]`, 1)
	}
	const good, same, evil = `{"name":"a","req":"^1","kind":"normal"}`, `{"req":"^1", "name":"a"}`, `{"name":"a","req":"^1"},{"name":"evil","req":"*"}`
	one, two := line("1.0.0", good, notYankedThere), line("2.0.0", good, notYankedThere)
	c.imported("serde", one+two)
	altered := line("1.0.0", evil, notYankedThere) + two
	in := c.imported("serde", altered)
	if !slices.Equal(versionsOf(in.Altered), []string{"1.0.0"}) || len(in.Changed)+len(in.Dropped) > 0 {
		t.Errorf("%+v", in)
	}
	wantSaid(t, in.Altered, `dependencies added: "evil *".`, storage.CIDOf([]byte("1.0.0")).Hex(), "first as in index file "+storage.CIDOf([]byte(one+two)).String(), "now in index file "+storage.CIDOf([]byte(altered)).String(), string(in.Record))
	if got := c.there(reader, "serde"); got != line("1.0.0", good, yankedThere)+two {
		t.Errorf("\n%s", got)
	}
	if v, err := c.thereVersion(reader, "serde", "1.0.0", "1.0.0"); err != nil || v.Refusal() != nil || !v.Yanked {
		t.Errorf("its bytes: %+v, %v", v, err)
	}
	if told, err := c.r.WhyUpstream(t.Context(), reader, cratesIO, "serde", "1.0.0", ""); err != nil || len(told) != 1 || len(told[0].SaidLater) != 1 || !told[0].SaidLater[0].SameBytes() {
		t.Errorf("why: %+v, %v", told, err)
	}
	if in = c.imported("serde", altered+line("1.0.0", good, yankedThere)); len(in.Altered)+len(in.Changed)+len(in.Dropped) > 0 {
		t.Errorf("told twice: %+v", in)
	}
	if got := c.there(reader, "serde"); got != line("1.0.0", good, yankedThere)+two {
		t.Errorf("where its first line is listed beside another:\n%s", got)
	}
	written := line("1.0.0", same, `,"rust_version":"1.70"`+notYankedThere)
	if in = c.imported("serde", written+two); len(in.Altered)+len(in.Changed)+len(in.Dropped) > 0 || c.there(reader, "serde") != written+two {
		t.Errorf("written in another way: %+v\n%s", in, c.there(reader, "serde"))
	}
	c.w.rebuilds(c.r)
}

// What upstream spells otherwise than before is had under any spelling, and is fetched under
// that of its own line.
func TestUpstreamMayRespellACrate(t *testing.T) {
	c := newCourt(t)
	for name, spelled := range map[string][2]string{"by case": {"Odd-One", "odd-one"}, "by sign": {"even-one", "even_one"}} {
		old, new := spelled[0], spelled[1]
		file := thereLine(old, "1.0.0", name+"1", notYankedThere) + thereLine(new, "2.0.0", name+"2", notYankedThere)
		c.imported(old, thereLine(old, "1.0.0", name+"1", notYankedThere))
		c.imported(new, file)
		if got := c.there(reader, new); got != file {
			t.Errorf("%s:\n%s", name, got)
		}
		for _, asked := range []string{old, new} {
			one, err := c.thereVersion(reader, asked, "1.0.0", name+"1")
			if err != nil || one.Refusal() != nil || one.Name != old {
				t.Errorf("%s: %s 1.0.0: %+v, %v", name, asked, one, err)
			}
			two, err := c.thereVersion(reader, asked, "2.0.0", name+"2")
			if err != nil || two.Refusal() != nil || two.Name != new {
				t.Errorf("%s: %s 2.0.0: %+v, %v", name, asked, two, err)
			}
		}
		if v, err := c.thereVersion(reader, old+"s", "1.0.0", name+"1"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: another crate: %+v, %v", name, v, err)
		}
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

// Upstream cannot take a version from who has it in a lock by a line that cargo does not read.
func TestALineThatCargoDoesNotReadIsNotServed(t *testing.T) {
	c := newCourt(t)
	fine := thereLine("serde", "1.0.0", "bytes", notYankedThere)
	c.imported("serde", fine)
	for _, bad := range [][2]string{{`"deps":[]`, `"deps":null`}, {`"deps":[],`, ``}, {`"name"`, `"pubtime":"x","name"`}, {`"name"`, `"rust_version":"x","name"`}, {`"yanked":[]`, `"yanked":null`}} {
		in := c.imported("serde", strings.Replace(fine, bad[0], bad[1], 1))
		if !slices.Equal(versionsOf(in.Dropped), []string{"1.0.0"}) || len(in.Altered)+len(in.Changed) > 0 {
			t.Errorf("%s: %+v", bad[1], in)
		}
		if got, want := c.there(reader, "serde"), strings.Replace(fine, `"yanked":false`, `"yanked":true`, 1); got != want {
			t.Errorf("%s: served is\n%s, not\n%s", bad[1], got, want)
		}
		c.imported("serde", fine)
		if got := c.there(reader, "serde"); got != fine {
			t.Errorf("%s: then served is\n%s", bad[1], got)
		}
	}
	crash := strings.Replace(thereLine("serde", "2.0.0", "more", notYankedThere), `"deps":[]`, `"deps":[{"name":"","req":"*"}]`, 1)
	c.imported("serde", fine+crash)
	if got := c.there(reader, "serde"); got != fine {
		t.Errorf("served is\n%s", got)
	}
}
