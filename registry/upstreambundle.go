package registry

import (
	"context"
	"errors"
	"fmt"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// snapshotsInBundle bounds the index files in a proof bundle, in bytes: who verifies fetches
// the others by themselves, as attachments of their records.
const snapshotsInBundle = 8 << 20

// UpstreamBundle is Bundle for a version of a crate of another registry, by its exact name:
// every import record about the crate, with the index files that they name as far as they
// fit, the oldest first. ErrNotFound also where asker may not know of the version, or, since
// an index file tells of all, not of every other one of the crate.
func (r *Registry) UpstreamBundle(ctx context.Context, asker policy.Asker, upstream, crate, version string) ([]BundleItem, error) {
	v, err := r.UpstreamVersion(ctx, asker, upstream, crate, version, [32]byte{})
	if err != nil {
		return nil, err
	}
	subject, err := record.UpstreamSubject(upstream, crate)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrNotFound, err)
	}
	unknown := fmt.Errorf("%w: what was seen of %s tells of versions that you may not know of", ErrNotFound, whatOf(v.Source, v.Version))
	if err := r.knowsUpstream(ctx, &asker, r.published.Load().terms, subject, unknown); err != nil {
		return nil, err
	}
	return r.bundleAbout(ctx, subject.Thing())
}

// bundleAbout gathers what proves the records about a thing.
func (r *Registry) bundleAbout(ctx context.Context, thing string) ([]BundleItem, error) {
	b := bundle{registry: r, size: r.Size(), items: map[record.ID]BundleItem{}, signers: map[did.DID]bool{}, room: snapshotsInBundle}
	if err := b.history(ctx, thing, anyType); err != nil {
		return nil, err
	}
	if len(b.items) == 0 {
		return nil, fmt.Errorf("%w: there are no records about %s", ErrNotFound, thing)
	}
	if err := b.history(ctx, record.RegistrySubject().Thing(), anyType); err != nil {
		return nil, err
	}
	if err := b.changesOfKeys(ctx); err != nil {
		return nil, err
	}
	return sorted(b.items), nil
}

// attached reads a blob that rec names; false for a snapshot for which there is no room.
func (b *bundle) attached(ctx context.Context, rec *record.Record, id storage.CID) (raw []byte, ok bool, err error) {
	if id != rec.Snapshot() {
		raw, err = readBlob(ctx, b.registry.Blobs, id, maxAttachment)
		return raw, err == nil, err
	}
	raw, err = readBlob(ctx, b.registry.Blobs, id, b.room)
	switch {
	case errors.Is(err, errTooLong): // and what comes later is no smaller as a rule
		b.room = 0
		return nil, false, nil
	case err != nil:
		return nil, false, err
	}
	b.room -= int64(len(raw))
	return raw, true, nil
}
