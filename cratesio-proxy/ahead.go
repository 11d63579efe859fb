package cratesioproxy

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/storage"
)

const (
	mostAhead      = 32  // fetched ahead at a time, of one upstream
	mostAheadQueue = 512 // that wait for that; what is beyond is asked for by whoever needs it
	mostVersions   = 3   // the newest, whose dependencies are fetched ahead
	mostDeps       = 64
	mostReread     = 2 << 20 // bytes of a stored snapshot that is read again for that

	// An upstream answers with as many names as it likes, and whatever is fetched is kept for ever:
	// one question has no more than mostCascade fetched ahead, all of them mostMinute a minute.
	// Who needs what is beyond asks for it.
	mostCascade = 512
	mostMinute  = 2000
)

// errEnough is why a name is not fetched ahead. Nobody waits for it.
var errEnough = fmt.Errorf("%w: enough is fetched ahead", ErrBusy)

// cascade is what a question has fetched ahead: as many waves more, and as many names in all
// of them as are left.
type cascade struct {
	waves  int
	left   *atomic.Int64
	asker  string // who asked, "" where that is not known
	behind bool   // it goes on behind what was asked for
}

func (u *Upstream) newCascade(ctx context.Context) cascade {
	c := cascade{waves: u.proxy.Ahead, left: new(atomic.Int64), asker: askerOf(ctx)}
	c.left.Store(mostCascade)
	return c
}

// next is c one wave behind.
func (c cascade) next() cascade { return cascade{c.waves - 1, c.left, c.asker, true} }

// mayAhead counts one name that upstream is asked for ahead, and is false where it must not be.
func (u *Upstream) mayAhead(c cascade) bool {
	return c.left.Add(-1) >= 0 && u.asked.take(u.proxy.Clock(), time.Minute, 1, mostMinute)
}

// wave notes that dependencies were fetched ahead, after their crate was looked at then.
type wave struct {
	checked time.Time
	waves   int
}

// fetchAhead fetches what a crate that was asked for depends on, so that what cargo asks next is
// answered from memory: all of ahead's waves, whatever of it is not fresh.
func (u *Upstream) fetchAhead(name string, ahead cascade) {
	e, there := u.entries.get(name)
	if ahead.waves <= 0 || !there || e.deps != nil && len(e.deps) == 0 {
		return
	}
	if e.deps != nil {
		u.spreadOnce(name, e.file.Checked, e.deps, ahead)
		return
	}
	if !u.begins(name, e.file.Checked, ahead.waves) {
		return
	}
	u.proxy.tasks.begin(func() { u.spread(u.reread(u.proxy.ctx, name, e.file.Snapshot), ahead) })
}

// spreadOnce fetches names, which name depends on by what was seen then, ahead once.
func (u *Upstream) spreadOnce(name string, checked time.Time, names []string, ahead cascade) {
	if ahead.waves > 0 && len(names) > 0 && u.begins(name, checked, ahead.waves) {
		u.spread(names, ahead)
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
func (u *Upstream) spread(names []string, ahead cascade) {
	for _, name := range names {
		if ahead.left.Load() <= 0 {
			return
		}
		if r, there := u.resting.get(name); there && u.proxy.Clock().Before(r.until) {
			continue
		}
		if u.waiting.Add(1) > mostAheadQueue {
			u.waiting.Add(-1)
			return
		}
		begun := u.proxy.tasks.begin(func() {
			defer u.waiting.Add(-1)
			select {
			case u.ahead <- struct{}{}:
				defer func() { <-u.ahead }()
			case <-u.proxy.ctx.Done():
				return
			}
			u.proxy.counts.ahead.Add(1)
			_ = u.refresh(u.proxy.ctx, name, ahead.next()) // who asks for it is told why not
		})
		if !begun {
			u.waiting.Add(-1)
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
