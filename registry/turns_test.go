package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// gatedCrate is a crate that takes until its gate opens to be looked into.
type gatedCrate struct {
	io.Reader
	begun chan<- string
	name  string
	gate  <-chan struct{}
	once  sync.Once
}

func (c *gatedCrate) Read(p []byte) (int, error) {
	c.once.Do(func() {
		c.begun <- c.name
		<-c.gate
	})
	return c.Reader.Read(p)
}

func (*gatedCrate) Close() error { return nil }

// However many crates of one upstream wait to be looked into, and however long each takes, one of
// another, and one that is being published, wait for one of them at most.
func TestLooksIntoCratesTakeTurnsBySource(t *testing.T) {
	c := newCourt(t)
	const bombs = 3 * scansAtOnce
	begun, gate := make(chan string, 2*bombs), make(chan struct{})
	var all sync.WaitGroup
	defer all.Wait()
	opened := sync.OnceFunc(func() { close(gate) })
	defer opened() // whatever fails
	look := func(upstream, name string, gate <-chan struct{}) {
		if _, err := c.r.Import(t.Context(), upstream, name, []byte(thereLine(name, "1.0.0", name, notYankedThere))); err != nil {
			t.Error(err)
			return
		}
		v, err := c.r.UpstreamVersion(t.Context(), reader, upstream, name, "1.0.0", storage.CIDOf([]byte(name)).Digest())
		if err == nil {
			err = c.r.LookInto(t.Context(), v, &gatedCrate{Reader: strings.NewReader(name), begun: begun, name: name, gate: gate})
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	waits := func(source string, n int) {
		t.Helper()
		eventually(t, 20*time.Second, func() error {
			turns := c.r.scans.turns
			turns.mu.Lock()
			defer turns.mu.Unlock()
			if s := turns.sources[source]; s == nil || len(s.waiting) != n {
				return fmt.Errorf("%d of %q are to wait, and its are %+v", n, source, s)
			}
			return nil
		})
	}
	for i := range bombs {
		all.Go(func() { look(cratesIO, fmt.Sprint("bomb", i), gate) })
	}
	waits(cratesIO, bombs-scansAtOnce)
	open := make(chan struct{})
	close(open)
	small, published := make(chan struct{}), make(chan struct{})
	all.Go(func() { look("other", "small", open); close(small) })
	waits("other", 1)
	all.Go(func() { c.publish("mine"); close(published) })
	waits(hosted, 1)
	gate <- struct{}{} // one bomb is done
	for what, done := range map[string]chan struct{}{"a small crate of another upstream": small, "what is published": published} {
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Errorf("%s waits for more than one of those before it", what)
		}
	}
	if s, err := c.r.scanOf(t.Context(), hosted, c.version("mine").CID); err != nil || s.Failure != "" {
		t.Errorf("what is published was not looked into: %+v, %v", s, err)
	}
	opened()
	all.Wait()
	close(begun)
	var order []string
	for name := range begun {
		order = append(order, name)
	}
	if i := slices.Index(order, "small"); i != scansAtOnce {
		t.Errorf("the small crate was looked into after %d others: %q", i, order)
	}
}

// A turn is that of the source that has the fewest places, and has had none for the longest time.
func TestATurnGoesToTheSourceThatHasTheLeast(t *testing.T) {
	for name, tt := range map[string]struct {
		places int
		steps  string // "a": work of a comes; "-a": the first piece of a's that goes on ends
		want   string // whose goes on, in the order in which it began
	}{
		"one source has all there is":       {2, "a a a", "a a"},
		"first come, first served":          {1, "a a -a", "a a"},
		"another waits for one place":       {2, "a a a a b -a", "a a b"},
		"and once for each that was before": {1, "a a a b b c -a -b -c -a -b", "a b c a b a"},
		"who waits is before who comes":     {2, "a b a b c -a -b", "a b a c"},
		"who comes late is last":            {1, "a b c -a a -b -c", "a b c a"},
		"long work takes no turns":          {2, "a b a b b -b -b", "a b b b"},
		"nothing waits":                     {2, "a b -a -b a", "a b a"},
		"who comes again comes last":        {1, "a b c -a -b b -c", "a b c b"},
	} {
		t.Run(name, func(t *testing.T) {
			turns := newTurns(tt.places, 100)
			var all []*place
			begun := map[*place]bool{}
			var got []string
			var runs []*place
			of := map[*place]string{}
			for step := range strings.FieldsSeq(tt.steps) {
				if source, ends := strings.CutPrefix(step, "-"); ends {
					i := slices.IndexFunc(runs, func(p *place) bool { return of[p] == source })
					if i < 0 {
						t.Fatalf("%s: nothing of it goes on", step)
					}
					runs[i].end()
					runs = slices.Delete(runs, i, i+1)
				} else {
					p := turns.join(step)
					all, of[p] = append(all, p), step
				}
				for _, p := range all {
					select {
					case <-p.granted:
						if !begun[p] {
							begun[p], got, runs = true, append(got, of[p]), append(runs, p)
						}
					default:
					}
				}
			}
			if got := strings.Join(got, " "); got != tt.want {
				t.Errorf("%s: began %q, want %q", tt.steps, got, tt.want)
			}
			for _, p := range all {
				p.end()
				p.end() // which ends nothing else
			}
			if turns.free != tt.places || len(turns.sources) != 0 {
				t.Errorf("in the end %d places are free of %d, and %d sources known", turns.free, tt.places, len(turns.sources))
			}
		})
	}
}

// What waits for too long has no turn, and takes none of others; where too much of one source waits,
// no more of that does.
func TestTurnsThatNobodyTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(1, 2)
		first, left, next := turns.join("a"), turns.join("a"), turns.join("a")
		if next == nil || turns.join("a") != nil {
			t.Error("more of it wait than may, or fewer")
		}
		other := turns.join("b")
		if other == nil {
			t.Fatal("another source's do not wait because of that")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := left.wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who waited in vain is told %v", err)
		}
		for _, p := range []*place{first, other, next} {
			if err := p.wait(t.Context()); err != nil {
				t.Error(err)
			}
			p.end()
		}
		if turns.free != 1 || len(turns.sources) != 0 {
			t.Errorf("%d places are free, %d sources known", turns.free, len(turns.sources))
		}
	})
}

// Work that a second source wants waits for the turns of both, has one place, and counts as that of
// whose turn came first.
func TestWorkOfTwoSourcesWaitsForTheFirstTurnOfBoth(t *testing.T) {
	turns := newTurns(1, 2)
	busy, before, both := turns.join("a"), turns.join("a"), turns.join("a")
	for range 3 {
		both.also("b")
	}
	busy.also("b")
	busy.end()
	select {
	case <-both.granted:
	default:
		t.Fatal("it waits for what came before it of the first source")
	}
	if s := turns.sources["b"]; s == nil || s.running != 1 || len(s.waiting) != 0 {
		t.Errorf("the second source is %+v", s)
	}
	both.also("a")
	both.end()
	both.also("a")
	<-before.granted
	before.end()
	if turns.free != 1 || len(turns.sources) != 0 {
		t.Errorf("%d places are free, %d sources known", turns.free, len(turns.sources))
	}
}

// No upstream has the name under which this registry's own crates are looked into.
func TestNoUpstreamIsTheHostedSource(t *testing.T) {
	if _, err := record.UpstreamSubject(hosted, "serde"); err == nil {
		t.Error("an upstream may be called as what is hosted is")
	}
}
