package cratesioproxy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// mostFlights is how many index files are asked for at a time, of one upstream.
	mostFlights = 128
	// placeTime is how long a question waits for its place among them.
	placeTime = 10 * time.Second
)

// flights are questions under way, each asked once however many wait for its answer.
type flights struct {
	places chan struct{} // holds one for each that has begun; nil: there is no bound

	mu  sync.Mutex
	all map[string]*flight
}

// flight is one of them. err may be read once done is closed.
type flight struct {
	of       *flights
	key      string
	done     chan struct{}
	err      error
	stopping <-chan struct{} // of the proxy

	// These are under the lock of flights. Nobody waits for what was left before it had a
	// place: it never begins.
	begun   bool
	waiters int
	left    chan struct{}
}

// join returns the flight of key, which runs run apart if there is none: until it has
// its answer, limit is over or the proxy is closed, whoever waits. Nothing begins that
// nobody would wait for. Who joins a flight of those that are bounded waits for it.
func (f *flights) join(p *Proxy, key string, limit time.Duration, run func(context.Context) error) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	if one, ok := f.all[key]; ok {
		p.counts.joined.Add(1)
		one.waiters++
		return one
	}
	one := &flight{of: f, key: key, done: make(chan struct{}), stopping: p.Stopping, waiters: 1, left: make(chan struct{})}
	one.begun = f.places == nil || f.takeNow()
	placed := one.begun
	begun := !p.isStopping() && p.tasks.begin(func() {
		err := one.takePlace(p, placed)
		if err == nil {
			ctx, cancel := context.WithTimeout(p.ctx, limit)
			err = run(ctx)
			cancel()
			f.givePlace()
		}
		if err != nil && p.ctx.Err() != nil {
			err = errClosed
		}
		f.mu.Lock()
		f.forget(one)
		f.mu.Unlock()
		one.err = err
		close(one.done)
	})
	if !begun {
		if placed {
			f.givePlace()
		}
		one.err = errClosed
		close(one.done)
		return one
	}
	if f.all == nil {
		f.all = map[string]*flight{}
	}
	f.all[key] = one
	return one
}

func (f *flights) takeNow() bool {
	select {
	case f.places <- struct{}{}:
		return true
	default:
		return false
	}
}

func (f *flights) givePlace() {
	if f.places != nil {
		<-f.places
	}
}

// forget makes the next asker begin anew. It is called under the lock.
func (f *flights) forget(one *flight) {
	if f.all[one.key] == one {
		delete(f.all, one.key)
	}
}

// takePlace waits for a place, unless it is placed, as long as anybody waits for the flight.
func (o *flight) takePlace(p *Proxy, placed bool) error {
	if placed {
		return nil
	}
	patience := time.NewTimer(placeTime)
	defer patience.Stop()
	select {
	case o.of.places <- struct{}{}:
	case <-o.left:
		return errLeft
	case <-p.ctx.Done():
		return errClosed
	case <-p.Stopping:
		return errClosed
	case <-patience.C:
		return fmt.Errorf("%w: %d questions are under way", ErrBusy, cap(o.of.places))
	}
	o.of.mu.Lock()
	defer o.of.mu.Unlock()
	o.begun = true
	if o.waiters == 0 {
		o.of.givePlace()
		return errLeft
	}
	return nil
}

// patiently waits for upstream's answer, but not as long as what was asked may take: it is
// there for who asks later.
func (u *Upstream) patiently(ctx context.Context, wait func(context.Context) error) error {
	patient, cancel := context.WithTimeout(ctx, u.patience)
	defer cancel()
	err := wait(patient)
	if errors.Is(err, context.DeadlineExceeded) && patient.Err() != nil && ctx.Err() == nil {
		return u.say(fmt.Errorf("%w: it has not answered within %s", ErrUnavailable, u.patience))
	}
	return err
}

// leave is called by everybody who waited, once.
func (o *flight) leave() {
	o.of.mu.Lock()
	defer o.of.mu.Unlock()
	if o.waiters--; o.waiters == 0 && !o.begun {
		o.of.forget(o)
		close(o.left)
	}
}

// wait returns the flight's answer, or ctx's error where that ends before, or errClosed
// where the proxy is about to.
func (o *flight) wait(ctx context.Context) error {
	defer o.leave()
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
		return ctx.Err()
	case <-o.stopping:
	}
	select {
	case <-o.done: // it was there
		return o.err
	default:
		return errClosed
	}
}
