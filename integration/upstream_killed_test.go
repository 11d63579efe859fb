package integration

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
)

const (
	storingKills        = 40
	storingKillsEngines = 6
	storingTakers       = 4
	// mostStoring is after how long no more kills begin.
	mostStoring = 35 * time.Second
)

// A server is killed again and again while it receives and stores crates that people ask for:
// whole answers are right, before and after; what the catalog says is held is there, whole;
// the log holds, and nothing is left over but what gc collects.
func TestAServerIsKilledWhileItStoresCrates(t *testing.T) {
	seed, program := crashSeed(t), productBinary(t) // which starts soon
	t.Run("SQLite and a folder", func(t *testing.T) {
		t.Parallel()
		crates := testbed.CratesIO(t)
		l := newCrashLab(t)
		l.program, l.flags = program, []string{"--upstream", upstreamSetting(crates)}
		l.start()
		t.Cleanup(l.stop)
		s := &storing{upstreamLab: &upstreamLab{l, crates}, rng: rand.New(rand.NewPCG(seed, 1))}
		s.kills(storingKills)
	})
	t.Run("PostgreSQL and MinIO", func(t *testing.T) {
		t.Parallel()
		l, _ := upstreamLabOn(t, pair{}.onPostgres(t).onMinIO(t))
		l.stop()
		l.lab.program = program
		l.start()
		s := &storing{upstreamLab: l, rng: rand.New(rand.NewPCG(seed, 2))}
		s.kills(storingKillsEngines)
	})
}

// storing is a lab whose server is killed while it stores.
type storing struct {
	*upstreamLab
	rng   *rand.Rand
	dying atomic.Bool
	whole atomic.Int64
	cut   atomic.Int64
}

func (s *storing) kills(n int) {
	t := s.t
	taker, began := s.taker(), time.Now()
	var lines []testbed.IndexLine
	killed := 0
	for k := range n {
		if killed > 10 && time.Since(began) > mostStoring {
			break // on a busy machine
		}
		some := s.offer(fmt.Sprint("small-", k), 2, 30<<10)
		for i, size := range []int64{300 << 10, 300 << 10, 2 << 20} {
			some = append(some, s.offerBig(fmt.Sprintf("size-%d-%d", k, i), size))
		}
		lines = append(lines, some...)
		s.oneKill(taker, some)
		killed++
		if k%4 == 0 { // and again while it recovers
			if err := s.launch(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(s.rng.IntN(200)) * time.Millisecond)
			s.kill()
		}
		s.start()
		taker.client.CloseIdleConnections()
		for _, line := range some[:2] { // whatever became of them
			if err := taker.take(t.Context(), line); err != nil {
				t.Errorf("%s after a kill: %v", line.Name, err)
			}
		}
		if t.Failed() {
			t.Fatalf("kill %d; the server said:\n%s", k, s.lastWords())
		}
	}
	taker.takeAll(t, lines, storingTakers)
	must(t, s.operator.aln(s.operator.folder, "log", "check", "--full"))
	s.stop()
	held := s.checkHeld()
	for _, line := range lines {
		if !held[cidOf(t, line)] {
			t.Errorf("%s is not held", line.Name)
		}
	}
	s.fsck()
	if s.data != "" {
		s.checkLeft()
	}
	t.Logf("%d kills in %.0f s; %d answers were whole, %d were cut; %d crates are held", killed, time.Since(began).Seconds(), s.whole.Load(), s.cut.Load(), len(held))
	if s.cut.Load() == 0 || s.whole.Load() == 0 {
		t.Error("the server was never killed while it stored")
	}
}

// oneKill has people ask for lines, and kills the server at some moment.
func (s *storing) oneKill(taker *taker, lines []testbed.IndexLine) {
	s.dying.Store(false)
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	var all sync.WaitGroup
	for range storingTakers {
		own := rand.New(rand.NewPCG(s.rng.Uint64(), 4))
		all.Go(func() {
			for ctx.Err() == nil {
				line := lines[own.IntN(len(lines))]
				err := taker.take(ctx, line)
				var refused *refusal
				switch {
				case err == nil:
					s.whole.Add(1)
				case errors.Is(err, errWrong):
					s.t.Error(err)
					return
				case !s.dying.Load():
					s.t.Errorf("%s, of a server that runs: %v", line.Name, err)
					return
				case errors.As(err, &refused) && refused.status != http.StatusServiceUnavailable:
					s.t.Errorf("%s, of a server that ends: %v", line.Name, err)
					return
				default:
					s.cut.Add(1)
					return
				}
			}
		})
	}
	time.Sleep(time.Duration(s.rng.IntN(250_000)) * time.Microsecond)
	s.dying.Store(true)
	s.kill()
	cancel()
	all.Wait()
}

// checkLeft looks that no half-written file stays, once the server has started and ended well.
func (s *storing) checkLeft() {
	s.t.Helper()
	s.start()
	s.stop()
	err := filepath.WalkDir(s.data, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && (strings.Contains(path, "/incoming/") || strings.Contains(path, "/spool/") || strings.Contains(path, ".tmp-")) {
			s.t.Errorf("%s is left over", path)
		}
		return err
	})
	if err != nil {
		s.t.Error(err)
	}
}
