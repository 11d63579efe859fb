package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// checkEntries looks at every entry with what it brings, and replays it.
func (f *fsck) checkEntries(ctx context.Context) error {
	w := &walk{catalog: f.Catalog, blobs: f.Blobs, objects: true, bytes: lookInside}
	if f.Quick {
		w.bytes = lookThere
	}
	for f.tree < f.done.Size {
		from := f.tree
		err := w.run(ctx, from, f.done.Size, func(page []*walked) error { return f.checkPage(ctx, page) })
		if w.catalog == nil || !f.lostCatalog(err) {
			return err
		}
		w.catalog = nil // and on with blob storage alone
	}
	return nil
}

// checkPage tells what is wrong with some entries, and replays them.
func (f *fsck) checkPage(ctx context.Context, page []*walked) error {
	for _, l := range page {
		for _, p := range l.problems {
			if err := f.foundIn(ctx, l, p); err != nil {
				return err
			}
		}
		if err := f.refer(l); err != nil {
			return err
		}
	}
	err := f.replay.Catalog.Update(ctx, func(tx *catalog.Tx) error {
		for _, l := range page {
			if err := f.replayEntry(ctx, tx, l); err != nil {
				return err
			}
		}
		return nil
	})
	f.Progress.tell("checked entries", page[0].index+int64(len(page)), f.done.Size)
	return err
}

// refer notes what an entry refers to.
func (f *fsck) refer(l *walked) error {
	if l.rec == nil {
		return f.names.add(storage.Stored{CID: l.entry.Record})
	}
	ids, err := namedBy(l.entry, l.rec, l.attachments)
	if err != nil {
		return fmt.Errorf("what entry %d names: %w", l.index, err)
	}
	for _, id := range ids {
		if err := f.names.add(storage.Stored{CID: id}); err != nil {
			return err
		}
	}
	return nil
}

// replayEntry adds an entry to the replay: its hashes, and what Apply makes of it
// as long as nothing before it was lost.
func (f *fsck) replayEntry(ctx context.Context, tx *catalog.Tx, l *walked) error {
	if l.raw == nil || f.tree != l.index {
		f.stopped = true
		return nil
	}
	f.stopped = f.stopped || l.rec == nil || !l.whole
	if f.stopped {
		f.tree++
		return enterHashes(ctx, tx, l.index, translog.LeafHash(l.raw))
	}
	if first, ok := l.rec.Body().(*record.Registry); ok && l.index == 0 && first.DID != f.replay.origin {
		return fmt.Errorf("the key file is that of %s, but this log is that of %s; give the key file that belongs to it", f.replay.origin, first.DID)
	}
	s := &submission{record: l.rec, attachments: l.attachments, crate: l.crate}
	entry, changes, void, err := f.replay.reapply(ctx, tx, l.index, l.entry, s)
	switch {
	case (errors.Is(err, ErrUnavailable) || errors.Is(err, storage.ErrUnavailable)) && !fatal(ctx, f.Blobs, err): // a document of before, which was told of
		f.stopped = true
		return f.replayEntry(ctx, tx, l)
	case err != nil:
		return fmt.Errorf("replay entry %d: %w", l.index, err)
	case void != nil:
		f.found(codeVoid, l.name(), void.Error(), l.rec.Subject().String())
		s.crate = nil
	}
	line, err := crateLine(f.replay.viewAt(ctx, &tx.Reader, l.index), entry, s)
	if isCrateProblem(err) {
		f.found(codeWithheld, l.name(), err.Error(), l.rec.Subject().String())
	} else if err != nil {
		return err
	}
	if line == nil && !f.Quick && l.rec.Type() == record.TypePublish && l.rec.Subject().Kind() == record.KindCrate {
		f.skipped[l.index] = true
	}
	f.tree++
	f.done.Replayed++
	return enter(ctx, tx, entry, l.rec, changes, line)
}

// foundIn tells of a problem of an entry, once for each blob.
func (f *fsck) foundIn(ctx context.Context, l *walked, p problem) error {
	if p.code == codeObjectMissing {
		page := l.index - l.index%walkPage // told of when it is known whether it can be put back
		if n := len(f.lacking); n == 0 || f.lacking[n-1] != page {
			f.lacking = append(f.lacking, page)
		}
		return nil
	}
	if f.told[p.code+p.what] {
		return nil
	}
	if len(f.told) < mostTold {
		f.told[p.code+p.what] = true
	}
	suffers, err := f.suffering(ctx, l)
	if err != nil {
		return err
	}
	f.found(p.code, p.what, p.detail, suffers...)
	return nil
}

// suffering is what an entry is about: what its record says, or else what the
// catalog knows it to have changed.
func (f *fsck) suffering(ctx context.Context, l *walked) ([]string, error) {
	if l.rec != nil {
		return []string{l.rec.Subject().String()}, nil
	}
	if f.Catalog == nil {
		return nil, nil
	}
	keys, err := f.Catalog.StateKeys(ctx, l.index, l.index+1, 100)
	if f.lostCatalog(err) {
		return nil, nil
	}
	var suffer []string
	for _, k := range slices.Backward(keys) { // versions before their artifacts
		name := suffererOf(k.Key)
		if name != "" && !slices.ContainsFunc(suffer, func(s string) bool { return strings.HasPrefix(s, name+"@") }) {
			suffer = append(suffer, name)
		}
	}
	return suffer, err
}

// checkRoot holds the entries against what the log has signed of them: the published
// note, or where that is none, the checkpoint object of that size.
func (f *fsck) checkRoot(ctx context.Context) error {
	if f.done.Size == 0 {
		f.proved = true
		root, err := translog.TreeHash(0, nil)
		f.done.Root = root
		return err
	}
	if f.tree < f.done.Size { // an entry is lost, which was told
		return nil
	}
	root, err := translog.TreeHash(f.tree, storedHashes(ctx, &f.replay.Catalog.Reader))
	if err != nil {
		return err
	}
	f.done.Root = root
	key := translog.CheckpointKey(f.done.Size)
	stored, failed := f.Blobs.Read(ctx, key)
	if fatal(ctx, f.Blobs, failed) {
		return failed
	}
	published := f.noteIs(ctx, f.note, f.done.Size, root)
	f.proved = published == nil || failed == nil && f.noteIs(ctx, stored, f.done.Size, root) == nil
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case f.Catalog == nil || published == nil || f.excused(ctx, f.note):
	case f.proved || !errors.Is(published, errOtherRoot):
		f.found(codePublished, "published row", published.Error())
	}
	if !f.proved && !f.stopped {
		f.found(codeLogUnproved, fmt.Sprintf("log of %d entries", f.done.Size), fmt.Sprintf("their root is %s", root))
	}
	if errors.Is(failed, storage.ErrNotFound) { // whatever else it is checkCheckpoints tells
		return f.missingNote(ctx, key, published == nil)
	}
	return nil
}

// excused reports whether a note cannot be judged, since the log could not be
// replayed up to the keys that may have signed it.
func (f *fsck) excused(ctx context.Context, note []byte) bool {
	if !f.stopped {
		return false
	}
	claimed, err := translog.Peek(note)
	return err == nil && claimed.Size > f.done.Replayed && claimed.Origin == string(f.replay.origin) && ctx.Err() == nil
}

// missingNote puts the checkpoint object of what is published back: the published
// note is one, whenever it was cosigned.
func (f *fsck) missingNote(ctx context.Context, key string, published bool) error {
	if f.Repair && published {
		if err := f.Blobs.Create(ctx, key, f.note); err != nil {
			return fmt.Errorf("put back %s: %w", key, err)
		}
		f.mended(codeNoteMissing, key, "it was not there")
		return nil
	}
	f.found(codeNoteMissing, key, "it is not there")
	return nil
}

// storedNote is a checkpoint object: its note, or why it cannot be read, or is none.
type storedNote struct {
	key           string
	size          int64
	note          []byte
	failed, stray error
}

// checkCheckpoints holds every stored checkpoint up to the size that is looked at
// against the entries.
func (f *fsck) checkCheckpoints(ctx context.Context) error {
	notes := ahead(ctx, f.Blobs.List(ctx, translog.CheckpointPrefix, ""), func(ctx context.Context, key string) (n storedNote, err error) {
		n.key = key
		if n.size, n.stray = translog.ParseCheckpointKey(key); n.stray != nil || n.size > f.tree {
			return n, nil
		}
		if n.note, n.failed = f.Blobs.Read(ctx, key); fatal(ctx, f.Blobs, n.failed) {
			return n, n.failed
		}
		return n, nil
	})
	for n, err := range notes {
		if err != nil {
			return err
		}
		if n.stray != nil {
			f.found(codeLogStray, n.key, n.stray.Error())
			continue
		}
		f.largest = n.size
		if n.size > f.tree {
			continue
		}
		if err := f.checkStoredNote(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// checkStoredNote tells a checkpoint that is damaged from one that was signed for
// other entries.
func (f *fsck) checkStoredNote(ctx context.Context, n storedNote) error {
	if n.failed != nil {
		f.found(codeUnreadable, n.key, n.failed.Error())
		return nil
	}
	root, err := translog.TreeHash(n.size, storedHashes(ctx, &f.replay.Catalog.Reader))
	if err != nil {
		return err
	}
	opened, _, err := f.replay.openNote(ctx, n.note)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && f.excused(ctx, n.note):
	case err != nil:
		f.found(codeNote, n.key, err.Error())
	case opened.Size != n.size:
		f.found(codeNote, n.key, fmt.Sprintf("it is the checkpoint of %d entries", opened.Size))
	case opened.Root != root && f.proved:
		f.found(codeFork, n.key, fmt.Sprintf("signed by this log, it says the root %s; the entries have %s", opened.Root, root))
	}
	return nil
}
