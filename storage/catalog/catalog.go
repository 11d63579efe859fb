// Package catalog is the only SQL of the registry. It keeps rows and knows
// nothing of what they mean: the log's entries and hashes, the state derived
// from them, what was last published, and a few facts that are not derived.
//
// Invariants:
//   - One write transaction runs at a time and holds the head row's lock, so
//     entries are numbered 0, 1, 2, … without gaps.
//   - Entries, hashes, state rows and crate lines are only added, and state and
//     crate lines only together with the entry that causes them. A read "as of"
//     an index therefore gives the same answer for ever.
//   - When Update returns nil its changes survive the loss of power.
//   - The published size only grows and is never above the head.
//
// The SQL is the same for every dialect; what differs is in dialect. SQLite is
// for one host; several processes may have the file open. PostgreSQL is for
// several processes on several hosts.
package catalog

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"phoenix-lab.org/aln-registry/storage"
)

// Errors that callers branch on. A context's error is never lost either:
// errors.Is(err, context.Canceled) holds whenever that was the cause.
var (
	// ErrNewerSchema: the database was migrated by a newer version of the program.
	ErrNewerSchema = errors.New("a newer release of aln-registry has written it; upgrade aln-registry")
	// ErrOldSchema: migrations are pending that somebody has to order.
	ErrOldSchema = errors.New("its schema is older than this release; migrate it first")
	// ErrUnavailable: the database cannot be reached or does not answer now. What
	// was to be written is not, unless ErrUncertain is in the chain too; trying
	// again later helps.
	ErrUnavailable = errors.New("the database does not answer now")
	// ErrUncertain: the database did not say whether what was written is there. An
	// Update that looks for it knows: it waits for the one before.
	ErrUncertain = errors.New("whether it was written is not known")
	// ErrUnfit: the database server cannot be trusted with a catalog, or cannot hold one.
	ErrUnfit = errors.New("the database cannot hold a catalog")
	// ErrRestored: what was published is not any more. The database was put back to
	// an earlier state, or another has taken its place that lacks the newest.
	ErrRestored = errors.New("what was published is not: the database was put back to an earlier state")
	// ErrDamaged: the file is no database any more, or not a whole one.
	ErrDamaged = errors.New("the catalog is damaged; a rebuild derives it anew")
	// ErrNotFound: no such entry or hash.
	ErrNotFound = errors.New("not in the catalog")
	// ErrNotNext: an entry or hash does not continue the log where it ends.
	ErrNotNext = errors.New("does not continue the log")
	// ErrRecordExists: an entry with that record identity is already in the log.
	ErrRecordExists = errors.New("record is already in the log")
	// ErrHistory: a state row or crate line would change what the past looks like.
	ErrHistory = errors.New("history cannot be changed")
	// ErrPublishedShrinks: the published size can only grow.
	ErrPublishedShrinks = errors.New("published size would shrink")
	// ErrPublishedAhead: nothing above the head can be published.
	ErrPublishedAhead = errors.New("published size would be above the head")
	// ErrAssertionExpired: an assertion that has expired cannot be used.
	ErrAssertionExpired = errors.New("assertion has expired")
	// ErrBadText: a key or query is empty, too long or not clean UTF-8.
	ErrBadText = errors.New("text cannot be stored or asked for")
)

// Entry is a row of the log.
type Entry struct {
	Index    int64
	Bytes    []byte      // exactly what is hashed into the log
	LeafHash [32]byte    // RFC 6962 leaf hash of Bytes
	Record   storage.CID // the record's envelope
	RecordID string      // the record's identity; unique in the log
}

// StateRow is the value of a key after the entry Index. An empty value is a
// value like any other: what it means is the caller's.
type StateRow struct {
	Key   string
	Index int64
	Value []byte
}

// CrateLine is what was derived from the .crate that entry Index published.
type CrateLine struct {
	NameKey     string // canonical name
	Version     string // identity of the version, unique under NameKey
	Index       int64
	Line        []byte // the index line as published
	Description string
	Keywords    string // separated by spaces
}

// CrateHit is a search result: the newest line of a crate.
type CrateHit struct {
	CrateLine
	Exact bool // the query is the crate's canonical name
}

// dialect is what differs between databases beyond the migrations.
type dialect struct {
	now      string // one row: Unix seconds by the database's clock
	lockHead string // one row: the head's size, locked until the transaction ends
	// lockRows ends a query so that it locks the rows that it returns, in their
	// order; notify tells everybody what is published. Empty where one process
	// has the catalog.
	lockRows, notify string
	nowMillis        string             // an expression: Unix milliseconds by the database's clock
	afterAudit       string             // where audit's next ID has to be set behind those that were given
	snapshot         sql.IsolationLevel // at which all of a transaction's reads see one state
	// faults and quickFaults ask the database to check itself: "ok" or lines of what is
	// wrong; "" where that is not to be had by a query.
	faults, quickFaults string
	// send executes statements in the transaction p, which is on conn.
	send   func(ctx context.Context, conn *sql.Conn, p *pending, statements []statement) error
	shared bool
}

// DB is an open catalog, safe for concurrent use. Its embedded Reader sees
// what is committed.
type DB struct {
	Reader
	write   *sql.DB
	read    *sql.DB
	control *sql.DB // for publishing, which may not wait behind reads and writes
	leases  *sql.DB // one session, for leases
	dialect dialect
	// watched is the connection that Watch makes, nil where nobody else publishes.
	watched *pgx.ConnConfig
	// writing and publishing are taken by the one of this process who does.
	writing, publishing chan struct{}

	closed chan struct{} // is closed by Close
	close  func() error

	sweep   sweep
	born    birth        // of the session for leases
	longest atomic.Int64 // lease that was asked for, in nanoseconds; 0 before the first
}

// Close closes the catalog; calls in progress fail.
func (db *DB) Close() error { return db.close() }

// Now is the database's clock, in whole seconds UTC. It moves within a transaction.
func (t *Tx) Now(ctx context.Context) (time.Time, error) {
	var seconds int64
	if err := t.tx.QueryRowContext(ctx, t.dialect.now).Scan(&seconds); err != nil {
		return time.Time{}, failed(ctx, "read the clock", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// Now is the database's clock, in whole seconds UTC.
func (db *DB) Now(ctx context.Context) (time.Time, error) {
	var seconds int64
	if err := db.read.QueryRowContext(ctx, db.dialect.now).Scan(&seconds); err != nil {
		return time.Time{}, failed(ctx, "read the clock", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// blob makes nil the empty value: columns are NOT NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
