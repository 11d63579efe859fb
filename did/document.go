package did

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Relationship is what a key may be used for (DID Core §5.3).
type Relationship string

const (
	Authentication       Relationship = "authentication"
	AssertionMethod      Relationship = "assertionMethod"
	CapabilityInvocation Relationship = "capabilityInvocation"
)

// Bounds of a document.
const (
	MaxDocument      = 64 << 10 // bytes
	maxDocumentDepth = 16
	maxMethods       = 64
)

// Errors of documents and resolution, wrapped with what is wrong.
var (
	// ErrDocument: not a DID document, one that contradicts itself, or another DID's.
	ErrDocument = errors.New("bad DID document")
	// ErrKeyNotFound: the document holds no key of that name.
	ErrKeyNotFound = errors.New("key not found in DID document")
	// ErrRelationship: the key is there, but not for that use.
	ErrRelationship = errors.New("key is not allowed for that use")
)

// Document is a parsed DID document: the keys of one DID and what each may be
// used for. It never changes.
type Document struct {
	id     DID
	listed map[URL]PublicKey                  // verificationMethod
	uses   map[Relationship]map[URL]PublicKey // by reference or embedded
}

// documentJSON holds the members that matter here; others pass.
type documentJSON struct {
	ID                   string           `json:"id"`
	VerificationMethod   []methodJSON     `json:"verificationMethod"`
	Authentication       []jsontext.Value `json:"authentication"`
	AssertionMethod      []jsontext.Value `json:"assertionMethod"`
	CapabilityInvocation []jsontext.Value `json:"capabilityInvocation"`
}

type methodJSON struct {
	ID         string         `json:"id"`
	Type       string         `json:"type"`
	Controller string         `json:"controller"`
	Multibase  *string        `json:"publicKeyMultibase"`
	JWK        jsontext.Value `json:"publicKeyJwk"`
}

// ParseDocument reads a W3C DID document (DID Core, JSON) of at most
// MaxDocument bytes. Keys are understood in methods of type Multikey,
// Ed25519VerificationKey2020, JsonWebKey and JsonWebKey2020; methods of other
// types, keys of other curves and members unknown here are ignored. Duplicate
// members, two methods of one id, a method of another DID or controller and a
// malformed key are ErrDocument.
func ParseDocument(data []byte) (*Document, error) {
	if len(data) > MaxDocument {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrDocument, len(data), MaxDocument)
	}
	if err := checkJSON(data); err != nil {
		return nil, err
	}
	var parsed documentJSON
	if err := json.Unmarshal(data, &parsed); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDocument, err)
	}
	id, err := Parse(parsed.ID)
	if err != nil {
		return nil, fmt.Errorf("%w: id: %w", ErrDocument, err)
	}
	r := documentReader{seen: map[string]bool{}, doc: &Document{
		id: id, listed: map[URL]PublicKey{}, uses: map[Relationship]map[URL]PublicKey{},
	}}
	for _, m := range parsed.VerificationMethod {
		if err := r.method(m, r.doc.listed); err != nil {
			return nil, err
		}
	}
	for _, use := range []struct {
		rel     Relationship
		entries []jsontext.Value
	}{
		{Authentication, parsed.Authentication},
		{AssertionMethod, parsed.AssertionMethod},
		{CapabilityInvocation, parsed.CapabilityInvocation},
	} {
		if err := r.relationship(use.rel, use.entries); err != nil {
			return nil, err
		}
	}
	return r.doc, nil
}

// checkJSON bounds the depth of data and refuses anything but one object with
// unique names throughout, so also in the members that are ignored.
func checkJSON(data []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(data))
	if d.PeekKind() != '{' {
		return fmt.Errorf("%w: not a JSON object", ErrDocument)
	}
	for {
		_, err := d.ReadToken()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDocument, err)
		}
		if d.StackDepth() > maxDocumentDepth {
			return fmt.Errorf("%w: nested deeper than %d", ErrDocument, maxDocumentDepth)
		}
	}
}

// documentReader collects a document's keys.
type documentReader struct {
	doc  *Document
	seen map[string]bool // ids of all methods, also of ignored ones
}

// method adds m's key to keys, unless its type or curve is unknown.
func (r *documentReader) method(m methodJSON, keys map[URL]PublicKey) error {
	if m.ID == "" || m.Type == "" {
		return fmt.Errorf("%w: a verification method lacks id or type", ErrDocument)
	}
	absolute := r.absolute(m.ID)
	if r.seen[absolute] {
		return fmt.Errorf("%w: two verification methods have the id %.80q", ErrDocument, m.ID)
	}
	if r.seen[absolute] = true; len(r.seen) > maxMethods {
		return fmt.Errorf("%w: more than %d verification methods", ErrDocument, maxMethods)
	}
	key, err := m.publicKey()
	if errors.Is(err, ErrUnsupportedKey) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: method %.80q: %w", ErrDocument, m.ID, err)
	}
	u, err := ParseURL(absolute)
	if err != nil {
		return fmt.Errorf("%w: method %.80q: %w", ErrDocument, m.ID, err)
	}
	if u.DID != r.doc.id {
		return fmt.Errorf("%w: method %.80q belongs to another DID than %s", ErrDocument, m.ID, r.doc.id)
	}
	if m.Controller != string(r.doc.id) {
		return fmt.Errorf("%w: method %.80q: controller must be %s", ErrDocument, m.ID, r.doc.id)
	}
	keys[u] = key
	return nil
}

// absolute resolves a relative id, which is a fragment alone.
func (r *documentReader) absolute(id string) string {
	if id[0] == '#' {
		return string(r.doc.id) + id
	}
	return id
}

// publicKey reads the key as the method's type says.
func (m methodJSON) publicKey() (PublicKey, error) {
	switch m.Type {
	case "Multikey", "Ed25519VerificationKey2020":
		if m.Multibase == nil || m.JWK != nil {
			return PublicKey{}, fmt.Errorf("%w: %s needs publicKeyMultibase and nothing else", ErrKey, m.Type)
		}
		k, err := ParseMultikey(*m.Multibase)
		if err == nil && m.Type != "Multikey" && k.algorithm != EdDSA {
			return PublicKey{}, fmt.Errorf("%w: %s holds a key of another type", ErrKey, m.Type)
		}
		return k, err
	case "JsonWebKey", "JsonWebKey2020":
		if m.JWK == nil || m.Multibase != nil {
			return PublicKey{}, fmt.Errorf("%w: %s needs publicKeyJwk and nothing else", ErrKey, m.Type)
		}
		var j publicJWK
		if err := json.Unmarshal(m.JWK, &j); err != nil {
			return PublicKey{}, fmt.Errorf("%w: publicKeyJwk: %w", ErrKey, err)
		}
		return j.publicKey()
	default:
		return PublicKey{}, ErrUnsupportedKey
	}
}

// relationship records what entries allow. A reference to what is not listed
// (another DID's key, an ignored method) gives nobody anything and is passed over.
func (r *documentReader) relationship(rel Relationship, entries []jsontext.Value) error {
	keys := map[URL]PublicKey{}
	r.doc.uses[rel] = keys
	for _, entry := range entries {
		switch entry.Kind() {
		case '"':
			var id string
			if err := json.Unmarshal(entry, &id); err != nil {
				return fmt.Errorf("%w: %s: %w", ErrDocument, rel, err)
			}
			r.reference(id, keys)
		case '{':
			var m methodJSON
			if err := json.Unmarshal(entry, &m); err != nil {
				return fmt.Errorf("%w: %s: %w", ErrDocument, rel, err)
			}
			if err := r.method(m, keys); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: %s: an entry is neither an id nor a method", ErrDocument, rel)
		}
	}
	return nil
}

func (r *documentReader) reference(id string, keys map[URL]PublicKey) {
	if id == "" {
		return
	}
	u, err := ParseURL(r.absolute(id))
	if err != nil {
		return
	}
	if key, ok := r.doc.listed[u]; ok {
		keys[u] = key
	}
}

// ID returns the DID that the document describes.
func (d *Document) ID() DID { return d.id }

// PublicKey returns the key named u if the document allows it for rel.
// ErrKeyNotFound: there is no such key; ErrRelationship: not for rel.
func (d *Document) PublicKey(u URL, rel Relationship) (PublicKey, error) {
	if key, ok := d.uses[rel][u]; ok {
		return key, nil
	}
	if _, ok := d.listed[u]; ok {
		return PublicKey{}, fmt.Errorf("%w: %s: %s", ErrRelationship, rel, u)
	}
	for _, keys := range d.uses {
		if _, ok := keys[u]; ok {
			return PublicKey{}, fmt.Errorf("%w: %s: %s", ErrRelationship, rel, u)
		}
	}
	return PublicKey{}, fmt.Errorf("%w: %s", ErrKeyNotFound, u)
}

// ResolveKey returns the key that u names if it may be used for rel. A did:key
// is its own document and doc must be nil; its one key has every relationship.
// A did:web needs doc, whose ID must be u's DID (ErrDocument otherwise).
func ResolveKey(u URL, rel Relationship, doc *Document) (PublicKey, error) {
	switch rel {
	case Authentication, AssertionMethod, CapabilityInvocation:
	default:
		return PublicKey{}, fmt.Errorf("%w: unknown relationship %.40q", ErrRelationship, string(rel))
	}
	if u.DID.Method() == "key" {
		if doc != nil {
			return PublicKey{}, fmt.Errorf("%w: a did:key has none", ErrDocument)
		}
		key, err := KeyOf(u.DID)
		if err != nil {
			return PublicKey{}, err
		}
		if u.Fragment != key.Multikey() {
			return PublicKey{}, fmt.Errorf("%w: %s: the key of a did:key is %s", ErrKeyNotFound, u, key.URL())
		}
		return key, nil
	}
	if doc == nil {
		return PublicKey{}, fmt.Errorf("%w: the document of %s is needed", ErrDocument, u.DID)
	}
	if doc.id != u.DID {
		return PublicKey{}, fmt.Errorf("%w: it describes %s, not %s", ErrDocument, doc.id, u.DID)
	}
	return doc.PublicKey(u, rel)
}
