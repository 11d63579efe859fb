package catalog

import (
	"context"
	"database/sql"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// condemnedPage is how many CopyCondemned has in memory at once.
const condemnedPage = 1000

// CopyCondemned takes over what is condemned in another catalog, in one transaction.
func (db *DB) CopyCondemned(ctx context.Context, from *DB) error {
	return db.Update(ctx, func(t *Tx) error {
		for after := ""; ; {
			rows := 0
			err := from.each(ctx, "read what is condemned", func(r *sql.Rows) error {
				var at int64
				if err := r.Scan(&after, &at); err != nil {
					return err
				}
				rows++
				id, err := storage.ParseCID(after)
				if err != nil {
					return err
				}
				return t.Condemn(ctx, []storage.CID{id}, time.Unix(at, 0))
			}, "SELECT cid, condemned_at FROM condemned WHERE cid > $1 ORDER BY cid LIMIT $2", after, condemnedPage)
			if err != nil || rows == 0 {
				return err
			}
		}
	})
}
