package client

import (
	"bytes"
	"path/filepath"

	"phoenix-lab.org/aln-registry/durable"
)

const folderCA = "ca"

// BundlePath is the file of certificates that cargo is told to trust.
func (h Home) BundlePath() string { return filepath.Join(h.path, folderCA, "cargo.pem") }

// Bundle is what stands in that file: the computer's own certificates (system,
// PEM), since cargo trusts no others once it is told of a file, and those of
// every pinned registry with a private authority.
func (h Home) Bundle(system []byte) ([]byte, error) {
	pins, err := h.Pins()
	if err != nil {
		return nil, err
	}
	bundle := bytes.Clone(system)
	if len(bundle) > 0 && !bytes.HasSuffix(bundle, []byte("\n")) {
		bundle = append(bundle, '\n')
	}
	for _, pin := range pins {
		if !bytes.Contains(bundle, pin.CA) {
			bundle = append(bundle, pin.CA...)
		}
	}
	return bundle, nil
}

// WriteBundle writes Bundle to BundlePath durably.
func (h Home) WriteBundle(system []byte) error {
	bundle, err := h.Bundle(system)
	if err != nil {
		return err
	}
	if err := h.make(folderCA); err != nil {
		return err
	}
	return durable.WriteFile(h.BundlePath(), bundle, fileMode)
}
