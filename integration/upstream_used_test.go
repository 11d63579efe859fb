package integration

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/storage"
)

// aging is how many crates are held, of which five fit into a MiB.
const aging = 8

// age has crates look as though they were fetched and used hours ago, the first of them first.
func (l *upstreamLab) age(lines []testbed.IndexLine) {
	l.t.Helper()
	ago := time.Now().Add(-10 * time.Hour)
	for i, line := range lines {
		at := ago.Add(time.Duration(i) * time.Minute).Unix()
		statement := fmt.Sprintf("UPDATE upstream_blob SET used = %d, fetched = %d WHERE cid = '%s'", at, at, cidOf(l.t, line))
		if l.engines != nil {
			execPostgres(l.t, l.engines.db, statement)
		} else {
			execSQLite(l.t, filepath.Join(l.data, "catalog.db"), statement)
		}
	}
}

// awaitUsed waits until it is noted that lines were used a moment ago.
func (l *upstreamLab) awaitUsed(lines ...testbed.IndexLine) {
	l.t.Helper()
	db := l.openCatalog()
	defer db.Close()
	for _, line := range lines {
		eventually(l.t, 30*time.Second, line.Name+" is noted as used", func() bool {
			found, err := db.UpstreamBlobs(l.t.Context(), []storage.CID{cidOf(l.t, line)})
			return err == nil && len(found) == 1 && time.Since(found[0].Used) < time.Hour
		})
	}
}

// leftAre waits until those of lines are held that are named by their place, and no other.
func (l *upstreamLab) leftAre(lines []testbed.IndexLine, want ...int) {
	l.t.Helper()
	var got []int
	db := l.openCatalog()
	defer db.Close()
	eventually(l.t, 60*time.Second, fmt.Sprintf("%v are held", want), func() bool {
		got = got[:0]
		for i, line := range lines {
			if found, err := db.UpstreamBlobs(l.t.Context(), []storage.CID{cidOf(l.t, line)}); err == nil && len(found) == 1 {
				got = append(got, i)
			}
		}
		return len(got) <= len(want)
	})
	if !slices.Equal(got, want) {
		l.t.Errorf("held are %v, want %v", got, want)
	}
}

// What was not used for longest makes room, and not what was fetched first, also where it was
// another server from which it was taken. A server that asks no upstream makes no room at all:
// what goes could not come back.
func TestWhatWasNotUsedForLongestMakesRoom(t *testing.T) {
	t.Run("SQLite and a folder", func(t *testing.T) {
		t.Parallel()
		l, scraped := measuredUpstreamLab(t)
		taker, lines := l.taker(), l.offer("aging", aging, 200<<10)
		taker.takeAll(t, lines, 3)
		l.stop()
		l.age(lines)
		flags := l.flags
		l.flags = append(slices.Clone(flags), "--upstream-cache-mb", "1", "--offline")
		l.start()
		taker.takeAll(t, []testbed.IndexLine{lines[0], lines[2], lines[4]}, 1)
		l.awaitUsed(lines[0], lines[2], lines[4])
		eventually(t, 60*time.Second, "what is held is counted", func() bool { return figuresNow(t, scraped)("aln_upstream_cache_bytes") > 0 })
		if of := figuresNow(t, scraped); of("aln_upstream_evicted_total") != 0 || of("aln_upstream_cache_limit_bytes") != 0 {
			t.Errorf("offline %.0f were evicted, and the bound is %.0f", of("aln_upstream_evicted_total"), of("aln_upstream_cache_limit_bytes"))
		}
		l.leftAre(lines, 0, 1, 2, 3, 4, 5, 6, 7)
		l.stop()
		l.flags = append(slices.Clone(flags), "--upstream-cache-mb", "1")
		l.start()
		l.leftAre(lines, 0, 2, 4, 6, 7)
		l.stop()
		l.fsck()
	})
	t.Run("PostgreSQL and MinIO", func(t *testing.T) {
		t.Parallel()
		f := newUpstreamFleet(t)
		lines := f.offer("aging", aging, 200<<10)
		f.at(0).takeAll(t, lines, 3)
		f.age(lines)
		f.at(1).takeAll(t, []testbed.IndexLine{lines[0], lines[4]}, 1)
		f.at(2).takeAll(t, []testbed.IndexLine{lines[2]}, 1)
		f.awaitUsed(lines[0], lines[2], lines[4])
		f.servers[0].stop()
		f.servers[0].flags = append(f.servers[0].flags, "--upstream-cache-mb", "1")
		f.servers[0].start()
		f.leftAre(lines, 0, 2, 4, 6, 7)
		for _, m := range f.servers {
			m.stop()
		}
		f.fsck()
	})
}
