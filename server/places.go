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
	// patient: who has all of theirs waits for one of those, and is not refused at once.
	patient bool

	mu    sync.Mutex
	taken map[did.DID]*share

	// waiting is how many wait now, turnedAway how many got no place since the start.
	waiting    atomic.Int64
	turnedAway atomic.Uint64
}

// share are the places of one asker, kept while there are users who have one or wait.
type share struct {
	places chan struct{}
	users  int
}

func newPlaces(all, each int) *places {
	return &places{free: make(chan struct{}, all), each: each, wait: maxWait, taken: map[did.DID]*share{}}
}

// patientPlaces are places for what one asker may well ask for hundreds of at once.
func patientPlaces(all, each int) *places {
	p := newPlaces(all, each)
	p.patient = true
	return p
}

// anyone takes a place for whom no limit of their own holds: many builds of one
// lab may ask for proofs under one DID.
const anyone did.DID = ""

// unnamed is who asks without a session: all of them have what one asker has, or
// they would take the members' places.
const unnamed did.DID = "anonymous"

// take waits for a place, at most p.wait, and returns how to give it back. An
// asker who has all of theirs is refused at once, unless p is patient: registry.ErrUnavailable.
func (p *places) take(ctx context.Context, asker did.DID) (release func(), err error) {
	own := p.join(asker)
	defer func() {
		if err != nil {
			p.leave(asker)
		}
	}()
	if !p.patient && !enterNow(own) {
		p.turnedAway.Add(1)
		return nil, fmt.Errorf("%w: %d requests of this kind are under way for you already", registry.ErrUnavailable, p.each)
	}
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	wait := time.NewTimer(p.wait)
	defer wait.Stop()
	enter := func(to chan struct{}) error {
		select {
		case to <- struct{}{}:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-wait.C:
			p.turnedAway.Add(1)
			return fmt.Errorf("%w: all places for requests of this kind are taken", registry.ErrUnavailable)
		}
	}
	if p.patient && own != nil {
		if err := enter(own); err != nil {
			return nil, err
		}
	}
	if err := enter(p.free); err != nil {
		exit(own)
		return nil, err
	}
	return func() { <-p.free; exit(own); p.leave(asker) }, nil
}

// join returns the places of asker, nil for anyone's: they have no limit of their own.
func (p *places) join(asker did.DID) chan struct{} {
	if asker == anyone {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	own := p.taken[asker]
	if own == nil {
		own = &share{places: make(chan struct{}, p.each)}
		p.taken[asker] = own
	}
	own.users++
	return own.places
}

func (p *places) leave(asker did.DID) {
	if asker == anyone {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	own := p.taken[asker]
	if own.users--; own.users == 0 {
		delete(p.taken, asker)
	}
}

// enterNow takes one of an asker's own places, if there is one.
func enterNow(own chan struct{}) bool {
	if own == nil {
		return true
	}
	select {
	case own <- struct{}{}:
		return true
	default:
		return false
	}
}

func exit(own chan struct{}) {
	if own != nil {
		<-own
	}
}
