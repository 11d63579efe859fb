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
	return r.publishing(ctx, func(ctx context.Context, p *catalog.Publication) (*checkpoint, error) {
		head, err := p.Head(ctx)
		if err != nil || head == p.Now().Size {
			return nil, err
		}
		return r.extend(ctx, p, head)
	})
}

// publishing has the catalog publish what f makes, nil for nothing, while nobody else
// publishes, and shows it; what others published is looked at like all that is theirs. f
// goes by what the publication reads alone: of a database that is put back meanwhile it
// would else store the entries of one past and the checkpoint of another.
func (r *Registry) publishing(ctx context.Context, f func(context.Context, *catalog.Publication) (*checkpoint, error)) error {
	shown := r.published.Load() // before what is published is read: that is no less
	var now catalog.Published
	var made *checkpoint
	defer r.landing.Store(false)
	err := r.Catalog.Publish(ctx, func(ctx context.Context, p *catalog.Publication) (_ catalog.Published, err error) {
		now, made = p.Now(), nil
		if shown != nil && now.Size < shown.Size {
			return now, putBack(shown.Size, now.Size)
		}
		if made, err = f(ctx, p); err != nil || made == nil {
			return now, err
		}
		r.landing.Store(true)
		return catalog.Published{Size: made.Size, Checkpoint: made.note}, nil
	})
	switch {
	case err != nil:
		return err
	case made != nil:
		return r.showCheckpoint(ctx, made)
	case shown != nil:
		return r.look(ctx, shown, now)
	case now.Size > 0:
		return r.show(ctx, now.Checkpoint)
	}
	return nil
}

// putBack is the error of a database that has less than was shown.
func putBack(shown, has int64) error {
	return fmt.Errorf("%w: its database has %d entries, this server has shown %d: it was put back to an earlier state", ErrBehind, has, shown)
}

// extend stores the entries that are not published yet, and the checkpoint of size head,
// and is what to publish.
func (r *Registry) extend(ctx context.Context, p *catalog.Publication, head int64) (*checkpoint, error) {
	if err := r.storeOntoStored(ctx, p, head); err != nil {
		return nil, err
	}
	root, err := translog.TreeHash(head, storedHashes(ctx, &p.Reader))
	if err != nil {
		return nil, err
	}
	after, err := r.cosignedAt(ctx, p)
	if err != nil {
		return nil, err
	}
	settings, err := r.settingsAt(ctx, &p.Reader, head)
	if err != nil {
		return nil, err
	}
	cp, err := r.signed(translog.Checkpoint{Origin: string(r.origin), Size: head, Root: root}, settings, after)
	if err != nil {
		return nil, err
	}
	return cp, r.storeCheckpoint(ctx, &p.Reader, cp)
}

// storeOntoStored stores the entries up to head where what is published is stored. A shared
// catalog may have been put back under us, and that is asked too; all of it is asked
// meanwhile there, since what is stored in vain is not published, and it costs no time.
func (r *Registry) storeOntoStored(ctx context.Context, p *catalog.Publication, head int64) error {
	now := p.Now()
	if !r.Catalog.Shared() {
		if err := notLost(ctx, r.Blobs, now); err != nil {
			return err
		}
		return r.storeEntries(ctx, p, head)
	}
	asked := make(chan error, 2)
	go func() { asked <- notAhead(ctx, r.Blobs, head) }()
	go func() { asked <- notLost(ctx, r.Blobs, now) }()
	return errors.Join(r.storeEntries(ctx, p, head), <-asked, <-asked)
}

// notAhead is ErrBehind where blob storage has the entry at head, the catalog's: entries are
// stored one after another, and after their commit, so that one says it for all. The head
// is as it was read by whoever alone may publish, or has to be read again.
func notAhead(ctx context.Context, blobs storage.Blobs, head int64) error {
	_, err := blobs.Read(ctx, translog.EntryKey(head))
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("%w (catalog: %d entries; blob storage: entry %d)", ErrBehind, head, head)
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
		entries, err := p.Entries(ctx, from, min(from+page, to))
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

// storeCheckpoint stores the checkpoint object cp. One of this size that
// is stored already (a crash came after it, or the answer was lost) must be ours
// and of the same root; what is published is the note made now. The stored one may
// have been cosigned before a smaller one that was shown meanwhile, and what is
// cosigned later says that nothing larger is known (C2SP tlog-cosignature).
func (r *Registry) storeCheckpoint(ctx context.Context, reader *catalog.Reader, cp *checkpoint) error {
	key := translog.CheckpointKey(cp.Size)
	err := r.Blobs.Create(ctx, key, cp.note)
	if !errors.Is(err, storage.ErrExists) {
		return err
	}
	stored, err := r.Blobs.Read(ctx, key)
	if err != nil {
		return err
	}
	return r.checkNote(ctx, reader, key, stored, cp.Size, cp.Root)
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

// cosignedAt is when what is published was cosigned: known of what is shown, read of what
// others published.
func (r *Registry) cosignedAt(ctx context.Context, p *catalog.Publication) (time.Time, error) {
	now := p.Now()
	if now.Checkpoint == nil {
		return time.Time{}, nil
	}
	if shown := r.published.Load(); shown != nil && bytes.Equal(shown.note, now.Checkpoint) {
		return shown.cosigned, nil
	}
	cp, err := r.believed(ctx, &p.Reader, now)
	if err != nil {
		return time.Time{}, err
	}
	return cp.cosigned, nil
}

// signed is cp, signed as settings demand, at a time that is not before after: when what is
// published was cosigned, perhaps by a clock that is ahead of ours.
func (r *Registry) signed(cp translog.Checkpoint, settings state.Settings, after time.Time) (*checkpoint, error) {
	at := r.signingTime(after)
	note, err := r.sign(cp, settings, at)
	return &checkpoint{Checkpoint: cp, note: note, cosigned: at, settings: settings}, err
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
	cp, err := r.readCheckpoint(ctx, &r.Catalog.Reader, note)
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

func (r *Registry) readCheckpoint(ctx context.Context, reader *catalog.Reader, note []byte) (*checkpoint, error) {
	opened, settings, err := r.openNoteBy(ctx, reader, note)
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
	return r.publishing(ctx, func(ctx context.Context, p *catalog.Publication) (*checkpoint, error) {
		cosigned, err := r.cosignedAt(ctx, p)
		if err != nil || r.Clock().Sub(cosigned) < renewAfter {
			return nil, err
		}
		return r.renew(ctx, p)
	})
}

// renew is what is published with what was committed since, or signed anew where that is
// nothing. A later cosignature says that nothing larger was known at its time (C2SP
// tlog-cosignature): so it is made while nobody else publishes, and never where blob
// storage has a larger checkpoint, as on a database that was put back.
func (r *Registry) renew(ctx context.Context, p *catalog.Publication) (*checkpoint, error) {
	now := p.Now()
	head, err := p.Head(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.checkUnpublished(ctx, &p.Reader, now.Size, head); err != nil {
		return nil, err
	}
	if head > now.Size {
		return r.extend(ctx, p, head)
	}
	if err := notLost(ctx, r.Blobs, now); err != nil {
		return nil, err
	}
	cp, err := r.believed(ctx, &p.Reader, now)
	if err != nil {
		return nil, err
	}
	return r.signed(cp.Checkpoint, cp.settings, cp.cosigned)
}
