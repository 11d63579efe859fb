package storage

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
)

// CopyVerified writes to w what r has, while ctx lasts. Bytes that do not hash to
// id, or more or fewer than size, are ErrMismatch: w has got some of them then.
func CopyVerified(ctx context.Context, w io.Writer, r io.Reader, id CID, size int64) error {
	h := sha256.New()
	// One byte more than announced is enough to know that there are too many.
	n, err := io.Copy(io.MultiWriter(w, h), ReaderOf(ctx, io.LimitReader(r, size+1)))
	if err != nil {
		return err
	}
	if n != size {
		return fmt.Errorf("%w: read %d bytes where %d were announced", ErrMismatch, n, size)
	}
	if [sha256.Size]byte(h.Sum(nil)) != id.Digest() {
		return fmt.Errorf("%w: the bytes hash to %x", ErrMismatch, h.Sum(nil))
	}
	return nil
}

// ReaderOf reads from r until ctx ends.
func ReaderOf(ctx context.Context, r io.Reader) io.Reader { return contextReader{ctx, r} }

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
