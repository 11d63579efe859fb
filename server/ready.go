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
	running chan struct{} // closed when the question under way is answered, nil for none
	err     error
}

const (
	readyFor = time.Second
	// readyTimeout bounds the answer, askTimeout what is asked for it: who supervises does
	// not wait for long, and by then wants to hear which part it was.
	readyTimeout = 3 * time.Second
	askTimeout   = 2500 * time.Millisecond
)

var (
	errDraining = errors.New("this server is stopping")
	errHung     = errors.New("the catalog or blob storage does not answer")
	// errNotReady is told with its reason.
	errNotReady = errors.New("not ready")
)

// check asks the parts at most once a second; who comes meanwhile waits for that answer.
func (c *readiness) check(ctx context.Context, ask func(context.Context) error) error {
	select {
	case <-c.draining:
		return errDraining
	default:
	}
	c.mu.Lock()
	if c.running == nil && time.Since(c.checked) >= readyFor { // the real clock: this is about load, not about time
		c.running = make(chan struct{})
		// Whoever asks may go away; the answer is for the others too.
		go c.run(context.WithoutCancel(ctx), ask)
	}
	running, err := c.running, c.err
	c.mu.Unlock()
	if running == nil {
		return err
	}
	select {
	case <-running:
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.err
	case <-time.After(readyTimeout):
		return errHung
	}
}

// run asks the parts. One that hangs is not asked again before it has answered.
func (c *readiness) run(ctx context.Context, ask func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	err := ask(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err, c.checked = err, time.Now()
	close(c.running)
	c.running = nil
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
		if errors.Is(err, errDraining) {
			return err
		}
		if s.candid {
			s.log.Warn("not ready", "request", observed(r.Context()).id, "error", err)
			return fmt.Errorf("%w: %s", errNotReady, whyNotReady(err))
		}
		// Whatever the reason, also a full disk: nothing was asked to be changed here.
		return fmt.Errorf("%w: not ready: %v", registry.ErrUnavailable, err)
	}
	asText(w, http.StatusOK, "", "ready")
	return nil
}

// whyNotReady names the engine that it is, and else says what it is.
func whyNotReady(err error) string {
	var engine *registry.EngineError
	if errors.As(err, &engine) {
		return engine.Engine + " does not do its work now; this server's log says more"
	}
	return err.Error()
}
