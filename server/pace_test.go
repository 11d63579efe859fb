package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"phoenix-lab.org/aln-registry/registry/record"
)

// impatience is for how long nothing may move in these tests.
const impatience = time.Second

// impatientServer serves the lab's registry to who moves rate bytes a second, over
// TLS where there is a certificate.
func (l *lab) impatientServer(rate int64, certificate *Certificate) *serving {
	l.t.Helper()
	l.metrics = NewMetrics(MetricsConfig{})
	handler := New(Config{Registry: l.registry, Log: l.registry.Log, Clock: l.now, Pace: Pace{Stall: impatience, Rate: rate}, Metrics: l.metrics})
	return serve(l.t, Listening{Handler: handler, Certificate: certificate, HeaderTimeout: time.Second, IdleTimeout: time.Second})
}

// awaitNoRequests waits until the server has nothing under way any more.
func (l *lab) awaitNoRequests() {
	l.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); l.metrics.inFlight.Load() != 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			l.t.Fatalf("%d requests are under way for ever", l.metrics.inFlight.Load())
		}
	}
}

// trickle sends its bytes piece by piece, one every pause; then it ends, or hangs until closed.
type trickle struct {
	ctx   context.Context
	stop  context.CancelFunc
	bytes []byte
	piece int
	pause time.Duration
	hangs bool
}

// Close implements io.Closer: who gives up on a body does not wait for more of it.
func (r *trickle) Close() error {
	r.stop()
	return nil
}

func (r *trickle) Read(p []byte) (int, error) {
	if len(r.bytes) == 0 && !r.hangs {
		return 0, io.EOF
	}
	wait := r.pause
	if len(r.bytes) == 0 {
		wait = time.Minute
	}
	select {
	case <-time.After(wait):
	case <-r.ctx.Done():
		return 0, r.ctx.Err()
	}
	n := copy(p, r.bytes[:min(r.piece, len(r.bytes))])
	r.bytes = r.bytes[n:]
	return n, nil
}

// Whoever progresses may take longer than any stall; whoever does not is told so
// and holds nothing, over HTTP/1 and over HTTP/2.
func TestSlowBodies(t *testing.T) {
	certificate, _ := newCertificate(t, "localhost", time.Hour)
	content := bytes.Repeat([]byte("0123456789abcdef"), 8<<10) // 128 KiB
	for _, protocol := range []string{"http/1.1", "h2"} {
		for _, c := range []struct {
			name string
			body trickle
			want int
		}{
			{"progress", trickle{bytes: content, piece: 16 << 10, pause: 300 * time.Millisecond}, 200},
			{"a stall at the first byte", trickle{hangs: true}, 408},
			{"a stall in the middle", trickle{bytes: content[:64<<10], piece: 64 << 10, hangs: true}, 408},
			{"a byte now and then", trickle{bytes: content, piece: 1, pause: 20 * time.Millisecond}, 408},
		} {
			t.Run(protocol+" "+c.name, func(t *testing.T) {
				l := newLab(t)
				s := l.impatientServer(32<<10, certificate)
				rec := l.signArtifact(l.owner, record.KindManifest, "m", "1.0.0", content)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				c.body.ctx, c.body.stop = context.WithCancel(ctx)
				r := must(http.NewRequestWithContext(ctx, http.MethodPut, "https://"+s.address+"/v1/artifacts/manifest/m/1.0.0", &c.body))
				r.ContentLength = int64(len(content))
				r.Header.Set("Authorization", l.carrying(l.owner, rec))
				client, start := overTLS(protocol), time.Now()
				defer client.CloseIdleConnections()
				resp, err := client.Do(r)
				took := time.Since(start)
				switch {
				case err == nil:
					body := must(io.ReadAll(resp.Body))
					if resp.Body.Close(); resp.StatusCode != c.want {
						t.Errorf("%d after %s, not %d: %s", resp.StatusCode, took, c.want, body)
					}
				case c.want == 200:
					t.Errorf("after %s: %v", took, err)
				default: // the connection was closed before the client looked for the answer
				}
				if least := 2 * impatience; c.want == 200 && took < least {
					t.Errorf("the test took %s only, less than %s", took, least)
				}
				if c.want != 200 && took > 10*time.Second {
					t.Errorf("held for %s", took)
				}
				l.awaitNoRequests()
				if n := l.slowRefusals(); (n == 1) != (c.want == 408) {
					t.Errorf("%v slow requests are counted", n)
				}
			})
		}
	}
}

func (l *lab) slowRefusals() float64 {
	l.t.Helper()
	families := must(l.metrics.gatherer.Gather())
	s := sample{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			s.add(f.GetName(), m)
		}
	}
	return s["aln_http_refusals_total{code=slow}"]
}

// Who never reads what they asked for holds neither a request nor memory for it;
// over HTTP/2 the other requests of the connection go on.
func TestAnswersThatNobodyTakes(t *testing.T) {
	certificate, _ := newCertificate(t, "localhost", time.Hour)
	content := bytes.Repeat([]byte("0123456789abcdef"), 2<<20) // 32 MiB: more than buffers on the way hold
	publish := func(l *lab) (path, token string) {
		l.put(l.owner, record.KindManifest, "m", "1.0.0", content).want(l.t, 200)
		return "/v1/artifacts/manifest/m/1.0.0/content", l.session(l.member, "read")
	}
	for name, certificate := range map[string]*Certificate{"http/1.1": nil, "http/1.1 over TLS": certificate} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			path, token := publish(l)
			s := l.impatientServer(4<<20, certificate)
			conn := s.dial()
			must(0, conn.(*net.TCPConn).SetReadBuffer(8<<10))
			if certificate != nil {
				conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
			}
			fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n\r\n", path, token)
			if line := must(bufio.NewReaderSize(conn, 16).ReadString('\n')); !strings.HasPrefix(line, "HTTP/1.1 200") {
				t.Fatal(line)
			}
			l.awaitNoRequests()
		})
	}
	t.Run("h2", func(t *testing.T) {
		l := newLab(t)
		path, token := publish(l)
		s := l.impatientServer(4<<20, certificate)
		client := overTLS("h2")
		defer client.CloseIdleConnections()
		get := func(path string) *http.Response {
			r := must(http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.address+path, nil))
			r.Header.Set("Authorization", token)
			return must(client.Do(r))
		}
		resp := get(path)
		defer resp.Body.Close()
		if resp.ProtoMajor != 2 || resp.StatusCode != 200 {
			t.Fatalf("%s %s", resp.Proto, resp.Status)
		}
		l.awaitNoRequests()
		if other := get("/healthz"); other.StatusCode != 200 {
			t.Errorf("another request: %s", other.Status)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err == nil {
			t.Error("all of it came after all")
		}
	})
}

// Connections on which nothing is asked end, also those of HTTP/2 that have
// begun a header and do not end it.
func TestIdleConnectionsEnd(t *testing.T) {
	certificate, _ := newCertificate(t, "localhost", time.Hour)
	for name, begin := range map[string]func(io.Writer){
		"http/1.1": nil,
		"h2, nothing": func(w io.Writer) {
			io.WriteString(w, http2.ClientPreface)
			must(0, http2.NewFramer(w, nil).WriteSettings())
		},
		"h2, half a header": func(w io.Writer) {
			io.WriteString(w, http2.ClientPreface)
			f := http2.NewFramer(w, nil)
			must(0, f.WriteSettings())
			var block bytes.Buffer
			must(0, hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":method", Value: "GET"}))
			must(0, f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes()}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, Listening{Handler: http.HandlerFunc(hello), Certificate: certificate, HeaderTimeout: time.Second, IdleTimeout: time.Second})
			config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
			if begin == nil {
				config.NextProtos = []string{"http/1.1"}
			}
			conn := tls.Client(s.dial(), config)
			if begin == nil {
				fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			} else {
				begin(conn)
			}
			start := time.Now()
			_, _ = io.ReadAll(conn)
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("the connection was held for %s", took)
			}
		})
	}
}
