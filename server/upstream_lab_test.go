package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/storage"
)

// fakeUpstreams are crates.io and one called lab, whose index files and crates the test says.
type fakeUpstreams struct {
	registry *registry.Registry
	offline  bool
	fresh    bool

	mu sync.Mutex
	// files are index files by name, crates what is sent for a digest, in the parts in which it comes.
	files  map[string]string
	crates map[storage.CID][]part
	held   map[storage.CID]bool
	asked  []string // what upstream was asked for
	asker  did.DID  // who asked last
	down   error
	alarms []UpstreamAlarm
	// during is called while upstream is asked, evict when a crate is held: it is not, then,
	// where that says so. unheld is why none can be held.
	during func()
	evict  func(UpstreamCrate) bool
	unheld error
	// looked is called while a crate that is received is looked into.
	looked func()
	// unsized: upstream does not say how large a crate is.
	unsized bool
	// arrived is closed when all of what is received has; nil: it never is.
	arrived <-chan struct{}
	remove  func(context.Context, storage.CID) error
}

// part is some bytes of a crate, or how its reception ends.
type part struct {
	data string
	err  error
	wait chan struct{} // before it comes
	more int64         // than its bytes are said to come, or fewer
}

func newFakeUpstreams() *fakeUpstreams {
	return &fakeUpstreams{
		files: map[string]string{}, crates: map[storage.CID][]part{}, held: map[storage.CID]bool{},
		alarms: []UpstreamAlarm{
			{2, "remote", "1.0.0", "mismatch", "its bytes hash to something else", time.Unix(1_800_000_000, 0), "", "", time.Time{}},
			{1, "remote", "", "snapshot", "it is no index file", time.Unix(1_700_000_000, 0), "did:key:z1", "a login page", time.Unix(1_700_000_060, 0)},
		},
	}
}

// offer has upstream list versions of a crate, which it sends in two parts.
func (f *fakeUpstreams) offer(name string, versions ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var lines strings.Builder
	for _, v := range versions {
		crate := crateFile(name, v)
		fmt.Fprintf(&lines, `{"name":%q,"vers":%q,"deps":[],"cksum":"%s","features":{},"yanked":false,"odd":[ 1, 2 ]}`+"\n", name, v, hashOf(crate))
		f.crates[storage.CIDOf(crate)] = []part{{data: string(crate[:10])}, {data: string(crate[10:])}}
	}
	f.files[name] = lines.String()
}

func (f *fakeUpstreams) State() UpstreamsState {
	return UpstreamsState{Offline: f.offline, All: []Upstream{
		{Name: "crates-io", Source: "crates-io", Index: "https://index.crates.io/"},
		{Name: "lab", Source: "upstream/lab", Index: "https://lab.example/index/", Down: true, Trouble: "lab: its answer stopped", TroubleAt: time.Unix(1_800_000_000, 0)},
	}}
}

func (f *fakeUpstreams) ask(what string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, what)
	if f.during != nil {
		f.during()
	}
	return f.files[what], f.down
}

// Refresh asks nobody where fresh says that this was done a moment ago.
func (f *fakeUpstreams) Refresh(ctx context.Context, asker did.DID, upstream, name string, anew bool) error {
	f.mu.Lock()
	f.asker = asker
	fresh := f.fresh
	f.mu.Unlock()
	if fresh && !anew {
		return nil
	}
	file, err := f.ask(name)
	if err != nil {
		return err
	}
	if file == "" {
		return fmt.Errorf("%w: upstream has none", registry.ErrNotFound)
	}
	_, err = f.registry.Import(ctx, upstream, name, []byte(file))
	return err
}

func (f *fakeUpstreams) Crate(ctx context.Context, _ string, want UpstreamCrate) (Incoming, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held[want.ID] {
		blob, err := f.registry.Blobs.Open(ctx, want.ID)
		if err == nil && f.evict != nil && f.evict(want) {
			delete(f.held, want.ID)
			err = f.remove(ctx, want.ID)
		}
		return &incoming{blob: blob}, err
	}
	f.asked = append(f.asked, want.Name+"@"+want.Version)
	if f.during != nil {
		f.during()
	}
	parts, ok := f.crates[want.ID]
	if !ok || f.down != nil {
		return nil, errors.Join(f.down, registry.ErrNotFound)
	}
	in := &incoming{parts: parts, arrived: f.arrived, looked: f.looked}
	for _, p := range parts {
		if in.size += int64(len(p.data)) + p.more; p.err != nil {
			in.size++ // what is held back until all was seen to be right
		}
	}
	if f.unsized {
		in.size = -1
	}
	return in, nil
}

func (f *fakeUpstreams) Open(ctx context.Context, _ string, want UpstreamCrate) (Incoming, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.held[want.ID] {
		return nil, storage.ErrNotFound
	}
	blob, err := f.registry.Blobs.Open(ctx, want.ID)
	if errors.Is(err, storage.ErrCorrupt) {
		delete(f.held, want.ID)
		return nil, storage.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	if f.evict != nil && f.evict(want) {
		delete(f.held, want.ID)
		err = f.remove(ctx, want.ID)
	}
	return &incoming{blob: blob, size: blob.Size()}, err
}

func (f *fakeUpstreams) Hold(ctx context.Context, upstream string, want UpstreamCrate) (int64, error) {
	if f.unheld != nil {
		return 0, f.unheld
	}
	in, err := f.Crate(ctx, upstream, want)
	if err != nil {
		return 0, err
	}
	if in.Held() != nil {
		return in.Held().Size(), in.Close()
	}
	all, err := io.ReadAll(in)
	if err == nil {
		err = f.registry.Blobs.Put(ctx, want.ID, int64(len(all)), bytes.NewReader(all))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held[want.ID] = err == nil
	if f.evict != nil && f.evict(want) {
		delete(f.held, want.ID)
		err = f.remove(ctx, want.ID)
	}
	return int64(len(all)), err
}

func (f *fakeUpstreams) Held(_ context.Context, _ string, ids []storage.CID) (map[storage.CID]bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	held := map[storage.CID]bool{}
	for _, id := range ids {
		held[id] = f.held[id]
	}
	return held, nil
}

func (f *fakeUpstreams) Alarms(_ context.Context, _ string, before int64, limit int, unseen bool) ([]UpstreamAlarm, error) {
	var found []UpstreamAlarm
	for _, a := range f.alarms {
		if (before == 0 || a.ID < before) && len(found) < limit && !(unseen && a.SeenBy != "") {
			found = append(found, a)
		}
	}
	return found, nil
}

// incoming is a crate from the parts of a fake, or one that is held.
type incoming struct {
	parts []part
	size  int64
	blob  storage.Blob
	// arrived is nil where it never is.
	arrived <-chan struct{}
	looked  func()
}

func (i *incoming) Size() int64 { return i.size }

func (i *incoming) Held() storage.Blob { return i.blob }

func (i *incoming) Arrived() <-chan struct{} { return i.arrived }

// Whole gives bytes that are not read otherwise.
func (i *incoming) Whole(ctx context.Context) (io.ReadCloser, error) {
	if i.blob != nil {
		return nil, nil
	}
	again := &incoming{parts: slices.Clone(i.parts)}
	all, err := io.ReadAll(again)
	if err != nil {
		return nil, err
	}
	i.size = int64(len(all))
	return io.NopCloser(&lookedInto{bytes.NewReader(all), i.looked}), err
}

// lookedInto calls looked, unless that is nil, when it is read.
type lookedInto struct {
	io.Reader
	looked func()
}

func (l *lookedInto) Read(p []byte) (int, error) {
	if l.looked != nil {
		l.looked()
	}
	return l.Reader.Read(p)
}

func (i *incoming) Close() error {
	if i.blob != nil {
		return i.blob.Close()
	}
	return nil
}

func (i *incoming) Read(p []byte) (int, error) {
	if len(i.parts) == 0 {
		return 0, io.EOF
	}
	next := &i.parts[0]
	if next.wait != nil {
		<-next.wait
	}
	n := copy(p, next.data)
	if err := next.err; err != nil {
		return n, err
	}
	i.parts = append([]part{{data: next.data[n:]}}, i.parts[1:]...)
	if i.parts[0].data == "" {
		i.parts = i.parts[1:]
	}
	return n, nil
}
