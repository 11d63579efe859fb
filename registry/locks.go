package registry

import (
	"context"
	"time"

	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// Pin keeps crates of other registries from being evicted, under the name of a lock, beside
// what that pins already; durable when it returns. A *policy.Denial where asker may not.
func (r *Registry) Pin(ctx context.Context, asker policy.Asker, lock string, ids []storage.CID) error {
	if denial := policy.Keep(asker); denial != nil {
		return denial
	}
	return r.Catalog.PinUpstream(ctx, lock, string(asker.DID), ids, r.Clock())
}

// Unpin takes back what lock pinned last before before (zero: all of it), and says how many
// crates that were. A *policy.Denial where asker may not.
func (r *Registry) Unpin(ctx context.Context, asker policy.Asker, lock string, before time.Time) (int64, error) {
	if denial := policy.Keep(asker); denial != nil {
		return 0, denial
	}
	return r.Catalog.UnpinUpstream(ctx, lock, before)
}

// Locks lists the locks behind the name after, by name, at most limit. Who asks may read
// what the registry goes by.
func (r *Registry) Locks(ctx context.Context, after string, limit int) ([]catalog.UpstreamLock, error) {
	return r.Catalog.UpstreamLocks(ctx, after, limit)
}
