package storage

import (
	"bytes"
	"encoding/base32"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Computed apart from this package: "b" + base32(01 55 12 20 sha256(bytes)).
const (
	emptyCID = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
	helloCID = "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am"
	helloHex = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
)

func TestCIDOfKnownBytes(t *testing.T) {
	if got := CIDOf(nil).String(); got != emptyCID {
		t.Errorf("CID of nothing is %s, want %s", got, emptyCID)
	}
	hello := CIDOf([]byte("hello\n"))
	if hello.String() != helloCID || hello.Hex() != helloHex {
		t.Errorf("CID of hello is %s (%s), want %s (%s)", hello, hello.Hex(), helloCID, helloHex)
	}
	if hello != CIDFromDigest(hello.Digest()) {
		t.Error("a CID is not equal to the one made from its digest")
	}
}

func TestZeroCIDNamesNothing(t *testing.T) {
	var zero CID
	if !zero.IsZero() || zero.String() != "" {
		t.Errorf("the zero CID is %q, IsZero %t", zero, zero.IsZero())
	}
	if text, err := zero.MarshalText(); !errors.Is(err, ErrBadCID) {
		t.Errorf("MarshalText: %q, error %v, want ErrBadCID", text, err)
	}
	// A digest of zeros is a digest.
	if zeros := CIDFromDigest([32]byte{}); zeros.IsZero() || zeros == zero {
		t.Error("the CID of an all-zero digest counts as none")
	}
}

// encode writes raw bytes as a base32 CID.
func encode(raw []byte) string {
	return "b" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw))
}

func TestParseCIDRefusesOtherForms(t *testing.T) {
	digest := CIDOf([]byte("hello\n")).Digest()
	with := func(prefix ...byte) string { return encode(append(prefix, digest[:]...)) }
	if got := with(0x01, 0x55, 0x12, 0x20); got != helloCID {
		t.Fatalf("the test's own encoding gives %s", got)
	}
	last := helloCID[len(helloCID)-1:]
	for name, s := range map[string]string{
		"empty":                        "",
		"only the multibase":           "b",
		"upper case":                   strings.ToUpper(helloCID),
		"one upper-case letter":        "bA" + helloCID[2:],
		"multibase of upper case":      "B" + strings.ToUpper(helloCID[1:]),
		"base16":                       "f01551220" + helloHex,
		"CIDv0":                        "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN",
		"dag-pb":                       with(0x01, 0x70, 0x12, 0x20),
		"dag-cbor":                     with(0x01, 0x71, 0x12, 0x20),
		"blake2s-256":                  with(0x01, 0x55, 0xe0, 0xe4, 0x02, 0x20),
		"sha3-256":                     with(0x01, 0x55, 0x16, 0x20),
		"identity":                     with(0x01, 0x55, 0x00, 0x20),
		"version 2":                    with(0x02, 0x55, 0x12, 0x20),
		"long form of the codec":       with(0x01, 0xd5, 0x00, 0x12, 0x20),
		"a digest cut short":           encode(append([]byte{0x01, 0x55, 0x12, 0x1f}, digest[:31]...)),
		"a digest too long":            encode(append([]byte{0x01, 0x55, 0x12, 0x21}, append(digest[:], 0)...)),
		"a byte too many":              encode(append(append([]byte{0x01, 0x55, 0x12, 0x20}, digest[:]...), 0)),
		"padding":                      helloCID + "=",
		"white space":                  helloCID + " ",
		"new line":                     helloCID + "\n",
		"a path":                       "/ipfs/" + helloCID,
		"a character missing":          helloCID[:len(helloCID)-1],
		"twice":                        helloCID + helloCID,
		"very long":                    strings.Repeat("a", 1<<20),
		"stray bits in the last place": helloCID[:len(helloCID)-1] + string(last[0]+1),
		"NUL":                          helloCID[:30] + "\x00" + helloCID[31:],
	} {
		if id, err := ParseCID(s); !errors.Is(err, ErrBadCID) || !id.IsZero() {
			t.Errorf("%s: got %q, error %v, want ErrBadCID", name, id, err)
		}
		id := CIDOf(nil)
		if err := id.UnmarshalText([]byte(s)); !errors.Is(err, ErrBadCID) || id != CIDOf(nil) {
			t.Errorf("%s: UnmarshalText gives %q, error %v, want ErrBadCID and no change", name, id, err)
		}
	}
}

func TestEveryCIDRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		digest := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "digest")
		id := CIDFromDigest([32]byte(digest))
		back, err := ParseCID(id.String())
		if err != nil || back != id {
			t.Fatalf("%s came back as %s, %v", id, back, err)
		}
		text, err := id.MarshalText()
		var unmarshalled CID
		if err != nil || unmarshalled.UnmarshalText(text) != nil || unmarshalled != id {
			t.Fatalf("%s came back from text as %s, %v", id, unmarshalled, err)
		}
	})
}

func FuzzParseCID(f *testing.F) {
	for _, s := range []string{"", emptyCID, helloCID, strings.ToUpper(helloCID), "f01551220" + helloHex, "z", "Qm"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseCID(s)
		if err != nil {
			if !errors.Is(err, ErrBadCID) || !id.IsZero() {
				t.Fatalf("%q: got %s with error %v", s, id, err)
			}
			return
		}
		digest := id.Digest()
		if id.String() != s || s != encode(bytes.Join([][]byte{{0x01, 0x55, 0x12, 0x20}, digest[:]}, nil)) {
			t.Fatalf("%q was accepted and is spelled %q", s, id)
		}
	})
}
