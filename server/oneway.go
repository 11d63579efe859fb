package server

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"

	"phoenix-lab.org/aln-registry/registry"
)

// errCredentials: of two headers a proxy may have looked at the other one.
var errCredentials = fmt.Errorf("%w: the request has more than one Authorization header", registry.ErrUnauthenticated)

// methods are those that some route takes, as they are told and logged.
var methods = []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodDelete}

// allowed names the methods that m takes for r's path (RFC 9110 §15.5.6).
func allowed(m chi.Routes, r *http.Request) string {
	path := r.URL.RawPath // as chi routes
	if path == "" {
		path = r.URL.Path
	}
	var taken []string
	for _, method := range methods {
		if m.Match(chi.NewRouteContext(), strings.Replace(method, http.MethodHead, http.MethodGet, 1), path) {
			taken = append(taken, method)
		}
	}
	return strings.Join(taken, ", ")
}

// methodName is a method for the log: one that is known, since anything else is
// as long, and says what, as whoever asks likes.
func methodName(method string) string {
	if slices.Contains(methods, method) || method == http.MethodOptions || method == http.MethodPatch {
		return method
	}
	return "other"
}

// oneRange takes a Range away that is not one part in bytes; then the whole is
// sent, as RFC 9110 §14.2 allows. A few bytes of header for each of a thousand
// parts of nothing make an answer of many times the request.
func oneRange(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ranges := r.Header["Range"]; len(ranges) > 0 {
			if len(ranges) > 1 || !strings.HasPrefix(ranges[0], "bytes=") || strings.ContainsAny(ranges[0], ",;") {
				r.Header.Del("Range")
			}
		}
		next.ServeHTTP(w, r)
	})
}
