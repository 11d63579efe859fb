package client

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/registry/cargo"
)

// crateOf is a .crate with one file.
func crateOf(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: "demo-1.0.0/src/lib.rs", Mode: 0o644, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	must(w.Write([]byte(text)))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWhatOnlyALookDecidesIsLookedAtInCargoHome(t *testing.T) {
	const permutation = "[2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]"
	harmless := crateOf(t, "pub fn one() -> u8 { 1 }")
	for name, c := range map[string]struct {
		bytes     []byte
		after     []byte // what the file holds when it is looked at
		uncached  bool
		unscanned bool
		allow     bool
		says      string
	}{
		"nothing in it":             {bytes: harmless, unscanned: true, allow: true, says: "scan"},
		"an implementation":         {bytes: crateOf(t, "const P: [usize; 16] = "+permutation+";"), unscanned: true, says: "hold what the rule is about: blake3"},
		"not there":                 {bytes: harmless, uncached: true, unscanned: true, says: "cargo fetch --locked"},
		"no archive":                {bytes: []byte("no archive"), unscanned: true, says: "cannot be looked through"},
		"changed meanwhile":         {bytes: harmless, after: crateOf(t, "pub fn two() -> u8 { 2 }"), unscanned: true, says: "has changed meanwhile"},
		"something behind":          {bytes: harmless, after: append(bytes.Clone(harmless), "more"...), unscanned: true, says: "cannot be looked through"},
		"denied for another reason": {bytes: harmless, says: "scan"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "demo-1.0.0.crate")
			if c.after == nil {
				c.after = c.bytes
			}
			if err := os.WriteFile(path, c.after, 0o600); err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(c.bytes)
			p := Locked{Locked: cargo.Locked{Name: "demo", Version: "1.0.0", Checksum: hex.EncodeToString(sum[:])}, Place: Place{Kind: PlaceCratesIO}}
			if !c.uncached {
				p.Cached = []Cached{{Path: path, Hash: sum}}
			}
			before := []Decision{{Name: "demo", Version: "1.0.0", Rule: "quarantine", RuleID: "blake3", Reason: "scan", Unscanned: c.unscanned}}
			d := LookInside([]Locked{p}, before)[0]
			if d.Allow != c.allow || !strings.Contains(d.Reason, c.says) || d.Allow && d.Unscanned {
				t.Errorf("%+v", d)
			}
			if before[0].Allow || before[0].Reason != "scan" {
				t.Error("what was decided was changed")
			}
		})
	}
}
