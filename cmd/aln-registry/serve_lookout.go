package main

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"

	"phoenix-lab.org/aln-registry/registry/cargo"
)

// lookout tells which upstreams have a crate, once it is given them: a registry is opened
// before what talks to them for it.
type lookout struct{ at atomic.Pointer[upstreams] }

// known implements registry.Config's KnownUpstream. A crate may be spelled otherwise there.
func (l *lookout) known(ctx context.Context, name string) (names []string) {
	u := l.at.Load()
	if u == nil {
		return nil
	}
	for _, one := range u.proxy.Upstreams() {
		for _, spelled := range spellings(name) {
			if one.Refresh(ctx, spelled) == nil {
				names = append(names, one.Name())
				break
			}
		}
	}
	return names
}

// spellings are the usual ones of a crate's name, in lower case.
func spellings(name string) []string {
	lower := strings.ToLower(name)
	all := []string{lower, cargo.CanonicalName(name), strings.ReplaceAll(lower, "_", "-")}
	slices.Sort(all)
	return slices.Compact(all)
}
