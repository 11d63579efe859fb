//go:build unix

package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
	"phoenix-lab.org/aln-registry/storage/disk"
)

// gcModel drives publishers, collectors, and who fetches crates of other registries and
// evicts them again, step by step, in any order, over a real catalog and a real folder. Every
// step may be its process's last.
type gcModel struct {
	t               *testing.T
	w               *world
	r               *Registry
	store           *removals
	rng             *rand.Rand
	people          []*publisher
	last            int
	sweeps          []*sweeper
	fetchers        []*fetcher
	evictions       []*eviction
	names, episodes int
	// needed is what committed records need, and which one does.
	needed map[storage.CID]string
	did    map[string]int
	trace  []string
	// exec changes the catalog behind everybody's back.
	exec func(statement string)
}

// removals are a store's. Where late, what is asked for happens later, as a request does
// whose sender has gone.
type removals struct {
	*disk.Store
	late    bool
	pending []storage.CID
	// left is how many succeed before the process is killed; below 0: all.
	left int
}

var errKilled = errors.New("killed")

func (s *removals) Remove(ctx context.Context, id storage.CID) error {
	if s.left == 0 {
		return errKilled
	}
	s.left--
	if s.late {
		s.pending = append(s.pending, id)
		return nil
	}
	return s.Store.Remove(ctx, id)
}

// happen does what was asked for, the n'th or, below 0, all of it.
func (s *removals) happen(t *testing.T, n int) {
	t.Helper()
	do := s.pending
	if n >= 0 {
		do = s.pending[n : n+1]
	}
	for _, id := range do {
		if err := s.Store.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if n < 0 {
		s.pending = nil
	} else {
		s.pending = slices.Delete(s.pending, n, n+1)
	}
}

// publisher is a record on its way.
type publisher struct {
	name string
	s    *submission
	step string
	todo []brought // what is still to be stored
	ids  []storage.CID
	mine map[storage.CID]time.Time
}

func newGCModel(t *testing.T, seed uint64, db *catalog.DB, exec func(string)) *gcModel {
	t.Helper()
	w := newWorld(t)
	w.stores()
	if db != nil {
		w.config.Catalog = db
	}
	if w.config.Embedded = db == nil; !w.config.Embedded {
		w.config.Replica = "one"
	}
	if err := w.genesis(); err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), w.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.closeAll(r) })
	m := &gcModel{
		t: t, w: w, r: r, rng: rand.New(rand.NewPCG(seed, 1)), needed: map[storage.CID]string{}, did: map[string]int{}, exec: exec,
		store: &removals{Store: w.open[0].(*disk.Store), late: db != nil, left: -1},
	}
	if exec == nil {
		m.exec = func(statement string) { (&archive{world: w}).exec(statement) }
	}
	return m
}

// content is what an episode is about.
func (m *gcModel) content() []byte { return fmt.Appendf(nil, "content %d", m.episodes) }

// person begins to publish the content under a new name, or other bytes with it as evidence.
func (m *gcModel) person() {
	m.names++
	name, content := fmt.Sprint("name", m.names), m.content()
	evidence := []storage.CID{}
	if m.rng.IntN(3) == 0 { // brings other bytes, and names these
		content, evidence = []byte(name), append(evidence, storage.CIDOf(content))
	}
	me := m.w.admin.Public().DID()
	member, _, err := state.MemberOf(m.r.visible(m.t.Context()), me)
	if err != nil {
		m.t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	rec, err := record.Sign(record.Draft{
		Subject: subjectOf(m.t, record.KindManifest, name), Digest: storage.CIDOf(content).Digest(),
		Body:   &record.Publish{Evidence: evidence, MediaType: "text/plain"},
		Header: record.Header{Registry: m.r.origin, IssuedAt: now, Expires: now.Add(time.Hour), By: member.Record},
	}, m.w.admin.Signer(m.w.admin.Public().URL()))
	if err != nil {
		m.t.Fatal(err)
	}
	s := &submission{record: rec, attachments: state.Attachments{}, artifact: blobOf(content)}
	m.people = append(m.people, &publisher{name: name, s: s, step: "store", todo: s.blobs()})
}

// advance does the next step of a publisher; it reports whether that goes on.
func (m *gcModel) advance(p *publisher) bool {
	ctx, s := m.t.Context(), p.s
	m.note("%s %s", p.name, p.step)
	switch p.step {
	case "store", "store again":
		b := p.todo[0]
		if _, err := b.bytes.Seek(0, 0); err != nil {
			m.t.Fatal(err)
		}
		if err := m.r.Blobs.Put(ctx, b.id, b.size, b.bytes); err != nil {
			m.t.Fatal(err)
		}
		if p.todo = p.todo[1:]; len(p.todo) == 0 {
			p.step = map[string]string{"store": "enter", "store again": "look"}[p.step]
		}
	case "enter":
		err := m.r.Catalog.Update(ctx, func(tx *catalog.Tx) error { return m.r.applyBatch(ctx, tx, []*submission{s}, false) })
		var c *condemned
		switch {
		case err != nil:
			m.t.Fatal(err)
		case errors.As(s.refusal, &c):
			p.ids, p.step = c.ids, "mark"
		case s.refusal != nil:
			m.t.Fatal(s.refusal)
		default:
			m.entered(p)
			p.step = "publish"
		}
	case "mark":
		mine, err := m.r.mark(ctx, p.ids)
		if errors.Is(err, ErrUnavailable) {
			return m.rng.IntN(2) == 0 // tries again later, or does not
		}
		if err != nil {
			m.t.Fatal(err)
		}
		p.mine, p.todo, p.step = mine, s.blobs(), "store again"
	case "look":
		err := m.r.there(ctx, p.mine)
		if errors.Is(err, ErrRequest) {
			m.did["evidence gone"]++
			return false
		}
		if err != nil {
			m.t.Fatal(err)
		}
		p.step = "release"
	case "release":
		if err := m.r.release(ctx, p.mine); err != nil {
			m.t.Fatal(err)
		}
		p.step = "enter"
	case "publish":
		if err := m.r.publish(ctx); err != nil {
			m.t.Fatal(err)
		}
		return false
	}
	return true
}

// entered notes what has to stay from now on: what was brought, and what was there.
func (m *gcModel) entered(p *publisher) {
	for _, id := range p.s.named {
		_, err := m.store.Stat(m.t.Context(), id)
		if err == nil || id == p.s.artifact.id || id == p.s.record.CID() {
			m.needed[id] = p.name
		}
	}
}

// sweep looks for garbage.
func (m *gcModel) sweep(s *sweeper) {
	ctx := m.t.Context()
	g := newGarbage(m.r.Config, GCOptions{Inventory: m.store, Delete: true})
	var err error
	if g.names, err = newSpill(m.w.folder); err != nil {
		m.t.Fatal(err)
	}
	defer g.names.Close()
	listed, err := newSpill(m.w.folder)
	if err != nil {
		m.t.Fatal(err)
	}
	defer listed.Close()
	s.g = g
	err = errors.Join(
		listBlobs(ctx, m.store, listed.add, func(err error) { m.t.Error(err) }), // what is stored, then what is named, or the other way round
		g.readLog(ctx),
		listed.without(g.names, func(b storage.Stored) error {
			s.found = append(s.found, b)
			return nil
		}),
	)
	if err != nil {
		m.t.Fatal(err)
	}
	m.note("a sweep finds %d", len(s.found))
}

// advanceSweep condemns some of what was found, or removes what was condemned.
func (m *gcModel) advanceSweep(s *sweeper) bool {
	ctx := m.t.Context()
	if s.g == nil {
		m.sweep(s)
		return true
	}
	if s.tombs == nil {
		if len(s.found) == 0 {
			return false
		}
		m.did["condemn"]++
		n := min(1+m.rng.IntN(3), len(s.found))
		s.batch, s.found, s.begun = s.found[:n], s.found[n:], s.g.moment()
		var err error
		if s.tombs, err = s.g.condemn(ctx, s.batch); err != nil {
			m.t.Fatal(err)
		}
		m.note("condemned %d of %d", len(s.tombs), n)
		return true
	}
	if m.rng.IntN(5) == 0 {
		m.store.left = m.rng.IntN(2)
	}
	removed := s.g.done.Removed
	err := s.g.removeCondemned(ctx, s.batch, s.tombs, s.begun)
	m.store.left = -1
	if err != nil && !errors.Is(err, errKilled) {
		m.t.Fatal(err)
	}
	m.did["removed"] += int(s.g.done.Removed - removed)
	m.note("removed %d, %v", s.g.done.Removed-removed, err)
	s.tombs = nil
	return err == nil
}

// pass lets so much time pass that nobody does any more what it began before.
func (m *gcModel) pass() {
	m.note("time passes")
	m.store.happen(m.t, -1)
	const seconds = int64(removalSettles/time.Second) + 1
	m.exec(fmt.Sprintf("UPDATE condemned SET condemned_at = condemned_at - %d", seconds))
	earlier := func(of map[storage.CID]time.Time) {
		for id, at := range of {
			of[id] = at.Add(-time.Duration(seconds) * time.Second)
		}
	}
	for _, s := range m.sweeps {
		s.begun.elapsed -= removalSettles
		earlier(s.tombs)
	}
	for _, v := range m.evictions {
		v.begun.elapsed -= removalSettles
		earlier(v.tombs)
	}
	for _, p := range m.people {
		earlier(p.mine)
	}
	for _, f := range m.fetchers {
		earlier(f.mine)
	}
}

func (m *gcModel) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	m.trace = append(m.trace, text)
}

// episode has a few publishers and collectors meet over the same content, which
// is there already or not, and ends when all have done what they wanted, or died.
func (m *gcModel) episode() {
	m.episodes++
	m.trace = nil
	if m.rng.IntN(2) == 0 { // by an upload that is refused later, or whose process is killed
		b := blobOf(m.content())
		m.note("stored for nothing")
		if err := m.r.Blobs.Put(m.t.Context(), b.id, b.size, b.bytes); err != nil {
			m.t.Fatal(err)
		}
	}
	if m.rng.IntN(3) > 0 { // otherwise it is other registries' alone
		for range 2 + m.rng.IntN(2) {
			m.person()
		}
	}
	for range 1 + m.rng.IntN(2) {
		m.sweeps = append(m.sweeps, &sweeper{})
	}
	for range 1 + m.rng.IntN(2) {
		m.fetchers = append(m.fetchers, &fetcher{step: "fetch"})
	}
	for range 1 + m.rng.IntN(2) {
		m.evictions = append(m.evictions, &eviction{})
	}
	sticky := 1 + m.rng.IntN(4)
	for m.actors() > 0 {
		switch n := m.rng.IntN(100); {
		case n < 3:
			m.pass()
		case n < 8 && len(m.store.pending) > 0:
			m.store.happen(m.t, m.rng.IntN(len(m.store.pending)))
		default:
			m.act(sticky)
		}
		m.check()
	}
	m.store.happen(m.t, -1)
	m.check()
}

func (m *gcModel) actors() int {
	return len(m.people) + len(m.sweeps) + len(m.fetchers) + len(m.evictions)
}

// act lets one of those who are at work go on: mostly the one of before, so that long
// ways are gone between two steps of another.
func (m *gcModel) act(sticky int) {
	if m.last >= m.actors() || m.rng.IntN(sticky) == 0 {
		m.last = m.rng.IntN(m.actors())
	}
	killed := m.rng.IntN(40) == 0
	i := m.last
	if i < len(m.people) {
		p := m.people[i]
		m.did[p.step]++
		if killed || !m.advance(p) {
			m.people = slices.Delete(m.people, i, i+1)
		}
		return
	}
	if i -= len(m.people); i < len(m.sweeps) {
		if s := m.sweeps[i]; killed || !m.advanceSweep(s) {
			m.sweeps = slices.Delete(m.sweeps, i, i+1)
		}
		return
	}
	if i -= len(m.sweeps); i < len(m.fetchers) {
		if f := m.fetchers[i]; killed || !m.advanceFetch(f) {
			m.fetchers = slices.Delete(m.fetchers, i, i+1)
		}
		return
	}
	i -= len(m.fetchers)
	if v := m.evictions[i]; killed || !m.advanceEviction(v) {
		if v.e != nil {
			v.e.Close()
		}
		m.evictions = slices.Delete(m.evictions, i, i+1)
	}
}

// check: whatever a committed record needs is stored, and whatever a row says is held.
func (m *gcModel) check() {
	held, err := m.r.Catalog.UpstreamBlobsAfter(m.t.Context(), storage.CID{}, 1000)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, b := range held {
		m.stored(b.CID, "a row")
	}
	for id, name := range m.needed {
		m.stored(id, name)
	}
}

func (m *gcModel) stored(id storage.CID, name string) {
	if _, err := m.store.Stat(m.t.Context(), id); err != nil {
		for _, line := range m.trace[max(0, len(m.trace)-60):] {
			m.t.Log(line)
		}
		m.t.Fatalf("%s needs %s: %v", name, id, err)
	}
}

func (m *gcModel) run(episodes int) {
	for range episodes {
		m.episode()
	}
	m.t.Log(m.did)
}

// In whatever order blobs are stored, records entered, blobs held, evicted, condemned, claimed and
// removed, and whoever is killed at whatever step: nothing that was entered or is held is missing.
func TestNothingEnteredIsEverCollected(t *testing.T) {
	base, err := strconv.ParseUint(os.Getenv("ALN_GC_SEED"), 10, 64)
	if err != nil {
		base = rand.Uint64()
	}
	t.Logf("to repeat: ALN_GC_SEED=%d", base)
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("embedded ", seed), func(t *testing.T) {
			t.Parallel()
			newGCModel(t, base+seed, nil, nil).run(40)
		})
	}
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("Postgres, late removals ", seed), func(t *testing.T) {
			t.Parallel()
			url := testbed.SharedPostgres(t).URL
			db, err := catalog.OpenPostgres(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			own, err := sql.Open("pgx", url)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { own.Close() })
			newGCModel(t, base+seed, db, func(statement string) {
				if _, err := own.ExecContext(t.Context(), statement); err != nil {
					t.Fatal(err)
				}
			}).run(40)
		})
	}
}
