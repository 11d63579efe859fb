package integration

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/registry/particle"
)

// The commands by which people look for crates.
func TestCargoFindsCrates(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	u := l.operator
	must(t, u.publish(l, u.crate("finder", "1.0.0-rc.1", "", "")))
	must(t, u.publish(l, u.crate("finder", "0.9.0", "keywords = [\"lantern\"]\nrust-version = \"1.60\"\n[features]\nbright = []\n", "")))
	must(t, u.publish(l, u.crate("find-more", "2.0.0", "", "")))
	folder := filepath.Join(u.folder, "src", "finder-0.9.0")

	found := must(t, u.cargo(folder, "search", "find", "--registry", "aln"))
	wantSays(t, found.stdout, `finder = "0.9.0"`, `find-more = "2.0.0"`, "# test crate finder")
	found = must(t, u.cargo(folder, "search", "lantern", "--registry", "aln"))
	if !strings.Contains(found.stdout, "finder") || strings.Contains(found.stdout, "find-more") {
		t.Errorf("a search by keyword finds\n%s", found)
	}
	found = must(t, u.cargo(folder, "search", "find", "--limit", "1", "--registry", "aln"))
	wantSays(t, found.stdout, "... and 1 crates more")
	found = must(t, u.cargo(folder, "search", "no such thing%_'", "--registry", "aln"))
	if found.stdout != "" {
		t.Errorf("a search for nothing finds\n%s", found)
	}

	outside := u.crate("outside", "0.1.0", "", "") // in finder's own folder, info would be about what is there
	u.login(l, outside)
	info := must(t, u.cargo(outside, "info", "--registry", "aln", "finder"))
	wantSays(t, info.stdout, "finder", "#lantern", "test crate finder", "version: 0.9.0", "license: MIT", "rust-version: 1.60", "bright")
	mustFail(t, u.cargo(outside, "info", "--registry", "aln", "no-such-crate"), "could not find `no-such-crate`")

	must(t, u.cargo(outside, "add", "--registry", "aln", "finder", "--features", "bright"))
	wantSays(t, textOf(t, filepath.Join(outside, "Cargo.toml")), `finder = { version = "0.9.0", registry = "aln", features = ["bright"] }`)
	mustFail(t, u.cargo(outside, "add", "--registry", "aln", "no-such-crate"), "no-such-crate")
	must(t, u.cargo(outside, "remove", "finder"))
	must(t, u.cargo(outside, "add", "--registry", "aln", "finder@1.0.0-rc.1"))
	must(t, u.cargo(outside, "check", "-q"))
}

// Readers who never logged in read a public index of its own root; the other
// index goes on demanding a session.
func TestAnonymousReadersHaveAnIndexOfTheirOwn(t *testing.T) {
	t.Parallel()
	l := newLab(t, "--anonymous-read")
	author := l.operator
	must(t, author.publish(l, author.crate("below", "0.1.0", "", "pub fn n() -> u32 { 7 }\n")))
	above := author.crate("above", "0.1.0", "[dependencies]\nbelow = { version = \"0.1\", registry = \"aln\" }\n", "pub fn n() -> u32 { below::n() }\n")
	must(t, author.publish(l, above))

	nobody := newUser(t)
	app := filepath.Join(nobody.folder, "app")
	writeFiles(t, app, map[string]string{
		".cargo/config.toml": "[registries.lab]\nindex = \"sparse+" + l.url + "/public/index/\"\n",
		"Cargo.toml":         "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n",
		"src/main.rs":        "fn main() { println!(\"{}\", above::n()); }\n",
	})
	wantSays(t, must(t, nobody.cargo(app, "search", "abo", "--registry", "lab")).stdout, `above = "0.1.0"`)
	must(t, nobody.cargo(app, "add", "--registry", "lab", "above"))
	if ran := must(t, nobody.cargo(app, "run", "-q")); strings.TrimSpace(ran.stdout) != "7" {
		t.Errorf("%s", ran)
	}
	lib := nobody.crate("by-nobody", "0.1.0", "", "")
	writeFiles(t, lib, map[string]string{".cargo/config.toml": textOf(t, filepath.Join(app, ".cargo", "config.toml"))})
	mustFail(t, nobody.cargo(lib, "publish", "--registry", "lab", "--no-verify"), "lab")

	checkAnswers(t, l, "", map[string]int{
		"/index/config.json": 401, "/index/ab/ov/above": 401, "/v1/members": 401, "/v1/records/1": 401, "/v1/heads/crate/above": 401,
		"/public/index/config.json": 200, "/public/index/ab/ov/above": 200, "/public/index/no/pe/nope": 404,
		"/api/v1/crates/above/0.1.0/download": 200, "/api/v1/crates/above/owners": 200, "/api/v1/crates?q=above": 200,
		"/v1/artifacts/crate/above/0.1.0": 200, "/v1/records/0": 200, "/log/checkpoint": 200,
	})
	_, _, public := l.get("/public/index/ab/ov/above", "")
	_, _, own := l.get("/index/ab/ov/above", author.session(particle.ScopeRead, 0))
	if string(public) != string(own) {
		t.Errorf("the two indexes differ:\n%s\n%s", public, own)
	}
}

// Without the flag nobody reads anything but the log and entry 0.
func TestNobodyReadsUnlessAllowed(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	must(t, l.operator.publish(l, l.operator.crate("inside", "0.1.0", "", "")))
	closed := map[string]int{
		"/index/config.json": 401, "/index/in/si/inside": 401, "/api/v1/crates/inside/0.1.0/download": 401,
		"/api/v1/crates/inside/owners": 401, "/api/v1/crates?q=inside": 401, "/v1/members": 401, "/v1/records/2": 401,
		"/v1/heads/crate/inside": 401, "/v1/artifacts/crate/inside/0.1.0": 401, "/v1/artifacts/crate/inside/0.1.0/bundle": 401,
		"/public/index/config.json": 404, "/public/index/in/si/inside": 404,
		"/log/checkpoint": 200, "/log/tile/entries/000.p/3": 200, "/v1/records/0": 200, "/me": 200, "/healthz": 200,
	}
	checkAnswers(t, l, "", closed)
	_, header, _ := l.get("/index/config.json", "")
	if got, want := header.Get("WWW-Authenticate"), `Cargo login_url="`+l.url+`/me"`; got != want {
		t.Errorf("WWW-Authenticate is %q, want %q", got, want)
	}
	for _, bad := range []string{"nonsense", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", strings.Repeat("x", 9000)} {
		if status, _, body := l.get("/index/config.json", bad); status != http.StatusUnauthorized {
			t.Errorf("the token %.20q: status %d: %s", bad, status, body)
		}
	}
	nobody := newUser(t)
	app := nobody.crate("app", "0.1.0", "[dependencies]\ninside = { version = \"0.1\", registry = \"aln\" }\n", "")
	writeFiles(t, app, map[string]string{".cargo/config.toml": "[registries.aln]\nindex = \"sparse+" + l.url + "/index/\"\n[registry]\nglobal-credential-providers = [\"cargo:token\"]\n"})
	mustFail(t, nobody.cargo(app, "fetch"), "no token found for `aln`")
	mustFail(t, nobody.cargo(app, "login", "--registry", "aln"), l.url+"/me")
}

func checkAnswers(t *testing.T, l *lab, token string, want map[string]int) {
	t.Helper()
	for path, status := range want {
		if got, _, body := l.get(path, token); got != status {
			t.Errorf("%s: status %d, want %d: %.200s", path, got, status, body)
		}
	}
}
