package integration

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// The benchmarks print ratios against a reference measured in the same run, in
// interleaved rounds: absolute figures mean nothing on shared machines. Each
// prints the median ratio and the spread between the extreme rounds.
const (
	rounds        = 7
	getsPerRound  = 400
	syncsPerRound = 24
)

// BenchmarkIndexGET: requests per second of an authenticated index GET, as a
// ratio to a bare net/http handler that writes the same bytes.
func BenchmarkIndexGET(b *testing.B) { compareGET(b, "/index/be/nc/bench-crate") }

// BenchmarkDownload: the same for the download of the crate.
func BenchmarkDownload(b *testing.B) { compareGET(b, "/api/v1/crates/bench-crate/0.1.0/download") }

func compareGET(b *testing.B, path string) {
	b.Helper()
	l, token := benchLab(b)
	_, _, body := l.get(path, token)
	bare := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(body) }))
	defer bare.Close()
	compare(b, func() time.Duration { return gets(b, l.url+path, token) }, func() time.Duration { return gets(b, bare.URL, "") })
}

// BenchmarkPublish: durable publishes per second by eight clients at once, as a
// ratio to a loop that writes and syncs the files that one publish needs.
func BenchmarkPublish(b *testing.B) {
	l, _ := benchLab(b)
	next := 0
	folder := b.TempDir()
	crate := l.operator.packaged(l.operator.crate("bench-publish", "0.1.0", "", ""), "bench-publish", "0.1.0")
	compare(b, func() time.Duration {
		var uploads []upload
		for range syncsPerRound {
			next++
			uploads = append(uploads, l.benchUpload(b, next))
		}
		return publishAll(b, l, uploads)
	}, func() time.Duration { return rawSyncs(b, folder, crate) })
}

// benchLab is a lab with one crate published, and a read session.
func benchLab(b *testing.B) (*lab, string) {
	b.Helper()
	l := newLab(b)
	u := l.operator
	folder := u.crate("bench-crate", "0.1.0", "", "pub fn f() {}\n")
	must(b, u.publish(l, folder))
	return l, u.session("read", 0)
}

// benchUpload is a signed upload of a crate of its own, so that no two wait for each other.
func (l *lab) benchUpload(b *testing.B, n int) upload {
	b.Helper()
	name := fmt.Sprintf("bench-%d", n)
	crate := l.operator.packaged(l.operator.crate(name, "0.1.0", "", ""), name, "0.1.0")
	return l.operator.signUpload(name, "0.1.0", crate)
}

func publishAll(b *testing.B, l *lab, uploads []upload) time.Duration {
	b.Helper()
	const clients = 8
	work := make(chan upload)
	var group sync.WaitGroup
	start := time.Now()
	for range clients {
		group.Go(func() {
			for u := range work {
				if status, answer, err := u.send(l); err != nil || status != http.StatusOK {
					b.Errorf("publish: %d %s %v", status, answer, err)
				}
			}
		})
	}
	for _, u := range uploads {
		work <- u
	}
	close(work)
	group.Wait()
	return time.Since(start)
}

// rawSyncs writes what one publish writes, one after the other, each synced with
// its folder: crate, record, entry, checkpoint, and two appends to a database.
func rawSyncs(b *testing.B, folder string, crate []byte) time.Duration {
	b.Helper()
	small := bytes.Repeat([]byte("x"), 1024)
	start := time.Now()
	for range syncsPerRound {
		for _, data := range [][]byte{crate, small, small, small, small, small} {
			f, err := os.CreateTemp(folder, "sync-*")
			if err != nil {
				b.Fatal(err)
			}
			if _, err := f.Write(data); err != nil {
				b.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
			f.Close()
			d, err := os.Open(filepath.Dir(f.Name()))
			if err != nil {
				b.Fatal(err)
			}
			if err := d.Sync(); err != nil {
				b.Fatal(err)
			}
			d.Close()
		}
	}
	return time.Since(start)
}

func gets(b *testing.B, url, token string) time.Duration {
	b.Helper()
	start := time.Now()
	for range getsPerRound {
		req, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			b.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			b.Fatalf("%s: %s %v", url, resp.Status, err)
		}
	}
	return time.Since(start)
}

// compare runs ours and the reference in turn and reports throughput as a ratio: 1 is as fast.
func compare(b *testing.B, ours, reference func() time.Duration) {
	b.Helper()
	var ratios []float64
	for b.Loop() {
		ratios = ratios[:0]
		for range rounds {
			r := reference()
			ratios = append(ratios, float64(r)/float64(ours()))
		}
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[rounds/2], "of-reference")
	b.ReportMetric(ratios[rounds-1]-ratios[0], "spread")
	b.ReportMetric(0, "ns/op")
}
