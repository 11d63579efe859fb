package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// What other replicas publish is shown here when the catalog tells of it, or when it is
// looked for, which is often enough for all to show it within a second without being told.
const (
	lookEvery = 400 * time.Millisecond
	// lookWithin bounds a look, askWithin how long somebody waits for one.
	lookWithin = 5 * time.Second
	askWithin  = 2 * time.Second
)

// follower is how others have what is published looked for at once.
type follower struct {
	asked chan chan struct{}
	// looked is when the database last said what is published, failing that it does not now.
	looked  atomic.Pointer[moment]
	failing atomic.Bool
	// keyless: the key that signs the log is not in this server's key file.
	keyless atomic.Bool
	// known is the largest size that the database said to be published.
	known atomic.Int64
	// moved tells that more is shown of what others published.
	moved chan struct{}
}

// askedAtOnce is how many may wait for one look.
const askedAtOnce = 256

func newFollower(c Config) *follower {
	if !c.Catalog.Shared() {
		return nil
	}
	return &follower{asked: make(chan chan struct{}, askedAtOnce), moved: make(chan struct{}, 1)}
}

// follow shows what others publish until ctx ends.
func (r *Registry) follow(ctx context.Context) {
	told, tick := r.Catalog.Watch(ctx), time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		var waiting []chan struct{}
		select {
		case <-ctx.Done():
			return
		case _, ok := <-told:
			if !ok { // the catalog has been closed
				told = nil
				continue
			}
			if r.landing.Load() { // it tells of what is being shown anyhow
				continue
			}
		case <-tick.C:
		case first := <-r.follower.asked:
			waiting = append(waiting, first)
		}
		// Whoever has asked by now is answered by the look that begins now.
		for len(r.follower.asked) > 0 {
			waiting = append(waiting, <-r.follower.asked)
		}
		err := r.lookNow(ctx)
		for _, one := range waiting {
			close(one)
		}
		if ctx.Err() == nil {
			r.noteLook(err)
			r.noteLogKey()
		}
	}
}

func (r *Registry) noteLook(err error) {
	if failing := err != nil; failing != r.follower.failing.Swap(failing) && failing {
		r.Log.Warn("what other replicas publish is not shown here at present", "error", err)
	}
	r.haltIf(err)
}

// noteLogKey tells when another replica has entered settings whose log key this one's
// file lacks: it takes no changes from then on.
func (r *Registry) noteLogKey() {
	_, err := r.Keys.signers(r.Settings(), r.Clock())
	if keyless := err != nil; keyless != r.follower.keyless.Swap(keyless) && keyless {
		r.Log.Warn("this server cannot sign the log, and is not ready", "error", err)
	}
}

// lookNow shows what is published by now.
func (r *Registry) lookNow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	shown := r.published.Load()
	size, note, err := r.Catalog.Published(ctx)
	if err != nil {
		return err
	}
	return r.look(ctx, shown, catalog.Published{Size: size, Checkpoint: note})
}

// look shows p, which the catalog said to be published after shown was shown here. It is
// believed only as far as this process would have signed it: the log's signature, the
// root over the catalog's own entries, and over those that were shown before. So p is
// never smaller; where it is, the database was put back to an earlier state, and what
// was shown to people is in blob storage alone: ErrBehind. A root that differs is ErrFork.
func (r *Registry) look(ctx context.Context, shown *checkpoint, p catalog.Published) error {
	now := r.moment()
	if r.follower != nil {
		r.follower.looked.Store(&now)
		r.follower.known.Store(p.Size)
	}
	switch {
	case p.Size < shown.Size:
		return putBack(shown.Size, p.Size)
	case p.Size == shown.Size && bytes.Equal(p.Checkpoint, shown.note):
		return nil
	}
	cp, err := r.believed(ctx, &r.Catalog.Reader, p)
	if err != nil {
		return err
	}
	if err := r.extends(ctx, shown, cp); err != nil {
		return err
	}
	if err := r.showCheckpoint(ctx, cp); err != nil {
		return err
	}
	if r.follower != nil {
		select {
		case r.follower.moved <- struct{}{}:
		default: // told already
		}
	}
	return nil
}

// holdShown holds what others published against blob storage, once it is shown here, until
// ctx ends. Whose blob storage is another than theirs would enter records that the log's
// own never gets; and it is noticed by nothing else before it publishes.
func (r *Registry) holdShown(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.follower.moved:
		}
		asked, cancel := context.WithTimeout(ctx, confirmWithin)
		err := r.notLost(asked)
		cancel()
		r.haltIf(err)
	}
}

// believed is what p says, if that is what the catalog's entries say.
func (r *Registry) believed(ctx context.Context, reader *catalog.Reader, p catalog.Published) (*checkpoint, error) {
	cp, err := r.readCheckpoint(ctx, reader, p.Checkpoint)
	if errors.Is(err, errNote) {
		return nil, fmt.Errorf("%w: %v", ErrFork, err)
	}
	if err != nil {
		return nil, err
	}
	root, err := translog.TreeHash(cp.Size, storedHashes(ctx, reader))
	if err != nil {
		return nil, err
	}
	if cp.Size != p.Size || cp.Root != root {
		return nil, fmt.Errorf("%w: the catalog's published checkpoint, signed by this log, says %d entries with root %s; the catalog's first %d entries have root %s",
			ErrFork, cp.Size, cp.Root, p.Size, root)
	}
	return cp, nil
}

// extends holds cp, which is what the catalog's entries say, against what was shown before.
func (r *Registry) extends(ctx context.Context, shown, cp *checkpoint) error {
	root := cp.Root
	if shown.Size < cp.Size {
		var err error
		if root, err = translog.TreeHash(shown.Size, storedHashes(ctx, &r.Catalog.Reader)); err != nil {
			return err
		}
	}
	if root != shown.Root {
		return fmt.Errorf("%w: this server has shown %d entries with root %s, the catalog's first %d entries have root %s now", ErrFork, shown.Size, shown.Root, shown.Size, root)
	}
	return nil
}

// catchUp shows, where others may publish, all that was published when it was called, if
// the database says so soon. It reports whether that was more than at.
func (r *Registry) catchUp(ctx context.Context, at int64) bool {
	switch {
	case r.follower == nil:
		return false
	case r.follower.failing.Load():
		return r.Size() > at
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	answer := make(chan struct{})
	select {
	case r.follower.asked <- answer:
	case <-ctx.Done():
		return r.Size() > at
	case <-r.running.Done():
		return r.Size() > at
	}
	select {
	case <-answer:
	case <-ctx.Done():
	case <-r.running.Done():
	}
	return r.Size() > at
}

// caughtUp does f again where its error says that it lacks something, and this server did
// not show yet what another may have told the asker of: behind one address there are all of them.
func caughtUp[T any](ctx context.Context, r *Registry, lacks func(error) bool, f func() (T, error)) (T, error) {
	at := r.Size()
	v, err := f()
	if !lacks(err) || !r.catchUp(ctx, at) {
		return v, err
	}
	return f()
}

func isNotFound(err error) bool { return errors.Is(err, ErrNotFound) }
