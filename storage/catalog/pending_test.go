//go:build unix

package catalog

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"phoenix-lab.org/aln-registry/integration/testbed"
)

// TestTransactionReadsWhatItWrote compares what a transaction says it knows with
// what its database says when all is sent.
func TestTransactionReadsWhatItWrote(t *testing.T) {
	t.Parallel()
	sqlite := openSQLite(t, filepath.Join(t.TempDir(), "catalog.db"))
	postgres := opened(t, testbed.SharedPostgres(t).URL)
	for name, db := range map[string]*DB{"SQLite": sqlite, "Postgres": postgres} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(r *rapid.T) {
				err := db.Update(t.Context(), func(tx *Tx) error { return writeAndRead(t.Context(), r, tx) })
				if err != nil {
					r.Fatal(err)
				}
			})
		})
	}
}

func writeAndRead(ctx context.Context, r *rapid.T, tx *Tx) error {
	start := tx.pending.log.start
	keys := []string{"a", "b", "c", "d"}
	key := func() string { return rapid.SampledFrom(keys).Draw(r, "key") }
	index := func() int64 { return rapid.Int64Range(max(start-3, 0), tx.pending.log.head+1).Draw(r, "before") }
	for range rapid.IntRange(1, 20).Draw(r, "steps") {
		head := tx.pending.log.head
		err := error(nil)
		switch rapid.IntRange(0, 7).Draw(r, "step") {
		case 0:
			e := testEntry(head)
			err = tx.AppendEntry(ctx, e)
			if err == nil && rapid.Bool().Draw(r, "with a line") {
				err = tx.PutCrateLine(ctx, CrateLine{NameKey: key(), Version: fmt.Sprint(head), Index: head, Line: make([]byte, head%7)})
			}
		case 1:
			if head == start {
				continue
			}
			k, idx := key(), rapid.Int64Range(start, head-1).Draw(r, "idx")
			if err = tx.PutState(ctx, k, idx, fmt.Append(nil, k, idx)); errors.Is(err, ErrHistory) {
				err = nil
			}
		case 2:
			var next int64
			if err = tx.settled().one(ctx, "", []any{&next}, "SELECT COALESCE(MAX(position) + 1, 0) FROM log_hash"); err == nil {
				next = max(next, tx.pending.log.next)
				err = tx.PutHashes(ctx, next, [][32]byte{sha256.Sum256(fmt.Append(nil, next))})
			}
		case 3:
			k, before := key(), index()
			err = same(tx, func(read Reader) (any, error) {
				v, ok, err := read.State(ctx, k, before)
				return fmt.Sprint(v, ok), err
			})
		case 4:
			before := index()
			err = same(tx, func(read Reader) (any, error) { return read.States(ctx, keys, before) })
		case 5:
			err = same(tx, func(read Reader) (any, error) { return read.CrateBytes(ctx, "a") })
		case 6:
			if n := max(tx.pending.log.next, 1); n > 1 {
				positions := []int64{0, rapid.Int64Range(0, n-1).Draw(r, "position"), n - 1}
				err = same(tx, func(read Reader) (any, error) { return read.Hashes(ctx, positions) })
			}
		case 7:
			before := index()
			err = same(tx, func(read Reader) (any, error) {
				h, err := read.StateHistory(ctx, "a", before)
				return fmt.Sprint(h), err
			})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// same reads by what the transaction knows, then by what its database does.
func same(tx *Tx, read func(Reader) (any, error)) error {
	known, err := read(tx.Reader)
	if err != nil {
		return err
	}
	if err := tx.pending.flush(context.Background()); err != nil {
		return err
	}
	stored, err := read(tx.settled())
	if err == nil && !reflect.DeepEqual(known, stored) {
		return fmt.Errorf("the transaction knows %v, its database %v", known, stored)
	}
	return err
}
