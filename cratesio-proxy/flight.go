package cratesioproxy

import (
	"context"
	"sync"
	"time"
)

// flights are questions under way, each asked once however many wait for its answer.
type flights struct {
	mu  sync.Mutex
	all map[string]*flight
}

// flight is one of them. err may be read once done is closed.
type flight struct {
	done     chan struct{}
	err      error
	stopping <-chan struct{} // of the proxy
}

// join returns the flight of key, which runs run apart if there is none: until it has
// its answer, limit is over or the proxy is closed, whoever waits. Nothing begins that
// nobody would wait for.
func (f *flights) join(p *Proxy, key string, limit time.Duration, run func(context.Context) error) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	if one, ok := f.all[key]; ok {
		p.counts.joined.Add(1)
		return one
	}
	one := &flight{done: make(chan struct{}), stopping: p.Stopping}
	begun := !p.isStopping() && p.tasks.begin(func() {
		ctx, cancel := context.WithTimeout(p.ctx, limit)
		defer cancel()
		err := run(ctx)
		if err != nil && p.ctx.Err() != nil {
			err = errClosed
		}
		f.mu.Lock()
		delete(f.all, key)
		f.mu.Unlock()
		one.err = err
		close(one.done)
	})
	if !begun {
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

// wait returns the flight's answer, or ctx's error where that ends before, or errClosed
// where the proxy is about to.
func (o *flight) wait(ctx context.Context) error {
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
