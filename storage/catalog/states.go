package catalog

import (
	"context"
	"database/sql"
	"slices"

	"phoenix-lab.org/aln-registry/storage"
)

// stateBatch is how many keys are asked for in one statement.
const stateBatch = 256

// inBatches calls f with the placeholders and arguments for some of ids at a time.
func inBatches(ids []storage.CID, f func(list string, args []any) error) error {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = id.String()
	}
	slices.Sort(texts)
	for batch := range slices.Chunk(slices.Compact(texts), stateBatch) {
		args := make([]any, len(batch))
		for i, text := range batch {
			args[i] = text
		}
		if err := f(placeholders(1, len(args)), args); err != nil {
			return err
		}
	}
	return nil
}

// States returns the newest value as of before of each of keys that has one, by
// key. How many are held in memory is up to the caller.
func (r Reader) States(ctx context.Context, keys []string, before int64) (map[string][]byte, error) {
	if l := r.tail(before); l != nil {
		return r.knownStates(ctx, l, keys, before)
	}
	found := make(map[string][]byte, len(keys))
	for rest := keys; len(rest) > 0; rest = rest[min(stateBatch, len(rest)):] {
		if err := r.stateBatch(ctx, rest[:min(stateBatch, len(rest))], before, found); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func (r Reader) stateBatch(ctx context.Context, keys []string, before int64, found map[string][]byte) error {
	args := []any{before}
	for _, key := range keys {
		args = append(args, key)
	}
	return r.each(ctx, "read state", func(rows *sql.Rows) error {
		var key string
		var value []byte
		if err := rows.Scan(&key, &value); err != nil {
			return err
		}
		found[key] = blob(value)
		return nil
	}, `SELECT s.key, s.value FROM state s WHERE s.key IN (`+placeholders(2, len(keys))+`)
		AND s.idx = (SELECT MAX(n.idx) FROM state n WHERE n.key = s.key AND n.idx < $1)`, args...)
}
