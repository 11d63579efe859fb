package did

import (
	"crypto/ed25519"
	"fmt"

	"phoenix-lab.org/aln-registry/durable"
)

// AddToKeyFile adds key to the key file at path, which becomes a JWK Set, in one
// step: a crash leaves the old file or the new one. Errors as of ReadKeyFile and
// WriteKeyFile. Nobody else may change the file meanwhile.
func AddToKeyFile(path string, key NamedKey) error {
	keys, err := ReadKeyFile(path)
	if err != nil {
		return err
	}
	data, err := encodeKeyFile(append(keys, key))
	if err != nil {
		return fmt.Errorf("write key file %s: %w", path, err)
	}
	return durable.WriteFile(path, data, 0o600)
}

// Ed25519Keys parses Multikeys that all must be Ed25519 keys, as log_keys are.
func Ed25519Keys(multikeys []string) ([]ed25519.PublicKey, error) {
	keys := make([]ed25519.PublicKey, 0, len(multikeys))
	for _, multikey := range multikeys {
		key, err := ParseMultikey(multikey)
		if err != nil {
			return nil, err
		}
		raw, ok := key.Ed25519()
		if !ok {
			return nil, fmt.Errorf("the key %s is not Ed25519", multikey)
		}
		keys = append(keys, raw)
	}
	return keys, nil
}
