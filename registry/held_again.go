package registry

import (
	"context"
	"slices"
	"strings"

	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// findAtOnce is for how many versions of other registries' crates is looked together.
const findAtOnce = 20_000

// FindHeld notes as held, in a catalog that was derived anew and knows of none, the crates
// of other registries that are stored: whose bytes an import record in the log tells of, that
// no entry names and nobody is about to remove. It returns how many that are. temp is the
// folder for lists, "" for the system's.
func FindHeld(ctx context.Context, c Config, of storage.Inventory, temp string) (held int64, err error) {
	prefix := state.UpstreamsPrefix()
	if any, err := c.Catalog.StateRange(ctx, prefix, catalog.PrefixEnd(prefix), maxIndex, 1); err != nil || len(any) == 0 {
		return 0, err
	}
	f := finder{r: offline(c.withClock()), sought: map[storage.CID][]catalog.UpstreamBlob{}}
	for _, list := range []**spill{&f.stored, &f.names} {
		if *list, err = newSpill(temp); err != nil {
			return 0, err
		}
		defer (*list).Close()
	}
	if err := listBlobs(ctx, of, f.stored.add, func(error) {}); err != nil {
		return 0, err
	}
	if err := f.readNames(ctx); err != nil {
		return 0, err
	}
	for from := prefix; ; {
		rows, err := c.Catalog.StateRange(ctx, from, catalog.PrefixEnd(prefix), maxIndex, walkPage)
		if err != nil {
			return f.held, err
		}
		for _, row := range rows {
			if err := f.seek(ctx, row); err != nil {
				return f.held, err
			}
			from = row.Key + "\x01"
		}
		if len(rows) < walkPage {
			return f.held, f.find(ctx)
		}
	}
}

// finder looks for what is held of other registries.
type finder struct {
	r             *Registry
	stored, names *spill
	// sought are the crates of which those bytes are, the first one of each upstream.
	sought map[storage.CID][]catalog.UpstreamBlob
	held   int64
}

// readNames notes what entries name: that may be somebody's secret, whatever others say.
func (f *finder) readNames(ctx context.Context) error {
	head, err := f.r.Catalog.Head(ctx)
	if err != nil {
		return err
	}
	g := newGarbage(f.r.Config, GCOptions{})
	return g.walk.run(ctx, 0, head, func(page []*walked) error {
		for _, l := range page {
			ids, err := g.namesOf(l)
			if err != nil {
				return err
			}
			for _, id := range ids {
				if err := f.names.add(storage.Stored{CID: id}); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// seek looks for the versions of a crate, once there are enough.
func (f *finder) seek(ctx context.Context, row catalog.StateRow) error {
	u, err := state.DecodeUpstream(row.Value)
	if err != nil {
		return err
	}
	for _, v := range u.Versions {
		id := storage.CIDFromDigest(v.Digest)
		if slices.ContainsFunc(f.sought[id], func(b catalog.UpstreamBlob) bool { return b.Upstream == u.Upstream }) {
			continue
		}
		f.sought[id] = append(f.sought[id], catalog.UpstreamBlob{CID: id, Upstream: u.Upstream, Name: u.Name, Version: v.Version})
	}
	if len(f.sought) < findAtOnce {
		return nil
	}
	return f.find(ctx)
}

// find notes those of what is sought that are stored, and seeks no more of it.
func (f *finder) find(ctx context.Context) error {
	ids := make([]storage.CID, 0, len(f.sought))
	for id := range f.sought {
		ids = append(ids, id)
	}
	stored, err := f.stored.find(ids)
	if err != nil {
		return err
	}
	named, err := f.names.find(ids)
	if err != nil {
		return err
	}
	var found []catalog.UpstreamBlob
	for id, s := range stored {
		if _, ours := named[id]; !ours {
			for _, b := range f.sought[id] {
				b.Size, b.Fetched, b.Used = s.Size, s.Modified, s.Modified
				found = append(found, b)
			}
		}
	}
	clear(f.sought)
	slices.SortFunc(found, func(a, b catalog.UpstreamBlob) int { return strings.Compare(a.CID.String(), b.CID.String()) })
	for len(found) > 0 { // all rows of the same bytes together
		n := min(heldPage, len(found))
		for n < len(found) && found[n].CID == found[n-1].CID {
			n++
		}
		some := found[:n]
		found = found[n:]
		ids := slices.Compact(cidsOf(some))
		before, err := f.r.Catalog.UpstreamBlobs(ctx, ids) // of another upstream, or under another name
		if err != nil {
			return err
		}
		condemned, err := f.r.hold(ctx, some)
		if err != nil {
			return err
		}
		f.held += int64(len(ids) - len(before) - len(slices.Compact(condemned)))
	}
	return nil
}
