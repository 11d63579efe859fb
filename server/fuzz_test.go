package server

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
)

// fuzzed is a handler without a network, with one crate that nobody must hear
// of who is no member.
type fuzzed struct {
	*lab
	handler http.Handler
	// asked are the requests of the routes' table, without a session.
	asked []ask
}

func newFuzzed(f *testing.F) fuzzed {
	f.Helper()
	l := newLab(f)
	l.demo()
	l.get("/healthz", "").want(f, 200)
	var asked []ask
	for _, row := range routesTable {
		asked = append(asked, row.ask(l, nobody))
	}
	l.registry.PublicURL = "https://registry.example/a%20b"
	return fuzzed{l, New(Config{Registry: l.registry, Log: slog.New(slog.DiscardHandler), Clock: l.now}), asked}
}

// FuzzRequest sends any request at all: no panic and no 5xx, nothing of the
// registry's own for who has no session, and nothing in a header that was not
// meant to stand there.
func FuzzRequest(f *testing.F) {
	l := newFuzzed(f)
	for _, a := range l.asked {
		f.Add(a.method, a.path, "", "application/json", "", "", a.body)
		f.Add("GET", "/a%20b"+a.path, "Bearer a.b.c~e30", "text/plain", `"x", W/"y", *`, "bytes=0-,5-1", []byte("{}"))
	}
	_ = chi.Walk(l.routes, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		f.Add(method, strings.NewReplacer("{", "", "}", "", "*", "%2e%2e/x").Replace(route)+"?q=%00&per_page=-1&after=crate/x", "~", "", "*", "bytes=-1", []byte("{}"))
		return nil
	})
	f.Add("POST", "/v1/session", "", "application/x-www-form-urlencoded", "", "", []byte("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=a.b.c"))
	f.Add("PUT", "/api/v1/crates/new", "x~e30", "", "", "", frame("demo-one", "0.1.0", crateFile("demo-one", "0.1.0")))
	f.Fuzz(func(t *testing.T, method, target, authorization, contentType, match, ranges string, body []byte) {
		r, ok := anyRequest(method, target, body)
		if !ok {
			return
		}
		for name, value := range map[string]string{
			"Authorization": authorization, "Content-Type": contentType, "If-None-Match": match, "Accept-Encoding": match, "Range": ranges, "If-Range": match,
		} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		w := httptest.NewRecorder()
		l.handler.ServeHTTP(w, r)
		if w.Code >= 500 || w.Code < 200 {
			t.Fatalf("%s %q: %d %s", method, target, w.Code, w.Body)
		}
		for name, values := range w.Header() {
			if strings.ContainsAny(name+strings.Join(values, ""), "\r\n\x00") {
				t.Fatalf("the header %q: %q", name, values)
			}
		}
		if strings.Contains(w.Body.String(), hashOf(crateFile("demo-one", "0.1.0"))) {
			t.Fatalf("%s %q tells nobody of the crate: %s", method, target, w.Body)
		}
		if to := w.Header().Get("Location"); to != "" && to != "/a%20b/" {
			t.Fatalf("%s %q leads to %q", method, target, to)
		}
	})
}

// anyRequest is what net/http would hand on of such a request line; false for
// what it would refuse.
func anyRequest(method, target string, body []byte) (r *http.Request, ok bool) {
	if method == "" || strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-!#$%&'*+.^_`|~0123456789") != "" || !strings.HasPrefix(target, "/") {
		return nil, false
	}
	defer func() {
		if recover() != nil { // httptest's way of refusing
			r, ok = nil, false
		}
	}()
	return httptest.NewRequest(method, target, bytes.NewReader(body)), true
}

// FuzzMemberRequest is FuzzRequest for a member, of what can be read: no 5xx either.
func FuzzMemberRequest(f *testing.F) {
	l := newFuzzed(f)
	for _, a := range l.asked {
		f.Add(a.path, "", "")
		f.Add(a.path+"?q=demo&limit=1&after=crate%2Fdemo_one&page=2", "gzip;q=0.1", "bytes=1-")
	}
	token := l.forge(l.member, "read audit")
	f.Fuzz(func(t *testing.T, target, coding, ranges string) {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			r, ok := anyRequest(method, target, nil)
			if !ok {
				return
			}
			r.Header.Set("Authorization", token)
			r.Header.Set("Accept-Encoding", coding)
			r.Header.Set("Range", ranges)
			w := httptest.NewRecorder()
			l.handler.ServeHTTP(w, r)
			if w.Code >= 500 || w.Code == http.StatusUnauthorized {
				t.Fatalf("%s %q: %d %s", method, target, w.Code, w.Body)
			}
		}
	})
}

// FuzzHeaders: the small parsers of headers say the same of a header however it
// is spaced, and take nothing for everything.
func FuzzHeaders(f *testing.F) {
	f.Add(`W/"a", "b"`, "br;q=1.0, gzip;q=0.8")
	f.Add(`*`, "gzip;q=nan")
	f.Add(`"a"b"`, "gzip;q=1e400")
	f.Fuzz(func(t *testing.T, match, coding string) {
		if matches(&http.Request{Header: http.Header{"If-None-Match": {match}}}, `"x"`) && !strings.Contains(match, `"x"`) && strings.TrimSpace(match) != "*" {
			t.Errorf("%q matches \"x\"", match)
		}
		if acceptsGzip(coding) && !strings.Contains(strings.ToLower(coding), "gzip") {
			t.Errorf("%q accepts gzip", coding)
		}
		if acceptsGzip(coding) != acceptsGzip(" "+coding+" ") {
			t.Errorf("%q: a space changes it", coding)
		}
		session, envelope, err := credential(&http.Request{Header: http.Header{"Authorization": {match}}})
		if err == nil && (len(envelope) > 4<<10 || strings.Contains(session, "~")) {
			t.Errorf("%q is the session %q with %d bytes", match, session, len(envelope))
		}
	})
}
