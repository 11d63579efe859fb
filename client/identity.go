package client

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"

	"phoenix-lab.org/aln-registry/did"
)

// DefaultIdentity is the name of the identity used when none is named.
const DefaultIdentity = "default"

const keySuffix = ".jwk"

// identityName keeps names usable as file names everywhere.
var identityName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// Identity is a DID that we hold the key of.
type Identity struct {
	// Name is the identity's name in the home; of a key file named otherwise, its path.
	Name string
	// Path is the key file's.
	Path string
	key  did.NamedKey
	id   did.URL
}

// DID returns who the identity is.
func (i Identity) DID() did.DID { return i.id.DID }

// KeyID returns the DID URL of the key, as records name their signer.
func (i Identity) KeyID() did.URL { return i.id }

// Key returns the key, for its export.
func (i Identity) Key() did.NamedKey { return i.key }

// Signer signs as the identity.
func (i Identity) Signer() did.Signer { return i.key.Key.Signer(i.id) }

// Algorithm is the key's.
func (i Identity) Algorithm() did.Algorithm { return i.key.Key.Public().Algorithm() }

// String names the identity by its DID.
func (i Identity) String() string { return i.Name + " (" + string(i.id.DID) + ")" }

// CreateIdentity makes an identity with a new Ed25519 key read from rand and
// writes it durably. "" is DefaultIdentity. ErrIdentityExists.
func (h Home) CreateIdentity(name string, rand io.Reader) (Identity, error) {
	key, err := did.GenerateEd25519(rand)
	if err != nil {
		return Identity{}, err
	}
	return h.ImportIdentity(name, did.NamedKey{ID: key.Public().URL().String(), Key: key})
}

// ImportIdentity writes key under name ("" is DefaultIdentity). key.ID must be
// the DID URL of the key. ErrIdentityExists, ErrIdentityName.
func (h Home) ImportIdentity(name string, key did.NamedKey) (Identity, error) {
	path, err := h.keyPath(name)
	if err != nil {
		return Identity{}, err
	}
	identity, err := newIdentity(name, path, key)
	if err != nil {
		return Identity{}, err
	}
	if err := h.make(folderKeys); err != nil {
		return Identity{}, err
	}
	err = did.WriteKeyFile(path, []did.NamedKey{key})
	if errors.Is(err, fs.ErrExist) {
		return Identity{}, fmt.Errorf("%w: %s", ErrIdentityExists, path)
	}
	return identity, err
}

// Identity reads the identity called name ("" is DefaultIdentity). ErrNoIdentity,
// ErrIdentityName, and the errors of did.ReadKeyFile.
func (h Home) Identity(name string) (Identity, error) {
	path, err := h.keyPath(name)
	if err != nil {
		return Identity{}, err
	}
	identity, err := LoadIdentity(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Identity{}, fmt.Errorf("%w: %s does not exist; type `%s`", ErrNoIdentity, path, howToMake(name))
	}
	identity.Name = orDefault(name)
	return identity, err
}

// Identities reads all identities, sorted by name. A key file that cannot be
// read is an error.
func (h Home) Identities() ([]Identity, error) {
	names, err := h.names(folderKeys, keySuffix)
	if err != nil {
		return nil, err
	}
	var all []Identity
	for _, name := range names {
		identity, err := h.Identity(name)
		if err != nil {
			return nil, err
		}
		all = append(all, identity)
	}
	return all, nil
}

// LoadIdentity reads the identity in the key file at path, which must hold one key.
func LoadIdentity(path string) (Identity, error) {
	keys, err := did.ReadKeyFile(path)
	if err != nil {
		return Identity{}, err
	}
	if len(keys) != 1 {
		return Identity{}, fmt.Errorf("%w: %s holds %d keys, an identity has one", did.ErrKeyFile, path, len(keys))
	}
	return newIdentity(path, path, keys[0])
}

// newIdentity checks that the key's name is a DID URL, and for a did:key that it is this key's.
func newIdentity(name, path string, key did.NamedKey) (Identity, error) {
	id, err := did.ParseURL(key.ID)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %s: kid is not the DID URL of a key: %w", did.ErrKeyFile, path, err)
	}
	if id.DID.Method() == "key" && key.Key.Public().URL() != id {
		return Identity{}, fmt.Errorf("%w: %s: kid is not this key's did:key", did.ErrKeyFile, path)
	}
	return Identity{Name: orDefault(name), Path: path, key: key, id: id}, nil
}

// howToMake is the command that makes the identity called name.
func howToMake(name string) string {
	if name = orDefault(name); name == DefaultIdentity {
		return "aln-registry key new"
	}
	return "aln-registry key new " + name
}

func (h Home) keyPath(name string) (string, error) {
	name = orDefault(name)
	if !identityName.MatchString(name) {
		return "", fmt.Errorf("%w: %.80q; use up to 64 letters, digits, _ and -, a letter or digit first", ErrIdentityName, name)
	}
	return filepath.Join(h.path, folderKeys, name+keySuffix), nil
}

func orDefault(name string) string {
	if name == "" {
		return DefaultIdentity
	}
	return name
}
