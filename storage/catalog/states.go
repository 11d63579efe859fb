package catalog

import (
	"context"
	"database/sql"
)

// States returns the newest value as of before of each of keys that has one, by
// key. How many are held in memory is up to the caller.
func (r Reader) States(ctx context.Context, keys []string, before int64) (map[string][]byte, error) {
	if l := r.tail(before); l != nil {
		return r.knownStates(ctx, l, keys, before)
	}
	found := make(map[string][]byte, len(keys))
	err := inBatches(keys, 2, func(list string, args []any) error {
		return r.each(ctx, "read state", func(rows *sql.Rows) error {
			var key string
			var value []byte
			if err := rows.Scan(&key, &value); err != nil {
				return err
			}
			found[key] = blob(value)
			return nil
		}, `SELECT s.key, s.value FROM state s WHERE s.key IN (`+list+`)
		AND s.idx = (SELECT MAX(n.idx) FROM state n WHERE n.key = s.key AND n.idx < $1)`, append([]any{before}, args...)...)
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}
