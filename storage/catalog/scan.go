package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// Scan is what the recognisers of content found in the bytes of a CID. It is not
// derived from the log; who does not find one, or one of other Recognisers than
// its own, makes it anew.
type Scan struct {
	CID storage.CID
	// Recognisers is the version of the recognisers that looked.
	Recognisers int
	// Findings are the names of those that hit, each without line breaks.
	Findings []string
	// Failure says why the bytes cannot be looked at, whoever tries; "" for: they were.
	Failure string
	// Detail says, for people, where and by what the findings were recognised.
	Detail string
	// Time is when they looked, in whole seconds UTC.
	Time time.Time
}

// ScanOf returns what is known of the bytes id, by whatever recognisers.
func (r Reader) ScanOf(ctx context.Context, id storage.CID) (s Scan, ok bool, err error) {
	var findings string
	var seconds int64
	err = r.one(ctx, "read a scan", []any{&s.Recognisers, &findings, &s.Failure, &s.Detail, &seconds},
		"SELECT recognisers, findings, failure, detail, scanned_at FROM scan WHERE cid = $1", id.String())
	if errors.Is(err, sql.ErrNoRows) {
		return Scan{}, false, nil
	}
	if err != nil {
		return Scan{}, false, err
	}
	s.CID, s.Time = id, time.Unix(seconds, 0).UTC()
	if findings != "" {
		s.Findings = strings.Split(findings, "\n")
	}
	return s, true, nil
}

// ScansOf returns what recognisers have found in the bytes ids, by CID; what they have
// not looked at is not in it.
func (r Reader) ScansOf(ctx context.Context, recognisers int, ids []storage.CID) (map[storage.CID]Scan, error) {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = id.String()
	}
	found := map[storage.CID]Scan{}
	err := inBatches(names, 2, func(list string, args []any) error {
		return r.each(ctx, "read scans", func(rows *sql.Rows) error {
			var cid, findings string
			var seconds int64
			s := Scan{Recognisers: recognisers}
			if err := rows.Scan(&cid, &findings, &s.Failure, &s.Detail, &seconds); err != nil {
				return err
			}
			id, err := storage.ParseCID(cid)
			if err != nil {
				return err
			}
			if s.CID, s.Time = id, time.Unix(seconds, 0).UTC(); findings != "" {
				s.Findings = strings.Split(findings, "\n")
			}
			found[id] = s
			return nil
		}, "SELECT cid, findings, failure, detail, scanned_at FROM scan WHERE recognisers = $1 AND cid IN ("+list+")", append([]any{recognisers}, args...)...)
	})
	return found, err
}

// CountFindings is of how many bytes there are findings, or a failure: it grows with every
// look that found something.
func (r Reader) CountFindings(ctx context.Context) (n int64, err error) {
	err = r.one(ctx, "count findings", []any{&n}, "SELECT COUNT(*) FROM scan WHERE findings <> '' OR failure <> ''")
	return n, err
}

// PutScan keeps s, in place of what was known of the bytes before.
func (db *DB) PutScan(ctx context.Context, s Scan) error {
	put, err := putScan(s)
	if err != nil {
		return err
	}
	_, err = db.write.ExecContext(ctx, put.query, put.args...)
	return failed(ctx, put.what, err)
}

// PutScans is PutScan of several, all or none.
func (db *DB) PutScans(ctx context.Context, scans []Scan) error {
	return db.note(ctx, func(t *Tx) error { return t.PutScans(ctx, scans) })
}

// PutScans is DB's, within the transaction.
func (t *Tx) PutScans(ctx context.Context, scans []Scan) error {
	inOrder := sortedBy(scans, func(a, b Scan) int { return strings.Compare(a.CID.String(), b.CID.String()) })
	for _, s := range inOrder {
		if err := t.PutScan(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// PutScan is DB's, within the transaction.
func (t *Tx) PutScan(ctx context.Context, s Scan) error {
	put, err := putScan(s)
	if err != nil {
		return err
	}
	return t.write(ctx, put)
}

func putScan(s Scan) (statement, error) {
	if s.CID.IsZero() {
		return statement{}, fmt.Errorf("a scan names no bytes: %w", ErrBadText)
	}
	for _, f := range s.Findings {
		if err := checkText("finding", f); err != nil {
			return statement{}, err
		}
		if strings.Contains(f, "\n") {
			return statement{}, fmt.Errorf("finding %q has a line break: %w", f, ErrBadText)
		}
	}
	return statement{what: "keep a scan", query: `INSERT INTO scan (cid, recognisers, findings, failure, detail, scanned_at)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (cid) DO UPDATE SET recognisers = excluded.recognisers,
		findings = excluded.findings, failure = excluded.failure, detail = excluded.detail, scanned_at = excluded.scanned_at`,
		args: []any{s.CID.String(), s.Recognisers, strings.Join(s.Findings, "\n"), clean(s.Failure), clean(s.Detail), s.Time.Unix()}}, nil
}

// Unscanned returns CIDs, in their order, of versions whose state key begins with
// prefix and of which there is no scan by recognisers: at most limit, those
// behind after, which is zero for the beginning.
func (r Reader) Unscanned(ctx context.Context, prefix string, recognisers int, after storage.CID, limit int) (ids []storage.CID, err error) {
	from := ""
	if !after.IsZero() {
		from = after.String()
	}
	return collect(ctx, r, "look for what was not scanned", scanCID, `SELECT DISTINCT v.cid FROM version_cid v LEFT JOIN scan s ON s.cid = v.cid AND s.recognisers = $1
		WHERE v.cid > $2 AND v.key >= $3 AND v.key < $4 AND s.cid IS NULL ORDER BY v.cid LIMIT $5`,
		recognisers, from, prefix, PrefixEnd(prefix), max(limit, 0))
}

// scanCID and scanText are for queries of one column.
func scanCID(rows *sql.Rows) (storage.CID, error) {
	text, err := scanText(rows)
	if err != nil {
		return storage.CID{}, err
	}
	return storage.ParseCID(text)
}

func scanText(rows *sql.Rows) (text string, err error) {
	err = rows.Scan(&text)
	return text, err
}

// MaxVersionsOfCID bounds how many versions with the same bytes VersionsByCID tells of.
const MaxVersionsOfCID = 1000

// VersionsByCID returns the state keys of the versions whose bytes have the CID
// id, as of before: the MaxVersionsOfCID that were published first, in that order.
func (r Reader) VersionsByCID(ctx context.Context, id storage.CID, before int64) (keys []string, err error) {
	return collect(ctx, r, "read versions by CID", scanText,
		"SELECT key FROM version_cid WHERE cid = $1 AND idx < $2 ORDER BY idx, key LIMIT $3", id.String(), before, MaxVersionsOfCID)
}

// PutVersionCID notes that the version under the state key has the bytes id,
// since entry idx, under the rules of PutState. What is noted already stays as it is.
func (t *Tx) PutVersionCID(ctx context.Context, id storage.CID, key string, idx int64) error {
	if err := checkText("state key", key); err != nil {
		return err
	}
	if id.IsZero() {
		return fmt.Errorf("%s has no bytes: %w", key, ErrBadText)
	}
	if err := t.checkIndex(idx); err != nil {
		return err
	}
	return t.write(ctx, statement{what: "note a version's CID",
		query: "INSERT INTO version_cid (cid, key, idx) VALUES ($1, $2, $3) ON CONFLICT (cid, key) DO NOTHING", args: []any{id.String(), key, idx}})
}
