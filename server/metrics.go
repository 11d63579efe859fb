package server

import (
	"bytes"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/policy"
)

// Metrics are what is counted of one server, in a registry of their own. Every
// label has values that stand in this program's text: methods, patterns of
// routes, outcomes, codes of refusals. No path, name, DID or token is one.
type Metrics struct {
	gatherer  *prometheus.Registry
	gathering sync.Mutex
	config    MetricsConfig

	durations *prometheus.HistogramVec
	refusals  *prometheus.CounterVec
	inFlight  atomic.Int64
	unrouted  *route
	pages     sync.Map // of *route, by method and pattern

	sessions        prometheus.Counter
	sessionRefusals *prometheus.CounterVec

	batchRecords, batchDurations prometheus.Histogram
	batchFailures                prometheus.Counter
	recordRefusals               *prometheus.CounterVec

	blobDurations *prometheus.HistogramVec
	blobBytes     *prometheus.CounterVec
}

// MetricsConfig is what is shown beside what is counted.
type MetricsConfig struct {
	// Version is the program's.
	Version string
	// Certificate is the one served, nil for none.
	Certificate *Certificate
	// Room says how many bytes are free for the data folder, and how large its file system is; nil: not shown.
	Room func() (free, size uint64, err error)
}

// seconds are the bounds of all durations: an index file comes in a tenth of a
// millisecond, a large upload over a bad line in minutes.
var seconds = []float64{0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120}

// NewMetrics returns metrics in which nothing is counted yet.
func NewMetrics(c MetricsConfig) *Metrics {
	m := &Metrics{gatherer: prometheus.NewRegistry(), config: c}
	m.durations = histograms(m, "aln_http_request_duration_seconds", "How long requests took, by route and how they ended.", "method", "route", "outcome")
	m.refusals = counters(m, "aln_http_refusals_total", "Requests of the API that were refused, by the code of the refusal.", "code")
	m.sessions = prometheus.NewCounter(prometheus.CounterOpts{Name: "session_token_issued_total", Help: "Sessions minted."})
	m.sessionRefusals = counters(m, "session_token_refused_total", "Sessions not minted, by the rule that refused.", "rule")
	m.batchRecords = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "aln_log_batch_records", Help: "Changes per batch that went into the log together.", Buckets: []float64{1, 2, 4, 8, 16, 32, 64},
	})
	m.batchDurations = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "aln_log_batch_duration_seconds", Help: "How long batches took until they were visible.", Buckets: seconds,
	})
	m.batchFailures = prometheus.NewCounter(prometheus.CounterOpts{Name: "aln_log_batch_failures_total", Help: "Batches that did not become visible."})
	m.recordRefusals = counters(m, "aln_log_refused_records_total", "Changes that a batch judged and refused, by the code of the refusal.", "code")
	m.blobDurations = histograms(m, "aln_blob_operation_duration_seconds", "How long operations on blob storage took, and how they ended.", "operation", "outcome")
	m.blobBytes = counters(m, "aln_blob_bytes_total", "Bytes of artifacts and records that went to and from blob storage.", "direction")
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "aln_build_info", Help: "1, with the version that runs.", ConstLabels: prometheus.Labels{"version": c.Version, "goversion": runtime.Version()},
	})
	build.Set(1)
	m.gatherer.MustRegister(
		m.sessions, m.batchRecords, m.batchDurations, m.batchFailures, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	m.unrouted = m.route("other", noRoute)
	return m
}

func histograms(m *Metrics, name, help string, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: seconds}, labels)
	m.gatherer.MustRegister(v)
	return v
}

func counters(m *Metrics, name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	m.gatherer.MustRegister(v)
	return v
}

func (m *Metrics) route(method, pattern string) *route {
	return &route{method: method, pattern: pattern, durations: m.durations}
}

func (m *Metrics) refused(code string) { m.refusals.WithLabelValues(code).Inc() }

// minted counts a session, or why there is none.
func (m *Metrics) minted(err error) {
	if err == nil {
		m.sessions.Inc()
		return
	}
	m.sessionRefusals.WithLabelValues(classify(err).code).Inc()
}

// Batch counts a batch of changes; it is for registry.Config.
func (m *Metrics) Batch(b registry.Batch) {
	m.batchRecords.Observe(float64(b.Records))
	m.batchDurations.Observe(b.Took.Seconds())
	if b.Err != nil {
		m.batchFailures.Inc()
	}
	for _, err := range b.Refused {
		m.recordRefusals.WithLabelValues(classify(err).code).Inc()
	}
}

// figures is GET /metrics for auditors and admins.
func (s *Server) figures(w http.ResponseWriter, r *http.Request) error {
	w.Header()["Vary"], w.Header()["Cache-Control"] = varyAsker, privateNoCache
	asker, err := s.asker(r)
	if err != nil {
		return err
	}
	if d := policy.ReadFigures(asker); !d.Allow {
		return &policy.Denial{Rule: d.Rule, Reason: d.Reason()}
	}
	return s.exposition(w, r)
}

// exposition writes the figures in Prometheus' text format, one asker at a time.
func (s *Server) exposition(w http.ResponseWriter, _ *http.Request) error {
	s.metrics.gathering.Lock()
	families, err := s.metrics.gatherer.Gather()
	s.metrics.gathering.Unlock()
	if err != nil {
		return err
	}
	format := expfmt.NewFormat(expfmt.TypeTextPlain)
	var text bytes.Buffer
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(&text, family); err != nil {
			return err
		}
	}
	w.Header().Set("Content-Type", string(format))
	_, _ = w.Write(text.Bytes())
	return nil
}

// ForScraper answers /metrics, /healthz and /readyz to everybody, and nothing
// else: for an address that only who watches the registry can reach.
func ForScraper(c Config) http.Handler {
	s := newServer(c)
	s.pages, s.candid = nil, true
	m := router{chi.NewRouter(), s.metrics}
	m.Use(middleware.GetHead)
	m.NotFound(s.unknown(func(http.ResponseWriter, *http.Request) error { return registry.ErrNotFound }))
	m.MethodNotAllowed(s.unknown(func(http.ResponseWriter, *http.Request) error { return errMethod }))
	m.Get("/healthz", s.handle(asText, s.healthy))
	m.Get("/readyz", s.handle(asText, s.readyz))
	m.Get("/metrics", s.handle(asText, s.exposition))
	return s.observe(m, m)
}
