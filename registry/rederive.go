package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// A release may make more of the same log than the one before. What that one left in the
// catalog is derived anew then, at the start, so that an upgraded catalog and a rebuilt one
// are the same. Migrations cannot do it: they have no blobs.

// derivedUpstreams is the fact up to which entry the state of other registries' crates was
// looked at. Servers of an older release may have entered more since.
const derivedUpstreams = "derived_upstreams"

// rederivePage is how many keys are looked at in one statement.
const rederivePage = 1000

// rederive derives anew what an older release made of import records. Where an index file is
// missing the crate stays as it is: what needs it says so, and the next start tries again, since
// it may be there by then, from a backup.
func (r *Registry) rederive(ctx context.Context) error {
	head, err := r.Catalog.Head(ctx)
	if err != nil {
		return err
	}
	said, _, err := r.Catalog.Meta(ctx, derivedUpstreams)
	if err != nil {
		return err
	}
	from, _ := strconv.ParseInt(said, 10, 64)
	if from >= head {
		return nil
	}
	old, err := r.olderUpstreams(ctx, from, head)
	if err != nil {
		return err
	}
	if len(old) > 0 {
		r.Log.Info("an older release derived what is known of crates of other registries; it is derived anew", "crates", len(old))
	}
	whole := true
	for _, key := range old {
		err := r.rederiveUpstream(ctx, key, head)
		if errors.Is(err, storage.ErrNotFound) {
			whole = false
			r.Log.Error("an index file is missing from blob storage, so what is known of a crate cannot be derived anew", "key", key, "error", err)
			continue
		}
		if err != nil {
			return fmt.Errorf("derive %s anew: %w", key, err)
		}
	}
	if !whole {
		return nil
	}
	return r.Catalog.SetMeta(ctx, derivedUpstreams, strconv.FormatInt(head, 10))
}

// olderUpstreams are the keys of crates of other registries that the entries from ≤ index < to
// changed, as an older release does.
func (r *Registry) olderUpstreams(ctx context.Context, from, to int64) (old []string, err error) {
	known := map[string]bool{}
	for from < to {
		keys, err := r.Catalog.StateKeys(ctx, from, to, rederivePage)
		if err != nil || len(keys) == 0 {
			return old, err
		}
		last := keys[len(keys)-1].Index
		for _, k := range keys {
			if k.Index == last && len(keys) == rederivePage && k.Index > from {
				break // the rest of it is on the next page
			}
			if known[k.Key] || !strings.HasPrefix(k.Key, state.UpstreamsPrefix()) {
				continue
			}
			value, _, err := r.Catalog.State(ctx, k.Key, k.Index+1)
			if err != nil {
				return nil, err
			}
			if state.OlderUpstream(value) {
				known[k.Key] = true
				old = append(old, k.Key)
			}
		}
		if len(keys) < rederivePage {
			return old, nil
		}
		from = max(last, from+1)
	}
	return old, nil
}

// rederiveUpstream derives all values of key anew, from its import records before the entry to.
func (r *Registry) rederiveUpstream(ctx context.Context, key string, to int64) error {
	heads, err := r.Catalog.StateHistory(ctx, state.HeadKey(key), to) // a crate's thing is its key
	if err != nil {
		return err
	}
	var u state.Upstream
	for _, row := range heads {
		rec, snapshot, entry, err := r.importOf(ctx, row.Index)
		if err == nil {
			u, err = u.After(rec, snapshot, entry)
		}
		if err != nil {
			return err
		}
		value, err := u.Encode()
		if err != nil {
			return err
		}
		stored, _, err := r.Catalog.State(ctx, key, row.Index+1)
		if err != nil {
			return err
		}
		if bytes.Equal(stored, value) {
			continue
		}
		err = r.Catalog.Update(ctx, func(tx *catalog.Tx) error {
			_, err := tx.RederiveState(ctx, key, row.Index, value)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// importOf is the import record of an entry, and the index file that it names.
func (r *Registry) importOf(ctx context.Context, index int64) (rec *record.Record, snapshot []byte, e state.Entry, err error) {
	entry, err := r.Catalog.Entry(ctx, index)
	if err != nil {
		return nil, nil, e, err
	}
	parsed, err := translog.ParseEntry(entry.Bytes)
	if err != nil {
		return nil, nil, e, err
	}
	envelope, err := readBlob(ctx, r.Blobs, entry.Record, record.MaxEnvelope)
	if err != nil {
		return nil, nil, e, err
	}
	if rec, err = record.Parse(envelope); err != nil {
		return nil, nil, e, err
	}
	snapshot, err = readBlob(ctx, r.Blobs, rec.Snapshot(), record.MaxSnapshot)
	return rec, snapshot, state.Entry{Index: index, Time: parsed.Time, DIDDocument: parsed.DIDDocument}, err
}
