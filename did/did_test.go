package did

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Examples of the did:key specification.
const (
	exampleEd25519 = "z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"
	exampleP256    = "zDnaerDaTF5BXEavCrfRZEk316dpbLsfPDZ3WJ5hRTPFU2169"
)

func TestParseAcceptsCanonicalDIDs(t *testing.T) {
	for _, test := range []struct{ did, method, escaped string }{
		{"did:key:" + exampleEd25519, "key", "did%3Akey%3A" + exampleEd25519},
		{"did:key:" + exampleP256, "key", "did%3Akey%3A" + exampleP256},
		{"did:web:w3c-ccg.github.io", "web", "did%3Aweb%3Aw3c-ccg.github.io"},
		{"did:web:localhost", "web", "did%3Aweb%3Alocalhost"},
		{"did:web:example.com%3A3000:user:Alice_1", "web", "did%3Aweb%3Aexample.com%253A3000%3Auser%3AAlice_1"},
		{"did:web:xn--bcher-kva.example:...", "web", "did%3Aweb%3Axn--bcher-kva.example%3A..."},
		{"did:web:1.2.3.4.example", "web", "did%3Aweb%3A1.2.3.4.example"},
		{"did:web:" + strings.Repeat("a.", 123) + "a", "web", "did%3Aweb%3A" + strings.Repeat("a.", 123) + "a"},
	} {
		d, err := Parse(test.did)
		if err != nil {
			t.Errorf("Parse(%q): %v", test.did, err)
			continue
		}
		if d.String() != test.did || d.Method() != test.method || d.Escaped() != test.escaped {
			t.Errorf("Parse(%q) = %q, method %q, escaped %q; want method %q, escaped %q", test.did, d, d.Method(), d.Escaped(), test.method, test.escaped)
		}
		if back, err := Unescape(test.escaped); err != nil || back != d {
			t.Errorf("Unescape(%q) = %q, %v; want %q", test.escaped, back, err, d)
		}
	}
}

// badDIDs are refused, each for its reason.
var badDIDs = map[string]string{
	"empty":                      "",
	"no scheme":                  "key:" + exampleEd25519,
	"upper-case scheme":          "DID:key:" + exampleEd25519,
	"unknown method":             "did:plc:ewvi7nxzyoun6zhxrhs64oiz",
	"no identifier":              "did:key",
	"empty identifier":           "did:key:",
	"white space":                " did:key:" + exampleEd25519,
	"trailing newline":           "did:key:" + exampleEd25519 + "\n",
	"fragment":                   "did:key:" + exampleEd25519 + "#" + exampleEd25519,
	"other multibase":            "did:key:f" + "ed01" + strings.Repeat("00", 32),
	"base58 with leading one":    "did:key:z1" + exampleEd25519[1:],
	"base58 with bad letter":     "did:key:z0" + exampleEd25519[2:],
	"X25519":                     "did:key:z6LSeu9HkTHSfLLeUs2nnzUSNedgDUevfNQgQjQC23ZCit6F",
	"secp256k1":                  "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme",
	"identity point":             "did:key:" + multikeyOf(codecEd25519+"\x01"+strings.Repeat("\x00", 31)),
	"order 2 point":              "did:key:" + multikeyOf(codecEd25519+"\xec"+strings.Repeat("\xff", 30)+"\x7f"),
	"non-canonical y":            "did:key:" + multikeyOf(codecEd25519+"\xf1"+strings.Repeat("\xff", 30)+"\x7f"),
	"31 bytes":                   "did:key:" + multikeyOf(codecEd25519+strings.Repeat("\x02", 31)),
	"33 bytes":                   "did:key:" + multikeyOf(codecEd25519+strings.Repeat("\x02", 33)),
	"uncompressed P-256":         "did:key:" + multikeyOf(codecP256+"\x04"+strings.Repeat("\x02", 64)),
	"P-256 off the curve":        "did:key:" + multikeyOf(codecP256+"\x02"+strings.Repeat("\xff", 32)),
	"codec varint with more":     "did:key:" + multikeyOf("\xed\x81\x00"+strings.Repeat("\x02", 32)),
	"web without host":           "did:web:",
	"upper-case host":            "did:web:Example.com",
	"IPv4":                       "did:web:127.0.0.1",
	"IPv4 as one number":         "did:web:2130706433",
	"IPv4 in hexadecimal":        "did:web:0x7f000001",
	"IPv6":                       "did:web:%5B%3A%3A1%5D",
	"userinfo":                   "did:web:user@example.com",
	"encoded userinfo":           "did:web:user%40example.com",
	"encoded slash":              "did:web:example.com%2Fpath",
	"encoded slash in path":      "did:web:example.com:a%2Fb",
	"slash":                      "did:web:example.com/path",
	"backslash":                  "did:web:example.com:a\\b",
	"query":                      "did:web:example.com?x=1",
	"dot segment":                "did:web:example.com:.",
	"dot dot segment":            "did:web:example.com:..",
	"encoded dot dot":            "did:web:example.com:%2E%2E",
	"empty segment":              "did:web:example.com::a",
	"trailing colon":             "did:web:example.com:",
	"trailing dot":               "did:web:example.com.",
	"empty label":                "did:web:example..com",
	"label begins with hyphen":   "did:web:-example.com",
	"label ends with hyphen":     "did:web:example-.com",
	"underscore in host":         "did:web:a_b.example",
	"label of 64":                "did:web:" + strings.Repeat("a", 64) + ".example",
	"host of 254":                "did:web:" + strings.Repeat("a.", 127),
	"lower-case escape of colon": "did:web:example.com%3a8080",
	"port 0":                     "did:web:example.com%3A0",
	"port with leading zero":     "did:web:example.com%3A0443",
	"port beyond 65535":          "did:web:example.com%3A65536",
	"empty port":                 "did:web:example.com%3A",
	"signed port":                "did:web:example.com%3A+80",
	"two ports":                  "did:web:example.com%3A80%3A81",
	"NUL":                        "did:web:example.com\x00",
	"homograph":                  "did:web:ex\u0430mple.com",
	"256 characters":             "did:web:example.com:" + strings.Repeat("a", 256-20),
}

func TestParseRefuses(t *testing.T) {
	for name, s := range badDIDs {
		t.Run(name, func(t *testing.T) {
			if d, err := Parse(s); !errors.Is(err, ErrDID) || d != "" {
				t.Errorf("Parse(%q) = %q, %v; want ErrDID", s, d, err)
			}
			if err := new(DID).UnmarshalText([]byte(s)); !errors.Is(err, ErrDID) {
				t.Errorf("UnmarshalText(%q): %v; want ErrDID", s, err)
			}
			if _, err := DID(s).MarshalText(); !errors.Is(err, ErrDID) {
				t.Errorf("MarshalText of %q: %v; want ErrDID", s, err)
			}
			if u, err := ParseURL(s + "#key-1"); !errors.Is(err, ErrURL) || u != (URL{}) {
				t.Errorf("ParseURL(%q) = %v, %v; want ErrURL", s+"#key-1", u, err)
			}
		})
	}
}

func TestParseAcceptsTheLongestAndNoLonger(t *testing.T) {
	longest := "did:web:example.com:" + strings.Repeat("a", MaxLength-20)
	if _, err := Parse(longest); err != nil {
		t.Errorf("%d characters: %v", len(longest), err)
	}
	if _, err := Parse(longest + "a"); !errors.Is(err, ErrDID) {
		t.Errorf("%d characters: %v; want ErrDID", len(longest)+1, err)
	}
}

func TestUnescapeRefusesOtherSpellings(t *testing.T) {
	for _, s := range []string{
		"did:web:example.com",              // not escaped
		"did%3aweb%3aexample.com",          // lower-case hexadecimal
		"did%3Aweb%3Aexample%2Ecom",        // an unreserved character escaped
		"did%3Aweb%3Aexample.com%3A8080%3", // incomplete
		"did%3Aweb%3Aexample.com%",
		"did%3Aweb%3Aexample.com%zz",
		"did%3Aweb%3Aexample.com%+1",
		"did%3Aweb%3Aexample.com%00",
		"did%3Aweb%3Aexample.com%252F",
		"did%3Aweb%3A" + strings.Repeat("a", 3*MaxLength),
		"",
	} {
		if d, err := Unescape(s); !errors.Is(err, ErrDID) || d != "" {
			t.Errorf("Unescape(%q) = %q, %v; want ErrDID", s, d, err)
		}
	}
}

func TestParseURLSplitsAtTheFragment(t *testing.T) {
	for _, test := range []struct{ url, did, fragment string }{
		{"did:web:example.com#key-1", "did:web:example.com", "key-1"},
		{"did:key:" + exampleP256 + "#" + exampleP256, "did:key:" + exampleP256, exampleP256},
		{"did:web:a.example%3A8443:x#_Qq0UL2Fq651Q0Fjd6TvnYE", "did:web:a.example%3A8443:x", "_Qq0UL2Fq651Q0Fjd6TvnYE"},
		{"did:web:example.com#a/b?c:@!$&'()*+,;=~", "did:web:example.com", "a/b?c:@!$&'()*+,;=~"},
	} {
		u, err := ParseURL(test.url)
		if err != nil || string(u.DID) != test.did || u.Fragment != test.fragment || u.String() != test.url {
			t.Errorf("ParseURL(%q) = %+v, %v; want %q and %q", test.url, u, err, test.did, test.fragment)
		}
	}
}

func TestParseURLRefuses(t *testing.T) {
	for name, s := range map[string]string{
		"no fragment":        "did:web:example.com",
		"empty fragment":     "did:web:example.com#",
		"two fragments":      "did:web:example.com#a#b",
		"query":              "did:web:example.com?versionId=1#key-1",
		"path":               "did:web:example.com/a#key-1",
		"percent-encoding":   "did:web:example.com#a%20b",
		"space":              "did:web:example.com#a b",
		"quote":              "did:web:example.com#a\"b",
		"newline":            "did:web:example.com#a\n",
		"not ASCII":          "did:web:example.com#ä",
		"only a fragment":    "#key-1",
		"more than 512":      "did:web:example.com#" + strings.Repeat("a", MaxURLLength),
		"another DID method": "did:example:123#key-1",
	} {
		if u, err := ParseURL(s); !errors.Is(err, ErrURL) || u != (URL{}) {
			t.Errorf("%s: ParseURL(%q) = %v, %v; want ErrURL", name, s, u, err)
		}
	}
}

func TestURLMarshalsOnlyWhatParses(t *testing.T) {
	want := `{"u":"did:web:example.com#key-1","d":"did:web:example.com"}`
	var v struct {
		U URL `json:"u"`
		D DID `json:"d"`
	}
	if err := json.Unmarshal([]byte(want), &v); err != nil {
		t.Fatal(err)
	}
	if got, err := json.Marshal(v); err != nil || string(got) != want {
		t.Errorf("JSON = %s, %v; want %s", got, err, want)
	}
	for _, u := range []URL{{}, {Fragment: "a"}, {DID: "did:web:example.com"}, {DID: "did:web:example.com#a", Fragment: "b"}, {DID: "x", Fragment: "y"}} {
		if text, err := u.MarshalText(); err == nil {
			t.Errorf("MarshalText of %#v = %q; want an error", u, text)
		}
	}
}

func TestEveryParsedDIDRoundTrips(t *testing.T) {
	label := rapid.StringMatching(`[a-z]([a-z0-9-]{0,8}[a-z0-9])?`)
	rapid.Check(t, func(t *rapid.T) {
		s := "did:web:" + strings.Join(rapid.SliceOfN(label, 1, 4).Draw(t, "host"), ".")
		if rapid.Bool().Draw(t, "has port") {
			s += "%3A" + rapid.StringMatching(`[1-9][0-9]{0,3}`).Draw(t, "port")
		}
		for _, segment := range rapid.SliceOfN(rapid.StringMatching(`[A-Za-z0-9_-][A-Za-z0-9._-]{0,9}`), 0, 4).Draw(t, "path") {
			s += ":" + segment
		}
		d, err := Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := Unescape(d.Escaped()); err != nil || back != d {
			t.Fatalf("Unescape(%q) = %q, %v; want %q", d.Escaped(), back, err, d)
		}
		if strings.ContainsAny(d.Escaped(), ":/@#?") {
			t.Fatalf("Escaped of %q has a reserved character: %q", d, d.Escaped())
		}
		u := URL{DID: d, Fragment: "key-1"}
		if back, err := ParseURL(u.String()); err != nil || back != u {
			t.Fatalf("ParseURL(%q) = %v, %v", u, back, err)
		}
	})
}
