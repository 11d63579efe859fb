package did

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	josecipher "github.com/go-jose/go-jose/v4/cipher"
	"github.com/go-json-experiment/json"
)

// An exported key is a JWK encrypted by a passphrase: JWE compact serialisation
// (RFC 7516 §7.1) with PBES2-HS512+A256KW (RFC 7518 §4.8) and A256GCM (§5.3).
// The steps are put together here rather than by go-jose, because go-jose takes
// its randomness from a global and refuses to read more than 1,000,000 iterations.
const (
	jweAlg = "PBES2-HS512+A256KW"
	jweEnc = "A256GCM"
	jweCty = "jwk+json" // RFC 7517 §7

	// Iterations of PBKDF2: written; and the least and most that are read. The
	// most bounds the work that a file from elsewhere can cause (about 2 s).
	jweIterations    = 600_000
	minJWEIterations = 1_000
	maxJWEIterations = 2_000_000

	maxJWE          = 16 << 10 // bytes
	maxSalt         = 256      // bytes
	saltSize        = 16
	contentKeySize  = 32
	wrappedKeySize  = contentKeySize + 8
	gcmNonceSize    = 12
	gcmTagSize      = 16
	wrappingKeySize = 32
)

type jweHeader struct {
	Alg string `json:"alg"`
	Enc string `json:"enc"`
	Cty string `json:"cty,omitempty"`
	P2S string `json:"p2s"`
	P2C int64  `json:"p2c"`
}

// EncryptKey returns k as a compact JWE (ASCII, one line) that only passphrase
// opens. Salt, content key and nonce are read from rand. A passphrase
// that is empty or contains NUL is ErrNoPassphrase.
func EncryptKey(k NamedKey, passphrase []byte, rand io.Reader) ([]byte, error) {
	return encryptKey(k, passphrase, rand, jweIterations)
}

func encryptKey(k NamedKey, passphrase []byte, rand io.Reader, iterations int64) ([]byte, error) {
	if err := checkPassphrase(passphrase); err != nil {
		return nil, fmt.Errorf("encrypt key: %w", err)
	}
	j, err := k.toJWK()
	if err != nil {
		return nil, fmt.Errorf("encrypt key: %w", err)
	}
	plaintext, err := json.Marshal(j)
	if err != nil {
		return nil, fmt.Errorf("encrypt key: %w", err)
	}
	random := make([]byte, saltSize+contentKeySize+gcmNonceSize)
	if _, err := io.ReadFull(rand, random); err != nil {
		return nil, fmt.Errorf("encrypt key: %w", err)
	}
	salt, contentKey, nonce := random[:saltSize], random[saltSize:saltSize+contentKeySize], random[saltSize+contentKeySize:]
	header, err := json.Marshal(jweHeader{Alg: jweAlg, Enc: jweEnc, Cty: jweCty,
		P2S: base64.RawURLEncoding.EncodeToString(salt), P2C: iterations})
	if err != nil {
		return nil, fmt.Errorf("encrypt key: %w", err)
	}
	parts := jweParts{protected: base64.RawURLEncoding.EncodeToString(header), salt: salt, iterations: iterations, nonce: nonce}
	if err := parts.seal(passphrase, contentKey, plaintext); err != nil {
		return nil, fmt.Errorf("encrypt key: %w", err)
	}
	return parts.compact(), nil
}

// DecryptKey opens what EncryptKey made, or another program with the same
// algorithms and a JWK of this package's members. More than 2,000,000 iterations
// or another form is ErrKeyFile; a wrong passphrase and altered bytes, which
// cannot be told apart, are ErrNoPassphrase. Line breaks at the end are ignored.
func DecryptKey(data, passphrase []byte) (NamedKey, error) {
	parts, err := parseJWE(bytes.TrimRight(data, "\r\n"))
	if err != nil {
		return NamedKey{}, fmt.Errorf("decrypt key: %w", err)
	}
	if err := checkPassphrase(passphrase); err != nil {
		return NamedKey{}, fmt.Errorf("decrypt key: %w", err)
	}
	plaintext, err := parts.open(passphrase)
	if err != nil {
		return NamedKey{}, fmt.Errorf("decrypt key: %w", err)
	}
	k, err := parsePrivateJWK(plaintext)
	if err != nil {
		return NamedKey{}, fmt.Errorf("decrypt key: %w", err)
	}
	return k, nil
}

// checkPassphrase refuses NUL, since PBKDF2 cannot tell a short passphrase from
// the same with NULs behind it (RFC 2104 §2 pads the key with them).
func checkPassphrase(passphrase []byte) error {
	if len(passphrase) == 0 || bytes.IndexByte(passphrase, 0) >= 0 {
		return ErrNoPassphrase
	}
	return nil
}

// jweParts are the five parts of a compact JWE, and what the header says.
type jweParts struct {
	protected  string // base64url, which is authenticated as it stands
	salt       []byte
	iterations int64
	wrapped    []byte
	nonce      []byte
	ciphertext []byte
	tag        []byte
}

// parseJWE checks the form and all bounds; it derives no key.
func parseJWE(data []byte) (jweParts, error) {
	bad := func(format string, args ...any) (jweParts, error) {
		return jweParts{}, fmt.Errorf("%w: encrypted key: %w", ErrKeyFile, fmt.Errorf(format, args...))
	}
	if len(data) > maxJWE {
		return bad("more than %d bytes", maxJWE)
	}
	fields := bytes.Split(data, []byte("."))
	if len(fields) != 5 {
		return bad("not a JWE in compact form")
	}
	var decoded [5][]byte
	for i, field := range fields {
		var err error
		if decoded[i], err = decodeBase64URL(field); err != nil {
			return bad("part %d: %w", i+1, err)
		}
	}
	var header jweHeader
	if err := unmarshalStrict(decoded[0], &header); err != nil {
		return bad("header: %w", err)
	}
	if header.Alg != jweAlg || header.Enc != jweEnc || header.Cty != "" && header.Cty != jweCty {
		return bad("must be encrypted with %s and %s", jweAlg, jweEnc)
	}
	if header.P2C < minJWEIterations || header.P2C > maxJWEIterations {
		return bad("p2c is %d, must be %d to %d", header.P2C, minJWEIterations, maxJWEIterations)
	}
	salt, err := decodeBase64URL([]byte(header.P2S))
	if err != nil || len(salt) < 8 || len(salt) > maxSalt {
		return bad("p2s must be base64url of 8 to %d bytes", maxSalt)
	}
	p := jweParts{protected: string(fields[0]), salt: salt, iterations: header.P2C,
		wrapped: decoded[1], nonce: decoded[2], ciphertext: decoded[3], tag: decoded[4]}
	if len(p.wrapped) != wrappedKeySize || len(p.nonce) != gcmNonceSize || len(p.tag) != gcmTagSize {
		return bad("wrapped key, nonce or tag has a wrong size")
	}
	return p, nil
}

// decodeBase64URL is strict: no padding, no line breaks, no stray bits.
func decodeBase64URL(s []byte) ([]byte, error) {
	if bytes.ContainsAny(s, "\r\n") {
		return nil, errors.New("line break in base64url")
	}
	data, err := base64.RawURLEncoding.Strict().AppendDecode(nil, s)
	if err != nil {
		return nil, errors.New("not base64url")
	}
	return data, nil
}

// passphraseCipher is AES-256 under the key derived from passphrase (RFC 7518 §4.8.1.1).
func (p *jweParts) passphraseCipher(passphrase []byte) (cipher.Block, error) {
	salt := append([]byte(jweAlg+"\x00"), p.salt...)
	key, err := pbkdf2.Key(sha512.New, string(passphrase), salt, int(p.iterations), wrappingKeySize)
	if err != nil {
		return nil, err
	}
	return aes.NewCipher(key)
}

func (p *jweParts) seal(passphrase, contentKey, plaintext []byte) error {
	wrapper, err := p.passphraseCipher(passphrase)
	if err != nil {
		return err
	}
	if p.wrapped, err = josecipher.KeyWrap(wrapper, contentKey); err != nil {
		return err
	}
	aead, err := newGCM(contentKey)
	if err != nil {
		return err
	}
	sealed := aead.Seal(nil, p.nonce, plaintext, []byte(p.protected))
	p.ciphertext, p.tag = sealed[:len(plaintext)], sealed[len(plaintext):]
	return nil
}

func (p *jweParts) open(passphrase []byte) ([]byte, error) {
	wrapper, err := p.passphraseCipher(passphrase)
	if err != nil {
		return nil, err
	}
	contentKey, err := josecipher.KeyUnwrap(wrapper, p.wrapped)
	if err != nil {
		return nil, ErrPassphrase
	}
	aead, err := newGCM(contentKey)
	if err != nil {
		return nil, err
	}
	plaintext, err := aead.Open(nil, p.nonce, append(bytes.Clone(p.ciphertext), p.tag...), []byte(p.protected))
	if err != nil {
		return nil, ErrPassphrase
	}
	return plaintext, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (p *jweParts) compact() []byte {
	encode := base64.RawURLEncoding.EncodeToString
	return []byte(p.protected + "." + encode(p.wrapped) + "." + encode(p.nonce) + "." + encode(p.ciphertext) + "." + encode(p.tag))
}
