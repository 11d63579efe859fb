package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// A server that starts says so, and takes what was sent to it once it can.
func TestAClosedGateSaysThatTheServerStarts(t *testing.T) {
	g := NewGate("https://registry.example/lab%20one/aln")
	ask := func(method, path, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		if body == "" {
			r.Body = http.NoBody
		}
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		return w
	}
	const starts = "this server is starting, or waits for its database or blob storage"
	for _, c := range []struct {
		method, path, body string
		status             int
		want, closes       string
	}{
		{"GET", "/healthz", "", 200, "starting\n", ""},
		{"HEAD", "/lab%20one/aln/healthz", "", 200, "starting\n", ""}, // net/http sends no body
		{"GET", "/readyz", "", 503, starts, ""},
		{"GET", "/lab%20one/aln/readyz", "", 503, starts, ""},
		{"GET", "/index/co/nf/config.json", "", 503, starts, ""},
		{"PUT", "/api/v1/crates/new", "a crate", 503, `{"errors":[{"detail":"` + starts, "close"},
		{"POST", "/lab%20one/aln/v1/records", "a record", 503, `{"error":{"code":"unavailable","detail":"` + starts, "close"},
	} {
		w := ask(c.method, c.path, c.body)
		h := w.Header()
		if w.Code != c.status || !strings.HasPrefix(w.Body.String(), c.want) || h.Get("Connection") != c.closes ||
			(h.Get("Retry-After") == "2") != (c.status == 503) || h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s: %d, %v, %s", c.method, c.path, w.Code, h, w.Body)
		}
	}

	held := make(chan *httptest.ResponseRecorder)
	go func() { held <- ask("PUT", "/api/v1/crates/new", "a crate") }()
	opening := time.AfterFunc(gatePatience/10, func() { g.Open(http.HandlerFunc(hello)) })
	defer opening.Stop()
	if w := <-held; w.Body.String() != "hello" {
		t.Errorf("what came before the gate was open gets %d, %s", w.Code, w.Body)
	}
	g.Open(http.NotFoundHandler())
	for _, path := range []string{"/healthz", "/x"} {
		if w := ask("GET", path, ""); w.Body.String() != "hello" {
			t.Errorf("%s behind the gate gets %d, %s", path, w.Code, w.Body)
		}
	}
}
