package integration

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/storage"
)

// on is the line of a manifest that needs a crate of the lab.
func on(name, requirement string) string {
	return fmt.Sprintf("%s = { version = %q, registry = \"aln\" }\n", name, requirement)
}

// printing is a main that prints the version of a crate.
func printing(name string) string {
	return `println!("{}", ` + strings.ReplaceAll(name, "-", "_") + `::v());`
}

// Under a grant cargo resolves to the newest version that it lists, and a lock
// that pins another one meets the registry's own words; what comes after the grant
// binds the next command.
func TestCargoPicksTheNewestThatTheGrantAllows(t *testing.T) {
	t.Parallel()
	l := newRuledLab(t)
	var dep [3]release
	for i := range dep {
		dep[i] = packed("depend", fmt.Sprintf("1.%d.0", i), "", nil)
	}
	l.uploads(dep[:]...)
	u := l.member(particle.TierCoreStakeholder, "visitor")
	app := u.app(l.lab, "app", on("depend", "1"), printing("depend"))
	u.prints("1.2.0", app)

	grant := l.grant(u, allowing(dep[0], dep[1]))
	u.forgets()
	mustFail(t, u.runs(app, "--locked"), "403", "depend 1.2.0 is denied by rule allowed-crates ", "the EnvGrant does not list it; ask a grantor of this registry", "aln-registry why depend@1.2.0")
	updated := must(t, u.cargo(app, "update"))
	wantSays(t, updated.stderr, "depend", "v1.2.0", "v1.1.0")
	u.prints("1.1.0", app, "--locked")

	narrower := l.grant(u, superseding(grant, allowing(dep[0])))
	u.forgets()
	mustFail(t, u.runs(app, "--locked"), "depend 1.1.0 is denied by rule allowed-crates "+narrower.String())
	must(t, u.cargo(app, "update"))
	u.prints("1.0.0", app, "--locked")

	wider := l.grant(u, superseding(narrower, allowing(dep[:]...)))
	must(t, u.cargo(app, "update"))
	u.prints("1.2.0", app, "--locked")

	u.extra = []string{"ALN_GRANT=" + wider.String()}
	u.forgets()
	u.prints("1.2.0", app, "--locked")
	l.revoke(wider)
	u.forgets()
	mustFail(t, u.runs(app, "--locked"), "revoked")
	u.extra = nil
	u.prints("1.2.0", app, "--locked") // its tier decides again
}

// Two who share a CARGO_HOME and a lock do not share what they may read: cargo's
// copy of the one's index view is not the other's, and every download is checked.
// What was downloaded stays usable, which is preflight's to find.
func TestASharedCargoHomeSharesNoView(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var views []reply
	l := ruled(newFrontLab(t, &frontDoor{leave: func(r *http.Response) {
		if r.Request.URL.Path == indexPath("depend") {
			mu.Lock()
			defer mu.Unlock()
			views = append(views, reply{status: r.StatusCode, header: r.Header.Clone()})
		}
	}}))
	seen := func() (all []reply) {
		mu.Lock()
		defer mu.Unlock()
		all, views = views, nil
		return all
	}
	older, newer := packed("depend", "1.0.0", "", nil), packed("depend", "1.1.0", "", nil)
	l.uploads(older, newer)
	wide, narrow := l.member(particle.TierCoreStakeholder, "visitor"), l.member(particle.TierGuest, "visitor")
	l.grant(narrow, allowing(older))
	app := wide.app(l.lab, "app", on("depend", "1"), printing("depend"))
	narrow.cargoHome = wide.cargoHome
	narrow.login(l.lab, app)

	wide.prints("1.1.0", app)
	first := seen()
	if len(first) == 0 || first[0].status != http.StatusOK {
		t.Fatalf("the first view: %v", first)
	}
	narrow.prints("1.1.0", app, "--locked") // a warm cache asks nobody
	wide.forgets()
	mustFail(t, narrow.runs(app, "--locked"), "depend 1.1.0 is denied by rule allowed-crates ")
	wide.prints("1.1.0", app, "--locked")
	wide.forgets()
	mustFail(t, narrow.runs(app, "--locked"), "depend 1.1.0 is denied by rule allowed-crates ")

	seen()
	if err := os.Remove(filepath.Join(app, "Cargo.lock")); err != nil {
		t.Fatal(err)
	}
	narrow.prints("1.0.0", app)
	own := seen()
	if len(own) == 0 || own[0].status != http.StatusOK || own[0].etag() == first[0].etag() || own[0].etag() == "" {
		t.Errorf("with the other's view in CARGO_HOME: %v, after %s", own, first[0].etag())
	}
	must(t, wide.cargo(app, "update"))
	wide.prints("1.1.0", app)
	if again := seen(); len(again) == 0 || again[0].status != http.StatusOK || again[0].etag() != first[0].etag() {
		t.Errorf("the wider view again: %v, want %s", again, first[0].etag())
	}
}

// The whole life of the shipped rule, as people meet it.
func TestCargoUnderTheBlake3Quarantine(t *testing.T) {
	t.Parallel()
	l := newRuledLab(t)
	u := l.member(particle.TierCoreStakeholder, "visitor")
	hash := [2]release{packed("blake3", "1.0.0", "", nil), packed("blake3", "1.1.0", "", nil)}
	l.uploads(hash[:]...)
	l.uploads(
		packed("parent", "1.0.0", "", nil), packed("parent", "1.1.0", l.needs("blake3", `version = "1"`), nil),
		packed("renaming", "1.0.0", l.needs("hasher", "package = \"blake3\"\nversion = \"1\""), nil),
		packed("gated", "1.0.0", "[features]\nfast = [\"dep:blake3\"]\n"+l.needs("blake3", "version = \"1\"\noptional = true"), nil),
		packed("fasthash", "0.1.0", "", crateFiles{"src/lib.rs": blake3Source}),
	)
	through := u.app(l.lab, "through", on("parent", "1"), printing("parent"))
	u.prints("1.0.0", through)
	direct := u.app(l.lab, "direct", on("blake3", "1"), printing("blake3"))
	mustFail(t, u.runs(direct), "blake3", "1.1.0 is yanked")
	for name, dependency := range map[string]string{
		"renamed": `hasher = { package = "blake3", version = "1", registry = "aln" }`,
		"older":   on("blake3", "=1.0.0"), "renaming": on("renaming", "1"),
		"gate-open": `gated = { version = "1", features = ["fast"], registry = "aln" }`,
		"optional":  `blake3 = { version = "1", optional = true, registry = "aln" }`,
		"builder":   "[build-dependencies]\n" + on("blake3", "1"), "devel": "[dev-dependencies]\n" + on("blake3", "1"),
		"target": "[target.'cfg(windows)'.dependencies]\n" + on("blake3", "1"), "content": on("fasthash", "0.1"),
	} {
		mustFail(t, u.cargo(u.app(l.lab, name, dependency, ""), "generate-lockfile"), "yanked")
	}
	mustFail(t, u.cargo(u.app(l.lab, "capital", on("Blake3", "1"), ""), "generate-lockfile"), "no matching package named `Blake3`")
	u.prints("1.0.0", u.app(l.lab, "gate-shut", on("gated", "1"), printing("gated")))

	why := u.aln(direct, "why", "blake3")
	wantSays(t, why.stdout, "quarantine", "blake3", "BLAKE3 is quarantined here until reviewers release it")
	if why.status != 1 {
		t.Errorf("what is denied ends with status %d:\n%s", why.status, why)
	}
	wantSays(t, u.aln(direct, "why", "fasthash@0.1.0").stdout, "quarantine", "blake3")
	must(t, u.aln(direct, "why", "parent@1.0.0"))

	u.locks(l.lab, direct, hash[1])
	sentence := "blake3 1.1.0 is denied by rule quarantine blake3: BLAKE3 is quarantined here until reviewers release it"
	mustFail(t, u.runs(direct, "--locked"), "403", sentence, "ask a reviewer of this registry (aln-registry why blake3@1.1.0 says more)")

	l.releaseByCommand("blake3", func(step string) { mustFail(t, u.runs(direct, "--locked"), sentence) })
	u.prints("1.1.0", direct, "--locked")
	must(t, u.aln(direct, "why", "blake3"))
	must(t, u.cargo(through, "update"))
	u.prints("1.1.0", through)
	u.prints("0.1.0", u.app(l.lab, "after", on("fasthash", "0.1"), printing("fasthash")))

	must(t, l.reviewers[1].aln(u.folder, "quarantine", "add", "again", "--name", "Blake3", "--version", ">=1.1", "--reason", "once more"))
	must(t, u.cargo(through, "update"))
	u.prints("1.1.0", through) // on blake3 1.0.0
	if lock := textOf(t, filepath.Join(through, "Cargo.lock")); !strings.Contains(lock, hexDigest(hash[0].crate)) {
		t.Errorf("not on blake3 1.0.0:\n%s", lock)
	}
}

// releaseByCommand ends a rule as people do; between the steps the rule still binds.
func (l *ruledLab) releaseByCommand(id string, still func(step string)) {
	t := l.t
	proposer, second, third := l.reviewers[0], l.reviewers[1], l.reviewers[2]
	still("before")
	proposed := must(t, proposer.aln(proposer.folder, "quarantine", "release", id, "--reason", "audited by the lab"))
	still("proposed")
	mustFail(t, proposer.aln(proposer.folder, "approve", "rule/"+id))
	mustFail(t, l.grantor.aln(l.grantor.folder, "approve", "rule/"+id))
	must(t, second.aln(second.folder, "approve", "rule/"+id))
	mustFail(t, second.aln(second.folder, "approve", "rule/"+id))
	still("approved once")
	wantSays(t, must(t, third.aln(third.folder, "quarantine", "show", id)).stdout, "in force")
	must(t, third.aln(third.folder, "approve", "rule/"+id))
	wantSays(t, must(t, third.aln(third.folder, "quarantine", "show", id)).stdout, "ended")
	if proposed.stdout == "" {
		t.Error("a proposal prints nothing")
	}
}

// While the grace of a rule lasts, nobody picks what it denies, and who has it in
// a lock still gets it; then nobody does.
func TestARuleWithGraceLetsLockedBuildsThrough(t *testing.T) {
	t.Parallel()
	l := newRuledLab(t)
	u := l.member(particle.TierCoreStakeholder, "visitor")
	older, newer := packed("depend", "1.0.0", "", nil), packed("depend", "1.1.0", "", nil)
	l.uploads(older, newer)
	app := u.app(l.lab, "app", on("depend", "1"), printing("depend"))
	u.prints("1.1.0", app)
	add := func(grace string) {
		t.Helper()
		must(t, l.reviewers[0].aln(u.folder, "quarantine", "add", "leak", "--name", "depend", "--version", ">=1.1", "--reason", "it leaks", "--grace", grace))
	}
	add("1h")
	u.forgets()
	u.prints("1.1.0", app, "--locked")
	wantSays(t, u.aln(app, "why", "depend@1.1.0").stdout, "grace", "leak", "it leaks")
	fresh := u.app(l.lab, "fresh", on("depend", "1"), printing("depend"))
	u.prints("1.0.0", fresh)

	add("2s")
	token := u.token(l.lab, "")
	eventually(t, 10*time.Second, "the grace is over", func() bool {
		return l.ask(http.MethodGet, downloadPath("depend", "1.1.0"), token).status == http.StatusForbidden
	})
	u.forgets()
	mustFail(t, u.runs(app, "--locked"), "depend 1.1.0 is denied by rule quarantine leak: it leaks")
	must(t, u.cargo(app, "update"))
	u.prints("1.0.0", app, "--locked")
}

// A version waits out the longer of the registry's cooldown and the grant's; a
// rule excepts some.
func TestCooldownOfTheRegistryAndOfAGrant(t *testing.T) {
	t.Parallel()
	l := newRuledLab(t)
	older, newer, other := packed("depend", "1.0.0", "", nil), packed("depend", "1.1.0", "", nil), packed("other", "1.0.0", "", nil)
	l.uploads(older, newer, other)
	u, bound := l.member(particle.TierCoreStakeholder, "visitor"), l.member(particle.TierGuest, "visitor")
	aged := func(days int64) func(*particle.EnvGrant) {
		return func(g *particle.EnvGrant) { g.AllowedCrates, g.MinAgeDays = []string{particle.AllCrates}, days }
	}
	grant := l.grant(bound, aged(3))
	app := u.app(l.lab, "app", on("depend", "1"), printing("depend"))
	u.prints("1.1.0", app)
	l.want(http.StatusForbidden, downloadPath("depend", "1.0.0"), bound.token(l.lab, ""), "depend 1.0.0 is denied by rule cooldown", "3 days old", "ask a reviewer")
	mustFail(t, bound.runs(bound.app(l.lab, "young", on("depend", "1"), printing("depend"))), "yanked")

	must(t, l.operator.aln(l.operator.folder, "settings", "set", "--min-age-days", "7"))
	u.forgets()
	mustFail(t, u.runs(app, "--locked"), "depend 1.1.0 is denied by rule cooldown", "7 days old")
	l.want(http.StatusForbidden, downloadPath("depend", "1.0.0"), bound.token(l.lab, ""), "7 days old")
	must(t, l.reviewers[0].aln(u.folder, "quarantine", "add", "urgent", "--effect", "waive_min_age", "--name", "depend", "--version", "=1.0.0", "--reason", "it mends a hole"))
	must(t, u.cargo(app, "update"))
	u.prints("1.0.0", app, "--locked")
	bound.prints("1.0.0", bound.app(l.lab, "excepted", on("depend", "1"), printing("depend")))
	wantSays(t, u.aln(app, "why", "depend@1.0.0").stdout, "waived", "urgent")
	mustFail(t, u.runs(u.app(l.lab, "another", on("other", "1"), printing("other"))), "yanked")

	must(t, l.operator.aln(l.operator.folder, "settings", "set", "--min-age-days", "0"))
	u.prints("1.0.0", u.app(l.lab, "open", on("other", "1"), printing("other")))
	l.want(http.StatusForbidden, downloadPath("other", "1.0.0"), bound.token(l.lab, ""), "3 days old")
	l.grant(bound, superseding(grant, aged(0)))
	l.want(http.StatusOK, downloadPath("other", "1.0.0"), bound.token(l.lab, ""))
}

// A preflight in front of a build names each thing that the grant does not allow,
// before anything compiles; with a grant of just what the lock pins it lets the
// build go, which then needs nothing else.
func TestPreflightStandsInFrontOfABuild(t *testing.T) {
	t.Parallel()
	l := newRuledLab(t)
	first, second, extra := packed("first", "1.0.0", "", nil), packed("second", "2.0.0", l.needs("first", `version = "1"`), nil), packed("extra", "1.0.0", "", nil)
	l.uploads(first, second, extra)
	u := l.member(particle.TierCollaborator, "visitor")
	maker := l.member(particle.TierCoreStakeholder, "visitor") // who wrote the lock
	app := maker.app(l.lab, "app", on("second", "2")+on("first", "1"), printing("second"))
	must(t, maker.cargo(app, "generate-lockfile"))
	u.login(l.lab, app)
	build := func() result {
		if check := u.aln(app, "preflight", "--mem-mb", "200", "--disk-mb", "100"); check.status != 0 {
			return check
		}
		return u.runs(app, "--locked")
	}
	compiled := func() bool { _, err := os.Stat(filepath.Join(app, "target")); return err == nil }

	none := mustFail(t, build(), "grant")
	if none.status != 1 || compiled() {
		t.Errorf("without a grant, something compiled: %t\n%s", compiled(), none)
	}
	grant := l.spareGrant(u, first)
	honest, locked := textOf(t, filepath.Join(app, "Cargo.toml")), textOf(t, filepath.Join(app, "Cargo.lock"))
	corrupt(t, app, honest, locked)
	many := mustFail(t, build(), "second 2.0.0", "from-git", "from-far", "patch", "memory", "disk", "http", strings.TrimPrefix(l.url, "http://"))
	if many.status != 1 || compiled() || strings.Contains(many.stdout, "first 1.0.0 may not") {
		t.Errorf("something compiled: %t\n%s", compiled(), many)
	}
	wantClauses(t, u.aln(app, "preflight", "--mem-mb", "200", "--disk-mb", "100", "--json").stdout)

	writeFiles(t, app, map[string]string{"Cargo.toml": honest, "Cargo.lock": locked})
	made := must(t, l.grantor.aln(app, "grant", "new", "--subject", u.did(), "--from-lockfile", "Cargo.lock", "--supersedes", grant.String(),
		"--execution-domain", "aln-shard/phoenix-safe@1.0.0", "--memory-pool", "aln-shard/small-pool@1.0.0", "--max-mem-mb", "256"))
	wantSays(t, made.stdout, "granted bafkrei")
	if got := must(t, build()); strings.TrimSpace(got.stdout) != "2.0.0" {
		t.Errorf("built: %s", got)
	}
	u.forgets()
	u.prints("2.0.0", app, "--locked")
	l.want(http.StatusForbidden, downloadPath("extra", "1.0.0"), u.token(l.lab, ""), "extra 1.0.0 is denied by rule allowed-crates")

	// What lies in CARGO_HOME already is looked at, though cargo would not ask again.
	u.warmWith(app, first, extra)
	mustFail(t, build(), "first", "registry/cache")
	u.forgets()
	l.rule("late", particle.QuarantineRule{Match: named("first")})
	mustFail(t, build(), "first 1.0.0", "quarantine late")
}

// spareGrant allows allowed and little else, and names a pool and a domain.
func (l *ruledLab) spareGrant(u *user, allowed release) storage.CID {
	l.t.Helper()
	domain := l.shard("phoenix-safe", []byte(`{"name":"PhoenixLab.Safe","code_origins":["hosted"],"networking":[],"syscalls":["read"],"attestation":"none"}`))
	pool := l.shard("small-pool", fmt.Appendf(nil, `{"pool_id":"small","owner_did":%q,"stakeholder_addrs":["aln1lab"],"max_bytes":268435456,"encryption_scheme":"none","jurisdiction":"lab"}`, l.operator.identity().DID()))
	return l.grant(u, func(g *particle.EnvGrant) {
		allowing(allowed)(g)
		g.AllowedEndpoints, g.AllowedProtocols, g.MaxMemMB, g.MaxDiskMB = []string{"elsewhere.example"}, []string{"gopher"}, 100, 50
		g.MemoryPool, g.ExecutionDomain = &pool, &domain
	})
}

// corrupt has the project in app take code from where no registry decides.
func corrupt(t *testing.T, app, manifest, lock string) {
	t.Helper()
	writeFiles(t, app, map[string]string{
		"Cargo.toml": manifest + "\n[patch.aln]\nfirst = { path = \"near\" }\n",
		"Cargo.lock": lock + "\n[[package]]\nname = \"from-git\"\nversion = \"0.1.0\"\nsource = \"git+https://git.example/x#0000000000000000000000000000000000000000\"\n" +
			"\n[[package]]\nname = \"from-far\"\nversion = \"0.1.0\"\nsource = \"sparse+https://far.example/index/\"\nchecksum = \"" + strings.Repeat("0", 64) + "\"\n",
		"near/Cargo.toml": "[package]\nname = \"near\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n", "near/src/lib.rs": "",
	})
}

// wantClauses: the preflight says what is wrong with everything, and what to do.
func wantClauses(t *testing.T, text string) {
	t.Helper()
	var told struct {
		OK       bool `json:"ok"`
		Findings []struct{ Clause, Detail, Mend string }
	}
	parseJSON(t, text, &told)
	clauses := map[string]int{}
	for _, f := range told.Findings {
		clauses[f.Clause]++
		if f.Detail == "" || f.Mend == "" {
			t.Errorf("a finding that does not say what to do: %+v", f)
		}
	}
	for _, clause := range []string{"crates", "sources", "overrides", "memory", "disk", "endpoints", "protocols"} {
		if clauses[clause] == 0 {
			t.Errorf("no finding about %s: %v", clause, clauses)
		}
	}
	if told.OK {
		t.Error("ok beside findings")
	}
}

// warmWith puts the bytes of other where cargo keeps those of r for the app.
func (u *user) warmWith(app string, r, other release) {
	u.t.Helper()
	must(u.t, u.cargo(app, "fetch", "--locked"))
	found, err := filepath.Glob(filepath.Join(u.cargoHome, "registry", "cache", "*", r.name+"-"+r.version+".crate"))
	if err != nil || len(found) != 1 {
		u.t.Fatalf("%s in CARGO_HOME: %v %v", r.name, found, err)
	}
	if err := os.WriteFile(found[0], other.crate, 0o644); err != nil {
		u.t.Fatal(err)
	}
}

// A grant that names a list of many crates is made, compared and shown by
// commands, and binds as a short one does.
func TestGrantCommandsAgreeWithWhatIsServed(t *testing.T) {
	t.Parallel()
	l := newRuledLab(t)
	one, two := packed("able", "1.0.0", "", nil), packed("able", "1.1.0", "", nil)
	l.uploads(one, two)
	u := l.member(particle.TierGuest, "visitor")
	l.admit(l.grantor, particle.TierCoreStakeholder, "grantor", "publisher")
	var many bytes.Buffer
	for i := range particle.MaxInlineCrates {
		fmt.Fprintln(&many, hexDigest(fmt.Append(nil, i)))
	}
	writeFiles(t, u.folder, map[string]string{"many": many.String()})
	made := func(flags ...string) (cid string) {
		t.Helper()
		var told struct{ CID string }
		parseJSON(t, must(t, l.grantor.aln(u.folder, append([]string{"grant", "new", "--json", "--subject", u.did(), "--expires", "1h"}, flags...)...)).stdout, &told)
		return told.CID
	}
	first := made("--allow", hexDigest(one.crate))
	if view := l.view("able", u.token(l.lab, "")); !view["1.0.0"] || view["1.1.0"] {
		t.Errorf("the view under the first: %v", view)
	}
	second := made("--allow", two.cid.String(), "--crates-list", filepath.Join(u.folder, "many"), "--supersedes", first)
	if view := l.view("able", u.token(l.lab, first)); view["1.0.0"] || !view["1.1.0"] {
		t.Errorf("the view under the second: %v", view)
	}
	diff := must(t, l.grantor.aln(u.folder, "grant", "diff", first, second))
	wantSays(t, diff.stdout, "able 1.0.0", "able 1.1.0")
	wantSays(t, must(t, u.aln(u.folder, "grant", "list", "--subject", u.did())).stdout, first, second, "superseded")
	wantSays(t, must(t, u.aln(u.folder, "grant", "show", second)).stdout, second, u.did(), "guest")
	wantSays(t, u.aln(u.folder, "why", "able@1.1.0", "--grant", second).stdout, "allowed")
	mustFail(t, u.aln(u.folder, "why", "able@1.0.0", "--grant", second), "allowed-crates")
	mustFail(t, u.aln(u.folder, "grant", "revoke", second, "--reason", "mine"))
	must(t, l.grantor.aln(u.folder, "grant", "revoke", second, "--reason", "no more"))
	l.want(http.StatusForbidden, downloadPath("able", "1.1.0"), u.token(l.lab, ""), "tier-default")
	mustFail(t, u.aln(u.folder, "preflight", "--lockfile", "none"))
	wantSays(t, must(t, u.aln(u.folder, "grant", "list")).stdout, "revoked")
	must(t, l.operator.aln(l.operator.folder, "log", "check", "--full"))
}
