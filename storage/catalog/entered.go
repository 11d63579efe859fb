package catalog

import (
	"context"
	"database/sql"
)

// PublishedRecords returns the identities of the records that stand at those of
// indexes that are published, by index: one statement sees both, so whoever finds
// a record there knows that what is published has it.
func (r Reader) PublishedRecords(ctx context.Context, indexes []int64) (map[int64]string, error) {
	found := make(map[int64]string, len(indexes))
	err := inBatches(indexes, 1, func(list string, args []any) error {
		return r.each(ctx, "look for published records", func(rows *sql.Rows) error {
			var index int64
			var id string
			if err := rows.Scan(&index, &id); err != nil {
				return err
			}
			found[index] = id
			return nil
		}, "SELECT e.idx, e.record_id FROM published p, entry e WHERE p.id = 1 AND e.idx < p.size AND e.idx IN ("+list+")", args...)
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}
