package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/registry/cargo"
)

// faultLab is a lab whose server reaches both of its engines through proxies:
// Postgres by TLS, since its protocol has no sums of its own.
type faultLab struct {
	*mortalLab
	objects, database *testbed.Proxy
	token             string
	// read counts what readers got: bodies that are right, refusals, connections that broke.
	right, refused, broken atomic.Int64
}

func newFaultLab(t *testing.T, seed uint64, rng *rand.Rand) *faultLab {
	t.Helper()
	m := mortals{}.onMortalPostgres(t).onMortal(t, testbed.MinIO(t))
	objects := testbed.NewHTTPProxy(t, strings.TrimPrefix(m.objects.Endpoint, "http://"), seed)
	database := testbed.NewProxy(t, m.postgres.Address(), seed)
	m.db = m.postgres.TLSURL(m.db, database.Address())
	m.blobs = strings.ReplaceAll(m.blobs, m.objects.Endpoint, "http://"+objects.Address())
	if _, err := url.Parse(m.blobs); err != nil {
		t.Fatal(err)
	}
	f := &faultLab{mortalLab: newMortalLab(t, m, rng, "--cache-mb", "1"), objects: objects, database: database}
	for i, size := range []int{1_500_000, 5_000_000} { // more than is kept in memory, or read into it
		if err := f.release(f.ctx, newRelease(rng, 0, "large", fmt.Sprintf("0.0.%d", i), size)); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if f.token, err = f.people[0].token(f.ctx, "read", release{}); err != nil {
		t.Fatal(err)
	}
	return f
}

// phase is a time of faults.
type phase struct {
	name              string
	objects, database testbed.Plan
	lasts             time.Duration
	// cut: connections that are open are reset at its beginning.
	cut bool
}

func chances(each float64, of ...testbed.Harm) map[testbed.Harm]float64 {
	all := map[testbed.Harm]float64{}
	for _, h := range of {
		all[h] = each
	}
	return all
}

// phases are all faults by themselves, and some at once.
func phases() []phase {
	cuts := []testbed.Harm{testbed.CutRequest, testbed.CutBefore, testbed.CutResponse, testbed.Truncate}
	everything := append(slices.Clone(cuts), testbed.Delay, testbed.FlipRequest, testbed.FlipResponse)
	ofHTTP := []testbed.Harm{testbed.Fail, testbed.SlowDown, testbed.Lose, testbed.Exists, testbed.Absent, testbed.Shorten}
	const s = time.Second
	return []phase{
		{name: "the store answers 5xx", objects: testbed.Plan{Chance: chances(0.1, testbed.Fail, testbed.SlowDown, testbed.Lose)}, lasts: 4 * s},
		{name: "connections to the store are cut", objects: testbed.Plan{Chance: chances(0.06, cuts...)}, lasts: 4 * s},
		{name: "the store's bytes are not what they were", objects: testbed.Plan{Chance: chances(0.1, testbed.FlipRequest, testbed.FlipResponse, testbed.Shorten)}, lasts: 4 * s},
		{name: "the store tells untruths", objects: testbed.Plan{Chance: chances(0.2, testbed.Exists, testbed.Absent)}, lasts: 4 * s},
		{name: "the store is slow", objects: testbed.Plan{Chance: chances(0.3, testbed.Delay), Longest: 400 * time.Millisecond}, lasts: 3 * s},
		{name: "the store is gone", objects: testbed.Plan{Refused: true}, lasts: 3 * s, cut: true},
		{name: "the store is silent", objects: testbed.Plan{Apart: true}, lasts: 4 * s},
		{name: "connections to the database are cut", database: testbed.Plan{Chance: chances(0.003, cuts...)}, lasts: 5 * s},
		{name: "the database's bytes are not what they were", database: testbed.Plan{Chance: chances(0.006, testbed.FlipRequest, testbed.FlipResponse)}, lasts: 4 * s},
		{name: "the database is slow", database: testbed.Plan{Chance: chances(0.2, testbed.Delay), Longest: 200 * time.Millisecond}, lasts: 3 * s},
		{name: "the database is gone", database: testbed.Plan{Refused: true}, lasts: 3 * s, cut: true},
		{name: "the database is silent", database: testbed.Plan{Apart: true}, lasts: 8 * s},
		{
			name: "everything", lasts: 6 * s,
			objects:  testbed.Plan{Chance: chances(0.01, append(slices.Clone(everything), ofHTTP...)...), Longest: 300 * time.Millisecond},
			database: testbed.Plan{Chance: chances(0.001, everything...), Longest: 300 * time.Millisecond},
		},
	}
}

// Whatever happens between a server and its engines: no wrong byte is served,
// nothing is acknowledged that is not there afterwards, every refusal is one that
// says to come back, and what it took is given back.
func TestFaultsBetweenServerAndEngines(t *testing.T) {
	if *soakFolder == "" {
		t.Parallel()
		throughFaults(t, crashSeed(t))
		return
	}
	s, name := openSoak(t), "faults on PostgreSQL and MinIO"
	for {
		now := s.note(t, name, func(one *soaked) {})
		if now.Done >= soakFaults || t.Failed() {
			return
		}
		seed := s.Seed + uint64(now.Labs)
		s.note(t, name, func(one *soaked) { one.Labs++ })
		t.Run(fmt.Sprintf("round %d", now.Labs), func(t *testing.T) {
			began := time.Now()
			f := throughFaults(t, seed)
			one := s.note(t, name, func(one *soaked) {
				one.Done++
				one.Acknowledged += f.acknowledgements()
				one.Seconds += time.Since(began).Seconds()
				one.Killed["exchanges with the object store"] += f.objects.Exchanges()
				one.Killed["turns with the database"] += f.database.Exchanges()
			})
			s.say("faults: %d rounds, %d changes acknowledged, none lost", one.Done, one.Acknowledged)
		})
		if t.Failed() {
			s.note(t, name, func(one *soaked) { one.Failures = append(one.Failures, fmt.Sprint("seed ", seed)) })
		}
	}
}

// throughFaults goes through all phases once.
func throughFaults(t *testing.T, seed uint64) *faultLab {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	f := newFaultLab(t, seed, rng)
	f.during(phase{name: "nothing", lasts: 4 * time.Second})
	before := f.levels()
	all := phases()
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, p := range all {
		f.during(p)
		if t.Failed() {
			t.Fatalf("seed %d, while %s; the server said:\n%s", seed, p.name, f.lastWords())
		}
	}
	f.during(phase{name: "nothing", lasts: 2 * time.Second})
	f.check()
	f.fsck()
	f.backTo(before)
	t.Logf("%s", f.mortalLab)
	t.Logf("readers: %d right bodies, %d refusals, %d broken connections", f.right.Load(), f.refused.Load(), f.broken.Load())
	t.Logf("object store: %s", f.objects)
	t.Logf("database: %s", f.database)
	if t.Failed() {
		t.Logf("the server said:\n%s", f.lastWords())
	}
	return f
}

// during loads the server while p lasts, and waits until it has recovered.
func (f *faultLab) during(p phase) {
	f.t.Helper()
	began := time.Now()
	acknowledged, right, refused, broken := f.acknowledgements(), f.right.Load(), f.refused.Load(), f.broken.Load()
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	f.objects.Use(p.objects)
	f.database.Use(p.database)
	if p.cut {
		f.objects.CutAll()
		f.database.CutAll()
	}
	f.dying.Store(p.name != "nothing")
	var load sync.WaitGroup
	for i, who := range f.people {
		who.reconnect()
		rng := rand.New(rand.NewPCG(f.rng.Uint64(), uint64(i)))
		load.Go(func() { f.publishUntil(ctx, i, rng, victims{}) })
	}
	for range 2 {
		rng := rand.New(rand.NewPCG(f.rng.Uint64(), 9))
		load.Go(func() { f.readUntil(ctx, rng) })
	}
	select {
	case <-time.After(p.lasts):
	case <-f.ctx.Done():
	}
	f.objects.Use(testbed.Plan{})
	f.database.Use(testbed.Plan{})
	cancel()
	load.Wait()
	over := time.Now()
	f.settle()
	f.t.Logf("%-45s %3d acknowledged, %4d read, %4d refused, %d broken; %.1f s, recovered in %.1f s", p.name, f.acknowledgements()-acknowledged,
		f.right.Load()-right, f.refused.Load()-refused, f.broken.Load()-broken, over.Sub(began).Seconds(), time.Since(over).Seconds())
}

func (f *survivor) acknowledgements() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.acknowledged) + len(f.changes)
}

// readUntil reads what was acknowledged, in all the ways there are.
func (f *faultLab) readUntil(ctx context.Context, rng *rand.Rand) {
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}, Timeout: 40 * time.Second}
	defer client.CloseIdleConnections()
	for ctx.Err() == nil && !f.t.Failed() {
		a, ok := f.someAcknowledged(rng)
		if !ok {
			continue
		}
		download := "/api/v1/crates/" + a.name + "/" + a.version + "/download"
		switch rng.IntN(5) {
		case 0, 1:
			f.read(ctx, client, download, "", func(body []byte) bool { return bytes.Equal(body, a.crate) })
		case 2:
			from := rng.IntN(len(a.crate))
			to := from + rng.IntN(len(a.crate)-from)
			f.read(ctx, client, download, fmt.Sprintf("bytes=%d-%d", from, to), func(body []byte) bool { return bytes.Equal(body, a.crate[from:to+1]) })
		case 3:
			f.read(ctx, client, "/v1/artifacts/crate/"+a.name+"/"+a.version+"/content", "", func(body []byte) bool { return bytes.Equal(body, a.crate) })
		case 4:
			f.read(ctx, client, "/index/"+cargo.IndexPath(a.name), "", func(body []byte) bool { return listed(body, a.release) })
		}
		time.Sleep(5 * time.Millisecond) // the publishers want their share
	}
}

func (f *survivor) someAcknowledged(rng *rand.Rand) (acknowledged, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.acknowledged) == 0 {
		return acknowledged{}, false
	}
	keys := make([]string, 0, len(f.acknowledged))
	for key := range f.acknowledged {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return f.acknowledged[keys[rng.IntN(len(keys))]], true
}

// listed says whether an index file is whole and lists r as it is.
func listed(file []byte, r release) bool {
	found := false
	for line := range bytes.Lines(file) {
		var entry struct{ Name, Vers, Cksum string }
		if err := json.Unmarshal(line, &entry); err != nil || entry.Name != r.name {
			return false
		}
		found = found || entry.Vers == r.version && entry.Cksum == r.cid.Hex()
	}
	return found && bytes.HasSuffix(file, []byte("\n"))
}

// read fetches path; what comes must be right, or a refusal that says to come back.
func (f *faultLab) read(ctx context.Context, client *http.Client, path, byteRange string, right func([]byte) bool) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.reached()+path, nil)
	if err != nil {
		f.t.Error(err)
		return
	}
	req.Header.Set("Authorization", f.token)
	if byteRange != "" {
		req.Header.Set("Range", byteRange)
	}
	resp, err := client.Do(req)
	if err != nil {
		if ctx.Err() == nil {
			f.broken.Add(1)
		}
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		if ctx.Err() == nil {
			f.broken.Add(1)
		}
	case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "":
		f.refused.Add(1)
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent:
		f.t.Errorf("GET %s: %d %s", path, resp.StatusCode, body[:min(len(body), 200)])
	case !right(body):
		f.t.Errorf("GET %s %s: %d bytes that are not what was published", path, byteRange, len(body))
	default:
		f.right.Add(1)
	}
}

// levels are what a server at rest takes.
type levels struct {
	goroutines, files float64
	resident          int64
}

// mostGrown is what a server may take more than before: caches have filled since.
var mostGrown = levels{goroutines: 12, files: 12, resident: 96 << 20}

func (f *faultLab) levels() levels {
	f.t.Helper()
	_, text := f.scrape("/metrics")
	return levels{figure(f.t, text, "go_goroutines"), figure(f.t, text, "process_open_fds"), f.residentNow()}
}

func (f *faultLab) residentNow() int64 {
	f.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", f.cmd.Process.Pid))
	if err != nil {
		f.t.Fatal(err)
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		f.t.Fatal(err)
	}
	return resident * int64(os.Getpagesize())
}

// backTo waits until the server takes no more than before.
func (f *faultLab) backTo(before levels) {
	f.t.Helper()
	var now levels
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		now = f.levels()
		if now.goroutines <= before.goroutines+mostGrown.goroutines && now.files <= before.files+mostGrown.files && now.resident <= before.resident+mostGrown.resident {
			f.t.Logf("goroutines %.0f, then %.0f; open files %.0f, then %.0f; resident %d MiB, then %d", before.goroutines, now.goroutines,
				before.files, now.files, before.resident>>20, now.resident>>20)
			return
		}
	}
	f.t.Errorf("a minute after the faults it takes %+v, before %+v", now, before)
}
