package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serving is a Listening at work.
type serving struct {
	t       testing.TB
	address string
	// stop asks for an orderly end, whose outcome is in ended.
	stop  context.CancelFunc
	ended chan error
}

func serve(t testing.TB, l Listening) *serving {
	t.Helper()
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	ctx, stop := context.WithCancel(t.Context())
	s := &serving{t: t, address: listener.Addr().String(), stop: stop, ended: make(chan error, 1)}
	if l.Log == nil {
		l.Log = slog.New(slog.DiscardHandler)
	}
	go func() { s.ended <- l.Serve(ctx, listener); close(s.ended) }()
	t.Cleanup(func() { stop(); <-s.ended })
	return s
}

// end is how Serve ended.
func (s *serving) end() error {
	s.t.Helper()
	select {
	case err := <-s.ended:
		return err
	case <-time.After(20 * time.Second):
		s.t.Fatal("Serve does not return")
		return nil
	}
}

func (s *serving) dial() net.Conn {
	s.t.Helper()
	conn := must(net.Dial("tcp", s.address))
	s.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// overTLS is a client that trusts whatever it meets, since what is met is looked at.
func overTLS(protocols ...string) *http.Client {
	p := new(http.Protocols)
	p.SetHTTP1(len(protocols) == 0 || protocols[0] == "http/1.1")
	p.SetHTTP2(len(protocols) == 0 || protocols[0] == "h2")
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Protocols: p}}
}

func hello(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }

func TestTLSSpeaksHTTP2AndHTTP1(t *testing.T) {
	certificate, _ := newCertificate(t, "localhost", time.Hour)
	s := serve(t, Listening{Handler: http.HandlerFunc(hello), Certificate: certificate})
	for protocol, major := range map[string]int{"h2": 2, "http/1.1": 1} {
		client := overTLS(protocol)
		resp := must(client.Get("https://" + s.address))
		if resp.Body.Close(); resp.ProtoMajor != major || resp.TLS.Version != tls.VersionTLS13 {
			t.Errorf("%s: %s over TLS %x", protocol, resp.Proto, resp.TLS.Version)
		}
		client.CloseIdleConnections()
	}
	conn, err := tls.Dial("tcp", s.address, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	if err == nil {
		conn.Close()
		t.Error("TLS 1.1 is spoken")
	}
	plain := s.dial()
	fmt.Fprint(plain, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if answer := must(io.ReadAll(plain)); !strings.HasPrefix(string(answer), "HTTP/1.0 400 ") {
		t.Errorf("plain http gets %q", answer)
	}
}

// A renewed certificate is served to who connects next; who is connected notices nothing.
func TestARenewalDropsNoConnection(t *testing.T) {
	certificate, folder := newCertificate(t, "first", time.Hour)
	s := serve(t, Listening{Handler: http.HandlerFunc(hello), Certificate: certificate})
	met := func(c *http.Client) string {
		t.Helper()
		resp := must(c.Get("https://" + s.address))
		must(io.Copy(io.Discard, resp.Body))
		resp.Body.Close()
		return resp.TLS.PeerCertificates[0].Subject.CommonName
	}
	old := overTLS("h2")
	defer old.CloseIdleConnections()
	if got := met(old); got != "first" {
		t.Fatal(got)
	}
	writeCertificate(t, folder, "second", time.Hour)
	certificate.Reload()
	fresh := overTLS("h2")
	defer fresh.CloseIdleConnections()
	if got := met(fresh); got != "second" {
		t.Errorf("a new connection meets %s", got)
	}
	if got := met(old); got != "first" {
		t.Errorf("the old connection is not that of before: %s", got)
	}
	if filepath.Dir(certificate.certFile) != folder {
		t.Error("another folder")
	}
}

// slow is a handler that answers when it is let.
type slow struct{ begun, let chan struct{} }

func newSlow() slow { return slow{make(chan struct{}, 8), make(chan struct{})} }

func (h slow) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	h.begun <- struct{}{}
	<-h.let
	fmt.Fprint(w, "finished")
}

// ask sends a request in the background, and returns what becomes of it.
func (s *serving) ask() <-chan string {
	got := make(chan string, 1)
	go func() {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get("http://" + s.address)
		if err != nil {
			got <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		got <- fmt.Sprint(string(body), err)
	}()
	return got
}

func TestRequestsUnderWayAreFinishedAtTheEnd(t *testing.T) {
	h := newSlow()
	s := serve(t, Listening{Handler: h})
	got := s.ask()
	<-h.begun
	s.stop()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("tcp", s.address)
		if err != nil {
			break
		}
		if conn.Close(); time.Now().After(deadline) {
			t.Fatal("new connections are taken after the end began")
		}
	}
	close(h.let)
	if answer := <-got; answer != "finished<nil>" {
		t.Errorf("the request under way got %q", answer)
	}
	if err := s.end(); err != nil {
		t.Errorf("an orderly end: %v", err)
	}
}

func TestRequestsThatDoNotEndAreCutOff(t *testing.T) {
	h := newSlow()
	defer close(h.let)
	s := serve(t, Listening{Handler: h, DrainTimeout: 50 * time.Millisecond})
	got := s.ask()
	<-h.begun
	s.stop()
	if err := s.end(); err != nil {
		t.Errorf("an orderly end: %v", err)
	}
	if answer := <-got; strings.Contains(answer, "finished") {
		t.Errorf("it got %q", answer)
	}
}

// While who sends requests learns that no more should come, they are still taken.
func TestDrainDelayTakesRequestsAndSaysSo(t *testing.T) {
	l := newLab(t)
	ctx, stop := context.WithCancel(t.Context())
	handler := New(Config{Registry: l.registry, Log: l.registry.Log, Clock: l.now, Draining: ctx.Done()})
	s := serve(t, Listening{Handler: handler, DrainDelay: 2 * time.Second})
	l.url = "http://" + s.address
	l.get("/readyz", "").want(t, 200, "ready")
	stop()
	s.stop()
	l.get("/readyz", "").want(t, 503)
	l.get("/healthz", "").want(t, 200, "ok")
	l.get("/log/checkpoint", "").want(t, 200)
	if err := s.end(); err != nil {
		t.Errorf("an orderly end: %v", err)
	}
}

func TestAFatalErrorEndsTheServing(t *testing.T) {
	fork, fatal := errors.New("the log forked"), make(chan error, 1)
	s := serve(t, Listening{Handler: http.HandlerFunc(hello), Fatal: fatal})
	fatal <- fork
	if err := s.end(); !errors.Is(err, fork) {
		t.Errorf("it ended with %v", err)
	}
}

// Who sends a header slowly, or no TLS handshake, is cut off.
func TestSlowHeadersAreCutOff(t *testing.T) {
	certificate, _ := newCertificate(t, "localhost", time.Hour)
	for name, c := range map[string]struct {
		certificate *Certificate
		sent        string
	}{
		"nothing":           {nil, ""},
		"half a header":     {nil, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "},
		"no handshake":      {certificate, ""},
		"half a handshake":  {certificate, "\x16\x03\x01\x02\x00\x01"},
		"a line, for hours": {nil, "GET / HTTP/1.1\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, Listening{Handler: http.HandlerFunc(hello), Certificate: c.certificate, HeaderTimeout: 100 * time.Millisecond})
			conn := s.dial()
			fmt.Fprint(conn, c.sent)
			start := time.Now()
			if name == "a line, for hours" {
				go func() {
					for {
						if _, err := fmt.Fprint(conn, "X-More: 1\r\n"); err != nil {
							return
						}
						time.Sleep(20 * time.Millisecond)
					}
				}()
			}
			_, _ = io.ReadAll(conn) // an answer, or a reset; what matters is that it ends
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("the connection was held for %s", took)
			}
		})
	}
}

func TestHeadersAreBounded(t *testing.T) {
	s := serve(t, Listening{Handler: http.HandlerFunc(hello)})
	for size, want := range map[int]string{16 << 10: "HTTP/1.1 200", 64 << 10: "HTTP/1.1 431"} {
		conn := s.dial()
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Large: %s\r\n\r\n", strings.Repeat("a", size))
		if line, _ := bufio.NewReader(conn).ReadString('\n'); !strings.HasPrefix(line, want) {
			t.Errorf("%d bytes get %q", size, line)
		}
	}
}
