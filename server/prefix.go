package server

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// PublicPath is the path under which clients reach the registry, that of its
// public URL, without a slash at the end; "" for none.
func PublicPath(publicURL string) string {
	u, err := url.Parse(publicURL)
	if err != nil {
		return ""
	}
	return strings.TrimRight(u.EscapedPath(), "/")
}

// CollidingPath reports whether the path of publicURL begins like a route of the
// registry's own, so that the two could not be told apart.
func CollidingPath(publicURL string) bool {
	path := PublicPath(publicURL) + "/"
	return path != "/" && slices.ContainsFunc(ownPaths, func(own string) bool { return strings.HasPrefix(path, own) })
}

// underPublicPath answers the same with and without the path of the public URL
// in front: some proxies take it off before they hand a request on, some do not.
func underPublicPath(publicURL string, next http.Handler) http.Handler {
	prefix := PublicPath(publicURL)
	if prefix == "" {
		return next
	}
	plain, err := url.PathUnescape(prefix)
	if err != nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.EscapedPath(); {
		case path == prefix:
			http.Redirect(w, r, prefix+"/", http.StatusMovedPermanently)
			return
		case strings.HasPrefix(path, prefix+"/"):
			inner, u := *r, *r.URL
			inner.URL = &u
			u.Path, u.RawPath = strings.TrimPrefix(u.Path, plain), strings.TrimPrefix(u.RawPath, prefix)
			r = &inner
		}
		next.ServeHTTP(w, r)
	})
}
