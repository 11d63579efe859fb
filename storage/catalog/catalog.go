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
// for one host; several processes may have the file open.
package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	sqlite3 "modernc.org/sqlite"

	"phoenix-lab.org/aln-registry/storage"
)

// Errors that callers branch on. A context's error is never lost either:
// errors.Is(err, context.Canceled) holds whenever that was the cause.
var (
	// ErrNewerSchema: the database was migrated by a newer version of the program.
	ErrNewerSchema = errors.New("a newer release of aln-registry has written it; upgrade aln-registry")
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
}

// DB is an open catalog, safe for concurrent use. Its embedded Reader sees
// what is committed.
type DB struct {
	Reader
	write   *sql.DB // one connection
	read    *sql.DB
	dialect dialect
}

// Close closes the catalog; calls in progress fail.
func (db *DB) Close() error { return errors.Join(db.read.Close(), db.write.Close()) }

// Tx is a write transaction. Its embedded Reader sees the transaction's own
// changes. It is for one goroutine and ends with the function given to Update.
type Tx struct {
	Reader
	tx      *sql.Tx
	dialect dialect
	start   int64 // head when the transaction began: below it nothing may be added
	head    int64
}

// Update runs f in a write transaction, alone, with the head row locked, and
// commits if f returns nil. An error of f is returned as it is and nothing is
// changed. After an error that came from the commit itself the changes may or
// may not be there: read the head. f must not call methods of db that write.
func (db *DB) Update(ctx context.Context, f func(*Tx) error) error {
	tx, err := db.write.BeginTx(ctx, nil)
	if err != nil {
		return failed(ctx, "begin", err)
	}
	defer tx.Rollback() // after a commit this does nothing
	t := &Tx{Reader: Reader{q: tx}, tx: tx, dialect: db.dialect}
	if err := tx.QueryRowContext(ctx, db.dialect.lockHead).Scan(&t.start); err != nil {
		return failed(ctx, "lock the head", err)
	}
	t.head = t.start
	if err := f(t); err != nil {
		return err
	}
	return failed(ctx, "commit", tx.Commit())
}

// Now is the database's clock, in whole seconds UTC. It moves within a transaction.
func (t *Tx) Now(ctx context.Context) (time.Time, error) {
	var seconds int64
	if err := t.tx.QueryRowContext(ctx, t.dialect.now).Scan(&seconds); err != nil {
		return time.Time{}, failed(ctx, "read the clock", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// Published returns the size of the log that is visible and its signed
// checkpoint; 0 and nil before the first.
func (db *DB) Published(ctx context.Context) (size int64, checkpoint []byte, err error) {
	row := db.q.QueryRowContext(ctx, "SELECT size, checkpoint FROM published WHERE id = 1")
	if err := row.Scan(&size, &checkpoint); err != nil {
		return 0, nil, failed(ctx, "read what is published", err)
	}
	if len(checkpoint) == 0 {
		return size, nil, nil
	}
	return size, checkpoint, nil
}

// SetPublished makes the first size entries visible under checkpoint. The same
// size again replaces the checkpoint; a smaller one is ErrPublishedShrinks,
// one above the head ErrPublishedAhead.
func (db *DB) SetPublished(ctx context.Context, size int64, checkpoint []byte) error {
	return db.Update(ctx, func(t *Tx) error {
		var published int64
		if err := t.tx.QueryRowContext(ctx, "SELECT size FROM published WHERE id = 1").Scan(&published); err != nil {
			return failed(ctx, "read what is published", err)
		}
		if size < published {
			return fmt.Errorf("%w: from %d to %d", ErrPublishedShrinks, published, size)
		}
		if size > t.head {
			return fmt.Errorf("%w: %d above %d", ErrPublishedAhead, size, t.head)
		}
		_, err := t.tx.ExecContext(ctx, "UPDATE published SET size = $1, checkpoint = $2 WHERE id = 1", size, blob(checkpoint))
		return failed(ctx, "publish", err)
	})
}

// assertionGrace is how long a used assertion is remembered beyond its
// expiry, so that a clock set back does not make it usable again.
const assertionGrace = 10 * time.Minute

// UseAssertion notes that the assertion jti of issuer is used, durably, and
// reports whether this was the first time. Any error means: do not accept it.
// expires is when nobody would accept it any more (skew included); it is
// forgotten some minutes later. An assertion not valid after now is ErrAssertionExpired.
func (db *DB) UseAssertion(ctx context.Context, issuer, jti string, expires, now time.Time) (fresh bool, err error) {
	if err := checkText("issuer", issuer); err != nil {
		return false, err
	}
	if err := checkText("jti", jti); err != nil {
		return false, err
	}
	if !expires.After(now) {
		return false, ErrAssertionExpired
	}
	err = db.Update(ctx, func(t *Tx) error {
		if _, err := t.tx.ExecContext(ctx, "DELETE FROM assertion WHERE expires < $1", now.Add(-assertionGrace).Unix()); err != nil {
			return failed(ctx, "forget expired assertions", err)
		}
		// A part of a second counts as a whole one: never forgotten too early.
		result, err := t.tx.ExecContext(ctx,
			"INSERT INTO assertion (issuer, jti, expires) VALUES ($1, $2, $3) ON CONFLICT (issuer, jti) DO NOTHING",
			issuer, jti, expires.Add(time.Second-1).Unix())
		if err != nil {
			return failed(ctx, "note the assertion", err)
		}
		n, err := result.RowsAffected()
		fresh = n == 1
		return failed(ctx, "note the assertion", err)
	})
	if err != nil {
		return false, err
	}
	return fresh, nil
}

// AssertionsSince is when this catalog was created, in whole seconds UTC: of
// assertions issued before, it cannot say whether they were used.
func (db *DB) AssertionsSince(ctx context.Context) (time.Time, error) {
	var seconds int64
	if err := db.q.QueryRowContext(ctx, "SELECT created FROM head WHERE id = 1").Scan(&seconds); err != nil {
		return time.Time{}, failed(ctx, "read when the catalog was created", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// Meta returns the value of a fact that is not derived from the log.
func (db *DB) Meta(ctx context.Context, key string) (value string, ok bool, err error) {
	err = db.q.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = $1", key).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", false, nil
	}
	if err != nil {
		return "", false, failed(ctx, "read "+key, err)
	}
	return value, true, nil
}

// SetMeta sets such a fact, replacing an earlier value.
func (db *DB) SetMeta(ctx context.Context, key, value string) error {
	if err := checkText("key", key); err != nil {
		return err
	}
	return db.Update(ctx, func(t *Tx) error {
		_, err := t.tx.ExecContext(ctx,
			"INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value)
		return failed(ctx, "set "+key, err)
	})
}

// failed says what could not be done. Where ctx has ended its error is part of
// the chain: drivers report a cancelled call by errors of their own.
func failed(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	err = damaged(full(err))
	if cause := ctx.Err(); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("catalog: %s: %w (%w)", what, cause, err)
	}
	return fmt.Errorf("catalog: %s: %w", what, err)
}

// full puts storage.ErrFull into err's chain where the database has no room.
func full(err error) error {
	var e *sqlite3.Error
	if errors.As(err, &e) && (e.Code()&0xff == sqliteFull || e.Code() == sqliteIOErrShmSize) {
		return fmt.Errorf("%w: %w", storage.ErrFull, err)
	}
	return storage.Full(err)
}

// damaged puts ErrDamaged into err's chain where the database says so.
func damaged(err error) error {
	var e *sqlite3.Error
	if errors.As(err, &e) && (e.Code()&0xff == sqliteCorrupt || e.Code()&0xff == sqliteNotADB) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// SQLite's result codes (sqlite.org/rescode.html): for a damaged file, and for a full
// disk, of a file and of the memory that WAL readers share.
const (
	sqliteCorrupt      = 11
	sqliteNotADB       = 26
	sqliteFull         = 13
	sqliteIOErrShmSize = 4874
)

// blob makes nil the empty value: columns are NOT NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
