package cratesioproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/storage"
)

// Replicas that are told different things do not enter one after the other as often as
// anybody asks: what one entered a moment ago is fresh for all.
func TestWhatAnotherReplicaEnteredIsFresh(t *testing.T) {
	l := newLab(t, nil)
	l.on("/so/me/some", text(line("some", "1.0.0")))
	if err := l.refresh("some"); err != nil {
		t.Fatal(err)
	}
	entered := func(version string) {
		l.evidence.mu.Lock()
		defer l.evidence.mu.Unlock()
		l.evidence.crates[CratesIO+" some"] = Known{Name: "some", Snapshot: storage.CIDOf([]byte(line("some", version))), Seen: l.proxy.Clock()}
	}
	entered("2.0.0")
	if err := l.refresh("some"); err != nil || l.requests("/so/me/some") != 1 || l.evidence.imports() != 1 {
		t.Errorf("it is asked for again, %d times, and entered %d times: %v", l.requests("/so/me/some"), l.evidence.imports(), err)
	}
	l.upstream.entries = newRecent[string, entry](mostEntries)
	if err := l.refresh("some"); err != nil || l.requests("/so/me/some") != 1 {
		t.Errorf("after a restart it is asked for again: %v", err)
	}
	l.pass(DefaultFresh)
	if err := l.refresh("some"); err != nil || l.requests("/so/me/some") != 2 || l.evidence.imports() != 2 {
		t.Errorf("it is not asked for when that is over: %v", err)
	}
}

// Replicas that ask at the same time, and are told different things, do not each enter their own.
func TestWhatAnotherReplicaEntersMeanwhileIsFresh(t *testing.T) {
	for name, known := range map[string]bool{"known": true, "new": false} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, nil)
			l.on("/so/me/some", text(line("some", "1.0.0")))
			if known {
				if err := l.refresh("some"); err != nil {
					t.Fatal(err)
				}
				l.pass(DefaultFresh)
			}
			before := l.evidence.imports()
			l.on("/so/me/some", func(w http.ResponseWriter, r *http.Request) {
				l.evidence.mu.Lock()
				l.evidence.crates[CratesIO+" some"] = Known{Name: "some", Snapshot: storage.CIDOf([]byte(line("some", "2.0.0"))), Seen: l.proxy.Clock()}
				l.evidence.mu.Unlock()
				text(line("some", "3.0.0"))(w, r)
			})
			if err := l.refresh("some"); err != nil || l.evidence.imports() != before {
				t.Errorf("it is entered on top of what another entered: %v", err)
			}
			l.on("/so/me/some", text(line("some", "3.0.0")))
			if err := l.refresh("some"); err != nil || l.evidence.imports() != before {
				t.Errorf("and it is not fresh: %v", err)
			}
			l.pass(DefaultFresh)
			if err := l.refresh("some"); err != nil || l.evidence.imports() != before+1 {
				t.Errorf("it is never entered: %v", err)
			}
		})
	}
}

// Whoever misses a version that was published a moment ago need not wait until what is known
// is old; but upstream is not asked as often as somebody names one that is nowhere.
func TestWhoMissesSomethingHasUpstreamAskedAnew(t *testing.T) {
	l := newLab(t, nil)
	l.on("/so/me/some", text(line("some", "1.0.0")))
	renew := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := l.upstream.Renew(ctx, "some"); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.refresh("some"); err != nil {
		t.Fatal(err)
	}
	l.on("/so/me/some", text(line("some", "1.0.0")+line("some", "1.0.1")))
	if renew(); l.requests("/so/me/some") != 1 {
		t.Error("asked again within the second")
	}
	l.pass(renewRest)
	if renew(); l.requests("/so/me/some") != 2 || l.evidence.imports() != 2 {
		t.Errorf("asked %d times, entered %d times", l.requests("/so/me/some"), l.evidence.imports())
	}
	l.pass(renewRest)
	if err := l.refresh("some"); err != nil || l.requests("/so/me/some") != 2 {
		t.Errorf("who misses nothing has it asked again: %v", err)
	}
	// After a restart, too.
	until(t, "it is noted", func() bool {
		f, _, _ := l.facts.File(t.Context(), CratesIO, "some")
		return f.Snapshot == storage.CIDOf([]byte(l.evidence.imported[1]))
	})
	l.upstream.entries = newRecent[string, entry](mostEntries)
	if renew(); l.requests("/so/me/some") != 3 {
		t.Errorf("after a restart what was noted a while ago does for who misses something")
	}
}

// A large index file has its place until it is entered: that is when its memory is free.
func TestLargeIndexFilesAreFewInMemoryUntilTheyAreEntered(t *testing.T) {
	l := newLab(t, nil)
	var now, most, done atomic.Int64
	gate := make(chan struct{})
	l.evidence.during = func() {
		most.Store(max(most.Load(), now.Add(1)))
		<-gate
		now.Add(-1)
	}
	const all = 6
	for i := range all {
		name := fmt.Sprintf("large%d", i)
		l.on("/"+cargo.IndexPath(name), text(line(name, "1.0.0")+strings.Repeat("\n", largeBytes)))
		go func() {
			if l.refresh(name) == nil {
				done.Add(1)
			}
		}()
	}
	until(t, "some are being entered", func() bool { return now.Load() >= mostLarge })
	until(t, "all are asked for", func() bool { return l.requests("/"+cargo.IndexPath("large5")) == 1 })
	time.Sleep(50 * time.Millisecond) // in which more would come
	if n := now.Load(); n != mostLarge {
		t.Errorf("%d large index files are being entered, want %d", n, mostLarge)
	}
	close(gate)
	until(t, "all are entered", func() bool { return done.Load() == all })
	if most.Load() > mostLarge || len(l.upstream.large) != 0 {
		t.Errorf("%d at a time, and %d places are not given back", most.Load(), len(l.upstream.large))
	}
}

// However much is asked for at once, a host has so many connections and no more, and crates
// leave some of them to the index.
func TestConnectionsToAnUpstreamAreBounded(t *testing.T) {
	l := newLab(t, nil)
	var crates, files atomic.Int64
	gate := make(chan struct{})
	held := func(now *atomic.Int64, answer string) http.HandlerFunc { // over HTTP/1.1, so each has a connection
		return func(w http.ResponseWriter, _ *http.Request) {
			now.Add(1)
			<-gate
			now.Add(-1)
			io.WriteString(w, answer)
		}
	}
	const each = 100
	errs := make(chan error, 2*each)
	for i := range each {
		name := fmt.Sprintf("crate%d", i)
		data, w := crate(name, 100)
		l.on(dlPath(w), held(&crates, string(data)))
		go func() {
			_, err := l.read(w)
			errs <- err
		}()
	}
	until(t, "as many crates come as may", func() bool { return crates.Load() >= mostBulk })
	for i := range each {
		name := fmt.Sprintf("name%d", i)
		l.on("/"+cargo.IndexPath(name), held(&files, line(name, "1.0.0")))
		go func() { errs <- l.refresh(name) }()
	}
	until(t, "all connections are used", func() bool { return crates.Load()+files.Load() >= mostConnections })
	time.Sleep(50 * time.Millisecond) // in which more would come
	if c, f := crates.Load(), files.Load(); c != mostBulk || f != mostConnections-mostBulk {
		t.Errorf("%d crates and %d index files are asked for at a time; want %d and %d", c, f, mostBulk, mostConnections-mostBulk)
	}
	close(gate)
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// However many names are asked for, an upstream gets only so many questions at a time; who
// leaves before it was their turn asked nothing.
func TestQuestionsToAnUpstreamAreBounded(t *testing.T) {
	l := newLab(t, nil)
	l.upstream.flights.places = make(chan struct{}, 2)
	var now, most atomic.Int64
	gate := make(chan struct{})
	serve := func(name string) {
		l.on("/"+cargo.IndexPath(name), func(w http.ResponseWriter, r *http.Request) {
			most.Store(max(most.Load(), now.Add(1)))
			<-gate
			now.Add(-1)
			io.WriteString(w, line(name, "1.0.0"))
		})
	}
	const all = 10
	errs := make(chan error, all)
	for i := range all {
		name := fmt.Sprintf("name%d", i)
		serve(name)
		go func() { errs <- l.refresh(name) }()
	}
	until(t, "all wait", func() bool {
		l.upstream.flights.mu.Lock()
		defer l.upstream.flights.mu.Unlock()
		return len(l.upstream.flights.all) == all && now.Load() == 2
	})
	serve("gone")
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { left <- l.upstream.Refresh(ctx, "gone") }()
	until(t, "one more waits", func() bool {
		l.upstream.flights.mu.Lock()
		defer l.upstream.flights.mu.Unlock()
		return len(l.upstream.flights.all) == all+1
	})
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(gate)
	for range all {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if most.Load() != 2 || l.requests("/go/ne/gone") != 0 {
		t.Errorf("%d questions at a time; what nobody waits for is asked %d times", most.Load(), l.requests("/go/ne/gone"))
	}
	until(t, "all places are given back", func() bool { return len(l.upstream.flights.places) == 0 })
	if err := l.refresh("gone"); err != nil || l.requests("/go/ne/gone") != 1 {
		t.Errorf("who asks later is not answered: %v", err)
	}
}

// What an upstream says that it is going to send takes no spool, nor does one upstream take
// another's.
func TestASlowUpstreamTakesNoSpoolOfOthers(t *testing.T) {
	l := newLab(t, func(c *Config) { c.CrateBytes, c.SpoolBytes, c.Stall = 8*spoolStep, 8*spoolStep, 5*time.Second })
	gate := make(chan struct{})
	done := make(chan error, 6)
	for i := range 6 {
		data, w := crate(fmt.Sprintf("slow%d", i), 2*spoolStep)
		l.on(dlPath(w), func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Length", fmt.Sprint(len(data)))
			rw.Write(data[:100])
			rw.(http.Flusher).Flush()
			<-gate
			rw.Write(data[100:])
		})
		go func() { _, err := l.read(w); done <- err }()
	}
	until(t, "six are under way", func() bool { return l.proxy.Figures().Receiving == 6 && l.upstream.spool.used() == 6*spoolStep })
	data, w := crate("quick", spoolStep)
	l.on(dlPath(w), text(string(data)))
	if got, err := l.read(w); err != nil || len(got) != len(data) {
		t.Errorf("what others say that they will send holds it up: %v", err)
	}
	close(gate)
	for range 6 {
		if err := <-done; err != nil && !errors.Is(err, ErrBusy) {
			t.Error(err)
		}
	}
	two, err := New(Config{Evidence: l.evidence, Blobs: l.blobs, Facts: l.facts, CrateBytes: 10, SpoolBytes: 100}, []Setting{
		{Name: CratesIO, Index: l.server.URL + "/"}, {Name: "other", Index: l.server.URL + "/"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer two.Close()
	if err := two.Upstream("other").spool.take(t.Context(), 50); err != nil {
		t.Fatal(err)
	}
	defer two.Upstream("other").spool.give(50)
	ended, end := context.WithCancel(t.Context())
	end()
	if err := two.Upstream(CratesIO).spool.take(ended, 50); err != nil {
		t.Errorf("another upstream takes all: %v", err)
	}
}

// What an upstream has entered here stays for ever: it cannot fill this registry by changing
// its index files again and again.
func TestAnUpstreamCannotEnterWithoutEnd(t *testing.T) {
	l := newLab(t, func(c *Config) { c.DayBytes = int64(10 * (len(line("some", "1.0.0")) + versionBytes)) })
	for i := range 20 {
		l.on("/so/me/some", text(line("some", fmt.Sprintf("1.0.%d", i%10))))
		if err := l.refresh("some"); err != nil {
			t.Fatalf("what is known is not served: %v", err)
		}
		l.pass(DefaultFresh)
	}
	if n := l.evidence.imports(); n != 5 {
		t.Errorf("%d index files of one crate are entered within a day, want 5 of the 10 that fit", n)
	}
	until(t, "there is one alarm", func() bool {
		return strings.Contains(l.facts.kinds(), AlarmExcess)
	})
	l.on("/ot/he/other", text(line("other", "1.0.0")))
	if err := l.refresh("other"); err != nil || l.evidence.imports() != 6 {
		t.Errorf("another crate is not entered: %v", err)
	}
	l.on("/la/rg/large", text(line("large", "1.0.0")+strings.Repeat("\n", 10*versionBytes)))
	if err := l.refresh("large"); !errors.Is(err, ErrBusy) {
		t.Errorf("what is not known, and for which there is not enough left: %v", err)
	}
	l.pass(24 * time.Hour)
	if err := l.refresh("some"); err != nil || l.evidence.imports() != 7 {
		t.Errorf("on the next day: %v", err)
	}
}

// A crate of many versions is written anew with every import, however small its index file has
// become, and so is whatever else was said of them: that counts, and so does that it is gone.
func TestWhatAnImportWritesBesideTheIndexFileCounts(t *testing.T) {
	const many = 20_000
	for name, known := range map[string]struct {
		versions, claims int
		bytes            int64
	}{
		"versions":              {many, 0, many * versionBytes},
		"versions, in each way": {many, 4 * many, many * (versionBytes + 4*claimBytes)},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, func(c *Config) { c.DayBytes = 20 * known.bytes })
			l.evidence.versions, l.evidence.claims = known.versions, known.claims
			for i := range 30 {
				l.on("/so/me/some", status(http.StatusGone))
				if i%2 == 0 {
					l.on("/so/me/some", text(line("some", fmt.Sprintf("1.0.%d", i))))
				}
				_ = l.refresh("some") // what is known, or that it is gone
				l.pass(DefaultFresh)
			}
			if n := l.evidence.imports(); n < 8 || n > 10 {
				t.Errorf("%d imports within a day, each of %d bytes, where ten are one crate's share", n, known.bytes)
			}
			until(t, "there is an alarm", func() bool { return strings.Contains(l.facts.kinds(), AlarmExcess) })
			l.pass(24 * time.Hour)
			l.on("/so/me/some", text(line("some", "2.0.0")))
			before := l.evidence.imports()
			if err := l.refresh("some"); err != nil || l.evidence.imports() != before+1 {
				t.Errorf("on the next day: %v", err)
			}
		})
	}
}

// What the network says of addresses and proxies is for operators, not for who asks.
func TestAnErrorTellsNoAddress(t *testing.T) {
	l := newLab(t, nil)
	l.server.Close()
	_, w := crate("some", 10)
	address := strings.TrimPrefix(l.server.URL, "http://")
	for what, err := range map[string]error{
		"an index file": l.refresh("some"),
		"a crate":       func() error { _, err := l.read(w); return err }(),
	} {
		if !errors.Is(err, ErrUnavailable) || strings.Contains(err.Error(), "127.0.0.1") || strings.Contains(err.Error(), "dial") {
			t.Errorf("%s: %v", what, err)
		}
		if !strings.Contains(inside(err), address) {
			t.Errorf("%s: the log is told %q", what, inside(err))
		}
	}
}

// The token goes where the index is, and where the setting says, not where config.json says.
func TestConfigJSONDoesNotSayWhoGetsTheToken(t *testing.T) {
	for name, c := range map[string]struct {
		host, address string
		may           bool
	}{
		"the index's host":        {"", "https://index.example/dl/x", true},
		"another host":            {"", "https://files.example/dl/x", false},
		"another port":            {"", "https://index.example:8443/dl/x", false},
		"the host that was named": {"files.example", "https://files.example/dl/x", true},
		"a host beside it":        {"files.example", "https://a.files.example/dl/x", false},
	} {
		t.Run(name, func(t *testing.T) {
			u := &Upstream{setting: Setting{Name: "a", Index: "https://index.example/x/", TokenHost: c.host}}
			if got := u.mayHaveToken(c.address); got != c.may {
				t.Errorf("%s gets the token: %v", c.address, got)
			}
		})
	}
}

// A name that was not to be had a while ago is fetched ahead again once its rest is over.
func TestARestThatIsOverDoesNotKeepANameFromBeingFetchedAhead(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Ahead = 1 })
	l.on("/so/me/some", text(line("some", "1.0.0", "needed")))
	if err := l.refresh("needed"); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	l.on("/ne/ed/needed", text(line("needed", "1.0.0")))
	l.pass(DefaultNegative)
	if err := l.refresh("some"); err != nil {
		t.Fatal(err)
	}
	until(t, "it is fetched ahead", func() bool { return l.requests("/ne/ed/needed") == 2 })
}
