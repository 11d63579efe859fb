// Package cratesioproxy makes crates.io, and other registries that speak Cargo's
// sparse protocol, a source of artifacts. It talks to them and to nobody else: what
// they say of a crate goes to the registry as evidence (Evidence), the bytes that
// they serve go to blob storage, and what was learned on the way that is no evidence
// (validators, what is held, alarms) goes to Facts. What an asker may see of all that
// is the registry's to say, before anything here is asked.
//
// Nothing is asked of an upstream before somebody asks for it here, and nothing of it
// is believed:
//
//   - A crate's bytes are those that hash to the digest it was asked by. The last of
//     them leaves here only after all were seen to (Crate), and only then are they stored.
//     What is found not to any more, on storage, is fetched anew.
//   - An index file is handed on only through the registry, which signs what it saw.
//   - Whatever comes from outside is bounded: bytes on the wire and decoded, lines,
//     redirects, tries, connections, time without progress, time in all, spool, memory.
//
// However many ask for one thing, an upstream is asked once; whoever leaves does not
// end it for others. An upstream that does not answer holds nobody: what is known
// already is served as it is known, and what is not fails soon and for a moment. What is
// bounded is so for each upstream, so that a slow one takes nothing of the others.
//
// Secrets stand in files that settings name (Setting), go into the Authorization of
// requests to the host of that upstream's index, and of its crates where that is the same
// or the setting names it (Setting.TokenHost), and into no error, log line or figure.
// Time and randomness are arguments (Config).
package cratesioproxy

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// Bounds and times where Config says nothing.
const (
	// DefaultFresh is how long an index file is served without asking again.
	DefaultFresh = 5 * time.Minute
	// DefaultNegative is how long it is remembered that upstream has no such thing.
	DefaultNegative = time.Minute
	// DefaultStall is how long a body may make no progress.
	DefaultStall = 15 * time.Second
	// DefaultPatience is how long an asker waits for news of a crate of which something
	// is known already, before that is served.
	DefaultPatience = 5 * time.Second
	// DefaultLinger is how long a crate is received on when the last who asked for it has left:
	// cargo leaves where nothing comes for 30 seconds, and asks again.
	DefaultLinger = 2 * time.Minute
	// DefaultCrateBytes bounds one crate, DefaultSpoolBytes all that are under way: every
	// upstream has the same share of it, and never less than one crate.
	DefaultCrateBytes = 512 << 20
	DefaultSpoolBytes = 2 << 30
	// DefaultDayBytes bounds what is entered of one upstream within a day, which is kept for
	// ever: its index files, and what is known of their crates' versions each time.
	DefaultDayBytes = 2 << 30
	// DefaultAhead is how many waves of dependencies are fetched before they are asked for.
	DefaultAhead = 8
)

// Config is what a Proxy is made of. Evidence, Blobs and Facts are needed, the rest
// has defaults for its zero values.
type Config struct {
	Evidence Evidence
	Blobs    storage.Blobs
	Facts    Facts
	// Version and PublicURL are said to upstreams (User-Agent).
	Version, PublicURL string
	// Spool is the folder for crates under way; "" is the system's.
	Spool string
	// Offline: no upstream is ever asked.
	Offline bool
	// Fresh, Negative, Stall, Patience and Linger are times as explained beside their defaults.
	Fresh, Negative, Stall, Patience, Linger time.Duration
	// CrateBytes, SpoolBytes and DayBytes are bounds as explained beside their defaults.
	CrateBytes, SpoolBytes, DayBytes int64
	// Ahead is DefaultAhead where it is 0, and none where it is negative.
	Ahead int
	// Stopping is closed when this registry is about to end: nobody waits any more for an
	// upstream that has not answered, and who reads a crate does so only as long as more of
	// it comes. nil: it never is.
	Stopping <-chan struct{}
	// Alarmed is told of every alarm besides Facts, as for the audit trail. It must not block.
	Alarmed func(Alarm)
	// Clock is the time, Elapsed a clock that never jumps; Random is in [0, 1); Sleep
	// waits until d is over or ctx ends, whose error it returns then.
	Clock   func() time.Time
	Elapsed func() time.Duration
	Random  func() float64
	Sleep   func(ctx context.Context, d time.Duration) error
	Log     *slog.Logger
}

func (c Config) orDefault() Config {
	c.Fresh = cmp.Or(c.Fresh, DefaultFresh)
	c.Negative = cmp.Or(c.Negative, DefaultNegative)
	c.Stall = cmp.Or(c.Stall, DefaultStall)
	c.Patience = cmp.Or(c.Patience, DefaultPatience)
	c.Linger = cmp.Or(c.Linger, DefaultLinger)
	c.CrateBytes = cmp.Or(c.CrateBytes, DefaultCrateBytes)
	c.SpoolBytes = cmp.Or(c.SpoolBytes, DefaultSpoolBytes)
	c.DayBytes = cmp.Or(c.DayBytes, DefaultDayBytes)
	c.Ahead = max(cmp.Or(c.Ahead, DefaultAhead), 0)
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Elapsed == nil {
		begun := time.Now()
		c.Elapsed = func() time.Duration { return time.Since(begun) }
	}
	if c.Random == nil {
		c.Random = rand.Float64
	}
	if c.Sleep == nil {
		c.Sleep = sleep
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Proxy is all upstreams of a process. Its methods may be called concurrently.
type Proxy struct {
	Config
	upstreams []*Upstream   // in the order of the settings
	buffers   sync.Pool     // of *[]byte, for index files that are large
	storing   chan struct{} // holds a place for every crate being stored
	damages   *damages
	notes     *notes
	counts    counts

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	tasks  tasks
}

// New makes a proxy of the upstreams that settings name. It asks none of them, but
// reads their files: one that cannot be read, or holds nothing usable, is an error.
func New(config Config, settings []Setting) (*Proxy, error) {
	p := &Proxy{Config: config.orDefault(), storing: make(chan struct{}, mostStored), damages: newDamages()}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for _, s := range settings {
		u, err := newUpstream(p, s, len(settings))
		if err != nil {
			p.cancel()
			return nil, err
		}
		p.upstreams = append(p.upstreams, u)
	}
	p.notes = newNotes(p)
	return p, nil
}

// Close ends what is under way, writes what was learned, and returns when all of it
// has ended. Whoever waits gets ErrUnavailable.
func (p *Proxy) Close() {
	p.cancel()
	p.tasks.wait()
	p.notes.close()
	for _, u := range p.upstreams {
		u.transport.CloseIdleConnections()
	}
}

// Upstream returns the upstream of that name, nil where there is none.
func (p *Proxy) Upstream(name string) *Upstream {
	i := slices.IndexFunc(p.upstreams, func(u *Upstream) bool { return u.setting.Name == name })
	if i < 0 {
		return nil
	}
	return p.upstreams[i]
}

// Upstreams returns all, in the order of the settings.
func (p *Proxy) Upstreams() []*Upstream { return slices.Clone(p.upstreams) }

// tasks are the goroutines of a Proxy. None begins after wait was called.
type tasks struct {
	mu     sync.Mutex
	closed bool
	group  sync.WaitGroup
}

// begin runs f apart, and reports false where it does not.
func (t *tasks) begin(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.group.Go(f)
	return true
}

func (t *tasks) wait() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.group.Wait()
}

// errClosed: the proxy is being closed, or about to be.
var errClosed = fmt.Errorf("%w: this registry is being stopped", ErrUnavailable)

// stopGrace is how long a crate may bring nothing new once the proxy is about to be closed.
const stopGrace = 2 * time.Second

// isStopping reports whether the proxy is about to be closed.
func (p *Proxy) isStopping() bool {
	select {
	case <-p.Stopping:
		return true
	default:
		return false
	}
}
