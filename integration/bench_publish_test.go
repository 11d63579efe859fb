package integration

import (
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// publishesPerRound is how many crates are published in a round, per client.
const publishesPerRound = 16

// BenchmarkPublish: durable publishes per second by one client and by eight, as
// a ratio to a loop that writes and syncs, one publish after the other, the
// files that a publish needs, and commits once: two appends to one file.
func BenchmarkPublish(b *testing.B) {
	l := benchServer(b)
	people := []*user{l.operator, l.newMember()} // the server takes four uploads of one member at once
	folder, next := benchFolder(b), 0
	rng := mathrand.New(mathrand.NewPCG(3, 4))
	for _, clients := range []int{1, 8} {
		b.Run(fmt.Sprintf("%d clients", clients), func(b *testing.B) {
			var ratios series
			n := publishesPerRound * min(clients, 4)
			publishers := people[:(clients+3)/4]
			for b.Loop() {
				ratios = nil
				for range benchRounds {
					uploads := make([][]upload, len(publishers))
					for i := range n {
						next++
						name, who := fmt.Sprintf("bench-%d", next), i%len(publishers)
						uploads[who] = append(uploads[who], publishers[who].signUpload(name, "0.1.0", newRelease(rng, 0, name, "0.1.0", 8<<10).crate))
					}
					crate := newRelease(rng, 0, "raw", "0.1.0", 8<<10).crate
					raw := rawPublishes(b, folder, crate, n)
					ratios = append(ratios, float64(raw)/float64(publishAll(b, l, uploads, clients/len(publishers))))
				}
			}
			say(b, "durable publishes, %d at once", clients)
			machine(b)
			if clients == 8 {
				against(b, "publishes/s, of the raw loop's", ratios, 0.5, false)
			} else {
				say(b, "  %-34s %s", "publishes/s, of the raw loop's", ratios)
				b.ReportMetric(0, "ns/op")
			}
		})
	}
}

// publishAll sends the uploads of each publisher by so many clients.
func publishAll(b *testing.B, l *lab, uploads [][]upload, clients int) time.Duration {
	b.Helper()
	var group sync.WaitGroup
	start := time.Now()
	for _, of := range uploads {
		var next atomic.Int64
		for range clients {
			group.Go(func() {
				for i := int(next.Add(1)) - 1; i < len(of); i = int(next.Add(1)) - 1 {
					if status, answer, err := of[i].send(l); err != nil || status != http.StatusOK {
						b.Errorf("publish: %d %s %v", status, answer, err)
					}
				}
			})
		}
	}
	group.Wait()
	return time.Since(start)
}

// rawPublishes does what n publishes make durable, one after the other: crate,
// record, entry and checkpoint, each a file synced with its folder, and the two
// commits of the catalog, each an append that is synced.
func rawPublishes(b *testing.B, folder string, crate []byte, n int) time.Duration {
	b.Helper()
	small, page := make([]byte, 700), make([]byte, 16<<10)
	catalog, err := os.CreateTemp(folder, "catalog-*")
	if err != nil {
		b.Fatal(err)
	}
	defer catalog.Close()
	start := time.Now()
	for range n {
		for _, data := range [][]byte{crate, small, small, small} {
			if err := rawFile(folder, data); err != nil {
				b.Fatal(err)
			}
		}
		for range 2 {
			if _, err := catalog.Write(page); err != nil {
				b.Fatal(err)
			}
			if err := catalog.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	}
	return time.Since(start)
}

func rawFile(folder string, data []byte) error {
	f, err := os.CreateTemp(folder, "sync-*")
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(f.Name()))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
