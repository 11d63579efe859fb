package web

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// UpstreamsNow are the registries that this one takes crates from, as they are now.
type UpstreamsNow struct {
	// All are in the order in which they were given.
	All []Upstream
	// Offline: none is ever asked.
	Offline bool
	// CacheLimit bounds what is held of all together, in bytes; 0: nothing does.
	CacheLimit int64
}

// Upstream is one of them.
type Upstream struct {
	// Name is crates-io, or the one that the operator gave it. Source is how policy calls
	// what comes from it.
	Name, Source string
	// Index is the URL of its index, without what is secret.
	Index string
	// Down: it did not answer a moment ago, and is not asked just now.
	Down bool
	// Trouble is why it last did not answer, "" for never, and TroubleAt when. It may name
	// hosts of the operator's.
	Trouble   string
	TroubleAt time.Time
}

// upstreams are those of now.
func (p *Pages) upstreams() UpstreamsNow {
	if p.Config.Upstreams == nil {
		return UpstreamsNow{}
	}
	return p.Config.Upstreams()
}

// Proxies reports whether the registry takes crates from others, and tells the visitor so.
func (v *visit) Proxies() bool { return v.Governed() && len(v.upstreams().All) > 0 }

// CratesIO reports whether crates.io is one of those.
func (v *visit) CratesIO() bool {
	_, _, asked := v.upstreamNamed(particle.SourceCratesIO)
	return asked && v.Proxies()
}

// proxied is reader for what only members see: other registries' crates are for nobody else.
func (p *Pages) proxied(h handler) handler {
	return p.reader(func(w http.ResponseWriter, r *http.Request, v *visit) error {
		if v.Asker.Anonymous() {
			return errMembersOnly
		}
		v.Active = "upstreams"
		return h(w, r, v)
	})
}

// upstreamsPage is the body of the page /upstreams.
type upstreamsPage struct {
	UpstreamsNow
	Rows []upstreamRow
	// Sums: the visitor is told how much there is. Held are the bytes of all that is held.
	Sums  bool
	Held  int64
	Locks []lock
	Next  string // link to more locks
	// Known are the newest first publishes of names that others have too, for auditors.
	Known []registry.AuditEntry
}

// upstreamRow is an upstream in a list.
type upstreamRow struct {
	Upstream
	// IndexURL is for cargo.
	IndexURL     string
	Crates, Held int64
	// Alarm is the newest that nobody has looked into, for auditors; nil: there is none.
	Alarm *alarm
}

// lock is a name under which crates are kept.
type lock struct {
	Name, DID string
	Since     time.Time
	// All is how many crates it is to keep, held or not.
	All, Held, Bytes int64
	// Denied is how many of those held the visitor would not be served now.
	Denied int64
	// Lacks are the first of those that were not to be had, as far as the visitor may know.
	Lacks []registry.Lack
}

// mostKnown is how many warnings about known names the page shows.
const mostKnown = 5

// mostLacks is how much the page shows of what a lock lacks.
const mostLacks = 10

// upstreamList is the page of the registries that this one takes crates from: ?after= of the locks.
func (p *Pages) upstreamList(w http.ResponseWriter, r *http.Request, v *visit) error {
	v.Active = "upstreams"
	leave, err := p.searching.enter(r.Context())
	if err != nil {
		return err
	}
	defer leave()
	body := upstreamsPage{UpstreamsNow: p.upstreams()}
	held, bytes, err := p.Registry.UpstreamHoldings(r.Context(), v.Asker)
	if err != nil {
		return err
	}
	body.Sums, body.Held = held != nil, bytes
	for _, u := range body.All {
		row := upstreamRow{u, p.upstreamIndex(u.Name), held[u.Name].Blobs, held[u.Name].Bytes, nil}
		if v.Audits() {
			if row.Alarm, err = p.unseen(r.Context(), v.Asker, u.Name); err != nil {
				return err
			}
		}
		body.Rows = append(body.Rows, row)
	}
	if body.Sums {
		if body.Locks, body.Next, err = p.locks(r, v.Asker); err != nil {
			return err
		}
	}
	if v.Audits() {
		if body.Known, _, err = p.Registry.AuditOf(r.Context(), registry.RuleKnownUpstream, 0, mostKnown); err != nil {
			return err
		}
	}
	return v.render(w, r, http.StatusOK, "upstreams", "Upstreams", body)
}

// locks are a page of the names under which crates are kept.
func (p *Pages) locks(r *http.Request, asker policy.Asker) (locks []lock, next string, err error) {
	after := r.URL.Query().Get("after")
	if len(after) > maxQuery || strings.ContainsFunc(after, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return nil, "", errNoPage
	}
	found, more, err := p.Registry.Locks(r.Context(), asker, after, perPage+1)
	if err != nil {
		return nil, "", err
	}
	if len(found) > perPage {
		found, more = found[:perPage], true
	}
	if more && len(found) > 0 {
		next = p.Link("upstreams") + "?after=" + url.QueryEscape(found[len(found)-1].Lock) + "#locks"
	}
	for _, l := range found {
		one := lock{l.Lock, l.DID, l.Since, l.Pins + l.Lacking, l.Held, l.Bytes, l.Denied, nil}
		if l.Lacking > 0 {
			if one.Lacks, err = p.Registry.Lacks(r.Context(), asker, l.Lock, mostLacks); err != nil {
				return nil, "", err
			}
		}
		locks = append(locks, one)
	}
	return locks, next, nil
}

// upstreamIndex is the URL for cargo of an upstream's index here.
func (p *Pages) upstreamIndex(name string) string {
	base := "/upstream/" + name
	if name == particle.SourceCratesIO {
		base = "/" + name
	}
	return "sparse+" + p.Registry.PublicURL + base + "/index/"
}

// upstreamPage is the body of the page of one upstream: its crates, as far as they are known.
type upstreamPage struct {
	Upstream
	// Asked: it is still one from which crates are taken.
	Asked    bool
	Offline  bool
	IndexURL string
	Query    string
	Crates   []registry.SeenCrate
	Next     string // link
}

// upstream is the page of an upstream: ?q=, the beginning of names, and ?after=.
func (p *Pages) upstream(w http.ResponseWriter, r *http.Request, v *visit) error {
	name := param(r, "upstream")
	body := upstreamPage{Query: r.URL.Query().Get("q"), IndexURL: p.upstreamIndex(name)}
	body.Upstream, body.Offline, body.Asked = p.upstreamNamed(name)
	leave, err := p.searching.enter(r.Context())
	if err != nil {
		return err
	}
	defer leave()
	var next string
	body.Crates, next, err = p.Registry.SeenUpstreams(r.Context(), v.Asker, name, body.Query, r.URL.Query().Get("after"), perPage)
	if err != nil {
		return err
	}
	if !body.Asked && len(body.Crates) == 0 { // as if there never was one of that name
		return errNoPage
	}
	if next != "" {
		values := url.Values{"after": {next}}
		if body.Query != "" {
			values.Set("q", body.Query)
		}
		body.Next = p.Link("upstreams", name) + asked(values)
	}
	return v.render(w, r, http.StatusOK, "upstream", body.Name, body)
}

// upstreamNamed is the upstream of that name; asked: there is one from which crates are taken.
func (p *Pages) upstreamNamed(name string) (u Upstream, offline, asked bool) {
	now := p.upstreams()
	for _, u := range now.All {
		if u.Name == name {
			return u, now.Offline, true
		}
	}
	return Upstream{Name: name}, now.Offline, false
}

// seenPage is the body of the page of an upstream's crate.
type seenPage struct {
	registry.SeenCrate
	Upstream Upstream
	Asked    bool
	Newest   registry.SeenVersion
	Count    int
	// Page is a page of the versions; Held are those whose bytes this upstream served, and are here.
	Page           []registry.SeenVersion
	Held           map[storage.CID]bool
	Previous, Next string // links
	// Changed are versions of which upstream said something else later.
	Changed []registry.SeenVersion
	More    int // changed ones that are not shown
	// Imports are the newest import records, where the visitor may know of all versions.
	Imports []seenImport
	// Hosted is how a crate of that name is spelled that is published here, "" for none.
	Hosted string
}

// seenImport is a record that the registry saw an index file.
type seenImport struct {
	Index    int64
	Time     time.Time
	Snapshot storage.CID
}

const (
	// mostImports is how many import records a crate's page shows; each leads to the one before.
	mostImports = 10
	// mostChanged is how many changed versions it shows.
	mostChanged = 50
)

// upstreamCrate is the page of a crate of another registry.
func (p *Pages) upstreamCrate(w http.ResponseWriter, r *http.Request, v *visit) error {
	upstream, name := param(r, "upstream"), param(r, "name")
	leave, err := p.looking.enter(r.Context())
	if err != nil {
		return err
	}
	defer leave()
	crate, err := p.Registry.SeenUpstream(r.Context(), v.Asker, upstream, name)
	if err != nil {
		return err
	}
	if crate.Name != name { // one name, one address
		http.Redirect(w, r, p.Link("upstreams", upstream, "crates", crate.Name), http.StatusFound)
		return nil
	}
	body := seenPage{SeenCrate: crate, Newest: crate.Newest(), Count: len(crate.Versions)}
	body.Upstream, _, body.Asked = p.upstreamNamed(upstream)
	path := p.Link("upstreams", upstream, "crates", crate.Name)
	if body.Page, body.Previous, body.Next, err = turn(r, path, crate.Versions); err != nil {
		return err
	}
	for _, s := range crate.Versions {
		if len(s.Seen.Other) == 0 && s.Seen.Gone.IsZero() {
			continue
		}
		if len(body.Changed) == mostChanged {
			body.More++
			continue
		}
		body.Changed = append(body.Changed, s)
	}
	if err := p.fillSeen(r.Context(), v, &body); err != nil {
		return err
	}
	return v.render(w, r, http.StatusOK, "seen", crate.Name+" · "+upstream, body)
}

// fillSeen adds what is not in the state of the crate.
func (p *Pages) fillSeen(ctx context.Context, v *visit, body *seenPage) (err error) {
	ids := make([]storage.CID, len(body.Page))
	for i, s := range body.Page {
		ids[i] = s.CID
	}
	if body.Held, err = p.Registry.HeldUpstream(ctx, body.Upstream.Name, ids); err != nil {
		return err
	}
	if body.Imports, err = p.imports(ctx, v, body.Last.Record); err != nil {
		return err
	}
	body.Hosted, err = p.Registry.Spelling(ctx, v.Asker, record.KindCrate, body.Name)
	if hidden(err) {
		err = nil
	}
	return err
}

// imports are the newest records that a crate was seen, from last on.
func (p *Pages) imports(ctx context.Context, v *visit, last record.ID) (all []seenImport, err error) {
	for id := last; id != "" && len(all) < mostImports; {
		stored, err := p.Registry.Record(ctx, v.Asker, id)
		if hidden(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		times, err := p.Registry.EntryTimes(ctx, stored.Index, stored.Index+1)
		if err != nil {
			return nil, err
		}
		all = append(all, seenImport{stored.Index, times[0], stored.Record.Snapshot()})
		id = stored.Record.Header().Prev
	}
	return all, nil
}

// snapshot sends the index file that an import record names as a file: never as something
// to show.
func (p *Pages) snapshot(w http.ResponseWriter, r *http.Request, v *visit) error {
	leave, err := p.looking.enter(r.Context())
	if err != nil {
		return err
	}
	defer leave()
	stored, err := p.stored(r, v)
	if err != nil {
		return err
	}
	if stored.Record.Type() != record.TypeImport {
		return errNoPage
	}
	raw, err := p.Registry.Attachment(r.Context(), stored, stored.Record.Snapshot())
	if err != nil {
		return err
	}
	if v, err = p.visit(w, r); err != nil { // by now: blob storage takes as long as it likes
		return err
	}
	return p.insider(func(w http.ResponseWriter, r *http.Request, v *visit) error {
		if _, err := p.stored(r, v); err != nil {
			return err
		}
		sendFile(w, stored.Record.Subject().Crate()+"-index-"+strconv.FormatInt(stored.Index, 10)+".jsonl")
		w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
		if r.Method != http.MethodHead {
			w.Write(raw)
		}
		return nil
	})(w, r, v)
}

// alarmsPage is the body of the page of an upstream's alarms.
type alarmsPage struct {
	Name string
	// Seen are those of the page that somebody has looked into, Alarms the others.
	Alarms, Seen  []alarm
	Newest, Older string // links
}

// alarm is something that an upstream should never have done.
type alarm struct {
	ID                          int64
	Name, Version, Kind, Detail string
	At                          time.Time
	SeenBy, SeenWhy             string
	SeenAt                      time.Time
}

// alarms is the page of what an upstream should never have done: ?before=.
func (p *Pages) alarms(w http.ResponseWriter, r *http.Request, v *visit) error {
	v.Active = "upstreams"
	if v.Asker.Anonymous() {
		return errMembersOnly
	}
	if denial := policy.ReadAudit(v.Asker); denial != nil {
		return denial
	}
	before := int64(1<<63 - 1)
	body := alarmsPage{Name: param(r, "upstream")}
	path := p.Link("upstreams", body.Name, "alarms")
	if text := r.URL.Query().Get("before"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 1 {
			return errNoPage
		}
		before, body.Newest = n, path
	}
	if _, err := record.UpstreamSubject(body.Name, "a"); err != nil {
		return errNoPage
	}
	leave, err := p.searching.enter(r.Context())
	if err != nil {
		return err
	}
	defer leave()
	found, err := p.Registry.UpstreamAlarms(r.Context(), v.Asker, body.Name, before, perPage+1, false)
	if err != nil {
		return err
	}
	if _, _, asked := p.upstreamNamed(body.Name); !asked && len(found) == 0 {
		return errNoPage
	}
	for i, a := range found {
		if i == perPage {
			body.Older = path + "?before=" + strconv.FormatInt(found[i-1].ID, 10)
			break
		}
		one := alarm{a.ID, a.Name, a.Version, a.Kind, a.Detail, a.At, a.Seen.By, a.Seen.Why, a.Seen.At}
		if a.Seen.At.IsZero() {
			body.Alarms = append(body.Alarms, one)
		} else {
			body.Seen = append(body.Seen, one)
		}
	}
	return v.render(w, r, http.StatusOK, "alarms", "Alarms of "+body.Name, body)
}

// unseen is an upstream's newest alarm that nobody has looked into; nil: there is none.
func (p *Pages) unseen(ctx context.Context, asker policy.Asker, upstream string) (*alarm, error) {
	found, err := p.Registry.UpstreamAlarms(ctx, asker, upstream, 1<<63-1, 1, true)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	newest := found[0]
	return &alarm{ID: newest.ID, Name: newest.Name, Version: newest.Version, Kind: newest.Kind, At: newest.At}, nil
}

// elsewhere is a crate of another registry, beside what a search finds here.
type elsewhere struct {
	Upstream string
	registry.SeenCrate
}

// mostElsewhere is how many crates of each other registry a search shows.
const mostElsewhere = 10

// elsewhere finds crates of other registries that are known here, by how their names begin:
// their index files say no more of them.
func (p *Pages) elsewhere(ctx context.Context, v *visit, query string) (found []elsewhere, err error) {
	if v.Asker.Anonymous() || cargo.ValidateName(query) != nil {
		return nil, nil
	}
	for _, u := range p.upstreams().All {
		some, _, err := p.Registry.SeenUpstreams(ctx, v.Asker, u.Name, query, "", mostElsewhere)
		if err != nil {
			return nil, err
		}
		for _, c := range some {
			found = append(found, elsewhere{u.Name, c})
		}
	}
	slices.SortStableFunc(found, func(a, b elsewhere) int { return compareLengths(a.Name, b.Name) })
	return found, nil
}

// compareLengths puts what is nearer to what was searched for first.
func compareLengths(a, b string) int { return len(a) - len(b) }

// alsoThere are the other registries that are known to have a crate of that name, as far as
// the visitor may know of it: who forgets which one is meant gets theirs.
func (p *Pages) alsoThere(ctx context.Context, v *visit, name string) (there []elsewhere, err error) {
	if v.Asker.Anonymous() {
		return nil, nil
	}
	for _, u := range p.upstreams().All {
		crate, err := p.Registry.SeenUpstream(ctx, v.Asker, u.Name, name)
		if hidden(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		there = append(there, elsewhere{u.Name, crate})
	}
	return there, nil
}
