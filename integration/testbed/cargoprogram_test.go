package testbed

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// cargoLife is a CARGO_HOME that takes the place of crates.io from a sparse index.
type cargoLife struct {
	t      testing.TB
	home   string
	folder string
}

// newCargoLife is empty but for the replacement of its source, and has the program.
func newCargoLife(t testing.TB, index, ca string) *cargoLife {
	t.Helper()
	c := &cargoLife{t: t, home: t.TempDir(), folder: filepath.Join(t.TempDir(), "program")}
	config := fmt.Sprintf("[source.crates-io]\nreplace-with = \"stand-in\"\n[source.stand-in]\nregistry = %q\n[net]\nretry = 0\n[http]\ncainfo = %q\n", index, ca)
	if ca == "" {
		config = strings.Replace(config, "[http]\ncainfo = \"\"\n", "", 1)
	}
	if err := os.WriteFile(filepath.Join(c.home, "config.toml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	CargoProgram(t, c.folder)
	return c
}

// run gives what cargo printed.
func (c *cargoLife) run(args ...string) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "cargo", args...)
	cmd.Dir = c.folder
	cmd.Env = append(os.Environ(), "CARGO_HOME="+c.home, "CARGO_TARGET_DIR="+filepath.Join(c.folder, "target"), "CARGO_TERM_COLOR=never",
		"CARGO_PROFILE_DEV_DEBUG=0", "RUST_LOG=", "http_proxy=", "https_proxy=", "HTTP_PROXY=", "HTTPS_PROXY=", "ALL_PROXY=")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		c.t.Fatalf("cargo %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// Unmodified cargo, nothing of ours between: what the stand-in serves is resolved,
// fetched, built and run.
func TestCargoBuildsAProgramFromTheStandIn(t *testing.T) {
	s := CratesIO(t)
	c := newCargoLife(t, s.Index(), s.CA())
	began := time.Now()
	c.run("generate-lockfile")
	figures := FiguresOf(t, c.folder)
	t.Logf("resolved in %.1f s: %s", time.Since(began).Seconds(), figures)
	if figures.Crates < 60 || figures.ProcMacros < 5 || figures.BuildScripts < 10 {
		t.Error("the program has lost what it is there to show")
	}
	began = time.Now()
	c.run("fetch", "--locked")
	t.Logf("fetched in %.1f s, after %d requests", time.Since(began).Seconds(), len(s.Asked()))
	checkAsked(t, s, figures.Crates)
	compareWithCargo(t, c)

	plain := "http://" + s.plain + "/index/" + IndexPath("serde")
	body, err := s.indexText("serde")
	if err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	said := c.run("run", "--locked", "--offline", "--quiet", "--", "--manifest", "Cargo.toml", "--fetch", plain)
	t.Logf("built and run in %.1f s", time.Since(began).Seconds())
	if want := CargoProgramSays(t, len(body)); said != want {
		t.Errorf("the program printed\n%swant\n%s", said, want)
	}
}

func (s *CratesServer) indexText(name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	file := s.crates[name]
	if file == nil {
		return nil, errNoVersion
	}
	return file.bytes(), nil
}

// checkAsked: cargo asks over HTTP/2, for each crate once.
func checkAsked(t *testing.T, s *CratesServer, crates int) {
	t.Helper()
	downloads := 0
	for _, asked := range s.Asked() {
		if asked.Proto != "HTTP/2.0" || !strings.HasPrefix(asked.UserAgent, "cargo") {
			t.Errorf("%s was asked over %s by %q", asked.Path, asked.Proto, asked.UserAgent)
		}
		if strings.HasPrefix(asked.Path, "/crates/") {
			downloads++
		}
	}
	if downloads != crates {
		t.Errorf("%d downloads for %d crates", downloads, crates)
	}
}

// compareWithCargo holds the lines of the crates that the program has against what
// Cargo reads from the crates themselves.
func compareWithCargo(t *testing.T, c *cargoLife) {
	t.Helper()
	var metadata struct {
		Packages []cargoPackage
	}
	if err := json.Unmarshal([]byte(c.run("metadata", "--locked", "--offline", "--format-version=1")), &metadata); err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, p := range metadata.Packages {
		if p.Source == "" {
			continue
		}
		compared++
		one, ok := DebianCrates(t).Find(p.Name, p.Version)
		if !ok {
			t.Errorf("%s %s is not in the set", p.Name, p.Version)
			continue
		}
		if got, want := one.Line.depTexts(), p.depTexts(); !slices.Equal(got, want) {
			t.Errorf("%s: the index has the dependencies\n%s\nCargo reads\n%s", p.Name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if got, want := one.Line.allFeatures(), p.explicitFeatures(one.Line); !maps.EqualFunc(got, want, slices.Equal) {
			t.Errorf("%s: the index has the features\n%v\nCargo reads\n%v", p.Name, got, want)
		}
		if p.Links != one.Line.Links || p.RustVersion != one.Line.RustVersion {
			t.Errorf("%s: links %q and rust_version %q in the index, Cargo reads %q and %q", p.Name, one.Line.Links, one.Line.RustVersion, p.Links, p.RustVersion)
		}
		if p.hasKind("proc-macro") != one.ProcMacro || p.hasKind("custom-build") != one.BuildScript {
			t.Errorf("%s: is it a procedural macro? %v; does it have a build script? %v", p.Name, one.ProcMacro, one.BuildScript)
		}
	}
	if compared < 60 {
		t.Errorf("%d crates were compared", compared)
	}
}

type cargoPackage struct {
	Name, Version, Source, Links string
	RustVersion                  string `json:"rust_version"`
	Features                     map[string][]string
	Dependencies                 []struct {
		Name, Req, Kind, Rename, Target string
		Optional                        bool
		DefaultFeatures                 bool `json:"uses_default_features"`
		Features                        []string
	}
	Targets []struct{ Kind []string }
}

func (p cargoPackage) hasKind(kind string) bool {
	for _, target := range p.Targets {
		if slices.Contains(target.Kind, kind) {
			return true
		}
	}
	return false
}

func (p cargoPackage) depTexts() (texts []string) {
	for _, d := range p.Dependencies {
		kind, name, real := d.Kind, d.Name, ""
		if kind == "" {
			kind = "normal"
		}
		if d.Rename != "" {
			name, real = d.Rename, d.Name
		}
		texts = append(texts, fmt.Sprint(kind, " ", name, " ", real, " ", d.Req, " ", d.Target, " ", d.Optional, d.DefaultFeatures, d.Features))
	}
	slices.Sort(texts)
	return texts
}

func (l IndexLine) depTexts() (texts []string) {
	for _, d := range l.Deps {
		target := ""
		if d.Target != nil {
			target = *d.Target
		}
		texts = append(texts, fmt.Sprint(d.Kind, " ", d.Name, " ", d.Package, " ", d.Req, " ", target, " ", d.Optional, d.DefaultFeatures, d.Features))
	}
	slices.Sort(texts)
	return texts
}

func (l IndexLine) allFeatures() map[string][]string {
	all := maps.Clone(l.Features)
	maps.Copy(all, l.Features2)
	return all
}

// explicitFeatures are without those that optional dependencies imply, which Cargo writes out.
func (p cargoPackage) explicitFeatures(l IndexLine) map[string][]string {
	written := l.allFeatures()
	explicit := maps.Clone(p.Features)
	maps.DeleteFunc(explicit, func(name string, values []string) bool {
		_, known := written[name]
		return !known && slices.Equal(values, []string{"dep:" + name})
	})
	return explicit
}

// Every version of the set is one that cargo can choose.
func TestCargoFetchesAllThatTheStandInHas(t *testing.T) {
	s := CratesIO(t)
	c := newCargoLife(t, s.Index(), s.CA())
	if err := os.RemoveAll(c.folder); err != nil {
		t.Fatal(err)
	}
	WideProgram(t, c.folder)
	began := time.Now()
	c.run("fetch")
	figures := FiguresOf(t, c.folder)
	t.Logf("%s: fetched in %.1f s, %+v at once", figures, time.Since(began).Seconds(), s.Most())
	if figures.Crates != len(DebianCrates(t).All) {
		t.Errorf("the set has %d crates", len(DebianCrates(t).All))
	}
	compareWithCargo(t, c)
}

func TestTheStaticTreeIsTheSame(t *testing.T) {
	s := CratesIO(t)
	for _, secure := range []bool{false, true} {
		static := s.Static(t, secure)
		c := newCargoLife(t, static.Index, static.CA)
		c.run("fetch")
		if figures := FiguresOf(t, c.folder); figures.Crates < 60 {
			t.Errorf("secure %v: %s", secure, figures)
		}
	}
	if asked := s.Asked(); len(asked) > 0 {
		t.Errorf("the stand-in was asked for %s", asked[0].Path)
	}
}

// All that cargo fetches passes a distance, downloads too.
func TestCargoFetchesOverADistance(t *testing.T) {
	s := CratesIO(t)
	d := NewDistance(t, s.Address(), 20*time.Millisecond)
	c := newCargoLife(t, s.IndexAt(d.Address()), s.CA())
	began := time.Now()
	c.run("fetch")
	figures := FiguresOf(t, c.folder)
	t.Logf("%s: fetched in %.1f s over %d connections", figures, time.Since(began).Seconds(), d.Connections())
	if d.Connections() == 0 || figures.Crates < 60 {
		t.Error("cargo went another way")
	}
}

func TestADistanceDelaysAndHoldsNothingBack(t *testing.T) {
	s := PlainCratesIO(t)
	const roundTrip = 100 * time.Millisecond
	d := NewDistance(t, s.Address(), roundTrip)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for i, atLeast := range []time.Duration{2 * roundTrip, roundTrip} { // the first one makes the connection
		began := time.Now()
		response := ask(t, client, "http://"+d.Address()+Download("ring", "0.16.20"))
		took := time.Since(began)
		crate, err := s.Crate("ring", "0.16.20")
		if err != nil || string(response.body) != string(crate) {
			t.Fatalf("another crate arrived, of %d bytes: %v", len(response.body), err)
		}
		if took < atLeast {
			t.Errorf("request %d was answered after %s", i, took)
		}
	}
	if d.Connections() != 1 {
		t.Errorf("%d connections", d.Connections())
	}
}
