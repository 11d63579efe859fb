package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/storage"
)

// inMemory is how many bytes of a blob are kept in memory at most; more go to a
// temporary file.
const inMemory = 1 << 20

// spool holds bytes that come in: few in memory, more in a file without a name.
type spool struct {
	folder string
	memory []byte
	file   *os.File
}

// Write implements io.Writer. Errors are settled: they are this machine's.
func (p *spool) Write(b []byte) (int, error) {
	if p.file == nil && len(p.memory)+len(b) <= inMemory {
		p.memory = append(p.memory, b...)
		return len(b), nil
	}
	if p.file == nil {
		if err := p.open(); err != nil {
			return 0, settled{fmt.Errorf("a temporary file: %w", storage.Full(err))}
		}
	}
	n, err := p.file.Write(b)
	if err != nil {
		err = settled{fmt.Errorf("a temporary file: %w", storage.Full(err))}
	}
	return n, err
}

func (p *spool) open() (err error) {
	if p.file, err = durable.CreateUnnamed(p.folder); err != nil {
		return err
	}
	_, err = p.file.Write(p.memory)
	p.memory = nil
	return err
}

// reset forgets what was written.
func (p *spool) reset() error {
	p.memory = p.memory[:0]
	if p.file == nil {
		return nil
	}
	if _, err := p.file.Seek(0, io.SeekStart); err != nil {
		return settled{err}
	}
	if err := p.file.Truncate(0); err != nil {
		return settled{err}
	}
	return nil
}

// free gives up what was written.
func (p *spool) free() {
	if p.file == nil {
		return
	}
	p.file.Close()
}

// ReadAt implements io.ReaderAt. Several may read at once.
func (p *spool) ReadAt(b []byte, from int64) (int, error) {
	if p.file == nil {
		return bytes.NewReader(p.memory).ReadAt(b, from)
	}
	return p.file.ReadAt(b, from)
}

// reader reads what was written, from the beginning.
func (p *spool) reader() (io.ReadSeeker, error) {
	if p.file == nil {
		return bytes.NewReader(p.memory), nil
	}
	_, err := p.file.Seek(0, io.SeekStart)
	return p.file, err
}

// source is the bytes of a blob that is to be sent, perhaps several times.
type source struct {
	r     io.ReadSeeker
	start int64
	free  func()
}

// verified makes sure that r has exactly size bytes that hash to id, and returns
// them so that they can be read again: r itself where it can go back, else a copy.
func (s *Store) verified(ctx context.Context, id storage.CID, size int64, r io.Reader) (*source, error) {
	again, start, can := seekable(r)
	src := &source{r: again, start: start, free: func() {}}
	into := io.Discard
	copied := &spool{folder: s.folder}
	if !can || size <= inMemory {
		into = copied
	}
	err := storage.CopyVerified(ctx, into, r, id, size)
	if err == nil && (!can || size <= inMemory) {
		src.start, src.free = 0, copied.free
		src.r, err = copied.reader()
	}
	if err != nil {
		copied.free()
		return nil, unsettled(err)
	}
	return src, nil
}

// unsettled is an error as callers see it.
func unsettled(err error) error {
	var final settled
	if errors.As(err, &final) {
		return final.error
	}
	return err
}

func seekable(r io.Reader) (io.ReadSeeker, int64, bool) {
	again, can := r.(io.ReadSeeker)
	if !can {
		return nil, 0, false
	}
	start, err := again.Seek(0, io.SeekCurrent)
	return again, start, err == nil
}

// body is a source's bytes for one request. net/http may go on reading a body
// after the answer came; end waits for a read under way and allows no other.
// It hides that the source can seek: minio-go would.
type body struct {
	mu    sync.Mutex
	r     io.Reader
	ended bool
}

// begin goes back to the source's beginning.
func (s *source) begin(moved func()) (*body, error) {
	if _, err := s.r.Seek(s.start, io.SeekStart); err != nil {
		return nil, settled{err}
	}
	return &body{r: &watched{s.r, moved}}, nil
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return 0, errors.New("the request has ended")
	}
	return b.r.Read(p)
}

func (b *body) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
}
