package cratesioproxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"phoenix-lab.org/aln-registry/registry/cargo"
)

// overTLS has the lab's upstream asked over TLS, by HTTP/2 where that is wanted, and returns its server
// before it is started.
func (l *lab) overTLS(t *testing.T, http2 bool, change func(*httptest.Server)) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(l)
	server.EnableHTTP2 = http2
	if change != nil {
		change(server)
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	l.reach(t, Setting{Name: CratesIO, Index: server.URL + "/", CA: certificateOf(t, server)})
	l.on("/config.json", text(`{"dl":"`+server.URL+`/dl/{crate}/{version}"}`))
	return server
}

// certificateOf is the file of a server's certificate.
func certificateOf(t *testing.T, server *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// reach has the lab's upstream asked as s says.
func (l *lab) reach(t *testing.T, s Setting) {
	t.Helper()
	transport, err := newTransport(s)
	if err != nil {
		t.Fatal(err)
	}
	l.upstream.transport.CloseIdleConnections()
	l.upstream.setting, l.upstream.transport = s, transport
	l.upstream.client, l.upstream.alone = newClient(transport), newClient(aloneOf(transport))
	t.Cleanup(transport.CloseIdleConnections)
}

// One file with headers that are too large says nothing of its host, and takes no other with it.
// Where they are so large that they end a connection of HTTP/2, it is asked for again over one of its own,
// and so is what shared it.
func TestTooLargeHeadersAreOfTheirFileAlone(t *testing.T) {
	for name, c := range map[string]struct{ proto, values, asked int }{
		"HTTP/1.1": {1, 20, 1}, "HTTP/2": {2, 20, 1}, "HTTP/1.1, far too large": {1, 200, 1}, "HTTP/2, far too large": {2, 200, 2},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, nil)
			l.overTLS(t, c.proto == 2, nil)
			l.slow.Store(int64(deadAfter))
			good, other := crate("good", 200_000)
			var cut atomic.Int64
			begun, gate := make(chan struct{}), make(chan struct{})
			l.on(dlPath(other), func(w http.ResponseWriter, r *http.Request) {
				if cut.Add(1) > 1 {
					sends(good)(w, r)
					return
				}
				w.Header().Set("ETag", `"x"`)
				w.Header().Set("Content-Length", fmt.Sprint(len(good)))
				w.Write(good[:100_000])
				w.(http.Flusher).Flush()
				close(begun)
				select {
				case <-gate:
					w.Write(good[100_000:])
				case <-r.Context().Done():
				}
			})
			l.upstream.proxy.Stall = DefaultStall
			read := make(chan error, 1)
			go func() {
				got, err := l.read(other)
				if err == nil && !bytes.Equal(got, good) {
					err = fmt.Errorf("%d bytes", len(got))
				}
				read <- err
			}()
			<-begun
			for _, name := range []string{"one", "two", "three"} {
				_, want := crate(name, 5000)
				l.on(dlPath(want), func(w http.ResponseWriter, r *http.Request) {
					for i := range c.values {
						w.Header().Set(fmt.Sprintf("X-Large-%d", i), strings.Repeat("x", 4<<10))
					}
				})
				_, err := l.read(want)
				if !errors.Is(err, ErrBroken) || !strings.Contains(err.Error(), "headers") || l.requests(dlPath(want)) != c.asked {
					t.Errorf("%v, asked %d times", err, l.requests(dlPath(want)))
				}
			}
			close(gate)
			if err := <-read; err != nil {
				t.Errorf("what shares its connection: %v, asked %d times", err, cut.Load())
			}
			if dead := l.proxy.Figures().Dead; len(dead) != 0 {
				t.Errorf("taken for dead: %v", dead)
			}
		})
	}
}

// What is no answer of HTTP is of its file alone, and nobody repeats it.
func TestAnswersThatAreNotHTTPAreOfTheirFileAlone(t *testing.T) {
	for name, raw := range map[string]string{
		"a line": "s3cr3t nonsense\r\n\r\n", "bytes": "\x00\x01\x02s3cr3t", "a status that is none": "HTTP/1.1 s3cr3t OK\r\n\r\n",
		"a header that is none": "HTTP/1.1 200 OK\r\ns3cr3t\r\n\r\n", "a length that is none": "HTTP/1.1 200 OK\r\nContent-Length: s3cr3t\r\n\r\n",
		"an unknown encoding": "HTTP/1.1 200 OK\r\nTransfer-Encoding: s3cr3t\r\n\r\n", "an end within the headers": "HTTP/1.1 200 OK\r\nETag: s3cr3t",
	} {
		t.Run(name, func(t *testing.T) {
			var log lockedBuffer
			l := newLab(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
			l.slow.Store(int64(deadAfter))
			for i := range 3 {
				crate := fmt.Sprintf("crate%d", i)
				l.on("/"+cargo.IndexPath(crate), func(w http.ResponseWriter, _ *http.Request) {
					conn, _, err := w.(http.Hijacker).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					io.WriteString(conn, raw)
					conn.Close()
				})
				if err := l.refresh(crate); !errors.Is(err, errNonsense) || !errors.Is(err, ErrUnavailable) || strings.Contains(err.Error(), "s3cr3t") {
					t.Errorf("got %v", err)
				}
			}
			l.on("/so/me/some", text(line("some", "1.0.0")))
			if err := l.refresh("some"); err != nil || len(l.proxy.Figures().Dead) > 0 {
				t.Errorf("another file: %v, dead: %v", err, l.proxy.Figures().Dead)
			}
			if strings.Contains(log.String(), "s3cr3t") {
				t.Errorf("it is logged word for word:\n%s", log.String())
			}
		})
	}
}

// lockedBuffer is a buffer that several write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// What says that it speaks HTTP/2, and does not, is asked by HTTP/1.1.
func TestAHostThatDoesNotSpeakTheHTTP2ItOffersIsAskedWithout(t *testing.T) {
	var opened atomic.Int64
	l := newLab(t, nil)
	l.overTLS(t, false, func(s *httptest.Server) {
		s.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
		s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				opened.Add(1)
			}
		}
		s.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
			"h2": func(_ *http.Server, c *tls.Conn, _ http.Handler) {
				io.WriteString(c, strings.Repeat("x", 100))
				c.Close()
			},
		}
	})
	l.on("/so/me/some", text(line("some", "1.0.0")))
	if err := l.refresh("some"); err != nil {
		t.Error(err)
	}
	if n := opened.Load(); n > 20 {
		t.Errorf("%d connections for two files", n)
	}
}

// However many ask at once they share a connection; and however often upstream ends it, none of them
// fails, and few others are opened.
func TestOfHTTP2ThereAreFewConnections(t *testing.T) {
	const questions = 250
	for name, c := range map[string]struct{ endsAfter, most int64 }{
		"kept": {1 << 30, 4 * mostOpening}, "ended again and again": {25, 60}, // ten times
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, func(c *Config) { c.Stall = DefaultStall })
			var opened, answered, ended atomic.Int64
			l.overTLS(t, true, func(s *httptest.Server) {
				s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
					if state == http.StateNew {
						opened.Add(1)
					}
				}
			})
			errs := make(chan error, questions)
			for i := range questions {
				name := fmt.Sprintf("name%d", i)
				l.on("/"+cargo.IndexPath(name), func(w http.ResponseWriter, r *http.Request) {
					if r.ProtoMajor != 2 {
						t.Errorf("asked by %s", r.Proto)
					}
					if answered.Add(1)%c.endsAfter == 0 { // which has net/http send GOAWAY
						ended.Add(1)
						w.Header().Set("Connection", "close")
					}
					io.WriteString(w, line(name, "1.0.0"))
				})
				go func() { errs <- l.refresh(name) }()
			}
			for range questions {
				if err := <-errs; err != nil {
					t.Error(err)
				}
			}
			if n := opened.Load(); n > c.most {
				t.Errorf("%d connections, of which %d were ended; want %d at most", n, ended.Load(), c.most)
			}
		})
	}
}

// Plain http goes to this computer alone, by the address that is dialled.
func TestPlainHTTPIsForThisComputerAlone(t *testing.T) {
	for address, here := range map[string]bool{
		"127.0.0.1:80": true, "127.9.9.9:80": true, "[::1]:80": true, "[::ffff:127.0.0.1]:80": true, "192.0.2.1:80": false,
		"[::ffff:192.0.2.1]:80": false, "0.0.0.0:80": false, "[::]:80": false, "10.0.0.1:80": false, "[fe80::1%eth0]:80": false, "nonsense": false,
	} {
		if err := onlyHere(t.Context(), "tcp", address, nil); (err == nil) != here {
			t.Errorf("%s: %v", address, err)
		}
	}
	const away = "http://192.0.2.1:9" // documentation's own (RFC 5737): whoever dials it waits
	t.Setenv("HTTP_PROXY", "http://192.0.2.2:9")
	for name, lead := range map[string]func(l *lab) error{
		"a redirect": func(l *lab) error {
			l.on("/so/me/some", http.RedirectHandler(away, http.StatusFound).ServeHTTP)
			return l.refresh("some")
		},
		"dl": func(l *lab) error {
			l.on("/config.json", text(`{"dl":"`+away+`/{crate}/{version}"}`))
			_, want := crate("some", 100)
			_, err := l.read(want)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := lead(newLab(t, nil)); !errors.Is(err, ErrBroken) || !strings.Contains(err.Error(), "another computer by plain http") || strings.Contains(err.Error(), "192.0.2") {
				t.Errorf("got %v", err)
			}
		})
	}
	// A name of this computer that leads elsewhere by the time that it is dialled.
	transport, err := newTransport(Setting{Name: "a", Index: "http://localhost/"})
	if err != nil {
		t.Fatal(err)
	}
	if conn, err := transport.DialContext(context.Background(), "tcp", "192.0.2.1:9"); !errors.Is(err, errNotHere) {
		t.Errorf("dialled: %v, %v", conn, err)
	}
	if _, err := ParseSettings([]string{"a=sparse+http://127.0.0.1/?proxy=http://p:3128"}); !errors.Is(err, ErrSetting) || !strings.Contains(err.Error(), "reached without") {
		t.Errorf("a proxy to this computer: %v", err)
	}
}

// What comes from outside stands in no log word for word.
func TestWhatTheNetworkSaysIsShortAndClean(t *testing.T) {
	for text, want := range map[string]string{
		`malformed HTTP response "s3cr3t \"more\" s3cr3t"`: `malformed HTTP response "…"`,
		"a\u0085b\u2028c\u202ed\x1b[31m":                   "a b c d [31m",
		strings.Repeat("a.example, ", 100):                 strings.Repeat("a.example, ", 100)[:mostWords] + "…",
	} {
		if got := outside(errors.New(text)); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}
