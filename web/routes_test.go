package web

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
)

// The visitors of the table, in the order of its columns: the member owns
// nothing, the owner secret-crate.
const (
	nobody = iota
	expired
	wrongScope
	stranger
	member
	owner
	admin
	// guest has no grant, and a tier that reads nothing without one; offshore reads
	// under one that lists nothing.
	guest
	offshore
	visitors
)

var visitorNames = [visitors]string{"nobody", "expired", "wrong scope", "stranger", "member", "owner", "admin", "guest", "offshore"}

// token is the session of a column; that of the wrong scope is a member's.
func (l *lab) token(who int, readerKey did.PrivateKey) string {
	l.t.Helper()
	switch who {
	case nobody:
		return ""
	case expired:
		return l.forgeUntil(l.member, "read", l.now().Add(-time.Second))
	case wrongScope:
		return l.forge(l.member, "chat")
	case stranger:
		return l.forge(l.stranger, "read")
	case member:
		return l.forge(readerKey, "read")
	case owner:
		return l.forge(l.member, "read")
	case guest:
		return l.forge(l.guest, "read")
	case offshore:
		return l.forge(l.offshore, "read")
	}
	return l.forge(l.admin, "read")
}

// forgeUntil is forge for a session that began before and ends at until.
func (l *lab) forgeUntil(who did.PrivateKey, scope string, until time.Time) string {
	return must(policy.SignSession(particle.SessionToken{
		Issuer: l.registry.Origin(), Subject: didOf(who), Audience: l.registry.Origin(), IssuedAt: until.Add(-15 * time.Minute).Unix(),
		Expiry: until.Unix(), ID: "forged", HostDID: string(didOf(who)), Roles: []string{}, Scope: scope,
	}, did.EdDSA, l.keys.Signer()))
}

var (
	everybody = [visitors]int{200, 200, 200, 200, 200, 200, 200, 200, 200}
	readers   = [visitors]int{401, 401, 401, 401, 200, 200, 200, 403, 404}
	lists     = [visitors]int{401, 401, 401, 401, 200, 200, 200, 403, 200} // without what is hidden
	insiders  = [visitors]int{401, 401, 401, 401, 200, 200, 200, 200, 200}
	moved     = [visitors]int{401, 401, 401, 401, 302, 302, 302, 403, 404}
	led       = [visitors]int{303, 303, 303, 303, 303, 303, 303, 303, 303}
)

// pagesTable is every page there is, with the address at which it is tried; a
// page that is not here fails the test. POST /me is about who is in the form,
// not in the cookie.
var pagesTable = map[string]struct {
	path string
	want [visitors]int
}{
	"GET /":                                  {"/", everybody},
	"GET /me":                                {"/me", everybody},
	"POST /me":                               {"/me", [visitors]int{400, 400, 400, 400, 303, 303, 303, 303, 303}},
	"POST /me/sign-out":                      {"/me/sign-out", led},
	"GET /search":                            {"/search?q=secret-key", lists},
	"GET /artifacts":                         {"/artifacts", lists},
	"GET /artifacts/{kind}":                  {"/artifacts/crate", lists},
	"GET /artifacts/{kind}/{name}":           {"/artifacts/crate/secret-crate", readers},
	"GET /artifacts/{kind}/{name}/{version}": {"/artifacts/crate/Secret_Crate/0.1.0", moved},
	"GET /artifacts/{kind}/{name}/{version}/download": {"/artifacts/crate/secret-crate/0.1.0/download", readers},
	"GET /rules":                {"/rules", insiders},
	"GET /grants":               {"/grants", insiders},
	"GET /audit":                {"/audit", [visitors]int{401, 401, 403, 401, 403, 403, 403, 403, 403}}, // to all sessions for reading
	"GET /log":                  {"/log", insiders},
	"GET /record/{id}":          {"/record/2", insiders},
	"GET /record/{id}/snapshot": {"/record/2/snapshot", [visitors]int{401, 401, 401, 401, 404, 404, 404, 404, 404}}, // it has none
	"GET /upstreams":            {"/upstreams", insiders},
	"GET /upstreams/{upstream}": {"/upstreams/crates-io", lists},
	"GET /upstreams/{upstream}/crates/{name}": {"/upstreams/crates-io/crates/secret-crate", readers},
	"GET /upstreams/{upstream}/alarms":        {"/upstreams/crates-io/alarms", [visitors]int{401, 401, 403, 401, 403, 403, 403, 403, 403}},
	"GET /assets/{file}":                      {"/assets/" + assets["style.css"].name, everybody},
}

func TestEveryPageForEverybody(t *testing.T) {
	l := newLab(t)
	l.proxying()
	l.fill()
	l.sees("secret-crate", thereLine("secret-crate", "1.0.0", "theirs", ""))
	reader := must(did.GenerateEd25519(zeros{7}))
	l.admitReader(reader)
	l.admitBound()
	seen := map[string]bool{}
	err := chi.Walk(l.pages.(chi.Routes), func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		name := strings.Replace(method+" "+route, http.MethodHead, http.MethodGet, 1) // HEAD is tried beside GET
		seen[name] = true
		row, ok := pagesTable[name]
		if !ok {
			t.Errorf("%s is not in the table", name)
			return nil
		}
		t.Run(method+" "+route, func(t *testing.T) {
			for who, status := range row.want {
				token := l.token(who, reader)
				var r reply
				if method == http.MethodPost {
					r = l.post(row.path, token, url.Values{"session": {token}})
				} else {
					r = l.do(httptest.NewRequest(method, row.path, nil), token)
				}
				if r.Code != status {
					t.Errorf("%s gets %d, not %d: %s", visitorNames[who], r.Code, status, r)
				}
				outsider := who < member || who >= guest && !strings.HasPrefix(row.path, "/search") // which shows what is searched for
				l.checkPage(t, visitorNames[who], method, r, outsider)
			}
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range pagesTable {
		if !seen[name] {
			t.Errorf("there is no page %s", name)
		}
	}
}

// A method that a page does not take is refused to everybody alike, and told
// which there are (RFC 9110 §15.5.6).
func TestOddMethods(t *testing.T) {
	l := newLab(t)
	for path, want := range map[string]string{"/": "GET, HEAD", "/me": "GET, HEAD, POST", "/me/sign-out": "POST", "/artifacts/crate/none": "GET, HEAD", "/record/%30": "GET, HEAD"} {
		for _, method := range []string{http.MethodPut, http.MethodDelete, http.MethodTrace, http.MethodOptions, "PATCH"} {
			for _, token := range []string{"", l.session(l.member, "read")} {
				r := l.do(httptest.NewRequest(method, path, nil), token)
				if got := r.Header().Get("Allow"); r.Code != http.StatusMethodNotAllowed || got != want {
					t.Errorf("%s %s: %d, Allow %q, not %q", method, path, r.Code, got, want)
				}
			}
		}
	}
}

// checkPage is what holds of every answer: nothing of it may be kept by others,
// run, or tell a stranger a name, and HEAD has no body.
func (l *lab) checkPage(t *testing.T, who, method string, r reply, outsider bool) {
	t.Helper()
	if method == http.MethodHead && r.Body.Len() != 0 {
		t.Errorf("%s: HEAD with %d bytes", who, r.Body.Len())
	}
	caching := r.Header().Get("Cache-Control")
	if ok := strings.HasPrefix(caching, "private, ") || caching == "public, max-age=31536000, immutable"; !ok {
		t.Errorf("%s: Cache-Control %q", who, caching)
	}
	if !strings.HasPrefix(r.Header().Get("Content-Security-Policy"), "default-src 'none'; ") {
		t.Errorf("%s: Content-Security-Policy %q", who, r.Header().Get("Content-Security-Policy"))
	}
	if outsider {
		for _, secret := range secrets {
			if strings.Contains(strings.ToLower(r.String()), secret) {
				t.Errorf("%s reads %q", who, secret)
			}
		}
	}
}

// zeros is a source of bytes that are all the same.
type zeros struct{ b byte }

func (z zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = z.b
	}
	return len(p), nil
}
