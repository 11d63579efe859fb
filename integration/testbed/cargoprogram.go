package testbed

import (
	"crypto/sha256"
	"embed"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

//go:embed cargoprogram
var cargoProgram embed.FS

// CargoProgram writes a program of ours into folder that is built from crates of
// DebianCrates: more than sixty in its Cargo.lock, procedural macros and build
// scripts among them, none that asks for a compiler of C. It is run as
// `cargo run -- --manifest Cargo.toml [--fetch URL]`, and prints CargoProgramSays.
func CargoProgram(t testing.TB, folder string) {
	t.Helper()
	sources, err := fs.Sub(cargoProgram, "cargoprogram")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(folder, sources); err != nil {
		t.Fatal(err)
	}
}

// WideProgram writes a library into folder that depends on every version of
// DebianCrates, to be resolved and fetched; it is not there to be built.
func WideProgram(t testing.TB, folder string) {
	t.Helper()
	manifest := []byte("[package]\nname = \"wide\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\n")
	for i, one := range DebianCrates(t).All {
		version, _, _ := strings.Cut(one.Line.Vers, "+")
		manifest = fmt.Appendf(manifest, "d%d = { package = %q, version = \"=%s\" }\n", i, one.Line.Name, version)
	}
	if err := os.MkdirAll(filepath.Join(folder, "src"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"Cargo.toml": manifest, "src/lib.rs": nil} {
		if err := os.WriteFile(filepath.Join(folder, filepath.FromSlash(name)), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// CargoProgramSays is what the program has to print if fetched bytes were at the URL.
func CargoProgramSays(t testing.TB, fetched int) string {
	t.Helper()
	var m struct{ Dependencies map[string]any }
	text, err := cargoProgram.ReadFile("cargoprogram/Cargo.toml")
	if err != nil {
		t.Fatal(err)
	}
	if err := toml.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	const said = "The log holds every record, and every record holds the Log."
	return fmt.Sprintf(`{"dependencies":%d,"sha256":"%x","factorial":"%s","words":3,"squares":333833500,"colours":"Red Green","graphemes":2,`+
		`"unpacked":"%s","host":"example.org","newer":true,"files":1,"sum":110,"failure":"forty is not a number","fetched":%d}`+"\n",
		len(m.Dependencies), sha256.Sum256([]byte(said)), new(big.Int).MulRange(1, 30), said, fetched)
}

// LockFigures are what a Cargo.lock has of crates from a registry, of which the
// stand-in knows procedural macros and build scripts.
type LockFigures struct{ Crates, ProcMacros, BuildScripts int }

func (f LockFigures) String() string {
	return fmt.Sprintf("%d crates in Cargo.lock, %d procedural macros, %d build scripts", f.Crates, f.ProcMacros, f.BuildScripts)
}

// FiguresOf reads the Cargo.lock in folder; crates that DebianCrates does not have
// with that checksum fail the test.
func FiguresOf(t testing.TB, folder string) LockFigures {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "Cargo.lock"))
	if err != nil {
		t.Fatal(err)
	}
	var lock struct {
		Package []struct{ Name, Version, Source, Checksum string }
	}
	if err := toml.Unmarshal(text, &lock); err != nil {
		t.Fatal(err)
	}
	set, figures := DebianCrates(t), LockFigures{}
	for _, p := range lock.Package {
		if p.Source == "" {
			continue
		}
		one, ok := set.Find(p.Name, p.Version)
		if !ok || one.Line.Cksum != p.Checksum || !strings.HasPrefix(p.Source, "registry+") && !strings.HasPrefix(p.Source, "sparse+") {
			t.Errorf("the lock has %s %s of %s with checksum %s", p.Name, p.Version, p.Source, p.Checksum)
		}
		figures.Crates++
		if one.ProcMacro {
			figures.ProcMacros++
		}
		if one.BuildScript {
			figures.BuildScripts++
		}
	}
	return figures
}
