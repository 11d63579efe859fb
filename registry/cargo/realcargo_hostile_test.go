package cargo

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// accepts runs cargo and tells whether it succeeded, with what it printed.
func accepts(t *testing.T, dir string, args ...string) (bool, string) {
	t.Helper()
	out, err := cargoCommand(t, dir, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("cargo must be installed to run these tests: %v", err)
	}
	return err == nil, string(out)
}

// fromRegistry is a project that depends on demo 1, to be found in a local
// registry which holds that crate with the given index line's dependencies.
func fromRegistry(t *testing.T, crate []byte, deps string) string {
	t.Helper()
	dir, sum := t.TempDir(), sha256.Sum256(crate)
	writeTree(t, dir, map[string]string{
		"Cargo.toml":                 "[workspace]\n[package]\nname = \"user\"\nversion = \"1.0.0\"\nedition = \"2021\"\n[dependencies]\ndemo = \"1\"\n",
		"src/lib.rs":                 "",
		"registry/index/de/mo/demo":  `{"name":"demo","vers":"1.0.0","deps":[` + deps + `],"cksum":"` + hex.EncodeToString(sum[:]) + `","features":{},"yanked":false}` + "\n",
		"registry/demo-1.0.0.crate":  string(crate),
		"registry/index/ot/he/other": `{"name":"other","vers":"1.0.0","deps":[],"cksum":"` + cksumHex + `","features":{},"yanked":false}` + "\n",
		".cargo/config.toml":         "[source.crates-io]\nreplace-with = \"here\"\n[source.here]\nlocal-registry = \"registry\"\n",
	})
	return dir
}

// What cargo unpacks of these is not what their headers say by the standard, so
// whoever reads a crate in another way than cargo sees other files than cargo builds.
func TestRealCargoUnpacksHostileCratesOtherwise(t *testing.T) {
	t.Parallel() // most of the time is cargo's
	old := func(e []byte) []byte { return with(e, 257, strings.Repeat("\x00", 8)) }
	lib, evil := file("src/lib.rs", "pub fn seen() {}\n"), "pub fn smuggled() {}\n"
	for name, entries := range map[string][][]byte{
		"an old long name":     {lib, old(entry('L', root+"z", root+"notes.txt\x00")), file("src/lib.rs", evil)},
		"an old PAX path":      {lib, old(entry('x', root+"z", record("path", root+"notes.txt"))), file("src/lib.rs", evil)},
		"a PAX path in a name": {lib, entry('x', "x", record("uname", "x\n"+strings.TrimSuffix(record("path", root+"src/lib.rs"), "\n"))), file("notes.txt", evil)},
	} {
		crate := crateOf(append([][]byte{manifestEntry}, entries...)...)
		if _, err := inspectBytes(crate); !errors.Is(err, ErrTarball) {
			t.Errorf("%s: %v", name, err)
		}
		dir := fromRegistry(t, crate, "")
		fetch := cargoCommand(t, dir, "fetch", "--offline")
		home := t.TempDir()
		fetch.Env = append(fetch.Env, "CARGO_HOME="+home)
		if out, err := fetch.CombinedOutput(); err != nil {
			t.Fatalf("cargo fetch: %v (cargo must be installed to run these tests)\n%s", err, out)
		}
		found, err := filepath.Glob(filepath.Join(home, "registry", "src", "*", "demo-1.0.0", "src", "lib.rs"))
		if err != nil || len(found) != 1 {
			t.Fatalf("cargo unpacked %v, %v", found, err)
		}
		if got, err := os.ReadFile(found[0]); err != nil || string(got) != evil {
			t.Errorf("%s: cargo unpacks %q, %v", name, got, err)
		}
	}
}

// unpacked is what cargo makes of a crate: its files by their path below
// demo-1.0.0, without the mark that cargo sets itself; nil where it refuses.
func unpacked(t *testing.T, crate []byte) (files map[string]string, said string) {
	t.Helper()
	fetch := cargoCommand(t, fromRegistry(t, crate, ""), "fetch", "--offline")
	home := t.TempDir()
	fetch.Env = append(fetch.Env, "CARGO_HOME="+home)
	out, err := fetch.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("cargo must be installed to run these tests: %v", err)
	}
	if err != nil {
		return nil, string(out)
	}
	found, err := filepath.Glob(filepath.Join(home, "registry", "src", "*", "demo-1.0.0"))
	if err != nil || len(found) != 1 {
		t.Fatalf("cargo unpacked %v, %v", found, err)
	}
	files = map[string]string{}
	err = filepath.WalkDir(found[0], func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == ".cargo-ok" {
			return err
		}
		if !d.Type().IsRegular() {
			t.Errorf("cargo unpacks %s, which is %s", path, d.Type())
		}
		data, err := os.ReadFile(path)
		files[filepath.ToSlash(strings.TrimPrefix(path, found[0]+string(filepath.Separator)))] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files, string(out)
}

// standardFiles is what the standard library's reader sees in an archive.
func standardFiles(t *testing.T, tarBytes []byte) map[string]string {
	t.Helper()
	files := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(tarBytes)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatalf("archive/tar refuses what is accepted here: %v", err)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(h.Name, root)] = string(data)
	}
}

// Of what is accepted at the edge of the rules, cargo unpacks what another
// reader sees: the same files, the same bytes.
func TestRealCargoUnpacksWhatIsAccepted(t *testing.T) {
	t.Parallel() // most of the time is cargo's
	lib := file("src/lib.rs", "pub fn it() {}\n")
	gnu := func(e []byte) []byte { return with(e, 257, "ustar  \x00") }
	far := root + strings.Repeat("d/", 15) + strings.Repeat("f", 200)
	for name, entries := range map[string][][]byte{
		"a GNU long name":              {entry('L', "././@LongLink", far+"\x00"), gnu(entry('0', far[:100], "long"))},
		"a GNU long name without NUL":  {entry('L', "././@LongLink", far), gnu(entry('0', far[:100], "long"))},
		"a long name before ustar":     {entry('L', "L", root+"b\x00"), with(entry('0', "x", "b"), 345, "demo-1.0.0/elsewhere")},
		"a long name of a folder":      {entry('L', "L", root+"folder/\x00"), entry('5', "x", ""), file("folder/a", "a")},
		"a PAX path":                   {entry('x', "x", record("path", far)), entry('0', "x", "pax")},
		"a PAX path before a prefix":   {entry('x', "x", record("path", root+"b")), with(entry('0', "x", "b"), 345, "demo-1.0.0/elsewhere")},
		"a PAX path with an = in it":   {entry('x', "x", record("path", root+"a=b=c")), entry('0', "x", "equal")},
		"a PAX path with spaces":       {entry('x', "x", record("path", root+" a  b")), entry('0', "x", "spaces")},
		"a PAX path of a folder":       {entry('x', "x", record("path", root+"folder/")), entry('5', "x", ""), file("folder/a", "a")},
		"PAX times and owners":         {entry('x', "x", record("mtime", "-1.25")+record("uid", "4294967295")+record("gname", "größe")), file("a", "pax")},
		"an empty PAX header":          {entry('x', "x", ""), file("a", "pax")},
		"a prefix":                     {with(entry('0', "a", "prefixed"), 345, "demo-1.0.0/p/q")},
		"a name of a hundred bytes":    {entry('0', root+strings.Repeat("n", 100-len(root)), "hundred")},
		"a name with more behind NUL":  {entry('0', root+"a\x00/../../../x", "hidden")},
		"a prefix with more behind":    {with(entry('0', "a", "hidden"), 345, "demo-1.0.0\x00/../../x")},
		"a link's name in a file":      {with(file("a", "file"), 157, "/etc/passwd")},
		"an old type of file":          {entry(0, root+"a", "old type")},
		"a GNU header":                 {gnu(file("a", "gnu"))},
		"a size behind spaces":         {with(file("a", "body"), 124, "          4\x00")},
		"a size before spaces":         {with(file("a", "body"), 124, "4          \x00")},
		"a size without an end":        {with(file("a", "body"), 124, "000000000004")},
		"a mode of special bits":       {with(file("a", "body"), 100, "0007777\x00")},
		"a mode that is empty":         {with(file("a", "body"), 100, strings.Repeat("\x00", 8))},
		"a time far away":              {with(file("a", "body"), 136, "77777777777\x00")},
		"a device in a file's header":  {with(file("a", "body"), 329, "0000001\x000000003\x00")},
		"padding that is not NULs":     {append(file("a", "body")[:blockBytes+4], bytes.Repeat([]byte{'x'}, blockBytes-4)...)},
		"folders said and not":         {entry('5', root, ""), entry('5', root+"s", ""), file("s/t/u", "deep"), entry('5', root+"s/t/", "")},
		"names of other scripts":       {file("docs/größe/日本.md", "x"), file("docs/emoji 🦀.md", "y")},
		"names that are nearly others": {file("cargo.toml.orig", "1"), file("con-fig", "2"), file("nulls.rs", "3"), file("~1", "4"), file("a~b.rs", "5"), file("backup.rs~1", "6"), file(".hidden", "7"), file("-rf", "8"), file("$HOME", "9"), file("%2e%2e", "10")},
		"blocks of NULs behind":        {make([]byte, 20*blockBytes)},
	} {
		t.Run(name, func(t *testing.T) {
			tarBytes := archive(append([][]byte{manifestEntry, lib}, entries...)...)
			crate, err := inspectBytes(gz(tarBytes))
			if err != nil {
				t.Fatal(err)
			}
			want := standardFiles(t, tarBytes)
			got, said := unpacked(t, gz(tarBytes))
			if !maps.Equal(got, want) || len(want) != crate.Files {
				t.Errorf("cargo unpacks %d files %q, another reader %q; we say %d; %s", len(got), got, want, crate.Files, said)
			}
		})
	}
}

// cargo takes the gzip headers that are taken here.
func TestRealCargoReadsTheGzipHeadersThatAreAccepted(t *testing.T) {
	t.Parallel() // most of the time is cargo's
	tarBytes := archive(manifestEntry, file("src/lib.rs", ""))
	for name, c := range gzipHeaders {
		if !c.ok {
			continue
		}
		if files, said := unpacked(t, member(c.header, tarBytes, 0, 0)); len(files) != 2 {
			t.Errorf("%s: cargo unpacks %q: %s", name, files, said)
		}
	}
}

func TestRealCargoReadsNoReservedGzipFlags(t *testing.T) {
	t.Parallel() // most of the time is cargo's
	for _, flag := range []byte{0, 1 << 5, 1 << 6, 1 << 7} {
		crate := crateOf(manifestEntry, file("src/lib.rs", ""))
		crate[3] |= flag
		_, ours := inspectBytes(crate)
		if ok, out := accepts(t, fromRegistry(t, crate, ""), "fetch", "--offline"); ok != (ours == nil) {
			t.Errorf("flag %#x: we say %v; cargo says %s", flag, ours, out)
		}
	}
}

// The targets that this package refuses are those for which cargo refuses the manifest.
func TestTargetsAgreeWithRealCargo(t *testing.T) {
	t.Parallel() // most of the time is cargo's
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"src/lib.rs": ""})
	accepted, refused := 0, 0
	for _, target := range []string{
		"x86_64-unknown-linux-gnu", "thumbv8m.main-none-eabi", "cfg(unix)", "cfg( unix )", "cfg(_x9)", "cfg(true)", "cfg(false)", "cfg(not(false))", `cfg(a = "")`, `cfg(a="b,c)(")`,
		"cfg(all())", "cfg(any(a,))", "cfg(all(a, any(b, not(c)), d = \"e\"))", "cfg(not(not(a)))", "cfg(r#a)", `cfg(r#a = "b")`, "cfg(r#true)", "cfg(r#all)", "cfg(r)", "cfg(nota)", "cfg(all (a))",
		"cfg()", "cfg(a b)", `cfg("a")`, "cfg(a", "cfg(a))", "cfg(a) ", "cfg((a))", "cfg(not())", "cfg(not(a,))", "cfg(not(a, b))", "cfg(all)", `cfg(all = "a")`, "cfg(all(,))", "cfg(all(a,,))",
		"cfg(all(a b))", "cfg(all(a)", "cfg(a = b)", "cfg(a =)", `cfg(a = "b)`, `cfg(= "b")`, "cfg(9a)", "cfg(a-b)", "cfg(é)", "cfg(a\u00a0)", "cfg(r#)", "cfg(r#9)", "cfg(r#all(a))", "cfg(a,)", `cfg(a == "b")`,
		"cfg (a)", "a b", "a(b)", `cfg(a = "b" = "c")`, `cfg(a("b"))`,
	} {
		table := "[target.'" + target + "'.dependencies]\nb = \"1\"\n"
		writeTree(t, dir, map[string]string{"Cargo.toml": "[workspace]\n" + demoManifest + "edition = \"2021\"\n" + table})
		ok, out := accepts(t, dir, "metadata", "--no-deps", "--offline", "--format-version=1")
		if _, ours := parseDemo(table); ok != (ours == nil) {
			t.Errorf("%s: we say %v; cargo says %s", target, ours, out)
		}
		if ok {
			accepted++
		} else {
			refused++
		}
	}
	if accepted < 15 || refused < 20 {
		t.Errorf("cargo accepted %d targets and refused %d: the cases no longer tell anything", accepted, refused)
	}
}

// A line with a cfg that cargo cannot read is lost with all that it says.
func TestRealCargoDropsLinesWithBadTargets(t *testing.T) {
	t.Parallel() // most of the time is cargo's
	for target, want := range map[string]bool{"cfg(unix)": true, "cfg(foo bar)": false} {
		dep := `{"name":"other","req":"^1","features":[],"optional":false,"default_features":true,"target":"` + target + `","kind":"normal"}`
		if ok, out := accepts(t, fromRegistry(t, nil, dep), "generate-lockfile", "--offline"); ok != want {
			t.Errorf("%s: %t, %s", target, ok, out)
		}
	}
}

// Features in a circle are refused as far as cargo refuses them: where one includes itself.
func TestFeatureCyclesAgreeWithRealCargo(t *testing.T) {
	t.Parallel() // most of the time is cargo's
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"src/lib.rs": ""})
	for table, want := range map[string]bool{`a = ["a"]`: false, "a = [\"b\"]\nb = [\"a\", \"b\"]": false, "a = [\"b\"]\nb = [\"a\"]": true, "a = [\"b\"]\nb = [\"c\"]\nc = [\"a\"]\ndefault = [\"a\"]": true} {
		table = "[features]\n" + table
		writeTree(t, dir, map[string]string{"Cargo.toml": "[workspace]\n" + demoManifest + "edition = \"2021\"\n" + table})
		ok, out := accepts(t, dir, "metadata", "--offline", "--format-version=1")
		if _, ours := parseDemo(table); ok != want || (ours == nil) != want {
			t.Errorf("%s: we say %v; cargo says %s", table, ours, out)
		}
	}
}

// An optional dependency of a crate on itself is refused here too, though cargo
// notices it only when it is enabled.
func TestSelfDependenciesAgreeWithRealCargo(t *testing.T) {
	t.Parallel() // most of the time is cargo's
	for _, c := range []struct {
		kind, req string
		want      bool
	}{{KindNormal, "^1", false}, {KindBuild, "*", false}, {KindNormal, "^0.9", true}, {KindDev, "^1", true}} {
		dep := `{"name":"demo","req":"` + c.req + `","features":[],"optional":false,"default_features":true,"target":null,"kind":"` + c.kind + `"}`
		dir := fromRegistry(t, nil, dep)
		older := `{"name":"demo","vers":"0.9.0","deps":[],"cksum":"` + cksumHex + `","features":{},"yanked":false}` + "\n"
		index := filepath.Join(dir, "registry", "index", "de", "mo", "demo")
		line, err := os.ReadFile(index)
		if err != nil {
			t.Fatal(err)
		}
		writeTree(t, dir, map[string]string{"registry/index/de/mo/demo": older + string(line)})
		table := map[string]string{KindNormal: "dependencies", KindBuild: "build-dependencies", KindDev: "dev-dependencies"}[c.kind]
		crate, err := parseDemo("[" + table + "]\ndemo = { version = \"" + c.req + "\", registry-index = \"" + ownIndex + "\" }\n")
		if err != nil {
			t.Fatal(err)
		}
		ours := crate.checkLine(settings)
		if ok, out := accepts(t, dir, "generate-lockfile", "--offline"); ok != c.want || (ours == nil) != c.want {
			t.Errorf("%s %s: we say %v; cargo says %s", c.kind, c.req, ours, out)
		}
	}
}
