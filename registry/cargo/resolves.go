package cargo

import (
	"bytes"
	"crypto/sha256"
	"iter"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// What a resolve takes from a line, besides that the version is there, is the crates and
// features that it brings along. That is what Resolves is of: two lines have the same one
// where cargo reads the same from them, however they are written (FORMATS §3).
//
// It is not of cksum, yanked and pubtime, which are looked at by themselves; nor of
// rust_version and v: they say which cargo may read a line, or would rather take another
// version, bring nothing along, and crates.io wrote both into lines that it had before.
// Nor of the crate's name, which another registry may come to spell otherwise.
//
// Of what cargo does not read at all it says nothing: that is told apart (UpstreamLine.Unread).

// resolution are the members of a line that Resolves is of.
type resolution struct {
	Deps      written                   `json:"deps"`
	Features  told[map[string][]string] `json:"features"`
	Features2 told[map[string][]string] `json:"features2"`
	Links     told[*string]             `json:"links"`
	// RustVersion is read for its form alone.
	RustVersion told[*string] `json:"rust_version"`
}

// resolvedDep is a dependency as cargo reads it.
type resolvedDep struct {
	Name            string   `json:"name"`
	Req             string   `json:"req"`
	Features        []string `json:"features"`
	Optional        bool     `json:"optional"`
	DefaultFeatures *bool    `json:"default_features"`
	Target          *string  `json:"target"`
	Kind            string   `json:"kind"`
	Registry        *string  `json:"registry"`
	Package         string   `json:"package"`
	// These are of artifact dependencies.
	Artifact      []string `json:"artifact"`
	BindepTarget  *string  `json:"bindep_target"`
	IncludeAsALib bool     `json:"lib"`
}

// told is a member of a line that is not of the expected form in every line that can be
// gone by: cargo passes over such a line today, and may read it tomorrow.
type told[T any] struct {
	value T
	// odd is its JSON without white space, where it is of another form.
	odd jsontext.Value
	// null: it is null. nulls: there is one in it, which cargo reads in none of them.
	null, nulls bool
}

// UnmarshalJSON implements json.Unmarshaler.
func (m *told[T]) UnmarshalJSON(raw []byte) error {
	m.null, m.nulls = jsontext.Value(raw).Kind() == 'n', holdsNull(raw)
	if err := json.Unmarshal(raw, &m.value); err != nil {
		m.odd = slices.Clone(jsontext.Value(raw))
		return m.odd.Compact()
	}
	return nil
}

// written is a value as it is written.
type written jsontext.Value

// UnmarshalJSON implements json.Unmarshaler.
func (w *written) UnmarshalJSON(raw []byte) error {
	*w = slices.Clone(raw)
	return nil
}

// digest is the sha256 of what is read, in its canonical form, and what cargo makes of the line
// for what this is of, or for its rust_version.
func (r *resolution) digest(known *knownDeps) ([sha256.Size]byte, reading) {
	t := make(canonical, 0, 1024)
	t = append(t, '[')
	t, by := known.append(t, jsontext.Value(r.Deps))
	t = append(t, ',')
	switch {
	case r.Features.odd != nil || r.Features2.odd != nil:
		t = appendTold(t, &r.Features, func(t canonical) canonical { return t.features(r.Features.value, nil) })
		t = append(t, ',')
		t = appendTold(t, &r.Features2, func(t canonical) canonical { return t.features(r.Features2.value, nil) })
	default:
		t = t.features(r.Features.value, r.Features2.value)
	}
	t = append(t, ',')
	t = appendTold(t, &r.Links, func(t canonical) canonical { return t.optional(r.Links.value) })
	t = append(t, ']')
	by.unread = by.unread || r.Features.null || r.Features.unread() || r.Features2.unread() || r.Links.unread() || r.RustVersion.unread() ||
		r.RustVersion.value != nil && !isRustVersion(strings.TrimSpace(*r.RustVersion.value))
	return sha256.Sum256(t), by
}

func (m *told[T]) unread() bool { return m.odd != nil || m.nulls && !m.null }

// appendTold adds a member.
func appendTold[T any](t canonical, m *told[T], read func(canonical) canonical) canonical {
	if m.odd == nil {
		return read(t)
	}
	return t.odd(m.odd)
}

// knownDeps are dependencies in their canonical form, by how they are written: most lines of
// a file have those of the line before, and reading them is most of the work.
type knownDeps map[string]knownDep

type knownDep struct {
	text string
	reading
}

// mostKnownDeps bounds what is kept while a file is read.
const mostKnownDeps = 4096

// append adds the dependencies that are written in list, which is JSON or nothing, sorted by
// their text, each once, and says what cargo makes of them.
func (k *knownDeps) append(t canonical, list jsontext.Value) (canonical, reading) {
	texts, by, ok := k.texts(list)
	if ok {
		return t.set(texts, func(t canonical, text string) canonical { return append(t, text...) }), by
	}
	list = slices.Clone(list)
	if list.Compact() != nil { // it was read as JSON before
		return t.odd(nil), by
	}
	return t.odd(list), by
}

// texts are the dependencies of list, each in its canonical form; ok is false where that is of
// another form.
func (k *knownDeps) texts(list jsontext.Value) (texts []string, by reading, ok bool) {
	if list.Kind() != '[' { // cargo wants a list to be there
		return nil, reading{unread: true}, len(list) == 0 || list.Kind() == 'n'
	}
	for raw := range elements(list) {
		dep, known := (*k)[string(raw)]
		if !known {
			if dep, ok = readDep(raw); !ok {
				return nil, reading{unread: true}, false
			}
			if *k == nil {
				*k = knownDeps{}
			}
			if len(*k) < mostKnownDeps {
				(*k)[string(raw)] = dep
			}
		}
		texts = append(texts, dep.text)
		by.unread, by.crashes = by.unread || dep.unread, by.crashes || dep.crashes
	}
	return texts, by, true
}

// readDep reads a dependency; ok is false where it is of another form.
func readDep(raw jsontext.Value) (dep knownDep, ok bool) {
	var d resolvedDep
	if raw.Kind() != '{' || json.Unmarshal(raw, &d) != nil {
		return dep, false
	}
	return knownDep{string(canonical(nil).dep(&d)), readingOf(raw)}, true
}

// elements yields those of an array, which is JSON.
func elements(array jsontext.Value) iter.Seq[jsontext.Value] {
	return func(yield func(jsontext.Value) bool) {
		start, depth := 1, 0
		for i := 0; i < len(array); i++ {
			switch array[i] {
			case '"':
				for i++; array[i] != '"'; i++ {
					if array[i] == '\\' {
						i++
					}
				}
				continue
			case '[', '{':
				depth++
				continue
			case ']', '}':
				depth--
			case ',':
			default:
				continue
			}
			if depth > 1 || depth == 1 && array[i] != ',' {
				continue
			}
			if one := jsontext.Value(bytes.TrimSpace(array[start:i])); len(one) > 0 && !yield(one) {
				return
			}
			start = i + 1
		}
	}
}

// canonical is JSON without white space, of arrays of a fixed order.
type canonical []byte

// odd adds a value of another form than is known as an object, which nothing else is.
func (t canonical) odd(value []byte) canonical {
	t = append(t, `{"odd":`...)
	t = append(t, value...)
	return append(t, '}')
}

// dep adds a dependency, with the values in place of absent members that cargo takes.
func (t canonical) dep(d *resolvedDep) canonical {
	crate, kind := d.Package, d.Kind
	if crate == "" {
		crate = d.Name
	}
	if kind != KindDev && kind != KindBuild { // cargo takes every other one for this
		kind = KindNormal
	}
	t = append(t, '[')
	t = append(t.text(d.Name), ',')
	t = append(t.text(crate), ',')
	t = append(t.text(d.Req), ',')
	t = append(t.set(d.Features, canonical.text), ',')
	t = append(t.boolean(d.Optional), ',')
	t = append(t.boolean(d.DefaultFeatures == nil || *d.DefaultFeatures), ',')
	t = append(t.optional(d.Target), ',')
	t = append(t.text(kind), ',')
	t = t.optional(d.Registry)
	if d.Artifact != nil {
		t = append(t, ',')
		t = append(t.set(d.Artifact, canonical.text), ',')
		t = append(t.optional(d.BindepTarget), ',')
		t = t.boolean(d.IncludeAsALib)
	}
	return append(t, ']')
}

// features adds those of both maps, sorted by name, each with what it enables in either.
func (t canonical) features(features, features2 map[string][]string) canonical {
	names := make([]string, 0, len(features)+len(features2))
	for name := range features {
		names = append(names, name)
	}
	for name := range features2 {
		names = append(names, name)
	}
	return t.set(names, func(t canonical, name string) canonical {
		enables, more := features[name], features2[name]
		if len(more) > 0 {
			enables = slices.Concat(enables, more)
		}
		t = append(append(t, '[').text(name), ',')
		return append(t.set(enables, canonical.text), ']')
	})
}

// set adds strings, sorted by their bytes, each once. It sorts them where they are.
func (t canonical) set(all []string, add func(canonical, string) canonical) canonical {
	slices.Sort(all)
	t = append(t, '[')
	for i, s := range slices.Compact(all) {
		if i > 0 {
			t = append(t, ',')
		}
		t = add(t, s)
	}
	return append(t, ']')
}

// text adds a string with no more escapes than JSON demands (RFC 8785 §3.2.2.2).
func (t canonical) text(s string) canonical {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			t, _ = jsontext.AppendQuote(t, s) // of UTF-8, which it was read as
			return t
		}
	}
	t = append(t, '"')
	t = append(t, s...)
	return append(t, '"')
}

func (t canonical) optional(s *string) canonical {
	if s == nil {
		return append(t, "null"...)
	}
	return t.text(*s)
}

func (t canonical) boolean(b bool) canonical {
	if b {
		return append(t, "true"...)
	}
	return append(t, "false"...)
}
