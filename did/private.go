package did

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
)

// ErrNoKey: the zero PrivateKey was asked to sign or to be written.
var ErrNoKey = errors.New("no private key")

// Signer signs with one key and says which. A hardware key is one too.
type Signer interface {
	// KeyID is the DID URL of the key.
	KeyID() URL
	// Sign returns the signature of message that PublicKey.Verify accepts.
	Sign(message []byte) ([]byte, error)
}

// PrivateKey is an Ed25519 or P-256 private key. Copies share the key. No verb
// of fmt, no slog handler and no JSON encoder shows its material. The zero value
// is no key.
type PrivateKey struct {
	// secret is a function because fmt cannot call methods on an unexported
	// field of a struct around this one: it follows pointers there (%s of one
	// prints what it points to), but of a function it can only print the address.
	secret func() *secret
}

type secret struct {
	public PublicKey
	ed     ed25519.PrivateKey // one of ed and ec is set
	ec     *ecdsa.PrivateKey
}

func newPrivateKey(s secret) PrivateKey {
	return PrivateKey{func() *secret { return &s }}
}

// GenerateEd25519 makes a key of 32 bytes read from rand.
func GenerateEd25519(rand io.Reader) (PrivateKey, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(rand, seed); err != nil {
		return PrivateKey{}, fmt.Errorf("generate Ed25519 key: %w", err)
	}
	return ed25519FromSeed(seed)
}

func ed25519FromSeed(seed []byte) (PrivateKey, error) {
	if len(seed) != ed25519.SeedSize {
		return PrivateKey{}, fmt.Errorf("%w: an Ed25519 seed has %d bytes", ErrKey, ed25519.SeedSize)
	}
	private := ed25519.NewKeyFromSeed(seed)
	public, err := NewEd25519PublicKey(private.Public().(ed25519.PublicKey))
	if err != nil {
		return PrivateKey{}, err
	}
	return newPrivateKey(secret{public: public, ed: private}), nil
}

// GenerateP256 makes a key of 32 bytes read from rand, more when these are not
// below the group's order (of random bytes, one in 2^32).
func GenerateP256(rand io.Reader) (PrivateKey, error) {
	d := make([]byte, 32)
	for range 8 {
		if _, err := io.ReadFull(rand, d); err != nil {
			return PrivateKey{}, fmt.Errorf("generate P-256 key: %w", err)
		}
		if k, err := p256FromScalar(d); err == nil {
			return k, nil
		}
	}
	return PrivateKey{}, errors.New("generate P-256 key: the source of randomness is broken")
}

func p256FromScalar(d []byte) (PrivateKey, error) {
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("%w: not a P-256 scalar", ErrKey)
	}
	point, err := private.PublicKey.Bytes()
	if err != nil {
		return PrivateKey{}, fmt.Errorf("%w: P-256: %w", ErrKey, err)
	}
	public, err := p256Coordinates(point[1:33], point[33:])
	if err != nil {
		return PrivateKey{}, err
	}
	return newPrivateKey(secret{public: public, ec: private}), nil
}

// scalar returns the private bytes as a JWK's d holds them: the Ed25519 seed or
// the P-256 scalar.
func (k PrivateKey) scalar() ([]byte, error) {
	switch {
	case k.secret == nil:
		return nil, ErrNoKey
	case k.secret().ed != nil:
		return k.secret().ed.Seed(), nil
	default:
		return k.secret().ec.Bytes()
	}
}

// IsZero reports whether k is no key.
func (k PrivateKey) IsZero() bool { return k.secret == nil }

// Public returns the public key; of the zero value, the zero PublicKey.
func (k PrivateKey) Public() PublicKey {
	if k.secret == nil {
		return PublicKey{}
	}
	return k.secret().public
}

// Ed25519 returns a copy of the key and true if it is an Ed25519 key.
func (k PrivateKey) Ed25519() (ed25519.PrivateKey, bool) {
	if k.secret == nil || k.secret().ed == nil {
		return nil, false
	}
	return bytes.Clone(k.secret().ed), true
}

// Sign returns the 64-byte signature of message. It is deterministic: RFC 8032
// for Ed25519; RFC 6979 for P-256, with low s.
func (k PrivateKey) Sign(message []byte) ([]byte, error) {
	switch {
	case k.secret == nil:
		return nil, ErrNoKey
	case k.secret().ed != nil:
		return ed25519.Sign(k.secret().ed, message), nil
	default:
		return signP256(k.secret().ec, message)
	}
}

func signP256(key *ecdsa.PrivateKey, message []byte) ([]byte, error) {
	digest := sha256.Sum256(message)
	encoded, err := key.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sign with P-256: %w", err)
	}
	var sig struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(encoded, &sig); err != nil || len(rest) > 0 {
		return nil, errors.New("sign with P-256: unreadable signature")
	}
	if sig.S.Cmp(p256Half) > 0 {
		sig.S.Sub(elliptic.P256().Params().N, sig.S)
	}
	out := make([]byte, signatureSize)
	sig.R.FillBytes(out[:32])
	sig.S.FillBytes(out[32:])
	return out, nil
}

// Signer returns a Signer that signs with k in the name of keyID, which is
// k.Public().URL() for a did:key. Whether keyID's document holds k is for the
// verifier to find out.
func (k PrivateKey) Signer(keyID URL) Signer { return keySigner{k, keyID} }

type keySigner struct {
	key PrivateKey
	id  URL
}

func (s keySigner) KeyID() URL                          { return s.id }
func (s keySigner) Sign(message []byte) ([]byte, error) { return s.key.Sign(message) }

// String names the key by its public half.
func (k PrivateKey) String() string {
	if k.secret == nil {
		return "no private key"
	}
	return "private key of " + k.secret().public.Multikey()
}

// GoString is String.
func (k PrivateKey) GoString() string { return k.String() }

// Format implements fmt.Formatter with String, whatever the verb: %d of a
// struct without it prints the bytes.
func (k PrivateKey) Format(f fmt.State, _ rune) {
	// An error of the writer is for fmt to report, as for every Formatter.
	_, _ = io.WriteString(f, k.String())
}

// LogValue implements slog.LogValuer with String.
func (k PrivateKey) LogValue() slog.Value { return slog.StringValue(k.String()) }
