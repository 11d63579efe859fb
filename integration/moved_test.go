package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/registry/record"
)

// move stops the server and starts it again at another address, as the settings
// name it beside the old one; it returns both URLs.
func (l *lab) move() (old, now string) {
	l.t.Helper()
	old, now = l.url, "http://"+steadyAddress(l.t)
	l.goesBy(now, old)
	l.stop()
	l.url = now
	l.start()
	return old, now
}

// goesBy makes the settings name these URLs.
func (l *lab) goesBy(urls ...string) {
	l.t.Helper()
	_, _, _, err := l.operator.registry().ChangeSettings(context.Background(), nil, func(s *record.Registry) error {
		s.IndexURLs = nil
		for _, url := range urls {
			s.IndexURLs = append(s.IndexURLs, client.IndexURL(url))
		}
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

// A registry goes to another host and port. Who knew it logs in to the new URL
// and is the same person at the same registry; the project, its lock file and the
// crates that name the old URL go on.
func TestARegistryThatMoved(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	u := l.operator
	must(t, u.publish(l, u.crate("below", "0.1.0", "", "pub fn n() -> u32 { 7 }\n")))
	needsBelow := "[dependencies]\nbelow = { version = \"0.1\", registry = \"aln\" }\n"
	must(t, u.publish(l, u.crate("above", "0.1.0", needsBelow, "pub fn n() -> u32 { below::n() }\n")))
	// Packaged while the project names the old URL, uploaded after the move.
	late := u.crate("late", "0.1.0", needsBelow, "pub fn n() -> u32 { below::n() }\n")
	u.login(l, late)
	packaged := u.packaged(late, "late", "0.1.0")
	builder := l.newMember()
	needs := "[dependencies]\nabove = { version = \"0.1\", registry = \"aln\" }\n"
	app := builder.crate("app", "0.1.0", needs, "pub fn m() -> u32 { above::n() }\n")
	builder.login(l, app)
	must(t, builder.cargo(app, "build"))
	self, size := builder.did(), l.logSize()

	old, now := l.move()
	wantSays(t, textOf(t, filepath.Join(app, ".cargo", "config.toml")), old)
	mustFail(t, builder.aln(app, "log", "check"), "cannot reach the registry at "+old)
	login := must(t, builder.aln(app, "login", now))
	wantSays(t, login.stdout, now+" is the registry you know", self, "You are a member",
		"note: sparse+"+old+"/index/ is this registry too; what is called so is asked for at "+now,
		filepath.Join(app, ".cargo", "config.toml"), filepath.Join(app, "Cargo.lock"))
	for _, name := range []string{".cargo/config.toml", "Cargo.lock"} {
		if text := textOf(t, filepath.Join(app, name)); strings.Contains(text, old) || !strings.Contains(text, "sparse+"+now+"/index/") {
			t.Errorf("%s says\n%s", name, text)
		}
	}
	if builder.did() != self || len(files(t, builder.home, "keys")) != 1 {
		t.Error("the move made another identity")
	}
	pins := builder.pins()
	if len(pins) != 2 || pins[0].Origin != pins[1].Origin || pins[0].Entry0 != pins[1].Entry0 || pins[0].URL != now || pins[1].URL != now || pins[0].Size() <= size {
		t.Errorf("pins: %+v", pins)
	}
	again := must(t, builder.aln(app, "login", now))
	if strings.Contains(again.stdout, "wrote") || strings.Contains(again.stdout, "note:") {
		t.Errorf("again:\n%s", again)
	}

	// The same build from an empty CARGO_HOME, by the lock file as it was resolved.
	for _, folder := range []string{filepath.Join(builder.cargoHome, "registry"), filepath.Join(app, "target")} {
		if err := os.RemoveAll(folder); err != nil {
			t.Fatal(err)
		}
	}
	must(t, builder.cargo(app, "build", "--locked"))
	must(t, builder.aln(app, "verify"))
	must(t, builder.aln(app, "log", "check", "--full"))

	// A crate whose Cargo.toml says registry-index = the old URL is ours still.
	must(t, u.aln(u.folder, "login", now))
	if status, body, err := u.signUpload("late", "0.1.0", packaged).send(l); err != nil || status != http.StatusOK {
		t.Fatalf("status %d: %s, %v", status, body, err)
	}
	newcomer := l.newMember()
	fresh := newcomer.crate("fresh", "0.1.0", "[dependencies]\nlate = { version = \"0.1\", registry = \"aln\" }\n", "pub fn m() -> u32 { late::n() }\n")
	newcomer.login(l, fresh)
	must(t, newcomer.cargo(fresh, "build"))
	must(t, newcomer.aln(fresh, "verify"))

	theOldNameGoesOn(t, l, builder, app, old)
	theOldNameIsGivenUp(t, l, builder, old)
}

// theOldNameIsGivenUp: who logs in once the settings name the old URL no more
// sends no session there any longer; a project that still names it is led on.
func theOldNameIsGivenUp(t *testing.T, l *lab, u *user, old string) {
	t.Helper()
	l.goesBy(l.url)
	committed := filepath.Join(u.folder, "committed")
	writeFiles(t, committed, map[string]string{".cargo/config.toml": "[registries.aln]\nindex = \"sparse+" + old + "/index/\"\n"})
	login := must(t, u.aln(committed, "login", l.url))
	wantSays(t, login.stdout, "note: sparse+"+old+"/index/ is forgotten", filepath.Join(committed, ".cargo", "config.toml"))
	if pins := u.pins(); len(pins) != 1 || pins[0].URL != l.url {
		t.Errorf("pins: %+v", pins)
	}
	if config := textOf(t, filepath.Join(committed, ".cargo", "config.toml")); strings.Contains(config, old) || !strings.Contains(config, l.url) {
		t.Errorf("the project says\n%s", config)
	}
	must(t, u.cargo(committed, "build"))
}

// theOldNameGoesOn: a project that still names the old URL, where that leads to
// the server again, is served by the provider without another login; and another
// registry that answers there is not taken for it.
func theOldNameGoesOn(t *testing.T, l *lab, u *user, app, old string) {
	t.Helper()
	target, err := url.Parse(l.url)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(target))
	front.Listener.Close()
	front.Listener = listenOn(t, strings.TrimPrefix(old, "http://"))
	front.Start()
	committed := filepath.Join(u.folder, "committed")
	writeFiles(t, committed, map[string]string{
		".cargo/config.toml": "[registries.aln]\nindex = \"sparse+" + old + "/index/\"\n",
		"Cargo.toml":         textOf(t, filepath.Join(app, "Cargo.toml")), "src/lib.rs": textOf(t, filepath.Join(app, "src", "lib.rs")),
	})
	must(t, u.cargo(committed, "build"))
	must(t, u.aln(committed, "verify"))
	lib := u.crate("by-the-old-name", "0.1.0", "", "")
	writeFiles(t, lib, map[string]string{".cargo/config.toml": textOf(t, filepath.Join(committed, ".cargo", "config.toml"))})
	must(t, u.cargo(lib, "publish", "--registry", "aln", "--no-verify"))
	login := must(t, u.aln(committed, "login", old))
	wantSays(t, login.stdout, "note: the registry calls itself "+l.url+"; that URL is used")
	front.Close()

	l.stop()
	imposter := newLabAt(t, old)
	mustFail(t, u.aln(committed, "login", old), "this is not the registry that was met before")
	imposter.stop()
	l.start()
}

// A relay under another name serves the true log, but no settings name it: what
// is known of the registry stays as it is.
func TestARelayIsNotTakenForAMove(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	u := l.operator
	lib := u.crate("mine", "0.1.0", "", "")
	u.login(l, lib)
	before := u.pins()
	target, err := url.Parse(l.url)
	if err != nil {
		t.Fatal(err)
	}
	relay := httptest.NewUnstartedServer(nil)
	relayed := "http://" + relay.Listener.Addr().String()
	relay.Config.Handler = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(r *http.Response) error {
			if challenge := r.Header.Get("WWW-Authenticate"); challenge != "" {
				r.Header.Set("WWW-Authenticate", strings.ReplaceAll(challenge, l.url, relayed))
			}
			return nil
		},
	}
	relay.Start()
	t.Cleanup(relay.Close)
	mustFail(t, u.aln(lib, "login", relayed), relayed+" shows the log of the registry that you know as "+l.url, "is it the registry's declared URL?")
	if config := textOf(t, filepath.Join(lib, ".cargo", "config.toml")); !strings.Contains(config, l.url) || strings.Contains(config, relayed) {
		t.Errorf("the project was led to the relay:\n%s", config)
	}
	if after := u.pins(); len(after) != 1 || after[0].URL != before[0].URL || after[0].IndexURL != before[0].IndexURL {
		t.Errorf("pins: %+v", after)
	}
	must(t, u.cargo(lib, "publish", "--registry", "aln", "--no-verify"))
}

// A relay whose URL the settings named once has what a member has, shows the log
// without the newest settings, and mints whatever it likes. Neither who knows the
// registry nor who does not yet is led there.
func TestARelayThatSettingsNamedOnceIsNotTakenForAMove(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	u := l.operator
	lib := u.crate("mine", "0.1.0", "", "")
	u.login(l, lib)
	accomplice := l.newMember()
	relay := newRelayOfAMember(t, l, strings.TrimSpace(must(t, accomplice.aln(accomplice.folder, "token", "--lifetime", "30m")).stdout))
	l.goesBy(relay.URL, l.url)
	l.goesBy(l.url)
	before := u.pins()
	refused := "the session that " + relay.URL + " gives you is not from the registry"
	for _, withheld := range []bool{false, true} {
		relay.withholds.Store(withheld)
		if withheld {
			refused = "what the log's keys follow from is for members"
		}
		mustFail(t, u.aln(lib, "login", relay.URL), refused)
		newcomer := newUser(t)
		must(t, newcomer.aln(newcomer.folder, "key", "new"))
		l.admitPublisher(newcomer)
		app := newcomer.crate("app", "0.1.0", "", "")
		mustFail(t, newcomer.aln(app, "login", relay.URL), refused)
		if _, err := os.Stat(filepath.Join(app, ".cargo")); !os.IsNotExist(err) {
			t.Errorf("the project of who never met the registry names the relay: %v", err)
		}
	}
	if config := textOf(t, filepath.Join(lib, ".cargo", "config.toml")); !strings.Contains(config, l.url) || strings.Contains(config, relay.URL) {
		t.Errorf("the project was led to the relay:\n%s", config)
	}
	if after := u.pins(); len(after) != 1 || after[0].URL != before[0].URL || after[0].IndexURL != before[0].IndexURL {
		t.Errorf("pins: %+v", after)
	}
	must(t, u.cargo(lib, "publish", "--registry", "aln", "--no-verify"))
}

// relayOfAMember is a relay that asks as one member, whoever asks it.
type relayOfAMember struct {
	*httptest.Server
	// withholds: it shows nobody what the log's keys follow from.
	withholds atomic.Bool
}

func newRelayOfAMember(t *testing.T, l *lab, token string) *relayOfAMember {
	target, err := url.Parse(l.url)
	if err != nil {
		t.Fatal(err)
	}
	r := &relayOfAMember{Server: httptest.NewUnstartedServer(nil)}
	own := "http://" + r.Listener.Addr().String()
	pass := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Header.Del("Accept-Encoding")
			if p.In.Header.Get("Authorization") != "" || p.In.URL.Path == "/log/keys" {
				p.Out.Header.Set("Authorization", "Bearer "+token)
			}
		},
		ModifyResponse: func(resp *http.Response) error {
			if challenge := resp.Header.Get("WWW-Authenticate"); challenge != "" {
				resp.Header.Set("WWW-Authenticate", strings.ReplaceAll(challenge, l.url, own))
			}
			if resp.Request.URL.Path == "/log/keys" {
				return withoutTheLastRecord(resp)
			}
			return nil
		},
	}
	r.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case req.URL.Path == "/v1/session":
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","expires_in":600}`, token)
		case req.URL.Path == "/log/keys" && r.withholds.Load():
			http.Error(w, `{"error":{"code":"unauthenticated","detail":"for members"}}`, http.StatusUnauthorized)
		default:
			pass.ServeHTTP(w, req)
		}
	})
	r.Start()
	t.Cleanup(r.Close)
	return r
}

func withoutTheLastRecord(resp *http.Response) error {
	var proof struct {
		Records []json.RawMessage `json:"records"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&proof); err != nil {
		return err
	}
	proof.Records = proof.Records[:len(proof.Records)-1]
	body, err := json.Marshal(proof)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	resp.ContentLength = int64(len(body))
	resp.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return err
}

// pins are those of the user, in the order of their index URLs.
func (u *user) pins() []client.Pin {
	u.t.Helper()
	pins, err := client.OpenHome(u.home).Pins()
	if err != nil {
		u.t.Fatal(err)
	}
	slices.SortFunc(pins, func(a, b client.Pin) int { return strings.Compare(a.IndexURL, b.IndexURL) })
	return pins
}

// files lists a folder of ALN_HOME.
func files(t testing.TB, home, folder string) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(home, folder))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return list
}
