package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// What other registries ("upstreams") have is known here by import records, which this
// registry signs itself: each names an index file as it was seen, byte for byte. Who asks
// sees of it what policy lets them see, as of what is hosted here; names of the two are
// never merged.

// ErrSnapshot: an index file is not one of the crate it is said to be of, or beyond what
// is kept of one.
var ErrSnapshot = errors.New("not an index file of this crate")

// UpstreamCrate is what was last published of a crate of another registry.
type UpstreamCrate struct {
	// Name is spelled as there.
	Name string
	// Snapshot is the last index file that was seen, Size that in bytes.
	Snapshot storage.CID
	Size     int64
	// Versions is how many are known of it, listed or not.
	Versions int
	// Claims is how many other digests were said of them, and are kept.
	Claims int
	// Record, Index and Seen (its entry's time) are of the import record that names it.
	Record record.ID
	Index  int64
	Seen   time.Time
}

// lastOf is what u was last.
func lastOf(u state.Upstream) UpstreamCrate {
	return UpstreamCrate{u.Name, u.Snapshot, u.Size, len(u.Versions), claimsOf(u), u.Record, u.Index, u.Seen}
}

// claimsOf is how many digests besides the first were said of versions of u.
func claimsOf(u state.Upstream) int {
	n := 0
	for _, v := range u.Versions {
		n += len(v.Other)
	}
	return n
}

// UpstreamCrate returns what is known of a crate of upstream, however spelled, from
// memory where it can be; false where nothing is.
func (r *Registry) UpstreamCrate(ctx context.Context, upstream, name string) (UpstreamCrate, bool, error) {
	if _, err := record.UpstreamSubject(upstream, name); err != nil {
		return UpstreamCrate{}, false, nil // there is nothing of such a name
	}
	key := state.UpstreamKey(upstream, name)
	value, err := r.cache.get(ctx, thing{family: crateFamily, name: upstreamThing(upstream, name)}, r.Size, func(ctx context.Context, at int64) (found, error) {
		u, ok, err := r.upstreamAt(ctx, key, at)
		if err != nil || !ok {
			return found{}, err
		}
		last := lastOf(u)
		return found{&last, stateBytes}, nil
	})
	if err != nil || value == nil {
		return UpstreamCrate{}, false, err
	}
	return *value.(*UpstreamCrate), true, nil
}

func (r *Registry) upstreamAt(ctx context.Context, key string, at int64) (state.Upstream, bool, error) {
	raw, ok, err := r.Catalog.State(ctx, key, at)
	if err != nil || !ok {
		return state.Upstream{}, false, err
	}
	u, err := state.DecodeUpstream(raw)
	return u, err == nil, err
}

// upstreamThing names a crate of an upstream, however spelled, in the cache.
func upstreamThing(upstream, name string) string { return upstream + "/" + cargo.CanonicalName(name) }

// upstreamThings are what the cache may hold of a crate that is named so.
func upstreamThings(crate string) []thing {
	return []thing{{family: indexFamily, name: crate}, {family: crateFamily, name: crate}}
}

// PrivateName reports whether the settings in force keep a name, however spelled, from
// ever being asked of an upstream.
func (r *Registry) PrivateName(name string) bool {
	canonical := cargo.CanonicalName(name)
	for _, prefix := range r.Settings().PrivateNames {
		if strings.HasPrefix(canonical, cargo.CanonicalName(prefix)) {
			return true
		}
	}
	return false
}

// upstreamPatience is how long a publisher waits to hear of other registries.
const upstreamPatience = 3 * time.Second

// alsoUpstream are the other registries that have the crate subject, which asker published
// for the first time here: whoever builds with both may mean the other one. It is shown to
// admins in the audit trail.
func (r *Registry) alsoUpstream(ctx context.Context, asker policy.Asker, subject record.Subject) []string {
	if r.KnownUpstream == nil || subject.Kind() != record.KindCrate || r.PrivateName(subject.Name()) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, upstreamPatience)
	defer cancel()
	has, untold := r.KnownUpstream(ctx, subject.Name())
	for _, upstream := range has {
		r.Note(Event{Asker: asker.DID, What: subject.String(), Rule: RuleKnownUpstream, RuleID: upstream, Outcome: OutcomeAccepted})
	}
	for _, upstream := range untold { // a name is published for the first time only once
		r.Note(Event{Asker: asker.DID, What: subject.String(), Rule: RuleUntoldUpstream, RuleID: upstream, Outcome: OutcomeAccepted})
	}
	return has
}

// Imported is what came of an import. Its Receipt is Repeated where the snapshot was the
// last known already.
type Imported struct {
	Receipt
	// Changed are versions that the snapshot for the first time gives another digest than
	// the first that was seen of them; Altered are others whose line for the first time
	// resolves to something else; Dropped are others that it does not list any more.
	Changed, Altered, Dropped []Difference
}

// Bounds on how often an import is tried, since others may enter one of the same crate.
const (
	importTries = 8
	importPause = 20 * time.Millisecond
)

// Import signs and enters that upstream showed snapshot as the index file of crate, however
// that is spelled, and returns once that is published: the snapshot is durable, and
// UpstreamCrate tells of it. The snapshot must not be changed any more. Imports that come at
// the same time share batches. An empty snapshot says that upstream no longer has what is
// known of the crate. ErrSnapshot where it cannot be the crate's, or nothing is known that
// could be gone; ErrRequest for a private name; the others are those of a change. After any
// of them it may be repeated.
func (r *Registry) Import(ctx context.Context, upstream, crate string, snapshot []byte) (Imported, error) {
	if r.PrivateName(crate) {
		return Imported{}, fmt.Errorf("%w: the name %.80q is a private one here: no upstream is asked for it", ErrRequest, crate)
	}
	file, err := cargo.ParseUpstreamFile(crate, snapshot)
	if err != nil {
		return Imported{}, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	for try := 1; ; try++ {
		at := r.Size()
		in, err := r.importAt(ctx, upstream, crate, file, snapshot, at)
		// Stale, no change: another replica entered one; not entitled: the settings were replaced meanwhile.
		lost := errors.Is(err, state.ErrStale) || errors.Is(err, state.ErrNotEntitled) || errors.Is(err, state.ErrNoChange)
		if !lost || try == importTries {
			return in, err
		}
		if r.catchUp(ctx, at) || r.Size() > at {
			continue
		}
		if err := pause(ctx, importPause<<try); err != nil {
			return Imported{}, err
		}
	}
}

// importAt is Import by what was published at a size.
func (r *Registry) importAt(ctx context.Context, upstream, crate string, file cargo.UpstreamFile, snapshot []byte, at int64) (Imported, error) {
	before, known, err := r.upstreamAt(ctx, state.UpstreamKey(upstream, crate), at)
	if err != nil {
		return Imported{}, err
	}
	id := storage.CIDOf(snapshot)
	if known && before.Snapshot == id {
		return Imported{Receipt: Receipt{Record: before.Record, Index: before.Index, Repeated: true}}, nil
	}
	name := file.Name
	if len(file.Lines) == 0 {
		name = before.Name
	}
	if name == "" {
		return Imported{}, fmt.Errorf("%w: it is empty, and nothing is known of %.80q that could be gone", ErrSnapshot, crate)
	}
	if n := versionsWith(before, file); n > state.MaxUpstreamVersions {
		return Imported{}, fmt.Errorf("%w: with it the crate would have %d versions; at most %d", ErrSnapshot, n, state.MaxUpstreamVersions)
	}
	rec, err := r.signImport(ctx, upstream, name, id, at)
	if err != nil {
		return Imported{}, err
	}
	receipt, err := r.storeAndSubmit(ctx, &submission{record: rec, attachments: state.Attachments{id: snapshot}})
	switch {
	case errors.Is(err, state.ErrInvalid): // of what this server signed: it waited for too long, or its clock is wrong
		return Imported{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	case err != nil:
		return Imported{}, err
	}
	r.snapshots.keep(id, len(snapshot), file)
	in := r.inWords(ctx, before, differences(before, file), id, receipt)
	in.Receipt = receipt
	return in, nil
}

// versionsWith is how many versions are known of a crate once file was seen.
func versionsWith(before state.Upstream, file cargo.UpstreamFile) int {
	ids := make(map[string]bool, len(before.Versions)+len(file.Lines))
	for _, v := range before.Versions {
		ids[withoutBuild(v.Version)] = true
	}
	for _, l := range file.Lines {
		ids[withoutBuild(l.Version)] = true
	}
	return len(ids)
}

// signImport signs that id was seen, by the state as of a size.
func (r *Registry) signImport(ctx context.Context, upstream, name string, id storage.CID, at int64) (*record.Record, error) {
	subject, err := record.UpstreamSubject(upstream, name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	head, _, err := state.HeadOf(r.viewAt(ctx, &r.Catalog.Reader, at), subject.Thing())
	if err != nil {
		return nil, err
	}
	now, settings := r.Clock().UTC(), r.Settings()
	return record.Sign(record.Draft{
		Subject: subject, Digest: id.Digest(), Body: &record.Import{},
		Header: record.Header{
			Registry: r.origin, IssuedAt: now, Expires: now.Add(recordValidity),
			Prev: head.Record, By: settings.Record, Key: settings.DocumentRecord,
		},
	}, r.Keys.Signer())
}
