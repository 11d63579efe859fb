package client

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
)

var preflightTime = time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)

// goodBuild is one with no finding, and its charter.
func goodBuild() (Charter, Build) {
	c := Charter{CID: cidOf("grant"), Listed: map[[32]byte]bool{cidOf("demo").Digest(): true, cidOf("serde").Digest(): true}, Env: particle.EnvGrant{
		NotBefore: particle.At(preflightTime.Add(-time.Hour)), Expires: particle.At(preflightTime.Add(time.Hour)),
		MaxMemMB: 500, MaxDiskMB: 1000, Tier: particle.TierCollaborator,
		AllowedProtocols: []string{"https", "sparse"}, AllowedEndpoints: []string{"registry.example", "cdn.example:8443"},
	}, Pool: &particle.MemoryPoolShard{PoolID: "p", MaxBytes: 300 << 20}}
	b := Build{MemMB: 300, DiskMB: 1000, Locked: []Locked{
		{Locked: cargo.Locked{Name: "app", Version: "0.1.0"}, Place: Place{Kind: PlaceProject}},
		{Locked: cargo.Locked{Name: "demo", Version: "1.0.0", Source: "sparse+https://registry.example/index/", Checksum: hexOf("demo")}, Place: Place{Kind: PlaceHosted},
			Cached: []Cached{{Path: "/c/demo-1.0.0.crate", Hash: cidOf("demo").Digest()}}},
		{Locked: cargo.Locked{Name: "serde", Version: "1.0.1", Source: cratesIO[0], Checksum: hexOf("serde")}, Place: Place{Kind: PlaceProxied}},
	}, Asked: []Endpoint{
		{Protocols: []string{"sparse", "https"}, Host: "registry.example"}, {Protocols: []string{"https"}, Host: "cdn.example:8443"},
	}}
	return c, b
}

// decisionsFor allow all that b needs decisions about.
func decisionsFor(b Build) []Decision {
	var all []Decision
	for _, j := range Judgeable(b.Locked) {
		all = append(all, Decision{Name: j.Name, Version: j.Version, Known: true, Listed: true, Allow: true})
	}
	return all
}

func TestPreflightFindings(t *testing.T) {
	for name, c := range map[string]struct {
		change func(c *Charter, b *Build)
		decide func(d []Decision) []Decision
		want   map[string]string // clause to what is said
	}{
		"nothing":          {nil, nil, nil},
		"expired":          {func(c *Charter, _ *Build) { c.Env.Expires = particle.At(preflightTime) }, nil, map[string]string{ClauseTime: "expired at 2027-01-02T03:04:05Z"}},
		"the last second":  {func(c *Charter, _ *Build) { c.Env.Expires = particle.At(preflightTime.Add(time.Second)) }, nil, nil},
		"the first second": {func(c *Charter, _ *Build) { c.Env.NotBefore = particle.At(preflightTime) }, nil, nil},
		"not yet":          {func(c *Charter, _ *Build) { c.Env.NotBefore = particle.At(preflightTime.Add(time.Second)) }, nil, map[string]string{ClauseTime: "not in force before"}},
		"a crate not listed, which the registry allows": {func(c *Charter, _ *Build) { delete(c.Listed, cidOf("serde").Digest()) }, nil, map[string]string{ClauseCrates: "serde 1.0.1 of crates-io may not be built with: the grant " + cidOf("grant").String() + " does not list"}},
		"all allowed": {func(c *Charter, _ *Build) { c.Listed, c.All = nil, true }, nil, nil},
		"a crate that the registry denies": {nil, func(d []Decision) []Decision {
			d[0] = Decision{Rule: "quarantine", RuleID: "bad", Reason: "it steals keys"}
			return d
		}, map[string]string{ClauseCrates: "demo 1.0.0 may not be built with: it is denied by rule quarantine bad: it steals keys"}},
		"no decision": {nil, func(d []Decision) []Decision { return d[:1] }, map[string]string{ClauseCrates: "serde 1.0.1 of crates-io may not be built with: the registry did not decide"}},
		"a crate that nobody had fetched yet": {nil, func(d []Decision) []Decision {
			d[1] = Decision{Unscanned: true, unlooked: true, Rule: "quarantine", RuleID: "blake3"}
			return d
		}, map[string]string{ClausePrefetch: "serde 1.0.1 is not looked into yet: nobody had it fetched, and rule quarantine blake3"}},
		"a crate of which nothing was seen yet": {nil, func(d []Decision) []Decision {
			d[1] = Decision{Unseen: true, Rule: "cooldown"}
			return d
		}, map[string]string{ClausePrefetch: "rule cooldown"}},
		"a crate of which nothing was seen yet, quarantined by name": {nil, func(d []Decision) []Decision {
			d[1] = Decision{Unseen: true, Rule: "quarantine", RuleID: "bad"}
			return d
		}, map[string]string{ClauseCrates: "denied by rule quarantine bad"}},
		"a crate in which something was found": {nil, func(d []Decision) []Decision {
			d[1] = Decision{Unscanned: true, Rule: "quarantine", RuleID: "blake3"}
			return d
		}, map[string]string{ClauseCrates: "denied by rule quarantine blake3"}},
		"a crate of crates.io itself that is not there": {func(_ *Charter, b *Build) { b.Locked[2].Place = Place{Kind: PlaceCratesIO} }, func(d []Decision) []Decision {
			d[1] = Decision{Unscanned: true, unlooked: true, Rule: "quarantine", RuleID: "blake3"}
			return d
		}, map[string]string{ClauseCrates: "denied by rule quarantine blake3"}},
		"a lock that has other bytes than the index": {func(_ *Charter, b *Build) {
			b.Locked[1].Checksum = hexOf("forged")
		}, func(d []Decision) []Decision {
			d[0] = Decision{Known: true, Rule: "unknown", CID: cidOf("demo").String(), Reason: "other bytes"}
			return d
		}, map[string]string{ClauseCrates: "demo 1.0.0 has the checksum " + hexOf("forged") + " in the lock, and " + hexOf("demo") + " in the index of this registry: the lock is what is wrong"}},
		"a lock that has other bytes than the index, and a cache that has others yet": {func(_ *Charter, b *Build) {
			b.Locked[1].Checksum, b.Locked[1].Cached[0].Hash = hexOf("forged"), cidOf("evil").Digest()
		}, func(d []Decision) []Decision {
			d[0] = Decision{Known: true, Rule: "unknown", CID: cidOf("demo").String(), Reason: "other bytes"}
			return d
		}, map[string]string{ClauseCrates: "the lock is what is wrong", ClauseCache: "has other bytes than the lock pins"}},
		"an index that has other bytes than the grant": {nil, func(d []Decision) []Decision {
			d[1] = Decision{Known: true, Rule: "unknown", CID: cidOf("evil").String(), Reason: "other bytes"}
			return d
		}, map[string]string{ClauseCrates: "denied by rule unknown: other bytes"}},
		"a lock of a name that is kept private": {nil, func(d []Decision) []Decision {
			d[1] = Decision{Known: true, Rule: "unknown", Reason: "kept private"}
			return d
		}, map[string]string{ClauseCrates: "denied by rule unknown: kept private"}},
		"a git source": {func(_ *Charter, b *Build) {
			b.Locked[2] = Locked{Locked: cargo.Locked{Name: "g", Version: "1.0.0", Source: "git+https://git.example/g#1"}, Place: Place{Kind: PlaceGit}}
		}, nil, map[string]string{ClauseSources: "g 1.0.0 comes from a git repository"}},
		"a foreign registry":      {func(_ *Charter, b *Build) { b.Locked[2].Place = Place{Kind: PlaceForeign} }, nil, map[string]string{ClauseSources: "neither this registry nor crates.io"}},
		"no checksum":             {func(_ *Charter, b *Build) { b.Locked[2].Checksum = "" }, nil, map[string]string{ClauseSources: "has no checksum"}},
		"a checksum that is none": {func(_ *Charter, b *Build) { b.Locked[2].Checksum = "none" }, nil, map[string]string{ClauseSources: "for a checksum in the lock"}},
		"a checksum of zeros":     {func(_ *Charter, b *Build) { b.Locked[2].Checksum = strings.Repeat("0", 64) }, nil, map[string]string{ClauseSources: "for a checksum in the lock", ClauseCrates: "does not list its hash"}},
		"a checksum in capitals":  {func(_ *Charter, b *Build) { b.Locked[2].Checksum = strings.ToUpper(hexOf("serde")) }, nil, map[string]string{ClauseSources: "for a checksum in the lock"}},
		"a patch": {func(_ *Charter, b *Build) {
			b.Overrides = []Override{{OverridePatch, "/p/Cargo.toml", "serde", "path vendor/serde"}}
		}, nil, map[string]string{ClauseOverrides: "puts path vendor/serde in the place of serde"}},
		"a path without": {func(_ *Charter, b *Build) { b.Overrides = []Override{{OverridePath, "/p/Cargo.toml", "x", "../x"}} }, nil, map[string]string{ClauseOverrides: "outside of this project"}},
		"paths": {func(_ *Charter, b *Build) {
			b.Overrides = []Override{{OverridePaths, "/p/.cargo/config.toml", "", "/x"}}
		}, nil, map[string]string{ClauseOverrides: "paths in /p/.cargo/config.toml"}},
		"a source replaced": {func(_ *Charter, b *Build) {
			b.Overrides = []Override{{OverrideSource, "/p/.cargo/config.toml", "crates-io", "directory vendor"}}
		}, nil, map[string]string{ClauseOverrides: "takes what belongs to crates-io from directory vendor"}},
		"a package of no manifest": {func(_ *Charter, b *Build) {
			b.Overrides = []Override{{OverrideStray, "/p/Cargo.toml", "x", ""}}
		}, nil, map[string]string{ClauseOverrides: "the lock has x without a source"}},
		"include": {func(_ *Charter, b *Build) {
			b.Overrides = []Override{{OverrideInclude, "/p/.cargo/config.toml", "", "x.toml"}}
		}, nil, map[string]string{ClauseOverrides: "not looked at"}},
		"memory of the pool":  {func(_ *Charter, b *Build) { b.MemMB = 301 }, nil, map[string]string{ClauseMemory: "the memory pool p allows 300"}},
		"memory of the grant": {func(c *Charter, b *Build) { b.MemMB, c.Pool = 501, nil }, nil, map[string]string{ClauseMemory: "the grant allows 500"}},
		"memory of the tier":  {func(c *Charter, b *Build) { b.MemMB, c.Pool, c.Env.MaxMemMB = 1001, nil, 2000 }, nil, map[string]string{ClauseMemory: "the tier collaborator allows 1000"}},
		"disk":                {func(_ *Charter, b *Build) { b.DiskMB = 1001 }, nil, map[string]string{ClauseDisk: "takes 1001 MiB of disk, the grant allows 1000"}},
		"an endpoint": {func(_ *Charter, b *Build) {
			b.Asked = append(b.Asked, Endpoint{[]string{"https"}, "static.crates.io", "downloads"})
		}, nil, map[string]string{ClauseEndpoints: "asks static.crates.io (downloads)"}},
		"another port":                            {func(_ *Charter, b *Build) { b.Asked[0].Host = "registry.example:8443" }, nil, map[string]string{ClauseEndpoints: "registry.example:8443"}},
		"a protocol":                              {func(_ *Charter, b *Build) { b.Asked[0].Protocols = []string{"sparse", "http"} }, nil, map[string]string{ClauseProtocols: "speaks http"}},
		"other bytes in the cache":                {func(_ *Charter, b *Build) { b.Locked[1].Cached[0].Hash = cidOf("serde").Digest() }, nil, map[string]string{ClauseCache: "has other bytes than the lock pins"}},
		"other bytes in the cache, not listed":    {func(_ *Charter, b *Build) { b.Locked[1].Cached[0].Hash = cidOf("evil").Digest() }, nil, map[string]string{ClauseCache: "has other bytes than the lock pins"}},
		"a file in the cache that cannot be read": {func(_ *Charter, b *Build) { b.Locked[1].Cached[0].Problem = "permission denied" }, nil, map[string]string{ClauseCache: "permission denied"}},
		"a file of a registry beside it, allowed": {func(_ *Charter, b *Build) {
			b.Locked[1].Cached = append(b.Locked[1].Cached, Cached{Path: "/d/demo-1.0.0.crate", Hash: cidOf("serde").Digest()})
		}, nil, nil},
		"a file of a registry beside it, not listed": {func(_ *Charter, b *Build) {
			b.Locked[1].Cached = append(b.Locked[1].Cached, Cached{Path: "/d/demo-1.0.0.crate", Hash: cidOf("evil").Digest()})
		}, nil, map[string]string{ClauseCache: "/d/demo-1.0.0.crate, which cargo would take for demo 1.0.0, may not be built with"}},
	} {
		t.Run(name, func(t *testing.T) {
			charter, b := goodBuild()
			if c.change != nil {
				c.change(&charter, &b)
			}
			decided := decisionsFor(b)
			if c.decide != nil {
				decided = c.decide(decided)
			}
			found := charter.Check(b, decided, preflightTime)
			if len(found) != len(c.want) {
				t.Fatalf("%+v", found)
			}
			for _, f := range found {
				if says, ok := c.want[f.Clause]; !ok || !strings.Contains(f.Detail, says) || f.Mend == "" {
					t.Errorf("%+v, want %v", f, c.want)
				}
			}
		})
	}
}

// A finding says how to ask why: of another registry's crate, with its source.
func TestPreflightSaysWhereToAskWhy(t *testing.T) {
	charter, b := goodBuild()
	decided := decisionsFor(b)
	for i := range decided {
		decided[i] = Decision{Rule: "quarantine", RuleID: "bad", Reason: "it steals keys"}
	}
	mends := map[string]bool{}
	for _, f := range charter.Check(b, decided, preflightTime) {
		mend, _, _ := strings.Cut(f.Mend, " says more")
		mends[mend] = true
	}
	if !mends["aln-registry why demo@1.0.0"] || !mends["aln-registry why serde@1.0.1 --source crates-io"] {
		t.Errorf("%v", mends)
	}
}

// Whatever a registry decides, a crate that the grant does not list is named; and
// whatever the grant lists, one that the registry denies.
func TestPreflightNeedsBothGrantAndRegistry(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		charter, b := goodBuild()
		b.Locked = nil
		charter.Listed = map[[32]byte]bool{}
		var wanted []string
		var decided []Decision
		for i := range rapid.IntRange(0, 20).Draw(t, "crates") {
			name := "c" + string(rune('a'+i))
			id := cidOf(name)
			p := Locked{Locked: cargo.Locked{Name: name, Version: "1.0.0", Source: "s", Checksum: id.Hex()}, Place: Place{Kind: PlaceHosted}}
			listed, allowed := rapid.Bool().Draw(t, "listed"), rapid.Bool().Draw(t, "allowed")
			charter.Listed[id.Digest()] = listed
			other := cidOf(name + " other")
			otherListed, otherAllowed := true, true
			cached := rapid.Bool().Draw(t, "cached")
			if cached {
				p.Cached = []Cached{{Path: name, Hash: id.Digest()}, {Path: name + "'", Hash: other.Digest()}}
				otherListed, otherAllowed = rapid.Bool().Draw(t, "other listed"), rapid.Bool().Draw(t, "other allowed")
				charter.Listed[other.Digest()] = otherListed
			}
			b.Locked = append(b.Locked, p)
			decided = append(decided, Decision{Allow: allowed})
			if !listed || !allowed {
				wanted = append(wanted, name+" 1.0.0 ")
			}
			if cached {
				decided = append(decided, Decision{Allow: otherAllowed})
				if !otherListed || !otherAllowed {
					wanted = append(wanted, name+"', which")
				}
			}
		}
		found := charter.Check(b, decided, preflightTime)
		if len(found) != len(wanted) {
			t.Fatalf("%d findings, want %d: %+v", len(found), len(wanted), found)
		}
		for i, f := range found {
			if !strings.HasPrefix(f.Detail, wanted[i]) {
				t.Fatalf("%+v, want %q", f, wanted[i])
			}
		}
	})
}

// A copy of what is quarantined is found by its name, whatever its spelling.
func TestVendoredCopiesAreHeldAgainstTheRules(t *testing.T) {
	shipped := particle.ShippedRules()[0]
	rules := []RuleInfo{{ID: shipped.ID, State: RuleInForce, Rule: shipped.QuarantineRule}}
	_, b := goodBuild()
	b.Locked = append(b.Locked, Locked{Locked: cargo.Locked{Name: "Blake_2", Version: "1.0.0"}, Place: Place{Kind: PlaceProject}},
		Locked{Locked: cargo.Locked{Name: "BLAKE3", Version: "1.5.0-rc.1"}, Place: Place{Kind: PlaceProject}})
	found, err := b.CheckLocal(rules, preflightTime)
	if err != nil || len(found) != 1 || !strings.Contains(found[0].Detail, "BLAKE3 1.5.0-rc.1") || !strings.Contains(found[0].Detail, "quarantine blake3") {
		t.Errorf("%+v, %v", found, err)
	}
	rules[0].State = RuleEnded
	if found, err := b.CheckLocal(rules, preflightTime); err != nil || len(found) != 0 {
		t.Errorf("an ended rule: %+v, %v", found, err)
	}
	rules[0].State, rules[0].Rule.Match = RuleInForce, []particle.RuleMatch{{Versions: "not a requirement"}}
	if _, err := b.CheckLocal(rules, preflightTime); err == nil {
		t.Error("a rule that cannot be read is passed over")
	}
}

func TestPlaceOf(t *testing.T) {
	bases := []string{"https://registry.example", "https://old.example/lab"}
	for source, want := range map[string]Place{
		"":                                       {Kind: PlaceProject},
		"sparse+https://registry.example/index/": {Kind: PlaceHosted, Base: "https://registry.example/index"},
		"sparse+https://REGISTRY.example:443/index/":                {Kind: PlaceHosted, Base: "https://registry.example/index"},
		"sparse+https://old.example/lab/index/":                     {Kind: PlaceHosted, Base: "https://old.example/lab/index"},
		"sparse+https://registry.example/public/index/":             {Kind: PlaceHosted, Base: "https://registry.example/public/index"},
		"sparse+https://registry.example/crates-io/index/":          {Kind: PlaceProxied, Base: "https://registry.example/crates-io/index"},
		"sparse+https://registry.example/mirror/bonn/index/":        {Kind: PlaceMirror, Mirror: "bonn", Base: "https://registry.example/mirror/bonn/index"},
		"sparse+https://registry.example/mirror/a/b/index/":         {Kind: PlaceForeign},
		"sparse+https://old.example/lab/upstream/bonn/index/":       {Kind: PlaceUpstream, Upstream: "bonn", Base: "https://old.example/lab/upstream/bonn/index"},
		"sparse+https://registry.example/upstream/a/b/index/":       {Kind: PlaceForeign},
		"sparse+https://registry.example/upstream//index/":          {Kind: PlaceForeign},
		"sparse+https://registry.example/mirror//index/":            {Kind: PlaceForeign},
		"sparse+https://registry.example.evil.example/index/":       {Kind: PlaceForeign},
		"sparse+https://registry.example:8443/index/":               {Kind: PlaceForeign},
		"sparse+http://registry.example/index/":                     {Kind: PlaceForeign},
		"sparse+https://registry.example@evil.example/index/":       {Kind: PlaceForeign},
		"registry+https://registry.example/index/":                  {Kind: PlaceForeign},
		"registry+https://github.com/rust-lang/crates.io-index":     {Kind: PlaceCratesIO},
		"sparse+https://index.crates.io/":                           {Kind: PlaceCratesIO},
		"registry+https://github.com/rust-lang/crates.io-index.git": {Kind: PlaceForeign},
		"git+https://registry.example/index/":                       {Kind: PlaceGit},
		"path+file:///x":                                            {Kind: PlaceForeign},
	} {
		if got := PlaceOf(source, bases); got != want {
			t.Errorf("%s: %+v, want %+v", source, got, want)
		}
	}
}

func TestEndpointOf(t *testing.T) {
	for text, want := range map[string]string{
		"https://a.example/x": "https a.example", "sparse+https://A.example:443/index/": "sparse,https a.example", "http://127.0.0.1:8585": "http 127.0.0.1:8585",
		"https://cdn.example/{crate}/{version}?x": "https cdn.example", "git+ssh://git@g.example/x": "git,ssh g.example", "registry+https://g.example/i": "git,https g.example",
		"https://[::1]:8443/": "https [::1]:8443", "": "", "{crate}": "", "nonsense": "",
	} {
		e, ok := EndpointOf(text, "")
		if got := strings.Join(e.Protocols, ",") + " " + e.Host; ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %v", text, got, ok)
		}
	}
	allowed := []string{"a.example", "B.example:8443", "c.example:443", "d.example:80"}
	for e, want := range map[string]bool{
		"https://a.example": true, "https://a.example:8443": false, "https://b.example:8443": true, "https://b.example": false,
		"https://c.example": true, "http://c.example": false, "http://d.example": true, "https://d.example": false, "https://xa.example": false,
	} {
		if end, _ := EndpointOf(e, ""); end.allowed(allowed) != want {
			t.Errorf("%s: %v", e, !want)
		}
	}
}

// The registry's own proxy in the place of crates.io is the way that is meant; any
// other replacement stays a finding, and changes no place.
func TestOnlyTheOwnProxyMayReplaceCratesIO(t *testing.T) {
	f, _, r := loggedIn(t)
	ours := "sparse+" + f.server.URL + "/crates-io/index/"
	for name, c := range map[string]struct {
		override Override
		stays    bool
	}{
		"own proxy":                  {Override{OverrideSource, "c", "crates-io", ours}, false},
		"own index":                  {Override{OverrideSource, "c", "crates-io", IndexURL(f.server.URL)}, true},
		"another's proxy":            {Override{OverrideSource, "c", "crates-io", "sparse+https://evil.example/crates-io/index/"}, true},
		"vendored":                   {Override{OverrideSource, "c", "crates-io", "directory vendor"}, true},
		"own proxy for another":      {Override{OverrideSource, "c", "aln", ours}, true},
		"a patch that says the same": {Override{OverridePatch, "c", "crates-io", ours}, true},
	} {
		packages := []Locked{{Locked: cargo.Locked{Name: "serde", Version: "1.0.0", Source: cratesIO[0]}}}
		left, err := r.Place(packages, []Override{c.override})
		proxied := packages[0].Place.Kind == PlaceProxied
		if err != nil || (len(left) == 1) != c.stays || proxied == c.stays {
			t.Errorf("%s: %+v, %+v, %v", name, left, packages[0].Place, err)
		}
	}
}

// Nothing that a lock may say makes the parsers fail, nor a place of ours of a
// source that is at another host.
func FuzzPlaceOf(f *testing.F) {
	for _, seed := range []string{"sparse+https://registry.example/index/", "git+https://x", "registry+https://x", "sparse+https://registry.example/mirror/x/index/", "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, source string) {
		p := PlaceOf(source, []string{"https://registry.example"})
		e, ok := EndpointOf(source, "")
		if ours := p.Kind == PlaceHosted || p.Kind == PlaceProxied || p.Kind == PlaceMirror || p.Kind == PlaceUpstream; ours && (!ok || e.Host != "registry.example" || !slices.Contains(e.Protocols, "https")) {
			t.Errorf("%q: %+v at %+v", source, p, e)
		}
	})
}
