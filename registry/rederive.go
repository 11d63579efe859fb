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
// missing or damaged the crate stays as it is until that is there again: one of thousands keeps
// no server from starting, and what needs it says so.
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
		err := r.rederiveUpstream(ctx, key)
		if errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrCorrupt) {
			r.Log.Error("an index file is missing from blob storage, or damaged, so what is known of a crate cannot be derived anew; the next start tries again", "key", key, "error", err)
			whole = false
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

// rederiveUpstream derives all values of key anew, from its import records. The first one that
// an older release made is written last: until then the next start finds by it that there is
// something to do, also where other servers went on from that value.
func (r *Registry) rederiveUpstream(ctx context.Context, key string) error {
	var u state.Upstream
	var first *catalog.StateRow
	for from := int64(0); ; {
		heads, err := r.Catalog.StateHistory(ctx, state.HeadKey(key), maxIndex) // a crate's thing is its key
		if err != nil {
			return err
		}
		more := false
		for _, head := range heads {
			if head.Index < from {
				continue
			}
			more, from = true, head.Index+1
			row, stored, err := r.rederived(ctx, &u, key, head.Index)
			switch {
			case err != nil:
				return err
			case bytes.Equal(stored, row.Value):
			case first == nil && state.OlderUpstream(stored):
				first = &row
			default:
				if err := r.putRederived(ctx, row); err != nil {
					return err
				}
			}
		}
		switch { // others may have entered more meanwhile, from what they read before
		case more:
		case first == nil:
			return nil
		default:
			if err := r.putRederived(ctx, *first); err != nil {
				return err
			}
			first = nil
		}
	}
}

// rederived is the value of key as of the import record of an entry, and what is stored for it;
// u is what was known before, and then what is known after it.
func (r *Registry) rederived(ctx context.Context, u *state.Upstream, key string, index int64) (row catalog.StateRow, stored []byte, err error) {
	rec, snapshot, entry, err := r.importOf(ctx, index)
	if err == nil {
		*u, err = u.After(rec, snapshot, entry)
	}
	if err != nil {
		return row, nil, err
	}
	value, err := u.Encode()
	if err != nil {
		return row, nil, err
	}
	stored, _, err = r.Catalog.State(ctx, key, index+1)
	return catalog.StateRow{Key: key, Index: index, Value: value}, stored, err
}

func (r *Registry) putRederived(ctx context.Context, row catalog.StateRow) error {
	return r.Catalog.Update(ctx, func(tx *catalog.Tx) error {
		_, err := tx.RederiveState(ctx, row.Key, row.Index, row.Value)
		return err
	})
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
