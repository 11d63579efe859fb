package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// Listed is an artifact in a listing, as an asker may see it.
type Listed struct {
	state.Artifact
	// Versions is how many there are that the asker may know of, Newest the one that
	// a person means who names none.
	Versions int
	Newest   Judged
}

// Artifacts lists the artifacts of kind ("": of all) that asker may know of and
// whose name has query in it, compared canonically: at most limit of them behind
// the place after, which is "" for the beginning or the next of an earlier page;
// next is "" at the end.
func (r *Registry) Artifacts(ctx context.Context, asker policy.Asker, kind record.Kind, query, after string, limit int) (found []Listed, next string, err error) {
	t := r.published.Load().terms
	if err := r.gate(&asker, t); err != nil {
		return nil, "", err
	}
	from := record.Subject{}
	if !utf8.ValidString(query) { // which its canonical form would be
		return nil, "", fmt.Errorf("%w: the query is not text", ErrRequest)
	}
	if after != "" {
		if from, err = record.ParseSubject(after); err != nil || from.Kind() == "" || from.Version() != "" {
			return nil, "", fmt.Errorf("%w: after is not what an earlier page gave as next", ErrRequest)
		}
	}
	l := listing{registry: r, asker: &asker, terms: t, query: query, at: r.Size()}
	for _, k := range record.Kinds() {
		if kind != "" && k != kind || k < from.Kind() {
			continue
		}
		behind := ""
		if k == from.Kind() {
			behind = from.Name()
		}
		page, err := l.of(ctx, k, behind, limit+1-len(found))
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

// listing is a list being made.
type listing struct {
	registry *Registry
	asker    *policy.Asker
	terms    *terms
	query    string
	at       int64
}

// of lists at most limit artifacts of a kind behind the name after.
func (l listing) of(ctx context.Context, kind record.Kind, after string, limit int) (found []Listed, err error) {
	prefix, behind := state.ArtifactPrefix(kind), ""
	if after != "" {
		behind = prefix + cargo.CanonicalName(after)
	}
	for len(found) < limit {
		want := limit - len(found)
		if hides(l.asker) {
			want = max(want, searchPage)
		}
		rows, err := l.registry.Catalog.StateSearch(ctx, prefix, behind, cargo.CanonicalName(l.query), l.at, want)
		if errors.Is(err, catalog.ErrBadText) {
			return nil, fmt.Errorf("%w: the query is too long or not text", ErrRequest)
		}
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			listed, known, err := l.listed(ctx, row)
			if err != nil {
				return nil, err
			}
			if known && len(found) < limit {
				found = append(found, listed)
			}
			behind = row.Key
		}
		if len(rows) < want {
			break
		}
	}
	return found, nil
}

// listed is the artifact of row; known: the asker may know of it.
func (l listing) listed(ctx context.Context, row catalog.StateRow) (listed Listed, known bool, err error) {
	if listed.Artifact, err = state.DecodeArtifact(row.Value); err != nil {
		return Listed{}, false, err
	}
	s, err := l.registry.seenUnder(ctx, l.asker, l.terms, listed.Kind, listed.Name)
	if err != nil || len(s.versions) == 0 {
		return Listed{}, false, err
	}
	listed.Versions, listed.Newest = len(s.versions), s.newest.judged()
	return listed, true, nil
}

// named is the artifact of exactly that name with the versions of it that asker
// may know of. ErrNotFound where there is none.
func (r *Registry) named(ctx context.Context, asker policy.Asker, kind record.Kind, name string) (Listed, seen, error) {
	s, err := r.seenOf(ctx, asker, kind, name)
	if err != nil {
		return Listed{}, seen{}, err
	}
	a, known, err := r.artifactOf(ctx, kind, name)
	switch {
	case err != nil:
		return Listed{}, seen{}, err
	case !known:
		return Listed{}, seen{}, unknownName(kind, name)
	case a.Name != name:
		return Listed{}, seen{}, fmt.Errorf("%w: there is no %s named %.80q; it is spelled %s", ErrNotFound, kind, name, a.Name)
	}
	return Listed{Artifact: a, Versions: len(s.versions), Newest: s.newest.judged()}, s, nil
}

// Versions lists the versions of an artifact that asker may know of, in byte order
// of their spelling: at most limit of them behind the version after ("": from the
// beginning); next is "" at the end.
func (r *Registry) Versions(ctx context.Context, asker policy.Asker, kind record.Kind, name, after string, limit int) (listed Listed, versions []Judged, next string, err error) {
	listed, s, err := r.named(ctx, asker, kind, name)
	if err != nil {
		return Listed{}, nil, "", err
	}
	rest := s.versions
	if after != "" {
		v, err := cargo.ParseVersion(after)
		if err != nil {
			return Listed{}, nil, "", fmt.Errorf("%w: after is not what an earlier page gave as next", ErrRequest)
		}
		i, found := slices.BinarySearchFunc(rest, v.WithoutBuild(), func(v seenVersion, id string) int { return strings.Compare(v.order.WithoutBuild(), id) })
		if found {
			i++
		}
		rest = rest[i:]
	}
	if len(rest) > limit {
		rest = rest[:limit]
		next = rest[limit-1].order.WithoutBuild()
	}
	for _, v := range rest {
		versions = append(versions, v.judged())
	}
	return listed, versions, next, nil
}
