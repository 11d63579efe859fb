package did

import (
	"os"
	"path/filepath"
	"testing"
)

func FuzzParse(f *testing.F) {
	f.Add("did:key:" + exampleEd25519)
	f.Add("did:web:example.com%3A3000:user:alice")
	for _, s := range badDIDs {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := Parse(s)
		if err != nil {
			return
		}
		if string(d) != s || len(s) > MaxLength || d.Method() != "key" && d.Method() != "web" {
			t.Fatalf("Parse(%q) = %q", s, d)
		}
		if back, err := Unescape(d.Escaped()); err != nil || back != d {
			t.Fatalf("Unescape(%q) = %q, %v", d.Escaped(), back, err)
		}
		if d.Method() == "key" {
			if k, err := KeyOf(d); err != nil || k.DID() != d {
				t.Fatalf("KeyOf(%q) = %v, %v", d, k, err)
			}
		}
	})
}

func FuzzUnescape(f *testing.F) {
	f.Add("did%3Akey%3A" + exampleP256)
	f.Add("did%3Aweb%3Aexample.com%253A3000")
	f.Add("did%3aweb%3aexample.com%")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := Unescape(s); err == nil && d.Escaped() != s {
			t.Fatalf("Unescape(%q) = %q, whose escaped form is %q", s, d, d.Escaped())
		}
	})
}

func FuzzParseURL(f *testing.F) {
	f.Add("did:web:example.com#key-1")
	f.Add("did:key:" + exampleP256 + "#" + exampleP256)
	f.Add("did:web:example.com?a#b#c")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURL(s)
		if err != nil {
			return
		}
		if u.String() != s || u.Fragment == "" || len(s) > MaxURLLength {
			t.Fatalf("ParseURL(%q) = %v", s, u)
		}
		if _, err := Parse(string(u.DID)); err != nil {
			t.Fatalf("ParseURL(%q) holds a bad DID: %v", s, err)
		}
	})
}

func FuzzParseMultikey(f *testing.F) {
	f.Add(exampleEd25519)
	f.Add(exampleP256)
	f.Add("z6LSeu9HkTHSfLLeUs2nnzUSNedgDUevfNQgQjQC23ZCit6F")
	f.Fuzz(func(t *testing.T, s string) {
		if k, err := ParseMultikey(s); err == nil && k.Multikey() != s {
			t.Fatalf("ParseMultikey(%q) = %q", s, k.Multikey())
		}
	})
}

// FuzzVerify looks for panics; that it finds a signature is not to be feared.
func FuzzVerify(f *testing.F) {
	ed, p256 := testKeys(f)
	for _, k := range []PrivateKey{ed, p256} {
		sig, err := k.Sign([]byte("message"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte("another"), sig)
	}
	f.Fuzz(func(t *testing.T, message, sig []byte) {
		if string(message) == "message" {
			return
		}
		if ed.Public().Verify(message, sig) == nil || p256.Public().Verify(message, sig) == nil {
			t.Fatalf("%x is a signature of %x", sig, message)
		}
	})
}

func FuzzParseDocument(f *testing.F) {
	data, err := os.ReadFile("testdata/document.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(document(`,"authentication":[` + method("#k") + `]`)))
	f.Add([]byte(`{"id":"did:web:a","x":[[[[[[[[[[[[[[[[[[[[`))
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, err := ParseDocument(data)
		if err != nil {
			return
		}
		if _, err := Parse(string(doc.ID())); err != nil {
			t.Fatal(err)
		}
		for rel, keys := range doc.uses {
			for u, want := range keys {
				if u.DID != doc.ID() {
					t.Fatalf("%s holds a key of %s", doc.ID(), u.DID)
				}
				if _, err := ResolveKey(u, rel, doc); err != nil && u.DID.Method() == "web" {
					t.Fatal(err)
				}
				if k, err := doc.PublicKey(u, rel); err != nil || k != want || k.IsZero() {
					t.Fatalf("%s: %v, %v", u, k, err)
				}
			}
		}
	})
}

func FuzzParseKeyFile(f *testing.F) {
	files, err := filepath.Glob("testdata/key-*.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no golden key files", err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, data := range badKeyFiles {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parseKeyFile(data)
		if err != nil {
			return
		}
		encoded, err := encodeKeyFile(keys)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := parseKeyFile(encoded); err != nil || !sameKeys(back, keys) {
			t.Fatalf("%v became %v, %v", keys, back, err)
		}
	})
}

// FuzzParseJWE stops before the derivation of a key, which is slow on purpose.
func FuzzParseJWE(f *testing.F) {
	data, err := os.ReadFile("testdata/export-ed25519.jwe")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[:len(data)-1])
	f.Add([]byte("e30.AA.AA.AA.AA"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parseJWE(data)
		if err != nil {
			return
		}
		if string(p.compact()) != string(data) {
			t.Fatalf("%s was read as %s", data, p.compact())
		}
		if p.iterations < minJWEIterations || p.iterations > maxJWEIterations {
			t.Fatalf("%d iterations", p.iterations)
		}
	})
}
