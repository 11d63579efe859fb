package cargo

import (
	"maps"
	"slices"
	"strings"
	"unicode"
)

// features reads [features] and checks it as cargo does: every value names a
// feature or a dependency that is there, in a way that fits it, no feature
// includes itself (by way of others it may, for cargo), and every optional
// dependency can be enabled by some feature.
func features(root table, deps []Dependency) (map[string][]string, error) {
	t, err := root.sub("features")
	if err != nil {
		return nil, err
	}
	f := featureCheck{features: map[string][]string{}, deps: map[string]bool{}, used: map[string]bool{}, explicit: map[string]bool{}}
	for _, d := range deps {
		f.deps[d.Name] = f.deps[d.Name] || d.Optional
	}
	for _, name := range t.keys() {
		if !isFeatureName(name) {
			return nil, badFeature(name, "has a name that Cargo does not allow; use letters, digits, '_', '-', '+' and '.'")
		}
		if f.features[name], err = t.strs(name); err != nil {
			return nil, err
		}
		for _, value := range f.features[name] {
			if dep, ok := strings.CutPrefix(value, "dep:"); ok {
				f.explicit[dep] = true
			}
		}
	}
	for _, name := range t.keys() {
		for _, value := range f.features[name] {
			if value == name {
				return nil, badFeature(name, "includes itself; leave that out")
			}
			if what := f.check(value); what != "" {
				return nil, badFeature(name, "includes "+quote(value)+", but "+what)
			}
		}
	}
	return f.features, f.allReachable()
}

func badFeature(name, what string) error {
	return problem(ErrManifest, CodeFeature, "feature %s %s", quote(name), what)
}

// isFeatureName is Cargo's rule (reference, "The [features] section").
func isFeatureName(s string) bool {
	for i, r := range s {
		switch {
		case unicode.IsLetter(r), r == '_', '0' <= r && r <= '9':
		case i > 0 && (strings.ContainsRune("-+.", r) || unicode.In(r, unicode.Nd, unicode.Mn, unicode.Mc, unicode.Pc)):
		default:
			return false
		}
	}
	return s != "" && len(s) <= 256
}

type featureCheck struct {
	features map[string][]string
	deps     map[string]bool // by name: whether optional anywhere
	explicit map[string]bool // dependencies that appear as dep:name
	used     map[string]bool // dependencies that some value enables
}

// check says what is wrong with one value of a feature, "" for nothing.
func (f *featureCheck) check(value string) string {
	if dep, feature, ok := strings.Cut(value, "/"); ok {
		return f.checkDependencyFeature(dep, feature)
	}
	if dep, ok := strings.CutPrefix(value, "dep:"); ok {
		f.used[dep] = true
		return f.wantOptional(dep)
	}
	if _, ok := f.features[value]; ok {
		return ""
	}
	if _, ok := f.deps[value]; !ok {
		return "there is neither a feature nor a dependency of that name"
	}
	if f.explicit[value] {
		return "that optional dependency has no feature of its own, since dep:" + value + " is used; write dep:" + value
	}
	return f.wantOptional(value)
}

// checkDependencyFeature checks "dep/feature" and "dep?/feature".
func (f *featureCheck) checkDependencyFeature(dep, feature string) string {
	name, weak := strings.CutSuffix(dep, "?")
	f.used[name] = true
	switch _, there := f.deps[name]; {
	case strings.HasPrefix(name, "dep:"):
		return "dep: and / cannot be combined"
	case feature == "" || strings.Contains(feature, "/"):
		return "a dependency's feature is written name/feature"
	case !there:
		return "there is no dependency " + quote(name)
	case weak:
		return f.wantOptional(name)
	}
	return ""
}

func (f *featureCheck) wantOptional(dep string) string {
	switch optional, there := f.deps[dep]; {
	case !there:
		return "there is no dependency " + quote(dep)
	case !optional:
		return "the dependency " + quote(dep) + " is not optional"
	}
	return ""
}

// allReachable: an optional dependency has a feature of its own name unless
// dep:name is used somewhere or the table has a feature of that name.
func (f *featureCheck) allReachable() error {
	for _, dep := range slices.Sorted(maps.Keys(f.deps)) {
		_, taken := f.features[dep]
		if f.deps[dep] && taken && !f.used[dep] {
			return badFeature(dep, "has the name of an optional dependency that no feature enables; add dep:"+dep+" to one")
		}
	}
	return nil
}

// splitFeatures parts features as crates.io does: those whose values a cargo
// before 1.60 cannot read, and those that include such a feature, go to
// features2 (nil when there are none).
func splitFeatures(all map[string][]string) (features, features2 map[string][]string) {
	isNew := func(value string) bool { return strings.HasPrefix(value, "dep:") || strings.Contains(value, "?/") }
	features = maps.Clone(all)
	for moved := true; moved; {
		moved = false
		for name, values := range features {
			if !slices.ContainsFunc(values, func(v string) bool { _, ok := features2[v]; return ok || isNew(v) }) {
				continue
			}
			if features2 == nil {
				features2 = map[string][]string{}
			}
			features2[name], moved = values, true
			delete(features, name)
		}
	}
	return features, features2
}
