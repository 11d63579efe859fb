// Package server is the registry over HTTP: routes, authentication, and one
// table from errors to statuses. It holds no rules of its own: who may do what
// is decided by package registry and what it calls.
//
// Invariants: every route stands in routes(); a response that depends on who
// asks is private, varies by Authorization and has no Last-Modified, and is
// decided before conditionals are looked at; no token, record or private name
// reaches a log line; every body is bounded before it is read.
package server

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/policy"
)

// Bounds on what a client may send or take.
const (
	maxSmallBody = 512 << 10
	maxJSONSlack = 1<<20 + 8 // metadata and lengths around a .crate
	maxUploads   = 16
	// maxUploadsEach is how many one member may have under way, so that nobody fills all places.
	maxUploadsEach = 4
	maxSearches    = 2
	// maxProofs is how many may be gathered at once: the records of one name can be thousands.
	maxProofs = 4
	// maxDecisions is how many questions are decided at once, maxTests how many rules
	// are tried on everything.
	maxDecisions = 2
	maxTests     = 1
	// maxQuestions is how many questions about many artifacts, of up to 4 MiB, are in
	// memory, maxQuestionsEach how many of one member: whoever sends one slowly, or
	// takes the answer slowly, holds no place of others.
	maxQuestions     = 16
	maxQuestionsEach = 8
	// maxDownloads is how many artifacts that are not in memory are sent at once,
	// maxDownloadsEach how many to one asker: each is hashed first, and may take its
	// size of the disk for as long as a slow client reads. A place is waited for no
	// longer than downloadWait: clients come again.
	maxDownloads     = 256
	maxDownloadsEach = 32
	downloadWait     = time.Second
	// maxAttachments is how many attachments of records are in memory at once, of up to
	// 16 MiB each, maxAttachmentsEach of one member.
	maxAttachments     = 16
	maxAttachmentsEach = 4
	// maxWait is how long a request waits for a place.
	maxWait = 30 * time.Second
	// drainFactor: of a refused upload so many times what is allowed is read and thrown away.
	drainFactor = 2
)

// Server answers HTTP for one registry.
type Server struct {
	registry *registry.Registry
	limits   cargo.Limits
	log      *slog.Logger
	clock    func() time.Time
	random   func() float64
	pages    http.Handler
	pace     Pace
	metrics  *Metrics
	ready    readiness
	// candid: who asks whether it is ready is an operator, and told why not.
	candid   bool
	uploads  *places
	searches *places
	proofs   *places
	// questions are sent, decided and answered, decisions are those being decided,
	// tests what a rule would hit.
	questions   *places
	decisions   *places
	tests       *places
	downloads   *places
	attachments *places
	// upstreams are where crates of other registries are from; sends are of those that are
	// held, fetches, by upstream, of those being received, questions upstream of what nothing
	// is known of, prefetches lists of them.
	upstreams         Upstreams
	upstreamNames     []string
	upstreamsOffline  bool
	sends             *places
	fetches           map[string]*places
	upstreamQuestions *places
	prefetches        *places
	ids               *requestIDs
	routings          sync.Pool // of *chi.Context
	lines             sync.Map  // of slog.Handler, by *route
}

// Config is what a Server is made of.
type Config struct {
	Registry *registry.Registry
	Log      *slog.Logger
	Clock    func() time.Time
	// Random is in [0, 1); nil: math/rand's.
	Random func() float64
	// Pages answers what is no route of the API: the web pages. nil: a few words at /.
	Pages http.Handler
	// Pace is how slow clients may be.
	Pace Pace
	// Metrics are what is counted; nil: some that only /metrics shows.
	Metrics *Metrics
	// Upstreams are the other registries that this one takes crates from; nil: none.
	Upstreams Upstreams
	// Draining is closed when no more requests should be sent here: /readyz says so.
	Draining <-chan struct{}
}

// New returns the handler for c.Registry, which c.Metrics watch from now on.
func New(c Config) http.Handler {
	s := newServer(c)
	s.metrics.watch(s)
	return underPublicPath(c.Registry.PublicURL, s.routes())
}

func newServer(c Config) *Server {
	if c.Metrics == nil {
		c.Metrics = NewMetrics(MetricsConfig{})
	}
	if c.Upstreams == nil {
		c.Upstreams = noUpstreams{}
	}
	if c.Random == nil {
		c.Random = rand.Float64
	}
	s := &Server{
		registry: c.Registry, limits: c.Registry.Limits, log: c.Log, clock: c.Clock, random: c.Random, pages: c.Pages, pace: c.Pace.orDefault(), metrics: c.Metrics,
		uploads: newPlaces(maxUploads, maxUploadsEach), searches: newPlaces(maxSearches, maxSearches), proofs: newPlaces(maxProofs, maxProofs),
		questions: newPlaces(maxQuestions, maxQuestionsEach), decisions: newPlaces(maxDecisions, maxDecisions), tests: newPlaces(maxTests, maxTests),
		downloads: newPlaces(maxDownloads, maxDownloadsEach), attachments: patientPlaces(maxAttachments, maxAttachmentsEach),
		sends: patientPlaces(maxSends, maxSendsEach), fetches: map[string]*places{}, upstreamQuestions: patientPlaces(maxUpstreamQuestions, maxUpstreamQuestionsEach),
		prefetches: newPlaces(maxPrefetches, maxPrefetchesEach),
		ids:        newRequestIDs(), routings: sync.Pool{New: func() any { return chi.NewRouteContext() }},
	}
	s.ready.draining, s.downloads.wait, s.sends.wait = c.Draining, downloadWait, fetchWait
	state := c.Upstreams.State()
	s.upstreams, s.upstreamsOffline = c.Upstreams, state.Offline
	for _, u := range state.All {
		s.upstreamNames = append(s.upstreamNames, u.Name)
		s.fetches[u.Name] = patientPlaces(maxFetches, maxFetchesEach)
		s.fetches[u.Name].wait = fetchWait
	}
	return s
}

// routes answers the whole public contract, observed.
func (s *Server) routes() http.Handler {
	m := s.router()
	return s.observe(m, m)
}

// router is the whole public contract of DESIGN §4 as far as it exists.
func (s *Server) router() router {
	m := router{chi.NewRouter(), s.metrics}
	m.Use(middleware.GetHead, oneRange)
	m.NotFound(s.unknown(func(http.ResponseWriter, *http.Request) error { return registry.ErrNotFound }))
	if s.pages != nil {
		m.NotFound(s.pageOrUnknown)
	}
	m.MethodNotAllowed(s.unknown(func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Allow", allowed(m, r))
		return errMethod
	}))

	if s.pages == nil {
		m.Get("/", s.handle(asText, s.front))
		m.Get("/me", s.handle(asText, s.me))
	}
	m.Get("/healthz", s.handle(asText, s.healthy))
	m.Get(s.documentPath(), s.handle(asJSON, s.didDocument))
	m.Get("/readyz", s.handle(asText, s.readyz))
	m.Get("/metrics", s.handle(asText, s.figures))
	m.Get("/openapi.json", s.handle(asJSON, s.describe))

	m.Get("/index/config.json", s.handle(asText, s.indexConfig))
	m.Get("/index/*", s.handle(asText, s.indexFile))
	m.Get("/public/index/config.json", s.handle(asText, s.publicIndexConfig))
	m.Get("/public/index/*", s.handle(asText, s.publicIndexFile))

	m.Get("/crates-io/index/config.json", s.handle(asText, s.upstreamConfig(isCratesIO)))
	m.Get("/crates-io/index/*", s.handle(asText, s.upstreamIndex(isCratesIO)))
	m.Get("/crates-io/dl/{crate}/{version}/{checksum}", s.handle(asText, s.upstreamDownload(isCratesIO)))
	m.Get("/upstream/{name}/index/config.json", s.handle(asText, s.upstreamConfig(byName)))
	m.Get("/upstream/{name}/index/*", s.handle(asText, s.upstreamIndex(byName)))
	m.Get("/upstream/{name}/dl/{crate}/{version}/{checksum}", s.handle(asText, s.upstreamDownload(byName)))

	m.Get("/api/v1/crates", s.handle(asCargo, s.search))
	m.Put("/api/v1/crates/new", s.handle(asCargo, s.publish))
	m.Get("/api/v1/crates/{crate}/{version}/download", s.handle(asText, s.download))
	m.Delete("/api/v1/crates/{crate}/{version}/yank", s.handle(asCargo, s.yank(true)))
	m.Put("/api/v1/crates/{crate}/{version}/unyank", s.handle(asCargo, s.yank(false)))
	m.Get("/api/v1/crates/{crate}/owners", s.handle(asCargo, s.owners))
	m.Put("/api/v1/crates/{crate}/owners", s.handle(asCargo, s.changeOwners(true)))
	m.Delete("/api/v1/crates/{crate}/owners", s.handle(asCargo, s.changeOwners(false)))

	m.Post("/v1/session", s.handle(asJSON, s.mint))
	m.Get("/v1/heads/*", s.handle(asJSON, s.heads))
	m.Post("/v1/records", s.handle(asJSON, s.submit))
	m.Get("/v1/records/{id}", s.handle(asJSON, s.record))
	m.Get("/v1/records/{id}/attachments/{cid}", s.handle(asJSON, s.attachment))
	m.Get("/v1/members", s.handle(asJSON, s.members))
	m.Get("/v1/settings", s.handle(asJSON, s.settings))
	m.Get("/v1/proposals", s.handle(asJSON, s.proposals))
	m.Get("/v1/grants", s.handle(asJSON, s.grants))
	m.Get("/v1/grants/{cid}", s.handle(asJSON, s.grant))
	m.Get("/v1/rules", s.handle(asJSON, s.rules))
	m.Post("/v1/rules/test", s.handle(asJSON, s.testRule))
	m.Get("/v1/rules/{id}", s.handle(asJSON, s.rule))
	m.Post("/v1/decisions", s.handle(asJSON, s.decide))
	m.Get("/v1/decisions/{kind}/{name}", s.handle(asJSON, s.why))
	m.Get("/v1/decisions/{kind}/{name}/{version}", s.handle(asJSON, s.why))
	m.Get("/v1/audit", s.handle(asJSON, s.audit))
	m.Get("/v1/upstreams", s.handle(asJSON, s.listUpstreams))
	m.Get("/v1/upstreams/{name}/alarms", s.handle(asJSON, s.alarms))
	m.Post("/v1/upstreams/{name}/alarms/{id}/seen", s.handle(asJSON, s.seeAlarm))
	m.Post("/v1/upstreams/{name}/prefetch", s.handle(asJSON, s.prefetch))
	m.Get("/v1/locks", s.handle(asJSON, s.locks))
	m.Get("/v1/locks/*", s.handle(asJSON, s.lacks))
	m.Delete("/v1/locks/*", s.handle(asJSON, s.unpin))
	m.Get("/v1/artifacts", s.handle(asJSON, s.artifacts))
	m.Get("/v1/artifacts/{kind}", s.handle(asJSON, s.artifacts))
	m.Get("/v1/artifacts/{kind}/{name}", s.handle(asJSON, s.versions))
	m.Put("/v1/artifacts/{kind}/{name}/{version}", s.handle(asJSON, s.publishArtifact))
	m.Get("/v1/artifacts/{kind}/{name}/{version}/content", s.handle(asJSON, s.artifactContent))
	m.Get("/v1/artifacts/{kind}/{name}/{version}", s.handle(asJSON, s.artifact))
	m.Get("/v1/artifacts/{kind}/{name}/{version}/bundle", s.handle(asJSON, s.bundle))

	m.Get("/log/checkpoint", s.handle(asText, s.checkpoint))
	m.Get("/log/keys", s.handle(asJSON, s.logKeys))
	m.Get("/log/tile/*", s.handle(asText, s.tile))
	return m
}

// ownPaths begin the routes of the API: what is not found below them is no page.
var ownPaths = []string{"/index/", "/public/", "/crates-io/", "/upstream/", "/mirror/", "/api/", "/v1/", "/ipfs/", "/log/", "/.well-known/"}

// pageOrUnknown leaves what is none of the API's to the pages.
func (s *Server) pageOrUnknown(w http.ResponseWriter, r *http.Request) {
	if slices.ContainsFunc(ownPaths, func(prefix string) bool { return strings.HasPrefix(r.URL.Path, prefix) }) {
		s.unknown(func(http.ResponseWriter, *http.Request) error { return registry.ErrNotFound })(w, r)
		return
	}
	s.pages.ServeHTTP(w, r)
}

// unknown renders h's error in the way of the family that the path belongs to.
func (s *Server) unknown(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.handle(rendererOf(r.URL.Path), h)(w, r)
	}
}

// rendererOf is how the family that path belongs to says why not.
func rendererOf(path string) renderer {
	switch {
	case strings.HasPrefix(path, "/api/v1/crates"):
		return asCargo
	case strings.HasPrefix(path, "/v1/"):
		return asJSON
	}
	return asText
}

// handler answers or says why not.
type handler func(w http.ResponseWriter, r *http.Request) error

// handle renders h's error in the way of its family of routes.
func (s *Server) handle(family renderer, h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			s.fail(w, r, family, err)
		}
	}
}

// credential is the Authorization header's token and the record behind its ~.
// Cargo sends the token bare; Bearer, in any case (RFC 9110 §11.1), is taken too.
func credential(r *http.Request) (session string, envelope []byte, err error) {
	if len(r.Header["Authorization"]) > 1 {
		return "", nil, errCredentials
	}
	header := r.Header.Get("Authorization")
	if scheme, token, ok := strings.Cut(header, " "); ok && strings.EqualFold(scheme, "Bearer") {
		header = token
	}
	return registry.SplitCredential(header)
}

// param is a segment of the path, decoded: chi gives it as it was sent where
// the client escaped what needs none (a version's + as %2B). Package web has the
// same for its pages; for these lines alone neither imports another.
func param(r *http.Request, name string) string {
	segment := chi.URLParam(r, name)
	if r.URL.RawPath == "" {
		return segment
	}
	if plain, err := url.PathUnescape(segment); err == nil {
		return plain
	}
	return segment
}

// asker says who asks; nobody is an answer. What follows ~ is ignored here.
func (s *Server) asker(r *http.Request) (policy.Asker, error) {
	session, _, err := credential(r)
	if errors.Is(err, errCredentials) {
		return policy.Asker{}, err
	}
	if session == "" {
		return policy.Asker{}, nil
	}
	return s.authenticate(r, session)
}

// authenticate says who a session stands for now, and notes it for the log.
func (s *Server) authenticate(r *http.Request, session string) (policy.Asker, error) {
	asker, err := s.registry.Authenticate(r.Context(), session)
	o := observed(r.Context())
	if o.asker, o.grant = asker.DID, asker.GrantNamed; err != nil {
		o.bearer = s.registry.Bearer(session)
	}
	return asker, err
}

// signer says who asks and gives the record that the credential carries; with
// registry.ErrNoRecord, where it carries none, the asker is still said.
func (s *Server) signer(r *http.Request) (policy.Asker, []byte, error) {
	session, envelope, err := credential(r)
	if err != nil {
		return policy.Asker{}, nil, err
	}
	if session == "" {
		return policy.Asker{}, nil, registry.ErrUnauthenticated
	}
	asker, err := s.authenticate(r, session)
	if err != nil {
		return policy.Asker{}, nil, err
	}
	if envelope == nil {
		return asker, nil, registry.ErrNoRecord
	}
	return asker, envelope, nil
}

// reader is asker, allowed to read artifacts. Every route that yields an
// artifact or tells of one starts with it; what of them the asker may see, the
// functions of package registry decide, which take the asker for that.
func (s *Server) reader(w http.ResponseWriter, r *http.Request) (policy.Asker, error) {
	return s.admitted(w, r, s.registry.MayRead)
}

// ownReader is reader for an index that anonymous readers never get.
func (s *Server) ownReader(w http.ResponseWriter, r *http.Request) (policy.Asker, error) {
	asker, err := s.reader(w, r)
	if err == nil && asker.Anonymous() {
		err = registry.ErrUnauthenticated
	}
	return asker, err
}

// member is for what only members get: what the registry goes by, which no grant hides.
func (s *Server) member(w http.ResponseWriter, r *http.Request) (policy.Asker, error) {
	asker, err := s.admitted(w, r, s.registry.MayReadAuthority)
	if err == nil && asker.Anonymous() {
		err = registry.ErrUnauthenticated
	}
	return asker, err
}

func (s *Server) admitted(w http.ResponseWriter, r *http.Request, may func(policy.Asker) policy.Decision) (policy.Asker, error) {
	w.Header()["Vary"], w.Header()["Cache-Control"] = varyAsker, privateNoCache
	if err := s.registry.Current(); err != nil {
		return policy.Asker{}, err
	}
	asker, err := s.asker(r)
	if err != nil {
		return policy.Asker{}, err
	}
	if d := may(asker); !d.Allow {
		return policy.Asker{}, d.Denial()
	}
	return asker, nil
}

// currentReader is who r's session stands for by now, allowed to read artifacts. Nothing
// is noted, so that several may ask for one request.
func (s *Server) currentReader(r *http.Request) (policy.Asker, error) {
	if err := s.registry.Current(); err != nil {
		return policy.Asker{}, err
	}
	session, _, err := credential(r)
	if err != nil {
		return policy.Asker{}, err
	}
	if session == "" {
		return policy.Asker{}, registry.ErrUnauthenticated
	}
	asker, err := s.registry.Authenticate(r.Context(), session)
	if err != nil {
		return policy.Asker{}, err
	}
	if d := s.registry.MayRead(asker); !d.Allow {
		return policy.Asker{}, d.Denial()
	}
	return asker, nil
}
