package cargo

import (
	"encoding/hex"
	"slices"
	"strings"
	"time"
)

const (
	cratesIO       = "https://github.com/rust-lang/crates.io-index"
	cratesIOSparse = "sparse+https://index.crates.io/"
)

// Dependency is one dependency as the manifest declares it.
type Dependency struct {
	Name            string // the key in the manifest: the crate's name, or what it is renamed to
	Package         string // the crate's real name
	Req             Req
	Features        []string
	Optional        bool
	DefaultFeatures bool
	Kind            string // KindNormal, KindDev or KindBuild
	Target          string // a triple or cfg(…); "" for all
	RegistryIndex   string // URL of the index it comes from; "" for crates.io
}

// dependencies reads all tables of dependencies, in the order of an index line.
func dependencies(root table) ([]Dependency, error) {
	list, err := dependencyTables(root, "")
	if err != nil {
		return nil, err
	}
	targets, err := root.sub("target")
	if err != nil {
		return nil, err
	}
	for _, target := range targets.keys() {
		t, err := targets.sub(target)
		if err != nil {
			return nil, err
		}
		if !isTarget(target) {
			return nil, problem(ErrManifest, CodeDependency, "Cargo.toml: %s is neither a target triple nor a cfg(…) that Cargo can read", quote(target))
		}
		more, err := dependencyTables(t, target)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

func dependencyTables(t table, target string) ([]Dependency, error) {
	var list []Dependency
	for _, kind := range []struct{ key, kind string }{
		{"dependencies", KindNormal}, {"dev-dependencies", KindDev}, {"build-dependencies", KindBuild},
	} {
		key, err := t.either(kind.key)
		if err != nil {
			return nil, err
		}
		deps, err := t.sub(key)
		if err != nil {
			return nil, err
		}
		for _, name := range deps.keys() {
			d, err := dependency(deps, name)
			if err != nil {
				return nil, err
			}
			d.Kind, d.Target = kind.kind, target
			if d.Optional && d.Kind == KindDev {
				return nil, badDependency(name, "is a dev-dependency and so cannot be optional")
			}
			list = append(list, d)
		}
	}
	return list, nil
}

func badDependency(name, what string) error {
	return problem(ErrManifest, CodeDependency, "dependency %s %s", quote(name), what)
}

// dependency reads one entry: a requirement, or a table.
func dependency(deps table, name string) (Dependency, error) {
	d := Dependency{Name: name, Package: name, Features: []string{}, DefaultFeatures: true}
	if !isIdent(name, true) {
		return d, badDependency(name, "has a name that Cargo does not allow")
	}
	if req, ok := deps.values[name].(string); ok {
		return d, d.finish(req)
	}
	t, err := deps.sub(name)
	if err != nil {
		return d, err
	}
	if err := notPackaged(t, name); err != nil {
		return d, err
	}
	req, err := d.read(t)
	if err != nil {
		return d, err
	}
	return d, d.finish(req)
}

// notPackaged refuses what stands in a manifest before packaging only, or what
// an index cannot express.
func notPackaged(t table, name string) error {
	for _, refusal := range []struct{ key, what string }{
		{"workspace", "is inherited from a workspace; build the crate with `cargo package`, which writes it out"},
		{"artifact", "is an artifact dependency, which is unstable in Cargo and not supported here; depend on the crate's library instead"},
		{"registry", "names its registry by a nickname; build the crate with `cargo package`, which writes the registry's URL as registry-index"},
	} {
		if _, ok := t.values[refusal.key]; ok {
			return badDependency(name, refusal.what)
		}
	}
	_, versioned := t.values["version"]
	for _, key := range []string{"path", "git"} {
		switch _, ok := t.values[key]; {
		case ok && versioned: // cargo would read another source from the manifest than from the index
			return badDependency(name, "has a "+key+" beside its version; build the crate with `cargo package`, which leaves it out")
		case ok:
			return badDependency(name, "has a "+key+" but no version; add the version under which a registry has it")
		}
	}
	if !versioned {
		return badDependency(name, "has no version; add one")
	}
	return nil
}

// read fills d from a dependency's table and returns its requirement.
func (d *Dependency) read(t table) (req string, err error) {
	if req, err = t.str("version"); err != nil {
		return "", err
	}
	if real, ok, err := lookup[string](t, "package", "a string"); err != nil {
		return "", err
	} else if ok {
		d.Package = real
	}
	if d.Features, err = t.strs("features"); err != nil {
		return "", err
	}
	if d.Optional, _, err = lookup[bool](t, "optional", "true or false"); err != nil {
		return "", err
	}
	key, err := t.either("default-features")
	if err != nil {
		return "", err
	}
	if enabled, ok, err := lookup[bool](t, key, "true or false"); err != nil {
		return "", err
	} else if ok {
		d.DefaultFeatures = enabled
	}
	if d.RegistryIndex, err = t.str("registry-index"); err != nil {
		return "", err
	}
	if _, ok := t.values["registry-index"]; ok && d.RegistryIndex == "" {
		return "", badDependency(d.Name, "has an empty registry-index; leave it out for a crate of crates.io")
	}
	return req, nil
}

// finish checks what both forms of a dependency have in common.
func (d *Dependency) finish(req string) (err error) {
	if err := ValidateName(d.Package); err != nil {
		return &Problem{Kind: ErrManifest, Code: CodeDependency, Text: "dependency " + quote(d.Name) + ": " + err.Error()}
	}
	if d.Req, err = ParseReq(req); err != nil {
		return &Problem{Kind: ErrManifest, Code: CodeDependency, Text: "dependency " + quote(d.Name) + ": " + err.Error()}
	}
	for _, f := range d.Features {
		if f == "" || strings.Contains(f, "/") || strings.HasPrefix(f, "dep:") {
			return badDependency(d.Name, "enables "+quote(f)+", which is not the name of a feature")
		}
	}
	if len(d.RegistryIndex) > 1024 || strings.ContainsFunc(d.RegistryIndex, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return badDependency(d.Name, "has a registry-index that is not a URL")
	}
	return nil
}

// IndexSettings says which registries dependencies may come from; the
// registry's settings in force when the crate was published.
type IndexSettings struct {
	IndexURLs            []string // this registry's own, as in `sparse+https://host/index/`
	DependencyRegistries []string // others whose crates may be depended on
}

// registry is what an index line says: nil for this registry. URLs are compared
// as written, but for a final "/", which cargo adds where it is missing.
func (s IndexSettings) registry(d Dependency) (*string, error) {
	same := func(url string) bool { return trimSlash(url) == trimSlash(d.RegistryIndex) }
	upstream := cratesIO
	switch {
	case d.RegistryIndex == "":
		return &upstream, nil
	case slices.ContainsFunc(s.IndexURLs, same):
		return nil, nil
	case same(cratesIO), same("registry+" + cratesIO), same(cratesIOSparse):
		return &upstream, nil
	case slices.ContainsFunc(s.DependencyRegistries, same):
		return &d.RegistryIndex, nil
	}
	return nil, &ForeignRegistry{Dependency: d.Name, URL: d.RegistryIndex}
}

func trimSlash(url string) string { return strings.TrimSuffix(url, "/") }

// checkLine tells, before time and checksum are known, whether Line will make
// the crate's index line under the settings s; its errors are Line's.
func (c *Crate) checkLine(s IndexSettings) error {
	_, err := c.Line([32]byte{}, time.Unix(0, 0), false, s)
	return err
}

// Line makes the crate's index line: a function of the .crate, its sha256, the
// entry's time, yanked and the settings alone (FORMATS §3). Whether it can be
// made depends on the crate and the settings alone. It refuses a dependency on
// a registry that s does not allow (*ForeignRegistry), one of the crate on
// itself (ErrManifest), and a line longer than MaxLineBytes (ErrTooLarge).
func (c *Crate) Line(cksum [32]byte, pubtime time.Time, yanked bool, s IndexSettings) (Line, error) {
	deps := make([]Dep, 0, len(c.Dependencies))
	for _, d := range c.Dependencies {
		registry, err := s.registry(d)
		if err != nil {
			return Line{}, err
		}
		if registry == nil && c.needsItself(d) {
			return Line{}, badDependency(d.Name, "is this very version of the crate itself, so nobody could build it; require another version, or make it a dev-dependency")
		}
		deps = append(deps, d.dep(registry))
	}
	l := Line{
		Name: c.Name, Vers: c.Version.String(), Deps: deps, Cksum: hex.EncodeToString(cksum[:]), Yanked: yanked,
		Links: orNil(c.Links), RustVersion: orNil(c.RustVersion), Pubtime: pubtime.UTC().Format(timeLayout), V: 1,
	}
	if l.Features, l.Features2 = splitFeatures(c.Features); l.Features2 != nil {
		l.V = 2
	}
	return l, l.checkLength()
}

// needsItself: d, of this registry, asks for c. That c asks for another version
// of itself is common: an old one that re-exports its successor.
func (c *Crate) needsItself(d Dependency) bool {
	return d.Kind != KindDev && CanonicalName(d.Package) == CanonicalName(c.Name) && d.Req.Matches(c.Version)
}

// dep is d as an index line has it.
func (d Dependency) dep(registry *string) Dep {
	dep := Dep{
		Name: d.Name, Req: d.Req.String(), Features: d.Features, Optional: d.Optional,
		DefaultFeatures: d.DefaultFeatures, Target: orNil(d.Target), Kind: d.Kind, Registry: registry,
	}
	if d.Package != d.Name {
		dep.Package = orNil(d.Package)
	}
	return dep
}

// orNil is null for an absent value.
func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
