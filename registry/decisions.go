package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// Judgement is what was decided about one version, for whoever asks why.
type Judgement struct {
	Kind          record.Kind
	Name, Version string
	// CID is of its bytes, the zero one where they are not known: of those that the version has, where
	// others were asked about.
	CID                  storage.CID
	Known, Listed, Allow bool
	// Unscanned: only the look at its bytes is missing that a content rule asks for.
	Unscanned bool
	// Unseen: it is of another registry, and as far as the asker may know nothing was seen of it
	// there: it was decided about by what was asked alone, without its age.
	Unseen bool
	Rule   policy.Rule
	// RuleID is a quarantine rule's or a grant's.
	RuleID, Reason string
	// ValidUntil is when it may be decided otherwise without any change; zero: never.
	ValidUntil time.Time
	// Steps are what each rule says, where they were asked for.
	Steps []policy.Step
	// SaidLater is what another registry said otherwise of it later, told where Steps are, without
	// the snapshot where the asker may not know of all versions. It decides nothing.
	SaidLater []state.UpstreamClaim
	// Gone is since when another registry does not list it as it first did, so that it is listed
	// as yanked here; zero while it does. It is told where SaidLater is. GoneAs says why, where
	// that is known (state.UpstreamVersion).
	Gone   time.Time
	GoneAs string
}

func judgement(v state.Version, d policy.Decision) Judgement {
	return Judgement{
		Kind: v.Kind, Name: v.Name, Version: v.Version, CID: v.CID, Known: d.Known, Listed: d.Listed, Allow: d.Allow, Unscanned: d.Unscanned,
		Rule: d.Rule, RuleID: d.RuleID, Reason: d.Reason(), ValidUntil: d.ValidUntil,
	}
}

// standing is who asks, and under what it is decided.
type standing struct {
	own, judged policy.Asker
	// another: what is decided is another's than own reads under.
	another bool
}

// standingOf says under what it is decided for asker who names the grant ("":
// none). Their own is as if their session named it. That of another host is for
// whom policy.JudgeFor lets ask, and they are told only of what they know of
// themselves; so is who has a session for another grant of their own, since a
// session only narrows what its holder may know. ErrNotFound for a grant that there is not.
func (r *Registry) standingOf(ctx context.Context, asker policy.Asker, grant string) (standing, error) {
	if grant == "" {
		return standing{own: asker, judged: asker}, nil
	}
	id, err := storage.ParseCID(grant)
	if err != nil {
		return standing{}, fmt.Errorf("%w: grant is not the CID of an EnvGrant: %v", ErrRequest, err)
	}
	g, err := r.Grant(ctx, id)
	if err != nil {
		return standing{}, err
	}
	if denial := policy.JudgeFor(asker, g.Subject); denial != nil {
		return standing{}, denial
	}
	judged, err := r.Under(ctx, asker, g.Subject, grant)
	if err != nil {
		return standing{}, err
	}
	if g.Subject == asker.DID && (asker.GrantNamed == "" || asker.GrantNamed == grant) {
		return standing{own: judged, judged: judged}, nil
	}
	return standing{own: asker, judged: judged, another: true}, nil
}

// mostExplained bounds the versions of a name that Why tells of: the newest.
const mostExplained = 1000

// Why says what is decided about a version, or with version "" about the newest
// 1,000 of a name, the newest first, and what each rule says: for asker, or under
// the grant. The name may be spelled in any way. ErrNotFound where there is nothing
// that asker may know of; a *policy.Denial where they may not read or ask at all.
func (r *Registry) Why(ctx context.Context, asker policy.Asker, kind record.Kind, name, version, grant string) ([]Judgement, error) {
	return r.why(ctx, asker, name, version, grant, kind, func(ctx context.Context) (*lineage, error) { return r.lineage(ctx, kind, name) })
}

// WhyUpstream is Why about a crate of another registry, by what is known of it here.
func (r *Registry) WhyUpstream(ctx context.Context, asker policy.Asker, upstream, name, version, grant string) ([]Judgement, error) {
	told, err := r.why(ctx, asker, name, version, grant, record.KindCrate, func(ctx context.Context) (*lineage, error) {
		file, err := r.upstreamFile(ctx, upstream, name)
		if err != nil || file == nil {
			return nil, err
		}
		return file.of, nil
	})
	if err != nil {
		return nil, err
	}
	u, _, err := r.upstreamAt(ctx, state.UpstreamKey(upstream, name), r.Size())
	for i := range told {
		v, _ := u.Find(told[i].Version)
		told[i].SaidLater, told[i].Gone, told[i].GoneAs = slices.Clone(v.Other), v.Gone, v.GoneAs()
		for j := range told[i].SaidLater {
			if hides(&asker) { // an index file tells of every version
				told[i].SaidLater[j].Snapshot = storage.CID{}
			}
		}
	}
	return told, err
}

func (r *Registry) why(ctx context.Context, asker policy.Asker, name, version, grant string, kind record.Kind, find func(context.Context) (*lineage, error)) ([]Judgement, error) {
	s, err := r.standingOf(ctx, asker, grant)
	if err != nil {
		return nil, err
	}
	t := r.published.Load().terms
	if err := r.gate(&s.own, t); err != nil {
		return nil, err
	}
	l, err := find(ctx)
	if err != nil {
		return nil, err
	}
	var told []Judgement
	for _, i := range l.newestFirst() {
		if version != "" && l.versions[i].Version.Version != version || len(told) == mostExplained {
			continue
		}
		j, known, err := r.explained(ctx, s, t, l, i, version != "")
		if err != nil {
			return nil, err
		}
		if known {
			told = append(told, j)
		}
	}
	switch {
	case len(told) > 0:
		return told, nil
	case version != "":
		return nil, unknownVersion(kind, name, version)
	}
	return nil, unknownName(kind, name)
}

// explained is what is decided about the version of l at i with what each rule says; known
// is false where s.own may not know of it. With look its bytes are looked at where a rule
// asks, whatever decides; those of other registries are not fetched for that.
func (r *Registry) explained(ctx context.Context, s standing, t *terms, l *lineage, i int, look bool) (j Judgement, known bool, err error) {
	v, f, now := l.versions[i].Version, l.facts[i], r.Clock()
	if look && t.looksInside(now) || policy.Decide(&s.judged, &t.Terms, &f, now).Unscanned {
		looked, err := r.insideOf(ctx, l, i)
		switch {
		case ctx.Err() != nil:
			return Judgement{}, false, ctx.Err()
		case err == nil:
			f = looked
		}
	}
	if s.another && !policy.Decide(&s.own, &t.Terms, &f, now).Known {
		return Judgement{}, false, nil
	}
	d := policy.Decide(&s.judged, &t.Terms, &f, now)
	if !s.another && !d.Known {
		return Judgement{}, false, nil
	}
	d.Listed = d.Listed && (!d.Unscanned || l.upstream != "")
	j = judgement(v, d)
	j.Steps = policy.Explain(&s.judged, &t.Terms, &f, now)
	return j, true, nil
}

// insideOf are the facts of the version of l at i with what its bytes hold, as far as
// that is known of what upstreams have.
func (r *Registry) insideOf(ctx context.Context, l *lineage, i int) (policy.Facts, error) {
	if l.upstream == "" {
		return r.inside(ctx, l.versions[i].Version, l.facts[i])
	}
	facts := []policy.Facts{l.facts[i]}
	_, err := r.addFindings(ctx, facts)
	return facts[0], err
}

// newestFirst are the places of the versions of l (nil: none), the newest by SemVer first.
func (l *lineage) newestFirst() []int {
	if l == nil {
		return nil
	}
	places := make([]int, len(l.versions))
	for i := range places {
		places[i] = i
	}
	slices.SortFunc(places, func(a, b int) int { return bySemVer(l.versions[a], l.versions[b]) })
	return places
}

// Asked is a crate to be decided about, as a lockfile names it.
type Asked struct {
	Name, Version string
	// SHA256 is of its bytes, all zero where that is not known.
	SHA256 [32]byte
	// Source is particle.SourceHosted, SourceCratesIO, upstream/<name> or mirror/<name>.
	Source string
}

// Decisions decides about crates, in the order asked, for asker or under the grant
// as Why does. What is hosted here, or was seen of another registry, is judged by what
// is known of it, other things by what is said of them. What asker may not know of is told as what there is not.
// All is decided by the same terms.
func (r *Registry) Decisions(ctx context.Context, asker policy.Asker, grant string, asked []Asked) ([]Judgement, error) {
	s, err := r.standingOf(ctx, asker, grant)
	if err != nil {
		return nil, err
	}
	p := r.published.Load()
	if err := r.gate(&s.own, p.terms); err != nil {
		return nil, err
	}
	hosted, err := r.hosted(ctx, asked, p.Size)
	if err != nil {
		return nil, err
	}
	q := inquiry{r, s, p.terms, r.Clock()}
	there, err := q.upstreams(ctx, asked, p.Size)
	if err != nil {
		return nil, err
	}
	told := make([]Judgement, len(asked))
	for i, a := range asked {
		if a.Source != particle.SourceHosted {
			told[i] = q.foreign(ctx, a, there[i])
			continue
		}
		v, ok := hosted[i]
		if told[i], err = q.ours(ctx, a, v, ok); err != nil {
			return nil, err
		}
	}
	return told, ctx.Err()
}

// hosted are the versions that asked names as hosted, by their place there, as of
// a size of the log.
func (r *Registry) hosted(ctx context.Context, asked []Asked, at int64) (map[int]state.Version, error) {
	var keys []string
	places := map[string][]int{}
	for i, a := range asked {
		if a.Source != particle.SourceHosted {
			continue
		}
		subject, err := record.VersionSubject(record.KindCrate, a.Name, a.Version)
		if err != nil {
			continue // nothing is published under that
		}
		key, err := state.VersionKey(subject)
		if err != nil {
			continue
		}
		if len(places[key]) == 0 {
			keys = append(keys, key)
		}
		places[key] = append(places[key], i)
	}
	rows, err := r.Catalog.States(ctx, keys, at)
	if err != nil {
		return nil, err
	}
	found := make(map[int]state.Version, len(rows))
	for key, value := range rows {
		v, err := state.DecodeVersion(value)
		if err != nil {
			return nil, err
		}
		for _, i := range places[key] {
			if v.Version == asked[i].Version && cargo.CanonicalName(v.Name) == cargo.CanonicalName(asked[i].Name) {
				found[i] = v
			}
		}
	}
	return found, nil
}

// inquiry is a question about many artifacts.
type inquiry struct {
	registry *Registry
	standing standing
	terms    *terms
	now      time.Time
}

// ours decides about a crate that is asked for as hosted; ok: v is its version here.
func (q *inquiry) ours(ctx context.Context, a Asked, v state.Version, ok bool) (Judgement, error) {
	if !ok {
		return a.unknown("this registry hosts no such version"), nil
	}
	d, err := q.decide(ctx, v)
	if err != nil {
		return Judgement{}, err
	}
	if !d.Known {
		return a.unknown("this registry hosts no such version"), nil
	}
	if a.SHA256 != [32]byte{} && a.SHA256 != v.CID.Digest() {
		j := a.unknown("this registry hosts other bytes under that version: what the lock pins never came from here")
		j.Known, j.CID = true, v.CID
		return j, nil
	}
	return judgement(v, d), nil
}

// decide is what is decided about v; what the asker may not know of themselves is
// not known, whoever it is decided for.
func (q *inquiry) decide(ctx context.Context, v state.Version) (policy.Decision, error) {
	if q.standing.another {
		f := plainFacts(v)
		if own := policy.Decide(&q.standing.own, &q.terms.Terms, &f, q.now); !own.Known {
			return own, nil
		}
	}
	return q.registry.decide(ctx, &q.standing.judged, q.terms, v)
}

// foreign decides about a crate of another registry: by what was seen of it there, or,
// where nothing was, or nothing that the asker may know of, by what is said of it. Then
// its age is not known, and what it holds only if the same bytes were looked at.
func (q *inquiry) foreign(ctx context.Context, a Asked, there *seenThere) Judgement {
	if _, ok := particle.UpstreamOf(a.Source); ok && q.registry.PrivateName(a.Name) {
		j := a.unknown("the settings of this registry keep that name from other registries: what the lock pins is not what is meant by it here")
		j.Known = true
		return j
	}
	if there != nil {
		if j, known := q.theirs(a, there); known {
			return j
		}
	}
	f := policy.Facts{
		Kind: policy.KindCrate, Name: cargo.CanonicalName(a.Name), Version: a.Version, Digest: a.SHA256, Source: a.Source,
	}
	d := policy.Decide(&q.standing.judged, &q.terms.Terms, &f, q.now)
	if d.Unscanned { // and the grant, if any, lists it, so that nothing is told that is hidden
		if v, ok := q.registry.hostedAs(ctx, storage.CIDFromDigest(a.SHA256)); ok {
			if looked, err := q.registry.inside(ctx, v, f); err == nil {
				d = policy.Decide(&q.standing.judged, &q.terms.Terms, &looked, q.now)
			}
		}
	}
	v := state.Version{Kind: record.KindCrate, Name: a.Name, Version: a.Version}
	if a.SHA256 != [32]byte{} {
		v.CID = storage.CIDFromDigest(a.SHA256)
	}
	j := judgement(v, d)
	_, j.Unseen = particle.UpstreamOf(a.Source)
	return j
}

func (a Asked) unknown(why string) Judgement {
	return Judgement{Kind: record.KindCrate, Name: a.Name, Version: a.Version, Rule: policy.RuleUnknown, Reason: why}
}

// hostedAs is a version here whose bytes are id, of a crate; false for none.
func (r *Registry) hostedAs(ctx context.Context, id storage.CID) (state.Version, bool) {
	at := r.Size()
	keys, err := r.Catalog.VersionsByCID(ctx, id, at)
	i := slices.IndexFunc(keys, func(key string) bool { return strings.HasPrefix(key, versionPrefixes[record.KindCrate]) })
	if err != nil || i < 0 {
		return state.Version{}, false
	}
	raw, ok, err := r.Catalog.State(ctx, keys[i], at)
	if err != nil || !ok {
		return state.Version{}, false
	}
	v, err := state.DecodeVersion(raw)
	return v, err == nil
}
