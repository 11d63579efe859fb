package testbed

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Misdeed is what the stand-in of crates.io does in place of the right answer.
type Misdeed struct {
	name string
	do   func(s *CratesServer, w http.ResponseWriter, r *http.Request, a reply)
}

func (m Misdeed) String() string { return m.name }

// rule is a misdeed for some paths.
type rule struct {
	prefix  string
	misdeed Misdeed
	left    int // how often still; negative: always
}

// Use makes requests for paths that begin with prefix ("" is all of them) meet
// with m, times times, or until Behave for 0. The last call that fits a path holds.
// Use IndexFile and Download for the paths of crates, "/index/" and "/crates/" for all.
func (s *CratesServer) Use(prefix string, m Misdeed, times int) {
	if times == 0 {
		times = -1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = append(s.rules, &rule{prefix, m, times})
}

// Behave ends all misdeeds; those under way go on until their clients leave.
func (s *CratesServer) Behave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = nil
}

func (s *CratesServer) misdeed(path string) Misdeed {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.rules) - 1; i >= 0; i-- {
		if rule := s.rules[i]; rule.left != 0 && strings.HasPrefix(path, rule.prefix) {
			rule.left--
			return rule.misdeed
		}
	}
	return Misdeed{}
}

// Truncated answers end after half of what their Content-Length says.
func Truncated() Misdeed {
	return Misdeed{"truncated", func(_ *CratesServer, w http.ResponseWriter, _ *http.Request, a reply) {
		a.begin(w, len(a.body))
		panic(http.ErrAbortHandler)
	}}
}

// Shortened answers are whole by their Content-Length, but half of what they should be.
func Shortened() Misdeed {
	return Misdeed{"shortened", func(_ *CratesServer, w http.ResponseWriter, r *http.Request, a reply) {
		a.body = a.body[:len(a.body)/2]
		a.write(w, r)
	}}
}

// Corrupted answers have one bit changed in their middle.
func Corrupted() Misdeed {
	return Misdeed{"corrupted", func(_ *CratesServer, w http.ResponseWriter, r *http.Request, a reply) {
		a.body = bytes.Clone(a.body)
		if len(a.body) > 0 {
			a.body[len(a.body)/2] ^= 1
		}
		a.write(w, r)
	}}
}

// Lengthened answers go on after what they should be.
func Lengthened(by int) Misdeed {
	return Misdeed{"lengthened", func(_ *CratesServer, w http.ResponseWriter, r *http.Request, a reply) {
		a.body = append(bytes.Clone(a.body), make([]byte, by)...)
		a.write(w, r)
	}}
}

// Stalled answers stop after their half, and the connection stays.
func Stalled() Misdeed {
	return Misdeed{"stalled", func(_ *CratesServer, w http.ResponseWriter, r *http.Request, a reply) {
		a.begin(w, len(a.body))
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}}
}

// Silent: not even a header comes.
func Silent() Misdeed {
	return Misdeed{"silent", func(_ *CratesServer, _ http.ResponseWriter, r *http.Request, _ reply) {
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}}
}

// Late answers are right, after a pause.
func Late(pause time.Duration) Misdeed {
	return Misdeed{"late", func(_ *CratesServer, w http.ResponseWriter, r *http.Request, a reply) {
		if rest(r, pause) {
			a.write(w, r)
		}
	}}
}

// Slow answers are right, and come in pieces of so many bytes with a pause before each.
func Slow(piece int, pause time.Duration) Misdeed {
	return Misdeed{"slow", func(_ *CratesServer, w http.ResponseWriter, r *http.Request, a reply) {
		a.head(w, len(a.body))
		w.WriteHeader(a.status)
		for body := a.body; len(body) > 0 && rest(r, pause); {
			n := min(piece, len(body))
			if _, err := w.Write(body[:n]); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			body = body[n:]
		}
	}}
}

// Held answers are right, and come when gate is closed.
func Held(gate <-chan struct{}) Misdeed {
	return Misdeed{"held", func(_ *CratesServer, w http.ResponseWriter, r *http.Request, a reply) {
		select {
		case <-gate:
			a.write(w, r)
		case <-r.Context().Done():
		}
	}}
}

// Reset cuts the connection (the stream, in HTTP/2) before any answer.
func Reset() Misdeed {
	return Misdeed{"reset", func(*CratesServer, http.ResponseWriter, *http.Request, reply) { panic(http.ErrAbortHandler) }}
}

// Answers with a status, and headers as pairs: 403, 404, 410, 429 with "Retry-After", 500.
func Answers(status int, headers ...string) Misdeed {
	return Misdeed{strconv.Itoa(status), func(_ *CratesServer, w http.ResponseWriter, r *http.Request, _ reply) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		refuse(status, "this is what upstream says to "+http.StatusText(status)).write(w, r)
	}}
}

// RedirectsHere: to another path of the same host, which has what was asked.
func RedirectsHere() Misdeed {
	return redirects("redirected", func(s *CratesServer, r *http.Request) string { return "/moved" + r.URL.Path })
}

// RedirectsElsewhere: to another host, which has what was asked.
func RedirectsElsewhere() Misdeed {
	return redirects("redirected to another host", func(s *CratesServer, r *http.Request) string {
		return s.scheme + "://" + strings.Replace(s.host, "127.0.0.1", "localhost", 1) + "/moved" + r.URL.Path
	})
}

// RedirectsToHTTP: to where the same is to be had without TLS.
func RedirectsToHTTP() Misdeed {
	return redirects("redirected to http", func(s *CratesServer, r *http.Request) string { return "http://" + s.plain + "/moved" + r.URL.Path })
}

// RedirectsForEver: to a path that redirects to itself.
func RedirectsForEver() Misdeed {
	return redirects("redirected for ever", func(s *CratesServer, r *http.Request) string { return "/loop" + r.URL.Path })
}

// RedirectsTo any URL.
func RedirectsTo(url string) Misdeed {
	return redirects("redirected to "+url, func(*CratesServer, *http.Request) string { return url })
}

func redirects(name string, to func(s *CratesServer, r *http.Request) string) Misdeed {
	return Misdeed{name, func(s *CratesServer, w http.ResponseWriter, r *http.Request, _ reply) {
		http.Redirect(w, r, to(s, r), http.StatusFound)
	}}
}

// Huge answers are size bytes of well-formed lines of an index, without a
// Content-Length; their checksums are of nothing.
func Huge(size int64) Misdeed {
	return Misdeed{"huge", func(_ *CratesServer, w http.ResponseWriter, r *http.Request, a reply) {
		a.coded, a.tag, a.status = "", "", http.StatusOK
		a.head(w, -1)
		w.WriteHeader(http.StatusOK)
		name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		nothing := sumOf(nil)
		var piece bytes.Buffer
		for i, sent := 0, int64(0); sent < size; sent += int64(piece.Len()) {
			piece.Reset()
			for range 500 {
				piece.Write(IndexLine{Name: name, Vers: fmt.Sprintf("0.0.%d", i), Deps: []IndexDep{}, Features: map[string][]string{}, Cksum: nothing}.Marshal())
				i++
			}
			if _, err := w.Write(piece.Bytes()); err != nil {
				return
			}
		}
	}}
}

// Bomb answers are a thousandth of what they unpack to: size bytes of spaces.
func Bomb(size int64) Misdeed {
	const unit = 8 << 20
	var packed bytes.Buffer
	compressor, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression) // a level that there is
	_, _ = compressor.Write(bytes.Repeat([]byte(" "), unit))
	_ = compressor.Close()
	return Misdeed{"gzip bomb", func(_ *CratesServer, w http.ResponseWriter, r *http.Request, a reply) {
		a.coded, a.tag, a.status = "gzip", "", http.StatusOK
		a.head(w, -1)
		w.WriteHeader(http.StatusOK)
		for sent := int64(0); sent < size; sent += unit { // members of one gzip file
			if _, err := w.Write(packed.Bytes()); err != nil {
				return
			}
		}
	}}
}

// BombInOne is Bomb that is one member, so that nothing tells before its end.
func BombInOne(size int64) Misdeed {
	spaces := bytes.Repeat([]byte(" "), 1<<20)
	return Misdeed{"gzip bomb in one", func(_ *CratesServer, w http.ResponseWriter, r *http.Request, a reply) {
		a.coded, a.tag, a.status = "gzip", "", http.StatusOK
		a.head(w, -1)
		w.WriteHeader(http.StatusOK)
		compressor := gzip.NewWriter(w)
		for sent := int64(0); sent < size; sent += int64(len(spaces)) {
			if _, err := compressor.Write(spaces); err != nil {
				return
			}
		}
		_ = compressor.Close()
	}}
}

// begin sends the header and half of the body.
func (a reply) begin(w http.ResponseWriter, length int) {
	a.head(w, length)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body[:len(a.body)/2])
	_ = http.NewResponseController(w).Flush()
}

// rest waits; false where the client has gone meanwhile.
func rest(r *http.Request, pause time.Duration) bool {
	select {
	case <-time.After(pause):
		return true
	case <-r.Context().Done():
		return false
	}
}
