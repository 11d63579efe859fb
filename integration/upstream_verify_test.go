package integration

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/registry/particle"
)

// newWatchedUpstreamLab is a lab behind a proxy that may lie, with crates.io and the same
// again under the name bonn.
func newWatchedUpstreamLab(t *testing.T) (*upstreamLab, *proxy) {
	t.Helper()
	crates, p := testbed.CratesIO(t), newProxy(t)
	setting := upstreamSetting(crates)
	l := &upstreamLab{newLab(t, "--public-url", p.URL, "--upstream", setting, "--upstream", "bonn="+setting, "--upstream-fresh", "0s"), crates}
	p.aim(l.url)
	return l, p
}

// lockedProject is one of u's with a lock that cargo wrote: of these crates of crates.io
// through the registry at url, and of ryu of bonn.
func lockedProject(u *user, url string, dependencies ...string) (folder string) {
	u.t.Helper()
	folder = filepath.Join(u.folder, "locked")
	needs := "ryu = { version = \"1\", registry = \"bonn\" }\n"
	for _, name := range dependencies {
		needs += name + " = \"1\"\n"
	}
	writeFiles(u.t, folder, map[string]string{
		"Cargo.toml":         "[package]\nname = \"locked\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\n" + needs + "[workspace]\n",
		"src/lib.rs":         "",
		".cargo/config.toml": "[registries.bonn]\nindex = \"sparse+" + url + "/upstream/bonn/index/\"\n",
	})
	must(u.t, u.aln(folder, "login", url, "--replace-crates-io"))
	must(u.t, u.cargo(folder, "generate-lockfile"))
	return folder
}

// What a lock has of crates.io, and of a registry with a name, through the registry is
// proved to be what was first seen there, also where those say otherwise later on; and a
// replayed log is held against all indexes without anybody being asked.
func TestALockOfUpstreamsCratesIsVerified(t *testing.T) {
	l, p := newWatchedUpstreamLab(t)
	u := l.operator
	folder := lockedProject(u, p.URL, "itoa", "serde_json")
	locked := lockedCrates(t, folder)
	all := fmt.Sprintf("%d verified, 0 failed, 0 from registries not known, 1 local", len(locked))
	said := must(t, u.aln(folder, "verify"))
	wantSays(t, said.stdout, all, "crates-io: first seen ", "upstream/bonn: first seen ", "itoa@", "ryu@", "not who made them: nobody signs those")
	if len(locked) < 4 {
		t.Errorf("the lock has %v", locked)
	}

	itoa := l.newest("itoa")
	id := itoa.Name + "@" + itoa.Vers
	wantSays(t, must(t, u.aln(folder, "verify", id, "--source", "crates-io")).stdout, "upstream/crates-io/"+id, "first seen")
	must(t, u.cargo(folder, "fetch", "--locked"))
	found, err := filepath.Glob(filepath.Join(u.cargoHome, "registry", "cache", "*", itoa.Name+"-"+itoa.Vers+".crate"))
	if err != nil || len(found) != 1 {
		t.Fatalf("cargo fetched %q, %v", found, err)
	}
	must(t, u.aln(folder, "verify", found[0], "--source", "crates-io"))
	mustFail(t, u.aln(folder, "verify", found[0]), "itoa") // of what is hosted here

	// Nobody is asked for a look at what is served.
	l.crates.Forget()
	must(t, u.aln(folder, "log", "check", "--full"))
	if asked := l.crates.Asked(); len(asked) > 0 {
		t.Errorf("an upstream was asked: %+v", asked)
	}

	// Upstream names other bytes: those first seen stay proved, the others never are.
	if err := l.crates.Replace("itoa", itoa.Vers, []byte("another crate")); err != nil {
		t.Fatal(err)
	}
	later := l.crates.Lines("itoa")[len(l.crates.Lines("itoa"))-1]
	l.get("/crates-io/index/"+testbed.IndexPath("itoa"), u.session(particle.ScopeRead, time.Minute))
	wantSays(t, must(t, u.aln(folder, "verify", "Cargo.lock")).stdout, all, "other bytes were named there as this version", "not listed there any more")
	wantSays(t, must(t, u.aln(folder, "upstream", "list")).stdout, "crates-io has an alarm, changed of itoa@"+itoa.Vers+" at ", "Z: `aln-registry upstream alarms crates-io`")
	lock := textOf(t, filepath.Join(folder, "Cargo.lock"))
	writeFiles(t, folder, map[string]string{"Cargo.lock": strings.ReplaceAll(lock, itoa.Cksum, later.Cksum)})
	mustFail(t, u.aln(folder, "verify", "Cargo.lock"), "itoa@"+itoa.Vers, "which was said of it only from", "1 failed")
	writeFiles(t, folder, map[string]string{"Cargo.lock": strings.ReplaceAll(lock, itoa.Cksum, strings.Repeat("0", 64))})
	mustFail(t, u.aln(folder, "verify", "Cargo.lock"), "1 failed")
	writeFiles(t, folder, map[string]string{"Cargo.lock": lock})
	must(t, u.aln(folder, "log", "check", "--full"))

	// Who takes them from crates.io itself is told what to do.
	must(t, u.aln(folder, "login", p.URL, "--restore-crates-io"))
	mustFail(t, u.aln(folder, "verify"), "login URL --replace-crates-io", "1 verified, 0 failed")
}

// A server that lies about what proves a crate, in whatever it answers, proves nothing.
func TestALyingServerProvesNoCrateOfUpstreams(t *testing.T) {
	l, p := newWatchedUpstreamLab(t)
	u := l.operator
	folder := lockedProject(u, p.URL, "itoa")
	for name, alter := range map[string]func(bundle *bundleAnswer){
		"without the import":     func(b *bundleAnswer) { b.Records = b.Records[:len(b.Records)-1] },
		"without entry 0":        func(b *bundleAnswer) { b.Records = b.Records[1:] },
		"without anything":       func(b *bundleAnswer) { b.Records = nil },
		"another index":          func(b *bundleAnswer) { b.last().Index++ },
		"an index before":        func(b *bundleAnswer) { b.last().Index = 0 },
		"another envelope":       func(b *bundleAnswer) { b.last().Envelope = b.Records[0].Envelope },
		"a damaged envelope":     func(b *bundleAnswer) { b.last().Envelope = damaged(b.last().Envelope, "sig") },
		"no envelope":            func(b *bundleAnswer) { b.last().Envelope = "" },
		"another index file":     func(b *bundleAnswer) { b.last().Attachments[0] = damaged(b.last().Attachments[0], "cksum") },
		"an index file too many": func(b *bundleAnswer) { b.last().Attachments = append(b.last().Attachments, "aGVsbG8=") },
		"an empty index file":    func(b *bundleAnswer) { b.last().Attachments[0] = "" },
		"an attachment moved":    func(b *bundleAnswer) { b.last().Attachments[0] = "aGVsbG8=" },
	} {
		p.begin(func(e exchange) exchange {
			if strings.HasSuffix(e.path, "/bundle") && e.status == http.StatusOK {
				var b bundleAnswer
				if err := json.Unmarshal(e.body, &b); err != nil {
					t.Error(err)
				}
				alter(&b)
				e.body, _ = json.Marshal(b)
			}
			return e
		})
		if r := u.aln(folder, "verify", "--json"); r.status != 1 || strings.Contains(r.stdout, `"ok": true,`+"\n"+`  "packages"`) {
			t.Errorf("%s: %s", name, r)
		}
	}
	p.begin(nil)
	must(t, u.aln(folder, "verify"))
}

// bundleAnswer is a bundle as the registry sends it.
type bundleAnswer struct {
	Records []sentRecord `json:"records"`
}

type sentRecord struct {
	Index       int64    `json:"index"`
	Envelope    string   `json:"envelope"`
	Attachments []string `json:"attachments"`
}

func (b *bundleAnswer) last() *sentRecord { return &b.Records[len(b.Records)-1] }

// damaged is what text is the base64 of, with the byte changed that stands 10 behind at.
func damaged(text, at string) string {
	raw, _ := base64.StdEncoding.DecodeString(text)
	place := strings.Index(string(raw), at) + 10
	raw[place] = map[bool]byte{true: 'b', false: 'a'}[raw[place] == 'a']
	return base64.StdEncoding.EncodeToString(raw)
}

// A server whose index says otherwise than its log is found out.
func TestALyingIndexOfUpstreamsIsFoundOut(t *testing.T) {
	l, p := newWatchedUpstreamLab(t)
	u := l.operator
	folder := lockedProject(u, p.URL, "itoa")
	must(t, u.aln(folder, "log", "check", "--full"))
	itoa := l.newest("itoa")
	for name, c := range map[string]struct {
		path  string
		alter func(file string) string
		says  string
	}{
		"another checksum": {"/crates-io/index/", func(f string) string { return strings.Replace(f, itoa.Cksum, strings.Repeat("0", 64), 1) }, "crates-io: itoa@" + itoa.Vers + ": the index says checksum 0000"},
		"another manifest": {"/crates-io/index/", func(f string) string {
			return strings.Replace(f, `"deps":[`, `"links":"evil","deps":[`, 1)
		}, "the index says other dependencies or features of it than were first seen"},
		"another line": {"/crates-io/index/", func(f string) string {
			return strings.Replace(f, `"deps":[`, `"more":"evil","deps":[`, 1)
		}, "is not the one that was seen"},
		"yanked":          {"/crates-io/index/", func(f string) string { return strings.Replace(f, `"yanked":false`, `"yanked":true`, 1) }, "the index says yanked true"},
		"left out":        {"/crates-io/index/", func(string) string { return "" }, "in the log but not in the index"},
		"added":           {"/crates-io/index/", func(f string) string { return f + strings.Replace(f, itoa.Vers, "99.0.0", 1) }, "does not follow from the log"},
		"of another name": {"/upstream/bonn/index/", func(f string) string { return strings.ReplaceAll(f, `"ryu"`, `"evil"`) }, "upstream/bonn: ryu"},
	} {
		p.begin(func(e exchange) exchange {
			if strings.HasPrefix(e.path, c.path) && e.status == http.StatusOK && !strings.HasSuffix(e.path, "config.json") {
				e.body = []byte(c.alter(string(e.body)))
			}
			return e
		})
		if r := u.aln(folder, "log", "check", "--full"); r.status != 1 || !strings.Contains(r.stdout, c.says) {
			t.Errorf("%s: %s", name, r)
		}
	}
	p.begin(func(e exchange) exchange {
		if strings.HasPrefix(e.path, "/crates-io/index/") {
			e.status, e.body = http.StatusGatewayTimeout, []byte("not held\n")
		}
		return e
	})
	mustFail(t, u.aln(folder, "log", "check", "--full"), "in the log but not in the index")

	// What a rule denies is marked yanked, and a private name is nobody's any more: that is as it should be.
	p.begin(nil)
	must(t, u.aln(folder, "settings", "set", "--min-age-days", "3650", "--add-private-name", "ry"))
	token := u.session(particle.ScopeRead, time.Minute)
	if status, _, file := l.get("/crates-io/index/"+testbed.IndexPath("itoa"), token); status != 200 || !strings.Contains(string(file), `"yanked":true`) {
		t.Errorf("%d: %s", status, file)
	}
	if status, _, _ := l.get("/upstream/bonn/index/"+testbed.IndexPath("ryu"), token); status != 404 {
		t.Errorf("a private name is served: %d", status)
	}
	must(t, u.aln(folder, "log", "check", "--full"))
}

// A registry that leaves an upstream out of its list hides nothing by that: the log names it.
// What is not served of it at all is a failure, unless whoever checks knows that it was ended.
func TestAnUpstreamLeftOutOfTheListIsFoundOut(t *testing.T) {
	l, p := newWatchedUpstreamLab(t)
	u := l.operator
	folder := lockedProject(u, p.URL, "itoa")
	itoa := l.newest("itoa")
	unlisted := func(e exchange) exchange {
		if e.path == "/v1/upstreams" {
			e.body = []byte(`{"offline":false,"upstreams":[]}`)
		}
		return e
	}
	unserved := func(prefix string) func(e exchange) exchange {
		return func(e exchange) exchange {
			if strings.HasPrefix(e.path, prefix) {
				e.status, e.body = http.StatusNotFound, []byte(`{"errors":[{"detail":"no such upstream"}]}`)
			}
			return unlisted(e)
		}
	}
	lying := func(e exchange) exchange {
		if strings.HasPrefix(e.path, "/crates-io/index/") && e.status == http.StatusOK {
			e.body = []byte(strings.Replace(string(e.body), itoa.Cksum, strings.Repeat("0", 64), 1))
		}
		return unlisted(e)
	}
	p.begin(unlisted)
	must(t, u.aln(folder, "log", "check", "--full"))
	p.begin(lying)
	full := mustFail(t, u.aln(folder, "log", "check", "--full"))
	wantSays(t, full.stdout, "crates-io: itoa@"+itoa.Vers+": the index says checksum 0000")

	p.begin(unserved("/upstream/bonn/"))
	full = mustFail(t, u.aln(folder, "log", "check", "--full"))
	wantSays(t, full.stdout, "FAIL  index: upstream/bonn: the log has ", "neither lists it nor serves its index", "--ended bonn", "the index differs in 1 place")
	full = must(t, u.aln(folder, "log", "check", "--full", "--ended", "bonn"))
	wantSays(t, full.stdout, "in the log and in no index, and not compared: you say that it takes no crates from there any more (--ended)")
	wantSays(t, must(t, u.aln(folder, "log", "check", "--full", "--json", "--ended", "bonn")).stdout, `"ended": `)
	mustFail(t, u.aln(folder, "log", "check", "--full", "--ended", "crates-io"))
	if r := u.aln(folder, "log", "check", "--ended", "bonn"); r.status != 2 {
		t.Errorf("--ended without --full: %s", r)
	}
	p.begin(unserved("/crates-io/index/"))
	full = mustFail(t, u.aln(folder, "log", "check", "--full"))
	wantSays(t, full.stdout, "FAIL  index: crates-io: the log has ")

	// That it is offline is believed, and said.
	p.begin(func(e exchange) exchange {
		switch {
		case e.path == "/v1/upstreams":
			e.body = []byte(strings.Replace(string(e.body), `"offline":false`, `"offline":true`, 1))
		case strings.HasPrefix(e.path, "/crates-io/index/"):
			e.status, e.body = http.StatusGatewayTimeout, []byte("not held\n")
		}
		return e
	})
	full = must(t, u.aln(folder, "log", "check", "--full"))
	wantSays(t, full.stdout, "and not compared: the registry says that it is offline and does not hold them: its word")

	// What was found is said, though the registry answers for none of its yanks.
	p.begin(func(e exchange) exchange {
		switch {
		case e.path == "/v1/decisions":
			e.status, e.body = http.StatusInternalServerError, []byte("{}")
		case strings.HasPrefix(e.path, "/upstream/bonn/index/") && e.status == http.StatusOK:
			e.body = []byte(strings.Replace(string(e.body), `"yanked":false`, `"yanked":true`, 1))
		}
		return lying(e)
	})
	full = mustFail(t, u.aln(folder, "log", "check", "--full"), "the indexes were not compared to their end: ")
	wantSays(t, full.stdout, "crates-io: itoa@"+itoa.Vers+": the index says checksum 0000")
}

// Before anybody fetched a crate a rule that looks inside says nothing of it: preflight says
// so, with a status of its own, and is content once it was prefetched.
func TestPreflightWaitsForPrefetch(t *testing.T) {
	l := newUpstreamLab(t)
	u := l.operator
	folder := l.needing(u, "itoa", `itoa = "1"`)
	must(t, u.cargo(folder, "generate-lockfile"))
	l.offer("lonely", 1, 1000)
	must(t, u.aln(folder, "prefetch", "--all-versions-of", "lonely-0"))
	one := must(t, u.aln(folder, "why", "lonely-0@1.0.0", "--source", "crates-io")).stdout
	wantSays(t, one, "its bytes were looked through for what the rule is about, and nothing of it was found")
	if all := must(t, u.aln(folder, "why", "lonely-0", "--source", "crates-io")).stdout; all != one {
		t.Errorf("of the only version is said\n%s\nand by its name\n%s", all, one)
	}
	must(t, u.aln(folder, "member", "add", u.did(), "--role", "publisher", "--role", "grantor"))
	must(t, u.aln(folder, "grant", "new", "--subject", u.did(), "--from-lockfile", "Cargo.lock"))
	first := mustFail(t, u.aln(folder, "preflight"), "FAIL prefetch: itoa", "is not looked into yet", "aln-registry prefetch Cargo.lock")
	if first.status != 3 || strings.Contains(first.stdout, "FAIL crates") {
		t.Errorf("%s", first)
	}
	unknown := mustFail(t, u.aln(folder, "why", "itoa", "--source", "crates-io"), ": not known yet, by rule quarantine ", "its bytes have not yet been looked through", " | aln-registry prefetch -\n")
	if strings.Contains(unknown.stdout, ": denied") {
		t.Errorf("what was not looked into is said to be denied:\n%s", unknown)
	}
	must(t, u.aln(folder, "prefetch", "Cargo.lock"))
	wantSays(t, must(t, u.aln(folder, "preflight")).stdout, "note: 1 crate comes through this registry from crates.io")
	must(t, u.aln(folder, "why", "itoa", "--source", "crates-io"))
	mustFail(t, u.aln(folder, "why", "itoa"), "there is no crate named", "crates-io has it: `aln-registry why itoa --source crates-io`")
	mustFail(t, u.aln(folder, "verify", "lonely-0@1.0.0"), "crates-io has it: `aln-registry verify lonely-0@1.0.0 --source crates-io`")
	for _, what := range []string{"lonely-0", "lonely-0@1.0.0"} {
		mustFail(t, u.aln(folder, "get", what), "crates-io has it: cargo fetches that", "`aln-registry why "+what+" --source crates-io`")
	}
	if _, err := os.Stat(filepath.Join(u.cargoHome, "registry", "cache")); err == nil {
		t.Error("cargo has fetched what preflight was to look at")
	}
}
