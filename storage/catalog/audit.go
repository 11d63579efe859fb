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
	return db.note(ctx, func(t *Tx) error {
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
	return t.write(ctx, statement{what: "append to the audit trail",
		query: "INSERT INTO audit (" + columns + ") VALUES (" + placeholders(1, len(args)) + ")", args: args})
}

func (t *Tx) trimAudit(ctx context.Context, keep int64) error {
	return t.write(ctx, statement{what: "trim the audit trail",
		query: "DELETE FROM audit WHERE id <= (SELECT MAX(id) FROM audit) - $1", args: []any{max(keep, 0)}})
}

// Audit returns the newest entries with an ID below before, newest first, at
// most limit. math.MaxInt64 as before begins with the newest of all.
func (r Reader) Audit(ctx context.Context, before int64, limit int) ([]AuditEntry, error) {
	return collect(ctx, r, "read the audit trail", scanAudit, `SELECT id, time, asker, what, rule, rule_id, outcome, request, count FROM audit
		WHERE id < $1 ORDER BY id DESC LIMIT $2`, before, max(limit, 0))
}

// AuditOf is Audit of the entries with a rule alone. It may read the whole trail.
func (r Reader) AuditOf(ctx context.Context, rule string, before int64, limit int) ([]AuditEntry, error) {
	return collect(ctx, r, "read the audit trail", scanAudit, `SELECT id, time, asker, what, rule, rule_id, outcome, request, count FROM audit
		WHERE rule = $1 AND id < $2 ORDER BY id DESC LIMIT $3`, clean(rule), before, max(limit, 0))
}

func scanAudit(rows *sql.Rows) (e AuditEntry, err error) {
	var seconds int64
	err = rows.Scan(&e.ID, &seconds, &e.Asker, &e.What, &e.Rule, &e.RuleID, &e.Outcome, &e.Request, &e.Count)
	e.Time = time.Unix(seconds, 0).UTC()
	return e, err
}

// auditPage is how many entries CopyAudit has in memory at once.
const auditPage = 1000

// CopyAudit takes over the audit trail of another catalog, IDs included, in one
// transaction; db's own must be empty. It returns how many entries there were.
func (db *DB) CopyAudit(ctx context.Context, from *DB) (copied int64, err error) {
	err = db.note(ctx, func(t *Tx) error {
		copied = 0
		for before := int64(math.MaxInt64); ; {
			page, err := from.Audit(ctx, before, auditPage)
			if err != nil {
				return err
			}
			if len(page) == 0 {
				return t.endCopy(ctx)
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

// endCopy makes the next ID come behind those that were taken over.
func (t *Tx) endCopy(ctx context.Context) error {
	if t.dialect.afterAudit == "" {
		return nil
	}
	return t.write(ctx, statement{what: "take over the audit trail", query: t.dialect.afterAudit})
}

// clean makes of s, which may come from anywhere, what every database stores:
// UTF-8 without NUL, of at most maxText bytes.
func clean(s string) string {
	s = storable(s)
	if len(s) <= maxText {
		return s
	}
	end := maxText
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

// storable makes of s what every database stores: UTF-8 without NUL.
func storable(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\uFFFD"), "\uFFFD")
}
