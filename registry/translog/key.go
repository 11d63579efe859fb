package translog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"time"

	"filippo.io/edwards25519"
)

// Signature types of C2SP signed-note.
const (
	algEd25519     = 0x01 // the log's own signature
	algCosignature = 0x04 // timestamped cosignature/v1
)

// VerifierKey is the public half of a log key.
type VerifierKey = ed25519.PublicKey

// LogKey is the private Ed25519 key that signs checkpoints; fmt and slog print
// only that it is one. The zero value signs nothing.
type LogKey struct {
	// A func, since fmt reaches into unexported fields of other structs without
	// asking Format, and there %s prints even what a pointer points to.
	private func() ed25519.PrivateKey
}

// NewLogKey wraps a private key after checking that its two halves belong
// together; ErrLogKey otherwise.
func NewLogKey(private ed25519.PrivateKey) (LogKey, error) {
	if len(private) != ed25519.PrivateKeySize || !bytes.Equal(ed25519.NewKeyFromSeed(private.Seed()), private) {
		return LogKey{}, fmt.Errorf("%w: private key", ErrLogKey)
	}
	own := ed25519.PrivateKey(bytes.Clone(private))
	return LogKey{private: func() ed25519.PrivateKey { return own }}, nil
}

// Public returns the key that verifies what k signs; nil for the zero LogKey.
func (k LogKey) Public() VerifierKey {
	if k.private == nil {
		return nil
	}
	return k.private().Public().(ed25519.PublicKey)
}

const redacted = "translog.LogKey(redacted)"

// Format implements fmt.Formatter so that no verb prints the key.
func (LogKey) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// String implements fmt.Stringer without key material.
func (LogKey) String() string { return redacted }

// LogValue implements slog.LogValuer without key material.
func (LogKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText keeps encoders from writing the key.
func (LogKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// keyID is signed-note's key ID: the first four bytes of
// SHA-256(name || 0x0A || type || public key).
func keyID(name string, algorithm byte, public VerifierKey) uint32 {
	h := sha256.New()
	h.Write([]byte(name))
	h.Write([]byte{'\n', algorithm})
	h.Write(public)
	return binary.BigEndian.Uint32(h.Sum(nil))
}

// checkVerifierKey refuses keys under which a signature proves nothing: of the
// wrong length, not a point in its canonical encoding, or of small order.
func checkVerifierKey(key VerifierKey) error {
	if len(key) != ed25519.PublicKeySize {
		return fmt.Errorf("%w: public key of %d bytes", ErrLogKey, len(key))
	}
	if !strictPoint(key) {
		return fmt.Errorf("%w: public key is not a canonical point of large order", ErrLogKey)
	}
	return nil
}

func strictPoint(encoded []byte) bool {
	p, err := new(edwards25519.Point).SetBytes(encoded)
	if err != nil || !bytes.Equal(p.Bytes(), encoded) {
		return false
	}
	return new(edwards25519.Point).MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 0
}

// strictVerify is Ed25519 as FORMATS §1 wants it: crypto/ed25519 (which already
// refuses a non-canonical s) without small-order or non-canonical points.
func strictVerify(key VerifierKey, message, signature []byte) bool {
	return len(signature) == ed25519.SignatureSize && checkVerifierKey(key) == nil &&
		strictPoint(signature[:32]) && ed25519.Verify(key, message, signature)
}

// signer is a note.Signer of type Ed25519.
type signer struct {
	name string
	key  LogKey
}

func (s signer) Name() string    { return s.name }
func (s signer) KeyHash() uint32 { return keyID(s.name, algEd25519, s.key.Public()) }
func (s signer) Sign(text []byte) ([]byte, error) {
	return ed25519.Sign(s.key.private(), text), nil
}

// verifier is its note.Verifier.
type verifier struct {
	name string
	key  VerifierKey
}

func (v verifier) Name() string               { return v.name }
func (v verifier) KeyHash() uint32            { return keyID(v.name, algEd25519, v.key) }
func (v verifier) Verify(text, s []byte) bool { return strictVerify(v.key, text, s) }

// cosigner is a note.Signer of cosignature/v1 (C2SP tlog-cosignature).
type cosigner struct {
	name string
	key  LogKey
	at   time.Time
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return keyID(c.name, algCosignature, c.key.Public()) }
func (c cosigner) Sign(text []byte) ([]byte, error) {
	seconds := uint64(c.at.Unix())
	sum := ed25519.Sign(c.key.private(), cosigned(seconds, text))
	return append(binary.BigEndian.AppendUint64(nil, seconds), sum...), nil
}

// cosignatureVerifier is its note.Verifier; it keeps the time of the signature
// that it accepted, which the note's text does not hold.
type cosignatureVerifier struct {
	name string
	key  VerifierKey
	at   time.Time
}

func (v *cosignatureVerifier) Name() string    { return v.name }
func (v *cosignatureVerifier) KeyHash() uint32 { return keyID(v.name, algCosignature, v.key) }
func (v *cosignatureVerifier) Verify(text, s []byte) bool {
	if len(s) != 8+ed25519.SignatureSize {
		return false
	}
	seconds := binary.BigEndian.Uint64(s)
	if seconds == 0 || seconds > maxTime || !strictVerify(v.key, cosigned(seconds, text), s[8:]) {
		return false
	}
	v.at = time.Unix(int64(seconds), 0).UTC()
	return true
}

func cosigned(seconds uint64, text []byte) []byte {
	return append(fmt.Appendf(nil, "cosignature/v1\ntime %d\n", seconds), text...)
}
