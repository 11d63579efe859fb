package cratesioproxy

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/storage"
)

// lab is a proxy of one upstream, everything around it in memory.
type lab struct {
	t        *testing.T
	server   *httptest.Server
	upstream *Upstream
	proxy    *Proxy
	evidence *evidence
	facts    *facts
	blobs    *blobs

	mu    sync.Mutex
	serve map[string]http.HandlerFunc
	asked map[string]int
	slept []time.Duration
	shift time.Duration // of the clock

	begun time.Time
	// slow makes sleeps take what they are said to, and this much more, by the elapsed time.
	slow    atomic.Int64
	elapsed atomic.Int64
}

// newLab starts an upstream and a proxy of it, and ends both: no goroutine stays.
func newLab(t *testing.T, change func(*Config)) *lab {
	t.Helper()
	before := runtime.NumGoroutine()
	l := &lab{t: t, begun: time.Now(), serve: map[string]http.HandlerFunc{}, asked: map[string]int{}}
	l.server = httptest.NewServer(l)
	l.on("/config.json", text(`{"dl":"`+l.server.URL+`/dl/{crate}/{version}","api":null}`))
	l.begin(t, change, Setting{Name: CratesIO, Index: l.server.URL + "/"})
	t.Cleanup(func() {
		l.proxy.Close()
		l.server.Close()
		for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				stacks := make([]byte, 64<<10)
				t.Fatalf("%d goroutines, and there were %d:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
			}
		}
		if used := l.upstream.spool.used(); used != 0 {
			t.Errorf("%d bytes of spool are never given back", used)
		}
	})
	return l
}

func (l *lab) begin(t *testing.T, change func(*Config), s Setting) {
	t.Helper()
	l.blobs = &blobs{held: map[storage.CID][]byte{}}
	l.evidence = &evidence{crates: map[string]Known{}}
	l.facts = &facts{files: map[string]File{}, blobs: map[storage.CID]Blob{}, sources: map[storage.CID]map[string]bool{}}
	c := Config{
		Evidence: l.evidence, Blobs: l.blobs, Facts: l.facts, Version: "1.2.3", PublicURL: "https://registry.example", Spool: t.TempDir(),
		Stall: 200 * time.Millisecond, Patience: 2 * time.Second, Ahead: -1,
		Clock:   func() time.Time { l.mu.Lock(); defer l.mu.Unlock(); return time.Unix(1_800_000_000, 0).Add(l.shift) },
		Elapsed: func() time.Duration { return time.Since(l.begun) + time.Duration(l.elapsed.Load()) },
		Random:  func() float64 { return 0.5 },
		Sleep:   l.sleep,
	}
	if change != nil {
		change(&c)
	}
	proxy, err := New(c, []Setting{s})
	if err != nil {
		t.Fatal(err)
	}
	l.proxy, l.upstream = proxy, proxy.Upstream(s.Name)
}

// sleep is short, whatever was asked for.
func (l *lab) sleep(ctx context.Context, d time.Duration) error {
	if d == noteDelay || d == storeDelay {
		return sleep(ctx, time.Millisecond)
	}
	l.mu.Lock()
	l.slept = append(l.slept, d)
	l.mu.Unlock()
	if slow := l.slow.Load(); slow > 0 {
		l.elapsed.Add(int64(d) + slow)
	}
	return sleep(ctx, time.Millisecond)
}

func (l *lab) pass(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shift += d
}

func (l *lab) on(path string, h http.HandlerFunc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serve[path] = h
}

func (l *lab) requests(path string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked[path]
}

// ServeHTTP implements http.Handler.
func (l *lab) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	l.asked[r.URL.Path]++
	h := l.serve[r.URL.Path]
	l.mu.Unlock()
	if h == nil {
		http.NotFound(w, r)
		return
	}
	h(w, r)
}

func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, s) }
}

func status(code int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

// tagged serves s with an ETag, and 304 to who has it.
func tagged(s, etag string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", etag)
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		io.WriteString(w, s)
	}
}

// line is an index line of a crate whose bytes are crateBytes(name, version).
func line(name, version string, deps ...string) string {
	sum := sha256.Sum256([]byte(name + version))
	l := cargo.Line{Name: name, Vers: version, Cksum: hex.EncodeToString(sum[:]), Deps: []cargo.Dep{}, Features: map[string][]string{}, V: 1}
	for _, d := range deps {
		l.Deps = append(l.Deps, cargo.Dep{Name: d, Req: "^1", Features: []string{}, DefaultFeatures: true, Kind: cargo.KindNormal})
	}
	return string(l.Marshal())
}

func (l *lab) refresh(name string) error {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 10*time.Second)
	defer cancel()
	return l.upstream.Refresh(ctx, name)
}

// crate makes bytes, and how they are asked for.
func crate(name string, size int) ([]byte, Want) {
	data := bytes.Repeat([]byte(name+"/"), size/(len(name)+1)+1)[:size]
	return data, Want{Name: name, Version: "1.0.0", ID: storage.CIDOf(data)}
}

func dlPath(w Want) string { return "/dl/" + w.Name + "/" + w.Version }

// read reads a crate whole.
func (l *lab) read(w Want) ([]byte, error) {
	ctx, cancel := context.WithTimeout(l.t.Context(), 10*time.Second)
	defer cancel()
	c, err := l.upstream.Crate(ctx, w)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return io.ReadAll(c)
}

// until waits for what happens apart.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never happens that %s", what)
		}
	}
}

type evidence struct {
	mu       sync.Mutex
	crates   map[string]Known
	imported []string // snapshots
	private  string   // a prefix
	err      error
	finds    Imported
	versions int    // known of each crate
	claims   int    // and other digests
	during   func() // Import
}

func (e *evidence) Import(_ context.Context, upstream, crate string, snapshot []byte) (Imported, error) {
	if e.during != nil {
		e.during()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return Imported{}, e.err
	}
	f, err := cargo.ParseUpstreamFile(crate, snapshot)
	if err != nil {
		return Imported{}, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	key := upstream + " " + cargo.CanonicalName(crate)
	e.crates[key] = Known{Name: cmp.Or(f.Name, e.crates[key].Name), Snapshot: storage.CIDOf(snapshot)}
	e.imported = append(e.imported, string(snapshot))
	return e.finds, nil
}

func (e *evidence) Known(_ context.Context, upstream, canonical string) (Known, bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	k, ok := e.crates[upstream+" "+canonical]
	k.Versions, k.Claims = e.versions, e.claims
	return k, ok, nil
}

func (e *evidence) PrivateName(canonical string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.private != "" && strings.HasPrefix(canonical, e.private)
}

func (e *evidence) makePrivate(prefix string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.private = prefix
}

func (e *evidence) imports() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.imported)
}

type facts struct {
	mu    sync.Mutex
	files map[string]File
	blobs map[storage.CID]Blob
	// sources are who served them.
	sources map[storage.CID]map[string]bool
	used    []storage.CID
	alarms  []Alarm
	refuse  int                 // as many times, to note blobs
	taken   map[storage.CID]int // how often blobs are removed before they are noted
	// settling are blobs that cannot be noted yet.
	settling map[storage.CID]bool
}

func (f *facts) File(_ context.Context, upstream, name string) (File, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	file, ok := f.files[upstream+" "+name]
	return file, ok, nil
}

func (f *facts) PutFiles(_ context.Context, files []File) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, file := range files {
		f.files[file.Upstream+" "+file.Name] = file
	}
	return nil
}

func (f *facts) HasBlob(_ context.Context, upstream string, id storage.CID) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.blobs[id]
	ok = ok && f.sources[id][upstream]
	return ok, nil
}

func (f *facts) PutBlobs(_ context.Context, list []Blob) (map[storage.CID]error, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse > 0 {
		f.refuse--
		return nil, errors.New("no database")
	}
	unheld := map[storage.CID]error{}
	for _, b := range list {
		switch f.taken[b.ID] {
		case 0:
			f.blobs[b.ID] = b
			if f.sources[b.ID] == nil {
				f.sources[b.ID] = map[string]bool{}
			}
			f.sources[b.ID][b.Upstream] = true
		default:
			f.taken[b.ID]--
			unheld[b.ID] = ErrGone
		}
	}
	return unheld, nil
}

func (f *facts) Settling(_ context.Context, id storage.CID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.settling[id] {
		return ErrSettling
	}
	return nil
}

func (f *facts) UsedBlobs(_ context.Context, ids []storage.CID, _ time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.used = append(f.used, ids...)
	return nil
}

func (f *facts) PutAlarm(_ context.Context, a Alarm) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.alarms = append(f.alarms, a)
	return nil
}

func (f *facts) kinds() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	kinds := []string{}
	for _, a := range f.alarms {
		kinds = append(kinds, a.Kind)
	}
	return strings.Join(kinds, " ")
}

// blobs holds blobs in memory.
type blobs struct {
	storage.Blobs
	mu   sync.Mutex
	held map[storage.CID][]byte
	err  error // of Put
	puts atomic.Int64
	// rotten is why what is stored cannot be opened, away why the store cannot be asked.
	rotten map[storage.CID]error
	away   error
}

func (b *blobs) Put(ctx context.Context, id storage.CID, size int64, r io.Reader) error {
	b.puts.Add(1)
	var data bytes.Buffer
	if err := storage.CopyVerified(ctx, &data, r, id, size); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return b.err
	}
	b.held[id] = data.Bytes()
	delete(b.rotten, id)
	return nil
}

func (b *blobs) Open(_ context.Context, id storage.CID) (storage.Blob, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	data, ok := b.held[id]
	switch {
	case b.away != nil:
		return nil, b.away
	case b.rotten[id] != nil:
		return nil, b.rotten[id]
	case !ok:
		return nil, storage.ErrNotFound
	}
	return opened{bytes.NewReader(data)}, nil
}

func (b *blobs) Stat(_ context.Context, id storage.CID) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	data, ok := b.held[id]
	switch {
	case b.away != nil:
		return 0, b.away
	case !ok:
		return 0, storage.ErrNotFound
	}
	return int64(len(data)), nil
}

func (b *blobs) has(id storage.CID) bool {
	_, err := b.Stat(context.Background(), id)
	return err == nil
}

type opened struct{ *bytes.Reader }

func (o opened) Size() int64  { return o.Reader.Size() }
func (o opened) Close() error { return nil }
