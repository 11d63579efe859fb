//go:build unix

package registry

import (
	"errors"
	"time"

	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// fetcher is a crate of another registry on its way.
type fetcher struct {
	step string
	mine map[storage.CID]time.Time
}

// advanceFetch does the next step of a fetcher, as Hold does them; it reports whether that
// goes on.
func (m *gcModel) advanceFetch(f *fetcher) bool {
	ctx, content := m.t.Context(), blobOf(m.content())
	m.note("a fetcher: %s", f.step)
	m.did[f.step]++
	switch f.step {
	case "fetch":
		if err := m.r.Blobs.Put(ctx, content.id, content.size, content.bytes); err != nil {
			m.t.Fatal(err)
		}
		f.step = "hold"
	case "hold":
		tombs, err := m.r.hold(ctx, []catalog.UpstreamBlob{crateOf(content.id, string(m.content()), 0)})
		if err != nil {
			m.t.Fatal(err)
		}
		if len(tombs) == 0 {
			m.did["held"]++
			return false
		}
		f.step = "mark what is held"
	case "mark what is held":
		var err error
		f.mine, err = m.r.mark(ctx, []storage.CID{content.id})
		if errors.Is(err, ErrUnavailable) {
			return m.rng.IntN(2) == 0 // tries again later, or does not
		}
		if err != nil {
			m.t.Fatal(err)
		}
		f.step = "look for what is held"
	case "look for what is held":
		_, err := m.r.Blobs.Stat(ctx, content.id)
		if errors.Is(err, storage.ErrNotFound) {
			m.did["fetched in vain"]++
			f.step = "fetch"
			return m.rng.IntN(2) == 0
		}
		if err != nil {
			m.t.Fatal(err)
		}
		f.step = "release what is held"
	case "release what is held":
		if err := m.r.release(ctx, f.mine); err != nil {
			m.t.Fatal(err)
		}
		f.step = "hold"
	}
	return true
}

// advanceEviction has an evictor look, take back what is held, or remove that.
func (m *gcModel) advanceEviction(v *eviction) bool {
	ctx := m.t.Context()
	if v.e == nil {
		v.e = m.r.NewEvictor(m.store)
		if err := v.e.readLog(ctx); err != nil {
			m.t.Fatal(err)
		}
		m.note("an evictor has read the log")
		return true
	}
	if v.tombs == nil {
		if err := v.e.settle(); err != nil {
			m.t.Fatal(err)
		}
		v.asOf = m.r.Size()
		page, err := m.r.Catalog.UnusedUpstreamBlobs(ctx, catalog.UpstreamBlob{}, removalBatch)
		if err != nil {
			m.t.Fatal(err)
		}
		keep, err := v.e.kept(ctx, page)
		if err != nil {
			m.t.Fatal(err)
		}
		v.page = nil
		for _, b := range page {
			if !keep[b.CID] {
				v.page = append(v.page, b)
			}
		}
		v.begun = v.e.g.moment()
		if v.tombs, err = v.e.condemn(ctx, v.page, v.asOf); err != nil {
			m.t.Fatal(err)
		}
		m.did["evict"] += len(v.tombs)
		m.note("an evictor condemns %d of %d", len(v.tombs), len(v.page))
		if len(v.tombs) > 0 {
			return true
		}
		v.tombs = nil
		return m.rng.IntN(4) > 0 // looks again later
	}
	var batch []storage.Stored
	for _, b := range v.page {
		batch = append(batch, storage.Stored{CID: b.CID, Size: b.Size})
	}
	if m.rng.IntN(5) == 0 {
		m.store.left = m.rng.IntN(2)
	}
	removed := v.e.g.done.Removed
	err := v.e.g.removeCondemned(ctx, batch, v.tombs, v.begun)
	m.store.left = -1
	if err != nil && !errors.Is(err, errKilled) {
		m.t.Fatal(err)
	}
	m.did["evicted"] += int(v.e.g.done.Removed - removed)
	m.note("an evictor removes %d, %v", v.e.g.done.Removed-removed, err)
	v.tombs = nil
	return err == nil && m.rng.IntN(2) == 0
}
