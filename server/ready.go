package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"phoenix-lab.org/aln-registry/registry"
)

// readiness is whether this server can do its work now. The answer is kept for
// a moment: asking costs a write to the disk, and anybody may ask.
type readiness struct {
	draining <-chan struct{}

	mu      sync.Mutex
	checked time.Time
	err     error
}

const (
	readyFor     = time.Second
	readyTimeout = 5 * time.Second
)

var errDraining = errors.New("this server is stopping")

// check asks the parts at most once a second; who comes meanwhile waits for that answer.
func (c *readiness) check(ctx context.Context, ask func(context.Context) error) error {
	select {
	case <-c.draining:
		return errDraining
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) < readyFor { // the real clock: this is about load, not about time
		return c.err
	}
	// Whoever asks may go away; the answer is for the others too.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
	defer cancel()
	c.err = ask(ctx)
	c.checked = time.Now()
	return c.err
}

// healthy is GET /healthz: the process is alive and answers. Restarting it would not help more.
func (s *Server) healthy(w http.ResponseWriter, _ *http.Request) error {
	asText(w, http.StatusOK, "", "ok")
	return nil
}

// readyz is GET /readyz: the catalog and blob storage answer and can be
// written, the log goes on, and the server is not stopping.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Cache-Control", "no-store")
	if err := s.ready.check(r.Context(), s.registry.Ready); err != nil {
		return fmt.Errorf("%w: not ready: %w", registry.ErrUnavailable, err)
	}
	asText(w, http.StatusOK, "", "ready")
	return nil
}
