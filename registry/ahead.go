package registry

import (
	"context"
	"iter"
	"sync"
)

// aheadMost is how many objects are fetched at once by who reads many.
const aheadMost = 16

// ahead yields what fetch makes of each of keys, in their order, and fetches several
// at once: a store that is some way off answers each late, and many at a time. The
// first error ends the sequence, which ends by itself with the last key alone.
func ahead[T any](ctx context.Context, keys iter.Seq2[string, error], fetch func(ctx context.Context, key string) (T, error)) iter.Seq2[T, error] {
	type fetched struct {
		value T
		err   error
	}
	return func(yield func(T, error) bool) {
		inside, cancel := context.WithCancel(ctx)
		var fetching sync.WaitGroup
		defer fetching.Wait()
		defer cancel()
		order := make(chan chan fetched, aheadMost)
		fetching.Go(func() {
			defer close(order)
			for key, err := range keys {
				result := make(chan fetched, 1)
				select {
				case order <- result:
				case <-inside.Done():
					return
				}
				if err != nil {
					result <- fetched{err: err}
					return
				}
				fetching.Go(func() {
					value, err := fetch(inside, key)
					result <- fetched{value, err}
				})
			}
		})
		for result := range order {
			got := <-result
			if !yield(got.value, got.err) || got.err != nil {
				return
			}
		}
		if err := ctx.Err(); err != nil { // not to be taken for the end
			var none T
			yield(none, err)
		}
	}
}
