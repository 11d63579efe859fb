package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// oneConnection is a client that keeps to one connection, and whose connection is
// not replaced by another when it is closed: its next request then fails.
func oneConnection(t testing.TB, s *serving, protocol string) func(path string, patience time.Duration) error {
	t.Helper()
	dials := 0
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		if dials++; dials > 1 {
			return nil, fmt.Errorf("the connection was cut")
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	client, scheme := overTLS(protocol), "https"
	if protocol == "plain" {
		client, scheme = &http.Client{Transport: &http.Transport{}}, "http"
	}
	transport := client.Transport.(*http.Transport)
	transport.DialContext = dial
	t.Cleanup(transport.CloseIdleConnections)
	return func(path string, patience time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		resp, err := client.Do(must(http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+s.address+path, nil)))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
}

// eachProtocol serves /slow by h and all else at once, with two places.
func eachProtocol(t *testing.T, test func(t *testing.T, s *serving, h slow, protocol string)) {
	for _, protocol := range []string{"plain", "http/1.1", "h2"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			h := newSlow()
			mux := http.NewServeMux()
			mux.Handle("/slow", h)
			mux.HandleFunc("/", hello)
			l := Listening{Handler: mux, Connections: 2}
			if protocol != "plain" {
				l.Certificate, _ = newCertificate(t, "localhost", time.Hour)
			}
			test(t, serve(t, l), h, protocol)
		})
	}
}

const patient = 15 * time.Second

// Who takes all places with connections that do nothing shuts nobody out: the one
// that has been idle for longest gives way, and no other.
func TestIdleConnectionsGiveWay(t *testing.T) {
	eachProtocol(t, func(t *testing.T, s *serving, _ slow, protocol string) {
		first, second, third := oneConnection(t, s, protocol), oneConnection(t, s, protocol), oneConnection(t, s, protocol)
		// The one that came first is not the one that has been idle for longest.
		for i, ask := range []func(string, time.Duration) error{first, second, first} {
			if err := ask("/", patient); err != nil {
				t.Fatal(i, err)
			}
			time.Sleep(settle / 5) // the answer is read before the server notes that the connection is idle
		}
		time.Sleep(settle + settle/5)
		start := time.Now()
		if err := third("/", patient); err != nil {
			t.Fatalf("a third connection, where two are idle: %v", err)
		}
		if took := time.Since(start); took > settle*4/5 {
			t.Errorf("it waited for %s", took)
		}
		if err := second("/", patient); err == nil {
			t.Error("the connection that was idle for longest is kept")
		}
		if err := first("/", patient); err != nil {
			t.Errorf("the other one: %v", err)
		}
	})
}

// Connections with a request under way are not cut, however long it takes: who comes waits.
func TestBusyConnectionsDoNotGiveWay(t *testing.T) {
	eachProtocol(t, func(t *testing.T, s *serving, h slow, protocol string) {
		answers := make(chan error, 2)
		for range 2 {
			ask := oneConnection(t, s, protocol)
			if err := ask("/", patient); err != nil {
				t.Fatal(err)
			}
			go func() { answers <- ask("/slow", patient) }()
			<-h.begun
		}
		if err := oneConnection(t, s, protocol)("/", 2*settle); err == nil {
			t.Error("a third connection is served where two may be")
		}
		close(h.let)
		for range 2 {
			if err := <-answers; err != nil {
				t.Errorf("a request under way: %v", err)
			}
		}
		if err := oneConnection(t, s, protocol)("/", patient); err != nil {
			t.Errorf("after they ended: %v", err)
		}
	})
}

// Connections that say nothing, or nothing whole, give way as idle ones do.
func TestSilentConnectionsGiveWay(t *testing.T) {
	eachProtocol(t, func(t *testing.T, s *serving, _ slow, protocol string) {
		for _, said := range []string{"", "GET / HTTP/1.1\r\nHost:"} {
			fmt.Fprint(s.dial(), said)
		}
		start := time.Now()
		if err := oneConnection(t, s, protocol)("/", patient); err != nil || time.Since(start) > 5*time.Second {
			t.Errorf("a third connection is answered after %s: %v", time.Since(start), err)
		}
	})
}

// A place is given back once, and a listener ends also while it waits for one.
func TestPlacesAreGivenBack(t *testing.T) {
	b := newBoundedListener(must(net.Listen("tcp", "127.0.0.1:0")), 1)
	dial := func() { must(net.Dial("tcp", b.Addr().String())) }
	dial()
	c := must(b.Accept())
	b.note(c, http.StateNew)
	b.note(tls.Server(c, nil), http.StateActive)
	for range 2 {
		_ = c.Close()
	}
	b.note(c, http.StateIdle)
	if len(b.taken) != 0 || b.quiet.Len() != 0 {
		t.Errorf("%d places are taken, %d are quiet", len(b.taken), b.quiet.Len())
	}
	dial()
	must(b.Accept())
	dial()
	ended := make(chan error, 1)
	go func() { _, err := b.Accept(); ended <- err }()
	time.Sleep(50 * time.Millisecond)
	b.Close()
	if err := <-ended; err == nil {
		t.Error("a connection is accepted where there is no place")
	}
}

// BenchmarkConnection is a request on a kept connection, by all of net/http; what
// note costs of it is BenchmarkNote.
func BenchmarkConnection(b *testing.B) {
	s := serve(b, Listening{Handler: http.HandlerFunc(hello)})
	c := s.dial()
	r := bufio.NewReader(c)
	for b.Loop() {
		c.SetDeadline(time.Now().Add(patient))
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		resp := must(http.ReadResponse(r, nil))
		must(io.Copy(io.Discard, resp.Body))
	}
}

// BenchmarkNote is what one request's begin and end cost.
func BenchmarkNote(b *testing.B) {
	l := newBoundedListener(nil, 1)
	c := &boundedTCP{place: &place{in: l}}
	b.ReportAllocs()
	for b.Loop() {
		l.note(c, http.StateActive)
		l.note(c, http.StateIdle)
	}
}
