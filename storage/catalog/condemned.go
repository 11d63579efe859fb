package catalog

import (
	"context"
	"slices"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// Condemn notes that the blobs ids are about to be removed, or were: until
// ForgetCondemned, whoever is about to refer to one of them stores it anew. at
// is kept in whole seconds; of one condemned twice, the later.
func (t *Tx) Condemn(ctx context.Context, ids []storage.CID, at time.Time) error {
	for _, id := range ids {
		err := t.write(ctx, statement{what: "condemn blobs", query: `INSERT INTO condemned (cid, condemned_at) VALUES ($1, $2) ON CONFLICT (cid) DO UPDATE SET
			condemned_at = CASE WHEN excluded.condemned_at > condemned.condemned_at THEN excluded.condemned_at ELSE condemned.condemned_at END`,
			args: []any{id.String(), at.Unix()}})
		if err != nil {
			return err
		}
	}
	return nil
}

// Pardon takes back that ids were condemned; those that were not stay so.
func (t *Tx) Pardon(ctx context.Context, ids []storage.CID) error {
	for _, id := range ids {
		if err := t.write(ctx, statement{what: "pardon blobs", query: "DELETE FROM condemned WHERE cid = $1", args: []any{id.String()}}); err != nil {
			return err
		}
	}
	return nil
}

// Condemned returns those of ids that are condemned, in byte order of their text.
func (r Reader) Condemned(ctx context.Context, ids []storage.CID) (condemned []storage.CID, err error) {
	err = inBatches(textsOf(ids), 1, func(list string, args []any) error {
		some, err := collect(ctx, r, "look for condemned blobs", scanCID, "SELECT cid FROM condemned WHERE cid IN ("+list+") ORDER BY cid", args...)
		condemned = append(condemned, some...)
		return err
	})
	return condemned, err
}

// ForgetCondemned forgets those that were condemned before before, in whole seconds.
func (t *Tx) ForgetCondemned(ctx context.Context, before time.Time) error {
	return t.write(ctx, statement{what: "forget condemned blobs", query: "DELETE FROM condemned WHERE condemned_at < $1", args: []any{before.Unix()}})
}

// textsOf are the texts of ids in byte order, each once.
func textsOf(ids []storage.CID) []string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = id.String()
	}
	slices.Sort(texts)
	return slices.Compact(texts)
}
