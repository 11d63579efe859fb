package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// What is looked through, at most, for the name of some bytes.
const (
	mostNamesSought    = 2_000
	mostVersionsSought = 2_000
)

// MaxListBytes bounds a list blob, in bytes.
const MaxListBytes = particle.MaxListed * (2*32 + 1)

// ListSubject is the name under which grant new publishes the list blob id: by it
// a list is found whose CID is known.
func ListSubject(id storage.CID) (record.Subject, error) {
	return record.VersionSubject(record.KindALNShard, "list-"+id.String(), "1.0.0")
}

// ErrNoShard: no artifact here has those bytes, or none that the asker may know of.
var ErrNoShard = errors.New("no published artifact has that CID")

// Shard fetches the artifact, of any kind but crate, whose bytes id names, at most
// limit bytes, and checks that they do. ErrNoShard.
func (r *Registry) Shard(ctx context.Context, id storage.CID, limit int64) ([]byte, error) {
	subject, err := r.NameOf(ctx, id)
	if err != nil {
		return nil, err
	}
	var into bytes.Buffer
	got, _, err := r.Download(ctx, subject, &bounded{&into, limit})
	if err != nil {
		return nil, err
	}
	if got != id {
		return nil, fmt.Errorf("%w: asked for %s as %s, got bytes that are %s", ErrAnswer, id, subject, got)
	}
	return into.Bytes(), nil
}

// bounded takes at most left bytes.
type bounded struct {
	into *bytes.Buffer
	left int64
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, fmt.Errorf("%w: an artifact is longer than was agreed", ErrAnswer)
	}
	return b.into.Write(p)
}

// NameOf finds the artifact, of any kind but crate, whose bytes id names: as a
// list that grant new published, or by looking through all. ErrNoShard.
func (r *Registry) NameOf(ctx context.Context, id storage.CID) (record.Subject, error) {
	list, err := ListSubject(id)
	if err != nil {
		return record.Subject{}, err
	}
	found, err := r.Artifact(ctx, list)
	var refused *APIError
	switch {
	case err == nil && found.CID == id:
		return list, nil
	case err != nil && !(errors.As(err, &refused) && refused.Status == http.StatusNotFound):
		return record.Subject{}, err
	}
	var subject record.Subject
	for _, kind := range record.Kinds() {
		if kind == record.KindCrate {
			continue
		}
		err := r.eachVersion(ctx, kind, func(v Artifact) bool {
			if v.CID == id {
				subject, err = record.VersionSubject(v.Kind, v.Name, v.Version)
			}
			return v.CID != id
		})
		if err != nil || subject.Version() != "" {
			return subject, err
		}
	}
	return record.Subject{}, fmt.Errorf("%w: %s", ErrNoShard, id)
}

// eachVersion gives do the versions of all artifacts of a kind until it returns
// false, at most mostVersionsSought of each of mostNamesSought names.
func (r *Registry) eachVersion(ctx context.Context, kind record.Kind, do func(Artifact) bool) error {
	names, _, err := r.Artifacts(ctx, kind, "", mostNamesSought)
	if err != nil {
		return err
	}
	for _, name := range names { // most have one version, and it is told already
		if !do(name.Newest) {
			return nil
		}
	}
	for _, name := range names {
		if name.VersionCount < 2 {
			continue
		}
		subject, err := record.ArtifactSubject(name.Kind, name.Name)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrAnswer, err)
		}
		_, versions, err := r.Versions(ctx, subject, mostVersionsSought)
		if err != nil {
			return err
		}
		for _, v := range versions {
			if !do(v) {
				return nil
			}
		}
	}
	return nil
}

// CrateNames finds what the crates here whose bytes are named by hashes are
// called: NAME VERSION by hash. What is not found, crates.io's among them, is absent.
func (r *Registry) CrateNames(ctx context.Context, hashes [][32]byte) (map[[32]byte]string, error) {
	wanted := map[[32]byte]bool{}
	for _, h := range hashes {
		wanted[h] = true
	}
	names := map[[32]byte]string{}
	err := r.eachVersion(ctx, record.KindCrate, func(v Artifact) bool {
		if h := v.CID.Digest(); wanted[h] {
			names[h] = v.Name + " " + v.Version
		}
		return len(names) < len(wanted)
	})
	return names, err
}

// ListOf returns the hashes that a grant allows; all is true where it allows all.
// The list blob is fetched where it has one, and checked. Errors: ErrNoShard,
// particle.ErrMalformed.
func (r *Registry) ListOf(ctx context.Context, g particle.EnvGrant) (hashes [][32]byte, all bool, err error) {
	if g.AllowedCratesList == nil {
		return g.Hashes()
	}
	raw, err := r.Shard(ctx, *g.AllowedCratesList, MaxListBytes)
	if err != nil {
		return nil, false, fmt.Errorf("the list of crates %s: %w", g.AllowedCratesList, err)
	}
	hashes, err = particle.ParseList(raw)
	return hashes, false, err
}
