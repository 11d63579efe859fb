package integration

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// namedLab takes crates from a registry called bonn, which wants a token and is reached by a
// proxy alone, and from the same as near, without the proxy.
type namedLab struct {
	*lab
	crates *testbed.CratesServer
	proxy  *connectProxy
	token  string // the file
	spoken []byte // all that was answered, for secrets
}

const (
	firstToken  = "Bearer first-s3cr3t-of-bonn"
	secondToken = "Bearer second-s3cr3t-of-bonn"
)

func newNamedLab(t *testing.T) *namedLab {
	t.Helper()
	l := &namedLab{crates: testbed.CratesIO(t), token: filepath.Join(t.TempDir(), "token")}
	l.crates.RequireToken(firstToken)
	l.write(t, firstToken)
	l.proxy = newConnectProxy(t, l.crates.Address(), l.crates.Address())
	files := "?token_file=" + url.QueryEscape(l.token) + "&ca=" + url.QueryEscape(l.crates.CA())
	l.lab = newLab(t, "--upstream", "none", "--upstream-fresh", "0s",
		"--upstream", "bonn="+l.crates.Index()+files+"&proxy="+url.QueryEscape("http://"+l.proxy.address),
		"--upstream", "near="+l.crates.Index()+files)
	return l
}

func (l *namedLab) write(t testing.TB, token string) {
	t.Helper()
	if err := os.WriteFile(l.token, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// wants asks for the index file of a crate that nobody asked for before.
func (l *namedLab) wants(upstream string, line testbed.IndexLine, status int, words string) {
	l.t.Helper()
	token := l.operator.session(particle.ScopeRead, time.Minute)
	f := l.fetch(http.DefaultClient, "/upstream/"+upstream+"/index/"+testbed.IndexPath(strings.ToLower(line.Name)), token)
	if f.status != status || !strings.Contains(string(f.body), words) {
		l.t.Errorf("%s; want %d that says %q", f, status, words)
	}
	l.spoken = append(l.spoken, f.body...)
}

// Another registry that wants a token and is reached by a proxy is to cargo one as any other;
// the token goes to it alone, and is read again for every request.
func TestANamedUpstreamIsReachedWithATokenByAProxy(t *testing.T) {
	l := newNamedLab(t)
	u := l.operator
	folder := filepath.Join(u.folder, "needing")
	writeFiles(t, folder, map[string]string{
		"Cargo.toml": "[package]\nname = \"needing\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\n" +
			"semver = { version = \"*\", registry = \"bonn\" }\nsyn = { version = \"*\", registry = \"bonn\" }\n[workspace]\n",
		"src/lib.rs":         "",
		".cargo/config.toml": "[registries.bonn]\nindex = \"sparse+" + l.url + "/upstream/bonn/index/\"\n",
	})
	u.login(l.lab, folder)
	must(t, u.cargo(folder, "fetch"))
	lock, err := os.ReadFile(filepath.Join(folder, "Cargo.lock"))
	if err != nil || !bytes.Contains(lock, []byte("/upstream/bonn/index/")) || !bytes.Contains(lock, []byte(`name = "unicode-ident"`)) {
		t.Errorf("%v\n%s", err, lock)
	}
	held := fmt.Sprintf("%d crates are held: %[1]d were there already, 0 were fetched now", len(lockedCrates(t, folder)))
	wantSays(t, must(t, u.aln(folder, "prefetch", "Cargo.lock")).stdout, held, "kept as needing/Cargo.lock until")
	inLock := lockedCrates(t, folder)[slices.IndexFunc(lockedCrates(t, folder), func(c lockedCrate) bool { return c.Name == "quote" })]
	extra := sized(t, 1, 20<<10, 90<<10)[0] // that the lock has not
	writeFiles(t, folder, map[string]string{"list.txt": inLock.Name + " " + inLock.Version + "\n" + extra.Name + " " + extra.Vers + " " + extra.Cksum + "\n"})
	listed := must(t, u.aln(folder, "prefetch", "--from", "bonn", "list.txt")).stdout
	if wantSays(t, listed, "2 crates are held: 1 was there already, 1 was fetched now"); strings.Contains(listed, "kept") {
		t.Errorf("a list is kept that nobody asked for: %s", listed)
	}
	asked := l.crates.Asked()
	for _, one := range asked {
		if !l.proxy.reached(one.From) {
			t.Errorf("%s was asked round the proxy, from %s", one.Path, one.From)
		}
		if one.Authorization != firstToken || !strings.HasPrefix(one.UserAgent, "aln-registry/") || one.Proto != "HTTP/2.0" {
			t.Errorf("%s was asked by %s with Authorization %q as %q", one.Path, one.Proto, one.Authorization, one.UserAgent)
		}
	}
	tunnels := 0
	for _, n := range l.proxy.count() {
		tunnels += n
	}
	if len(asked) < 5 || tunnels == 0 {
		t.Errorf("%d requests by %d tunnels", len(asked), tunnels)
	}
	l.tokensAreReadAgain()
	l.tokensStay()
	must(t, u.aln(folder, "log", "check", "--full"))
}

// tokensAreReadAgain replaces the token upstream, and then here.
func (l *namedLab) tokensAreReadAgain() {
	l.t.Helper()
	lines := sized(l.t, 5, 100<<10, 1<<20)
	l.crates.RequireToken(secondToken)
	l.wants("bonn", lines[0], http.StatusBadGateway, "upstream refuses: HTTP 401")
	l.write(l.t, secondToken)
	l.wants("bonn", lines[1], http.StatusOK, lines[1].Name)
	for what, do := range map[string]func() error{
		"it is not there": func() error { return os.Remove(l.token) },
		"it is empty":     func() error { return os.WriteFile(l.token, []byte("\n"), 0o600) },
		"it is two lines": func() error { return os.WriteFile(l.token, []byte(secondToken+"\nmore"), 0o600) },
	} {
		if err := do(); err != nil {
			l.t.Fatal(err)
		}
		before := len(l.crates.Asked())
		l.wants("bonn", lines[2], http.StatusServiceUnavailable, "its token_file cannot be used now; this registry's log says why")
		if asked := len(l.crates.Asked()); asked != before {
			l.t.Errorf("%s, and upstream is asked without", what)
		}
		wantSays(l.t, must(l.t, l.operator.aln(l.operator.folder, "upstream", "list")).stdout, "in trouble: its token_file cannot be used now (missing, ")
		wantSays(l.t, l.operator.aln(l.operator.folder, "doctor").stdout, "warn upstreams of ", "has given nothing since this: its token_file cannot be used now", "token_file=) of bonn")
		l.write(l.t, secondToken)
		eventually(l.t, 20*time.Second, "upstream is asked again", func() bool {
			token := l.operator.session(particle.ScopeRead, time.Minute)
			return l.fetch(http.DefaultClient, "/upstream/bonn/index/"+testbed.IndexPath(lines[3].Name), token).status == http.StatusOK
		})
		time.Sleep(2 * time.Second) // that what failed is left alone
	}
	if log := l.log(); !strings.Contains(log, l.token) {
		l.t.Error("the log does not say which file it is")
	}
	l.wants("bonn", lines[2], http.StatusOK, lines[2].Name)
	// A redirect to another host goes there without the token, and so upstream refuses.
	l.crates.Use(testbed.IndexFile(strings.ToLower(lines[4].Name)), testbed.RedirectsElsewhere(), 0)
	l.crates.Forget()
	l.wants("near", lines[4], http.StatusBadGateway, "upstream refuses: HTTP 401")
	elsewhere := 0
	for _, one := range l.crates.Asked() {
		if strings.HasPrefix(one.Path, "/moved/") {
			elsewhere++
			if one.Authorization != "" {
				l.t.Errorf("%s, on another host, was asked with Authorization %q", one.Path, one.Authorization)
			}
		}
	}
	if elsewhere != 1 {
		l.t.Errorf("the other host was asked %d times", elsewhere)
	}
}

// tokensStay looks for the tokens, and for where they are, in all that the registry said.
func (l *namedLab) tokensStay() {
	l.t.Helper()
	told := map[string]string{"answers": string(l.spoken), "the log": l.log()}
	for path, scope := range map[string]string{"/metrics": particle.ScopeAudit, "/v1/audit": particle.ScopeAudit, "/v1/upstreams": particle.ScopeRead, "/v1/upstreams/bonn/alarms": particle.ScopeAudit} {
		status, header, body := l.get(path, l.operator.session(scope, time.Minute))
		if status != http.StatusOK {
			l.t.Errorf("%s: %d %s", path, status, body)
		}
		told[path] = string(body)
		for name, values := range header {
			told[path] += name + strings.Join(values, " ")
		}
	}
	for _, file := range []string{"upstream list", "upstream alarms bonn", "doctor"} {
		r := l.operator.aln(l.operator.folder, strings.Fields(file)...)
		told[file] = r.stdout + r.stderr
	}
	for where, text := range told {
		for _, secret := range []string{"s3cr3t", l.token} {
			if strings.Contains(text, secret) && !(where == "the log" && secret == l.token) {
				l.t.Errorf("%s has %q:\n%s", where, secret, text)
			}
		}
	}
}

// Two upstreams that serve the same crates: one of which both have served is held of both, one that
// only the first has served is not to be had of the other where nobody is asked.
func TestWhatIsHeldIsHeldOfWhoServedIt(t *testing.T) {
	l := newNamedLab(t)
	lines := sized(t, 2, 20<<10, 1<<20)
	dl := func(upstream string, line testbed.IndexLine) string {
		return "/upstream/" + upstream + "/dl/" + line.Name + "/" + line.Vers + "/" + line.Cksum
	}
	l.operator.login(l.lab, l.operator.folder)
	token := l.operator.session(particle.ScopeRead, 20*time.Minute)
	for _, upstream := range []string{"bonn", "near"} {
		for i, line := range lines {
			l.wants(upstream, line, http.StatusOK, `"`+line.Vers+`"`)
			if upstream == "near" && i == 1 {
				continue
			}
			if f := l.fetch(http.DefaultClient, dl(upstream, line), token); f.status != http.StatusOK {
				t.Errorf("%s", f)
			}
		}
	}
	if n := l.crates.Requests(testbed.Download(lines[0].Name, lines[0].Vers)); n != 2 {
		t.Errorf("what both serve was asked for %d times", n)
	}
	eventually(t, time.Minute, "all is held", func() bool {
		db := l.openCatalog()
		defer db.Close()
		served, err := db.UpstreamSourcesAfter(t.Context(), catalog.UpstreamSource{}, 10)
		return err == nil && len(served) == 3
	})
	l.stop()
	l.flags = append(l.flags, "--offline")
	l.start()
	token = l.operator.session(particle.ScopeRead, 20*time.Minute)
	for _, upstream := range []string{"bonn", "near"} {
		for i, line := range lines {
			status := http.StatusOK
			if upstream == "near" && i == 1 {
				status = http.StatusNotFound
			}
			file := l.fetch(http.DefaultClient, "/upstream/"+upstream+"/index/"+testbed.IndexPath(strings.ToLower(line.Name)), token)
			if listed := strings.Contains(string(file.body), line.Cksum); listed != (status == http.StatusOK) {
				t.Errorf("%s lists %s: %v", upstream, line.Name, listed)
			}
			if f := l.fetch(http.DefaultClient, dl(upstream, line), token); f.status != status {
				t.Errorf("%s: %s; want %d", upstream, f, status)
			}
		}
	}
}
