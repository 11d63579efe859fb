package translog

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	// MaxNoteBytes bounds a signed checkpoint.
	MaxNoteBytes = 16 << 10

	maxOriginBytes = 255
	maxSignatures  = 32
)

// Checkpoint says what the log is at one size (C2SP tlog-checkpoint).
type Checkpoint struct {
	Origin string    // the DID of entry 0, the log's name for ever
	Size   int64     // number of entries
	Root   tlog.Hash // RFC 6962 root over them
}

// Body returns the text that gets signed: origin, size in decimal and root in
// base64, a line each.
func (c Checkpoint) Body() []byte {
	return fmt.Appendf(nil, "%s\n%d\n%s\n", c.Origin, c.Size, c.Root)
}

// ParseCheckpoint accepts exactly what Body produces for a checkpoint that
// could be: no extension lines, size up to MaxSize, an empty tree only with the
// empty root. Anything else is ErrCheckpoint.
func ParseCheckpoint(body []byte) (Checkpoint, error) {
	if len(body) > MaxNoteBytes {
		return Checkpoint{}, fmt.Errorf("%w: %d bytes", ErrCheckpoint, len(body))
	}
	lines := strings.Split(string(body), "\n")
	if len(lines) != 4 || lines[3] != "" {
		return Checkpoint{}, fmt.Errorf("%w: expected three lines: origin, size, root", ErrCheckpoint)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: size %q", ErrCheckpoint, lines[1])
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return Checkpoint{}, fmt.Errorf("%w: root %q", ErrCheckpoint, lines[2])
	}
	c := Checkpoint{Origin: lines[0], Size: size, Root: tlog.Hash(root)}
	if err := c.check(); err != nil {
		return Checkpoint{}, err
	}
	if !bytes.Equal(c.Body(), body) {
		return Checkpoint{}, fmt.Errorf("%w: not in canonical form", ErrCheckpoint)
	}
	return c, nil
}

func (c Checkpoint) check() error {
	if !validOrigin(c.Origin) {
		return fmt.Errorf("%w: origin %q", ErrCheckpoint, c.Origin)
	}
	if err := checkSize(c.Size); err != nil {
		return fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	if c.Size == 0 && c.Root != emptyRoot {
		return fmt.Errorf("%w: an empty log with root %s", ErrCheckpoint, c.Root)
	}
	return nil
}

// validOrigin is signed-note's rule for key names: UTF-8 without white space,
// control characters or plus.
func validOrigin(s string) bool {
	return s != "" && len(s) <= maxOriginBytes && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return r == '+' || unicode.IsSpace(r) || unicode.IsControl(r)
	})
}

// Sign returns the signed note of c: a log signature by every key, and a
// cosignature/v1 with the time at (whole seconds are kept) by the first. There
// are several keys for as long as a log key is being rotated. Signatures by the
// log are deterministic: signing anew with another time changes the cosignature alone.
func Sign(c Checkpoint, keys []LogKey, at time.Time) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if len(keys) == 0 || len(keys) >= maxSignatures {
		return nil, fmt.Errorf("%w: %d keys to sign with, expected 1 to %d", ErrLogKey, len(keys), maxSignatures-1)
	}
	seen := make(map[uint32]bool)
	var signers []note.Signer
	for _, key := range keys {
		s := signer{name: c.Origin, key: key}
		if key.private == nil || seen[s.KeyHash()] {
			return nil, fmt.Errorf("%w: missing or given twice", ErrLogKey)
		}
		seen[s.KeyHash()] = true
		signers = append(signers, s)
	}
	at = at.Truncate(time.Second)
	if err := checkTime(at); err != nil || at.Unix() == 0 {
		return nil, fmt.Errorf("%w: cosignature at %s", ErrRange, at.UTC().Format(time.RFC3339))
	}
	signers = append(signers, cosigner{name: c.Origin, key: keys[0], at: at})
	signed, err := note.Sign(&note.Note{Text: string(c.Body())}, signers...)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	return signed, nil
}

// Opened is a checkpoint whose signature has been verified.
type Opened struct {
	Checkpoint
	// CosignedAt is the time at which the first of the keys cosigned; zero when it did not.
	CosignedAt time.Time
	// Text is the note's text, equal to Checkpoint.Body().
	Text string
}

// Open verifies a signed checkpoint of the log named origin by keys, in the order
// of log_keys (FORMATS §4): the first of them must have signed it as the log, and
// no signature by any of them may be wrong. A key that was replaced vouches for
// nothing any more, neither for the tree nor, by a cosignature, for its age;
// signatures by others (witnesses) are ignored.
// Errors: ErrCheckpoint, ErrOrigin, ErrSignature, ErrLogKey.
func Open(signed []byte, origin string, keys []VerifierKey) (Opened, error) {
	c, err := Peek(signed)
	if err != nil {
		return Opened{}, err
	}
	if c.Origin != origin {
		return Opened{}, fmt.Errorf("%w: it says %q, expected %q", ErrOrigin, c.Origin, origin)
	}
	n, at, err := openNote(signed, origin, keys)
	if err != nil {
		return Opened{}, err
	}
	return Opened{Checkpoint: c, CosignedAt: at, Text: n.Text}, nil
}

// CosignedAt returns the latest time at which one of keys cosigned the signed
// checkpoint of the log named origin; zero when none did, or a signature is wrong.
// It is for comparing notes that were opened before, perhaps by keys that have
// been replaced since.
func CosignedAt(signed []byte, origin string, keys []VerifierKey) (latest time.Time) {
	if _, err := Peek(signed); err != nil {
		return time.Time{}
	}
	known, cosignatures, err := verifiers(origin, keys)
	if err != nil {
		return time.Time{}
	}
	if _, err := note.Open(signed, note.VerifierList(known...)); err != nil {
		return time.Time{}
	}
	for _, c := range cosignatures {
		if c.at.After(latest) {
			latest = c.at
		}
	}
	return latest
}

// Peek parses the text of a note, none of whose signatures it looks at: what a
// note claims, for whoever has to find the keys to open it with. ErrCheckpoint.
func Peek(signed []byte) (Checkpoint, error) {
	if len(signed) > MaxNoteBytes {
		return Checkpoint{}, fmt.Errorf("%w: note of %d bytes, at most %d", ErrCheckpoint, len(signed), MaxNoteBytes)
	}
	end := bytes.LastIndex(signed, []byte("\n\n")) // where note.Open cuts, too
	if end < 0 {
		return Checkpoint{}, fmt.Errorf("%w: no signatures", ErrCheckpoint)
	}
	if count := bytes.Count(signed[end+2:], []byte("\n")); count > maxSignatures {
		return Checkpoint{}, fmt.Errorf("%w: %d signatures, at most %d", ErrCheckpoint, count, maxSignatures)
	}
	return ParseCheckpoint(signed[:end+1])
}

// openNote verifies the signatures of a note that Peek accepted, by keys under
// the name origin, and returns the time of the first key's cosignature.
func openNote(signed []byte, origin string, keys []VerifierKey) (*note.Note, time.Time, error) {
	known, cosignatures, err := verifiers(origin, keys)
	if err != nil {
		return nil, time.Time{}, err
	}
	n, err := note.Open(signed, note.VerifierList(known...))
	if err != nil {
		return nil, time.Time{}, noteError(err)
	}
	if !signedBy(n, known[0]) {
		return nil, time.Time{}, fmt.Errorf("%w: not by the key that signs for it now", ErrSignature)
	}
	return n, cosignatures[0].at, nil
}

// verifiers returns both verifiers of every distinct key, in the order of keys.
func verifiers(origin string, keys []VerifierKey) (known []note.Verifier, cosignatures []*cosignatureVerifier, err error) {
	seen := make(map[string]bool)
	for _, key := range keys {
		if err := checkVerifierKey(key); err != nil {
			return nil, nil, err
		}
		if seen[string(key)] {
			continue
		}
		seen[string(key)] = true
		c := &cosignatureVerifier{name: origin, key: key}
		cosignatures = append(cosignatures, c)
		known = append(known, verifier{name: origin, key: key}, c)
	}
	return known, cosignatures, nil
}

// signedBy reports whether one of the verified signatures is own, the log's: a
// cosignature says that a tree was seen, not that it is the log's.
func signedBy(n *note.Note, own note.Verifier) bool {
	return slices.ContainsFunc(n.Sigs, func(s note.Signature) bool { return s.Name == own.Name() && s.Hash == own.KeyHash() })
}

func noteError(err error) error {
	var invalid *note.InvalidSignatureError
	var unverified *note.UnverifiedNoteError
	switch {
	case errors.As(err, &invalid), errors.As(err, &unverified):
		return fmt.Errorf("%w: %w", ErrSignature, err)
	default:
		return fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
}
