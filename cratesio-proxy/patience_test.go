package cratesioproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

// An answer that comes a byte at a time, or after one redirect more and more, never stops and is
// never there: nobody is held by it for long, and it is there for who asks later.
func TestAnAnswerThatComesSlowlyHoldsNobody(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Stall = 5 * time.Second })
	l.upstream.patience = 100 * time.Millisecond
	gate := make(chan struct{})
	file := line("drips", "1.0.0")
	l.on("/dr/ip/drips", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(file)))
		io.WriteString(w, file[:1])
		w.(http.Flusher).Flush()
		<-gate
		io.WriteString(w, file[1:])
	})
	hops := func(serve http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if len(r.URL.RawQuery) == 2 {
				serve(w, r)
				return
			}
			<-gate
			http.Redirect(w, r, r.URL.Path+"?"+r.URL.RawQuery+"a", http.StatusFound)
		}
	}
	l.on("/ho/ps/hops", hops(text(line("hops", "1.0.0"))))
	data, w := crate("hopping", 100)
	l.on(dlPath(w), hops(text(string(data))))
	asks := map[string]func(context.Context) error{
		"drips": func(ctx context.Context) error { return l.upstream.Refresh(ctx, "drips") },
		"hops":  func(ctx context.Context) error { return l.upstream.Refresh(ctx, "hops") },
		"a crate": func(ctx context.Context) error {
			c, err := l.upstream.Crate(ctx, w)
			if err == nil {
				err = c.Close()
			}
			return err
		},
	}
	held := make(chan error, 1)
	go func() { held <- l.upstream.Hold(t.Context(), w) }()
	for what, ask := range asks {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		if err := ask(ctx); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
		cancel()
	}
	ended, end := context.WithCancel(t.Context())
	end()
	for what, ask := range asks {
		if err := ask(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("who leaves %s is told %v", what, err)
		}
	}
	close(gate)
	until(t, "the index files are there", func() bool { return l.evidence.imports() == 2 })
	if err := <-held; err != nil {
		t.Errorf("who needs it stored does not wait for it: %v", err)
	}
	l.upstream.patience = answerTime
	for what, ask := range asks {
		if err := ask(t.Context()); err != nil {
			t.Errorf("%s, later: %v", what, err)
		}
	}
	if l.requests("/dr/ip/drips") != 1 || l.requests("/ho/ps/hops") != 3 {
		t.Error("it was asked for again")
	}
}
