package main

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/storage"
)

const (
	someOrigin = "did:key:z6MkptxMdKJFeFXB5TqMnXCSDEDB9hhvopJ37cbqJULgfjed"
	someIssuer = "did:key:z6MkrwtQaB46UhDTSdc1PKzawp5tmRJsme25ZvLjydkvVsWS"
	someHost   = "did:key:z6MkpLR7ieTivTC2reXQGA4Wo6QWp48Q55Tcy4BbatNK8R61"
)

var someNow = time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)

func hashOfText(text string) string { return storage.CIDOf([]byte(text)).Hex() }

func someBase() grantBase {
	return grantBase{registry: someOrigin, issuer: someIssuer, url: "https://registry.example", tier: particle.TierCollaborator, now: someNow}
}

// someFlags are those of grant new with nothing but a subject.
func someFlags() grantFlags {
	return grantFlags{subject: someHost, expires: defaultGrantLife, diskMB: defaultDiskMB}
}

func TestParseTime(t *testing.T) {
	for text, want := range map[string]string{
		"12h": "2027-01-02T15:04:05Z", "30d": "2027-02-01T03:04:05Z", "1d": "2027-01-03T03:04:05Z", "2027-01-31": "2027-01-31T00:00:00Z", "2027-01-31T08:09:10Z": "2027-01-31T08:09:10Z",
		"": "", "0d": "", "-1h": "", "0s": "", "soon": "", "30": "", "31.1.2027": "", "2027-01-31T08:09:10+01:00": "", "2027-13-01": "", "99999999d": "",
	} {
		got, err := parseTime("expires", text, someNow)
		if (err == nil) != (want != "") || err == nil && got.String() != want || err != nil && !isUsage(err) {
			t.Errorf("%q: %s, %v; want %s", text, got, err, want)
		}
	}
}

func TestGrantFlagsBecomeAGrant(t *testing.T) {
	list := storage.CIDOf([]byte("domain"))
	for name, c := range map[string]struct {
		change func(f *grantFlags)
		crates allowance
		check  func(g particle.EnvGrant) bool
		err    string
	}{
		"defaults": {nil, allowance{}, func(g particle.EnvGrant) bool {
			return g.Registry == someOrigin && g.Issuer == someIssuer && g.Subject == someHost && g.NotBefore.String() == "2027-01-02T03:04:05Z" && g.Expires.String() == "2027-02-01T03:04:05Z" &&
				g.MaxMemMB == 1000 && g.MaxDiskMB == 16384 && g.Tier == particle.TierCollaborator && len(g.AllowedCrates) == 0 && g.AllowedCrates != nil && !g.OffshoreFlag &&
				slices.Equal(g.AllowedProtocols, []string{"https", "sparse"}) && slices.Equal(g.AllowedEndpoints, []string{"registry.example"})
		}, ""},
		"a lower tier takes its memory": {func(f *grantFlags) { f.tier = particle.TierGuest }, allowance{}, func(g particle.EnvGrant) bool { return g.MaxMemMB == 256 && g.Tier == particle.TierGuest }, ""},
		"memory given":                  {func(f *grantFlags) { f.memGiven, f.memMB = true, 0 }, allowance{}, func(g particle.EnvGrant) bool { return g.MaxMemMB == 0 }, ""},
		"too much memory":               {func(f *grantFlags) { f.memGiven, f.memMB = true, 1001 }, allowance{}, nil, "max_mem_mb 1001 is not between 0 and 1000"},
		"negative age":                  {func(f *grantFlags) { f.minAge = -1 }, allowance{}, nil, "min_age_days -1"},
		"all":                           {nil, allowance{all: true}, func(g particle.EnvGrant) bool { return slices.Equal(g.AllowedCrates, []string{"*"}) }, ""},
		"hashes": {nil, allowance{hashes: [][32]byte{{1}, {2}}}, func(g particle.EnvGrant) bool {
			return len(g.AllowedCrates) == 2 && strings.HasPrefix(g.AllowedCrates[0], "01")
		}, ""},
		"endpoints are added once": {func(f *grantFlags) {
			f.endpoints, f.protocols = []string{"cdn.example", "registry.example"}, []string{"sparse", "git"}
		}, allowance{}, func(g particle.EnvGrant) bool {
			return slices.Equal(g.AllowedEndpoints, []string{"registry.example", "cdn.example"}) && slices.Equal(g.AllowedProtocols, []string{"https", "sparse", "git"})
		}, ""},
		"in the past":       {func(f *grantFlags) { f.expires = "2027-01-02" }, allowance{}, nil, "that is past"},
		"no time":           {func(f *grantFlags) { f.expires = "soon" }, allowance{}, nil, "--expires"},
		"ends at its start": {func(f *grantFlags) { f.notBefore, f.expires = "2027-02-01", "2027-02-01" }, allowance{}, nil, "expires is not after not_before"},
		"a bad endpoint":    {func(f *grantFlags) { f.endpoints = []string{"a b"} }, allowance{}, nil, "allowed_endpoints"},
		"shards": {func(f *grantFlags) { f.domainCID, f.superCID, f.offshore = &list, &list, true }, allowance{}, func(g particle.EnvGrant) bool {
			return *g.ExecutionDomain == list && *g.Supersedes == list && g.OffshoreFlag
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := someFlags()
			if c.change != nil {
				c.change(&f)
			}
			g, blob, err := f.compose(someBase(), c.crates)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || !isUsage(err) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || blob != nil || !c.check(g) {
				t.Fatalf("%+v, %v", g, err)
			}
			if back, err := particle.ParseEnvGrant(mustMarshal(t, g)); err != nil || back.Subject != g.Subject {
				t.Errorf("%+v, %v", back, err)
			}
		})
	}
}

func mustMarshal(t *testing.T, g particle.EnvGrant) []byte {
	t.Helper()
	raw, err := g.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// What fits stands in the grant, one more in a list that the grant names.
func TestManyCratesStandInAList(t *testing.T) {
	var hashes [][32]byte
	for i := range particle.MaxInlineCrates + 1 {
		hashes = append(hashes, storage.CIDOf(fmt.Append(nil, i)).Digest())
	}
	f := someFlags()
	g, blob, err := f.compose(someBase(), allowance{hashes: hashes[1:]})
	if err != nil || blob != nil || len(g.AllowedCrates) != particle.MaxInlineCrates || len(mustMarshal(t, g)) > particle.MaxBytes {
		t.Errorf("%d crates, %v", len(g.AllowedCrates), err)
	}
	g, blob, err = f.compose(someBase(), allowance{hashes: hashes})
	listed, failed := particle.ParseList(blob)
	if err != nil || failed != nil || len(listed) != len(hashes) || g.AllowedCrates != nil || g.AllowedCratesList == nil || *g.AllowedCratesList != storage.CIDOf(blob) {
		t.Errorf("%+v, %v, %v", g, err, failed)
	}
}

const lockText = `version = 4

[[package]]
name = "app"
version = "0.1.0"

[[package]]
name = "demo"
version = "1.0.0"
source = "sparse+https://registry.example/index/"
checksum = "%s"

[[package]]
name = "g"
version = "2.0.0"
source = "git+https://git.example/g#0123"
`

func writeLock(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "Cargo.lock")
	write(t, path, fmt.Sprintf(lockText, hashOfText("demo")))
	return path
}

func TestAllowedGathersEveryHashOnceAndNamesTheRest(t *testing.T) {
	lines := filepath.Join(t.TempDir(), "list")
	write(t, lines, "# mine\n\n"+hashOfText("demo")+"\r\n"+storage.CIDOf([]byte("other")).String()+"\n")
	f := someFlags()
	f.locks, f.lists, f.allow = []string{writeLock(t)}, []string{lines}, []string{hashOfText("third"), storage.CIDOf([]byte("demo")).String()}
	got, err := f.allowed()
	var texts []string
	for _, h := range got.hashes {
		texts = append(texts, hex.EncodeToString(h[:]))
	}
	want := []string{hashOfText("demo"), hashOfText("other"), hashOfText("third")}
	slices.Sort(want)
	if err != nil || !slices.Equal(texts, want) {
		t.Errorf("%v, want %v; %v", texts, want, err)
	}
	if !slices.Equal(got.uncovered, []string{"app 0.1.0 (the project's own, or by a path)", "g 2.0.0 (git+https://git.example/g#0123)"}) {
		t.Errorf("not coverable: %q", got.uncovered)
	}
	for name, bad := range map[string]grantFlags{
		"no hash":    {allow: []string{"demo"}},
		"upper case": {allow: []string{strings.ToUpper(hashOfText("demo"))}},
		"no list":    {lists: []string{filepath.Join(t.TempDir(), "none")}},
		"a bad list": {lists: []string{writeLock(t)}},
		"no lock":    {locks: []string{filepath.Join(t.TempDir(), "Cargo.lock")}},
		"a bad lock": {locks: []string{lines}},
	} {
		if _, err := bad.allowed(); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestCompareGrants(t *testing.T) {
	f := someFlags()
	before, _, err := f.compose(someBase(), allowance{hashes: [][32]byte{{1}, {2}}})
	if err != nil {
		t.Fatal(err)
	}
	f.minAge, f.offshore = 7, true
	after, _, err := f.compose(someBase(), allowance{hashes: [][32]byte{{2}, {3}}})
	if err != nil {
		t.Fatal(err)
	}
	diff := compareGrants(grantSide{before, [][32]byte{{1}, {2}}}, grantSide{after, [][32]byte{{3}, {2}}})
	var fields []string
	for _, c := range diff.Fields {
		fields = append(fields, c.Field+" "+c.Before+" "+c.After)
	}
	if !slices.Equal(fields, []string{"min_age_days 0 7", "offshore_flag false true"}) || len(diff.Added) != 1 || len(diff.Removed) != 1 || diff.Added[0].SHA256[:2] != "03" || diff.Removed[0].SHA256[:2] != "01" {
		t.Errorf("%v, %+v", fields, diff)
	}
	if unnamed := nameHashes(&diff, map[[32]byte]string{{3}: "demo 1.0.0"}); len(unnamed) != 1 || unnamed[0] != [32]byte{1} || diff.Added[0].Name != "demo 1.0.0" {
		t.Errorf("%v, %+v", unnamed, diff)
	}
	if same := compareGrants(grantSide{env: before}, grantSide{env: before}); len(same.Fields)+len(same.Added)+len(same.Removed) != 0 {
		t.Errorf("a grant differs from itself: %+v", same)
	}
}

func TestCachedCratesAreHashed(t *testing.T) {
	home := t.TempDir()
	for _, folder := range []string{"registry.example-0123", "other.example-0123", "registry.example.evil-0123", "index.crates.io-0123"} {
		if err := os.MkdirAll(filepath.Join(home, "registry", "cache", folder), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(home, "registry", "cache", folder, "demo-1.0.0.crate"), folder)
	}
	packages, err := readLock(writeLock(t))
	if err != nil {
		t.Fatal(err)
	}
	locked, err := withCached(packages, home, nil)
	if err != nil || len(locked) != 3 || len(locked[0].Cached)+len(locked[2].Cached) != 0 || len(locked[1].Cached) != 1 {
		t.Fatalf("%+v, %v", locked, err)
	}
	if c := locked[1].Cached[0]; c.Hash != storage.CIDOf([]byte("registry.example-0123")).Digest() || c.Problem != "" {
		t.Errorf("%+v", c)
	}
	packages[1].Source = "registry+https://github.com/rust-lang/crates.io-index"
	if locked, err = withCached(packages, home, nil); err != nil || len(locked[1].Cached) != 1 || !strings.Contains(locked[1].Cached[0].Path, "index.crates.io-") {
		t.Errorf("%+v, %v", locked, err)
	}
	if locked, err = withCached(packages, filepath.Join(home, "none"), nil); err != nil || len(locked[1].Cached) != 0 {
		t.Errorf("no CARGO_HOME: %+v, %v", locked, err)
	}
	folder := filepath.Join(home, "registry", "cache", "index.crates.io-0123", "demo-1.0.0.crate")
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if locked, err = withCached(packages, home, nil); err != nil || len(locked[1].Cached) != 1 || locked[1].Cached[0].Problem == "" {
		t.Errorf("a folder in its place: %+v, %v", locked, err)
	}
}

// Who is allowed every crate is neither given more of them by a list, nor left fewer by "*".
func TestAGrantOfAllHasEveryHash(t *testing.T) {
	all := grantSide{env: particle.EnvGrant{AllowedCrates: []string{particle.AllCrates}}}
	some := grantSide{env: particle.EnvGrant{AllowedCrates: []string{hashOfText("x")}}, hashes: [][32]byte{{1}}}
	none := grantSide{env: particle.EnvGrant{AllowedCrates: []string{}}}
	for name, c := range map[string]struct {
		a, b           grantSide
		added, removed int
	}{"narrower": {all, some, 0, 0}, "wider": {some, all, 0, 0}, "from nothing": {none, some, 1, 0}, "to nothing": {some, none, 0, 1}} {
		if d := compareGrants(c.a, c.b); len(d.Added) != c.added || len(d.Removed) != c.removed {
			t.Errorf("%s: %d added, %d removed; want %d, %d", name, len(d.Added), len(d.Removed), c.added, c.removed)
		}
	}
}

// Cargo takes a crate from the folder of whatever registry it is told to ask.
func TestCachedCratesAreSoughtWhereCargoKeepsThem(t *testing.T) {
	const cratesIOSource = "registry+https://github.com/rust-lang/crates.io-index"
	proxy := []client.Override{{Kind: client.OverrideSource, What: "crates-io", To: "sparse+http://127.0.0.1:8585/crates-io/index/"}}
	for name, c := range map[string]struct {
		source, folder string
		overrides      []client.Override
		found          bool
	}{
		"crates.io":                {cratesIOSource, "index.crates.io-0123", nil, true},
		"crates.io over git":       {cratesIOSource, "github.com-0123", nil, true},
		"crates.io by a proxy":     {cratesIOSource, "127.0.0.1-0123", proxy, true},
		"no proxy":                 {cratesIOSource, "127.0.0.1-0123", nil, false},
		"a proxy of crates.io's":   {"sparse+https://registry.example/index/", "127.0.0.1-0123", proxy, false},
		"capitals":                 {"sparse+https://Registry.Example/index/", "Registry.Example-0123", nil, true},
		"capitals that differ":     {"sparse+https://registry.example/index/", "REGISTRY.example-0123", nil, true},
		"a port":                   {"sparse+https://registry.example:8443/index/", "registry.example-0123", nil, true},
		"an address":               {"sparse+http://[::1]:8585/index/", "[::1]-0123", nil, true},
		"an address without port":  {"sparse+http://[::1]/index/", "[::1]-0123", nil, true},
		"a host that begins alike": {"sparse+https://registry.example/index/", "registry.example-evil-0123", nil, false},
		"the project itself":       {"", "-0123", nil, false},
	} {
		home := t.TempDir()
		if err := os.MkdirAll(filepath.Join(home, "registry", "cache", c.folder), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(home, "registry", "cache", c.folder, "demo-1.0.0.crate"), "x")
		locked, err := withCached([]cargo.Locked{{Name: "demo", Version: "1.0.0", Source: c.source, Checksum: "00"}}, home, c.overrides)
		if err != nil || (len(locked[0].Cached) == 1) != c.found {
			t.Errorf("%s: %+v, %v", name, locked, err)
		}
	}
}
