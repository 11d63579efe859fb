package server

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
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

// changeSettings enters settings as change alters those in force, signed by the admin.
func (l *lab) changeSettings(change func(*record.Registry)) {
	l.t.Helper()
	settings := l.registry.Settings().Registry
	change(&settings)
	rec := l.sign(l.admin, record.RegistrySubject(), &settings)
	asker := policy.Asker{DID: didOf(l.admin), Admin: true, Scopes: []string{particle.ScopeAdmin}}
	if _, err := l.registry.Submit(context.Background(), asker, rec.Envelope(), nil); err != nil {
		l.t.Fatal(err)
	}
}

// Entry 0 is everybody's. What settings were made of it since names private
// names, admins and other registries: that is for members, also where everybody
// may read crates.
func TestTheProofOfTheLogsKeysIsForMembers(t *testing.T) {
	for name, change := range map[string]func(*registry.Config){"closed": func(*registry.Config) {}, "anonymous readers": anonymous} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "registry.jwk")
			must(registry.OpenKeys(file, "", rand.Reader))
			second := must(registry.AddLogKey(file, rand.Reader))
			keys := must(registry.OpenKeys(file, "", rand.Reader))
			l := newLab(t, change, func(c *registry.Config) { c.Keys = keys })
			l.keys = keys
			records := func(token string) int {
				r := l.get("/log/keys", token).want(t, http.StatusOK)
				return strings.Count(string(r.body), `"envelope"`)
			}
			member := l.session(l.member, "read")
			if nobody, member := records(""), records(member); nobody != 1 || member != 1 {
				t.Errorf("at genesis: %d and %d records", nobody, member)
			}
			l.changeSettings(func(s *record.Registry) { s.PrivateNames = append(s.PrivateNames, "secret-project-") })
			if nobody, other, member := records(""), records(l.forge(l.member, "chat")), records(member); nobody != 1 || other != 1 || member != 2 {
				t.Errorf("after a change: %d, %d and %d records", nobody, other, member)
			}
			l.changeSettings(func(s *record.Registry) { s.LogKeys = append([]string{second}, s.LogKeys...) })
			if member := records(member); member != 3 {
				t.Errorf("after the log's key was replaced: %d records", member)
			}
			tag := l.get("/log/keys", member).header.Get("ETag")
			for who, r := range map[string]reply{
				"nobody": l.get("/log/keys", ""), "a stranger": l.get("/log/keys", "a.b.c"),
				"nobody who knows the ETag": l.getWith("/log/keys", "", "If-None-Match", tag),
			} {
				r.want(t, http.StatusUnauthorized)
				if challenge := r.header.Get("WWW-Authenticate"); !strings.Contains(challenge, "login_url=") || strings.Contains(string(r.body), "envelope") {
					t.Errorf("%s: %v %s", who, r.header, r.body)
				}
			}
		})
	}
}
