package did

import (
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Names of key types and curves in a JWK (RFC 7518 §6.2, RFC 8037 §2).
const (
	ktyOKP     = "OKP"
	ktyEC      = "EC"
	crvEd25519 = "Ed25519"
	crvP256    = "P-256"
)

// privateJWK is a private key as key files hold it: these members and no others
// (RFC 7517, RFC 8037).
type privateJWK struct {
	Kty string `json:"kty"`
	Crv string `json:"crv"`
	Kid string `json:"kid"`
	X   string `json:"x"`
	Y   string `json:"y,omitempty"`
	D   string `json:"d"`
}

// publicJWK is a key as others' DID documents hold it; further members pass.
type publicJWK struct {
	Kty string         `json:"kty"`
	Crv string         `json:"crv"`
	X   string         `json:"x"`
	Y   string         `json:"y"`
	Alg string         `json:"alg"`
	Use string         `json:"use"`
	D   jsontext.Value `json:"d"`
}

func (j publicJWK) publicKey() (PublicKey, error) {
	if j.D != nil {
		return PublicKey{}, fmt.Errorf("%w: publicKeyJwk holds a private key (d): it is public now, replace it", ErrKey)
	}
	if j.Use != "" && j.Use != "sig" {
		return PublicKey{}, fmt.Errorf("%w: its use is %.20q", ErrUnsupportedKey, j.Use)
	}
	k, err := publicFromJWK(j.Kty, j.Crv, j.X, j.Y)
	if err != nil {
		return PublicKey{}, err
	}
	// RFC 9864 calls EdDSA over Ed25519 just that.
	if j.Alg != "" && j.Alg != string(k.algorithm) && (k.algorithm != EdDSA || j.Alg != crvEd25519) {
		return PublicKey{}, fmt.Errorf("%w: a %s key has alg %.20q", ErrKey, j.Crv, j.Alg)
	}
	return k, nil
}

func publicFromJWK(kty, crv, x, y string) (PublicKey, error) {
	okp := kty == ktyOKP && crv == crvEd25519
	ec := kty == ktyEC && crv == crvP256
	if !okp && !ec {
		return PublicKey{}, fmt.Errorf("%w: kty %.20q, crv %.20q", ErrUnsupportedKey, kty, crv)
	}
	xBytes, err := decode32(x)
	if err != nil {
		return PublicKey{}, fmt.Errorf("%w: x: %w", ErrKey, err)
	}
	if okp {
		if y != "" {
			return PublicKey{}, fmt.Errorf("%w: an Ed25519 key has no y", ErrKey)
		}
		return NewEd25519PublicKey(xBytes)
	}
	yBytes, err := decode32(y)
	if err != nil {
		return PublicKey{}, fmt.Errorf("%w: y: %w", ErrKey, err)
	}
	return p256Coordinates(xBytes, yBytes)
}

// decode32 decodes 32 bytes from base64url without padding (RFC 7515 §2). The
// error never holds the input, which may be private.
func decode32(s string) ([]byte, error) {
	// 43 characters leave no room for the line breaks that Go's decoder skips.
	if len(s) != 43 {
		return nil, fmt.Errorf("%d characters, 32 bytes of base64url have 43", len(s))
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(data) != 32 {
		return nil, errors.New("not 32 bytes of base64url")
	}
	return data, nil
}

// toJWK makes the JWK of k.
func (k NamedKey) toJWK() (privateJWK, error) {
	if err := checkKeyID(k.ID); err != nil {
		return privateJWK{}, err
	}
	d, err := k.Key.scalar()
	if err != nil {
		return privateJWK{}, err
	}
	encode := base64.RawURLEncoding.EncodeToString
	j := privateJWK{Kty: ktyOKP, Crv: crvEd25519, Kid: k.ID, D: encode(d)}
	public := k.Key.Public()
	if public.algorithm == EdDSA {
		j.X = encode(public.point[:32])
		return j, nil
	}
	point, err := public.uncompressed()
	if err != nil {
		return privateJWK{}, err
	}
	j.Kty, j.Crv, j.X, j.Y = ktyEC, crvP256, encode(point[1:33]), encode(point[33:])
	return j, nil
}

// namedKey checks that the public members belong to d: a file in which they
// differ was damaged or tampered with, and would sign in another's name.
func (j privateJWK) namedKey() (NamedKey, error) {
	if err := checkKeyID(j.Kid); err != nil {
		return NamedKey{}, err
	}
	public, err := publicFromJWK(j.Kty, j.Crv, j.X, j.Y)
	if err != nil {
		return NamedKey{}, fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	d, err := decode32(j.D)
	if err != nil {
		return NamedKey{}, fmt.Errorf("%w: d: %w", ErrKeyFile, err)
	}
	fromScalar := p256FromScalar
	if public.algorithm == EdDSA {
		fromScalar = ed25519FromSeed
	}
	key, err := fromScalar(d)
	if err != nil {
		return NamedKey{}, fmt.Errorf("%w: d: %w", ErrKeyFile, err)
	}
	if key.Public() != public {
		return NamedKey{}, fmt.Errorf("%w: key %q: the public key does not belong to the private one", ErrKeyFile, j.Kid)
	}
	return NamedKey{ID: j.Kid, Key: key}, nil
}

// checkKeyID bounds a kid: 1 to MaxURLLength printable ASCII characters.
func checkKeyID(id string) error {
	printable := func(c byte) bool { return c > ' ' && c < 0x7f }
	if id == "" || len(id) > MaxURLLength || !only(id, printable) {
		return fmt.Errorf("%w: kid %.80q must be 1 to %d printable characters", ErrKeyFile, id, MaxURLLength)
	}
	return nil
}

// parsePrivateJWK decodes exactly the members of a private JWK.
func parsePrivateJWK(data []byte) (NamedKey, error) {
	var j privateJWK
	if err := unmarshalStrict(data, &j); err != nil {
		return NamedKey{}, fmt.Errorf("%w: not a private JWK of Ed25519 or P-256: %w", ErrKeyFile, err)
	}
	return j.namedKey()
}

// unmarshalStrict refuses unknown and duplicate members and trailing data. Its
// error says where, and not what stands there: that may be a private key.
func unmarshalStrict(data []byte, into any) error {
	err := json.Unmarshal(data, into, json.RejectUnknownMembers(true))
	if err == nil {
		return nil
	}
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) {
		return fmt.Errorf("bad JSON at byte %d", syntactic.ByteOffset)
	}
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		return fmt.Errorf("unexpected member or type at byte %d", semantic.ByteOffset)
	}
	return errors.New("bad JSON")
}
