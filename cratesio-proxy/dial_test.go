package cratesioproxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"testing"
	"time"
)

// Who finds out whether a dead host lives again may take long, as where a proxy keeps silent: nobody
// waits behind them, neither who is told at once that it is dead nor who finds out next.
func TestNobodyWaitsBehindWhoLooksWhetherADeadHostLives(t *testing.T) {
	l := newLab(t, nil)
	host := l.upstream.index
	for range mostOpening { // they are under way
		host.opening <- struct{}{}
		host.dialling <- struct{}{}
	}
	dead := func(until time.Duration) {
		host.mu.Lock()
		defer host.mu.Unlock()
		host.rest, host.until = time.Hour, until
	}
	l.upstream.patience = 5 * time.Second
	dead(l.proxy.Elapsed() + time.Hour)
	if err := l.refresh("some"); !errors.As(err, new(*openError)) {
		t.Errorf("while it is dead: %v", err)
	}
	l.on("/so/me/some", text(line("some", "1.0.0")))
	l.pass(time.Minute)
	dead(0)
	if err := l.refresh("some"); err != nil {
		t.Errorf("at the end of a rest: %v", err)
	}
}

// A host that speaks HTTP/2 may send on to one that does not, where each crate needs a connection of
// its own: these are not opened by twos, of which many would not get their turn.
func TestConnectionsToWhereCratesAreSentOnToAreNotBoundWhereNoneIsShared(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Stall = DefaultStall })
	l.overTLS(t, true, nil)
	far := httptest.NewUnstartedServer(l)
	far.StartTLS()
	t.Cleanup(far.Close)
	gate := make(chan struct{})
	slow, first := crate("slow", 200_000)
	data, second := crate("other", 100_000)
	for _, w := range []Want{first, second} {
		l.on(dlPath(w), func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, far.URL+"/far"+r.URL.Path, http.StatusFound)
		})
	}
	l.on("/far"+dlPath(first), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(slow)))
		w.Write(slow[:100_000])
		w.(http.Flusher).Flush()
		<-gate
		w.Write(slow[100_000:])
	})
	l.on("/far"+dlPath(second), sends(data))
	c, err := l.upstream.Crate(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer close(gate)
	for range mostOpening { // two are being opened
		l.upstream.files.dialling <- struct{}{}
	}
	begun := time.Now()
	if got, err := l.read(second); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if took := time.Since(begun); took > dialTime/2 {
		t.Errorf("it waited for %s", took)
	}
}

// That too many connections are being opened says nothing of a host.
func TestWhoGotNoTurnSaysNothingOfTheHost(t *testing.T) {
	err := network(t.Context(), &url.Error{Op: "Get", URL: "https://host/", Err: &net.OpError{Op: "proxyconnect", Net: "tcp", Err: errNoTurn}})
	if !errors.Is(err, errNoTurn) || !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
}

// A request that is sent on opens two connections, of which the first may be open later: no place stays taken.
func TestConnectionsThatOverlapForOneRequestKeepNoPlace(t *testing.T) {
	places := make(chan struct{}, mostOpening)
	ctx := seeking(t.Context(), places, greetTime, func() {})
	s := ctx.Value(seekerKey{}).(*seeker)
	for range 2 {
		release, err := s.turn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		conn, other := net.Pipe()
		defer other.Close()
		defer s.greets(conn, release).Close()
	}
	for range 2 {
		httptrace.ContextClientTrace(ctx).TLSHandshakeDone(tls.ConnectionState{}, nil)
	}
	if len(places) != 0 {
		t.Errorf("%d places are taken as long as a connection is there", len(places))
	}
}

// A proxy that says nothing, and TLS that does not come about, hold no place for long; a connection
// that is of use by then stays.
func TestAConnectionThatIsOfNoUseSoonIsClosed(t *testing.T) {
	for _, used := range []bool{false, true} {
		places := make(chan struct{}, mostOpening)
		ctx := seeking(t.Context(), places, 20*time.Millisecond, func() {})
		s := ctx.Value(seekerKey{}).(*seeker)
		release, err := s.turn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		conn, other := net.Pipe()
		opened := s.greets(conn, release)
		if used {
			httptrace.ContextClientTrace(ctx).TLSHandshakeDone(tls.ConnectionState{}, nil)
		}
		if err := other.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Read(make([]byte, 1)); errors.Is(err, io.EOF) == used {
			t.Errorf("of use %v: %v", used, err)
		}
		opened.Close() // as net/http does after an error
		if len(places) != 0 {
			t.Errorf("of use %v: its place is taken", used)
		}
		other.Close()
	}
}
