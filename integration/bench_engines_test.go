package integration

import (
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
)

// enginesServers are labs whose publishes and index GETs are compared, each with
// the servers that share the load.
type enginesServers struct {
	name    string
	servers []*lab
	people  []*user
}

// BenchmarkEngines: publishes and index GETs on Postgres and MinIO in comparison
// with the embedded pair, and of three servers with one, in rounds that take turns.
// All servers run on core 0, the engines and what loads them on the others.
func BenchmarkEngines(b *testing.B) {
	labs := []enginesServers{
		{name: "SQLite and a folder", servers: []*lab{benchServer(b)}},
		{name: "PostgreSQL and MinIO", servers: benchOnEngines(b, 1)},
		{name: "the same, three servers", servers: benchOnEngines(b, 3)},
	}
	for i := range labs {
		l := labs[i].servers[0]
		labs[i].people = append(labs[i].people, l.operator)
		for range 7 { // a server takes four uploads of one member at once
			labs[i].people = append(labs[i].people, l.newMember())
		}
	}
	next := 0
	for _, clients := range []int{1, 8, 32} {
		b.Run(fmt.Sprintf("publishes, %d at once", clients), func(b *testing.B) {
			for b.Loop() {
				comparePublishes(b, labs, clients, &next)
			}
		})
	}
	b.Run("index GETs", func(b *testing.B) {
		for b.Loop() {
			compareGETs(b, labs)
		}
	})
}

// benchOnEngines is benchServer on Postgres and MinIO of its own, with n servers.
func benchOnEngines(b *testing.B, n int) []*lab {
	b.Helper()
	p := pair{db: testbed.Postgres(b).URL}.onMinIO(b)
	l := prepareLabOn(b, p)
	servers := []*lab{l}
	for range n - 1 {
		servers = append(servers, l.replica())
	}
	for i, s := range servers {
		log, err := os.Create(filepath.Join(benchFolder(b), "server.log"))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { log.Close() })
		s.pinned, s.logTo = true, log
		s.start()
		if i == 0 {
			b.Cleanup(s.stop)
		}
	}
	must(b, l.operator.aln(l.operator.folder, "login", l.reached()))
	return servers
}

// comparePublishes prints publishes per second by so many clients as ratios to
// those of the first lab, and of three servers to one.
func comparePublishes(b *testing.B, labs []enginesServers, clients int, next *int) {
	rng := mathrand.New(mathrand.NewPCG(3, uint64(*next)))
	n := max(32, 4*clients)
	rates, cpu := make([]series, len(labs)), make([]series, len(labs))
	for range benchRounds {
		took, used := make([]time.Duration, len(labs)), make([]time.Duration, len(labs))
		for i, l := range labs {
			publishers := l.people[:(clients+3)/4]
			uploads := make([][]upload, len(publishers))
			for k := range n {
				*next++
				name, who := fmt.Sprintf("bench-%d", *next), k%len(publishers)
				uploads[who] = append(uploads[who], publishers[who].signUpload(name, "0.1.0", newRelease(rng, 0, name, "0.1.0", 8<<10).crate))
			}
			before := l.cpu(b)
			took[i] = l.publishAll(b, uploads, clients/len(publishers))
			used[i] = l.cpu(b) - before
		}
		for i := range labs {
			rates[i] = append(rates[i], float64(took[0])/float64(took[i]))
			cpu[i] = append(cpu[i], float64(used[i].Microseconds())/float64(n))
		}
	}
	say(b, "durable publishes, %d at once", clients)
	machine(b)
	for i, l := range labs {
		say(b, "  %-34s %s of the embedded pair's publishes/s", l.name, rates[i])
		say(b, "  %-34s %s µs of the servers' CPU time each", "", cpu[i])
	}
	var three series
	for i := range rates[2] {
		three = append(three, rates[2][i]/rates[1][i])
	}
	say(b, "  %-34s %s", "three servers, of one's", three)
	b.ReportMetric(rates[1].median(), "of-embedded")
	b.ReportMetric(0, "ns/op")
}

func (l enginesServers) cpu(b *testing.B) (sum time.Duration) {
	b.Helper()
	for _, s := range l.servers {
		sum += s.process().cpu(b)
	}
	return sum
}

// publishAll is publishAll by all of the servers in turn.
func (l enginesServers) publishAll(b *testing.B, uploads [][]upload, clients int) time.Duration {
	b.Helper()
	var group sync.WaitGroup
	var turn atomic.Int64
	start := time.Now()
	for _, of := range uploads {
		var next atomic.Int64
		for range clients {
			group.Go(func() {
				for i := int(next.Add(1)) - 1; i < len(of); i = int(next.Add(1)) - 1 {
					server := l.servers[int(turn.Add(1))%len(l.servers)]
					if status, answer, err := of[i].send(server); err != nil || status != http.StatusOK {
						b.Errorf("publish: %d %s %v", status, answer, err)
					}
				}
			})
		}
	}
	group.Wait()
	return time.Since(start)
}

// compareGETs prints index GETs per second and the servers' CPU time for each.
func compareGETs(b *testing.B, labs []enginesServers) {
	const crate, n = "bench-index", 20_000
	rng := mathrand.New(mathrand.NewPCG(1, 2))
	requests := make([]request, len(labs))
	for i, l := range labs {
		for v := range 12 {
			version := fmt.Sprintf("0.1.%d", v)
			sent(b, l.servers[0], l.people[0].signUpload(crate, version, newRelease(rng, 0, crate, version, 100).crate))
		}
		token := l.people[0].session("read", 0)
		requests[i] = asking(l.servers[0].url, indexPath(crate), http.StatusOK, "Authorization", token)
		for _, s := range l.servers { // what a server has not shown yet it shows soon
			eventually(b, 10*time.Second, s.url+" lists "+crate, func() bool {
				status, _, body := s.get(indexPath(crate), token)
				return status == http.StatusOK && strings.Contains(string(body), `"vers":"0.1.11"`)
			})
		}
		l.load(b, requests[i], n/4)
	}
	rates, cpu := make([]series, len(labs)), make([]series, len(labs))
	for range benchRounds {
		took, used := make([]time.Duration, len(labs)), make([]time.Duration, len(labs))
		for i, l := range labs {
			before := l.cpu(b)
			took[i] = l.load(b, requests[i], n)
			used[i] = l.cpu(b) - before
		}
		for i := range labs {
			rates[i] = append(rates[i], float64(took[0])/float64(took[i]))
			cpu[i] = append(cpu[i], float64(used[i])/float64(used[0]))
		}
	}
	say(b, "index GETs, authenticated, warm")
	machine(b)
	for i, l := range labs {
		say(b, "  %-34s %s of the embedded pair's requests/s", l.name, rates[i])
		say(b, "  %-34s %s of its CPU time each", "", cpu[i])
	}
	b.ReportMetric(rates[1].median(), "of-embedded")
	b.ReportMetric(0, "ns/op")
}

// load asks n times, over connections to all of the servers.
func (l enginesServers) load(b *testing.B, r request, n int) time.Duration {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	var clients sync.WaitGroup
	start := time.Now()
	for i := range benchClients {
		server := l.servers[i%len(l.servers)]
		clients.Go(func() {
			err := askEach(strings.TrimPrefix(server.url, "http://"), func() (request, bool) { return r, left.Add(-1) >= 0 })
			if err != nil {
				b.Errorf("%s: %v", server.url, err)
			}
		})
	}
	clients.Wait()
	return time.Since(start)
}
