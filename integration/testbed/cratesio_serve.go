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
	s.busy(Load{Requests: 1})
	defer s.busy(Load{Requests: -1})
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
		At: time.Now(), Path: r.URL.Path, Proto: r.Proto, UserAgent: r.UserAgent(), Authorization: r.Header.Get("Authorization"), From: r.RemoteAddr,
		Conditional: r.Header.Get("If-None-Match")+r.Header.Get("If-Modified-Since") != "", Compressed: takesGzip(r),
	})
}

// answer finds what is asked.
func (s *CratesServer) answer(r *http.Request, path string) reply {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return refuse(http.StatusMethodNotAllowed, "only GET")
	}
	s.mu.Lock()
	token, template, tags := s.token, s.template, s.tags
	s.mu.Unlock()
	index, inIndex := strings.CutPrefix(path, "/index/")
	download, inCrates := strings.CutPrefix(path, "/crates/")
	a := refuse(http.StatusNotFound, "no such path")
	switch {
	case token != "" && r.Header.Get("Authorization") != token:
		return refuse(http.StatusUnauthorized, "who are you?")
	case index == "config.json":
		a = config(r, template, token != "")
	case inIndex:
		a = s.indexFile(index, takesGzip(r))
	case inCrates:
		a = s.download(download)
	}
	if !tags {
		a.tag = ""
	}
	return a
}

func config(r *http.Request, template string, auth bool) reply {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	base := scheme + "://" + r.Host
	if template == "" {
		template = "{host}/crates"
	}
	values := map[string]any{"dl": strings.ReplaceAll(template, "{host}", base), "api": base}
	if auth {
		values["auth-required"] = true
	}
	body, err := json.Marshal(values)
	if err != nil {
		return refuse(http.StatusInternalServerError, err.Error())
	}
	return reply{status: http.StatusOK, body: body, kind: "application/json", tag: sumOf(body)}
}

// indexFile: names are found under their own path only.
func (s *CratesServer) indexFile(path string, packed bool) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := path[strings.LastIndexByte(path, '/')+1:]
	file := s.crates[name]
	if file == nil || IndexPath(name) != path {
		return refuse(http.StatusNotFound, "no such crate")
	}
	a := reply{status: http.StatusOK, body: file.bytes(), kind: "text/plain", modified: file.modified}
	a.tag = sumOf(a.body)
	if packed {
		if file.packed == nil {
			file.packed = compressed(a.body)
		}
		a.body, a.coded = file.packed, "gzip"
	}
	return a
}

// bytes are what is served, to be read only.
func (f *indexFile) bytes() []byte {
	if f.plain == nil {
		for _, line := range f.lines {
			f.plain = append(f.plain, line.Marshal()...)
		}
	}
	return f.plain
}

func (s *CratesServer) download(path string) reply {
	parts := strings.Split(path, "/")
	key := parts[len(parts)-1]
	if n := len(parts); n > 2 && (key == "download" || len(key) == 64) {
		key = parts[n-3] + "-" + parts[n-2]
	}
	s.mu.Lock()
	crate, ok := s.content[strings.TrimSuffix(key, ".crate")]
	s.mu.Unlock()
	if !ok {
		return refuse(http.StatusNotFound, "no such version")
	}
	body, err := crate.read()
	if err != nil {
		return refuse(http.StatusInternalServerError, err.Error())
	}
	return reply{status: http.StatusOK, body: body, kind: "application/gzip", tag: crate.sum}
}

func takesGzip(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept-Encoding"), "gzip")
}

func compressed(body []byte) []byte {
	var out bytes.Buffer
	compressor := gzip.NewWriter(&out)
	_, _ = compressor.Write(body) // a buffer takes everything
	_ = compressor.Close()
	return out.Bytes()
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
	case a.coded != "": // other bytes than those of the tag
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
