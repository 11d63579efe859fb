package testbed

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var published = time.Date(2023, 1, 2, 3, 4, 5, 0, time.UTC)

func TestDebiansCratesArePackedWhole(t *testing.T) {
	set := DebianCrates(t)
	macros, scripts := 0, 0
	var size int64
	for _, one := range set.All {
		size += one.Size
		if one.ProcMacro {
			macros++
		}
		if one.BuildScript {
			scripts++
		}
		raw, err := os.ReadFile(one.File)
		if err != nil {
			t.Fatal(err)
		}
		if sumOf(raw) != one.Line.Cksum || int64(len(raw)) != one.Size {
			t.Errorf("%s: its checksum or size is not that of the file", one.File)
		}
		checkFiles(t, one, raw)
	}
	t.Logf("%d crates of %d MB, %d procedural macros, %d build scripts", len(set.All), size>>20, macros, scripts)
	if len(set.All) < 400 || macros < 15 || scripts < 60 {
		t.Error("the set has lost what it is there to show")
	}
}

// checkFiles: below one folder, the manifest among them, nothing of Debian's.
func checkFiles(t *testing.T, one Crate, raw []byte) {
	t.Helper()
	names := tarNames(t, raw)
	top := one.Line.Name + "-" + one.Line.Vers + "/"
	if !slices.Contains(names, top+"Cargo.toml") {
		t.Errorf("%s has no manifest", one.File)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, top) || strings.HasPrefix(name, top+"debian/") || name == top+".cargo-checksum.json" {
			t.Errorf("%s holds %s", one.File, name)
		}
	}
}

func tarNames(t *testing.T, raw []byte) (names []string) {
	t.Helper()
	unpacked, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	for archive := tar.NewReader(unpacked); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
	}
}

// Who packs it again has the same crate.
func TestPackingIsRepeatable(t *testing.T) {
	DebianCrates(t) // which installs them
	sources, err := cratesSources([]string{"librust-serde-dev"})
	if err != nil || len(sources) != 1 {
		t.Fatalf("%v, %v", sources, err)
	}
	var made [2]Crate
	for i := range made {
		if made[i], err = packCrate(sources[0], t.TempDir()); err != nil {
			t.Fatal(err)
		}
	}
	if first, second := string(made[0].Line.Marshal()), string(made[1].Line.Marshal()); first != second {
		t.Errorf("first\n%sthen\n%s", first, second)
	}
}

// What any of them needs whatever is asked of it, Linux or not, is there too.
func TestDebiansCratesNeedNoOthers(t *testing.T) {
	set := DebianCrates(t)
	for _, one := range set.All {
		for _, d := range one.Line.Deps {
			name := d.Name
			if d.Package != "" {
				name = d.Package
			}
			if d.Optional || d.Kind == "dev" {
				continue
			}
			if _, ok := set.Find(name, ""); !ok {
				t.Errorf("%s %s needs %s %s", one.Line.Name, one.Line.Vers, name, d.Req)
			}
		}
	}
}

func TestLinesAreThoseOfCargosIndex(t *testing.T) {
	one, err := describe([]byte(`
[package]
name="Some_Crate"
version="1.2.3"
links="z"
rust-version="1.60"
build="build.rs"
[lib]
proc-macro=true
[dependencies]
plain="1.0"
[dependencies.other]
version=">= 1.0, <2"
package="real"
optional=true
default-features=false
features=["a","b"]
[build-dependencies]
cc="*"
[dev-dependencies]
tests="=0.1"
[target."cfg(windows)".dependencies.winapi]
version="0.3"
[target.'cfg(all(a="x,=y",not( b )))'.dependencies.zeta]
version="~1"
[features]
default=["std"]
std=[]
other=["dep:other"]
`), published)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"name":"Some_Crate","vers":"1.2.3","deps":[` +
		`{"name":"cc","req":"*","features":[],"optional":false,"default_features":true,"target":null,"kind":"build"},` +
		`{"name":"other","req":">=1.0, <2","features":["a","b"],"optional":true,"default_features":false,"target":null,"kind":"normal","package":"real"},` +
		`{"name":"plain","req":"^1.0","features":[],"optional":false,"default_features":true,"target":null,"kind":"normal"},` +
		`{"name":"tests","req":"=0.1","features":[],"optional":false,"default_features":true,"target":null,"kind":"dev"},` +
		`{"name":"winapi","req":"^0.3","features":[],"optional":false,"default_features":true,"target":"cfg(windows)","kind":"normal"},` +
		`{"name":"zeta","req":"~1","features":[],"optional":false,"default_features":true,"target":"cfg(all(a = \"x,=y\", not(b)))","kind":"normal"}],` +
		`"cksum":"","features":{"default":["std"],"std":[]},"features2":{"other":["dep:other"]},"yanked":false,"links":"z","rust_version":"1.60",` +
		`"pubtime":"2023-01-02T03:04:05Z","v":2}` + "\n"
	if got := string(one.Line.Marshal()); got != want {
		t.Errorf("the line is\n%swant\n%s", got, want)
	}
	if !one.ProcMacro || !one.BuildScript {
		t.Error("a procedural macro with a build script is not known as one")
	}
}
