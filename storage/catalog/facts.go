package catalog

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"
)

// assertionGrace is how long a used assertion is remembered beyond its
// expiry, so that a clock set back does not make it usable again.
const assertionGrace = 10 * time.Minute

// UseAssertion notes that the assertion jti of issuer is used, durably, and
// reports whether this was the first time among all that have this catalog
// open. Any error means: do not accept it. expires is when nobody would accept
// it any more (skew included); it is forgotten some minutes later. An assertion
// not valid after now is ErrAssertionExpired.
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
	if db.sweep.due(now) {
		if _, err := db.write.ExecContext(ctx, "DELETE FROM assertion WHERE expires < $1", now.Add(-assertionGrace).Unix()); err != nil {
			return false, failed(ctx, "forget expired assertions", err)
		}
	}
	// A part of a second counts as a whole one: never forgotten too early.
	result, err := db.write.ExecContext(ctx,
		"INSERT INTO assertion (issuer, jti, expires) VALUES ($1, $2, $3) ON CONFLICT (issuer, jti) DO NOTHING",
		issuer, jti, expires.Add(time.Second-1).Unix())
	if err != nil {
		return false, failed(ctx, "note the assertion", err)
	}
	n, err := result.RowsAffected()
	return n == 1 && err == nil, failed(ctx, "note the assertion", err)
}

// sweep says when it is time again to look for expired assertions.
type sweep struct {
	mutex sync.Mutex
	last  time.Time
}

// sweepPause is how much time passes at least between two looks.
const sweepPause = 30 * time.Second

func (s *sweep) due(now time.Time) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if now.Sub(s.last).Abs() < sweepPause {
		return false
	}
	s.last = now
	return true
}

// AssertionsSince is when this catalog was created, in whole seconds UTC: of
// assertions issued before, it cannot say whether they were used.
func (db *DB) AssertionsSince(ctx context.Context) (time.Time, error) {
	var seconds int64
	if err := db.one(ctx, "read when the catalog was created", []any{&seconds}, "SELECT created FROM head WHERE id = 1"); err != nil {
		return time.Time{}, err
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// Meta returns the value of a fact that is not derived from the log.
func (db *DB) Meta(ctx context.Context, key string) (value string, ok bool, err error) {
	err = db.one(ctx, "read "+key, []any{&value}, "SELECT value FROM meta WHERE key = $1", key)
	if errors.Is(err, sql.ErrNoRows) {
		return "", false, nil
	}
	return value, err == nil, err
}

// SetMeta sets such a fact, replacing an earlier value.
func (db *DB) SetMeta(ctx context.Context, key, value string) error {
	if err := checkText("key", key); err != nil {
		return err
	}
	_, err := db.write.ExecContext(ctx,
		"INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value)
	return failed(ctx, "set "+key, err)
}
