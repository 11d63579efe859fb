package registry

import (
	"context"
	"fmt"
	"io"
	"slices"

	"phoenix-lab.org/aln-registry/registry/content"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// UpstreamVersion returns a version of a crate of another registry, by its name, however
// spelled, its exact version and digest (all zero: the one that was seen first, which is the
// only one there is), as asker may see it. Its Name is spelled as in its own line. ErrNotFound also when asker may not know of it. Where its
// Decision is Unscanned, its bytes are fetched, and LookInto then decides.
func (r *Registry) UpstreamVersion(ctx context.Context, asker policy.Asker, upstream, crate, version string, digest [32]byte) (Judged, error) {
	if err := r.gate(&asker, r.published.Load().terms); err != nil {
		return Judged{}, err
	}
	return caughtUp(ctx, r, isNotFound, func() (Judged, error) {
		return r.upstreamVersion(ctx, &asker, upstream, crate, version, digest)
	})
}

func (r *Registry) upstreamVersion(ctx context.Context, asker *policy.Asker, upstream, crate, version string, digest [32]byte) (Judged, error) {
	unknown := fmt.Errorf("%w: %s has no %.80s@%.80s that is to be had here", ErrNotFound, upstream, crate, version)
	if digest != [32]byte{} {
		unknown = fmt.Errorf("%w: %s has no %.80s@%.80s with these bytes that is to be had here", ErrNotFound, upstream, crate, version)
	}
	file, err := r.upstreamFile(ctx, upstream, crate)
	if err != nil {
		return Judged{}, err
	}
	if file == nil {
		return Judged{}, unknown
	}
	i := file.of.find(withoutBuild(version))
	if i < 0 {
		return Judged{}, unknown
	}
	v := file.of.versions[i].Version
	if v.Version != version || digest != [32]byte{} && v.CID.Digest() != digest {
		return Judged{}, unknown
	}
	d, err := r.decideKnown(ctx, asker, r.published.Load().terms, file.of.facts[i])
	if err != nil {
		return Judged{}, err
	}
	j := Judged{Version: v, Source: particle.UpstreamSource(upstream), Decision: d, decided: true}
	if !d.Known {
		return Judged{}, &Hidden{What: whatOf(j.Source, v), Decision: d, err: unknown}
	}
	return j, nil
}

// decideKnown decides about a version of an upstream by what its facts say, and by what
// somebody found in its bytes, if anybody looked.
func (r *Registry) decideKnown(ctx context.Context, asker *policy.Asker, t *terms, f policy.Facts) (policy.Decision, error) {
	now := r.Clock()
	if t.looksInside(now) {
		facts := []policy.Facts{f}
		if _, err := r.addFindings(ctx, facts); err != nil {
			return policy.Decision{}, err
		}
		f = facts[0]
	}
	return policy.Decide(asker, &t.Terms, &f, now), nil
}

// LookInto looks into the bytes of a version of another registry if nobody has looked: whoever asks
// waits, for minutes perhaps, and is judged after that. crate are those bytes, which it closes; they were
// seen to be the version's, and may be read after it returns, by a look that goes on. Where
// it is nil the bytes are those that are stored: storage.ErrNotFound where they are not.
func (r *Registry) LookInto(ctx context.Context, v Judged, crate io.ReadCloser) error {
	upstream, ok := particle.UpstreamOf(v.Source)
	if !ok {
		if crate != nil {
			crate.Close()
		}
		return nil
	}
	_, err := r.scanOfBytes(ctx, upstream, v.CID, crate)
	return err
}

// knownInside are the facts of l with what was found in those bytes that anybody looked at.
func (r *Registry) knownInside(ctx context.Context, l *lineage) ([]policy.Facts, error) {
	if inside := l.inside.Load(); inside != nil {
		return *inside, nil
	}
	facts := slices.Clone(l.facts)
	whole, err := r.addFindings(ctx, facts)
	if err != nil {
		return nil, err
	}
	if whole {
		l.inside.Store(&facts)
	}
	return facts, nil
}

// addFindings adds to facts of crates what is known to be in their bytes; whole: of all.
func (r *Registry) addFindings(ctx context.Context, facts []policy.Facts) (whole bool, err error) {
	var places []int
	var ids []storage.CID
	for i := range facts {
		id := storage.CIDFromDigest(facts[i].Digest)
		if s, ok := r.scans.lookUp(id); ok {
			addScan(&facts[i], s)
			continue
		}
		places, ids = append(places, i), append(ids, id)
	}
	if len(ids) == 0 {
		return true, nil
	}
	found, err := r.Catalog.ScansOf(ctx, content.Version, ids)
	if err != nil {
		return false, err
	}
	for j, i := range places {
		if s, ok := found[ids[j]]; ok {
			r.scans.know(s)
			addScan(&facts[i], s)
		}
	}
	return len(found) == len(ids), nil
}

// addScan is f after a look: what nobody can look at hits every rule that looks.
func addScan(f *policy.Facts, s catalog.Scan) {
	f.Scanned, f.Findings = true, s.Findings
	if s.Failure != "" {
		f.Findings = []string{policy.FindingUnreadable}
	}
}

// knowsUpstream says why asker, who has passed the gate of t, may not know all that is
// known of a crate of an upstream, however spelled: an import record tells all of it.
func (r *Registry) knowsUpstream(ctx context.Context, asker *policy.Asker, t *terms, subject record.Subject, unknown error) error {
	if !hides(asker) {
		return nil
	}
	file, err := r.upstreamFile(ctx, subject.Upstream(), subject.Crate())
	if err != nil {
		return err
	}
	if file == nil {
		return unknown
	}
	decisions, err := r.decideAll(ctx, asker, t, file.of, r.Clock())
	if err != nil {
		return err
	}
	for _, d := range decisions {
		if !d.Known {
			return hiddenOr(unknown, subject, d)
		}
	}
	return nil
}
