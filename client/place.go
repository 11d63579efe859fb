package client

import (
	"net/url"
	"slices"
	"strings"

	"phoenix-lab.org/aln-registry/registry/particle"
)

// Place is where cargo takes a package from, by the source that its lock names.
type Place struct {
	// Kind is PlaceHosted and so on.
	Kind string
	// Mirror is the mirror's name, Upstream that of an upstream other than crates.io.
	Mirror, Upstream string
	// Base is the URL of the index without a slash at the end; "" where it has none of ours.
	Base string
}

// Kinds of Place.
const (
	// PlaceProject: the project itself, or a path.
	PlaceProject = "project"
	PlaceHosted  = "hosted"
	// PlaceProxied is crates.io through this registry, PlaceCratesIO crates.io itself.
	PlaceProxied  = "crates-io through the registry"
	PlaceCratesIO = "crates-io"
	PlaceMirror   = "mirror"
	// PlaceUpstream: another registry through this one.
	PlaceUpstream = "upstream"
	PlaceGit      = "git"
	PlaceForeign  = "foreign"
)

// cratesIO are the sources by which a lock names crates.io.
var cratesIO = []string{
	"registry+https://github.com/rust-lang/crates.io-index", "sparse+https://index.crates.io/",
}

// Source is the place as decisions name it, "" where nobody decides.
func (p Place) Source() string {
	switch p.Kind {
	case PlaceHosted:
		return particle.SourceHosted
	case PlaceProxied, PlaceCratesIO:
		return particle.SourceCratesIO
	case PlaceMirror:
		return "mirror/" + p.Mirror
	case PlaceUpstream:
		return particle.UpstreamSource(p.Upstream)
	}
	return ""
}

// PlaceOf says what a lock's source is to a registry that is reached at the base
// URLs given, or was called by them.
func PlaceOf(source string, bases []string) Place {
	switch {
	case source == "":
		return Place{Kind: PlaceProject}
	case strings.HasPrefix(source, "git+"):
		return Place{Kind: PlaceGit}
	case slices.Contains(cratesIO, source):
		return Place{Kind: PlaceCratesIO}
	}
	text, sparse := strings.CutPrefix(source, "sparse+")
	index, err := ParseURL(text)
	if err != nil || !sparse {
		return Place{Kind: PlaceForeign}
	}
	for _, base := range bases {
		rest, under := strings.CutPrefix(index, base)
		upstream, proxied := strings.CutPrefix(rest, "/upstream/")
		switch name, mirror := strings.CutPrefix(rest, "/mirror/"); {
		case !under:
		case rest == "" || rest == "/public":
			return Place{Kind: PlaceHosted, Base: index + "/index"}
		case rest == "/crates-io":
			return Place{Kind: PlaceProxied, Base: index + "/index"}
		case proxied && upstream != "" && !strings.Contains(upstream, "/"):
			return Place{Kind: PlaceUpstream, Upstream: upstream, Base: index + "/index"}
		case mirror && name != "" && !strings.Contains(name, "/"):
			return Place{Kind: PlaceMirror, Mirror: name, Base: index + "/index"}
		}
	}
	return Place{Kind: PlaceForeign}
}

// Endpoint is a host that a build asks, and how.
type Endpoint struct {
	// Protocols are the URL's scheme, and sparse or git for what is spoken over it.
	Protocols []string
	// Host is host:port, without the port where it is the scheme's own.
	Host string
	// Why says what for.
	Why string
}

// allowed reports whether a list of endpoints names e: by host, which means the
// scheme's own port, or by host and port.
func (e Endpoint) allowed(endpoints []string) bool {
	return slices.ContainsFunc(endpoints, func(allowed string) bool {
		allowed = strings.ToLower(allowed)
		return allowed == e.Host || allowed == e.Host+":443" && slices.Contains(e.Protocols, "https") || allowed == e.Host+":80" && slices.Contains(e.Protocols, "http")
	})
}

// EndpointOf is the host of a URL as a lock or an index's config.json spells it;
// false where there is none in it.
func EndpointOf(text, why string) (Endpoint, bool) {
	e := Endpoint{Why: why}
	for _, over := range []string{"sparse", "git", "registry"} {
		rest, is := strings.CutPrefix(text, over+"+")
		if !is {
			continue
		}
		if text = rest; over == "registry" { // an index kept in git
			over = "git"
		}
		e.Protocols = append(e.Protocols, over)
	}
	if at := strings.IndexAny(text, "{?#"); at >= 0 { // markers of a download's URL
		text = text[:at]
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return Endpoint{}, false
	}
	e.Host = canonicalHost(u)
	e.Protocols = append(e.Protocols, strings.ToLower(u.Scheme))
	return e, true
}

// EndpointOfBase is the host at which a registry's base URL is asked.
func EndpointOfBase(base string) string {
	e, _ := EndpointOf(base, "")
	return e.Host
}

// cratesIOEndpoints are the hosts of crates.io's index and downloads.
func cratesIOEndpoints() []Endpoint {
	return []Endpoint{
		{Protocols: []string{"sparse", "https"}, Host: "index.crates.io", Why: "the index of crates.io"},
		{Protocols: []string{"https"}, Host: "static.crates.io", Why: "downloads of crates.io"},
	}
}

// CratesIOURL is how cargo calls crates.io through the registry with that base URL,
// UpstreamURL another of its upstreams.
func CratesIOURL(base string) string { return IndexURL(base + "/crates-io") }

// UpstreamURL is CratesIOURL of the upstream called name.
func UpstreamURL(base, name string) string {
	if name == particle.SourceCratesIO {
		return CratesIOURL(base)
	}
	return IndexURL(base + "/upstream/" + name)
}

// behind is the base URL of the registry that an index of crates.io, or of another upstream,
// is reached through; false where it looks like none of those.
func behind(index string) (string, bool) {
	base, err := ParseURL(index)
	if err != nil {
		return "", false
	}
	if at, ok := strings.CutSuffix(base, "/crates-io"); ok {
		return at, true
	}
	at := strings.LastIndex(base, "/upstream/")
	if at < 0 || strings.Contains(base[at+len("/upstream/"):], "/") {
		return "", false
	}
	return base[:at], true
}
