package catalog

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"unicode/utf8"
)

// AppendEntry adds e to the log and moves the head. An index that is not the
// head is ErrNotNext. A record that is already there is ErrRecordExists, here or,
// as with all that only the database knows, of a later call or of Update itself.
func (t *Tx) AppendEntry(ctx context.Context, e Entry) error {
	l := t.pending.log
	if e.Index != l.head {
		return fmt.Errorf("entry %d where %d is next: %w", e.Index, l.head, ErrNotNext)
	}
	if e.RecordID == "" || e.Record.IsZero() {
		return fmt.Errorf("entry %d names no record: %w", e.Index, ErrBadText)
	}
	exists := fmt.Errorf("record %s: %w", e.RecordID, ErrRecordExists)
	if l.records[e.RecordID] {
		return exists
	}
	l.records[e.RecordID], l.last = true, e.RecordID
	l.head++
	return t.write(ctx, statement{what: "append entry", refused: exists,
		query: "INSERT INTO entry (idx, bytes, leaf_hash, record_cid, record_id) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (record_id) DO NOTHING",
		args:  []any{e.Index, blob(e.Bytes), e.LeafHash[:], e.Record.String(), e.RecordID}})
}

// moveHead makes the head what the transaction has made of it.
func (t *Tx) moveHead(ctx context.Context) error {
	if t.pending.log == nil || t.pending.log.head == t.pending.log.start {
		return nil
	}
	return t.write(ctx, statement{what: "move the head", query: "UPDATE head SET size = $1 WHERE id = 1", args: []any{t.pending.log.head}})
}

// PutHashes adds log hashes at the positions from first on, which must be
// the next free one (ErrNotNext otherwise).
func (t *Tx) PutHashes(ctx context.Context, first int64, hashes [][32]byte) error {
	l := t.pending.log
	if l.next < 0 {
		err := t.settled().one(ctx, "read log hashes", []any{&l.next}, "SELECT COALESCE(MAX(position) + 1, 0) FROM log_hash")
		if err != nil {
			l.next = -1
			return err
		}
	}
	if first != l.next {
		return fmt.Errorf("log hash %d where %d is next: %w", first, l.next, ErrNotNext)
	}
	for i, h := range hashes {
		l.hashes[l.next] = h
		l.next++
		err := t.write(ctx, statement{what: "add log hash", query: "INSERT INTO log_hash (position, hash) VALUES ($1, $2)", args: []any{first + int64(i), h[:]}})
		if err != nil {
			return err
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
	value = bytes.Clone(blob(value))
	set := fmt.Errorf("state of %s at entry %d is set already: %w", key, idx, ErrHistory)
	if !t.pending.log.put(key, idx, value) {
		return set
	}
	return t.write(ctx, statement{what: "put state", refused: set,
		query: "INSERT INTO state (key, idx, value) VALUES ($1, $2, $3) ON CONFLICT (key, idx) DO NOTHING", args: []any{key, idx, value}})
}

// PutCrateLine adds what was derived from the crate that entry c.Index
// publishes, under the rules of PutState: one line per entry, and one per
// name and version for ever (ErrHistory, of this call or a later one).
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
	l, taken := t.pending.log, fmt.Errorf("crate %s %s, or entry %d, has a line already: %w", c.NameKey, c.Version, c.Index, ErrHistory)
	if l.indexes[c.Index] {
		return taken
	}
	l.indexes[c.Index] = true
	l.added[c.NameKey] += int64(len(c.Line))
	description, keywords := storable(c.Description), storable(c.Keywords)
	return t.write(ctx, statement{what: "put crate line", refused: taken,
		query: `INSERT INTO crate_line (idx, name_key, version, line, description, keywords, search)
			VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`,
		args: []any{c.Index, c.NameKey, c.Version, blob(c.Line), description, keywords, strings.ToLower(description + "\n" + keywords)}})
}

// checkIndex refuses to add to entries that were there before the
// transaction; that idx gets an entry at all the foreign key sees to at commit.
func (t *Tx) checkIndex(idx int64) error {
	if idx < t.pending.log.start {
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
