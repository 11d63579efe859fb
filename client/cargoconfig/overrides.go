package cargoconfig

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Override is something by which cargo builds from other code than Cargo.lock and
// the index say.
type Override struct {
	// Kind is OverridePatch and so on.
	Kind string
	// File is where it stands.
	File string
	// What is replaced, To what.
	What, To string
}

// Kinds of Override.
const (
	// OverridePatch is a [patch] or [replace], of a manifest or of the configuration.
	OverridePatch = "patch"
	// OverridePath is a dependency by a path that leads out of the workspace.
	OverridePath = "path dependency"
	// OverridePaths is the configuration's paths.
	OverridePaths = "paths"
	// OverrideSource is a source with a replace-with.
	OverrideSource = "source replacement"
	// OverrideStray is a package without a source that no manifest of the project is of.
	OverrideStray = "stray"
	// OverrideInclude is a configuration that takes in another file, which is not read here.
	OverrideInclude = "include"
)

// mostManifests bounds the manifests of a workspace that are read.
const mostManifests = 10_000

// Overrides lists the overrides of the project whose root is given, as cargo meets
// them when it is run in dir: of all manifests of the workspace, and of all
// configurations that cargo reads there. local are the names of the packages that
// Cargo.lock has without a source: one that no manifest met is of comes from a place
// that was not looked at. What --config says on a command line is nowhere to be found.
func Overrides(root, dir, cargoHome string, local ...string) ([]Override, error) {
	w := workspace{root: root, inside: map[string]bool{}, named: map[string]bool{}}
	if err := w.walk(); err != nil {
		return nil, err
	}
	w.strays(local)
	var decoded []map[string]any
	for _, folder := range folders(dir, cargoHome) {
		file, config, err := decodeAlone(folder) // that it includes others is a finding
		if err != nil {
			return nil, err
		}
		decoded = append(decoded, config)
		w.config(file, config)
	}
	for i := range w.found {
		if w.found[i].Kind == OverrideSource {
			w.found[i].To = sourceOf(decoded, w.found[i].To)
		}
	}
	return w.found, nil
}

// workspace is a walk over the manifests of a project.
type workspace struct {
	root   string
	inside map[string]bool // folders of its members
	named  map[string]bool // packages met: of manifests, and those that were found to come from elsewhere
	found  []Override
}

// strays notes the local packages that were not met.
func (w *workspace) strays(local []string) {
	for _, name := range local {
		if !w.named[name] {
			w.found = append(w.found, Override{Kind: OverrideStray, File: filepath.Join(w.root, "Cargo.toml"), What: name})
		}
	}
}

// nameOfPackage is what a manifest calls its package, "" where it has none.
func nameOfPackage(m map[string]any) string {
	for _, table := range []string{"package", "project"} { // the latter as of old
		if name, ok := lookup(m, table, "name"); ok {
			return fmt.Sprint(name)
		}
	}
	return ""
}

// walk reads the root's manifest, those of its members, and those that they lead
// to by paths within the root.
func (w *workspace) walk() error {
	queue := []string{w.root}
	for i := 0; i < len(queue); i++ {
		if i >= mostManifests {
			return fmt.Errorf("%s leads to more than %d manifests", w.root, mostManifests)
		}
		file := filepath.Join(queue[i], "Cargo.toml")
		_, raw, _, err := read(file)
		if err != nil {
			return err
		}
		var m map[string]any
		if err := toml.Unmarshal(raw, &m); err != nil {
			return fmt.Errorf("%s is not valid TOML: %w", file, err)
		}
		w.named[nameOfPackage(m)] = true
		if i == 0 {
			w.members(m)
			w.patches(file, m)
			queue = append(queue, slices.Sorted(maps.Keys(w.inside))...)
		}
		for _, folder := range w.dependencies(file, m) {
			if !slices.Contains(queue, folder) {
				queue = append(queue, folder)
			}
		}
	}
	return nil
}

// members notes the folders that workspace.members names, by patterns as cargo has them.
func (w *workspace) members(m map[string]any) {
	list, _ := lookup(m, "workspace", "members")
	patterns, _ := list.([]any)
	for _, p := range patterns {
		text, _ := p.(string)
		folders, err := filepath.Glob(filepath.Join(w.root, filepath.FromSlash(text)))
		if err != nil {
			continue // cargo itself will say so
		}
		for _, folder := range folders {
			if _, ok := readManifest(folder); ok && folder != w.root {
				w.inside[folder] = true
			}
		}
	}
}

// patches notes the [patch] and [replace] of a manifest, or of a configuration.
func (w *workspace) patches(file string, m map[string]any) {
	sources, _ := m["patch"].(map[string]any)
	for _, source := range slices.Sorted(maps.Keys(sources)) {
		w.replaced(file, sources[source])
	}
	w.replaced(file, m["replace"])
}

func (w *workspace) replaced(file string, table any) {
	crates, _ := table.(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(crates)) {
		w.named[packageOf(name, crates[name])] = true
		w.found = append(w.found, Override{Kind: OverridePatch, File: file, What: name, To: origin(crates[name])})
	}
}

// packageOf is the name of the package that a dependency called key is.
func packageOf(key string, dependency any) string {
	table, _ := dependency.(map[string]any)
	if renamed, ok := table["package"].(string); ok {
		return renamed
	}
	return key
}

// origin is where a dependency says that it comes from.
func origin(dependency any) string {
	table, _ := dependency.(map[string]any)
	for _, key := range []string{"path", "git", "registry", "registry-index"} {
		if text, ok := table[key].(string); ok {
			return key + " " + text
		}
	}
	if version, ok := table["version"].(string); ok {
		return "version " + version
	}
	return fmt.Sprint(dependency)
}

// dependencyKeys are the tables of dependencies, by both of their spellings.
var dependencyKeys = []string{"dependencies", "dev-dependencies", "dev_dependencies", "build-dependencies", "build_dependencies"}

// dependencies returns the folders that a manifest's dependencies lead to within
// the project, and notes those without.
func (w *workspace) dependencies(file string, m map[string]any) (within []string) {
	tables := []any{}
	add := func(in map[string]any) {
		for _, key := range dependencyKeys {
			tables = append(tables, in[key])
		}
	}
	add(m)
	if shared, ok := m["workspace"].(map[string]any); ok {
		tables = append(tables, shared["dependencies"])
	}
	targets, _ := m["target"].(map[string]any)
	for _, target := range slices.Sorted(maps.Keys(targets)) {
		if in, ok := targets[target].(map[string]any); ok {
			add(in)
		}
	}
	for _, t := range tables {
		table, _ := t.(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(table)) {
			dependency, _ := table[name].(map[string]any)
			path, ok := dependency["path"].(string)
			if !ok {
				continue
			}
			folder := filepath.FromSlash(path)
			if !filepath.IsAbs(folder) {
				folder = filepath.Join(filepath.Dir(file), folder)
			}
			if folder = filepath.Clean(folder); w.holds(folder) {
				within = append(within, folder)
				continue
			}
			w.named[packageOf(name, dependency)] = true
			w.found = append(w.found, Override{Kind: OverridePath, File: file, What: name, To: path})
		}
	}
	return within
}

// holds reports whether a folder lies in the project, or is one of its members,
// wherever links lead.
func (w *workspace) holds(folder string) bool {
	if w.inside[folder] {
		return true
	}
	real, err := filepath.EvalSymlinks(folder)
	root, failed := filepath.EvalSymlinks(w.root)
	if err != nil || failed != nil {
		return false
	}
	rest, err := filepath.Rel(root, real)
	return err == nil && rest != ".." && !strings.HasPrefix(rest, ".."+string(filepath.Separator)) && isManifest(folder)
}

func isManifest(folder string) bool {
	_, ok := readManifest(folder)
	return ok
}

// config notes what a configuration replaces.
func (w *workspace) config(file string, config map[string]any) {
	w.patches(file, map[string]any{"patch": config["patch"]})
	if paths, ok := config["paths"].([]any); ok {
		for _, path := range paths {
			w.found = append(w.found, Override{Kind: OverridePaths, File: file, To: fmt.Sprint(path)})
		}
	}
	if include, ok := config["include"]; ok {
		w.found = append(w.found, Override{Kind: OverrideInclude, File: file, To: fmt.Sprint(include)})
	}
	sources, _ := config["source"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		if _, ok := lookup(sources, name, "replace-with"); ok || name == cratesIO && isPlaced(sources[name]) {
			w.found = append(w.found, Override{Kind: OverrideSource, File: file, What: name, To: name})
		}
	}
}

// cratesIO is what a configuration calls crates.io, which has a place of its own
// already: to give it another one replaces it.
const cratesIO = "crates-io"

// placeKeys are how a source says where it is.
var placeKeys = []string{"registry", "directory", "local-registry", "git"}

func isPlaced(source any) bool {
	table, _ := source.(map[string]any)
	return slices.ContainsFunc(placeKeys, func(key string) bool { return table[key] != nil })
}

// mostReplaced bounds a chain of sources that replace one another.
const mostReplaced = 16

// sourceOf is where a source of that name is, by the first configuration that says
// so, or by the last of those that it is itself replaced with: the URL of a
// registry, otherwise its kind and place. A registry's name stands for its index
// where no configuration at all has a source of that name: cargo's own order.
func sourceOf(configs []map[string]any, name string) string {
	for range mostReplaced {
		next := ""
		for _, config := range configs {
			if with, ok := lookup(config, "source", name, "replace-with"); ok {
				next = fmt.Sprint(with)
				break
			}
		}
		if next == "" {
			break
		}
		name = next
	}
	for _, config := range configs {
		for _, key := range placeKeys {
			value, ok := lookup(config, "source", name, key)
			if text, isText := value.(string); ok && isText {
				if key != "registry" {
					text = key + " " + text
				}
				return text
			}
		}
	}
	for _, config := range configs {
		if index, ok := lookup(config, "registries", name, "index"); ok {
			return fmt.Sprint(index)
		}
	}
	return name
}
