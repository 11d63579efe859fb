//go:build unix

package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"phoenix-lab.org/aln-registry/integration/testbed"
)

// watch asks r for the holder of token all the time until stop is called; stop says how
// long after told the holder was let in for the last time, 0 for not.
func watch(r *replica, token string, told *atomic.Int64) (stop func() time.Duration) {
	ended, late := make(chan struct{}), make(chan time.Duration)
	go func() {
		last := time.Duration(0)
		for {
			select {
			case <-ended:
				late <- last
				return
			default:
			}
			since := told.Load() // before the question: what was told by then counts
			if refuses(r, token) != nil && since != 0 {
				last = max(last, time.Since(time.Unix(0, since)))
			}
			time.Sleep(time.Millisecond)
		}
	}()
	return func() time.Duration {
		close(ended)
		return <-late
	}
}

// A replica that the database does not hear any more is waited for until it answers nobody;
// the sequencer is not held up by that. When it hears again it knows the removed member
// for one.
func TestAReplicaThatIsCutOffStopsBeforeOthersStopWaiting(t *testing.T) {
	t.Parallel()
	g := newGroup(t)
	a := g.replica("a")
	b, proxy := g.behindProxy("b")
	p := newPerson(t)
	g.admit(a, p)
	token := g.session(b, p)
	if err := refuses(b, token); err == nil {
		t.Fatal("a member is refused")
	}
	var told atomic.Int64
	stop := watch(b, token, &told)
	proxy.Use(testbed.Plan{Apart: true})
	begun := time.Now()
	removed := make(chan error, 1)
	go func() {
		err := g.remove(a, p)
		told.Store(time.Now().UnixNano())
		removed <- err
	}()
	time.Sleep(500 * time.Millisecond)
	if err := refuses(a, g.session(a, person{g.admin})); err == nil {
		t.Error("the admin is refused here")
	}
	for i := range 3 {
		u, begun := newUpload(fmt.Sprint("meanwhile", i)), time.Now()
		if _, err := g.publish(a.Registry, u); err != nil || time.Since(begun) > 2*time.Second {
			t.Errorf("a publish meanwhile: %v after %s", err, time.Since(begun))
		}
	}
	select {
	case err := <-removed:
		t.Fatalf("the removal was acknowledged after %s: %v", time.Since(begun), err)
	default:
	}
	if err := <-removed; err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > leaseFor+3*time.Second {
		t.Errorf("the removal took %s", took)
	}
	if err := b.Current(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("the other replica goes on: %v", err)
	}
	if err := b.Ready(context.Background()); err == nil {
		t.Error("it says that it is ready")
	}
	if _, err := b.Checkpoint(context.Background()); err != nil {
		t.Errorf("the log is refused too: %v", err)
	}
	time.Sleep(300 * time.Millisecond)
	proxy.Use(testbed.Plan{})
	eventually(t, 20*time.Second, b.Current)
	if err := refuses(b, token); err != nil {
		t.Error(err)
	}
	if late := stop(); late > 0 {
		t.Errorf("the removed member was let in %s after the acknowledgement", late)
	}
	g.oneLog(nil, a, b)
}

// The same where only the confirmations of the other hang, while it shows everything: it
// is waited for all the same, since nobody knows.
func TestAReplicaThatCannotConfirmIsWaitedFor(t *testing.T) {
	t.Parallel()
	g := newGroup(t)
	a, b := g.replica("a"), g.replica("b")
	p := newPerson(t)
	g.admit(a, p)
	db, err := sql.Open("pgx", g.url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	eventually(t, time.Second, func() error { // it is between two confirmations
		return holdLease(t, db, b.lease.replica)
	})
	begun := time.Now()
	if err := g.remove(a, p); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took < confirmedFor-confirmEvery || took > leaseFor+3*time.Second {
		t.Errorf("the removal took %s", took)
	}
	if err := b.Current(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("who cannot confirm answers: %v", err)
	}
	if b.Size() != a.Size() {
		t.Errorf("it shows %d of %d entries", b.Size(), a.Size())
	}
}

// holdLease keeps a replica's row locked until the test ends.
func holdLease(t *testing.T, db *sql.DB, name string) error {
	tx, err := db.BeginTx(context.Background(), nil)
	if err != nil {
		return err
	}
	var seen int64
	if err := tx.QueryRow("SELECT seen FROM replica WHERE name = $1 FOR UPDATE NOWAIT", name).Scan(&seen); err != nil {
		tx.Rollback()
		return err
	}
	t.Cleanup(func() { tx.Rollback() })
	return nil
}

// Who closes a replica, or waits for a database that is gone, is not kept for ever: what is
// entered and not acknowledged is told as that.
func TestAnActThatNobodyConfirmsIsToldAsEntered(t *testing.T) {
	t.Parallel()
	g := newGroup(t)
	a, b := g.replica("a"), g.replica("b")
	p := newPerson(t)
	g.admit(a, p)
	db, err := sql.Open("pgx", g.url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	eventually(t, time.Second, func() error { return holdLease(t, db, b.lease.replica) })
	removed := make(chan error, 1)
	go func() { removed <- g.remove(a, p) }()
	eventually(t, 5*time.Second, func() error {
		if b.Size() < 4 {
			return fmt.Errorf("%d entries", b.Size())
		}
		return nil
	})
	a.Close()
	if err := <-removed; !errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrUnpublished) {
		t.Errorf("%v", err)
	}
}
