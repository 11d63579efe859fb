package testbed

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Distance stands on loopback in front of a server and makes it as far away as a
// round trip says: everything arrives half of that later in either direction, and
// a connection takes one to be made. It holds no bytes back otherwise. It is safe
// for concurrent use and ends with its test.
type Distance struct {
	target    string
	roundTrip time.Duration
	listener  net.Listener
	ended     chan struct{}
	running   sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	made  int
}

// NewDistance stands in front of target, host:port.
func NewDistance(t testing.TB, target string, roundTrip time.Duration) *Distance {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &Distance{target: target, roundTrip: roundTrip, listener: listener, ended: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	d.running.Go(d.accept)
	t.Cleanup(d.end)
	return d
}

// Address is where it listens, host:port.
func (d *Distance) Address() string { return d.listener.Addr().String() }

// Connections is how many were made so far.
func (d *Distance) Connections() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.made
}

func (d *Distance) end() {
	close(d.ended)
	d.listener.Close()
	d.mu.Lock()
	for conn := range d.conns {
		conn.Close()
	}
	d.mu.Unlock()
	d.running.Wait()
}

func (d *Distance) accept() {
	for {
		client, err := d.listener.Accept()
		if err != nil {
			return // it has ended
		}
		d.running.Go(func() { d.serve(client) })
	}
}

// hold keeps conn for end to close; false when that was already.
func (d *Distance) hold(conn net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.ended:
		conn.Close()
		return false
	default:
		d.conns[conn] = struct{}{}
		return true
	}
}

func (d *Distance) release(conn net.Conn) {
	conn.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, conn)
}

func (d *Distance) serve(client net.Conn) {
	if !d.hold(client) {
		return
	}
	defer d.release(client)
	if !d.wait(d.roundTrip) { // for the client's system this connection is made only then
		return
	}
	server, err := net.Dial("tcp", d.target)
	if err != nil || !d.hold(server) {
		return
	}
	defer d.release(server)
	d.mu.Lock()
	d.made++
	d.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { d.carry(server, client) })
	both.Go(func() { d.carry(client, server) })
	both.Wait()
}

// parcel is what is under way.
type parcel struct {
	due  time.Time
	data []byte // none: the end
}

// carry brings from's bytes to the other end; when either fails, both end.
func (d *Distance) carry(to, from net.Conn) {
	road := make(chan parcel, 4096)
	go func() {
		defer close(road)
		for {
			data := make([]byte, 16<<10)
			n, err := from.Read(data)
			if n > 0 {
				road <- parcel{time.Now().Add(d.roundTrip / 2), data[:n]}
			}
			if err != nil {
				if errors.Is(err, io.EOF) {
					road <- parcel{due: time.Now().Add(d.roundTrip / 2)}
				} else {
					to.Close()
				}
				return
			}
		}
	}()
	for p := range road {
		if !d.wait(time.Until(p.due)) {
			break
		}
		if p.data == nil {
			if half, ok := to.(*net.TCPConn); ok {
				_ = half.CloseWrite()
			}
			continue
		}
		if _, err := to.Write(p.data); err != nil {
			from.Close()
			break
		}
	}
	for range road { // what nobody waits for any more
	}
}

// wait is false when d has ended meanwhile.
func (d *Distance) wait(pause time.Duration) bool {
	if pause <= 0 {
		return true
	}
	select {
	case <-time.After(pause):
		return true
	case <-d.ended:
		return false
	}
}
