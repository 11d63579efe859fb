package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
	"phoenix-lab.org/aln-registry/storage/disk"
)

// fault is how blob storage fails at one call.
type fault struct {
	// done: the call has its effect, only its answer is lost.
	done bool
	// forGood: everything after it fails too, as for a process that is killed.
	forGood bool
}

var faults = map[string]fault{
	"call fails": {}, "answer lost": {done: true},
	"killed before": {forGood: true}, "killed after": {done: true, forGood: true},
}

var errInjected = errors.New("injected failure")

// faultyBlobs fails at the n'th call from arm on.
type faultyBlobs struct {
	storage.Blobs
	fault

	mu      sync.Mutex
	armed   bool
	left    int
	tripped bool
}

func (b *faultyBlobs) arm(n int, f fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.armed, b.left, b.fault, b.tripped = true, n, f, false
}

// disarm ends the fault and reports whether it came to that.
func (b *faultyBlobs) disarm() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.armed = false
	return b.tripped
}

// call does f, unless it is this call's turn to fail.
func (b *faultyBlobs) call(f func() error) error {
	b.mu.Lock()
	if !b.armed {
		b.mu.Unlock()
		return f()
	}
	now := b.left == 0
	dead := b.left < 0 && b.forGood
	b.left--
	b.tripped = b.tripped || now
	b.mu.Unlock()
	switch {
	case now && b.done:
		if err := f(); err != nil {
			return err
		}
		return errInjected
	case now || dead:
		return errInjected
	}
	return f()
}

func (b *faultyBlobs) Put(ctx context.Context, id storage.CID, size int64, r io.Reader) error {
	return b.call(func() error { return b.Blobs.Put(ctx, id, size, r) })
}

func (b *faultyBlobs) Open(ctx context.Context, id storage.CID) (blob storage.Blob, err error) {
	err = b.call(func() error {
		blob, err = b.Blobs.Open(ctx, id)
		return err
	})
	return blob, err
}

func (b *faultyBlobs) Create(ctx context.Context, key string, data []byte) error {
	return b.call(func() error { return b.Blobs.Create(ctx, key, data) })
}

func (b *faultyBlobs) Read(ctx context.Context, key string) (data []byte, err error) {
	err = b.call(func() error {
		data, err = b.Blobs.Read(ctx, key)
		return err
	})
	return data, err
}

func (b *faultyBlobs) List(ctx context.Context, prefix, after string) iter.Seq2[string, error] {
	if err := b.call(func() error { return nil }); err != nil {
		return func(yield func(string, error) bool) { yield("", err) }
	}
	return b.Blobs.List(ctx, prefix, after)
}

// world is a registry's stores, opened as often as a test needs.
type world struct {
	t      testing.TB
	folder string
	keys   Keys
	admin  did.PrivateKey
	blobs  *faultyBlobs
	config Config
	open   []io.Closer
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, folder: t.TempDir()}
	var err error
	if w.admin, err = did.GenerateEd25519(rand.Reader); err != nil {
		t.Fatal(err)
	}
	if w.keys, err = OpenKeys(filepath.Join(w.folder, "registry.jwk"), "", rand.Reader); err != nil {
		t.Fatal(err)
	}
	return w
}

// copied is the same world in a folder of its own, as a backup would have it.
func (w *world) copied(t *testing.T) *world {
	t.Helper()
	other := &world{t: t, folder: filepath.Join(t.TempDir(), "copy"), keys: w.keys, admin: w.admin}
	if err := os.CopyFS(other.folder, os.DirFS(w.folder)); err != nil {
		t.Fatal(err)
	}
	return other
}

// stores opens catalog and blob storage.
func (w *world) stores() {
	w.t.Helper()
	store, err := disk.Open(filepath.Join(w.folder, "store"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.blobs = &faultyBlobs{Blobs: store}
	w.open = append(w.open, store)
	w.config = Config{
		Catalog: w.catalog("catalog.db"), Blobs: w.blobs, Keys: w.keys, PublicURL: "http://127.0.0.1:8585",
		Clock: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler), Spool: w.folder,
	}
}

func (w *world) catalog(name string) *catalog.DB {
	w.t.Helper()
	db, err := catalog.OpenSQLite(context.Background(), filepath.Join(w.folder, name))
	if err != nil {
		w.t.Fatal(err)
	}
	w.open = append(w.open, db)
	return db
}

func (w *world) close() {
	w.t.Helper()
	for _, c := range w.open {
		if err := c.Close(); err != nil {
			w.t.Fatal(err)
		}
	}
	w.open = nil
}

func (w *world) genesis() error {
	ctx := context.Background()
	if begun, err := Begun(ctx, w.config); err != nil || begun >= genesisEntries {
		return err
	}
	return Genesis(ctx, w.config, w.admin.Signer(w.admin.Public().URL()))
}

// start opens the stores and the registry, which must work.
func (w *world) start() *Registry {
	w.t.Helper()
	w.stores()
	if err := w.genesis(); err != nil {
		w.t.Fatal(err)
	}
	r, err := Open(context.Background(), w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// upload is a crate as it is published.
type upload struct {
	name  string
	crate []byte
}

func newUpload(name string) upload {
	manifest := fmt.Sprintf("[package]\nname = %q\nversion = \"1.0.0\"\nedition = \"2021\"\n", name)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	w := tar.NewWriter(z)
	header := &tar.Header{Name: name + "-1.0.0/Cargo.toml", Mode: 0o644, Size: int64(len(manifest)), Format: tar.FormatGNU}
	err := w.WriteHeader(header)
	if err == nil {
		_, err = io.WriteString(w, manifest)
	}
	if err := errors.Join(err, w.Close(), z.Close()); err != nil {
		panic(err) // nothing but memory is involved
	}
	return upload{name, packed.Bytes()}
}

// publish signs and publishes u as the admin.
func (w *world) publish(r *Registry, u upload) (Published, error) {
	ctx, me := context.Background(), w.admin.Public().DID()
	heads, err := r.HeadsFor(ctx, policy.Asker{DID: me}, "crate/"+u.name)
	if err != nil {
		return Published{}, err
	}
	subject, err := record.VersionSubject(record.KindCrate, u.name, "1.0.0")
	if err != nil {
		return Published{}, err
	}
	now := time.Now()
	rec, err := record.Sign(record.Draft{
		Subject: subject, Digest: storage.CIDOf(u.crate).Digest(), Body: &record.Publish{},
		Header: record.Header{Registry: heads.Origin, IssuedAt: now, Expires: now.Add(time.Minute), Prev: heads.Prev, By: heads.By},
	}, w.admin.Signer(w.admin.Public().URL()))
	if err != nil {
		return Published{}, err
	}
	var frame []byte
	for _, part := range [][]byte{fmt.Appendf(nil, `{"name":%q,"vers":"1.0.0"}`, u.name), u.crate} {
		frame = append(binary.LittleEndian.AppendUint32(frame, uint32(len(part))), part...)
	}
	asker := policy.Asker{DID: me, Scopes: []string{particle.ScopePublish}, Rec: string(rec.ID()), Until: now.Add(time.Minute)}
	return r.PublishCrate(ctx, asker, rec.Envelope(), bytes.NewReader(frame))
}

// publishAll publishes all at once.
func (w *world) publishAll(r *Registry, uploads []upload) (answers []Published, errs []error) {
	answers, errs = make([]Published, len(uploads)), make([]error, len(uploads))
	var all sync.WaitGroup
	for i, u := range uploads {
		all.Go(func() { answers[i], errs[i] = w.publish(r, u) })
	}
	all.Wait()
	return answers, errs
}

// visible looks u up as a reader would: "" when it is not there, its record when
// all of it is, and a failed test when only a part is.
func (w *world) visible(r *Registry, u upload) record.ID {
	w.t.Helper()
	ctx := context.Background()
	v, err := r.Version(ctx, reader, record.KindCrate, u.name, "1.0.0")
	line, lineErr := r.IndexFile(ctx, reader, u.name)
	if errors.Is(err, ErrNotFound) && errors.Is(lineErr, ErrNotFound) {
		return ""
	}
	if err != nil || lineErr != nil || !bytes.Contains(line.Plain.Bytes, []byte(storage.CIDOf(u.crate).Hex())) {
		w.t.Errorf("%s is there in part: %v, %v, %v", u.name, err, lineErr, line)
		return ""
	}
	blob, err := r.OpenArtifact(ctx, v)
	if err != nil {
		w.t.Errorf("%s: %v", u.name, err)
		return ""
	}
	defer blob.Close()
	stored, err := r.storedRecord(ctx, v.Record)
	if got, readErr := io.ReadAll(blob); readErr != nil || !bytes.Equal(got, u.crate) || err != nil || stored.Index != v.Index {
		w.t.Errorf("%s: %d bytes, %v, record at %d not %d, %v", u.name, len(got), readErr, stored.Index, v.Index, err)
	}
	return v.Record
}

// rebuilds derives the catalog anew beside the one in use: the same state, the same root.
func (w *world) rebuilds(r *Registry) {
	w.t.Helper()
	ctx, config := context.Background(), w.config
	config.Catalog = w.catalog("again.db")
	done, err := Rebuild(ctx, config, func(int64) {})
	if err != nil || len(done.Refused)+len(done.Withheld) > 0 || done.Entries != r.Size() || done.Checkpoint != r.Size() {
		w.t.Fatalf("rebuild of %d entries: %+v, %v", r.Size(), done, err)
	}
	digest, err := w.config.Catalog.StateDigest(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	if again, err := config.Catalog.StateDigest(ctx); err != nil || again != digest {
		w.t.Errorf("state %x was rebuilt as %x, %v", digest, again, err)
	}
	_, note, err := config.Catalog.Published(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	cp, err := r.readCheckpoint(ctx, &r.Catalog.Reader, note)
	if err != nil || cp.Checkpoint != r.published.Load().Checkpoint {
		w.t.Errorf("checkpoint %v was rebuilt as %v, %v", r.published.Load().Checkpoint, cp, err)
	}
}

// Whatever call of a publish blob storage fails at, in whatever way: what was
// acknowledged stays, what was not is there as a whole or not at all, the log
// only grows, asking again succeeds, and a rebuild comes to the same.
func TestPublishSurvivesAFaultAtEveryCall(t *testing.T) {
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.start()
			for n, tripped := 0, true; tripped && !t.Failed(); n++ {
				uploads := []upload{newUpload(fmt.Sprint("aa", n)), newUpload(fmt.Sprint("bb", n))}
				before := r.published.Load().Checkpoint
				w.blobs.arm(n, f)
				answers, errs := w.publishAll(r, uploads)
				if f.forGood { // the process is gone: another one starts
					r.Close()
					w.close()
				}
				if tripped = w.blobs.disarm(); !tripped && n < 7 {
					t.Errorf("two publishes make only %d calls", n)
				}
				if f.forGood {
					r = w.start()
				}
				w.afterFault(r, before, uploads, answers, errs)
			}
			w.rebuilds(r)
			w.closeAll(r)
		})
	}
}

func (w *world) closeAll(r *Registry) {
	r.Close()
	w.close()
}

func (w *world) afterFault(r *Registry, before translog.Checkpoint, uploads []upload, answers []Published, errs []error) {
	w.t.Helper()
	for i, u := range uploads {
		id := w.visible(r, u)
		if errs[i] == nil && id != answers[i].Record {
			w.t.Errorf("%s was acknowledged as %s and is %q", u.name, answers[i].Record, id)
		}
		again, err := w.publish(r, u)
		if err != nil || id != "" && (!again.Repeated || again.Record != id) {
			w.t.Errorf("%s (%q), published again: %+v, %v", u.name, id, again, err)
		}
		if w.visible(r, u) != again.Record {
			w.t.Errorf("%s was acknowledged as %s and is not there", u.name, again.Record)
		}
	}
	after := r.published.Load().Checkpoint
	proof, err := translog.ConsistencyProof(before.Size, after.Size, storedHashes(context.Background(), &r.Catalog.Reader))
	if err != nil || translog.CheckConsistency(proof, before, after) != nil {
		w.t.Errorf("%v does not extend %v: %v", after, before, err)
	}
}

// The same for the first start: the next one finishes the pair.
func TestGenesisSurvivesAFaultAtEveryCall(t *testing.T) {
	empty := newWorld(t)
	empty.stores()
	empty.close()
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n, tripped := 0, true; tripped; n++ {
				w := empty.copied(t)
				w.stores()
				w.blobs.arm(n, f)
				if err := w.genesis(); err == nil {
					if r, err := Open(context.Background(), w.config); err == nil {
						r.Close()
					}
				}
				tripped = w.blobs.disarm()
				w.close()
				r := w.start()
				if r.Size() != genesisEntries {
					t.Errorf("fault at call %d: %d entries", n, r.Size())
				}
				if m, err := r.Members(context.Background()); err != nil || len(m) != 1 || !m[0].Has(state.RolePublisher) {
					t.Errorf("fault at call %d: members %+v, %v", n, m, err)
				}
				if n == 3 {
					w.rebuilds(r)
				}
				w.closeAll(r)
			}
		})
	}
}

// A rebuild that was interrupted anywhere says so, harms nothing, and is
// repeated into a new catalog.
func TestRebuildSurvivesAFaultAtEveryCall(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	defer w.closeAll(r)
	if _, err := w.publish(r, newUpload("first")); err != nil {
		t.Fatal(err)
	}
	config := w.config
	for n, tripped := 0, true; tripped; n++ {
		config.Catalog = w.catalog(fmt.Sprintf("interrupted-%d.db", n))
		w.blobs.arm(n, fault{forGood: true})
		_, err := Rebuild(context.Background(), config, func(int64) {})
		if tripped = w.blobs.disarm(); tripped != errors.Is(err, errInjected) {
			t.Errorf("fault at call %d: %v", n, err)
		}
	}
	w.rebuilds(r)
}

// Where the next entry or checkpoint is stored already with other bytes, the
// log has forked: nothing is acknowledged any more, nor is it after a new start.
func TestForkStopsTheRegistry(t *testing.T) {
	for name, object := range map[string]string{
		"entry": translog.EntryKey(genesisEntries), "checkpoint": translog.CheckpointKey(genesisEntries + 1),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			r := w.start()
			if err := w.blobs.Create(context.Background(), object, []byte("of another log")); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"aa", "bb"} {
				if _, err := w.publish(r, newUpload(name)); !errors.Is(err, ErrUnavailable) {
					t.Errorf("a publish beside a fork: %v", err)
				}
			}
			select {
			case err := <-r.Failed():
				if !errors.Is(err, ErrFork) {
					t.Error(err)
				}
			case <-time.After(5 * time.Second):
				t.Error("the registry did not stop")
			}
			if r.Size() != genesisEntries || w.visible(r, newUpload("aa")) != "" {
				t.Errorf("%d entries are published", r.Size())
			}
			w.closeAll(r)
			w.stores()
			defer w.close()
			if _, err := Open(context.Background(), w.config); !errors.Is(err, ErrFork) && !errors.Is(err, ErrBehind) {
				t.Errorf("a new start beside a fork: %v", err)
			}
		})
	}
}

// What is left of a log is not taken for a first start.
func TestRemainsOfALogAreNotAFirstStart(t *testing.T) {
	for _, object := range []string{translog.EntryKey(0), translog.CheckpointKey(2), translog.CheckpointKey(1)} {
		w := newWorld(t)
		w.stores()
		if err := w.blobs.Create(context.Background(), object, []byte("remains")); err != nil {
			t.Fatal(err)
		}
		if begun, err := Begun(context.Background(), w.config); !errors.Is(err, ErrBehind) {
			t.Errorf("beside %s: %d entries, %v", object, begun, err)
		}
		w.close()
	}
}
