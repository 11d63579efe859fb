// Package content recognises what a crate holds by its bytes, whatever it is
// called: an implementation of BLAKE3, so far. It looks at every file of a
// .crate, at source text of any language and at data, and into archives within.
//
// BLAKE3 shows by its message permutation, 2 6 3 10 7 0 4 13 1 11 12 5 9 14 15 8
// (or a later row of the schedule that it generates, or its inverse), and by its
// domain flags, CHUNK_START = 1 to DERIVE_KEY_MATERIAL = 64. Its initial value is
// SHA-256's and says nothing. Where a text has numbers, all that is between them
// is passed over, so that no spelling of a table matters; a chance hit needs
// sixteen numbers in one of a few dozen orders out of 16! (2^44).
//
// What is generated when it is built or run, encrypted, in a compression that is
// not unpacked here (xz, zstd, base64, …), or written with other numbers and
// names, is not seen: this finds copies and ports, not somebody who hides one.
//
// Everything is bounded: by Limits the bytes unpacked, the entries, the depth,
// and how many bzip2 streams there are; the memory needed is 1.3 MiB for the file
// looked at, some hundred KiB for each archive around it, and 3.6 MB for each of those that is
// bzip2, whatever the size.
package content

import (
	"errors"
	"fmt"
	"io"
)

// Version is that of the recognisers: it grows with every change of what they
// see, and a result by another is not believed.
const Version = 1

// BLAKE3 is the name of the recogniser of BLAKE3.
const BLAKE3 = "blake3"

// ErrUnreadable: the bytes are not what they should be, or exceed a limit. Whoever
// looks again gets the same answer.
var ErrUnreadable = errors.New("content cannot be looked at")

// Finding is one recogniser's hit. A recogniser hits at most once.
type Finding struct {
	// Name is the recogniser's: BLAKE3.
	Name string
	// Path is the file it was found in, archives and what is in them separated
	// by "!", at most 512 bytes.
	Path string
	// By says what gave it away, in a few words.
	By string
}

// String is for people.
func (f Finding) String() string { return fmt.Sprintf("%s: %s in %q", f.Name, f.By, f.Path) }

// Limits bound one look. Zero fields are DefaultLimits'.
type Limits struct {
	// Bytes is how many may be looked at, unpacked; what is unpacked twice counts twice.
	Bytes int64
	// Entries is how many files of all archives.
	Entries int
	// Depth is how many archives may lie within each other; a .crate is one, its
	// compression and its tar count as one.
	Depth int
	// Check, unless nil, is asked at least once per 256 KiB; its error ends the look and is returned.
	Check func() error
}

// DefaultLimits are above what a registry with cargo's default limits takes.
func DefaultLimits() Limits { return Limits{Bytes: 768 << 20, Entries: 1 << 17, Depth: 6} }

func (l Limits) orDefault() Limits {
	d := DefaultLimits()
	if l.Bytes > 0 {
		d.Bytes = l.Bytes
	}
	if l.Entries > 0 {
		d.Entries = l.Entries
	}
	if l.Depth > 0 {
		d.Depth = l.Depth
	}
	d.Check = l.Check
	return d
}

// Crate looks through a .crate, reading r to its end unless something is found
// before. Errors are ErrUnreadable where it is no whole gzip stream around a tar
// archive or exceeds a limit, otherwise those of r and of Check. An archive within
// that is damaged is looked at as far as it goes and is then mere bytes.
func Crate(r io.Reader, l Limits) ([]Finding, error) {
	return look(r, l, (*walk).crate)
}

// errFound ends a look: there is nothing more to find.
var errFound = errors.New("found")

func look(r io.Reader, l Limits, by func(*walk, io.Reader) error) ([]Finding, error) {
	in := &source{r: r}
	w := &walk{limits: l.orDefault()}
	err := by(w, in)
	switch {
	case w.found != nil:
		return []Finding{*w.found}, nil
	case in.err != nil:
		return nil, in.err
	case w.stopped != nil:
		return nil, w.stopped
	case err == nil:
		return nil, nil
	case errors.Is(err, ErrUnreadable):
		return nil, err
	}
	return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
}

// source keeps to the first error of the caller's reader: it is no property of the bytes.
type source struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}
