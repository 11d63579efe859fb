package registry

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"phoenix-lab.org/aln-registry/storage/catalog"
)

// Several replicas answer by what each of them shows. Who changes an authority is
// told so only when every replica shows it, or answers nothing any more that is
// judged by it. That rests on a lease in the catalog, which a replica gets, for
// leaseFor by the database's clock, when it has seen all that is published. It goes
// by it for the shorter confirmedFor, by its own clocks and from before it asked;
// and whoever acknowledges waits for those who have a lease and have not seen the change
// (awaitSeen). So a replica that is cut off, or stuck, stops by itself before others
// stop waiting for it, as long as its clocks do not run a fifth slower than the
// database's (docs/SECURITY.md).
const (
	leaseFor     = 6 * time.Second
	confirmedFor = 5 * time.Second
	confirmEvery = time.Second
	// confirmWithin bounds one question to the database.
	confirmWithin = 3 * time.Second
	// checkEvery is after how many confirmations the catalog is held against blob storage:
	// one that was put back to what this replica shows itself looks like any other.
	checkEvery = 30
	// confirmTries is how often it is asked anew at once while others go on publishing.
	confirmTries = 20
	// seenWithin bounds the waiting for other replicas: their leases end before it does, and
	// what a new session with the database does not know of them is over.
	seenWithin = 2*leaseFor + 3*time.Second
)

// ErrUnconfirmed is told to who would be judged by what may be out of date. It is an
// ErrUnavailable.
var ErrUnconfirmed = fmt.Errorf("%w: this replica does not know whether it shows all that was acknowledged; its database has not said so for %s", ErrUnavailable, confirmedFor)

// lease is what a replica of a shared catalog knows of its own.
type lease struct {
	// replica is the name of this process, and of no other.
	replica string
	// confirmed is the moment from which confirmedFor counts, nil for none.
	confirmed atomic.Pointer[moment]
	// ended: nothing confirms any more.
	ended atomic.Bool
	// soon asks for a confirmation before the next one is due: others may wait for it.
	soon chan struct{}
}

// moment is a time by both clocks: one of them may stand still while a computer sleeps
// or is paused, the other may be set.
type moment struct {
	elapsed time.Duration
	clock   time.Time
}

// moment is now. What time.Now knows of the steady clock is left out of the other: between
// two such times that alone would count.
func (c *Config) moment() moment { return moment{c.Elapsed(), c.Clock().Round(0)} }

// within reports whether no more than d has passed since m, by either clock.
func (c *Config) within(m moment, d time.Duration) bool {
	return c.Elapsed()-m.elapsed < d && c.Clock().Sub(m.clock).Abs() < d
}

// newLease makes the lease of this process, nil where no other writes the catalog.
// The name ends in what no other process has: two of one name would vouch for one another.
func newLease(c Config) (*lease, error) {
	if !c.Catalog.Shared() {
		return nil, nil
	}
	if c.Replica == "" {
		return nil, errors.New("a catalog that several servers may share needs a name for this one")
	}
	var unique [8]byte
	if _, err := io.ReadFull(c.Rand, unique[:]); err != nil {
		return nil, fmt.Errorf("read randomness: %w", err)
	}
	return &lease{replica: c.Replica + "/" + hex.EncodeToString(unique[:]), soon: make(chan struct{}, 1)}, nil
}

// Current is nil while this server shows all that was acknowledged about who may see
// what: always, where it has the catalog for itself. Else it is ErrUnconfirmed, and
// whatever policy judges is refused. What it allows, has to be decided within a second.
func (r *Registry) Current() error {
	if r.lease == nil {
		return nil
	}
	if at := r.lease.confirmed.Load(); at != nil && r.within(*at, confirmedFor) && !r.lease.ended.Load() {
		return nil
	}
	return ErrUnconfirmed
}

// heartbeat confirms what this replica shows until ctx ends.
func (r *Registry) heartbeat(ctx context.Context) {
	tick := time.NewTicker(confirmEvery)
	defer tick.Stop()
	failing := false
	for beat := 1; ; beat++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-r.lease.soon:
		}
		err := r.confirm(ctx)
		if err == nil && beat%checkEvery == 0 {
			_, err = r.showsStored(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		r.haltIf(err)
		if (err != nil) != failing {
			failing = err != nil
			r.noteConfirming(err)
		}
	}
}

func (r *Registry) noteConfirming(err error) {
	if err == nil {
		r.Log.Info("this replica knows again that it shows all that was acknowledged")
		return
	}
	r.Log.Warn("this replica cannot confirm that it shows all that was acknowledged; without that it answers for a few seconds only", "error", err)
}

// confirm asks the database to note that this replica shows all there is. Where others
// have published more meanwhile, it shows that and asks again.
func (r *Registry) confirm(ctx context.Context) error {
	for try := range confirmTries {
		renewing := r.Current() == nil
		shown, at := r.published.Load(), r.moment()
		p, err := r.askToConfirm(ctx, shown.Size)
		if err != nil {
			return err
		}
		if p.Size == shown.Size {
			// Who had no lease meanwhile may be behind what was acknowledged without it, and
			// a database that was put back meanwhile would not tell.
			whole := renewing && r.Current() == nil
			if !whole {
				if whole, err = r.showsStored(ctx); err != nil {
					return err
				}
			}
			if whole {
				r.lease.confirmed.Store(&at)
				return nil
			}
		} else if err := r.look(ctx, shown, p); err != nil {
			return err
		}
		if err := pause(ctx, time.Duration(try)*time.Millisecond); err != nil {
			return err
		}
	}
	return errors.New("others publish faster than this replica can follow")
}

// showsStored reports whether this replica shows all that has a checkpoint in blob storage,
// and so all that was acknowledged. What another is about to publish, or what one that
// ended has left, is shown soon; what the catalog has not got any more is ErrBehind, and
// what blob storage has not got any more ErrLost.
func (r *Registry) showsStored(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, confirmWithin)
	defer cancel()
	if err := r.notLost(ctx); err != nil {
		return false, err
	}
	stored, err := lastCheckpoint(ctx, r.Blobs, r.Size())
	if err != nil || stored <= r.Size() {
		return err == nil, err
	}
	head, err := r.Catalog.Head(ctx)
	if err == nil && head < stored {
		err = fmt.Errorf("%w (catalog: %d entries; blob storage: checkpoint of %d)", ErrBehind, head, stored)
	}
	return false, err
}

func (r *Registry) askToConfirm(ctx context.Context, seen int64) (catalog.Published, error) {
	ctx, cancel := context.WithTimeout(ctx, confirmWithin)
	defer cancel()
	return r.Catalog.Confirm(ctx, r.lease.replica, seen, leaseFor)
}

// confirmSoon has others not wait for the next beat; it never waits.
func (l *lease) confirmSoon() {
	if l == nil {
		return
	}
	select {
	case l.soon <- struct{}{}:
	default: // asked already
	}
}

// end makes the replica refuse what is judged, from now on.
func (l *lease) end() {
	if l != nil {
		l.ended.Store(true)
	}
}

// leave gives the lease back, so that nobody waits for a replica that has ended. What
// it cannot give back runs out by itself.
func (r *Registry) leave(ctx context.Context) {
	if r.lease == nil {
		return
	}
	r.lease.end()
	ctx, cancel := context.WithTimeout(ctx, confirmWithin)
	defer cancel()
	if err := r.Catalog.Leave(ctx, r.lease.replica); err != nil {
		r.Log.Warn("other replicas were not told that this one has ended; they wait for it for some seconds more", "error", err)
	}
}

// awaitSeen returns nil when every replica shows the first size entries, or answers
// nothing any more that is judged by what it shows. That takes as long as a lease at
// most: nobody gets a new one without having seen them. Who is asked has published them.
func (r *Registry) awaitSeen(ctx context.Context, size int64) error {
	begun := r.Elapsed()
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		behind, err := r.unconfirmed(ctx, size)
		if err == nil && len(behind) == 0 {
			return nil
		}
		if r.Elapsed()-begun > seenWithin || errors.Is(err, catalog.ErrRestored) {
			if err == nil {
				err = fmt.Errorf("replicas %q have not shown it", behind)
			}
			return err
		}
		if stopped := pause(ctx, wait); stopped != nil {
			return stopped
		}
	}
}

// unconfirmed are the other replicas that have not seen size and may still answer.
func (r *Registry) unconfirmed(ctx context.Context, size int64) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, confirmWithin)
	defer cancel()
	names, err := r.Catalog.Unconfirmed(ctx, size)
	return slices.DeleteFunc(names, func(name string) bool { return name == r.lease.replica }), err
}

// pause waits for d, or until ctx ends, which is its error.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
