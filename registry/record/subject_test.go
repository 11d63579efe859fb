package record

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/storage"
)

func TestParseSubjectReadsEveryForm(t *testing.T) {
	long := did.DID("did:web:a" + strings.Repeat(":b", (did.MaxLength-9)/2))
	if len(long) != did.MaxLength {
		t.Fatalf("%d", len(long))
	}
	cases := map[string]string{ // text to thing
		"registry":                     "registry",
		"crate/Demo-One":               "crate/demo_one",
		"crate/a@1.0.0":                "crate/a",
		"crate/a_b@1.0.0-rc.1+build.5": "crate/a_b",
		"aln-shard/9.a-B_c@0.0.1":      "aln-shard/9.a_b_c",
		"evidence-bundle/x":            "evidence-bundle/x",
		"manifest/M@1.2.3":             "manifest/m",
		"qpu-datashard/q":              "qpu-datashard/q",
		"member/did%3Aweb%3Alab.example%253A8443%3Aada":                       "member/did%3Aweb%3Alab.example%253A8443%3Aada",
		"member/did%3Akey%3Az6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp": "member/did%3Akey%3Az6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp",
		MemberSubject(long).String():                                          MemberSubject(long).String(),
		GrantSubject(storage.CIDOf(nil)).String():                             "grant/" + storage.CIDOf(nil).String(),
		"rule/blake3":                   "rule/blake3",
		"upstream/crates-io/Serde_JSON": "upstream/crates-io/serde_json",
		"upstream/crates-io/a-b":        "upstream/crates-io/a_b",
		"upstream/0/A":                  "upstream/0/a",
		"upstream/" + strings.Repeat("u", 64) + "/" + strings.Repeat("c", 64): "upstream/" + strings.Repeat("u", 64) + "/" + strings.Repeat("c", 64),
		"rule/0.a_b-c":                        "rule/0.a_b-c", // ids have one spelling, not names
		"rule/" + strings.Repeat("r", 64):     "rule/" + strings.Repeat("r", 64),
		"crate/" + strings.Repeat("a", 64):    "crate/" + strings.Repeat("a", 64),
		"manifest/" + strings.Repeat("0", 64): "manifest/" + strings.Repeat("0", 64),
	}
	for text, thing := range cases {
		s, err := ParseSubject(text)
		if err != nil || s.String() != text || s.Thing() != thing {
			t.Errorf("%s: %q, %q, %v", text, s, s.Thing(), err)
		}
	}
}

func TestParseSubjectRefuses(t *testing.T) {
	for _, text := range []string{
		"", "/", "registry/", "Registry", "registry@1.0.0", " registry", "crate", "crate/", "crate/@1.0.0", "crates/a", "Crate/a",
		"crate/9a", "crate/_a", "crate/-a", "crate/a.b", "crate/a b", "crate/é", "crate/a/b", "crate/..", "crate/a\n", "crate/a\x00",
		"crate/" + strings.Repeat("a", 65), "manifest/" + strings.Repeat("a", 65), "manifest/.a", "manifest/-a", "manifest/_", "manifest/a%2Fb",
		"crate/a@", "crate/a@1", "crate/a@1.0", "crate/a@01.0.0", "crate/a@v1.0.0", "crate/a@1.0.0 ", "crate/a@1.0.0@1.0.0", "crate/a@1.0.0/x",
		"crate/a@1.0.0-", "crate/a@1.0.0-01", "crate/a@1.0.0+", "crate/a@1.0.0+a+b", "crate/a@*", "crate/a@99999999999999999999.0.0",
		"member/", "member/did:web:lab.example", "member/did%3aweb%3alab.example", "member/did%3Aweb%3ALAB.example", "member/did%3Aweb%3Alab%2Eexample",
		"member/did%3Aweb%3Alab.example@1.0.0", "member/did%3Aweb%3Alab.example%253a8443", "member/did%3Aweb%3Alab.example%3A8443%", "member/%", "member/%4", "member/%zz",
		"member/did%3Aexample%3Aa", "member/did%3Aweb%3Alab.example%2Fada", "member/did%3Aweb%3Alab.example%3A..", "member/did%3Aweb%3Auser%40lab.example",
		"upstream", "upstream/", "upstream/a", "upstream/a/", "upstream//a", "upstream/A/a", "upstream/a_b/a", "upstream/-a/a", "upstream/a.b/a", "upstream/../a",
		"upstream/a/9a", "upstream/a/_a", "upstream/a/a.b", "upstream/a/a b", "upstream/a/é", "upstream/a/b/c", "upstream/a/b@1.0.0", "upstream/a/b\n", "Upstream/a/b",
		"upstream/" + strings.Repeat("u", 65) + "/a", "upstream/a/" + strings.Repeat("c", 65),
		"member/registry", "rule/", "rule/X", "rule/a/b", "rule/-a", "rule/a b", "rule/a@1.0.0", "rule/a*", "rule/é", "rule/" + strings.Repeat("r", 65), "rule", "grant", "grant/", "grant/x",
		"grant/" + storage.CIDOf(nil).Hex(), "grant/" + strings.ToUpper(storage.CIDOf(nil).String()), "grant/" + storage.CIDOf(nil).String() + "/", "grant/" + storage.CIDOf(nil).String() + "@1.0.0", strings.Repeat("a", 1000), "member/" + strings.Repeat("%61", 300),
	} {
		if s, err := ParseSubject(text); !errors.Is(err, ErrMalformed) || s != (Subject{}) {
			t.Errorf("%q: %q, %v", text, s, err)
		}
	}
}

func TestConstructorsCheckAsParseSubjectDoes(t *testing.T) {
	for _, s := range [][2]string{{"", "a"}, {"a", ""}, {"a/b", "c"}, {"a", "b/c"}, {"a", "b@1.0.0"}, {"crates.io", "a"}} {
		if _, err := UpstreamSubject(s[0], s[1]); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", s, err)
		}
	}
	// A crate of another registry is no artifact of ours, whatever it is called.
	u, err := UpstreamSubject("crates-io", "Serde-json")
	if err != nil || u.Upstream() != "crates-io" || u.Crate() != "Serde-json" || u.Kind() != "" || u.Name() != "" || u.Version() != "" {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := ArtifactSubject(KindCrate, "a.b"); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	if _, err := VersionSubject(KindManifest, "a.b", "1"); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	s, err := VersionSubject(KindManifest, "a.b", "1.0.0")
	if err != nil || s.Name() != "a.b" || s.Version() != "1.0.0" || s.Kind() != KindManifest {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestNamesAreOneThingInEverySpelling is DESIGN invariant 10.
func TestNamesAreOneThingInEverySpelling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[A-Za-z][A-Za-z0-9_-]{0,20}`).Draw(t, "name")
		other := []byte(name)
		for i := range other {
			switch {
			case other[i] == '-' && rapid.Bool().Draw(t, "swap"):
				other[i] = '_'
			case other[i] != '_' && other[i] != '-' && rapid.Bool().Draw(t, "upper"):
				other[i] = strings.ToUpper(string(other[i]))[0]
			}
		}
		a, errA := ArtifactSubject(KindCrate, name)
		b, errB := ArtifactSubject(KindCrate, string(other))
		if errA != nil || errB != nil || a.Thing() != b.Thing() || a.Name() != name {
			t.Fatalf("%q and %q: %q, %q, %v, %v", name, other, a.Thing(), b.Thing(), errA, errB)
		}
	})
}
