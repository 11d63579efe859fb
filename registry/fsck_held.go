package registry

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// heldLook is a look at a crate that is held of other registries.
type heldLook struct {
	row catalog.UpstreamBlob
	// code is "" where nothing is wrong with it.
	code, detail string
}

// checkHeld looks whether what the catalog says is held of other registries is there, and hashes
// to its name. What is not is let go of with Repair, so that it is fetched anew: a server does the same
// with what it is asked for.
func (f *fsck) checkHeld(ctx context.Context) error {
	if f.Catalog == nil {
		return nil
	}
	looked := int64(0)
	for last := (storage.CID{}); ; {
		page, err := f.Catalog.UpstreamBlobsAfter(ctx, last, heldPage)
		if err != nil {
			return f.orLost(err)
		}
		if len(page) == 0 {
			return nil
		}
		rows := make(map[string]catalog.UpstreamBlob, len(page))
		for _, b := range page {
			rows[b.CID.String()] = b
		}
		look := func(ctx context.Context, cid string) (heldLook, error) { return f.lookAtHeld(ctx, rows[cid]) }
		for l, err := range ahead(ctx, textsInOrder(page), look) {
			if err == nil && l.code != "" {
				err = f.orLost(f.heldIsWrong(ctx, l))
			}
			if err != nil || f.Catalog == nil {
				return err
			}
			looked++
			f.Progress.tell("looked at crates of other registries", looked, 0)
		}
		last = page[len(page)-1].CID
	}
}

func textsInOrder(page []catalog.UpstreamBlob) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, b := range page {
			if !yield(b.CID.String(), nil) {
				return
			}
		}
	}
}

// lookAtHeld looks at the bytes of a row; an error ends the whole look.
func (f *fsck) lookAtHeld(ctx context.Context, row catalog.UpstreamBlob) (heldLook, error) {
	l := heldLook{row: row}
	size, err := f.Blobs.Stat(ctx, row.CID)
	if err == nil && !f.Quick {
		var blob storage.Blob
		if blob, err = f.Blobs.Open(ctx, row.CID); err == nil { // which verifies
			blob.Close()
		}
	}
	switch {
	case err == nil && f.Quick && size != row.Size:
		l.code, l.detail = codeHeld, fmt.Sprintf("it has %d bytes; %d were stored", size, row.Size)
	case err == nil:
	case fatal(ctx, f.Blobs, err):
		return l, err
	case errors.Is(err, storage.ErrNotFound):
		l.code, l.detail = codeHeldMissing, "it is not there"
	case errors.Is(err, storage.ErrCorrupt):
		l.code, l.detail = codeHeld, strings.TrimPrefix(err.Error(), blobName(row.CID)+": ")
	default:
		l.code, l.detail = codeUnreadable, strings.TrimPrefix(err.Error(), blobName(row.CID)+": ")
	}
	return l, nil
}

// heldIsWrong tells of a held crate, unless it was let go of or fetched anew meanwhile.
func (f *fsck) heldIsWrong(ctx context.Context, l heldLook) error {
	if still, err := sameRow(ctx, f.Catalog.Reader, l.row); err != nil || !still {
		return err
	}
	served, err := f.Catalog.UpstreamSourcesAfter(ctx, catalog.UpstreamSource{CID: l.row.CID}, heldPage)
	if err != nil {
		return err
	}
	var suffers []string
	for _, s := range served {
		if s.CID == l.row.CID {
			suffers = append(suffers, "upstream/"+s.Upstream+"/"+s.Name+"@"+s.Version)
		}
	}
	if len(suffers) == 0 { // a server of the release before wrote it
		suffers = []string{"upstream/" + l.row.Upstream + "/" + l.row.Name + "@" + l.row.Version}
	}
	if !f.Repair || l.code == codeUnreadable {
		f.found(l.code, blobName(l.row.CID), l.detail, suffers...)
		return nil
	}
	gone := false
	err = f.Catalog.Update(ctx, func(tx *catalog.Tx) (err error) {
		if gone, err = sameRow(ctx, tx.Reader, l.row); err != nil || !gone {
			return err
		}
		ids := []storage.CID{l.row.CID}
		if err := tx.RemoveUpstreamBlobs(ctx, ids); err != nil {
			return err
		}
		return tx.ForgetUpstreamSources(ctx, ids)
	})
	if err == nil && gone {
		f.mended(l.code, blobName(l.row.CID), l.detail, suffers...)
	}
	return err
}

// sameRow reports whether row is there still, of the same fetch.
func sameRow(ctx context.Context, r catalog.Reader, row catalog.UpstreamBlob) (bool, error) {
	now, err := r.UpstreamBlobs(ctx, []storage.CID{row.CID})
	return err == nil && len(now) == 1 && now[0].Fetched.Equal(row.Fetched), err
}
