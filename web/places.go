package web

import (
	"context"
	"time"

	"phoenix-lab.org/aln-registry/registry"
)

// How many pages of a costly kind are made at once.
const (
	mostSearches  = 2 // searches and lists, which read the whole catalog or all versions of 50 artifacts
	mostArtifacts = 4 // pages of an artifact, which read all of its versions
)

// maxWait is how long a page waits for a place.
const maxWait = 5 * time.Second

// places bounds how many pages of a kind are made at once.
type places chan struct{}

// enter waits for a place, at most maxWait, and returns how to leave it.
func (p places) enter(ctx context.Context) (leave func(), err error) {
	wait := time.NewTimer(maxWait)
	defer wait.Stop()
	select {
	case p <- struct{}{}:
		return func() { <-p }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-wait.C:
		return nil, registry.ErrUnavailable
	}
}
