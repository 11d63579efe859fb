package cargo

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

const (
	ownIndex   = "sparse+http://127.0.0.1:8585/index/"
	otherIndex = "sparse+https://crates.other.example/index/"
)

var settings = IndexSettings{IndexURLs: []string{ownIndex}, DependencyRegistries: []string{otherIndex}}

func parseDemo(extra string) (*Crate, error) {
	return parseManifest([]byte(demoManifest+extra), "demo", "1.0.0")
}

// testdata/full.toml has every form of dependency and feature; full.json is its line.
func TestManifestBecomesItsLine(t *testing.T) {
	manifest, err := os.ReadFile("testdata/full.toml")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/full.json")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // maps are walked in another order each time
		c, err := parseManifest(manifest, "full-One", "1.2.3-rc.1+b.7")
		if err != nil {
			t.Fatal(err)
		}
		l, err := c.Line([32]byte{0xab}, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), false, settings)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(l.Marshal()); got != string(want) {
			t.Fatalf("got  %swant %s", got, want)
		}
	}
}

func TestManifestDescribesTheCrate(t *testing.T) {
	c, err := parseDemo(`description = "what"
license = "MIT"
license-file = "L"
homepage = "h"
documentation = "d"
repository = "r"
keywords = ["k"]
categories = ["c", "e"]
links = "z"
rust-version = "1.70"
unknown-key = { a = 1 }
[package.metadata.docs]
workspace = true
[unknown.table]
x = 1
`)
	if err != nil {
		t.Fatal(err)
	}
	want := Crate{
		Name: "demo", Version: mustVersion(t, "1.0.0"), Features: map[string][]string{},
		Description: "what", License: "MIT", LicenseFile: "L", Homepage: "h", Documentation: "d", Repository: "r",
		Keywords: []string{"k"}, Categories: []string{"c", "e"}, Links: "z", RustVersion: "1.70", readmes: c.readmes,
	}
	if !reflect.DeepEqual(*c, want) {
		t.Errorf("%+v", c)
	}
}

func TestManifestMustBeAboutTheAnnouncedCrate(t *testing.T) {
	for _, manifest := range []string{
		"[package]\nname = \"Demo\"\nversion = \"1.0.0\"", "[package]\nname = \"demo\"\nversion = \"1.0.0+b\"", "[package]\nname = \"demo\"\nversion = \"1.0\"",
		"[package]\nname = \"demo\"", "[package]\nversion = \"1.0.0\"", "[package]\nName = \"demo\"\nversion = \"1.0.0\"",
	} {
		_, err := parseManifest([]byte(manifest), "demo", "1.0.0")
		var p *Problem
		if !errors.As(err, &p) || p.Code != CodeIdentity || !errors.Is(err, ErrManifest) {
			t.Errorf("%q: %v", manifest, err)
		}
	}
}

func TestManifestRefuses(t *testing.T) {
	dep := func(s string) string { return "[dependencies]\n" + s }
	for name, c := range map[string]struct{ extra, says string }{
		"no TOML":                       {"x = ", "not TOML"},
		"a duplicate key":               {"name = \"demo\"", "not TOML"},
		"not UTF-8":                     {"description = \"\xff\"", "not TOML"},
		"deep nesting":                  {"x = " + strings.Repeat("[", 12000), "not TOML"},
		"a description that is a list":  {"description = []", `"package.description" must be a string`},
		"keywords of numbers":           {"keywords = [1]", "array of strings"},
		"links that is empty":           {`links = ""`, "native library"},
		"a NUL":                         {`links = "a\u0000"`, "without NUL"},
		"a rust-version with operator":  {`rust-version = "^1.70"`, "1.70.1"},
		"a rust-version with 4 parts":   {`rust-version = "1.70.0.1"`, "1.70.1"},
		"an empty rust-version":         {`rust-version = ""`, "1.70.1"},
		"a readme that is a number":     {"readme = 1", "true or false"},
		"an inherited field":            {"license.workspace = true", "inherits"},
		"an inherited unknown field":    {"edition = { workspace = true }", "inherits"},
		"inherited lints":               {"[lints]\nworkspace = true", "inherits"},
		"an inherited dependency":       {dep("a = { workspace = true }"), "inherited"},
		"an artifact dependency":        {dep(`a = { version = "1", artifact = "bin" }`), "artifact"},
		"a registry by nickname":        {dep(`a = { version = "1", registry = "aln" }`), "registry-index"},
		"a path without version":        {dep(`a = { path = "../a" }`), "path but no version"},
		"a git without version":         {dep(`a = { git = "https://h/r" }`), "git but no version"},
		"a dependency without version":  {dep(`a = {}`), "no version"},
		"a dependency that is a list":   {dep(`a = []`), "must be a table"},
		"dependencies that are a list":  {"[[dependencies]]", "must be a table"},
		"a bad requirement":             {dep(`a = "one"`), "not a version requirement"},
		"a version that is a number":    {dep(`a = { version = 1 }`), "must be a string"},
		"a dependency of bad name":      {dep(`"../a" = "1"`), "does not allow"},
		"a package of bad name":         {dep(`a = { version = "1", package = "../a" }`), "not a crate name"},
		"an empty package":              {dep(`a = { version = "1", package = "" }`), "not a crate name"},
		"a reserved package":            {dep(`a = { version = "1", package = "std" }`), "reserved"},
		"optional that is a string":     {dep(`a = { version = "1", optional = "yes" }`), "true or false"},
		"an optional dev-dependency":    {"[dev-dependencies]\na = { version = \"1\", optional = true }", "cannot be optional"},
		"both default-features":         {dep(`a = { version = "1", default-features = true, default_features = false }`), "both"},
		"both dev-dependencies":         {"[dev-dependencies]\n[dev_dependencies]", "both"},
		"a feature with a slash":        {dep(`a = { version = "1", features = ["b/c"] }`), "not the name of a feature"},
		"a feature dep:":                {dep(`a = { version = "1", features = ["dep:c"] }`), "not the name of a feature"},
		"an index with a line break":    {dep(`a = { version = "1", registry-index = "sparse+http://h/\n" }`), "not a URL"},
		"an empty index":                {dep(`a = { version = "1", registry-index = "" }`), "empty registry-index"},
		"a git beside an index":         {dep(`a = { version = "1", registry-index = "` + ownIndex + `", git = "https://h/r" }`), "git beside its version"},
		"a path beside an index":        {dep(`a = { version = "1", registry-index = "` + ownIndex + `", path = "../a" }`), "path beside its version"},
		"a path beside a version":       {dep(`a = { version = "1", path = "../a" }`), "path beside its version"},
		"a long description":            {`description = "` + strings.Repeat("d", maxDescriptionBytes+1) + `"`, "shorten it"},
		"many keywords":                 {`keywords = [` + strings.Repeat(`"k",`, maxKeywords+1) + `]`, "at most 32 keywords"},
		"a long keyword":                {`keywords = ["` + strings.Repeat("k", maxKeywordBytes+1) + `"]`, "64 bytes each"},
		"a target that is open":         {"[target.'cfg(unix'.dependencies]", "neither a target"},
		"a target of two names":         {"[target.'cfg(foo bar)'.dependencies]", "neither a target"},
		"a target that is a string":     {"[target.'cfg(\"x\")'.dependencies]", "neither a target"},
		"a target that is too long":     {"[target.'" + strings.Repeat("a", maxTargetBytes+1) + "'.dependencies]", "neither a target"},
		"a target with a space":         {"[target.'a b'.dependencies]", "neither a target"},
		"a bad target dependency":       {"[target.'cfg(unix)'.dependencies]\na = { path = \"a\" }", "no version"},
		"features that are a list":      {"[[features]]", "must be a table"},
		"a feature that is a string":    {"[features]\na = \"b\"", "array of strings"},
		"a feature of itself":           {"[features]\na = [\"a\"]", "includes itself"},
		"a feature of bad name":         {"[features]\n\"a/b\" = []", "does not allow"},
		"a feature called dep:":         {"[features]\n\"dep:a\" = []", "does not allow"},
		"a feature of nothing":          {"[features]\na = [\"b\"]", "neither a feature nor a dependency"},
		"dep: of nothing":               {"[features]\na = [\"dep:b\"]", "no dependency"},
		"dep: of what is not optional":  {"[features]\na = [\"dep:b\"]\n" + dep(`b = "1"`), "not optional"},
		"a name that is not optional":   {"[features]\na = [\"b\"]\n" + dep(`b = "1"`), "not optional"},
		"? of what is not optional":     {"[features]\na = [\"b?/c\"]\n" + dep(`b = "1"`), "not optional"},
		"a feature of no dependency":    {"[features]\na = [\"b/c\"]", "no dependency"},
		"dep: with a slash":             {"[features]\na = [\"dep:b/c\"]\n" + dep(`b = "1"`), "cannot be combined"},
		"two slashes":                   {"[features]\na = [\"b/c/d\"]\n" + dep(`b = "1"`), "name/feature"},
		"an implicit feature dep: took": {"[features]\na = [\"dep:b\"]\nc = [\"b\"]\n" + dep(`b = { version = "1", optional = true }`), "write dep:b"},
		"a dependency nobody enables":   {"[features]\nb = []\n" + dep(`b = { version = "1", optional = true }`), "no feature enables"},
	} {
		_, err := parseDemo(c.extra)
		if !errors.Is(err, ErrManifest) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want ErrManifest saying %q", name, err, c.says)
		}
	}
	if _, err := parseManifest([]byte("[project]\nname=\"demo\"\nversion=\"1.0.0\""), "demo", "1.0.0"); !errors.Is(err, ErrManifest) {
		t.Errorf("[project]: %v", err)
	}
}

func TestManifestAcceptsTextsAtTheirBounds(t *testing.T) {
	keyword := `"` + strings.Repeat("k", maxKeywordBytes) + `",`
	if _, err := parseDemo(`description = "` + strings.Repeat("d", maxDescriptionBytes) + "\"\nkeywords = [" + strings.Repeat(keyword, maxKeywords) + "]\n"); err != nil {
		t.Error(err)
	}
}

func TestManifestAcceptsBothSpellings(t *testing.T) {
	c, err := parseDemo("[dev_dependencies]\na = { version = \"1\", default_features = false }\n[build_dependencies]\nb = \"2\"\n")
	if err != nil || len(c.Dependencies) != 2 {
		t.Fatalf("%+v, %v", c, err)
	}
	if a, b := c.Dependencies[0], c.Dependencies[1]; a.Kind != KindDev || a.DefaultFeatures || b.Kind != KindBuild || !b.DefaultFeatures {
		t.Errorf("%+v", c.Dependencies)
	}
}

func TestDependencyRegistries(t *testing.T) {
	for index, want := range map[string]*string{
		"":                                ptr(cratesIO),
		cratesIO:                          ptr(cratesIO),
		cratesIOSparse:                    ptr(cratesIO),
		"sparse+https://index.crates.io":  ptr(cratesIO),
		ownIndex:                          nil,
		strings.TrimSuffix(ownIndex, "/"): nil,
		otherIndex:                        ptr(otherIndex),
	} {
		extra := ""
		if index != "" {
			extra = `, registry-index = "` + index + `"`
		}
		c, err := parseDemo("[dependencies]\nfar = { version = \"1\"" + extra + " }")
		if err != nil {
			t.Fatal(err)
		}
		l, err := c.Line([32]byte{}, time.Unix(0, 0), false, settings)
		if err != nil || !reflect.DeepEqual(l.Deps[0].Registry, want) || c.checkLine(settings) != nil {
			t.Errorf("%q: %+v, %v", index, l.Deps, err)
		}
	}
}

func TestForeignRegistriesAreRefusedByName(t *testing.T) {
	for _, index := range []string{
		"sparse+https://evil.example/", "sparse+http://127.0.0.1:8585/index/x/", "http://127.0.0.1:8585/index/", "sparse+http://127.0.0.1:8585/", "sparse+http://127.0.0.1:8585/index//",
		"https://github.com/rust-lang/crates.io-index.git", "https://GitHub.com/rust-lang/crates.io-index",
	} {
		c, err := parseDemo("[dependencies]\nok = \"1\"\nfar = { version = \"1\", registry-index = \"" + index + "\" }")
		if err != nil {
			t.Fatal(err)
		}
		_, lineErr := c.Line([32]byte{}, time.Unix(0, 0), false, settings)
		for _, err := range []error{lineErr, c.checkLine(settings)} {
			var foreign *ForeignRegistry
			if !errors.Is(err, ErrForeignRegistry) || !errors.As(err, &foreign) || foreign.Dependency != "far" || foreign.URL != index {
				t.Errorf("%s: %v", index, err)
			}
		}
	}
}

func TestACrateCannotNeedItself(t *testing.T) {
	const own = `registry-index = "` + ownIndex + `"`
	for extra, want := range map[string]error{
		"[dependencies]\ndemo = { version = \"1\", " + own + " }":                        ErrManifest,
		"[dependencies]\ndemo = { version = \"*\", optional = true, " + own + " }":       ErrManifest,
		"[dependencies]\nme = { package = \"Demo\", version = \"=1.0.0\", " + own + " }": ErrManifest,
		"[build-dependencies]\ndemo = { version = \"1\", " + own + " }":                  ErrManifest,
		"[target.'cfg(unix)'.dependencies]\ndemo = { version = \"1\", " + own + " }":     ErrManifest,
		"[dev-dependencies]\ndemo = { version = \"1\", " + own + " }":                    nil,
		"[dependencies]\ndemo = { version = \"2\", " + own + " }":                        nil, // as log 0.3 does with log 0.4
		"[dependencies]\ndemo = { version = \"0.9\", " + own + " }":                      nil,
		"[dependencies]\ndemo = \"1\"":                                                   nil, // crates.io's crate of that name
	} {
		c, err := parseDemo(extra)
		if err != nil {
			t.Fatal(err)
		}
		_, lineErr := c.Line([32]byte{}, time.Unix(0, 0), false, settings)
		for _, err := range []error{lineErr, c.checkLine(settings)} {
			if !errors.Is(err, want) || err != nil && !strings.Contains(err.Error(), "itself") {
				t.Errorf("%s: %v, want %v", extra, err, want)
			}
		}
	}
}

func TestLinesAreBounded(t *testing.T) {
	many := "[target.'cfg(all(" + strings.Repeat("unix,", 195) + "unix))'.dependencies]\n"
	for i := range 200 {
		many += fmt.Sprintf("a%d = \"1\"\n", i)
	}
	for name, extra := range map[string]string{
		"dependencies": many,
		"features":     "[features]\na = [" + strings.Repeat(`"b",`, MaxLineBytes/4) + "]\nb = []\n",
		"links":        `links = "` + strings.Repeat("l", MaxLineBytes) + `"`,
	} {
		c, err := parseDemo(extra)
		if err != nil {
			t.Fatal(err)
		}
		for _, yanked := range []bool{false, true} {
			_, err := c.Line([32]byte{}, time.Unix(0, 0), yanked, settings)
			for _, err := range []error{err, c.checkLine(settings)} {
				var p *Problem
				if !errors.Is(err, ErrTooLarge) || !errors.As(err, &p) || !strings.Contains(p.Text, "dependencies or features") {
					t.Errorf("%s: %v, want ErrTooLarge", name, err)
				}
			}
		}
	}
}

func TestLinesUpToTheBoundAreWritten(t *testing.T) {
	c := &Crate{Name: "a", Version: mustVersion(t, "1.0.0"), Features: map[string][]string{}, Links: "l"}
	l, err := c.Line([32]byte{}, time.Unix(0, 0), false, settings)
	if err != nil {
		t.Fatal(err)
	}
	c.Links = strings.Repeat("l", 1+MaxLineBytes-len(l.Marshal()))
	if l, err = c.Line([32]byte{}, time.Unix(0, 0), false, settings); err != nil || len(l.Marshal()) != MaxLineBytes {
		t.Errorf("%d bytes: %v", len(l.Marshal()), err)
	}
	c.Links += "l" // one byte too many, but for true being shorter than false
	if _, err := c.Line([32]byte{}, time.Unix(0, 0), true, settings); !errors.Is(err, ErrTooLarge) {
		t.Errorf("yanked: %v", err)
	}
}

func TestProblemsDoNotRepeatHostileInputAtLength(t *testing.T) {
	long := strings.Repeat("x", 100000)
	for name, extra := range map[string]string{
		"requirement": "[dependencies]\na = \"" + long + "\"", "dependency": "[dependencies]\n\"" + long + "\" = \"1\"",
		"feature": "[features]\na = [\"" + long + "\"]", "key": "[package.\"" + long + "\"]\nworkspace = true", "TOML": long,
		"package": "[dependencies]\na = { version = \"1\", package = \"" + long + "\" }",
	} {
		if _, err := parseDemo(extra); err == nil || len(err.Error()) > 1000 {
			t.Errorf("%s: the message is too long or missing", name)
		}
	}
}

func FuzzManifest(f *testing.F) {
	seed, err := os.ReadFile("testdata/full.toml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed, "full-One", "1.2.3-rc.1+b.7")
	f.Add([]byte(demoManifest), "demo", "1.0.0")
	f.Fuzz(func(t *testing.T, data []byte, name, version string) {
		c, err := parseManifest(data, name, version)
		var p *Problem
		if err != nil && !errors.As(err, &p) {
			t.Errorf("not a Problem: %v", err)
		}
		if err != nil || ValidateName(name) != nil {
			return
		}
		l, err := c.Line([32]byte{1}, time.Unix(1e9, 0), false, settings)
		if checked := c.checkLine(settings); (checked == nil) != (err == nil) {
			t.Errorf("checkLine says %v, Line %v", checked, err)
		}
		if err != nil {
			if !errors.Is(err, ErrForeignRegistry) && !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrManifest) {
				t.Error(err)
			}
			return
		}
		if back, err := ParseLine(l.Marshal()); err != nil || string(back.Marshal()) != string(l.Marshal()) {
			t.Errorf("%s does not survive: %v", l.Marshal(), err)
		}
	})
}
