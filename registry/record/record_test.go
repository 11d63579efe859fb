package record

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/storage"
)

func vectorNamed(t testing.TB, name string) vector {
	t.Helper()
	for _, v := range vectors(t) {
		if v.name == name {
			return v
		}
	}
	t.Fatalf("no vector %s", name)
	return vector{}
}

// reseal puts payload into an envelope signed by v's key, so that nothing but
// the payload can be what a parser refuses.
func reseal(t testing.TB, k did.PrivateKey, payload string) []byte {
	t.Helper()
	signature, err := k.Sign(preAuthEncoding([]byte(payload)))
	if err != nil {
		t.Fatal(err)
	}
	return encodeEnvelope([]byte(payload), k.Public().URL().String(), signature)
}

func keyOf(t testing.TB, name string) did.PrivateKey {
	switch {
	case name == "registry" || name == "own-by-intent" || name == "import":
		return edKey(t, 1)
	case strings.HasPrefix(name, "publish"), name == "yank", name == "own", name == "own-intent":
		return p256Key(t, 3)
	case name == "grant", name == "release":
		return edKey(t, 5)
	}
	return edKey(t, 2)
}

func TestParseGivesBackWhatWasSigned(t *testing.T) {
	v := vectorNamed(t, "own-by-intent")
	h := v.record.Header()
	if h.Registry != edKey(t, 1).Public().DID() || h.Signer != edKey(t, 1).Public().URL() ||
		!h.IssuedAt.Equal(vectorTime) || !h.Expires.Equal(vectorTime.Add(time.Hour)) || h.Key != "" {
		t.Errorf("header %+v", h)
	}
	if h.Prev != vectorNamed(t, "own").record.ID() || h.By != vectorNamed(t, "publish").record.ID() {
		t.Errorf("prev %s, by %s", h.Prev, h.By)
	}
	body, ok := v.record.Body().(*Own)
	if !ok || body.Intent == nil || *body.Intent != vectorNamed(t, "own-intent").record.CID() || len(body.Add) != 0 ||
		len(body.Remove) != 1 || body.Remove[0] != p256Key(t, 3).Public().DID() {
		t.Errorf("body %+v", v.record.Body())
	}
	s := v.record.Subject()
	if s.String() != "crate/demo-one" || s.Thing() != "crate/demo_one" || s.Kind() != KindCrate || s.Name() != "demo-one" || s.Version() != "" || s.Member() != "" {
		t.Errorf("subject %+v", s)
	}
	if v.record.Digest() != sha256.Sum256([]byte("crate/demo-one")) {
		t.Error("digest is not that of the subject's name")
	}
	if got := vectorNamed(t, "publish").record.Digest(); got != sha256.Sum256([]byte("bytes of demo-one-0.1.0.crate")) {
		t.Error("a publish record's digest is not that of the bytes")
	}
	seen := vectorNamed(t, "import").record
	if s := seen.Subject(); s.Upstream() != "crates-io" || s.Crate() != "Left-pad" || seen.Digest() != sha256.Sum256([]byte(vectorSnapshot)) || seen.Snapshot() != storage.CIDOf([]byte(vectorSnapshot)) {
		t.Errorf("import: %+v, %x, %s", s, seen.Digest(), seen.Snapshot())
	}
	for _, name := range []string{"grant", "revoke"} {
		if got := vectorNamed(t, name).record; got.Digest() != sha256.Sum256(vectorGrant(t)) || got.Subject().Grant() != storage.CIDOf(vectorGrant(t)) {
			t.Errorf("a %s record's digest is not that of the shard", name)
		}
	}
}

// Every blob that a record is judged with is bounded and named by it, by one rule for
// all who read records.
func TestAttachmentsByType(t *testing.T) {
	want := map[string]storage.CID{
		"member-web": storage.CIDOf([]byte("a DID document")), "did": storage.CIDOf([]byte("the next DID document")),
		"own-by-intent": vectorNamed(t, "own-intent").record.CID(), "grant": storage.CIDOf(vectorGrant(t)), "import": storage.CIDOf([]byte(vectorSnapshot)),
	}
	for _, v := range vectors(t) {
		got, most := v.record.Attachments(), int64(MaxAttachment)
		if v.name == "import" {
			most = MaxSnapshot
		} else if !v.record.Snapshot().IsZero() {
			t.Errorf("%s has a snapshot", v.name)
		}
		if id, ok := want[v.name]; ok != (len(got) == 1) || ok && got[0] != id || len(got) > 1 || v.record.MostAttached() != most {
			t.Errorf("%s: %v of at most %d bytes, want %s", v.name, got, v.record.MostAttached(), id)
		}
	}
}

func TestRelationshipsByType(t *testing.T) {
	for _, v := range vectors(t) {
		want := did.CapabilityInvocation
		if v.record.Type() == TypePublish || v.record.Type() == TypeImport {
			want = did.AssertionMethod
		}
		if got := v.record.Type().Relationship(); got != want {
			t.Errorf("%s: %s, want %s", v.name, got, want)
		}
	}
}

func TestIdentityIsOfThePayloadAlone(t *testing.T) {
	v := vectorNamed(t, "yank")
	spaced := reseal(t, keyOf(t, "yank"), strings.Replace(string(v.record.payload), `,"predicate"`, `, "predicate"`, 1))
	r, err := Parse(spaced)
	if err != nil {
		t.Fatal(err)
	}
	if r.ID() == v.record.ID() || r.ID() != IDOf(r.payload) {
		t.Errorf("identity %s does not follow the payload's bytes", r.ID())
	}
}

func TestParseAcceptsOtherOrderAndSpaceInThePayload(t *testing.T) {
	accepted := map[string]func(string) string{
		"as written": func(s string) string { return s },
		"white space": func(s string) string {
			return " \n\t" + strings.NewReplacer(`":`, `" : `, `,"`, ",\r\n\"").Replace(s) + "\n"
		},
		"order of the statement": func(s string) string {
			s = strings.Replace(s, `"_type":"https://in-toto.io/Statement/v1",`, "", 1)
			return strings.TrimSuffix(s, "}") + `,"_type":"https://in-toto.io/Statement/v1"}`
		},
		"order of the predicate": func(s string) string {
			without := strings.Replace(s, `"key":null,`, "", 1)
			if without == s {
				return s // it has no members behind the header's
			}
			s = without
			return strings.TrimSuffix(s, "}}") + `,"key":null}}`
		},
		"escapes in strings": func(s string) string {
			return strings.NewReplacer("in-toto.io", `in\u002dtoto.io`, `"predicate":`, `"\u0070redicate":`).Replace(s)
		},
	}
	for name, edit := range accepted {
		for _, vector := range []string{"publish", "yank", "own", "member-publisher", "registry", "did", "revoke", "quarantine", "import"} {
			v := vectorNamed(t, vector)
			payload := edit(string(v.record.payload))
			if name != "as written" && payload == string(v.record.payload) {
				continue // that edit does not apply to this type
			}
			r, err := Parse(reseal(t, keyOf(t, vector), payload))
			if err != nil {
				t.Errorf("%s, %s: %v", vector, name, err)
				continue
			}
			if err := r.Verify(v.key); err != nil {
				t.Errorf("%s, %s: %v", vector, name, err)
			}
		}
	}
}

// Flips in every byte of every type's envelope as it is written, and of its
// payload and signature below their base64, where a flip stays within the
// alphabet: every bit of one envelope by each algorithm, one of every byte of the others.
func TestEveryFlippedBitIsFound(t *testing.T) {
	seen := map[Type]bool{}
	for _, v := range vectors(t) {
		if seen[v.record.Type()] {
			continue
		}
		seen[v.record.Type()] = true
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			keyid := v.record.Header().Signer.String()
			thorough := v.record.Type() == TypeOwnIntent || v.record.Type() == TypeDID
			for part, c := range map[string]struct {
				pristine []byte
				envelope func(flipped []byte) []byte
			}{
				"envelope":  {v.record.Envelope(), func(b []byte) []byte { return b }},
				"payload":   {v.record.payload, func(b []byte) []byte { return encodeEnvelope(b, keyid, v.record.signature) }},
				"signature": {v.record.signature, func(b []byte) []byte { return encodeEnvelope(v.record.payload, keyid, b) }},
			} {
				for bit := range len(c.pristine) * 8 {
					if !thorough && bit%8 != bit/8%8 {
						continue
					}
					flipped := bytes.Clone(c.pristine)
					flipped[bit/8] ^= 1 << (bit % 8)
					if r, err := Parse(c.envelope(flipped)); err == nil && r.Verify(v.key) == nil {
						t.Errorf("%s: byte %d, bit %d: nobody noticed", part, bit/8, bit%8)
					}
				}
			}
		})
	}
	if len(seen) != 13 {
		t.Errorf("%d types of records", len(seen))
	}
}

func TestVerifyRefusesOtherKeysAndForeignSignatures(t *testing.T) {
	v := vectorNamed(t, "publish")
	for _, k := range []did.PublicKey{edKey(t, 1).Public(), p256Key(t, 9).Public(), {}} {
		if err := v.record.Verify(k); !errors.Is(err, did.ErrSignature) {
			t.Errorf("key %s: %v", k, err)
		}
	}
	// A signature over the payload without DSSE's framing is not one.
	k := p256Key(t, 3)
	bare, err := k.Sign(v.record.payload)
	if err != nil {
		t.Fatal(err)
	}
	for _, signature := range [][]byte{bare, {}, make([]byte, 64), bytes.Repeat([]byte{0xff}, 64)} {
		r, err := Parse(encodeEnvelope(v.record.payload, k.Public().URL().String(), signature))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Verify(v.key); !errors.Is(err, did.ErrSignature) {
			t.Errorf("signature %x: %v", signature, err)
		}
	}
}

func TestPreAuthEncodingIsDSSEs(t *testing.T) {
	got := string(preAuthEncoding([]byte("hello")))
	if want := "DSSEv1 28 application/vnd.in-toto+json 5 hello"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSignRefusesWhatParseWould(t *testing.T) {
	good := func() Draft {
		return Draft{Subject: mustSubject(t, "crate/a@1.0.0"), Digest: [32]byte{1}, Body: &Publish{}, Header: Header{
			Registry: edKey(t, 1).Public().DID(), IssuedAt: vectorTime, Expires: vectorTime.Add(time.Hour),
		}}
	}
	if _, err := Sign(good(), keySigner(edKey(t, 2))); err != nil {
		t.Fatalf("the draft that the cases alter: %v", err)
	}
	cases := map[string]func(*Draft){
		"no body":                    func(d *Draft) { d.Body = nil },
		"no subject":                 func(d *Draft) { d.Subject = Subject{} },
		"no registry":                func(d *Draft) { d.Header.Registry = "" },
		"publish without digest":     func(d *Draft) { d.Digest = [32]byte{} },
		"yank with another digest":   func(d *Draft) { d.Body = &Yank{Yanked: true} },
		"own of a version":           func(d *Draft) { d.Body, d.Digest = &OwnIntent{}, [32]byte{} },
		"crate with media type":      func(d *Draft) { d.Body = &Publish{MediaType: "text/plain"} },
		"bad identity":               func(d *Draft) { d.Header.Prev = "cafe" },
		"year beyond four digits":    func(d *Draft) { d.Header.Expires = time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC) },
		"zero CID":                   func(d *Draft) { d.Body = &Publish{Evidence: []storage.CID{{}}} },
		"more evidence than allowed": func(d *Draft) { d.Body = &Publish{Evidence: make([]storage.CID, maxList+1)} },
	}
	for name, alter := range cases {
		d := good()
		alter(&d)
		if r, err := Sign(d, keySigner(edKey(t, 2))); err == nil {
			t.Errorf("%s: signed %s", name, r.payload)
		}
	}
}

func TestSignWritesUTC(t *testing.T) {
	local := time.FixedZone("elsewhere", 5*3600)
	r, err := Sign(Draft{Subject: mustSubject(t, "crate/a@1.0.0"), Body: &Yank{}, Header: Header{
		Registry: edKey(t, 1).Public().DID(), IssuedAt: vectorTime.In(local), Expires: vectorTime.Add(time.Hour).In(local),
	}}, keySigner(edKey(t, 2)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(r.payload, []byte(`"issued_at":"2026-07-01T12:00:00Z"`)) || !r.Header().IssuedAt.Equal(vectorTime) {
		t.Errorf("payload %s", r.payload)
	}
}

func TestParseIDAcceptsOneForm(t *testing.T) {
	good := strings.Repeat("0123456789abcdef", 4)
	if id, err := ParseID(good); err != nil || string(id) != good {
		t.Errorf("%s, %v", id, err)
	}
	for _, bad := range []string{"", "null", good[1:], good + "0", strings.ToUpper(good), "g" + good[1:],
		good[:32] + "G" + good[33:], good[:63] + " ", good[:62] + "é"} {
		if id, err := ParseID(bad); !errors.Is(err, ErrMalformed) || id != "" {
			t.Errorf("%q: %q, %v", bad, id, err)
		}
	}
}

func TestARecordSaysWhatItDoes(t *testing.T) {
	for want, body := range map[string]Body{
		"settings": &Registry{}, "member": &Member{Roles: []string{"publisher"}}, "member removed": &Member{},
		"grant": &Grant{}, "revoke": &Revoke{}, "quarantine": &Quarantine{}, "release": &Release{},
		"yank": &Yank{Yanked: true}, "unyank": &Yank{}, "publish": &Publish{}, "did": &DIDChange{}, "own": &Own{}, "approve": &Approve{},
	} {
		if got := (&Record{body: body}).Act(); got != want {
			t.Errorf("%T is told as %q, want %q", body, got, want)
		}
	}
}
