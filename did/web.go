package did

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// WebPath returns where on its host the document of a did:web is published: an
// absolute URL path, /.well-known/did.json or, for a DID with a path,
// /the/path/did.json (did:web specification, "Read (Resolve)"). Of another
// method it is "".
func (d DID) WebPath() string {
	id, ok := strings.CutPrefix(string(d), "did:web:")
	if !ok {
		return ""
	}
	_, path, ok := strings.Cut(id, ":")
	if !ok {
		return "/.well-known/did.json"
	}
	return "/" + strings.ReplaceAll(path, ":", "/") + "/did.json"
}

// WebHost returns the host of a did:web with its port, if it names one, as it
// stands in a URL. Of another method it is "".
func (d DID) WebHost() string {
	id, ok := strings.CutPrefix(string(d), "did:web:")
	if !ok {
		return ""
	}
	host, _, _ := strings.Cut(id, ":")
	return strings.Replace(host, "%3A", ":", 1)
}

// WebURL returns the https URL of the document of a did:web; ErrDID for another
// method or a DID that Parse would refuse.
func (d DID) WebURL() (string, error) {
	if _, err := Parse(string(d)); err != nil {
		return "", err
	}
	if d.Method() != "web" {
		return "", fmt.Errorf("%w: %.80q is not a did:web, only that has a document to fetch", ErrDID, string(d))
	}
	return "https://" + d.WebHost() + d.WebPath(), nil
}

// DocumentKey is a key of a document to be written, and its name there.
type DocumentKey struct {
	ID  URL
	Key PublicKey
}

// NewDocument writes the DID document of id with keys as Multikeys that have
// every relationship: JSON for people to publish. Each key must be id's
// (ErrDocument); what comes out is what ParseDocument reads.
func NewDocument(id DID, keys []DocumentKey) ([]byte, error) {
	type method struct {
		ID         string `json:"id"`
		Type       string `json:"type"`
		Controller string `json:"controller"`
		Multikey   string `json:"publicKeyMultibase"`
	}
	document := struct {
		Context              []string `json:"@context"`
		ID                   string   `json:"id"`
		VerificationMethod   []method `json:"verificationMethod"`
		Authentication       []string `json:"authentication"`
		AssertionMethod      []string `json:"assertionMethod"`
		CapabilityInvocation []string `json:"capabilityInvocation"`
	}{
		Context: []string{"https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"}, ID: string(id),
	}
	names := []string{}
	for _, k := range keys {
		document.VerificationMethod = append(document.VerificationMethod,
			method{ID: k.ID.String(), Type: "Multikey", Controller: string(id), Multikey: k.Key.Multikey()})
		names = append(names, k.ID.String())
	}
	document.Authentication, document.AssertionMethod, document.CapabilityInvocation = names, names, names
	data, err := json.Marshal(document, jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDocument, err)
	}
	if _, err := ParseDocument(data); err != nil {
		return nil, err
	}
	return data, nil
}

// Holds reports whether key stands in the document, under whatever name and for
// whatever use.
func (d *Document) Holds(key PublicKey) bool {
	if key.IsZero() {
		return false
	}
	for _, k := range d.listed {
		if k == key {
			return true
		}
	}
	for _, keys := range d.uses {
		for _, k := range keys {
			if k == key {
				return true
			}
		}
	}
	return false
}

// PublicKeys returns all keys in the document, each once, sorted by Multikey.
func (d *Document) PublicKeys() []PublicKey {
	var list []PublicKey
	for _, u := range d.Keys() {
		for _, keys := range []map[URL]PublicKey{d.listed, d.uses[Authentication], d.uses[AssertionMethod], d.uses[CapabilityInvocation]} {
			if key, ok := keys[u]; ok && !slices.Contains(list, key) {
				list = append(list, key)
			}
		}
	}
	slices.SortFunc(list, func(a, b PublicKey) int { return strings.Compare(a.Multikey(), b.Multikey()) })
	return list
}

// Keys returns the names of all keys in the document, in no order that matters.
func (d *Document) Keys() []URL {
	seen := map[URL]bool{}
	for u := range d.listed {
		seen[u] = true
	}
	for _, keys := range d.uses {
		for u := range keys {
			seen[u] = true
		}
	}
	list := make([]URL, 0, len(seen))
	for u := range seen {
		list = append(list, u)
	}
	return list
}
