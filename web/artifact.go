package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
)

// artifactPage is the body of the page of one version of an artifact.
type artifactPage struct {
	Of kindOf
	registry.Judged
	Signer   did.URL
	Owners   []state.Owner
	Size     int64
	Versions []registry.Judged // a page of them, newest first
	Count    int               // of all versions
	Newer    registry.Judged   // the one to show first
	Previous string            // links to other pages of versions
	Next     string

	// Crate and what follows are nil or empty for other kinds, and where the crate cannot be read, or not now.
	Crate            *described
	Busy, Unreadable bool
	Links            []namedURL
	Features         []feature
	Groups           []dependencyGroup
	// Elsewhere are other registries that have a crate of that name too.
	Elsewhere []elsewhere
}

// Chosen: v is the version that the page is about.
func (a artifactPage) Chosen(v string) bool { return a.Version.Version == v }

// Older: there is a better version than this one.
func (a artifactPage) Older() bool { return a.Newer.Version.Version != a.Version.Version }

// Later: the better version is a newer one too, and not an older one that is
// better because this one was yanked.
func (a artifactPage) Later() bool {
	better, err := cargo.ParseVersion(a.Newer.Version.Version)
	this, failed := cargo.ParseVersion(a.Version.Version)
	return err == nil && failed == nil && better.Compare(this) > 0
}

// Denied: the visitor does not get the bytes; Decision says why.
func (a artifactPage) Denied() bool { return !a.Decision.Allow }

// Unlisted: builds that have it in their lockfile still get it, and no others.
func (a artifactPage) Unlisted() bool { return a.Decision.Allow && !a.Decision.Listed }

// Cargo: the commands of cargo are for this kind.
func (a artifactPage) Cargo() bool { return a.Kind == record.KindCrate }

type namedURL struct{ Name, Text, URL string }

type feature struct {
	Name    string
	Enables []string
}

type dependencyGroup struct {
	Title        string
	Dependencies []dependency
}

type dependency struct {
	cargo.Dependency
	// Link leads to the crate's page where it is of this registry; Foreign is another registry's index.
	Link, Foreign string
}

func (p *Pages) artifact(w http.ResponseWriter, r *http.Request, v *visit) error {
	kind, err := kindIn(r)
	if err != nil {
		return err
	}
	name, version := param(r, "name"), param(r, "version")
	spelling, err := p.Registry.Spelling(r.Context(), v.Asker, kind.Kind, name)
	if err != nil {
		return err
	}
	if spelling != name { // one name, one address
		segments := []string{"artifacts", string(kind.Kind), spelling}
		if version != "" {
			segments = append(segments, version)
		}
		http.Redirect(w, r, p.Link(segments...), http.StatusFound)
		return nil
	}
	body, err := p.artifactPage(r, v, kind, name, version)
	if err != nil {
		return err
	}
	if v.Active = "kinds"; body.Cargo() {
		v.Active = "crate"
		if err := p.describe(r.Context(), &body); err != nil {
			return err
		}
		if !body.Denied() {
			return p.again(w, r, func(w http.ResponseWriter, r *http.Request, v *visit) error {
				now, err := p.Registry.Version(r.Context(), v.Asker, kind.Kind, name, body.Version.Version)
				if err != nil {
					return err
				}
				if !now.Decision.Allow { // the page without what it says of itself
					return p.artifact(w, r, v)
				}
				v.Active = "crate"
				return v.render(w, r, http.StatusOK, "artifact", name+" "+body.Version.Version, body)
			})
		}
	}
	return v.render(w, r, http.StatusOK, "artifact", name+" "+body.Version.Version, body)
}

// artifactPage gathers what the registry knows of a version, "" for the one to show first.
func (p *Pages) artifactPage(r *http.Request, v *visit, kind kindOf, name, version string) (artifactPage, error) {
	ctx := r.Context()
	leave, err := p.looking.enter(ctx)
	if err != nil {
		return artifactPage{}, err
	}
	defer leave()
	known, versions, err := p.Registry.VersionsOf(ctx, v.Asker, kind.Kind, name)
	if err != nil {
		return artifactPage{}, err
	}
	body := artifactPage{Of: kind, Owners: known.Owners, Count: len(versions), Newer: known.Newest}
	body.Judged = body.Newer
	path := []string{"artifacts", string(kind.Kind), known.Name}
	if version != "" {
		path = append(path, version)
		if body.Judged, err = p.Registry.Version(ctx, v.Asker, kind.Kind, known.Name, version); err != nil {
			return artifactPage{}, err
		}
	}
	if body.Versions, body.Previous, body.Next, err = turn(r, p.Link(path...), versions); err != nil {
		return artifactPage{}, err
	}
	if body.Size, err = p.Registry.ArtifactSize(ctx, body.Judged); err != nil {
		return artifactPage{}, err
	}
	stored, err := p.Registry.Record(ctx, v.Asker, body.Record)
	if err != nil {
		return artifactPage{}, err
	}
	body.Signer = stored.Record.Header().Signer
	if body.Cargo() {
		body.Elsewhere, err = p.alsoThere(ctx, v, known.Name)
	}
	return body, err
}

// turn cuts a page out of all versions, and says how to turn to the others, below path.
func turn[V any](r *http.Request, path string, all []V) (versions []V, previous, next string, err error) {
	page, err := pageNumber(r)
	if err != nil {
		return nil, "", "", err
	}
	from := (page - 1) * perPage
	if from >= len(all) && page > 1 {
		return nil, "", "", errNoPage
	}
	if page > 1 {
		previous = path + turned("", page-1) + "#versions"
	}
	if from+perPage < len(all) {
		next = path + turned("", page+1) + "#versions"
	}
	return all[from:min(len(all), from+perPage)], previous, next, nil
}

// describe adds what the crate says of itself, for whom its bytes are not denied:
// what is kept of it was read for somebody else.
func (p *Pages) describe(ctx context.Context, body *artifactPage) error {
	if body.Denied() {
		return nil
	}
	d, err := p.readmes.get(ctx, body.CID, func(ctx context.Context) (*cargo.Crate, error) { return p.Registry.Describe(ctx, body.Judged) })
	if errors.Is(err, errBusy) {
		body.Busy = true
		return nil
	}
	if errors.Is(err, errPanicked) { // logged where it was
		body.Unreadable = true
		return nil
	}
	var unreadable *cargo.Problem
	if errors.As(err, &unreadable) { // as rules of another time or place let it in
		p.Log.Warn("a stored crate cannot be described", "cid", body.CID, "error", err)
		body.Unreadable = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("describe %s: %w", body.CID, err)
	}
	body.Crate = &d
	for _, l := range []namedURL{
		{"Homepage", d.Crate.Homepage, ""}, {"Repository", d.Crate.Repository, ""}, {"Documentation", d.Crate.Documentation, ""},
	} {
		if l.Text != "" {
			l.URL = webURL(l.Text)
			body.Links = append(body.Links, l)
		}
	}
	for name, enables := range d.Crate.Features {
		body.Features = append(body.Features, feature{name, enables})
	}
	slices.SortFunc(body.Features, func(a, b feature) int {
		if (a.Name == "default") != (b.Name == "default") {
			return map[bool]int{true: -1, false: 1}[a.Name == "default"]
		}
		return strings.Compare(a.Name, b.Name)
	})
	body.Groups = p.groups(d.Crate.Dependencies)
	return nil
}

// groups sorts dependencies by what they are for.
func (p *Pages) groups(all []cargo.Dependency) []dependencyGroup {
	own := p.Registry.Settings().IndexURLs
	var groups []dependencyGroup
	for _, g := range []struct{ kind, title string }{
		{cargo.KindNormal, "Dependencies"}, {cargo.KindBuild, "To build it"}, {cargo.KindDev, "To develop it"},
	} {
		group := dependencyGroup{Title: g.title}
		for _, d := range all {
			if d.Kind != g.kind {
				continue
			}
			shown := dependency{Dependency: d}
			switch {
			case slices.Contains(own, d.RegistryIndex):
				shown.Link = p.Link("artifacts", string(record.KindCrate), d.Package)
			case d.RegistryIndex == "":
				shown.Foreign = "crates.io"
			default:
				shown.Foreign = d.RegistryIndex
			}
			group.Dependencies = append(group.Dependencies, shown)
		}
		if len(group.Dependencies) > 0 {
			groups = append(groups, group)
		}
	}
	return groups
}

// download sends a version's bytes as a file: never as something to show.
func (p *Pages) download(w http.ResponseWriter, r *http.Request, v *visit) error {
	kind, err := kindIn(r)
	if err != nil {
		return err
	}
	version, err := p.Registry.Version(r.Context(), v.Asker, kind.Kind, param(r, "name"), param(r, "version"))
	if err != nil {
		return err
	}
	blob, err := p.Registry.OpenArtifact(r.Context(), version)
	if err != nil {
		return err
	}
	defer blob.Close()
	err = p.again(w, r, func(_ http.ResponseWriter, _ *http.Request, v *visit) error {
		version, err := p.Registry.Version(r.Context(), v.Asker, kind.Kind, version.Name, version.Version.Version)
		return cmp.Or(err, version.Refusal())
	})
	if err != nil {
		return err
	}
	p.noteDryRun(w, v, version)
	name := version.Name + "-" + version.Version.Version
	if kind.Kind == record.KindCrate {
		name += ".crate"
	}
	sendFile(w, name)
	http.ServeContent(w, r, "", time.Time{}, blob)
	return nil
}

// sendFile has a browser save what follows, as a file of that name, which needs no quoting.
func sendFile(w http.ResponseWriter, name string) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
	w.Header().Set("Content-Security-Policy", "default-src 'none'; sandbox; frame-ancestors 'none'")
}
