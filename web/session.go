package web

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
)

const (
	// maxToken is the most that a cookie may hold; sessions are at most 2 KiB.
	maxToken = 3 << 10
	maxForm  = 8 << 10
)

// errCrossSite: a form was sent here by another site's page.
var errCrossSite = errors.New("the form is another site's")

// cookie is how the browser keeps a session.
type cookie struct {
	name, path string
	secure     bool
}

// cookieFor: the name says which registry's (ports of one host share cookies),
// and has the browser see to it that only this host set it over https
// (RFC 6265bis §4.1.3).
func cookieFor(public *url.URL, origin did.DID) cookie {
	sum := sha256.Sum256([]byte(origin))
	c := cookie{name: "aln-session-" + hex.EncodeToString(sum[:4]), path: public.EscapedPath(), secure: public.Scheme == "https"}
	if c.path == "" {
		c.path = "/"
	}
	switch {
	case c.secure && c.path == "/":
		c.name = "__Host-" + c.name
	case c.secure:
		c.name = "__Secure-" + c.name
	}
	return c
}

// read is the session in r, "" for none or one that cannot be any.
func (c cookie) read(r *http.Request) string {
	found, err := r.Cookie(c.name)
	if err != nil || len(found.Value) > maxToken {
		return ""
	}
	return found.Value
}

func (c cookie) with(value string) *http.Cookie {
	return &http.Cookie{Name: c.name, Value: value, Path: c.path, HttpOnly: true, Secure: c.secure, SameSite: http.SameSiteStrictMode}
}

func (c cookie) set(w http.ResponseWriter, token string, life time.Duration, until time.Time) {
	kept := c.with(token)
	kept.Expires, kept.MaxAge = until, int(life.Seconds())
	http.SetCookie(w, kept)
}

func (c cookie) clear(w http.ResponseWriter) {
	gone := c.with("")
	gone.MaxAge = -1
	http.SetCookie(w, gone)
}

// ownForm refuses what another site's page sent (CSRF). Browsers say where a
// form comes from in Sec-Fetch-Site, to addresses that they trust, and
// otherwise in Origin; what says neither is not a browser's form.
func (p *Pages) ownForm(r *http.Request) error {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" {
		if site == "same-origin" {
			return nil
		}
		return errCrossSite
	}
	if r.Header.Get("Origin") == p.origin {
		return nil
	}
	return errCrossSite
}

// signInPage is the body of the page /me.
type signInPage struct {
	// Problem says why the session that was pasted is not taken.
	Problem string
	Until   time.Time
	Minutes int
}

func (p *Pages) me(w http.ResponseWriter, r *http.Request, v *visit) error {
	return p.showMe(w, r, v, http.StatusOK, "")
}

func (p *Pages) showMe(w http.ResponseWriter, r *http.Request, v *visit, status int, problem string) error {
	v.Active = "me"
	title := "Sign in"
	if !v.Asker.Anonymous() {
		title = "You"
	}
	return v.render(w, r, status, "me", title, p.signInPage(v, problem))
}

func (p *Pages) signInPage(v *visit, problem string) signInPage {
	s := signInPage{Problem: problem}
	if !v.Asker.Anonymous() {
		s.Until = v.Asker.Until
		s.Minutes = int(v.Asker.Until.Sub(p.Clock()).Minutes())
	}
	return s
}

// signIn keeps the session that was pasted in a cookie for as long as it lives.
func (p *Pages) signIn(w http.ResponseWriter, r *http.Request, v *visit) error {
	w.Header().Set("Cache-Control", "private, no-store")
	if err := p.ownForm(r); err != nil {
		return err
	}
	token, refused := pasted(w, r)
	var asker policy.Asker
	if refused == "" {
		var err error
		asker, err = p.Registry.Authenticate(r.Context(), token)
		if err != nil && !errors.Is(err, registry.ErrUnauthenticated) {
			return err
		}
		refused = refusal(asker, err)
	}
	if refused != "" {
		return p.showMe(w, r, v, http.StatusBadRequest, refused)
	}
	p.cookie.set(w, token, asker.Until.Sub(p.Clock()), asker.Until)
	http.Redirect(w, r, p.back(r), http.StatusSeeOther)
	return nil
}

// pasted is the session in the form, or why there is none.
func pasted(w http.ResponseWriter, r *http.Request) (token, refused string) {
	const unreadable = "The form could not be read. Paste the one line that the command prints."
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		return "", unreadable
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return "", unreadable
	}
	token = strings.TrimSpace(r.PostForm.Get("session"))
	if token == "" {
		return "", "The field was empty. Paste the one line that the command prints."
	}
	return token, ""
}

// refusal says why a session is not one for a browser: it must be valid, and
// must not be able to do more than read, since browsers leak.
func refusal(asker policy.Asker, err error) string {
	var denial *policy.Denial
	switch {
	case errors.As(err, &denial):
		return "That session is refused: " + denial.Reason + "."
	case err != nil:
		return "That is not a session of this registry. Paste the one line that the command prints, whole."
	}
	for _, scope := range asker.Scopes {
		if !slices.Contains([]string{particle.ScopeRead, particle.ScopeAudit}, scope) {
			return "That session may do more than read (" + scope + "), which a browser has no use for. Make one with --scope read."
		}
	}
	if asker.Rec != "" || len(asker.Scopes) == 0 {
		return "That session is not one for reading. Make one with --scope read."
	}
	return ""
}

// back is where to go after signing in: the page of ours on which it was done.
// Only its path is taken, so that nobody is sent elsewhere.
func (p *Pages) back(r *http.Request) string {
	from, err := url.Parse(r.Header.Get("Referer"))
	if err != nil {
		return p.Link()
	}
	path := from.EscapedPath()
	if !strings.HasPrefix(path, p.root+"/") || strings.HasPrefix(path, "//") || strings.HasPrefix(path, p.Link("me")) || strings.Contains(path, `\`) {
		return p.Link()
	}
	return (&url.URL{Path: from.Path, RawPath: from.RawPath, RawQuery: from.RawQuery}).String()
}

func (p *Pages) signOut(w http.ResponseWriter, r *http.Request, _ *visit) error {
	w.Header().Set("Cache-Control", "private, no-store")
	if err := p.ownForm(r); err != nil {
		return err
	}
	p.cookie.clear(w)
	http.Redirect(w, r, p.Link(), http.StatusSeeOther)
	return nil
}
