package main

import (
	"context"
	"sync"
	"sync/atomic"
)

// lookout tells which upstreams have a crate, once it is given them: a registry is opened
// before what talks to them for it.
type lookout struct{ at atomic.Pointer[upstreams] }

// known implements registry.Config's KnownUpstream. All are asked at once, so that a slow one
// hides no other.
func (l *lookout) known(ctx context.Context, name string) (has, untold []string) {
	u := l.at.Load()
	if u == nil {
		return nil, nil
	}
	all := u.proxy.Upstreams()
	there, errs := make([]bool, len(all)), make([]error, len(all))
	var asked sync.WaitGroup
	for i, one := range all {
		asked.Go(func() { there[i], errs[i] = one.Has(ctx, name) })
	}
	asked.Wait()
	for i, one := range all {
		switch {
		case errs[i] != nil:
			untold = append(untold, one.Name())
		case there[i]:
			has = append(has, one.Name())
		}
	}
	return has, untold
}
