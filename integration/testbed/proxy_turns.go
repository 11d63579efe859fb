package testbed

import (
	"net"
	"sync"
)

// turns is one connection of a protocol that the proxy does not read. A turn
// begins with what the client sends after the engine has spoken.
type turns struct {
	*link
	proxy *Proxy

	mu       sync.Mutex
	fate     fate
	answered bool // the engine has spoken in this turn
}

// suitsTurns: what can be done without knowing the protocol.
func suitsTurns(h Harm) bool { return h <= FlipResponse }

func (p *Proxy) serveTurns(l *link) {
	if !p.dial(l) {
		return
	}
	t := &turns{link: l, proxy: p, fate: fate{harm: harms}, answered: true}
	var down sync.WaitGroup
	down.Go(func() { t.pump(l.client, l.engine, t.respond) })
	t.pump(l.engine, l.client, t.request)
	down.Wait()
}

// pump hands on what comes from one end; each piece goes through harm first,
// which says what to hand on and whether to go on.
func (t *turns) pump(to, from *net.TCPConn, harm func([]byte) ([]byte, bool)) {
	piece := make([]byte, 32<<10)
	for {
		n, err := from.Read(piece)
		if n > 0 {
			if !t.proxy.pass() {
				break
			}
			send, more := harm(piece[:n])
			if _, err := to.Write(send); err != nil || !more {
				break
			}
		}
		if err != nil {
			_ = to.CloseWrite()
			return
		}
	}
	t.finish()
}

// finish ends the connection as the fate of its turn says.
func (t *turns) finish() {
	t.mu.Lock()
	truncated := t.fate.is(Truncate)
	t.mu.Unlock()
	if truncated {
		t.close()
		return
	}
	t.reset()
}

func (t *turns) request(piece []byte) ([]byte, bool) {
	t.mu.Lock()
	if t.answered {
		t.fate, t.answered = t.proxy.draw(nil, suitsTurns), false
	}
	f := t.fate
	t.fate.delay = 0
	if f.is(FlipRequest) {
		t.fate.harm = harms
	}
	t.mu.Unlock()
	switch {
	case !t.proxy.hold(f):
		return nil, false
	case f.is(CutRequest):
		return piece[:f.within(len(piece))], false
	case f.is(FlipRequest):
		piece[f.within(len(piece))] ^= f.bit
	}
	return piece, true
}

func (t *turns) respond(piece []byte) ([]byte, bool) {
	t.mu.Lock()
	f := t.fate
	t.answered = true
	if f.is(FlipResponse) {
		t.fate.harm = harms
	}
	t.mu.Unlock()
	switch {
	case f.is(CutBefore):
		return nil, false
	case f.is(CutResponse), f.is(Truncate):
		return piece[:f.within(len(piece))], false
	case f.is(FlipResponse):
		piece[f.within(len(piece))] ^= f.bit
	}
	return piece, true
}

// within is the place of f's harm in n bytes, n > 0.
func (f fate) within(n int) int { return int(f.at * float64(min(n, mostHarmed))) }
