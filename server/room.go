package server

import (
	"container/list"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// settle is how long a connection has been without a request before it may have
// to give way: the end of its last answer may not have been written, or it just came.
const settle = time.Second

// boundedListener accepts a connection only when there is room for it. When there
// is none, the connection that has been without a request for longest gives way,
// so that nobody shuts others out with connections that do nothing. One with a
// request under way is never cut.
type boundedListener struct {
	net.Listener
	taken   chan struct{}
	done    chan struct{}
	closing sync.Once

	mu sync.Mutex
	// quiet are the places whose connections have no request, longest first.
	quiet list.List
}

func newBoundedListener(l net.Listener, connections int) *boundedListener {
	return &boundedListener{Listener: l, taken: make(chan struct{}, connections), done: make(chan struct{})}
}

func (b *boundedListener) Accept() (net.Conn, error) {
	c, err := b.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if !b.makeRoom() {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	p := &place{in: b, conn: c}
	// A connection must stay what it is: net/http sends files by what *net.TCPConn can.
	if tcp, ok := c.(*net.TCPConn); ok {
		return &boundedTCP{TCPConn: tcp, place: p}, nil
	}
	return &boundedConn{Conn: c, place: p}, nil
}

// makeRoom waits for a place and takes it; false is the listener's end.
func (b *boundedListener) makeRoom() bool {
	for {
		select {
		case b.taken <- struct{}{}:
			return true
		default:
		}
		if b.closeQuietest(time.Now()) {
			continue
		}
		select {
		case b.taken <- struct{}{}:
			return true
		case <-b.done:
			return false
		case <-time.After(settle / 20):
		}
	}
}

// closeQuietest closes the connection that has been without a request for longest,
// and says whether there was one to close.
func (b *boundedListener) closeQuietest(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := b.quiet.Front()
	if first == nil {
		return false
	}
	p := first.Value.(*place)
	if now.Sub(p.since) < settle {
		return false
	}
	// Of the TCP connection alone: TLS would wait to say goodbye to who may not listen.
	_ = p.conn.Close()
	p.leave()
	return true
}

func (b *boundedListener) Close() error {
	b.closing.Do(func() { close(b.done) })
	return b.Listener.Close()
}

// note is the server's http.Server.ConnState: it keeps quiet.
func (b *boundedListener) note(c net.Conn, s http.ConnState) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	var p *place
	switch c := c.(type) {
	case *boundedTCP:
		p = c.place
	case *boundedConn:
		p = c.place
	default:
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	p.endQuiet()
	if (s == http.StateNew || s == http.StateIdle) && !p.left {
		p.since, p.quiet = time.Now(), b.quiet.PushBack(p)
	}
}

// place is what a connection takes of its listener's bound. What changes is under the listener's mutex.
type place struct {
	in   *boundedListener
	conn net.Conn

	quiet *list.Element // nil while a request is under way
	since time.Time     // of quiet
	left  bool
}

func (p *place) endQuiet() {
	if p.quiet != nil {
		p.in.quiet.Remove(p.quiet)
		p.quiet = nil
	}
}

// leave gives the place back, once.
func (p *place) leave() {
	if p.endQuiet(); !p.left {
		p.left = true
		<-p.in.taken
	}
}

// close ends the connection and gives its place back.
func (p *place) close() error {
	err := p.conn.Close()
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	p.leave()
	return err
}

type boundedTCP struct {
	*net.TCPConn
	place *place
}

func (c *boundedTCP) Close() error { return c.place.close() }

type boundedConn struct {
	net.Conn
	place *place
}

func (c *boundedConn) Close() error { return c.place.close() }
