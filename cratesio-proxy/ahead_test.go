package cratesioproxy

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
)

// asks has name asked for, and waits until nothing more is fetched ahead.
func (l *lab) asks(name string) {
	l.t.Helper()
	if err := l.refresh(name); err != nil {
		l.t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); l.upstream.waiting.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			l.t.Fatal("what is fetched ahead has no end")
		}
	}
}

// An upstream that answers every name with more names makes one question bring a few hundred of
// them, and all together so many a minute: whatever is fetched is entered for ever.
func TestAnUpstreamCannotHaveNamesAskedForWithoutEnd(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Ahead, c.Stall = DefaultAhead, DefaultStall }) // none is asked for twice
	var made, asked atomic.Int64
	var endless func(name string)
	endless = func(name string) {
		l.on("/"+cargo.IndexPath(name), func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			deps := make([]string, 60)
			for i := range deps {
				deps[i] = fmt.Sprintf("more%d", made.Add(1))
				endless(deps[i])
			}
			io.WriteString(w, line(name, "1.0.0", deps...))
		})
	}
	ask := func(name string) int64 {
		before := asked.Load()
		endless(name)
		l.asks(name)
		return asked.Load() - before
	}
	if n := ask("start0"); n != mostCascade+1 {
		t.Errorf("one question brings %d names", n)
	}
	for i := 1; i < 5; i++ {
		ask(fmt.Sprintf("start%d", i))
	}
	if n := asked.Load(); n != mostMinute+5 {
		t.Errorf("five questions within a minute bring %d names", n)
	}
	l.pass(time.Minute)
	if n := ask("later"); n != mostCascade+1 {
		t.Errorf("a minute later one question brings %d names", n)
	}
}

// The bounds on what is fetched ahead are in no build's way: all of a large one is fetched by
// one question, and what is fresh counts for nothing when it is asked for again.
func TestALargeBuildIsFetchedAheadWhole(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Ahead = DefaultAhead })
	const all = 300
	name := func(i int) string { return fmt.Sprintf("part%d", i) }
	for i := range all {
		deps := []string{}
		for j := 3*i + 1; j <= 3*i+3 && j < all; j++ {
			deps = append(deps, name(j))
		}
		l.on("/"+cargo.IndexPath(name(i)), text(line(name(i), "1.0.0", deps...)))
	}
	l.asks(name(0))
	if n := l.evidence.imports(); n != all {
		t.Fatalf("%d of %d are there", n, all)
	}
	for i := range all {
		l.asks(name(i))
	}
	if asked := l.upstream.asked.taken; asked >= all || l.proxy.Figures().Requests > all+1 {
		t.Errorf("%d were counted, %d requests made", asked, l.proxy.Figures().Requests)
	}
}
