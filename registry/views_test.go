package registry

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/storage"
)

// drawnFile is an index file of some versions, as readIndexFile lays it out; texts
// in it look like what a view changes.
func drawnFile(t *rapid.T) *IndexFile {
	f := &IndexFile{name: "demo", of: &lineage{}}
	text := rapid.SampledFrom([]string{"", `"yanked":false`, `yanked\":false`, `{"yanked":false}`, "plain"})
	var plain []byte
	for i := range rapid.IntRange(1, 12).Draw(t, "versions") {
		target := text.Draw(t, "target")
		line := cargo.Line{
			Name: "demo", Vers: fmt.Sprintf("1.%d.0", i), Cksum: strings.Repeat("a", 64), V: 1, Features: map[string][]string{"yanked": {}},
			Yanked: rapid.Bool().Draw(t, "yanked"),
			Deps:   []cargo.Dep{{Name: "yanked", Req: "^1", Features: []string{}, Kind: "normal", Target: &target}},
		}
		raw := line.Marshal()
		place := indexLine{version: i}
		if !line.Yanked {
			place.rest = len(plain) + bytes.Index(raw, notYanked) + len(notYanked)
			place.yanked = place.rest - len("false")
		}
		plain = append(plain, raw...)
		place.end = len(plain)
		f.lines = append(f.lines, place)
	}
	f.Plain, f.Packed = Represent(plain, nil)
	return f
}

// Whatever is decided, a view differs from the file in absent lines and in
// `yanked` alone, and its order is the file's.
func TestAViewDiffersOnlyInAbsentLinesAndYanked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawnFile(t)
		var want [][]byte
		decisions := make([]policy.Decision, len(f.lines))
		for i, raw := range bytes.SplitAfter(f.Plain.Bytes, []byte("\n"))[:len(f.lines)] {
			decisions[i].Known = rapid.Bool().Draw(t, "known")
			decisions[i].Listed = decisions[i].Known && rapid.Bool().Draw(t, "listed")
			if !decisions[i].Known {
				continue
			}
			line, err := cargo.ParseLine(raw)
			if err != nil {
				t.Fatal(err)
			}
			line.Yanked = line.Yanked || !decisions[i].Listed
			want = append(want, line.Marshal())
		}
		got := f.seenBy(decisions, "")
		if got == nil {
			got = f.Plain.Bytes
		}
		if !bytes.Equal(got, bytes.Join(want, nil)) {
			t.Fatalf("%s\nis seen as\n%s\nnot as\n%s", f.Plain.Bytes, got, bytes.Join(want, nil))
		}
	})
}

// Who nothing is kept from gets the very file, however they read.
func TestWhereAViewChangesNothingItIsTheFileItself(t *testing.T) {
	c := newCourt(t)
	c.publish("demo")
	host := c.member(particle.TierGuest)
	c.grant(c.admin, host, func(g *particle.EnvGrant) { g.AllowedCrates = []string{particle.AllCrates} })
	file, err := c.r.indexFile(t.Context(), "demo")
	if err != nil {
		t.Fatal(err)
	}
	for name, asker := range map[string]policy.Asker{"a core stakeholder": reader, "an auditor": c.asker(c.admin, "audit", ""), "under a grant": c.asker(host, "read", "")} {
		for range 2 {
			if seen, err := c.r.IndexFile(t.Context(), asker, "demo"); err != nil || seen != file {
				t.Errorf("%s gets %p, not %p: %v", name, seen, file, err)
			}
		}
	}
	if allocs := testing.AllocsPerRun(100, func() { c.r.IndexFile(t.Context(), reader, "demo") }); allocs > 1 {
		t.Errorf("reading under no grant makes %v allocations", allocs)
	}
}

// A view lasts as long as what it was decided by: the seconds are the policy's.
func TestAViewIsShedWhenADecisionEnds(t *testing.T) {
	c := newCourt(t)
	c.publish("demo")
	settings := c.r.Settings().Registry
	settings.MinAgeDays = 2
	c.admin.enter(c.registrySubject(), &settings)
	host := c.member(particle.TierGuest)
	published := c.version("demo").Time
	c.grant(c.admin, host, func(g *particle.EnvGrant) {
		g.AllowedCrates = []string{particle.AllCrates}
		g.Expires = particle.At(published.Add(72 * time.Hour))
	})
	for _, step := range []struct {
		at     time.Duration
		yanked bool
		denied policy.Rule
	}{
		{0, true, ""}, {48*time.Hour - time.Second, true, ""}, {48 * time.Hour, false, ""},
		{72*time.Hour - time.Second, false, ""}, {72 * time.Hour, false, policy.RuleTier},
	} {
		c.clockAt(published.Add(step.at))
		asker := c.asker(host, "read", "")
		file, err := c.r.IndexFile(t.Context(), asker, "demo")
		if step.denied != "" {
			wantDenial(t, err, step.denied)
			continue
		}
		if err != nil || isYanked(file) != step.yanked {
			t.Errorf("%s after the publication: %v, yanked is not %v", step.at, err, step.yanked)
		}
		if open, err := c.r.IndexFile(t.Context(), reader, "demo"); err != nil || isYanked(open) != (step.at < 48*time.Hour) {
			t.Errorf("%s after the publication, under no grant: %v", step.at, err)
		}
		if audit, err := c.r.IndexFile(t.Context(), c.asker(c.admin, "audit", ""), "demo"); err != nil || isYanked(audit) {
			t.Errorf("%s: the cooldown binds an auditor: %v", step.at, err)
		}
	}
}

func isYanked(f *IndexFile) bool { return bytes.Contains(f.Plain.Bytes, []byte(`"yanked":true`)) }

// A thousand grants in turn stay within the caches' bounds, and each sees its own.
func TestViewsAreBounded(t *testing.T) {
	c := newCourt(t, func(config *Config) { config.CacheBytes = 256 << 10 })
	c.publish("demo")
	v := c.version("demo")
	for i := range 1000 {
		g := particle.EnvGrant{
			Registry: c.r.Origin(), Issuer: c.admin.id.DID, Subject: "did:web:host.example", NotBefore: particle.At(time.Now().Add(-time.Hour)), Expires: particle.At(time.Now().Add(time.Hour)),
			AllowedCrates: []string{}, AllowedProtocols: []string{}, AllowedEndpoints: []string{}, Tier: particle.TierGuest, MaxDiskMB: int64(i),
		}
		if i%2 == 0 {
			g.AllowedCrates = []string{v.CID.Hex()}
		}
		raw, err := g.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		asker := policy.Asker{DID: g.Subject, Tier: g.Tier, Scopes: []string{particle.ScopeRead}, Grant: policy.CompileGrant(storage.CIDOf(raw).String(), g, nil, true)}
		for range 2 {
			if file, err := c.r.IndexFile(t.Context(), asker, "demo"); err != nil || isYanked(file) != (i%2 == 1) {
				t.Fatalf("grant %d: %v", i, err)
			}
		}
	}
	s := c.r.Figures().State
	if s.CacheBytes > s.CacheLimit || s.CacheEvictions == 0 {
		t.Errorf("%+v", s)
	}
}

// Of two who ask while a rule is made, the one who asks after it sees it.
func TestAViewOfAnotherEpochIsNotTaken(t *testing.T) {
	c := newCourt(t)
	c.publish("demo")
	file, err := c.r.indexFile(t.Context(), "demo")
	if err != nil {
		t.Fatal(err)
	}
	old := c.r.published.Load().terms
	c.quarantine(c.admin, "no-demo", func(q *particle.QuarantineRule) { q.Match[0].Names = []string{"demo"} })
	of := thing{family: viewFamily, name: "demo"}
	if late, err := c.r.viewOf(t.Context(), reader, old, of, file, ""); err != nil || isYanked(late) {
		t.Fatalf("by the terms before: %v", err)
	}
	if now, err := c.r.IndexFile(t.Context(), reader, "demo"); err != nil || !isYanked(now) {
		t.Errorf("a view of before the rule is shown after it: %v", err)
	}
}

func TestAnOffshoreHostGetsNoFileOfWhatItIsNotToKnow(t *testing.T) {
	c := newCourt(t)
	c.publish("demo")
	c.publish("other")
	host := c.member(particle.TierGuest)
	c.grant(c.admin, host, func(g *particle.EnvGrant) {
		g.OffshoreFlag, g.AllowedCrates = true, []string{c.version("other").CID.Hex()}
	})
	asker := c.asker(host, "read", "")
	if _, err := c.r.IndexFile(t.Context(), asker, "demo"); !errors.Is(err, ErrNotFound) {
		t.Errorf("demo: %v", err)
	}
	if _, err := c.r.IndexFile(t.Context(), asker, "other"); err != nil {
		t.Errorf("other: %v", err)
	}
	if dids, err := c.r.Owners(t.Context(), asker, "demo"); !errors.Is(err, ErrNotFound) {
		t.Errorf("owners %v, %v", dids, err)
	}
	found, total, err := c.r.Search(t.Context(), asker, "", 10, 0)
	if err != nil || total != 1 || len(found) != 1 || found[0].Name != "other" {
		t.Errorf("finds %v of %d, %v", found, total, err)
	}
}
