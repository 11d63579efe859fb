package cargo

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"path"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// FuzzInspectStream changes the compressed bytes: whatever is taken unpacks in
// one way, within the limits, and every refusal is one that can be told.
func FuzzInspectStream(f *testing.F) {
	for _, c := range gzipHeaders {
		f.Add(member(c.header, archive(manifestEntry), 0, 0))
	}
	f.Add(crateOf(manifestEntry, file("src/lib.rs", "x")))
	f.Add(append(crateOf(manifestEntry), crateOf(manifestEntry)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Inspect(bytes.NewReader(data), "demo", "1.0.0", Limits{UnpackedBytes: 1 << 20, Entries: 100})
		if err != nil {
			var p *Problem
			if !errors.As(err, &p) || !utf8.ValidString(p.Text) {
				t.Errorf("not a Problem that can be told: %v", err)
			}
			return
		}
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("accepted, though it is no gzip: %v", err)
		}
		tarBytes, err := io.ReadAll(z) // all members: there must be one
		if err != nil || len(tarBytes) > 1<<20 {
			t.Fatalf("accepted: %d bytes, %v", len(tarBytes), err)
		}
		files := 0
		for r := tar.NewReader(bytes.NewReader(tarBytes)); ; {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("archive/tar refuses what Inspect accepts: %v", err)
			}
			if h.Typeflag == tar.TypeReg {
				files++
			}
		}
		if files != c.Files {
			t.Errorf("%d files, archive/tar sees %d", c.Files, files)
		}
	})
}

// FuzzPath adds two paths to a tree: what is taken stays below the root, shows
// what it is, and no file system takes the two for one.
func FuzzPath(f *testing.F) {
	f.Add("src/lib.rs", false, "src", true)
	f.Add("Cargo.toml", false, "cargo.TOML", false)
	f.Add("é", false, "e\u0301", false)
	f.Add("a/../b", false, "CARGO~1.TOM", false)
	f.Add("con", true, "com¹.x", false)
	f.Add("a\u202eb", false, ".cargo-ok", false)
	f.Fuzz(func(t *testing.T, first string, folder bool, second string, folderToo bool) {
		paths := tree{root: "demo-1.0.0", l: DefaultLimits(), nodes: map[string]node{}}
		below, err := paths.add(tarEntry{path: root + first, folder: folder})
		if err != nil {
			var p *Problem
			if !errors.As(err, &p) || !utf8.ValidString(p.Text) {
				t.Fatalf("not a Problem that can be told: %v", err)
			}
			return
		}
		full := path.Clean(root + first)
		if !strings.HasPrefix(full+"/", root) || full != root+below && below != "" || strings.ContainsAny(below, "\\:*?\"<>|\x00") {
			t.Fatalf("%q is taken as %q", first, below)
		}
		for _, r := range below {
			if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) || r == utf8.RuneError {
				t.Fatalf("%q holds %U", below, r)
			}
		}
		if _, err := paths.add(tarEntry{path: root + second, folder: folderToo}); err != nil {
			return
		}
		a, b := strings.TrimSuffix(first, "/"), strings.TrimSuffix(second, "/")
		if !folder && !folderToo && (a == b || strings.EqualFold(a, b) || fold(a) == fold(b)) {
			t.Fatalf("%q and %q are two files", first, second)
		}
		if !folder && strings.HasPrefix(b+"/", a+"/") {
			t.Fatalf("%q is a file, and %q lies below it", first, second)
		}
	})
}
