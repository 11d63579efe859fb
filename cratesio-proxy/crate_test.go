package cratesioproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// sends serves data with its length and an ETag, all of it or a range to its end.
func sends(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"x"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
}

func TestManyReadersOfManyCratesMakeOneRequestForEach(t *testing.T) {
	const readers, crates = 200, 50
	l := newLab(t, func(c *Config) { c.Stall = 10 * time.Second })
	var wants []Want
	var all [][]byte
	for i := range crates {
		data, want := crate(fmt.Sprintf("crate%d", i), 1000+i*2000)
		wants, all = append(wants, want), append(all, data)
		l.on(dlPath(want), sends(data))
	}
	var group sync.WaitGroup
	for r := range readers {
		group.Go(func() {
			for i := range crates {
				i = (i + r) % crates
				c, err := l.upstream.Crate(t.Context(), wants[i])
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(c)
				c.Close()
				if err != nil || !bytes.Equal(got, all[i]) {
					t.Errorf("%s: %d bytes, %v", wants[i].Name, len(got), err)
					return
				}
			}
		})
	}
	group.Wait()
	for _, want := range wants {
		until(t, want.Name+" is stored", func() bool { return l.blobs.has(want.ID) })
		if n := l.requests(dlPath(want)); n != 1 {
			t.Errorf("%s was asked for %d times", want.Name, n)
		}
	}
	if n := l.requests("/config.json"); n != 1 {
		t.Errorf("config.json was asked for %d times", n)
	}
}

func TestTheLastBytesWaitForTheDigest(t *testing.T) {
	for _, length := range []bool{true, false} {
		t.Run(fmt.Sprintf("length said %v", length), func(t *testing.T) {
			l := newLab(t, func(c *Config) { c.Stall = 10 * time.Second })
			data, want := crate("large", 200_000)
			release := make(chan struct{})
			l.on(dlPath(want), func(w http.ResponseWriter, _ *http.Request) {
				if length {
					w.Header().Set("Content-Length", strconv.Itoa(len(data)))
				}
				w.Write(data[:len(data)-1])
				w.(http.Flusher).Flush()
				<-release
				w.Write(data[len(data)-1:])
			})
			c, err := l.upstream.Crate(t.Context(), want)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if size := c.Size(); length && size != int64(len(data)) || !length && size != -1 {
				t.Errorf("its size is %d", size)
			}
			early := len(data) - heldBack
			if !length {
				early--
			}
			got := make([]byte, early)
			if _, err := io.ReadFull(c, got); err != nil {
				t.Fatalf("what came is not read while more comes: %v", err)
			}
			read := make(chan []byte)
			go func() {
				rest, err := io.ReadAll(c)
				if err != nil {
					t.Error(err)
				}
				read <- rest
			}()
			select {
			case <-read:
				t.Fatal("the last bytes are read before the digest is known")
			case <-time.After(50 * time.Millisecond):
			}
			close(release)
			if rest := <-read; !bytes.Equal(append(got, rest...), data) {
				t.Error("the bytes are others")
			}
		})
	}
}

func TestWhatIsWrongIsNeverReadToItsEndNorStored(t *testing.T) {
	for name, c := range map[string]struct {
		size  int
		serve func(data []byte) http.HandlerFunc
		want  error
		asked int
		alarm string
	}{
		"corrupt":       {200_000, func(data []byte) http.HandlerFunc { return sends(append(bytes.Clone(data[:len(data)-1]), 'X')) }, ErrMismatch, 1, AlarmMismatch},
		"corrupt small": {100, func(data []byte) http.HandlerFunc { return sends(append([]byte{'X'}, data[1:]...)) }, ErrMismatch, 1, AlarmMismatch},
		"short":         {200_000, func(data []byte) http.HandlerFunc { return sends(data[:len(data)-1]) }, ErrMismatch, 1, AlarmMismatch},
		"long":          {200_000, func(data []byte) http.HandlerFunc { return sends(append(bytes.Clone(data), 0)) }, ErrMismatch, 1, AlarmMismatch},
		"nothing":       {200_000, func([]byte) http.HandlerFunc { return text("") }, ErrMismatch, 1, AlarmMismatch},
		"a page":        {200_000, func([]byte) http.HandlerFunc { return text("<html>") }, ErrMismatch, 1, AlarmMismatch},
		"always truncated": {200_000, func(data []byte) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", strconv.Itoa(len(data)))
				w.Write(data[:100_000])
			}
		}, ErrUnavailable, 4, ""},
		"stalled": {200_000, func(data []byte) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", strconv.Itoa(len(data)))
				w.Write(data[:100_000])
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			}
		}, ErrUnavailable, 4, ""},
		"403":       {100, func([]byte) http.HandlerFunc { return status(403) }, ErrRefused, 1, ""},
		"404":       {100, func([]byte) http.HandlerFunc { return status(404) }, ErrNotFound, 1, ""},
		"410":       {100, func([]byte) http.HandlerFunc { return status(410) }, ErrNotFound, 1, ""},
		"429":       {100, func([]byte) http.HandlerFunc { return status(429, "Retry-After", "60") }, ErrUnavailable, 1, ""},
		"500":       {100, func([]byte) http.HandlerFunc { return status(500) }, ErrUnavailable, 4, ""},
		"304":       {100, func([]byte) http.HandlerFunc { return status(304) }, ErrBroken, 1, ""},
		"206":       {100, func([]byte) http.HandlerFunc { return status(206, "Content-Range", "bytes 0-99/100") }, ErrBroken, 1, ""},
		"redirects": {100, func([]byte) http.HandlerFunc { return status(302, "Location", "file:///etc/passwd") }, ErrBroken, 1, ""},
		"too large": {100, func([]byte) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", strconv.Itoa(2<<20))
				w.Write(nil)
			}
		}, ErrBroken, 1, ""},
		"too large without saying so": {1 << 20, func([]byte) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				for range 100 {
					w.Write(make([]byte, 64<<10))
				}
			}
		}, ErrBroken, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, func(c *Config) { c.CrateBytes, c.SpoolBytes = 1<<20, 4<<20 })
			data, want := crate("some", c.size)
			l.on(dlPath(want), c.serve(data))
			got, err := l.read(want)
			if !errors.Is(err, c.want) || len(got) >= len(data) {
				t.Errorf("got %d bytes, %v; want %v", len(got), err, c.want)
			}
			if _, err := l.read(want); !errors.Is(err, c.want) {
				t.Errorf("and then %v", err)
			}
			if n := l.requests(dlPath(want)); n != c.asked {
				t.Errorf("asked %d times, want %d", n, c.asked)
			}
			until(t, "the alarm is noted", func() bool { return l.facts.kinds() == c.alarm })
			if l.blobs.puts.Load() != 0 {
				t.Error("it was stored")
			}
			l.on(dlPath(want), sends(data))
			l.pass(time.Hour)
			l.elapsed.Add(int64(time.Hour))
			if got, err := l.read(want); err != nil || !bytes.Equal(got, data) {
				t.Errorf("when upstream is well again: %d bytes, %v", len(got), err)
			}
		})
	}
}

func TestACutTransferGoesOnWhereItWasCut(t *testing.T) {
	for name, ranges := range map[string]bool{"with ranges": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, nil)
			data, want := crate("some", 300_000)
			var got []string
			l.on(dlPath(want), func(w http.ResponseWriter, r *http.Request) {
				got = append(got, r.Header.Get("Range"))
				if !ranges {
					r.Header.Del("Range")
				}
				if len(got) < 3 {
					w = &cutting{w, 100_000}
				}
				sends(data)(w, r)
			})
			if read, err := l.read(want); err != nil || !bytes.Equal(read, data) {
				t.Fatalf("%d bytes, %v", len(read), err)
			}
			if len(got) != 3 || got[0] != "" || !strings.HasPrefix(got[2], "bytes=") {
				t.Errorf("asked for %q", got)
			}
		})
	}
}

// cutting cuts the connection after so many bytes.
type cutting struct {
	http.ResponseWriter
	left int
}

func (c *cutting) Write(p []byte) (int, error) {
	if len(p) > c.left {
		c.ResponseWriter.Write(p[:c.left])
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

func TestWhoLeavesDoesNotEndItForOthers(t *testing.T) {
	for name, c := range map[string]struct {
		part   int // of 400,000 bytes, there when the first reader leaves
		others bool
		stored bool
		linger time.Duration
	}{
		"others wait":                         {1000, true, true, time.Millisecond},
		"alone, more than half":               {300_000, false, true, time.Millisecond},
		"alone, less than half, for a while":  {100_000, false, true, time.Minute},
		"alone, less than half, for too long": {100_000, false, false, time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, func(proxy *Config) { proxy.Stall, proxy.Linger = 10*time.Second, c.linger })
			data, want := crate("some", 400_000)
			release, ended := make(chan struct{}), make(chan struct{})
			var once sync.Once
			l.on(dlPath(want), func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", strconv.Itoa(len(data)))
				w.Write(data[:c.part])
				w.(http.Flusher).Flush()
				select {
				case <-release:
					w.Write(data[c.part:])
				case <-r.Context().Done():
					once.Do(func() { close(ended) })
				}
			})
			ctx, leave := context.WithCancel(t.Context())
			first, err := l.upstream.Crate(ctx, want)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(first, make([]byte, c.part)); err != nil {
				t.Fatal(err)
			}
			var other *Crate
			if c.others {
				if other, err = l.upstream.Crate(t.Context(), want); err != nil {
					t.Fatal(err)
				}
				defer other.Close()
			}
			leave()
			if _, err := io.ReadAll(first); !errors.Is(err, context.Canceled) {
				t.Errorf("who left reads on: %v", err)
			}
			first.Close()
			first.Close()
			if !c.stored {
				<-ended
				close(release)
				if got, err := l.read(want); err != nil || !bytes.Equal(got, data) || l.requests(dlPath(want)) != 2 {
					t.Errorf("who comes later: %d bytes, %v after %d requests", len(got), err, l.requests(dlPath(want)))
				}
				return
			}
			close(release)
			until(t, "it is stored", func() bool { return l.blobs.has(want.ID) })
			if other != nil {
				if got, err := io.ReadAll(other); err != nil || !bytes.Equal(got, data) {
					t.Errorf("who stayed: %d bytes, %v", len(got), err)
				}
			}
			if n := l.requests(dlPath(want)); n != 1 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

// cargo leaves where nothing comes for half a minute, as with a crate that is looked into first,
// and asks again: what has come by then is not asked for once more. But who left holds no place
// that somebody waits for.
func TestWhoComesAgainFindsWhatHasCome(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Stall = 10 * time.Second })
	l.upstream.bulk = make(chan struct{}, 1)
	data, want := crate("slow", 400_000)
	parts := make(chan int)
	l.on(dlPath(want), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		for begun := 0; begun < len(data); {
			select {
			case n := <-parts:
				w.Write(data[begun : begun+n])
				w.(http.Flusher).Flush()
				begun += n
			case <-r.Context().Done():
				return
			}
		}
	})
	visit := func(n int) {
		t.Helper()
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		go func() { parts <- n }()
		c, err := l.upstream.Crate(ctx, want)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		leave()
		if _, err := c.Whole(ctx); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	for range 3 {
		visit(50_000)
	}
	go func() { parts <- len(data) - 150_000 }()
	if got, err := l.read(want); err != nil || !bytes.Equal(got, data) || l.requests(dlPath(want)) != 1 {
		t.Errorf("%d bytes, %v after %d requests", len(got), err, l.requests(dlPath(want)))
	}
	until(t, "it is stored", func() bool { return l.blobs.has(want.ID) })
	l.evict(want.ID, true)
	l.upstream.proven.drop(want.ID)
	until(t, "it is over", func() bool { return l.proxy.Figures().Receiving == 0 })

	visit(50_000)
	other, next := crate("other", 1000)
	l.on(dlPath(next), sends(other))
	if got, err := l.read(next); err != nil || !bytes.Equal(got, other) {
		t.Errorf("who waits for the place of one that nobody waits for: %d bytes, %v", len(got), err)
	}
}

func TestTheSpoolIsBounded(t *testing.T) {
	l := newLab(t, func(c *Config) { c.CrateBytes, c.SpoolBytes, c.Stall = 1<<20, 3<<19, 10*time.Second })
	data, want := crate("first", 1<<20)
	second, wantSecond := crate("second", 1<<20)
	third, wantThird := crate("third", 1<<20)
	release := make(chan struct{})
	l.on(dlPath(want), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data[:1])
		w.(http.Flusher).Flush()
		<-release
		w.Write(data[1:])
	})
	l.on(dlPath(wantSecond), sends(second))
	l.on(dlPath(wantThird), func(w http.ResponseWriter, _ *http.Request) { // does not say how large it is
		w.(http.Flusher).Flush()
		w.Write(third)
	})
	first, err := l.upstream.Crate(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	l.upstream.spool.patience = 100 * time.Millisecond
	if _, err := l.read(wantThird); !errors.Is(err, ErrBusy) {
		t.Errorf("what grows beyond the spool: %v", err)
	}
	l.upstream.spool.patience = budgetTime
	var group sync.WaitGroup
	group.Go(func() {
		if got, err := l.read(wantSecond); err != nil || !bytes.Equal(got, second) {
			t.Errorf("who waits for room: %d bytes, %v", len(got), err)
		}
	})
	if used := l.proxy.Figures().Spool; used > l.proxy.SpoolBytes {
		t.Errorf("the spool has %d bytes", used)
	}
	close(release)
	if got, err := io.ReadAll(first); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	first.Close()
	group.Wait()
}

func TestWhatIsHeldIsNotAskedFor(t *testing.T) {
	l := newLab(t, nil)
	data, want := crate("some", 5000)
	l.on(dlPath(want), sends(data))
	if err := l.upstream.Hold(t.Context(), want); err != nil || !l.blobs.has(want.ID) {
		t.Fatalf("it is not held: %v", err)
	}
	c, err := l.upstream.Crate(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) || c.Held() == nil || c.Size() != 5000 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := l.upstream.Hold(t.Context(), want); err != nil || l.requests(dlPath(want)) != 1 {
		t.Errorf("asked %d times, %v", l.requests(dlPath(want)), err)
	}
	until(t, "its use is noted", func() bool { l.facts.mu.Lock(); defer l.facts.mu.Unlock(); return len(l.facts.used) > 0 })
	for range 10 {
		if err := l.upstream.Hold(t.Context(), want); err != nil {
			t.Fatal(err)
		}
	}
	l.proxy.Close()
	if n := len(l.facts.used); n != 1 {
		t.Errorf("within an hour its use is noted %d times", n)
	}
	if err := l.upstream.Hold(t.Context(), Want{Name: "other", Version: "1.0.0", ID: storage.CIDOf(nil)}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("when closed: %v", err)
	}
}

func TestABlobThatNoUpstreamServedIsNotServedAsItsOwn(t *testing.T) {
	l := newLab(t, nil)
	secret, want := crate("some", 5000)
	l.blobs.held[want.ID] = secret // a hosted crate, whose digest upstream's index names
	if got, err := l.read(want); !errors.Is(err, ErrNotFound) || len(got) > 0 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	l.on(dlPath(want), sends(secret))
	l.pass(time.Hour)
	if got, err := l.read(want); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestAStoreThatIsFullHoldsNoReader(t *testing.T) {
	l := newLab(t, nil)
	l.blobs.err = storage.ErrFull
	data, want := crate("some", 5000)
	l.on(dlPath(want), sends(data))
	if got, err := l.read(want); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := l.upstream.Hold(t.Context(), want); !errors.Is(err, storage.ErrFull) {
		t.Errorf("held, and it is not: %v", err)
	}
	if len(l.facts.blobs) > 0 || l.proxy.Figures().Unstored == 0 {
		t.Error("it counts as stored")
	}
}

// Who looks into a crate reads all of it before it is stored, and apart from who is sent it.
func TestAWholeCrateIsReadBeforeItIsStored(t *testing.T) {
	l := newLab(t, nil)
	data, want := crate("some", 5000)
	l.on(dlPath(want), sends(data))
	l.blobs.mu.Lock() // nothing gets stored
	storing := sync.OnceFunc(l.blobs.mu.Unlock)
	defer storing()
	c, err := l.upstream.Crate(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := c.Whole(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]io.ReadCloser{"whole": whole, "sent": c} {
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	storing()
	until(t, "it is stored", func() bool { return l.blobs.has(want.ID) })
	until(t, "nothing is spooled", func() bool { return l.proxy.Figures().Spool == 0 })

	if c, err = l.upstream.Crate(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if whole, err := c.Whole(t.Context()); whole != nil || err != nil || c.Held() == nil {
		t.Errorf("of what is held: %v, %v", whole, err)
	}
}

func TestWhatIsWrongIsNeverWhole(t *testing.T) {
	l := newLab(t, nil)
	data, want := crate("some", 100_000)
	data[99_999]++
	l.on(dlPath(want), sends(data))
	c, err := l.upstream.Crate(t.Context(), want)
	if errors.Is(err, ErrMismatch) { // all had come before anybody looked
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if whole, err := c.Whole(t.Context()); whole != nil || !errors.Is(err, ErrMismatch) {
		t.Errorf("%v, %v", whole, err)
	}
}

func TestAFileThatIsNotSentDoesNotCountAgainstItsHost(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Stall = 20 * time.Millisecond })
	l.slow.Store(int64(3 * time.Second))
	data, want := crate("bad", 200_000)
	l.on(dlPath(want), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	if _, err := l.read(want); !errors.Is(err, ErrUnavailable) || len(l.slept) != mostRetries {
		t.Errorf("got %v after %v", err, l.slept)
	}
	good, other := crate("good", 200_000)
	l.on(dlPath(other), sends(good))
	if got, err := l.read(other); err != nil || !bytes.Equal(got, good) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestWhatCannotBeNotedIsNotHeld(t *testing.T) {
	l := newLab(t, nil)
	data, want := crate("some", 5000)
	l.on(dlPath(want), sends(data))
	l.facts.refuse = mostStores - 1
	if err := l.upstream.Hold(t.Context(), want); err != nil || len(l.facts.blobs) != 1 {
		t.Errorf("it is tried no more: %v", err)
	}
	data, want = crate("other", 5000)
	l.on(dlPath(want), sends(data))
	l.facts.refuse = mostStores
	if err := l.upstream.Hold(t.Context(), want); err == nil {
		t.Error("what the catalog does not know of counts as held")
	}
	if err := l.upstream.Hold(t.Context(), want); err != nil || l.requests(dlPath(want)) != 2 {
		t.Errorf("fetched %d times, %v", l.requests(dlPath(want)), err)
	}
}
