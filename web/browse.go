package web

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/go-chi/chi/v5"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/record"
)

// Lengths of lists.
const (
	perPage = 50
	// mostPages bounds how far a search can be turned over.
	mostPages = 2000
	// mostRecent is how many new versions the front page shows, of the lookBack newest entries.
	mostRecent = 8
	lookBack   = 48
	// maxQuery is the longest text searched for, in bytes.
	maxQuery = 200
)

// kindOf describes a kind of artifacts in words.
type kindOf struct {
	Kind record.Kind
	Name string // of several
	Text string
}

var kindNames = []kindOf{
	{record.KindCrate, "Crates", "Rust libraries and programs, for cargo"},
	{record.KindALNShard, "ALN shards", "Statements that the registry and its builds work by"},
	{record.KindEvidenceBundle, "Evidence bundles", "What shows that something was checked or measured"},
	{record.KindManifest, "Manifests", "Lists of artifacts that belong together"},
	{record.KindQPUDatashard, "QPU datashards", "Data of and for quantum processors"},
}

// frontPage is the body of the page /.
type frontPage struct {
	Size     int64
	IndexURL string
	// PublicIndexURL is for everybody, "" where only members read.
	PublicIndexURL string
	Recent         []recent
}

// recent is a version that was published not long ago.
type recent struct{ registry.Judged }

func (p *Pages) front(w http.ResponseWriter, r *http.Request, v *visit) error {
	v.Active = "front"
	body := frontPage{Size: p.Registry.Size(), IndexURL: p.Registry.IndexURL()}
	if p.Registry.AnonymousRead {
		body.PublicIndexURL = "sparse+" + p.Registry.PublicURL + "/public/index/"
	}
	if v.MayRead {
		var err error
		if body.Recent, err = p.recent(r.Context(), v); err != nil {
			return err
		}
	}
	return v.render(w, r, http.StatusOK, "front", p.host, body)
}

// lately remembers which entries, of a log of some size, are the last that
// published something.
type lately struct {
	mu      sync.Mutex
	size    int64
	entries []int64
}

// recent is what was published last, as far as the asker may know of it.
func (p *Pages) recent(ctx context.Context, v *visit) ([]recent, error) {
	entries, err := p.published(ctx)
	if err != nil {
		return nil, err
	}
	var found []recent
	for _, i := range entries {
		stored, err := p.Registry.RecordAt(ctx, v.Asker, i)
		if hidden(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		s := stored.Record.Subject()
		version, err := p.Registry.Version(ctx, v.Asker, s.Kind(), s.Name(), s.Version())
		if err != nil {
			return nil, err
		}
		found = append(found, recent{version})
	}
	return found, nil
}

// published looks through the newest entries, once for each size of the log. It
// is the same for all visitors: what of it they may know of is not asked here.
func (p *Pages) published(ctx context.Context) ([]int64, error) {
	p.lately.mu.Lock()
	defer p.lately.mu.Unlock()
	size := p.Registry.Size()
	if p.lately.size == size {
		return p.lately.entries, nil
	}
	entries, err := p.Registry.Publications(ctx, max(0, size-lookBack), size, mostRecent)
	if err != nil {
		return nil, err
	}
	p.lately.size, p.lately.entries = size, entries
	return entries, nil
}

// searchPage is the body of the page /search.
type searchPage struct {
	Query          string
	Found          []registry.Found
	Others         []registry.Listed // of other kinds, by name
	Elsewhere      []elsewhere       // of other registries, by the beginning of their names
	Total          int
	First, Last    int
	Previous, Next string // links
}

// search finds crates; with no query it lists them all.
func (p *Pages) search(w http.ResponseWriter, r *http.Request, v *visit) error {
	query := strings.TrimSpace(r.URL.Query().Get("q"))
	if len(query) > maxQuery {
		return fmt.Errorf("%w: a search has at most %d bytes", registry.ErrRequest, maxQuery)
	}
	v.Query = query
	body, err := p.find(r, v, p.Link("search"), query)
	if err != nil {
		return err
	}
	title := "Search"
	if query != "" {
		title = "Search for “" + tame(query) + "”"
	}
	return v.render(w, r, http.StatusOK, "search", title, body)
}

// find searches for query and says how to turn the pages of what is found, which are below path.
func (p *Pages) find(r *http.Request, v *visit, path, query string) (searchPage, error) {
	page, err := pageNumber(r)
	if err != nil {
		return searchPage{}, err
	}
	leave, err := p.searching.enter(r.Context())
	if err != nil {
		return searchPage{}, err
	}
	defer leave()
	body := searchPage{Query: query}
	offset := (page - 1) * perPage
	body.Found, body.Total, err = p.Registry.Search(r.Context(), v.Asker, query, perPage, offset)
	if err != nil {
		return searchPage{}, err
	}
	if len(body.Found) == 0 && page > 1 {
		return searchPage{}, errNoPage
	}
	if query != "" && page == 1 {
		if body.Others, err = p.others(r.Context(), v, query); err != nil {
			return searchPage{}, err
		}
		if body.Elsewhere, err = p.elsewhere(r.Context(), v, query); err != nil {
			return searchPage{}, err
		}
	}
	body.First, body.Last = offset+1, offset+len(body.Found)
	if page > 1 {
		body.Previous = path + turned(query, page-1)
	}
	if body.Last < body.Total && page < mostPages {
		body.Next = path + turned(query, page+1)
	}
	return body, nil
}

// mostOthers is how many artifacts of each other kind a search shows.
const mostOthers = 10

// others finds artifacts of the kinds that say nothing of themselves, by their names.
func (p *Pages) others(ctx context.Context, v *visit, query string) (found []registry.Listed, err error) {
	for _, k := range kindNames {
		if k.Kind == record.KindCrate {
			continue
		}
		some, _, err := p.Registry.Artifacts(ctx, v.Asker, k.Kind, query, "", mostOthers)
		if err != nil {
			return nil, err
		}
		found = append(found, some...)
	}
	return found, nil
}

// turned is the part of an address that asks for a page of results.
func turned(query string, page int) string {
	values := url.Values{}
	if query != "" {
		values.Set("q", query)
	}
	if page > 1 {
		values.Set("page", strconv.Itoa(page))
	}
	return asked(values)
}

func pageNumber(r *http.Request) (int, error) {
	text := r.URL.Query().Get("page")
	if text == "" {
		return 1, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > mostPages {
		return 0, fmt.Errorf("%w: pages are numbered from 1 to %d", registry.ErrRequest, mostPages)
	}
	return n, nil
}

func (p *Pages) kinds(w http.ResponseWriter, r *http.Request, v *visit) error {
	v.Active = "kinds"
	return v.render(w, r, http.StatusOK, "kinds", "Artifacts", kindNames)
}

// listPage is the body of the page of one kind.
type listPage struct {
	Of        kindOf
	Artifacts []registry.Listed
	Next      string // link
}

// list shows the artifacts of a kind: crates with what they say of themselves.
func (p *Pages) list(w http.ResponseWriter, r *http.Request, v *visit) error {
	kind, err := kindIn(r)
	if err != nil {
		return err
	}
	v.Active = "kinds"
	body := listPage{Of: kind}
	if kind.Kind == record.KindCrate {
		v.Active = "crate"
		crates, err := p.find(r, v, p.Link("artifacts", string(kind.Kind)), "")
		if err != nil {
			return err
		}
		return v.render(w, r, http.StatusOK, "search", kind.Name, crates)
	}
	leave, err := p.searching.enter(r.Context())
	if err != nil {
		return err
	}
	defer leave()
	var next string
	body.Artifacts, next, err = p.Registry.Artifacts(r.Context(), v.Asker, kind.Kind, "", r.URL.Query().Get("after"), perPage)
	if err != nil {
		return err
	}
	if next != "" {
		body.Next = p.Link("artifacts", string(kind.Kind)) + "?" + url.Values{"after": {next}}.Encode()
	}
	return v.render(w, r, http.StatusOK, "list", kind.Name, body)
}

// kindIn is the kind that the path names.
func kindIn(r *http.Request) (kindOf, error) {
	for _, k := range kindNames {
		if string(k.Kind) == chi.URLParam(r, "kind") {
			return k, nil
		}
	}
	return kindOf{}, errNoPage
}

// param is a segment of the path, decoded: chi gives it as it was sent where
// the client escaped what needs none (a version's + as %2B). Package server has
// the same for its own routes; for these lines alone neither imports another.
func param(r *http.Request, name string) string {
	segment := chi.URLParam(r, name)
	if r.URL.RawPath == "" {
		return segment
	}
	if plain, err := url.PathUnescape(segment); err == nil {
		return plain
	}
	return segment
}
