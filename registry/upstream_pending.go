package registry

import (
	"context"

	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/storage"
)

// This file gives way to what is being written beside it.

// UpstreamIndexFile is pending.
func (r *Registry) UpstreamIndexFile(ctx context.Context, asker policy.Asker, upstream, lowerName string, held func(context.Context, []storage.CID) ([]bool, error)) (*IndexFile, error) {
	return nil, ErrNotFound
}

// UpstreamVersion is pending.
func (r *Registry) UpstreamVersion(ctx context.Context, asker policy.Asker, upstream, crate, version string) (Judged, error) {
	return Judged{}, ErrNotFound
}

// PrivateName is pending.
func (r *Registry) PrivateName(canonical string) bool { return false }
