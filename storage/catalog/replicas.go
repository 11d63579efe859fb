package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Shared says whether several processes, on several hosts, may write this catalog.
func (db *DB) Shared() bool { return db.dialect.shared }

// replicaKept is how long a replica that is heard of no more is remembered.
const replicaKept = time.Hour

// mostLease is how long leases of others are taken to be by a process that has
// asked for none.
const mostLease = 10 * time.Second

// Confirm notes that replica has seen the first seen entries of the log, and
// returns what is published. Where nobody has published more than seen, and only
// there, replica has a lease from then on, until lease has passed by the
// database's clock; where somebody has, the size that is returned is greater
// than seen, and an earlier lease runs out. So whoever publishes and then finds
// nobody in Unconfirmed knows: no replica whose last Confirm returned no more
// than it had seen does without that, until its lease is over. lease is counted
// in milliseconds, and of one length for all replicas of a catalog. The name is
// new for each process: two that share one would share its lease. ErrRestored is
// that what is published became less between the two steps of Confirm.
func (db *DB) Confirm(ctx context.Context, replica string, seen int64, lease time.Duration) (Published, error) {
	if err := checkText("replica", replica); err != nil {
		return Published{}, err
	}
	if db.longest.Swap(max(int64(lease), 1)) == 0 {
		if err := db.Leave(ctx, replica); err != nil { // and so do those who could not say so
			db.longest.Store(0)
			return Published{}, err
		}
	}
	r, granted := Reader{q: db.leases}, int64(0)
	now := db.dialect.nowMillis
	err := r.one(ctx, "confirm what was seen", []any{&granted}, `INSERT INTO replica (name, seen, expires_ms)
		SELECT $1, $2, CASE WHEN p.size <= $2 THEN `+now+` + $3 ELSE 0 END FROM published p WHERE p.id = 1
		ON CONFLICT (name) DO UPDATE SET seen = excluded.seen,
		expires_ms = CASE WHEN excluded.expires_ms > replica.expires_ms THEN excluded.expires_ms ELSE replica.expires_ms END
		RETURNING (SELECT p.size FROM published p WHERE p.id = 1)`, replica, seen, lease.Milliseconds())
	if err != nil {
		return Published{}, err
	}
	// A transaction of its own, so that it sees what was committed before the lease
	// became visible: a publisher who did not see the lease is seen here.
	p, err := readPublished(ctx, r, "")
	if err == nil && p.Size < granted {
		err = fmt.Errorf("catalog: confirm what was seen: %w", ErrRestored)
	}
	return p, err
}

// Unconfirmed returns the replicas that have a lease, by the database's clock
// now, and have not seen the first size entries, which are published (ErrRestored
// otherwise). A database that took the place of another, an earlier state of it
// or a standby, does not know all leases that the other gave; so where the
// session with the database is younger than a lease, it is ErrUnavailable. The
// session lasts from OpenPostgres on; who calls Confirm each second renews it as
// soon as it can be.
func (db *DB) Unconfirmed(ctx context.Context, size int64) (names []string, err error) {
	conn, err := db.leases.Conn(ctx)
	if err != nil {
		return nil, failed(ctx, "look for replicas behind", err)
	}
	defer conn.Close()
	if age, needed := db.born.age(), db.leaseOfOthers(); db.dialect.shared && age < needed {
		return nil, fmt.Errorf("catalog: look for replicas behind: %w", &unavailable{cause: fmt.Errorf(
			"of leases given before this session, which is %s old, nothing is known until it is %s old", age.Round(time.Millisecond), needed)})
	}
	// One statement, so that it is of one state of the database.
	rows, err := collect(ctx, Reader{q: conn}, "look for replicas behind", func(rows *sql.Rows) (row struct {
		published int64
		name      sql.NullString
	}, err error) {
		err = rows.Scan(&row.published, &row.name)
		return row, err
	}, `SELECT p.size, r.name FROM published p LEFT JOIN replica r ON r.seen < $1 AND r.expires_ms > `+db.dialect.nowMillis+`
		WHERE p.id = 1 ORDER BY r.name`, size)
	for _, row := range rows {
		if row.published < size {
			return nil, fmt.Errorf("catalog: look for replicas behind: %w", ErrRestored)
		}
		if row.name.Valid {
			names = append(names, row.name.String)
		}
	}
	return names, err
}

func (db *DB) leaseOfOthers() time.Duration {
	if own := time.Duration(db.longest.Load()); own != 0 {
		return own
	}
	return mostLease
}

// birth is when the one connection of a pool was made.
type birth struct {
	mutex sync.Mutex
	at    time.Time
}

func (b *birth) now(context.Context, *pgx.Conn) error {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.at = time.Now()
	return nil
}

func (b *birth) age() time.Duration {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return time.Since(b.at)
}

// Leave ends the lease of replica, which answers nobody any more. Of those that
// have not been heard of for an hour nothing is kept.
func (db *DB) Leave(ctx context.Context, replica string) error {
	_, err := db.leases.ExecContext(ctx, "DELETE FROM replica WHERE name = $1 OR expires_ms < "+db.dialect.nowMillis+" - $2",
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
