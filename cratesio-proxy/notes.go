package cratesioproxy

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

const (
	noteDelay   = time.Second // that a note waits for others
	noteTime    = 10 * time.Second
	storeDelay  = 20 * time.Millisecond // that a stored blob waits for others
	mostStores  = 3                     // tries
	mostNotes   = 20_000
	usedEvery   = time.Hour // at most, for one blob
	mostUsed    = 50_000
	alarmEvery  = time.Hour // at most, for the same alarm
	mostAlarmed = 1_000     // of one upstream
)

// notes are facts to be written, in batches and in nobody's way.
type notes struct {
	proxy *Proxy
	last  *recent[storage.CID, time.Time] // when a blob was last noted as used

	mu        sync.Mutex
	files     map[[2]string]File
	used      map[storage.CID]struct{}
	scheduled bool
	storing   *storing
}

// storing are blobs that are noted together. What follows done may be read once that is closed.
type storing struct {
	blobs  []Blob
	done   chan struct{}
	unheld map[storage.CID]error
	err    error
}

// of is why a blob is not noted.
func (s *storing) of(id storage.CID) error { return cmp.Or(s.err, s.unheld[id]) }

func newNotes(p *Proxy) *notes {
	return &notes{proxy: p, last: newRecent[storage.CID, time.Time](mostUsed), files: map[[2]string]File{}, used: map[storage.CID]struct{}{}}
}

// file notes an index file.
func (n *notes) file(f File) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.files) < mostNotes {
		n.files[[2]string{f.Upstream, f.Name}] = f
	}
	n.schedule()
}

// use notes that a blob was used, unless that was noted a while ago.
func (n *notes) use(id storage.CID) {
	now := n.proxy.Clock()
	if at, ok := n.last.get(id); ok && now.Sub(at) < usedEvery {
		return
	}
	n.last.put(id, now)
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.used) < mostNotes {
		n.used[id] = struct{}{}
	}
	n.schedule()
}

// schedule sees to it that what is noted gets written soon. It is called under the lock.
func (n *notes) schedule() {
	if n.scheduled {
		return
	}
	n.scheduled = n.proxy.tasks.begin(func() {
		_ = n.proxy.Sleep(n.proxy.ctx, noteDelay) // what is noted is written even when the proxy is closed
		n.mu.Lock()
		n.scheduled = false
		n.mu.Unlock()
		n.write()
	})
}

// write writes what is noted. What cannot be written is lost, and costs a request.
func (n *notes) write() {
	n.mu.Lock()
	files := make([]File, 0, len(n.files))
	for _, f := range n.files {
		files = append(files, f)
	}
	used := make([]storage.CID, 0, len(n.used))
	for id := range n.used {
		used = append(used, id)
	}
	clear(n.files)
	clear(n.used)
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(n.proxy.ctx), noteTime)
	defer cancel()
	if len(files) > 0 {
		if err := n.proxy.Facts.PutFiles(ctx, files); err != nil {
			n.proxy.Log.Warn("cannot note what upstreams said of index files", "files", len(files), "error", err)
		}
	}
	if len(used) > 0 {
		if err := n.proxy.Facts.UsedBlobs(ctx, used, n.proxy.Clock()); err != nil {
			n.proxy.Log.Warn("cannot note that crates were used", "crates", len(used), "error", err)
		}
	}
}

// store notes that a blob is held, together with others that come at the same time: a
// catalog has one writer. It returns when that is done.
func (n *notes) store(ctx context.Context, b Blob) error {
	n.mu.Lock()
	s := n.storing
	if s == nil {
		s = &storing{done: make(chan struct{})}
		if !n.proxy.tasks.begin(func() { n.storeAll(s) }) {
			n.mu.Unlock()
			s.unheld, s.err = n.proxy.Facts.PutBlobs(ctx, []Blob{b})
			return s.of(b.ID)
		}
		n.storing = s
	}
	s.blobs = append(s.blobs, b)
	n.mu.Unlock()
	select {
	case <-s.done:
		return s.of(b.ID)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// storeAll waits a little for others, and then notes all.
func (n *notes) storeAll(s *storing) {
	defer close(s.done)
	_ = n.proxy.Sleep(n.proxy.ctx, storeDelay) // and at once when the proxy is closed
	n.mu.Lock()
	n.storing = nil
	n.mu.Unlock()
	for tries := 1; ; tries++ {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(n.proxy.ctx), noteTime)
		s.unheld, s.err = n.proxy.Facts.PutBlobs(ctx, s.blobs)
		cancel()
		if s.err == nil || tries >= mostStores || n.proxy.Sleep(n.proxy.ctx, pause(tries, n.proxy.Random)) != nil {
			return
		}
	}
}

// close writes the last. Nothing is noted any more.
func (n *notes) close() { n.write() }

// alarms raises an alarm for every version, and one for all beyond a bound.
func (u *Upstream) alarms(name, kind string, versions []Difference, detail string) {
	now := u.proxy.Clock()
	for i, v := range versions {
		a := Alarm{Name: name, Version: v.Version, Kind: kind, Detail: detail, At: now}
		if v.Detail != "" {
			a.Detail += ": " + v.Detail
		}
		if i == mostAlarms {
			a.Version, a.Detail = "", fmt.Sprintf("and %d versions more", len(versions)-i)
		}
		u.alarm(a)
		if i == mostAlarms {
			return
		}
	}
}

// alarm raises a of u, unless the same was raised a while ago. What is remembered of that is u's
// own: a flood of another upstream pushes nothing out.
func (u *Upstream) alarm(a Alarm) {
	p := u.proxy
	a.Upstream = u.setting.Name
	key := fmt.Sprintf("%q %q %q %q", a.Name, a.Version, a.Kind, a.Detail)
	if at, ok := u.alarmed.get(key); ok && a.At.Sub(at) < alarmEvery {
		return
	}
	u.alarmed.put(key, a.At)
	p.counts.alarms.Add(1)
	p.Log.Error("alarm: an upstream did what it should never do", "upstream", a.Upstream, "crate", a.Name, "version", a.Version, "kind", a.Kind, "detail", a.Detail)
	if p.Alarmed != nil {
		p.Alarmed(a)
	}
	p.tasks.begin(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), noteTime)
		defer cancel()
		if err := p.Facts.PutAlarm(ctx, a); err != nil {
			p.Log.Error("cannot note an alarm", "upstream", a.Upstream, "crate", a.Name, "kind", a.Kind, "error", err)
		}
	})
}
