// Package did says who somebody is: it parses decentralized identifiers, reads
// DID documents, verifies and makes signatures, and keeps private keys in files.
//
// It is a leaf. Only a Resolver does network I/O; everywhere else a did:web
// document is an argument.
// Methods: did:key (Ed25519 and P-256) and did:web (W3C DID 1.0, the did:key
// and did:web method specifications).
//
// Invariants: a DID, a DID URL and a public key each have one spelling, and
// Parse, ParseURL and ParseMultikey accept no other; a PublicKey that exists is
// a valid curve point of large order; a message has no second signature that
// somebody without the key could make from the first (strict Ed25519, low-s
// P-256); a key counts only for the relationships its document gives it; private
// key material is never printed, logged or written with a mode but 0600.
package did

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Bounds on identifiers, in bytes (identifiers are ASCII).
const (
	MaxLength    = 255
	MaxURLLength = 512
)

// Errors of the parsers and of resolution, wrapped with what is wrong.
var (
	// ErrDID: a string is not a did:key or did:web identifier in its canonical spelling.
	ErrDID = errors.New("not a DID")
	// ErrURL: a string is not a DID followed by # and a fragment.
	ErrURL = errors.New("not a DID URL of a key")
)

// DID is a decentralized identifier. Only Parse (and Unescape, UnmarshalText
// and PublicKey.DID) make one; two DIDs are the same iff their strings are equal.
type DID string

// Parse accepts did:key with an Ed25519 or P-256 multikey, and did:web with a
// lower-case host name, an optional port and path segments, of at most
// MaxLength bytes. Every other string, also another spelling of such a DID, is
// ErrDID. A did:web path has no percent-encoding: its segments are letters,
// digits, ".", "-" and "_".
func Parse(s string) (DID, error) {
	if len(s) > MaxLength {
		return "", fmt.Errorf("%w: %d characters, at most %d are allowed", ErrDID, len(s), MaxLength)
	}
	rest, ok := strings.CutPrefix(s, "did:")
	if !ok {
		return "", fmt.Errorf("%w: %.80q lacks the prefix did: of a DID", ErrDID, s)
	}
	method, id, _ := strings.Cut(rest, ":")
	var err error
	switch method {
	case "key":
		_, err = ParseMultikey(id)
	case "web":
		err = checkWeb(id)
	default:
		err = errors.New("unknown method, use did:key or did:web")
	}
	if err != nil {
		return "", fmt.Errorf("%w: %.80q: %w", ErrDID, s, err)
	}
	return DID(s), nil
}

// checkWeb checks the method-specific part of a did:web.
func checkWeb(id string) error {
	segments := strings.Split(id, ":")
	host, port, hasPort := strings.Cut(segments[0], "%3A")
	if err := checkHost(host); err != nil {
		return err
	}
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
			return fmt.Errorf("port %.20q is not a number from 1 to 65535", port)
		}
	}
	for _, segment := range segments[1:] {
		if segment == "" || segment == "." || segment == ".." || !only(segment, isPathByte) {
			return fmt.Errorf("path segment %.40q has other characters than letters, digits, dot, hyphen and underscore", segment)
		}
	}
	return nil
}

// checkHost checks a lower-case host name (RFC 1123). IP addresses have no
// place in a did:web, and a name whose last label looks like a number would be
// read as one by some clients (WHATWG URL, "ends in a number").
func checkHost(host string) error {
	if len(host) > 253 {
		return errors.New("host name is longer than 253 characters")
	}
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || !only(label, isHostByte) {
			return fmt.Errorf("host %.80q is not a lower-case host name", host)
		}
	}
	last := labels[len(labels)-1]
	if only(last, isDigit) || strings.HasPrefix(last, "0x") {
		return fmt.Errorf("host %.80q is an IP address, use a name", host)
	}
	return nil
}

// Method returns "key" or "web".
func (d DID) Method() string {
	method, _, _ := strings.Cut(strings.TrimPrefix(string(d), "did:"), ":")
	return method
}

// String returns the identifier.
func (d DID) String() string { return string(d) }

// Escaped returns the DID percent-encoded as encodeURIComponent does it
// (everything but RFC 3986 unreserved characters), for record subjects.
func (d DID) Escaped() string {
	var b strings.Builder
	for i := range len(d) {
		if c := d[i]; isUnreserved(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// Unescape is the inverse of Escaped and accepts only what Escaped produces.
func Unescape(s string) (DID, error) {
	if len(s) > 3*MaxLength {
		return "", fmt.Errorf("%w: %d characters", ErrDID, len(s))
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+3 > len(s) {
			return "", fmt.Errorf("%w: %.80q: incomplete percent-encoding", ErrDID, s)
		}
		c, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("%w: %.80q: bad percent-encoding", ErrDID, s)
		}
		b.WriteByte(byte(c))
		i += 2
	}
	d, err := Parse(b.String())
	if err != nil {
		return "", err
	}
	if d.Escaped() != s {
		return "", fmt.Errorf("%w: %.80q is not percent-encoded canonically, use %q", ErrDID, s, d.Escaped())
	}
	return d, nil
}

// MarshalText implements encoding.TextMarshaler; what Parse would refuse is an error.
func (d DID) MarshalText() ([]byte, error) {
	if _, err := Parse(string(d)); err != nil {
		return nil, err
	}
	return []byte(d), nil
}

// UnmarshalText implements encoding.TextUnmarshaler with Parse's strictness.
func (d *DID) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}

// URL is a DID URL that names a key: DID # Fragment. It is comparable.
type URL struct {
	DID      DID
	Fragment string
}

// ParseURL accepts a DID as Parse does, "#", and a fragment of RFC 3986
// characters without percent-encoding; at most MaxURLLength bytes. A query, a
// path or a missing fragment is ErrURL.
func ParseURL(s string) (URL, error) {
	if len(s) > MaxURLLength {
		return URL{}, fmt.Errorf("%w: %d characters, at most %d are allowed", ErrURL, len(s), MaxURLLength)
	}
	before, fragment, ok := strings.Cut(s, "#")
	if !ok || fragment == "" {
		return URL{}, fmt.Errorf("%w: %.80q: write the DID, # and the name of the key", ErrURL, s)
	}
	if !only(fragment, isFragmentByte) {
		return URL{}, fmt.Errorf("%w: %.80q: bad character after #", ErrURL, s)
	}
	d, err := Parse(before)
	if err != nil {
		return URL{}, fmt.Errorf("%w: %w", ErrURL, err)
	}
	return URL{DID: d, Fragment: fragment}, nil
}

// String returns the spelling that ParseURL accepts; of the zero value, "".
func (u URL) String() string {
	if u == (URL{}) {
		return ""
	}
	return string(u.DID) + "#" + u.Fragment
}

// MarshalText implements encoding.TextMarshaler; what ParseURL would refuse is an error.
func (u URL) MarshalText() ([]byte, error) {
	s := u.String()
	parsed, err := ParseURL(s)
	if err != nil {
		return nil, err
	}
	if parsed != u {
		return nil, fmt.Errorf("%w: %.80q", ErrURL, s)
	}
	return []byte(s), nil
}

// UnmarshalText implements encoding.TextUnmarshaler with ParseURL's strictness.
func (u *URL) UnmarshalText(text []byte) error {
	parsed, err := ParseURL(string(text))
	if err != nil {
		return err
	}
	*u = parsed
	return nil
}

// only reports whether s has no byte but those allowed.
func only(s string, allowed func(byte) bool) bool {
	for i := range len(s) {
		if !allowed(s[i]) {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool    { return '0' <= c && c <= '9' }
func isHostByte(c byte) bool { return isDigit(c) || 'a' <= c && c <= 'z' || c == '-' }
func isPathByte(c byte) bool { return isHostByte(c) || 'A' <= c && c <= 'Z' || c == '.' || c == '_' }

// isUnreserved: RFC 3986 §2.3.
func isUnreserved(c byte) bool { return isPathByte(c) || c == '~' }

// isFragmentByte: RFC 3986 §3.5 without percent-encoding.
func isFragmentByte(c byte) bool {
	return isUnreserved(c) || strings.IndexByte("!$&'()*+,;=:@/?", c) >= 0
}
