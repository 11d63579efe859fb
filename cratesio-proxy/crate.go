package cratesioproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/storage"
)

const (
	mostFailed  = 10_000
	mostProven  = 50_000
	mismatchFor = 30 * time.Second // that a crate whose bytes were wrong is not asked for again
	mostRounds  = 3                // of looking whether it is held, and receiving it
)

// Crate is a crate's bytes: those held, or those that upstream is sending, of which the
// last are not read before all were seen to hash to the digest that was asked for.
type Crate struct {
	blob   storage.Blob
	reader *reader
}

// Size is the number of bytes: until all were seen to be the crate's what upstream says, -1 where it
// does not.
func (c *Crate) Size() int64 {
	if c.blob != nil {
		return c.blob.Size()
	}
	return c.reader.of.length()
}

// Held returns the blob where the crate is held, verified and to be read in any order; nil
// where it is being received. It is closed with the Crate.
func (c *Crate) Held() storage.Blob { return c.blob }

// Read implements io.Reader. An error other than io.EOF means that what was read before is
// not to be used: whoever passes it on cuts the connection. ErrMismatch is that of bytes
// that are not the crate's.
func (c *Crate) Read(p []byte) (int, error) {
	if c.blob != nil {
		return c.blob.Read(p)
	}
	return c.reader.Read(p)
}

// Whole waits until all bytes were seen to be the crate's, and reads them from the first on,
// however far Read is, and also after Close: it is closed by itself. It returns nil where the crate is Held.
func (c *Crate) Whole(ctx context.Context) (io.ReadCloser, error) {
	if c.blob != nil {
		return nil, nil
	}
	d := c.reader.of
	d.mu.Lock()
	d.readers++ // c is one of them, so it is not over yet
	d.mu.Unlock()
	r := &reader{ctx: ctx, of: d}
	if err := d.wait(ctx, stopGrace, func() bool { return d.verified }); err != nil {
		r.close()
		return nil, err
	}
	return &whole{io.NewSectionReader(d, 0, d.written), r}, nil
}

// Arrived is closed once all bytes were seen to be the crate's: whoever still reads then, however slowly,
// takes nothing of what others receive. It is nil where the crate is Held.
func (c *Crate) Arrived() <-chan struct{} {
	if c.blob != nil {
		return nil
	}
	return c.reader.of.arrived
}

// whole are a verified crate's bytes.
type whole struct {
	io.Reader
	reader *reader
}

// Close implements io.Closer.
func (w *whole) Close() error {
	w.reader.close()
	return nil
}

// Close ends this asker's interest. When the last one has left the reception goes on for
// Config.Linger, or until somebody needs its place, for one that comes again to find it; where
// more than half is there by then it goes on to its end, and is stored.
func (c *Crate) Close() error {
	if c.blob != nil {
		return c.blob.Close()
	}
	c.reader.close()
	return nil
}

// Crate returns a crate that is held, or begins or joins its reception: upstream is asked
// once however many ask here. It returns when upstream has answered: ErrNotFound, ErrRefused,
// ErrUnavailable and ErrBroken are those of its answer, and stand for a while; ErrMismatch, too.
// Where it is held, and damaged, it is received anew: they are ErrDamaged, too, then.
// ctx bounds the reading as well. Who may have it was judged before.
func (u *Upstream) Crate(ctx context.Context, w Want) (*Crate, error) {
	for range mostRounds {
		c, err := u.Open(ctx, w)
		if !errors.Is(err, storage.ErrNotFound) {
			return c, err
		}
		r, err := u.receive(ctx, w, func(r *reader) error { return u.patiently(ctx, r.begun) })
		if !errors.Is(err, errHeld) {
			return r, u.orDamaged(ctx, w, err)
		}
	}
	return nil, fmt.Errorf("%w: it is stored and removed again and again", ErrBusy)
}

// Open returns a crate that is held, and asks nobody for one that is not, or is damaged:
// storage.ErrNotFound.
func (u *Upstream) Open(ctx context.Context, w Want) (*Crate, error) {
	blob, err := u.open(ctx, w)
	if err != nil {
		return nil, err
	}
	u.proxy.counts.held.Add(1)
	u.proxy.notes.use(w.ID)
	return &Crate{blob: blob}, nil
}

// open opens a crate that is held. What is stored and was never served by this upstream is not:
// an index could name anybody's bytes, another upstream's say, and they would be served as its own.
func (u *Upstream) open(ctx context.Context, w Want) (storage.Blob, error) {
	if err := u.prove(ctx, w.ID); err != nil {
		return nil, err
	}
	since := u.proxy.damages.moment()
	blob, err := u.proxy.Blobs.Open(ctx, w.ID)
	if err != nil {
		return nil, u.whyUnopened(ctx, w, err, since)
	}
	if u.proxy.damages.has(w.ID) { // somebody has put it back
		u.proxy.damages.mend(w.ID)
	}
	return blob, nil
}

// stat is nil for a crate that is held: noted as such now, since what is opened may be on
// its way out, and not known to be damaged.
func (u *Upstream) stat(ctx context.Context, id storage.CID) error {
	ok, err := u.proxy.Facts.HasBlob(ctx, u.setting.Name, id)
	switch {
	case err != nil:
		return err
	case !ok, u.proxy.damages.has(id):
		return storage.ErrNotFound
	}
	_, err = u.proxy.Blobs.Stat(ctx, id)
	return err
}

// statAgain is stat after another look at what was damaged or is gone.
func (u *Upstream) statAgain(ctx context.Context, w Want) error {
	err := u.stat(ctx, w.ID)
	if !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	blob, err := u.open(ctx, w)
	if err != nil {
		return err
	}
	blob.Close()
	return u.stat(ctx, w.ID)
}

func (u *Upstream) prove(ctx context.Context, id storage.CID) error {
	if _, ok := u.proven.get(id); ok {
		return nil
	}
	ok, err := u.proxy.Facts.HasBlob(ctx, u.setting.Name, id)
	switch {
	case err != nil:
		return err
	case !ok:
		return storage.ErrNotFound
	}
	u.proven.put(id, struct{}{})
	return nil
}

// Hold is Crate for whoever needs it stored: it returns when the crate is held, durably. A
// crate that is held already is noted as used.
func (u *Upstream) Hold(ctx context.Context, w Want) error {
	for range mostRounds {
		err := u.statAgain(ctx, w)
		if err == nil {
			u.proxy.notes.use(w.ID)
			return nil
		}
		if !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		c, err := u.receive(ctx, w, func(r *reader) error { return r.begun(ctx) })
		if err == nil {
			err = c.reader.stored(ctx)
			c.reader.close()
		}
		if !errors.Is(err, errHeld) {
			return u.orDamaged(ctx, w, err)
		}
	}
	return fmt.Errorf("%w: it is stored and removed again and again", ErrBusy)
}

// receive joins the reception of a crate that is not held, and returns once it has begun.
func (u *Upstream) receive(ctx context.Context, w Want, begun func(*reader) error) (*Crate, error) {
	if err := u.checkWant(w); err != nil {
		return nil, err
	}
	if r, there := u.downloads.failed.get(w.ID); there && u.proxy.Clock().Before(r.until) {
		u.proxy.counts.rested.Add(1)
		return nil, r.err
	}
	d := u.joinDownload(w)
	if d == nil {
		return nil, errClosed
	}
	r := &reader{ctx: ctx, of: d}
	if err := begun(r); err != nil {
		r.close()
		return nil, err
	}
	return &Crate{reader: r}, nil
}

func (u *Upstream) checkWant(w Want) error {
	if cargo.ValidateName(w.Name) != nil || w.ID.IsZero() {
		return u.say(ErrNotFound)
	}
	if _, err := cargo.ParseVersion(w.Version); err != nil {
		return u.say(ErrNotFound)
	}
	if u.proxy.Offline {
		return u.say(ErrOffline)
	}
	if u.proxy.Evidence.PrivateName(cargo.CanonicalName(w.Name)) {
		return u.say(ErrNotFound)
	}
	return nil
}

// downloads are the crates being received.
type downloads struct {
	mu     sync.Mutex // taken before a download's own
	all    map[storage.CID]*download
	failed *recent[storage.CID, rest]
}

// joinDownload returns the one of w with one more reader, nil when the proxy is closed, or
// about to be and there is none.
func (u *Upstream) joinDownload(w Want) *download {
	u.downloads.mu.Lock()
	defer u.downloads.mu.Unlock()
	if d, ok := u.downloads.all[w.ID]; ok {
		u.proxy.counts.joined.Add(1)
		d.join()
		return d
	}
	if u.proxy.isStopping() {
		return nil
	}
	d := &download{u: u, want: w, size: -1, readers: 1, changed: make(chan struct{}), arrived: make(chan struct{})}
	ctx, cancel := context.WithCancelCause(u.proxy.ctx)
	d.cancel = cancel
	if !u.proxy.tasks.begin(func() { defer cancel(nil); d.run(ctx) }) {
		cancel(nil)
		return nil
	}
	u.downloads.all[w.ID] = d
	return d
}

// reader is one asker's place in a download.
type reader struct {
	ctx    context.Context
	of     *download
	offset int64
	once   sync.Once
}

// begun waits until upstream has answered.
func (r *reader) begun(ctx context.Context) error {
	return r.of.wait(ctx, 0, func() bool { return r.of.started })
}

// stored waits until the crate is held.
func (r *reader) stored(ctx context.Context) error {
	var unstored error
	if err := r.of.wait(ctx, 0, func() bool { unstored = r.of.unstored; return r.of.over }); err != nil {
		return err
	}
	return unstored
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	d := r.of
	var most int64
	var end bool
	if err := d.wait(r.ctx, stopGrace, func() bool {
		most = min(d.readable()-r.offset, int64(len(p)))
		end = d.verified && r.offset == d.written
		d.given = d.given || most > 0
		return most > 0 || end
	}); err != nil {
		return 0, err
	}
	if end {
		return 0, io.EOF
	}
	n, err := d.ReadAt(p[:most], r.offset)
	r.offset += int64(n)
	if int64(n) == most {
		err = nil
	}
	return n, err
}

func (r *reader) close() { r.once.Do(r.of.leave) }
