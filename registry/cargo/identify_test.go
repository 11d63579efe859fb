package cargo

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/iotest"
)

func TestIdentify(t *testing.T) {
	for name, entries := range map[string][][]byte{
		"the manifest alone": {manifestEntry},
		"another one deeper": {file("src/Cargo.toml", "[package]\nname = \"other\"\n"), manifestEntry, []byte("what follows is not read")},
		"a folder so called": {entry('5', "x/Cargo.toml/", ""), manifestEntry},
	} {
		if n, v, err := Identify(bytes.NewReader(crateOf(entries...)), Limits{}); err != nil || n != "demo" || v != "1.0.0" {
			t.Errorf("%s: %q, %q, %v", name, n, v, err)
		}
	}
	late := make([][]byte, 10)
	for i := range late {
		late[i] = file(strings.Repeat("f", i+1), "")
	}
	for name, test := range map[string]struct {
		crate []byte
		kind  error
	}{
		"nothing":         {nil, ErrTarball},
		"no gzip":         {[]byte("PK\x03\x04"), ErrTarball},
		"cut short":       {crateOf(manifestEntry)[:40], ErrTarball},
		"no manifest":     {crateOf(file("a", "")), ErrManifest},
		"too late":        {crateOf(append(late, manifestEntry)...), ErrManifest},
		"not TOML":        {crateOf(file("Cargo.toml", "[[")), ErrManifest},
		"no package":      {crateOf(file("Cargo.toml", "[lib]")), ErrName},
		"no version":      {crateOf(file("Cargo.toml", "[package]\nname = \"demo\"")), ErrVersion},
		"a number":        {crateOf(file("Cargo.toml", "[package]\nname = 1")), ErrManifest},
		"a path for name": {crateOf(file("Cargo.toml", "[package]\nname = \"../x\"\nversion = \"1.0.0\"")), ErrName},
		"a bomb":          {gz(append(file("a", strings.Repeat("\x00", 1<<20)), manifestEntry...)), ErrTooLarge},
	} {
		if n, v, err := Identify(bytes.NewReader(test.crate), Limits{Entries: 10, UnpackedBytes: 1 << 20}); !errors.Is(err, test.kind) {
			t.Errorf("%s: %q, %q, %v, want %v", name, n, v, err, test.kind)
		}
	}
	broken := errors.New("broken reader")
	if _, _, err := Identify(iotest.ErrReader(broken), Limits{}); !errors.Is(err, broken) {
		t.Errorf("a reader that fails: %v", err)
	}
}

// FuzzIdentify: whatever Inspect accepts, Identify names.
func FuzzIdentify(f *testing.F) {
	f.Add(crateOf(manifestEntry))
	f.Add(crateOf(file("a", ""), manifestEntry, file("src/lib.rs", "")))
	f.Add([]byte{0x1f, 0x8b})
	limits := Limits{UnpackedBytes: 1 << 20, CrateBytes: 1 << 16}
	f.Fuzz(func(t *testing.T, data []byte) {
		name, version, err := Identify(bytes.NewReader(data), limits)
		if _, refused := inspectBytes(data); refused == nil && (err != nil || name != "demo" || version != "1.0.0") {
			t.Fatalf("a good crate is %q, %q, %v", name, version, err)
		}
		if err == nil && (ValidateName(name) != nil || name == "") {
			t.Fatalf("identified %q", name)
		}
	})
}
