package main

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

const (
	// roomEvery is how often it is looked whether crates of upstreams take more than they may.
	roomEvery = 5 * time.Second
	// countEvery is how often they are counted although none has come.
	countEvery = 12 * roomEvery
)

// upstreamCache keeps the crates that are held of upstreams within a bound.
type upstreamCache struct {
	limit   int64 // bytes, 0 for no bound
	catalog *catalog.DB
	evictor *registry.Evictor
	// received counts the crates that came.
	received func() int64
	log      *slog.Logger

	held    atomic.Int64 // bytes, as last counted
	evicted atomic.Int64
	cancel  context.CancelFunc
	done    chan struct{}
}

// newUpstreamCache begins to keep what r holds within limit bytes, until Close.
func newUpstreamCache(r *registry.Registry, inventory storage.Inventory, limit int64, received func() int64, log *slog.Logger) *upstreamCache {
	c := &upstreamCache{limit: limit, catalog: r.Catalog, evictor: r.NewEvictor(inventory), received: received, log: log, done: make(chan struct{})}
	var ctx context.Context
	ctx, c.cancel = context.WithCancel(context.Background())
	go c.run(ctx)
	return c
}

func (c *upstreamCache) run(ctx context.Context) {
	defer close(c.done)
	ticks := time.NewTicker(roomEvery)
	defer ticks.Stop()
	var before int64
	var counted time.Time
	for {
		if n := c.received(); n != before || time.Since(counted) >= countEvery {
			before, counted = n, time.Now()
			c.look(ctx)
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
	}
}

// look counts what is held, and makes room where it is too much.
func (c *upstreamCache) look(ctx context.Context) {
	rows, err := c.catalog.UpstreamHeld(ctx)
	if err != nil {
		c.complain(ctx, "cannot count the crates that are held of upstreams", err)
		return
	}
	held := int64(0)
	for _, row := range rows {
		held += row.Bytes
	}
	c.held.Store(held)
	if c.limit == 0 || held <= c.limit {
		return
	}
	done, err := c.evictor.MakeRoom(ctx, c.limit)
	c.evicted.Add(done.Removed)
	c.held.Add(-done.RemovedBytes)
	switch {
	case err != nil:
		c.complain(ctx, "cannot make room for crates of upstreams", err)
	case done.Held-done.RemovedBytes > c.limit:
		c.log.Warn("the crates that are held of upstreams take more than --upstream-cache-mb allows: all that are left are pinned, or a grant or a record names them", "bytes", done.Held-done.RemovedBytes, "limit", c.limit)
	}
}

func (c *upstreamCache) complain(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		c.log.Warn(what, "error", err)
	}
}

// Close ends it, and returns when it has ended.
func (c *upstreamCache) Close() error {
	c.cancel()
	<-c.done
	return c.evictor.Close()
}
