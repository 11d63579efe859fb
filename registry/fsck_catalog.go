package registry

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// comparePage is how many rows of each side are read at once.
const comparePage = 1000

// checkCatalog holds the catalog's rows against those of the replay.
func (f *fsck) checkCatalog(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		f.checkPages, f.checkHashes, f.checkState, f.checkLines, f.checkVersions,
	} {
		if f.Catalog == nil {
			return nil
		}
		if err := f.orLost(step(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// checkPages has the database look at itself, and looks for rows of entries that there are not.
func (f *fsck) checkPages(ctx context.Context) error {
	faults, err := f.Catalog.Faults(ctx, f.Quick)
	if err != nil {
		return err
	}
	for _, line := range faults {
		f.found(codeCatalogDamaged, "catalog", line)
	}
	if f.done.Found[codeCatalogHead] > 0 { // every row at the end is of an entry beyond it
		return nil
	}
	beyond, err := f.Catalog.Beyond(ctx)
	for table, n := range beyond {
		f.found(codeCatalogHead, table, fmt.Sprintf("%d rows are of entries that the log has not got", n))
	}
	return err
}

// checkHashes compares the stored hashes of the log.
func (f *fsck) checkHashes(ctx context.Context) error {
	end := tlog.StoredHashCount(f.tree)
	read := func(of *catalog.DB) func(from int64) ([]catalog.HashRow, error) {
		return func(from int64) ([]catalog.HashRow, error) {
			return of.HashRows(ctx, from, min(from+comparePage, end))
		}
	}
	want, got := read(f.replay.Catalog), read(f.Catalog)
	for from := int64(0); from < end; from += comparePage {
		right, err := want(from)
		if err != nil {
			return err
		}
		theirs, err := got(from)
		if err != nil {
			return err
		}
		at := map[int64][]byte{}
		for _, h := range theirs {
			at[h.Position] = h.Hash
		}
		for _, h := range right {
			if hash, ok := at[h.Position]; !ok {
				f.found(codeLogHash, fmt.Sprintf("log hash %d", h.Position), "the row is missing")
			} else if !bytes.Equal(hash, h.Hash) {
				f.found(codeLogHash, fmt.Sprintf("log hash %d", h.Position), fmt.Sprintf("it is %x, that of the entries %x", hash, h.Hash))
			}
		}
		f.Progress.tell("compared hashes", min(from+comparePage, end), end)
	}
	return nil
}

// rows reads rows in order, a page at once.
type rows[T any] struct {
	read func(after T) ([]T, error)
	last T
	page []T
	end  bool
}

// next is the first row that was not taken yet, nil at the end.
func (r *rows[T]) next() (*T, error) {
	if len(r.page) == 0 && !r.end {
		page, err := r.read(r.last)
		if err != nil {
			return nil, err
		}
		if r.page, r.end = page, len(page) == 0; !r.end {
			r.last = page[len(page)-1]
		}
	}
	if len(r.page) == 0 {
		return nil, nil
	}
	return &r.page[0], nil
}

func (r *rows[T]) take() { r.page = r.page[1:] }

// compare calls differs with what is in want or got alone (the other is nil) and
// with both where they are rows of one key; order is that of their keys.
func compare[T any](want, got *rows[T], order func(a, b T) int, differs func(want, got *T) error) error {
	for {
		w, err := want.next()
		if err != nil {
			return err
		}
		g, err := got.next()
		if err != nil || w == nil && g == nil {
			return err
		}
		var at int
		switch {
		case w == nil:
			at = 1
		case g == nil:
			at = -1
		default:
			at = order(*w, *g)
		}
		right, theirs := w, g
		if at <= 0 {
			want.take()
		} else {
			right = nil
		}
		if at >= 0 {
			got.take()
		} else {
			theirs = nil
		}
		if err := differs(right, theirs); err != nil {
			return err
		}
	}
}

// checkState compares all rows of state up to where the log was replayed.
func (f *fsck) checkState(ctx context.Context) error {
	before, seen := f.done.Replayed, int64(0)
	of := func(db *catalog.DB) *rows[catalog.StateRow] {
		return &rows[catalog.StateRow]{read: func(after catalog.StateRow) ([]catalog.StateRow, error) {
			return db.StateRows(ctx, catalog.StateKey{Key: after.Key, Index: after.Index}, before, comparePage)
		}}
	}
	order := func(a, b catalog.StateRow) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Index, b.Index))
	}
	return compare(of(f.replay.Catalog), of(f.Catalog), order, func(want, got *catalog.StateRow) error {
		seen++
		f.Progress.tell("compared rows of state", seen, 0)
		row := cmp.Or(want, got)
		var detail string
		switch {
		case got == nil:
			detail = "the row is missing"
		case want == nil:
			detail = "the log derives no such row"
		case !bytes.Equal(want.Value, got.Value):
			detail = "it has another value than the log derives"
		default:
			return nil
		}
		f.found(codeState, fmt.Sprintf("state of %s at entry %d", row.Key, row.Index), detail, sufferers(row.Key)...)
		return nil
	})
}

func sufferers(key string) []string {
	if name := suffererOf(key); name != "" {
		return []string{name}
	}
	return nil
}

// checkLines compares what was derived from crates.
func (f *fsck) checkLines(ctx context.Context) error {
	if f.Quick {
		return nil
	}
	of := func(db *catalog.DB) *rows[catalog.CrateRow] {
		r := &rows[catalog.CrateRow]{read: func(after catalog.CrateRow) ([]catalog.CrateRow, error) {
			return db.CrateRows(ctx, after.Index, f.done.Replayed, comparePage)
		}}
		r.last.Index = -1
		return r
	}
	order := func(a, b catalog.CrateRow) int { return cmp.Compare(a.Index, b.Index) }
	return compare(of(f.replay.Catalog), of(f.Catalog), order, func(want, got *catalog.CrateRow) error {
		row := cmp.Or(want, got)
		what, name := fmt.Sprintf("index line of entry %d", row.Index), versionName(record.KindCrate, row.NameKey, row.Version)
		switch {
		case f.skipped[row.Index]:
		case got == nil:
			return f.missingRow(ctx, codeLineMissing, what, []string{name}, func(tx *catalog.Tx) (bool, error) { return tx.RestoreCrateLine(ctx, *want) })
		case want == nil:
			f.found(codeLine, what, "the log derives none", name)
		case want.NameKey != got.NameKey || want.Version != got.Version || !bytes.Equal(want.Line, got.Line):
			f.found(codeLine, what, "it is another line than the log derives", name)
		case want.Description != got.Description || want.Keywords != got.Keywords || want.Search != got.Search:
			f.found(codeLine, what, "what is searched for is other than the crate says", name)
		}
		return nil
	})
}

// checkVersions compares which versions have which bytes.
func (f *fsck) checkVersions(ctx context.Context) error {
	of := func(db *catalog.DB) *rows[catalog.VersionCID] {
		return &rows[catalog.VersionCID]{read: func(after catalog.VersionCID) ([]catalog.VersionCID, error) {
			return db.VersionCIDs(ctx, after, f.done.Replayed, comparePage)
		}}
	}
	order := func(a, b catalog.VersionCID) int { return cmp.Or(cmp.Compare(a.CID, b.CID), cmp.Compare(a.Key, b.Key)) }
	return compare(of(f.replay.Catalog), of(f.Catalog), order, func(want, got *catalog.VersionCID) error {
		row := cmp.Or(want, got)
		what := "version by its bytes " + row.CID
		switch {
		case got == nil:
			return f.missingRow(ctx, codeVersionMissing, what, sufferers(row.Key), func(tx *catalog.Tx) (bool, error) { return tx.RestoreVersionCID(ctx, *want) })
		case want == nil:
			f.found(codeVersion, what, "the log derives no such row", sufferers(row.Key)...)
		case want.Index != got.Index:
			f.found(codeVersion, what, fmt.Sprintf("it says since entry %d, the log since %d", got.Index, want.Index), sufferers(row.Key)...)
		}
		return nil
	})
}

// missingRow puts back a row that the proved log derives, where another is not in its place.
func (f *fsck) missingRow(ctx context.Context, code, what string, suffers []string, restore func(*catalog.Tx) (bool, error)) error {
	mended := false
	if f.Repair && f.proved {
		err := f.Catalog.Update(ctx, func(tx *catalog.Tx) (err error) {
			mended, err = restore(tx)
			return err
		})
		if err != nil {
			return err
		}
	}
	if mended {
		f.mended(code, what, "the row was missing", suffers...)
	} else {
		f.found(code, what, "the row is missing", suffers...)
	}
	return nil
}

// errOtherRoot: a checkpoint is this log's own, of the size in question, and of other entries.
var errOtherRoot = errors.New("signed by this log, it says another root")

// noteIs is nil if note is a checkpoint of this log, of that size and root.
func (f *fsck) noteIs(ctx context.Context, note []byte, size int64, root tlog.Hash) error {
	opened, _, err := f.replay.openNote(ctx, note)
	switch {
	case err != nil:
		return err
	case opened.Size != size:
		return fmt.Errorf("%w: it is that of %d entries, not of %d", translog.ErrCheckpoint, opened.Size, size)
	case opened.Root != root:
		return fmt.Errorf("%w: %s; the entries have %s", errOtherRoot, opened.Root, root)
	}
	return nil
}
