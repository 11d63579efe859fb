package server

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/cargo"
)

func (s *Server) indexConfig(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.member(w, r); err != nil {
		return err
	}
	return s.config(w, r, true)
}

func (s *Server) publicIndexConfig(w http.ResponseWriter, r *http.Request) error {
	if err := s.requirePublic(); err != nil {
		return err
	}
	return s.config(w, r, false)
}

// config tells cargo where downloads and the web API are (Cargo reference,
// "Index configuration").
func (s *Server) config(w http.ResponseWriter, r *http.Request, authRequired bool) error {
	base := s.registry.PublicURL
	w.Header().Set("Content-Type", "application/json")
	return s.revalidated(w, r, cargo.ConfigJSON(base+"/api/v1/crates", base, authRequired))
}

func (s *Server) indexFile(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.member(w, r); err != nil {
		return err
	}
	return s.file(w, r)
}

func (s *Server) publicIndexFile(w http.ResponseWriter, r *http.Request) error {
	if err := s.requirePublic(); err != nil {
		return err
	}
	if _, err := s.reader(w, r); err != nil {
		return err
	}
	return s.file(w, r)
}

// requirePublic: without --anonymous-read there is no public index at all.
func (s *Server) requirePublic() error {
	if !s.registry.AnonymousRead {
		return fmt.Errorf("%w: this registry has no public index", registry.ErrNotFound)
	}
	return nil
}

func (s *Server) file(w http.ResponseWriter, r *http.Request) error {
	_, rest, _ := strings.Cut(r.URL.Path, "/index/")
	name := path.Base(rest)
	if cargo.ValidateName(name) != nil || rest != cargo.IndexPath(name) {
		return fmt.Errorf("%w: no such file in the index", registry.ErrNotFound)
	}
	lines, err := s.registry.IndexFile(r.Context(), name)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	return s.revalidated(w, r, lines)
}

// gzipFrom is the size in bytes from which compressing is worth it.
const gzipFrom = 1024

// revalidated sends body with a strong ETag, its hash, or 304 where the client
// has it. The compressed representation has an ETag of its own (RFC 9110 §8.8.3).
func (s *Server) revalidated(w http.ResponseWriter, r *http.Request, body []byte) error {
	sum := sha256.Sum256(body)
	plain := `"` + hex.EncodeToString(sum[:]) + `"`
	packed := `"` + hex.EncodeToString(sum[:]) + `-gzip"`
	compress := len(body) >= gzipFrom && acceptsGzip(r)
	w.Header().Add("Vary", "Accept-Encoding")
	if w.Header().Get("Cache-Control") == "" {
		w.Header().Set("Cache-Control", "no-cache")
	}
	etag := plain
	if compress {
		etag = packed
	}
	w.Header().Set("ETag", etag)
	if matches(r.Header.Get("If-None-Match"), plain, packed) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if !compress {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
		return nil
	}
	w.Header().Set("Content-Encoding", "gzip")
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if _, err := z.Write(body); err != nil {
		return nil // the client is gone; the status is sent
	}
	z.Close()
	return nil
}

// acceptsGzip reads the coding gzip's weight; zero means "not acceptable" (RFC 9110 §12.4.2).
func acceptsGzip(r *http.Request) bool {
	for _, part := range strings.Split(r.Header.Get("Accept-Encoding"), ",") {
		coding, weight, weighed := strings.Cut(part, ";")
		if !strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			continue
		}
		if !weighed {
			return true
		}
		value, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(weight)), "q=")
		q, err := strconv.ParseFloat(value, 64)
		return ok && err == nil && q > 0
	}
	return false
}

// matches looks for one of the tags in an If-None-Match header, by weak comparison.
func matches(header string, tags ...string) bool {
	for _, part := range strings.Split(header, ",") {
		candidate := strings.TrimPrefix(strings.TrimSpace(part), "W/")
		if candidate == "*" {
			return true
		}
		for _, tag := range tags {
			if candidate == tag {
				return true
			}
		}
	}
	return false
}
