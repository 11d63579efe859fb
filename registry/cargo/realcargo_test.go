package cargo

import (
	"bytes"
	"cmp"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// cargoCommand is the machine's cargo, offline and with a CARGO_HOME of its own.
func cargoCommand(t *testing.T, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), "cargo", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CARGO_HOME="+t.TempDir(), "CARGO_NET_OFFLINE=true")
	return cmd
}

// runCargo returns what cargo prints, and fails the test when cargo fails or is missing.
func runCargo(t *testing.T, dir string, args ...string) []byte {
	t.Helper()
	cmd := cargoCommand(t, dir, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("cargo %s: %v (cargo must be installed to run these tests)\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out
}

func writeTree(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, body := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

const realManifest = `
[package]
name = "demo-one"
version = "0.1.0-alpha.1+b1"
edition = "2021"
description = "a crate"
license = "MIT"
repository = "https://example.com/demo"
links = "demo"
rust-version = "1.70"

[dependencies]
serde = { version = "1.0", optional = true, default-features = false, features = ["std", "derive"] }
other = { package = "libc", version = ">=0.2,  <0.3", optional = true }
alnthing = { version = "*", registry = "aln", optional = true }
sibling = { version = "0.3.0", path = "sibling", registry = "aln" }

[dev-dependencies]
nowhere = { path = "nowhere" }
tester = "1.2.*"

[build-dependencies]
cc = "~1.2"

[target.'cfg(all(unix, target_os = "linux"))'.dependencies]
nix = "=0.1.2-rc.1"

[target.x86_64-pc-windows-msvc.build-dependencies]
winres = "0.1"

[features]
default = ["foo"]
foo = ["dep:serde", "other?/extra_traits"]
bar = ["foo", "nowhere/x"]
baz = ["alnthing"]
`

type metadataDep struct {
	Name, Req   string
	Kind        *string
	Rename      *string
	Optional    bool
	Defaults    bool `json:"uses_default_features"`
	Features    []string
	Target      *string
	RegistryURL *string `json:"registry"`
}

// dep is the index's view of what `cargo metadata` says.
func (m metadataDep) dep() Dep {
	d := Dep{Name: m.Name, Req: m.Req, Features: m.Features, Optional: m.Optional, DefaultFeatures: m.Defaults, Target: m.Target, Kind: KindNormal}
	if m.Kind != nil {
		d.Kind = *m.Kind
	}
	if m.Rename != nil {
		d.Name, d.Package = *m.Rename, &m.Name
	}
	if m.RegistryURL == nil {
		d.Registry = ptr(cratesIO)
	}
	return d
}

// A crate packaged by the real cargo passes, and its line says of dependencies
// and features what `cargo metadata` says.
func TestLineAgreesWithRealCargo(t *testing.T) {
	t.Parallel() // most of the time is cargo's
	dir := t.TempDir()
	long := "data/" + strings.Repeat("long-name-", 12) + ".txt"
	sibling := "[package]\nname = \"%\"\nversion = \"0.3.0\"\nedition = \"2021\"\n[features]\nx = []\n"
	writeTree(t, dir, map[string]string{
		"Cargo.toml": realManifest, "build.rs": "fn main() {}", "src/lib.rs": "", "README.md": "# demo\n", long: "x", "data/größe.txt": "y",
		"sibling/Cargo.toml": strings.Replace(sibling, "%", "sibling", 1), "sibling/src/lib.rs": "",
		"nowhere/Cargo.toml": strings.Replace(sibling, "%", "nowhere", 1), "nowhere/src/lib.rs": "",
		".cargo/config.toml": "[registries.aln]\nindex = \"" + ownIndex + "\"\n",
	})
	target := t.TempDir()
	runCargo(t, dir, "package", "--no-verify", "--allow-dirty", "--exclude-lockfile", "--offline", "--target-dir", target)
	data, err := os.ReadFile(filepath.Join(target, "package", "demo-one-0.1.0-alpha.1+b1.crate"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Inspect(bytes.NewReader(data), "demo-one", "0.1.0-alpha.1+b1", Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if string(c.Readme) != "# demo\n" || c.Links != "demo" || c.RustVersion != "1.70" || c.Repository != "https://example.com/demo" {
		t.Errorf("%+v", c)
	}
	line, err := c.Line([32]byte{}, time.Unix(0, 0), false, settings)
	if err != nil {
		t.Fatal(err)
	}
	deps, features := cargoMetadata(t, dir)
	if got := sorted(line.Deps); !reflect.DeepEqual(got, deps) {
		t.Errorf("our dependencies  %s\ncargo's           %s", asJSON(t, got), asJSON(t, deps))
	}
	ours := maps.Clone(line.Features)
	maps.Copy(ours, line.Features2)
	if !reflect.DeepEqual(ours, features) {
		t.Errorf("our features %v, cargo's %v", ours, features)
	}
}

// cargoMetadata gives the crate's dependencies and features as cargo sees them
// when it publishes: without dev-dependencies that have no version, and without
// the features that optional dependencies imply.
func cargoMetadata(t *testing.T, dir string) ([]Dep, map[string][]string) {
	t.Helper()
	var metadata struct {
		Packages []struct {
			Name         string
			Dependencies []metadataDep
			Features     map[string][]string
		}
	}
	out := runCargo(t, dir, "metadata", "--no-deps", "--offline", "--format-version=1")
	if err := json.Unmarshal(out, &metadata, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatal(err)
	}
	p := metadata.Packages[0]
	var deps []Dep
	for _, d := range p.Dependencies {
		if d.Name != "nowhere" {
			deps = append(deps, d.dep())
		}
	}
	for name, values := range p.Features {
		p.Features[name] = slices.DeleteFunc(values, func(v string) bool { return v == "nowhere/x" })
	}
	maps.DeleteFunc(p.Features, func(name string, values []string) bool { return slices.Equal(values, []string{"dep:" + name}) })
	if len(deps) < 8 || len(p.Features) < 4 {
		t.Fatalf("cargo metadata gave %v, %v", deps, p.Features)
	}
	return sorted(deps), p.Features
}

func sorted(deps []Dep) []Dep {
	return slices.SortedFunc(slices.Values(deps), func(a, b Dep) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name))
	})
}

func asJSON(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The feature tables that this package refuses are those that cargo refuses.
func TestFeatureRulesAgreeWithRealCargo(t *testing.T) {
	t.Parallel() // most of the time is cargo's
	const deps = "[dependencies]\nopt = { version = \"1\", optional = true }\nreq = \"1\"\n"
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"src/lib.rs": ""})
	accepted, refusedByCargo := 0, 0
	for _, table := range []string{
		"a = []", `a = ["opt"]`, `a = ["dep:opt"]`, `a = ["opt/x"]`, `a = ["opt?/x", "opt"]`, `a = ["req/x"]`, `opt = ["dep:opt"]`, `opt = ["opt/x"]`, `"0.1+x-y" = []`,
		`a = ["b"]`, `a = ["req"]`, `a = ["dep:req"]`, `a = ["req?/x"]`, `a = ["dep:opt", "opt"]`, `a = ["dep:opt/x"]`, `a = ["none/x"]`, `opt = []`, `"a/b" = []`,
		`"-a" = []`, `a = [""]`, `"é" = []`, `a = ["opt/x/y"]`, `"" = []`, `"a b" = []`, `a = ["opt?/x"]`, `opt = ["opt"]`, `opt = ["opt?/x"]`, `a = ["dep:none"]`,
	} {
		writeTree(t, dir, map[string]string{"Cargo.toml": "[workspace]\n" + demoManifest + "edition = \"2021\"\n" + deps + "[features]\n" + table})
		out, err := cargoCommand(t, dir, "metadata", "--no-deps", "--offline", "--format-version=1").CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatalf("cargo must be installed to run these tests: %v", err)
		}
		_, ours := parseDemo(deps + "[features]\n" + table)
		if refused := err != nil; refused != (ours != nil) {
			t.Errorf("%s: we say %v; cargo says %s", table, ours, out)
		}
		if err == nil {
			accepted++
		} else {
			refusedByCargo++
		}
	}
	if accepted < 8 || refusedByCargo < 8 {
		t.Errorf("cargo accepted %d tables and refused %d: the cases no longer tell anything", accepted, refusedByCargo)
	}
}
