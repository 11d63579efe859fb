package translog

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/storage"
)

const testOrigin = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"

var testTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// testKey derives a key from one byte, so that golden files hold.
func testKey(t testing.TB, seed byte) LogKey {
	t.Helper()
	key, err := NewLogKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// testLog is a whole log in memory that can also play the remote server.
type testLog struct {
	entries [][]byte
	hashes  Memory
}

// newTestLog makes a log of n entries whose records are named by label.
func newTestLog(t testing.TB, n int, label string) *testLog {
	t.Helper()
	l := new(testLog)
	for i := range n {
		l.add(t, fmt.Sprintf("%s %d", label, i))
	}
	return l
}

func (l *testLog) add(t testing.TB, record string) {
	t.Helper()
	entry, err := Entry{Time: testTime.Add(time.Duration(len(l.entries)) * time.Second), Record: storage.CIDOf([]byte(record))}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.hashes.Append(LeafHash(entry)); err != nil {
		t.Fatal(err)
	}
	l.entries = append(l.entries, entry)
}

func (l *testLog) checkpoint(t testing.TB, size int64) Checkpoint {
	t.Helper()
	root, err := TreeHash(size, &l.hashes)
	if err != nil {
		t.Fatal(err)
	}
	return Checkpoint{Origin: testOrigin, Size: size, Root: root}
}

// source serves the log's tiles and bundles as a registry would at size, and
// passes each answer through tamper when given.
func (l *testLog) source(size int64, tamper func(path string, data []byte) []byte) Source {
	return func(_ context.Context, path string) ([]byte, error) {
		tile, err := ParseTilePath(path)
		if err != nil {
			return nil, err
		}
		data, err := l.serve(tile, size)
		if err == nil && tamper != nil {
			data = tamper(path, bytes.Clone(data))
		}
		return data, err
	}
}

func (l *testLog) serve(tile Tile, size int64) ([]byte, error) {
	if !tile.Entries {
		return ReadTile(tile, size, &l.hashes)
	}
	from, to, err := tile.EntryRange(size)
	if err != nil {
		return nil, err
	}
	var bundle []byte
	for _, entry := range l.entries[from:to] {
		if bundle, err = AppendBundle(bundle, entry); err != nil {
			return nil, err
		}
	}
	return bundle, nil
}

// flip returns data with one bit changed.
func flip(data []byte, bit int) []byte {
	changed := bytes.Clone(data)
	changed[bit/8] ^= 1 << (bit % 8)
	return changed
}

// naiveRoot is RFC 6962 §2.1 word for word, to compare with.
func naiveRoot(leaves []tlog.Hash) tlog.Hash {
	switch len(leaves) {
	case 0:
		return emptyRoot
	case 1:
		return leaves[0]
	}
	k := 1
	for k*2 < len(leaves) {
		k *= 2
	}
	return tlog.NodeHash(naiveRoot(leaves[:k]), naiveRoot(leaves[k:]))
}
