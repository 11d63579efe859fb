package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/registry/particle"
)

// upstreamFleet is a lab of several servers on one pair of engines, that take crates from one
// stand-in. The first one makes room.
type upstreamFleet struct {
	*upstreamLab
	servers []*member
	token   string
}

func newUpstreamFleet(t *testing.T) *upstreamFleet {
	t.Helper()
	l, scraped := upstreamLabOn(t, pair{}.onPostgres(t).onMinIO(t))
	f := &upstreamFleet{upstreamLab: l, servers: []*member{{lab: l.lab, scraped: scraped}}}
	for range fleetSize - 1 {
		m := &member{lab: l.replica(), scraped: "http://" + steadyAddress(t)}
		m.flags = append([]string{}, l.flags...)
		for i, flag := range m.flags {
			if flag == "--metrics-listen" {
				m.flags[i+1] = strings.TrimPrefix(m.scraped, "http://")
			}
		}
		m.start()
		f.servers = append(f.servers, m)
	}
	l.operator.login(l.lab, l.operator.folder)
	f.token = l.operator.session(particle.ScopeRead, 0)
	return f
}

// at takes crates from one server.
func (f *upstreamFleet) at(i int) *taker {
	a := newAsker(f.reached(), f.servers[i])
	return &taker{base: f.reached(), token: f.token, client: a.client}
}

// index is a crate's index file as one server serves it.
func (f *upstreamFleet) index(i int, name string) (int, string) {
	status, _, body := newAsker(f.reached(), f.servers[i]).get("/crates-io/index/"+testbed.IndexPath(name), f.token)
	return status, string(body)
}

// everywhere is that all servers but the first come to answer as is.
func (f *upstreamFleet) everywhere(what, path, token string, is func(status int, body string) bool) {
	f.t.Helper()
	for i, m := range f.servers[1:] {
		asker := newAsker(f.reached(), m)
		eventually(f.t, 20*time.Second, fmt.Sprintf("server %d shows %s", i+1, what), func() bool {
			status, _, body := asker.get(path, token)
			return is(status, string(body))
		})
	}
}

// What one of several servers learns of crates.io, fetches, holds and pins is the others',
// too: each thing is asked of upstream and entered once, as far as they do not ask at one
// moment, and nobody who asks gets an error.
func TestSeveralServersTakeCratesFromOneUpstream(t *testing.T) {
	t.Parallel()
	f := newUpstreamFleet(t)
	f.sameIndexAtOnce()
	f.oneRoom()
	f.sharedFacts()
	f.heldByOne()
	must(t, f.operator.aln(f.operator.folder, "log", "check", "--full"))
	for _, m := range f.servers {
		if troubles := m.troubles(); len(troubles) > 0 {
			t.Errorf("%s tells of errors:\n%s", m.url, strings.Join(troubles, ""))
		}
		m.stop()
	}
	f.checkHeld()
	f.fsck()
}

// sameIndexAtOnce asks all servers at one moment for index files that none knows.
func (f *upstreamFleet) sameIndexAtOnce() {
	lines := f.offer("at-once", 12, 1<<10)
	before := f.logSize()
	var all sync.WaitGroup
	for _, line := range lines {
		want := f.said(line.Name)
		for i := range f.servers {
			all.Go(func() {
				if status, body := f.index(i, line.Name); status != http.StatusOK || body != want {
					f.t.Errorf("%s from server %d: %d %s", line.Name, i, status, body)
				}
			})
		}
		all.Wait()
	}
	if entered := f.logSize() - before; entered != int64(len(lines)) {
		f.t.Errorf("%d entries tell of %d index files", entered, len(lines))
	}
}

// sharedFacts: alarms and pins.
func (f *upstreamFleet) sharedFacts() {
	t := f.t
	bad := f.offer("bad", 1, 50<<10)[0]
	f.crates.Use(testbed.Download(bad.Name, bad.Vers), testbed.Corrupted(), 0)
	if err := f.at(0).take(t.Context(), bad); err == nil {
		t.Error("a corrupt crate was served")
	}
	audit := f.operator.session(particle.ScopeAudit, 0)
	f.everywhere("the alarm", "/v1/upstreams/crates-io/alarms", audit, func(status int, body string) bool {
		return status == http.StatusOK && strings.Contains(body, bad.Name) && strings.Contains(body, "mismatch")
	})
	var alarmed struct{ Alarms []struct{ ID int64 } }
	_, _, body := newAsker(f.reached(), f.servers[0]).get("/v1/upstreams/crates-io/alarms", audit)
	if err := json.Unmarshal(body, &alarmed); err != nil || len(alarmed.Alarms) == 0 {
		t.Fatalf("%s: %v", body, err)
	}
	must(t, f.operator.aln(f.operator.folder, "upstream", "seen", fmt.Sprint(alarmed.Alarms[0].ID), "--why", "it was our doing"))
	f.everywhere("that it was looked into", "/v1/upstreams/crates-io/alarms", audit, func(status int, body string) bool {
		return status == http.StatusOK && strings.Contains(body, "it was our doing")
	})
	pinned := f.offer("pinned", 2, 50<<10)
	writeFiles(t, f.operator.folder, map[string]string{"list": pinned[0].Name + " " + pinned[0].Vers + "\n" + pinned[1].Name + " " + pinned[1].Vers + "\n"})
	must(t, f.operator.aln(f.operator.folder, "prefetch", "list", "--pin", "everywhere"))
	f.everywhere("the pins", "/v1/locks", f.token, func(status int, body string) bool {
		var locks struct {
			Locks []struct {
				Lock string
				Pins int
			}
		}
		err := json.Unmarshal([]byte(body), &locks)
		return status == http.StatusOK && err == nil && len(locks.Locks) == 1 && locks.Locks[0].Lock == "everywhere" && locks.Locks[0].Pins == 2
	})
}

// heldByOne: what one has fetched the others serve, as upstream is gone.
func (f *upstreamFleet) heldByOne() {
	lines := f.offer("held", 6, 300<<10)
	f.at(0).takeAll(f.t, lines, 3)
	eventually(f.t, 20*time.Second, "all of them are held", func() bool {
		return figuresNow(f.t, f.servers[0].scraped)("aln_upstream_receiving") == 0
	})
	f.crates.Stop()
	for i := range f.servers {
		f.at(i).takeAll(f.t, lines, 3)
		for _, line := range lines {
			if status, body := f.index(i, line.Name); status != http.StatusOK || body != f.said(line.Name) {
				f.t.Errorf("%s from server %d: %d %s", line.Name, i, status, body)
			}
		}
	}
	for _, line := range lines {
		if n := f.crates.Requests(testbed.Download(line.Name, line.Vers)); n != 1 {
			f.t.Errorf("%s was fetched %d times", line.Name, n)
		}
	}
}

// oneRoom: one server makes room for what others read.
func (f *upstreamFleet) oneRoom() {
	lines := f.offer("room", 16, 200<<10)
	f.at(1).takeAll(f.t, lines, 4)
	f.servers[0].stop()
	f.servers[0].flags = append(f.servers[0].flags, "--upstream-cache-mb", "1")
	f.servers[0].start()
	ctx, cancel := context.WithTimeout(f.t.Context(), 10*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for i := range f.servers {
		taker, own := f.at(i), rand.New(rand.NewPCG(uint64(i), 7))
		all.Go(func() {
			for ctx.Err() == nil && !f.t.Failed() {
				line := lines[own.IntN(len(lines))]
				if err := taker.take(f.t.Context(), line); err != nil {
					f.t.Errorf("%s from server %d: %v", line.Name, i, err)
				}
			}
		})
	}
	all.Wait()
	if evicted := figuresNow(f.t, f.servers[0].scraped)("aln_upstream_evicted_total"); evicted < 5 {
		f.t.Errorf("%.0f were evicted", evicted)
	}
	f.servers[0].stop()
	f.servers[0].flags = f.servers[0].flags[:len(f.servers[0].flags)-2]
	f.servers[0].start()
}
