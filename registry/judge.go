package registry

import (
	"context"
	"fmt"
	"slices"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
)

// Judged is a version that an asker may be told of, with what was decided about
// it for that asker. Only this package makes one: who reads artifacts for others
// gets them in no other way.
type Judged struct {
	// Version is of what is hosted here; of an upstream's it says what corresponds to
	// that: Record and Index are of the last import, Time is when it was first seen,
	// and Yanked is also what upstream no longer lists. Nobody here published it.
	state.Version
	// Source is where it comes from: particle.SourceHosted, SourceCratesIO or upstream/<name>.
	Source   string
	Decision policy.Decision

	decided bool
}

// Refusal says why the asker does not get the bytes, nil if they do: a *Denied.
// Whoever sends bytes, or headers about them, looks at it first.
func (j Judged) Refusal() error {
	if j.decided && j.Decision.Allow {
		return nil
	}
	return &Denied{Version: j.Version, Source: j.Source, Decision: j.Decision}
}

// Denied is the refusal of a version's bytes. It wraps a *policy.Denial.
type Denied struct {
	Version  state.Version
	Source   string // as in Judged
	Decision policy.Decision
}

// Error is the sentence for who asked: rule, reason, and whom to ask.
func (e *Denied) Error() string {
	return e.Decision.RefusalFrom(e.Source, e.Version.Name, e.Version.Version)
}

// Unwrap gives the rule to whoever branches on it.
func (e *Denied) Unwrap() error {
	if denial := e.Decision.Denial(); denial != nil {
		return denial
	}
	return &policy.Denial{Rule: policy.RuleUnknown, Reason: "nothing was decided about it"}
}

// MayRead decides whether asker may see artifacts at all. Every route asks it, after Current.
func (r *Registry) MayRead(asker policy.Asker) policy.Decision {
	return policy.Read(asker, r.published.Load().terms.Settings)
}

// MayReadAuthority decides whether asker may read what the registry goes by: its
// members, settings, grants, rules and the records about them. No grant binds that.
// Who asks has asked Current.
func (r *Registry) MayReadAuthority(asker policy.Asker) policy.Decision {
	return policy.ReadRecords(asker, 1, false, r.published.Load().terms.Settings)
}

// gate is MayRead as an error: ErrUnauthenticated where nobody asks, else a *policy.Denial.
// ErrUnavailable where this replica may not go by what it shows.
func (r *Registry) gate(asker *policy.Asker, t *terms) error {
	if err := r.Current(); err != nil {
		return err
	}
	return asError(*asker, policy.Read(*asker, t.Settings))
}

func asError(asker policy.Asker, d policy.Decision) error {
	switch {
	case d.Allow:
		return nil
	case asker.Anonymous():
		return fmt.Errorf("%w: %s", ErrUnauthenticated, d.Reason())
	}
	return d.Denial()
}

// inside is f with what the bytes of v hold. What nobody can look at is told as that.
func (r *Registry) inside(ctx context.Context, v state.Version, f policy.Facts) (policy.Facts, error) {
	scanned, found, err := r.findings(ctx, v)
	if err != nil {
		return f, err
	}
	if !scanned && v.Kind == record.KindCrate {
		scanned, found = true, []string{policy.FindingUnreadable}
	}
	f.Scanned, f.Findings = scanned, found
	return f, nil
}

// Judge decides what asker may see of v, now. An error means that nothing can be
// decided, and so nothing is allowed: ErrUnauthenticated where somebody has to
// say first who they are, a *policy.Denial where asker may not read at all.
func (r *Registry) Judge(ctx context.Context, asker policy.Asker, v state.Version) (policy.Decision, error) {
	t := r.published.Load().terms
	if err := r.gate(&asker, t); err != nil {
		return policy.Decision{}, err
	}
	return r.decide(ctx, &asker, t, v)
}

// decide is Judge behind the gate. What cannot be looked at is denied.
func (r *Registry) decide(ctx context.Context, asker *policy.Asker, t *terms, v state.Version) (policy.Decision, error) {
	f, now := plainFacts(v), r.Clock()
	if t.looksInside(now) {
		looked, err := r.inside(ctx, v, f)
		switch {
		case ctx.Err() != nil:
			return policy.Decision{}, ctx.Err()
		case err != nil:
			r.Log.Error("a version cannot be looked into, and is denied until it can", "cid", v.CID, "error", err)
		default:
			f = looked
		}
	}
	d := policy.Decide(asker, &t.Terms, &f, now)
	d.Listed = d.Listed && !d.Unscanned
	return d, nil
}

// judged is v as asker may see it; ErrNotFound when they may not know of it.
func (r *Registry) judged(ctx context.Context, asker policy.Asker, v state.Version) (Judged, error) {
	d, err := r.Judge(ctx, asker, v)
	if err != nil {
		return Judged{}, err
	}
	if !d.Known {
		return Judged{}, &Hidden{What: versionName(v.Kind, v.Name, v.Version), Decision: d, err: unknownVersion(v.Kind, v.Name, v.Version)}
	}
	return judgedHosted(v, d), nil
}

// judgedHosted is v, which is hosted here, with what was decided about it.
func judgedHosted(v state.Version, d policy.Decision) Judged {
	return Judged{Version: v, Source: particle.SourceHosted, Decision: d, decided: true}
}

// Hidden is ErrNotFound, in the words for what there is not, of what there is and
// the asker may not know of: for the audit trail alone.
type Hidden struct {
	// What is the artifact, or its version.
	What     string
	Decision policy.Decision

	err error
}

// Error says what it would if there were no such thing.
func (e *Hidden) Error() string { return e.err.Error() }

// Unwrap leads to ErrNotFound.
func (e *Hidden) Unwrap() error { return e.err }

func unknownVersion(kind record.Kind, name, version string) error {
	return fmt.Errorf("%w: there is no %s/%s@%s", ErrNotFound, kind, name, version)
}

func unknownName(kind record.Kind, name string) error {
	return fmt.Errorf("%w: there is no %s named %.80q", ErrNotFound, kind, name)
}

// seen are the versions of a lineage that an asker may be told of.
type seen struct {
	versions []seenVersion
	// newest is the one that a person means who names none.
	newest seenVersion
	// hidden is why one of those is kept from the asker that they may not know of.
	hidden     policy.Decision
	hiddenName string
}

type seenVersion struct {
	ranked
	decision policy.Decision
}

func (v seenVersion) judged() Judged { return judgedHosted(v.Version, v.decision) }

// see judges all of l for asker, who has passed the gate of t: in the byte order
// of their keys.
func (r *Registry) see(ctx context.Context, asker *policy.Asker, t *terms, l *lineage) (seen, error) {
	decisions, err := r.decideAll(ctx, asker, t, l, r.Clock())
	if err != nil {
		return seen{}, err
	}
	var s seen
	for i, d := range decisions {
		if !d.Known {
			s.hidden, s.hiddenName = d, l.versions[i].Name
			continue
		}
		v := seenVersion{l.versions[i], d}
		if len(s.versions) == 0 || preferred(v.ranked, s.newest.ranked, d.Listed, s.newest.decision.Listed) {
			s.newest = v
		}
		s.versions = append(s.versions, v)
	}
	return s, nil
}

// decideAll decides about each version of l. What cannot be looked at stays denied,
// and unlisted.
func (r *Registry) decideAll(ctx context.Context, asker *policy.Asker, t *terms, l *lineage, now time.Time) ([]policy.Decision, error) {
	facts, err := r.factsOf(ctx, t, l, now)
	if err != nil {
		return nil, err
	}
	decisions := make([]policy.Decision, len(facts))
	for i := range facts {
		d := &decisions[i]
		*d = policy.Decide(asker, &t.Terms, &facts[i], now)
		// What upstream has is looked at when somebody wants its bytes, so until then it is listed.
		d.Listed = d.Listed && (!d.Unscanned || l.upstream != "")
	}
	return decisions, nil
}

// factsOf are the facts of l, as far as t asks for them now.
func (r *Registry) factsOf(ctx context.Context, t *terms, l *lineage, now time.Time) ([]policy.Facts, error) {
	switch {
	case !t.looksInside(now):
		return l.facts, nil
	case l.upstream != "":
		return r.knownInside(ctx, l)
	}
	facts := r.lookInside(ctx, l)
	return facts, ctx.Err()
}

// lookTime bounds a look inside all versions of an artifact, however many there
// are: what was found by then is remembered.
const lookTime = 2 * time.Minute

// lookInside are the facts of l with what the bytes of all versions hold, those
// left out that cannot be looked at now, or within lookTime.
func (r *Registry) lookInside(ctx context.Context, l *lineage) []policy.Facts {
	if inside := l.inside.Load(); inside != nil {
		return *inside
	}
	select {
	case l.looking <- struct{}{}:
		defer func() { <-l.looking }()
	case <-ctx.Done():
		return l.facts
	}
	if inside := l.inside.Load(); inside != nil {
		return *inside
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	facts, whole := slices.Clone(l.facts), true
	for i := range facts {
		f, err := r.inside(ctx, l.versions[i].Version, l.facts[i])
		switch {
		case ctx.Err() != nil:
			return facts
		case err != nil:
			r.Log.Error("a version cannot be looked into, and is denied until it can", "cid", l.versions[i].CID, "error", err)
			whole = false
		default:
			facts[i] = f
		}
	}
	if whole {
		l.inside.Store(&facts)
	}
	return facts
}

// seenOf judges the versions of the artifact that name means, however spelled.
// ErrNotFound when there is none that asker may know of.
func (r *Registry) seenOf(ctx context.Context, asker policy.Asker, kind record.Kind, name string) (seen, error) {
	t := r.published.Load().terms
	if err := r.gate(&asker, t); err != nil {
		return seen{}, err
	}
	s, err := r.seenUnder(ctx, &asker, t, kind, name)
	if err == nil && len(s.versions) == 0 {
		err = s.unknown(kind, name)
	}
	return s, err
}

// unknown is what who sees nothing of an artifact is told.
func (s seen) unknown(kind record.Kind, name string) error {
	err := unknownName(kind, name)
	subject, malformed := record.ArtifactSubject(kind, s.hiddenName)
	if malformed != nil { // nothing is hidden
		return err
	}
	return hiddenOr(err, subject, s.hidden)
}

// hiddenOr is err, for who may not know of subject because of d, if that says anything.
func hiddenOr(err error, subject record.Subject, d policy.Decision) error {
	if d.Rule == "" {
		return err
	}
	return &Hidden{What: subject.String(), Decision: d, err: err}
}

// seenUnder is seenOf for who has passed the gate of t: nothing where there is
// nothing to know of.
func (r *Registry) seenUnder(ctx context.Context, asker *policy.Asker, t *terms, kind record.Kind, name string) (seen, error) {
	l, err := r.lineage(ctx, kind, name)
	if err != nil || l == nil {
		return seen{}, err
	}
	return r.see(ctx, asker, t, l)
}

// knows reports whether asker may know of the artifact that name means.
func (r *Registry) knows(ctx context.Context, asker policy.Asker, kind record.Kind, name string) error {
	_, err := r.seenOf(ctx, asker, kind, name)
	return err
}

// artifactOf is the artifact that name means, however spelled, from memory where it can be.
func (r *Registry) artifactOf(ctx context.Context, kind record.Kind, name string) (state.Artifact, bool, error) {
	return cachedState(ctx, r, state.ArtifactPrefix(kind)+cargo.CanonicalName(name), state.DecodeArtifact)
}
