package translog

import (
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// Frontier hashes a log from its leaves alone, in the memory of the logarithm of its size.
// The zero value is the empty log.
type Frontier struct {
	size  int64
	peaks []tlog.Hash // of the perfect subtrees, the largest first
}

// Size is how many leaves there are.
func (f *Frontier) Size() int64 { return f.size }

// Add adds the leaf hash of the next entry.
func (f *Frontier) Add(leaf tlog.Hash) {
	f.peaks = append(f.peaks, leaf)
	for range bits.TrailingZeros64(uint64(f.size) + 1) {
		last := len(f.peaks) - 1
		f.peaks[last-1] = tlog.NodeHash(f.peaks[last-1], f.peaks[last])
		f.peaks = f.peaks[:last]
	}
	f.size++
}

// Root is that of the tree of all leaves that were added.
func (f *Frontier) Root() tlog.Hash {
	if f.size == 0 {
		return emptyRoot
	}
	root := f.peaks[len(f.peaks)-1]
	for i := len(f.peaks) - 2; i >= 0; i-- {
		root = tlog.NodeHash(f.peaks[i], root)
	}
	return root
}
