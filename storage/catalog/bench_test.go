//go:build unix

package catalog

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/storage"
)

// counter counts the statements of a connection, each of which is a round trip.
type counter struct{ n atomic.Int64 }

func (c *counter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.n.Add(1)
	return ctx
}

func (*counter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

const benchBatch = 64

// BenchmarkBatch enters 64 new versions of crates in a transaction, as the
// registry does: it reads what judges each, and writes what follows from it.
func BenchmarkBatch(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) {
		db, err := OpenSQLite(b.Context(), filepath.Join(b.TempDir(), "catalog.db"))
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		benchmarkBatch(b, db, nil)
	})
	b.Run("postgres", func(b *testing.B) {
		config, err := postgresConfig(testbed.SharedPostgres(b).URL)
		if err != nil {
			b.Fatal(err)
		}
		statements := &counter{}
		config.Tracer = statements
		db, err := openPostgres(b.Context(), config)
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		benchmarkBatch(b, db, statements)
	})
}

func benchmarkBatch(b *testing.B, db *DB, statements *counter) {
	ctx, published := b.Context(), 0
	batch := func() {
		err := db.Update(ctx, func(tx *Tx) error {
			if _, err := tx.Now(ctx); err != nil {
				return err
			}
			for i := range benchBatch {
				if err := benchPublish(ctx, tx, fmt.Sprint("crate", i%50), fmt.Sprint("1.0.", published+i)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		published += benchBatch
	}
	batch() // statements are prepared, caches filled
	if statements != nil {
		statements.n.Store(0)
	}
	began := time.Now()
	for b.Loop() {
		batch()
	}
	n := float64(published - benchBatch)
	b.ReportMetric(n/time.Since(began).Seconds(), "publishes/s")
	if statements != nil {
		b.ReportMetric(float64(statements.n.Load())/n, "statements/publish")
	}
}

// benchPublish reads and writes what one publish does.
func benchPublish(ctx context.Context, tx *Tx, name, version string) error {
	idx, err := tx.Head(ctx)
	if err != nil {
		return err
	}
	key, artifact := "version/crate/"+name+"/"+version, "artifact/crate/"+name
	for _, key := range []string{"registry", "registry", "member/did:key:a", artifact, key, "registry", artifact} {
		if _, _, err := tx.State(ctx, key, idx); err != nil {
			return err
		}
	}
	if _, err := tx.CrateBytes(ctx, name); err != nil {
		return err
	}
	data := fmt.Appendf(nil, `{"v":1,"time":"2031-05-01T12:00:00Z","record":"%s","did_document":null}`, key)
	id := storage.CIDOf(data)
	leaf := tlog.RecordHash(data)
	hashes, err := tlog.StoredHashesForRecordHash(idx, leaf, tlog.HashReaderFunc(func(positions []int64) ([]tlog.Hash, error) {
		plain, err := tx.Hashes(ctx, positions)
		hashes := make([]tlog.Hash, len(plain))
		for i, h := range plain {
			hashes[i] = h
		}
		return hashes, err
	}))
	if err != nil {
		return err
	}
	plain := make([][32]byte, len(hashes))
	for i, h := range hashes {
		plain[i] = h
	}
	value := make([]byte, 400)
	for _, step := range []func() error{
		func() error {
			return tx.AppendEntry(ctx, Entry{Index: idx, Bytes: data, LeafHash: leaf, Record: id, RecordID: fmt.Sprintf("%x", sha256.Sum256(data))})
		},
		func() error { return tx.PutHashes(ctx, tlog.StoredHashIndex(0, idx), plain) },
		func() error { return tx.PutState(ctx, key, idx, value) },
		func() error { return tx.PutVersionCID(ctx, id, key, idx) },
		func() error { return tx.PutState(ctx, artifact, idx, value) },
		func() error {
			return tx.PutCrateLine(ctx, CrateLine{NameKey: name, Version: version, Index: idx, Line: value, Description: "does what crates do"})
		},
		func() error { return tx.PutScan(ctx, Scan{CID: id, Recognisers: 1}) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
