package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"phoenix-lab.org/aln-registry/did"
)

// observation is what is learned of a request while it is answered, for the
// log: never a token, a record, a name or a path.
type observation struct {
	id    string
	asker did.DID
	// code is the refusal's, "" when there was none.
	code string
	// body is the request's, nil when it has none.
	body *pacedBody
}

type observationKey struct{}

// observed is the request's observation; one of its own outside observe.
func observed(ctx context.Context) *observation {
	if o, ok := ctx.Value(observationKey{}).(*observation); ok {
		return o
	}
	return &observation{}
}

// observe gives the request an id, logs who asked from where for which route
// and how it ended, and turns a panic into a 500.
func (s *Server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var raw [8]byte
		rand.Read(raw[:]) // never fails (crypto/rand)
		o := &observation{id: hex.EncodeToString(raw[:])}
		start := s.clock()
		w.Header().Set("X-Request-Id", o.id)
		w.Header()["X-Content-Type-Options"] = nosniff
		wrapped := &response{ResponseWriter: w, pace: s.pace.orDefault()}
		s.metrics.inFlight.Add(1)
		defer s.metrics.inFlight.Add(-1)
		if o.body = s.paced(w, r); o.body != nil {
			r.Body = o.body
		}
		r = r.WithContext(context.WithValue(r.Context(), observationKey{}, o))
		defer func() {
			p := recover()
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			if p != nil {
				s.log.Error("panic", "request", o.id, "panic", p, "stack", string(debug.Stack()))
				http.Error(wrapped, "internal error; the operator finds it in the log under request "+o.id, http.StatusInternalServerError)
			}
			if wrapped.route == nil {
				wrapped.route = s.metrics.routeOf(r)
			}
			took, ended := s.clock().Sub(start), wrapped.status
			if p != nil { // whatever was sent before
				ended = http.StatusInternalServerError
			}
			wrapped.route.observe(ended, took)
			s.logRequest(r, o, wrapped, took)
		}()
		next.ServeHTTP(wrapped, r)
		if wrapped.status == 0 { // an empty answer is one too, and has its time
			wrapped.WriteHeader(http.StatusOK)
		}
	})
}

// mostAttributes is how many a line of the log may have.
const mostAttributes = 9

func (s *Server) logRequest(r *http.Request, o *observation, w *response, took time.Duration) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	attributes := append(make([]slog.Attr, 0, mostAttributes),
		slog.String("request", o.id), slog.String("from", host), slog.String("method", methodName(r.Method)),
		slog.String("route", w.route.pattern), slog.Int("status", w.status),
		slog.Int64("bytes", w.bytes), slog.Duration("took", took.Round(time.Microsecond)))
	if o.asker != "" {
		attributes = append(attributes, slog.String("asker", string(o.asker)))
	}
	if o.code != "" {
		attributes = append(attributes, slog.String("code", o.code))
	}
	s.log.LogAttrs(r.Context(), slog.LevelInfo, "request", attributes...)
}
