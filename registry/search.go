package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// Found is a search result.
type Found struct {
	Name, MaxVersion, Description string
}

// searchPage is how many crates are looked at together where some may be hidden.
const searchPage = 100

// Search finds the crates that asker may know of by name, description and
// keywords: at most limit of them behind the first offset, and how many there are.
// MaxVersion is the newest that asker's resolvers may pick, if there is one.
func (r *Registry) Search(ctx context.Context, asker policy.Asker, query string, limit, offset int) ([]Found, int, error) {
	t := r.published.Load().terms
	if err := r.gate(&asker, t); err != nil {
		return nil, 0, err
	}
	at := r.Size()
	if !hides(&asker) {
		found, total, _, err := r.search(ctx, asker, t, query, at, limit, offset)
		return found, total, err
	}
	// What is hidden must not show in the numbers either, so all have to be looked at.
	var found []Found
	total := 0
	for from := 0; ; from += searchPage {
		page, _, more, err := r.search(ctx, asker, t, query, at, searchPage, from)
		if err != nil {
			return nil, 0, err
		}
		for _, f := range page {
			if total >= offset && len(found) < limit {
				found = append(found, f)
			}
			total++
		}
		if !more {
			return found, total, nil
		}
	}
}

// search is a page of what the catalog finds, without what asker may not know of;
// more: there are others behind it.
func (r *Registry) search(ctx context.Context, asker policy.Asker, t *terms, query string, at int64, limit, offset int) (found []Found, total int, more bool, err error) {
	hits, total, err := r.Catalog.SearchCrates(ctx, query, at, limit, offset)
	if errors.Is(err, catalog.ErrBadText) {
		return nil, 0, false, fmt.Errorf("%w: the query is too long or not text", ErrRequest)
	}
	if err != nil {
		return nil, 0, false, err
	}
	for _, hit := range hits {
		last, err := cargo.ParseLine(hit.Line)
		if err != nil {
			return nil, 0, false, err
		}
		s, err := r.seenUnder(ctx, &asker, t, record.KindCrate, last.Name)
		if err != nil {
			return nil, 0, false, err
		}
		// Of a hidden version not even that it holds the query is told.
		if shown := s.shows(hit); shown || len(s.versions) > 0 && nameHolds(hit, query) {
			f := Found{Name: last.Name, MaxVersion: s.newest.Version.Version}
			if shown {
				f.Description = hit.Description
			}
			found = append(found, f)
		}
	}
	return found, total, offset+len(hits) < total, nil
}

// shows reports whether the version whose words were searched, the crate's newest,
// is to be known of.
func (s seen) shows(hit catalog.CrateHit) bool {
	return slices.ContainsFunc(s.versions, func(v seenVersion) bool { return v.Index == hit.Index })
}

// nameHolds reports whether query is part of the crate's name, as the catalog compares them.
func nameHolds(hit catalog.CrateHit, query string) bool {
	return strings.Contains(hit.NameKey, cargo.CanonicalName(query))
}
