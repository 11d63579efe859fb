package server

import (
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
)

// webLab is a lab whose registry is a did:web, reached under path.
func webLab(t *testing.T, id did.DID, path string) http.Handler {
	t.Helper()
	l := newLab(t, func(c *registry.Config) {
		c.Keys = must(registry.OpenKeys(t.TempDir()+"/web.jwk", id, rand.Reader))
	})
	l.get("/healthz", "") // the lab's log must hold something
	l.registry.PublicURL += path
	return New(Config{Registry: l.registry, Log: slog.New(slog.DiscardHandler), Clock: l.now})
}

func TestTheRegistrysDocumentIsWhereItsDIDSays(t *testing.T) {
	for _, test := range []struct {
		id         did.DID
		path       string // of the public URL
		found, not []string
	}{
		{"did:web:registry.example", "", []string{"/.well-known/did.json"}, []string{"/did.json"}},
		{"did:web:registry.example%3A8443:labs:one", "", []string{"/labs/one/did.json"}, []string{"/.well-known/did.json", "/did.json", "/one/did.json"}},
		{"did:web:registry.example:reg", "/reg", []string{"/reg/did.json", "/did.json"}, []string{"/.well-known/did.json", "/reg/reg/did.json"}},
		{"did:web:registry.example", "/reg", []string{"/.well-known/did.json"}, []string{"/did.json", "/reg/did.json"}},
	} {
		handler := webLab(t, test.id, test.path)
		for _, path := range test.found {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			document, err := did.ParseDocument(w.Body.Bytes())
			if w.Code != http.StatusOK || err != nil || document.ID() != test.id || w.Header().Get("Content-Type") != "application/did+json" {
				t.Errorf("%s at %s: %d %v, %v", test.id, path, w.Code, w.Header(), err)
			}
		}
		for _, path := range test.not {
			w := httptest.NewRecorder()
			if handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil)); w.Code != http.StatusNotFound {
				t.Errorf("%s at %s: %d", test.id, path, w.Code)
			}
		}
	}
	l := newLab(t)
	if r := l.get("/.well-known/did.json", ""); r.status != http.StatusNotFound || !strings.Contains(string(r.body), "needs no document") {
		t.Errorf("of a did:key: %s", r)
	}
}
