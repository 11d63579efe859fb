package cratesioproxy

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// budget is how many bytes of spool there may be.
type budget struct {
	patience time.Duration // that room is waited for

	mu      sync.Mutex
	most    int64
	free    int64
	changed chan struct{} // closed when some become free
}

func newBudget(most int64) *budget {
	return &budget{patience: budgetTime, most: most, free: most, changed: make(chan struct{})}
}

// take waits for a while until n are free, and takes them. Otherwise it is ErrBusy.
func (b *budget) take(ctx context.Context, n int64) error {
	ctx, cancel := context.WithTimeout(ctx, b.patience)
	defer cancel()
	for {
		b.mu.Lock()
		if n <= b.free {
			b.free -= n
			b.mu.Unlock()
			return nil
		}
		changed := b.changed
		b.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: %d bytes of spool are in use", ErrBusy, b.used())
		}
	}
}

// has reports whether n are free.
func (b *budget) has(n int64) bool { return b.most-b.used() >= n }

func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += n
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *budget) used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.most - b.free
}

// takeBulk takes a place for a crate that is received.
func (u *Upstream) takeBulk(ctx context.Context) error {
	select {
	case u.bulk <- struct{}{}:
		return nil
	default:
	}
	u.short.Add(1)
	defer u.short.Add(-1)
	u.makeWay()
	select {
	case u.bulk <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// takeSpool takes a step of the spool.
func (u *Upstream) takeSpool(ctx context.Context) error {
	if !u.spool.has(spoolStep) {
		u.short.Add(1)
		defer u.short.Add(-1)
		u.makeWay()
	}
	return u.spool.take(ctx, spoolStep)
}
