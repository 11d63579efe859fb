package storage

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multibase"
	"github.com/multiformats/go-multihash"
)

// ErrBadCID means that a string is not a CID in the one form this registry
// knows: CIDv1, codec raw, multihash sha2-256, base32 lower case.
var ErrBadCID = errors.New("not a CIDv1 (raw, sha2-256, base32)")

// CID names a blob by its content. It is comparable; the zero value names
// nothing (IsZero). FORMATS §1: nothing else is an identity.
type CID struct {
	digest  [sha256.Size]byte
	defined bool
}

// CIDOf returns the CID of data.
func CIDOf(data []byte) CID { return CIDFromDigest(sha256.Sum256(data)) }

// CIDFromDigest returns the CID of the bytes whose sha256 is digest.
func CIDFromDigest(digest [sha256.Size]byte) CID { return CID{digest: digest, defined: true} }

// ParseCID accepts exactly what String produces, so that one blob has one
// spelling everywhere; anything else is ErrBadCID.
func ParseCID(s string) (CID, error) {
	if len(s) > 64 {
		return CID{}, fmt.Errorf("%w: %d characters", ErrBadCID, len(s))
	}
	parsed, err := cid.Decode(s)
	if err != nil {
		return CID{}, fmt.Errorf("%w: %q", ErrBadCID, s)
	}
	decoded, err := multihash.Decode(parsed.Hash())
	if err != nil || decoded.Code != multihash.SHA2_256 || len(decoded.Digest) != sha256.Size {
		return CID{}, fmt.Errorf("%w: %q", ErrBadCID, s)
	}
	id := CIDFromDigest([sha256.Size]byte(decoded.Digest))
	if id.String() != s {
		return CID{}, fmt.Errorf("%w: %q", ErrBadCID, s)
	}
	return id, nil
}

// IsZero reports whether c names nothing.
func (c CID) IsZero() bool { return !c.defined }

// Digest returns the sha256 of the named bytes; for a crate this is Cargo's cksum.
func (c CID) Digest() [sha256.Size]byte { return c.digest }

// Hex returns the digest in lower-case hexadecimal, as Cargo writes cksum.
func (c CID) Hex() string { return hex.EncodeToString(c.digest[:]) }

// String returns the canonical spelling, bafkrei…; of the zero value, "".
func (c CID) String() string {
	if !c.defined {
		return ""
	}
	sum, err := multihash.Encode(c.digest[:], multihash.SHA2_256)
	if err != nil { // only for codes unknown to multihash
		panic("storage: encode sha2-256 multihash: " + err.Error())
	}
	s, err := cid.NewCidV1(cid.Raw, sum).StringOfBase(multibase.Base32)
	if err != nil { // only for bases unknown to multibase
		panic("storage: encode base32 CID: " + err.Error())
	}
	return s
}

// MarshalText implements encoding.TextMarshaler; the zero value is an error,
// since no format has an empty CID.
func (c CID) MarshalText() ([]byte, error) {
	if !c.defined {
		return nil, fmt.Errorf("%w: zero value", ErrBadCID)
	}
	return []byte(c.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler with ParseCID's strictness.
func (c *CID) UnmarshalText(text []byte) error {
	parsed, err := ParseCID(string(text))
	if err != nil {
		return err
	}
	*c = parsed
	return nil
}
