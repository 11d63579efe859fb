package catalog

import (
	"context"
	"database/sql"
	"time"
)

// Shared says whether several processes, on several hosts, may write this catalog.
func (db *DB) Shared() bool { return db.dialect.shared }

// replicaKept is how long a replica that is heard of no more is remembered.
const replicaKept = time.Hour

// Confirm notes that replica has seen the first seen entries of the log, and
// returns what is published. Where nobody has published more than seen, replica
// has a lease from then on, until lease has passed by the database's clock;
// where somebody has, an earlier lease runs out. So whoever publishes and then
// finds nobody in Unconfirmed knows: no replica whose last Confirm returned no
// more than it had seen does without that, until its lease is over. lease is
// counted in milliseconds.
func (db *DB) Confirm(ctx context.Context, replica string, seen int64, lease time.Duration) (Published, error) {
	if err := checkText("replica", replica); err != nil {
		return Published{}, err
	}
	if db.met.CompareAndSwap(false, true) {
		if err := db.Leave(ctx, replica); err != nil { // and so do those who could not say so
			db.met.Store(false)
			return Published{}, err
		}
	}
	now := db.dialect.nowMillis
	_, err := db.control.ExecContext(ctx, `INSERT INTO replica (name, seen, expires_ms)
		SELECT $1, $2, CASE WHEN p.size <= $2 THEN `+now+` + $3 ELSE 0 END FROM published p WHERE p.id = 1
		ON CONFLICT (name) DO UPDATE SET seen = excluded.seen,
		expires_ms = CASE WHEN excluded.expires_ms > replica.expires_ms THEN excluded.expires_ms ELSE replica.expires_ms END`,
		replica, seen, lease.Milliseconds())
	if err != nil {
		return Published{}, failed(ctx, "confirm what was seen", err)
	}
	// A statement of its own, so that it sees what was committed before the lease
	// became visible: a publisher who did not see the lease is seen here.
	return readPublished(ctx, Reader{q: db.control}, "")
}

// Unconfirmed returns the replicas that have a lease, by the database's clock
// now, and have not seen the first size entries.
func (db *DB) Unconfirmed(ctx context.Context, size int64) (names []string, err error) {
	return collect(ctx, Reader{q: db.control, patience: db.patience}, "look for replicas behind", scanText,
		"SELECT name FROM replica WHERE seen < $1 AND expires_ms > "+db.dialect.nowMillis+" ORDER BY name", size)
}

// Leave ends the lease of replica, which answers nobody any more. Of those that
// have not been heard of for an hour nothing is kept.
func (db *DB) Leave(ctx context.Context, replica string) error {
	_, err := db.control.ExecContext(ctx, "DELETE FROM replica WHERE name = $1 OR expires_ms < "+db.dialect.nowMillis+" - $2",
		replica, replicaKept.Milliseconds())
	return failed(ctx, "leave", err)
}

// StateKey says that the entry Index has changed Key.
type StateKey struct {
	Key   string
	Index int64
}

// StateKeys returns what the entries from ≤ index < to have changed, by index
// and key, at most limit.
func (r Reader) StateKeys(ctx context.Context, from, to int64, limit int) (keys []StateKey, err error) {
	return collect(ctx, r, "read what has changed", func(rows *sql.Rows) (k StateKey, err error) {
		err = rows.Scan(&k.Key, &k.Index)
		return k, err
	}, "SELECT key, idx FROM state WHERE idx >= $1 AND idx < $2 ORDER BY idx, key LIMIT $3", from, to, max(limit, 0))
}
