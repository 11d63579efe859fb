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

// searchPage is how many names are looked at together where some may be hidden;
// crates of a search are looked for anew with every page, so there they are more.
const (
	searchPage = 100
	cratesPage = 2000
)

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
	for from := 0; ; from += cratesPage {
		page, _, more, err := r.search(ctx, asker, t, query, at, cratesPage, from)
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
		if len(s.versions) > 0 && s.mayFind(hit, query) {
			found = append(found, Found{Name: last.Name, MaxVersion: s.newest.Version.Version, Description: s.description(hit)})
		}
	}
	return found, total, offset+len(hits) < total, nil
}

// mayFind reports whether hit says no more than the asker may know: the catalog
// finds by what the newest version says of the crate, too, and where that is hidden
// its name alone is looked for.
func (s seen) mayFind(hit catalog.CrateHit, query string) bool {
	return s.tells(hit) || strings.Contains(hit.NameKey, cargo.CanonicalName(query))
}

// tells reports whether the version that hit is about is to be known of.
func (s seen) tells(hit catalog.CrateHit) bool {
	return slices.ContainsFunc(s.versions, func(v seenVersion) bool { return v.Index == hit.Index })
}

// description is what the crate's newest version says of the crate, "" where that
// version is not to be known of.
func (s seen) description(hit catalog.CrateHit) string {
	if s.tells(hit) {
		return hit.Description
	}
	return ""
}
