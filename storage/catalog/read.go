package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// Reader holds the reads that a DB and a Tx share. A parameter named before
// asks for the state as it was when the log had that many entries: only what
// entries with an index below it caused is seen.
type Reader struct {
	q querier
	// patience is for how long a read that found no database is tried again.
	patience time.Duration
	// pending is what the transaction that r is of has not sent yet; nil without one.
	pending *pending
}

// Head returns the number of entries in the log.
func (r Reader) Head(ctx context.Context) (int64, error) {
	if l := r.tail(math.MaxInt64); l != nil {
		return l.head, ctx.Err()
	}
	var size int64
	err := r.one(ctx, "read the head", []any{&size}, "SELECT size FROM head WHERE id = 1")
	return size, err
}

// Hashes returns the hashes at positions, in the order asked for. One that is
// missing is ErrNotFound.
func (r Reader) Hashes(ctx context.Context, positions []int64) ([][32]byte, error) {
	if l := r.tail(math.MaxInt64); l != nil {
		return r.knownHashes(ctx, l, positions)
	}
	found := make(map[int64][32]byte, len(positions))
	err := inBatches(positions, 1, func(list string, args []any) error {
		return r.each(ctx, "read log hashes", func(rows *sql.Rows) error {
			var position int64
			var h hash32
			if err := rows.Scan(&position, &h); err != nil {
				return err
			}
			found[position] = h
			return nil
		}, "SELECT position, hash FROM log_hash WHERE position IN ("+list+")", args...)
	})
	if err != nil {
		return nil, err
	}
	hashes := make([][32]byte, len(positions))
	for i, p := range positions {
		h, ok := found[p]
		if !ok {
			return nil, fmt.Errorf("log hash %d: %w", p, ErrNotFound)
		}
		hashes[i] = h
	}
	return hashes, nil
}

// Entry returns the entry with index idx, ErrNotFound when there is none.
func (r Reader) Entry(ctx context.Context, idx int64) (Entry, error) {
	entries, err := r.entries(ctx, "idx = $1", idx)
	if err != nil {
		return Entry{}, err
	}
	if len(entries) == 0 {
		return Entry{}, fmt.Errorf("entry %d: %w", idx, ErrNotFound)
	}
	return entries[0], nil
}

// Entries returns the entries from ≤ index < to that exist, in order. How many
// are held in memory is up to the caller.
func (r Reader) Entries(ctx context.Context, from, to int64) ([]Entry, error) {
	return r.entries(ctx, "idx >= $1 AND idx < $2", from, to)
}

// EntryByRecord returns the entry of the record with that identity.
func (r Reader) EntryByRecord(ctx context.Context, recordID string) (Entry, bool, error) {
	entries, err := r.entries(ctx, "record_id = $1", recordID)
	if err != nil || len(entries) == 0 {
		return Entry{}, false, err
	}
	return entries[0], true, nil
}

// EntryByRecordCID returns the first entry of the envelope with that CID.
func (r Reader) EntryByRecordCID(ctx context.Context, id storage.CID) (Entry, bool, error) {
	entries, err := r.entries(ctx, "record_cid = $1", id.String())
	if err != nil || len(entries) == 0 {
		return Entry{}, false, err
	}
	return entries[0], true, nil
}

func (r Reader) entries(ctx context.Context, where string, args ...any) ([]Entry, error) {
	query := "SELECT idx, bytes, leaf_hash, record_cid, record_id FROM entry WHERE " + where + " ORDER BY idx"
	return collect(ctx, r, "read entries", func(rows *sql.Rows) (e Entry, err error) {
		var leaf hash32
		var record string
		if err := rows.Scan(&e.Index, &e.Bytes, &leaf, &record, &e.RecordID); err != nil {
			return e, err
		}
		if e.Record, err = storage.ParseCID(record); err != nil {
			return e, fmt.Errorf("entry %d: %w", e.Index, err)
		}
		e.LeafHash = leaf
		return e, nil
	}, query, args...)
}

// State returns the newest value of key as of before; ok is false when it has
// none.
func (r Reader) State(ctx context.Context, key string, before int64) (value []byte, ok bool, err error) {
	if l := r.tail(before); l != nil {
		return r.knownState(ctx, l, key, before)
	}
	err = r.one(ctx, "read state", []any{&value},
		"SELECT value FROM state WHERE key = $1 AND idx < $2 ORDER BY idx DESC LIMIT 1", key, before)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return blob(value), true, nil
}

// StateRange returns the newest row as of before of each key with
// from ≤ key < to, in byte order of the keys, at most limit. PrefixEnd gives
// the to for all keys with a prefix.
func (r Reader) StateRange(ctx context.Context, from, to string, before int64, limit int) ([]StateRow, error) {
	return r.stateRows(ctx, `SELECT s.key, s.idx, s.value FROM state s
		WHERE s.key >= $1 AND s.key < $2
		AND s.idx = (SELECT MAX(n.idx) FROM state n WHERE n.key = s.key AND n.idx < $3)
		ORDER BY s.key LIMIT $4`, from, to, before, max(limit, 0))
}

// StateHistory returns all rows of key as of before, oldest first.
func (r Reader) StateHistory(ctx context.Context, key string, before int64) ([]StateRow, error) {
	return r.stateRows(ctx,
		"SELECT key, idx, value FROM state WHERE key = $1 AND idx < $2 ORDER BY idx", key, before)
}

func (r Reader) stateRows(ctx context.Context, query string, args ...any) ([]StateRow, error) {
	return collect(ctx, r, "read state", func(rows *sql.Rows) (s StateRow, err error) {
		err = rows.Scan(&s.Key, &s.Index, &s.Value)
		s.Value = blob(s.Value)
		return s, err
	}, query, args...)
}

// PrefixEnd returns what sorts after every key that begins with prefix: the to
// of a StateRange over [prefix, PrefixEnd(prefix)).
func PrefixEnd(prefix string) string { return prefix + lastRune }

// lastRune is the greatest code point; no key may hold it.
const lastRune = "\U0010FFFF"

const lineColumns = "c.name_key, c.version, c.idx, c.line, c.description, c.keywords"

// CrateLines returns the lines of the crate with canonical name nameKey as of
// before, in the order of their entries.
func (r Reader) CrateLines(ctx context.Context, nameKey string, before int64) ([]CrateLine, error) {
	return r.crateLines(ctx,
		"SELECT "+lineColumns+" FROM crate_line c WHERE c.name_key = $1 AND c.idx < $2 ORDER BY c.idx", nameKey, before)
}

// CrateBytes is the size in bytes of all lines of a crate.
func (r Reader) CrateBytes(ctx context.Context, nameKey string) (size int64, err error) {
	if l := r.tail(math.MaxInt64); l != nil {
		return r.knownBytes(ctx, l, nameKey)
	}
	return r.crateBytes(ctx, nameKey, math.MaxInt64)
}

func (r Reader) crateBytes(ctx context.Context, nameKey string, before int64) (size int64, err error) {
	err = r.one(ctx, "measure crate lines", []any{&size},
		"SELECT COALESCE(SUM(LENGTH(line)), 0) FROM crate_line WHERE name_key = $1 AND idx < $2", nameKey, before)
	return size, err
}

// SearchCrates finds, as of before, the crates whose newest line has query in
// its canonical name (compared canonically), its description or its keywords
// (regardless of case). An exact name comes first, then names, then the rest,
// each by name. It returns at most limit hits from offset on, and how many
// there are in total. A query with more than 1,024 bytes or unclean UTF-8 is
// ErrBadText; the empty one finds all.
func (r Reader) SearchCrates(ctx context.Context, query string, before int64, limit, offset int) (hits []CrateHit, total int, err error) {
	if query != "" {
		if err := checkText("query", query); err != nil {
			return nil, 0, err
		}
	}
	text := strings.ToLower(query)
	name := strings.ReplaceAll(text, "-", "_")
	const from = ` FROM crate_line c
		WHERE c.idx = (SELECT MAX(n.idx) FROM crate_line n WHERE n.name_key = c.name_key AND n.idx < $1)
		AND (c.name_key LIKE $2 ESCAPE '\' OR c.search LIKE $3 ESCAPE '\')`
	args := []any{before, contains(name), contains(text)}
	if err := r.one(ctx, "search", []any{&total}, "SELECT COUNT(*)"+from, args...); err != nil {
		return nil, 0, err
	}
	args = append(args, name, max(limit, 0), max(offset, 0))
	lines, err := r.crateLines(ctx, "SELECT "+lineColumns+from+` ORDER BY
		CASE WHEN c.name_key = $4 THEN 0 WHEN c.name_key LIKE $2 ESCAPE '\' THEN 1 ELSE 2 END, c.name_key
		LIMIT $5 OFFSET $6`, args...)
	for _, line := range lines {
		hits = append(hits, CrateHit{CrateLine: line, Exact: line.NameKey == name})
	}
	return hits, total, err
}

// contains is the LIKE pattern, with \ as escape, for texts that hold s.
func contains(s string) string { return "%" + literally(s) + "%" }

// literally takes their meaning from what is a wildcard in a LIKE pattern.
func literally(s string) string {
	return strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(s)
}

func (r Reader) crateLines(ctx context.Context, query string, args ...any) ([]CrateLine, error) {
	return collect(ctx, r, "read crate lines", func(rows *sql.Rows) (c CrateLine, err error) {
		err = rows.Scan(&c.NameKey, &c.Version, &c.Index, &c.Line, &c.Description, &c.Keywords)
		return c, err
	}, query, args...)
}

// hash32 scans a column of exactly 32 bytes.
type hash32 [32]byte

func (h *hash32) Scan(value any) error {
	b, ok := value.([]byte)
	if !ok || len(b) != len(h) {
		return errors.New("a stored hash is not 32 bytes")
	}
	copy(h[:], b)
	return nil
}
