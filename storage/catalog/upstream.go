package catalog

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// UpstreamFile is what is noted of an index file of another registry: how to ask whether
// it has changed, and when that was asked last.
type UpstreamFile struct {
	Upstream, Name string
	// ETag and LastModified are as the other registry sent them. What is too long to be
	// stored, or unclean, is kept as "", which only costs a request.
	ETag, LastModified string
	// IndexURL is the URL of the index that they came from, "" where that is not known.
	IndexURL string
	// Snapshot is the file that they are of, zero for none.
	Snapshot storage.CID
	// Status is HTTP's, of the last answer.
	Status int
	// Checked is in whole seconds UTC.
	Checked time.Time
}

// UpstreamFile returns what is noted of an index file.
func (r Reader) UpstreamFile(ctx context.Context, upstream, name string) (UpstreamFile, bool, error) {
	found, err := collect(ctx, r, "read what is noted of an index file", scanUpstreamFile,
		"SELECT "+upstreamFileColumns+" FROM upstream_file WHERE upstream = $1 AND name = $2", upstream, name)
	if err != nil || len(found) == 0 {
		return UpstreamFile{}, false, err
	}
	return found[0], true, nil
}

const upstreamFileColumns = "upstream, name, etag, last_modified, index_url, snapshot, status, checked"

func scanUpstreamFile(rows *sql.Rows) (f UpstreamFile, err error) {
	var snapshot string
	var checked int64
	if err := rows.Scan(&f.Upstream, &f.Name, &f.ETag, &f.LastModified, &f.IndexURL, &snapshot, &f.Status, &checked); err != nil {
		return f, err
	}
	f.Checked = time.Unix(checked, 0).UTC()
	if snapshot != "" {
		f.Snapshot, err = storage.ParseCID(snapshot)
	}
	return f, err
}

// PutUpstreamFiles notes files, each in place of what was noted of it, all or none.
func (db *DB) PutUpstreamFiles(ctx context.Context, files []UpstreamFile) error {
	inOrder := sortedBy(files, func(a, b UpstreamFile) int {
		return cmp.Or(strings.Compare(a.Upstream, b.Upstream), strings.Compare(a.Name, b.Name))
	})
	return db.note(ctx, func(t *Tx) error {
		for _, f := range inOrder {
			if err := t.putUpstreamFile(ctx, f); err != nil {
				return err
			}
		}
		return nil
	})
}

func (t *Tx) putUpstreamFile(ctx context.Context, f UpstreamFile) error {
	if err := errors.Join(checkText("upstream", f.Upstream), checkText("crate name", f.Name)); err != nil {
		return err
	}
	snapshot := ""
	if !f.Snapshot.IsZero() {
		snapshot = f.Snapshot.String()
	}
	return t.write(ctx, statement{what: "note an index file", query: `INSERT INTO upstream_file (upstream, name, etag, last_modified, index_url, snapshot, status, checked)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (upstream, name) DO UPDATE SET etag = excluded.etag, last_modified = excluded.last_modified,
		index_url = excluded.index_url, snapshot = excluded.snapshot, status = excluded.status, checked = excluded.checked`,
		args: []any{f.Upstream, f.Name, exactly(f.ETag), exactly(f.LastModified), exactly(f.IndexURL), snapshot, f.Status, f.Checked.Unix()}})
}

// exactly is s, or "" where it cannot be stored as it is.
func exactly(s string) string {
	if clean(s) != s {
		return ""
	}
	return s
}

// UpstreamBlob is a crate of another registry that is held.
type UpstreamBlob struct {
	CID storage.CID
	// Upstream, Name and Version are of the first crate for which the bytes were fetched; for
	// which others they were, UpstreamSource says.
	Upstream, Name, Version string
	// Size is in bytes.
	Size int64
	// Fetched is when they were fetched last, Used about when they were used last, both
	// in whole seconds UTC.
	Fetched, Used time.Time
}

const upstreamBlobColumns = "b.cid, b.upstream, b.name, b.version, b.size, b.fetched, b.used"

func scanUpstreamBlob(rows *sql.Rows) (b UpstreamBlob, err error) {
	var text string
	var fetched, used int64
	if err := rows.Scan(&text, &b.Upstream, &b.Name, &b.Version, &b.Size, &fetched, &used); err != nil {
		return b, err
	}
	b.Fetched, b.Used = time.Unix(fetched, 0).UTC(), time.Unix(used, 0).UTC()
	b.CID, err = storage.ParseCID(text)
	return b, err
}

// UpstreamBlobs returns those of ids that are held, in byte order of their text: of the
// versions of a crate, say, those that can be had when nobody else answers.
func (r Reader) UpstreamBlobs(ctx context.Context, ids []storage.CID) (held []UpstreamBlob, err error) {
	err = inBatches(textsOf(ids), 1, func(list string, args []any) error {
		some, err := collect(ctx, r, "look for what is held of other registries", scanUpstreamBlob,
			"SELECT "+upstreamBlobColumns+" FROM upstream_blob b WHERE b.cid IN ("+list+") ORDER BY b.cid", args...)
		held = append(held, some...)
		return err
	})
	return held, err
}

// UpstreamBlobsAfter returns what is held behind after (zero: from the beginning), in
// byte order of the CIDs' text, at most limit.
func (r Reader) UpstreamBlobsAfter(ctx context.Context, after storage.CID, limit int) ([]UpstreamBlob, error) {
	return collect(ctx, r, "list what is held of other registries", scanUpstreamBlob,
		"SELECT "+upstreamBlobColumns+" FROM upstream_blob b WHERE b.cid > $1 ORDER BY b.cid LIMIT $2", textOf(after), max(limit, 0))
}

// UnusedUpstreamBlobs returns what is held and not pinned, what was not used for longest
// first: at most limit of those behind after, of which only Used and CID count.
func (r Reader) UnusedUpstreamBlobs(ctx context.Context, after UpstreamBlob, limit int) ([]UpstreamBlob, error) {
	used := int64(-1)
	if !after.CID.IsZero() {
		used = after.Used.Unix()
	}
	return collect(ctx, r, "look for what was not used for long", scanUpstreamBlob, "SELECT "+upstreamBlobColumns+` FROM upstream_blob b
		WHERE (b.used, b.cid) > ($1, $2) AND NOT EXISTS (SELECT 1 FROM upstream_pin p WHERE p.cid = b.cid)
		ORDER BY b.used, b.cid LIMIT $3`, used, textOf(after.CID), max(limit, 0))
}

// textOf is the text of id, "" for none.
func textOf(id storage.CID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

// PutUpstreamBlobs notes that blobs are held, and were served by their Upstream. Of one that is
// held already, Fetched, and Used where that is later, are what changes. Whoever does this has looked, in the same
// transaction, that they are not condemned.
func (t *Tx) PutUpstreamBlobs(ctx context.Context, blobs []UpstreamBlob) error {
	inOrder := sortedBy(blobs, func(a, b UpstreamBlob) int { return strings.Compare(a.CID.String(), b.CID.String()) })
	for _, b := range inOrder {
		if err := t.putUpstreamBlob(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tx) putUpstreamBlob(ctx context.Context, b UpstreamBlob) error {
	if b.CID.IsZero() || b.Size < 0 {
		return fmt.Errorf("crate %s %s has no bytes: %w", b.Name, b.Version, ErrBadText)
	}
	if err := errors.Join(checkText("upstream", b.Upstream), checkText("crate name", b.Name), checkText("crate version", b.Version)); err != nil {
		return err
	}
	if err := t.putUpstreamSource(ctx, UpstreamSource{b.CID, b.Upstream, b.Name, b.Version}); err != nil {
		return err
	}
	return t.write(ctx, statement{what: "note what is held of another registry", query: `INSERT INTO upstream_blob (cid, upstream, name, version, size, fetched, used)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (cid) DO UPDATE SET fetched = excluded.fetched,
		used = CASE WHEN excluded.used > upstream_blob.used THEN excluded.used ELSE upstream_blob.used END`,
		args: []any{b.CID.String(), b.Upstream, b.Name, b.Version, b.Size, b.Fetched.Unix(), b.Used.Unix()}})
}

// RemoveUpstreamBlobs notes that ids are not held any more, if they were. Who has served them is
// known until ForgetUpstreamSources: they may be held again.
func (t *Tx) RemoveUpstreamBlobs(ctx context.Context, ids []storage.CID) error {
	for _, text := range textsOf(ids) {
		if err := t.write(ctx, statement{what: "note what is not held any more", query: "DELETE FROM upstream_blob WHERE cid = $1", args: []any{text}}); err != nil {
			return err
		}
	}
	return nil
}

// UseUpstreamBlobs notes that those of ids that are held were used at, in whole seconds.
func (db *DB) UseUpstreamBlobs(ctx context.Context, ids []storage.CID, at time.Time) error {
	return db.note(ctx, func(t *Tx) error {
		for _, text := range textsOf(ids) {
			err := t.write(ctx, statement{what: "note that crates were used",
				query: "UPDATE upstream_blob SET used = $1 WHERE cid = $2 AND used < $1", args: []any{at.Unix(), text}})
			if err != nil {
				return err
			}
		}
		return nil
	})
}
