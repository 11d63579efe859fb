package cargo

import (
	"bytes"
	"encoding/hex"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// MaxLineBytes is the longest index line that is written, its "\n" included.
// cargo reads all lines of a crate to choose one version, and the registry
// makes them anew for every change. There is room for some two thousand features.
const MaxLineBytes = 128 << 10

const (
	maxReadBytes = 4 << 20 // of a line that is read: other registries may have other bounds
	timeLayout   = "2006-01-02T15:04:05Z"
)

// Kinds of dependencies, as index lines spell them.
const (
	KindNormal = "normal"
	KindDev    = "dev"
	KindBuild  = "build"
)

// Line is one version in an index file (Cargo reference, "Index format").
// Yanked is the only field that may change once the line has been served.
type Line struct {
	Name        string              `json:"name"`
	Vers        string              `json:"vers"`
	Deps        []Dep               `json:"deps"`
	Cksum       string              `json:"cksum"` // sha256 of the .crate, lower-case hex
	Features    map[string][]string `json:"features"`
	Features2   map[string][]string `json:"features2,omitempty"` // features whose values a cargo before 1.60 cannot read
	Yanked      bool                `json:"yanked"`
	Links       *string             `json:"links"`
	RustVersion *string             `json:"rust_version"`
	Pubtime     string              `json:"pubtime,omitzero"` // YYYY-MM-DDThh:mm:ssZ, or "" where not known
	V           int                 `json:"v"`                // 2 when there are Features2, else 1
}

// Dep is one dependency in a Line. In a renamed dependency Name is the rename
// and Package the crate's real name.
type Dep struct {
	Name            string   `json:"name"`
	Req             string   `json:"req"`
	Features        []string `json:"features"`
	Optional        bool     `json:"optional"`
	DefaultFeatures bool     `json:"default_features"`
	Target          *string  `json:"target"`
	Kind            string   `json:"kind"`
	Registry        *string  `json:"registry"` // nil: the index that holds this line
	Package         *string  `json:"package"`
}

// PackageName is the crate that d depends on, whatever it is renamed to.
func (d Dep) PackageName() string {
	if d.Package != nil {
		return *d.Package
	}
	return d.Name
}

// Marshal writes the line with its final "\n". Equal lines give equal bytes.
func (l Line) Marshal() []byte {
	data, err := json.Marshal(l, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	if err != nil { // no field of Line can fail to encode
		panic("cargo: encode index line: " + err.Error())
	}
	return append(data, '\n')
}

// checkLength holds a line that is to be written to MaxLineBytes, in the longer
// of its two states: a version must not become too long when its yank is undone.
func (l Line) checkLength() error {
	l.Yanked = false
	if n := len(l.Marshal()); n > MaxLineBytes {
		return problem(ErrTooLarge, CodeTooLarge, "the crate has too many or too long dependencies or features: its index line would have %d bytes, and at most %d are allowed; leave some out", n, MaxLineBytes)
	}
	return nil
}

// ParseLine reads one line of an index file, with or without its "\n". Members
// that it does not know pass unread, since the format grows; duplicate names
// and values that cargo would not accept are errors that match ErrFrame.
func ParseLine(data []byte) (Line, error) {
	if len(data) > maxReadBytes {
		return Line{}, problem(ErrTooLarge, CodeTooLarge, "an index line of %d bytes is longer than the %d allowed", len(data), maxReadBytes)
	}
	data = bytes.TrimSuffix(data, []byte("\n"))
	if bytes.IndexByte(data, '\n') >= 0 {
		return Line{}, problem(ErrFrame, CodeLine, "the index line holds a line break")
	}
	// Absent members must be told from empty ones: pointers where one is required.
	var raw struct {
		Line
		Deps *[]rawDep `json:"deps"`
		V    *int      `json:"v"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return Line{}, &Problem{Kind: ErrFrame, Code: CodeLine, Text: "the index line is not JSON of the expected shape: " + short(err), Cause: err}
	}
	l := raw.Line
	if raw.Deps == nil {
		return Line{}, badLine(l, "has no deps")
	}
	l.Deps = make([]Dep, len(*raw.Deps))
	for i, d := range *raw.Deps {
		l.Deps[i] = d.dep()
	}
	l.V = 1
	if raw.V != nil {
		l.V = *raw.V
	}
	if l.Features == nil {
		l.Features = map[string][]string{}
	}
	if len(l.Features2) == 0 {
		l.Features2 = nil
	}
	return l, l.check()
}

// rawDep gives the members that older lines leave out the values Cargo does.
type rawDep struct {
	Dep
	DefaultFeatures *bool   `json:"default_features"`
	Kind            *string `json:"kind"`
}

func (r rawDep) dep() Dep {
	d := r.Dep
	d.DefaultFeatures = r.DefaultFeatures == nil || *r.DefaultFeatures
	d.Kind = KindNormal
	if r.Kind != nil {
		d.Kind = *r.Kind
	}
	if d.Features == nil {
		d.Features = []string{}
	}
	return d
}

func (l Line) check() error {
	if err := ValidateName(l.Name); err != nil {
		return err
	}
	if _, err := ParseVersion(l.Vers); err != nil {
		return err
	}
	sum, err := hex.DecodeString(l.Cksum)
	if err != nil || len(sum) != 32 || strings.ToLower(l.Cksum) != l.Cksum {
		return badLine(l, "has a cksum that is not 64 lower-case hexadecimal digits")
	}
	if l.Pubtime != "" {
		if t, err := time.Parse(timeLayout, l.Pubtime); err != nil || t.Format(timeLayout) != l.Pubtime {
			return badLine(l, "has a pubtime that is not YYYY-MM-DDThh:mm:ssZ")
		}
	}
	if l.V != 1 && l.V != 2 {
		return badLine(l, "has a v that is neither 1 nor 2")
	}
	for _, d := range l.Deps {
		if !isIdent(d.Name, true) || !isIdent(d.PackageName(), true) {
			return badLine(l, "has a dependency with a bad name")
		}
		if _, err := ParseReq(d.Req); err != nil {
			return err
		}
		if d.Kind != KindNormal && d.Kind != KindDev && d.Kind != KindBuild {
			return badLine(l, "has a dependency of an unknown kind")
		}
	}
	return nil
}

func badLine(l Line, what string) error {
	return problem(ErrFrame, CodeLine, "the index line of %s %s", quote(l.Name+"@"+l.Vers), what)
}

// ConfigJSON is an index's config.json (Cargo reference, "Index
// configuration"). dl may hold Cargo's markers such as {crate}; api is left
// out when empty, which tells cargo that the index has no web API.
func ConfigJSON(dl, api string, authRequired bool) []byte {
	config := struct {
		DL           string `json:"dl"`
		API          string `json:"api,omitzero"`
		AuthRequired bool   `json:"auth-required"`
	}{dl, api, authRequired}
	data, err := json.Marshal(config, jsontext.AllowInvalidUTF8(true))
	if err != nil { // strings and a bool always encode
		panic("cargo: encode config.json: " + err.Error())
	}
	return append(data, '\n')
}
