package registry

import (
	"cmp"
	"container/list"
	"context"
	"strings"
	"sync"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
)

// DefaultCacheBytes bounds the caches where Config says nothing: half of it is
// for state and index files, half for the bytes of artifacts.
const DefaultCacheBytes = 64 << 20

func (c Config) halfCache() int64 { return cmp.Or(c.CacheBytes, DefaultCacheBytes) / 2 }

// Stats counts what a cache has done since the start.
type Stats struct {
	// CacheHits were answered from memory, CacheMisses read from the catalog;
	// who waited for another's read of the same thing counts as a hit.
	CacheHits, CacheMisses uint64
	// CacheEvictions made room; what a change of state took out is in CacheInvalidations.
	CacheEvictions, CacheInvalidations uint64
	// CacheEntries and CacheBytes are held now, of at most CacheLimit bytes; the
	// cache of sessions is bounded by CacheMost entries instead.
	CacheEntries, CacheMost int
	CacheBytes, CacheLimit  int64
}

// thing names what is cached: of a family, by name, and where it depends on who
// asks, for those who read under the same.
type thing struct {
	family family
	name   string
	under  string
}

type family byte

const (
	indexFamily    family = iota // an index file, by canonical crate name, behind its upstream and a slash where it has one
	stateFamily                  // a decoded value of state, by its key
	documentFamily               // a parsed DID document, by its CID
	lineageFamily                // all versions of an artifact, by kind/canonical name
	viewFamily                   // an index file as some see it, by its name in indexFamily
	narrowFamily                 // what is held of one, as some see it
	crateFamily                  // an UpstreamCrate, by its name in indexFamily
	snapshotFamily               // an index file just imported, by its CID (of snapshots, not of a cache)
	scanFamily                   // what was found in a crate, by its digest (of scans, not of a cache)
)

// cache keeps what was read of the published state: each value is what a read
// as of size gives. advance, called before a larger size becomes visible, takes
// out all that changes with it; a value read as of another size than the
// cache's is not kept. So whoever asks after a change was acknowledged sees it,
// and nobody can put an older value in its place. That does not depend on who made
// the change: what other replicas' entries change the catalog says (changedBetween),
// and where it is not known everything goes.
//
// What is found and what is known to be missing have room of their own: asking
// for names that do not exist pushes out no others.
type cache struct {
	mu      sync.Mutex
	size    int64
	present lru
	absent  lru
	flights map[flightKey]*flight
	counts  Stats
}

// absentShare is the part of the cache for what is known to be missing, and
// largestShare the largest part that one value may take.
const (
	absentShare  = 16
	largestShare = 4
)

func newCache(limit int64) *cache {
	absent := limit / absentShare
	return &cache{present: newLRU(limit - absent), absent: newLRU(absent), flights: map[flightKey]*flight{}}
}

// found is a value as it is kept: what it is, nil where there is no such thing,
// and about how many bytes it holds.
type found struct {
	value any
	bytes int64
}

// flightKey: who reads as of one size is not told what another reads as of another.
type flightKey struct {
	thing
	at int64
}

// flight is a read under way, for all who wait for it.
type flight struct {
	done  chan struct{}
	found found
	err   error
}

// get returns t from memory, or reads it as of the size that now gives: once,
// however many ask at the same time. load must not depend on who asks. A read
// that was begun is finished whatever becomes of ctx.
func (c *cache) get(ctx context.Context, t thing, now func() int64, load func(ctx context.Context, at int64) (found, error)) (any, error) {
	return c.getIf(ctx, t, nil, now, load)
}

// getIf is get for a value that also time ends, or what else fresh knows (nil:
// nothing): one that is not fresh is read again. Who waited for another's read
// gets that, fresh or not.
func (c *cache) getIf(ctx context.Context, t thing, fresh func(value any) bool, now func() int64, load func(ctx context.Context, at int64) (found, error)) (any, error) {
	c.mu.Lock()
	if f, ok := c.lookUp(t); ok {
		if fresh == nil || fresh(f.value) {
			c.counts.CacheHits++
			c.mu.Unlock()
			return f.value, nil
		}
		if c.present.remove(t) || c.absent.remove(t) {
			c.counts.CacheInvalidations++
		}
	}
	key := flightKey{t, now()}
	if other, ok := c.flights[key]; ok {
		c.counts.CacheHits++
		c.mu.Unlock()
		return other.wait(ctx)
	}
	// An error that nobody sets is a panic's, whose cause its own caller reports.
	mine := &flight{done: make(chan struct{}), err: ErrUnavailable}
	c.flights[key] = mine
	c.counts.CacheMisses++
	c.mu.Unlock()

	defer c.land(key, mine)
	mine.found, mine.err = load(context.WithoutCancel(ctx), key.at)
	return mine.found.value, mine.err
}

// peek is what is in memory of t, nil for nothing.
func (c *cache) peek(t thing) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.present.get(t)
	if ok {
		c.counts.CacheHits++
	}
	return f.value
}

func (f *flight) wait(ctx context.Context) (any, error) {
	select {
	case <-f.done:
		return f.found.value, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// lookUp finds t; the caller holds the lock.
func (c *cache) lookUp(t thing) (found, bool) {
	if f, ok := c.present.get(t); ok {
		return f, true
	}
	return c.absent.get(t)
}

// land keeps what was read, if nothing has changed since, and tells those who wait.
func (c *cache) land(key flightKey, f *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.flights, key)
	close(f.done)
	if f.err != nil || key.at != c.size {
		return
	}
	room := &c.present
	if f.found.value == nil {
		room = &c.absent
	}
	c.counts.CacheEvictions += room.put(key.thing, f.found)
}

// advance makes size the one that values are kept for, and takes out the
// changed things, or everything where they are not known.
func (c *cache) advance(size int64, changed []thing, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.size = size
	if !known {
		c.counts.CacheInvalidations += uint64(c.present.clear() + c.absent.clear())
		return
	}
	for _, t := range changed {
		if c.present.remove(t) || c.absent.remove(t) {
			c.counts.CacheInvalidations++
		}
	}
}

func (c *cache) stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.counts
	s.CacheEntries = len(c.present.at) + len(c.absent.at)
	s.CacheBytes = c.present.bytes + c.absent.bytes
	s.CacheLimit = c.present.limit + c.absent.limit
	return s
}

// changedThings are what the cache may hold that depends on the state under key.
// Views of an index file know by themselves when it has changed.
func changedThings(key string) []thing {
	things := []thing{{family: stateFamily, name: key}}
	if crate, ok := strings.CutPrefix(key, state.UpstreamsPrefix()); ok {
		return append(things, upstreamThings(crate)...)
	}
	for _, kind := range record.Kinds() {
		rest, ok := strings.CutPrefix(key, versionPrefixes[kind])
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(rest, "/")
		things = append(things, lineageOf(kind, name))
		if kind == record.KindCrate {
			things = append(things, thing{family: indexFamily, name: name})
		}
	}
	return things
}

// crateVersions begins the keys of all versions of all crates.
var crateVersions = versionPrefixes[record.KindCrate]

// versionPrefixes begin the keys of all versions of all artifacts of a kind.
var versionPrefixes = func() map[record.Kind]string {
	prefixes := map[record.Kind]string{}
	for _, kind := range record.Kinds() {
		prefixes[kind] = strings.TrimSuffix(state.VersionPrefix(kind, ""), "/")
	}
	return prefixes
}()

// lru holds values of at most limit bytes in all; the one not used for longest
// makes room. It is for one goroutine at a time.
type lru struct {
	limit, bytes int64
	at           map[thing]*list.Element
	order        *list.List // of slots, the last used first
}

type slot struct {
	thing thing
	found found
}

// slotBytes is about what a slot takes beside its name and value.
const slotBytes = 256

func (s slot) cost() int64 { return slotBytes + int64(len(s.thing.name)) + s.found.bytes }

func newLRU(limit int64) lru {
	return lru{limit: limit, at: map[thing]*list.Element{}, order: list.New()}
}

func (l *lru) get(t thing) (found, bool) {
	e, ok := l.at[t]
	if !ok {
		return found{}, false
	}
	l.order.MoveToFront(e)
	return e.Value.(slot).found, true
}

// put keeps f, unless it is too large, and returns how many others had to go.
func (l *lru) put(t thing, f found) (evicted uint64) {
	l.remove(t)
	s := slot{t, f}
	if s.cost() > l.limit/largestShare {
		return 0
	}
	for l.bytes+s.cost() > l.limit {
		l.remove(l.order.Back().Value.(slot).thing)
		evicted++
	}
	l.at[t] = l.order.PushFront(s)
	l.bytes += s.cost()
	return evicted
}

func (l *lru) remove(t thing) bool {
	e, ok := l.at[t]
	if !ok {
		return false
	}
	l.bytes -= l.order.Remove(e).(slot).cost()
	delete(l.at, t)
	return true
}

func (l *lru) clear() int {
	n := len(l.at)
	clear(l.at)
	l.order.Init()
	l.bytes = 0
	return n
}

// stateBytes is about how many bytes a decoded value takes more than its encoded form.
const stateBytes = 512

// decoded is a value of state as it is kept.
type decoded[T any] struct{ value T }

// cachedState returns the decoded value under key of the published state; ok is
// false when it has none. It is shared: nobody changes what it points to.
func cachedState[T any](ctx context.Context, r *Registry, key string, decode func([]byte) (T, error)) (v T, ok bool, err error) {
	value, err := r.cache.get(ctx, thing{family: stateFamily, name: key}, r.Size, func(ctx context.Context, at int64) (found, error) {
		raw, ok, err := r.Catalog.State(ctx, key, at)
		if err != nil || !ok {
			return found{}, err
		}
		v, err := decode(raw)
		if err != nil {
			return found{}, err
		}
		return found{&decoded[T]{v}, stateBytes + int64(len(raw))}, nil
	})
	if err != nil || value == nil {
		return v, false, err
	}
	return value.(*decoded[T]).value, true, nil
}
