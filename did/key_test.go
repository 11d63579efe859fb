package did

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"math/big"
	"testing"

	"filippo.io/edwards25519"
	"github.com/multiformats/go-multibase"
	"pgregory.net/rapid"
)

// multikeyOf encodes data whatever it is.
func multikeyOf(data string) string {
	s, err := multibase.Encode(multibase.Base58BTC, []byte(data))
	if err != nil {
		panic(err)
	}
	return s
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	data, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// testKeys returns one key of each algorithm, the same ones always: RFC 8032
// §7.1 test 2 and RFC 6979 A.2.5.
func testKeys(t testing.TB) (ed, p256 PrivateKey) {
	t.Helper()
	ed, err := ed25519FromSeed(unhex(t, "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
	if err != nil {
		t.Fatal(err)
	}
	p256, err = p256FromScalar(unhex(t, "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721"))
	if err != nil {
		t.Fatal(err)
	}
	return ed, p256
}

func TestMultikeyOfTheSpecificationsExamples(t *testing.T) {
	for _, test := range []struct {
		multikey  string
		algorithm Algorithm
	}{{exampleEd25519, EdDSA}, {exampleP256, ES256}} {
		k, err := ParseMultikey(test.multikey)
		if err != nil {
			t.Fatal(err)
		}
		if k.Multikey() != test.multikey || k.Algorithm() != test.algorithm || k.IsZero() {
			t.Errorf("ParseMultikey(%q) = %v, %v", test.multikey, k, k.Algorithm())
		}
		if want := DID("did:key:" + test.multikey); k.DID() != want || k.URL() != (URL{want, test.multikey}) {
			t.Errorf("DID %v, URL %v; want %v", k.DID(), k.URL(), want)
		}
		if back, err := KeyOf(k.DID()); err != nil || back != k {
			t.Errorf("KeyOf(%v) = %v, %v", k.DID(), back, err)
		}
		again, err := ParseMultikey(test.multikey)
		if err != nil || again != k {
			t.Errorf("two parses of one key are not equal: %v", err)
		}
	}
}

func TestParseMultikeyTellsUnknownFromBad(t *testing.T) {
	for _, test := range []struct {
		name, multikey string
		want           error
	}{
		{"X25519", "z6LSeu9HkTHSfLLeUs2nnzUSNedgDUevfNQgQjQC23ZCit6F", ErrUnsupportedKey},
		{"too long to decode", "z" + string(bytes.Repeat([]byte("6"), 4096)), ErrUnsupportedKey},
		{"nothing", "", ErrKey},
		{"no multibase", "6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK", ErrKey},
		{"not base58", "zOOO", ErrKey},
		{"only z", "z", ErrKey},
		{"not UTF-8", "z\xff\xfe", ErrKey},
		{"small order", multikeyOf(codecEd25519 + string(make([]byte, 32))), ErrKey},
	} {
		if k, err := ParseMultikey(test.multikey); !errors.Is(err, test.want) || !k.IsZero() {
			t.Errorf("%s: %v, %v; want %v", test.name, k, err, test.want)
		}
	}
}

func TestKeyOfNeedsADIDKey(t *testing.T) {
	for _, d := range []DID{"", "did:key", "did:key:", "did:web:example.com", "key:" + exampleEd25519} {
		if k, err := KeyOf(d); !errors.Is(err, ErrDID) || !k.IsZero() {
			t.Errorf("KeyOf(%q) = %v, %v; want ErrDID", d, k, err)
		}
	}
}

func TestEd25519KeyConverts(t *testing.T) {
	ed, p256 := testKeys(t)
	raw, ok := ed.Public().Ed25519()
	if !ok {
		t.Fatal("not an Ed25519 key")
	}
	k, err := NewEd25519PublicKey(raw)
	if err != nil || k != ed.Public() {
		t.Errorf("NewEd25519PublicKey = %v, %v; want %v", k, err, ed.Public())
	}
	raw[0] ^= 1
	if again, _ := ed.Public().Ed25519(); bytes.Equal(raw, again) {
		t.Error("Ed25519 hands out the key's own bytes")
	}
	if _, ok := p256.Public().Ed25519(); ok {
		t.Error("a P-256 key gave an Ed25519 key")
	}
	if _, err := NewEd25519PublicKey(nil); !errors.Is(err, ErrKey) {
		t.Errorf("no bytes: %v; want ErrKey", err)
	}
}

// The eight points of small order and their non-canonical encodings (Chalkias,
// Garillot, Nikolaenko: Taming the many EdDSAs, table 4).
var smallOrderPoints = []string{
	"0100000000000000000000000000000000000000000000000000000000000000",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000080",
	"0000000000000000000000000000000000000000000000000000000000000000",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
	"0100000000000000000000000000000000000000000000000000000000000080",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
}

func TestSmallOrderKeysAndRAreRefused(t *testing.T) {
	ed, _ := testKeys(t)
	message := []byte("message")
	good, err := ed.Sign(message)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range smallOrderPoints {
		point := unhex(t, s)
		if k, err := NewEd25519PublicKey(point); !errors.Is(err, ErrKey) || !k.IsZero() {
			t.Errorf("key %s: %v; want ErrKey", s, err)
		}
		if err := ed.Public().Verify(message, append(bytes.Clone(point), good[32:]...)); !errors.Is(err, ErrSignature) {
			t.Errorf("R %s: %v; want ErrSignature", s, err)
		}
	}
}

func TestSignatureWithRIdentityIsRefusedThoughTheEquationHolds(t *testing.T) {
	ed, _ := testKeys(t)
	private, _ := ed.Ed25519()
	public, _ := ed.Public().Ed25519()
	message := []byte("message")

	// s = k·a with R = identity satisfies s·B = R + k·A.
	hashed := sha512.Sum512(private.Seed())
	a, err := new(edwards25519.Scalar).SetBytesWithClamping(hashed[:32])
	if err != nil {
		t.Fatal(err)
	}
	r := edwards25519.NewIdentityPoint().Bytes()
	challenge := sha512.Sum512(append(append(bytes.Clone(r), public...), message...))
	k, err := new(edwards25519.Scalar).SetUniformBytes(challenge[:])
	if err != nil {
		t.Fatal(err)
	}
	sig := append(r, new(edwards25519.Scalar).Multiply(k, a).Bytes()...)
	if !ed25519.Verify(public, message, sig) {
		t.Fatal("the attack is built wrongly: the lax verifier refuses it")
	}
	if err := ed.Public().Verify(message, sig); !errors.Is(err, ErrSignature) {
		t.Errorf("Verify = %v; want ErrSignature", err)
	}
}

func TestSignatureWithSPlusOrderIsRefused(t *testing.T) {
	ed, _ := testKeys(t)
	sig, err := ed.Sign([]byte("message"))
	if err != nil {
		t.Fatal(err)
	}
	// L = 2^252 + 27742317777372353535851937790883648493, little-endian.
	order := unhex(t, "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
	carry := 0
	for i := range 32 {
		sum := int(sig[32+i]) + int(order[i]) + carry
		sig[32+i], carry = byte(sum), sum>>8
	}
	if err := ed.Public().Verify([]byte("message"), sig); !errors.Is(err, ErrSignature) {
		t.Errorf("Verify = %v; want ErrSignature", err)
	}
}

func TestP256SignatureWithHighSIsRefused(t *testing.T) {
	_, p256 := testKeys(t)
	message := []byte("message")
	sig, err := p256.Sign(message)
	if err != nil {
		t.Fatal(err)
	}
	r, s := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])
	s.Sub(elliptic.P256().Params().N, s)
	s.FillBytes(sig[32:])
	public, err := p256.Public().p256()
	if err != nil {
		t.Fatal(err)
	}
	if digest := sha256.Sum256(message); !ecdsa.Verify(public, digest[:], r, s) {
		t.Fatal("the attack is built wrongly: the lax verifier refuses it")
	}
	if err := p256.Public().Verify(message, sig); !errors.Is(err, ErrSignature) {
		t.Errorf("Verify = %v; want ErrSignature", err)
	}
}

func TestVerifyRefusesSillySignatures(t *testing.T) {
	ed, p256 := testKeys(t)
	order := elliptic.P256().Params().N.Bytes()
	for name, sig := range map[string][]byte{
		"none":           nil,
		"63 bytes":       make([]byte, 63),
		"65 bytes":       make([]byte, 65),
		"zeros":          make([]byte, 64),
		"all ones":       bytes.Repeat([]byte{0xff}, 64),
		"r is the order": append(bytes.Clone(order), append(make([]byte, 31), 1)...),
		"s is zero":      append(append(make([]byte, 31), 1), make([]byte, 32)...),
	} {
		for _, k := range []PublicKey{ed.Public(), p256.Public(), {}} {
			if err := k.Verify([]byte("message"), sig); !errors.Is(err, ErrSignature) {
				t.Errorf("%s, %s: %v; want ErrSignature", name, k.Algorithm(), err)
			}
		}
	}
}

func TestZeroKeyIsNobody(t *testing.T) {
	var k PublicKey
	if !k.IsZero() || k.DID() != "" || k.Multikey() != "" || k.URL() != (URL{}) || k.Algorithm() != "" {
		t.Errorf("the zero key is %q, %q, %v", k.DID(), k.Multikey(), k.URL())
	}
}

func TestSignaturesHoldForOneMessageAndKeyOnly(t *testing.T) {
	ed, p256 := testKeys(t)
	rapid.Check(t, func(t *rapid.T) {
		key, other := ed, p256
		if rapid.Bool().Draw(t, "P-256") {
			key, other = p256, ed
		}
		message := rapid.SliceOf(rapid.Byte()).Draw(t, "message")
		sig, err := key.Sign(message)
		if err != nil {
			t.Fatal(err)
		}
		if err := key.Public().Verify(message, sig); err != nil {
			t.Fatal(err)
		}
		if other.Public().Verify(message, sig) == nil {
			t.Fatal("another key verifies it")
		}
		if key.Public().Verify(append(bytes.Clone(message), 0), sig) == nil {
			t.Fatal("it verifies another message")
		}
		bit := rapid.IntRange(0, 511).Draw(t, "bit")
		sig[bit/8] ^= 1 << (bit % 8)
		if key.Public().Verify(message, sig) == nil {
			t.Fatalf("it verifies with bit %d flipped", bit)
		}
	})
}

func TestAlteredMultikeyIsNeverTheSameKey(t *testing.T) {
	const alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz0OIl"
	rapid.Check(t, func(t *rapid.T) {
		original := rapid.SampledFrom([]string{exampleEd25519, exampleP256}).Draw(t, "multikey")
		s := []byte(original)
		at := rapid.IntRange(0, len(s)-1).Draw(t, "at")
		s[at] = alphabet[rapid.IntRange(0, len(alphabet)-1).Draw(t, "character")]
		k, err := ParseMultikey(string(s))
		if err == nil && (k.Multikey() != string(s) || (k.Multikey() == original) != (string(s) == original)) {
			t.Fatalf("%q parsed as %q", s, k.Multikey())
		}
	})
}
