package registry

import (
	"container/list"
	"context"
	"sync"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/storage"
)

const (
	// mostListBytes is the largest list of crates: a line of 64 digits for each.
	mostListBytes = particle.MaxListed * (2*32 + 1)
	// grantRetry is how long a grant whose blobs could not be read allows nothing
	// before they are tried again.
	grantRetry = 5 * time.Second
	// grantPeriod bounds the reading of its blobs.
	grantPeriod = time.Minute
	// grantBytes is about what a grant takes beside its list, hashBytes what each
	// hash of it takes.
	grantBytes = 4 << 10
	hashBytes  = 96
	// grantsAtOnce is how many are read at once: lists are large.
	grantsAtOnce = 2
)

// grantCache keeps EnvGrants that were made ready, by CID: what a CID names never
// changes, in whatever replica it was entered. Whether one is in force is not kept here.
type grantCache struct {
	mu     sync.Mutex
	limit  int64
	bytes  int64
	at     map[string]*list.Element
	order  *list.List // of *heldGrant, the last used first
	counts Stats
	places chan struct{}
}

// heldGrant is a grant made ready, or being made ready.
type heldGrant struct {
	cid   string
	bytes int64
	// ready is closed when the rest is there.
	ready chan struct{}
	grant *policy.Grant
	// barred is why nothing may be read under it: it cannot be read itself.
	barred *policy.Denial
	// retry is when to read again what could not be read, zero for what could.
	retry time.Time
}

func newGrantCache(limit int64) *grantCache {
	return &grantCache{limit: limit, at: map[string]*list.Element{}, order: list.New(), places: make(chan struct{}, grantsAtOnce)}
}

// get returns the grant cid, made ready once for all who ask at the same time. An
// error is ctx's alone: what cannot be read is a denial, or a grant that allows
// nothing, and is read again soon.
func (c *grantCache) get(ctx context.Context, r *Registry, cid string) (*policy.Grant, *policy.Denial, error) {
	h, first := c.hold(cid, r.Clock())
	if first {
		c.fill(context.WithoutCancel(ctx), r, h)
	}
	select {
	case <-h.ready:
		return h.grant, h.barred, nil
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

// hold is what is held of cid; first is true for the one who has to fill it.
func (c *grantCache) hold(cid string, now time.Time) (h *heldGrant, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.at[cid]; ok {
		h := e.Value.(*heldGrant)
		if h.retry.IsZero() || now.Before(h.retry) {
			c.order.MoveToFront(e)
			c.counts.CacheHits++
			return h, false
		}
		c.drop(e)
	}
	c.counts.CacheMisses++
	h = &heldGrant{cid: cid, bytes: grantBytes, ready: make(chan struct{})}
	c.at[cid] = c.order.PushFront(h)
	c.bytes += h.bytes
	c.makeRoom()
	return h, true
}

// makeRoom drops those not used for longest; the last used one stays, however large.
func (c *grantCache) makeRoom() {
	for c.bytes > c.limit && c.order.Len() > 1 {
		c.drop(c.order.Back())
		c.counts.CacheEvictions++
	}
}

func (c *grantCache) drop(e *list.Element) {
	h := c.order.Remove(e).(*heldGrant)
	delete(c.at, h.cid)
	c.bytes -= h.bytes
}

// fill reads the grant of h. The list of a grant can be 65 MB, so only a few are
// read at once, and whoever asked first going away does not end it.
func (c *grantCache) fill(ctx context.Context, r *Registry, h *heldGrant) {
	ctx, cancel := context.WithTimeout(ctx, grantPeriod)
	defer cancel()
	var grant *policy.Grant
	whole := false
	defer func() { c.filled(h, grant, whole, r.Clock()) }()
	select {
	case c.places <- struct{}{}:
		defer func() { <-c.places }()
	case <-ctx.Done():
		return
	}
	grant, whole = r.readGrant(ctx, h.cid)
}

// filled tells who waits for h.
func (c *grantCache) filled(h *heldGrant, grant *policy.Grant, whole bool, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.grant = grant; grant == nil {
		h.barred = &policy.Denial{Rule: policy.RuleGrant, Reason: "the EnvGrant " + h.cid + " cannot be read from this registry's storage now; try again in a moment, and tell its operator if that does not help"}
	}
	if !whole {
		h.retry = now.Add(grantRetry)
	}
	if e, ok := c.at[h.cid]; ok && e.Value == h && grant != nil {
		more := int64((grant.Listed() + len(grant.AllowedCrates)) * hashBytes) // those in the grant are kept as text too
		h.bytes += more
		c.bytes += more
		c.makeRoom()
	}
	close(h.ready)
}

// readGrant makes the grant cid ready, nil where its blob cannot be had; whole is
// false where something of it could not be had now, but may be later.
func (r *Registry) readGrant(ctx context.Context, cid string) (grant *policy.Grant, whole bool) {
	id, err := storage.ParseCID(cid)
	if err != nil {
		return nil, false
	}
	raw, err := readBlob(ctx, r.Blobs, id, maxAttachment)
	if err != nil {
		r.Log.Error("an EnvGrant in force cannot be read", "cid", cid, "error", err)
		return nil, false
	}
	g, err := particle.ParseEnvGrant(raw)
	if err != nil {
		r.Log.Error("an EnvGrant in force cannot be read", "cid", cid, "error", err)
		return nil, false
	}
	if g.AllowedCratesList == nil {
		return policy.CompileGrant(cid, g, nil, true), true
	}
	crates, err := readBlob(ctx, r.Blobs, *g.AllowedCratesList, mostListBytes)
	if err != nil {
		r.Log.Error("the list of an EnvGrant in force cannot be read: it allows nothing until it can", "cid", cid, "list", g.AllowedCratesList, "error", err)
	}
	return policy.CompileGrant(cid, g, crates, err == nil), err == nil
}

func (c *grantCache) stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.counts
	s.CacheEntries, s.CacheBytes, s.CacheLimit = len(c.at), c.bytes, c.limit
	return s
}
