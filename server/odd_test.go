package server

import (
	"net/http"
	"strings"
	"testing"
)

// What comes twice can be one thing to a proxy and another to us.
func TestTwoCredentialsAreNone(t *testing.T) {
	l := newLab(t)
	l.demo()
	good, other := l.session(l.member, "read"), l.session(l.owner, "read")
	for _, pair := range [][]string{{good, other}, {good, good}, {good, "x"}, {"x", good}, {good, ""}, {"", good}} {
		for _, path := range []string{"/index/config.json", "/v1/members", "/v1/records/1", "/api/v1/crates?q=demo"} {
			l.do(ask{method: http.MethodGet, path: path, header: http.Header{"Authorization": pair}}).want(t, 401)
		}
		l.do(ask{method: http.MethodPut, path: "/api/v1/crates/new", header: http.Header{"Authorization": pair}}).want(t, 401)
	}
	l.do(ask{method: http.MethodGet, path: "/index/config.json", header: http.Header{"Authorization": {good}}}).want(t, 200)
}

// A part is sent where one is asked for. Many would cost more in the headers
// between them than the whole, and a unit that is none of ours is not looked at
// (RFC 9110 §14.2).
func TestOneRangeIsServed(t *testing.T) {
	l := newLab(t)
	l.demo()
	token := l.session(l.member, "read")
	for _, path := range []string{"/api/v1/crates/demo-one/0.1.0/download", "/v1/artifacts/crate/demo-one/0.1.0/content", "/openapi.json", "/log/checkpoint"} {
		whole := l.get(path, token).want(t, 200)
		for _, ranges := range []string{
			"bytes=0-1,3-4", "bytes=" + strings.Repeat("0-1,", 3000) + "0-1", "bytes=0-,0-", "lines=0-1", "bytes", "bytes 0-1", "bytes=0-1;2-3,", "=0-1", "none",
		} {
			if r := l.getWith(path, token, "Range", ranges).want(t, 200); len(r.body) != len(whole.body) {
				t.Errorf("%s of %s: %d bytes of %d", ranges[:min(len(ranges), 20)], path, len(r.body), len(whole.body))
			}
		}
		twice := l.do(ask{method: http.MethodGet, path: path, token: token, header: http.Header{"Range": {"bytes=0-1", "bytes=2-3"}}})
		if twice.want(t, 200); len(twice.body) != len(whole.body) {
			t.Errorf("two headers: %d bytes", len(twice.body))
		}
		if path == "/openapi.json" {
			continue // the contract says what JSON is, not what a part of it is
		}
		if r := l.getWith(path, token, "Range", "bytes=0-1").want(t, 206); string(r.body) != string(whole.body[:2]) {
			t.Errorf("one part of %s: %q", path, r.body)
		}
		l.getWith(path, token, "Range", "bytes=99999999-").want(t, 416)
	}
}

// A refused method is told which there are (RFC 9110 §15.5.6), and stands in the
// log by a name that we know, not by whatever was sent.
func TestOddMethods(t *testing.T) {
	l := newLab(t)
	for path, want := range map[string]string{
		"/v1/members": "GET, HEAD", "/v1/session": "POST", "/api/v1/crates/demo-one/owners": "GET, HEAD, PUT, DELETE", "/api/v1/crates/new": "PUT", "/index/de/mo/demo-one": "GET, HEAD",
		"/v1/artifacts/crate/a/1.0.0": "GET, HEAD, PUT",
	} {
		for _, method := range []string{"PATCH", "TRACE", "OPTIONS", "get", "BREW", "M-SEARCH", strings.Repeat("X", 9000)} {
			r := l.do(ask{method: method, path: path}).want(t, 405)
			if got := r.header.Values("Allow"); len(got) != 1 || got[0] != want {
				t.Errorf("%.10s %s: Allow %q, not %q", method, path, got, want)
			}
			if strings.Contains(string(r.body), "Cookie") || r.header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%.10s %s: %s", method, path, r)
			}
		}
	}
	for line := range strings.Lines(l.log.String()) {
		if strings.Contains(line, "BREW") || strings.Contains(line, "M-SEARCH") || len(line) > 500 {
			t.Errorf("the log repeats a method: %.80s", line)
		}
	}
	if !strings.Contains(l.log.String(), "method=PATCH") || !strings.Contains(l.log.String(), "method=other") {
		t.Error("methods are not logged")
	}
}

// What a proxy would say of a request says nothing here.
func TestHeadersOfProxiesAreNotBelieved(t *testing.T) {
	l := newLab(t)
	for _, name := range []string{"X-Forwarded-For", "X-Real-Ip", "True-Client-Ip", "Forwarded", "X-Forwarded-Host", "X-Original-Url", "X-Rewrite-Url", "X-Http-Method-Override", "X-Method-Override", "X-Forwarded-Prefix", "X-Forwarded-User", "Remote-User"} {
		for _, value := range []string{"203.0.113.7", "/healthz", "DELETE", string(didOf(l.admin))} {
			l.getWith("/v1/members", "", name, value).want(t, 401)
		}
	}
	if strings.Contains(l.log.String(), "203.0.113.7") {
		t.Error("the log believes where a request says it comes from")
	}
	if n := strings.Count(l.log.String(), "from=127.0.0.1"); n < 40 {
		t.Errorf("%d requests are logged with their address", n)
	}
}
