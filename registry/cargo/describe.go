package cargo

import (
	"bufio"
	"compress/gzip"
	"errors"
	"io"
)

// Describe reads of a .crate what people look at: the manifest, and the README
// that it names, up to 512 KiB of it. It is for bytes that Inspect accepted
// once (what is stored, opened by its CID): it stops reading as soon as it has
// both, so it proves nothing about the rest, and leaves the counts of bytes and
// files 0. It is held to the same limits as Inspect and fails like it.
func Describe(r io.Reader, name, version string, l Limits) (*Crate, error) {
	l = l.orDefault()
	in := &crateInput{r: r, most: l.CrateBytes}
	member, err := gzip.NewReader(bufio.NewReader(in))
	if err != nil {
		return nil, tarballProblem(err)
	}
	member.Multistream(false)
	s := newScan(&unpackMeter{r: member, in: in, l: l}, name, version, l)
	for !s.described() {
		err := s.step()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, tarballProblem(err)
		}
	}
	c, err := s.finish()
	if err != nil {
		return nil, err
	}
	c.Files, c.UnpackedBytes = 0, 0
	return c, nil
}

// described: the manifest was read, and the best README that there may be.
func (s *scan) described() bool {
	if s.crate == nil {
		return false
	}
	if len(s.crate.readmes) == 0 {
		return true
	}
	best := s.tree.root + "/" + s.crate.readmes[0]
	return s.tree.nodes[fold(best)].path == best
}
