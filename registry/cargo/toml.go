package cargo

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// tomlFile is one of Cargo's files: what it is called, and what a wrong one is.
type tomlFile struct {
	name string
	kind error
	code Code
	// maxKeys bounds '=' and '[' in it, and with them its keys and tables: the
	// parser looks for duplicates in time quadratic in the keys of one table.
	maxKeys int
}

// The largest real manifests have some thousands of keys; a lock has eight for a package.
var (
	manifestFile = &tomlFile{"Cargo.toml", ErrManifest, CodeManifest, maxTOMLKeys}
	lockFile     = &tomlFile{"Cargo.lock", ErrLock, CodeLock, 1 << 16}
)

const maxTOMLKeys = 16384

// table is a TOML table with the path that leads to it, for messages. Keys are
// looked up exactly: decoding into structs would ignore case.
type table struct {
	file   *tomlFile
	at     string
	values map[string]any
}

func (f *tomlFile) parse(data []byte) (table, error) {
	if n := bytes.Count(data, []byte("=")) + bytes.Count(data, []byte("[")); n > f.maxKeys {
		return table{}, problem(ErrTooLarge, CodeTooLarge, "%s has some %d keys and tables; at most %d are allowed", f.name, n, f.maxKeys)
	}
	t := table{file: f, values: map[string]any{}}
	if err := toml.Unmarshal(data, &t.values); err != nil {
		return table{}, &Problem{Kind: f.kind, Code: f.code, Text: f.name + " is not TOML: " + short(err), Cause: err}
	}
	return t, nil
}

func (t table) path(key string) string {
	if t.at == "" {
		return key
	}
	return t.at + "." + key
}

func (t table) wrong(key, want string) error {
	if inner, ok := t.values[key].(map[string]any); ok {
		if _, inherits := inner["workspace"]; inherits {
			return problem(ErrManifest, CodeManifest, "Cargo.toml inherits %s from a workspace; build the crate with `cargo package`, which writes the value out", quote(t.path(key)))
		}
	}
	return problem(t.file.kind, t.file.code, "%s: %s must be %s", t.file.name, quote(t.path(key)), want)
}

// lookup reads an optional value of type T.
func lookup[T any](t table, key, want string) (value T, ok bool, err error) {
	v, ok := t.values[key]
	if !ok {
		return value, false, nil
	}
	if value, ok = v.(T); !ok {
		return value, false, t.wrong(key, want)
	}
	return value, true, nil
}

func (t table) str(key string) (string, error) {
	s, _, err := lookup[string](t, key, "a string")
	if err == nil && strings.IndexByte(s, 0) >= 0 {
		err = t.wrong(key, "a string without NUL")
	}
	return s, err
}

func (t table) strs(key string) ([]string, error) {
	values, _, err := lookup[[]any](t, key, "an array of strings")
	list := make([]string, 0, len(values))
	for _, v := range values {
		s, ok := v.(string)
		if !ok {
			return nil, t.wrong(key, "an array of strings")
		}
		list = append(list, s)
	}
	return list, err
}

// sub is an optional table; where it is absent, an empty one.
func (t table) sub(key string) (table, error) {
	values, _, err := lookup[map[string]any](t, key, "a table")
	return table{file: t.file, at: t.path(key), values: values}, err
}

// either finds which of two spellings of a key is used; both is an error,
// since cargo and other readers might choose differently.
func (t table) either(dashed string) (string, error) {
	underscored := strings.ReplaceAll(dashed, "-", "_")
	_, d := t.values[dashed]
	_, u := t.values[underscored]
	switch {
	case d && u && dashed != underscored:
		return "", problem(ErrManifest, CodeManifest, "Cargo.toml has both %s and %s; keep the first", quote(t.path(dashed)), quote(t.path(underscored)))
	case u:
		return underscored, nil
	}
	return dashed, nil
}

// keys are the table's keys in byte order, so that of several errors always the same is reported.
func (t table) keys() []string {
	return slices.Sorted(maps.Keys(t.values))
}
