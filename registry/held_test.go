package registry

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
	"phoenix-lab.org/aln-registry/storage/disk"
)

// fetched stores the bytes of a crate of crates.io, and is what is to be held of it.
func fetched(t testing.TB, blobs storage.Blobs, text string, used time.Duration) catalog.UpstreamBlob {
	t.Helper()
	return crateOf(litter(t, blobs, text), text, used)
}

func crateOf(id storage.CID, text string, used time.Duration) catalog.UpstreamBlob {
	at := time.Unix(2_000_000_000, 0).UTC()
	name, _, _ := strings.Cut(text, " ")
	return catalog.UpstreamBlob{CID: id, Upstream: "crates-io", Name: name, Version: "1.0.0", Size: int64(len(text)), Fetched: at, Used: at.Add(used)}
}

// isHeld reports whether a row says that id is held, and its bytes are there. One without the
// other is an error, unless they are there.
func isHeld(t testing.TB, r *Registry, id storage.CID) bool {
	t.Helper()
	rows, err := r.Catalog.UpstreamBlobs(t.Context(), []storage.CID{id})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Blobs.Stat(t.Context(), id)
	if len(rows) > 0 && err != nil {
		t.Errorf("%s is said to be held: %v", id, err)
	}
	return len(rows) > 0
}

// What is held of other registries is no garbage, and fsck knows who refers to it.
func TestWhatIsHeldIsNoGarbage(t *testing.T) {
	c := newCourt(t)
	c.publish("demo")
	held := fetched(t, c.r.Blobs, "held", 0)
	if err := c.r.Hold(t.Context(), []catalog.UpstreamBlob{held}); err != nil {
		t.Fatal(err)
	}
	garbage := litter(t, c.r.Blobs, "garbage")
	c.w.closeAll(c.r)
	a := &archive{world: c.w}
	if found, done := a.fsck(nil); len(found) > 0 || done.Unreferenced != 1 {
		t.Errorf("fsck: %q, %+v", found, done)
	}
	found, done, err := a.gc(deleting)
	if err != nil || !slices.Equal(found, []string{garbage.String()}) || done.Removed != 1 || done.Spared != 0 {
		t.Errorf("%q, %+v, %v", found, done, err)
	}
	if _, err := os.Stat(a.blob(held.CID)); err != nil {
		t.Error(err)
	}
}

// evictor of a court's registry; its first look is over.
func (c *court) evictor() *Evictor {
	c.t.Helper()
	e := c.r.NewEvictor(c.w.open[0].(*disk.Store))
	c.t.Cleanup(func() {
		if err := e.Close(); err != nil {
			c.t.Error(err)
		}
	})
	return e
}

func embedded(c *Config) { c.Embedded = true }

// What was not used for longest goes first, until there is room; and what somebody needs
// never does.
func TestRoomIsMadeByWhatNobodyNeeds(t *testing.T) {
	c := newCourt(t, embedded)
	host := c.member(particle.TierCoreStakeholder)
	names := []string{
		"published", "evidence", "by-sha256", "by-cid", "by-list", "still-to-come", "pinned", // all of these stay
		"revoked", "expired", "allowed-all", "free-1", "free-2", "used-last",
	}
	of := map[string]catalog.UpstreamBlob{}
	var all []catalog.UpstreamBlob
	for i, name := range names {
		of[name] = fetched(t, c.r.Blobs, fmt.Sprintf("%s %080d", name, i), time.Duration(i)*time.Hour)
		all = append(all, of[name])
	}
	if err := c.r.Hold(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	if _, err := c.admin.tryPublish(subjectOf(t, record.KindManifest, "hosted"), fmt.Appendf(nil, "published %080d", 0), of["evidence"].CID); err != nil {
		t.Fatal(err)
	}
	sum := of["by-sha256"].CID.Digest()
	lists := func(name string, change func(*particle.EnvGrant)) storage.CID {
		return c.grant(c.admin, host, func(g *particle.EnvGrant) {
			g.AllowedCrates = []string{of[name].CID.String()}
			change(g)
		})
	}
	lists("by-cid", func(*particle.EnvGrant) {})
	lists("by-sha256", func(g *particle.EnvGrant) { g.AllowedCrates = []string{fmt.Sprintf("%x", sum)} })
	lists("still-to-come", func(g *particle.EnvGrant) { g.NotBefore = particle.At(time.Now().Add(time.Hour)) })
	byList := of["by-list"].CID.Digest()
	listed := c.publishShard(record.KindALNShard, "list", fmt.Appendf(nil, "%x\n", byList))
	lists("by-list", func(g *particle.EnvGrant) { g.AllowedCrates, g.AllowedCratesList = nil, &listed })
	lists("allowed-all", func(g *particle.EnvGrant) { g.AllowedCrates = []string{"*"} })
	revoked := lists("revoked", func(g *particle.EnvGrant) {
		r := of["revoked"].CID.Digest()
		g.AllowedCrates = []string{fmt.Sprintf("%x", r)}
	})
	c.admin.enter(record.GrantSubject(revoked), &record.Revoke{Reason: "enough"})
	expired := of["expired"].CID.Digest()
	lists("expired", func(g *particle.EnvGrant) {
		g.AllowedCrates, g.Expires = []string{fmt.Sprintf("%x", expired)}, particle.At(time.Now().Add(time.Hour))
	})
	c.ahead.Store(int64(2 * time.Hour))
	if err := c.r.Catalog.PinUpstream(t.Context(), "Cargo.lock", "did:key:a", []storage.CID{of["pinned"].CID}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	e := c.evictor()
	size, total := all[0].Size, int64(0)
	for _, b := range all {
		total += b.Size
	}
	remain := func(gone ...string) {
		t.Helper()
		for _, name := range names {
			if held := isHeld(t, c.r, of[name].CID); held == slices.Contains(gone, name) {
				t.Errorf("%s is held: %v", name, held)
			}
		}
	}
	done, err := e.MakeRoom(t.Context(), total)
	if err != nil || done != (Evicted{Held: total}) || e.g != nil {
		t.Errorf("where there is room: %+v, %v", done, err)
	}
	done, err = e.MakeRoom(t.Context(), total-size-1) // two have to go
	if err != nil || done.Held != total || done.Removed != 2 || done.Kept != 6 || done.RemovedBytes != of["revoked"].Size+of["expired"].Size {
		t.Errorf("a little: %+v, %v", done, err)
	}
	remain("revoked", "expired")
	done, err = e.MakeRoom(t.Context(), 0)
	if err != nil || done.Removed != 4 || done.Kept != 6 {
		t.Errorf("all: %+v, %v", done, err)
	}
	remain("revoked", "expired", "allowed-all", "free-1", "free-2", "used-last")
	if _, err := c.r.Catalog.UnpinUpstream(t.Context(), "Cargo.lock", time.Time{}); err != nil {
		t.Fatal(err)
	}
	if done, err = e.MakeRoom(t.Context(), 0); err != nil || done.Removed != 1 || done.Kept != 6 {
		t.Errorf("not pinned any more: %+v, %v", done, err)
	}
	remain("revoked", "expired", "allowed-all", "free-1", "free-2", "used-last", "pinned")
	c.ahead.Store(0) // by which the session of who publishes is judged
	later := fetched(t, c.r.Blobs, "later", 0)
	if err := c.r.Hold(t.Context(), []catalog.UpstreamBlob{later}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.admin.tryPublish(subjectOf(t, record.KindManifest, "later"), []byte("names it"), later.CID); err != nil {
		t.Fatal(err)
	}
	for range 2 { // of what came since the first look, and of what was known by the one before
		if done, err = e.MakeRoom(t.Context(), 0); err != nil || done.Removed != 0 || done.Kept != 7 || !isHeld(t, c.r, later.CID) {
			t.Errorf("named since: %+v, %v", done, err)
		}
	}
	c.w.closeAll(c.r)
	if found, done := (&archive{world: c.w}).fsck(nil); len(found) > 0 || done.Unreferenced > 0 {
		t.Errorf("fsck: %q, %+v", found, done)
	}
}

// Where it cannot be told what the log names, nothing is removed, and all goes on when it can.
// A list that cannot be had allows nothing, and keeps nothing: nobody's list ends eviction.
func TestNoRoomIsMadeOnDoubt(t *testing.T) {
	c := newCourt(t, embedded)
	held := fetched(t, c.r.Blobs, "held", 0)
	if err := c.r.Hold(t.Context(), []catalog.UpstreamBlob{held}); err != nil {
		t.Fatal(err)
	}
	list := c.publishShard(record.KindALNShard, "list", []byte(strings.Repeat("a", 64)+"\n"))
	byDigest := fetched(t, c.r.Blobs, "by-digest", 0)
	digest := byDigest.CID.Digest()
	c.grant(c.admin, c.member(particle.TierCoreStakeholder), func(g *particle.EnvGrant) { g.AllowedCrates = []string{fmt.Sprintf("%x", digest)} })
	grant := c.grant(c.admin, c.member(particle.TierCoreStakeholder), func(g *particle.EnvGrant) { g.AllowedCrates, g.AllowedCratesList = nil, &list })
	first, err := c.r.Catalog.Entry(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, id := range map[string]storage.CID{"a grant": grant, "a record": first.Record} {
		e := c.evictor()
		path := (&archive{world: c.w}).blob(id)
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		c.r.grants = newGrantCache(1 << 20)
		if done, err := e.MakeRoom(t.Context(), 0); !errors.Is(err, ErrUnproved) || done.Removed != 0 || !isHeld(t, c.r, held.CID) {
			t.Errorf("without %s: %+v, %v", name, done, err)
		}
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
	}
	c.r.grants = newGrantCache(1 << 20)
	if err := c.r.Hold(t.Context(), []catalog.UpstreamBlob{byDigest}); err != nil {
		t.Fatal(err)
	}
	removeFile(t, (&archive{world: c.w}).blob(list))
	if done, err := c.evictor().MakeRoom(t.Context(), 0); err != nil || done.Removed != 1 || isHeld(t, c.r, held.CID) || !isHeld(t, c.r, byDigest.CID) {
		t.Errorf("without a list: %+v, %v", done, err)
	}
}

// holds is that the content was fetched from another registry.
func (m *meeting) holds() error {
	m.t.Helper()
	return m.r.Hold(m.t.Context(), []catalog.UpstreamBlob{crateOf(m.content.id, "the content", 0)})
}

func (m *meeting) held() bool { m.t.Helper(); return isHeld(m.t, m.r, m.content.id) }

// evicts is an evictor that has looked and is about to take the content away.
func (m *meeting) evicts() *eviction {
	m.t.Helper()
	e := m.r.NewEvictor(m.store())
	m.must(e.readLog(m.t.Context()))
	rows, err := m.r.Catalog.UpstreamBlobs(m.t.Context(), []storage.CID{m.content.id})
	m.must(err)
	m.t.Cleanup(func() { m.must(e.Close()) })
	return &eviction{m: m, e: e, page: rows, asOf: m.r.Size()}
}

// eviction is one on its way.
type eviction struct {
	m     *meeting
	e     *Evictor
	page  []catalog.UpstreamBlob
	asOf  int64
	begun moment
	tombs map[storage.CID]time.Time
}

func (v *eviction) condemn() {
	v.m.t.Helper()
	var err error
	v.begun = v.e.g.moment()
	v.tombs, err = v.e.condemn(v.m.t.Context(), v.page, v.asOf)
	v.m.must(err)
}

func (v *eviction) remove() {
	v.m.t.Helper()
	stored := []storage.Stored{{CID: v.m.content.id, Size: v.m.content.size}}
	v.m.must(v.e.g.removeCondemned(v.m.t.Context(), stored, v.tombs, v.begun))
}

// Every order in which who fetches, publishes, evicts and collects can meet over the same
// bytes: what is said to be held is there, and so is what was entered.
func TestWhoeverMeetsAnEvictor(t *testing.T) {
	for name, run := range map[string]func(m *meeting, t *testing.T){
		"held before it is condemned": func(m *meeting, t *testing.T) {
			c := m.collector()
			litter(t, m.r.Blobs, "the content")
			m.must(m.holds())
			m.condemn(c)
			m.remove(c)
			if !m.held() || len(c.tombs) > 0 {
				t.Error("taken for garbage")
			}
		},
		"condemned, held, removed": func(m *meeting, t *testing.T) {
			c := m.collector()
			litter(t, m.r.Blobs, "the content")
			m.condemn(c)
			m.must(m.holds())
			m.remove(c)
			if !m.held() {
				t.Error("not held")
			}
		},
		"removed, then held": func(m *meeting, t *testing.T) {
			c := m.collector()
			litter(t, m.r.Blobs, "the content")
			m.condemn(c)
			m.remove(c)
			other := fetched(t, m.r.Blobs, "another", 0)
			err := m.r.Hold(t.Context(), []catalog.UpstreamBlob{crateOf(m.content.id, "the content", 0), other})
			if !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "the 1.0.0 of crates-io") || m.held() {
				t.Errorf("held though it is gone: %v", err)
			}
			if !isHeld(t, m.r, other.CID) {
				t.Error("what came with it is not held")
			}
			litter(t, m.r.Blobs, "the content")
			m.must(m.holds())
			if !m.held() {
				t.Error("not held")
			}
		},
		"evicted, and fetched again": func(m *meeting, t *testing.T) {
			litter(t, m.r.Blobs, "the content")
			m.must(m.holds())
			v := m.evicts()
			v.condemn()
			v.remove()
			if m.held() || m.stored() {
				t.Error("not removed")
			}
			litter(t, m.r.Blobs, "the content")
			m.must(m.holds())
			if !m.held() {
				t.Error("not held")
			}
		},
		"fetched again while it is evicted": func(m *meeting, t *testing.T) {
			litter(t, m.r.Blobs, "the content")
			m.must(m.holds())
			v := m.evicts()
			v.condemn()
			if m.held() {
				t.Error("said to be held while it is being removed")
			}
			m.must(m.holds())
			v.remove()
			if !m.held() {
				t.Error("not held")
			}
		},
		"published while it is evicted": func(m *meeting, t *testing.T) {
			litter(t, m.r.Blobs, "the content")
			m.must(m.holds())
			v, s := m.evicts(), m.publisher(true)
			m.put(s)
			v.condemn()
			if m.enter(s) {
				t.Error("entered though it was condemned")
			}
			v.remove()
			m.must(m.r.claim(t.Context(), s, s.condemned.ids))
			if !m.enter(s) || !m.stored() {
				t.Error("not there")
			}
		},
		"published just before it is evicted": func(m *meeting, t *testing.T) {
			litter(t, m.r.Blobs, "the content")
			m.must(m.holds())
			v, s := m.evicts(), m.publisher(false)
			m.put(s)
			if !m.enter(s) {
				t.Error("refused")
			}
			v.condemn()
			v.remove()
			if !m.held() || len(v.tombs) > 0 {
				t.Error("removed though a record names it")
			}
		},
		"evicted by two": func(m *meeting, t *testing.T) {
			litter(t, m.r.Blobs, "the content")
			m.must(m.holds())
			one, two := m.evicts(), m.evicts()
			one.condemn()
			two.condemn()
			if len(two.tombs) > 0 {
				t.Error("condemned twice")
			}
			m.must(m.holds())
			one.remove()
			two.remove()
			if !m.held() {
				t.Error("not held")
			}
		},
		"the evictor is killed": func(m *meeting, t *testing.T) {
			litter(t, m.r.Blobs, "the content")
			m.must(m.holds())
			m.evicts().condemn()
			if m.held() || !m.stored() {
				t.Error("not as it was left")
			}
			c := m.collector()
			m.condemn(c)
			m.remove(c)
			if m.stored() {
				t.Error("nobody removes it")
			}
		},
		"claimed by two, held by one, and evicted within the second": func(m *meeting, t *testing.T) {
			litter(t, m.r.Blobs, "the content")
			m.must(m.holds())
			m.evicts().condemn() // and is killed
			ids := []storage.CID{m.content.id}
			first, err := m.r.mark(t.Context(), ids)
			m.must(err)
			second, err := m.r.mark(t.Context(), ids)
			m.must(err)
			m.must(m.r.release(t.Context(), second))
			m.must(m.holds())
			v := m.evicts()
			v.condemn()
			at := first[m.content.id]
			(&archive{world: m.w}).exec(fmt.Sprintf("UPDATE condemned SET condemned_at = %d", at.Unix()))
			v.tombs[m.content.id] = at
			v.remove()
			m.must(m.r.release(t.Context(), first))
			if err := m.holds(); !errors.Is(err, ErrGone) || m.stored() || m.held() {
				t.Errorf("held though it is gone: %v", err)
			}
		},
		"used, pinned, or granted just before": func(m *meeting, t *testing.T) {
			litter(t, m.r.Blobs, "the content")
			m.must(m.holds())
			ids := []storage.CID{m.content.id}
			for what, happens := range map[string]func(){
				"used":   func() { m.must(m.r.Catalog.UseUpstreamBlobs(t.Context(), ids, time.Unix(2_000_000_001, 0))) },
				"pinned": func() { m.must(m.r.Catalog.PinUpstream(t.Context(), "a", "b", ids, time.Unix(1, 0))) },
			} {
				v := m.evicts()
				happens()
				v.condemn()
				v.remove()
				if !m.held() || len(v.tombs) > 0 {
					t.Errorf("removed though it was %s", what)
				}
				_, err := m.r.Catalog.UnpinUpstream(t.Context(), "a", time.Time{})
				m.must(err)
			}
			v := m.evicts()
			c := &court{t: t, w: m.w, r: m.r}
			c.admin = actor{t, m.r, m.w.admin, m.w.admin.Public().URL()}
			digest := m.content.id.Digest()
			c.grant(c.admin, c.admin, func(g *particle.EnvGrant) { g.AllowedCrates = []string{fmt.Sprintf("%x", digest)} })
			v.condemn()
			v.remove()
			if !m.held() || len(v.tombs) > 0 {
				t.Error("removed though it was granted")
			}
		},
		"not on one host: not held while it may still be removed": func(m *meeting, t *testing.T) {
			m.r.Embedded = false
			litter(t, m.r.Blobs, "the content")
			m.must(m.holds())
			v := m.evicts()
			v.condemn()
			if err := m.holds(); !errors.Is(err, ErrRemoving) || m.held() {
				t.Errorf("held: %v", err)
			}
			other := fetched(t, m.r.Blobs, "another", 0)
			unheld, err := m.r.HoldEach(t.Context(), []catalog.UpstreamBlob{crateOf(m.content.id, "the content", 0), other})
			if err != nil || len(unheld) != 1 || !errors.Is(unheld[m.content.id], ErrRemoving) || !isHeld(t, m.r, other.CID) {
				t.Errorf("not held are %v, %v", unheld, err)
			}
			if err := m.r.Settling(t.Context(), m.content.id); !errors.Is(err, ErrRemoving) {
				t.Errorf("it may be stored: %v", err)
			}
			(&archive{world: m.w}).exec(fmt.Sprintf("UPDATE condemned SET condemned_at = condemned_at - %d", int(removalSettles.Seconds())))
			m.must(m.r.Settling(t.Context(), m.content.id))
			m.must(m.holds())
			if !m.held() {
				t.Error("not held")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(newMeeting(t), t)
		})
	}
}

// Tombstones of what was evicted are forgotten in time, without any gc.
func TestTombstonesOfWhatWasEvictedAreForgotten(t *testing.T) {
	c := newCourt(t, embedded)
	a := &archive{world: c.w}
	for _, age := range []time.Duration{condemnedKept, condemnedKept + evictTombs + time.Hour} {
		a.exec(fmt.Sprintf("INSERT INTO condemned VALUES ('%s', unixepoch() - %d)", storage.CIDOf([]byte(age.String())), int(age.Seconds())))
	}
	if err := c.r.Hold(t.Context(), []catalog.UpstreamBlob{fetched(t, c.r.Blobs, "held", 0)}); err != nil {
		t.Fatal(err)
	}
	if done, err := c.evictor().MakeRoom(t.Context(), 0); err != nil || done.Removed != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	if n := a.count("SELECT COUNT(*) FROM condemned"); n != 2 {
		t.Errorf("%d are kept, want the younger, and that of today", n)
	}
}

// Crates are fetched, held and read, and some of the same bytes published, while room is
// made and garbage collected without pause: what a row says is held can be read, whatever
// was acknowledged is there, and nothing is left over.
func TestCratesAreHeldWhileRoomIsMade(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	r.Embedded = true
	store := w.open[0].(*disk.Store)
	e := r.NewEvictor(store)
	var stop atomic.Bool
	var removed atomic.Int64
	var all sync.WaitGroup
	until := func(f func() error) {
		all.Go(func() {
			for !stop.Load() {
				if err := f(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	until(func() error {
		done, err := e.MakeRoom(t.Context(), 60)
		removed.Add(done.Removed)
		return err
	})
	until(func() error {
		_, err := CollectGarbage(t.Context(), r.Config, GCOptions{Inventory: store, Delete: true, Temp: w.folder})
		return err
	})
	var fetchers sync.WaitGroup
	for who := range 4 {
		fetchers.Go(func() {
			for n := range 60 {
				fetchOne(t, r, fmt.Sprintf("crate-%d %d", n%10, who%2))
			}
		})
	}
	published := map[string]bool{}
	fetchers.Go(func() {
		for n := range 8 { // what fetchers fetch, too
			u := newUpload(fmt.Sprint("hosted-", n))
			held := crateOf(storage.CIDOf(u.crate), u.name, 0)
			litter(t, r.Blobs, string(u.crate))
			_ = r.Hold(t.Context(), []catalog.UpstreamBlob{held}) // may be too late
			for tries := 0; !published[u.name] && tries < 20; tries++ {
				_, err := w.publish(r, u)
				if err != nil && !errors.Is(err, ErrUnavailable) { // taken away as often as it was stored
					t.Error(err)
				}
				published[u.name] = err == nil
			}
		}
	})
	fetchers.Wait()
	stop.Store(true)
	all.Wait()
	for n := range 8 {
		if name := fmt.Sprint("hosted-", n); !published[name] || w.visible(r, newUpload(name)) == "" {
			t.Errorf("%s was acknowledged: %v, and is there: %q", name, published[name], w.visible(r, newUpload(name)))
		}
	}
	if removed.Load() < 5 {
		t.Errorf("%d removed", removed.Load())
	}
	if _, err := e.MakeRoom(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	w.closeAll(r)
	a := &archive{world: w}
	if _, _, err := a.gc(deleting); err != nil {
		t.Error(err)
	}
	if found, done := a.fsck(nil); len(found) > 0 || done.Unreferenced > 0 {
		t.Errorf("fsck: %q, %+v", found, done)
	}
}
