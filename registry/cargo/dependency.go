package cargo

import (
	"encoding/hex"
	"slices"
	"strings"
	"time"
	"unicode"
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
			return nil, problem(ErrManifest, CodeDependency, "Cargo.toml: %s is neither a target triple nor cfg(…)", quote(target))
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

// isTarget checks a target for the form only; what cargo cannot evaluate never matches.
func isTarget(s string) bool {
	if len(s) > 1024 || strings.ContainsFunc(s, unicode.IsControl) {
		return false
	}
	if strings.HasPrefix(s, "cfg(") {
		return strings.HasSuffix(s, ")") && strings.Count(s, "(") == strings.Count(s, ")") && strings.Count(s, `"`)%2 == 0
	}
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_.", r)
	})
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
	if _, ok := t.values["version"]; ok {
		return nil
	}
	for _, key := range []string{"path", "git"} {
		if _, ok := t.values[key]; ok {
			return badDependency(name, "has a "+key+" but no version; add the version under which a registry has it")
		}
	}
	return badDependency(name, "has no version; add one")
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
	d.RegistryIndex, err = t.str("registry-index")
	return req, err
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

// CheckDependencies refuses, with a *ForeignRegistry, a crate that depends on a
// registry which s does not allow.
func (c *Crate) CheckDependencies(s IndexSettings) error {
	for _, d := range c.Dependencies {
		if _, err := s.registry(d); err != nil {
			return err
		}
	}
	return nil
}

// Line makes the crate's index line: a function of the .crate, its sha256, the
// entry's time, yanked and the settings alone (FORMATS §3).
func (c *Crate) Line(cksum [32]byte, pubtime time.Time, yanked bool, s IndexSettings) (Line, error) {
	deps := make([]Dep, 0, len(c.Dependencies))
	for _, d := range c.Dependencies {
		registry, err := s.registry(d)
		if err != nil {
			return Line{}, err
		}
		deps = append(deps, Dep{
			Name: d.Name, Req: d.Req.String(), Features: d.Features, Optional: d.Optional,
			DefaultFeatures: d.DefaultFeatures, Target: orNil(d.Target), Kind: d.Kind, Registry: registry,
		})
		if d.Package != d.Name {
			deps[len(deps)-1].Package = orNil(d.Package)
		}
	}
	l := Line{
		Name: c.Name, Vers: c.Version.String(), Deps: deps, Cksum: hex.EncodeToString(cksum[:]), Yanked: yanked,
		Links: orNil(c.Links), RustVersion: orNil(c.RustVersion), Pubtime: pubtime.UTC().Format(timeLayout), V: 1,
	}
	if l.Features, l.Features2 = splitFeatures(c.Features); l.Features2 != nil {
		l.V = 2
	}
	return l, nil
}

// orNil is null for an absent value.
func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
