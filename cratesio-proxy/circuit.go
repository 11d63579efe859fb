package cratesioproxy

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// A host is taken for dead when this many attempts in a row failed, and for this
	// long, counted from when the first of them began.
	deadFailures = 2
	deadAfter    = 2 * time.Second
	// shortestRest is how long nobody asks it then; each time that it is still dead after
	// that, twice as long, up to longestRest.
	shortestRest = 3 * time.Second
	longestRest  = 30 * time.Second
	// mostOpening is how many look for a connection to a host at a time, where one serves all.
	mostOpening = 2
)

// circuit remembers that a host is dead, so that nobody waits for it: while it is open
// all attempts fail at once, but for one at the end of each rest that finds out. It also
// remembers until when a host asked to be left alone. Times are those of elapsed.
type circuit struct {
	elapsed func() time.Duration
	// opening holds a place for everybody who looks for a connection, dialling for each that is opened.
	opening, dialling chan struct{}
	apart             atomic.Bool // its answers share none: it speaks HTTP/1.1
	beyond            atomic.Bool // so does a host that it sends on to, as to a store of objects

	mu       sync.Mutex
	failures int           // in a row
	since    time.Duration // when the first of them began
	rest     time.Duration // 0: the host is not taken for dead
	opened   time.Duration // when the rest began
	until    time.Duration // when the next may try
	pause    time.Duration // until when the host asked not to be asked
}

func newCircuit(elapsed func() time.Duration) *circuit {
	return &circuit{elapsed: elapsed, opening: make(chan struct{}, mostOpening), dialling: make(chan struct{}, mostOpening)}
}

// connect returns when it is somebody's turn to look for a connection, who calls found when it has
// one, or nothing more to do with it. Otherwise all who come while there is none, at first or when
// the host has ended one that they shared, would open as many, of which one is used.
func (c *circuit) connect(ctx context.Context) (found func(), err error) {
	if c.apart.Load() {
		return func() {}, nil
	}
	select {
	case c.opening <- struct{}{}:
		return sync.OnceFunc(func() { <-c.opening }), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// spoke takes in by which HTTP the host answers, or one that it sends on to.
func (c *circuit) spoke(major int, itself bool) {
	if itself {
		c.apart.Store(major < 2)
		return
	}
	c.beyond.Store(major < 2)
}

// openError: the host is not asked now.
type openError struct {
	dead bool // else it asked for a pause
	wait time.Duration
}

func (o *openError) Error() string {
	if o.dead {
		return fmt.Sprintf("%s: it has not answered for a while, and is asked again in %s", ErrUnavailable, o.wait.Round(time.Second))
	}
	return fmt.Sprintf("%s: it asked to be asked again in %s", ErrUnavailable, o.wait.Round(time.Second))
}

func (o *openError) Unwrap() error { return ErrUnavailable }

// begin returns when an attempt begins, or why it must not. Each that begins is
// followed by one of succeeded and failed, or by nothing where it was given up.
func (c *circuit) begin() (time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.elapsed()
	if now < c.pause {
		return 0, &openError{wait: c.pause - now}
	}
	if c.rest > 0 {
		if now < c.until {
			return 0, &openError{dead: true, wait: c.until - now}
		}
		c.until = now + c.rest
	}
	return now, nil
}

// succeeded: the host answered.
func (c *circuit) succeeded() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures, c.rest = 0, 0
}

// failed: the host did not answer an attempt that began then.
func (c *circuit) failed(begun time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.elapsed()
	if c.failures == 0 || begun < c.since {
		c.since = begun
	}
	c.failures++
	switch {
	case c.rest > 0 && begun < c.opened: // it began before the others failed, and tells nothing new
		return
	case c.rest > 0:
		c.rest = min(2*c.rest, longestRest)
	case c.failures >= deadFailures && now-c.since >= deadAfter:
		c.rest = shortestRest
	default:
		return
	}
	c.opened, c.until = now, now+c.rest
}

// leave: the host asked to be left alone for d, which is 0 where it did not.
func (c *circuit) leave(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d > 0 {
		c.pause = max(c.pause, c.elapsed()+min(d, longestWait))
	}
}

// elsewhere: another host is asked from now on, of which nothing is known.
func (c *circuit) elsewhere() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures, c.rest, c.pause = 0, 0, 0
}

// isDead reports whether the host is taken for dead.
func (c *circuit) isDead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rest > 0
}
