package server

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/policy"
)

func (s *Server) indexConfig(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.ownReader(w, r); err != nil {
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
	asker, err := s.ownReader(w, r)
	if err != nil {
		return err
	}
	return s.file(w, r, asker)
}

func (s *Server) publicIndexFile(w http.ResponseWriter, r *http.Request) error {
	if err := s.requirePublic(); err != nil {
		return err
	}
	asker, err := s.reader(w, r)
	if err != nil {
		return err
	}
	return s.file(w, r, asker)
}

// requirePublic: without --anonymous-read there is no public index at all.
func (s *Server) requirePublic() error {
	if !s.registry.AnonymousRead {
		return fmt.Errorf("%w: this registry has no public index", registry.ErrNotFound)
	}
	return nil
}

func (s *Server) file(w http.ResponseWriter, r *http.Request, asker policy.Asker) error {
	_, rest, _ := strings.Cut(r.URL.Path, "/index/")
	name := path.Base(rest)
	if cargo.ValidateName(name) != nil || rest != cargo.IndexPath(name) {
		return fmt.Errorf("%w: no such file in the index", registry.ErrNotFound)
	}
	file, err := s.registry.IndexFile(r.Context(), asker, name)
	if err != nil {
		return err
	}
	w.Header()["Content-Type"] = plainText
	s.send(w, r, file.Plain, file.Packed)
	return nil
}

// gzipFrom is the size in bytes from which compressing is worth it.
const gzipFrom = 1024

// revalidated sends body with a strong ETag, its hash, or 304 where the client has it.
func (s *Server) revalidated(w http.ResponseWriter, r *http.Request, body []byte) error {
	var compressed []byte
	if len(body) >= gzipFrom && acceptsGzip(r.Header.Get("Accept-Encoding")) {
		var packed bytes.Buffer
		z, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
		if err != nil {
			return err
		}
		if _, err := z.Write(body); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		compressed = packed.Bytes()
	}
	plain, packed := registry.Represent(body, compressed)
	s.send(w, r, plain, packed)
	return nil
}

// send answers with the representation that r takes, or 304 where the client has one that it
// takes: who asks for plain bytes may be a cache, on behalf of somebody who cannot read the
// compressed ones that it has. These have an ETag of their own (RFC 9110 §8.8.3).
func (s *Server) send(w http.ResponseWriter, r *http.Request, plain, packed registry.Representation) {
	h := w.Header()
	if vary := h["Vary"]; len(vary) == 1 && vary[0] == varyAsker[0] {
		h["Vary"] = varyAskerCoding
	} else {
		h.Add("Vary", "Accept-Encoding")
	}
	if len(h["Cache-Control"]) == 0 {
		h["Cache-Control"] = noCache
	}
	compressed := packed.Bytes != nil && acceptsGzip(r.Header.Get("Accept-Encoding"))
	chosen := plain
	if compressed {
		chosen = packed
	}
	h["Etag"] = chosen.ETag // in net/http's spelling
	switch {
	case matches(r, chosen.ETag[0]):
		w.WriteHeader(http.StatusNotModified)
	case compressed && matches(r, plain.ETag[0]): // the tag says which of its copies the client may go on using (RFC 9111 §4.3.4)
		h["Etag"] = plain.ETag
		w.WriteHeader(http.StatusNotModified)
	case compressed:
		h["Content-Encoding"], h["Content-Length"] = gzipCoding, packed.ContentLength
		_, _ = w.Write(packed.Bytes) // the status is sent; the client may be gone
	case r.Header.Get("Range") != "" || r.Header.Get("If-Match") != "":
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(plain.Bytes))
	default:
		h["Content-Length"] = plain.ContentLength
		_, _ = w.Write(plain.Bytes)
	}
}

// serveBytes is http.ServeContent for what is in memory: all of it is one write.
func serveBytes(w http.ResponseWriter, r *http.Request, body []byte) {
	if r.Header.Get("Range") != "" || r.Header.Get("If-Match") != "" {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
		return
	}
	w.Header().Set("Accept-Ranges", "bytes")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the status is sent; the client may be gone
}

// acceptsGzip reads the coding gzip's weight; zero means "not acceptable" (RFC 9110 §12.4.2).
func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
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
