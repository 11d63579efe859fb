package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// What people are told of other registries' crates: no more of a version than the index
// that they would be served, and nothing at all to who has no session.

// SeenVersion is a version of a crate of another registry, and what was seen of it there.
type SeenVersion struct {
	Judged
	Seen state.UpstreamVersion
}

// SeenCrate is a crate of another registry as an asker may know of it.
type SeenCrate struct {
	// Name is spelled as there.
	Name string
	// Versions are those that the asker may know of, at least one, the newest by SemVer first.
	Versions []SeenVersion
	// Last is what was last published of it; zero where the asker may not know of all
	// versions, since snapshot and record tell of them all.
	Last UpstreamCrate
}

// Newest is the version to show of c: the newest that a resolver would take and that is no
// prerelease, if there is such a one.
func (c SeenCrate) Newest() SeenVersion {
	for _, fits := range []func(v SeenVersion) bool{
		func(v SeenVersion) bool { return v.Decision.Listed && !v.Yanked && !isPrerelease(v.Version.Version) },
		func(v SeenVersion) bool { return !v.Yanked && !isPrerelease(v.Version.Version) },
	} {
		if i := slices.IndexFunc(c.Versions, fits); i >= 0 {
			return c.Versions[i]
		}
	}
	return c.Versions[0]
}

func isPrerelease(version string) bool {
	v, err := cargo.ParseVersion(version)
	return err == nil && v.IsPrerelease()
}

// SeenUpstream returns a crate of another registry, however its name is spelled.
// ErrNotFound also where asker may know of none of its versions, and for private names.
func (r *Registry) SeenUpstream(ctx context.Context, asker policy.Asker, upstream, name string) (SeenCrate, error) {
	if err := r.seesUpstreams(&asker); err != nil {
		return SeenCrate{}, err
	}
	return caughtUp(ctx, r, isNotFound, func() (SeenCrate, error) {
		unknown := fmt.Errorf("%w: nothing is known of %.80s of %.80s", ErrNotFound, name, upstream)
		subject, err := record.UpstreamSubject(upstream, name)
		if err != nil || r.PrivateName(name) {
			return SeenCrate{}, unknown
		}
		u, ok, err := r.upstreamAt(ctx, state.UpstreamKey(upstream, name), r.Size())
		if err != nil || !ok {
			return SeenCrate{}, cmp.Or(err, unknown)
		}
		c, hidden, err := r.seen(ctx, &asker, u)
		if err == nil && len(c.Versions) == 0 {
			err = hiddenOr(unknown, subject, hidden)
		}
		return c, err
	})
}

// seesUpstreams says why asker is told nothing of other registries' crates.
func (r *Registry) seesUpstreams(asker *policy.Asker) error {
	if asker.Anonymous() {
		return ErrUnauthenticated
	}
	return r.gate(asker, r.published.Load().terms)
}

// seen is u as asker may know of it, without versions where that is nothing; hidden is
// about one that the asker may not know of, if there is any.
func (r *Registry) seen(ctx context.Context, asker *policy.Asker, u state.Upstream) (c SeenCrate, hidden policy.Decision, err error) {
	l := upstreamLineage(u)
	decisions, err := r.decideAll(ctx, asker, r.published.Load().terms, l, r.Clock())
	if err != nil {
		return SeenCrate{}, hidden, err
	}
	there := make(map[string]state.UpstreamVersion, len(u.Versions))
	for _, v := range u.Versions {
		there[withoutBuild(v.Version)] = v
	}
	c.Name = u.Name
	all := true
	for _, i := range l.newestFirst() {
		if !decisions[i].Known {
			hidden, all = decisions[i], false
			continue
		}
		judged := Judged{Version: l.versions[i].Version, Source: particle.UpstreamSource(u.Upstream), Decision: decisions[i], decided: true}
		c.Versions = append(c.Versions, SeenVersion{judged, there[l.ids[i]]})
	}
	if all {
		c.Last = lastOf(u)
	}
	return c, hidden, nil
}

// SeenUpstreams returns crates of another registry whose names begin with prefix, however
// spelled, behind the name after ("": from the beginning), in the order of their canonical
// names, at most limit, of those that asker may know of. next is the name to go on behind, "" at the end.
func (r *Registry) SeenUpstreams(ctx context.Context, asker policy.Asker, upstream, prefix, after string, limit int) (found []SeenCrate, next string, err error) {
	if err := r.seesUpstreams(&asker); err != nil {
		return nil, "", err
	}
	for _, name := range []string{prefix, after} {
		if _, err := record.UpstreamSubject(upstream, cmp.Or(name, "a")); err != nil {
			return nil, "", nil // there is none of such a name
		}
	}
	begin := state.UpstreamKey(upstream, prefix)
	from, end := begin, catalog.PrefixEnd(begin)
	if after != "" {
		from = max(from, state.UpstreamKey(upstream, after)+"\x01")
	}
	for at := r.Size(); ; {
		rows, err := r.Catalog.StateRange(ctx, from, end, at, upstreamsAtOnce)
		if err != nil {
			return nil, "", err
		}
		for _, row := range rows {
			u, err := state.DecodeUpstream(row.Value)
			if err != nil {
				return nil, "", err
			}
			if r.PrivateName(u.Name) {
				continue
			}
			c, _, err := r.seen(ctx, &asker, u)
			if err != nil {
				return nil, "", err
			}
			if len(c.Versions) == 0 {
				continue
			}
			if len(found) == limit {
				return found, cargo.CanonicalName(found[limit-1].Name), nil
			}
			found = append(found, c)
		}
		if len(rows) < upstreamsAtOnce {
			return found, "", nil
		}
		from = rows[len(rows)-1].Key + "\x01"
	}
}

// HeldUpstream says which of ids are held, and were served by upstream itself: an index names
// what it likes, and what another one served is not to be had by that.
func (r *Registry) HeldUpstream(ctx context.Context, upstream string, ids []storage.CID) (map[storage.CID]bool, error) {
	found, err := r.Catalog.UpstreamHolds(ctx, upstream, ids)
	if err != nil {
		return nil, err
	}
	held := make(map[storage.CID]bool, len(found))
	for _, id := range found {
		held[id] = true
	}
	return held, nil
}

// UpstreamHoldings says how much is held of each other registry, by its name, and how many bytes
// of all together, which is less where several served the same; nil to who may not know of all
// crates, since the sums are of them all.
func (r *Registry) UpstreamHoldings(ctx context.Context, asker policy.Asker) (held map[string]catalog.UpstreamHeld, bytes int64, err error) {
	if r.seesUpstreams(&asker) != nil || hides(&asker) {
		return nil, 0, r.Current()
	}
	of, err := r.Catalog.UpstreamHeld(ctx)
	if err != nil {
		return nil, 0, err
	}
	if bytes, err = r.Catalog.UpstreamHeldBytes(ctx); err != nil {
		return nil, 0, err
	}
	held = make(map[string]catalog.UpstreamHeld, len(of))
	for _, h := range of {
		held[h.Upstream] = h
	}
	return held, bytes, nil
}

// UpstreamAlarms are the newest alarms of another registry with an ID below before, newest
// first, at most limit; with unseen those alone that nobody has looked into. A *policy.Denial
// where asker may not read the audit trail.
func (r *Registry) UpstreamAlarms(ctx context.Context, asker policy.Asker, upstream string, before int64, limit int, unseen bool) ([]catalog.UpstreamAlarm, error) {
	if denial := policy.ReadAudit(asker); denial != nil {
		return nil, denial
	}
	if unseen {
		return r.Catalog.UnseenUpstreamAlarms(ctx, upstream, before, limit)
	}
	return r.Catalog.UpstreamAlarms(ctx, upstream, before, limit)
}

// maxSeenWhy bounds what is said of an alarm that was looked into, in bytes.
const maxSeenWhy = 400

// SeeUpstreamAlarm notes that asker has looked into the alarm id of another registry, and into all
// before it that say the same, and why nobody is to be warned of them any more; it says how many were marked,
// 0 where somebody did that before. It changes nothing else: what is not believed, is yanked or gone stays
// so. A later alarm is a new one. A *policy.Denial where asker may not; ErrRequest, ErrNotFound.
func (r *Registry) SeeUpstreamAlarm(ctx context.Context, asker policy.Asker, upstream string, id int64, why, request string) (int64, error) {
	if denial := policy.SeeAlarm(asker); denial != nil {
		return 0, denial
	}
	if strings.TrimSpace(why) == "" || len(why) > maxSeenWhy || !utf8.ValidString(why) || strings.ContainsFunc(why, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return 0, fmt.Errorf("%w: why is one line of 1 to %d bytes that can be printed", ErrRequest, maxSeenWhy)
	}
	a, marked, err := r.Catalog.SeeUpstreamAlarm(ctx, upstream, id, catalog.AlarmSeen{By: string(asker.DID), Why: why, At: r.Clock()})
	if errors.Is(err, catalog.ErrNotFound) {
		return 0, fmt.Errorf("%w: there is no alarm %d of %.80s (any more)", ErrNotFound, id, upstream)
	}
	if err != nil || marked == 0 {
		return 0, err
	}
	r.Note(Event{Asker: asker.DID, What: WhatAlarmed(upstream, a.Name, a.Version), Rule: RuleAlarmSeen, RuleID: a.Kind + ": " + why, Outcome: OutcomeAccepted, Request: request})
	return marked, nil
}

// WhatAlarmed is how the audit trail calls what an alarm is about.
func WhatAlarmed(upstream, name, version string) string {
	what := strings.TrimSuffix("upstream/"+upstream+"/"+name, "/")
	if version != "" {
		what += "@" + version
	}
	return what
}
