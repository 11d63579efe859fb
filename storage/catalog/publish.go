package catalog

import (
	"bytes"
	"context"
	"fmt"
)

// Published is what was last made visible.
type Published struct {
	Size       int64  // of the log: the entries below it are visible
	Checkpoint []byte // signed; nil before the first
}

// Publication is the right to publish: nobody else has it meanwhile.
type Publication struct {
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
	row := r.q.QueryRowContext(ctx, "SELECT size, checkpoint FROM published WHERE id = 1"+lock)
	if err := row.Scan(&p.Size, &p.Checkpoint); err != nil {
		return Published{}, failed(ctx, "read what is published", err)
	}
	if len(p.Checkpoint) == 0 {
		p.Checkpoint = nil
	}
	return p, nil
}

// Publish calls f with the right to publish, which one caller at a time has
// among all that have this catalog open, and stores what f returns: from then
// on the first Size entries are visible under Checkpoint. The same size again
// replaces the checkpoint; a smaller one is ErrPublishedShrinks, one above the
// head ErrPublishedAhead; what is published already is not written again. An
// error of f is returned as it is. f may be called again after an error that
// came from here, and must not call Publish; Update it may.
func (db *DB) Publish(ctx context.Context, f func(ctx context.Context, p *Publication) (Published, error)) error {
	select {
	case db.publishing <- struct{}{}:
		defer func() { <-db.publishing }()
	case <-ctx.Done():
		return failed(ctx, "publish", ctx.Err())
	}
	now, err := readPublished(ctx, db.Reader, "")
	if err != nil {
		return err
	}
	next, err := f(ctx, &Publication{now: now, hold: func(ctx context.Context) error { return ctx.Err() }})
	if err != nil || next.Size == now.Size && bytes.Equal(next.Checkpoint, now.Checkpoint) {
		return err
	}
	return db.Update(ctx, func(t *Tx) error { return t.setPublished(ctx, now.Size, t.head, next) })
}

// setPublished replaces what is published, of size now, where the log has head entries.
func (t *Tx) setPublished(ctx context.Context, now, head int64, next Published) error {
	if next.Size < now {
		return fmt.Errorf("%w: from %d to %d", ErrPublishedShrinks, now, next.Size)
	}
	if next.Size > head {
		return fmt.Errorf("%w: %d above %d", ErrPublishedAhead, next.Size, head)
	}
	_, err := t.tx.ExecContext(ctx, "UPDATE published SET size = $1, checkpoint = $2 WHERE id = 1", next.Size, blob(next.Checkpoint))
	return failed(ctx, "publish", err)
}

// SetPublished makes the first size entries visible under checkpoint, under the
// rules of Publish.
func (db *DB) SetPublished(ctx context.Context, size int64, checkpoint []byte) error {
	return db.Publish(ctx, func(context.Context, *Publication) (Published, error) {
		return Published{Size: size, Checkpoint: checkpoint}, nil
	})
}

// Watch returns a channel that gets a signal whenever something may have been
// published by anybody, and is closed when ctx has ended. Signals that nobody
// takes become one. Over SQLite, which one process has, there are none.
func (db *DB) Watch(ctx context.Context) <-chan struct{} {
	signals := make(chan struct{}, 1)
	context.AfterFunc(ctx, func() { close(signals) })
	return signals
}
