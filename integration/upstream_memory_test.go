package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
)

// offerBig has the stand-in serve a crate of nearly size bytes, which are quickly made.
func (l *upstreamLab) offerBig(name string, size int64) testbed.IndexLine {
	l.t.Helper()
	u := newUpload(l.t.(*testing.T), l.t.TempDir(), name, size)
	crate, err := os.ReadFile(u.path)
	if err != nil {
		l.t.Fatal(err)
	}
	os.Remove(u.path)
	line := testbed.IndexLine{Name: name, Vers: u.version, Deps: []testbed.IndexDep{}, Features: map[string][]string{}, Cksum: u.cid.Hex(), Pubtime: "2024-01-02T03:04:05Z"}
	l.crates.Add(l.t, testbed.Version{Line: line, Crate: crate})
	return line
}

// openFiles is how many a process has open.
func openFiles(t testing.TB, pid int) int {
	t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// A gigabyte of crates, up to the size of the largest, goes through a server to several at a
// time, all of it cold, and a quarter of it once more when it is held: that takes little more memory than small crates
// do, and leaves nothing open, under way or in the spool.
func TestAGigabyteOfCratesTakesNoMoreMemoryThanSmallOnes(t *testing.T) {
	const atOnce, allowed = 6, 48 << 20
	l, scraped := measuredUpstreamLab(t, "--cache-mb", "16")
	l.stop()
	l.lab.program = productBinary(t)
	l.start()
	taker := l.taker()
	pid, transport := l.cmd.Process.Pid, taker.client.Transport.(*http.Transport)
	transport.MaxIdleConnsPerHost = atOnce
	many := func(prefix string) (lines []testbed.IndexLine) {
		for i := range 80 {
			lines = append(lines, l.offerBig(fmt.Sprintf("%s-%d", prefix, i), 300<<10))
		}
		return lines
	}
	first := many("first") // caches and pools fill
	taker.takeAll(t, first, atOnce)
	taker.takeAll(t, first, atOnce)
	level := func() (files int, goroutines, heap float64) {
		transport.CloseIdleConnections()
		eventually(t, 30*time.Second, "nothing is under way", func() bool {
			of := figuresNow(t, scraped)
			return of("aln_upstream_receiving") == 0 && of("aln_upstream_spool_bytes") == 0 && of("aln_http_requests_in_flight") == 1
		})
		of := figuresNow(t, scraped)
		return openFiles(t, pid), of("go_goroutines"), of("go_memstats_heap_inuse_bytes")
	}
	filesBefore, goroutinesBefore, heapBefore := level()
	resetPeak(t, pid)
	taker.takeAll(t, many("small"), atOnce)
	small := peak(t, pid)

	lines, sum := []testbed.IndexLine{}, int64(0)
	for i := range 12 {
		lines = append(lines, l.offerBig(fmt.Sprint("large-", i), 64<<20), l.offerBig(fmt.Sprint("middle-", i), 22<<20))
		sum += 86 << 20
	}
	resetPeak(t, pid)
	began := time.Now()
	taker.takeAll(t, lines, atOnce)
	cold := peak(t, pid)
	resetPeak(t, pid)
	taker.takeAll(t, lines[:6], atOnce)
	warm := peak(t, pid)
	files, goroutines, heap := level()
	t.Logf("%d MiB passed in %.1f s; peak %d MiB while crates were small, %d MiB while they were received, %d MiB while they were held", (sum+3*86<<20)>>20, time.Since(began).Seconds(), small>>20, cold>>20, warm>>20)
	t.Logf("files %d, then %d; goroutines %.0f, then %.0f; heap %.0f MiB, then %.0f MiB", filesBefore, files, goroutinesBefore, goroutines, heapBefore/(1<<20), heap/(1<<20))
	if rise := max(cold, warm) - small; rise >= allowed {
		t.Errorf("memory rose by %d MiB, less than %d MiB is allowed", rise>>20, allowed>>20)
	}
	if heap-heapBefore >= allowed {
		t.Errorf("the heap has %.0f MiB, and had %.0f MiB", heap/(1<<20), heapBefore/(1<<20))
	}
	if files > filesBefore+8 || goroutines > goroutinesBefore+16 {
		t.Errorf("%d files are open and there are %.0f goroutines; there were %d and %.0f", files, goroutines, filesBefore, goroutinesBefore)
	}
	if left, err := os.ReadDir(filepath.Join(l.data, "spool")); err != nil || len(left) > 0 {
		t.Errorf("the spool has %d files, %v", len(left), err)
	}
	for _, line := range lines {
		if n := l.crates.Requests(testbed.Download(line.Name, line.Vers)); n != 1 {
			t.Errorf("upstream was asked for %s %d times", line.Name, n)
		}
	}
}
