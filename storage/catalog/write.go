package catalog

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"
)

// AppendEntry adds e to the log and moves the head. An index that is not the
// head is ErrNotNext, a record that is already there ErrRecordExists.
func (t *Tx) AppendEntry(ctx context.Context, e Entry) error {
	if e.Index != t.head {
		return fmt.Errorf("entry %d where %d is next: %w", e.Index, t.head, ErrNotNext)
	}
	if e.RecordID == "" || e.Record.IsZero() {
		return fmt.Errorf("entry %d names no record: %w", e.Index, ErrBadText)
	}
	if _, exists, err := t.EntryByRecord(ctx, e.RecordID); err != nil {
		return err
	} else if exists {
		return fmt.Errorf("record %s: %w", e.RecordID, ErrRecordExists)
	}
	_, err := t.tx.ExecContext(ctx,
		"INSERT INTO entry (idx, bytes, leaf_hash, record_cid, record_id) VALUES ($1, $2, $3, $4, $5)",
		e.Index, blob(e.Bytes), e.LeafHash[:], e.Record.String(), e.RecordID)
	if err != nil {
		return failed(ctx, "append entry", err)
	}
	if _, err := t.tx.ExecContext(ctx, "UPDATE head SET size = $1 WHERE id = 1", e.Index+1); err != nil {
		return failed(ctx, "move the head", err)
	}
	t.head++
	t.last = e.RecordID
	return nil
}

// PutHashes adds log hashes at the positions from first on, which must be
// the next free one (ErrNotNext otherwise).
func (t *Tx) PutHashes(ctx context.Context, first int64, hashes [][32]byte) error {
	var next int64
	if err := t.tx.QueryRowContext(ctx, "SELECT COALESCE(MAX(position) + 1, 0) FROM log_hash").Scan(&next); err != nil {
		return failed(ctx, "read log hashes", err)
	}
	if first != next {
		return fmt.Errorf("log hash %d where %d is next: %w", first, next, ErrNotNext)
	}
	for i, h := range hashes {
		_, err := t.tx.ExecContext(ctx, "INSERT INTO log_hash (position, hash) VALUES ($1, $2)", first+int64(i), h[:])
		if err != nil {
			return failed(ctx, "add log hash", err)
		}
	}
	return nil
}

// PutState sets key to value as of entry idx, which this transaction appends,
// before or after. An older entry, or the same key twice at one entry, is ErrHistory.
func (t *Tx) PutState(ctx context.Context, key string, idx int64, value []byte) error {
	if err := checkText("state key", key); err != nil {
		return err
	}
	if err := t.checkIndex(idx); err != nil {
		return err
	}
	result, err := t.tx.ExecContext(ctx,
		"INSERT INTO state (key, idx, value) VALUES ($1, $2, $3) ON CONFLICT (key, idx) DO NOTHING", key, idx, blob(value))
	if err != nil {
		return failed(ctx, "put state", err)
	}
	if n, err := result.RowsAffected(); err != nil {
		return failed(ctx, "put state", err)
	} else if n == 0 {
		return fmt.Errorf("state of %s at entry %d is set already: %w", key, idx, ErrHistory)
	}
	return nil
}

// PutCrateLine adds what was derived from the crate that entry c.Index
// publishes, under the rules of PutState: one line per entry, and one per
// name and version for ever (ErrHistory).
func (t *Tx) PutCrateLine(ctx context.Context, c CrateLine) error {
	if err := checkText("crate name", c.NameKey); err != nil {
		return err
	}
	if err := checkText("crate version", c.Version); err != nil {
		return err
	}
	if err := t.checkIndex(c.Index); err != nil {
		return err
	}
	search := strings.ToLower(c.Description + "\n" + c.Keywords)
	result, err := t.tx.ExecContext(ctx, `INSERT INTO crate_line (idx, name_key, version, line, description, keywords, search)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`,
		c.Index, c.NameKey, c.Version, blob(c.Line), c.Description, c.Keywords, search)
	if err != nil {
		return failed(ctx, "put crate line", err)
	}
	if n, err := result.RowsAffected(); err != nil {
		return failed(ctx, "put crate line", err)
	} else if n == 0 {
		return fmt.Errorf("crate %s %s, or entry %d, has a line already: %w", c.NameKey, c.Version, c.Index, ErrHistory)
	}
	return nil
}

// checkIndex refuses to add to entries that were there before the
// transaction; that idx gets an entry at all the foreign key sees to at commit.
func (t *Tx) checkIndex(idx int64) error {
	if idx < t.start {
		return fmt.Errorf("entry %d is committed: %w", idx, ErrHistory)
	}
	return nil
}

// maxText bounds keys, names and queries, in bytes.
const maxText = 1024

// checkText refuses what some database would: bad UTF-8, NUL, and the code
// point that PrefixEnd relies on.
func checkText(what, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%s is empty: %w", what, ErrBadText)
	case len(s) > maxText:
		return fmt.Errorf("%s has %d bytes, more than %d: %w", what, len(s), maxText, ErrBadText)
	case !utf8.ValidString(s) || strings.ContainsRune(s, 0) || strings.Contains(s, lastRune):
		return fmt.Errorf("%s is not clean UTF-8: %w", what, ErrBadText)
	}
	return nil
}
