package integration

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"phoenix-lab.org/aln-registry/registry/cargo"
)

// debianSources is where Debian's librust-*-dev packages put their crates.
const debianSources = "/usr/share/cargo/registry"

// source is a real crate, copied to a folder of its own so that it can be
// published: what Debian has of it, its manifest cut to the crates of the set.
type source struct {
	name, version, folder string
	manifest              map[string]any
}

// debianCrates copies the named crates below folder, installing what is missing.
func debianCrates(t *testing.T, folder string, names []string) map[string]*source {
	t.Helper()
	set := map[string]*source{}
	for name, original := range installedCrates(t, names) {
		set[name] = copySource(t, original, filepath.Join(folder, filepath.Base(original)))
	}
	if err := cutToSet(set); err != nil {
		t.Fatal(err)
	}
	for _, s := range set {
		s.write(t)
	}
	return set
}

// installedCrates are the folders of the named crates, installed where they are missing.
func installedCrates(t *testing.T, names []string) map[string]string {
	t.Helper()
	if missing := absentCrates(names); len(missing) > 0 {
		if out, err := exec.Command("testbed/crates.sh", missing...).CombinedOutput(); err != nil {
			t.Fatalf("the sources of real crates are needed for this test: %v\n%s", err, out)
		}
	}
	folders := map[string]string{}
	for _, name := range names {
		if folders[name] = debianFolder(name); folders[name] == "" {
			t.Fatalf("%s does not have %s, though its package is installed", debianSources, name)
		}
	}
	return folders
}

// absentCrates are the packages of the crates that are not installed.
func absentCrates(names []string) []string {
	var packages []string
	for _, name := range names {
		if debianFolder(name) == "" {
			packages = append(packages, "librust-"+strings.ReplaceAll(name, "_", "-")+"-dev")
		}
	}
	return packages
}

// debianFolder is the newest version of a crate that Debian has, "" for none.
func debianFolder(name string) string {
	found, _ := filepath.Glob(filepath.Join(debianSources, name+"-*"))
	best, newest := "", cargo.Version{}
	for _, folder := range found {
		v, err := cargo.ParseVersion(strings.TrimPrefix(filepath.Base(folder), name+"-"))
		if err == nil && (best == "" || v.Compare(newest) > 0) {
			best, newest = folder, v
		}
	}
	return best
}

// copySource copies one crate as its author packaged it, without what Debian added.
func copySource(t *testing.T, from, to string) *source {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-RL", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v\n%s", from, err, out)
	}
	for _, added := range []string{".cargo-checksum.json", "debian"} {
		if err := os.RemoveAll(filepath.Join(to, added)); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(filepath.Join(to, "Cargo.toml"))
	if err != nil {
		t.Fatal(err)
	}
	s := &source{folder: to}
	if err := toml.Unmarshal(raw, &s.manifest); err != nil {
		t.Fatalf("%s: %v", from, err)
	}
	pkg, _ := s.manifest["package"].(map[string]any)
	s.name, _ = pkg["name"].(string)
	s.version, _ = pkg["version"].(string)
	if filepath.Base(from) != s.name+"-"+s.version {
		t.Fatalf("%s says that it is %s %s", from, s.name, s.version)
	}
	return s
}

func (s *source) write(t *testing.T) {
	t.Helper()
	raw, err := toml.Marshal(s.manifest)
	if err != nil {
		t.Fatal(err)
	}
	writeFiles(t, s.folder, map[string]string{"Cargo.toml": string(raw)})
}

// dependencyOf is one entry of a manifest's tables of dependencies, in place.
type dependencyOf struct {
	table    map[string]any // the table that holds it
	key      string
	real     string // the crate's name, whatever it is renamed to
	optional bool
	features []string
}

// dependencies lists what s depends on to be built.
func (s *source) dependencies() []dependencyOf {
	var list []dependencyOf
	for _, t := range s.tables() {
		for _, kind := range []string{"dependencies", "build-dependencies"} {
			table, _ := t[kind].(map[string]any)
			for _, key := range slices.Sorted(maps.Keys(table)) {
				d := dependencyOf{table: table, key: key, real: key}
				entry, _ := table[key].(map[string]any)
				if real, ok := entry["package"].(string); ok {
					d.real = real
				}
				d.optional, _ = entry["optional"].(bool)
				d.features = texts(entry["features"])
				list = append(list, d)
			}
		}
	}
	return list
}

// tables are the places in a manifest that hold tables of dependencies.
func (s *source) tables() []map[string]any {
	tables := []map[string]any{s.manifest}
	targets, _ := s.manifest["target"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(targets)) {
		if t, ok := targets[name].(map[string]any); ok {
			tables = append(tables, t)
		}
	}
	return tables
}

func texts(v any) []string {
	var list []string
	values, _ := v.([]any)
	for _, value := range values {
		text, _ := value.(string)
		list = append(list, text)
	}
	return list
}

// cutToSet makes the manifests refer to crates of the set alone, through the
// registry aln. Dev-dependencies go; so do optional dependencies on crates
// outside of the set or on features that went, and with them, until nothing
// more changes, every feature that needs one of these. A dependency that is
// not optional cannot be cut: the set lacks a crate then.
func cutToSet(set map[string]*source) error {
	for _, s := range set {
		for _, t := range s.tables() {
			delete(t, "dev-dependencies")
		}
	}
	for changed := true; changed; {
		changed = false
		for _, name := range slices.Sorted(maps.Keys(set)) {
			dependencies, err := set[name].cutDependencies(set)
			if err != nil {
				return err
			}
			features := set[name].cutFeatures(set)
			changed = changed || dependencies || features
		}
	}
	for _, s := range set {
		for _, d := range s.dependencies() {
			if req, ok := d.table[d.key].(string); ok {
				d.table[d.key] = map[string]any{"version": req}
			}
			d.table[d.key].(map[string]any)["registry"] = "aln"
		}
	}
	return nil
}

func (s *source) cutDependencies(set map[string]*source) (changed bool, err error) {
	for _, d := range s.dependencies() {
		crate, there := set[d.real]
		if there && !slices.ContainsFunc(d.features, func(f string) bool { return !crate.hasFeature(f) }) {
			continue
		}
		if !d.optional {
			return false, fmt.Errorf("%s %s needs %s (features %v), which the set does not have", s.name, s.version, d.real, d.features)
		}
		delete(d.table, d.key)
		changed = true
	}
	return changed, nil
}

func (s *source) cutFeatures(set map[string]*source) (changed bool) {
	features, _ := s.manifest["features"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(features)) {
		values, _ := features[name].([]any)
		kept := slices.DeleteFunc(slices.Clone(values), func(v any) bool { // weak ones ask for nothing
			return strings.Contains(v.(string), "?/") && !s.satisfies(v.(string), set)
		})
		if changed = changed || len(kept) < len(values); len(kept) < len(values) {
			features[name] = kept
		}
		if slices.ContainsFunc(kept, func(v any) bool { return !s.satisfies(v.(string), set) }) {
			delete(features, name)
			changed = true
		}
	}
	return changed
}

// satisfies reports whether everything that one value of a feature names is there.
func (s *source) satisfies(value string, set map[string]*source) bool {
	key, feature, ofDependency := strings.Cut(value, "/")
	key = strings.TrimSuffix(key, "?")
	if name, ok := strings.CutPrefix(key, "dep:"); ok {
		return s.dependsOn(name)
	}
	if !ofDependency {
		return s.hasFeature(value)
	}
	return s.dependsOn(key) && !slices.ContainsFunc(s.dependencies(), func(d dependencyOf) bool {
		return d.key == key && !set[d.real].hasFeature(feature)
	})
}

func (s *source) dependsOn(key string) bool {
	return slices.ContainsFunc(s.dependencies(), func(d dependencyOf) bool { return d.key == key })
}

// hasFeature: features of the table, and those that optional dependencies imply.
func (s *source) hasFeature(name string) bool {
	features, _ := s.manifest["features"].(map[string]any)
	if _, ok := features[name]; ok {
		return true
	}
	for _, values := range features {
		if slices.Contains(texts(values), "dep:"+name) {
			return false
		}
	}
	return slices.ContainsFunc(s.dependencies(), func(d dependencyOf) bool { return d.key == name && d.optional })
}

// publishOrder puts every crate behind those that it depends on, optional ones
// included: cargo looks them all up before it publishes.
func publishOrder(set map[string]*source) ([]*source, error) {
	var order []*source
	const visiting, done = 1, 2
	seen := map[string]int{}
	var visit func(s *source) error
	visit = func(s *source) error {
		switch seen[s.name] {
		case visiting:
			return fmt.Errorf("%s depends on itself", s.name)
		case done:
			return nil
		}
		seen[s.name] = visiting
		for _, d := range s.dependencies() {
			if err := visit(set[d.real]); err != nil {
				return fmt.Errorf("%s, through %w", s.name, err)
			}
		}
		seen[s.name] = done
		order = append(order, s)
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if err := visit(set[name]); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// What is not in the set goes from a manifest, and all that hangs on it, but no more.
func TestManifestsAreCutToTheSet(t *testing.T) {
	set := map[string]*source{}
	for name, manifest := range map[string]string{
		"low": "[features]\nold=['gone']\n[dependencies]\ngone={version='1',optional=true}\nkept={version='1',optional=true}\n",
		"top": `
[dependencies]
low={version='1',features=['kept']}
[dev-dependencies]
dev='1'
[target.'cfg(unix)'.dependencies]
gone={version='1',optional=true}
[target.'cfg(windows)'.dependencies]
renamed={package='kept',version='2',optional=true}
spoilt={package='low',version='1',features=['old'],optional=true}
[target.'cfg(unix)'.dev-dependencies]
dev='1'
[features]
default=['std','weak']
std=['low/kept']
weak=['gone?/std','low/kept','dep:renamed']
cut=['dep:gone']
fordev=['dev/x']
chain=['deeper']
deeper=['low/old']
spoils=['dep:spoilt']
`,
		"kept": "",
	} {
		s := &source{name: name}
		if err := toml.Unmarshal([]byte(manifest), &s.manifest); err != nil {
			t.Fatal(err)
		}
		set[name] = s
	}
	if err := cutToSet(set); err != nil {
		t.Fatal(err)
	}
	features := fmt.Sprint(set["top"].manifest["features"])
	if want := "map[default:[std weak] std:[low/kept] weak:[low/kept dep:renamed]]"; features != want {
		t.Errorf("features %s, want %s", features, want)
	}
	var kept []string
	for _, name := range []string{"low", "top"} {
		for _, d := range set[name].dependencies() {
			kept = append(kept, fmt.Sprint(name, ">", d.real, " ", d.table[d.key].(map[string]any)["registry"]))
		}
	}
	if want := "[low>kept aln top>low aln top>kept aln]"; fmt.Sprint(kept) != want {
		t.Errorf("dependencies %v, want %s", kept, want)
	}
	if order, err := publishOrder(set); err != nil || order[0].name != "kept" || order[2].name != "top" {
		t.Errorf("order %v, %v", order, err)
	}
	delete(set, "kept")
	delete(set["low"].manifest, "dependencies")
	if err := cutToSet(set); err == nil || !strings.Contains(err.Error(), "top  needs low (features [kept])") {
		t.Errorf("a required dependency was cut: %v", err)
	}
}
