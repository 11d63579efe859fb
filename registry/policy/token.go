package policy

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
)

// MaxToken is the longest token or assertion accepted, in bytes.
const MaxToken = 2 << 10

// Types of the two JWTs (RFC 8725 §3.11: explicit typing keeps one kind of
// token from being taken for another).
const (
	typeSession   = "aln-session+jwt"
	typeAssertion = "aln-assertion+jwt"
)

// ErrToken: bytes are not a token of the one form accepted here.
var ErrToken = errors.New("malformed token")

// header is the whole JOSE header (RFC 7515 §4). Any other member, among them
// jwk, jku, x5u and crit, is refused: the key comes from state, never from the token.
type header struct {
	Algorithm did.Algorithm `json:"alg"`
	Type      string        `json:"typ"`
	KeyID     string        `json:"kid"`
}

// Token is a parsed compact JWS with claims of type C, its signature not yet checked.
type Token[C any] struct {
	KeyID  did.URL
	Claims C

	algorithm did.Algorithm
	signed    []byte
	signature []byte
}

// ParseSession reads a session token.
func ParseSession(s string) (Token[particle.SessionToken], error) {
	return parseToken[particle.SessionToken](s, typeSession)
}

// ParseAssertion reads an assertion (RFC 7523).
func ParseAssertion(s string) (Token[Assertion], error) {
	return parseToken[Assertion](s, typeAssertion)
}

// Verify checks the signature by key, whose algorithm must be the one the
// header states. The caller has found key in the state for KeyID.
func (t Token[C]) Verify(key did.PublicKey) error {
	if key.Algorithm() != t.algorithm {
		return fmt.Errorf("%w: alg %q is not the key's", ErrToken, t.algorithm)
	}
	return key.Verify(t.signed, t.signature)
}

// SignSession encodes and signs claims with the mint's key.
func SignSession(claims particle.SessionToken, alg did.Algorithm, s did.Signer) (string, error) {
	return signToken(claims, typeSession, alg, s)
}

// SignAssertion encodes and signs an assertion with the holder's key.
func SignAssertion(a Assertion, alg did.Algorithm, s did.Signer) (string, error) {
	return signToken(a, typeAssertion, alg, s)
}

func signToken(claims any, typ string, alg did.Algorithm, s did.Signer) (string, error) {
	head, err := json.Marshal(header{Algorithm: alg, Type: typ, KeyID: s.KeyID().String()})
	if err != nil {
		return "", fmt.Errorf("encode token: %w", err)
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encode token: %w", err)
	}
	b64 := base64.RawURLEncoding
	signed := b64.EncodeToString(head) + "." + b64.EncodeToString(body)
	signature, err := s.Sign([]byte(signed))
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	token := signed + "." + b64.EncodeToString(signature)
	if len(token) > MaxToken {
		return "", fmt.Errorf("%w: %d bytes; at most %d", ErrToken, len(token), MaxToken)
	}
	return token, nil
}

func parseToken[C any](s, typ string) (Token[C], error) {
	var t Token[C]
	if len(s) > MaxToken {
		return t, fmt.Errorf("%w: %d bytes; at most %d", ErrToken, len(s), MaxToken)
	}
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return t, fmt.Errorf("%w: not three parts", ErrToken)
	}
	var h header
	if err := decodePart(parts[0], &h); err != nil {
		return t, fmt.Errorf("%w: header: %v", ErrToken, err)
	}
	if h.Type != typ {
		return t, fmt.Errorf("%w: typ is not %s", ErrToken, typ)
	}
	if h.Algorithm != did.EdDSA && h.Algorithm != did.ES256 {
		return t, fmt.Errorf("%w: alg is not EdDSA or ES256", ErrToken)
	}
	keyID, err := did.ParseURL(h.KeyID)
	if err != nil {
		return t, fmt.Errorf("%w: kid is not a DID URL", ErrToken)
	}
	if err := decodePart(parts[1], &t.Claims); err != nil {
		return t, fmt.Errorf("%w: claims: %v", ErrToken, err)
	}
	t.signature, err = decodeBase64URL(parts[2])
	if err != nil {
		return t, fmt.Errorf("%w: signature is not base64url", ErrToken)
	}
	t.KeyID, t.algorithm = keyID, h.Algorithm
	t.signed = []byte(parts[0] + "." + parts[1])
	return t, nil
}

// decodePart decodes one base64url part. The JSON must be what encoding its
// decoded value gives again, as a JSON value: a missing claim or an odd spelling
// of a number is refused with it. The decoder's errors can quote claims, so they
// are not passed on.
func decodePart(part string, into any) error {
	raw, err := decodeBase64URL(part)
	if err != nil {
		return errors.New("not base64url")
	}
	if err := json.Unmarshal(raw, into, json.RejectUnknownMembers(true)); err != nil {
		return errors.New("not strict JSON with the members of this type and no others")
	}
	again, err := json.Marshal(into)
	if err != nil {
		return errors.New("not encodable")
	}
	if !sameJSON(raw, again) {
		return errors.New("a member is missing or spelled in another way")
	}
	return nil
}

// decodeBase64URL accepts the one spelling of RFC 7515 §2: no padding, no stray
// bits, and none of the line breaks that encoding/base64 passes over.
func decodeBase64URL(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("line break")
	}
	return base64.RawURLEncoding.Strict().DecodeString(s)
}

func sameJSON(a, b []byte) bool {
	var va, vb any
	if json.Unmarshal(a, &va) != nil || json.Unmarshal(b, &vb) != nil {
		return false
	}
	ca, errA := json.Marshal(va, json.Deterministic(true))
	cb, errB := json.Marshal(vb, json.Deterministic(true))
	return errA == nil && errB == nil && bytes.Equal(ca, cb)
}
