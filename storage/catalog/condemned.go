package catalog

import (
	"context"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// Condemn notes that the blobs ids are about to be removed, or were: until
// ForgetCondemned, whoever is about to refer to one of them stores it anew. at
// is kept in whole seconds; of one condemned twice, the later.
func (t *Tx) Condemn(ctx context.Context, ids []storage.CID, at time.Time) error {
	return inBatches(ids, func(_ string, args []any) error {
		rows := rowsOf(len(args), func(i int) string { return placeholders(i+2, 1) + ", $1" })
		_, err := t.tx.ExecContext(ctx, "INSERT INTO condemned (cid, condemned_at) VALUES "+rows+` ON CONFLICT (cid) DO UPDATE SET
			condemned_at = CASE WHEN excluded.condemned_at > condemned.condemned_at THEN excluded.condemned_at ELSE condemned.condemned_at END`,
			append([]any{at.Unix()}, args...)...)
		return failed(ctx, "condemn blobs", err)
	})
}

// Pardon takes back that ids were condemned; those that were not stay so.
func (t *Tx) Pardon(ctx context.Context, ids []storage.CID) error {
	return inBatches(ids, func(list string, args []any) error {
		_, err := t.tx.ExecContext(ctx, "DELETE FROM condemned WHERE cid IN ("+list+")", args...)
		return failed(ctx, "pardon blobs", err)
	})
}

// Condemned returns those of ids that are condemned, in byte order of their text.
func (r Reader) Condemned(ctx context.Context, ids []storage.CID) (condemned []storage.CID, err error) {
	err = inBatches(ids, func(list string, args []any) error {
		some, err := collect(ctx, r, "look for condemned blobs", scanCID, "SELECT cid FROM condemned WHERE cid IN ("+list+") ORDER BY cid", args...)
		condemned = append(condemned, some...)
		return err
	})
	return condemned, err
}

// ForgetCondemned forgets those that were condemned before before, in whole seconds.
func (t *Tx) ForgetCondemned(ctx context.Context, before time.Time) error {
	_, err := t.tx.ExecContext(ctx, "DELETE FROM condemned WHERE condemned_at < $1", before.Unix())
	return failed(ctx, "forget condemned blobs", err)
}
