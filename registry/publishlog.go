package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// storedHashes reads the log's hashes from the catalog.
func storedHashes(ctx context.Context, reader *catalog.Reader) tlog.HashReader {
	return tlog.HashReaderFunc(func(positions []int64) ([]tlog.Hash, error) {
		plain, err := reader.Hashes(ctx, positions)
		if err != nil {
			return nil, err
		}
		hashes := make([]tlog.Hash, len(plain))
		for i, h := range plain {
			hashes[i] = h
		}
		return hashes, nil
	})
}

// publish makes everything committed visible, whoever entered it: entry objects in index
// order, then the checkpoint object, then the published row. Each step repeats
// harmlessly, so a crash between any two is mended by the next call, here or in another
// replica.
func (r *Registry) publish(ctx context.Context) error {
	return r.publishing(ctx, func(ctx context.Context, p *catalog.Publication) (catalog.Published, error) {
		head, err := r.Catalog.Head(ctx)
		if err != nil || head == p.Now().Size {
			return p.Now(), err
		}
		return r.extend(ctx, p, head)
	})
}

// publishing has the catalog publish what f returns, while nobody else publishes, and
// shows it; what others published is looked at like all that is theirs. f may be called
// again, also after what it returned was published.
func (r *Registry) publishing(ctx context.Context, f func(context.Context, *catalog.Publication) (catalog.Published, error)) error {
	shown := r.published.Load() // before what is published is read: that is no less
	var next catalog.Published
	ours := false
	defer r.landing.Store(false)
	err := r.Catalog.Publish(ctx, func(ctx context.Context, p *catalog.Publication) (_ catalog.Published, err error) {
		if shown != nil && p.Now().Size < shown.Size {
			return catalog.Published{}, fmt.Errorf("%w: its database shows %d entries, this server has shown %d: it was put back to an earlier state", ErrBehind, p.Now().Size, shown.Size)
		}
		if next, err = f(ctx, p); err != nil {
			return catalog.Published{}, err
		}
		ours = !bytes.Equal(next.Checkpoint, p.Now().Checkpoint)
		r.landing.Store(ours)
		return next, nil
	})
	switch {
	case err != nil:
		return err
	case ours || shown == nil && next.Size > 0:
		return r.show(ctx, next.Checkpoint)
	case next.Size > 0:
		return r.look(ctx, shown, next)
	}
	return nil
}

// extend stores the entries that are not published yet, and the checkpoint of size head,
// and is what to publish. Nobody else is doing that.
func (r *Registry) extend(ctx context.Context, p *catalog.Publication, head int64) (catalog.Published, error) {
	ahead := make(chan error, 1)
	if r.Catalog.Shared() { // it may have been put back under us; meanwhile, since it takes as long as to store an entry
		go func() { ahead <- r.notAhead(ctx) }()
	} else {
		ahead <- nil
	}
	if err := errors.Join(r.storeEntries(ctx, p, head), <-ahead); err != nil {
		return catalog.Published{}, err
	}
	root, err := translog.TreeHash(head, storedHashes(ctx, &r.Catalog.Reader))
	if err != nil {
		return catalog.Published{}, err
	}
	after, err := r.cosignedAt(ctx, p.Now())
	if err != nil {
		return catalog.Published{}, err
	}
	note, err := r.storeCheckpoint(ctx, translog.Checkpoint{Origin: string(r.origin), Size: head, Root: root}, after)
	return catalog.Published{Size: head, Checkpoint: note}, err
}

// holdEvery is how often the right to publish is held on to.
const holdEvery = 2 * time.Second

// storeEntries writes the entry objects from what is published to the head, one after
// another: at no moment is one stored without all before it, which is what a rebuild
// from blob storage alone goes by. An object that is there with other bytes is a fork.
func (r *Registry) storeEntries(ctx context.Context, p *catalog.Publication, to int64) error {
	const page = 256
	held := r.Elapsed()
	for from := p.Now().Size; from < to; from += page {
		entries, err := r.Catalog.Entries(ctx, from, min(from+page, to))
		if err != nil {
			return err
		}
		for _, e := range entries {
			err := r.Blobs.Create(ctx, translog.EntryKey(e.Index), e.Bytes)
			if errors.Is(err, storage.ErrExists) {
				return r.forkedEntry(ctx, e)
			}
			if err != nil {
				return err
			}
			// Who has lost the right does no harm, since others store the same bytes, but
			// works in vain.
			if now := r.Elapsed(); now-held > holdEvery {
				held = now
				if err := p.Hold(ctx); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// forkedEntry names both entries that stand under one index. Both are kept where
// they are, in blob storage and in the catalog, for whoever has to find out why.
func (r *Registry) forkedEntry(ctx context.Context, e catalog.Entry) error {
	stored, err := r.Blobs.Read(ctx, translog.EntryKey(e.Index))
	if err != nil {
		return fmt.Errorf("%w: entry %d is stored with other bytes, which cannot be read: %w", ErrFork, e.Index, err)
	}
	return fmt.Errorf("%w: blob storage has %s with the leaf hash %s, the catalog's entry %d has %s; both are kept as they are",
		ErrFork, translog.EntryKey(e.Index), translog.LeafHash(stored), e.Index, translog.LeafHash(e.Bytes))
}

// storeCheckpoint signs and stores the checkpoint object. One of this size that
// is stored already (a crash came after it, or the answer was lost) must be ours
// and of the same root; what is published is the note made now. The stored one may
// have been cosigned before a smaller one that was shown meanwhile, and what is
// cosigned later says that nothing larger is known (C2SP tlog-cosignature). after is when
// what is published was cosigned, perhaps by a clock that is ahead of ours.
func (r *Registry) storeCheckpoint(ctx context.Context, cp translog.Checkpoint, after time.Time) ([]byte, error) {
	settings, err := r.settingsAt(ctx, cp.Size)
	if err != nil {
		return nil, err
	}
	note, err := r.sign(cp, settings, r.signingTime(after))
	if err != nil {
		return nil, err
	}
	key := translog.CheckpointKey(cp.Size)
	err = r.Blobs.Create(ctx, key, note)
	if !errors.Is(err, storage.ErrExists) {
		return note, err
	}
	stored, err := r.Blobs.Read(ctx, key)
	if err != nil {
		return nil, err
	}
	return note, r.checkNote(ctx, key, stored, cp.Size, cp.Root)
}

// signingTime is now, but not before after nor the cosignature that is shown.
func (r *Registry) signingTime(after time.Time) time.Time {
	at := r.Clock().UTC().Truncate(time.Second)
	if p := r.published.Load(); p != nil && p.cosigned.After(at) {
		at = p.cosigned
	}
	if after.After(at) {
		at = after
	}
	return at
}

// cosignedAt is when p was cosigned: known of what is shown, read of what others published.
func (r *Registry) cosignedAt(ctx context.Context, p catalog.Published) (time.Time, error) {
	if p.Checkpoint == nil {
		return time.Time{}, nil
	}
	if shown := r.published.Load(); shown != nil && bytes.Equal(shown.note, p.Checkpoint) {
		return shown.cosigned, nil
	}
	cp, err := r.believed(ctx, p)
	if err != nil {
		return time.Time{}, err
	}
	return cp.cosigned, nil
}

func (r *Registry) sign(cp translog.Checkpoint, settings state.Settings, at time.Time) ([]byte, error) {
	keys, err := r.Keys.signers(settings, at)
	if err != nil {
		return nil, err
	}
	return translog.Sign(cp, keys, at)
}

// show makes the checkpoint in note, which is published, the visible one, in memory.
func (r *Registry) show(ctx context.Context, note []byte) error {
	cp, err := readCheckpoint(ctx, r, note)
	if err != nil {
		return err
	}
	return r.showCheckpoint(ctx, cp)
}

// showCheckpoint makes cp visible, unless that or more is already. The cache gives up
// what changes with it first: what is visible is never older than what was.
func (r *Registry) showCheckpoint(ctx context.Context, cp *checkpoint) error {
	r.showing.Lock()
	defer r.showing.Unlock()
	shown := r.published.Load()
	if shown == nil {
		return r.replace(ctx, cp, nil, change{})
	}
	switch {
	case cp.Size > shown.Size:
		return r.replace(ctx, cp, shown, r.changedBetween(ctx, shown.Size, cp.Size))
	case cp.Size == shown.Size && cp.cosigned.After(shown.cosigned):
		cp.terms = shown.terms
		r.published.Store(cp)
	}
	return nil
}

// replace shows cp instead of shown, nil for nothing, from which it differs by c.
func (r *Registry) replace(ctx context.Context, cp, shown *checkpoint, c change) (err error) {
	if shown != nil && c.known && !slices.ContainsFunc(c.things, bindsEverybody) {
		cp.terms = shown.terms
	} else if cp.terms, err = r.termsAt(ctx, cp.settings, cp.Size); err != nil {
		return err
	}
	r.cache.advance(cp.Size, c.things, c.known)
	r.published.Store(cp)
	if !c.known || c.authority {
		r.lease.confirmSoon()
	}
	return nil
}

func readCheckpoint(ctx context.Context, r *Registry, note []byte) (*checkpoint, error) {
	opened, settings, err := r.openNote(ctx, note)
	if err != nil {
		return nil, fmt.Errorf("published checkpoint: %w", err)
	}
	return &checkpoint{Checkpoint: opened.Checkpoint, note: note, cosigned: opened.CosignedAt, settings: settings}, nil
}

const (
	// renewAfter is the age at which a checkpoint's cosignature is made anew.
	renewAfter = time.Hour
	// renewRetry is how long a renewal that failed is not tried again: anybody may
	// ask for the checkpoint, as often as they like.
	renewRetry = time.Minute
)

// Checkpoint returns the signed note of what is published, its cosignature not
// older than an hour as long as the catalog takes a renewed one: it is noted before
// it is shown, so that no later process cosigns a larger tree earlier, whatever
// happens to the clock. Who was shown more by another replica is shown no less here, as
// long as the catalog answers.
func (r *Registry) Checkpoint(ctx context.Context) ([]byte, error) {
	r.catchUp(ctx, 0)
	if p := r.published.Load(); r.Clock().Sub(p.cosigned) < renewAfter {
		return p.note, nil
	}
	r.renewing.Lock()
	defer r.renewing.Unlock()
	p, now := r.published.Load(), r.Clock()
	if now.Sub(p.cosigned) < renewAfter || now.Sub(r.renewFailed).Abs() < renewRetry {
		return p.note, nil
	}
	// Who asks may go away; what is begun is for the others too.
	if err := r.vouch(context.WithoutCancel(ctx)); err != nil {
		r.haltIf(err)
		r.renewFailed = now
		r.Log.Error("the log's cosignature is not renewed", "of", p.cosigned, "error", err)
	}
	return r.published.Load().note, nil
}

// vouch signs anew what is published, by whomever, unless somebody has done that not long ago.
func (r *Registry) vouch(ctx context.Context) error {
	return r.publishing(ctx, func(ctx context.Context, p *catalog.Publication) (catalog.Published, error) {
		now := p.Now()
		cp, err := r.believed(ctx, now)
		if err != nil || r.Clock().Sub(cp.cosigned) < renewAfter {
			return now, err
		}
		return r.resigned(ctx, cp)
	})
}

// resigned is cp, which is published, with the signatures that are due now. A later
// cosignature says that nothing larger was known at its time (C2SP tlog-cosignature),
// so it is made while nobody else publishes, and not over a database that was put back.
func (r *Registry) resigned(ctx context.Context, cp *checkpoint) (catalog.Published, error) {
	if r.Catalog.Shared() {
		if err := r.notAhead(ctx); err != nil {
			return catalog.Published{}, err
		}
	}
	note, err := r.sign(cp.Checkpoint, cp.settings, r.signingTime(cp.cosigned))
	return catalog.Published{Size: cp.Size, Checkpoint: note}, err
}
