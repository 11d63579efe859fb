package did

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"filippo.io/edwards25519"
	"github.com/multiformats/go-multibase"
)

// Algorithm is how a key signs, by its JOSE name (RFC 7518, RFC 8037). A key
// type has exactly one.
type Algorithm string

const (
	EdDSA Algorithm = "EdDSA" // Ed25519, RFC 8032
	ES256 Algorithm = "ES256" // ECDSA over P-256 with SHA-256, 64-byte r‖s
)

// Errors of keys and signatures, wrapped with what is wrong.
var (
	// ErrKey: bytes or a string are not a public key, or one that must not be trusted.
	ErrKey = errors.New("bad public key")
	// ErrUnsupportedKey: a key of a type that this registry does not know.
	ErrUnsupportedKey = errors.New("unsupported type of key, use Ed25519 or P-256")
	// ErrSignature: a signature does not hold for the key and the message.
	ErrSignature = errors.New("bad signature")
)

// Multicodec prefixes as unsigned varints (multiformats/multicodec table.csv).
const (
	codecEd25519 = "\xed\x01" // 0xed ed25519-pub
	codecP256    = "\x80\x24" // 0x1200 p256-pub, compressed point
)

// maxMultikey bounds a multikey in bytes; decoding base58 is quadratic.
const maxMultikey = 256

const (
	compressedP256Size = 33
	signatureSize      = 64 // of both algorithms
)

// p256Half is half the order of P-256: a signature's s is at most this.
var p256Half = new(big.Int).Rsh(elliptic.P256().Params().N, 1)

// PublicKey is an Ed25519 or P-256 public key. It is comparable: keys are equal
// iff they are the same point. The zero value verifies nothing.
type PublicKey struct {
	algorithm Algorithm
	// point is the 32-byte RFC 8032 encoding and a zero, or the 33-byte SEC 1
	// compressed point.
	point [compressedP256Size]byte
}

// NewEd25519PublicKey checks and wraps key: an encoding that is not canonical,
// not on the curve or of small order is ErrKey.
func NewEd25519PublicKey(key ed25519.PublicKey) (PublicKey, error) {
	if err := checkEd25519Point(key); err != nil {
		return PublicKey{}, fmt.Errorf("%w: Ed25519: %w", ErrKey, err)
	}
	k := PublicKey{algorithm: EdDSA}
	copy(k.point[:], key)
	return k, nil
}

// checkEd25519Point refuses points that let one signature pass for several
// messages or keys: those of small order, and second encodings of a point.
func checkEd25519Point(encoded []byte) error {
	p, err := new(edwards25519.Point).SetBytes(encoded)
	if err != nil {
		return errors.New("not a point on the curve")
	}
	if !bytes.Equal(p.Bytes(), encoded) {
		return errors.New("point is not encoded canonically")
	}
	if new(edwards25519.Point).MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 1 {
		return errors.New("point has small order")
	}
	return nil
}

// newP256PublicKey takes a SEC 1 compressed point (33 bytes).
func newP256PublicKey(compressed []byte) (PublicKey, error) {
	if len(compressed) != compressedP256Size {
		return PublicKey{}, fmt.Errorf("%w: P-256: %d bytes, a compressed point has %d", ErrKey, len(compressed), compressedP256Size)
	}
	k := PublicKey{algorithm: ES256, point: [compressedP256Size]byte(compressed)}
	if _, err := k.p256(); err != nil {
		return PublicKey{}, err
	}
	return k, nil
}

// p256Coordinates takes the uncompressed point x, y of 32 bytes each.
func p256Coordinates(x, y []byte) (PublicKey, error) {
	uncompressed := append(append([]byte{4}, x...), y...)
	if _, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), uncompressed); err != nil {
		return PublicKey{}, fmt.Errorf("%w: P-256: not a point on the curve", ErrKey)
	}
	k := PublicKey{algorithm: ES256}
	k.point[0] = 2 | y[len(y)-1]&1 // SEC 1 §2.3.3: the sign of y
	copy(k.point[1:], x)
	return k, nil
}

// uncompressed returns 4‖x‖y of a P-256 key.
func (k PublicKey) uncompressed() ([]byte, error) {
	x, y := elliptic.UnmarshalCompressed(elliptic.P256(), k.point[:])
	if x == nil {
		return nil, fmt.Errorf("%w: P-256: not a point on the curve", ErrKey)
	}
	point := make([]byte, 65)
	point[0] = 4
	x.FillBytes(point[1:33])
	y.FillBytes(point[33:])
	return point, nil
}

func (k PublicKey) p256() (*ecdsa.PublicKey, error) {
	point, err := k.uncompressed()
	if err != nil {
		return nil, err
	}
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
}

// ParseMultikey reads a multibase (base58btc, "z…") multicodec public key of
// Ed25519 or P-256 (W3C Controlled Identifiers §2.2.2, Multikey). Only the
// canonical spelling is accepted (ErrKey); other codecs are ErrUnsupportedKey.
func ParseMultikey(s string) (PublicKey, error) {
	if len(s) > maxMultikey {
		return PublicKey{}, fmt.Errorf("%w: multikey of %d characters", ErrUnsupportedKey, len(s))
	}
	if s == "" || s[0] != 'z' {
		return PublicKey{}, fmt.Errorf("%w: multikey %.80q is not base58btc, which begins with z", ErrKey, s)
	}
	_, data, err := multibase.Decode(s)
	if err != nil {
		return PublicKey{}, fmt.Errorf("%w: multikey %.80q is not base58btc", ErrKey, s)
	}
	k, err := fromMulticodec(data)
	if err != nil {
		return PublicKey{}, err
	}
	if k.Multikey() != s {
		return PublicKey{}, fmt.Errorf("%w: multikey %.80q is not canonical", ErrKey, s)
	}
	return k, nil
}

func fromMulticodec(data []byte) (PublicKey, error) {
	if key, ok := bytes.CutPrefix(data, []byte(codecEd25519)); ok {
		return NewEd25519PublicKey(key)
	}
	if key, ok := bytes.CutPrefix(data, []byte(codecP256)); ok {
		return newP256PublicKey(key)
	}
	return PublicKey{}, fmt.Errorf("%w: unknown multicodec", ErrUnsupportedKey)
}

// Multikey returns the spelling that ParseMultikey accepts; of the zero value, "".
func (k PublicKey) Multikey() string {
	var data []byte
	switch k.algorithm {
	case EdDSA:
		data = append([]byte(codecEd25519), k.point[:ed25519.PublicKeySize]...)
	case ES256:
		data = append([]byte(codecP256), k.point[:]...)
	default:
		return ""
	}
	s, err := multibase.Encode(multibase.Base58BTC, data)
	if err != nil { // only for bases unknown to multibase
		panic("did: encode base58btc: " + err.Error())
	}
	return s
}

// String is Multikey.
func (k PublicKey) String() string { return k.Multikey() }

// Algorithm returns how the key signs; of the zero value, "".
func (k PublicKey) Algorithm() Algorithm { return k.algorithm }

// IsZero reports whether k is no key.
func (k PublicKey) IsZero() bool { return k == PublicKey{} }

// DID returns the did:key of k; of the zero value, "".
func (k PublicKey) DID() DID {
	if k.IsZero() {
		return ""
	}
	return DID("did:key:" + k.Multikey())
}

// URL returns the one key of k's did:key, did:key:z…#z….
func (k PublicKey) URL() URL {
	return URL{DID: k.DID(), Fragment: k.Multikey()}
}

// KeyOf returns the key that a did:key is; ErrDID for another method.
func KeyOf(d DID) (PublicKey, error) {
	multikey, ok := strings.CutPrefix(string(d), "did:key:")
	if !ok {
		return PublicKey{}, fmt.Errorf("%w: %.80q is not a did:key", ErrDID, string(d))
	}
	k, err := ParseMultikey(multikey)
	if err != nil {
		return PublicKey{}, fmt.Errorf("%w: %w", ErrDID, err)
	}
	return k, nil
}

// Ed25519 returns a copy of the key and true if it is an Ed25519 key.
func (k PublicKey) Ed25519() (ed25519.PublicKey, bool) {
	if k.algorithm != EdDSA {
		return nil, false
	}
	return bytes.Clone(k.point[:ed25519.PublicKeySize]), true
}

// Verify returns nil iff sig is k's signature of message, otherwise
// ErrSignature. Signatures are 64 bytes. Ed25519 is strict: R canonical and of
// large order, s canonical (RFC 8032 §5.1.7, without the cofactor). P-256 is
// r‖s over SHA-256, s at most half the group's order.
func (k PublicKey) Verify(message, sig []byte) error {
	if len(sig) != signatureSize {
		return fmt.Errorf("%w: %d bytes, must be %d", ErrSignature, len(sig), signatureSize)
	}
	switch k.algorithm {
	case EdDSA:
		return k.verifyEd25519(message, sig)
	case ES256:
		return k.verifyP256(message, sig)
	default:
		return fmt.Errorf("%w: no key to verify it with", ErrSignature)
	}
}

func (k PublicKey) verifyEd25519(message, sig []byte) error {
	if err := checkEd25519Point(sig[:32]); err != nil {
		return fmt.Errorf("%w: R: %w", ErrSignature, err)
	}
	if _, err := new(edwards25519.Scalar).SetCanonicalBytes(sig[32:]); err != nil {
		return fmt.Errorf("%w: s is not canonical", ErrSignature)
	}
	if !ed25519.Verify(k.point[:ed25519.PublicKeySize], message, sig) {
		return ErrSignature
	}
	return nil
}

func (k PublicKey) verifyP256(message, sig []byte) error {
	public, err := k.p256()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	r, s := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])
	if s.Cmp(p256Half) > 0 {
		return fmt.Errorf("%w: s is not low", ErrSignature)
	}
	digest := sha256.Sum256(message)
	if !ecdsa.Verify(public, digest[:], r, s) {
		return ErrSignature
	}
	return nil
}
