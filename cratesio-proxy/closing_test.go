package cratesioproxy

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

func TestClosingEndsWhatIsUnderWay(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Stall = time.Minute })
	data, want := crate("some", 200_000)
	var served atomic.Bool
	l.on(dlPath(want), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data[:150_000])
		w.(http.Flusher).Flush()
		served.Store(true)
		<-r.Context().Done()
	})
	c, err := l.upstream.Crate(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	until(t, "upstream sends", served.Load)
	l.proxy.Close()
	if _, err := io.ReadAll(c); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if err := l.refresh("other"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

// Once the registry is about to end nobody waits for an upstream that has not answered, and
// nobody reads on what makes no progress; what does is received to its end.
func TestNobodyWaitsForAnUpstreamOnceTheRegistryEnds(t *testing.T) {
	stopping := make(chan struct{})
	l := newLab(t, func(c *Config) { c.Stall, c.Patience, c.Stopping = time.Minute, time.Minute, stopping })
	l.on("/kn/ow/known", text(line("known", "1.0.0")))
	if err := l.refresh("known"); err != nil {
		t.Fatal(err)
	}
	l.pass(DefaultFresh)
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	l.on("/kn/ow/known", silent)
	l.on("/so/me/some", silent)
	_, unanswered := crate("unanswered", 200_000)
	l.on(dlPath(unanswered), silent)
	half, stalled := crate("stalled", 200_000)
	l.on(dlPath(stalled), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(half)))
		w.Write(half[:len(half)/2])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	whole, slow := crate("slow", 200_000)
	l.on(dlPath(slow), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(whole)))
		for part := range slices.Chunk(whole, 10_000) { // in all more than stopGrace
			w.Write(part)
			w.(http.Flusher).Flush()
			time.Sleep(150 * time.Millisecond)
		}
	})
	type outcome struct {
		what string
		err  error
		at   time.Time
	}
	ended := make(chan outcome, 5)
	ask := func(what string, f func() error) {
		go func() { err := f(); ended <- outcome{what, err, time.Now()} }()
	}
	ask("known", func() error { return l.refresh("known") })
	ask("some", func() error { return l.refresh("some") })
	for name, want := range map[string]Want{"unanswered": unanswered, "stalled": stalled, "slow": slow} {
		ask(name, func() error {
			got, err := l.read(want)
			if err == nil && !bytes.Equal(got, whole) {
				t.Errorf("%s: %d bytes", name, len(got))
			}
			return err
		})
	}
	until(t, "all are asked for", func() bool {
		return l.requests("/kn/ow/known") == 2 && l.requests("/so/me/some") == 1 && l.requests(dlPath(unanswered)) == 1 &&
			l.requests(dlPath(stalled)) == 1 && l.requests(dlPath(slow)) == 1 && l.started() == 2
	})
	begun := time.Now()
	close(stopping)
	for range cap(ended) {
		o := <-ended
		took := o.at.Sub(begun)
		served := o.what == "known" || o.what == "slow"
		if served != (o.err == nil) || !served && !errors.Is(o.err, errClosed) {
			t.Errorf("%s: %v", o.what, o.err)
		}
		if soon := o.what != "stalled" && o.what != "slow"; soon && took > time.Second || took > 3*stopGrace {
			t.Errorf("%s ended after %s", o.what, took)
		}
	}
	for what, err := range map[string]error{"an index file": l.refresh("other"), "a crate": func() error {
		_, err := l.read(Want{Name: "other", Version: "1.0.0", ID: storage.CIDOf([]byte("other"))})
		return err
	}()} {
		if !errors.Is(err, errClosed) {
			t.Errorf("%s is begun: %v", what, err)
		}
	}
}

// started is how many crates upstream has begun to send.
func (l *lab) started() (n int) {
	all := &l.upstream.downloads
	all.mu.Lock()
	defer all.mu.Unlock()
	for _, d := range all.all {
		d.mu.Lock()
		if d.started {
			n++
		}
		d.mu.Unlock()
	}
	return n
}
