package registry

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func numbered(n int, then error) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for i := range n {
			if !yield(fmt.Sprint(i), nil) {
				return
			}
		}
		if then != nil {
			yield("", then)
		}
	}
}

func TestWhatIsFetchedAheadComesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		begun := time.Now()
		var got []string
		for text, err := range ahead(t.Context(), numbered(100, nil), func(_ context.Context, key string) (string, error) {
			n := now.Add(1)
			defer now.Add(-1)
			most.Store(max(most.Load(), n))
			time.Sleep(time.Duration(n) * time.Millisecond) // the later ones of a batch later, or earlier
			return key, nil
		}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, text)
		}
		var want []string
		for key := range numbered(100, nil) {
			want = append(want, key)
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
		if n := most.Load(); n < aheadMost || n > aheadMost+1 {
			t.Errorf("%d were fetched at once", n)
		}
		if took := time.Since(begun); took > 500*time.Millisecond {
			t.Errorf("it took %s", took)
		}
	})
}

func TestWhatIsFetchedAheadEndsWithAnError(t *testing.T) {
	broken := errors.New("broken")
	ok := func(_ context.Context, key string) (string, error) { return key, nil }
	canceled, cancel := context.WithCancel(t.Context())
	for name, c := range map[string]struct {
		ctx   context.Context
		keys  iter.Seq2[string, error]
		fetch func(context.Context, string) (string, error)
		n     int
		want  error
	}{
		"of the list": {t.Context(), numbered(40, broken), ok, 40, broken},
		"of an object": {t.Context(), numbered(40, nil), func(_ context.Context, key string) (string, error) {
			if key == "7" {
				return "", broken
			}
			return key, nil
		}, 7, broken},
		"of the context": {canceled, numbered(40, nil), func(ctx context.Context, key string) (string, error) {
			if key == "3" {
				cancel()
			}
			return key, nil
		}, -1, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			n, last := 0, error(nil)
			for _, err := range ahead(c.ctx, c.keys, c.fetch) {
				if last = err; err == nil {
					n++
				}
			}
			if !errors.Is(last, c.want) || c.n >= 0 && n != c.n {
				t.Errorf("after %d: %v", n, last)
			}
		})
	}
}

func TestWhoeverStopsEarlyLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which fails where a goroutine is left
		for range ahead(t.Context(), numbered(1000, nil), func(ctx context.Context, key string) (string, error) {
			<-time.After(time.Second)
			return key, ctx.Err()
		}) {
			break
		}
	})
}
