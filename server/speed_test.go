package server

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
)

type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}

// BenchmarkIndexHandler is the registry's share of an index GET, without net/http's.
func BenchmarkIndexHandler(b *testing.B) {
	l := newLab(b)
	l.demo()
	token := l.session(l.member, "read")
	handler := New(Config{Registry: l.registry, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Clock: l.now})
	r := httptest.NewRequest(http.MethodGet, "/index/de/mo/demo-one", nil)
	r.Header.Set("Authorization", token)
	l.get("/index/de/mo/demo-one", token) // what a lab logs is looked at
	b.ReportAllocs()
	for b.Loop() {
		w := &discard{h: http.Header{}}
		handler.ServeHTTP(w, r)
	}
}
