//go:build unix

package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"phoenix-lab.org/aln-registry/integration/testbed"
)

// stuck is a session of another program, which holds what statements lock until it is ended.
func stuck(t *testing.T, url, name string, statements ...string) (end func(), pid int) {
	t.Helper()
	c := config(t, url)
	c.RuntimeParams["application_name"] = name
	conn, err := pgx.ConnectConfig(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() { conn.Close(context.WithoutCancel(t.Context())) })
	t.Cleanup(end)
	for _, s := range append([]string{"BEGIN"}, statements...) {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	return end, int(conn.PgConn().PID())
}

// heard is whom a replacement has said it waits for.
type heard struct {
	sync.Mutex
	all []Session
	on  func(Session) // may be nil
}

func (h *heard) tell(sessions []Session) {
	h.Lock()
	defer h.Unlock()
	h.all = append(h.all, sessions...)
	for _, s := range sessions {
		if h.on != nil {
			h.on(s)
		}
	}
}

func (h *heard) has(pid int) bool {
	h.Lock()
	defer h.Unlock()
	for _, s := range h.all {
		if s.PID == pid {
			return true
		}
	}
	return false
}

func replacing(t *testing.T, url string, patience time.Duration, h *heard) *Replacement {
	t.Helper()
	r, err := replacePostgres(t.Context(), config(t, url), patience, h.tell)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// wantGivenUp: err names the session, says what to do, and came in time.
func wantGivenUp(t *testing.T, err error, began time.Time, patience time.Duration, says ...string) {
	t.Helper()
	if took := time.Since(began); took > patience+leaseTimeout {
		t.Errorf("it took %s of %s", took, patience)
	}
	if !errors.Is(err, ErrInUse) || errors.Is(err, ErrUnavailable) {
		t.Fatalf("%v, want ErrInUse", err)
	}
	for _, s := range append(says, "nothing was changed", "pg_terminate_backend") {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%v does not say %q", err, s)
		}
	}
}

// Whoever holds the old catalog is named while it is waited for, and in the end, which
// comes in time; nothing is changed then, and the next replacement works.
func TestAReplacementSaysWhomItWaitsFor(t *testing.T) {
	t.Parallel()
	url := testbed.SharedPostgres(t).URL
	opened(t, url)
	end, pid := stuck(t, url, "a stopped one", "SELECT size FROM head WHERE id = 1 FOR UPDATE")
	h := &heard{}
	const patience = 4 * time.Second
	r := replacing(t, url, patience, h)
	began := time.Now()
	_, err := r.Finish(t.Context(), began)
	wantGivenUp(t, err, began, patience, fmt.Sprintf(`session %d ("a stopped one" from 127.0.0.1:`, pid), "idle in transaction", ", since 20")
	if !h.has(pid) {
		t.Errorf("it told of %v", h.all)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	end()
	again := replacing(t, url, patience, h)
	if kept, err := again.Finish(t.Context(), began); err != nil || kept == "" {
		t.Errorf("%q, %v", kept, err)
	}
}

// One after another may hold the catalog, as replicas that were stopped while they
// published do: each is told of, and all are waited for as long as one is.
func TestAReplacementWaitsForAllTogetherAsLongAsForOne(t *testing.T) {
	t.Parallel()
	url := testbed.SharedPostgres(t).URL
	opened(t, url)
	endFirst, first := stuck(t, url, "first", "SELECT size FROM head WHERE id = 1 FOR UPDATE")
	_, second := stuck(t, url, "second", "SELECT size FROM published WHERE id = 1 FOR UPDATE")
	const patience = 5 * time.Second
	h := &heard{}
	h.on = func(s Session) {
		if s.PID == first && len(h.all) > 2 { // it has been told for a while
			endFirst()
		}
	}
	r := replacing(t, url, patience, h)
	began := time.Now()
	_, err := r.Finish(t.Context(), began)
	wantGivenUp(t, err, began, patience, fmt.Sprint("session ", second))
	if !h.has(first) || !h.has(second) || strings.Contains(err.Error(), fmt.Sprint("session ", first)) {
		t.Errorf("it told of %v, and %v", h.all, err)
	}
}

// What was waited for goes, and the replacement is finished.
func TestAReplacementGoesOnWhenOthersHaveGone(t *testing.T) {
	t.Parallel()
	url := testbed.SharedPostgres(t).URL
	opened(t, url)
	end, pid := stuck(t, url, "slow", "LOCK TABLE replica IN ACCESS EXCLUSIVE MODE")
	h := &heard{on: func(Session) { end() }}
	r := replacing(t, url, time.Minute, h)
	if _, err := r.Finish(t.Context(), time.Now()); err != nil || !h.has(pid) {
		t.Errorf("%v, it told of %v", err, h.all)
	}
}

// A client that takes nothing of what it asked for is not idle: no timeout of the
// server ends its session. It is waited for no longer than others.
func TestAReplacementGivesUpOnAClientThatTakesNothing(t *testing.T) {
	t.Parallel()
	url := testbed.SharedPostgres(t).URL
	opened(t, url)
	conn, err := pgx.ConnectConfig(t.Context(), config(t, url))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	pid := int(conn.PgConn().PID())
	if err := conn.PgConn().Conn().SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	conn.PgConn().Exec(t.Context(), "SELECT repeat('x', 1000000) FROM head, generate_series(1, 100)")
	const patience = 8 * time.Second // on a busy machine a look takes long
	h := &heard{}
	r := replacing(t, url, patience, h)
	began := time.Now()
	_, err = r.Finish(t.Context(), began)
	wantGivenUp(t, err, began, patience, fmt.Sprint("session ", pid), "active, waits: ClientWrite")
}

// Whom was waited for is said at last, though the last look came between two waits or failed.
func TestWhomAWatcherSawLast(t *testing.T) {
	t.Parallel()
	first, second, refused := []Session{{PID: 1}}, []Session{{PID: 2}}, errors.New("too many connections")
	for name, c := range map[string]struct {
		found []([]Session)
		errs  []error
		want  []Session
		err   error
	}{
		"nobody yet":                   {found: [][]Session{nil}, errs: []error{nil}},
		"one, then another":            {found: [][]Session{first, second}, errs: []error{nil, nil}, want: second},
		"one, and once nobody":         {found: [][]Session{first, nil}, errs: []error{nil, nil}, want: first},
		"one, and twice nobody":        {found: [][]Session{first, nil, nil}, errs: []error{nil, nil, nil}},
		"one, nobody, one, nobody":     {found: [][]Session{first, nil, first, nil}, errs: []error{nil, nil, nil, nil}, want: first},
		"one, and a look that failed":  {found: [][]Session{first, nil}, errs: []error{nil, refused}, want: first, err: refused},
		"only looks that failed":       {found: [][]Session{nil, nil}, errs: []error{refused, refused}, err: refused},
		"a look that failed, then one": {found: [][]Session{nil, first}, errs: []error{refused, nil}, want: first},
	} {
		var s sight
		for i := range c.found {
			s.look(c.found[i], c.errs[i])
		}
		if !slices.Equal(s.sessions, c.want) || !errors.Is(s.err, c.err) {
			t.Errorf("%s: %v, %v; want %v, %v", name, s.sessions, s.err, c.want, c.err)
		}
	}
}

// The lock of migrations is waited for as well, and its holder told.
func TestAReplacementGivesUpOnTheLockOfMigrations(t *testing.T) {
	t.Parallel()
	url := testbed.SharedPostgres(t).URL
	opened(t, url)
	_, pid := stuck(t, url, "a migration", fmt.Sprint("SELECT pg_advisory_lock(", int64(migrationLock), ")"))
	const patience = 4 * time.Second
	h := &heard{}
	began := time.Now()
	_, err := replacePostgres(t.Context(), config(t, url), patience, h.tell)
	wantGivenUp(t, err, began, patience, fmt.Sprint("session ", pid), "a migration")
	if !h.has(pid) {
		t.Errorf("it told of %v", h.all)
	}
}

// Who interrupts it while it waits leaves nobody waiting in the server, with locks
// that hold others up.
func TestAnInterruptedReplacementLeavesNoLocks(t *testing.T) {
	t.Parallel()
	url := testbed.SharedPostgres(t).URL
	opened(t, url)
	stuck(t, url, "a stopped one", "SELECT size FROM head WHERE id = 1 FOR UPDATE")
	ctx, cancel := context.WithCancel(t.Context())
	r := replacing(t, url, time.Minute, &heard{on: func(Session) { cancel() }})
	if _, err := r.Finish(ctx, time.Now()); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	r.Close()
	db := admin(t, url)
	eventually(t, func() bool { return sessionsOf(t, db, rebuildingName) == 0 })
	opened(t, url)
}

func sessionsOf(t *testing.T, db *sql.DB, name string) (n int) {
	t.Helper()
	err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '%' || $1", name).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
