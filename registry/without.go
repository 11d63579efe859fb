package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
)

// without is a state in which there is no artifact of one name, or no such crate of another registry.
type without struct {
	state.Store
	head, artifact, versions string
}

func newWithout(s state.Store, subject record.Subject) without {
	if subject.Upstream() != "" {
		key := state.UpstreamKey(subject.Upstream(), subject.Crate())
		return without{Store: s, head: state.HeadKey(subject.Thing()), artifact: key, versions: key + "/"}
	}
	return without{
		Store: s, head: state.HeadKey(subject.Thing()),
		artifact: state.ArtifactPrefix(subject.Kind()) + cargo.CanonicalName(subject.Name()),
		versions: state.VersionPrefix(subject.Kind(), subject.Name()),
	}
}

// Get implements state.Store.
func (w without) Get(key string) ([]byte, bool, error) {
	if key == w.head || key == w.artifact || strings.HasPrefix(key, w.versions) {
		return nil, false, nil
	}
	return w.Store.Get(key)
}

// stateFor is s, a published state, as asker is told of it who wants to sign, or has
// signed, something about subject: without the artifact that asker neither may know
// of nor change. What they are told is then the same whether there is one or not.
func (r *Registry) stateFor(ctx context.Context, asker policy.Asker, s state.Store, subject record.Subject) (state.Store, error) {
	if subject.Kind() == "" && subject.Upstream() == "" {
		return s, nil
	}
	by, err := r.entitlement(s, asker.DID, subject)
	if err != nil || by != "" {
		return s, err
	}
	err = r.knowsSubject(ctx, asker, subject)
	var denial *policy.Denial
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, ErrNotFound), errors.As(err, &denial), errors.Is(err, ErrUnauthenticated):
		return newWithout(s, subject), nil
	}
	return nil, err
}

// knowsSubject says why asker may not know of what subject, an artifact or a crate of
// another registry, is about.
func (r *Registry) knowsSubject(ctx context.Context, asker policy.Asker, subject record.Subject) error {
	if subject.Upstream() == "" {
		return r.knows(ctx, asker, subject.Kind(), subject.Name())
	}
	t := r.published.Load().terms
	if err := r.gate(&asker, t); err != nil {
		return err
	}
	return r.knowsUpstream(ctx, &asker, t, subject, ErrNotFound)
}

// toldOf is refusal, of rec, as asker may be told it. Nobody can be kept from finding
// out that a name they could publish is taken; by whom, and since when, they are not told.
func (r *Registry) toldOf(ctx context.Context, asker policy.Asker, before state.Store, entry state.Entry, s *submission, refusal error) error {
	seen, err := r.stateFor(ctx, asker, before, s.record.Subject())
	if err != nil {
		return err
	}
	if _, hidden := seen.(without); !hidden {
		return refusal
	}
	switch _, err = state.Apply(seen, entry, s.record, s.attachments); {
	case err != nil:
		return err
	default:
		return fmt.Errorf("%w: the name %s is taken; choose another", state.ErrTaken, s.record.Subject().Name())
	}
}
