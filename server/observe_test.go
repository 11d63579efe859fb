package server

import (
	"regexp"
	"strings"
	"testing"
)

// A request's id is the server's own, another for each, and leads to its line in the log.
func TestRequestIDs(t *testing.T) {
	l := newLab(t)
	seen := map[string]bool{}
	for range 50 {
		id := l.getWith("/healthz", "", "X-Request-Id", "0123456789abcdef").header.Get("X-Request-Id")
		if !regexp.MustCompile("^[0-9a-f]{16}$").MatchString(id) || seen[id] || id == "0123456789abcdef" {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
		if n := strings.Count(l.log.String(), "request="+id+" "); n != 1 {
			t.Fatalf("%s is in %d lines", id, n)
		}
	}
}
