//go:build unix

package catalog_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// patience bounds what the tests wait for.
const patience = 30 * time.Second

// two processes' catalogs in one database, and its administrator.
type two struct {
	a, b  *catalog.DB
	admin *sql.DB
}

func openTwo(t *testing.T) two {
	t.Helper()
	return openTwoIn(t, testbed.SharedPostgres(t).URL)
}

func openTwoIn(t *testing.T, url string) two {
	t.Helper()
	admin, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close() })
	return two{openPostgres(t, url), openPostgres(t, url), admin}
}

// terminate ends the sessions in the test's database whose last statement is like pattern.
func (w two) terminate(t *testing.T, pattern string) {
	t.Helper()
	var n int
	err := w.admin.QueryRowContext(t.Context(), `SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE $1`, pattern).Scan(&n)
	if err != nil || n == 0 {
		t.Fatalf("no session has said %q (%v)", pattern, err)
	}
}

// eventually fails the test when ok does not become true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

func testEntry(idx int64) catalog.Entry {
	data := fmt.Append(nil, idx)
	return catalog.Entry{Index: idx, Bytes: data, Record: storage.CIDOf(data), RecordID: fmt.Sprint(idx)}
}

// appendNext appends an entry with one row of state.
func appendNext(ctx context.Context, db *catalog.DB) (idx int64, err error) {
	err = db.Update(ctx, func(tx *catalog.Tx) error {
		if idx, err = tx.Head(ctx); err != nil {
			return err
		}
		return errors.Join(tx.AppendEntry(ctx, testEntry(idx)), tx.PutState(ctx, "key", idx, fmt.Append(nil, idx)))
	})
	return idx, err
}

func mustAppend(t *testing.T, db *catalog.DB) {
	t.Helper()
	if _, err := appendNext(t.Context(), db); err != nil {
		t.Fatal(err)
	}
}

func publishing(size int64) func(context.Context, *catalog.Publication) (catalog.Published, error) {
	return func(context.Context, *catalog.Publication) (catalog.Published, error) {
		return catalog.Published{Size: size, Checkpoint: fmt.Append(nil, size)}, nil
	}
}

func TestUpdatesOfTwoProcessesMakeOneLog(t *testing.T) {
	t.Parallel()
	w := openTwo(t)
	const each = 40
	var group sync.WaitGroup
	var mutex sync.Mutex
	var made []int64
	for _, db := range []*catalog.DB{w.a, w.a, w.b, w.b} {
		group.Go(func() {
			for range each {
				idx, err := appendNext(t.Context(), db)
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				mutex.Lock()
				made = append(made, idx)
				mutex.Unlock()
			}
		})
	}
	group.Wait()
	slices.Sort(made)
	entries, err := w.b.Entries(t.Context(), 0, 1000)
	if err != nil || len(entries) != 4*each || len(made) != 4*each {
		t.Fatalf("%d entries, %v; %d were acknowledged", len(entries), err, len(made))
	}
	for i, e := range entries {
		if e.Index != int64(i) || made[i] != int64(i) || e.RecordID != fmt.Sprint(i) {
			t.Fatalf("entry %d has the index %d; acknowledged was %d", i, e.Index, made[i])
		}
	}
	one, errA := w.a.StateDigest(t.Context())
	other, errB := w.b.StateDigest(t.Context())
	if one != other || errA != nil || errB != nil {
		t.Errorf("the two see different states: %v, %v", errA, errB)
	}
}

func TestAssertionIsUsedOnceByTwoProcesses(t *testing.T) {
	t.Parallel()
	w := openTwo(t)
	now := time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)
	const assertions = 20
	fresh := make(chan int, 1000)
	var group sync.WaitGroup
	for _, db := range []*catalog.DB{w.a, w.b, w.a, w.b} {
		group.Go(func() {
			for i := range assertions {
				first, err := db.UseAssertion(t.Context(), "did:key:a", fmt.Sprint(i), now.Add(time.Minute), now)
				if err != nil {
					t.Errorf("UseAssertion: %v", err)
				}
				if first {
					fresh <- i
				}
			}
		})
	}
	group.Wait()
	close(fresh)
	var all []int
	for i := range fresh {
		all = append(all, i)
	}
	slices.Sort(all)
	if len(all) != assertions || len(slices.Compact(all)) != assertions {
		t.Errorf("fresh were %v, want each of %d once", all, assertions)
	}
}

func TestOfTwoProcessesOnePublishes(t *testing.T) {
	t.Parallel()
	w := openTwo(t)
	mustAppend(t, w.a)
	mustAppend(t, w.a)
	var second catalog.Published
	done := make(chan error, 1)
	err := w.a.Publish(t.Context(), func(ctx context.Context, p *catalog.Publication) (catalog.Published, error) {
		go func() {
			done <- w.b.Publish(t.Context(), func(_ context.Context, p *catalog.Publication) (catalog.Published, error) {
				second = p.Now()
				return catalog.Published{Size: 2, Checkpoint: []byte("b")}, nil
			})
		}()
		w.waiting(t, "%FROM published%FOR UPDATE%")
		// Nobody else waits: reads, leases and entries go on.
		mustAppend(t, w.b)
		if _, err := w.b.Confirm(ctx, "b", 0, lease); err != nil {
			t.Error(err)
		}
		select {
		case err := <-done:
			t.Errorf("the other did not wait (%v)", err)
		default:
		}
		return catalog.Published{Size: 1, Checkpoint: []byte("a")}, p.Hold(ctx)
	})
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	if second.Size != 1 || string(second.Checkpoint) != "a" {
		t.Errorf("the second found %v published", second)
	}
	if size, note, err := w.a.Published(t.Context()); err != nil || size != 2 || string(note) != "b" {
		t.Errorf("published is %d, %q, %v", size, note, err)
	}
}

// waiting returns when a session waits for a lock with a statement like pattern.
func (w two) waiting(t *testing.T, pattern string) {
	t.Helper()
	eventually(t, "a session that waits", func() bool {
		var n int
		err := w.admin.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE $1`, pattern).Scan(&n)
		return err == nil && n > 0
	})
}

// A publisher whose connection is cut is not the publisher any more: it learns
// so from Hold, and what it would have published is not stored.
func TestWhoLosesTheRightDoesNotPublish(t *testing.T) {
	t.Parallel()
	for _, asks := range []bool{true, false} {
		w := openTwo(t)
		mustAppend(t, w.a)
		mustAppend(t, w.a)
		err := w.a.Publish(t.Context(), func(ctx context.Context, p *catalog.Publication) (catalog.Published, error) {
			if err := p.Hold(ctx); err != nil {
				t.Fatal(err)
			}
			w.terminate(t, "SELECT 1")
			if err := w.b.Publish(ctx, publishing(2)); err != nil {
				t.Fatal(err)
			}
			if asks {
				err := p.Hold(ctx)
				if !errors.Is(err, catalog.ErrUnavailable) {
					t.Errorf("Hold without the right: error %v, want ErrUnavailable", err)
				}
				return catalog.Published{}, err
			}
			return catalog.Published{Size: 1, Checkpoint: []byte("late")}, nil
		})
		if !errors.Is(err, catalog.ErrUnavailable) || errors.Is(err, catalog.ErrUncertain) {
			t.Errorf("Publish without the right: error %v, want ErrUnavailable and no doubt", err)
		}
		if size, note, err := w.b.Published(t.Context()); err != nil || size != 2 || string(note) != "2" {
			t.Errorf("published is %d, %q, %v", size, note, err)
		}
		if err := w.a.Publish(t.Context(), publishing(2)); err != nil {
			t.Errorf("the next time: %v", err)
		}
	}
}

func TestWhatIsPublishedIsSignalledAtOnce(t *testing.T) {
	t.Parallel()
	w := openTwo(t)
	signals := w.b.Watch(t.Context())
	<-signals // it listens
	var slowest time.Duration
	for range 20 {
		mustAppend(t, w.a)
		size, err := w.a.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := w.a.Publish(t.Context(), publishing(size)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		select {
		case <-signals:
		case <-time.After(patience):
			t.Fatal("no signal")
		}
		slowest = max(slowest, time.Since(began))
		if got, _, err := w.b.Published(t.Context()); err != nil || got != size {
			t.Fatalf("at the signal %d are published, %v, want %d", got, err, size)
		}
	}
	if slowest > 100*time.Millisecond {
		t.Errorf("a signal came after %s", slowest)
	}
}

func TestWatchSurvivesTheLossOfItsConnection(t *testing.T) {
	t.Parallel()
	w := openTwo(t)
	signals := w.b.Watch(t.Context())
	<-signals
	for size := int64(1); size <= 3; size++ {
		w.terminate(t, "LISTEN%")
		mustAppend(t, w.a)
		if err := w.a.Publish(t.Context(), publishing(size)); err != nil {
			t.Fatal(err)
		}
		// Whether or not it listened by then, it signals: when it does again.
		eventually(t, "it signals what was published", func() bool {
			<-signals
			got, _, err := w.b.Published(t.Context())
			return err == nil && got == size
		})
		eventually(t, "it listens", func() bool {
			var n int
			err := w.admin.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM pg_stat_activity
				WHERE datname = current_database() AND query LIKE 'LISTEN%'`).Scan(&n)
			return err == nil && n == 1
		})
	}
}

// Whoever publishes and then finds nobody unconfirmed knows that no replica goes
// by less: a replica that confirmed meanwhile either was found or has learnt of it.
func TestNobodyIsConfirmedBehindAPublisherSBack(t *testing.T) {
	t.Parallel()
	w := openTwo(t)
	w.ripen(t)
	const rounds = 100
	for range rounds {
		mustAppend(t, w.a)
	}
	for size := int64(1); size <= rounds; size++ {
		seen := size - 1
		var told catalog.Published
		var found []string
		var group sync.WaitGroup
		group.Go(func() {
			var err error
			if told, err = w.b.Confirm(t.Context(), "b", seen, lease); err != nil {
				t.Errorf("Confirm: %v", err)
			}
		})
		group.Go(func() {
			if err := w.a.Publish(t.Context(), publishing(size)); err != nil {
				t.Errorf("Publish: %v", err)
			}
			var err error
			if found, err = w.a.Unconfirmed(t.Context(), size); err != nil {
				t.Errorf("Unconfirmed: %v", err)
			}
		})
		group.Wait()
		if told.Size <= seen && !slices.Contains(found, "b") {
			t.Fatalf("b goes by %d entries with a lease, and the publisher of %d found %v", seen, size, found)
		}
		if err := w.b.Leave(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
	}
}

// The same, with the steps between which it could go wrong held still: the lease
// is written before the publication and becomes visible after it.
func TestALeaseThatBecomesVisibleLateIsNoLease(t *testing.T) {
	t.Parallel()
	w := openTwo(t)
	mustAppend(t, w.a)
	w.ripen(t)
	if _, err := w.b.Confirm(t.Context(), "b", 0, 0); err != nil {
		t.Fatal(err)
	}
	release := w.holdReplica(t)
	told := make(chan catalog.Published, 1)
	go func() {
		p, err := w.b.Confirm(t.Context(), "b", 0, lease)
		if err != nil {
			t.Errorf("Confirm: %v", err)
		}
		told <- p
	}()
	w.waiting(t, "INSERT INTO replica%")
	if err := w.a.Publish(t.Context(), publishing(1)); err != nil {
		t.Fatal(err)
	}
	if names, err := w.a.Unconfirmed(t.Context(), 1); err != nil || len(names) != 0 {
		t.Fatalf("unconfirmed are %v, %v", names, err)
	}
	release()
	if p := <-told; p.Size != 1 {
		t.Errorf("Confirm says that %d entries are published, and nobody waits for b", p.Size)
	}
}

// holdReplica locks the replica's row, so that Confirm stops in its first
// statement, behind what that reads.
func (w two) holdReplica(t *testing.T) (release func()) {
	t.Helper()
	tx, err := w.admin.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tx.Rollback() })
	if _, err := tx.ExecContext(t.Context(), "UPDATE replica SET seen = seen"); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
	}
}

// Without a lease nobody is told that all is well, also where the database is
// put back to an earlier state just then.
func TestConfirmNoticesThatTheDatabaseWasPutBack(t *testing.T) {
	t.Parallel()
	w := openTwo(t)
	mustAppend(t, w.a)
	if _, err := w.b.Confirm(t.Context(), "b", 0, lease); err != nil {
		t.Fatal(err)
	}
	if err := w.a.Publish(t.Context(), publishing(1)); err != nil {
		t.Fatal(err)
	}
	release := w.holdReplica(t)
	told := make(chan error, 1)
	go func() {
		_, err := w.b.Confirm(t.Context(), "b", 0, lease)
		told <- err
	}()
	w.waiting(t, "INSERT INTO replica%")
	if _, err := w.admin.ExecContext(t.Context(), "UPDATE published SET size = 0"); err != nil {
		t.Fatal(err)
	}
	release()
	if err := <-told; !errors.Is(err, catalog.ErrRestored) {
		t.Errorf("Confirm: error %v, want ErrRestored", err)
	}
	if _, err := w.a.Unconfirmed(t.Context(), 1); !errors.Is(err, catalog.ErrRestored) && !errors.Is(err, catalog.ErrUnavailable) {
		t.Errorf("Unconfirmed: error %v, want ErrRestored or, of a young session, ErrUnavailable", err)
	}
}

// A database that took another's place knows nothing of the leases that the
// other gave last, and ends all sessions: a young one does not know either.
func TestYoungSessionDoesNotKnowWhoIsUnconfirmed(t *testing.T) {
	t.Parallel()
	w := openTwo(t)
	w.ripen(t)
	began := time.Now()
	w.terminate(t, "DELETE FROM replica%") // a's session for leases
	_, err := w.a.Unconfirmed(t.Context(), 0)
	for errors.Is(err, catalog.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) && time.Since(began) < lease/2 {
		_, err = w.a.Unconfirmed(t.Context(), 0)
	}
	if err == nil {
		t.Errorf("a session of %s knows of leases of %s", time.Since(began), lease)
	}
	eventually(t, "it knows", func() bool { _, err := w.a.Unconfirmed(t.Context(), 0); return err == nil })
	if age := time.Since(began); age < lease {
		t.Errorf("a session of %s knows of leases of %s", age, lease)
	}
}

// lease is what the tests' replicas ask for.
const lease = 2 * time.Second

// ripen waits until a knows of all leases there can be.
func (w two) ripen(t *testing.T) {
	t.Helper()
	if _, err := w.a.Confirm(t.Context(), "a", 0, lease); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the session is old enough", func() bool { _, err := w.a.Unconfirmed(t.Context(), 0); return err == nil })
	if err := w.a.Leave(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
}

func TestFactsDoNotWaitForTheHead(t *testing.T) {
	t.Parallel()
	w := openTwo(t)
	now := time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // less than a lock is waited for
	defer cancel()
	err := w.a.Update(ctx, func(*catalog.Tx) error {
		_, err := w.b.UseAssertion(ctx, "did:key:a", "1", now.Add(time.Minute), now)
		return errors.Join(err, w.b.SetMeta(ctx, "key", "value"), w.b.AppendAudit(ctx, []catalog.AuditEntry{{What: "x"}}, 10),
			w.b.PutScan(ctx, catalog.Scan{CID: testEntry(0).Record}), w.b.Leave(ctx, "x"))
	})
	if err != nil {
		t.Error(err)
	}
}

// A transaction that the database undoes for the sake of another is done again.
func TestADeadlockIsOvercome(t *testing.T) {
	t.Parallel()
	w := openTwo(t)
	if err := errors.Join(w.a.SetMeta(t.Context(), "x", "1"), w.a.PutScan(t.Context(), catalog.Scan{CID: testEntry(0).Record})); err != nil {
		t.Fatal(err)
	}
	other, err := w.admin.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Rollback()
	exec := func(statement string) error {
		_, err := other.ExecContext(t.Context(), statement)
		return err
	}
	if err := errors.Join(exec("SET deadlock_timeout = '1h'"), exec("UPDATE scan SET detail = 'other'")); err != nil {
		t.Fatal(err) // the other never looks for deadlocks, so that the catalog is the one who is undone
	}
	calls := 0
	result := make(chan error, 1)
	err = w.a.Update(t.Context(), func(tx *catalog.Tx) error {
		calls++
		if calls == 1 {
			if err := errors.Join(tx.Condemn(t.Context(), []storage.CID{testEntry(1).Record}, time.Unix(1, 0)), sent(t, tx)); err != nil {
				return err
			}
			go func() { result <- exec("INSERT INTO condemned VALUES ('" + testEntry(1).Record.String() + "', 2)") }()
			w.waiting(t, "INSERT INTO condemned%")
		}
		head, err := tx.Head(t.Context())
		if err != nil {
			return err
		}
		err = errors.Join(tx.PutScan(t.Context(), catalog.Scan{CID: testEntry(0).Record, Detail: "ours"}), sent(t, tx))
		if calls == 1 {
			if err == nil {
				t.Error("there was no deadlock")
			}
			if err := errors.Join(<-result, other.Commit()); err != nil {
				t.Error(err)
			}
		}
		return errors.Join(err, tx.AppendEntry(t.Context(), testEntry(head)))
	})
	if err != nil || calls != 2 {
		t.Errorf("Update: %v after %d calls", err, calls)
	}
	if s, _, err := w.a.ScanOf(t.Context(), testEntry(0).Record); err != nil || s.Detail != "ours" {
		t.Errorf("the scan is %v, %v", s, err)
	}
}

// sent has the writes of tx sent, by a read that they might bear on.
func sent(t *testing.T, tx *catalog.Tx) error {
	_, _, err := tx.ScanOf(t.Context(), testEntry(7).Record)
	return err
}

func TestAuditTrailMovesToPostgres(t *testing.T) {
	t.Parallel()
	from, err := catalog.OpenSQLite(t.Context(), t.TempDir()+"/catalog.db")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	if err := from.AppendAudit(t.Context(), make([]catalog.AuditEntry, 1005), 1003); err != nil {
		t.Fatal(err)
	}
	to := openPostgres(t, testbed.SharedPostgres(t).URL)
	if n, err := to.CopyAudit(t.Context(), from); err != nil || n != 1003 {
		t.Fatalf("CopyAudit: %d, %v", n, err)
	}
	if err := to.AppendAudit(t.Context(), make([]catalog.AuditEntry, 2), 10); err != nil {
		t.Fatal(err)
	}
	entries, err := to.Audit(t.Context(), 1<<60, 20)
	if err != nil || len(entries) != 10 || entries[0].ID != 1007 || entries[9].ID != 998 {
		t.Errorf("the trail goes on with %v, %v", entries, err)
	}
	empty := openPostgres(t, testbed.SharedPostgres(t).URL)
	none, err := catalog.OpenSQLite(t.Context(), t.TempDir()+"/catalog.db")
	if err != nil {
		t.Fatal(err)
	}
	defer none.Close()
	n, err := empty.CopyAudit(t.Context(), none)
	if err := errors.Join(err, empty.AppendAudit(t.Context(), make([]catalog.AuditEntry, 1), 10)); err != nil || n != 0 {
		t.Errorf("of an empty trail: %d, %v", n, err)
	}
}
