package web

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/storage"
)

const readme = "# Secret handbook\n\nHow to use it.\n"

// secrets are names and texts that only readers may see.
var secrets = []string{"secret-crate", "secret_crate", "hidden words", "secret-key-word", "handbook"}

func (l *lab) fill() {
	l.t.Helper()
	l.publish("secret-crate", "0.1.0", "description = \"hidden words\"\nkeywords = [\"secret-key-word\"]\nlicense = \"MIT\"\n", [2]string{"README.md", readme})
	l.publish("secret-crate", "0.2.0", "description = \"hidden words\"\nkeywords = [\"secret-key-word\"]\nlicense = \"MIT\"\nhomepage = \"https://home.example\"\n"+
		"[dependencies]\nserde = { version = \"1\", optional = true }\n[features]\ndefault = []\nextra = [\"dep:serde\"]\n", [2]string{"README.md", readme})
	l.yank("secret-crate", "0.1.0")
}

// privatePages are paths below which there is something to hide, those with a
// name beside the same with a name that nobody has.
var privatePages = [][2]string{
	{"/search?q=secret", "/search?q=nothing"},
	{"/artifacts", ""}, {"/artifacts/crate", ""}, {"/artifacts/aln-shard", "/artifacts/nonsense"},
	{"/artifacts/crate/secret-crate", "/artifacts/crate/other-crate"},
	{"/artifacts/crate/Secret_Crate", "/artifacts/crate/Other_Crate"},
	{"/artifacts/crate/secret-crate/0.1.0", "/artifacts/crate/secret-crate/9.9.9"},
	{"/artifacts/crate/secret-crate/0.2.0", "/artifacts/crate/other-crate/0.2.0"},
	{"/artifacts/crate/secret-crate/0.2.0/download", "/artifacts/crate/other-crate/0.2.0/download"},
	{"/rules", ""}, {"/rules?after=a", ""}, {"/grants", ""},
	{"/log", "/log?before=99"}, {"/record/3", "/record/99"}, {"/record/0", "/record/zz"},
}

func TestStrangersLearnNoNames(t *testing.T) {
	l := newLab(t)
	l.fill()
	principals := map[string]string{
		"nobody": "", "a stranger": l.forge(l.stranger, "read"), "nonsense": "a.b.c",
		"a member without a scope for reading": l.forge(l.member, "chat"),
	}
	expired := l.session(l.member, "read")
	l.ahead.Store(int64(31 * time.Minute))
	principals["an expired member"] = expired
	for who, token := range principals {
		for _, pair := range privatePages {
			there := l.get(pair[0], token)
			if there.Code != http.StatusUnauthorized {
				t.Errorf("%s gets %s: %d", who, pair[0], there.Code)
			}
			if pair[1] != "" {
				if missing := l.get(pair[1], token); missing.Code != there.Code || missing.Body.String() != there.Body.String() || !sameHeaders(missing.Header(), there.Header()) {
					t.Errorf("%s can tell %s from %s", who, pair[0], pair[1])
				}
			}
			head := l.do(httptest.NewRequest(http.MethodHead, pair[0], nil), token)
			if head.Code != there.Code || head.Body.Len() != 0 {
				t.Errorf("%s: HEAD %s: %s", who, pair[0], head)
			}
			for _, secret := range secrets {
				if strings.Contains(strings.ToLower(there.String()), secret) {
					t.Errorf("%s reads %q on %s", who, secret, pair[0])
				}
			}
		}
		for _, open := range []string{"/", "/me", "/no/such/page", "/assets/none"} {
			for _, secret := range secrets {
				if strings.Contains(strings.ToLower(l.get(open, token).String()), secret) {
					t.Errorf("%s reads %q on %s", who, secret, open)
				}
			}
		}
	}
}

func sameHeaders(a, b http.Header) bool {
	for _, h := range []http.Header{a, b} {
		h.Del("Content-Length")
	}
	if len(a) != len(b) {
		return false
	}
	for name := range a {
		if strings.Join(a[name], "|") != strings.Join(b[name], "|") {
			return false
		}
	}
	return true
}

func TestMembersSeeEverything(t *testing.T) {
	l := newLab(t)
	l.fill()
	token := l.session(l.member, "read")
	l.get("/", token).want(t, 200, "Published lately", "secret-crate")
	l.get("/search?q=hidden", token).want(t, 200, "secret-crate", "0.2.0", "hidden words")
	l.get("/search?q=nothing-like-it", token).want(t, 200, "No crate has that")
	l.get("/search?page=0", token).want(t, 400)
	l.get("/search?q="+strings.Repeat("a", 300), token).want(t, 400)
	l.get("/artifacts", token).want(t, 200, "Evidence bundles")
	l.get("/artifacts/crate", token).want(t, 200, "secret-crate")
	l.get("/artifacts/aln-shard", token).want(t, 200, "aln-registry publish FILE --kind aln-shard")
	page := l.get("/artifacts/crate/secret-crate", token).want(t, 200, "hidden words", "0.2.0", "0.1.0", "yanked", "Secret handbook",
		"cargo add --registry aln secret-crate", "aln-registry verify", string(didOf(l.member)), "bafkrei", "MIT", "https://home.example", "serde", "extra",
		`href="/record/4"`, `/artifacts/crate/secret-crate/0.2.0/download`)
	if strings.Contains(page.Body.String(), "A newer version is out") {
		t.Error("the newest version is said not to be")
	}
	l.get("/artifacts/crate/secret-crate/0.1.0", token).want(t, 200, "This version was yanked", "A newer version is out", "crate/secret-crate@0.1.0")
	moved := l.get("/artifacts/crate/Secret_Crate/0.1.0", token).want(t, 302)
	if to := moved.Header().Get("Location"); to != "/artifacts/crate/secret-crate/0.1.0" {
		t.Errorf("another spelling leads to %s", to)
	}
	for _, missing := range []string{"/artifacts/crate/none", "/artifacts/crate/secret-crate/7.7.7", "/artifacts/nonsense", "/artifacts/crate/%00", "/artifacts/crate/secret-crate?page=9", "/log?before=0", "/log?before=9999", "/record/9999", "/record/-1", "/record/zz", "/nothing"} {
		l.get(missing, token).want(t, 404, "There is nothing here under that name")
	}
	l.get("/log", token).want(t, 200, "publish", "yank", "member", "crate/secret-crate@0.1.0", "signed checkpoint")
	l.get("/record/3", token).want(t, 200, "urn:aln-registry:publish:v1", "crate/secret-crate@0.1.0")
	l.get("/record/0", token).want(t, 200, "urn:aln-registry:registry:v1", "the log begins here")
	file := l.get("/artifacts/crate/secret-crate/0.2.0/download", token).want(t, 200)
	if h := file.Header(); h.Get("Content-Type") != "application/octet-stream" || !strings.Contains(h.Get("Content-Disposition"), `attachment; filename="secret-crate-0.2.0.crate"`) || !strings.Contains(h.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("%v", h)
	}
}

// Records of authority are for members, whoever may read artifacts.
func TestAnonymousReadersSeeNoRecordsOfAuthority(t *testing.T) {
	l := newLab(t, anonymous)
	l.fill()
	l.get("/artifacts/crate/secret-crate", "").want(t, 200, "hidden words", "Secret handbook")
	log := l.get("/log", "").want(t, 200, "for members", "crate/secret-crate@0.1.0")
	if strings.Contains(log.Body.String(), "member "+string(didOf(l.member))) {
		t.Error("the log tells everybody who is a member")
	}
	l.get("/record/3", "").want(t, 200)
	l.get("/record/2", "").want(t, 401, "For members only")
	l.get("/record/0", "").want(t, 200)
	l.get("/", "").want(t, 200, "Everybody may read it", "secret-crate", `index = "sparse&#43;http://127.0.0.1:8585/public/index/"`)
	if member := l.get("/", l.session(l.member, "read")); strings.Contains(member.Body.String(), "[registries.aln]") {
		t.Error("a member is told to read the public index")
	}
}

func TestEveryAnswerForbidsScriptsAndForeigners(t *testing.T) {
	l := newLab(t)
	l.fill()
	token := l.session(l.member, "read")
	paths := []string{"/", "/me", "/nothing", "/assets/none", "/assets/" + assets["style.css"].name, "/assets/" + assets["icon.svg"].name}
	for _, pair := range privatePages {
		paths = append(paths, pair[0])
	}
	for _, path := range paths {
		for _, who := range []string{"", token} {
			h := l.get(path, who).Header()
			if csp := h.Get("Content-Security-Policy"); csp != policyHeader && !strings.HasSuffix(path, "/download") || !strings.HasPrefix(csp, "default-src 'none'; ") {
				t.Errorf("%s: %s", path, csp)
			}
			for name, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin",
				"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
			} {
				if h.Get(name) != want {
					t.Errorf("%s: %s: %q", path, name, h.Get(name))
				}
			}
			if body := l.get(path, who).Body.String(); strings.HasPrefix(h.Get("Content-Type"), "text/html") && regexp.MustCompile(`(?i)<script|\son[a-z]+=|\sstyle=|<style|https?://[^"]*\.(css|js|png|woff)`).MatchString(body) {
				t.Errorf("%s holds script, style or something remote", path)
			}
		}
	}
}

func TestWhatIsCached(t *testing.T) {
	l := newLab(t)
	token := l.session(l.member, "read")
	style := l.get("/assets/"+assets["style.css"].name, "").want(t, 200)
	if c := style.Header().Get("Cache-Control"); c != "public, max-age=31536000, immutable" {
		t.Errorf("style: %s", c)
	}
	if c := l.get("/", token).Header().Get("Cache-Control"); c != "private, no-store" {
		t.Errorf("a member's page: %s", c)
	}
	open := l.get("/", "")
	if c, etag := open.Header().Get("Cache-Control"), open.Header().Get("ETag"); c != "private, no-cache" || etag == "" || open.Header().Get("Vary") != "Cookie" {
		t.Errorf("everybody's page: %v", open.Header())
	}
	again := httptest.NewRequest(http.MethodGet, "/", nil)
	again.Header.Set("If-None-Match", open.Header().Get("ETag"))
	if r := l.do(again, ""); r.Code != http.StatusNotModified || r.Body.Len() != 0 {
		t.Errorf("%s", r)
	}
}

func TestLinksBeginWithThePublicURLsPrefix(t *testing.T) {
	l := newLab(t, func(c *registry.Config) { c.PublicURL = "https://labs.example/registry" })
	l.fill()
	token := l.session(l.member, "read")
	link := regexp.MustCompile(`(?:href|src|action)="(/[^"]*)"`)
	for _, path := range []string{"/", "/me", "/artifacts", "/artifacts/crate", "/artifacts/crate/secret-crate", "/rules", "/grants", "/log", "/record/3", "/nothing", "/search?q=secret"} {
		page := l.get(path, token)
		for _, found := range link.FindAllStringSubmatch(page.Body.String(), -1) {
			if !strings.HasPrefix(found[1], "/registry/") {
				t.Errorf("%s links to %s", path, found[1])
			}
		}
	}
	signedIn := l.post("/me", "", url.Values{"session": {token}}, func(h http.Header) { h.Set("Referer", "https://labs.example/registry/artifacts/crate/secret-crate") }).want(t, 303)
	if to := signedIn.Header().Get("Location"); to != "/registry/artifacts/crate/secret-crate" {
		t.Errorf("led to %s", to)
	}
	if c := signedIn.Header().Get("Set-Cookie"); !strings.HasPrefix(c, "__Secure-aln-session-") || !strings.Contains(c, "; Path=/registry;") || !strings.Contains(c, "; Secure") {
		t.Errorf("cookie: %s", c)
	}
}

func TestLongListsAreTurnedOver(t *testing.T) {
	l := newLab(t)
	for i := range perPage + 1 {
		l.publish("many", fmt.Sprintf("0.%d.0", i), "")
	}
	token := l.session(l.member, "read")
	first := l.get("/artifacts/crate/many", token).want(t, 200, ">0.50.0<", `href="/artifacts/crate/many?page=2#versions"`)
	if strings.Contains(first.Body.String(), ">0.0.0<") {
		t.Error("the first page shows all")
	}
	second := l.get("/artifacts/crate/many?page=2", token).want(t, 200, ">0.0.0<", `href="/artifacts/crate/many#versions"`)
	if strings.Contains(second.Body.String(), ">0.49.0<") {
		t.Error("the second page begins anew")
	}
	l.get("/artifacts/crate/many/0.7.0?page=2", token).want(t, 200, "cargo add --registry aln many@=0.7.0", `href="/artifacts/crate/many/0.7.0#versions"`)
	size := int(l.registry.Size())
	l.get("/log", token).want(t, 200, fmt.Sprintf(`href="/log?before=%d"`, size-perPage))
	l.get(fmt.Sprintf("/log?before=%d", size-perPage), token).want(t, 200, fmt.Sprintf(`href="/log?before=%d"`, size), "registry")
	for i := range perPage {
		l.publish(fmt.Sprintf("other-%d", i), "1.0.0", "")
	}
	l.get("/artifacts/crate", token).want(t, 200, "1–50 of 51 crates", `href="/artifacts/crate?page=2"`)
	l.get("/search?q=other", token).want(t, 200, "50 crates")
	l.get("/artifacts/crate?page=2", token).want(t, 200, "51–51 of 51 crates", `href="/artifacts/crate"`)
	l.get("/artifacts/crate?page=99", token).want(t, 404)
}

// A page says what can be done: cargo adds no yanked version, not even by its number.
func TestYankedVersionsAreNotOffered(t *testing.T) {
	l := newLab(t)
	l.fill()
	token := l.session(l.member, "read")
	l.get("/artifacts/crate/secret-crate/0.2.0", token).want(t, 200, "cargo add --registry aln secret-crate")
	if page := l.get("/artifacts/crate/secret-crate/0.1.0", token).want(t, 200, "This version was yanked", "aln-registry verify"); strings.Contains(page.Body.String(), "cargo add") {
		t.Error("a yanked version is offered")
	}
}

func TestPagesSayInTheirTitleWhatTheyAre(t *testing.T) {
	l := newLab(t)
	l.fill()
	token := l.session(l.member, "read")
	for _, c := range []struct{ path, token, title string }{
		{"/", "", "127.0.0.1:8585"}, {"/me", "", "Sign in · 127.0.0.1:8585"}, {"/me", token, "You · 127.0.0.1:8585"}, {"/log", "", "For members only · 127.0.0.1:8585"},
		{"/search?q=a%26b", token, "Search for “a&amp;b” · 127.0.0.1:8585"}, {"/search", token, "Search · 127.0.0.1:8585"}, {"/artifacts/crate", token, "Crates · 127.0.0.1:8585"},
		{"/artifacts/crate/secret-crate", token, "secret-crate 0.2.0 · 127.0.0.1:8585"}, {"/log", token, "Log · 127.0.0.1:8585"}, {"/record/3", token, "Entry 3 · 127.0.0.1:8585"},
	} {
		if page := l.get(c.path, c.token); !strings.Contains(page.Body.String(), "<title>"+c.title+"</title>") {
			t.Errorf("%s: %s", c.path, page)
		}
	}
}

// A part that does not answer is no failure of the page: the API answers 503 as well.
func TestWhatDoesNotAnswerIsToldAsSuch(t *testing.T) {
	for _, known := range []error{registry.ErrNoDatabase, storage.ErrUnavailable, registry.ErrUnavailable, registry.ErrUnconfirmed} {
		for _, err := range []error{known, fmt.Errorf("read the entry: %w", known)} {
			if told := classify(err); told.Status != http.StatusServiceUnavailable || told.Text == "" {
				t.Errorf("%v: %+v, want 503", err, told)
			}
		}
	}
	if told := classify(errors.New("disk on fire")); told.Status != http.StatusInternalServerError {
		t.Errorf("what is not known: %+v, want 500", told)
	}
}
