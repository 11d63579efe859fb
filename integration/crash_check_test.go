package integration

import (
	"bufio"
	"bytes"
	"context"
	cryptorand "crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/registry/verify"
)

// check holds everything that was acknowledged against the server as it is now.
func (s *survivor) check() {
	s.t.Helper()
	for _, p := range s.people {
		p.reconnect()
	}
	auditor := newPublisher(s.t, s.reached(), s.operator.home)
	pin, err := auditor.home.PinOf(s.reached())
	if err != nil {
		s.t.Fatal(err)
	}
	if s.seen != nil {
		pin.Checkpoint = s.seen
	}
	if s.checks++; s.checks%checkEverything == 0 || s.kept == nil {
		s.kept = keptRecords{}
	}
	reader := client.New(client.Config{Home: auditor.home, HTTP: s.kept, Now: time.Now, Rand: cryptorand.Reader, Version: "test"})
	registry, err := reader.Registry(pin)
	if err != nil {
		s.t.Fatal(err)
	}
	replayed := auditLog(s.ctx, s.t, registry)
	s.checkNames(auditor, replayed)
	for _, a := range s.acknowledged {
		s.checkRelease(registry, replayed, a)
	}
	s.checkChanges(registry)
	s.checkOpen(registry, replayed)
	s.learn(replayed)
	if s.seen, _, err = auditor.checkpoint(s.ctx); err != nil {
		s.t.Fatal(err)
	}
}

// fsck holds blob storage, catalog and log against each other; nothing may be amiss.
func (l *lab) fsck() {
	l.t.Helper()
	if r := l.mend("fsck"); r.status != 0 {
		l.t.Errorf("%s", r)
	}
}

// auditLog is `log check --full`: the log extends the pinned checkpoint, every
// entry holds, and the index says what the log says.
func auditLog(ctx context.Context, t testing.TB, registry *client.Registry) verify.Replayed {
	t.Helper()
	verdict, replayed, err := registry.Replay(ctx, nil)
	if err != nil {
		t.Fatalf("replay: %v", err)
	}
	if !verdict.OK() || replayed.Violated != 0 {
		t.Fatalf("the log does not hold: %+v, violations %+v", verdict, replayed.Violations)
	}
	found, err := registry.CompareIndex(ctx, replayed)
	if err != nil || len(found.Differences) > 0 {
		t.Fatalf("index and log differ: %v %s", err, strings.Join(found.Differences, "; "))
	}
	return replayed
}

// checkNames: the registry knows of no crate that the log does not.
func (s *survivor) checkNames(auditor *publisher, replayed verify.Replayed) {
	s.t.Helper()
	token, err := auditor.token(s.ctx, "read", release{})
	if err != nil {
		s.t.Fatal(err)
	}
	_, _, body := s.get("/api/v1/crates?per_page=100", token)
	var found struct{ Crates []struct{ Name string } }
	if err := json.Unmarshal(body, &found); err != nil {
		s.t.Fatalf("search: %v: %s", err, body)
	}
	logged, err := replayed.Crates()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range found.Crates {
		if logged[c.Name] == nil {
			s.t.Errorf("%s can be found, but is not in the log", c.Name)
		}
	}
	if len(found.Crates) != len(logged) {
		s.t.Errorf("%d crates can be found, the log has %d", len(found.Crates), len(logged))
	}
}

// checkRelease: an acknowledged release is in the log where its receipt says,
// and downloads to its bytes. CompareIndex has held the index against the log.
func (s *survivor) checkRelease(registry *client.Registry, replayed verify.Replayed, a acknowledged) {
	s.t.Helper()
	v, ok, err := state.VersionOf(replayed.State, a.subject(s.t))
	if err != nil || !ok || v.Record != a.record || v.Index != a.index || v.CID != a.cid {
		s.t.Errorf("%s was acknowledged as record %s at %d with %s; the log has: %t %+v %v", a.key(), a.record, a.index, a.cid, ok, v, err)
	}
	if s.checks%checkEverything == 0 || !s.downloaded[a.key()] || s.rng.IntN(10) == 0 {
		s.checkBytes(registry, a.release)
		s.downloaded[a.key()] = true
	}
}

// checkEverything: every so many checks all bytes are fetched once more; in
// between, those not fetched before and a few others.
const checkEverything = 8

// keptRecords is a transport that fetches a record by its CID once. Which
// records there are the log says each time anew.
type keptRecords map[string][]byte

// RoundTrip implements http.RoundTripper; its user asks one thing at a time.
func (k keptRecords) RoundTrip(req *http.Request) (*http.Response, error) {
	if !strings.HasPrefix(req.URL.Path, "/v1/records/bafkrei") {
		return patiently(req)
	}
	if raw, ok := k[req.URL.Path]; ok {
		return http.ReadResponse(bufio.NewReader(bytes.NewReader(raw)), req)
	}
	resp, err := patiently(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	defer resp.Body.Close()
	raw, err := httputil.DumpResponse(resp, true)
	if err != nil {
		return nil, err
	}
	k[req.URL.Path] = raw
	return http.ReadResponse(bufio.NewReader(bytes.NewReader(raw)), req)
}

// patiently asks what needs no body, and comes back as a 503 asks it to: on a busy machine a
// server may lose its lease for a moment, whenever that is.
func patiently(req *http.Request) (*http.Response, error) {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil || req.Body != nil || resp.StatusCode != http.StatusServiceUnavailable || time.Now().After(deadline) {
			return resp, err
		}
		resp.Body.Close()
	}
}

// checkChanges: every other acknowledged change is the entry that its receipt names.
func (s *survivor) checkChanges(registry *client.Registry) {
	s.t.Helper()
	view, err := registry.View(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, verdict, err := view.Check(s.ctx); err != nil || !verdict.OK() {
		s.t.Fatalf("the log after a kill: %+v, %v", verdict, err)
	}
	for _, c := range s.changes {
		line, err := view.Entry(c.index)
		if err != nil {
			s.t.Errorf("record %s was acknowledged at %d: %v", c.record, c.index, err)
			continue
		}
		entry, err := translog.ParseEntry(line)
		if err != nil {
			s.t.Fatal(err)
		}
		if rec, _, err := registry.Record(s.ctx, entry.Record.String()); err != nil || rec.ID() != c.record {
			s.t.Errorf("record %s was acknowledged at %d, where now stands %s: %v", c.record, c.index, entry.Record, err)
		}
	}
}

func (s *survivor) checkBytes(registry *client.Registry, r release) {
	s.t.Helper()
	var got bytes.Buffer
	if _, _, err := registry.Download(s.ctx, r.subject(s.t), &got); err != nil || !bytes.Equal(got.Bytes(), r.crate) {
		s.t.Errorf("%s: downloaded %d bytes instead of %d: %v", r.key(), got.Len(), len(r.crate), err)
	}
}

// checkOpen: what was not acknowledged is there as a whole or not at all; and
// who asks again, as a client whose answer was lost, succeeds.
func (s *survivor) checkOpen(registry *client.Registry, replayed verify.Replayed) {
	s.t.Helper()
	for key, r := range s.open {
		v, ok, err := state.VersionOf(replayed.State, r.subject(s.t))
		switch {
		case err != nil || ok && v.CID != r.cid:
			s.t.Errorf("%s was offered as %s; the log has %+v, %v", key, r.cid, v, err)
		case ok:
			s.checkBytes(registry, r)
		default:
			var refused *client.APIError
			_, _, err := registry.Download(s.ctx, r.subject(s.t), &bytes.Buffer{})
			if !errors.As(err, &refused) || refused.Status != http.StatusNotFound {
				s.t.Errorf("%s is not in the log; its download: %v", key, err)
			}
		}
		if err := s.releaseInTime(r); err != nil {
			s.t.Errorf("%s, published again: %v", key, err)
			continue
		}
		if again := s.acknowledged[key]; ok && (again.index != v.Index || again.record != v.Record) {
			s.t.Errorf("%s stands at %d, published again it was said to be at %d", key, v.Index, again.index)
		}
	}
}

// releaseInTime is release, which comes back as a 503 asks it to: an engine that has just
// returned may be slow on a busy machine.
func (s *survivor) releaseInTime(r release) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		err := s.release(s.ctx, r)
		var refused *refusal
		if !errors.As(err, &refused) || refused.status != http.StatusServiceUnavailable || time.Now().After(deadline) {
			return err
		}
	}
}

// learn takes yanks and owners from the log: some changes were made without an answer.
func (s *survivor) learn(replayed verify.Replayed) {
	s.t.Helper()
	crates, err := replayed.Crates()
	if err != nil {
		s.t.Fatal(err)
	}
	for name, versions := range crates {
		for _, v := range versions {
			s.yanked[name+"@"+v.Version] = v.Yanked
		}
		a, _, err := state.ArtifactOf(replayed.State, record.KindCrate, name)
		if err != nil {
			s.t.Fatal(err)
		}
		s.owners[name] = nil
		for _, o := range a.Owners {
			s.owners[name] = append(s.owners[name], string(o.DID))
		}
	}
}
