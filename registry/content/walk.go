package content

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
)

// walk is one look through nested archives.
type walk struct {
	limits  Limits
	bytes   int64
	entries int
	bzip2s  int
	flags   flagSet
	found   *Finding
	stopped error // what Check said
	idle    []*lookedAt
}

const (
	bufferBytes = 32 << 10
	mostPath    = 512
	// mostBzip2 is how many bzip2 streams are unpacked: each one needs 3.6 MB that
	// are cleared first, however few bytes it has.
	mostBzip2 = 4096
	// sniffed is how many of a file's first bytes say what archive it is.
	sniffed = 512
)

// file looks at the bytes of r, and into the archive that they may be. An archive
// that is damaged was looked at as far as it goes.
func (w *walk) file(r io.Reader, path string, depth int) error {
	f := w.begin(path)
	defer w.done(f)
	in := f.in
	in.Reset(io.TeeReader(r, f))
	head, err := in.Peek(sniffed)
	if err != nil && err != io.EOF {
		return err
	}
	if open := opener(head); open != nil {
		if depth == w.limits.Depth {
			return fmt.Errorf("%w: more than %d archives within each other, in %q", ErrUnreadable, w.limits.Depth, path)
		}
		if err := open(w, in, path, depth+1); w.final(err) {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	return f.end()
}

// final reports whether err, of an archive within, ends the whole look.
func (w *walk) final(err error) bool {
	return w.found != nil || w.stopped != nil || errors.Is(err, ErrUnreadable)
}

// opener is how to look into what begins with head, nil for no archive.
func opener(head []byte) func(w *walk, in *bufio.Reader, path string, depth int) error {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return (*walk).gzip
	case bytes.HasPrefix(head, []byte("BZh")):
		return (*walk).bzip2
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return (*walk).zip
	case len(head) >= 262 && bytes.Equal(head[257:262], []byte("ustar")):
		return (*walk).tar
	}
	return nil
}

// crate looks through a .crate, of which nothing may be damaged.
func (w *walk) crate(r io.Reader) error {
	z, err := gzip.NewReader(bufio.NewReaderSize(r, bufferBytes))
	if err != nil {
		return err
	}
	in := bufio.NewReaderSize(z, bufferBytes)
	if err := w.tar(in, "", 1); err != nil {
		return err
	}
	// What follows the end of the archive is to be there whole, and is looked at too.
	return w.file(in, "", 1)
}

func (w *walk) gzip(in *bufio.Reader, path string, depth int) error {
	z, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	return w.unpacked(z, path, depth)
}

func (w *walk) bzip2(in *bufio.Reader, path string, depth int) error {
	if w.bzip2s++; w.bzip2s > mostBzip2 {
		return fmt.Errorf("%w: more than %d bzip2 streams, at %q", ErrUnreadable, mostBzip2, path)
	}
	return w.unpacked(bzip2.NewReader(in), path, depth)
}

// unpacked looks at what comes out of a compression. With a tar archive in it,
// it counts as one with it.
func (w *walk) unpacked(z io.Reader, path string, depth int) error {
	in := bufio.NewReaderSize(z, bufferBytes)
	head, err := in.Peek(sniffed)
	if len(head) == 0 {
		return err
	}
	if err := w.enter(path); err != nil {
		return err
	}
	if len(head) >= 262 && bytes.Equal(head[257:262], []byte("ustar")) {
		depth--
	}
	return w.file(in, below(path, ""), depth)
}

// tar looks at each file of a tar archive.
func (w *walk) tar(in *bufio.Reader, path string, depth int) error {
	for t := tar.NewReader(in); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := w.enter(path); err != nil {
			return err
		}
		if err := w.file(t, below(path, h.Name), depth); err != nil {
			return err
		}
	}
}

var localHeader = []byte("PK\x03\x04")

// zip looks at each file of a zip archive that a local header says something of;
// the directory at its end is not looked at, so what it hides or lacks is no matter.
func (w *walk) zip(in *bufio.Reader, path string, depth int) error {
	for {
		h, err := nextHeader(in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := w.enter(path); err != nil {
			return err
		}
		if err := w.zipped(in, h, below(path, h.name), depth); w.final(err) {
			return err
		}
	}
}

// zipHeader is what a local header says (PKWARE APPNOTE 4.3.7).
type zipHeader struct {
	name      string
	method    uint16
	encrypted bool
	size      int64 // compressed; 0 also where it is said only behind the file
}

// nextHeader passes over everything up to the next local header; io.EOF without one.
func nextHeader(in *bufio.Reader) (h zipHeader, err error) {
	for {
		head, err := in.Peek(30)
		if len(head) < 30 {
			if err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
				err = io.EOF
			}
			return h, err
		}
		if bytes.HasPrefix(head, localHeader) {
			break
		}
		skip := 1
		if i := bytes.IndexByte(head[1:], 'P'); i > 0 {
			skip += i
		} else if i < 0 {
			skip = len(head)
		}
		if _, err := in.Discard(skip); err != nil {
			return h, err
		}
	}
	var b [30]byte
	if _, err := io.ReadFull(in, b[:]); err != nil {
		return h, err
	}
	flags := binary.LittleEndian.Uint16(b[6:])
	h.method, h.encrypted = binary.LittleEndian.Uint16(b[8:]), flags&1 != 0
	if flags&8 == 0 {
		h.size = int64(binary.LittleEndian.Uint32(b[18:]))
	}
	name := make([]byte, binary.LittleEndian.Uint16(b[26:]))
	if _, err := io.ReadFull(in, name); err != nil {
		return h, err
	}
	h.name = string(name)
	_, err = in.Discard(int(binary.LittleEndian.Uint16(b[28:])))
	return h, err
}

// zipped looks at one file of a zip archive, in of which it begins. What cannot be
// unpacked is passed over.
func (w *walk) zipped(in *bufio.Reader, h zipHeader, path string, depth int) error {
	switch {
	case h.encrypted:
		return nil
	case h.method == 0:
		return w.file(io.LimitReader(in, h.size), path, depth)
	case h.method == 8:
		z := flate.NewReader(in) // takes no byte more than it needs
		defer z.Close()
		return w.file(z, path, depth)
	}
	return nil
}

// enter counts an entry.
func (w *walk) enter(path string) error {
	if w.entries++; w.entries > w.limits.Entries {
		return fmt.Errorf("%w: more than %d files, at %q", ErrUnreadable, w.limits.Entries, path)
	}
	return nil
}

// below is the path of name in the archive path.
func below(path, name string) string {
	if path != "" {
		name = path + "!" + name
	}
	return name[:min(len(name), mostPath)]
}

// check is what Check says.
func (w *walk) check() error {
	if w.limits.Check != nil {
		w.stopped = w.limits.Check()
	}
	return w.stopped
}

// lookedAt is one file that is being looked at.
type lookedAt struct {
	w    *walk
	path string
	in   *bufio.Reader
	data data
	// closer: the glance was not enough, and text looks at the file.
	closer bool
	glance glance
	text   text
}

// begin makes one, of an old one where there is any.
func (w *walk) begin(path string) *lookedAt {
	var f *lookedAt
	if n := len(w.idle); n > 0 {
		f, w.idle = w.idle[n-1], w.idle[:n-1]
	} else {
		f = &lookedAt{in: bufio.NewReaderSize(nil, bufferBytes)}
	}
	*f = lookedAt{w: w, path: path, in: f.in, glance: glance{held: f.glance.held[:0]}, text: text{word: f.text.word}}
	for i := range f.text.word {
		f.text.word[i] = f.text.word[i][:0]
	}
	f.text.flags.crate = &w.flags
	return f
}

func (w *walk) done(f *lookedAt) { w.idle = append(w.idle, f) }

// Write looks at p, counting it.
func (f *lookedAt) Write(p []byte) (int, error) {
	w := f.w
	if w.bytes += int64(len(p)); w.bytes > w.limits.Bytes {
		return 0, fmt.Errorf("%w: more than %d bytes unpacked, at %q", ErrUnreadable, w.limits.Bytes, f.path)
	}
	if err := w.check(); err != nil {
		return 0, err
	}
	if found, err := f.sees(p); err != nil {
		return 0, err
	} else if found {
		return 0, f.hit(f.text.reason)
	}
	if f.data.write(p) {
		return 0, f.hit(byData)
	}
	return len(p), nil
}

// sees looks at p as text, at first at a glance.
func (f *lookedAt) sees(p []byte) (bool, error) {
	if f.closer {
		return f.text.write(p), nil
	}
	if f.closer = f.glance.write(p); !f.closer {
		return false, nil
	}
	return f.again()
}

// again has text look at what a glance has held.
func (f *lookedAt) again() (bool, error) {
	for part := range slices.Chunk(f.glance.held, bufferBytes) {
		if f.text.write(part) {
			return true, nil
		}
		if err := f.w.check(); err != nil {
			return false, err
		}
	}
	if cap(f.glance.held) > keptHeld {
		f.glance.held = nil // archives may lie within each other
	}
	return false, nil
}

// keptHeld is how much of a glance's memory is kept for the next file.
const keptHeld = 128 << 10

func (f *lookedAt) end() error {
	found := false
	if !f.closer {
		if !f.glance.end() {
			return nil
		}
		var err error
		if found, err = f.again(); err != nil {
			return err
		}
	}
	if found || f.text.end() {
		return f.hit(f.text.reason)
	}
	return nil
}

func (f *lookedAt) hit(by string) error {
	f.w.found = &Finding{Name: BLAKE3, Path: f.path, By: by}
	return errFound
}
