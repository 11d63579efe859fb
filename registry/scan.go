package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"phoenix-lab.org/aln-registry/registry/content"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// Bounds on looks into crates.
const (
	scansAtOnce  = 2               // each keeps a core busy
	scansWaiting = 1024            // of one source
	scanWait     = 2 * time.Minute // for a turn
	scanTime     = 2 * time.Minute // of one; the largest crate takes some seconds
	// uploadScan is how long who publishes waits for turn and look together: cargo
	// gives up an upload that is not answered within 30 seconds.
	uploadScan = 20 * time.Second
	// scanAgain is how long a crate is left alone that took longer than scanTime: made
	// for that, it would keep a core busy for as long as anybody asks for it.
	scanAgain   = 15 * time.Minute
	mostResting = 1024
	knownScans  = 1 << 20 // bytes of results in memory
)

// scans holds what is known of the content of crates, and finds it out once for all
// who ask.
type scans struct {
	mu      sync.Mutex
	known   lru
	flights map[storage.CID]*scanFlight
	// hits grows with the looks that found something, or could not be made, here or in
	// another replica.
	hits atomic.Int64
	// most is how long a look may take; resting are the crates that took longer, with
	// when they may be looked into again.
	most    time.Duration
	resting map[storage.CID]time.Time
	// unkept are results that wait for others, to be kept together.
	unkept  []catalog.Scan
	closed  bool
	running sync.WaitGroup
	// turns are by source: this registry's own crates, and those of each upstream.
	turns *turns
}

// scanFlight is a look under way, or one that waits for its turn, for all who wait for it.
type scanFlight struct {
	place *place // nil where it is over from the first
	done  chan struct{}
	scan  catalog.Scan
	err   error
}

func newScans() *scans {
	return &scans{
		known: newLRU(knownScans), flights: map[storage.CID]*scanFlight{}, turns: newTurns(scansAtOnce, scansWaiting),
		most: scanTime, resting: map[storage.CID]time.Time{},
	}
}

// findings says what the recognisers of content find in the bytes of v, and looks
// now if nobody has: whoever asks waits, the first time. scanned is false for what
// is no crate, which nobody looks into, and for a crate that cannot be looked at
// whoever tries (scanOf says why). An error means that it could not be found out now.
func (r *Registry) findings(ctx context.Context, v state.Version) (scanned bool, findings []string, err error) {
	if v.Kind != record.KindCrate {
		return false, nil, nil
	}
	s, err := r.scanOf(ctx, hosted, v.CID)
	if err != nil || s.Failure != "" {
		return false, nil, err
	}
	return true, s.Findings, nil
}

// hosted is the source of looks into this registry's own crates; an upstream has no such name.
const hosted = ""

// scanOf is what is known of the crate whose bytes are id, by today's recognisers:
// from memory, from the catalog, or by a look at it when it is the turn of source.
func (r *Registry) scanOf(ctx context.Context, source string, id storage.CID) (catalog.Scan, error) {
	return r.scanOfBytes(ctx, source, id, nil)
}

// scanOfBytes is scanOf by a look at crate, which it closes, instead of what is stored; nil: at that.
func (r *Registry) scanOfBytes(ctx context.Context, source string, id storage.CID, crate io.ReadCloser) (catalog.Scan, error) {
	defer func() {
		if crate != nil {
			crate.Close()
		}
	}()
	if s, ok := r.scans.lookUp(id); ok {
		return s, nil
	}
	s, ok, err := r.Catalog.ScanOf(ctx, id)
	if err != nil {
		return catalog.Scan{}, err
	}
	if ok && s.Recognisers == content.Version {
		r.scans.know(s)
		return s, nil
	}
	if r.scans.rests(id, r.Clock()) {
		return catalog.Scan{}, fmt.Errorf("%w: a look into that crate took more than %s; nobody looks again before some minutes are over", ErrUnavailable, r.scans.most)
	}
	look := r.scanStored
	if of := crate; of != nil {
		look = func(id storage.CID, place *place) (catalog.Scan, error) { return r.scanIncoming(id, place, of) }
	}
	f, begun, err := r.scans.join(source, id, look)
	if err != nil {
		return catalog.Scan{}, err
	}
	if begun {
		crate = nil // the look closes it
	}
	select {
	case <-f.done:
		return f.scan, f.err
	case <-ctx.Done():
		return catalog.Scan{}, ctx.Err()
	}
}

func scanThing(id storage.CID) thing {
	digest := id.Digest()
	return thing{family: scanFamily, name: string(digest[:])}
}

func (s *scans) lookUp(id storage.CID) (catalog.Scan, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.known.get(scanThing(id))
	if !ok {
		return catalog.Scan{}, false
	}
	return f.value.(catalog.Scan), true
}

// rest leaves id alone until then; where there are too many of them all are forgotten.
func (s *scans) rest(id storage.CID, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.resting) >= mostResting {
		clear(s.resting)
	}
	s.resting[id] = until
}

func (s *scans) rests(id storage.CID, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	until, ok := s.resting[id]
	if ok && !now.Before(until) {
		delete(s.resting, id)
		return false
	}
	return ok
}

func (s *scans) know(scan catalog.Scan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known.put(scanThing(scan.CID), found{scan, int64(len(scan.Failure) + len(scan.Detail))})
}

// join returns the look at id that is under way, or begins one, which goes on
// whatever becomes of who asked: then begun is true. One that waits for the turn of another
// source waits for that of source from now on, too.
func (s *scans) join(source string, id storage.CID, look func(storage.CID, *place) (catalog.Scan, error)) (f *scanFlight, begun bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.flights[id]; ok {
		f.place.also(source)
		return f, false, nil
	}
	if known, ok := s.known.get(scanThing(id)); ok { // a look has ended since the asker looked
		f = &scanFlight{done: make(chan struct{}), scan: known.value.(catalog.Scan)}
		close(f.done)
		return f, false, nil
	}
	var place *place
	if !s.closed {
		place = s.turns.join(source)
	}
	if place == nil {
		return nil, false, fmt.Errorf("%w: too many crates wait to be looked into, or this registry is shutting down", ErrUnavailable)
	}
	f = &scanFlight{place: place, done: make(chan struct{})}
	s.flights[id] = f
	s.running.Go(func() {
		f.scan, f.err = look(id, place)
		if f.err == nil {
			s.know(f.scan)
			if f.scan.Failure != "" || len(f.scan.Findings) > 0 {
				s.hits.Add(1)
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.flights, id)
		close(f.done)
	})
	return f, true, nil
}

// close waits for what is under way, which ends soon, and begins nothing more.
func (s *scans) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.running.Wait()
}

// scanStored looks into the stored crate id and keeps what it finds.
func (r *Registry) scanStored(id storage.CID, place *place) (catalog.Scan, error) {
	s, err := r.scanInTurn(id, place, func(ctx context.Context) (io.ReadCloser, error) { return r.Blobs.Open(ctx, id) })
	if err == nil {
		r.keepScans([]catalog.Scan{s})
	}
	return s, err
}

// scanIncoming looks into a crate that may not be stored yet, and closes it. What it finds
// is kept a little later, together with others: nobody who waits for it waits for that.
func (r *Registry) scanIncoming(id storage.CID, place *place, crate io.ReadCloser) (catalog.Scan, error) {
	defer crate.Close()
	s, err := r.scanInTurn(id, place, func(context.Context) (io.ReadCloser, error) { return io.NopCloser(crate), nil })
	if err == nil {
		r.keepScanLater(s)
	}
	return s, err
}

// scanInTurn looks into what open opens once it is the turn of place, which it ends.
func (r *Registry) scanInTurn(id storage.CID, place *place, open func(context.Context) (io.ReadCloser, error)) (catalog.Scan, error) {
	turn, cancel := context.WithTimeout(r.turns, scanWait)
	defer cancel()
	if err := place.wait(turn); err != nil {
		return catalog.Scan{}, scanStopped(turn)
	}
	defer place.end()
	ctx, cancel := context.WithTimeout(r.looks, r.scans.most)
	defer cancel()
	crate, err := open(ctx)
	if err != nil && ctx.Err() != nil {
		err = scanStopped(ctx)
	}
	if err != nil {
		return catalog.Scan{}, err
	}
	defer crate.Close()
	s, err := r.scan(ctx, id, crate)
	if err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			r.scans.rest(id, r.Clock().Add(scanAgain))
		}
		return catalog.Scan{}, err
	}
	return s, nil
}

const (
	// keepScanDelay is how long a result waits for others.
	keepScanDelay = 100 * time.Millisecond
	keepScanTime  = 10 * time.Second
)

// keepScanLater keeps s together with others. It is called within a look, for which close waits.
func (r *Registry) keepScanLater(s catalog.Scan) {
	r.scans.mu.Lock()
	defer r.scans.mu.Unlock()
	if r.scans.unkept = append(r.scans.unkept, s); len(r.scans.unkept) > 1 {
		return
	}
	r.scans.running.Go(func() {
		_ = pause(r.running, keepScanDelay) // and at once when the registry is closed
		r.scans.mu.Lock()
		all := r.scans.unkept
		r.scans.unkept = nil
		r.scans.mu.Unlock()
		r.keepScans(all)
	})
}

// keepScans keeps what looks found. What cannot be kept is right all the same; whoever asks
// later looks again.
func (r *Registry) keepScans(all []catalog.Scan) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.running), keepScanTime)
	defer cancel()
	if err := r.Catalog.PutScans(ctx, all); err != nil {
		r.Log.Warn("what was found in crates is not kept", "crates", len(all), "first", all[0].CID.String(), "error", err)
	}
}

// findingsEvery is how often it is looked whether other replicas found something.
const findingsEvery = 5 * time.Second

// watchFindings has views of what upstreams have made anew when another replica found
// something in a crate.
func (r *Registry) watchFindings(ctx context.Context) {
	tick := time.NewTicker(findingsEvery)
	defer tick.Stop()
	for known := int64(-1); ; {
		select {
		case <-tick.C:
			known = r.countFindings(ctx, known)
		case <-ctx.Done():
			return
		}
	}
}

// countFindings returns how many findings there are, where that is known, and notes that
// there are others than known.
func (r *Registry) countFindings(ctx context.Context, known int64) int64 {
	n, err := r.Catalog.CountFindings(ctx)
	if err != nil {
		return known // whoever judges says so
	}
	if n != known {
		r.scans.hits.Add(1)
	}
	return n
}

// lookGrace is how long a look that is under way goes on when the registry is about to be closed.
const lookGrace = 2 * time.Second

// endLooks sees to it that nobody waits for a look when the registry is about to be closed: dozens
// may wait for their turn, each of which would take its seconds.
func (r *Registry) endLooks(run context.Context) {
	turns, endTurns := context.WithCancel(run)
	looks, endLooks := context.WithCancel(run)
	r.turns, r.looks = turns, looks
	r.scans.running.Go(func() {
		defer endLooks()
		select {
		case <-r.Ending:
		case <-run.Done():
		}
		endTurns()
		_ = pause(run, lookGrace)
	})
}

// scanStopped is the error of a look that its context has ended.
func scanStopped(ctx context.Context) error {
	return fmt.Errorf("%w: the look into a crate was stopped (%v)", ErrUnavailable, ctx.Err())
}

// scanUpload looks into a crate that is being published, so that nobody has to wait
// later; nil where that does not succeed: then whoever asks first does.
func (r *Registry) scanUpload(ctx context.Context, id storage.CID, upload io.ReadSeeker) *catalog.Scan {
	ctx, cancel := context.WithTimeout(ctx, uploadScan)
	defer context.AfterFunc(r.looks, cancel)()
	defer cancel()
	place := r.scans.turns.join(hosted)
	if place == nil || place.wait(ctx) != nil {
		return nil
	}
	defer place.end()
	_, err := upload.Seek(0, io.SeekStart)
	var s catalog.Scan
	if err == nil {
		s, err = r.scan(ctx, id, upload)
	}
	if err != nil {
		r.Log.Warn("an upload was not looked into", "cid", id.String(), "error", err)
		return nil
	}
	return &s
}

// scan looks into a crate. What nobody could look at is a result, kept like any other.
func (r *Registry) scan(ctx context.Context, id storage.CID, crate io.Reader) (s catalog.Scan, err error) {
	s = catalog.Scan{CID: id, Recognisers: content.Version, Time: r.Clock().UTC().Truncate(time.Second)}
	defer func() {
		// A crate must not end the registry, nor get out unseen by way of a fault of ours.
		if cause := recover(); cause != nil {
			r.Log.Error("the look into a crate panicked", "cid", id.String(), "cause", cause, "stack", string(debug.Stack()))
			s.Findings, s.Failure, err = nil, "the recognisers failed at it", nil
		}
	}()
	hits, err := content.Crate(crate, r.scanLimits(ctx))
	switch {
	case errors.Is(err, content.ErrUnreadable):
		s.Failure = err.Error()
	case err != nil:
		return catalog.Scan{}, err
	}
	for _, f := range hits {
		s.Findings, s.Detail = append(s.Findings, f.Name), f.String()
	}
	return s, nil
}

// scanLimits let through whatever this registry's limits let in.
func (r *Registry) scanLimits(ctx context.Context) content.Limits {
	l := content.DefaultLimits()
	l.Bytes, l.Entries = max(l.Bytes, 2*r.Limits.UnpackedBytes), max(l.Entries, 2*r.Limits.Entries)
	l.Check = func() error {
		if ctx.Err() != nil {
			return scanStopped(ctx)
		}
		return nil
	}
	return l
}

// scanUnscanned looks into all crates that today's recognisers have not seen, one
// after another: after an upgrade or a rebuild.
func (r *Registry) scanUnscanned(ctx context.Context) {
	const page = 256
	var after storage.CID
	for {
		ids, err := r.Catalog.Unscanned(ctx, crateVersions, content.Version, after, page)
		if err != nil {
			if ctx.Err() == nil {
				r.Log.Warn("crates were not looked for that nobody has looked into", "error", err)
			}
			return
		}
		for _, id := range ids {
			_, err := r.scanOf(ctx, hosted, id)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				r.Log.Warn("a crate was not looked into", "cid", id.String(), "error", err)
			}
		}
		if len(ids) < page {
			return
		}
		after = ids[len(ids)-1]
	}
}
