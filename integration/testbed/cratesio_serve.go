package testbed

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

func lower(name string) string { return strings.ToLower(name) }

// reply is what the server has to say before a misdeed changes it.
type reply struct {
	status   int
	body     []byte
	kind     string
	modified time.Time
	tag      string // without quotes, "" for none
	coded    string // Content-Encoding of the body
}

func refuse(status int, text string) reply {
	return reply{status: status, body: []byte(text + "\n"), kind: "text/plain; charset=utf-8"}
}

// ServeHTTP answers one request, as it should or as it was told to.
func (s *CratesServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.note(r)
	if r.UserAgent() == "" {
		refuse(http.StatusForbidden, "requests need a User-Agent that says who asks").write(w, r)
		return
	}
	path, moved := strings.CutPrefix(r.URL.Path, "/moved") // where redirects lead to
	if strings.HasPrefix(path, "/loop/") {
		http.Redirect(w, r, path, http.StatusFound)
		return
	}
	a := s.answer(r, path)
	if misdeed := s.misdeed(r.URL.Path); misdeed.do != nil && !moved {
		misdeed.do(s, w, r, a)
		return
	}
	a.write(w, r)
}

func (s *CratesServer) note(r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[r.URL.Path]++
	s.asked = append(s.asked, Asked{
		At: time.Now(), Path: r.URL.Path, Proto: r.Proto, UserAgent: r.UserAgent(), Authorization: r.Header.Get("Authorization"),
		Conditional: r.Header.Get("If-None-Match")+r.Header.Get("If-Modified-Since") != "", Compressed: takesGzip(r),
	})
}

// answer finds what is asked.
func (s *CratesServer) answer(r *http.Request, path string) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return refuse(http.StatusMethodNotAllowed, "only GET")
	}
	index, inIndex := strings.CutPrefix(path, "/index/")
	download, inCrates := strings.CutPrefix(path, "/crates/")
	switch {
	case s.token != "" && r.Header.Get("Authorization") != s.token:
		return refuse(http.StatusUnauthorized, "who are you?")
	case index == "config.json":
		return s.config(r)
	case inIndex:
		return s.indexFile(index, r)
	case inCrates:
		return s.download(download)
	}
	return refuse(http.StatusNotFound, "no such path")
}

func (s *CratesServer) config(r *http.Request) reply {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	base := scheme + "://" + r.Host
	dl := base + "/crates"
	if s.template != "" {
		dl = strings.ReplaceAll(s.template, "{host}", base)
	}
	config := map[string]any{"dl": dl, "api": base}
	if s.token != "" {
		config["auth-required"] = true
	}
	body, err := json.Marshal(config)
	if err != nil {
		return refuse(http.StatusInternalServerError, err.Error())
	}
	return s.tagged(reply{status: http.StatusOK, body: body, kind: "application/json"})
}

func (s *CratesServer) tagged(a reply) reply {
	if s.tags {
		a.tag = sumOf(a.body)[:32]
	}
	return a
}

// indexFile: names are found under their own path only.
func (s *CratesServer) indexFile(path string, r *http.Request) reply {
	name := path[strings.LastIndexByte(path, '/')+1:]
	file := s.crates[name]
	if file == nil || IndexPath(name) != path {
		return refuse(http.StatusNotFound, "no such crate")
	}
	a := s.tagged(reply{status: http.StatusOK, body: file.bytes(), kind: "text/plain", modified: file.modified})
	if takesGzip(r) {
		a = a.compressed()
	}
	return a
}

func (f *indexFile) bytes() []byte {
	var out bytes.Buffer
	for _, line := range f.lines {
		out.Write(line.Marshal())
	}
	return out.Bytes()
}

func (s *CratesServer) download(path string) reply {
	parts := strings.Split(path, "/")
	if len(parts) < 2 {
		return refuse(http.StatusNotFound, "no such path")
	}
	key := parts[len(parts)-1]
	if key == "download" && len(parts) > 2 {
		key = parts[len(parts)-3] + "-" + parts[len(parts)-2]
	} else {
		key = strings.TrimSuffix(key, ".crate")
	}
	crate, ok := s.content[key]
	if !ok {
		return refuse(http.StatusNotFound, "no such version")
	}
	body, err := crate.read()
	if err != nil {
		return refuse(http.StatusInternalServerError, err.Error())
	}
	return s.tagged(reply{status: http.StatusOK, body: body, kind: "application/gzip"})
}

func takesGzip(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept-Encoding"), "gzip")
}

// compressed is the answer in gzip; its tag is then a weak one.
func (a reply) compressed() reply {
	var out bytes.Buffer
	compressor := gzip.NewWriter(&out)
	_, _ = compressor.Write(a.body) // a buffer takes everything
	_ = compressor.Close()
	a.body, a.coded = out.Bytes(), "gzip"
	return a
}

// head writes the header of all but a status line; length < 0: chunks.
func (a reply) head(w http.ResponseWriter, length int) {
	h := w.Header()
	h.Set("Content-Type", a.kind)
	if length >= 0 {
		h.Set("Content-Length", strconv.Itoa(length))
	}
	if a.coded != "" {
		h.Set("Content-Encoding", a.coded)
		h.Set("Vary", "Accept-Encoding")
	}
	if tag := a.etag(); tag != "" {
		h.Set("ETag", tag)
	}
	if !a.modified.IsZero() {
		h.Set("Last-Modified", a.modified.Format(http.TimeFormat))
	}
}

func (a reply) etag() string {
	switch {
	case a.tag == "":
		return ""
	case a.coded != "":
		return fmt.Sprintf("W/%q", a.tag)
	}
	return strconv.Quote(a.tag)
}

// unchanged reports whether the client has it already.
func (a reply) unchanged(r *http.Request) bool {
	if a.status != http.StatusOK {
		return false
	}
	if match := r.Header.Get("If-None-Match"); match != "" {
		return a.tag != "" && strings.Contains(match, strconv.Quote(a.tag))
	}
	since, err := http.ParseTime(r.Header.Get("If-Modified-Since"))
	return err == nil && !a.modified.IsZero() && !a.modified.After(since)
}

func (a reply) write(w http.ResponseWriter, r *http.Request) {
	if a.unchanged(r) {
		a.head(w, -1)
		w.WriteHeader(http.StatusNotModified)
		return
	}
	a.head(w, len(a.body))
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // the client may be gone
}
