package record

import (
	"errors"
	"strings"
	"testing"
)

func TestReferences(t *testing.T) {
	for text, want := range map[string]string{
		"demo-one": "crate/demo-one", "demo-one@1.2.3": "crate/demo-one@1.2.3", "crate/demo_one": "crate/demo_one",
		"aln-shard/9.x": "aln-shard/9.x", "manifest/m@1.0.0-rc.1+b": "manifest/m@1.0.0-rc.1+b",
	} {
		if s, err := ParseReference(text); err != nil || s.String() != want {
			t.Errorf("%s: %q, %v", text, s, err)
		}
	}
	for _, text := range []string{
		"", "@", "@1.0.0", "demo@", "demo@1", "demo@1.0.0@1.0.0", "/demo", "crate/", "crates/demo", "Crate/demo", "crate/a/b", "crate/../a",
		"registry/", "upstream/crates-io/serde", "member/did%3Akey%3Az6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp", "9demo", "de mo", "demo\n", "aln-shard/.x",
		"manifest/" + strings.Repeat("n", 65), strings.Repeat("n", 1<<20),
	} {
		if s, err := ParseReference(text); !errors.Is(err, ErrMalformed) {
			t.Errorf("%.80q: %q, %v", text, s, err)
		}
	}
	// "registry" is a subject of its own, but as a reference a crate's name.
	if s, err := ParseReference("registry"); err != nil || s.String() != "crate/registry" {
		t.Errorf("registry: %q, %v", s, err)
	}
}

// FuzzParseReference: what is accepted is an artifact or a version of one, under
// the name that the reference itself spells.
func FuzzParseReference(f *testing.F) {
	for _, seed := range []string{"demo", "demo@1.0.0", "crate/demo@1.0.0+b", "qpu-datashard/9", "registry", "member/did%3Akey%3Az6Mk", "a/b/c", "a@b@c", "é/ü", "crate/-"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseReference(text)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		if full := strings.TrimPrefix(s.String(), "crate/"); s.String() != text && full != text {
			t.Fatalf("%q became %q", text, s)
		}
		again, err := ParseSubject(s.String())
		if err != nil || again != s || s.Kind() == "" || s.Name() == "" {
			t.Fatalf("%q: %q, %v", text, again, err)
		}
	})
}
