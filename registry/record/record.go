// Package record encodes, signs, parses and checks the registry's statements
// (docs/FORMATS.md §2): an in-toto Statement v1 in a DSSE envelope with one
// signature. It is pure: it decides whether bytes are a well-formed record and
// whether a key signed them; who may make which statement is package state's.
//
// Invariants: one record has one identity, the lower-case hex sha256 of its
// payload; an envelope has exactly one spelling; a payload says each of its
// type's fields once and no others; nothing lax is accepted on the way in that
// this package would not write on the way out, save key order, white space and
// JSON's escapes in strings inside the payload.
package record

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/storage"
)

// Errors that callers branch on; each is wrapped with what exactly is wrong.
var (
	// ErrMalformed: the bytes are not a record in the form of FORMATS §1 and §2.
	ErrMalformed = errors.New("malformed record")
	// ErrUnknownType: a well-formed statement of a predicate type that this
	// version does not know; a replay must stop and say "upgrade".
	ErrUnknownType = errors.New("unknown record type")
)

// Largest attachments, in bytes: of an import record, and of all others.
const (
	MaxSnapshot   = cargo.MaxUpstreamFile
	MaxAttachment = 64 << 10
)

// MaxEnvelope is the largest envelope accepted, in bytes. Records that travel
// in cargo's Authorization header are held to 4 KiB by the server besides.
const MaxEnvelope = 64 << 10

// Type is a record's type, the middle of its predicateType URN.
type Type string

// The record types of this version.
const (
	TypeRegistry   Type = "registry"
	TypeMember     Type = "member"
	TypeDID        Type = "did"
	TypePublish    Type = "publish"
	TypeYank       Type = "yank"
	TypeOwn        Type = "own"
	TypeOwnIntent  Type = "own-intent"
	TypeApprove    Type = "approve"
	TypeGrant      Type = "grant"
	TypeRevoke     Type = "revoke"
	TypeQuarantine Type = "quarantine"
	TypeRelease    Type = "release"
	TypeImport     Type = "import"
)

const (
	predicatePrefix = "urn:aln-registry:"
	predicateSuffix = ":v1"
)

// PredicateType returns the URN that names t in a statement.
func (t Type) PredicateType() string { return predicatePrefix + string(t) + predicateSuffix }

func parsePredicateType(s string) (Type, error) {
	name, ok := strings.CutPrefix(s, predicatePrefix)
	if !ok {
		return "", fmt.Errorf("%w: predicateType %q is not an aln-registry one", ErrMalformed, clip(s))
	}
	name, ok = strings.CutSuffix(name, predicateSuffix)
	if !ok || newBody(Type(name)) == nil {
		return "", fmt.Errorf("%w: %q; upgrade aln-registry", ErrUnknownType, clip(s))
	}
	return Type(name), nil
}

// ofBytes reports whether a record of type t asserts something of bytes that its
// subject does not name: its digest is theirs.
func (t Type) ofBytes() bool { return t == TypePublish || t == TypeImport }

// Relationship returns the verification relationship of the signer's DID
// document that a signature on t must come from.
func (t Type) Relationship() did.Relationship {
	if t.ofBytes() {
		return did.AssertionMethod
	}
	return did.CapabilityInvocation
}

// ID is a record's identity: 64 lower-case hex digits, the sha256 of the payload.
// The empty ID stands for JSON null.
type ID string

// IDOf returns the identity of payload.
func IDOf(payload []byte) ID {
	sum := sha256.Sum256(payload)
	return ID(hex.EncodeToString(sum[:]))
}

// ParseID accepts 64 lower-case hex digits.
func ParseID(s string) (ID, error) {
	if len(s) != 2*sha256.Size || strings.Trim(s, "0123456789abcdef") != "" {
		return "", fmt.Errorf("%w: %q is not a record identity (64 lower-case hex digits)", ErrMalformed, clip(s))
	}
	return ID(s), nil
}

// MarshalJSON writes null for the empty identity.
func (id ID) MarshalJSON() ([]byte, error) {
	if id == "" {
		return []byte("null"), nil
	}
	return []byte(`"` + string(id) + `"`), nil
}

// UnmarshalJSON accepts null and what ParseID accepts.
func (id *ID) UnmarshalJSON(b []byte) error {
	s := string(b)
	if s == "null" {
		*id = ""
		return nil
	}
	if len(s) < 2 || s[0] != '"' {
		return fmt.Errorf("%w: identity is not a string", ErrMalformed)
	}
	parsed, err := ParseID(s[1 : len(s)-1])
	*id = parsed
	return err
}

// Header is what every predicate says.
type Header struct {
	// Registry is the origin: the DID of entry 0.
	Registry did.DID
	// Signer is the key that signs; also the envelope's keyid.
	Signer did.URL
	// IssuedAt and Expires bound the time of the record's log entry; whole seconds, UTC.
	IssuedAt, Expires time.Time
	// Prev is the last applied record about the same thing, empty for the first.
	Prev ID
	// By is the record that entitles the signer, empty only for entry 0.
	By ID
	// Key is the record that put the signer's DID document in force, empty for did:key.
	Key ID
}

// Draft is a statement about to be signed.
type Draft struct {
	Subject Subject
	// Digest is the subject's sha256; the zero value means sha256(subject name),
	// which is what every type says but publish and import, whose digest is that of
	// the artifact and of the snapshot.
	Digest [sha256.Size]byte
	Header Header
	// Body is what the type says besides; its dynamic type decides the record's type.
	Body Body
}

// Record is a well-formed record. Its signature has not been checked: Verify does.
type Record struct {
	id        ID
	subject   Subject
	digest    [sha256.Size]byte
	header    Header
	body      Body
	payload   []byte
	signature []byte
	envelope  []byte
}

// ID returns the record's identity.
func (r *Record) ID() ID { return r.id }

// Type returns the record's type.
func (r *Record) Type() Type { return r.body.recordType() }

// Act names what the record does as people are told it: its type, but for types
// of which the body decides. Programs are told the type.
func (r *Record) Act() string {
	switch b := r.body.(type) {
	case *Registry:
		return "settings"
	case *Member:
		if len(b.Roles) == 0 {
			return "member removed"
		}
	case *Yank:
		if !b.Yanked {
			return "unyank"
		}
	}
	return string(r.Type())
}

// Subject returns what the record is about.
func (r *Record) Subject() Subject { return r.subject }

// Digest returns the subject's sha256: of the artifact for publish, of the snapshot
// for import.
func (r *Record) Digest() [sha256.Size]byte { return r.digest }

// Header returns what every predicate says.
func (r *Record) Header() Header { return r.header }

// Body returns what the record says by its type: *Registry, *Member, *DIDChange,
// *Publish, *Yank, *Own, *OwnIntent, *Approve, *Grant, *Revoke, *Quarantine,
// *Release or *Import. It must not be changed.
func (r *Record) Body() Body { return r.body }

// Envelope returns the record's blob. It must not be changed.
func (r *Record) Envelope() []byte { return r.envelope }

// Payload returns the statement that is signed. It must not be changed.
func (r *Record) Payload() []byte { return r.payload }

// Attachments lists the blobs that r names and is judged with: a DID document, an
// own-intent, an EnvGrant or a snapshot of another registry's index file.
func (r *Record) Attachments() []storage.CID {
	switch body := r.body.(type) {
	case *Registry:
		return present(body.DIDDocument)
	case *Member:
		return present(body.DIDDocument)
	case *DIDChange:
		return []storage.CID{body.DIDDocument}
	case *Own:
		return present(body.Intent)
	case *Grant:
		return []storage.CID{r.subject.Grant()}
	case *Import:
		return []storage.CID{r.Snapshot()}
	}
	return nil
}

func present(id *storage.CID) []storage.CID {
	if id == nil {
		return nil
	}
	return []storage.CID{*id}
}

// Snapshot names the index file that an import record says was seen; zero for
// records of other types.
func (r *Record) Snapshot() storage.CID {
	if r.Type() != TypeImport {
		return storage.CID{}
	}
	return storage.CIDFromDigest(r.digest)
}

// MostAttached is the size in bytes of the largest blob that r may attach.
func (r *Record) MostAttached() int64 {
	if r.Type() == TypeImport {
		return MaxSnapshot
	}
	return MaxAttachment
}

// CID names the record's blob.
func (r *Record) CID() storage.CID { return storage.CIDOf(r.envelope) }

// Verify checks the signature with key, which the caller has found to be the
// signer's in the relationship that the type demands. The error is did.ErrSignature.
func (r *Record) Verify(key did.PublicKey) error {
	return key.Verify(preAuthEncoding(r.payload), r.signature)
}

// clip keeps foreign text short enough for a message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
