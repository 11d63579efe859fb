package main

import (
	"context"
	"errors"
	"io"
	"time"

	cratesioproxy "phoenix-lab.org/aln-registry/cratesio-proxy"
	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/server"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// upstreams is the proxy as the server needs it.
type upstreams struct {
	proxy   *cratesioproxy.Proxy
	catalog *catalog.DB
	blobs   storage.Blobs
	clock   func() time.Time
	cache   *upstreamCache
}

// State implements server.Upstreams.
func (u *upstreams) State() server.UpstreamsState {
	f := u.proxy.Figures()
	s := server.UpstreamsState{Offline: u.proxy.Offline, Figures: figuresOf(f)}
	s.Figures.CacheBytes, s.Figures.CacheLimit, s.Figures.Evicted = u.cache.held.Load(), u.cache.limit, uint64(u.cache.evicted.Load())
	dead := map[string]bool{}
	for _, name := range f.Dead {
		dead[name] = true
	}
	for _, one := range u.proxy.Upstreams() {
		s.All = append(s.All, server.Upstream{Name: one.Name(), Source: one.Source(), Index: one.Setting().Index, Down: dead[one.Name()]})
	}
	return s
}

func figuresOf(f cratesioproxy.Figures) server.UpstreamFigures {
	return server.UpstreamFigures{
		Requests: uint64(f.Requests), Retries: uint64(f.Retries), Joined: uint64(f.Joined),
		Fresh: uint64(f.Fresh), Unchanged: uint64(f.Unchanged), Imported: uint64(f.Imported), Stale: uint64(f.Stale), Rested: uint64(f.Rested),
		Ahead: uint64(f.Ahead), Held: uint64(f.Held), Received: uint64(f.Crates), Bytes: uint64(f.Bytes),
		Mismatches: uint64(f.Mismatches), Unstored: uint64(f.Unstored), Alarms: uint64(f.Alarms),
		Receiving: f.Receiving, SpoolBytes: f.Spool,
	}
}

// Refresh implements server.Upstreams.
func (u *upstreams) Refresh(ctx context.Context, upstream, name string) error {
	one := u.proxy.Upstream(upstream)
	if one == nil {
		return registry.ErrNotFound
	}
	return asServed(one.Refresh(ctx, name))
}

// Crate implements server.Upstreams.
func (u *upstreams) Crate(ctx context.Context, upstream string, want server.UpstreamCrate) (server.Incoming, error) {
	one := u.proxy.Upstream(upstream)
	if one == nil {
		return nil, registry.ErrNotFound
	}
	c, err := one.Crate(ctx, cratesioproxy.Want(want))
	if err != nil {
		return nil, asServed(err)
	}
	return incoming{c}, nil
}

// Hold implements server.Upstreams.
func (u *upstreams) Hold(ctx context.Context, upstream string, want server.UpstreamCrate) (int64, error) {
	one := u.proxy.Upstream(upstream)
	if one == nil {
		return 0, registry.ErrNotFound
	}
	if err := one.Hold(ctx, cratesioproxy.Want(want)); err != nil {
		return 0, asServed(err)
	}
	return u.blobs.Stat(ctx, want.ID)
}

// Held implements server.Upstreams.
func (u *upstreams) Held(ctx context.Context, ids []storage.CID) (map[storage.CID]bool, error) {
	rows, err := u.catalog.UpstreamBlobs(ctx, ids)
	if err != nil {
		return nil, err
	}
	held := make(map[storage.CID]bool, len(rows))
	for _, row := range rows {
		held[row.CID] = true
	}
	return held, nil
}

// Pin implements server.Upstreams.
func (u *upstreams) Pin(ctx context.Context, lock string, by did.DID, ids []storage.CID) error {
	return u.catalog.PinUpstream(ctx, lock, string(by), ids, u.clock())
}

// Alarms implements server.Upstreams.
func (u *upstreams) Alarms(ctx context.Context, upstream string, before int64, limit int) ([]server.UpstreamAlarm, error) {
	rows, err := u.catalog.UpstreamAlarms(ctx, upstream, fromNewest(before), limit)
	if err != nil {
		return nil, err
	}
	alarms := make([]server.UpstreamAlarm, len(rows))
	for i, a := range rows {
		alarms[i] = server.UpstreamAlarm{ID: a.ID, Name: a.Name, Version: a.Version, Kind: a.Kind, Detail: a.Detail, At: a.At}
	}
	return alarms, nil
}

// incoming is a crate whose errors are the server's.
type incoming struct{ *cratesioproxy.Crate }

// Read implements io.Reader.
func (i incoming) Read(p []byte) (int, error) {
	n, err := i.Crate.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // io.Reader's is never wrapped
		err = asServed(err)
	}
	return n, err
}

// served is an error of the proxy as the server knows it, in the proxy's words.
type served struct {
	kind error
	error
}

// Unwrap gives errors.Is both.
func (s *served) Unwrap() []error { return []error{s.kind, s.error} }

// RetryAfter is how long to wait before trying again; 0 where that is not known.
func (s *served) RetryAfter() time.Duration { return cratesioproxy.RetryAfter(s.error) }

// asServed is what the server answers to an error of the proxy.
func asServed(err error) error {
	if err == nil {
		return nil
	}
	for _, as := range []struct{ from, to error }{
		{cratesioproxy.ErrNotFound, registry.ErrNotFound},
		{cratesioproxy.ErrBusy, server.ErrUpstreamBusy},
		{cratesioproxy.ErrUnavailable, server.ErrUpstreamDown},
		{cratesioproxy.ErrRefused, server.ErrUpstreamRefused},
		{cratesioproxy.ErrBroken, server.ErrUpstreamBroken},
		{cratesioproxy.ErrSnapshot, server.ErrUpstreamBroken},
	} {
		if errors.Is(err, as.from) {
			return &served{as.to, err}
		}
	}
	return err
}
