package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
)

// mortals is a pair of engines of a test's own, which may be killed.
type mortals struct {
	pair
	postgres *testbed.PG       // nil: SQLite
	objects  *testbed.S3Server // nil: a folder
	// slow is an object store that takes long to come back.
	slow bool
}

// onMortalPostgres is onPostgres with a server of t's own, onMortal onBucket likewise.
func (m mortals) onMortalPostgres(t testing.TB) mortals {
	t.Helper()
	m.postgres = testbed.Postgres(t)
	m.db = m.postgres.URL
	return m
}

func (m mortals) onMortal(t testing.TB, s *testbed.S3Server) mortals {
	t.Helper()
	m.objects, m.pair = s, m.onBucket(t, s)
	return m
}

type mortalPair struct {
	name  string
	kills int // in `make test`
	labs  int // that share them
	open  func(t testing.TB) mortals
}

// embedded is the pair whose crash test is another one, but for `make soak`.
var embedded = mortalPair{name: "SQLite and a folder", open: func(testing.TB) mortals { return mortals{} }}

// mortalPairs are the pairs of engines whose crash tests are alike; Ceph's are few,
// since it takes 16 s to come back.
var mortalPairs = []mortalPair{
	{"SQLite and MinIO", 40, 2, func(t testing.TB) mortals { return mortals{}.onMortal(t, testbed.MinIO(t)) }},
	{"PostgreSQL and a folder", 40, 2, func(t testing.TB) mortals { return mortals{}.onMortalPostgres(t) }},
	{"PostgreSQL and MinIO", 40, 2, func(t testing.TB) mortals { return mortals{}.onMortalPostgres(t).onMortal(t, testbed.MinIO(t)) }},
	{"PostgreSQL and Ceph", 4, 1, func(t testing.TB) mortals {
		m := mortals{}.onMortalPostgres(t).onMortal(t, testbed.Ceph(t))
		m.slow = true
		return m
	}},
}

// mortalLab is a survivor whose engines are killed, too.
type mortalLab struct {
	*survivor
	mortal mortals
	// scraped is where the server's figures are to be had.
	scraped string
	// killed counts what was killed.
	killed map[string]int
}

func newMortalLab(t *testing.T, m mortals, rng *rand.Rand, flags ...string) *mortalLab {
	t.Helper()
	scraped := steadyAddress(t)
	l := prepareLabOn(t, m.pair, append(flags, "--metrics-listen", scraped)...)
	s := &mortalLab{survivor: surviving(t, l, rng), mortal: m, scraped: "http://" + scraped, killed: map[string]int{}}
	s.start()
	t.Cleanup(func() { s.stop() })
	must(t, l.operator.aln(l.operator.folder, "login", l.reached()))
	s.people = s.lab.people(s.ctx, crashPublishers)
	s.foundShared()
	return s
}

func TestNothingAcknowledgedIsLostWhicheverEngineIsKilled(t *testing.T) {
	if *soakFolder != "" {
		s := openSoak(t)
		for p, pair := range append(mortalPairs, embedded) {
			t.Run(pair.name, func(t *testing.T) {
				t.Parallel()
				s.kills(t, p, pair)
			})
		}
		return
	}
	t.Parallel()
	seed := crashSeed(t)
	for p, pair := range mortalPairs {
		for n := range pair.labs {
			t.Run(fmt.Sprintf("%s %d", pair.name, n), func(t *testing.T) {
				t.Parallel()
				s := newMortalLab(t, pair.open(t), rand.New(rand.NewPCG(seed, uint64(100*p+n))))
				for k := range pair.kills / pair.labs {
					s.oneKill(k)
					if t.Failed() {
						t.Fatalf("seed %d, kill %d; the server said:\n%s", seed, k, s.lastWords())
					}
				}
				t.Log(s)
			})
		}
	}
}

func (s *mortalLab) String() string {
	return fmt.Sprintf("%v; %d releases and %d other changes were acknowledged", s.killed, len(s.acknowledged), len(s.changes))
}

// victims are processes that end at once.
type victims struct {
	server, postgres bool
	// objects are daemons of the object store, {"all"} for all of them.
	objects []string
}

func (v victims) String() string {
	var names []string
	if v.server {
		names = append(names, "server")
	}
	if v.postgres {
		names = append(names, "postgres")
	}
	return strings.Join(append(names, v.objects...), "+")
}

// someVictims draws whom to kill: one of the engines or the server, or all at once,
// as when a machine loses its power.
func (s *mortalLab) someVictims() victims {
	var each []victims
	if s.mortal.postgres != nil {
		each = append(each, victims{postgres: true})
	}
	if s.mortal.objects != nil {
		each = append(each, victims{objects: []string{"all"}})
	}
	all := victims{server: true, postgres: s.mortal.postgres != nil}
	if s.mortal.objects != nil {
		all.objects = []string{"all"}
	}
	if s.mortal.slow {
		each = append(each, victims{objects: []string{"rgw"}})
	}
	each = append(each, victims{server: true}, all)
	return each[s.rng.IntN(len(each))]
}

// oneKill loads the server, kills something, brings it back and looks.
func (s *mortalLab) oneKill(number int) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	victims := s.someVictims()
	s.killed[victims.String()]++
	var load sync.WaitGroup
	s.dying.Store(false)
	for i, p := range s.people {
		p.reconnect()
		rng := rand.New(rand.NewPCG(s.rng.Uint64(), uint64(i)))
		load.Go(func() { s.publishUntil(ctx, i, rng, victims) })
	}
	load.Go(func() { s.watchCheckpoint(ctx) })
	s.awaitChanges(s.rng.IntN(5))
	s.awaitPoint()
	s.dying.Store(true)
	s.end(victims)
	if !victims.server {
		time.Sleep(time.Duration(s.rng.IntN(400)) * time.Millisecond) // changes are asked for that cannot be made
	}
	cancel()
	load.Wait()
	s.begin(victims)
	s.settle()
	if number%10 == 9 && s.mortal.postgres != nil {
		s.stop()
		s.rebuildSame()
		s.start()
	}
	s.check()
	s.fsck()
}

// awaitPoint waits for a moment to kill.
func (s *mortalLab) awaitPoint() {
	if s.data != "" {
		awaitPoint(s.data, s.rng)
		return
	}
	time.Sleep(time.Duration(s.rng.IntN(250_000)) * time.Microsecond)
}

func (s *mortalLab) end(v victims) {
	var all sync.WaitGroup
	if v.server {
		all.Go(s.kill)
	}
	if v.postgres {
		all.Go(s.mortal.postgres.Kill)
	}
	switch {
	case slices.Contains(v.objects, "all"):
		all.Go(func() { s.mortal.objects.Kill() })
	case v.objects != nil:
		all.Go(func() { s.mortal.objects.Kill(v.objects...) })
	}
	all.Wait()
}

// begin starts what was killed: all at once and in whatever order it comes up.
func (s *mortalLab) begin(v victims) {
	s.t.Helper()
	var engines sync.WaitGroup
	if v.postgres {
		engines.Go(s.mortal.postgres.Start)
	}
	if v.objects != nil {
		engines.Go(func() {
			if err := s.mortal.objects.Start(); err != nil {
				s.t.Errorf("start the object store: %v", err)
			}
		})
	}
	if v.server && s.rng.IntN(2) == 0 { // it waits for its engines
		if err := s.launch(); err != nil {
			s.t.Error(err)
		}
		if s.rng.IntN(2) == 0 {
			time.Sleep(time.Duration(s.rng.IntN(300)) * time.Millisecond)
			s.kill()
		}
	}
	engines.Wait()
	if s.t.Failed() {
		s.t.FailNow()
	}
	switch {
	case s.cmd == nil:
		s.start()
	case v.server:
		if err := s.awaitUp(); err != nil {
			s.t.Fatalf("%v\n%s", err, s.lastWords())
		}
	}
}

// publishUntil makes changes as person i until something is killed, and holds the
// refusals against what that may cause.
func (s *mortalLab) publishUntil(ctx context.Context, i int, rng *rand.Rand, v victims) {
	for ctx.Err() == nil && !s.t.Failed() {
		err := s.change(ctx, i, rng)
		var refused *refusal
		switch {
		case err == nil:
		case errors.As(err, &refused) && refused.status == http.StatusConflict:
			// Somebody else changed the shared crate first.
		case !s.dying.Load() && ctx.Err() == nil:
			s.t.Errorf("person %d, while everything runs: %v", i, err)
			return
		case v.server || ctx.Err() != nil:
			return
		case !unavailable(err):
			s.t.Errorf("person %d, while %s is gone: %v", i, v, err)
			return
		default:
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// unavailable says whether err is the answer of a server that cannot do it now:
// 503 and when to come back, or what the credential provider makes of it.
func unavailable(err error) bool {
	var refused *refusal
	if errors.As(err, &refused) {
		return refused.status == http.StatusServiceUnavailable && refused.retryAfter != ""
	}
	return strings.Contains(err.Error(), "the registry cannot do this now")
}

// settle waits until the server is ready and idle: what clients gave up waiting for
// has been done or not.
func (s *mortalLab) settle() {
	s.t.Helper()
	var last string
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if last = s.unsettled(); last == "" {
			return
		}
	}
	s.t.Fatalf("a minute after everything was back: %s; the server said:\n%s", last, s.lastWords())
}

func (s *mortalLab) unsettled() string {
	if status, body := s.scrape("/readyz"); status != http.StatusOK {
		return fmt.Sprintf("/readyz answers %d %s", status, body)
	}
	_, text := s.scrape("/metrics")
	// The one request is that for the figures.
	for name, idle := range map[string]float64{"aln_http_requests_in_flight": 1, "aln_log_queue_length": 0, "aln_log_batch_age_seconds": 0} {
		if value := figure(s.t, text, name); value != idle {
			return fmt.Sprintf("%s is %v", name, value)
		}
	}
	if published, committed := figure(s.t, text, "aln_log_published_entries"), figure(s.t, text, "aln_log_committed_entries"); published != committed {
		return fmt.Sprintf("%v entries are committed, %v published", committed, published)
	}
	return ""
}

// scrape asks on the address for figures.
func (s *mortalLab) scrape(path string) (int, string) {
	s.t.Helper()
	return scrape(s.t, s.scraped+path)
}

func scrape(t testing.TB, url string) (int, string) {
	t.Helper()
	client := &http.Client{Timeout: 30 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

// figure is the value of a figure without labels, 0 for one that is not there.
func figure(t testing.TB, text, name string) float64 {
	t.Helper()
	found := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(text)
	if found == nil {
		t.Fatalf("no %s among the figures:\n%s", name, text)
	}
	value, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// lastWords is the end of what the server printed, without requests that went well.
func (l *lab) lastWords() string {
	var lines []string
	for line := range strings.Lines(l.log()) {
		if !strings.Contains(line, "msg=request") || !strings.Contains(line, "status=200") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-80):], "")
}
