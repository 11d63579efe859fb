package catalog

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// publishedChannel is what is notified of whatever was published.
const publishedChannel = "aln_published"

const (
	// watchPause is the first pause before a lost connection is made anew; each
	// is twice the one before, up to the most.
	watchPause, mostWatchPause = 20 * time.Millisecond, 2 * time.Second
	// watchSilence is how long nothing need come before the server is asked
	// whether it is there, and watchAnswer how long it has for that.
	watchSilence, watchAnswer = 10 * time.Second, 5 * time.Second
)

// Watch returns a channel that gets a signal whenever something may have been
// published by anybody, and is closed when ctx or the catalog has ended. Signals
// that nobody takes become one. While the database cannot be reached there are
// none; there is one when it can be again. Over SQLite, which one process has,
// there are none at all.
func (db *DB) Watch(ctx context.Context) <-chan struct{} {
	signals := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		select {
		case <-ctx.Done():
		case <-db.closed:
		}
	}()
	go func() {
		defer close(signals)
		if db.watched == nil {
			<-ctx.Done()
			return
		}
		listen(ctx, db.watched, signals)
	}()
	return signals
}

// listen makes a connection, again and again, and signals what it hears.
func listen(ctx context.Context, config *pgx.ConnConfig, signals chan<- struct{}) {
	for pause := watchPause; ; pause = min(2*pause, mostWatchPause) {
		if hear(ctx, config, signals) {
			pause = watchPause
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// hear signals until the connection is lost, and says whether it had one.
func hear(ctx context.Context, config *pgx.ConnConfig, signals chan<- struct{}) (connected bool) {
	soon, cancel := context.WithTimeout(ctx, watchAnswer)
	defer cancel()
	conn, err := pgx.ConnectConfig(soon, config)
	if err != nil {
		return false
	}
	defer func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		conn.Close(bounded)
	}()
	if _, err := conn.Exec(soon, "LISTEN "+publishedChannel); err != nil {
		return false
	}
	for {
		select {
		case signals <- struct{}{}: // the first because of what was missed
		default:
		}
		if err := await(ctx, conn); err != nil {
			return true
		}
	}
}

// await returns nil when there was a notification.
func await(ctx context.Context, conn *pgx.Conn) error {
	for {
		silence, cancel := context.WithTimeout(ctx, watchSilence)
		_, err := conn.WaitForNotification(silence)
		cancel()
		if err == nil || ctx.Err() != nil || !pgconn.Timeout(err) {
			return err
		}
		answer, cancel := context.WithTimeout(ctx, watchAnswer)
		err = conn.Ping(answer)
		cancel()
		if err != nil {
			return err
		}
	}
}
