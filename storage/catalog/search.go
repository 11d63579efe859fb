package catalog

import "context"

// StateSearch returns the newest row as of before of each key that begins with
// prefix, sorts after after, and holds part behind the prefix, in byte order of
// the keys, at most limit. Letters of part are in lower case, as in the keys it
// looks for. A part with more than 1,024 bytes or unclean UTF-8 is ErrBadText;
// the empty one finds all.
func (r Reader) StateSearch(ctx context.Context, prefix, after, part string, before int64, limit int) ([]StateRow, error) {
	if part != "" {
		if err := checkText("query", part); err != nil {
			return nil, err
		}
	}
	return r.stateRows(ctx, `SELECT s.key, s.idx, s.value FROM state s
		WHERE s.key >= $1 AND s.key < $2 AND s.key > $3
		AND s.key LIKE $4 ESCAPE '\'
		AND s.idx = (SELECT MAX(n.idx) FROM state n WHERE n.key = s.key AND n.idx < $5)
		ORDER BY s.key LIMIT $6`,
		prefix, PrefixEnd(prefix), after, literally(prefix)+contains(part), before, max(limit, 0))
}
