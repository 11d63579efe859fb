package cargoconfig

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// SetIndex makes name stand for the registry with indexURL in the project at
// dir: [registries.name] index = "…" in its .cargo/config.toml. Errors:
// ErrNameTaken when the project calls another registry so, or when any file that
// cargo reads there, cargoHome's too, has another name for this one; ErrManual.
func SetIndex(dir, cargoHome, name, indexURL string) (Change, error) {
	if !registryName.MatchString(name) {
		return Change{}, fmt.Errorf("%w: %q; use letters, digits, - and _", ErrName, name)
	}
	folder := filepath.Join(dir, ".cargo")
	return edit(folder, fmt.Sprintf("[registries.%s]\nindex = %s\n", quoteKey(name), quote(indexURL)), func(d *document) error {
		old, found := lookup(d.decoded, "registries", name, "index")
		if index, _ := old.(string); found && !sameIndex(index, indexURL) {
			return fmt.Errorf("%w: %s calls %v %q; remove it there or choose another name", ErrNameTaken, folder, old, name)
		}
		if err := noOtherName(dir, cargoHome, name, indexURL); err != nil || found {
			return err
		}
		return d.insert([]string{"registries", name, "index"}, quote(indexURL), indexURL)
	})
}

// noOtherName refuses a second name: cargo takes none for one index, and asks no
// provider for any of the two.
func noOtherName(dir, cargoHome, name, indexURL string) error {
	named, err := Named(dir, cargoHome)
	if err != nil {
		return err
	}
	for _, other := range slices.Sorted(maps.Keys(named)) {
		if other != name && sameIndex(named[other].Text(), indexURL) {
			return fmt.Errorf("%w: %s calls this registry %q already, and cargo takes no two names for one index; use that name, or remove it there", ErrNameTaken, named[other].Path, other)
		}
	}
	return nil
}

// registryName is what cargo takes as --registry NAME.
var registryName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// sameIndex compares two index URLs as cargo does, to which a slash at the end is none.
func sameIndex(a, b string) bool { return strings.TrimSuffix(a, "/") == strings.TrimSuffix(b, "/") }

// nameOf is the name that a configuration has for the index, "" for none.
func nameOf(decoded map[string]any, indexURL string) string {
	for name, index := range indexes(decoded) {
		if sameIndex(index, indexURL) {
			return name
		}
	}
	return ""
}

// indexes are the index URLs of the registries that a configuration names.
func indexes(decoded map[string]any) map[string]string {
	named := map[string]string{}
	tables, _ := decoded["registries"].(map[string]any)
	for name := range tables {
		value, _ := lookup(tables, name, "index")
		if index, ok := value.(string); ok {
			named[name] = index
		}
	}
	return named
}

// Registries returns the index URLs of the registries that the configuration in
// folder (a project's .cargo, or CARGO_HOME) names, by name; none where there is
// no configuration.
func Registries(folder string) (map[string]string, error) {
	_, decoded, err := decode(folder)
	if err != nil {
		return nil, err
	}
	return indexes(decoded), nil
}

// Named returns the index URLs of all registries that cargo, run in dir, knows
// by a name, from all files that it reads there: where several set one name's
// index, the nearest counts.
func Named(dir, cargoHome string) (map[string]Setting, error) {
	named := map[string]Setting{}
	for _, folder := range folders(dir, cargoHome) {
		file, decoded, err := decode(folder)
		if err != nil {
			return nil, err
		}
		for name, index := range indexes(decoded) {
			if _, nearer := named[name]; !nearer {
				named[name] = Setting{Value: index, Path: file}
			}
		}
	}
	return named, nil
}

// Twins returns the names, sorted, of every index that has more than one among
// named: cargo refuses to work with those.
func Twins(named map[string]Setting) [][]string {
	byIndex := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		index := strings.TrimSuffix(named[name].Text(), "/")
		byIndex[index] = append(byIndex[index], name)
	}
	var twins [][]string
	for _, index := range slices.Sorted(maps.Keys(byIndex)) {
		if len(byIndex[index]) > 1 {
			twins = append(twins, byIndex[index])
		}
	}
	return twins
}
