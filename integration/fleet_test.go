package integration

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/registry/cargo"
)

// fleet is a lab of several servers on one Postgres and one bucket, which people
// come to by one address.
type fleet struct {
	*survivor
	servers []*member
}

// member is one server of a fleet.
type member struct {
	*lab
	scraped string
	// database is what the server reaches Postgres by.
	database *testbed.Proxy
	// up says whether it runs, as far as it was not killed.
	up atomic.Bool
	// changing is held while it is killed or started.
	changing sync.Mutex
}

// address is where the server itself listens.
func (m *member) address() string { return strings.TrimPrefix(m.url, "http://") }

const fleetSize = 3

func newFleet(t *testing.T, seed uint64) *fleet {
	t.Helper()
	postgres := testbed.SharedPostgres(t)
	p := pair{db: postgres.URL}.onMinIO(t)
	l := prepareLabOn(t, p)
	f := &fleet{survivor: surviving(t, l, mathrand.New(mathrand.NewPCG(seed, 3)))}
	f.several = true
	flags := l.flags
	for i := range fleetSize {
		m := &member{lab: l, scraped: "http://" + steadyAddress(t), database: testbed.NewProxy(t, postgres.Address(), seed)}
		if i > 0 {
			m.lab = l.replica()
		}
		m.flags = slices.Clone(flags)
		m.flags[slices.Index(m.flags, p.db)] = strings.Replace(p.db, postgres.Address(), m.database.Address(), 1)
		m.flags = append(m.flags, "--metrics-listen", strings.TrimPrefix(m.scraped, "http://"))
		f.servers = append(f.servers, m)
		m.start()
		m.up.Store(true)
	}
	t.Cleanup(l.stop)
	must(t, l.operator.aln(l.operator.folder, "login", l.reached()))
	return f
}

// at is p as it speaks to one server alone.
func (p *publisher) at(t testing.TB, m *member) *publisher {
	t.Helper()
	other := newPublisher(t, p.base, p.home.Path())
	other.via = m.address()
	other.reconnect()
	return other
}

// asker gets what one server answers.
type asker struct {
	base   string
	client *http.Client
}

func newAsker(base string, m *member) *asker {
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, network, m.address())
	}
	return &asker{base: base, client: &http.Client{Transport: &http.Transport{DialContext: dial, DisableCompression: true}, Timeout: 30 * time.Second}}
}

// get is status 0 where there was no answer.
func (a *asker) get(path, token string) (status int, retryAfter string, body []byte) {
	req, err := http.NewRequest(http.MethodGet, a.base+path, nil)
	if err != nil {
		return 0, "", nil
	}
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return 0, "", nil
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	if err != nil {
		return 0, "", nil
	}
	return resp.StatusCode, resp.Header.Get("Retry-After"), body
}

const (
	fleetKills = 8
	// mostLag is how long a change may take from its acknowledgement to where all
	// other servers show it, for 99 of 100.
	mostLag = time.Second
)

// lags are how long acknowledged releases took to be seen on the other servers.
type lags struct {
	mu  sync.Mutex
	all []time.Duration
}

func (l *lags) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, d)
}

// at is the lag that part of all are below.
func (l *lags) at(part float64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(l.all))
	return sorted[min(len(sorted)-1, int(part*float64(len(sorted))))]
}

// One server of three is killed every few seconds while people publish and read by
// whichever answers: what is acknowledged is in the one log, once, and all of them
// show it.
func TestThreeServersOfWhichOneIsKilledEveryFewSeconds(t *testing.T) {
	seed := crashSeed(t)
	f := newFleet(t, seed)
	f.people = f.lab.people(f.ctx, crashPublishers)
	f.foundShared()
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	f.dying.Store(true)
	var load sync.WaitGroup
	var shown, settled lags
	for i := range f.people {
		rng := mathrand.New(mathrand.NewPCG(seed, uint64(10+i)))
		load.Go(func() { f.publishOn(ctx, i, rng, &shown) })
	}
	for i, m := range f.servers {
		rng := mathrand.New(mathrand.NewPCG(seed, uint64(20+i)))
		load.Go(func() { f.readFrom(ctx, m, rng) })
		load.Go(func() { f.watchSize(ctx, m) })
	}
	for k := range fleetKills {
		m := f.servers[f.rng.IntN(len(f.servers))]
		time.Sleep(time.Duration(500+f.rng.IntN(2000)) * time.Millisecond)
		m.crash()
		time.Sleep(time.Duration(f.rng.IntN(1500)) * time.Millisecond)
		m.comeBack()
		if t.Failed() {
			t.Fatalf("seed %d, kill %d; it said:\n%s", seed, k, m.lastWords())
		}
	}
	cancel()
	load.Wait()
	f.allSettled()
	f.quietLag(&settled)
	f.check()
	f.sameEverywhere()
	f.receiptsAreOfOneLog()
	f.fsck()
	t.Logf("%d kills; %d releases and %d other changes were acknowledged", fleetKills, len(f.acknowledged), len(f.changes))
	t.Logf("seen on the others, while servers were killed: %s at the median, %s at p99 of %d", shown.at(0.5), shown.at(0.99), len(shown.all))
	t.Logf("seen on the others, otherwise: %s at the median, %s at p99 of %d", settled.at(0.5), settled.at(0.99), len(settled.all))
	if settled.at(0.99) > mostLag {
		t.Errorf("it takes longer than %s", mostLag)
	}
}

func (m *member) crash() {
	m.changing.Lock()
	defer m.changing.Unlock()
	m.up.Store(false)
	m.kill()
}

func (m *member) comeBack() {
	m.t.Helper()
	m.changing.Lock()
	defer m.changing.Unlock()
	m.start()
	m.up.Store(true)
}

// publishOn makes changes, each until it is acknowledged, by whichever server
// answers, and looks when the others show it.
func (f *fleet) publishOn(ctx context.Context, i int, rng *mathrand.Rand, shown *lags) {
	token := f.readToken(i)
	for ctx.Err() == nil && !f.t.Failed() {
		err := f.change(ctx, i, rng)
		var refused *refusal
		switch {
		case err == nil:
			if last, ok := f.lastOf(i); ok {
				f.awaitEverywhere(ctx, last, token, shown)
			}
		case ctx.Err() != nil, errors.As(err, &refused) && refused.status == http.StatusConflict:
		case refused != nil && !unavailable(err):
			f.t.Errorf("person %d: %v", i, err)
		default: // a server that was killed, or cannot do it now
			f.people[i].reconnect()
			time.Sleep(20 * time.Millisecond)
		}
	}
}

func (f *fleet) readToken(i int) string {
	f.t.Helper()
	for range 100 {
		token, err := f.people[i].token(f.ctx, "read", release{})
		if err == nil {
			return token
		}
		time.Sleep(100 * time.Millisecond)
	}
	f.t.Error("no session to read with")
	return ""
}

// lastOf is the newest release of person i.
func (f *fleet) lastOf(i int) (acknowledged, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var last acknowledged
	found := false
	for _, a := range f.acknowledged {
		if a.who == i && (!found || a.index > last.index) {
			last, found = a, true
		}
	}
	return last, found
}

// awaitEverywhere waits until all servers that run show a, and notes how long it took.
func (f *fleet) awaitEverywhere(ctx context.Context, a acknowledged, token string, seen *lags) {
	began := time.Now()
	for _, m := range f.servers {
		asker := newAsker(f.reached(), m)
		for ctx.Err() == nil && m.up.Load() {
			status, _, body := asker.get("/index/"+cargo.IndexPath(a.name), token)
			if status == http.StatusOK && listed(body, a.release) {
				seen.add(time.Since(began))
				break
			}
			if time.Since(began) > 20*time.Second {
				f.t.Errorf("%s is not shown by %s 20 seconds after it was acknowledged: %d %s", a.key(), m.url, status, body)
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		asker.client.CloseIdleConnections()
	}
}

// readFrom reads what was acknowledged long enough ago from one server: as long as
// it answers, it answers right.
func (f *fleet) readFrom(ctx context.Context, m *member, rng *mathrand.Rand) {
	asker, token := newAsker(f.reached(), m), f.readToken(0)
	known := map[string]time.Time{}
	for ctx.Err() == nil && !f.t.Failed() {
		time.Sleep(10 * time.Millisecond)
		a, ok := f.someAcknowledged(rng)
		if !ok {
			continue
		}
		if _, ok := known[a.key()]; !ok {
			known[a.key()] = time.Now()
		}
		switch status, retryAfter, body := asker.get(downloadPath(a.name, a.version), token); {
		case status == 0 || status == http.StatusServiceUnavailable && retryAfter != "":
		case status == http.StatusNotFound && time.Since(known[a.key()]) < 10*time.Second:
		case status != http.StatusOK || string(body) != string(a.crate):
			f.t.Errorf("%s from %s: %d, %d bytes: %.200s", a.key(), m.url, status, len(body), body)
		}
	}
}

// watchSize: what one server shows never shrinks, whether it was killed or not.
func (f *fleet) watchSize(ctx context.Context, m *member) {
	asker, last := newAsker(f.reached(), m), int64(0)
	for ctx.Err() == nil {
		if status, _, note := asker.get("/log/checkpoint", ""); status == http.StatusOK {
			size := client.Pin{Checkpoint: note}.Size()
			if size < last {
				f.t.Errorf("%s shows %d entries after %d", m.url, size, last)
			}
			last = size
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// allSettled waits until all servers are ready and show the same.
func (f *fleet) allSettled() {
	f.t.Helper()
	eventually(f.t, 60*time.Second, "all servers are ready and idle", func() bool {
		sizes := map[float64]bool{}
		for _, m := range f.servers {
			if status, _ := scrape(f.t, m.scraped+"/readyz"); status != http.StatusOK {
				return false
			}
			_, text := scrape(f.t, m.scraped+"/metrics")
			if figure(f.t, text, "aln_http_requests_in_flight") != 1 || figure(f.t, text, "aln_log_queue_length") != 0 || figure(f.t, text, "aln_log_batch_age_seconds") != 0 {
				return false
			}
			sizes[figure(f.t, text, "aln_log_published_entries")] = true
		}
		return len(sizes) == 1
	})
}

// quietLag publishes by each server in turn while all of them run.
func (f *fleet) quietLag(seen *lags) {
	f.t.Helper()
	token := f.readToken(0)
	for i := range 60 {
		p := f.people[0].at(f.t, f.servers[i%len(f.servers)])
		r := newRelease(f.rng, 0, "p0-a", fmt.Sprintf("1.0.%d", i), 300)
		got, err := p.publish(f.ctx, r)
		if err != nil {
			f.t.Errorf("%s by %s: %v", r.key(), p.via, err)
			return
		}
		f.mu.Lock()
		f.acknowledged[r.key()] = acknowledged{r, got}
		f.mu.Unlock()
		f.awaitEverywhere(f.ctx, acknowledged{r, got}, token, seen)
	}
}

// sameEverywhere replays the log of each server.
func (f *fleet) sameEverywhere() {
	f.t.Helper()
	notes := map[string]bool{}
	for _, m := range f.servers {
		auditor := newPublisher(f.t, f.reached(), f.operator.home)
		pin, err := auditor.home.PinOf(f.reached())
		if err != nil {
			f.t.Fatal(err)
		}
		pin.Checkpoint = f.seen
		reader := client.New(client.Config{Home: auditor.home, HTTP: newAsker(f.reached(), m).client.Transport, Now: time.Now, Rand: rand.Reader, Version: "test"})
		registry, err := reader.Registry(pin)
		if err != nil {
			f.t.Fatal(err)
		}
		auditLog(f.ctx, f.t, registry)
		_, _, note := newAsker(f.reached(), m).get("/log/checkpoint", "")
		body, _, _ := strings.Cut(string(note), "\n\n")
		notes[body] = true
	}
	if len(notes) != 1 {
		f.t.Errorf("the servers show different logs: %v", notes)
	}
}

// receiptsAreOfOneLog: no two changes were told the same index.
func (f *fleet) receiptsAreOfOneLog() {
	f.t.Helper()
	at := map[int64]string{}
	for key, a := range f.acknowledged {
		if other, ok := at[a.index]; ok {
			f.t.Errorf("%s and %s were both acknowledged at %d", key, other, a.index)
		}
		at[a.index] = key
	}
	for _, c := range f.changes {
		if other, ok := at[c.index]; ok && other != string(c.record) {
			f.t.Errorf("%s and %s were both acknowledged at %d", c.record, other, c.index)
		}
		at[c.index] = string(c.record)
	}
}
