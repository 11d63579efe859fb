package catalog

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// UpstreamLack says that a list names a crate which it does not pin, since that is not to be had.
type UpstreamLack struct {
	Lock string
	// Upstream, Name and Version are as the list says; Version is "" where all versions lack.
	Upstream, Name, Version string
	// CID is of the bytes that the list names, zero where it names none.
	CID storage.CID
	// Why is "" where it was not asked for yet.
	Why string
	// DID is whose list it was, Since when, in whole seconds UTC.
	DID   string
	Since time.Time
}

// LackUpstream notes lacks, each in place of what was noted of it; all or none. What its list pins
// does not lack, unless it is held, and that of other upstreams alone.
func (db *DB) LackUpstream(ctx context.Context, lacks []UpstreamLack) error {
	inOrder := sortedBy(lacks, compareLacks)
	err := db.note(ctx, func(t *Tx) error {
		for _, l := range inOrder {
			if err := t.lack(ctx, l); err != nil {
				return err
			}
		}
		return nil
	})
	// Who pins meanwhile takes back what was noted before, and does not see this: so it is looked once more.
	for err == nil && len(inOrder) > 0 {
		lock, ids := inOrder[0].Lock, []storage.CID{}
		for len(inOrder) > 0 && inOrder[0].Lock == lock {
			if !inOrder[0].CID.IsZero() {
				ids = append(ids, inOrder[0].CID)
			}
			inOrder = inOrder[1:]
		}
		err = db.forgetPinned(ctx, lock, textsOf(ids))
	}
	return err
}

// forgetPinned takes back that lock lacks what of texts, CIDs, it pins.
func (db *DB) forgetPinned(ctx context.Context, lock string, texts []string) error {
	return inBatches(texts, 2, func(list string, args []any) error {
		where := "cid IN (" + list + ") AND " + pinnedOf("upstream_lack.lock", "upstream_lack.cid", "upstream_lack.upstream")
		_, err := db.forgetLacks(ctx, where, append([]any{lock}, args...)...)
		return err
	})
}

// compareLacks orders them by their key.
func compareLacks(a, b UpstreamLack) int {
	return cmp.Or(strings.Compare(a.Lock, b.Lock), strings.Compare(a.Upstream, b.Upstream), strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version))
}

func (t *Tx) lack(ctx context.Context, l UpstreamLack) error {
	if err := errors.Join(checkText("lock", l.Lock), checkText("upstream", l.Upstream), checkText("crate name", l.Name), checkText("DID", l.DID)); err != nil {
		return err
	}
	if l.Version != "" {
		if err := checkText("crate version", l.Version); err != nil {
			return err
		}
	}
	return t.write(ctx, statement{what: "note what a list lacks", query: `INSERT INTO upstream_lack (lock, upstream, name, version, cid, why, since, did)
		SELECT CAST($1 AS TEXT), CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS TEXT), CAST($5 AS TEXT), CAST($6 AS TEXT), CAST($7 AS BIGINT), CAST($8 AS TEXT)
		WHERE NOT ` + pinnedOf("CAST($1 AS TEXT)", "CAST($5 AS TEXT)", "CAST($2 AS TEXT)") + `
		ON CONFLICT (lock, upstream, name, version) DO UPDATE SET cid = excluded.cid, why = excluded.why, since = excluded.since, did = excluded.did`,
		args: []any{l.Lock, l.Upstream, l.Name, l.Version, textOf(l.CID), clean(l.Why), l.Since.Unix(), l.DID}})
}

// HaveUpstream takes back that lacks do, of which all but Lock, Upstream, Name and Version is ignored.
func (db *DB) HaveUpstream(ctx context.Context, lacks []UpstreamLack) error {
	inOrder := sortedBy(lacks, compareLacks)
	return db.note(ctx, func(t *Tx) error {
		for _, l := range inOrder {
			if err := t.have(ctx, "", l.Lock, l.Upstream, l.Name, l.Version); err != nil {
				return err
			}
		}
		return nil
	})
}

// have takes back what a list lacks by its key, the first four of args, as far as and holds.
func (t *Tx) have(ctx context.Context, and string, args ...any) error {
	return t.write(ctx, statement{what: "note what a list lacks no more",
		query: "DELETE FROM upstream_lack WHERE lock = $1 AND upstream = $2 AND name = $3 AND version = $4" + and, args: args})
}

// LackUpstreamAnew is LackUpstream of what the list lock lacks of upstream, in place of all that it
// lacked of that before. They are noted in pieces, and what they are in place of goes last: cut in
// between, or after an error, the list lacks more than it does, and not less. What others note
// meanwhile stays, so that of two that do this at once one's list is whole in the end.
func (db *DB) LackUpstreamAnew(ctx context.Context, lock, upstream string, lacks []UpstreamLack) error {
	old, err := db.lackedBesides(ctx, UpstreamLack{Lock: lock, Upstream: upstream}, lacks)
	if err != nil {
		return err
	}
	for some := range slices.Chunk(sortedBy(lacks, compareLacks), notedPiece) {
		if err := db.LackUpstream(ctx, some); err != nil {
			return err
		}
	}
	// What it has had meanwhile, or before.
	_, err = db.forgetLacks(ctx, "upstream = $2 AND "+pinnedOf("upstream_lack.lock", "upstream_lack.cid", "upstream_lack.upstream"), lock, upstream)
	if err != nil {
		return err
	}
	for some := range slices.Chunk(old, notedPiece) {
		err := db.note(ctx, func(t *Tx) error {
			for _, l := range some {
				if err := t.have(ctx, " AND since = $5", l.Lock, l.Upstream, l.Name, l.Version, l.Since.Unix()); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// lackedBesides is what of's list lacks of its upstream, but for what is named by lacks, by name and
// version: their keys, and since when.
func (db *DB) lackedBesides(ctx context.Context, of UpstreamLack, lacks []UpstreamLack) (others []UpstreamLack, err error) {
	named := map[[2]string]bool{}
	for _, l := range lacks {
		named[[2]string{l.Name, l.Version}] = true
	}
	for {
		page, err := db.lacksOf(ctx, of, notedPiece)
		if err != nil || len(page) == 0 {
			return others, err
		}
		of = page[len(page)-1]
		others = append(others, slices.DeleteFunc(page, func(l UpstreamLack) bool { return named[[2]string{l.Name, l.Version}] })...)
		if len(others) >= mostReplaced { // the rest lacks until this is done once more
			return others, nil
		}
	}
}

// mostReplaced bounds what is forgotten at once of the list before.
const mostReplaced = 100_000

// notedPiece is how much of a list is noted in one transaction, for which others may wait.
const notedPiece = 1000

// forgetLacks takes back what args' first, a list, lacks, as far as where holds.
func (db *DB) forgetLacks(ctx context.Context, where string, args ...any) (int64, error) {
	return db.deleteOfLock(ctx, "forget what a list lacks", "upstream_lack", "lock, upstream, name, version", where, args...)
}

// UpstreamLacks returns what after's list lacks behind it, by upstream, name and version (all ""
// from the beginning), at most limit.
func (r Reader) UpstreamLacks(ctx context.Context, after UpstreamLack, limit int) ([]UpstreamLack, error) {
	return collect(ctx, r, "read what a list lacks", scanLack, "SELECT "+upstreamLackColumns+` FROM upstream_lack
		WHERE lock = $1 AND (upstream, name, version) > ($2, $3, $4) ORDER BY upstream, name, version LIMIT $5`,
		after.Lock, after.Upstream, after.Name, after.Version, max(limit, 0))
}

// lacksOf is UpstreamLacks of after's upstream alone: their keys, and since when.
func (r Reader) lacksOf(ctx context.Context, after UpstreamLack, limit int) ([]UpstreamLack, error) {
	return collect(ctx, r, "read what a list lacks", func(rows *sql.Rows) (UpstreamLack, error) {
		l, since := UpstreamLack{Lock: after.Lock, Upstream: after.Upstream}, int64(0)
		err := rows.Scan(&l.Name, &l.Version, &since)
		l.Since = time.Unix(since, 0).UTC()
		return l, err
	}, `SELECT name, version, since FROM upstream_lack
		WHERE lock = $1 AND upstream = $2 AND (name, version) > ($3, $4) ORDER BY name, version LIMIT $5`,
		after.Lock, after.Upstream, after.Name, after.Version, limit)
}

// pinnedOf is a condition: that lock pins cid, and that this is held of upstream, or not held at all;
// all are expressions.
func pinnedOf(lock, cid, upstream string) string {
	return "EXISTS (SELECT 1 FROM upstream_pin p WHERE p.cid = " + cid + " AND p.lock = " + lock +
		" AND (NOT EXISTS (SELECT 1 FROM upstream_blob b WHERE b.cid = p.cid) OR " + servedBy("p.cid", upstream) + "))"
}

const upstreamLackColumns = "lock, upstream, name, version, cid, why, since, did"

func scanLack(rows *sql.Rows) (l UpstreamLack, err error) {
	var text string
	var since int64
	if err := rows.Scan(&l.Lock, &l.Upstream, &l.Name, &l.Version, &text, &l.Why, &since, &l.DID); err != nil {
		return l, err
	}
	l.Since = time.Unix(since, 0).UTC()
	if text != "" {
		l.CID, err = storage.ParseCID(text)
	}
	return l, err
}

// lackingLocks are the lists behind after that pin nothing, and only lack, by name, at most limit.
func (r Reader) lackingLocks(ctx context.Context, after string, limit int) ([]UpstreamLock, error) {
	return collect(ctx, r, "read lists that only lack", func(rows *sql.Rows) (l UpstreamLock, err error) {
		var since int64
		err = rows.Scan(&l.Lock, &l.DID, &since, &l.Lacking)
		l.Since = time.Unix(since, 0).UTC()
		return l, err
	}, `SELECT k.lock, MAX(k.did), MAX(k.since), COUNT(*) FROM upstream_lack k
		WHERE k.lock > $1 AND NOT EXISTS (SELECT 1 FROM upstream_pin p WHERE p.lock = k.lock)
		GROUP BY k.lock ORDER BY k.lock LIMIT $2`, after, limit)
}

// withLacking are locks and what lackingLocks has between them, at most limit.
func (r Reader) withLacking(ctx context.Context, locks []UpstreamLock, after string, limit int) ([]UpstreamLock, error) {
	only, err := r.lackingLocks(ctx, after, limit)
	if err != nil || len(only) == 0 {
		return locks, err
	}
	locks = append(locks, only...)
	slices.SortFunc(locks, func(a, b UpstreamLock) int { return cmp.Compare(a.Lock, b.Lock) })
	return locks[:min(len(locks), limit)], nil
}
