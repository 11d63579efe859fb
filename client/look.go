package client

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"phoenix-lab.org/aln-registry/registry/content"
)

// LookInside completes decisions about Judgeable(locked), in that order, where
// only a look at a crate's bytes is missing: the registry has not got them, as long as
// nobody had it fetch them, or cargo downloads them from crates.io itself, but CARGO_HOME may. Bytes
// that are not those decided about, or cannot be looked through, stay denied.
func LookInside(locked []Locked, decided []Decision) []Decision {
	all := slices.Clone(decided)
	rest := all
	for _, p := range locked {
		for _, j := range p.judgeable() {
			if len(rest) == 0 {
				return all
			}
			if rest[0].Unscanned && !rest[0].Allow {
				rest[0].look(p.Cached, j.hash)
			}
			rest = rest[1:]
		}
	}
	return all
}

// look decides by the bytes of that hash, if they are among cached.
func (d *Decision) look(cached []Cached, hash [32]byte) {
	i := slices.IndexFunc(cached, func(c Cached) bool { return c.Problem == "" && c.Hash == hash })
	if d.unlooked = i < 0; d.unlooked {
		d.Reason = "its bytes have not yet been looked through for what the rule is about; `cargo fetch --locked` it, then type this again: what lies in CARGO_HOME is looked through here"
		return
	}
	findings, err := lookAt(cached[i].Path, hash)
	switch {
	case err != nil:
		d.Reason = fmt.Sprintf("its bytes, in %s, cannot be looked through for what the rule is about: %v", cached[i].Path, err)
	case len(findings) > 0:
		d.Reason = fmt.Sprintf("its bytes hold what the rule is about: %s", findings[0])
	default:
		d.Allow, d.Unscanned = true, false
	}
}

// errChanged: a file has other bytes than when it was hashed.
var errChanged = errors.New("it has changed meanwhile")

// lookAt is what the recognisers find in the crate at path, whose hash is compared
// over the very bytes that they see.
func lookAt(path string, want [32]byte) ([]content.Finding, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	hash := sha256.New()
	seen := io.TeeReader(file, hash)
	findings, err := content.Crate(seen, content.Limits{})
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, seen); err != nil { // a look ends where there is nothing more to find
		return nil, err
	}
	if [32]byte(hash.Sum(nil)) != want {
		return nil, errChanged
	}
	return findings, nil
}
