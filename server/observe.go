package server

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"

	"phoenix-lab.org/aln-registry/did"
)

// observation is what is learned of a request while it is answered, for the
// log: never a token, a record, a name or a path.
type observation struct {
	// id is the request's, ids the value of its header.
	id    string
	ids   [1]string
	asker did.DID
	// bearer is for whom a session was minted that is refused; grant is the EnvGrant
	// that the session names. audited: the audit trail has what there is to say.
	bearer  did.DID
	grant   string
	audited bool
	// code is the refusal's, "" when there was none.
	code string
	// body is the request's, nil when it has none.
	body *pacedBody
}

type observationKey struct{}

// requestContext is a request's context with what this package and chi keep in
// it: one value for both spares a request two copies of itself.
type requestContext struct {
	context.Context
	observation *observation
	routing     *chi.Context
}

// Value implements context.Context.
func (c *requestContext) Value(key any) any {
	switch key {
	case observationKey{}:
		return c.observation
	case chi.RouteCtxKey:
		return c.routing
	}
	return c.Context.Value(key)
}

// exchange is all that is kept of a request while it is answered.
type exchange struct {
	observation observation
	response    response
	context     requestContext
}

// observed is the request's observation; one of its own outside observe.
func observed(ctx context.Context) *observation {
	if o, ok := ctx.Value(observationKey{}).(*observation); ok {
		return o
	}
	return &observation{}
}

// observe gives the request an id, logs who asked from where for which route
// and how it ended, and turns a panic into a 500. It stands before the router.
func (s *Server) observe(routes chi.Routes, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := &exchange{response: response{ResponseWriter: w, pace: s.pace, armed: armedOf(r)}}
		o, answer := &e.observation, &e.response
		o.id = s.ids.next()
		o.ids[0] = o.id
		start := s.clock()
		h := w.Header()
		h["X-Request-Id"], h["X-Content-Type-Options"] = o.ids[:], nosniff
		s.metrics.inFlight.Add(1)
		defer s.metrics.inFlight.Add(-1)
		if o.body = s.paced(w, r); o.body != nil {
			r.Body = o.body
			*answer.armed = time.Time{}
		}
		routing := s.routings.Get().(*chi.Context)
		routing.Reset()
		routing.Routes = routes
		e.context = requestContext{r.Context(), o, routing}
		r = r.WithContext(&e.context)
		defer s.ended(r, e, start)
		next.ServeHTTP(answer, r)
		if answer.status == 0 { // an empty answer is one too, and has its time
			answer.WriteHeader(http.StatusOK)
		}
	})
}

// ended counts and logs what observe began, deferred by it.
func (s *Server) ended(r *http.Request, e *exchange, start time.Time) {
	o, answer := &e.observation, &e.response
	p := recover()
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	if p != nil {
		s.log.Error("panic", "request", o.id, "panic", p, "stack", string(debug.Stack()))
		http.Error(answer, "internal error; the operator finds it in the log under request "+o.id, http.StatusInternalServerError)
	}
	if answer.route == nil {
		answer.route = s.metrics.routeOf(r)
	}
	now := s.clock()
	took, status := now.Sub(start), answer.status
	if p != nil { // whatever was sent before
		status = http.StatusInternalServerError
	}
	answer.route.observe(status, took)
	s.logRequest(r, e, now, took)
	routing := e.context.routing
	e.context.routing = nil // another request may have it now
	s.routings.Put(routing)
}

// requestIDs are unlike each other, and unlike those of other starts: they count
// on from somewhere.
type requestIDs struct {
	first uint64
	count atomic.Uint64
}

func newRequestIDs() *requestIDs {
	var raw [8]byte
	rand.Read(raw[:]) // never fails (crypto/rand)
	return &requestIDs{first: binary.BigEndian.Uint64(raw[:])}
}

func (n *requestIDs) next() string {
	var raw [8]byte
	var text [2 * len(raw)]byte
	binary.BigEndian.PutUint64(raw[:], n.first+n.count.Add(1))
	hex.Encode(text[:], raw[:])
	return string(text[:])
}

// mostAttributes is how many a line of the log may have beside its route's.
const mostAttributes = 7

// logRequest writes the request's line straight to the log's handler: slog's
// Logger would look for the line of this program that does.
func (s *Server) logRequest(r *http.Request, e *exchange, now time.Time, took time.Duration) {
	o, answer := &e.observation, &e.response
	lines := s.linesOf(answer.route, r.Method)
	if !lines.Enabled(&e.context, slog.LevelInfo) {
		return
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	attributes := append(make([]slog.Attr, 0, mostAttributes),
		slog.String("request", o.id), slog.String("from", host), slog.Int("status", answer.status),
		slog.Int64("bytes", answer.bytes), slog.Duration("took", took.Round(time.Microsecond)))
	if o.asker != "" {
		attributes = append(attributes, slog.String("asker", string(o.asker)))
	}
	if o.code != "" {
		attributes = append(attributes, slog.String("code", o.code))
	}
	line := slog.NewRecord(now, slog.LevelInfo, "request", 0)
	line.AddAttrs(attributes...)
	_ = lines.Handle(&e.context, line) // there is nowhere to say that the log cannot be written
}

// linesOf is the log's handler with what all lines of a route begin with. Its own
// method is nearly always the request's.
func (s *Server) linesOf(of *route, method string) slog.Handler {
	if method != of.method {
		return withRoute(s.log.Handler(), method, of)
	}
	if made, ok := s.lines.Load(of); ok {
		return made.(slog.Handler)
	}
	made, _ := s.lines.LoadOrStore(of, withRoute(s.log.Handler(), method, of))
	return made.(slog.Handler)
}

func withRoute(h slog.Handler, method string, of *route) slog.Handler {
	return h.WithAttrs([]slog.Attr{slog.String("method", methodName(method)), slog.String("route", of.pattern)})
}
