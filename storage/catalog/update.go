package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Tx is a write transaction. Its embedded Reader sees the transaction's own
// changes. It is for one goroutine and ends with the function given to Update.
// Writes are sent to the database together, with the next read that they may bear
// on or with the commit: so what is wrong with one may be the error of a later
// call, or of Update.
type Tx struct {
	Reader
	tx      *sql.Tx
	dialect dialect
	cancel  context.CancelFunc
}

// Update runs f in a write transaction, alone, with the head row locked, and
// commits if f returns nil. An error of f is returned as it is and nothing is
// changed. Where the database asks for it (a deadlock), all is undone and f is
// called again: it must set anew what it leaves outside. f must not call methods
// of db that write.
//
// After ErrUncertain what f wrote may or may not be there: the database did not
// answer the commit, nor, for some seconds, the question whether the entries are
// in the log. The answer is in the head that the next Update finds; a mere read
// may come before the end of the commit. After any other error nothing is changed.
func (db *DB) Update(ctx context.Context, f func(*Tx) error) error {
	if err := take(ctx, db.writing); err != nil {
		return failed(ctx, "begin", err)
	}
	defer release(db.writing)
	return db.again(ctx, func() error { return db.updateOnce(ctx, f) })
}

// note is Update for facts that are not derived from the log: it does not keep
// others from the head. Nor is there anything else by which one waits for another, so f, and
// whoever writes the same rows with the head, changes rows in the order of their keys:
// else each may have what the other waits for, which the database finds out after a second, and
// undoes.
func (db *DB) note(ctx context.Context, f func(*Tx) error) error {
	if !db.dialect.shared {
		return db.Update(ctx, f)
	}
	return db.again(ctx, func() error {
		t, end, err := db.begin(ctx, db.write, nothing)
		if err != nil {
			return err
		}
		defer end()
		return t.run(ctx, f)
	})
}

// sortedBy are rows in the order of their keys; those of one key stay in theirs.
func sortedBy[T any](rows []T, compare func(a, b T) int) []T {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, compare)
	return rows
}

// deletePiece is how many rows are deleted in one transaction, for which others may wait.
const deletePiece = 1000

// deleteOfLock deletes the rows of table for which where holds, the first argument of which is
// $1, a lock's name, and says how many there were: in pieces, each in the order of key, as note
// wants it. After an error some may be gone.
func (db *DB) deleteOfLock(ctx context.Context, what, table, key, where string, args ...any) (removed int64, err error) {
	query := fmt.Sprintf("WITH gone AS (SELECT %[2]s FROM %[1]s WHERE lock = $1 AND %[3]s ORDER BY %[2]s LIMIT %[4]d%[5]s) "+
		"DELETE FROM %[1]s WHERE lock = $1 AND (%[2]s) IN (SELECT %[2]s FROM gone)", table, key, where, deletePiece, db.dialect.lockRows)
	for {
		var n int64
		err := db.again(ctx, func() error {
			result, err := db.write.ExecContext(ctx, query, args...)
			if err == nil {
				n, err = result.RowsAffected()
			}
			return failed(ctx, what, err)
		})
		if removed += n; err != nil || n < deletePiece {
			return removed, err
		}
	}
}

// transactionAttempts is how often a transaction is tried that others keep from succeeding.
const transactionAttempts = 4

func (db *DB) again(ctx context.Context, f func() error) error {
	for attempt := 1; ; attempt++ {
		err := f()
		if err == nil || !isConflict(err) || attempt == transactionAttempts || ctx.Err() != nil {
			return err
		}
	}
}

func (db *DB) updateOnce(ctx context.Context, f func(*Tx) error) error {
	t, end, err := db.begin(ctx, db.write, db.lockHead(ctx))
	if err != nil {
		return err
	}
	defer end()
	err = t.run(ctx, f)
	if !errors.Is(err, ErrUncertain) || t.pending.log.last == "" {
		return err
	}
	end()
	there, lookErr := db.committed(ctx, t)
	switch {
	case lookErr != nil:
		return err
	case there:
		return nil
	default:
		return fmt.Errorf("%w: the connection was lost before the commit", ErrUnavailable)
	}
}

// run calls f and commits.
func (t *Tx) run(ctx context.Context, f func(*Tx) error) error {
	if err := f(t); err != nil {
		return err
	}
	if err := t.moveHead(ctx); err != nil {
		return err
	}
	if err := t.pending.flush(ctx); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return failed(ctx, "commit", err)
	}
	defer time.AfterFunc(endPatience, t.cancel).Stop()
	return failed(ctx, "commit", uncertain(t.tx.Commit()))
}

// endPatience is how long a commit is waited for, whether its caller waits or not.
const endPatience = 15 * time.Second

// lookPatience is for how long a database is waited for that has cut the
// connection before it answered a commit.
const lookPatience = 5 * time.Second

// beginPatience is how long a server may take to begin a transaction, which waits for nobody: a
// connection that is silent for so long is gone, and others wait for who has it.
const beginPatience = silence

// begin begins a write transaction in pool and calls lock, both again where the
// connection turns out to be gone. The transaction does not end with ctx, so
// that a commit is not broken off whose caller goes away. end rolls back what
// was not committed; it may be called twice.
func (db *DB) begin(ctx context.Context, pool *sql.DB, lock func(*Tx) error) (t *Tx, end func(), err error) {
	err = insist(ctx, db.patience, isCut, func() error {
		t, end, err = db.beginOnce(ctx, pool, lock)
		return err
	})
	return t, end, err
}

func (db *DB) beginOnce(ctx context.Context, pool *sql.DB, lock func(*Tx) error) (t *Tx, end func(), err error) {
	conn, err := pool.Conn(ctx)
	if err != nil {
		return nil, nil, failed(ctx, "begin", err)
	}
	inside, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	tx, late, err := db.beginSoon(inside, cancel, conn)
	stop() // from here on ctx is the statements' alone
	if late && ctx.Err() == nil {
		err = &unavailable{cause: errors.New("it does not answer"), cut: true}
	}
	if err != nil {
		cancel() // also what was begun too late
		conn.Close()
		return nil, nil, failed(ctx, "begin", err)
	}
	p := &pending{tx: tx, prepared: map[string]*sql.Stmt{}}
	p.send = func(ctx context.Context, statements []statement) error {
		return db.dialect.send(ctx, conn, p, statements)
	}
	t = &Tx{Reader: Reader{q: tx, pending: p}, tx: tx, dialect: db.dialect, cancel: cancel}
	end = func() {
		defer cancel()
		defer conn.Close()
		defer time.AfterFunc(endPatience, cancel).Stop()
		tx.Rollback() // after a commit this does nothing
	}
	if err := lock(t); err != nil {
		end()
		return nil, nil, err
	}
	return t, end, nil
}

// beginSoon begins a transaction; late: it was given up, since the server did not answer. What
// is embedded waits here for who writes.
func (db *DB) beginSoon(ctx context.Context, giveUp func(), conn *sql.Conn) (tx *sql.Tx, late bool, err error) {
	if !db.dialect.shared {
		tx, err = conn.BeginTx(ctx, nil)
		return tx, false, err
	}
	timer := time.AfterFunc(beginPatience, giveUp)
	tx, err = conn.BeginTx(ctx, nil)
	return tx, !timer.Stop(), err
}

func nothing(*Tx) error { return nil }

// lockHead waits for the head row's lock and notes how long the log is.
func (db *DB) lockHead(ctx context.Context) func(*Tx) error {
	return func(t *Tx) error {
		var size int64
		err := t.tx.QueryRowContext(ctx, db.dialect.lockHead).Scan(&size)
		if errors.Is(err, sql.ErrNoRows) {
			err = fmt.Errorf("%w: the head is missing", ErrDamaged)
		}
		t.pending.log = newTail(size)
		return failed(ctx, "lock the head", err)
	}
}

// committed says whether the entries of t are in the log. It waits for the end
// of t, which may not be over where its commit was sent: t has the head's lock.
func (db *DB) committed(ctx context.Context, t *Tx) (there bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endPatience)
	defer cancel()
	lost := func(err error) bool { return errors.Is(err, ErrUnavailable) }
	err = insist(ctx, lookPatience, lost, func() error {
		look, end, err := db.beginOnce(ctx, db.write, db.lockHead(ctx))
		if err != nil {
			return err
		}
		defer end()
		last, err := look.entries(ctx, "idx = $1", t.pending.log.head-1)
		there = err == nil && len(last) == 1 && last[0].RecordID == t.pending.log.last
		return err
	})
	return there, err
}

// take waits for the one place in c.
func take(ctx context.Context, c chan struct{}) error {
	select {
	case c <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func release(c chan struct{}) { <-c }
