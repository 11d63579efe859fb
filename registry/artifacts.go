package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// Listed is an artifact in a listing.
type Listed struct {
	state.Artifact
	// Versions is how many there are, Newest the one that a person means who names none.
	Versions int
	Newest   state.Version
}

// Artifacts lists the artifacts of kind ("": of all) whose name has query in
// it, compared canonically: at most limit of them behind the place after, which
// is "" for the beginning or the next of an earlier page; next is "" at the end.
func (r *Registry) Artifacts(ctx context.Context, kind record.Kind, query, after string, limit int) (found []Listed, next string, err error) {
	from := record.Subject{}
	if !utf8.ValidString(query) { // which its canonical form would be
		return nil, "", fmt.Errorf("%w: the query is not text", ErrRequest)
	}
	if after != "" {
		if from, err = record.ParseSubject(after); err != nil || from.Kind() == "" || from.Version() != "" {
			return nil, "", fmt.Errorf("%w: after is not what an earlier page gave as next", ErrRequest)
		}
	}
	at := r.Size()
	for _, k := range record.Kinds() {
		if kind != "" && k != kind || k < from.Kind() {
			continue
		}
		page, err := r.artifactsOf(ctx, k, query, from, at, limit+1-len(found))
		if err != nil {
			return nil, "", err
		}
		if found = append(found, page...); len(found) > limit {
			found = found[:limit]
			last := found[limit-1]
			return found, string(last.Kind) + "/" + cargo.CanonicalName(last.Name), nil
		}
	}
	return found, "", nil
}

func (r *Registry) artifactsOf(ctx context.Context, kind record.Kind, query string, from record.Subject, at int64, limit int) ([]Listed, error) {
	prefix, after := state.ArtifactPrefix(kind), ""
	if from.Kind() == kind {
		after = prefix + cargo.CanonicalName(from.Name())
	}
	rows, err := r.Catalog.StateSearch(ctx, prefix, after, cargo.CanonicalName(query), at, limit)
	if errors.Is(err, catalog.ErrBadText) {
		return nil, fmt.Errorf("%w: the query is too long or not text", ErrRequest)
	}
	if err != nil {
		return nil, err
	}
	var found []Listed
	for _, row := range rows {
		listed := Listed{}
		if listed.Artifact, err = state.DecodeArtifact(row.Value); err != nil {
			return nil, err
		}
		if listed.Newest, listed.Versions, err = r.newest(ctx, kind, listed.Name, at); err != nil {
			return nil, err
		}
		found = append(found, listed)
	}
	return found, nil
}

// newest is the version that a person means who names none, and how many there are.
func (r *Registry) newest(ctx context.Context, kind record.Kind, name string, at int64) (state.Version, int, error) {
	prefix := state.VersionPrefix(kind, name)
	rows, err := r.Catalog.StateRange(ctx, prefix, catalog.PrefixEnd(prefix), at, mostVersions)
	if err != nil {
		return state.Version{}, 0, err
	}
	var best ranked
	for i, row := range rows {
		v, err := decodeRanked(row.Value)
		if err != nil {
			return state.Version{}, 0, err
		}
		if i == 0 || v.preferredTo(best) {
			best = v
		}
	}
	return best.Version, len(rows), nil
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

// preferredTo: those not yanked come before yanked ones, releases before
// pre-releases, then the larger first.
func (v ranked) preferredTo(w ranked) bool {
	if v.Yanked != w.Yanked {
		return w.Yanked
	}
	if early := v.order.IsPrerelease(); early != w.order.IsPrerelease() {
		return !early
	}
	return v.order.Compare(w.order) > 0
}

func (r *Registry) artifactAt(ctx context.Context, kind record.Kind, name string, at int64) (listed Listed, err error) {
	if listed.Artifact, err = r.namedAt(ctx, kind, name, at); err != nil {
		return Listed{}, err
	}
	listed.Newest, listed.Versions, err = r.newest(ctx, kind, name, at)
	return listed, err
}

// namedAt is the artifact of exactly that name. ErrNotFound where there is none.
func (r *Registry) namedAt(ctx context.Context, kind record.Kind, name string, at int64) (state.Artifact, error) {
	a, known, err := state.ArtifactOf(r.viewAt(ctx, &r.Catalog.Reader, at), kind, name)
	switch {
	case err != nil:
		return state.Artifact{}, err
	case !known:
		return state.Artifact{}, fmt.Errorf("%w: there is no %s named %.80q", ErrNotFound, kind, name)
	case a.Name != name:
		return state.Artifact{}, fmt.Errorf("%w: there is no %s named %.80q; it is spelled %s", ErrNotFound, kind, name, a.Name)
	}
	return a, nil
}

// Versions lists an artifact's versions in byte order of their spelling: at
// most limit of them behind the version after ("": from the beginning); next is
// "" at the end.
func (r *Registry) Versions(ctx context.Context, kind record.Kind, name, after string, limit int) (listed Listed, versions []state.Version, next string, err error) {
	at := r.Size()
	if listed, err = r.artifactAt(ctx, kind, name, at); err != nil {
		return listed, nil, "", err
	}
	prefix := state.VersionPrefix(kind, name)
	from := prefix
	if after != "" {
		v, err := cargo.ParseVersion(after)
		if err != nil {
			return listed, nil, "", fmt.Errorf("%w: after is not what an earlier page gave as next", ErrRequest)
		}
		from += v.WithoutBuild() + "\x01"
	}
	rows, err := r.Catalog.StateRange(ctx, from, catalog.PrefixEnd(prefix), at, limit+1)
	if err != nil {
		return listed, nil, "", err
	}
	if len(rows) > limit {
		rows = slices.Delete(rows, limit, len(rows))
		next = strings.TrimPrefix(rows[limit-1].Key, prefix)
	}
	for _, row := range rows {
		v, err := state.DecodeVersion(row.Value)
		if err != nil {
			return listed, nil, "", err
		}
		versions = append(versions, v)
	}
	return listed, versions, next, nil
}
