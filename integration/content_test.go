package integration

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/registry/content"
)

// Real crates that hold no BLAKE3, its relatives among them.
var (
	otherHashes = []string{"sha2", "sha2-asm", "blake2-rfc", "blake2b_simd", "blake2s_simd", "digest", "block-buffer", "crypto-common", "generic-array", "constant_time_eq"}
	ordinary    = slices.Concat(otherHashes, realCrates)
)

// crateFrom packs what keep tells of folder as a .crate, all where it is nil.
func crateFrom(t *testing.T, folder string, keep func(path string) bool) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	n := 0
	err := fs.WalkDir(os.DirFS(folder), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || keep != nil && !keep(path) {
			return err
		}
		data, err := os.ReadFile(filepath.Join(folder, path))
		if err != nil {
			return err
		}
		n++
		if err := w.WriteHeader(&tar.Header{Name: "it-1.0.0/" + path, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []interface{ Close() error }{w, z} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n == 0 {
		t.Fatalf("%s has no such file", folder)
	}
	return b.Bytes()
}

func wantFound(t *testing.T, name string, crate []byte, want bool) {
	t.Helper()
	found, err := content.Crate(bytes.NewReader(crate), content.Limits{})
	if err != nil || (len(found) == 1) != want {
		t.Errorf("%s: found %v, %v, want it found: %t", name, found, err, want)
	}
}

func TestBLAKE3IsRecognisedInRealCode(t *testing.T) {
	folder := installedCrates(t, []string{"blake3"})["blake3"]
	whole := crateFrom(t, folder, nil)
	wantFound(t, "blake3", whole, true)
	for name, keep := range map[string]func(string) bool{
		"what is in Rust":       func(path string) bool { return strings.HasPrefix(path, "src/") && path != "src/test.rs" },
		"the table alone":       func(path string) bool { return path == "src/lib.rs" },
		"the specification's":   func(path string) bool { return strings.HasSuffix(path, "reference_impl.rs") },
		"what is in C":          func(path string) bool { return strings.HasPrefix(path, "c/") && !strings.HasSuffix(path, ".py") },
		"a patch to make it of": func(path string) bool { return path == "debian/patches/add-reference-impl" },
	} {
		wantFound(t, name, crateFrom(t, folder, keep), true)
	}
	// A copy within another crate, as it is or packed.
	other := t.TempDir()
	for path, data := range map[string][]byte{"Cargo.toml": nil, "src/vendor/hashing.crate": whole} {
		if err := os.MkdirAll(filepath.Join(other, filepath.Dir(path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(other, path), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	wantFound(t, "a crate in a crate", crateFrom(t, other, nil), true)
}

// Without optimisation: with it the rounds are unrolled and no table is left.
func TestBLAKE3IsRecognisedInWhatACompilerMakes(t *testing.T) {
	folder, out := installedCrates(t, []string{"blake3"})["blake3"], t.TempDir()
	object := filepath.Join(out, "portable.o")
	compile := exec.Command("cc", "-O0", "-c", "-o", object, filepath.Join(folder, "c", "blake3_portable.c"))
	if printed, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, printed)
	}
	wantFound(t, "an object file", crateFrom(t, out, nil), true)
}

func TestRealCratesHoldNoBLAKE3(t *testing.T) {
	for name, folder := range installedCrates(t, ordinary) {
		wantFound(t, name, crateFrom(t, folder, nil), false)
	}
}
