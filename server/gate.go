package server

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// gatePatience is how long a request is held at a closed gate: a start whose engines
// are there is over by then, and nobody notices it.
const gatePatience = time.Second

// Gate is the handler of a server that starts. At first it is closed: /healthz is 200,
// since the process lives, and all else is 503, so that a proxy asks another server.
// Once it is open it is the handler that it was opened with.
type Gate struct {
	prefix string // of the public URL's path, unescaped
	opened chan struct{}
	once   sync.Once
	behind http.Handler
}

// NewGate returns a closed gate of the registry that clients reach at publicURL, "" for
// an address that is none of theirs.
func NewGate(publicURL string) *Gate {
	prefix, _ := url.PathUnescape(PublicPath(publicURL)) // "" where it is no path: nothing is below it
	return &Gate{prefix: prefix, opened: make(chan struct{})}
}

// Open opens the gate to h; only the first time counts.
func (g *Gate) Open(h http.Handler) {
	g.once.Do(func() {
		g.behind = h
		close(g.opened)
	})
}

// ServeHTTP implements http.Handler.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, patience := strings.TrimPrefix(r.URL.Path, g.prefix), gatePatience
	if path == "/healthz" || path == "/readyz" { // who asks wants to know it now
		patience = 0
	}
	if g.await(r, patience) {
		g.behind.ServeHTTP(w, r)
		return
	}
	h := w.Header()
	h["X-Content-Type-Options"] = nosniff
	h.Set("Cache-Control", "no-store")
	if path == "/healthz" {
		asText(w, http.StatusOK, "", "starting")
		return
	}
	if r.Body != nil && r.Body != http.NoBody && r.ProtoMajor == 1 {
		h.Set("Connection", "close") // or net/http would read the body first, however slowly it comes
	}
	h.Set("Retry-After", "2")
	rendererOf(path)(w, http.StatusServiceUnavailable, "unavailable", "this server is starting, or waits for its database or blob storage; try again in a moment")
}

// await reports whether the gate is open, or opens within patience.
func (g *Gate) await(r *http.Request, patience time.Duration) bool {
	select {
	case <-g.opened:
		return true
	default:
	}
	if patience == 0 {
		return false
	}
	select {
	case <-g.opened:
		return true
	case <-r.Context().Done():
	case <-time.After(patience):
	}
	return false
}
