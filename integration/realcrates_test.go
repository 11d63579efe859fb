package integration

import (
	"bytes"
	"cmp"
	"compress/zlib"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/pelletier/go-toml/v2"

	"phoenix-lab.org/aln-registry/registry/cargo"
)

// realCrates is the set: each is published, and the program needs them all.
var realCrates = []string{
	"adler", "ahash", "aho-corasick", "anyhow", "autocfg", "base64", "bitflags", "byteorder", "bytes", "cfg-if", "crc32fast",
	"either", "flate2", "fnv", "getrandom", "hashbrown", "hex", "humantime", "indexmap", "itertools", "itoa", "lazy_static",
	"libc", "lock_api", "log", "memchr", "miniz_oxide", "num-bigint", "num-integer", "num-traits", "once_cell", "parking_lot",
	"parking_lot_core", "ppv-lite86", "proc-macro2", "quote", "rand", "rand_chacha", "rand_core", "regex", "regex-syntax",
	"ryu", "scopeguard", "semver", "serde", "serde_derive", "serde_json", "smallvec", "syn", "thiserror", "thiserror-impl",
	"unicode-ident", "version_check",
}

// builtFirst are published as cargo does by default, building what was packaged:
// a chain of dependencies, build scripts and a procedural macro among them. The
// others are built once only, by the program.
var builtFirst = []string{"autocfg", "cfg-if", "crc32fast", "itoa", "num-traits", "proc-macro2", "quote", "thiserror-impl", "unicode-ident"}

// programFeatures is what the program asks of its direct dependencies beyond their defaults.
var programFeatures = map[string][]string{
	"anyhow": nil, "base64": nil, "bitflags": nil, "byteorder": nil, "bytes": nil, "flate2": nil, "fnv": nil, "hashbrown": nil, "hex": nil,
	"humantime": nil, "indexmap": {"serde"}, "itertools": nil, "lazy_static": nil, "log": nil, "num-bigint": {"rand", "serde"}, "once_cell": nil,
	"parking_lot": nil, "rand": nil, "regex": nil, "semver": {"serde"}, "serde": {"derive"}, "serde_json": {"preserve_order"}, "smallvec": nil, "thiserror": nil,
}

// The step's end: real crates, published with cargo, built by a stranger to
// their sources, and every one of them proved.
func TestRealCratesArePublishedBuiltAndVerified(t *testing.T) {
	l := newLab(t)
	publisher := l.operator
	publisher.extra = buildSettings(publisher)
	folder := filepath.Join(publisher.folder, "crates")
	set := debianCrates(t, folder, realCrates)
	order, err := publishOrder(set)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for _, s := range order {
		publisher.login(l, s.folder)
		publishReal(t, publisher, s)
	}
	t.Logf("published in %.0f s", time.Since(began).Seconds())

	token, kinds := publisher.session("read", 0), map[string]int{}
	dependent := 0
	for _, s := range order {
		line := indexLine(t, l, publisher, token, s)
		metadata := metadataOf(t, publisher, s)
		compareLine(t, l, line, metadata)
		if slices.ContainsFunc(line.Deps, func(d cargo.Dep) bool { return set[d.PackageName()] != nil }) {
			dependent++
		}
		for _, kind := range metadata.kinds() {
			kinds[kind]++
		}
	}
	t.Logf("%d crates in the index, %d depend on others of them, %d procedural macros, %d build scripts", len(order), dependent, kinds["proc-macro"], kinds["custom-build"])
	if len(order) < 50 || dependent < 30 || kinds["proc-macro"] < 2 || kinds["custom-build"] < 15 {
		t.Error("the set has lost what it is there to show")
	}
	reader := l.newMember()
	reader.extra = buildSettings(reader)
	buildOnRealCrates(t, l, reader, set)
	publisher.login(l, publisher.folder)
	checked := must(t, publisher.aln(publisher.folder, "log", "check", "--full"))
	t.Logf("%s", checked)
}

// buildSettings keep builds short, since it is the registry that is on trial,
// and the compiler the machine's own: some crates bring a rust-toolchain file,
// at which rustup would go and fetch another.
func buildSettings(u *user) []string {
	sysroot := strings.TrimSpace(must(u.t, u.run(u.folder, "rustc", "--print", "sysroot")).stdout)
	return []string{"RUSTUP_TOOLCHAIN=" + sysroot, "CARGO_PROFILE_DEV_DEBUG=0", "CARGO_PROFILE_DEV_OPT_LEVEL=0", "CARGO_PROFILE_DEV_BUILD_OVERRIDE_OPT_LEVEL=0"}
}

func publishReal(t *testing.T, u *user, s *source) {
	t.Helper()
	args := []string{"publish", "--registry", "aln", "--target-dir", filepath.Join(u.folder, "target")}
	if !slices.Contains(builtFirst, s.name) {
		args = append(args, "--no-verify")
	}
	published := must(t, u.cargo(s.folder, args...))
	wantSays(t, published.stderr, "published as bafkrei", "Published "+s.name+" v"+s.version+" at registry `aln`")
	if verified := strings.Contains(published.stderr, "Verifying "+s.name+" v"+s.version); verified != slices.Contains(builtFirst, s.name) {
		t.Errorf("verified is %t:\n%s", verified, published)
	}
}

// indexLine is what the registry serves of s: one line, about the bytes that cargo made.
func indexLine(t *testing.T, l *lab, u *user, token string, s *source) cargo.Line {
	t.Helper()
	status, _, body := l.get("/index/"+cargo.IndexPath(s.name), token)
	if status != http.StatusOK || bytes.Count(body, []byte("\n")) != 1 {
		t.Fatalf("index of %s: %d %s", s.name, status, body)
	}
	line, err := cargo.ParseLine(body)
	if err != nil {
		t.Fatalf("index of %s: %v", s.name, err)
	}
	crate, err := os.ReadFile(filepath.Join(u.folder, "target", "package", "tmp-crate", s.name+"-"+s.version+".crate"))
	if err != nil {
		t.Fatal(err)
	}
	if line.Name != s.name || line.Vers != s.version || line.Cksum != hexDigest(crate) || line.Yanked {
		t.Errorf("index of %s %s, of which cargo made %s: %s", s.name, s.version, hexDigest(crate), body)
	}
	return line
}

// packageMetadata is a package as `cargo metadata` describes it.
type packageMetadata struct {
	Name         string                `json:"name"`
	Links        *string               `json:"links"`
	RustVersion  *string               `json:"rust_version"`
	Features     map[string][]string   `json:"features"`
	Dependencies []packageMetadataDep  `json:"dependencies"`
	Targets      []packageMetadataKind `json:"targets"`
}

type packageMetadataDep struct {
	Name            string   `json:"name"`
	Req             string   `json:"req"`
	Kind            *string  `json:"kind"`
	Rename          *string  `json:"rename"`
	Optional        bool     `json:"optional"`
	DefaultFeatures bool     `json:"uses_default_features"`
	Features        []string `json:"features"`
	Target          *string  `json:"target"`
	Registry        *string  `json:"registry"`
}

type packageMetadataKind struct {
	Kind []string `json:"kind"`
}

func metadataOf(t *testing.T, u *user, s *source) packageMetadata {
	t.Helper()
	var metadata struct {
		Packages []packageMetadata `json:"packages"`
	}
	out := must(t, u.cargo(s.folder, "metadata", "--no-deps", "--offline", "--format-version=1")).stdout
	if err := json.Unmarshal([]byte(out), &metadata); err != nil || len(metadata.Packages) != 1 {
		t.Fatalf("cargo metadata of %s: %v\n%s", s.name, err, out)
	}
	return metadata.Packages[0]
}

func (m packageMetadata) kinds() []string {
	var kinds []string
	for _, target := range m.Targets {
		kinds = append(kinds, target.Kind...)
	}
	return slices.Compact(slices.Sorted(slices.Values(kinds)))
}

// compareLine checks that the index tells cargo what the sources do.
func compareLine(t *testing.T, l *lab, line cargo.Line, m packageMetadata) {
	t.Helper()
	want := make([]cargo.Dep, len(m.Dependencies))
	for i, d := range m.Dependencies {
		want[i] = d.inIndex(l)
	}
	byAll := func(a, b cargo.Dep) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(orEmpty(a.Target), orEmpty(b.Target)))
	}
	got := slices.SortedFunc(slices.Values(line.Deps), byAll)
	slices.SortFunc(want, byAll)
	if len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
		t.Errorf("%s: the index has the dependencies\n%+v, its sources\n%+v", m.Name, got, want)
	}
	features := maps.Clone(line.Features)
	maps.Copy(features, line.Features2)
	named := slices.Concat(slices.Collect(maps.Values(features))...)
	for name := range m.Features { // cargo metadata writes out the features that optional dependencies imply
		_, explicit := features[name]
		if !explicit && slices.Equal(m.Features[name], []string{"dep:" + name}) && !slices.Contains(named, "dep:"+name) {
			delete(m.Features, name)
		}
	}
	if !reflect.DeepEqual(features, m.Features) {
		t.Errorf("%s: the index has the features\n%v, its sources\n%v", m.Name, features, m.Features)
	}
	if orEmpty(line.Links) != orEmpty(m.Links) || orEmpty(line.RustVersion) != orEmpty(m.RustVersion) {
		t.Errorf("%s: links %q and rust_version %q, in its sources %q and %q", m.Name, orEmpty(line.Links), orEmpty(line.RustVersion), orEmpty(m.Links), orEmpty(m.RustVersion))
	}
}

// inIndex is d as the lab's index has to put it.
func (d packageMetadataDep) inIndex(l *lab) cargo.Dep {
	dep := cargo.Dep{
		Name: d.Name, Req: d.Req, Features: d.Features, Optional: d.Optional, DefaultFeatures: d.DefaultFeatures,
		Target: d.Target, Kind: cmp.Or(orEmpty(d.Kind), cargo.KindNormal), Registry: d.Registry,
	}
	if d.Rename != nil {
		dep.Name, dep.Package = *d.Rename, &d.Name
	}
	if orEmpty(d.Registry) == "sparse+"+l.url+"/index/" {
		dep.Registry = nil // the index itself
	}
	return dep
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// buildOnRealCrates builds and runs the program as u, whose CARGO_HOME holds
// nothing but settings, and proves everything that its Cargo.lock names.
func buildOnRealCrates(t *testing.T, l *lab, u *user, set map[string]*source) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(u.cargoHome, "registry")); err == nil {
		t.Fatal("the CARGO_HOME is not empty")
	}
	app := programFolder(t, u, set)
	u.login(l, app)
	mustFail(t, u.cargo(app, "build", "--offline"), "offline") // nothing is on this machine yet
	const input = `{"crate-name":"demo","version":"1.2.3+b","features":{"zeta":["a","b"],"alpha":[]}}`
	began := time.Now()
	ran := must(t, u.cargo(app, "run", "--quiet", "--", input))
	t.Logf("fetched, built and run in %.0f s", time.Since(began).Seconds())
	checkAnswer(t, ran.stdout, input)

	names, chain := readLock(t, filepath.Join(app, "Cargo.lock"), "sparse+"+l.url+"/index/")
	if !slices.Equal(names, slices.Sorted(maps.Keys(set))) {
		t.Errorf("Cargo.lock has of the registry %v, published are %v", names, slices.Sorted(maps.Keys(set)))
	}
	t.Logf("longest chain in Cargo.lock: %s", strings.Join(chain, " → "))
	if len(chain) < 6 {
		t.Errorf("the longest chain is %v", chain)
	}
	began = time.Now()
	verified := must(t, u.aln(app, "verify", "Cargo.lock"))
	t.Logf("verified in %.0f s", time.Since(began).Seconds())
	wantSays(t, verified.stdout, fmt.Sprintf("%d verified, 0 failed", len(set)))
}

// programFolder writes the program's package.
func programFolder(t *testing.T, u *user, set map[string]*source) string {
	t.Helper()
	program, err := os.ReadFile("testdata/realcrates/main.rs")
	if err != nil {
		t.Fatal(err)
	}
	manifest := "[package]\nname = \"program\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[dependencies]\n"
	for _, name := range slices.Sorted(maps.Keys(programFeatures)) {
		manifest += fmt.Sprintf("%s = { version = %q, registry = \"aln\"", name, set[name].version)
		if features := programFeatures[name]; features != nil {
			manifest += fmt.Sprintf(", features = [\"%s\"]", strings.Join(features, `", "`))
		}
		manifest += " }\n"
	}
	folder := filepath.Join(u.folder, "program")
	writeFiles(t, folder, map[string]string{"Cargo.toml": manifest, "src/main.rs": string(program)})
	return folder
}

// readLock gives the names of all packages in a Cargo.lock but the program,
// each of which must come from index with a checksum, and the longest chain of
// dependencies among them.
func readLock(t *testing.T, path, index string) (names, longest []string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var lock struct {
		Package []struct {
			Name, Version, Source, Checksum string
			Dependencies                    []string
		}
	}
	if err := toml.Unmarshal(raw, &lock); err != nil {
		t.Fatal(err)
	}
	needs := map[string][]string{}
	for _, p := range lock.Package {
		needs[p.Name] = p.Dependencies
		if p.Name == "program" {
			continue
		}
		names = append(names, p.Name)
		if p.Source != index || len(p.Checksum) != 64 {
			t.Errorf("%s %s comes from %q with the checksum %q", p.Name, p.Version, p.Source, p.Checksum)
		}
	}
	chains := map[string][]string{} // a lock has no cycles
	var chain func(name string) []string
	chain = func(name string) []string {
		if _, known := chains[name]; !known {
			var best []string
			for _, need := range needs[name] {
				if c := chain(need); len(c) > len(best) {
					best = c
				}
			}
			chains[name] = append([]string{name}, best...)
		}
		return chains[name]
	}
	for _, name := range names {
		if c := chain(name); len(c) > len(longest) {
			longest = c
		}
	}
	slices.Sort(names)
	return names, longest
}

// checkAnswer compares what the program printed with what Go makes of the same.
func checkAnswer(t *testing.T, stdout, input string) {
	t.Helper()
	const text = "The log holds every record, and every record holds the Log."
	var answer struct {
		Zlib string `json:"zlib"`
	}
	if err := json.Unmarshal([]byte(stdout), &answer); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	packed, err := base64.StdEncoding.DecodeString(answer.Zlib)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := zlib.NewReader(bytes.NewReader(packed)); err != nil {
		t.Error(err)
	} else if unpacked, err := io.ReadAll(r); err != nil || string(unpacked) != text {
		t.Errorf("unpacked %q, %v", unpacked, err)
	}
	hash := fnv.New64a()
	hash.Write([]byte(text))
	words := regexp.MustCompile(`(?i)\b[a-z]{4,}\b`).FindAllString(text, -1)
	if len(words) != 6 {
		t.Fatalf("words %q", words)
	}
	want := fmt.Sprintf(`{"manifest":%s,"words":{"holds":2,"every":2,"record":2},"longest":"record every holds","factorial":"%s","zlib":"%s","fnv":"%s",`+
		`"big_endian":%d,"seconds":3723,"modes":6,"failure":"forty is not a number","sum":55,"distinct":2,"pretty":"crate-name,version,features"}`+"\n",
		input, new(big.Int).MulRange(1, 40), answer.Zlib, hex.EncodeToString(hash.Sum(nil)), 0x0a0b0c0d)
	if stdout != want {
		t.Errorf("the program printed\n%swant\n%s", stdout, want)
	}
}
