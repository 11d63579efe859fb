package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// EntryRow is a row of the log as it stands: nothing in it is believed.
type EntryRow struct {
	Index               int64
	Bytes, LeafHash     []byte
	RecordCID, RecordID string
}

// EntryRows returns the rows from ≤ index < to that exist, in order.
func (r Reader) EntryRows(ctx context.Context, from, to int64) (found []EntryRow, err error) {
	return collect(ctx, r, "read entries", func(rows *sql.Rows) (e EntryRow, err error) {
		err = rows.Scan(&e.Index, &e.Bytes, &e.LeafHash, &e.RecordCID, &e.RecordID)
		return e, err
	}, "SELECT idx, bytes, leaf_hash, record_cid, record_id FROM entry WHERE idx >= $1 AND idx < $2 ORDER BY idx", from, to)
}

// HashRow is a stored hash of the log as it stands.
type HashRow struct {
	Position int64
	Hash     []byte
}

// HashRows returns the rows from ≤ position < to that exist, in order.
func (r Reader) HashRows(ctx context.Context, from, to int64) (found []HashRow, err error) {
	return collect(ctx, r, "read log hashes", func(rows *sql.Rows) (h HashRow, err error) {
		err = rows.Scan(&h.Position, &h.Hash)
		return h, err
	}, "SELECT position, hash FROM log_hash WHERE position >= $1 AND position < $2 ORDER BY position", from, to)
}

// StateRows returns all rows, older values too, of entries below before, in byte
// order of key and then by index: at most limit of those behind after.
func (r Reader) StateRows(ctx context.Context, after StateKey, before int64, limit int) ([]StateRow, error) {
	return r.stateRows(ctx, `SELECT key, idx, value FROM state
		WHERE (key, idx) > ($1, $2) AND idx < $3 ORDER BY key, idx LIMIT $4`, after.Key, after.Index, before, max(limit, 0))
}

// CrateRow is what the catalog keeps of a crate, with the text that is searched.
type CrateRow struct {
	CrateLine
	Search string
}

// CrateRows returns the rows with after < index < before in order, at most limit.
func (r Reader) CrateRows(ctx context.Context, after, before int64, limit int) (found []CrateRow, err error) {
	return collect(ctx, r, "read crate lines", func(rows *sql.Rows) (c CrateRow, err error) {
		err = rows.Scan(&c.NameKey, &c.Version, &c.Index, &c.Line, &c.Description, &c.Keywords, &c.Search)
		return c, err
	}, "SELECT "+lineColumns+", c.search FROM crate_line c WHERE c.idx > $1 AND c.idx < $2 ORDER BY c.idx LIMIT $3", after, before, max(limit, 0))
}

// VersionCID says that the version under the state key Key has the bytes CID, since
// the entry Index. CID is text as it stands.
type VersionCID struct {
	CID, Key string
	Index    int64
}

// VersionCIDs returns the rows of entries below before, in byte order of CID and
// then of key: at most limit of those behind after.
func (r Reader) VersionCIDs(ctx context.Context, after VersionCID, before int64, limit int) (found []VersionCID, err error) {
	return collect(ctx, r, "read versions by CID", func(rows *sql.Rows) (v VersionCID, err error) {
		err = rows.Scan(&v.CID, &v.Key, &v.Index)
		return v, err
	}, `SELECT cid, key, idx FROM version_cid WHERE (cid, key) > ($1, $2) AND idx < $3
		ORDER BY cid, key LIMIT $4`, after.CID, after.Key, before, max(limit, 0))
}

// Beyond counts, by table, the rows of entries that the log has not got: there are none
// in a catalog that nobody has damaged. Only tables that have some are named.
func (r Reader) Beyond(ctx context.Context) (map[string]int64, error) {
	found := map[string]int64{}
	for _, table := range []string{"entry", "state", "crate_line", "version_cid"} {
		var n int64
		// One statement, so that the log does not grow between its parts.
		err := r.one(ctx, "look for rows beyond the log", []any{&n},
			"SELECT COUNT(*) FROM "+table+" WHERE idx >= (SELECT size FROM head WHERE id = 1)")
		if err != nil {
			return nil, err
		}
		if n > 0 {
			found[table] = n
		}
	}
	return found, nil
}

// RestoreVersionCID puts back a row of an entry that is committed already, which
// PutVersionCID refuses. It reports false, and changes nothing, where there is one.
func (t *Tx) RestoreVersionCID(ctx context.Context, v VersionCID) (bool, error) {
	return t.restore(ctx, "INSERT INTO version_cid (cid, key, idx) VALUES ($1, $2, $3) ON CONFLICT (cid, key) DO NOTHING", v.CID, v.Key, v.Index)
}

// RestoreCrateLine puts back a line of an entry that is committed already, which
// PutCrateLine refuses. It reports false, and changes nothing, where the entry, or
// the version, has one.
func (t *Tx) RestoreCrateLine(ctx context.Context, c CrateRow) (bool, error) {
	return t.restore(ctx, `INSERT INTO crate_line (idx, name_key, version, line, description, keywords, search)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`,
		c.Index, c.NameKey, c.Version, blob(c.Line), c.Description, c.Keywords, c.Search)
}

// RederiveState replaces the value of key as of entry idx, which is committed already, where
// a later release derives another one of the same log. It reports false where there is none.
func (t *Tx) RederiveState(ctx context.Context, key string, idx int64, value []byte) (bool, error) {
	return t.restore(ctx, "UPDATE state SET value = $1 WHERE key = $2 AND idx = $3", blob(value), key, idx)
}

func (t *Tx) restore(ctx context.Context, query string, args ...any) (bool, error) {
	if err := t.pending.flush(ctx); err != nil {
		return false, err
	}
	result, err := t.tx.ExecContext(ctx, query, args...)
	if err != nil {
		return false, failed(ctx, "put back a row", err)
	}
	n, err := result.RowsAffected()
	return n == 1, failed(ctx, "put back a row", err)
}

// Condemnations returns when those of ids were condemned that are.
func (r Reader) Condemnations(ctx context.Context, ids []storage.CID) (map[storage.CID]time.Time, error) {
	found := map[storage.CID]time.Time{}
	err := inBatches(textsOf(ids), 1, func(list string, args []any) error {
		return r.each(ctx, "look for condemned blobs", func(rows *sql.Rows) error {
			var text string
			var seconds int64
			if err := rows.Scan(&text, &seconds); err != nil {
				return err
			}
			id, err := storage.ParseCID(text)
			if err != nil {
				return fmt.Errorf("condemned: %w", err)
			}
			found[id] = time.Unix(seconds, 0).UTC()
			return nil
		}, "SELECT cid, condemned_at FROM condemned WHERE cid IN ("+list+")", args...)
	})
	return found, err
}

// Faults are what the database itself finds wrong with its pages, indexes and
// constraints, a few lines of it; none where it finds nothing, or cannot look.
// quick leaves out what it would have to compare every index for.
func (db *DB) Faults(ctx context.Context, quick bool) (faults []string, err error) {
	if db.dialect.faults == "" {
		return nil, nil
	}
	query := db.dialect.faults
	if quick {
		query = db.dialect.quickFaults
	}
	lines, err := collect(ctx, db.Reader, "check the database", scanText, query)
	return slices.DeleteFunc(lines, func(line string) bool { return line == "ok" }), err
}

// Ends says where the rows of a catalog end: Head is what its head row says, Entries
// and Hashes are one more than the last row's index and position.
type Ends struct {
	Head, Entries, Hashes int64
}

// Ends reads all three at one moment.
func (r Reader) Ends(ctx context.Context) (e Ends, err error) {
	err = r.one(ctx, "read where the log ends", []any{&e.Head, &e.Entries, &e.Hashes}, `SELECT size,
		(SELECT COALESCE(MAX(idx) + 1, 0) FROM entry), (SELECT COALESCE(MAX(position) + 1, 0) FROM log_hash) FROM head WHERE id = 1`)
	return e, err
}
