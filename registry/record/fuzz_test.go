package record

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/storage"
)

// FuzzParse: what Parse accepts has one spelling, is its own identity, and says
// the same when its statement is signed again.
func FuzzParse(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.record.Envelope())
		f.Add(v.record.payload)
	}
	for _, e := range payloadEdits(f) {
		f.Add([]byte(e.new))
	}
	key := edKey(f, 2)
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := Parse(data); err == nil {
			checkParsed(t, r, data)
		} else if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrUnknownType) {
			t.Fatalf("an error of neither kind: %v", err)
		}
		// The same bytes as a payload, so that a fuzzer need not learn base64.
		envelope := reseal(t, key, string(data))
		if r, err := Parse(envelope); err == nil {
			checkParsed(t, r, envelope)
			if err := r.Verify(key.Public()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func checkParsed(t *testing.T, r *Record, data []byte) {
	t.Helper()
	if !bytes.Equal(r.Envelope(), data) {
		t.Fatal("the envelope is not what was parsed")
	}
	if !bytes.Equal(encodeEnvelope(r.payload, r.Header().Signer.String(), r.signature), data) {
		t.Fatal("an envelope of another spelling was accepted")
	}
	payload, err := encodePayload(Draft{Subject: r.Subject(), Digest: r.Digest(), Header: r.Header(), Body: r.Body()})
	if err != nil {
		t.Fatalf("accepted, but not encodable: %v", err)
	}
	again, err := parsePayload(payload)
	if err != nil {
		t.Fatalf("our own spelling is refused: %v", err)
	}
	if again.Subject() != r.Subject() || again.Header() != r.Header() || again.Type() != r.Type() || again.Digest() != r.Digest() {
		t.Fatal("our own spelling says something else")
	}
}

// FuzzParseSubject: a subject has one spelling, and the constructors make it.
func FuzzParseSubject(f *testing.F) {
	for _, text := range []string{"registry", "crate/a", "crate/a@1.0.0-rc.1+b", "manifest/a.b", "member/did%3Aweb%3Alab.example%253A8443", "member/did%3aweb", "crate/a@1", "rule/blake3", "rule/A", "upstream/crates-io/A-b", "upstream/a", "upstream/a/b@1.0.0", "grant/" + storage.CIDOf(nil).String(), "grant/x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSubject(text)
		if err != nil {
			if !errors.Is(err, ErrMalformed) || s != (Subject{}) {
				t.Fatalf("%q: %v, %v", text, s, err)
			}
			return
		}
		if s.String() != text || s.Thing() == "" {
			t.Fatalf("%q became %q, %q", text, s, s.Thing())
		}
		var again Subject
		switch {
		case s.Member() != "":
			d, parseErr := did.Parse(s.Member().String())
			again, err = MemberSubject(d), parseErr
		case s.Version() != "":
			again, err = VersionSubject(s.Kind(), s.Name(), s.Version())
		case s.Kind() != "":
			again, err = ArtifactSubject(s.Kind(), s.Name())
		case !s.Grant().IsZero():
			again = GrantSubject(s.Grant())
		case s.Rule() != "":
			again, err = RuleSubject(s.Rule())
		case s.Upstream() != "":
			again, err = UpstreamSubject(s.Upstream(), s.Crate())
		default:
			again = RegistrySubject()
		}
		if err != nil || again != s {
			t.Fatalf("%q: rebuilt as %+v, %v", text, again, err)
		}
	})
}

// FuzzParseName: identities, kinds and predicate types have one spelling each.
func FuzzParseName(f *testing.F) {
	f.Add(string(IDOf(nil)))
	f.Add(string(KindCrate))
	f.Add("urn:aln-registry:publish:v1")
	f.Add("urn:aln-registry:publish:v2")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseID(s); err == nil && (string(id) != s || len(s) != 64 || strings.Trim(s, "0123456789abcdef") != "") {
			t.Errorf("identity %q of %q", id, s)
		}
		if k, err := ParseKind(s); err == nil && (string(k) != s || !slices.Contains(Kinds(), k)) {
			t.Errorf("kind %q of %q", k, s)
		}
		if typ, err := parsePredicateType(s); err == nil && "urn:aln-registry:"+string(typ)+":v1" != s {
			t.Errorf("type %q of %q", typ, s)
		}
	})
}
