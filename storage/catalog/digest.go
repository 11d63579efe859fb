package catalog

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"hash"
	"math"
	"strconv"
)

// StateDigest is a sha256 over all state rows by key and index, then all crate
// lines by index, each field preceded by its length: two catalogs with equal
// digests hold the same state. It reads one snapshot of everything.
func (db *DB) StateDigest(ctx context.Context) (digest [32]byte, err error) {
	tx, err := db.read.BeginTx(ctx, &sql.TxOptions{Isolation: db.dialect.snapshot, ReadOnly: true})
	if err != nil {
		return digest, failed(ctx, "begin", err)
	}
	defer tx.Rollback()
	h := sha256.New()
	if err := digestState(ctx, Reader{q: tx}, h); err != nil {
		return digest, err
	}
	if err := digestLines(ctx, Reader{q: tx}, h); err != nil {
		return digest, err
	}
	return [32]byte(h.Sum(nil)), nil
}

// digestPage is how many rows are read in one statement, none of which then
// takes long.
const digestPage = 500

func digestState(ctx context.Context, r Reader, h hash.Hash) error {
	for after := (StateKey{Index: -1}); ; {
		rows, err := r.StateRows(ctx, after, math.MaxInt64, digestPage)
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, s := range rows {
			digestRow(h, []byte("state"), []byte(s.Key), []byte(strconv.FormatInt(s.Index, 10)), s.Value)
			after = StateKey{s.Key, s.Index}
		}
	}
}

func digestLines(ctx context.Context, r Reader, h hash.Hash) error {
	for after := int64(-1); ; {
		lines, err := r.CrateRows(ctx, after, math.MaxInt64, digestPage)
		if err != nil || len(lines) == 0 {
			return err
		}
		for _, c := range lines {
			digestRow(h, []byte("crate"), []byte(strconv.FormatInt(c.Index, 10)), []byte(c.NameKey), []byte(c.Version),
				c.Line, []byte(c.Description), []byte(c.Keywords))
			after = c.Index
		}
	}
}

func digestRow(h hash.Hash, fields ...[]byte) {
	for _, f := range fields {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(f))))
		h.Write(f)
	}
}
