package s3

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"

	"phoenix-lab.org/aln-registry/storage"
)

// download is a blob that comes, in as many pieces as its connections are cut
// into. Nothing but the digest of the whole is believed: not that the pieces are
// of one object, not the lengths that headers tell.
type download struct {
	id    storage.CID
	sink  sink
	hash  hash.Hash
	got   int64
	wrong wrong // digests that the whole had instead
}

// sink takes the bytes.
type sink interface {
	io.Writer
	// expect says how many bytes will come in all, before any does.
	expect(size int64) error
	reset() error
}

// nowhere is a sink of bytes that are only hashed.
type nowhere struct{}

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }

func (nowhere) expect(int64) error { return nil }

func (nowhere) reset() error { return nil }

const (
	mostChanged = 6
	// mostAlike is how often bytes arrive changed in the same way by which they
	// are taken to be stored so. Few bytes are soon cut or flipped twice alike.
	mostAlike = 3
)

var errChanged = errors.New("the bytes arrive changed")

// wrong is how the bytes of one object have arrived that were not what they should be.
type wrong struct {
	changed int    // times in all
	alike   int    // how many of the last ones were the same
	last    string // which, the last time
}

// again notes that what came, which is wrong. It is settled with corrupt when that
// has come mostAlike times running, and after mostChanged in all.
func (w *wrong) again(what string, corrupt error) error {
	if w.alike++; what != w.last {
		w.alike = 1
	}
	w.last = what
	w.changed++
	switch {
	case w.alike == mostAlike:
		return settled{corrupt}
	case w.changed == mostChanged:
		return settled{fmt.Errorf("%w: %w", storage.ErrUnavailable, errChanged)}
	}
	return nil
}

// fetch downloads the blob into sink and returns its size. Bytes that arrive
// with the same wrong digest mostAlike times running are stored so:
// storage.ErrCorrupt. What changes them on the way does not do so alike.
func (s *Store) fetch(ctx context.Context, id storage.CID, into sink) (size int64, err error) {
	d := &download{id: id, sink: into, hash: sha256.New()}
	err = s.try(ctx, "blob "+id.String(), 0, func(ctx context.Context, p *pace) error {
		return s.piece(ctx, d, p)
	})
	return d.got, err
}

// piece downloads what is still missing, until it is cut.
func (s *Store) piece(ctx context.Context, d *download, p *pace) error {
	options := minio.GetObjectOptions{}
	if d.got > 0 {
		if err := options.SetRange(d.got, 0); err != nil {
			return settled{err}
		}
	}
	from, _, header, err := s.core.GetObject(ctx, s.place.bucket, s.blobKey(d.id), options)
	if err != nil {
		return d.afterFailure(s.answer(err))
	}
	defer from.Close()
	begin, whole, err := extent(header)
	if err != nil {
		return err
	}
	if begin != d.got || whole > maxBlob {
		if err := d.restart(); err != nil {
			return err
		}
		if begin != 0 || whole > maxBlob {
			return fmt.Errorf("the store sends bytes from %d of %d", begin, whole)
		}
	}
	if err := d.sink.expect(whole); err != nil {
		return err
	}
	p.expect(whole)
	n, err := io.Copy(io.MultiWriter(d.sink, d.hash), &watched{from, p.moved})
	d.got += n
	if err != nil {
		return err
	}
	if d.got < whole {
		return io.ErrUnexpectedEOF
	}
	return d.verify()
}

// afterFailure starts anew where the store has no such range: the length that it
// told before was not the blob's.
func (d *download) afterFailure(err error) error {
	var e minio.ErrorResponse
	if errors.As(err, &e) && e.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return errors.Join(err, d.restart())
	}
	return err
}

func (d *download) restart() error {
	d.hash.Reset()
	d.got = 0
	return d.sink.reset()
}

func (d *download) verify() error {
	sum := d.hash.Sum(nil)
	if [sha256.Size]byte(sum) == d.id.Digest() {
		return nil
	}
	corrupt := fmt.Errorf("%w: %d bytes hash to %x", storage.ErrCorrupt, d.got, sum)
	if err := d.restart(); err != nil {
		return err
	}
	if err := d.wrong.again(string(sum), corrupt); err != nil {
		return err
	}
	return errChanged
}

// extent reads from an answer's headers at which byte its body begins and how
// many the whole object has.
func extent(h http.Header) (begin, whole int64, err error) {
	length, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
	if err != nil || length < 0 {
		return 0, 0, errors.New("the store does not say how many bytes come")
	}
	given := h.Get("Content-Range")
	if given == "" {
		return 0, length, nil
	}
	var end int64
	if n, err := fmt.Sscanf(strings.TrimSpace(given), "bytes %d-%d/%d", &begin, &end, &whole); err != nil || n != 3 {
		return 0, 0, fmt.Errorf("the store sends the range %q", given)
	}
	if begin < 0 || end-begin+1 != length || end+1 != whole {
		return 0, 0, fmt.Errorf("the store sends the range %q in %d bytes", given, length)
	}
	return begin, whole, nil
}

// watched tells when bytes come.
type watched struct {
	r     io.Reader
	moved func()
}

// Read implements io.Reader.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if n > 0 {
		w.moved()
	}
	return n, err
}
