// Package translog is the arithmetic of the registry's transparency log:
// entries, hashes, checkpoints, tiles and proofs (FORMATS §4). It follows
// RFC 6962 (hashes and proofs), C2SP signed-note, tlog-checkpoint,
// tlog-cosignature (cosignature/v1) and tlog-tiles (height 8), on top of
// golang.org/x/mod/sumdb/tlog and note, which it guards against arguments they
// were not written for.
//
// It does no I/O of its own: stored hashes come through a tlog.HashReader,
// remote tiles through a Source, time and keys are arguments.
//
// Invariants: an entry, a checkpoint, a bundle and a path have one spelling,
// and parsers accept only that; nothing read through a TileReader is returned
// before it was proven to be in the checkpoint's tree; no size or index above
// MaxSize enters the arithmetic; private keys cannot be printed.
package translog

import (
	"errors"
	"fmt"
)

// MaxSize is the largest number of entries of a log: integers stay below 2^53
// (FORMATS §1), and object keys have 16 digits.
const MaxSize int64 = 1<<53 - 1

// Errors that callers branch on; all are returned wrapped with what was met.
var (
	// ErrEntry: bytes are not a log entry in its one form.
	ErrEntry = errors.New("not a log entry")
	// ErrBundle: bytes are not a tlog-tiles entry bundle, or of another width than asked for.
	ErrBundle = errors.New("not an entry bundle")
	// ErrPath: a string is not the path of a tile or bundle.
	ErrPath = errors.New("not a tile path")
	// ErrKey: a string is not the key of an entry or checkpoint object.
	ErrKey = errors.New("not a log object key")
	// ErrLogKey: bytes are not an Ed25519 key that may sign or verify a log.
	ErrLogKey = errors.New("not a usable Ed25519 log key")
	// ErrCheckpoint: a checkpoint's text breaks tlog-checkpoint or a bound of this package.
	ErrCheckpoint = errors.New("not a checkpoint")
	// ErrOrigin: the checkpoint is of another log.
	ErrOrigin = errors.New("checkpoint of another log")
	// ErrSignature: a signature by a known key is wrong, or no known key signed.
	ErrSignature = errors.New("checkpoint not signed by the log")
	// ErrRange: a size or index lies outside the tree.
	ErrRange = errors.New("outside the log")
	// ErrInclusion: a proof does not show the entry to be in the tree.
	ErrInclusion = errors.New("entry not proven to be in the log")
	// ErrRollback: the newer checkpoint is smaller than the older one.
	ErrRollback = errors.New("the log shrank")
	// ErrConsistency: a proof does not show the newer tree to extend the older one.
	ErrConsistency = errors.New("the log is not proven to extend its past")
	// ErrTile: a tile does not belong to the checkpoint's tree.
	ErrTile = errors.New("tile contradicts the checkpoint")
)

// checkSize refuses sizes that the arithmetic below was not written for.
func checkSize(size int64) error {
	if size < 0 || size > MaxSize {
		return fmt.Errorf("%w: size %d", ErrRange, size)
	}
	return nil
}

// checkIndex refuses an index that is not below size.
func checkIndex(index, size int64) error {
	if err := checkSize(size); err != nil {
		return err
	}
	if index < 0 || index >= size {
		return fmt.Errorf("%w: index %d of %d entries", ErrRange, index, size)
	}
	return nil
}
