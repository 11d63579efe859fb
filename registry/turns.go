package registry

import (
	"cmp"
	"context"
	"slices"
	"sync"
)

// turns are places for work that several sources have done. A free place is given to the source
// that has the fewest of them, of these to the one that was given none for the longest time,
// and within a source to what came first: however much of one waits, and however long
// each takes, another waits for its turn among the sources, and not for that.
type turns struct {
	most int // waiting of one source

	mu      sync.Mutex
	free    int
	given   int64 // so many places so far
	came    int64 // so many sources
	sources map[string]*source
}

// source is whose work it is, as long as some of it waits or goes on.
type source struct {
	waiting []*place
	running int
	came    int64 // of turns, with this one
	// last grows with the places that were given: it is of when it was last given one, or else of
	// when it came, which is just before the one given last.
	last int64
}

// place is one piece of work's. It may wait for all of several sources, and is given to one.
type place struct {
	of      *turns
	granted chan struct{} // closed when it is given
	owner   *source       // that it was given to, nil before; this and ended are under the lock of turns
	ended   bool
}

func newTurns(places, most int) *turns {
	return &turns{most: most, free: places, sources: map[string]*source{}}
}

// join has a new place wait for name's turn, nil where too many of its do.
func (t *turns) join(name string) *place {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &place{of: t, granted: make(chan struct{})}
	if !t.add(p, name) {
		return nil
	}
	t.give()
	return p
}

// also has p, that waits for another source's turn, wait for name's as well, unless too many do.
func (p *place) also(name string) {
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	if p.owner == nil && !p.ended && !slices.Contains(p.of.source(name).waiting, p) {
		p.of.add(p, name)
	}
	p.of.tidy(name)
}

// wait waits until it is p's turn, which end then ends; after an error it has ended.
func (p *place) wait(ctx context.Context) error {
	select {
	case <-p.granted:
		return nil
	case <-ctx.Done():
		p.end()
		return ctx.Err()
	}
}

// end gives back the place, or waits for it no longer.
func (p *place) end() {
	t := p.of
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.ended {
		return
	}
	p.ended = true
	if p.owner == nil {
		t.drop(p)
		return
	}
	p.owner.running--
	t.free++
	t.give()
	for name := range t.sources {
		t.tidy(name)
	}
}

// What follows is called under the lock.

func (t *turns) source(name string) *source {
	s, ok := t.sources[name]
	if !ok {
		t.came++
		s = &source{came: t.came, last: 2 * t.given}
		t.sources[name] = s
	}
	return s
}

func (t *turns) add(p *place, name string) bool {
	s := t.source(name)
	if len(s.waiting) >= t.most {
		return false
	}
	s.waiting = append(s.waiting, p)
	return true
}

// drop has p wait for nothing.
func (t *turns) drop(p *place) {
	for name, s := range t.sources {
		s.waiting = slices.DeleteFunc(s.waiting, func(other *place) bool { return other == p })
		t.tidy(name)
	}
}

// tidy forgets a source that has nothing to do.
func (t *turns) tidy(name string) {
	if s, ok := t.sources[name]; ok && s.running == 0 && len(s.waiting) == 0 {
		delete(t.sources, name)
	}
}

// give gives the places that are free.
func (t *turns) give() {
	for t.free > 0 {
		next := t.next()
		if next == nil {
			return
		}
		p := next.waiting[0]
		p.owner = next
		t.free--
		t.given++
		next.running++
		next.last = 2*t.given + 1
		t.drop(p)
		close(p.granted)
	}
}

// next is the source whose turn it is, nil where nothing waits.
func (t *turns) next() *source {
	var best *source
	for _, s := range t.sources {
		if len(s.waiting) > 0 && (best == nil || s.before(best)) {
			best = s
		}
	}
	return best
}

func (s *source) before(other *source) bool {
	return cmp.Or(cmp.Compare(s.running, other.running), cmp.Compare(s.last, other.last), cmp.Compare(s.came, other.came)) < 0
}
