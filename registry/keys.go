package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"phoenix-lab.org/aln-registry/did"
)

// logKeyID is the kid of the log's first key in the registry's key file, its
// successors are log-2, log-3 and so on; the other key there has the DID URL by
// which the registry signs.
const logKeyID = "log"

// webKeyFragment names the one key in the DID document that a did:web registry
// is set up with.
const webKeyFragment = "key-1"

// Keys are the registry's: its DID's and the log's, of which there are several
// once one was made to take another's place (FORMATS §4).
type Keys struct {
	id   did.URL
	key  did.PrivateKey
	logs []logKey
}

// DID is the registry's.
func (k Keys) DID() did.DID { return k.id.DID }

// Signer signs as the registry.
func (k Keys) Signer() did.Signer { return k.key.Signer(k.id) }

// document is the DID document of a did:web registry, nil for did:key.
func (k Keys) document() ([]byte, error) {
	if k.id.DID.Method() != "web" {
		return nil, nil
	}
	return did.NewDocument(k.id.DID, []did.DocumentKey{{ID: k.id, Key: k.key.Public()}})
}

// OpenKeys reads the registry's key file at path, or makes it when there is
// none. want is the DID that the registry must have: "" for whatever the file
// says, and for a new did:key when there is no file.
func OpenKeys(path string, want did.DID, rand io.Reader) (Keys, error) {
	k, err := ReadKeys(path, want)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if err := CreateKeys(path, want, rand); err != nil {
		return Keys{}, err
	}
	return ReadKeys(path, want)
}

// ReadKeys reads the registry's key file at path, which must be there
// (fs.ErrNotExist) and that of want, unless that is "".
func ReadKeys(path string, want did.DID) (Keys, error) {
	k, err := readKeys(path)
	if err != nil {
		return Keys{}, err
	}
	if want != "" && k.DID() != want {
		return Keys{}, fmt.Errorf("the registry's key file %s is that of %s, not of %s; a registry's DID never changes", path, k.DID(), want)
	}
	return k, nil
}

func readKeys(path string) (Keys, error) {
	named, err := did.ReadKeyFile(path)
	if err != nil {
		return Keys{}, err
	}
	var k Keys
	for _, n := range named {
		if isLogKey(n.ID) {
			key, err := newLogKey(n)
			if err != nil {
				return Keys{}, fmt.Errorf("the registry's key file %s: %w", path, err)
			}
			k.logs = append(k.logs, key)
			continue
		}
		if k.id, err = did.ParseURL(n.ID); err != nil {
			return Keys{}, fmt.Errorf("the registry's key file %s: %w", path, err)
		}
		k.key = n.Key
	}
	if len(named) != len(k.logs)+1 || k.key.IsZero() || len(k.logs) == 0 {
		return Keys{}, fmt.Errorf("the registry's key file %s does not hold exactly the registry's key and the log's", path)
	}
	return k, nil
}

// CreateKeys makes the key file of a new registry at path, durably, never over an
// existing file (fs.ErrExist): of want, a did:web, or for "" of a new did:key.
func CreateKeys(path string, want did.DID, rand io.Reader) error {
	own, err := did.GenerateEd25519(rand)
	if err != nil {
		return err
	}
	logKey, err := did.GenerateEd25519(rand)
	if err != nil {
		return err
	}
	id := own.Public().URL()
	if want != "" {
		if want.Method() != "web" {
			return fmt.Errorf("--did %s: only a did:web can be asked for; a did:key follows from its key", want)
		}
		id = did.URL{DID: want, Fragment: webKeyFragment}
	}
	return did.WriteKeyFile(path, []did.NamedKey{{ID: id.String(), Key: own}, {ID: logKeyID, Key: logKey}})
}

// Document is the DID document of a did:web registry, ErrNotFound for a did:key.
func (r *Registry) Document(ctx context.Context) ([]byte, error) {
	id := r.Settings().DIDDocument
	if id == nil {
		return nil, fmt.Errorf("%w: this registry's DID is %s, which needs no document", ErrNotFound, r.origin)
	}
	return readBlob(ctx, r.Blobs, *id, maxAttachment)
}
