package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/content"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

const blake3Source = "pub const ORDER: [u8; 16] = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];\n"

// uploadWith is newUpload with another file in it.
func uploadWith(name, file string) upload {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	w := tar.NewWriter(z)
	manifest := fmt.Sprintf("[package]\nname = %q\nversion = \"1.0.0\"\nedition = \"2021\"\n", name)
	var errs []error
	for path, data := range map[string]string{"Cargo.toml": manifest, "src/lib.rs": file} {
		header := &tar.Header{Name: name + "-1.0.0/" + path, Mode: 0o644, Size: int64(len(data)), Format: tar.FormatGNU}
		errs = append(errs, w.WriteHeader(header))
		_, err := io.WriteString(w, data)
		errs = append(errs, err)
	}
	if err := errors.Join(append(errs, w.Close(), z.Close())...); err != nil {
		panic(err) // nothing but memory is involved
	}
	return upload{name, packed.Bytes()}
}

// nestedDeep is a file that unpacks to a file more often than anybody looks.
func nestedDeep() string {
	inner := []byte("x")
	for range content.DefaultLimits().Depth + 1 {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write(inner)
		z.Close()
		inner = b.Bytes()
	}
	return string(inner)
}

// watchedBlobs counts the blobs that are opened, lets only some be opened while
// it has a gate, and fails while it has an error.
type watchedBlobs struct {
	storage.Blobs
	mu    sync.Mutex
	opens int
	gate  chan struct{}
	err   error
}

func (b *watchedBlobs) Open(ctx context.Context, id storage.CID) (storage.Blob, error) {
	b.mu.Lock()
	b.opens++
	gate, err := b.gate, b.err
	b.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err != nil {
		return nil, err
	}
	return b.Blobs.Open(ctx, id)
}

func (b *watchedBlobs) set(gate chan struct{}, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opens, b.gate, b.err = 0, gate, err
}

func (b *watchedBlobs) opened() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.opens
}

// pass lets one through a gate, where somebody has to be.
func pass(t *testing.T, gate chan struct{}) {
	t.Helper()
	select {
	case gate <- struct{}{}:
	case <-time.After(20 * time.Second):
		close(gate)
		t.Fatal("nobody opens a blob")
	}
}

// watched is a registry over such blobs, with uploads published in it.
func watched(t *testing.T, uploads ...upload) (*world, *Registry, *watchedBlobs) {
	t.Helper()
	w := newWorld(t)
	w.stores()
	if err := w.genesis(); err != nil {
		t.Fatal(err)
	}
	b := &watchedBlobs{Blobs: w.blobs}
	w.config.Blobs = b
	r, err := Open(t.Context(), w.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.closeAll(r) })
	for _, u := range uploads {
		if _, err := w.publish(r, u); err != nil {
			t.Fatal(err)
		}
	}
	b.set(nil, nil)
	return w, r, b
}

func (u upload) version() state.Version {
	return state.Version{Kind: record.KindCrate, Name: u.name, Version: "1.0.0", CID: storage.CIDOf(u.crate)}
}

// forget makes what was found in uploads what recognisers before today's found.
func forget(t *testing.T, r *Registry, uploads ...upload) {
	t.Helper()
	for _, u := range uploads {
		if err := r.Catalog.PutScan(t.Context(), catalog.Scan{CID: storage.CIDOf(u.crate), Recognisers: content.Version - 1, Findings: []string{"old"}}); err != nil {
			t.Fatal(err)
		}
	}
	r.scans.mu.Lock()
	defer r.scans.mu.Unlock()
	r.scans.known.clear()
}

func wantFindings(t *testing.T, r *Registry, v state.Version, scanned bool, want ...string) {
	t.Helper()
	got, found, err := r.findings(t.Context(), v)
	if err != nil || got != scanned || !slices.Equal(found, want) {
		t.Errorf("%s: scanned %t, %v, %v, want %t, %v", v.Name, got, found, err, scanned, want)
	}
}

func TestRuleAndRecogniserHaveOneName(t *testing.T) {
	if content.BLAKE3 != particle.ContentBLAKE3 {
		t.Errorf("a rule says %s, the recogniser %s", particle.ContentBLAKE3, content.BLAKE3)
	}
}

func TestACrateIsLookedIntoWhenItIsPublished(t *testing.T) {
	plain, hidden, deep := newUpload("plain"), uploadWith("hidden", blake3Source), uploadWith("deep", nestedDeep())
	_, r, b := watched(t, plain, hidden, deep)
	for range 2 { // from the catalog, from memory
		wantFindings(t, r, plain.version(), true)
		wantFindings(t, r, hidden.version(), true, content.BLAKE3)
		wantFindings(t, r, deep.version(), false)
	}
	if n := b.opened(); n != 0 {
		t.Errorf("%d blobs were opened to find out", n)
	}
	if s, err := r.scanOf(t.Context(), hosted, deep.version().CID); err != nil || s.Failure == "" {
		t.Errorf("what cannot be looked at is %+v, %v", s, err)
	}
	if s, err := r.scanOf(t.Context(), hosted, hidden.version().CID); err != nil || s.Detail != `blake3: the message permutation in "hidden-1.0.0/src/lib.rs"` {
		t.Errorf("the detail is %+v, %v", s, err)
	}
	other := plain.version()
	other.Kind = record.KindManifest
	wantFindings(t, r, other, false)
}

func TestWhatOtherRecognisersFoundIsNotBelieved(t *testing.T) {
	hidden := uploadWith("hidden", blake3Source)
	_, r, b := watched(t, hidden)
	forget(t, r, hidden)
	for range 2 {
		wantFindings(t, r, hidden.version(), true, content.BLAKE3)
	}
	if n := b.opened(); n != 1 {
		t.Errorf("it was opened %d times", n)
	}
	if s, ok, err := r.Catalog.ScanOf(t.Context(), hidden.version().CID); err != nil || !ok || s.Recognisers != content.Version || !slices.Equal(s.Findings, []string{content.BLAKE3}) {
		t.Errorf("the catalog has %+v, %t, %v", s, ok, err)
	}
}

func TestHoweverManyAskItIsLookedAtOnce(t *testing.T) {
	var uploads []upload
	for i := range 6 {
		uploads = append(uploads, uploadWith(fmt.Sprint("hidden", i), blake3Source))
	}
	_, r, b := watched(t, uploads...)
	forget(t, r, uploads...)
	gate := make(chan struct{})
	b.set(gate, nil)
	var all sync.WaitGroup
	for range 8 {
		for _, u := range uploads {
			all.Go(func() { wantFindings(t, r, u.version(), true, content.BLAKE3) })
		}
	}
	for range uploads {
		pass(t, gate) // the next one begins
		if n := b.opened(); n > len(uploads) {
			t.Errorf("%d were opened", n)
		}
	}
	close(gate) // and so would any more of them
	all.Wait()
	if n := b.opened(); n != len(uploads) {
		t.Errorf("%d blobs were opened for %d", n, len(uploads))
	}
}

func TestOnlySoManyAreLookedAtAtOnce(t *testing.T) {
	var uploads []upload
	for i := range 3 * scansAtOnce {
		uploads = append(uploads, newUpload(fmt.Sprint("plain", i)))
	}
	_, r, b := watched(t, uploads...)
	forget(t, r, uploads...)
	gate := make(chan struct{})
	b.set(gate, nil)
	var flights []*scanFlight
	for _, u := range uploads {
		f, _, err := r.scans.join(hosted, u.version().CID, r.scanStored)
		if err != nil {
			t.Fatal(err)
		}
		flights = append(flights, f)
	}
	for i := range uploads {
		pass(t, gate) // one of those that have begun goes on
		if n := b.opened(); n > i+1+scansAtOnce {
			t.Errorf("%d were opened when %d had gone on", n, i+1)
		}
	}
	for _, f := range flights {
		if <-f.done; f.err != nil {
			t.Error(f.err)
		}
	}
}

func TestWhatCannotBeFoundOutNowIsAnErrorAndIsNotKept(t *testing.T) {
	hidden := uploadWith("hidden", blake3Source)
	_, r, b := watched(t, hidden)
	forget(t, r, hidden)
	b.set(nil, errInjected)
	if scanned, found, err := r.findings(t.Context(), hidden.version()); !errors.Is(err, errInjected) || scanned || found != nil {
		t.Errorf("%t, %v, %v", scanned, found, err)
	}
	gate := make(chan struct{})
	b.set(gate, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	f, _, err := r.scans.join(hosted, hidden.version().CID, r.scanStored)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.findings(ctx, hidden.version()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("who does not wait is told %v", err)
	}
	close(gate)
	<-f.done
	wantFindings(t, r, hidden.version(), true, content.BLAKE3)
	if n := b.opened(); n != 1 {
		t.Errorf("the look was begun %d times", n)
	}
}

func TestCloseEndsALook(t *testing.T) {
	plain := newUpload("plain")
	_, r, b := watched(t, plain)
	forget(t, r, plain)
	b.set(make(chan struct{}), nil) // nobody will open it
	f, _, err := r.scans.join(hosted, plain.version().CID, r.scanStored)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() { r.Close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Fatal("Close waits for a look that does not end")
	}
	if <-f.done; f.err == nil {
		t.Error("the look has found something")
	}
	if _, err := r.scanOf(t.Context(), hosted, plain.version().CID); !errors.Is(err, ErrUnavailable) {
		t.Errorf("after Close: %v", err)
	}
}

// A fault of a recogniser neither ends the registry nor lets the crate out.
func TestAPanicOfARecogniserIsAFailureToLook(t *testing.T) {
	_, r, _ := watched(t)
	s, err := r.scan(t.Context(), storage.CIDOf(nil), panics{})
	if err != nil || s.Failure == "" || len(s.Findings) > 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

type panics struct{}

func (panics) Read([]byte) (int, error) { panic("a fault") }

func TestCratesThatNobodyHasLookedIntoAreAtTheStart(t *testing.T) {
	hidden, plain := uploadWith("hidden", blake3Source), newUpload("plain")
	w, r, _ := watched(t, hidden, plain)
	forget(t, r, hidden, plain)
	r.Close()
	again, err := Open(t.Context(), w.config)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	deadline := time.Now().Add(20 * time.Second)
	for {
		left, err := again.Catalog.Unscanned(t.Context(), crateVersions, content.Version, storage.CID{}, 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d are left", len(left))
		}
		time.Sleep(time.Millisecond)
	}
	if s, ok, err := again.Catalog.ScanOf(t.Context(), hidden.version().CID); err != nil || !ok || !slices.Equal(s.Findings, []string{content.BLAKE3}) {
		t.Errorf("%+v, %t, %v", s, ok, err)
	}
}

// What has which bytes is derived with the rest of the state: by a publish, not by
// a yank, and again by a rebuild.
func TestVersionsAreFoundByTheirBytes(t *testing.T) {
	one, two := newUpload("one"), newUpload("two")
	w, r, _ := watched(t, one, two)
	admin := person{w.admin}
	subject, err := record.VersionSubject(record.KindCrate, "one", "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	before := r.Size()
	rec := admin.sign(t, r, subject, &record.Yank{Yanked: true}, nil)
	asker := admin.asker(particle.ScopePublish)
	asker.Rec = string(rec.ID())
	if _, err := r.Submit(t.Context(), asker, rec.Envelope(), nil); err != nil {
		t.Fatal(err)
	}
	config := w.config
	config.Catalog = w.catalog("again.db")
	if _, err := Rebuild(t.Context(), config, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	for name, db := range map[string]*catalog.DB{"as it is": r.Catalog, "rebuilt": config.Catalog} {
		for _, u := range []upload{one, two} {
			want := []string{"version/crate/" + u.name + "/1.0.0"}
			for _, at := range []int64{before, r.Size()} {
				if got, err := db.VersionsByCID(t.Context(), storage.CIDOf(u.crate), at); err != nil || !slices.Equal(got, want) {
					t.Errorf("%s, as of %d: %v, %v, want %v", name, at, got, err, want)
				}
			}
		}
		if got, err := db.VersionsByCID(t.Context(), storage.CIDOf(one.crate), genesisEntries); err != nil || len(got) != 0 {
			t.Errorf("%s, before it was published: %v, %v", name, got, err)
		}
	}
}

// slowBlobs give bytes, while they are slow, only when who reads has no time any more.
type slowBlobs struct {
	storage.Blobs
	slow   atomic.Bool
	opened atomic.Int64
}

func (b *slowBlobs) Open(ctx context.Context, id storage.CID) (storage.Blob, error) {
	if !b.slow.Load() {
		return b.Blobs.Open(ctx, id)
	}
	b.opened.Add(1)
	blob, err := b.Blobs.Open(context.WithoutCancel(ctx), id)
	return slowBlob{blob, ctx}, err
}

type slowBlob struct {
	storage.Blob
	ctx context.Context
}

func (b slowBlob) Read(p []byte) (int, error) {
	<-b.ctx.Done()
	return b.Blob.Read(p)
}

// A crate made to take long keeps nobody busy for as long as somebody asks for it.
func TestACrateThatTakesTooLongIsLeftAloneForAWhile(t *testing.T) {
	slow := &slowBlobs{}
	c := newCourt(t, func(config *Config) { slow.Blobs, config.Blobs = config.Blobs, slow })
	c.publish("plain")
	v := c.version("plain")
	c.r.scans.mu.Lock()
	c.r.scans.most, c.r.scans.known = 30*time.Millisecond, newLRU(knownScans)
	c.r.scans.mu.Unlock()
	if err := c.r.Catalog.PutScan(t.Context(), catalog.Scan{CID: v.CID, Recognisers: content.Version + 1, Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
	slow.slow.Store(true)
	for range 5 {
		if scanned, _, err := c.r.findings(t.Context(), v); !errors.Is(err, ErrUnavailable) || scanned {
			t.Errorf("%t, %v", scanned, err)
		}
	}
	if n := slow.opened.Load(); n != 1 {
		t.Errorf("the look was begun %d times", n)
	}
	c.ahead.Store(int64(scanAgain + time.Second))
	slow.slow.Store(false)
	wantFindings(t, c.r, v, true)
}

// Who waits while another looks inside of an artifact can go away.
func TestWhoWaitsForALookInsideCanGoAway(t *testing.T) {
	plain := newUpload("plain")
	_, r, b := watched(t, plain)
	forget(t, r, plain)
	b.set(make(chan struct{}), nil) // nobody will open it
	l, err := r.lineage(t.Context(), record.KindCrate, "plain")
	if err != nil {
		t.Fatal(err)
	}
	first, stop := context.WithCancel(t.Context())
	looked := make(chan struct{})
	go func() { r.lookInside(first, l); close(looked) }()
	defer func() { stop(); <-looked }()
	for len(l.looking) == 0 {
		time.Sleep(time.Millisecond)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	told := make(chan error, 1)
	go func() {
		_, err := r.decideAll(gone, &policy.Asker{DID: "did:key:z6Mk", Scopes: []string{"read"}}, r.published.Load().terms, l, time.Now())
		told <- err
	}()
	select {
	case err := <-told:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("told %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("still waiting")
	}
}
