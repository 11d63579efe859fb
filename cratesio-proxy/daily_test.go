package cratesioproxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
)

// Nobody takes more than half of what is left to them of a day, so that something is left for others.
func TestNobodyTakesADayAlone(t *testing.T) {
	for name, c := range map[string]struct {
		steps string // crate, asker (- for nobody) and how much
		want  string // y: it is entered, c and a: the crate's or the asker's share is too small, n: there is not so much left
	}{
		"a crate that changes all the time":      {"a - 10, a - 10, a - 10, a - 10, a - 10, a - 1", "yyyyyc"},
		"others have half of what it left":       {"a - 50, b - 25, b - 1, c - 12, c - 1", "yycyc"},
		"one who asks for all there is":          {"a x 10, b x 10, c x 10, d x 10, e x 10, f x 1", "yyyyya"},
		"another has half of what that one left": {"a x 40, b x 10, c x 1, d y 20, e y 5, f y 1", "yyayya"},
		"and the first has no more by that":      {"a x 40, b y 30, c x 1", "yya"},
		"who asked for little has more":          {"a x 1, b y 49, c x 24, d x 1", "yyya"},
		"nobody in particular has no share":      {"a - 50, b - 25, c - 12, d - 6", "yyyy"},
		"the crate's share is told first":        {"a x 50, a x 1, b x 1", "yca"},
		"one of them may be larger than the day": {"a x 1000, b y 1", "yn"},
		"and than half of it":                    {"a x 90, b y 5, c z 3, d z 2", "yycy"},
		"more than is left":                      {"a x 50, b y 51", "yn"},
		"what was refused does not count":        {"a x 50, b y 30, b y 25, c z 12", "ycyy"},
	} {
		t.Run(name, func(t *testing.T) {
			var day tally
			now, got := time.Unix(1_800_000_000, 0), ""
			for step := range strings.SplitSeq(c.steps, ", ") {
				var crate, asker string
				var n int64
				if _, err := fmt.Sscan(step, &crate, &asker, &n); err != nil {
					t.Fatal(err)
				}
				sharers := []sharer{{crate: crate}}
				if asker != "-" {
					sharers = append(sharers, sharer{asker: asker})
				}
				switch short, ok := day.share(now, time.Hour, n, 100, sharers); {
				case ok:
					got += "y"
				case short.crate == crate:
					got += "c"
				case short.asker == asker:
					got += "a"
				default:
					got += "n"
				}
			}
			if got != c.want {
				t.Errorf("%s: %s, want %s", c.steps, got, c.want)
			}
			if _, ok := day.share(now.Add(time.Hour), time.Hour, 50, 100, []sharer{{crate: "a"}, {asker: "x"}}); !ok {
				t.Error("the next day does not begin anew")
			}
		})
	}
}

// One who asks for crate after crate leaves others something of the day; what is refused to one is
// not to another, however soon they ask for it, and upstream is not asked for it again and again.
func TestOneMemberLeavesOthersSomethingOfADay(t *testing.T) {
	unit := func(name string) int { return len(line(name, "1.0.0")) + versionBytes }
	l := newLab(t, func(c *Config) { c.DayBytes = int64(20 * unit("name10")) })
	gate := make(chan struct{})
	serve := func(name string) {
		l.on("/"+cargo.IndexPath(name), func(w http.ResponseWriter, r *http.Request) {
			if name == "name99" {
				<-gate
			}
			text(line(name, "1.0.0"))(w, r)
		})
	}
	ask := func(asker, name string) error {
		ctx, cancel := context.WithTimeout(AskedBy(t.Context(), asker), 10*time.Second)
		defer cancel()
		return l.upstream.Refresh(ctx, name)
	}
	had := 0
	for i := range 20 {
		name := fmt.Sprintf("name%d", 10+i)
		serve(name)
		switch err := ask("did:key:one", name); {
		case err == nil:
			had++
		case !errors.Is(err, ErrBusy) || strings.Contains(err.Error(), "did:"):
			t.Errorf("who has had their share is told %v", err)
		}
	}
	if had != 10 {
		t.Errorf("one has %d of 20 crates entered, want 10", had)
	}
	if err := ask("did:key:one", "name29"); !errors.Is(err, ErrBusy) || l.requests("/"+cargo.IndexPath("name29")) != 1 {
		t.Errorf("it is asked for again at once: %v", err)
	}
	if err := ask("did:key:two", "name29"); err != nil {
		t.Errorf("another is refused what one had no share for: %v", err)
	}
	if err := ask("did:key:one", "name29"); err != nil {
		t.Errorf("what another had entered: %v", err)
	}
	// And of one question that both wait for.
	serve("name99")
	told := make(chan error, 2)
	go func() { told <- ask("did:key:one", "name99") }()
	until(t, "one asks", func() bool { return l.requests("/"+cargo.IndexPath("name99")) == 1 })
	go func() { told <- ask("did:key:three", "name99") }()
	until(t, "both wait", func() bool {
		l.upstream.flights.mu.Lock()
		defer l.upstream.flights.mu.Unlock()
		f := l.upstream.flights.all["name99"]
		return f != nil && f.waiters == 2
	})
	close(gate)
	if a, b := <-told, <-told; (a == nil) == (b == nil) {
		t.Errorf("one has had their share, the other not; they are told: %v, %v", a, b)
	}
	until(t, "there is an alarm, that names nobody", func() bool {
		return strings.Contains(l.facts.kinds(), AlarmExcess)
	})
}
