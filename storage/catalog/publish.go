package catalog

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Published is what was last made visible.
type Published struct {
	Size       int64  // of the log: the entries below it are visible
	Checkpoint []byte // signed; nil before the first
}

// Publication is the right to publish: nobody else has it meanwhile. Its embedded
// Reader reads the very database in which it is held; other reads may find
// another in its place, an earlier state of it or a standby. A Publication is
// for one goroutine and ends with the function given to Publish.
type Publication struct {
	Reader
	now  Published
	hold func(context.Context) error
}

// Now is what is published, as of the call of f.
func (p *Publication) Now() Published { return p.now }

// Hold is nil while the right is held still. It has to be called at least every
// few seconds of work: a right of which nothing was heard for 30 seconds is
// lost, and somebody else may publish.
func (p *Publication) Hold(ctx context.Context) error { return p.hold(ctx) }

// Published returns the size of the log that is visible and its signed
// checkpoint; 0 and nil before the first.
func (db *DB) Published(ctx context.Context) (size int64, checkpoint []byte, err error) {
	p, err := readPublished(ctx, db.Reader, "")
	return p.Size, p.Checkpoint, err
}

func readPublished(ctx context.Context, r Reader, lock string) (p Published, err error) {
	err = r.one(ctx, "read what is published", []any{&p.Size, &p.Checkpoint}, "SELECT size, checkpoint FROM published WHERE id = 1"+lock)
	if errors.Is(err, sql.ErrNoRows) {
		err = fmt.Errorf("%w: what is published is missing", ErrDamaged)
	}
	if len(p.Checkpoint) == 0 {
		p.Checkpoint = nil
	}
	return p, err
}

// Publish calls f with the right to publish, which one caller at a time has
// among all that have this catalog open, and stores what f returns: from then
// on the first Size entries are visible under Checkpoint. The same size again
// replaces the checkpoint; a smaller one is ErrPublishedShrinks, one above the
// head ErrPublishedAhead; what is published already is not written again. An
// error of f is returned as it is; after ErrUncertain the next Now tells. f must
// not call Publish; Update it may.
func (db *DB) Publish(ctx context.Context, f func(ctx context.Context, p *Publication) (Published, error)) error {
	if err := take(ctx, db.publishing); err != nil {
		return failed(ctx, "publish", err)
	}
	defer release(db.publishing)
	if db.dialect.shared {
		return db.publishShared(ctx, f)
	}
	now, err := readPublished(ctx, db.Reader, "")
	if err != nil {
		return err
	}
	next, err := f(ctx, &Publication{Reader: db.Reader, now: now, hold: func(ctx context.Context) error { return ctx.Err() }})
	if err != nil || next.equal(now) {
		return err
	}
	return db.Update(ctx, func(t *Tx) error { return t.setPublished(ctx, now.Size, next) })
}

// publishShared holds the lock of the published row in a transaction of its
// own: with its connection the right is lost, and so is what would be stored.
func (db *DB) publishShared(ctx context.Context, f func(ctx context.Context, p *Publication) (Published, error)) error {
	var now Published
	t, end, err := db.begin(ctx, db.control, func(t *Tx) (err error) {
		now, err = readPublished(ctx, t.Reader, db.dialect.lockRows)
		return err
	})
	if err != nil {
		return err
	}
	defer end()
	next, err := f(ctx, &Publication{Reader: t.Reader, now: now, hold: t.Hold})
	if err != nil || next.equal(now) {
		return err
	}
	return t.run(ctx, func(t *Tx) error {
		if err := t.setPublished(ctx, now.Size, next); err != nil {
			return err
		}
		return t.write(ctx, statement{what: "tell what is published", query: db.dialect.notify})
	})
}

func (p Published) equal(other Published) bool {
	return p.Size == other.Size && bytes.Equal(p.Checkpoint, other.Checkpoint)
}

// Hold is nil while the transaction is there, with what it has locked: its connection may
// be gone without its process knowing.
func (t *Tx) Hold(ctx context.Context) error {
	_, err := t.tx.ExecContext(ctx, "SELECT 1")
	return failed(ctx, "hold a transaction's locks", err)
}

// setPublished replaces what is published, of size now.
func (t *Tx) setPublished(ctx context.Context, now int64, next Published) error {
	if next.Size < now {
		return fmt.Errorf("%w: from %d to %d", ErrPublishedShrinks, now, next.Size)
	}
	head, err := t.Head(ctx)
	if err != nil {
		return err
	}
	if next.Size > head {
		return fmt.Errorf("%w: %d above %d", ErrPublishedAhead, next.Size, head)
	}
	return t.write(ctx, statement{what: "publish",
		query: "UPDATE published SET size = $1, checkpoint = $2 WHERE id = 1", args: []any{next.Size, blob(next.Checkpoint)}})
}
