package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// Who asks for much and takes nothing holds neither a connection nor a place in
// memory for the time that all of it might take.
func TestWhoTakesNothingIsLeftSoonAlsoWithAnAnswerFromMemory(t *testing.T) {
	l := newLab(t)
	pace := Pace{Stall: 300 * time.Millisecond, Rate: 2 << 20} // half a second a stride
	const most = 3 * time.Second                               // the whole would have 4 more
	for where, size := range map[string]int{"in memory": 8<<20 - 1, "on the disk": 9 << 20} {
		t.Run(where, func(t *testing.T) {
			name := fmt.Sprint("blob-", size)
			l.put(l.owner, record.KindEvidenceBundle, name, "1.0.0", []byte(strings.Repeat("x", size))).want(t, 200)
			done := make(chan time.Duration, 1)
			inner := New(Config{Registry: l.registry, Log: slog.New(slog.DiscardHandler), Clock: l.now, Pace: pace})
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				start := time.Now()
				inner.ServeHTTP(w, r)
				done <- time.Since(start)
			}))
			defer s.Close()
			conn, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "GET /v1/artifacts/evidence-bundle/%s/1.0.0/content HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n\r\n", name, l.session(l.member, "read"))
			select {
			case held := <-done:
				if held > most {
					t.Errorf("held for %s", held)
				}
			case <-time.After(20 * time.Second):
				t.Error("held for more than 20 s")
			}
		})
	}
}

func TestReadinessIsAskedOnceAndAnsweredInTime(t *testing.T) {
	var c readiness
	asked, answer := make(chan struct{}, 10), make(chan error)
	ask := func(context.Context) error {
		asked <- struct{}{}
		return <-answer
	}
	results := make(chan error, 3)
	for range cap(results) {
		go func() { results <- c.check(context.Background(), ask) }()
	}
	<-asked
	broken := errors.New("broken")
	answer <- broken
	for range cap(results) {
		if err := <-results; !errors.Is(err, broken) {
			t.Error(err)
		}
	}
	if len(asked) != 0 {
		t.Error("asked again for each who came meanwhile")
	}
	c.checked = time.Time{}
	start := time.Now()
	if err := c.check(context.Background(), ask); !errors.Is(err, errHung) || time.Since(start) > 2*readyTimeout {
		t.Errorf("a part that hangs: %v after %s", err, time.Since(start))
	}
	answer <- nil
	if err := c.check(context.Background(), func(context.Context) error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestNotReadyIsOneStatusWhateverTheReason(t *testing.T) {
	l := newLab(t)
	for name, c := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"a full disk":          {fmt.Errorf("%w: not ready: %v", registry.ErrUnavailable, storage.ErrFull), 503, "unavailable"},
		"stopping":             {errDraining, 503, "draining"},
		"a change with a past": {fmt.Errorf("%w: %w: %v", registry.ErrUnavailable, registry.ErrUnpublished, storage.ErrFull), 503, codeUnpublished},
		"a full disk before":   {fmt.Errorf("%w: %w", registry.ErrUnavailable, storage.ErrFull), 507, "disk-full"},
	} {
		if got := classify(c.err); got.status != c.status || got.code != c.code {
			t.Errorf("%s: %+v", name, got)
		}
	}
	l.get("/readyz", "").want(t, 200)
	draining := make(chan struct{})
	close(draining)
	log := new(safeBuffer)
	h := New(Config{Registry: l.registry, Log: slog.New(slog.NewTextHandler(log, nil)), Clock: l.now, Draining: draining})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "stopping") || strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("%d %s\n%s", w.Code, w.Body, log)
	}
}

// Who asks about many artifacts and sends the question drop by drop has the place
// of others no longer than these would wait for it.
func TestWhoAsksSlowlyDoesNotKeepThePlace(t *testing.T) {
	l := newLab(t)
	l.get("/healthz", "").want(t, 200) // what a lab logs is looked at
	s := httptest.NewServer(New(Config{
		Registry: l.registry, Log: slog.New(slog.DiscardHandler), Clock: l.now, Pace: Pace{Stall: 500 * time.Millisecond, Rate: 1},
	}))
	defer s.Close()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/decisions HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\nAuthorization: %s\r\n\r\n", l.session(l.member, "read"))
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for drop := time.NewTicker(50 * time.Millisecond); ; {
			select {
			case <-drop.C:
				fmt.Fprint(conn, " ")
			case <-stop:
				drop.Stop()
				return
			}
		}
	}()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusRequestTimeout {
		t.Errorf("%d", answer.StatusCode)
	}
}
