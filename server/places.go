package server

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
)

// places bounds how many requests of a costly kind are under way, in all and
// of one asker.
type places struct {
	free chan struct{}
	each int
	wait time.Duration

	mu    sync.Mutex
	taken map[did.DID]int

	// waiting is how many wait now, turnedAway how many got no place since the start.
	waiting    atomic.Int64
	turnedAway atomic.Uint64
}

func newPlaces(all, each int) *places {
	return &places{free: make(chan struct{}, all), each: each, wait: maxWait, taken: map[did.DID]int{}}
}

// anyone takes a place for whom no limit of their own holds: many builds of one
// lab may ask for proofs under one DID.
const anyone did.DID = ""

// unnamed is who asks without a session: all of them have what one asker has, or
// they would take the members' places.
const unnamed did.DID = "anonymous"

// take waits for a place, at most p.wait, and returns how to give it back. An
// asker who has all of theirs is refused at once: registry.ErrUnavailable.
func (p *places) take(ctx context.Context, asker did.DID) (release func(), err error) {
	if !p.count(asker) {
		p.turnedAway.Add(1)
		return nil, fmt.Errorf("%w: %d requests of this kind are under way for you already", registry.ErrUnavailable, p.each)
	}
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	wait := time.NewTimer(p.wait)
	defer wait.Stop()
	select {
	case p.free <- struct{}{}:
		return func() { <-p.free; p.uncount(asker) }, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-wait.C:
		p.turnedAway.Add(1)
		err = fmt.Errorf("%w: all places for requests of this kind are taken", registry.ErrUnavailable)
	}
	p.uncount(asker)
	return nil, err
}

func (p *places) count(asker did.DID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if asker != "" && p.taken[asker] >= p.each {
		return false
	}
	p.taken[asker]++
	return true
}

func (p *places) uncount(asker did.DID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken[asker]--; p.taken[asker] == 0 {
		delete(p.taken, asker)
	}
}
