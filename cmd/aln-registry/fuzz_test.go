package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/record"
)

// FuzzLock reads any text as a Cargo.lock and prints what would be said of it:
// nothing of it moves the cursor, begins a line, or turns what follows.
func FuzzLock(f *testing.F) {
	f.Add([]byte("version = 4\n[[package]]\nname = \"demo-one\"\nversion = \"0.1.0\"\nsource = \"sparse+http://127.0.0.1:8585/index/\"\nchecksum = \"00\"\n"))
	f.Add([]byte("version = 4\n[[package]]\nname = \"a\\u001b[2J\\n\"\nversion = \"\\u202e1\"\nsource = \"\\r\\n\"\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		locked, err := cargo.ParseLock(raw)
		if err != nil {
			return
		}
		results := []lockedJSON{}
		for _, pkg := range locked {
			results = append(results, lockedJSON{Package: pkg.Name + "@" + pkg.Version, Source: pkg.Source, Status: statusForeign, Error: pkg.Checksum})
		}
		var out bytes.Buffer
		_ = (&app{out: &out}).printLock(results)
		wantTame(t, out.String(), len(results)+3)
	})
}

// wantTame: nothing but our line breaks, no more than most of these.
func wantTame(t *testing.T, text string, most int) {
	t.Helper()
	if n := strings.Count(text, "\n"); n > most {
		t.Errorf("%d lines, not %d: %q", n, most, text)
	}
	for _, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Fatalf("%U is printed: %q", r, text)
		}
	}
}

// FuzzTidy: one line of things that can be printed.
func FuzzTidy(f *testing.F) {
	f.Add(green + "ok" + plain)
	f.Add("a\x1b]0;title\x07b\u202e\r\n\u2028\x00\x04\u009b")
	f.Fuzz(func(t *testing.T, text string) { wantTame(t, tidy(text), 0) })
}

// FuzzReference splits what people name artifacts by: names of files and references.
func FuzzReference(f *testing.F) {
	for _, text := range []string{"demo-one-0.1.0.crate", "demo-one-0.1.0-rc.1", "crate/demo-one@0.1.0", "demo-one", "a-b-c", "-1.0.0", "../x-1.0.0.crate"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if name, version, ok := splitCrateFile(text); ok {
			if cargo.ValidateName(name) != nil || name+"-"+version != strings.TrimSuffix(text, ".crate") {
				t.Errorf("%q is %q and %q", text, name, version)
			}
		}
		if kind, err := parseKind(text); err == nil && string(kind) != text && kind != record.KindCrate {
			t.Errorf("%q is the kind %q", text, kind)
		}
	})
}
