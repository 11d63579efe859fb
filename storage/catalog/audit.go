package catalog

import (
	"context"
	"database/sql"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// AuditEntry is one thing that was decided. What its texts mean is the caller's;
// of each at most 1,024 bytes of clean UTF-8 are kept.
type AuditEntry struct {
	// ID orders the entries; the catalog gives it, and none twice.
	ID int64
	// Time is in whole seconds UTC.
	Time                                        time.Time
	Asker, What, Rule, RuleID, Outcome, Request string
	// Count is how often it happened, where several were put together.
	Count int64
}

// AppendAudit adds entries, in one durable transaction, and forgets all but the
// newest keep (of which there may be fewer).
func (db *DB) AppendAudit(ctx context.Context, entries []AuditEntry, keep int64) error {
	return db.Update(ctx, func(t *Tx) error {
		for _, e := range entries {
			e.ID = 0
			if err := t.appendAudit(ctx, e); err != nil {
				return err
			}
		}
		return t.trimAudit(ctx, keep)
	})
}

// appendAudit adds e under its ID, the next one where that is 0.
func (t *Tx) appendAudit(ctx context.Context, e AuditEntry) error {
	columns, args := "time, asker, what, rule, rule_id, outcome, request, count", []any{e.Time.Unix(),
		clean(e.Asker), clean(e.What), clean(e.Rule), clean(e.RuleID), clean(e.Outcome), clean(e.Request), e.Count}
	if e.ID != 0 {
		columns, args = columns+", id", append(args, e.ID)
	}
	_, err := t.tx.ExecContext(ctx, "INSERT INTO audit ("+columns+") VALUES ("+placeholders(1, len(args))+")", args...)
	return failed(ctx, "append to the audit trail", err)
}

func (t *Tx) trimAudit(ctx context.Context, keep int64) error {
	_, err := t.tx.ExecContext(ctx, "DELETE FROM audit WHERE id <= (SELECT MAX(id) FROM audit) - $1", max(keep, 0))
	return failed(ctx, "trim the audit trail", err)
}

// Audit returns the newest entries with an ID below before, newest first, at
// most limit. math.MaxInt64 as before begins with the newest of all.
func (r Reader) Audit(ctx context.Context, before int64, limit int) ([]AuditEntry, error) {
	var entries []AuditEntry
	err := r.each(ctx, "read the audit trail", func(rows *sql.Rows) error {
		var e AuditEntry
		var seconds int64
		if err := rows.Scan(&e.ID, &seconds, &e.Asker, &e.What, &e.Rule, &e.RuleID, &e.Outcome, &e.Request, &e.Count); err != nil {
			return err
		}
		e.Time = time.Unix(seconds, 0).UTC()
		entries = append(entries, e)
		return nil
	}, `SELECT id, time, asker, what, rule, rule_id, outcome, request, count FROM audit
		WHERE id < $1 ORDER BY id DESC LIMIT $2`, before, max(limit, 0))
	return entries, err
}

// auditPage is how many entries CopyAudit has in memory at once.
const auditPage = 1000

// CopyAudit takes over the audit trail of another catalog, IDs included, in one
// transaction; db's own must be empty. It returns how many entries there were.
func (db *DB) CopyAudit(ctx context.Context, from *DB) (copied int64, err error) {
	err = db.Update(ctx, func(t *Tx) error {
		for before := int64(math.MaxInt64); ; {
			page, err := from.Audit(ctx, before, auditPage)
			if err != nil || len(page) == 0 {
				return err
			}
			for _, e := range page {
				if err := t.appendAudit(ctx, e); err != nil {
					return err
				}
				before = e.ID
			}
			copied += int64(len(page))
		}
	})
	if err != nil {
		return 0, err
	}
	return copied, nil
}

// clean makes of s, which may come from anywhere, what every database stores:
// UTF-8 without NUL, of at most maxText bytes.
func clean(s string) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\uFFFD"), "\uFFFD")
	if len(s) <= maxText {
		return s
	}
	end := maxText
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}
