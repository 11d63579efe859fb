package registry

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/storage"
)

// spillParts is into how many files a spill is divided, by the first byte of a digest:
// comparing two spills takes the memory of a part.
const spillParts = 64

// spilled is the width of what is written for a blob: digest, size, modified.
const spilled = 32 + 8 + 8

// spill is a list of blobs that need not fit into memory, in files without names
// that are gone with the process.
type spill struct {
	parts [spillParts]struct {
		file *os.File
		w    *bufio.Writer
	}
}

// newSpill makes one in folder, "" for the system's.
func newSpill(folder string) (*spill, error) {
	s := &spill{}
	for i := range s.parts {
		f, err := durable.CreateUnnamed(folder)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("list blobs: %w", storage.Full(err)), s.Close())
		}
		s.parts[i].file, s.parts[i].w = f, bufio.NewWriterSize(f, 4<<10)
	}
	return s, nil
}

// Close gives up the files.
func (s *spill) Close() error {
	var failed error
	for i := range s.parts {
		if p := &s.parts[i]; p.file != nil {
			failed = errors.Join(failed, p.file.Close())
			p.file = nil
		}
	}
	return failed
}

func (s *spill) add(b storage.Stored) error {
	digest := b.CID.Digest()
	row := append(make([]byte, 0, spilled), digest[:]...)
	row = binary.BigEndian.AppendUint64(row, uint64(b.Size))
	row = binary.BigEndian.AppendUint64(row, uint64(b.Modified.UnixMilli()))
	if _, err := s.parts[partOf(b.CID)].w.Write(row); err != nil {
		return fmt.Errorf("list blobs: %w", storage.Full(err))
	}
	return nil
}

// each calls f with every blob of a part, as often as it was added.
func (s *spill) each(part int, f func(storage.Stored) error) error {
	p := s.parts[part]
	if err := p.w.Flush(); err != nil {
		return fmt.Errorf("list blobs: %w", storage.Full(err))
	}
	for r := bufio.NewReader(io.NewSectionReader(p.file, 0, math.MaxInt64)); ; { // what is added later goes to the end

		var row [spilled]byte
		if _, err := io.ReadFull(r, row[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("list blobs: %w", err)
		}
		b := storage.Stored{
			CID: storage.CIDFromDigest([32]byte(row[:32])), Size: int64(binary.BigEndian.Uint64(row[32:])),
			Modified: time.UnixMilli(int64(binary.BigEndian.Uint64(row[40:]))).UTC(),
		}
		if err := f(b); err != nil {
			return err
		}
	}
}

// without calls f with every blob of s that is not in other.
func (s *spill) without(other *spill, f func(storage.Stored) error) error {
	for part := range spillParts {
		known := map[storage.CID]struct{}{}
		err := other.each(part, func(b storage.Stored) error {
			known[b.CID] = struct{}{}
			return nil
		})
		if err != nil {
			return err
		}
		err = s.each(part, func(b storage.Stored) error {
			if _, ok := known[b.CID]; ok {
				return nil
			}
			return f(b)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// find returns those of ids that are in s, as they were added.
func (s *spill) find(ids []storage.CID) (map[storage.CID]storage.Stored, error) {
	var parts [spillParts]bool
	asked, found := make(map[storage.CID]bool, len(ids)), map[storage.CID]storage.Stored{}
	for _, id := range ids {
		asked[id], parts[partOf(id)] = true, true
	}
	for part, any := range parts {
		if !any {
			continue
		}
		err := s.each(part, func(b storage.Stored) error {
			if asked[b.CID] {
				found[b.CID] = b
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

func partOf(id storage.CID) int { return int(id.Digest()[0]) * spillParts >> 8 }
