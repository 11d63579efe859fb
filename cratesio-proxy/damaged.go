package cratesioproxy

import (
	"context"
	"errors"
	"sync"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// What is held may rot on storage, or be taken away there. A crate that is found so by who opens
// it is fetched anew, as if it were not held, and stored in place of what is there.

const (
	mostDamaged = 10_000
	// statTime is how long a store that did not give a crate is asked whether it has it. One that
	// is away has had its time for that, and who asks waits for both: cargo gives up after 30 seconds.
	statTime = 2 * time.Second
)

// damages are the held crates that were found damaged, and not stored anew since.
type damages struct {
	mu    sync.Mutex
	found *recent[storage.CID, struct{}]
	// mended grows with every crate that was stored, and stored is what it was then.
	mended int64
	stored *recent[storage.CID, int64]
}

func newDamages() *damages {
	return &damages{found: newRecent[storage.CID, struct{}](mostDamaged), stored: newRecent[storage.CID, int64](mostDamaged)}
}

// moment is before something is opened.
func (d *damages) moment() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mended
}

// note notes that id was found damaged since a moment. Nothing is known where it was stored since,
// by what is remembered of that; first: nobody had found it so before. What else was stored says
// nothing: a store may take long to say that something is damaged, and others come meanwhile.
func (d *damages) note(id storage.CID, since int64) (known, first bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at, _ := d.stored.get(id); at > since || d.mended-since >= mostDamaged {
		return false, false
	}
	_, had := d.found.get(id)
	d.found.put(id, struct{}{})
	return true, !had
}

func (d *damages) has(id storage.CID) bool {
	_, ok := d.found.get(id)
	return ok
}

// mend notes that id was stored, or read to its end, and reports whether it had been damaged.
func (d *damages) mend(id storage.CID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	had := d.has(id)
	d.found.drop(id)
	d.mended++
	d.stored.put(id, d.mended)
	return had
}

// whyUnopened is what err means, of opening a crate that is noted as held: storage.ErrNotFound
// where it is damaged, so that it is fetched anew, or not held any more.
func (u *Upstream) whyUnopened(ctx context.Context, w Want, err error, since int64) error {
	asked, cancel := context.WithTimeout(ctx, statTime)
	_, missing := u.proxy.Blobs.Stat(asked, w.ID)
	cancel()
	switch {
	case errors.Is(err, storage.ErrCorrupt):
	case errors.Is(err, storage.ErrNotFound) && errors.Is(missing, storage.ErrNotFound):
		// Who makes room takes the note away first.
		u.proven.drop(w.ID)
		if ok, failed := u.proxy.Facts.HasBlob(ctx, u.setting.Name, w.ID); failed != nil || !ok {
			return errors.Join(failed, err)
		}
	case errors.Is(err, storage.ErrNoRoom):
		return err
	case errors.Is(err, storage.ErrUnavailable) && missing == nil:
		// The store is there, and does not give this: so says MinIO, for ever, of what has
		// rotted on its disks. If it was only busy, what is fetched is what it has.
	default:
		return err
	}
	if known, first := u.proxy.damages.note(w.ID, since); known && first {
		u.proxy.counts.damaged.Add(1)
		u.proxy.Log.Error("a crate of an upstream that is held is damaged on storage; it is fetched anew, where upstream is asked and has it",
			"upstream", u.setting.Name, "crate", w.Name, "version", w.Version, "blob", w.ID.String(), "error", err)
	}
	return storage.ErrNotFound
}

// orDamaged is err, of receiving a crate; where what is held of it is damaged that is said too.
func (u *Upstream) orDamaged(ctx context.Context, w Want, err error) error {
	if err == nil || ctx.Err() != nil || errors.Is(err, errHeld) || !u.proxy.damages.has(w.ID) {
		return err
	}
	if ok, failed := u.proxy.Facts.HasBlob(ctx, u.setting.Name, w.ID); failed == nil && !ok { // somebody has let it go
		u.proxy.damages.mend(w.ID)
		return err
	}
	return &damagedError{err}
}

// damagedError is ErrDamaged, and why the crate cannot be fetched anew.
type damagedError struct{ why error }

func (e *damagedError) Error() string {
	why := words(e.why)
	if errors.Is(e.why, ErrOffline) { // which says that it is not held
		why = "this registry asks no upstream"
	}
	return ErrDamaged.Error() + ", and it cannot be fetched anew: " + why
}

func (e *damagedError) Unwrap() []error { return []error{ErrDamaged, e.why} }
