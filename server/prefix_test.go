package server

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestThePublicPathMayStandInFrontOrNot(t *testing.T) {
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.EscapedPath()) })
	for _, test := range []struct{ public, ask, want string }{
		{"https://host", "/index/config.json", "/index/config.json"},
		{"https://host/aln", "/index/config.json", "/index/config.json"},
		{"https://host/aln", "/aln/index/config.json", "/index/config.json"},
		{"https://host/aln", "/aln/v1/heads/member/did%253Akey", "/v1/heads/member/did%253Akey"},
		{"https://host/aln", "/aln/api/v1/crates/a/1.0.0%2Bb/download", "/api/v1/crates/a/1.0.0%2Bb/download"},
		{"https://host/aln", "/alnother", "/alnother"},
		{"https://host/aln", "/aln/", "/"},
		{"https://host/a/b", "/a/index/x", "/a/index/x"},
		{"https://host/a/b", "/a/b/me", "/me"},
		{"https://host/a%20b", "/a%20b/me", "/me"},
	} {
		w := httptest.NewRecorder()
		underPublicPath(test.public, echo).ServeHTTP(w, httptest.NewRequest(http.MethodGet, test.ask, nil))
		if w.Code != http.StatusOK || w.Body.String() != test.want {
			t.Errorf("%s: %s reached %q (status %d), want %q", test.public, test.ask, w.Body, w.Code, test.want)
		}
	}
	w := httptest.NewRecorder()
	underPublicPath("https://host/aln", echo).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/aln", nil))
	if w.Code != http.StatusMovedPermanently || w.Header().Get("Location") != "/aln/" {
		t.Errorf("status %d to %q", w.Code, w.Header().Get("Location"))
	}
}

func TestAPublicPathThatLooksLikeARouteIsNoticed(t *testing.T) {
	for public, want := range map[string]bool{
		"https://host": false, "https://host/aln": false, "https://host/v1x": false, "https://host/lab/v1": false,
		"https://host/v1": true, "https://host/api/registry": true, "https://host/log": true, "https://host/.well-known": true,
	} {
		if got := CollidingPath(public); got != want {
			t.Errorf("%s: %v", public, got)
		}
	}
}
