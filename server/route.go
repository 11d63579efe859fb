package server

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
)

// router gives each route its observers when it is made, so that a request has
// none to look for.
type router struct {
	*chi.Mux
	metrics *Metrics
}

func (m router) Get(pattern string, h http.HandlerFunc)  { m.on(http.MethodGet, pattern, h) }
func (m router) Post(pattern string, h http.HandlerFunc) { m.on(http.MethodPost, pattern, h) }
func (m router) Put(pattern string, h http.HandlerFunc)  { m.on(http.MethodPut, pattern, h) }
func (m router) Delete(pattern string, h http.HandlerFunc) {
	m.on(http.MethodDelete, pattern, h)
}

func (m router) on(method, pattern string, h http.HandlerFunc) {
	of := m.metrics.route(method, pattern)
	m.Method(method, pattern, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if answer, ok := w.(*response); ok {
			answer.route = of
		}
		h(w, r)
	}))
}

// route is a method and a pattern of paths, with what observes its answers.
type route struct {
	method, pattern string
	durations       *prometheus.HistogramVec
	// observers are made when there is something to observe: what never happens has no series.
	observers [len(outcomeNames)]atomic.Pointer[prometheus.Observer]
}

// Outcomes of a request.
const (
	answered = iota
	notModified
	redirected
	unauthenticated
	denied
	notFound
	refused
	unavailable
	failed
)

// outcomeNames are all values of the label outcome.
var outcomeNames = [...]string{
	answered: "ok", notModified: "not_modified", redirected: "redirected", unauthenticated: "unauthenticated", denied: "denied",
	notFound: "not_found", refused: "refused", unavailable: "unavailable", failed: "failed",
}

func outcomeOf(status int) int {
	switch {
	case status == http.StatusNotModified:
		return notModified
	case status < http.StatusMultipleChoices:
		return answered
	case status < http.StatusBadRequest:
		return redirected
	case status == http.StatusUnauthorized:
		return unauthenticated
	case status == http.StatusForbidden:
		return denied
	case status == http.StatusNotFound:
		return notFound
	case status < http.StatusInternalServerError:
		return refused
	case status == http.StatusServiceUnavailable, status == http.StatusInsufficientStorage:
		return unavailable
	}
	return failed
}

// observe counts an answer.
func (o *route) observe(status int, took time.Duration) {
	of := outcomeOf(status)
	observer := o.observers[of].Load()
	if observer == nil {
		made := o.durations.WithLabelValues(o.method, o.pattern, outcomeNames[of])
		observer = &made
		o.observers[of].Store(observer)
	}
	(*observer).Observe(took.Seconds())
}

// methodNames are the values of the label method beside "other". What a client
// may write there is without bound.
var methodNames = map[string]string{
	http.MethodGet: http.MethodGet, http.MethodHead: http.MethodGet, http.MethodPost: http.MethodPost,
	http.MethodPut: http.MethodPut, http.MethodDelete: http.MethodDelete,
}

// noRoute is the pattern of what no route answers.
const noRoute = "none"

// routeOf is the page that answered r, or the route of what none answers. The
// patterns of pages are those that package web registers: as many as it has.
func (m *Metrics) routeOf(r *http.Request) *route {
	pattern := chi.RouteContext(r.Context()).RoutePattern()
	if pattern == "" {
		return m.unrouted
	}
	method, ok := methodNames[r.Method]
	if !ok {
		return m.unrouted
	}
	key := [2]string{method, pattern}
	if found, ok := m.pages.Load(key); ok {
		return found.(*route)
	}
	found, _ := m.pages.LoadOrStore(key, m.route(method, pattern))
	return found.(*route)
}
