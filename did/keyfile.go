package did

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"phoenix-lab.org/aln-registry/durable"
)

// Bounds of a key file.
const (
	maxKeyFile  = 64 << 10 // bytes
	maxFileKeys = 16
)

// Errors of key files, wrapped with what is wrong and never with key material.
var (
	// ErrKeyFile: not a key file, or keys that cannot be one.
	ErrKeyFile = errors.New("bad key file")
	// ErrKeyFileMode: others than the owner may read or write the file.
	ErrKeyFileMode = errors.New("key file is open to others")
	// ErrNoPassphrase: the passphrase is empty or has a NUL in it.
	ErrNoPassphrase = errors.New("a passphrase is needed, at least one character and no NUL; type one, or give it as the first line of the standard input")
	// ErrPassphrase: the passphrase does not open the encrypted key, or the key was altered.
	ErrPassphrase = errors.New("wrong passphrase, or the encrypted key was altered")
)

// NamedKey is a private key and its name: the kid of the JWK, usually the DID
// URL of the key; 1 to MaxURLLength printable ASCII characters.
type NamedKey struct {
	ID  string
	Key PrivateKey
}

// WriteKeyFile writes keys to path durably, for its owner alone (mode 0600; on Windows
// an access list that says so), never over an existing file (fs.ErrExist). One key is written as a JWK (RFC 7517 §4), several
// as a JWK Set (§5). The folder must exist.
func WriteKeyFile(path string, keys []NamedKey) error {
	data, err := encodeKeyFile(keys)
	if err != nil {
		return fmt.Errorf("write key file %s: %w", path, err)
	}
	return durable.CreateFile(path, data, 0o600)
}

func encodeKeyFile(keys []NamedKey) ([]byte, error) {
	if err := checkKeys(keys); err != nil {
		return nil, err
	}
	jwks := make([]privateJWK, 0, len(keys))
	for _, k := range keys {
		j, err := k.toJWK()
		if err != nil {
			return nil, err
		}
		jwks = append(jwks, j)
	}
	var file any = keySet{jwks}
	if len(jwks) == 1 {
		file = jwks[0]
	}
	data, err := json.Marshal(file, jsontext.WithIndent("  "))
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}

// checkKeys refuses no keys, too many, and two of one name.
func checkKeys(keys []NamedKey) error {
	if len(keys) == 0 || len(keys) > maxFileKeys {
		return fmt.Errorf("%w: %d keys, must be 1 to %d", ErrKeyFile, len(keys), maxFileKeys)
	}
	seen := map[string]bool{}
	for _, k := range keys {
		if seen[k.ID] {
			return fmt.Errorf("%w: two keys are named %.80q", ErrKeyFile, k.ID)
		}
		seen[k.ID] = true
	}
	return nil
}

type keySet struct {
	Keys []privateJWK `json:"keys"`
}

// ReadKeyFile reads what WriteKeyFile wrote, in the order of the file. A file
// that others than its owner can open is ErrKeyFileMode; one that is not
// regular, exceeds 64 KiB, has unknown members, or in which public and private
// halves differ is ErrKeyFile.
func ReadKeyFile(path string) ([]NamedKey, error) {
	data, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	keys, err := parseKeyFile(data)
	if err != nil {
		return nil, fmt.Errorf("read key file %s: %w", path, err)
	}
	return keys, nil
}

// readPrivate reads a regular file that is its owner's alone. What it is, is asked
// before the open, which would wait at a pipe, and again of what was opened.
func readPrivate(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil {
		err = checkRegular(path, info)
	}
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	f, err := durable.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	defer f.Close()
	if info, err = f.Stat(); err == nil {
		err = checkRegular(path, info)
	}
	if err == nil {
		err = checkOwnerOnly(f)
	}
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("read key file %s: %w", path, err)
	}
	return data, nil
}

func checkRegular(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is not a regular file", ErrKeyFile, path)
	}
	return nil
}

func checkOwnerOnly(f *os.File) error {
	err := durable.OwnerOnly(f)
	if exposed := (*durable.ExposedError)(nil); errors.As(err, &exposed) {
		return fmt.Errorf("%w: %w", ErrKeyFileMode, err)
	}
	return err
}

func parseKeyFile(data []byte) ([]NamedKey, error) {
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrKeyFile, maxKeyFile)
	}
	var members map[string]jsontext.Value
	if err := unmarshalStrict(data, &members); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	if _, isSet := members["keys"]; !isSet {
		key, err := parsePrivateJWK(data)
		if err != nil {
			return nil, err
		}
		return []NamedKey{key}, nil
	}
	var set keySet
	if err := unmarshalStrict(data, &set); err != nil {
		return nil, fmt.Errorf("%w: not a JWK Set of private keys: %w", ErrKeyFile, err)
	}
	keys := make([]NamedKey, 0, min(len(set.Keys), maxFileKeys))
	for _, j := range set.Keys {
		key, err := j.namedKey()
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, checkKeys(keys)
}
