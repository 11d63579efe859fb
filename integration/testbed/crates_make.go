package testbed

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"time"
)

// Version is a version to be added to a CratesServer.
type Version struct {
	Line  IndexLine
	Crate []byte
}

var versionKey = regexp.MustCompile(`(?m)^version *= *"[^"]*"`)

// Rerelease is one under another version, published at another time: the same
// sources with that version in their manifest, the same dependencies.
func Rerelease(one Crate, version string, published time.Time) (Version, error) {
	raw, err := os.ReadFile(one.File)
	if err != nil {
		return Version{}, err
	}
	unpacked, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return Version{}, err
	}
	top := one.Line.Name + "-" + one.Line.Vers + "/"
	contents := map[string][]byte{}
	var names []string
	for archive := tar.NewReader(unpacked); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Version{}, err
		}
		name := strings.TrimPrefix(header.Name, top)
		if contents[name], err = io.ReadAll(archive); err != nil {
			return Version{}, err
		}
		names = append(names, name)
	}
	at := versionKey.FindIndex(contents["Cargo.toml"]) // [package] is the first table
	if at == nil {
		return Version{}, fmt.Errorf("testbed: no version in the manifest of %s", one.File)
	}
	manifest := contents["Cargo.toml"]
	contents["Cargo.toml"] = fmt.Appendf(nil, "%sversion = %q%s", manifest[:at[0]], version, manifest[at[1]:])
	release := Version{Line: one.Line}
	release.Crate, err = packFiles(one.Line.Name+"-"+version, names, func(name string) ([]byte, error) { return contents[name], nil })
	release.Line.Vers, release.Line.Pubtime, release.Line.Cksum = version, published.UTC().Format(pubtimeLayout), sumOf(release.Crate)
	return release, err
}

// MakeCrate is a library that does nothing and has, beside, size bytes that do not
// compress; what it is follows from its arguments.
func MakeCrate(name, version string, size int, seed uint64, deps ...IndexDep) Version {
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24), byte(len(name)), byte(len(version))})
	noise := make([]byte, size)
	_, _ = rng.Read(noise) // never fails
	manifest := fmt.Sprintf("[package]\nname = %q\nversion = %q\nedition = \"2021\"\n", name, version)
	for _, d := range deps {
		manifest += fmt.Sprintf("[dependencies.%s]\nversion = %q\n", d.Name, d.Req)
	}
	contents := map[string][]byte{"Cargo.toml": []byte(manifest), "src/lib.rs": nil, "noise": noise}
	crate, err := packFiles(name+"-"+version, []string{"Cargo.toml", "noise", "src/lib.rs"}, func(name string) ([]byte, error) { return contents[name], nil })
	if err != nil {
		panic(err) // nothing is read or written outside of memory
	}
	return Version{Crate: crate, Line: IndexLine{
		Name: name, Vers: version, Deps: append([]IndexDep{}, deps...), Features: map[string][]string{}, Cksum: sumOf(crate), Pubtime: "2024-01-02T03:04:05Z",
	}}
}

// Needs is a plain dependency, for MakeCrate.
func Needs(name, req string) IndexDep {
	return IndexDep{Name: name, Req: requirement(req), Features: []string{}, DefaultFeatures: true, Kind: "normal"}
}
