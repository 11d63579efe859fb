package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/storage"
)

const (
	// maxSends is how many crates that are held are sent at once, maxFetches how many are
	// received of one upstream, and passed on; maxSendsEach and maxFetchesEach are of one
	// member. Whoever asks for more waits, fetchWait at most for each: a build asks for
	// hundreds at once, and many builds ask as one member. Whoever reads slowly, and an
	// upstream that sends slowly, hold no place of others.
	maxSends       = 512
	maxSendsEach   = 128
	maxFetches     = 512
	maxFetchesEach = 128
	fetchWait      = 15 * time.Second
	// copyBytes is how much of a crate that is being received goes on at once.
	copyBytes = 64 << 10
	crateType = "application/gzip"
)

// upstreamDownload is GET …/dl/{crate}/{version}/{checksum}.
func (s *Server) upstreamDownload(of naming) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		v, err := s.upstreamVersion(w, r, of)
		if err != nil {
			return err
		}
		if err := s.checkHeld(r, of(r), v); err != nil {
			return err
		}
		unscanned := v.Decision.Unscanned // a rule looks inside, and nothing else stands against it
		if !unscanned {
			if done, err := s.withoutBytes(w, r, of(r), v); done || err != nil {
				return err
			}
		}
		v, in, leave, err := s.received(w, r, of, v)
		defer leave()
		if err == nil {
			err = v.Refusal()
		}
		if err != nil {
			return err
		}
		if unscanned {
			if done, err := s.withoutBytes(w, r, of(r), v); done || err != nil {
				return err
			}
		}
		w.Header().Set("Content-Type", crateType)
		w.Header().Set("ETag", crateTag(v))
		return s.sendIncoming(w, r, in)
	}
}

// incoming is a crate that is held, or one that is being received, and the place for sending it:
// what is held waits for nothing that is received.
func (s *Server) incoming(r *http.Request, upstream string, want UpstreamCrate) (in Incoming, leave func(), err error) {
	if leave, err = s.sends.take(r.Context(), askerOf(r)); err != nil {
		return nil, nil, err
	}
	in, err = s.upstreams.Open(r.Context(), upstream, want)
	if err == nil {
		if _, inMemory := in.Held().(interface{ Bytes() []byte }); inMemory {
			leave()
			leave = func() {}
		}
		return in, leave, nil
	}
	leave()
	if !errors.Is(err, storage.ErrNotFound) {
		return nil, nil, err
	}
	if onlyCached(r) { // it was held a moment ago
		return nil, nil, notHeld{err}
	}
	if leave, err = s.fetches[upstream].take(r.Context(), askerOf(r)); err != nil {
		return nil, nil, err
	}
	if in, err = s.upstreams.Crate(r.Context(), upstream, want); err != nil {
		leave()
		return nil, nil, err
	}
	if in.Held() != nil { // it was stored a moment ago
		return in, leave, nil
	}
	return in, s.onceArrived(r.Context(), askerOf(r), in.Arrived(), leave), nil
}

// onceArrived is leave of a place for what is received, which is given back for one among sends once all
// of it has arrived: who reads slowly keeps nobody from fetching. Where there is none of those it is kept.
func (s *Server) onceArrived(ctx context.Context, asker did.DID, arrived <-chan struct{}, leave func()) func() {
	ctx, end := context.WithCancel(ctx)
	exchanged := make(chan struct{})
	go func() {
		defer close(exchanged)
		select {
		case <-arrived:
		case <-ctx.Done():
			return
		}
		if send, err := s.sends.take(ctx, asker); err == nil {
			leave()
			leave = send
		}
	}()
	return func() {
		end()
		<-exchanged
		leave()
	}
}

// askerOf is whose places r takes.
func askerOf(r *http.Request) did.DID { return cmp.Or(observed(r.Context()).asker, unnamed) }

// placeToHold is a place for having a crate held that is, or is to be received.
func (s *Server) placeToHold(ctx context.Context, asker did.DID, upstream string, held bool) (leave func(), err error) {
	if held {
		return s.sends.take(ctx, asker)
	}
	return s.fetches[upstream].take(ctx, asker)
}

func crateTag(v registry.Judged) string { return `"` + v.CID.Hex() + `"` }

// withoutBytes refuses v, or answers what needs none of its bytes.
func (s *Server) withoutBytes(w http.ResponseWriter, r *http.Request, upstream string, v registry.Judged) (done bool, err error) {
	if err := v.Refusal(); err != nil {
		return false, err
	}
	s.noteDryRun(r, v)
	if matches(r, crateTag(v)) {
		w.Header().Set("Content-Type", crateType)
		w.Header().Set("ETag", crateTag(v))
		w.WriteHeader(http.StatusNotModified)
		return true, nil
	}
	if r.Method == http.MethodHead {
		return true, s.upstreamHead(w, r, upstream, v)
	}
	return false, nil
}

// received is the crate of v, held or being received, and v judged once that had begun; where a
// rule looks inside, also one that has come since, once it was looked into. What is evicted before that is received again.
// leave closes it, and gives back its place.
func (s *Server) received(w http.ResponseWriter, r *http.Request, of naming, v registry.Judged) (_ registry.Judged, in Incoming, leave func(), err error) {
	for looks := 1; ; looks++ {
		in, exit, err := s.incoming(r, of(r), upstreamCrateOf(v))
		if err != nil {
			return v, nil, func() {}, err
		}
		leave := func() { in.Close(); exit() }
		if !v.Decision.Unscanned {
			if v, err = s.upstreamVersion(w, r, of); err != nil || !v.Decision.Unscanned { // by now
				return v, in, leave, err
			}
		}
		judged, err := s.lookedInto(w, r, of, v, in)
		if !errors.Is(err, storage.ErrNotFound) {
			return judged, in, leave, err
		}
		leave()
		if looks == mostLooks {
			return v, nil, func() {}, fmt.Errorf("%w: it is evicted as often as it is stored", ErrUpstreamBusy)
		}
	}
}

// lookedInto is v, judged once all its bytes are here and were looked into: where they are being
// received, before they are stored.
func (s *Server) lookedInto(w http.ResponseWriter, r *http.Request, of naming, v registry.Judged, in Incoming) (registry.Judged, error) {
	crate, err := in.Whole(r.Context())
	if err != nil {
		return v, err
	}
	if _, err := s.ownReader(w, r); err != nil { // by now
		if crate != nil {
			crate.Close()
		}
		return v, err
	}
	if err := s.registry.LookInto(r.Context(), v, crate); err != nil {
		return v, err
	}
	return s.upstreamVersion(w, r, of)
}

func upstreamCrateOf(v registry.Judged) UpstreamCrate {
	return UpstreamCrate{Name: v.Name, Version: v.Version.Version, ID: v.CID}
}

// mostLooks is how often a crate is fetched again that was evicted before it was looked into.
const mostLooks = 4

// holdAndLook sees to it that v is held, and looks into it then, for who asks by that time;
// it returns its size, too.
func (s *Server) holdAndLook(ctx context.Context, upstream string, who func() (policy.Asker, error), v registry.Judged) (registry.Judged, int64, error) {
	for looks := 1; ; looks++ {
		size, err := s.upstreams.Hold(ctx, upstream, upstreamCrateOf(v))
		if err != nil {
			return v, 0, err
		}
		if _, err := who(); err != nil {
			return v, 0, err
		}
		err = s.registry.LookInto(ctx, v, nil)
		if err == nil {
			v, err = s.judgedNow(ctx, upstream, who, v)
			return v, size, err
		}
		if errors.Is(err, storage.ErrCorrupt) || errors.Is(err, storage.ErrUnavailable) {
			err = s.reopen(ctx, upstream, v)
		}
		if !errors.Is(err, storage.ErrNotFound) {
			return registry.Judged{}, size, err
		}
		if looks == mostLooks {
			return v, 0, fmt.Errorf("%w: it is evicted, or damaged, as often as it is stored", ErrUpstreamBusy)
		}
	}
}

// judgedNow is v as it is judged for who asks by now: a look, and the turn for it, may take minutes.
func (s *Server) judgedNow(ctx context.Context, upstream string, who func() (policy.Asker, error), v registry.Judged) (registry.Judged, error) {
	asker, err := who()
	if err != nil {
		return v, err
	}
	return s.registry.UpstreamVersion(ctx, asker, upstream, v.Name, v.Version.Version, v.CID.Digest())
}

// reopen opens what could not be looked into: what is damaged is fetched anew once that was
// found so. storage.ErrNotFound: it is to be held again.
func (s *Server) reopen(ctx context.Context, upstream string, v registry.Judged) error {
	in, err := s.upstreams.Open(ctx, upstream, upstreamCrateOf(v))
	if err != nil {
		return err
	}
	in.Close()
	return storage.ErrNotFound // it was there: whoever looks again finds it
}

// upstreamVersion judges the version that the path names for who asks. Where the
// registry has not heard of it upstream is asked first: who has it locked asks no index.
func (s *Server) upstreamVersion(w http.ResponseWriter, r *http.Request, of naming) (registry.Judged, error) {
	if _, err := s.ownReader(w, r); err != nil {
		return registry.Judged{}, err
	}
	upstream, err := s.knownUpstream(r, of)
	if err != nil {
		return registry.Judged{}, err
	}
	digest, err := particle.ParseHash(param(r, "checksum"))
	if err != nil || digest == [32]byte{} {
		return registry.Judged{}, fmt.Errorf("%w: the path ends in no checksum", registry.ErrNotFound)
	}
	return s.heardOf(r, upstream, param(r, "crate"), param(r, "version"), digest)
}

// heardOf is registry.UpstreamVersion for who asks, after a question upstream where there is
// nothing to tell: anew, since a version that was published a moment ago may be locked
// elsewhere already. Several may ask for one request.
func (s *Server) heardOf(r *http.Request, upstream, crate, version string, digest [32]byte) (registry.Judged, error) {
	if err := s.askable(upstream, crate); err != nil {
		return registry.Judged{}, s.alike(err)
	}
	judge := func() (registry.Judged, error) {
		asker, err := s.currentReader(r)
		if err != nil {
			return registry.Judged{}, err
		}
		return s.registry.UpstreamVersion(r.Context(), asker, upstream, crate, version, digest)
	}
	v, err := judge()
	if !errors.Is(err, registry.ErrNotFound) || onlyCached(r) {
		return v, unheld(r, s.alike(err))
	}
	if failed := s.renew(r, upstream, crate); failed != nil {
		if errors.Is(failed, registry.ErrNotFound) { // for the audit trail, of what is known
			return v, s.alike(err)
		}
		return v, failed
	}
	v, err = judge()
	return v, s.alike(err)
}

// notThere is a crate of an upstream, or a version, that is not there for who asks: there is
// none, they may not know of it, or its name is a private one. All of that is told alike.
type notThere struct {
	why     error
	offline bool // nobody is asked: it may be there, and not be held
}

// Error says nothing of why.
func (n notThere) Error() string {
	text := registry.ErrNotFound.Error() + ": there is no such crate, or no such version of it, from this upstream"
	if n.offline {
		text += "; or it is not held, and this registry is offline: ask its operator to have it fetched where there is a way out (aln-registry prefetch)"
	}
	return text
}

// Unwrap is for the audit trail.
func (n notThere) Unwrap() error { return n.why }

// alike is err, told as all others of its kind where nothing is to be found.
func (s *Server) alike(err error) error {
	if errors.Is(err, registry.ErrNotFound) {
		return notThere{err, s.upstreamsOffline}
	}
	return err
}

// upstreamHead says what GET would, the length where it is known.
func (s *Server) upstreamHead(w http.ResponseWriter, r *http.Request, upstream string, v registry.Judged) error {
	held, err := s.upstreams.Held(r.Context(), upstream, []storage.CID{v.CID})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", crateType)
	w.Header().Set("ETag", crateTag(v))
	if !held[v.CID] {
		return nil
	}
	size, err := s.registry.ArtifactSize(r.Context(), v)
	if errors.Is(err, storage.ErrNotFound) { // it has just made room
		return nil
	}
	if err != nil {
		return err
	}
	w.Header().Set("Accept-Ranges", "bytes")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	return nil
}

// sendIncoming sends what is held in any order, and what is being received as it comes.
func (s *Server) sendIncoming(w http.ResponseWriter, r *http.Request, in Incoming) error {
	switch blob := in.Held().(type) {
	case nil:
		return s.pass(w, r, in)
	case interface{ Bytes() []byte }:
		serveBytes(w, r, blob.Bytes())
	default:
		http.ServeContent(w, r, "", time.Time{}, blob)
	}
	return nil
}

// asItComes has nginx, which asks for it by this header, and sends it nobody, keep nothing back of
// an answer until there is more of it: cargo gives up on who says nothing for half a minute.
func asItComes(w http.ResponseWriter) { w.Header()["X-Accel-Buffering"] = notBuffered }

// pass sends what in is given, as it comes. Once something was sent the only way to
// say that it is not to be used is to cut the connection.
func (s *Server) pass(w http.ResponseWriter, r *http.Request, in Incoming) error {
	if err := measured(r, in); err != nil {
		return err
	}
	asItComes(w)
	buffer, began, flush := make([]byte, copyBytes), false, http.NewResponseController(w).Flush
	for {
		n, err := in.Read(buffer)
		if n > 0 {
			if size := in.Size(); !began && size >= 0 {
				w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
			}
			began = true
			switch _, failed := w.Write(buffer[:n]); {
			case errors.Is(failed, http.ErrContentLength):
				s.cut(r, fmt.Errorf("%w: it sends more bytes than it said", ErrUpstreamBroken))
			case failed != nil:
				return nil // whoever asked is gone
			}
			_ = flush() // whoever is gone is found out by the next write
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		case !began:
			return err
		default:
			s.cut(r, err)
		}
	}
}

// measured waits until the size of in is known where r is of HTTP/1.0, to which an answer without
// one that is cut looks whole.
func measured(r *http.Request, in Incoming) error {
	if r.ProtoAtLeast(1, 1) || in.Size() >= 0 {
		return nil
	}
	whole, err := in.Whole(r.Context())
	if err != nil || whole == nil {
		return err
	}
	return whole.Close()
}

// cut ends the answer's connection, for what has a line of the log of its own.
func (s *Server) cut(r *http.Request, err error) {
	if r.Context().Err() == nil && !errors.Is(err, context.Canceled) {
		o := observed(r.Context())
		o.code = classify(err).code
		s.metrics.refused(o.code)
		s.log.Error("a crate of an upstream was cut off while it was sent", "request", o.id, "code", o.code)
	}
	panic(http.ErrAbortHandler)
}
