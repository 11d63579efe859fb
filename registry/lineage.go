package registry

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// lineage is all versions of an artifact at some size of the log, with the facts
// that decisions about them are made of. It is shared: nobody changes it.
type lineage struct {
	// versions are in the byte order of ids, which are the versions without build metadata.
	ids      []string
	versions []ranked
	facts    []policy.Facts
	// generation is the index of the last entry that changed any of them.
	generation int64
	// upstream is the other registry whose they are, "" for what is hosted here.
	upstream string

	// looking has whoever looks inside; inside are the facts with what was
	// found, nil before all of them were looked at.
	looking chan struct{}
	inside  atomic.Pointer[[]policy.Facts]
}

// ranked is a version with its place in SemVer's order.
type ranked struct {
	state.Version
	order cargo.Version
}

func decodeRanked(value []byte) (v ranked, err error) {
	if v.Version, err = state.DecodeVersion(value); err != nil {
		return ranked{}, err
	}
	v.order, err = cargo.ParseVersion(v.Version.Version)
	return v, err
}

// lineageOf is the lineage of an artifact as the cache names it.
func lineageOf(kind record.Kind, canonical string) thing {
	return thing{family: lineageFamily, name: string(kind) + "/" + canonical}
}

// lineage returns the versions of an artifact, however its name is spelled, nil
// when it has none.
func (r *Registry) lineage(ctx context.Context, kind record.Kind, name string) (*lineage, error) {
	canonical := cargo.CanonicalName(name)
	value, err := r.cache.get(ctx, lineageOf(kind, canonical), r.Size, func(ctx context.Context, at int64) (found, error) {
		l, err := r.readLineage(ctx, kind, canonical, at)
		if err != nil || l == nil {
			return found{}, err
		}
		return found{l, l.bytes()}, nil
	})
	if err != nil || value == nil {
		return nil, err
	}
	return value.(*lineage), nil
}

func (r *Registry) readLineage(ctx context.Context, kind record.Kind, canonical string, at int64) (*lineage, error) {
	prefix := state.VersionPrefix(kind, canonical)
	rows, err := r.Catalog.StateRange(ctx, prefix, catalog.PrefixEnd(prefix), at, mostVersions)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	if len(rows) == mostVersions { // better none than one shown as not yanked
		return nil, fmt.Errorf("%s has more than %d versions", canonical, mostVersions)
	}
	l := &lineage{ids: make([]string, len(rows)), versions: make([]ranked, len(rows)), facts: make([]policy.Facts, len(rows)), looking: make(chan struct{}, 1)}
	for i, row := range rows {
		if l.versions[i], err = decodeRanked(row.Value); err != nil {
			return nil, err
		}
		l.ids[i] = strings.TrimPrefix(row.Key, prefix)
		l.facts[i] = plainFacts(l.versions[i].Version)
		l.generation = max(l.generation, row.Index)
	}
	return l, nil
}

// plainFacts is what is known of v without a look inside.
func plainFacts(v state.Version) policy.Facts {
	return policy.Facts{
		Kind: string(v.Kind), Name: cargo.CanonicalName(v.Name), Version: v.Version, Digest: v.CID.Digest(),
		Publisher: v.Publisher, Source: particle.SourceHosted, Since: v.Time,
	}
}

// versionBytes is about what a version takes in a lineage, beside its texts.
const versionBytes = 768

func (l *lineage) bytes() int64 {
	n := int64(len(l.ids) * versionBytes)
	for i := range l.ids {
		n += int64(2*len(l.ids[i]) + len(l.versions[i].Publisher) + len(l.versions[i].Record))
	}
	return n
}

// find is the place of the version id (without build metadata), -1 for none.
func (l *lineage) find(id string) int {
	i, ok := slices.BinarySearch(l.ids, id)
	if !ok {
		return -1
	}
	return i
}

// preferredTo: those that a resolver may pick come before the others, releases
// before pre-releases, then the larger first.
func preferred(v, w ranked, listed, wListed bool) bool {
	if v, w := listed && !v.Yanked, wListed && !w.Yanked; v != w {
		return v
	}
	if v, w := v.order.IsPrerelease(), w.order.IsPrerelease(); v != w {
		return w
	}
	return v.order.Compare(w.order) > 0
}

// bySemVer sorts the newest first.
func bySemVer(a, b ranked) int { return cmp.Compare(0, a.order.Compare(b.order)) }
