package server

import (
	"context"
	"errors"
	"io"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/storage"
)

// Upstreams are the registries that this one takes crates from, crates.io as a rule. What
// an asker may see of what they have is decided by package registry; here is asked for
// the bytes. All methods may be called concurrently and repeated after any error. Errors match
// registry.ErrNotFound, ErrUpstreamDown, ErrUpstreamRefused, ErrUpstreamBroken,
// ErrUpstreamBusy or ErrHeldDamaged, and hold nothing that is secret.
type Upstreams interface {
	// State tells of all of them as they are now, in the order in which they were given.
	// It asks nobody.
	State() UpstreamsState
	// Refresh sees to it that what the registry knows of a crate, by its name in lower
	// case, is what upstream says now, and returns when that is published and may be served. What
	// is known is served as it is where upstream is slow or down. registry.ErrNotFound: there
	// is nothing to serve. anew is for who misses something in what is known: however fresh
	// that is, upstream is asked, unless it was a few seconds ago. Of what is entered for that
	// within a day, asker gets a fair share and no more.
	Refresh(ctx context.Context, asker did.DID, upstream, name string, anew bool) error
	// Crate returns a crate that is held, or begins or joins its reception, and returns when
	// upstream has answered. ctx bounds the reading as well.
	Crate(ctx context.Context, upstream string, want UpstreamCrate) (Incoming, error)
	// Open is Crate of what is held alone, and asks nobody: storage.ErrNotFound where it is not,
	// or is damaged, so that Crate and Hold have it fetched anew from then on.
	Open(ctx context.Context, upstream string, want UpstreamCrate) (Incoming, error)
	// Hold returns when a crate is held, durably, and how many bytes it has.
	Hold(ctx context.Context, upstream string, want UpstreamCrate) (int64, error)
	// Held says which of the crates named are held of an upstream: those are served also when it is
	// not there. What another one served, of the same bytes, is not held of this one.
	Held(ctx context.Context, upstream string, ids []storage.CID) (map[storage.CID]bool, error)
	// Alarms are an upstream's, newest first, older than the one with the id before (0:
	// from the newest), at most limit; with unseen those alone that nobody has looked into.
	Alarms(ctx context.Context, upstream string, before int64, limit int, unseen bool) ([]UpstreamAlarm, error)
}

// UpstreamCrate is a version as the registry knows it: spelled as upstream does, with the
// digest that upstream's index names.
type UpstreamCrate struct {
	Name, Version string
	ID            storage.CID
}

// Incoming is a crate's bytes: those held, or those that upstream is sending, of which
// the last are not read before all were seen to hash to what was asked for.
type Incoming interface {
	// Read is io.Reader's. An error other than io.EOF means that what was read before is
	// not to be used.
	io.ReadCloser
	// Held is the blob where the crate is held, verified; nil where it is being received.
	// It is closed with the Incoming.
	Held() storage.Blob
	// Whole waits until all bytes were seen to be right, and reads them from the first on,
	// whatever else is read, also after Close: it is closed by itself. It returns nil where Held does not.
	Whole(ctx context.Context) (io.ReadCloser, error)
	// Arrived is closed once all bytes were seen to be right: whoever still reads them then
	// takes nothing of what is received. It may be nil where Held is not.
	Arrived() <-chan struct{}
	// Size is the number of bytes, -1 where upstream does not say it, until all were seen to be right.
	Size() int64
}

// UpstreamsState is what is to be said of all upstreams.
type UpstreamsState struct {
	All []Upstream
	// Offline: none is ever asked.
	Offline bool
	Figures UpstreamFigures
}

// Upstream is one of them.
type Upstream struct {
	// Name is crates-io, or the one that the operator gave it. Source is how policy calls
	// what comes from it.
	Name, Source string
	// Index is the URL of its index, without what is secret.
	Index string
	// Down: it did not answer a moment ago, and is not asked just now.
	Down bool
	// Trouble is why it last gave nothing, and TroubleAt when; "" where it has given something
	// since. It names no crate, address or secret.
	Trouble   string
	TroubleAt time.Time
}

// UpstreamFigures are counts since the start, but where they are said to be of this moment.
type UpstreamFigures struct {
	// Requests were made of upstreams, Retries of them after another had failed; Joined are
	// askers who waited for what somebody else had asked for.
	Requests, Retries, Joined uint64
	// Of index files: served as they had been seen a moment ago, unchanged upstream, new,
	// served although upstream did not tell, and not asked for since that had just failed.
	Fresh, Unchanged, Imported, Stale, Rested uint64
	// Ahead were fetched before they were asked for.
	Ahead uint64
	// Of crates: served from storage, received, and what those had in bytes; those that
	// were not what the index names; those that could not be stored or noted; and those that
	// were not kept, since they were evicted a short while ago.
	Held, Received, Bytes, Mismatches, Unstored, Passed uint64
	// Damaged were held, and found damaged on storage.
	Damaged uint64
	Alarms  uint64
	// Receiving are the crates under way, SpoolBytes what they take, at this moment.
	Receiving, SpoolBytes int64
	// CacheBytes are those of the crates that are held, as last counted, and CacheLimit
	// what they may be, 0 for no bound.
	CacheBytes, CacheLimit int64
	Evicted                uint64
}

// UpstreamAlarm is something that an upstream should never do.
type UpstreamAlarm struct {
	ID int64
	// Name and Version are the crate's; no version where it is of no one version.
	Name, Version string
	// Kind is mismatch, snapshot, changed, altered, dropped, vanished or excess; Detail says it in words.
	Kind, Detail string
	At           time.Time
	// SeenBy is who has looked into it, "" where nobody has; SeenAt when, SeenWhy what they say of it.
	SeenBy, SeenWhy string
	SeenAt          time.Time
}

// Errors of Upstreams. Besides, an error may have a method RetryAfter() time.Duration.
var (
	// ErrUpstreamDown: upstream cannot be reached, or says that it is troubled; trying
	// again later is right.
	ErrUpstreamDown = errors.New("upstream does not answer now")
	// ErrUpstreamRefused: upstream does not let this registry have it.
	ErrUpstreamRefused = errors.New("upstream refuses")
	// ErrUpstreamBroken: what upstream answered cannot be used, or is not what its index names.
	ErrUpstreamBroken = errors.New("upstream's answer cannot be used")
	// ErrHeldDamaged: what is held of a crate is damaged on storage, and could not be fetched anew.
	ErrHeldDamaged = errors.New("what this registry holds of the crate is damaged on its storage, and cannot be fetched anew")
	// ErrUpstreamBusy: as much is being fetched as may be; trying again soon is right.
	ErrUpstreamBusy = errors.New("too much is being fetched from upstream")
)

// noUpstreams is what a registry has that takes crates from nowhere else.
type noUpstreams struct{}

func (noUpstreams) State() UpstreamsState { return UpstreamsState{} }
func (noUpstreams) Refresh(context.Context, did.DID, string, string, bool) error {
	return registry.ErrNotFound
}
func (noUpstreams) Crate(context.Context, string, UpstreamCrate) (Incoming, error) {
	return nil, registry.ErrNotFound
}
func (noUpstreams) Open(context.Context, string, UpstreamCrate) (Incoming, error) {
	return nil, registry.ErrNotFound
}
func (noUpstreams) Hold(context.Context, string, UpstreamCrate) (int64, error) {
	return 0, registry.ErrNotFound
}
func (noUpstreams) Held(context.Context, string, []storage.CID) (map[storage.CID]bool, error) {
	return nil, nil
}
func (noUpstreams) Alarms(context.Context, string, int64, int, bool) ([]UpstreamAlarm, error) {
	return nil, registry.ErrNotFound
}
