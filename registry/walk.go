package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// Progress, if not nil, is called now and then with how far a long look is; all is 0 where
// it is not known.
type Progress func(what string, done, all int64)

func (p Progress) tell(what string, done, all int64) {
	if p != nil {
		p(what, done, all)
	}
}

// look says how closely bytes are looked at.
type look int

const (
	lookAway look = iota
	lookThere
	lookInside
)

// walk reads the log entry by entry with what each brings, and believes nothing of
// it: what is wrong with an entry is a finding about it.
type walk struct {
	catalog *catalog.DB // nil: there is none, or it cannot be read
	blobs   storage.Blobs
	// objects: entry objects are looked at too, and stand in for rows that are gone.
	objects bool
	// bytes is how closely versions' bytes are looked at.
	bytes look
	// names: only what entries name is asked for, so what other registries said is not read.
	names bool
}

// Entries are read a page at once, several at a time: a store far away takes its time
// for each.
const (
	walkPage   = 64
	walkAtOnce = 8
	// walkBytes is how many bytes of attachments are read before they are looked at: an
	// index file of another registry has up to 16 MiB, and all of walkAtOnce may.
	walkBytes = 16 << 20
)

// walked is an entry with all that could be read of what it brings.
type walked struct {
	index int64
	// row is the catalog's, nil where it is missing; leaf is its leaf hash by log_hash.
	row  *catalog.EntryRow
	leaf []byte
	// raw are the bytes that are taken for the entry, nil where there are none.
	raw   []byte
	entry translog.Entry
	// rec is nil where the record cannot be had; whole: and everything it attaches.
	rec         *record.Record
	attachments state.Attachments
	whole       bool
	// crate is what the .crate says, where it was looked into.
	crate    *cargo.Crate
	problems []problem
}

// problem is a finding about an entry in the making.
type problem struct {
	code, what, detail string
}

func (w *walked) wrong(code, what, format string, args ...any) {
	w.problems = append(w.problems, problem{code, what, fmt.Sprintf(format, args...)})
}

func entryName(index int64) string   { return fmt.Sprintf("entry %d", index) }
func blobName(id storage.CID) string { return "blob " + id.String() }
func (w *walked) name() string       { return entryName(w.index) }
func (w *walked) has(code string) bool {
	return slices.ContainsFunc(w.problems, func(p problem) bool { return p.code == code })
}

// run calls each with the entries from ≤ index < to, at most a page at once, in order. An
// error is that of each, or says that something could not be looked at.
func (w *walk) run(ctx context.Context, from, to int64, each func([]*walked) error) error {
	for ; from < to; from += walkPage {
		page, err := w.page(ctx, from, min(from+walkPage, to))
		if err != nil {
			return err
		}
		if err := w.readPage(ctx, page, each); err != nil {
			return err
		}
	}
	return nil
}

// readPage reads the entries of page, some at a time, and calls each with as many as are
// read once they bring more than walkBytes.
func (w *walk) readPage(ctx context.Context, page []*walked, each func([]*walked) error) error {
	begun, bytes := 0, int64(0)
	for from := 0; from < len(page); from += walkAtOnce {
		some := page[from:min(from+walkAtOnce, len(page))]
		if err := inParallel(ctx, len(some), func(ctx context.Context, i int) error { return w.read(ctx, some[i]) }); err != nil {
			return err
		}
		for _, l := range some {
			bytes += l.brings()
		}
		if end := from + len(some); bytes > walkBytes || end == len(page) {
			if err := each(page[begun:end]); err != nil {
				return err
			}
			clear(page[begun:end]) // what it brought is not kept until the page is over
			begun, bytes = end, 0
		}
	}
	return nil
}

// brings is how many bytes the attachments have.
func (l *walked) brings() (n int64) {
	for _, raw := range l.attachments {
		n += int64(len(raw))
	}
	return n
}

// page reads what the catalog says of the entries from ≤ index < to.
func (w *walk) page(ctx context.Context, from, to int64) ([]*walked, error) {
	page := make([]*walked, to-from)
	for i := range page {
		page[i] = &walked{index: from + int64(i), attachments: state.Attachments{}}
	}
	if w.catalog == nil {
		return page, nil
	}
	rows, err := w.catalog.EntryRows(ctx, from, to)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		page[row.Index-from].row = &row
	}
	hashes, err := w.catalog.HashRows(ctx, translog.LeafPosition(from), translog.LeafPosition(to))
	if err != nil {
		return nil, err
	}
	leaves := map[int64][]byte{}
	for _, h := range hashes {
		leaves[h.Position] = h.Hash
	}
	for _, l := range page {
		l.leaf = leaves[translog.LeafPosition(l.index)]
	}
	return page, nil
}

// inParallel calls f with 0 … n-1, walkAtOnce at a time, and returns the first error.
func inParallel(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	places := make(chan struct{}, walkAtOnce)
	for i := range n {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			if ctx.Err() != nil {
				return
			}
			if err := f(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// read reads all that belongs to an entry.
func (w *walk) read(ctx context.Context, l *walked) error {
	object, err := w.object(ctx, l)
	if err != nil {
		return err
	}
	l.choose(w, object)
	if l.raw == nil {
		return nil
	}
	if l.entry, err = translog.ParseEntry(l.raw); err != nil {
		l.wrong(codeLogUnreadable, l.name(), "%v", err)
		return nil
	}
	raw, err := w.small(ctx, l, l.entry.Record, record.MaxEnvelope, codeRecordMissing, codeRecord)
	if err != nil || raw == nil {
		return err
	}
	if l.rec, err = record.Parse(raw); err != nil {
		l.wrong(codeLogUnreadable, l.name(), "its record %s: %v", l.entry.Record, err)
		return nil
	}
	l.checkRow()
	l.whole = true
	for _, id := range append(l.rec.Attachments(), l.entry.DIDDocument) {
		if _, have := l.attachments[id]; have || id.IsZero() || w.names && id == l.rec.Snapshot() {
			continue
		}
		raw, err := w.small(ctx, l, id, l.rec.MostAttached(), codeAttachedMissing, codeAttached)
		if err != nil {
			return err
		}
		if raw == nil {
			l.whole = false
			continue
		}
		l.attachments[id] = raw
	}
	return w.artifact(ctx, l)
}

// object reads the entry's object, nil where there is none.
func (w *walk) object(ctx context.Context, l *walked) ([]byte, error) {
	if !w.objects {
		return nil, nil
	}
	key := translog.EntryKey(l.index)
	object, err := w.blobs.Read(ctx, key)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil, nil
	case fatal(ctx, w.blobs, err):
		return nil, err
	case err != nil:
		l.wrong(codeUnreadable, key, "%v", err)
		return nil, nil
	case object == nil:
		object = []byte{}
	}
	return object, nil
}

// choose takes for the entry what most speaks for: where row and object differ, the
// one whose leaf hash the catalog keeps apart from both. Whether that is right the root
// shows that was signed over all of them.
func (l *walked) choose(w *walk, object []byte) {
	if l.row != nil {
		l.raw = l.row.Bytes
	}
	if l.raw == nil || object != nil && !bytes.Equal(object, l.raw) && l.speaksFor(object) {
		l.raw = object
	}
	switch {
	case l.raw == nil:
		if !l.has(codeUnreadable) {
			l.wrong(codeLogLost, l.name(), "it is in neither")
		}
		return
	case w.catalog != nil && l.row == nil:
		l.wrong(codeEntryRow, l.name(), "the row is missing")
	case w.catalog != nil && !bytes.Equal(l.row.Bytes, l.raw):
		l.wrong(codeEntryRow, l.name(), "the row's bytes have the leaf hash %s, the log's %s", translog.LeafHash(l.row.Bytes), translog.LeafHash(l.raw))
	}
	switch key := translog.EntryKey(l.index); {
	case !w.objects || l.has(codeUnreadable):
	case object == nil:
		l.wrong(codeObjectMissing, key, "it is not there")
	case !bytes.Equal(object, l.raw):
		l.wrong(codeObject, key, "its %d bytes have the leaf hash %s, the log's %s", len(object), translog.LeafHash(object), translog.LeafHash(l.raw))
	}
}

// speaksFor reports whether the object, not the row, is what the catalog has hashed.
func (l *walked) speaksFor(object []byte) bool {
	ofObject, ofRow := translog.LeafHash(object), translog.LeafHash(l.raw)
	if bytes.Equal(l.leaf, ofRow[:]) || bytes.Equal(l.row.LeafHash, ofRow[:]) && !bytes.Equal(l.leaf, ofObject[:]) {
		return false
	}
	if bytes.Equal(l.leaf, ofObject[:]) {
		return true
	}
	_, err := translog.ParseEntry(l.raw)
	return err != nil
}

// checkRow holds what else the row says against the entry and its record.
func (l *walked) checkRow() {
	if l.row == nil || l.has(codeEntryRow) {
		return
	}
	leaf := translog.LeafHash(l.raw)
	switch {
	case !bytes.Equal(l.row.LeafHash, leaf[:]):
		l.wrong(codeEntryRow, l.name(), "its leaf hash is %x, that of its bytes %x", l.row.LeafHash, leaf[:])
	case l.row.RecordCID != l.entry.Record.String():
		l.wrong(codeEntryRow, l.name(), "it names the record %q, its bytes %s", l.row.RecordCID, l.entry.Record)
	case l.row.RecordID != string(l.rec.ID()):
		l.wrong(codeEntryRow, l.name(), "it names the identity %q, its record has %s", l.row.RecordID, l.rec.ID())
	}
}

// small reads a blob that the entry brings, nil where it cannot be had.
func (w *walk) small(ctx context.Context, l *walked, id storage.CID, most int64, missing, corrupt string) ([]byte, error) {
	raw, err := readBlob(ctx, w.blobs, id, most)
	if err == nil && raw == nil {
		raw = []byte{}
	}
	return raw, w.notOf(ctx, l, id, err, missing, corrupt)
}

// notOf makes a problem of an error about a blob; one that is none of the blob's is returned.
func (w *walk) notOf(ctx context.Context, l *walked, id storage.CID, err error, missing, corrupt string) error {
	switch {
	case err == nil:
	case fatal(ctx, w.blobs, err):
		return err
	case errors.Is(err, storage.ErrNotFound):
		l.wrong(missing, blobName(id), "%s needs it; it is not there", l.name())
	case errors.Is(err, storage.ErrCorrupt), errors.Is(err, errTooLong):
		l.wrong(corrupt, blobName(id), "%s needs it; %s", l.name(), strings.TrimPrefix(err.Error(), blobName(id)+": "))
	default:
		l.wrong(codeUnreadable, blobName(id), "%s needs it; %s", l.name(), strings.TrimPrefix(err.Error(), blobName(id)+": "))
	}
	return nil
}

// fatal reports whether err, of reading one thing, ends a look: nobody waits any more, or
// the store is not there. A store may fail at one thing alone, for ever, and say that it is
// busy; so it is asked for something else then.
func fatal(ctx context.Context, blobs storage.Blobs, err error) bool {
	if err == nil || ctx.Err() != nil {
		return err != nil
	}
	return errors.Is(err, storage.ErrUnavailable) && probe(ctx, blobs) != nil
}

// probe is why the store does not answer.
func probe(ctx context.Context, blobs storage.Blobs) error {
	_, err := holds(blobs.List(ctx, translog.EntryPrefix, ""))
	return err
}

// holds reports whether a sequence has anything, without asking for more.
func holds[T any](all iter.Seq2[T, error]) (bool, error) {
	for _, err := range all {
		return err == nil, err
	}
	return false, nil
}

// artifact looks at the bytes that a publish record enters.
func (w *walk) artifact(ctx context.Context, l *walked) error {
	if l.rec.Type() != record.TypePublish || w.bytes == lookAway {
		return nil
	}
	id, subject := storage.CIDFromDigest(l.rec.Digest()), l.rec.Subject()
	if w.bytes == lookThere {
		_, err := w.blobs.Stat(ctx, id)
		return w.notOf(ctx, l, id, err, codeBytesMissing, codeBytes)
	}
	blob, err := w.blobs.Open(ctx, id)
	if err != nil {
		return w.notOf(ctx, l, id, err, codeBytesMissing, codeBytes)
	}
	defer blob.Close()
	if subject.Kind() != record.KindCrate {
		return nil
	}
	l.crate, err = cargo.Inspect(blob, subject.Name(), subject.Version(), replayLimits)
	if isCrateProblem(err) {
		l.crate = nil
		l.wrong(codeWithheld, l.name(), "%v", err)
		return nil
	}
	return w.notOf(ctx, l, id, err, codeBytesMissing, codeBytes)
}
