package registry

import (
	"context"
	"errors"

	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/storage"
)

// FsckOptions say what Fsck does beside looking.
type FsckOptions struct {
	// Inventory lists what Config.Blobs holds.
	Inventory storage.Inventory
	// Quick: of versions' bytes only that they are there, and how many.
	Quick bool
	// Repair adds what is missing and follows from what is signed or hashed.
	Repair bool
	// Temp is the folder for the replayed catalog, "" for the system's; the caller
	// has room there for another catalog.
	Temp string
	// Found is called with each finding, as it is made.
	Found func(Finding)
	// Progress is called now and then; all is 0 where it is not known.
	Progress func(what string, done, all int64)
}

// Finding is one thing that is not as it should be.
type Finding struct {
	// Code is one of Checks, for ever.
	Code string `json:"code"`
	// What is the thing: an entry, an object's key, a blob's CID, a row's key.
	What string `json:"what"`
	// Detail says what is wrong with it.
	Detail string `json:"detail"`
	// Suffers are the artifacts, members or grants that it is needed for, as far as they
	// are known; none for what all of the log needs.
	Suffers []string `json:"suffers"`
	// Do is what mends it.
	Do string `json:"do"`
	// Repaired: it has been mended.
	Repaired bool `json:"repaired"`
}

// Fscked is what Fsck saw.
type Fscked struct {
	// Size is what was published at the beginning, with its Root; Pending entries above
	// it are in the catalog and are published by the next start or change.
	Size    int64
	Root    tlog.Hash
	Pending int64
	// Blobs were listed, of Bytes in all; no entry refers to Unreferenced of them.
	Blobs, Bytes                    int64
	Unreferenced, UnreferencedBytes int64
	// Found counts findings, Repaired those that were mended; of Unreadable things it
	// is not known what they are.
	Found, Repaired, Unreadable int64
}

// ErrCouldNotLook: a check could not be made, or not to its end.
var ErrCouldNotLook = errors.New("could not look")

// Fsck holds catalog, log and blobs against each other, as of what is published at
// its beginning; what changes meanwhile is no finding.
func Fsck(ctx context.Context, c Config, o FsckOptions) (Fscked, error) {
	return Fscked{}, ErrCouldNotLook
}
