package registry

import (
	"context"
	"slices"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// seenThere is what is known of a version of another registry.
type seenThere struct {
	version state.Version
	facts   policy.Facts
}

// upstreams are the versions that asked names as other registries', by their place there,
// as of a size of the log, with what is known to be in their bytes if that is asked for.
func (q *inquiry) upstreams(ctx context.Context, asked []Asked, at int64) (map[int]*seenThere, error) {
	var keys []string
	places := map[string][]int{}
	for i, a := range asked {
		upstream, ok := particle.UpstreamOf(a.Source)
		if !ok || q.registry.PrivateName(a.Name) {
			continue
		}
		key := state.UpstreamKey(upstream, a.Name)
		if len(places[key]) == 0 {
			keys = append(keys, key)
		}
		places[key] = append(places[key], i)
	}
	found := map[int]*seenThere{}
	for some := range slices.Chunk(keys, upstreamsAtOnce) { // they are large
		rows, err := q.registry.Catalog.States(ctx, some, at)
		if err != nil {
			return nil, err
		}
		for key, value := range rows {
			u, err := state.DecodeUpstream(value)
			if err != nil {
				return nil, err
			}
			for _, i := range places[key] {
				found[i] = versionThere(u, asked[i].Version)
			}
		}
	}
	return found, q.lookInside(ctx, found)
}

const upstreamsAtOnce = 32

// versionThere is the version of u of exactly that spelling, nil for none.
func versionThere(u state.Upstream, version string) *seenThere {
	v, ok := u.Find(version)
	if !ok || v.Version != version {
		return nil
	}
	s := &seenThere{version: upstreamVersion(u, v)}
	s.facts = upstreamFacts(u.Upstream, s.version)
	s.facts.Since = v.Since
	return s
}

// lookInside adds what is known to be in the bytes of what was found, where a rule asks.
func (q *inquiry) lookInside(ctx context.Context, found map[int]*seenThere) error {
	if !q.terms.looksInside(q.now) {
		return nil
	}
	var order []*seenThere
	var facts []policy.Facts
	for _, s := range found {
		if s != nil {
			order, facts = append(order, s), append(facts, s.facts)
		}
	}
	_, err := q.registry.addFindings(ctx, facts)
	for i, s := range order {
		s.facts = facts[i]
	}
	return err
}

// theirs decides about a crate by what was seen of it in another registry; known: the
// asker may know of that.
func (q *inquiry) theirs(a Asked, there *seenThere) (j Judgement, known bool) {
	if q.standing.another && !policy.Decide(&q.standing.own, &q.terms.Terms, &there.facts, q.now).Known {
		return Judgement{}, false
	}
	d := policy.Decide(&q.standing.judged, &q.terms.Terms, &there.facts, q.now)
	if !d.Known && !q.standing.another {
		return Judgement{}, false
	}
	if a.SHA256 != [32]byte{} && a.SHA256 != there.version.CID.Digest() {
		j := a.unknown("other bytes were first seen there under that version: what the lock pins is not believed")
		j.Known, j.CID = true, there.version.CID
		return j, true
	}
	return judgement(there.version, d), true
}

// eachUpstream calls see for every crate of other registries that is known, in the order
// of their keys, a few in memory at once.
func (r *Registry) eachUpstream(ctx context.Context, see func(*lineage) error) error {
	at := r.Size()
	from, end := state.UpstreamsPrefix(), catalog.PrefixEnd(state.UpstreamsPrefix())
	for {
		rows, err := r.Catalog.StateRange(ctx, from, end, at, upstreamsAtOnce)
		if err != nil {
			return err
		}
		for _, row := range rows {
			u, err := state.DecodeUpstream(row.Value)
			if err == nil && !r.PrivateName(u.Name) {
				err = see(upstreamLineage(u))
			}
			if err != nil {
				return err
			}
		}
		if len(rows) < upstreamsAtOnce {
			return nil
		}
		from = rows[len(rows)-1].Key + "\x01"
	}
}

// upstreamHits calls add for the versions of l that the only rule of set describes, also by
// what is known to be in their bytes, and that asker may know of.
func (r *Registry) upstreamHits(ctx context.Context, asker *policy.Asker, t *terms, set *policy.RuleSet, l *lineage, inside bool, add func(v state.Version, source string)) error {
	facts := slices.Clone(l.facts)
	if inside {
		if _, err := r.addFindings(ctx, facts); err != nil {
			return err
		}
	}
	for i := range facts {
		if len(set.Hits(&facts[i])) == 0 {
			continue
		}
		if hides(asker) {
			if d := policy.Decide(asker, &t.Terms, &facts[i], r.Clock()); !d.Known {
				continue
			}
		}
		add(l.versions[i].Version, facts[i].Source)
	}
	return nil
}
