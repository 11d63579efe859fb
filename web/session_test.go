package web

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

func TestSignInKeepsASessionInACookieUntilItEnds(t *testing.T) {
	l := newLab(t)
	token := l.session(l.member, "read")
	answer := l.post("/me", "", url.Values{"session": {" " + token + "\n"}}).want(t, http.StatusSeeOther)
	if to := answer.Header().Get("Location"); to != "/" {
		t.Errorf("led to %s", to)
	}
	c, err := http.ParseSetCookie(answer.Header().Get("Set-Cookie"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Value != token || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || c.Secure || c.Name != l.cookieName() {
		t.Errorf("%+v", c)
	}
	if life := time.Duration(c.MaxAge) * time.Second; life < 14*time.Minute || life > 15*time.Minute {
		t.Errorf("lives %s", life)
	}
	l.get("/me", token).want(t, 200, string(didOf(l.member)), "Sign out")
	gone := l.post("/me/sign-out", token, nil).want(t, http.StatusSeeOther)
	if c, err := http.ParseSetCookie(gone.Header().Get("Set-Cookie")); err != nil || c.MaxAge >= 0 || c.Value != "" || c.Name != l.cookieName() {
		t.Errorf("%+v, %v", c, err)
	}
	l.ahead.Store(int64(16 * time.Minute))
	l.get("/artifacts/crate", token).want(t, 401, "Your session has ended")
	ended := l.get("/", token).want(t, 200, "Your session has ended", "For members")
	if !strings.Contains(ended.Header().Get("Set-Cookie"), "Max-Age=0") {
		t.Error("a session that is over is kept")
	}
}

func TestSessionsFollowTheStateOnEveryRequest(t *testing.T) {
	l := newLab(t)
	token := l.session(l.member, "read")
	l.get("/artifacts/crate", token).want(t, 200)
	l.submit(l.admin, record.MemberSubject(didOf(l.member)), &record.Member{Roles: []string{}, Tier: "collaborator", StakeholderAddrs: []string{}})
	l.get("/artifacts/crate", token).want(t, 401)
}

func TestSignInRefuses(t *testing.T) {
	l := newLab(t)
	good := l.session(l.member, "read")
	subject := must(record.VersionSubject(record.KindCrate, "demo", "0.1.0"))
	signed := l.sign(l.member, subject, &record.Publish{Evidence: []storage.CID{}}, [32]byte{1})
	for name, c := range map[string]struct{ session, want string }{
		"nothing":                    {"", "The field was empty"},
		"nonsense":                   {"<script>alert(1)</script>", "not a session of this registry"},
		"a session cut short":        {good[:len(good)-3], "not a session of this registry"},
		"a credential with a record": {credential(good, signed), "not a session of this registry"},
		"a stranger's":               {l.forge(l.stranger, "read"), "is not a member"},
		"one that publishes":         {l.session(l.member, "publish"), "may do more than read"},
		"an admin's":                 {l.session(l.admin, "read admin"), "may do more than read"},
		"one without a known scope":  {l.forge(l.member, "chat"), "not one for reading"},
	} {
		answer := l.post("/me", "", url.Values{"session": {c.session}}).want(t, 400, c.want)
		if answer.Header().Get("Set-Cookie") != "" {
			t.Errorf("%s: %s", name, answer.Header().Get("Set-Cookie"))
		}
		if c.session != "" && strings.Contains(answer.Body.String(), c.session) {
			t.Errorf("%s: the page repeats what was pasted", name)
		}
	}
	l.post("/me", "", url.Values{"session": {strings.Repeat("a", maxForm)}}).want(t, 400, "could not be read")
	l.post("/me", "", url.Values{"session": {good}}, func(h http.Header) { h.Set("Content-Type", "text/plain") }).want(t, 400, "could not be read")
}

// A page elsewhere can neither sign somebody in nor out.
func TestFormsFromElsewhereAreRefused(t *testing.T) {
	l := newLab(t)
	token := l.session(l.member, "read")
	for name, headers := range map[string][2]string{ // Sec-Fetch-Site, Origin
		"another site":            {"cross-site", "https://evil.example"},
		"another port":            {"same-site", "http://127.0.0.1:9999"},
		"typed by hand":           {"none", "null"},
		"an old browser":          {"", "https://evil.example"},
		"a sandboxed frame":       {"", "null"},
		"no browser":              {"", ""},
		"an origin that is alike": {"", "http://127.0.0.1:85850"},
	} {
		set := func(h http.Header) {
			for i, header := range []string{"Sec-Fetch-Site", "Origin"} {
				if h.Del(header); headers[i] != "" {
					h.Set(header, headers[i])
				}
			}
		}
		for _, path := range []string{"/me", "/me/sign-out"} {
			answer := l.post(path, "", url.Values{"session": {token}}, set).want(t, 403, "came from another site")
			if answer.Header().Get("Set-Cookie") != "" {
				t.Errorf("%s: %s sets a cookie", name, path)
			}
		}
	}
	l.post("/me", "", url.Values{"session": {token}}, func(h http.Header) { h.Del("Sec-Fetch-Site") }).want(t, 303)
}

func TestSigningInLeadsBackToAPageOfOurs(t *testing.T) {
	l := newLab(t)
	token := l.session(l.member, "read")
	for from, to := range map[string]string{
		"":                                    "/",
		"http://127.0.0.1:8585/log?x=1":       "/log?x=1",
		"http://127.0.0.1:8585/me":            "/",
		"https://evil.example/artifacts":      "/artifacts", // only ever a path
		"https://evil.example//evil.example/": "/",
		"javascript:alert(1)":                 "/",
		"http://127.0.0.1:8585/\\evil":        "/%5Cevil",
		"http://127.0.0.1:8585/a%0d%0aX: y":   "/a%0D%0AX:%20y",
		"http://127.0.0.1:8585/%2f%2fevil":    "/%2f%2fevil",
		"http://127.0.0.1:8585":               "/",
		"://":                                 "/",
	} {
		answer := l.post("/me", "", url.Values{"session": {token}}, func(h http.Header) { h.Set("Referer", from) }).want(t, 303)
		if got := answer.Header().Get("Location"); got != to {
			t.Errorf("from %q to %q, not %q", from, got, to)
		}
	}
}

func TestCookieOverHTTPSIsTheHostsAlone(t *testing.T) {
	l := newLab(t, func(c *registry.Config) { c.PublicURL = "https://registry.example" })
	token := l.session(l.member, "read")
	c := l.post("/me", "", url.Values{"session": {token}}).want(t, 303).Header().Get("Set-Cookie")
	if !strings.HasPrefix(c, "__Host-aln-session-") || !strings.Contains(c, "; Path=/;") || !strings.Contains(c, "; Secure") || strings.Contains(c, "Domain") {
		t.Error(c)
	}
}

// The cookie is for pages: Authorization is not looked at, nor is a cookie of another name.
func TestPagesLookAtTheirCookieAlone(t *testing.T) {
	l := newLab(t)
	token := l.session(l.member, "read")
	for _, header := range [][2]string{{"Authorization", token}, {"Authorization", "Bearer " + token}, {"Cookie", "aln-session=" + token}, {"Cookie", l.cookieName() + "=" + strings.Repeat("a", maxToken+1)}} {
		r := must(http.NewRequest(http.MethodGet, "/log", nil))
		r.Header.Set(header[0], header[1])
		l.do(r, "").want(t, 401)
	}
}
