package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"phoenix-lab.org/aln-registry/registry/record"
)

func named(name string) thing { return thing{family: stateFamily, name: name} }

// history is what a cache reads of: for each name, the sizes at which it changed.
type history struct{ changes map[string][]int64 }

// at is the value of name as of a size: the last change below it, nil for none.
func (h history) at(name string, size int64) any {
	var value any
	for _, at := range h.changes[name] {
		if at < size {
			value = at
		}
	}
	return value
}

// Whatever is asked, changed and pushed out in whatever order, the cache says
// what a read as of the visible size says, within its bounds.
func TestCacheAgreesWithWhatItReads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const limit = 64 << 10
		c := newCache(limit)
		h := history{map[string][]int64{}}
		size := int64(0)
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			name := fmt.Sprint("n", rapid.IntRange(0, 30).Draw(t, "name"))
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0: // a change that this process knows
				h.changes[name] = append(h.changes[name], size)
				size++
				c.advance(size, []thing{named(name)}, true)
			case 1: // one that it does not
				h.changes[name] = append(h.changes[name], size)
				size++
				c.advance(size, nil, false)
			default:
				bytes := int64(rapid.IntRange(0, 20<<10).Draw(t, "bytes"))
				got, err := c.get(context.Background(), named(name), func() int64 { return size }, func(_ context.Context, at int64) (found, error) {
					return found{h.at(name, at), bytes}, nil
				})
				if err != nil || got != h.at(name, size) {
					t.Fatalf("%s at %d is %v, not %v: %v", name, size, got, h.at(name, size), err)
				}
			}
			if s := c.stats(); s.CacheBytes > limit || s.CacheBytes < 0 || s.CacheLimit != limit {
				t.Fatalf("%d bytes held of %d", s.CacheBytes, limit)
			}
		}
	})
}

// A read that began before a change was visible is not kept after it, nor shared with who asks after it.
func TestCacheTakesNoOlderValue(t *testing.T) {
	ctx, c, size := context.Background(), newCache(1<<20), int64(1)
	now := func() int64 { return atomic.LoadInt64(&size) }
	reading, release := make(chan struct{}), make(chan struct{})
	old := make(chan any)
	go func() {
		v, _ := c.get(ctx, named("x"), now, func(_ context.Context, at int64) (found, error) {
			close(reading)
			<-release
			return found{at, 1}, nil
		})
		old <- v
	}()
	<-reading
	c.advance(2, []thing{named("x")}, true)
	atomic.StoreInt64(&size, 2)
	plain := func(_ context.Context, at int64) (found, error) { return found{at, 1}, nil }
	if v, _ := c.get(ctx, named("x"), now, plain); v != int64(2) {
		t.Fatalf("who asks after the change is told of size %v", v)
	}
	close(release)
	if v := <-old; v != int64(1) {
		t.Fatalf("the read as of 1 gave %v", v)
	}
	if v, _ := c.get(ctx, named("x"), now, plain); v != int64(2) {
		t.Fatalf("the late read replaced the newer value: %v", v)
	}
}

func TestCacheReadsOnceForAHerd(t *testing.T) {
	const herd = 50
	c, size := newCache(1<<20), func() int64 { return 1 }
	var reads atomic.Int64
	release := make(chan struct{})
	var group sync.WaitGroup
	for range herd {
		group.Go(func() {
			v, err := c.get(context.Background(), named("x"), size, func(context.Context, int64) (found, error) {
				reads.Add(1)
				<-release
				return found{"value", 1}, nil
			})
			if v != "value" || err != nil {
				t.Errorf("%v, %v", v, err)
			}
		})
	}
	for s := c.stats(); s.CacheHits+s.CacheMisses < herd; s = c.stats() {
		runtime.Gosched() // until all have asked
	}
	close(release)
	group.Wait()
	if s := c.stats(); reads.Load() != 1 || s.CacheMisses != 1 || s.CacheHits != herd-1 {
		t.Errorf("%d reads, %+v", reads.Load(), s)
	}
}

// A reader that goes away, fails or panics leaves nothing behind that others wait for.
func TestCacheForgetsFailures(t *testing.T) {
	c, size := newCache(1<<20), func() int64 { return 1 }
	broken := errors.New("broken")
	if _, err := c.get(context.Background(), named("x"), size, func(context.Context, int64) (found, error) { return found{}, broken }); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_, _ = c.get(context.Background(), named("x"), size, func(context.Context, int64) (found, error) { panic("bug") })
	}()
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	v, err := c.get(gone, named("x"), size, func(ctx context.Context, _ int64) (found, error) { return found{"value", 1}, ctx.Err() })
	if v != "value" || err != nil {
		t.Errorf("a read that is begun is finished for those who wait: %v, %v", v, err)
	}
}

// Asking for what does not exist pushes out nothing that does.
func TestMissingNamesPushOutOnlyEachOther(t *testing.T) {
	c, size := newCache(1<<20), func() int64 { return 0 }
	ask := func(name string, value any) {
		_, _ = c.get(context.Background(), named(name), size, func(context.Context, int64) (found, error) { return found{value, 1 << 10}, nil })
	}
	ask("there", 1)
	for i := range 10_000 {
		ask(fmt.Sprint("missing-", i), nil)
	}
	before := c.stats()
	ask("there", 1)
	if after := c.stats(); after.CacheHits != before.CacheHits+1 || after.CacheBytes > 1<<20 || after.CacheEvictions == 0 {
		t.Errorf("%+v, then %+v", before, after)
	}
}

// Readers ask all the time while a version is yanked and unyanked and others
// are published: who asks after an acknowledgement sees the change.
func TestReadersSeeEveryAcknowledgedChange(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	defer w.closeAll(r)
	u := newUpload("seen")
	if _, err := w.publish(r, u); err != nil {
		t.Fatal(err)
	}
	// The number of changes that were begun, and of those acknowledged; odd ones yank.
	var begun, acknowledged atomic.Int64
	shown := func() bool {
		file, err := r.IndexFile(t.Context(), reader, u.name)
		if err != nil {
			t.Error(err)
			return false
		}
		return bytes.Contains(file.Plain.Bytes, []byte(`"yanked":true`))
	}
	version := func() bool {
		v, err := r.Version(t.Context(), reader, record.KindCrate, u.name, "1.0.0")
		if err != nil {
			t.Error(err)
		}
		return v.Yanked
	}
	done := make(chan struct{})
	var others sync.WaitGroup
	for i := range 4 {
		read := [...]func() bool{shown, version}[i%2]
		others.Go(func() {
			for ended := false; !ended; {
				before := acknowledged.Load()
				yanked := read()
				if after := begun.Load(); before == after && yanked != (before%2 == 1) {
					t.Errorf("yanked is %v after change %d", yanked, before)
				}
				select {
				case <-done:
					ended = true
				default:
				}
			}
		})
	}
	others.Go(func() { // changes of other crates between them
		for i := range 20 {
			other := newUpload(fmt.Sprint("other-", i))
			if _, err := w.publish(r, other); err != nil {
				t.Error(err)
			}
			if w.visible(r, other) == "" {
				t.Errorf("%s was acknowledged and is not there", other.name)
			}
		}
	})
	owner, subject := person{w.admin}, versionSubject(t, u.name)
	for i := range int64(60) {
		rec := owner.sign(t, r, subject, &record.Yank{Yanked: i%2 == 0}, nil)
		begun.Add(1)
		if _, err := r.Submit(t.Context(), owner.asker("publish"), rec.Envelope(), nil); err != nil {
			t.Fatal(err)
		}
		acknowledged.Add(1)
		if yanked := i%2 == 0; shown() != yanked || version() != yanked {
			t.Fatalf("change %d is acknowledged and not shown", i)
		}
	}
	close(done)
	others.Wait()
	if s := r.Figures().State; s.CacheHits == 0 || s.CacheInvalidations == 0 {
		t.Errorf("the cache took no part in it: %+v", s)
	}
}

func versionSubject(t testing.TB, name string) record.Subject {
	t.Helper()
	subject, err := record.VersionSubject(record.KindCrate, name, "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	return subject
}
