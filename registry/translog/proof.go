package translog

import (
	"crypto/sha256"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// emptyRoot is the root of the empty tree, SHA-256 of nothing (RFC 6962 §2.1).
var emptyRoot = tlog.Hash(sha256.Sum256(nil))

// TreeHash returns the root of the tree of the first size entries. r must hold
// their stored hashes.
func TreeHash(size int64, r tlog.HashReader) (tlog.Hash, error) {
	if err := checkSize(size); err != nil {
		return tlog.Hash{}, err
	}
	root, err := tlog.TreeHash(size, r)
	if err != nil {
		return tlog.Hash{}, fmt.Errorf("root of %d entries: %w", size, err)
	}
	return root, nil
}

// StoredHashes returns the hashes that entry n adds and the position of the
// first; the others follow it. r must hold those of the entries before.
func StoredHashes(n int64, leaf tlog.Hash, r tlog.HashReader) (hashes []tlog.Hash, first int64, err error) {
	if err := checkIndex(n, MaxSize); err != nil {
		return nil, 0, err
	}
	hashes, err = tlog.StoredHashesForRecordHash(n, leaf, r)
	if err != nil {
		return nil, 0, fmt.Errorf("hashes of entry %d: %w", n, err)
	}
	return hashes, tlog.StoredHashIndex(0, n), nil
}

// LeafPosition is the position of the leaf hash of the entry at index among the stored
// hashes; that of the next entry's is where what this one adds ends.
func LeafPosition(index int64) int64 { return tlog.StoredHashIndex(0, index) }

// InclusionProof returns the RFC 6962 audit path of the entry at index in the
// tree of size entries.
func InclusionProof(size, index int64, r tlog.HashReader) (tlog.RecordProof, error) {
	if err := checkIndex(index, size); err != nil {
		return nil, err
	}
	proof, err := tlog.ProveRecord(size, index, r)
	if err != nil {
		return nil, fmt.Errorf("inclusion proof of %d in %d: %w", index, size, err)
	}
	return proof, nil
}

// CheckInclusion verifies that the tree of size entries with that root has leaf
// at index. Errors: ErrInclusion, ErrRange.
func CheckInclusion(proof tlog.RecordProof, size int64, root tlog.Hash, index int64, leaf tlog.Hash) error {
	if err := checkIndex(index, size); err != nil {
		return err
	}
	if err := tlog.CheckRecord(proof, size, root, index, leaf); err != nil {
		return fmt.Errorf("%w: entry %d of %d", ErrInclusion, index, size)
	}
	return nil
}

// ConsistencyProof returns the RFC 6962 proof that the tree of newSize entries
// begins with that of oldSize. Of an empty old tree, and of equal trees, it is empty.
func ConsistencyProof(oldSize, newSize int64, r tlog.HashReader) (tlog.TreeProof, error) {
	if err := checkSize(newSize); err != nil {
		return nil, err
	}
	if oldSize < 0 || oldSize > newSize {
		return nil, fmt.Errorf("%w: consistency of %d with %d entries", ErrRange, oldSize, newSize)
	}
	if oldSize == 0 {
		return tlog.TreeProof{}, nil
	}
	proof, err := tlog.ProveTree(newSize, oldSize, r)
	if err != nil {
		return nil, fmt.Errorf("consistency proof of %d with %d: %w", oldSize, newSize, err)
	}
	return proof, nil
}

// CheckConsistency verifies that newer extends older. Errors: ErrOrigin (two
// logs), ErrRollback (newer is the smaller one), ErrConsistency (a fork, or a
// proof of something else), ErrCheckpoint.
func CheckConsistency(proof tlog.TreeProof, older, newer Checkpoint) error {
	for _, c := range []Checkpoint{older, newer} {
		if err := c.check(); err != nil {
			return err
		}
	}
	if older.Origin != newer.Origin {
		return fmt.Errorf("%w: %q after %q", ErrOrigin, newer.Origin, older.Origin)
	}
	if newer.Size < older.Size {
		return fmt.Errorf("%w: from %d to %d entries", ErrRollback, older.Size, newer.Size)
	}
	if older.Size == 0 && len(proof) == 0 {
		return nil // every tree extends the empty one, the root of which c.check compared
	}
	if older.Size == 0 || tlog.CheckTree(proof, newer.Size, newer.Root, older.Size, older.Root) != nil {
		return fmt.Errorf("%w: %d entries with root %s, then %d with root %s",
			ErrConsistency, older.Size, older.Root, newer.Size, newer.Root)
	}
	return nil
}

// Memory holds a log's stored hashes in memory, for replays and checks. The
// zero value is the empty log. It is not safe for concurrent use.
type Memory struct {
	hashes []tlog.Hash
	size   int64
}

// Append adds the leaf hash of the next entry.
func (m *Memory) Append(leaf tlog.Hash) error {
	hashes, _, err := StoredHashes(m.size, leaf, m)
	if err != nil {
		return err
	}
	m.hashes = append(m.hashes, hashes...)
	m.size++
	return nil
}

// Size returns the number of entries.
func (m *Memory) Size() int64 { return m.size }

// Root returns the root over all entries.
func (m *Memory) Root() (tlog.Hash, error) { return TreeHash(m.size, m) }

// ReadHashes implements tlog.HashReader; positions it does not hold are ErrRange.
func (m *Memory) ReadHashes(positions []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(positions))
	for i, p := range positions {
		if p < 0 || p >= int64(len(m.hashes)) {
			return nil, fmt.Errorf("%w: hash %d of %d", ErrRange, p, len(m.hashes))
		}
		hashes[i] = m.hashes[p]
	}
	return hashes, nil
}
