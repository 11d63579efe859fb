package cratesioproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http/httptrace"
	"sync"
	"time"
)

const (
	// dialTime is how long a connection may take, and how long its turn to be opened is waited for.
	dialTime = 5 * time.Second
	// greetTime is how long a proxy on the way, and TLS, may take before a connection is of use:
	// net/http waits a minute for a proxy that says nothing, and for one of socks5 for ever, and
	// others would wait for their turn.
	greetTime = 2 * dialTime
)

var (
	// errNotNeeded: another connection serves who asked for this one. Nobody is told.
	errNotNeeded = errors.New("another connection is there")
	errNoTurn    = errors.New("too many connections to it are being opened")
)

// seeker is a request on its way to a connection. When a host ends a connection of HTTP/2, net/http
// asks again on its own for everybody who was on it, and each opens one, of which one is used: only
// mostOpening are opened at a time, and none that is not needed by then.
type seeker struct {
	places chan struct{} // holds one for each that is being opened; nil: there is no bound
	greet  time.Duration // greetTime; 0 where a connection is of use at once

	mu     sync.Mutex
	got    chan struct{} // closed when the request has a connection
	opened func()        // ends what is begun with the one that is being opened
}

type seekerKey struct{}

// seeking is ctx for a request that opens connections by places, each of use after greet at most, of
// which found is called when it has one.
func seeking(ctx context.Context, places chan struct{}, greet time.Duration, found func()) context.Context {
	s := &seeker{places: places, greet: greet, got: make(chan struct{}), opened: func() {}}
	trace := &httptrace.ClientTrace{
		TLSHandshakeDone: func(tls.ConnectionState, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.opened()
		},
		GotConn: func(httptrace.GotConnInfo) {
			s.mu.Lock()
			close(s.got)
			s.got = make(chan struct{}) // should it be made again
			s.mu.Unlock()
			found()
		},
	}
	return httptrace.WithClientTrace(context.WithValue(ctx, seekerKey{}, s), trace)
}

// turn returns when a connection may be opened, which is over with release.
func (s *seeker) turn(ctx context.Context) (release func(), err error) {
	if s == nil || s.places == nil {
		return func() {}, nil
	}
	s.mu.Lock()
	got := s.got
	s.mu.Unlock()
	patience := time.NewTimer(dialTime)
	defer patience.Stop()
	select {
	case s.places <- struct{}{}:
	case <-got:
		return nil, errNotNeeded
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-patience.C:
		return nil, errNoTurn
	}
	return sync.OnceFunc(func() { <-s.places }), nil
}

// greets is conn, which is closed where it is of no use soon; release is called once it is, or closed.
func (s *seeker) greets(conn net.Conn, release func()) net.Conn {
	if s == nil || s.greet == 0 {
		return &opening{conn, release}
	}
	silent := time.AfterFunc(s.greet, func() { _ = conn.Close() })
	opened := sync.OnceFunc(func() { silent.Stop(); release() })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened() // one before, for where a redirect comes from, may open still: its place would not be found again
	s.opened = opened
	return &opening{conn, opened}
}

// inTurn is how d opens connections for seekers.
func inTurn(d *net.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		s, _ := ctx.Value(seekerKey{}).(*seeker)
		release, err := s.turn(ctx)
		if err != nil {
			return nil, err
		}
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			release()
			return nil, err
		}
		return s.greets(conn, release), nil
	}
}

// opening is a connection that is over with its place at the latest when it is closed.
type opening struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (o *opening) Close() error {
	o.release()
	return o.Conn.Close()
}
