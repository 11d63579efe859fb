package storage

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

var (
	// ErrUnavailable: the store cannot be reached or does not answer as it
	// should now. What was asked may or may not have been done; every method of
	// Blobs and Inventory is safe to repeat.
	ErrUnavailable = errors.New("blob storage is unavailable")
	// ErrNoRoom: there was no room on this side to read a blob, of which that says nothing. It is
	// an ErrUnavailable too.
	ErrNoRoom = fmt.Errorf("%w: no room here to read it", ErrUnavailable)
	// ErrStray: where blobs are kept lies something whose name is no CID.
	ErrStray = errors.New("not a blob")
)

// Stored is a blob that is there, as its store lists it: nobody read its bytes.
type Stored struct {
	CID CID
	// Size is the number of bytes stored.
	Size int64
	// Modified is when they were stored last, by the store's clock.
	Modified time.Time
}

// Inventory is what fsck and gc need of a store beside Blobs. Both methods may
// be called concurrently and honour ctx.
type Inventory interface {
	// All yields the blobs whose CID's text sorts after that of after (the zero
	// CID: all), in byte order of that text, without holding all of them in
	// memory. A blob stored or removed meanwhile may be yielded or not. Whatever
	// else lies among the blobs is yielded as an error wrapped ErrStray that
	// names it and does not end the sequence; any other error ends it.
	All(ctx context.Context, after CID) iter.Seq2[Stored, error]
	// Remove removes the blob. When it returns nil that is durable. Removing
	// what is not there succeeds.
	Remove(ctx context.Context, id CID) error
}
