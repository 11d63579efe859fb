package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
)

// Session is one of the database's, which holds what somebody waits for, or waits before him.
type Session struct {
	PID         int    // of the server's process; 0 for a prepared transaction
	Application string // as it calls itself
	Client      string // its address; "" where the database does not say
	State       string // as in pg_stat_activity, with what it waits for itself
	Since       time.Time
}

// String is for people.
func (s Session) String() string {
	if s.PID == 0 {
		return "a prepared transaction (SELECT * FROM pg_prepared_xacts)"
	}
	text := fmt.Sprintf("session %d (%q", s.PID, s.Application)
	if s.Client != "" {
		text += " from " + s.Client
	}
	if s.State != "" {
		text += ", " + s.State
	}
	if !s.Since.IsZero() {
		text += ", since " + s.Since.UTC().Format(time.RFC3339)
	}
	return text + ")"
}

const (
	// replacePatience bounds the waiting for what others hold, of each of the two parts of
	// a replacement. A replica that was stopped while it published leaves sessions that
	// inherit the lock from one another, and each is ended only when it has been idle for
	// idleTimeout.
	replacePatience = 3 * idleTimeout
	// lookForBlockers is how often who waits looks for whom it waits for.
	lookForBlockers = time.Second
)

// rebuildingName ends the name by which the sessions of a replacement are known.
const rebuildingName = " (rebuild)"

// watcher looks for whom the sessions that have its name wait.
type watcher struct {
	pool     *sql.DB
	patience time.Duration
	told     func([]Session) // may be nil
}

// bounded does work, which waits for locks of others at most for the patience, and is
// ErrInUse when that was not enough. migrating: it takes the lock of migrations too.
func (w *watcher) bounded(ctx context.Context, migrating bool, work func(context.Context) error) error {
	began := time.Now()
	within, cancel := context.WithTimeout(ctx, w.patience)
	defer cancel()
	last := w.watch(within, migrating)
	err := work(within)
	over := within.Err() != nil || lockTimedOut(err)
	cancel()
	saw := last()
	if err == nil || ctx.Err() != nil || !over {
		return err
	}
	whom := "somebody whom the database does not name"
	switch {
	case len(saw.sessions) > 0:
		whom = SessionList(saw.sessions)
	case saw.err != nil:
		whom += " (" + saw.err.Error() + ")"
	}
	return fmt.Errorf("%w: nothing was changed, since for %s others have held what is to be replaced: %s; end these programs, "+
		"or what the database has of them with SELECT pg_terminate_backend(NUMBER), and type it again", ErrInUse, time.Since(began).Round(time.Second), whom)
}

// SessionList is for people.
func SessionList(sessions []Session) string {
	var all []string
	for _, s := range sessions {
		all = append(all, s.String())
	}
	return strings.Join(all, ", ")
}

// lockTimedOut reports whether err is lock_timeout's.
func lockTimedOut(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "55P03"
}

// sight is what a watcher saw at last.
type sight struct {
	sessions []Session
	nobody   int   // looks since then that found nobody
	err      error // of the last look
}

// look takes what one more look has found. A single one that finds nobody forgets nobody:
// between two locks, and when the database has just ended the wait, nobody is waited for.
func (s *sight) look(found []Session, err error) {
	s.err = err
	switch {
	case err != nil: // who waits is not kept from it; it is only not told
	case len(found) > 0:
		s.sessions, s.nobody = found, 0
	default:
		if s.nobody++; s.nobody > 1 {
			s.sessions = nil
		}
	}
}

// watch tells whom is waited for until ctx ends; last waits for that, and returns what was
// seen at last.
func (w *watcher) watch(ctx context.Context, migrating bool) (last func() sight) {
	done := make(chan sight, 1)
	go func() {
		var seen sight
		defer func() { done <- seen }()
		tick := time.NewTicker(lookForBlockers)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			now, err := w.blockers(ctx, migrating)
			if seen.look(now, err); len(now) > 0 && w.told != nil {
				w.told(now)
			}
		}
	}()
	return func() sight { return <-done }
}

// blockers are the sessions that those of the watcher's name wait for, and whom these
// wait for themselves. Of other roles the database tells little.
func (w *watcher) blockers(ctx context.Context, migrating bool) ([]Session, error) {
	return collect(ctx, Reader{q: w.pool}, "look for whom is waited", func(rows *sql.Rows) (s Session, err error) {
		var since int64
		if err = rows.Scan(&s.PID, &s.Application, &s.Client, &s.State, &since); since > 0 {
			s.Since = time.Unix(since, 0)
		}
		return s, err
	}, `WITH RECURSIVE own AS (
			SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = current_setting('application_name')),
		blocking (pid) AS (
			SELECT pid FROM (
				SELECT unnest(pg_blocking_pids(pid)) AS pid FROM own
				UNION ALL SELECT pid FROM pg_locks WHERE $1 AND locktype = 'advisory' AND granted AND objsubid = 1
					AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
					AND CAST(classid AS BIGINT) = $2 AND CAST(objid AS BIGINT) = $3) direct
			UNION SELECT unnest(pg_blocking_pids(pid)) FROM blocking WHERE pid <> 0)
		SELECT b.pid, COALESCE(a.application_name, ''), COALESCE(host(a.client_addr) || ':' || a.client_port, ''),
			COALESCE(a.state || COALESCE(', waits: ' || a.wait_event, ''), ''),
			CAST(COALESCE(FLOOR(EXTRACT(EPOCH FROM COALESCE(a.xact_start, a.backend_start))), 0) AS BIGINT)
		FROM blocking b LEFT JOIN pg_stat_activity a ON a.pid = b.pid WHERE b.pid NOT IN (SELECT pid FROM own) ORDER BY 1`,
		migrating, int64(migrationLock)>>32, int64(migrationLock)&0xffffffff)
}

// cancelling makes who is interrupted while it waits for a lock stop waiting in the
// server too, where it would hold others up with the locks that it has.
func cancelling(config *pgx.ConnConfig) *pgx.ConnConfig {
	config = config.Copy()
	config.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: leaseTimeout}
	}
	return config
}
