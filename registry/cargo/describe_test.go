package cargo

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func describeBytes(data []byte) (*Crate, error) {
	return Describe(bytes.NewReader(data), "demo", "1.0.0", Limits{})
}

// What Describe finds is what Inspect finds, README and all.
func TestDescribeFindsWhatInspectFinds(t *testing.T) {
	for name, data := range map[string][]byte{
		"no README":           crateOf(file("Cargo.toml", demoManifest), file("src/lib.rs", "")),
		"the default":         crateOf(file("Cargo.toml", demoManifest), file("README", "c"), file("README.md", "a"), file("README.txt", "b")),
		"the second":          crateOf(file("Cargo.toml", demoManifest), file("README.txt", "b"), file("src/lib.rs", "")),
		"before the manifest": crateOf(file("README.md", "a"), file("Cargo.toml", demoManifest)),
		"one that is named":   crateOf(file("Cargo.toml", demoManifest+"readme = \"docs/x.md\"\n"), file("README.md", "a"), file("docs/x.md", "x")),
		"none, said":          crateOf(file("Cargo.toml", demoManifest+"readme = false\n"), file("README.md", "a")),
		"another case":        crateOf(file("Cargo.toml", demoManifest), file("readme.md", "a")),
		"a folder":            crateOf(file("Cargo.toml", demoManifest), entry('5', root+"README.md/", ""), file("README.md/x", "")),
		"too large":           crateOf(file("Cargo.toml", demoManifest), file("README.md", strings.Repeat("a", maxReadmeBytes+1))),
	} {
		want, err := inspectBytes(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := describeBytes(data)
		if err != nil || got.ReadmePath != want.ReadmePath || !bytes.Equal(got.Readme, want.Readme) || got.Version != want.Version {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestDescribeStopsWhenItHasBoth(t *testing.T) {
	data := crateOf(file("Cargo.toml", demoManifest), file("README.md", "a"), file("src/noise.bin", strings.Repeat("noise", 1<<20)))
	broken := append(bytes.Clone(data[:len(data)-8]), 0, 0, 0, 0, 0, 0, 0, 0) // the gzip stream's checksum
	if c, err := describeBytes(broken); err != nil || string(c.Readme) != "a" {
		t.Errorf("%+v, %v", c, err)
	}
	noReadme := crateOf(file("Cargo.toml", demoManifest), file("src/noise.bin", strings.Repeat("\x00", 64<<20)))
	if _, err := Describe(bytes.NewReader(noReadme), "demo", "1.0.0", Limits{UnpackedBytes: 1 << 20}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%v", err)
	}
}

func TestDescribePassesTheReadersOwnError(t *testing.T) {
	if _, err := Describe(io.MultiReader(bytes.NewReader(crateOf(file("src/a", ""))[:20]), failing{}), "demo", "1.0.0", Limits{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%v", err)
	}
	for name, data := range map[string][]byte{"nothing": nil, "no gzip": []byte("hello, world"), "cut short": crateOf(file("src/a", "b"))[:30]} {
		if _, err := describeBytes(data); !errors.Is(err, ErrTarball) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := describeBytes(crateOf(file("src/a", "b"))); !errors.Is(err, ErrManifest) {
		t.Errorf("no manifest: %v", err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

// FuzzDescribe: what Inspect accepts, Describe reads alike.
func FuzzDescribe(f *testing.F) {
	f.Add(crateOf(file("Cargo.toml", demoManifest), file("README.md", "a")))
	f.Add(crateOf(file("README", "b"), file("Cargo.toml", demoManifest)))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := describeBytes(data)
		want, refused := inspectBytes(data)
		if refused != nil {
			return
		}
		if err != nil || got.ReadmePath != want.ReadmePath || !bytes.Equal(got.Readme, want.Readme) {
			t.Errorf("%+v, %v", got, err)
		}
	})
}
