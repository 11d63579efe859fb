package testbed

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Harm is one thing that happens to an exchange: to an HTTP request with its
// response, or to a turn of another protocol, which is what one side sends until
// the other one answers.
type Harm int

// What may happen. The last group is HTTP's alone: there the proxy answers.
const (
	// Delay holds the request up before it goes on whole.
	Delay Harm = iota
	// CutRequest resets both ends when a part of the request has arrived.
	CutRequest
	// CutBefore throws the engine's answer away, all of it, and resets both ends:
	// what was asked for is done.
	CutBefore
	// CutResponse resets both ends when a part of the answer has arrived.
	CutResponse
	// Truncate closes the connection after a part of the answer, as if that were all.
	Truncate
	// FlipRequest and FlipResponse change one bit.
	FlipRequest
	FlipResponse

	// Shorten hands on a part of the body, under a Content-Length that fits it.
	Shorten
	// Fail answers 500 without asking the engine; SlowDown 503; Exists 412 to
	// what is sent on a condition; Absent 404 to what is read.
	Fail
	SlowDown
	Exists
	Absent
	// Lose answers 500 after the engine has done what was asked for.
	Lose

	harms
)

var harmNames = [harms]string{
	"delayed", "request cut", "cut before the answer", "answer cut", "answer truncated", "bit of a request flipped", "bit of an answer flipped",
	"body shortened", "500", "503 SlowDown", "false 412", "false 404", "done, but 500",
}

func (h Harm) String() string { return harmNames[h] }

// Plan is what a proxy does; the zero Plan hands everything on.
type Plan struct {
	// Chance is how likely each harm is for an exchange; together at most 1.
	Chance map[Harm]float64
	// Longest is the longest delay.
	Longest time.Duration
	// Where says, if not nil, which HTTP requests may come to harm.
	Where func(*http.Request) bool
	// Apart lets nothing pass, in either direction, and breaks nothing: hosts
	// that do not hear each other. What waits passes when that ends.
	Apart bool
	// Refused resets each connection as soon as it is made.
	Refused bool
}

const (
	// longestExchange ends an HTTP exchange whatever happens.
	longestExchange = time.Minute
	// mostHarmed is where harm to a message strikes at the latest, in bytes.
	mostHarmed = 1 << 20
)

// Proxy stands on loopback in front of an engine and does to its connections
// what networks do, by a plan that can be changed at any time. It is safe for
// concurrent use and ends with its test.
type Proxy struct {
	target   *net.TCPAddr
	web      bool
	listener *net.TCPListener
	ended    chan struct{}
	running  sync.WaitGroup

	mu        sync.Mutex
	rng       *rand.Rand
	plan      Plan
	changed   chan struct{} // closed when the plan is another one
	did       [harms]int
	exchanges int
	links     map[*link]struct{}
}

// NewProxy stands in front of target, a TCP address, for any protocol in which
// the sides take turns. What it does follows from seed and the order of exchanges.
func NewProxy(t testing.TB, target string, seed uint64) *Proxy {
	t.Helper()
	return startProxy(t, target, seed, false)
}

// NewHTTPProxy is NewProxy for HTTP/1.1 in the clear, which it reads.
func NewHTTPProxy(t testing.TB, target string, seed uint64) *Proxy {
	t.Helper()
	return startProxy(t, target, seed, true)
}

func startProxy(t testing.TB, target string, seed uint64, web bool) *Proxy {
	t.Helper()
	address, err := net.ResolveTCPAddr("tcp", target)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{
		target: address, web: web, listener: listener, ended: make(chan struct{}), rng: rand.New(rand.NewPCG(seed, 0x70726f7879)),
		changed: make(chan struct{}), links: map[*link]struct{}{},
	}
	p.running.Go(p.accept)
	t.Cleanup(p.end)
	return p
}

// Address is where the proxy listens.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Use makes plan hold from now on; what comes after on open connections too.
func (p *Proxy) Use(plan Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan = plan
	close(p.changed)
	p.changed = make(chan struct{})
}

// CutAll resets all connections there are.
func (p *Proxy) CutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.reset()
	}
}

// Exchanges is how many exchanges there were, Did how often each harm was done.
func (p *Proxy) Exchanges() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exchanges
}

// Did is how often h was done.
func (p *Proxy) Did(h Harm) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.did[h]
}

// String says what was done.
func (p *Proxy) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	parts := []string{fmt.Sprintf("%d exchanges", p.exchanges)}
	for h, n := range p.did {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s: %d", Harm(h), n))
		}
	}
	return strings.Join(parts, ", ")
}

func (p *Proxy) end() {
	close(p.ended)
	_ = p.listener.Close()
	p.CutAll()
	p.running.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.AcceptTCP()
		if err != nil {
			return // the proxy has ended
		}
		l := &link{client: client}
		p.mu.Lock()
		refused := p.plan.Refused
		p.links[l] = struct{}{}
		p.mu.Unlock()
		if refused {
			l.reset()
		}
		p.running.Go(func() {
			defer p.forget(l)
			if p.web {
				p.serveHTTP(l)
			} else {
				p.serveTurns(l)
			}
		})
	}
}

func (p *Proxy) forget(l *link) {
	l.close()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// dial connects l with the engine.
func (p *Proxy) dial(l *link) bool {
	if !p.pass() {
		return false
	}
	engine, err := net.DialTCP("tcp", nil, p.target)
	if err != nil || !l.join(engine) {
		l.reset()
		return false
	}
	return true
}

// pass waits while hosts are apart; false when the proxy has ended.
func (p *Proxy) pass() bool {
	for {
		p.mu.Lock()
		apart, changed := p.plan.Apart, p.changed
		p.mu.Unlock()
		if !apart {
			select {
			case <-p.ended:
				return false
			default:
				return true
			}
		}
		select {
		case <-p.ended:
			return false
		case <-changed:
		}
	}
}

// fate is what happens to an exchange.
type fate struct {
	harm  Harm // harms: nothing
	delay time.Duration
	at    float64 // where in the message, from 0 to below 1
	bit   byte
}

func (f fate) is(h Harm) bool { return f.harm == h }

// draw decides over the next exchange; suits says which harms can be done to it.
func (p *Proxy) draw(req *http.Request, suits func(Harm) bool) fate {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.exchanges++
	f := fate{harm: harms, at: p.rng.Float64(), bit: 1 << p.rng.IntN(8)}
	dice, longest := p.rng.Float64(), max(1, p.plan.Longest)
	wait := time.Duration(p.rng.Int64N(int64(longest)))
	if p.plan.Where != nil && req != nil && !p.plan.Where(req) {
		return f
	}
	for h := range harms {
		if dice -= p.plan.Chance[h]; dice < 0 {
			if !suits(h) {
				return f
			}
			f.harm = h
			p.did[h]++
			break
		}
	}
	if f.harm == Delay {
		f.delay = wait
	}
	return f
}

// hold waits for a delay; false when the proxy has ended.
func (p *Proxy) hold(f fate) bool {
	if f.delay == 0 {
		return true
	}
	select {
	case <-p.ended:
		return false
	case <-time.After(f.delay):
		return true
	}
}

// link is a client's connection with the one to the engine that belongs to it.
type link struct {
	client *net.TCPConn

	mu     sync.Mutex
	engine *net.TCPConn
	gone   bool
}

// join gives l its engine; false when l has been closed meanwhile.
func (l *link) join(engine *net.TCPConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		_ = engine.Close()
		return false
	}
	l.engine = engine
	return true
}

func (l *link) ends() []*net.TCPConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
	return slices.DeleteFunc([]*net.TCPConn{l.client, l.engine}, func(c *net.TCPConn) bool { return c == nil })
}

// reset ends both connections so that the other sides get an error.
func (l *link) reset() {
	for _, c := range l.ends() {
		_ = errors.Join(c.SetLinger(0), c.Close())
	}
}

func (l *link) close() {
	for _, c := range l.ends() {
		_ = c.Close()
	}
}
