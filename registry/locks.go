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

// Unpin takes back what lock pinned, or was noted to lack, last before before (zero: all of it),
// and says how many crates that were. A *policy.Denial where asker may not.
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

// Lack is a crate that a lock names and that is not kept for it, since it is not to be had.
type Lack struct {
	// Upstream, Name and Version are as the lock has them; Version is "" where all versions lack.
	Upstream, Name, Version string
	// CID is of the bytes that the lock names, zero where it names none.
	CID storage.CID
	// Why is in a word why it was not to be had, "" where it was not asked for yet.
	Why string
}

// Lack notes that lock lacks crates, but for those that it pins. A *policy.Denial where asker may not.
func (r *Registry) Lack(ctx context.Context, asker policy.Asker, lock string, lacks []Lack) error {
	if denial := policy.Keep(asker); denial != nil {
		return denial
	}
	return r.Catalog.LackUpstream(ctx, rowsOfLacks(lock, string(asker.DID), r.Clock(), lacks))
}

// LackAnew is Lack in place of all that lock lacked of upstream, of which all lacks are. Cut in the
// middle, lock lacks both.
func (r *Registry) LackAnew(ctx context.Context, asker policy.Asker, lock, upstream string, lacks []Lack) error {
	if denial := policy.Keep(asker); denial != nil {
		return denial
	}
	return r.Catalog.LackUpstreamAnew(ctx, lock, upstream, rowsOfLacks(lock, string(asker.DID), r.Clock(), lacks))
}

// Have notes that lock lacks no more what it names by lacks. A *policy.Denial where asker may not.
func (r *Registry) Have(ctx context.Context, asker policy.Asker, lock string, lacks []Lack) error {
	if denial := policy.Keep(asker); denial != nil {
		return denial
	}
	return r.Catalog.HaveUpstream(ctx, rowsOfLacks(lock, string(asker.DID), r.Clock(), lacks))
}

func rowsOfLacks(lock, who string, at time.Time, lacks []Lack) []catalog.UpstreamLack {
	rows := make([]catalog.UpstreamLack, len(lacks))
	for i, l := range lacks {
		rows[i] = catalog.UpstreamLack{Lock: lock, Upstream: l.Upstream, Name: l.Name, Version: l.Version, CID: l.CID, Why: l.Why, DID: who, Since: at}
	}
	return rows
}

// Lacks lists what lock lacks, by upstream, name and version, as far as asker may know of it, of
// the first limit: nothing to whom a grant hides crates, and no private name.
func (r *Registry) Lacks(ctx context.Context, asker policy.Asker, lock string, limit int) ([]Lack, error) {
	if asker.Anonymous() || hides(&asker) || !r.MayRead(asker).Allow {
		return nil, nil
	}
	rows, err := r.Catalog.UpstreamLacks(ctx, catalog.UpstreamLack{Lock: lock}, limit)
	if err != nil {
		return nil, err
	}
	var lacks []Lack
	for _, row := range rows {
		if !r.PrivateName(row.Name) {
			lacks = append(lacks, Lack{Upstream: row.Upstream, Name: row.Name, Version: row.Version, CID: row.CID, Why: row.Why})
		}
	}
	return lacks, nil
}
