package registry

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/content"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

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

// A version that was gone for a moment, or that is said to be published later than it was, is
// no younger: whoever has it in a lock would be held up for days.
func TestAnAgeOnceReachedIsKept(t *testing.T) {
	c := newCourt(t)
	settings := c.r.Settings().Registry
	settings.MinAgeDays = 7
	c.admin.enter(c.registrySubject(), &settings)
	line := func(days int) string {
		return thereLine("serde", "1.0.0", "bytes", fmt.Sprintf(`,"yanked":false,"pubtime":%q`, time.Now().UTC().AddDate(0, 0, -days).Format("2006-01-02T15:04:05Z")))
	}
	other := thereLine("serde", "0.9.0", "other", notYankedThere)
	c.imported("serde", line(8)+other)
	for what, file := range map[string]string{"said to be younger": line(1) + other, "without a pubtime": thereLine("serde", "1.0.0", "bytes", notYankedThere) + other} {
		for _, step := range []string{file, other, file, "", line(8) + other} {
			c.imported("serde", step)
			v, err := c.thereVersion(reader, "serde", "1.0.0", "bytes")
			if err != nil || v.Refusal() != nil {
				t.Errorf("%s: %+v, %v", what, v.Refusal(), err)
			}
			if here := strings.Contains(step, `"1.0.0"`); here && strings.Contains(strings.Split(c.there(reader, "serde"), "\n")[0], yankedThere) {
				t.Errorf("%s: it is yanked:\n%s", what, c.there(reader, "serde"))
			}
		}
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
		if _, err := c.r.OpenArtifact(t.Context(), v); err == nil {
			t.Errorf("%s is opened unseen", u.name)
		}
		if err := c.r.LookInto(t.Context(), v, nil); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("%s, not held: %v", u.name, err)
		}
		if err := c.r.Blobs.Put(t.Context(), v.CID, int64(len(u.crate)), strings.NewReader(string(u.crate))); err != nil {
			t.Fatal(err)
		}
	}
	look := func(u upload) Judged {
		t.Helper()
		if err := c.r.LookInto(t.Context(), get(u), nil); err != nil {
			t.Fatal(err)
		}
		return get(u)
	}
	v := look(plain)
	if v.Refusal() != nil || strings.Contains(c.there(reader, "plain"), yankedThere) {
		t.Errorf("plain: %+v", v)
	}
	blob, err := c.r.OpenArtifact(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	blob.Close()
	v = look(hidden)
	wantDenial(t, v.Refusal(), policy.RuleQuarantine)
	if !strings.Contains(c.there(reader, "hidden"), yankedThere) {
		t.Error("what was found is not known to the index")
	}
	told, err := c.r.WhyUpstream(t.Context(), reader, cratesIO, "hidden", "1.0.0", "")
	if err != nil || len(told) != 1 || told[0].Allow || told[0].Listed || told[0].Rule != policy.RuleQuarantine {
		t.Errorf("why: %+v, %v", told, err)
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
	for crate, want := range map[string]error{"serde": nil, "rand": ErrNotFound} { // though the version may be known
		if _, err := c.r.UpstreamBundle(t.Context(), far, cratesIO, crate, "1.0.0"); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("the bundle of %s: %v, want %v", crate, err, want)
		}
		if _, err := c.r.UpstreamBundle(t.Context(), audit, cratesIO, crate, "1.0.0"); err != nil {
			t.Errorf("the bundle of %s for an auditor: %v", crate, err)
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
		if j := ask(asker, test.name, test.version, test.of); j.Allow != test.allow || j.Rule != test.rule || j.Unseen != (test.version == "3.0.0" || test.name == "rand") {
			t.Errorf("%s@%s (%s): %+v", test.name, test.version, test.of, j)
		}
	}
	if j := ask(asker, "serde", "1.0.0", "two"); j.CID != storage.CIDOf([]byte("one")) || !j.Known {
		t.Errorf("of which bytes it has is told %+v", j)
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
