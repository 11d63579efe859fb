package testbed

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// IndexLine is a version's line in a crate's file of a sparse index.
type IndexLine struct {
	Name        string              `json:"name"`
	Vers        string              `json:"vers"`
	Deps        []IndexDep          `json:"deps"`
	Cksum       string              `json:"cksum"`
	Features    map[string][]string `json:"features"`
	Features2   map[string][]string `json:"features2,omitempty"`
	Yanked      bool                `json:"yanked"`
	Links       string              `json:"links,omitempty"`
	RustVersion string              `json:"rust_version,omitempty"`
	Pubtime     string              `json:"pubtime,omitempty"`
	V           int                 `json:"v,omitempty"`
}

// IndexDep is a dependency in it.
type IndexDep struct {
	Name            string   `json:"name"`
	Req             string   `json:"req"`
	Features        []string `json:"features"`
	Optional        bool     `json:"optional"`
	DefaultFeatures bool     `json:"default_features"`
	Target          *string  `json:"target"`
	Kind            string   `json:"kind"`
	Package         string   `json:"package,omitempty"`
}

// Marshal is the line with its end.
func (l IndexLine) Marshal() []byte {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(l); err != nil {
		panic(err) // strings, numbers and lists of them
	}
	return out.Bytes()
}

// IndexPath is where an index has the file of a crate.
func IndexPath(name string) string {
	name = strings.ToLower(name)
	switch len(name) {
	case 1, 2:
		return fmt.Sprintf("%d/%s", len(name), name)
	case 3:
		return "3/" + name[:1] + "/" + name
	}
	return name[:2] + "/" + name[2:4] + "/" + name
}

// manifest is what an index says of a Cargo.toml, as Cargo writes them into crates.
type manifest struct {
	Package struct {
		Name, Version, Links string
		RustVersion          string `toml:"rust-version"`
		Build                any
	}
	Lib struct {
		ProcMacro  bool `toml:"proc-macro"`
		ProcMacro2 bool `toml:"proc_macro"`
	}
	Features map[string][]string
	kinds
	Target map[string]kinds
}

type kinds struct {
	Normal map[string]any `toml:"dependencies"`
	Build  map[string]any `toml:"build-dependencies"`
	Build2 map[string]any `toml:"build_dependencies"`
	Dev    map[string]any `toml:"dev-dependencies"`
	Dev2   map[string]any `toml:"dev_dependencies"`
}

// pubtimeLayout is how indexes write times, in UTC.
const pubtimeLayout = "2006-01-02T15:04:05Z"

// describe is what a manifest makes of a crate that was published at a time.
func describe(text []byte, published time.Time) (Crate, error) {
	var m manifest
	if err := toml.Unmarshal(text, &m); err != nil {
		return Crate{}, err
	}
	line := IndexLine{
		Name: m.Package.Name, Vers: m.Package.Version, Links: m.Package.Links, RustVersion: m.Package.RustVersion,
		Pubtime: published.UTC().Format(pubtimeLayout), Deps: []IndexDep{}, Features: map[string][]string{},
	}
	if line.Name == "" || line.Vers == "" {
		return Crate{}, fmt.Errorf("a manifest without name or version")
	}
	deps, err := m.kinds.deps(nil)
	if err != nil {
		return Crate{}, err
	}
	line.Deps = append(line.Deps, deps...)
	for _, target := range slices.Sorted(maps.Keys(m.Target)) {
		written := targetText(target)
		deps, err := m.Target[target].deps(&written)
		if err != nil {
			return Crate{}, err
		}
		line.Deps = append(line.Deps, deps...)
	}
	slices.SortStableFunc(line.Deps, func(a, b IndexDep) int { return cmp.Compare(a.Name, b.Name) })
	line.splitFeatures(m.Features)
	script, hasScript := m.Package.Build.(string)
	return Crate{Line: line, ProcMacro: m.Lib.ProcMacro || m.Lib.ProcMacro2, BuildScript: hasScript && script != ""}, nil
}

// splitFeatures: what older Cargos do not understand is kept where they do not look.
func (l *IndexLine) splitFeatures(features map[string][]string) {
	for name, values := range features {
		values = append([]string{}, values...) // no null
		if slices.ContainsFunc(values, func(v string) bool { return strings.HasPrefix(v, "dep:") || strings.Contains(v, "?/") }) {
			if l.Features2 == nil {
				l.Features2, l.V = map[string][]string{}, 2
			}
			l.Features2[name] = values
			continue
		}
		l.Features[name] = values
	}
}

// deps lists the tables of dependencies for a target.
func (k kinds) deps(target *string) ([]IndexDep, error) {
	var list []IndexDep
	for _, table := range []struct {
		kind string
		deps []map[string]any
	}{{"normal", []map[string]any{k.Normal}}, {"build", []map[string]any{k.Build, k.Build2}}, {"dev", []map[string]any{k.Dev, k.Dev2}}} {
		for _, deps := range table.deps {
			for _, name := range slices.Sorted(maps.Keys(deps)) {
				d := IndexDep{Name: name, Kind: table.kind, Target: target, DefaultFeatures: true, Features: []string{}}
				if err := d.read(deps[name]); err != nil {
					return nil, fmt.Errorf("dependency %s: %w", name, err)
				}
				list = append(list, d)
			}
		}
	}
	return list, nil
}

func (d *IndexDep) read(entry any) error {
	req := "*"
	switch entry := entry.(type) {
	case string:
		req = entry
	case map[string]any:
		for key, value := range entry {
			switch value := value.(type) {
			case string:
				switch key {
				case "version":
					req = value
				case "package":
					d.Package = value
				default:
					return fmt.Errorf("it has the key %s", key)
				}
			case bool:
				switch key {
				case "optional":
					d.Optional = value
				case "default-features", "default_features":
					d.DefaultFeatures = value
				}
			case []any:
				for _, feature := range value {
					d.Features = append(d.Features, fmt.Sprint(feature))
				}
			}
		}
	default:
		return fmt.Errorf("it is %v", entry)
	}
	d.Req = requirement(req)
	return nil
}

// requirement is a requirement as Cargo writes it into indexes.
func requirement(req string) string {
	var parts []string
	for part := range strings.SplitSeq(req, ",") {
		part = strings.Join(strings.Fields(part), "")
		if part == "" {
			continue
		}
		if part[0] >= '0' && part[0] <= '9' && !strings.ContainsAny(part, "*xX") {
			part = "^" + part
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

// targetText is a target as Cargo writes it into indexes: cfg() with its own spaces.
func targetText(target string) string {
	if !strings.HasPrefix(target, "cfg(") {
		return target
	}
	var out strings.Builder
	quoted := false
	for _, r := range target {
		switch {
		case r == '"':
			quoted = !quoted
			out.WriteRune(r)
		case quoted:
			out.WriteRune(r)
		case r == '=':
			out.WriteString(" = ")
		case r == ',':
			out.WriteString(", ")
		case r != ' ':
			out.WriteRune(r)
		}
	}
	return out.String()
}

// autoBuild reports whether Cargo takes a build.rs that the manifest does not name.
func autoBuild(text []byte) bool {
	var m manifest
	if err := toml.Unmarshal(text, &m); err != nil {
		return false
	}
	off, said := m.Package.Build.(bool)
	return !said || off
}

func compareCrates(a, b Crate) int {
	return cmp.Or(cmp.Compare(a.Line.Name, b.Line.Name), compareVersions(a.Line.Vers, b.Line.Vers))
}

// compareVersions is Semantic Versioning's order, with pre-releases by their text.
func compareVersions(a, b string) int {
	a, _, _ = strings.Cut(a, "+")
	b, _, _ = strings.Cut(b, "+")
	a, preA, _ := strings.Cut(a, "-")
	b, preB, _ := strings.Cut(b, "-")
	if order := slices.CompareFunc(strings.Split(a, "."), strings.Split(b, "."), compareNumbers); order != 0 {
		return order
	}
	if (preA == "") != (preB == "") {
		return cmp.Compare(preB, preA) // the release is the later one
	}
	return cmp.Compare(preA, preB)
}

func compareNumbers(a, b string) int {
	x, _ := strconv.Atoi(a)
	y, _ := strconv.Atoi(b)
	return cmp.Compare(x, y)
}
