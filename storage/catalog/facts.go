package catalog

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

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
