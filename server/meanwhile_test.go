package server

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// heldBlobs hold up who opens or sizes one blob until they are let on.
type heldBlobs struct {
	storage.Blobs
	held   atomic.Pointer[storage.CID]
	at, on chan struct{}
}

func (b *heldBlobs) wait(id storage.CID) {
	if held := b.held.Load(); held != nil && *held == id && b.held.CompareAndSwap(held, nil) {
		b.at <- struct{}{}
		<-b.on
	}
}

func (b *heldBlobs) Open(ctx context.Context, id storage.CID) (storage.Blob, error) {
	b.wait(id)
	return b.Blobs.Open(ctx, id)
}

func (b *heldBlobs) Stat(ctx context.Context, id storage.CID) (int64, error) {
	b.wait(id)
	return b.Blobs.Stat(ctx, id)
}

// slowlyRead is a lab with a manifest, a crate, and records of several kinds, whose
// guest may read all of it.
type slowlyRead struct {
	*lab
	blobs *heldBlobs
	crate []byte
	rec   *record.Record
}

func newSlowlyRead(t *testing.T) *slowlyRead {
	t.Helper()
	s := &slowlyRead{blobs: &heldBlobs{at: make(chan struct{}), on: make(chan struct{})}, crate: crateFile("content", "1.0.0")}
	s.lab = newLab(t, func(c *registry.Config) { s.blobs.Blobs, c.Blobs = c.Blobs, s.blobs })
	s.put(s.owner, record.KindManifest, "content", "1.0.0", []byte("content")).want(t, 200)
	s.put(s.owner, record.KindCrate, "content", "1.0.0", s.crate).want(t, 200)
	s.rec = s.signArtifact(s.owner, record.KindManifest, "named", "1.0.0", []byte("other"))
	s.putRecord(s.owner, s.rec, []byte("other")).want(t, 200)
	s.demo()
	s.admit(s.guest, "auditor")
	return s
}

func (s *slowlyRead) remove() {
	s.submit(s.admin, record.MemberSubject(didOf(s.guest)), &record.Member{Roles: []string{}, Tier: particle.TierGuest, StakeholderAddrs: []string{}})
}

func (s *slowlyRead) forbid() { s.quarantine("late", named("content")) }

// Who is removed, or from whom a rule keeps a version, while blob storage is at what they
// asked for, does not get it once that was acknowledged.
func TestWhatIsAcknowledgedWhileABlobIsOpenedHolds(t *testing.T) {
	const bytes, crate = "/v1/artifacts/manifest/content/1.0.0/content", "/api/v1/crates/content/1.0.0/download"
	ofContent := func(*slowlyRead) storage.CID { return storage.CIDOf([]byte("content")) }
	ofCrate := func(s *slowlyRead) storage.CID { return storage.CIDOf(s.crate) }
	ofRecord := func(s *slowlyRead) storage.CID { return s.rec.CID() }
	at := func(path string) func(*slowlyRead) string { return func(*slowlyRead) string { return path } }
	for name, c := range map[string]struct {
		method string
		path   func(*slowlyRead) string
		opened func(*slowlyRead) storage.CID
		act    func(*slowlyRead)
	}{
		"bytes, removed": {http.MethodGet, at(bytes), ofContent, (*slowlyRead).remove},
		"size, removed":  {http.MethodHead, at(bytes), ofContent, (*slowlyRead).remove},
		"crate, removed": {http.MethodGet, at(crate), ofCrate, (*slowlyRead).remove},
		"attachment, removed": {http.MethodGet, func(s *slowlyRead) string {
			return "/v1/records/" + s.ownRecord + "/attachments/" + s.intent
		}, func(s *slowlyRead) storage.CID { return must(storage.ParseCID(s.intent)) }, (*slowlyRead).remove},
		"record, removed":       {http.MethodGet, func(s *slowlyRead) string { return "/v1/records/" + string(s.rec.ID()) }, ofRecord, (*slowlyRead).remove},
		"proof bundle, removed": {http.MethodGet, at("/v1/artifacts/manifest/named/1.0.0/bundle"), ofRecord, (*slowlyRead).remove},
		"bytes, forbidden":      {http.MethodGet, at(bytes), ofContent, (*slowlyRead).forbid},
		"size, forbidden":       {http.MethodHead, at(bytes), ofContent, (*slowlyRead).forbid},
		"crate, forbidden":      {http.MethodGet, at(crate), ofCrate, (*slowlyRead).forbid},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSlowlyRead(t)
			token, opened := s.session(s.guest, "read"), c.opened(s)
			s.blobs.held.Store(&opened)
			answer := make(chan reply, 1)
			go func() { answer <- s.do(ask{method: c.method, path: c.path(s), token: token}) }()
			select {
			case <-s.blobs.at:
			case got := <-answer:
				t.Fatalf("it is answered without a look at blob storage: %s", got)
			}
			c.act(s)
			s.blobs.on <- struct{}{}
			got := <-answer
			anew := s.do(ask{method: c.method, path: c.path(s), token: token})
			if got.status != anew.status || got.status < 400 || got.header.Get("ETag") != anew.header.Get("ETag") {
				t.Errorf("it got %s; who asks anew gets %s", got, anew)
			}
		})
	}
}
