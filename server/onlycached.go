package server

import (
	"errors"
	"net/http"
	"strings"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/storage"
)

// errNotHeld: who asks wants only what is here already, and it is not.
var errNotHeld = errors.New("it is not held here, and the request forbids to ask for it elsewhere (Cache-Control: only-if-cached)")

// notHeld is errNotHeld in the place of another error. Its text is always the same, so that
// what an asker may not know of looks like what there is not.
type notHeld struct{ of error }

// Error implements error.
func (notHeld) Error() string { return errNotHeld.Error() }

// Unwrap gives the reason to the audit trail.
func (e notHeld) Unwrap() []error { return []error{errNotHeld, e.of} }

// onlyCached reports whether a request forbids that an upstream is asked because of it
// (RFC 9111 §5.2.1.7): an auditor looks at what is served, and changes nothing by that.
func onlyCached(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	for _, value := range r.Header.Values("Cache-Control") {
		for directive := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(directive), "only-if-cached") {
				return true
			}
		}
	}
	return false
}

// unheld is err; where r wants only what is here, and err says that it is not, it is said so.
func unheld(r *http.Request, err error) error {
	if errors.Is(err, registry.ErrNotFound) && onlyCached(r) {
		return notHeld{err}
	}
	return err
}

// checkHeld is errNotHeld where r wants only what is here, nothing but that stands against
// the crate v, and it is not.
func (s *Server) checkHeld(r *http.Request, upstream string, v registry.Judged) error {
	if !onlyCached(r) || !v.Decision.Allow && !v.Decision.Unscanned {
		return nil
	}
	held, err := s.upstreams.Held(r.Context(), upstream, []storage.CID{v.CID})
	if err == nil && !held[v.CID] {
		err = notHeld{errNotHeld}
	}
	return err
}
