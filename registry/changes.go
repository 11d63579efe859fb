package registry

import (
	"context"
	"slices"
	"strings"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
)

// entryChanges are the keys of state that an entry changed.
type entryChanges struct {
	index int64
	keys  []string
}

// change is what differs between two sizes of the log.
type change struct {
	// things are those that the cache may hold, if that is known.
	things []thing
	known  bool
	// authority: more than artifacts.
	authority bool
}

// mostChanges is how many changes of others are looked up; where there are more, everything
// is read again.
const mostChanges = 4096

// noteChanges remembers what a committed batch has changed until it is shown.
func (r *Registry) noteChanges(batch []*submission) {
	r.showing.Lock()
	defer r.showing.Unlock()
	for _, s := range batch {
		if s.refusal != nil || s.receipt.Repeated {
			continue
		}
		if head := s.receipt.Index + 1; head > r.committed.Load() {
			r.committed.Store(head)
		}
		if s.found {
			continue // what it changed the catalog says
		}
		e := entryChanges{index: s.receipt.Index}
		for _, c := range s.changes {
			e.keys = append(e.keys, c.Key)
		}
		r.unseen = append(r.unseen, e)
	}
}

// changedBetween is what the entries from ≤ index < to have changed: known of what this
// process entered, asked for where others did, or where it does not know that it did (a
// commit that failed with an error, and was one all the same). The caller holds showing.
func (r *Registry) changedBetween(ctx context.Context, from, to int64) change {
	var keys []string
	own := int64(0)
	for _, e := range r.unseen {
		if from <= e.index && e.index < to {
			keys = append(keys, e.keys...)
			own++
		}
	}
	r.unseen = slices.DeleteFunc(r.unseen, func(e entryChanges) bool { return e.index < to })
	if own != to-from {
		rows, err := r.Catalog.StateKeys(ctx, from, to, mostChanges+1)
		if err != nil || len(rows) > mostChanges {
			return change{authority: true}
		}
		keys = keys[:0]
		for _, row := range rows {
			keys = append(keys, row.Key)
		}
	}
	c := change{known: true}
	for _, key := range keys {
		c.things = append(c.things, changedThings(key)...)
		c.authority = c.authority || !isOfArtifact(key)
	}
	return c
}

// isOfArtifact reports whether the state under key says something about one artifact (or
// a crate of another registry), and about nobody's rights to others.
func isOfArtifact(key string) bool {
	return slices.ContainsFunc(artifactPrefixes, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
}

// artifactPrefixes begin the keys of what isOfArtifact.
var artifactPrefixes = func() []string {
	prefixes := []string{state.VersionsPrefix(), state.UpstreamsPrefix(), state.HeadKey(state.UpstreamsPrefix())}
	for _, kind := range record.Kinds() {
		prefixes = append(prefixes, state.ArtifactPrefix(kind), state.HeadKey(string(kind)+"/"))
	}
	return prefixes
}()
