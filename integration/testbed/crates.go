package testbed

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// packing is part of a cached set's key: another number for another way of packing.
const packing = "2"

// debianPackages are the packages that the set is made of, librust-NAME-dev of
// Debian 12, one NAME a line: a choice of well-known crates with all that these need.
//
//go:embed crates_debian.txt
var debianPackages string

// Crate is one version of a crate as a registry has it.
type Crate struct {
	Line IndexLine
	// File is the .crate, which must not be changed; its sha256 is Line.Cksum.
	File string
	Size int64
	// ProcMacro: it is a procedural macro; BuildScript: it has one.
	ProcMacro, BuildScript bool
}

// Crates are real crates: what Debian 12 packages of crates.io's, packed as
// Cargo packs them. Their checksums are not those of crates.io, for Debian keeps
// the sources only, with its patches.
type Crates struct {
	// Folder is shared by all tests of this system, and is only read.
	Folder string
	// All is sorted by name and version.
	All []Crate
}

// Find is a version of a crate, "" for the newest that the set has.
func (c *Crates) Find(name, version string) (Crate, bool) {
	for _, one := range slices.Backward(c.All) {
		if one.Line.Name == name && (version == "" || one.Line.Vers == version) {
			return one, true
		}
	}
	return Crate{}, false
}

var (
	packed     *Crates
	packedLock sync.Mutex
)

// DebianCrates are packed where they are not yet, which takes the installation of
// Debian's packages and half a minute; later calls, of any process, find them.
func DebianCrates(t testing.TB) *Crates {
	t.Helper()
	packedLock.Lock()
	defer packedLock.Unlock()
	if packed == nil {
		unlock := lockFor(t, "crates")
		defer unlock()
		set, err := cratesOf(t, strings.Fields(debianPackages))
		if err != nil {
			t.Fatalf("testbed: crates of Debian: %v", err)
		}
		packed = set
	}
	return packed
}

// cratesOf finds the packed crates of packages, or packs them.
func cratesOf(t testing.TB, names []string) (*Crates, error) {
	t.Helper()
	packages := make([]string, len(names))
	for i, name := range names {
		packages[i] = "librust-" + name + "-dev"
	}
	sources, err := cratesSources(packages)
	if errors.Is(err, errNotInstalled) {
		if err := installCrates(t, packages); err != nil {
			return nil, err
		}
		sources, err = cratesSources(packages)
	}
	if err != nil {
		return nil, err
	}
	key, err := keyOf(sources)
	if err != nil {
		return nil, err
	}
	folder, err := tools()
	if err != nil {
		return nil, err
	}
	folder = filepath.Join(filepath.Dir(folder), "crates", key)
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		if err := packAll(sources, folder); err != nil {
			return nil, err
		}
	}
	return readCrates(folder)
}

func installCrates(t testing.TB, packages []string) error {
	t.Helper()
	defer lockFor(t, "apt")()
	return install(t.Context(), packages...)
}

var errNotInstalled = errors.New("not installed")

// cratesSources are the folders of crates that packages brought, sorted.
func cratesSources(packages []string) ([]string, error) {
	cmd := exec.Command("dpkg-query", append([]string{"-W", "-f", "${Package} ${db:Status-Status}\n"}, packages...)...)
	status, err := cmd.Output()
	if bytes.Count(status, []byte(" installed\n")) < len(packages) {
		return nil, fmt.Errorf("%w: %v", errNotInstalled, err)
	}
	files, err := exec.Command("dpkg-query", append([]string{"-L"}, packages...)...).Output()
	if err != nil {
		return nil, err
	}
	const sources = "/usr/share/cargo/registry/"
	var folders []string
	for line := range strings.Lines(string(files)) {
		name, below := strings.CutPrefix(strings.TrimSpace(line), sources)
		if folder, ok := strings.CutSuffix(name, "/Cargo.toml"); below && ok && !strings.Contains(folder, "/") {
			folders = append(folders, sources+folder)
		}
	}
	slices.Sort(folders)
	return slices.Compact(folders), nil
}

// keyOf names the set that is made of sources: manifests say what they are.
func keyOf(sources []string) (string, error) {
	hash := sha256.New()
	fmt.Fprintln(hash, packing)
	for _, folder := range sources {
		manifest, err := os.ReadFile(filepath.Join(folder, "Cargo.toml"))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(hash, "%s %d\n%s", folder, len(manifest), manifest)
	}
	return hex.EncodeToString(hash.Sum(nil))[:16], nil
}

const setIndex = "crates.json"

// packAll makes the folder of a set, whole or not at all. Whoever calls it has the
// lock "crates".
func packAll(sources []string, folder string) error {
	if err := os.MkdirAll(filepath.Dir(folder), 0o755); err != nil {
		return err
	}
	const unfinished = "pack-*" // by others who ended before: we have the lock
	left, err := filepath.Glob(filepath.Join(filepath.Dir(folder), unfinished))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	fresh, err := os.MkdirTemp(filepath.Dir(folder), unfinished)
	if err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	if err := os.Chmod(fresh, 0o755); err != nil {
		return err
	}
	index, err := os.Create(filepath.Join(fresh, setIndex))
	if err != nil {
		return err
	}
	defer index.Close()
	encoder := json.NewEncoder(index)
	for _, source := range sources {
		one, err := packCrate(source, fresh)
		if err != nil {
			return fmt.Errorf("%s: %w", source, err)
		}
		if err := encoder.Encode(one); err != nil {
			return err
		}
	}
	if err := index.Close(); err != nil {
		return err
	}
	return os.Rename(fresh, folder)
}

func readCrates(folder string) (*Crates, error) {
	index, err := os.Open(filepath.Join(folder, setIndex))
	if err != nil {
		return nil, err
	}
	defer index.Close()
	set := &Crates{Folder: folder}
	decoder := json.NewDecoder(bufio.NewReader(index))
	for {
		var one Crate
		if err := decoder.Decode(&one); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		one.File = filepath.Join(folder, one.File)
		set.All = append(set.All, one)
	}
	slices.SortFunc(set.All, compareCrates)
	return set, nil
}

// packCrate packs one folder of Debian's sources below folder.
func packCrate(source, folder string) (Crate, error) {
	manifest, err := os.ReadFile(filepath.Join(source, "Cargo.toml"))
	if err != nil {
		return Crate{}, err
	}
	info, err := os.Stat(filepath.Join(source, "Cargo.toml"))
	if err != nil {
		return Crate{}, err
	}
	one, err := describe(manifest, info.ModTime())
	if err != nil {
		return Crate{}, err
	}
	if _, err := os.Stat(filepath.Join(source, "build.rs")); err == nil && !one.BuildScript {
		one.BuildScript = autoBuild(manifest)
	}
	files, err := filesOf(source)
	if err != nil {
		return Crate{}, err
	}
	top := one.Line.Name + "-" + one.Line.Vers
	one.File = top + ".crate"
	packed, err := packFiles(top, files, func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(source, name)) })
	if err != nil {
		return Crate{}, err
	}
	one.Size, one.Line.Cksum = int64(len(packed)), sumOf(packed)
	return one, os.WriteFile(filepath.Join(folder, one.File), packed, 0o644)
}

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// filesOf are the files of a crate's sources, without what Debian added, sorted.
func filesOf(source string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name == "debian" {
				return fs.SkipDir
			}
			return nil
		}
		info, err := os.Stat(path) // of what a link leads to
		if err == nil && info.Mode().IsRegular() && name != ".cargo-checksum.json" {
			files = append(files, filepath.ToSlash(name))
		}
		return nil // a link that leads nowhere is not packed
	})
	return files, err
}

// packFiles is the .crate of files below the folder top, the same each time.
func packFiles(top string, files []string, read func(name string) ([]byte, error)) ([]byte, error) {
	var out bytes.Buffer
	compressor := gzip.NewWriter(&out)
	archive := tar.NewWriter(compressor)
	for _, name := range files {
		content, err := read(name)
		if err != nil {
			return nil, err
		}
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: top + "/" + name, Size: int64(len(content)), Mode: 0o644,
			ModTime: time.Unix(1153704088, 0), Format: tar.FormatGNU, // Cargo's own date
		}
		if err := archive.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := archive.Write(content); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(archive.Close(), compressor.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
