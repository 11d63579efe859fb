package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	cratesioproxy "phoenix-lab.org/aln-registry/cratesio-proxy"
	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/server"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// keptAlarms is how many alarms are kept of each upstream.
const keptAlarms = 10_000

// evidence implements cratesioproxy.Evidence.
type evidence struct{ *registry.Registry }

// Import implements cratesioproxy.Evidence.
func (e evidence) Import(ctx context.Context, upstream, crate string, snapshot []byte) (cratesioproxy.Imported, error) {
	done, err := e.Registry.Import(ctx, upstream, crate, snapshot)
	if errors.Is(err, registry.ErrSnapshot) {
		err = fmt.Errorf("%w: %w", cratesioproxy.ErrSnapshot, err)
	}
	return cratesioproxy.Imported{Changed: differing(done.Changed), Altered: differing(done.Altered), Dropped: differing(done.Dropped)}, err
}

func differing(all []registry.Difference) (same []cratesioproxy.Difference) {
	for _, d := range all {
		same = append(same, cratesioproxy.Difference(d))
	}
	return same
}

// Known implements cratesioproxy.Evidence.
func (e evidence) Known(ctx context.Context, upstream, canonical string) (cratesioproxy.Known, bool, error) {
	c, ok, err := e.UpstreamCrate(ctx, upstream, canonical)
	return cratesioproxy.Known{Name: c.Name, Snapshot: c.Snapshot, Seen: c.Seen, Versions: c.Versions, Claims: c.Claims}, ok, err
}

// facts implements cratesioproxy.Facts.
type facts struct {
	registry *registry.Registry
	// stored is called when crates have come to be held.
	stored func()
}

// File implements cratesioproxy.Facts.
func (f facts) File(ctx context.Context, upstream, name string) (cratesioproxy.File, bool, error) {
	known, ok, err := f.registry.Catalog.UpstreamFile(ctx, upstream, name)
	return cratesioproxy.File(known), ok, err
}

// PutFiles implements cratesioproxy.Facts.
func (f facts) PutFiles(ctx context.Context, files []cratesioproxy.File) error {
	var all []catalog.UpstreamFile
	for _, file := range files {
		all = append(all, catalog.UpstreamFile(file))
	}
	return f.registry.Catalog.PutUpstreamFiles(ctx, all)
}

// HasBlob implements cratesioproxy.Facts.
func (f facts) HasBlob(ctx context.Context, upstream string, id storage.CID) (bool, error) {
	held, err := f.registry.Catalog.UpstreamHolds(ctx, upstream, []storage.CID{id})
	return len(held) == 1, err
}

// PutBlobs implements cratesioproxy.Facts.
func (f facts) PutBlobs(ctx context.Context, list []cratesioproxy.Blob) (map[storage.CID]error, error) {
	var all []catalog.UpstreamBlob
	for _, b := range list {
		all = append(all, catalog.UpstreamBlob{CID: b.ID, Upstream: b.Upstream, Name: b.Name, Version: b.Version, Size: b.Size, Fetched: b.Fetched, Used: b.Fetched})
	}
	unheld, err := f.registry.HoldEach(ctx, all)
	for id, why := range unheld {
		unheld[id] = unkept(why)
	}
	if f.stored != nil {
		f.stored()
	}
	return unheld, err
}

// Settling implements cratesioproxy.Facts.
func (f facts) Settling(ctx context.Context, id storage.CID) error {
	return unkept(f.registry.Settling(ctx, id))
}

// unkept is why a crate is not held, as package cratesioproxy has it, too.
func unkept(err error) error {
	switch {
	case errors.Is(err, registry.ErrRemoving):
		return fmt.Errorf("%w: %w", cratesioproxy.ErrSettling, err)
	case errors.Is(err, registry.ErrGone):
		return fmt.Errorf("%w: %w", cratesioproxy.ErrGone, err)
	}
	return err
}

// UsedBlobs implements cratesioproxy.Facts.
func (f facts) UsedBlobs(ctx context.Context, ids []storage.CID, at time.Time) error {
	return f.registry.Catalog.UseUpstreamBlobs(ctx, ids, at)
}

// PutAlarm implements cratesioproxy.Facts.
func (f facts) PutAlarm(ctx context.Context, a cratesioproxy.Alarm) error {
	return f.registry.Catalog.AddUpstreamAlarm(ctx, catalog.UpstreamAlarm{
		Upstream: a.Upstream, Name: a.Name, Version: a.Version, Kind: a.Kind, Detail: a.Detail, At: a.At,
	}, keptAlarms)
}

// told is an error of an upstream as package server has them.
func told(err error) error {
	for _, of := range []struct{ err, as error }{
		{cratesioproxy.ErrDamaged, server.ErrHeldDamaged}, // whatever upstream said
		{cratesioproxy.ErrNotFound, registry.ErrNotFound}, {cratesioproxy.ErrRefused, server.ErrUpstreamRefused},
		{cratesioproxy.ErrBroken, server.ErrUpstreamBroken}, {cratesioproxy.ErrSnapshot, server.ErrUpstreamBroken},
		{cratesioproxy.ErrBusy, server.ErrUpstreamBusy}, {cratesioproxy.ErrUnavailable, server.ErrUpstreamDown},
	} {
		if errors.Is(err, of.err) {
			return &toldError{error: err, as: of.as, after: cratesioproxy.RetryAfter(err)}
		}
	}
	return err
}

// toldError matches an error of package server beside its own.
type toldError struct {
	error
	as    error
	after time.Duration
}

func (e *toldError) Unwrap() []error { return []error{e.error, e.as} }

// RetryAfter is how long to wait before trying again.
func (e *toldError) RetryAfter() time.Duration { return e.after }

// at is the upstream of that name.
func (u *upstreams) at(name string) (*cratesioproxy.Upstream, error) {
	if at := u.proxy.Upstream(name); at != nil {
		return at, nil
	}
	return nil, fmt.Errorf("%w: there is no upstream of that name", registry.ErrNotFound)
}

// greeted are the index of crates.io as it is asked, "" where it is not, and the other upstreams.
func (u *upstreams) greeted() (cratesIO string, others []greetingUpstream) {
	others = []greetingUpstream{}
	for _, one := range u.proxy.Upstreams() {
		if one.Name() == cratesioproxy.CratesIO {
			cratesIO = one.Setting().Index
			continue
		}
		others = append(others, greetingUpstream{one.Name(), one.Setting().Index})
	}
	return cratesIO, others
}

// State implements server.Upstreams.
func (u *upstreams) State() server.UpstreamsState {
	f := u.proxy.Figures()
	down := map[string]bool{}
	for _, name := range f.Dead {
		down[name] = true
	}
	s := server.UpstreamsState{Offline: u.offline, Figures: server.UpstreamFigures{
		Requests: uint64(f.Requests), Retries: uint64(f.Retries), Joined: uint64(f.Joined),
		Fresh: uint64(f.Fresh), Unchanged: uint64(f.Unchanged), Imported: uint64(f.Imported), Stale: uint64(f.Stale), Rested: uint64(f.Rested),
		Ahead: uint64(f.Ahead), Held: uint64(f.Held), Received: uint64(f.Crates), Bytes: uint64(f.Bytes), Mismatches: uint64(f.Mismatches),
		Unstored: uint64(f.Unstored), Passed: uint64(f.Passed), Alarms: uint64(f.Alarms), Damaged: uint64(f.Damaged), Receiving: f.Receiving, SpoolBytes: f.Spool,
		CacheBytes: u.held.Load(), CacheLimit: u.limit, Evicted: uint64(u.evicted.Load()),
	}}
	for _, one := range u.proxy.Upstreams() {
		is := server.Upstream{Name: one.Name(), Source: one.Source(), Index: one.Setting().Index, Down: down[one.Name()]}
		if last, ok := one.LastTrouble(); ok && !last.Over {
			is.Trouble, is.TroubleAt = last.What, last.At
		}
		s.All = append(s.All, is)
	}
	return s
}

// Refresh implements server.Upstreams.
func (u *upstreams) Refresh(ctx context.Context, asker did.DID, upstream, name string, anew bool) error {
	at, err := u.at(upstream)
	if err != nil {
		return err
	}
	ctx = cratesioproxy.AskedBy(ctx, string(asker))
	if anew {
		return told(at.Renew(ctx, name))
	}
	return told(at.Refresh(ctx, name))
}

// Crate implements server.Upstreams.
func (u *upstreams) Crate(ctx context.Context, upstream string, want server.UpstreamCrate) (server.Incoming, error) {
	at, err := u.at(upstream)
	if err != nil {
		return nil, err
	}
	crate, err := at.Crate(ctx, cratesioproxy.Want(want))
	if err != nil {
		return nil, told(err)
	}
	return toldCrate{crate}, nil
}

// Open implements server.Upstreams.
func (u *upstreams) Open(ctx context.Context, upstream string, want server.UpstreamCrate) (server.Incoming, error) {
	at, err := u.at(upstream)
	if err != nil {
		return nil, err
	}
	crate, err := at.Open(ctx, cratesioproxy.Want(want))
	if err != nil {
		return nil, told(err)
	}
	return toldCrate{crate}, nil
}

// toldCrate is a crate whose errors are told.
type toldCrate struct{ *cratesioproxy.Crate }

// Read implements server.Incoming.
func (c toldCrate) Read(p []byte) (int, error) {
	n, err := c.Crate.Read(p)
	return n, told(err)
}

// Whole implements server.Incoming.
func (c toldCrate) Whole(ctx context.Context) (io.ReadCloser, error) {
	r, err := c.Crate.Whole(ctx)
	return r, told(err)
}

// Hold implements server.Upstreams.
func (u *upstreams) Hold(ctx context.Context, upstream string, want server.UpstreamCrate) (int64, error) {
	at, err := u.at(upstream)
	if err != nil {
		return 0, err
	}
	if err := at.Hold(ctx, cratesioproxy.Want(want)); err != nil {
		return 0, told(err)
	}
	held, err := u.registry.Catalog.UpstreamBlobs(ctx, []storage.CID{want.ID})
	if err != nil || len(held) == 0 {
		return 0, err
	}
	return held[0].Size, nil
}

// Held implements server.Upstreams.
func (u *upstreams) Held(ctx context.Context, upstream string, ids []storage.CID) (map[storage.CID]bool, error) {
	return u.registry.HeldUpstream(ctx, upstream, ids)
}

// Alarms implements server.Upstreams.
func (u *upstreams) Alarms(ctx context.Context, upstream string, before int64, limit int, unseen bool) ([]server.UpstreamAlarm, error) {
	if before == 0 {
		before = math.MaxInt64
	}
	read := u.registry.Catalog.UpstreamAlarms
	if unseen {
		read = u.registry.Catalog.UnseenUpstreamAlarms
	}
	found, err := read(ctx, upstream, before, limit)
	if err != nil {
		return nil, err
	}
	var all []server.UpstreamAlarm
	for _, a := range found {
		all = append(all, server.UpstreamAlarm{
			ID: a.ID, Name: a.Name, Version: a.Version, Kind: a.Kind, Detail: a.Detail, At: a.At, SeenBy: a.Seen.By, SeenWhy: a.Seen.Why, SeenAt: a.Seen.At,
		})
	}
	return all, nil
}
