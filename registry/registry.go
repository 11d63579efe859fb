// Package registry puts the parts together: it takes artifacts and records in
// (one verification for all ways in), orders them in the log, projects state
// from them, and answers what may be seen of it. It holds no rules of its own
// about who may do what: records are judged by package state, sessions and
// reads by package policy, crates by package cargo.
//
// Invariants (docs/ARCHITECTURE.md): blobs are durable before the entry that
// names them is committed; entry objects and the checkpoint object are durable
// before the catalog says "published"; nothing above the published size is ever
// served or acknowledged; all state is Apply over the log, so Rebuild derives
// the same catalog from blob storage alone.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// Errors that callers branch on, besides those of state, policy and cargo.
var (
	// ErrNotFound: nothing of that name is visible.
	ErrNotFound = errors.New("not found")
	// ErrUnauthenticated: no session, or one that cannot be read or verified.
	ErrUnauthenticated = errors.New("not authenticated")
	// ErrUnavailable: the registry cannot do this now; trying again later is right.
	ErrUnavailable = errors.New("temporarily unavailable")
	// ErrNoDatabase: the database cannot be reached or does not answer now. Blob
	// storage's own error of that kind is storage.ErrUnavailable.
	ErrNoDatabase = catalog.ErrUnavailable
	// ErrUnpublished: the change may be entered, and then comes into force as soon as
	// storage takes all of it; whoever sent it looks again before sending it again.
	ErrUnpublished = errors.New("entered, but not published yet")
	// ErrBehind: the catalog does not match blob storage; `rebuild` derives it anew.
	ErrBehind = errors.New("the catalog is behind blob storage; a rebuild derives it anew")
	// ErrFork: blob storage holds a log that contradicts this one. Nothing is served or written.
	ErrFork = errors.New("the stored log contradicts this one")
	// ErrLost: blob storage lacks what a published checkpoint covers.
	ErrLost = errors.New("blob storage has lost part of the log, or is not this registry's")
	// ErrRequest: the request itself is wrong.
	ErrRequest = errors.New("bad request")
)

// Config is what a registry is made of.
type Config struct {
	Catalog *catalog.DB
	Blobs   storage.Blobs
	Keys    Keys
	// PublicURL is the declared base URL, without a trailing slash.
	PublicURL string
	// AnonymousRead lets everybody read artifacts.
	AnonymousRead bool
	// Spool is the folder for uploads while they are checked; "" is the system's.
	// What a killed process leaves there may be removed before Open.
	Spool string
	// Limits bounds crates; zero fields are cargo's defaults.
	Limits cargo.Limits
	// CacheBytes bounds what is kept in memory of the published state; 0 is DefaultCacheBytes.
	CacheBytes int64
	// AuditEntries is how many entries of the audit trail are kept; 0 is DefaultAuditEntries.
	AuditEntries int64
	// Embedded: Catalog and Blobs lie on this host. The lock of a transaction is not lost
	// while its process lives, and what was asked of Blobs does not happen after it ended.
	Embedded bool
	// Replica names this server among those that share the catalog, for whoever operates
	// them: it is in their logs. "" where the catalog is not shared.
	Replica string
	// Clock and Rand are the sources of time and randomness.
	Clock func() time.Time
	Rand  io.Reader
	// Elapsed is the time since some moment, by a clock that nobody sets; nil is the process's own.
	Elapsed func() time.Duration
	Log     *slog.Logger
	// KnownUpstream, unless nil, returns the other registries that have a crate of that name,
	// however spelled, and those that did not tell soon. It is never called for private names.
	KnownUpstream func(ctx context.Context, name string) (has, untold []string)
	// Ending, unless nil, is closed when this registry is about to be closed: looks into crates that
	// wait for their turn are given up then, and those under way a little later.
	Ending <-chan struct{}
	// Batch, unless nil, is told of each batch of changes. It must not block.
	Batch func(Batch)
}

// Registry is an open registry, safe for concurrent use.
type Registry struct {
	Config
	origin did.DID

	published atomic.Pointer[checkpoint]
	cache     *cache
	artifacts *blobCache
	verified  *sessionCache
	grants    *grantCache
	trail     *trail
	scans     *scans
	snapshots *snapshots
	large     chan struct{} // holds a place for every large index file being made
	queue     chan *submission
	entered   chan batch      // what is to be published; closed by the sequencer
	running   context.Context // ends with Close
	stop      context.CancelFunc
	turns     context.Context // ends with Ending, or Close: that of looks that wait for their turn
	looks     context.Context // ends lookGrace later, or with Close: that of looks
	done      chan struct{}
	closing   sync.Once
	// others are what runs beside the sequencer where the catalog is shared.
	others sync.WaitGroup
	// lease and follower are nil where this process has the catalog for itself.
	lease    *lease
	follower *follower

	// renewing is held by whoever renews the cosignature; renewFailed is when that last failed.
	renewing    sync.Mutex
	renewFailed time.Time

	proving   sync.Mutex // held by whoever makes keysProof
	keysProof *keysProof

	// showing is held by whoever replaces published.
	showing sync.Mutex
	// unseen are the changes that this process committed and does not show yet, in order.
	// showing guards it.
	unseen []entryChanges
	// landing: what is about to be published, or was just now, is about to be shown.
	landing atomic.Bool

	// pending: something may be committed but not published, and nobody is at it.
	pending atomic.Bool
	// acknowledging are those who wait for other replicas.
	acknowledging sync.WaitGroup
	failed        chan error
	// enteringSince and publishingSince are when the batch under way was begun, in Unix
	// nanoseconds; 0 for none.
	enteringSince, publishingSince atomic.Int64
	// committed is the head of the log as the last batch left it; what was committed
	// before the start is published by it.
	committed atomic.Int64
}

// checkpoint is what is visible: everything below Size.
type checkpoint struct {
	translog.Checkpoint
	note     []byte
	cosigned time.Time
	settings state.Settings
	terms    *terms
}

// queueLength bounds how many changes wait; batchMost how many go into one transaction.
const (
	queueLength = 256
	batchMost   = 64
	batchBytes  = 16 << 20 // attached to what goes into one; beyond that no more is taken
)

// Open opens a registry that has been set up (Genesis): it compares catalog and
// blob storage, publishes what was committed but not yet published, derives anew
// what an older release derived otherwise, and starts taking changes. Errors: ErrBehind, ErrFork, ErrLost, and those of the stores.
func Open(ctx context.Context, c Config) (*Registry, error) {
	r, err := prepare(ctx, c)
	if err != nil {
		return nil, err
	}
	if r.lease, err = newLease(c); err != nil {
		return nil, err
	}
	r.follower = newFollower(c)
	if err := r.recover(ctx); err != nil {
		return nil, err
	}
	if err := r.rederive(ctx); err != nil {
		return nil, err
	}
	if err := r.checkOwnKey(ctx); err != nil {
		return nil, err
	}
	if r.lease != nil { // what goes wrong otherwise is tried again
		if err := r.confirm(ctx); ends(err) {
			return nil, err
		}
	}
	r.start(ctx)
	return r, nil
}

// offline is a registry that is never run: to look at a log, or to replay it.
func offline(c Config) *Registry {
	return &Registry{Config: c, origin: c.Keys.DID(), cache: newCache(c.halfCache())}
}

// prepare makes a Registry that is not running yet.
func prepare(ctx context.Context, c Config) (*Registry, error) {
	c = c.withClock()
	r := &Registry{
		Config: c, cache: newCache(c.halfCache()), artifacts: newBlobCache(c.halfCache()), verified: newSessionCache(), grants: newGrantCache(c.halfCache()), trail: newTrail(c),
		scans: newScans(), snapshots: newSnapshots(), large: make(chan struct{}, mostLargeFiles),
		queue: make(chan *submission, queueLength), entered: make(chan batch), done: make(chan struct{}), failed: make(chan error, 1),
	}
	settings, ok, err := state.SettingsOf(r.viewAt(ctx, &c.Catalog.Reader, maxIndex))
	if err != nil {
		return nil, err
	}
	if ok {
		r.origin = settings.Origin
		if r.origin != c.Keys.DID() {
			return nil, fmt.Errorf("the key file is that of %s, but the log here is that of %s; give the key file of that one", c.Keys.DID(), r.origin)
		}
	}
	return r, nil
}

// withClock is c with an Elapsed.
func (c Config) withClock() Config {
	if c.Elapsed == nil {
		start := time.Now()
		c.Elapsed = func() time.Duration { return time.Since(start) }
	}
	return c
}

func (r *Registry) start(ctx context.Context) {
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	r.running, r.stop = run, stop
	go r.sequence(run)
	if r.lease != nil {
		r.others.Go(func() { r.follow(run) })
		r.others.Go(func() { r.holdShown(run) })
		r.others.Go(func() { r.heartbeat(run) })
		r.others.Go(func() { r.watchFindings(run) })
	}
	go r.trail.run(context.WithoutCancel(ctx))
	r.endLooks(run)
	r.scans.running.Go(func() { r.scanUnscanned(r.turns) })
}

// Close stops taking changes, lets the batches that are being written finish and
// tells the waiting ones ErrUnavailable, then writes what waits for the audit
// trail, and no other replica waits for this one any more. It does not close the stores.
func (r *Registry) Close() {
	r.closing.Do(func() {
		r.stop()
		<-r.done
		r.others.Wait()
		r.leave(context.WithoutCancel(r.running))
		r.trail.close()
		r.scans.close()
	})
}

// Failed yields the error after which the registry writes nothing more (ErrFork, ErrLost, or
// ErrBehind where a shared database was put back under it); whoever runs it stops serving.
func (r *Registry) Failed() <-chan error { return r.failed }

// Origin is the registry's DID, for ever.
func (r *Registry) Origin() did.DID { return r.origin }

// Size is the number of published entries.
func (r *Registry) Size() int64 { return r.published.Load().Size }

// Settings returns the settings in force at the published size.
func (r *Registry) Settings() state.Settings { return r.published.Load().settings }

// IndexURL is the hosted index as cargo writes it: sparse+<PublicURL>/index/.
func (r *Registry) IndexURL() string { return IndexURL(r.PublicURL) }

// IndexURL is the index URL of the registry at base.
func IndexURL(base string) string { return "sparse+" + strings.TrimSuffix(base, "/") + "/index/" }

// maxIndex is above every index: "as of now, published or not".
const maxIndex = translog.MaxSize

// view is state as it was before an index.
type view struct {
	ctx    context.Context
	reader *catalog.Reader
	before int64
}

// Get implements state.Store.
func (v view) Get(key string) ([]byte, bool, error) { return v.reader.State(v.ctx, key, v.before) }

func (r *Registry) viewAt(ctx context.Context, reader *catalog.Reader, before int64) view {
	return view{ctx: ctx, reader: reader, before: before}
}

// visible is the published state.
func (r *Registry) visible(ctx context.Context) view {
	return r.viewAt(ctx, &r.Catalog.Reader, r.Size())
}
