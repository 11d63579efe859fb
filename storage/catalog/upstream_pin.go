package catalog

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// UpstreamPin says that a crate stays, whether it is held yet or not.
type UpstreamPin struct {
	CID storage.CID
	// Lock is the name of the list that it is in, DID whose that is.
	Lock, DID string
	// Since is when it was last pinned by that list, in whole seconds UTC.
	Since time.Time
}

// UpstreamLock is a list of pinned crates.
type UpstreamLock struct {
	Lock string
	// DID is who added to it last, Since when, in whole seconds UTC.
	DID   string
	Since time.Time
	// Pins is how many crates it has, Held and Bytes how many of them are held.
	Pins, Held, Bytes int64
	// Lacking is how many others it names, which it does not pin since they are not to be had.
	Lacking int64
}

// PinUpstream pins ids by the list lock of did, which may have them already: from then on
// since is the time of all of them, and the list lacks them no more, unless they are
// held, and that of other upstreams alone. When it returns nil
// whoever finds one of them held may count on it to stay.
func (db *DB) PinUpstream(ctx context.Context, lock, did string, ids []storage.CID, since time.Time) error {
	if err := errors.Join(checkText("lock", lock), checkText("DID", did)); err != nil {
		return err
	}
	texts := textsOf(ids)
	// The head is locked, as by whoever removes: either sees what the other did.
	err := db.Update(ctx, func(t *Tx) error {
		for _, text := range texts {
			if err := t.pin(ctx, text, lock, did, since); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	// For what others note meanwhile nobody waits who has the head. Where this is not done the list
	// lacks more than it does, and not less.
	return db.forgetPinned(ctx, lock, texts)
}

func (t *Tx) pin(ctx context.Context, cid, lock, did string, since time.Time) error {
	return t.write(ctx, statement{what: "pin crates", query: `INSERT INTO upstream_pin (cid, lock, since, did) VALUES ($1, $2, $3, $4)
		ON CONFLICT (cid, lock) DO UPDATE SET since = excluded.since, did = excluded.did`, args: []any{cid, lock, since.Unix(), did}})
}

// UnpinUpstream takes back what the list lock pinned, and what it was noted to lack, last before
// before, in whole seconds, or at any time where that is zero; it returns how many there
// were, what lacked among them only where all goes. What the list has had pinned anew since then
// stays, so that a list is replaced by pinning the new one first. After an error some may be gone.
func (db *DB) UnpinUpstream(ctx context.Context, lock string, before time.Time) (removed int64, err error) {
	all := before.IsZero()
	until := int64(math.MaxInt64)
	if !all {
		until = before.Unix()
	}
	pins, err := db.deleteOfLock(ctx, "unpin crates", "upstream_pin", "cid, lock", "since < $2", lock, until)
	if err != nil {
		return pins, err
	}
	lacks, err := db.forgetLacks(ctx, "since < $2", lock, until)
	if !all {
		lacks = 0
	}
	return pins + lacks, err
}

// changed runs a statement, and returns how many rows it was about.
func (db *DB) changed(ctx context.Context, what, query string, args ...any) (int64, error) {
	result, err := db.write.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, failed(ctx, what, err)
	}
	n, err := result.RowsAffected()
	return n, failed(ctx, what, err)
}

// UpstreamPins returns the pins of the list lock behind the CID after (zero: from the
// beginning), in byte order of the CIDs' text, at most limit.
func (r Reader) UpstreamPins(ctx context.Context, lock string, after storage.CID, limit int) ([]UpstreamPin, error) {
	return collect(ctx, r, "read pins", scanPin,
		"SELECT cid, lock, since, did FROM upstream_pin WHERE lock = $1 AND cid > $2 ORDER BY cid LIMIT $3", lock, textOf(after), max(limit, 0))
}

func scanPin(rows *sql.Rows) (p UpstreamPin, err error) {
	var text string
	var since int64
	if err := rows.Scan(&text, &p.Lock, &since, &p.DID); err != nil {
		return p, err
	}
	p.Since = time.Unix(since, 0).UTC()
	p.CID, err = storage.ParseCID(text)
	return p, err
}

// UpstreamLocks returns the lists behind after, by name, at most limit.
func (r Reader) UpstreamLocks(ctx context.Context, after string, limit int) ([]UpstreamLock, error) {
	locks, err := collect(ctx, r, "read lists of pins", func(rows *sql.Rows) (l UpstreamLock, err error) {
		var since int64
		err = rows.Scan(&l.Lock, &l.DID, &since, &l.Pins, &l.Held, &l.Bytes, &l.Lacking)
		l.Since = time.Unix(since, 0).UTC()
		return l, err
	}, `SELECT p.lock, (SELECT l.did FROM upstream_pin l WHERE l.lock = p.lock ORDER BY l.since DESC, l.did DESC LIMIT 1), MAX(p.since), COUNT(*), COUNT(b.cid), CAST(COALESCE(SUM(b.size), 0) AS BIGINT),
		(SELECT COUNT(*) FROM upstream_lack k WHERE k.lock = p.lock)
		FROM upstream_pin p LEFT JOIN upstream_blob b ON b.cid = p.cid
		WHERE p.lock > $1 GROUP BY p.lock ORDER BY p.lock LIMIT $2`, after, max(limit, 0))
	if err != nil {
		return nil, err
	}
	return r.withLacking(ctx, locks, after, max(limit, 0))
}

// UpstreamPinned returns those of ids that some list pins, in byte order of their text.
func (r Reader) UpstreamPinned(ctx context.Context, ids []storage.CID) (pinned []storage.CID, err error) {
	err = inBatches(textsOf(ids), 1, func(list string, args []any) error {
		some, err := collect(ctx, r, "look for pinned crates", scanCID, "SELECT DISTINCT cid FROM upstream_pin WHERE cid IN ("+list+") ORDER BY cid", args...)
		pinned = append(pinned, some...)
		return err
	})
	return pinned, err
}
