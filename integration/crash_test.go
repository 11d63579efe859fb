package integration

import (
	"context"
	cryptorand "crypto/rand"
	endian "encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/client"
)

// The kills: crashLabs data folders, each killed crashKills times under load.
const (
	crashLabs       = 16
	crashKills      = 13
	crashPublishers = 3
	genesisKills    = 30
)

// crashSeed is the seed of this run. ALN_CRASH_SEED repeats one: the same
// changes are asked for and the same moments chosen, as far as a scheduler lets.
func crashSeed(t *testing.T) uint64 {
	t.Helper()
	seed, err := strconv.ParseUint(os.Getenv("ALN_CRASH_SEED"), 10, 64)
	if err != nil {
		var raw [8]byte
		cryptorand.Read(raw[:])
		seed = endian.LittleEndian.Uint64(raw[:])
	}
	t.Logf("to repeat: ALN_CRASH_SEED=%d", seed)
	return seed
}

// newCrashLab is newLab for servers that come and go.
func newCrashLab(t *testing.T) *lab {
	t.Helper()
	folder := t.TempDir()
	return &lab{t: t, data: filepath.Join(folder, "data"), url: "http://" + steadyAddress(t), operator: newUserIn(t, filepath.Join(folder, "operator"))}
}

// survivor is a lab whose server is killed, with everything that must outlive it.
type survivor struct {
	*lab
	ctx    context.Context
	rng    *rand.Rand
	people []*publisher
	dying  atomic.Bool // the kill is on its way, errors are to be expected
	// several servers answer: one may show a change a moment after another.
	several bool

	mu sync.Mutex
	// acknowledged are the releases that were answered with success, changes the
	// other changes, open the releases that got no answer or a refusal.
	acknowledged map[string]acknowledged
	changes      []receipt
	open         map[string]release
	downloaded   map[string]bool
	serial       int
	// kept are records read before, checks the number of checks made.
	kept   keptRecords
	checks int
	// seen is the last checkpoint that was served.
	seen []byte
	// yanked and owners are what the log said after the last restart.
	yanked map[string]bool
	owners map[string][]string
}

type acknowledged struct {
	release
	receipt
}

func newSurvivor(t *testing.T, rng *rand.Rand) *survivor { return surviving(t, newCrashLab(t), rng) }

func surviving(t *testing.T, l *lab, rng *rand.Rand) *survivor {
	return &survivor{
		lab: l, ctx: t.Context(), rng: rng,
		acknowledged: map[string]acknowledged{}, open: map[string]release{}, yanked: map[string]bool{}, owners: map[string][]string{}, downloaded: map[string]bool{},
	}
}

// shared is the crate that all people own.
const shared = "shared"

func (s *survivor) foundShared() {
	s.t.Helper()
	if err := s.release(s.ctx, newRelease(s.rng, 0, shared, "0.0.0", 10)); err != nil {
		s.t.Fatal(err)
	}
	for _, p := range s.people[1:] {
		if _, err := s.people[0].owner(s.ctx, shared, p.did, false); err != nil {
			s.t.Fatal(err)
		}
	}
}

func TestNothingAcknowledgedIsLostHoweverOftenTheServerIsKilled(t *testing.T) {
	seed := crashSeed(t)
	for n := range crashLabs {
		t.Run(fmt.Sprintf("folder %d", n), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, uint64(n)))
			s := newSurvivor(t, rng)
			s.start()
			t.Cleanup(s.stop)
			s.people = s.lab.people(s.ctx, crashPublishers)
			s.foundShared()
			for k := range crashKills {
				s.oneKill(n*crashKills + k)
				if t.Failed() {
					t.Fatalf("seed %d, kill %d; the server said:\n%s", seed, k, s.log())
				}
			}
			t.Logf("%d releases and %d other changes were acknowledged", len(s.acknowledged), len(s.changes))
		})
	}
}

// oneKill loads the server, kills it, brings it back and looks.
func (s *survivor) oneKill(number int) {
	ctx, cancel := context.WithCancel(s.ctx)
	var load sync.WaitGroup
	s.dying.Store(false)
	for i, p := range s.people {
		p.reconnect()
		rng := rand.New(rand.NewPCG(s.rng.Uint64(), uint64(i)))
		load.Go(func() { s.publishUntilKilled(ctx, i, rng) })
	}
	load.Go(func() { s.watchCheckpoint(ctx) })
	s.awaitChanges(s.rng.IntN(5))
	awaitPoint(s.data, s.rng)
	s.dying.Store(true)
	s.kill()
	cancel()
	load.Wait()
	if s.rng.IntN(3) == 0 { // and again while it recovers
		s.killStart(time.Duration(s.rng.IntN(400)) * time.Millisecond)
	}
	switch {
	case number%20 == 9:
		s.start()
		s.check()
		s.stop()
		s.rebuildSame()
	case number%20 == 19: // straight from the crash, and the rebuild is killed first
		s.removeCatalog()
		s.killRebuild(time.Duration(s.rng.IntN(300)) * time.Millisecond)
		s.rebuild()
	}
	s.start()
	s.check()
	s.fsck()
}

// killStart starts the server and kills it after d, whatever it is at.
func (s *survivor) killStart(d time.Duration) {
	if err := s.launch(); err != nil {
		s.t.Fatal(err)
	}
	time.Sleep(d)
	s.kill()
}

// awaitChanges waits until n more changes were acknowledged, not for ever.
func (s *survivor) awaitChanges(n int) {
	count := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.acknowledged) + len(s.changes)
	}
	until, deadline := count()+n, time.Now().Add(time.Second)
	for count() < until && time.Now().Before(deadline) {
		time.Sleep(500 * time.Microsecond)
	}
}

// awaitPoint waits for a moment to kill: after some time, or as soon as a
// publish reaches a step that leaves a trace in the data folder.
func awaitPoint(data string, rng *rand.Rand) {
	time.Sleep(time.Duration(rng.IntN(60_000)) * time.Microsecond)
	traces := slices.DeleteFunc([]string{"", "store/incoming", "store/log/entry", "store/log/checkpoint", "catalog.db-wal", "store/blobs"}, func(trace string) bool {
		return modified(filepath.Join(data, trace)) == "none" // it is in another engine
	})
	trace := traces[rng.IntN(len(traces))]
	extra := time.Duration(rng.IntN(3000)) * time.Microsecond
	if trace == "" {
		time.Sleep(time.Duration(rng.IntN(200)) * time.Millisecond)
		return
	}
	path := filepath.Join(data, trace)
	before, deadline := modified(path), time.Now().Add(time.Second)
	for modified(path) == before && time.Now().Before(deadline) {
		time.Sleep(20 * time.Microsecond)
	}
	time.Sleep(extra)
}

func modified(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "none"
	}
	return fmt.Sprint(info.ModTime().UnixNano(), info.Size())
}

// publishUntilKilled makes changes as person i until the server does not answer.
func (s *survivor) publishUntilKilled(ctx context.Context, i int, rng *rand.Rand) {
	for ctx.Err() == nil {
		err := s.change(ctx, i, rng)
		var refused *refusal
		switch {
		case errors.As(err, &refused) && refused.status == http.StatusConflict:
			// Somebody else changed the shared crate first.
		case err != nil && !s.dying.Load():
			s.t.Errorf("person %d, of a server that runs: %v", i, err)
			return
		case err != nil:
			return
		}
	}
}

// change makes one change and keeps what came of it.
func (s *survivor) change(ctx context.Context, i int, rng *rand.Rand) error {
	p := s.people[i]
	name := fmt.Sprintf("p%d-%c", i, 'a'+rune(rng.IntN(2)))
	switch dice := rng.IntN(10); {
	case dice < 3:
		if mine, undo, ok := s.someYank(i, rng); ok {
			r, err := p.yank(ctx, mine, undo)
			return s.changed(ctx, p, r, err, func() {
				s.changes, s.yanked[mine.key()] = append(s.changes, r), !undo
			})
		}
	case dice < 5:
		other := string(s.people[(i+1)%len(s.people)].did)
		if owns, known := s.owns(name, other); known {
			r, err := p.owner(ctx, name, s.people[(i+1)%len(s.people)].did, owns)
			return s.changed(ctx, p, r, err, func() {
				s.changes = append(s.changes, r)
				s.setOwner(name, other, !owns)
			})
		}
	case dice < 7:
		name = shared
	}
	s.mu.Lock()
	s.serial++
	version := fmt.Sprintf("0.%d.%d", i, s.serial)
	s.mu.Unlock()
	size := 1 + rng.IntN(2000)
	if rng.IntN(8) == 0 {
		size = 400_000
	}
	return s.release(ctx, newRelease(rng, i, name, version, size))
}

// release publishes r; without an acknowledgement it stays open.
func (s *survivor) release(ctx context.Context, r release) error {
	s.mu.Lock()
	s.open[r.key()] = r
	s.mu.Unlock()
	got, err := s.people[r.who].publish(ctx, r)
	return s.changed(ctx, s.people[r.who], got, err, func() {
		delete(s.open, r.key())
		s.acknowledged[r.key()] = acknowledged{r, got}
		if _, known := s.owners[r.name]; !known {
			s.owners[r.name] = []string{string(s.people[r.who].did)}
		}
	})
}

// changed notes an acknowledged change. What is acknowledged is published: the
// checkpoint that is served by then must cover it.
func (s *survivor) changed(ctx context.Context, p *publisher, r receipt, err error, note func()) error {
	if err != nil {
		return err
	}
	s.mu.Lock()
	note()
	s.mu.Unlock()
	at, size, err := p.checkpoint(ctx)
	if err == nil && size <= r.index && !s.several {
		s.t.Errorf("log index %d was acknowledged under the checkpoint\n%s", r.index, at)
	}
	return err
}

// checkpoint fetches the checkpoint that is served, unverified.
func (p *publisher) checkpoint(ctx context.Context) (note []byte, size int64, err error) {
	pin, err := p.home.PinOf(p.base)
	if err != nil {
		return nil, 0, err
	}
	registry, err := p.agent.Registry(pin)
	if err != nil {
		return nil, 0, err
	}
	if note, err = registry.Checkpoint(ctx); err != nil {
		return nil, 0, err
	}
	return note, client.Pin{Checkpoint: note}.Size(), nil
}

func (s *survivor) someYank(i int, rng *rand.Rand) (r release, undo, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var mine []string
	for key, a := range s.acknowledged {
		if a.who == i {
			mine = append(mine, key)
		}
	}
	if len(mine) == 0 {
		return release{}, false, false
	}
	slices.Sort(mine)
	key := mine[rng.IntN(len(mine))]
	return s.acknowledged[key].release, s.yanked[key], true
}

func (s *survivor) owns(name, who string) (owns, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	owners, known := s.owners[name]
	return slices.Contains(owners, who), known
}

func (s *survivor) setOwner(name, who string, owns bool) {
	others := slices.DeleteFunc(slices.Clone(s.owners[name]), func(o string) bool { return o == who })
	if owns {
		others = append(others, who)
	}
	s.owners[name] = others
}

// watchCheckpoint keeps the last checkpoint that is served; it never shrinks.
func (s *survivor) watchCheckpoint(ctx context.Context) {
	watcher := newPublisher(s.t, s.reached(), s.operator.home)
	for ctx.Err() == nil {
		note, size, err := watcher.checkpoint(ctx)
		if err != nil {
			return
		}
		s.mu.Lock()
		if before := (client.Pin{Checkpoint: s.seen}).Size(); size < before {
			s.t.Errorf("a checkpoint of %d was served after one of %d", size, before)
		}
		s.seen = note
		s.mu.Unlock()
		time.Sleep(10 * time.Millisecond)
	}
}
