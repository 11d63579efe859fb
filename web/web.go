// Package web is the registry's pages: what a person sees who opens its URL.
// They are made by the server, whole, from templates; there is no script in
// them, and none can run.
//
// Invariants: who may not read is told no name, and gets the same answer for
// names that exist and names that do not; what a page tells of artifacts comes from
// functions of package registry that take the visitor and ask the one policy
// function; every page is sent with a policy under which nothing runs and nothing
// is loaded but the style sheet and the icon; texts of other people reach a page
// escaped, or, in a README, through a list of allowed elements; the cookie is a
// read session and means nothing outside these pages.
package web

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/storage"
)

// Config is what the pages are made of.
type Config struct {
	Registry *registry.Registry
	Log      *slog.Logger
	Clock    func() time.Time
	// Version is the program's, shown at the foot.
	Version string
	// Upstreams tells of the registries that this one takes crates from; nil: there are none.
	Upstreams func() UpstreamsNow
}

// Pages answers the requests that are no routes of the API.
type Pages struct {
	Config
	// root is the path of the public URL, "" or "/prefix": every link begins with it.
	root    string
	origin  string // scheme://host of the public URL
	host    string
	cookie  cookie
	readmes *readmes
	lately  lately
	// searching and looking bound what reads much of the catalog.
	searching, looking places
}

// New returns the pages of c.Registry, whose public URL has been checked.
func New(c Config) http.Handler { return newPages(c).routes() }

func newPages(c Config) *Pages {
	public, err := url.Parse(c.Registry.PublicURL)
	if err != nil { // serve has parsed it before
		panic("web: public URL: " + err.Error())
	}
	return &Pages{
		Config: c, root: strings.TrimSuffix(public.EscapedPath(), "/"), origin: public.Scheme + "://" + public.Host, host: public.Host,
		cookie: cookieFor(public, c.Registry.Origin()), readmes: newReadmes(c.Log),
		searching: make(places, mostSearches), looking: make(places, mostArtifacts),
	}
}

// routes are all pages. A path that is none of them has no page, whoever asks.
func (p *Pages) routes() http.Handler {
	m := chi.NewRouter()
	m.NotFound(p.page(func(http.ResponseWriter, *http.Request, *visit) error { return errNoPage }))
	m.MethodNotAllowed(p.page(func(w http.ResponseWriter, r *http.Request, _ *visit) error {
		w.Header().Set("Allow", takenMethods(m, r))
		return errNoMethod
	}))
	get := func(pattern string, h handler) {
		m.Get(pattern, p.page(h))
		m.Head(pattern, p.page(h))
	}
	get("/", p.front)
	get("/me", p.me)
	m.Post("/me", p.page(p.signIn))
	m.Post("/me/sign-out", p.page(p.signOut))
	get("/search", p.reader(p.search))
	get("/artifacts", p.reader(p.kinds))
	get("/artifacts/{kind}", p.reader(p.list))
	get("/artifacts/{kind}/{name}", p.reader(p.artifact))
	get("/artifacts/{kind}/{name}/{version}", p.reader(p.artifact))
	get("/artifacts/{kind}/{name}/{version}/download", p.reader(p.download))
	get("/log", p.insider(p.log))
	get("/record/{id}", p.insider(p.record))
	get("/record/{id}/snapshot", p.insider(p.snapshot))
	get("/upstreams", p.member(p.upstreamList))
	get("/upstreams/{upstream}", p.proxied(p.upstream))
	get("/upstreams/{upstream}/crates/{name}", p.proxied(p.upstreamCrate))
	get("/upstreams/{upstream}/alarms", p.alarms)
	get("/rules", p.member(p.rules))
	get("/grants", p.member(p.grants))
	get("/audit", p.audit)
	m.Get("/assets/{file}", p.asset)
	m.Head("/assets/{file}", p.asset)
	return m
}

// takenMethods names the methods that m takes for r's path (RFC 9110 §15.5.6).
func takenMethods(m chi.Routes, r *http.Request) string {
	path := r.URL.RawPath // as chi routes
	if path == "" {
		path = r.URL.Path
	}
	var taken []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
		if m.Match(chi.NewRouteContext(), method, path) {
			taken = append(taken, method)
		}
	}
	return strings.Join(taken, ", ")
}

// policyHeader: nothing runs, nothing is framed, nothing is loaded but what is ours.
const policyHeader = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

func secure(h http.Header) {
	h.Set("Content-Security-Policy", policyHeader)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	// Other sites learn nothing; our own forms keep their Origin, which sign-in looks at.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=(), payment=(), usb=()")
}

// visit is one request for a page: who asks, and what they may see.
type visit struct {
	*Pages
	Asker policy.Asker
	// Ended: the browser had a session that is over.
	Ended bool
	// MayRead: the policy function lets the asker see artifacts.
	MayRead bool
	gate    policy.Decision
	// Active is the entry of the navigation to mark.
	Active string
	// Query is what was searched for.
	Query string
}

// Shut says why a member sees no artifacts, "" for who sees some and for nobody known.
func (v *visit) Shut() string {
	if v.MayRead || v.Asker.Anonymous() {
		return ""
	}
	return v.gate.Reason()
}

// handler writes a page or says why not.
type handler func(w http.ResponseWriter, r *http.Request, v *visit) error

// page is a handler for everybody.
func (p *Pages) page(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header())
		w.Header().Set("Vary", "Cookie")
		v, err := p.visit(w, r)
		if err == nil {
			err = h(w, r, v)
		}
		if err != nil {
			p.fail(w, r, v, err)
		}
	}
}

// reader is a handler for who may read artifacts. It asks before anything of
// the path but its shape is looked at.
func (p *Pages) reader(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request, v *visit) error {
		switch {
		case v.MayRead:
			return h(w, r, v)
		case v.gate.Rule == policy.RuleAnonymous, v.gate.Rule == policy.RuleScope:
			return errMembersOnly
		}
		return v.gate.Denial()
	}
}

// again is h for who asks by now, and may read: blob storage takes as long as it likes, and
// whatever was acknowledged meanwhile holds.
func (p *Pages) again(w http.ResponseWriter, r *http.Request, h handler) error {
	v, err := p.visit(w, r)
	if err != nil {
		return err
	}
	return p.reader(h)(w, r, v)
}

// insider is reader, and for members too whom tier or grant keeps from artifacts:
// what the registry goes by is theirs to read. Which records those are, the functions
// that yield them decide.
func (p *Pages) insider(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request, v *visit) error {
		if p.Registry.MayReadAuthority(v.Asker).Allow {
			return h(w, r, v)
		}
		return p.reader(h)(w, r, v)
	}
}

// visit says who asks. A session that is over, or never was one, is nobody's.
func (p *Pages) visit(w http.ResponseWriter, r *http.Request) (*visit, error) {
	v := &visit{Pages: p}
	w.Header().Set("Cache-Control", "private, no-cache")
	if err := p.Registry.Current(); err != nil {
		return v, err
	}
	if token := p.cookie.read(r); token != "" {
		w.Header().Set("Cache-Control", "private, no-store")
		asker, err := p.Registry.Authenticate(r.Context(), token)
		switch {
		case errors.Is(err, registry.ErrUnauthenticated):
			v.Ended = true
			p.cookie.clear(w)
		case err != nil:
			return v, err
		default:
			v.Asker = asker
		}
	}
	v.gate = p.Registry.MayRead(v.Asker)
	v.MayRead = v.gate.Allow
	return v, nil
}

// Errors of the pages' own.
var (
	errNoPage      = errors.New("there is no such page")
	errNoMethod    = errors.New("this page does not take that method")
	errMembersOnly = errors.New("only members see this page")
)

// problem is an error as a page shows it.
type problem struct {
	Status  int
	Title   string
	Text    string
	Request string
	// SignIn: signing in would help. Scope: signing in anew would, with another scope.
	SignIn, Scope bool
}

// classify says what a visitor is told of err. What is not known is told as a failure without its text.
func classify(err error) problem {
	var denied *registry.Denied
	var denial *policy.Denial
	switch {
	case errors.As(err, &denied):
		return problem{Status: http.StatusForbidden, Title: "Denied", Text: denied.Error()}
	case errors.Is(err, errMembersOnly):
		return problem{Status: http.StatusUnauthorized, Title: "For members only", SignIn: true}
	case errors.Is(err, errCrossSite):
		return problem{Status: http.StatusForbidden, Title: "Refused", Text: "That form came from another site. Open this registry's own sign-in page and use the form there."}
	case errors.As(err, &denial):
		return problem{Status: http.StatusForbidden, Title: "Refused", Text: denial.Reason, Scope: denial.Rule == policy.RuleScope}
	case errors.Is(err, registry.ErrUnauthenticated):
		return problem{Status: http.StatusUnauthorized, Title: "For members only", SignIn: true}
	case errors.Is(err, errNoMethod):
		return problem{Status: http.StatusMethodNotAllowed, Title: "Not that way", Text: "This page does not take that method."}
	case errors.Is(err, errNoPage), errors.Is(err, registry.ErrNotFound):
		return problem{Status: http.StatusNotFound, Title: "Not found", Text: "There is nothing here under that name."}
	case errors.Is(err, registry.ErrRequest):
		return problem{Status: http.StatusBadRequest, Title: "That does not work", Text: strings.TrimPrefix(err.Error(), registry.ErrRequest.Error()+": ")}
	case errors.Is(err, registry.ErrUnconfirmed):
		return problem{Status: http.StatusServiceUnavailable, Title: "Not now", Text: "This server cannot tell at present whether it shows all there is. Reload the page in a moment."}
	case errors.Is(err, registry.ErrUnavailable):
		return problem{Status: http.StatusServiceUnavailable, Title: "Busy", Text: "The registry is busy with other requests of this kind. Reload the page in a moment."}
	case errors.Is(err, storage.ErrUnavailable), errors.Is(err, registry.ErrNoDatabase):
		return problem{Status: http.StatusServiceUnavailable, Title: "Not now", Text: "A part of the registry does not answer at present. Reload the page in a moment."}
	}
	return problem{Status: http.StatusInternalServerError, Title: "Something went wrong here", Text: "The registry could not make this page; its operator finds the reason in the log."}
}

func (p *Pages) fail(w http.ResponseWriter, r *http.Request, v *visit, err error) {
	told := classify(err)
	p.noteDenial(w, v, err)
	if told.Status == http.StatusInternalServerError {
		told.Request = w.Header().Get("X-Request-Id")
		if r.Context().Err() == nil { // a visitor who went away is not a failure
			p.Log.Error("page failed", "request", told.Request, "error", err)
		}
	}
	if told.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Cargo login_url="`+p.Registry.PublicURL+`/me"`)
	}
	v.Active = ""
	v.show(w, r, told.Status, "problem", told.Title, told)
}

// shown is what a template gets.
type shown struct {
	*visit
	Title string
	// Body is the page's own.
	Body any
}

// Wanted is the scope of the session that the form to sign in asks for: where one for reading
// was refused, another of that kind would be too.
func (s shown) Wanted() string {
	if told, ok := s.Body.(problem); ok && told.Scope {
		return particle.ScopeAudit
	}
	return particle.ScopeRead
}

// Link is a path below the public URL; segments are escaped.
func (p *Pages) Link(segments ...string) string {
	var b strings.Builder
	b.WriteString(p.root)
	for _, s := range segments {
		b.WriteString("/" + url.PathEscape(s))
	}
	if len(segments) == 0 {
		b.WriteString("/")
	}
	return b.String()
}

// Host is the registry's name in its URL.
func (v *visit) Host() string { return v.host }

// URL is the registry's declared one.
func (v *visit) URL() string { return v.Registry.PublicURL }

// Origin is the registry's DID.
func (v *visit) Origin() did.DID { return v.Registry.Origin() }

// Style and Icon are the paths of the assets.
func (v *visit) Style() string { return v.Link("assets", assets["style.css"].name) }

// Icon is Style for the icon.
func (v *visit) Icon() string { return v.Link("assets", assets["icon.svg"].name) }

// render is show for a handler's last line.
func (v *visit) render(w http.ResponseWriter, r *http.Request, status int, name, title string, body any) error {
	v.show(w, r, status, name, title, body)
	return nil
}

// show sends a page. One that nobody in particular gets can be revalidated.
func (v *visit) show(w http.ResponseWriter, r *http.Request, status int, name, title string, body any) {
	var page bytes.Buffer
	if err := templates()[name].ExecuteTemplate(&page, "layout", shown{v, title, body}); err != nil {
		v.Log.Error("page failed", "page", name, "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	if status == http.StatusOK && !strings.Contains(h.Get("Cache-Control"), "no-store") {
		sum := sha256.Sum256(page.Bytes())
		etag := `"` + hex.EncodeToString(sum[:16]) + `"`
		h.Set("ETag", etag)
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	h.Set("Content-Length", fmt.Sprint(page.Len()))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(page.Bytes())
	}
}
