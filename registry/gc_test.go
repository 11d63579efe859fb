package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
	"phoenix-lab.org/aln-registry/storage/disk"
)

// litter stores bytes that no record names.
func litter(t testing.TB, blobs storage.Blobs, text string) storage.CID {
	t.Helper()
	b := blobOf([]byte(text))
	if err := blobs.Put(t.Context(), b.id, b.size, b.bytes); err != nil {
		t.Fatal(err)
	}
	return b.id
}

// gc collects in a stopped archive; found are in order.
func (a *archive) gc(change func(*GCOptions)) (found []string, done Collected, err error) {
	a.t.Helper()
	ctx := context.Background()
	store, err := disk.Open(filepath.Join(a.folder, "store"))
	if err != nil {
		a.t.Fatal(err)
	}
	defer store.Close()
	db, err := catalog.AttachSQLite(ctx, filepath.Join(a.folder, "catalog.db"))
	if err != nil {
		a.t.Fatal(err)
	}
	defer db.Close()
	o := GCOptions{Inventory: store, Temp: a.t.TempDir(), Found: func(b storage.Stored) { found = append(found, b.CID.String()) }}
	change(&o)
	done, err = CollectGarbage(ctx, Config{Catalog: db, Blobs: store, Keys: a.keys, Clock: time.Now, Embedded: true}, o)
	slices.Sort(found)
	return found, done, err
}

func deleting(o *GCOptions) { o.Delete = true }

// Nothing that any record names is garbage, in whatever place it is named; what is not,
// is listed, and with Delete removed, once it is old enough.
func TestGarbageIsWhatNoRecordNames(t *testing.T) {
	c := newCourt(t)
	evidence, named := litter(t, c.r.Blobs, "evidence"), litter(t, c.r.Blobs, "named by a rule")
	subject := subjectOf(t, record.KindManifest, "with-evidence")
	if _, err := c.admin.tryPublish(subject, []byte("bytes"), evidence); err != nil {
		t.Fatal(err)
	}
	c.quarantine(c.admin, "with-evidence", func(q *particle.QuarantineRule) { q.Match[0].Names, q.Evidence = []string{"bad"}, &named })
	w := &archive{world: c.w}
	garbage := []string{litter(t, c.r.Blobs, "one").String(), litter(t, c.r.Blobs, "two").String()}
	slices.Sort(garbage)
	size := c.r.Size()
	c.w.closeAll(c.r)

	found, done, err := w.gc(func(o *GCOptions) { o.Grace = time.Hour })
	if err != nil || len(found) > 0 || done.Young != 2 || done.YoungBytes != 6 || done.Entries != size {
		t.Errorf("young: %q, %+v, %v", found, done, err)
	}
	found, done, err = w.gc(func(*GCOptions) {})
	if err != nil || !slices.Equal(found, garbage) || done.Unreferenced != 2 || done.UnreferencedBytes != 6 || done.Removed != 0 {
		t.Errorf("listed: %q, %+v, %v", found, done, err)
	}
	found, done, err = w.gc(deleting)
	if err != nil || !slices.Equal(found, garbage) || done.Removed != 2 || done.RemovedBytes != 6 || done.Spared != 0 {
		t.Errorf("removed: %q, %+v, %v", found, done, err)
	}
	if found, done, err = w.gc(deleting); err != nil || len(found) > 0 || done.Unreferenced+done.Young != 0 {
		t.Errorf("again: %q, %+v, %v", found, done, err)
	}
	if found, done := w.fsck(nil); len(found) > 0 || done.Unreferenced > 0 {
		t.Errorf("fsck: %q, %+v", found, done)
	}
	for _, id := range []storage.CID{evidence, named} {
		if _, err := os.Stat(w.blob(id)); err != nil {
			t.Error(err)
		}
	}
}

// Of an archive with records of every type that brings blobs nothing is garbage.
func TestNothingOfAnArchiveIsGarbage(t *testing.T) {
	a := newArchive(t)
	if found, done, err := a.gc(deleting); err != nil || len(found) > 0 || done.Blobs == 0 {
		t.Errorf("%q, %+v, %v", found, done, err)
	}
}

// Where it cannot be told for sure what the log names, nothing is removed.
func TestNothingIsRemovedOnDoubt(t *testing.T) {
	whole := newArchive(t)
	for name, c := range map[string]struct {
		harm func(t *testing.T, a *archive)
		want error
	}{
		"a catalog put back": {func(t *testing.T, a *archive) {
			for _, s := range []string{
				"DELETE FROM version_cid WHERE idx = 11", "DELETE FROM state WHERE idx = 11", "DELETE FROM entry WHERE idx = 11", "UPDATE head SET size = 11",
			} {
				a.sql(s)
			}
		}, ErrBehind},
		"a record gone":    {func(t *testing.T, a *archive) { removeFile(t, a.blob(a.records[atTwo])) }, ErrUnproved},
		"a record flipped": {func(t *testing.T, a *archive) { flipByte(t, a.blob(a.records[atTwo])) }, ErrUnproved},
		"a grant gone":     {func(t *testing.T, a *archive) { removeFile(t, a.blob(a.grant)) }, ErrUnproved},
		"an entry gone":    {func(_ *testing.T, a *archive) { a.sql("DELETE FROM entry WHERE idx = 4") }, ErrUnproved},
		"another record named": {func(_ *testing.T, a *archive) {
			a.sql("UPDATE entry SET record_cid = (SELECT record_cid FROM entry WHERE idx = 3) WHERE idx = 4")
		}, ErrUnproved},
		"the published note": {func(_ *testing.T, a *archive) {
			a.sql("UPDATE published SET checkpoint = CAST(replace(checkpoint, '=', 'A') AS BLOB)")
		}, ErrUnproved},
		"less published":        {func(_ *testing.T, a *archive) { a.sql("UPDATE published SET size = 0, checkpoint = x''") }, ErrUnproved},
		"the checkpoint object": {func(t *testing.T, a *archive) { removeFile(t, a.object(translog.CheckpointKey(a.size))) }, ErrUnproved},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := whole.another(t)
			stray := filepath.Join(a.folder, "store")
			store, err := disk.Open(filepath.Join(a.folder, "store"))
			if err != nil {
				t.Fatal(err)
			}
			litter(t, store, "garbage")
			store.Close()
			c.harm(t, a)
			before := files(t, stray)
			if _, done, err := a.gc(deleting); !errors.Is(err, c.want) || done.Removed > 0 || files(t, stray) != before {
				t.Errorf("%+v, %v, want %v; %d files of %d", done, err, c.want, files(t, stray), before)
			}
		})
	}
}

// meeting is a publisher and a collector who meet over one blob, step by step.
type meeting struct {
	t *testing.T
	r *Registry
	w *world
	// content is what the publisher's record needs.
	content *brought
	n       int
}

func newMeeting(t *testing.T) *meeting {
	t.Helper()
	w := newWorld(t)
	r := w.start()
	t.Cleanup(func() { w.closeAll(r) })
	r.Embedded = true
	return &meeting{t: t, r: r, w: w, content: blobOf([]byte("the content"))}
}

// publisher begins to publish the content, or other bytes that name it as evidence.
func (m *meeting) publisher(brings bool) *submission {
	m.t.Helper()
	m.n++
	bytes, evidence := m.content, []storage.CID{}
	if !brings {
		bytes, evidence = blobOf(fmt.Append(nil, m.n)), []storage.CID{m.content.id}
	}
	member, _, err := state.MemberOf(m.r.visible(m.t.Context()), m.w.admin.Public().DID())
	if err != nil {
		m.t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	rec, err := record.Sign(record.Draft{
		Subject: subjectOf(m.t, record.KindManifest, fmt.Sprint("name", m.n)), Digest: bytes.id.Digest(),
		Body:   &record.Publish{Evidence: evidence, MediaType: "text/plain"},
		Header: record.Header{Registry: m.r.origin, IssuedAt: now, Expires: now.Add(time.Hour), By: member.Record},
	}, m.w.admin.Signer(m.w.admin.Public().URL()))
	if err != nil {
		m.t.Fatal(err)
	}
	return &submission{record: rec, attachments: state.Attachments{}, artifact: bytes}
}

func (m *meeting) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// enter tries to enter s; it reports whether that succeeded, or it was condemned.
func (m *meeting) enter(s *submission) bool {
	m.t.Helper()
	m.must(m.r.Catalog.Update(m.t.Context(), func(tx *catalog.Tx) error { return m.r.applyBatch(m.t.Context(), tx, []*submission{s}, false) }))
	var c *condemned
	if s.refusal != nil && !errors.As(s.refusal, &c) {
		m.t.Fatal(s.refusal)
	}
	return s.refusal == nil
}

// sweeper is a collection on its way.
type sweeper struct {
	g     *garbage
	found []storage.Stored
	batch []storage.Stored
	tombs map[storage.CID]time.Time
	begun moment
}

// collector has looked, and found the content to be garbage.
func (m *meeting) collector() *sweeper {
	m.t.Helper()
	g := newGarbage(m.r.Config, GCOptions{Inventory: m.store(), Delete: true})
	head, err := m.r.Catalog.Head(m.t.Context())
	m.must(err)
	g.done.Entries = head
	return &sweeper{g: g, batch: []storage.Stored{{CID: m.content.id, Size: m.content.size}}}
}

func (m *meeting) store() *disk.Store { return m.w.open[0].(*disk.Store) }

func (m *meeting) condemn(s *sweeper) {
	m.t.Helper()
	var err error
	s.begun = s.g.moment()
	s.tombs, err = s.g.condemn(m.t.Context(), s.batch)
	m.must(err)
}

func (m *meeting) remove(s *sweeper) {
	m.t.Helper()
	m.must(s.g.removeCondemned(m.t.Context(), s.batch, s.tombs, s.begun))
}

func (m *meeting) put(s *submission) {
	m.t.Helper()
	m.must(m.r.store(m.t.Context(), s))
}

func (m *meeting) mark(s *submission) map[storage.CID]time.Time {
	m.t.Helper()
	mine, err := m.r.mark(m.t.Context(), s.condemned.ids)
	m.must(err)
	return mine
}

// stored reports whether the content is there.
func (m *meeting) stored() bool {
	_, err := m.store().Stat(m.t.Context(), m.content.id)
	return err == nil
}

// Every order in which a publisher and a collector can meet, by the argument of
// docs/ARCHITECTURE.md ("Garbage"): what was entered is there.
func TestWhoeverMeetsACollector(t *testing.T) {
	type order func(m *meeting, t *testing.T)
	for name, run := range map[string]order{
		"entered before it is condemned": func(m *meeting, t *testing.T) {
			c, s := m.collector(), m.publisher(true)
			m.put(s)
			if !m.enter(s) {
				t.Error("refused")
			}
			m.condemn(c)
			m.remove(c)
			if len(c.tombs) > 0 || !m.stored() {
				t.Errorf("condemned is %v", c.tombs)
			}
		},
		"condemned, entered, removed": func(m *meeting, t *testing.T) {
			c, s := m.collector(), m.publisher(true)
			m.put(s)
			m.condemn(c)
			if m.enter(s) {
				t.Error("entered though it was condemned")
			}
			m.remove(c)
			if m.stored() {
				t.Error("not removed")
			}
			m.must(m.r.claim(t.Context(), s, s.condemned.ids))
			if !m.enter(s) || !m.stored() {
				t.Error("not there")
			}
		},
		"removed, then entered": func(m *meeting, t *testing.T) {
			c, s := m.collector(), m.publisher(true)
			m.put(s)
			m.condemn(c)
			m.remove(c)
			if m.enter(s) {
				t.Error("entered though it was removed")
			}
		},
		"claimed, and removed by the tombstone of before": func(m *meeting, t *testing.T) {
			c, s := m.collector(), m.publisher(true)
			m.put(s)
			m.condemn(c)
			m.enter(s)
			mine := m.mark(s)
			m.put(s)
			m.must(m.r.there(t.Context(), mine))
			m.remove(c)
			m.must(m.r.release(t.Context(), mine))
			if !m.enter(s) || !m.stored() {
				t.Error("not there")
			}
		},
		"claimed and entered, and removed by the tombstone of before": func(m *meeting, t *testing.T) {
			c, s := m.collector(), m.publisher(true)
			m.put(s)
			m.condemn(c)
			m.enter(s)
			m.must(m.r.claim(t.Context(), s, s.condemned.ids))
			if !m.enter(s) {
				t.Error("refused")
			}
			m.remove(c)
			if !m.stored() {
				t.Error("removed after it was entered")
			}
		},
		"condemned again while it is claimed": func(m *meeting, t *testing.T) {
			c, again, s := m.collector(), m.collector(), m.publisher(true)
			m.put(s)
			m.condemn(c)
			m.enter(s)
			mine := m.mark(s)
			m.put(s)
			m.must(m.r.there(t.Context(), mine))
			m.condemn(again)
			m.remove(again)
			m.must(m.r.release(t.Context(), mine))
			if m.enter(s) {
				t.Error("entered though it was removed")
			}
			m.must(m.r.claim(t.Context(), s, s.condemned.ids))
			if !m.enter(s) || !m.stored() {
				t.Error("not there")
			}
		},
		"claimed by two": func(m *meeting, t *testing.T) {
			c, one, two := m.collector(), m.publisher(true), m.publisher(true)
			m.put(one)
			m.condemn(c)
			m.enter(one)
			m.enter(two)
			first := m.mark(one)
			m.put(one)
			second := m.mark(two)
			m.must(m.r.release(t.Context(), first)) // not its own any more
			if m.enter(one) {
				t.Error("entered by another's tombstone")
			}
			m.put(two)
			m.must(m.r.release(t.Context(), second))
			if !m.enter(one) || !m.enter(two) || !m.stored() {
				t.Error("not there")
			}
		},
		"named by one who does not bring it, and stored by another before it went": func(m *meeting, t *testing.T) {
			c, brings, names := m.collector(), m.publisher(true), m.publisher(false)
			m.put(brings)
			m.condemn(c)
			m.remove(c)
			m.put(names)
			if m.enter(names) {
				t.Error("entered though its evidence was removed")
			}
			if err := m.r.claim(t.Context(), names, names.condemned.ids); !errors.Is(err, ErrRequest) || !strings.Contains(err.Error(), m.content.id.String()) {
				t.Errorf("claimed: %v", err)
			}
			if m.enter(brings) {
				t.Error("entered though it was removed")
			}
			m.must(m.r.claim(t.Context(), brings, brings.condemned.ids))
			if !m.enter(brings) || !m.enter(names) || !m.stored() {
				t.Error("not there")
			}
		},
		"named by one who does not bring it, and still there": func(m *meeting, t *testing.T) {
			c, names := m.collector(), m.publisher(false)
			litter(t, m.r.Blobs, "the content")
			m.put(names)
			m.condemn(c)
			m.enter(names)
			m.must(m.r.claim(t.Context(), names, names.condemned.ids))
			m.remove(c)
			if !m.enter(names) || !m.stored() {
				t.Error("not there")
			}
		},
		"the collector is killed": func(m *meeting, t *testing.T) {
			c, s := m.collector(), m.publisher(true)
			m.put(s)
			m.condemn(c)
			if m.enter(s) {
				t.Error("entered though it was condemned")
			}
			m.must(m.r.claim(t.Context(), s, s.condemned.ids))
			if !m.enter(s) || !m.stored() {
				t.Error("not there")
			}
		},
		"the publisher is killed while it claims": func(m *meeting, t *testing.T) {
			c, killed, s := m.collector(), m.publisher(true), m.publisher(true)
			m.put(killed)
			m.condemn(c)
			m.enter(killed)
			m.mark(killed)
			m.remove(c)
			again := m.collector()
			m.condemn(again)
			m.remove(again)
			if m.stored() {
				t.Error("not removed")
			}
			m.put(s)
			if m.enter(s) {
				t.Error("entered though it is condemned")
			}
		},
		"a removal that hangs is given up": func(m *meeting, t *testing.T) {
			c := m.collector()
			litter(t, m.r.Blobs, "the content")
			m.condemn(c)
			c.begun.elapsed -= removalWindow
			m.remove(c)
			if !m.stored() || c.g.done.Spared != 1 {
				t.Error("removed when others may count on it not to be")
			}
		},
		"a collector that slept removes nothing": func(m *meeting, t *testing.T) {
			c := m.collector()
			litter(t, m.r.Blobs, "the content")
			m.condemn(c)
			c.g.Clock = func() time.Time { return time.Now().Add(removalWindow) } // the steady clock stood still
			m.remove(c)
			if !m.stored() || c.g.done.Spared != 1 {
				t.Error("removed when others may count on it not to be")
			}
		},
		"not on one host: nobody claims what may still be removed": func(m *meeting, t *testing.T) {
			m.r.Embedded = false
			c, s := m.collector(), m.publisher(true)
			m.put(s)
			m.condemn(c)
			m.enter(s)
			if err := m.r.claim(t.Context(), s, s.condemned.ids); !errors.Is(err, ErrUnavailable) {
				t.Errorf("claimed: %v", err)
			}
			(&archive{world: m.w}).exec(fmt.Sprintf("UPDATE condemned SET condemned_at = condemned_at - %d", int(removalSettles.Seconds())))
			m.must(m.r.claim(t.Context(), s, s.condemned.ids))
			if !m.enter(s) || !m.stored() {
				t.Error("not there")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(newMeeting(t), t)
		})
	}
}

// Tombstones are forgotten, and not before whoever had stored a blob has given up.
func TestTombstonesAreForgotten(t *testing.T) {
	a := newArchive(t)
	for _, age := range []time.Duration{condemnedKept - time.Minute, condemnedKept + 2*time.Hour} {
		a.exec(fmt.Sprintf("INSERT INTO condemned VALUES ('%s', unixepoch() - %d)", storage.CIDOf([]byte(age.String())), int(age.Seconds())))
	}
	if _, _, err := a.gc(func(o *GCOptions) { o.Delete, o.Grace = true, time.Hour }); err != nil {
		t.Fatal(err)
	}
	if n := a.count("SELECT COUNT(*) FROM condemned"); n != 1 {
		t.Errorf("%d are kept, want the younger", n)
	}
	if condemnedKept <= 24*time.Hour+2*state.Skew {
		t.Error("a record may be entered after its tombstones are forgotten")
	}
}

// Real publishes, some of bytes that are there already and some refused, while garbage
// is collected without pause and without grace, and somebody looks whether all is well.
func TestPublishesWhileGarbageIsCollected(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	r.Embedded = true
	store := w.open[0].(*disk.Store)
	var stop atomic.Bool
	var removed, collections atomic.Int64
	var all sync.WaitGroup
	all.Go(func() {
		for !stop.Load() {
			done, err := CollectGarbage(t.Context(), r.Config, GCOptions{Inventory: store, Delete: true, Temp: w.folder})
			if err != nil {
				t.Error(err)
				return
			}
			removed.Add(done.Removed)
			collections.Add(1)
		}
	})
	all.Go(func() {
		for quick := true; !stop.Load(); quick = !quick {
			_, err := Fsck(t.Context(), r.Config, FsckOptions{Inventory: store, Quick: quick, Temp: w.folder, Found: func(f Finding) { t.Errorf("%+v", f) }})
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	var acknowledged sync.Map
	var publishers sync.WaitGroup
	for who := range 4 {
		publishers.Go(func() {
			for n := range 12 {
				u := newUpload(fmt.Sprintf("crate-%d", n)) // whoever comes first has it
				litter(t, r.Blobs, fmt.Sprint("garbage of ", who, n))
				p, err := w.publish(r, u)
				if err == nil {
					acknowledged.Store(u.name, p)
				}
			}
		})
	}
	publishers.Wait()
	stop.Store(true)
	all.Wait()
	count := 0
	acknowledged.Range(func(name, _ any) bool {
		count++
		if w.visible(r, newUpload(name.(string))) == "" {
			t.Errorf("%s was acknowledged, and is not there", name)
		}
		return true
	})
	if count < 12 || removed.Load() < 5 || collections.Load() < 3 {
		t.Errorf("%d acknowledged, %d removed in %d collections", count, removed.Load(), collections.Load())
	}
	w.closeAll(r)
	if found, done := (&archive{world: w}).fsck(nil); len(found) > 0 || !done.Clean() {
		t.Errorf("fsck: %q", found)
	}
}
