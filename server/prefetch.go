package server

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/storage"
)

const (
	// maxPrefetches is how many lists are fetched at once, maxPrefetchesEach of one member.
	maxPrefetches     = 8
	maxPrefetchesEach = 4
	// maxPrefetchBody bounds a list in bytes, mostPrefetched what it may name.
	maxPrefetchBody = 4 << 20
	mostPrefetched  = 20_000
	mostWholeCrates = 100
	mostLacking     = 20_000
	maxLockName     = 100
	// prefetchers is how many crates of a list are fetched at once.
	prefetchers = 16
	// pinBatch is how many crates are pinned together.
	pinBatch = 64
	// signOfLife is how long nothing is said: whoever waits in between may take it for an end.
	signOfLife = 5 * time.Second
)

// Outcomes of a crate of a list.
const (
	prefetchHeld    = "held"
	prefetchFetched = "fetched"
	prefetchDenied  = "denied"
	prefetchAbsent  = "absent"
	prefetchFailed  = "failed"
)

// prefetchRequest is the body of POST /v1/upstreams/{name}/prefetch.
type prefetchRequest struct {
	// Lock is under which name they are kept from being evicted, "" for not at all.
	Lock   string           `json:"lock"`
	Crates []prefetchedJSON `json:"crates"`
	// Whole are crates of which all versions are fetched.
	Whole []string `json:"all_versions_of"`
	// Lacking is what the lock names of the upstream besides, and is asked for later, without a
	// version all of them; nil: as was said before. Where it is given, what the lock lacked before is forgotten.
	Lacking []prefetchedJSON `json:"lacking"`
}

// prefetchedJSON is a version to be fetched; any checksum where it has none.
type prefetchedJSON struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	Checksum string `json:"checksum"`
}

// prefetchLine is a line of the answer: of a version, or of how far it is.
type prefetchLine struct {
	Name    string `json:"name,omitzero"`
	Version string `json:"version,omitzero"`
	Outcome string `json:"outcome,omitzero"`
	Bytes   int64  `json:"bytes,omitzero"`
	Detail  string `json:"detail,omitzero"`
	// Checksum is as it was asked for: a list may name a version with two.
	Checksum string         `json:"checksum,omitzero"`
	Counts   *prefetchCount `json:"counts,omitzero"`
	crate    UpstreamCrate
}

// prefetchCount is how far a list is.
type prefetchCount struct {
	// Done: this is the last line. Error is why not all was done, "" where it was.
	Done    bool   `json:"done"`
	Error   string `json:"error"`
	Of      int    `json:"of"`
	Held    int    `json:"held"`
	Fetched int    `json:"fetched"`
	Denied  int    `json:"denied"`
	Absent  int    `json:"absent"`
	Failed  int    `json:"failed"`
	Pinned  int    `json:"pinned"`
	Bytes   int64  `json:"bytes"`
	// Began is when the registry began with it: what is pinned is pinned since then, or later.
	Began particle.Time `json:"began"`
}

func (c *prefetchCount) add(l prefetchLine) {
	switch l.Outcome {
	case prefetchHeld:
		c.Held++
	case prefetchFetched:
		c.Fetched++
		c.Bytes += l.Bytes
	case prefetchDenied:
		c.Denied++
	case prefetchAbsent:
		c.Absent++
	default:
		c.Failed++
	}
}

// prefetch is POST /v1/upstreams/{name}/prefetch: it has what a list names fetched, as
// far as the asker may have it, and says of each when it is held.
func (s *Server) prefetch(w http.ResponseWriter, r *http.Request) error {
	asker, err := s.ownReader(w, r)
	if err != nil {
		return err
	}
	upstream, err := s.knownUpstream(r, ofAny)
	if err != nil {
		return err
	}
	release, err := s.prefetches.take(r.Context(), asker.DID)
	if err != nil {
		return err
	}
	defer release()
	request, err := readPrefetch(w, r)
	if err != nil {
		return err
	}
	if request.Lock != "" {
		if denial := policy.Keep(asker); denial != nil {
			return denial
		}
	}
	if asker, err = s.ownReader(w, r); err != nil { // by now: a list takes its time to come
		return err
	}
	f := prefetching{server: s, r: r, w: w, upstream: upstream, lock: request.Lock, by: asker, began: s.clock()}
	if request.Lock != "" && (request.Lacking != nil || len(request.Whole) > 0) {
		if err := f.lackFirst(r.Context(), request); err != nil {
			return err
		}
	}
	return f.run(request)
}

func readPrefetch(w http.ResponseWriter, r *http.Request) (prefetchRequest, error) {
	var request prefetchRequest
	if err := readJSON(w, r, maxPrefetchBody, &request); err != nil {
		return request, err
	}
	switch {
	case len(request.Crates) > mostPrefetched:
		return request, fmt.Errorf("%w: the list names %d versions; at most %d are fetched at once, send it in parts", registry.ErrRequest, len(request.Crates), mostPrefetched)
	case len(request.Whole) > mostWholeCrates:
		return request, fmt.Errorf("%w: all versions of %d crates are asked for; at most %d are fetched at once, send the list in parts", registry.ErrRequest, len(request.Whole), mostWholeCrates)
	case len(request.Lacking) > mostLacking:
		return request, fmt.Errorf("%w: the list names %d versions besides; at most %d are noted as lacking", registry.ErrRequest, len(request.Lacking), mostLacking)
	case len(request.Crates)+len(request.Whole) == 0:
		return request, fmt.Errorf("%w: the list names nothing", registry.ErrRequest)
	case len(request.Lock) > maxLockName || !isLockName(request.Lock):
		return request, fmt.Errorf("%w: a lock's name is of letters, digits and - _ . / : only, at most %d", registry.ErrRequest, maxLockName)
	}
	for _, c := range slices.Concat(request.Crates, request.Lacking) {
		if _, err := particle.ParseHash(c.Checksum); err != nil && c.Checksum != "" {
			return request, fmt.Errorf("%w: a checksum is 64 lower-case hex digits, or left out", registry.ErrRequest)
		}
	}
	return request, nil
}

func isLockName(name string) bool {
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '-' || c > ':') && c != '_' { // - . / 0-9 :
			return false
		}
	}
	return true
}

// prefetching is a list under way.
type prefetching struct {
	server   *Server
	r        *http.Request
	w        http.ResponseWriter
	upstream string
	lock     string
	by       policy.Asker
	began    time.Time
}

// run fetches all of the list. After its first line nothing but a line tells of what fails.
func (f prefetching) run(request prefetchRequest) error {
	ctx, cancel := context.WithCancel(f.r.Context())
	defer cancel()
	list, unknown, whole := request.Crates, []prefetchLine{}, []registry.Lack{}
	for _, name := range request.Whole {
		versions, err := f.versionsOf(name)
		if err != nil {
			unknown = append(unknown, f.missed(ctx, prefetchLine{Name: name}, f.server.alike(err)))
			continue
		}
		list, whole = append(list, versions...), append(whole, registry.Lack{Upstream: f.upstream, Name: name})
		if len(list) > mostPrefetched {
			return fmt.Errorf("%w: these are more than %d versions; ask for fewer crates at once", registry.ErrRequest, mostPrefetched)
		}
	}
	lines, work := make(chan prefetchLine), make(chan prefetchedJSON)
	go func() {
		defer close(work)
		for _, c := range list {
			select {
			case work <- c:
			case <-ctx.Done():
				return
			}
		}
	}()
	var workers sync.WaitGroup
	workers.Go(func() {
		for _, line := range unknown {
			select {
			case lines <- line:
			case <-ctx.Done():
				return
			}
		}
	})
	for range min(prefetchers, len(list)) {
		workers.Go(func() {
			for c := range work {
				select {
				case lines <- f.one(ctx, c):
				case <-ctx.Done():
					return
				}
			}
		})
	}
	go func() { workers.Wait(); close(lines) }()
	f.tell(ctx, len(list)+len(unknown), lines, keeping{prefetching: f, whole: whole})
	cancel()
	for range lines { // so that all have ended when this returns
	}
	return nil
}

// versionsOf are all versions of a crate that the asker may know of.
func (f prefetching) versionsOf(name string) ([]prefetchedJSON, error) {
	name, err := f.spelled(name)
	if err != nil {
		return nil, err
	}
	asker, err := f.server.ownReader(f.w, f.r)
	if err != nil {
		return nil, err
	}
	file, err := f.server.upstreamFile(f.r, asker, f.upstream, name)
	if err != nil {
		return nil, err
	}
	parsed, err := cargo.ParseUpstreamFile(name, file.Plain.Bytes)
	if err != nil {
		return nil, err
	}
	versions := []prefetchedJSON{}
	for _, l := range parsed.Lines {
		versions = append(versions, prefetchedJSON{l.Name, l.Version, hex.EncodeToString(l.Digest[:])})
	}
	return versions, nil
}

// spelled is the name of a crate's index file, however somebody spells the crate's: what it is
// known as, or else what upstream has when it is asked.
func (f prefetching) spelled(name string) (string, error) {
	if err := f.server.askable(f.upstream, name); err != nil {
		return "", err
	}
	known, ok, err := f.server.registry.UpstreamCrate(f.r.Context(), f.upstream, name)
	if err != nil {
		return "", err
	}
	all := cargo.Spellings(name)
	if ok {
		all = append([]string{strings.ToLower(known.Name)}, all...) // it may be spelled otherwise when it comes back
	}
	for _, one := range all {
		if err = f.server.refresh(f.r, f.upstream, one); !errors.Is(err, registry.ErrNotFound) {
			return one, err
		}
	}
	return "", err
}

// one sees to it that a version is held, if the asker may have it.
func (f prefetching) one(ctx context.Context, c prefetchedJSON) prefetchLine {
	line := prefetchLine{Name: c.Name, Version: c.Version, Checksum: c.Checksum}
	if err := f.hold(ctx, c, &line); err != nil {
		return f.missed(ctx, line, err)
	}
	return line
}

// missed is the line of what is not held because of err.
func (f prefetching) missed(ctx context.Context, line prefetchLine, err error) prefetchLine {
	var denied *registry.Denied
	switch {
	case errors.As(err, &denied):
		line.Outcome = prefetchDenied
	case errors.Is(err, registry.ErrNotFound):
		line.Outcome = prefetchAbsent
	default:
		line.Outcome = prefetchFailed
	}
	if line.Detail = err.Error(); line.Outcome == prefetchAbsent && f.server.upstreamsOffline && !errors.Is(err, errOtherBytes) {
		line.Detail = "it is not held, and this registry is offline: it asks no upstream" // whatever else is the matter
	} else if !classify(err).shown {
		o := observed(f.r.Context())
		line.Detail = "the registry cannot do this now; try again in a moment (request " + o.id + ")"
		if ctx.Err() == nil {
			f.server.log.Error("prefetch failed", "request", o.id, "code", classify(err).code, "error", err)
		}
	}
	return line
}

func (f prefetching) hold(ctx context.Context, c prefetchedJSON, line *prefetchLine) error {
	s := f.server
	var digest [32]byte
	if c.Checksum != "" {
		var err error
		if digest, err = particle.ParseHash(c.Checksum); err != nil {
			return fmt.Errorf("%w: %w", registry.ErrRequest, err)
		}
		if digest == [32]byte{} { // which would say that the list names no bytes
			return fmt.Errorf("%w: nothing hashes to zeros", errOtherBytes)
		}
	}
	v, err := s.heardOf(f.r, f.upstream, c.Name, c.Version, digest)
	if errors.Is(err, registry.ErrNotFound) && c.Checksum == "" { // somebody has typed it
		if name, respelled := f.spelled(c.Name); respelled == nil {
			v, err = s.heardOf(f.r, f.upstream, name, c.Version, digest)
		}
	}
	if err != nil {
		return f.otherBytes(c, digest, err)
	}
	unscanned := v.Decision.Unscanned // then it is decided once it is here
	if err := v.Refusal(); err != nil && !unscanned {
		return err
	}
	held, err := s.upstreams.Held(ctx, f.upstream, []storage.CID{v.CID})
	if err != nil {
		return err
	}
	leave, err := s.placeToHold(ctx, f.by.DID, f.upstream, held[v.CID])
	if err != nil {
		return err
	}
	defer leave()
	var size int64
	if unscanned {
		who := func() (policy.Asker, error) { return s.currentReader(f.r) }
		if v, size, err = s.holdAndLook(ctx, f.upstream, who, v); err == nil {
			err = v.Refusal()
		}
	} else {
		size, err = s.upstreams.Hold(ctx, f.upstream, upstreamCrateOf(v))
	}
	if err != nil {
		return err
	}
	line.Outcome, line.Bytes, line.crate = prefetchFetched, size, upstreamCrateOf(v)
	if held[v.CID] {
		line.Outcome = prefetchHeld
	}
	return nil
}

// otherBytes is err, why a version is not to be had, or that upstream has it with another
// digest than the list says, where that is so and the asker may know of the version.
func (f prefetching) otherBytes(c prefetchedJSON, digest [32]byte, err error) error {
	if !errors.Is(err, registry.ErrNotFound) || digest == [32]byte{} || f.server.askable(f.upstream, c.Name) != nil {
		return err
	}
	asker, failed := f.server.currentReader(f.r)
	if failed != nil {
		return failed
	}
	v, other := f.server.registry.UpstreamVersion(f.r.Context(), asker, f.upstream, c.Name, c.Version, [32]byte{})
	if other != nil {
		return err
	}
	return fmt.Errorf("%w: %s names another sha256 for it (%s)", errOtherBytes, f.upstream, v.CID.Hex())
}

// errOtherBytes is an ErrNotFound.
var errOtherBytes = fmt.Errorf("%w: there is no such version with the checksum of the list", registry.ErrNotFound)

// tell writes a line for each outcome, and has kept what is held, and noted what lacks.
func (f prefetching) tell(ctx context.Context, of int, lines <-chan prefetchLine, kept keeping) {
	count, flush := prefetchCount{Of: of, Began: particle.At(f.began)}, http.NewResponseController(f.w).Flush
	f.w.Header().Set("Content-Type", "application/x-ndjson")
	asItComes(f.w)
	alive := time.NewTicker(signOfLife)
	defer alive.Stop()
	for {
		select {
		case line, more := <-lines:
			if !more {
				if ctx.Err() == nil {
					kept.ended()
				}
				kept.note(ctx, &count)
				count.Done = true
				_ = f.write(prefetchLine{Counts: &count})
				return
			}
			if count.add(line); f.lock != "" && kept.add(line) >= pinBatch {
				kept.note(ctx, &count)
			}
			if f.write(line) != nil {
				return
			}
		case <-alive.C:
			if f.write(prefetchLine{Counts: &count}) != nil {
				return
			}
		}
		_ = flush()
	}
}

func (f prefetching) write(line prefetchLine) error {
	raw, err := json.Marshal(line, json.Deterministic(true))
	if err == nil {
		_, err = f.w.Write(append(raw, '\n'))
	}
	return err
}
