package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/registry/particle"
)

// More crates are asked for than may be held, by many and without pause: every answer is the
// crate, what was evicted is fetched anew, what somebody needs is never evicted, and no more
// is held in the end than may be. On engines what was evicted cannot be kept again for twenty
// minutes, and is served all the same.
func TestEvictionUnderLoadServesNoError(t *testing.T) {
	t.Run("SQLite and a folder", func(t *testing.T) {
		t.Parallel()
		l, scraped := measuredUpstreamLab(t, "--upstream-cache-mb", "4")
		l.evictUnderLoad(scraped)
	})
	t.Run("PostgreSQL and MinIO", func(t *testing.T) {
		t.Parallel()
		l, scraped := upstreamLabOn(t, pair{}.onPostgres(t).onMinIO(t), "--upstream-cache-mb", "4")
		l.evictUnderLoad(scraped)
	})
}

func (l *upstreamLab) evictUnderLoad(scraped string) {
	t := l.t
	const readers, limit, lasts = 8, 4 << 20, 15 * time.Second
	taker, rng := l.taker(), rand.New(rand.NewPCG(1, 2))
	kept := l.needed()
	for _, line := range kept {
		if err := taker.take(t.Context(), line); err != nil {
			t.Fatalf("%s: %v", line.Name, err)
		}
	}
	lines := l.offer("many", 48, 200<<10)
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	var answers atomic.Int64
	var all sync.WaitGroup
	for range readers {
		own := rand.New(rand.NewPCG(rng.Uint64(), 3))
		all.Go(func() {
			for ctx.Err() == nil && !t.Failed() {
				line := lines[own.IntN(len(lines))]
				if own.IntN(20) == 0 {
					line = kept[own.IntN(len(kept))]
				}
				if err := taker.take(t.Context(), line); err != nil {
					t.Errorf("%s: %v", line.Name, err)
				}
				answers.Add(1)
			}
		})
	}
	all.Wait()
	eventually(t, 60*time.Second, "no more is held than may be", func() bool {
		of := figuresNow(t, scraped)
		return of("aln_upstream_receiving") == 0 && of("aln_upstream_cache_bytes") <= limit && l.heldBytes() <= limit
	})
	of := figuresNow(t, scraped)
	fetched := 0
	for _, line := range lines {
		fetched += l.crates.Requests(testbed.Download(line.Name, line.Vers))
	}
	t.Logf("%d answers; %.0f evicted, %d fetched of %d, %.0f of them not kept", answers.Load(), of("aln_upstream_evicted_total"), fetched, len(lines), of("aln_upstream_passed_total"))
	if of("aln_upstream_evicted_total") < 20 || fetched < 2*len(lines) || of("aln_upstream_unstored_total") > 0 {
		t.Errorf("%.0f were evicted, %d fetched, %.0f could not be stored", of("aln_upstream_evicted_total"), fetched, of("aln_upstream_unstored_total"))
	}
	if passed := of("aln_upstream_passed_total"); passed > 0 != (l.engines != nil) {
		t.Errorf("%.0f were not kept", passed)
	}
	held := l.checkHeld()
	for _, line := range kept {
		if n := l.crates.Requests(testbed.Download(line.Name, line.Vers)); n != 1 || !held[cidOf(t, line)] {
			t.Errorf("%s is needed, was fetched %d times, and is held: %v", line.Name, n, held[cidOf(t, line)])
		}
	}
	if troubles := l.troubles(); len(troubles) > 0 {
		t.Errorf("the server tells of errors:\n%s", troubles[0])
	}
	must(t, l.operator.aln(l.operator.folder, "log", "check", "--full"))
	l.stop()
	l.fsck()
}

// needed are crates that may not be evicted: in a lock that was given to prefetch, pinned, listed
// by a grant, and named by a record.
func (l *upstreamLab) needed() []testbed.IndexLine {
	l.t.Helper()
	locked, pinned, granted := l.offer("locked", 3, 100<<10), l.offer("pinned", 3, 100<<10), l.offer("granted", 2, 100<<10)
	lock := "version = 4\n\n[[package]]\nname = \"mine\"\nversion = \"0.1.0\"\n"
	for _, line := range locked {
		lock += fmt.Sprintf("\n[[package]]\nname = %q\nversion = %q\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = %q\n", line.Name, line.Vers, line.Cksum)
	}
	writeFiles(l.t, l.operator.folder, map[string]string{"locked/Cargo.lock": lock})
	wantSays(l.t, must(l.t, l.operator.aln(l.operator.folder, "prefetch", "locked/Cargo.lock")).stdout, "kept as mine/Cargo.lock until")
	list := filepath.Join(l.operator.folder, "list")
	text := ""
	for _, line := range pinned {
		text += line.Name + " " + line.Vers + "\n"
	}
	writeFiles(l.t, filepath.Dir(list), map[string]string{"list": text})
	must(l.t, l.operator.aln(l.operator.folder, "prefetch", list, "--pin", "ci"))
	r := ruled(l.lab)
	r.grant(r.reviewers[0], func(g *particle.EnvGrant) {
		for _, line := range granted {
			g.AllowedCrates = append(g.AllowedCrates, line.Cksum)
		}
	})
	// The same bytes are published here, too.
	named := newRelease(rand.New(rand.NewPCG(5, 6)), 0, "named-0", "1.0.0", 100<<10)
	line := testbed.IndexLine{Name: named.name, Vers: named.version, Deps: []testbed.IndexDep{}, Features: map[string][]string{}, Pubtime: "2024-01-02T03:04:05Z", Cksum: named.cid.Hex()}
	l.crates.Add(l.t, testbed.Version{Line: line, Crate: named.crate})
	people := l.people(l.t.Context(), 1)
	if _, err := people[0].publish(l.t.Context(), named); err != nil {
		l.t.Fatal(err)
	}
	return slices.Concat(locked, pinned, granted, []testbed.IndexLine{line})
}

// heldBytes is how much the catalog says is held.
func (l *lab) heldBytes() (sum int64) {
	l.t.Helper()
	db := l.openCatalog()
	defer db.Close()
	sum, err := db.UpstreamHeldBytes(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	return sum
}
