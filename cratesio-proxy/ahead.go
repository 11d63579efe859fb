package cratesioproxy

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/storage"
)

const (
	mostAhead      = 32  // fetched ahead at a time
	mostAheadQueue = 512 // that wait for that; what is beyond is asked for by whoever needs it
	mostVersions   = 3   // the newest, whose dependencies are fetched ahead
	mostDeps       = 64
	mostReread     = 2 << 20 // bytes of a stored snapshot that is read again for that
)

// wave notes that dependencies were fetched ahead, after their crate was looked at then.
type wave struct {
	checked time.Time
	waves   int
}

// fetchAhead fetches what a crate that was asked for depends on, so that what cargo asks next is
// answered from memory: as many waves, whatever of it is not fresh.
func (u *Upstream) fetchAhead(name string, waves int) {
	e, there := u.entries.get(name)
	if waves <= 0 || !there || e.deps != nil && len(e.deps) == 0 {
		return
	}
	if e.deps != nil {
		u.spreadOnce(name, e.file.Checked, e.deps, waves)
		return
	}
	if !u.begins(name, e.file.Checked, waves) {
		return
	}
	u.proxy.tasks.begin(func() { u.spread(u.reread(u.proxy.ctx, name, e.file.Snapshot), waves) })
}

// spreadOnce fetches names, which name depends on by what was seen then, ahead once.
func (u *Upstream) spreadOnce(name string, checked time.Time, names []string, waves int) {
	if waves > 0 && len(names) > 0 && u.begins(name, checked, waves) {
		u.spread(names, waves)
	}
}

// begins notes that as many waves are fetched behind name, and is false where they were.
func (u *Upstream) begins(name string, checked time.Time, waves int) bool {
	if w, _ := u.waves.get(name); w.waves >= waves && w.checked.Equal(checked) {
		return false
	}
	u.waves.put(name, wave{checked, waves})
	return true
}

// spread fetches names ahead, each with its own dependencies for one wave less.
func (u *Upstream) spread(names []string, waves int) {
	for _, name := range names {
		if _, there := u.resting.get(name); there {
			continue
		}
		if u.proxy.counts.waiting.Add(1) > mostAheadQueue {
			u.proxy.counts.waiting.Add(-1)
			return
		}
		begun := u.proxy.tasks.begin(func() {
			defer u.proxy.counts.waiting.Add(-1)
			select {
			case u.proxy.ahead <- struct{}{}:
				defer func() { <-u.proxy.ahead }()
			case <-u.proxy.ctx.Done():
				return
			}
			u.proxy.counts.ahead.Add(1)
			_ = u.refresh(u.proxy.ctx, name, waves-1) // who asks for it is told why not
		})
		if !begun {
			u.proxy.counts.waiting.Add(-1)
		}
	}
}

// reread finds the dependencies in a stored snapshot, nil where it cannot be read.
func (u *Upstream) reread(ctx context.Context, name string, id storage.CID) []string {
	blob, err := u.proxy.Blobs.Open(ctx, id)
	if err != nil {
		return nil
	}
	defer blob.Close()
	if blob.Size() > mostReread {
		return nil
	}
	data, err := io.ReadAll(blob)
	if err != nil {
		return nil
	}
	file, err := cargo.ParseUpstreamFile(name, data)
	if err != nil {
		return nil
	}
	return dependencies(file)
}

// dependencies are the crates of the same index, by their names in lower case, that the newest
// few versions in an index file need to be built: no optional ones and none for tests. Newest
// are those at its end.
func dependencies(file cargo.UpstreamFile) []string {
	names := []string{}
	versions := 0
	for i := len(file.Lines) - 1; i >= 0 && versions < mostVersions; i-- {
		if file.Lines[i].Yanked {
			continue
		}
		versions++
		line, err := cargo.ParseLine(file.Lines[i].Raw)
		if err != nil { // cargo may read more than is read here
			continue
		}
		for _, d := range line.Deps {
			name := strings.ToLower(d.PackageName())
			if d.Optional || d.Kind == cargo.KindDev || d.Registry != nil || len(names) >= mostDeps || slices.Contains(names, name) {
				continue
			}
			names = append(names, name)
		}
	}
	return names
}
