package translog

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
)

// Source fetches the tile or bundle at a tlog-tiles path (tile/…) of a log that
// is not believed. It must bound what it reads to MaxBundleBytes; its errors
// are passed on wrapped.
type Source func(ctx context.Context, path string) ([]byte, error)

// Bounds of a TileReader's memory: 8 MiB of tiles, and bundles of 64 × 256 entries.
const (
	maxCachedTiles   = 1024
	maxCachedBundles = 64
)

// TileReader reads hashes and entries of the log at one checkpoint from a
// Source, and returns only what it has verified against the checkpoint's root.
// It keeps verified tiles. Safe for concurrent use (calls wait for each other).
type TileReader struct {
	ctx   context.Context // tlog.HashReader has no place for one
	cp    Checkpoint
	fetch Source

	mu      sync.Mutex
	tiles   map[tlog.Tile][]byte
	bundles map[int64][][]byte
	failed  error // what ReadTiles met during the present read
}

// NewTileReader returns a reader of the log at cp, which must have been
// verified (Open). Reads end when ctx does.
func NewTileReader(ctx context.Context, cp Checkpoint, fetch Source) *TileReader {
	return &TileReader{ctx: ctx, cp: cp, fetch: fetch,
		tiles: make(map[tlog.Tile][]byte), bundles: make(map[int64][][]byte)}
}

// ReadHashes implements tlog.HashReader. Errors: ErrRange, ErrTile (the source
// gave what is not in the tree), the source's own, ErrCheckpoint.
func (r *TileReader) ReadHashes(positions []int64) ([]tlog.Hash, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.readHashes(positions)
}

func (r *TileReader) readHashes(positions []int64) ([]tlog.Hash, error) {
	if err := r.cp.check(); err != nil {
		return nil, err
	}
	count := tlog.StoredHashCount(r.cp.Size)
	for _, p := range positions {
		if p < 0 || p >= count {
			return nil, fmt.Errorf("%w: hash %d of %d", ErrRange, p, count)
		}
	}
	if len(positions) == 0 { // tlog.TileHashReader panics on an empty tree
		return nil, nil
	}
	r.failed = nil
	tree := tlog.Tree{N: r.cp.Size, Hash: r.cp.Root}
	hashes, err := tlog.TileHashReader(tree, tileSource{r}).ReadHashes(positions)
	switch {
	case r.failed != nil:
		return nil, r.failed
	case err != nil:
		return nil, fmt.Errorf("%w: %d entries with root %s: %w", ErrTile, r.cp.Size, r.cp.Root, err)
	}
	return hashes, nil
}

// tileSource is the tlog.TileReader below a TileReader; r.mu is held.
type tileSource struct{ r *TileReader }

func (s tileSource) Height() int { return tileHeight }

func (s tileSource) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	for i, t := range tiles {
		if data[i] = s.r.tiles[t]; data[i] != nil {
			continue
		}
		var err error
		if data[i], err = s.r.get(TilePath(t)); err != nil {
			s.r.failed = err
			return nil, err
		}
		if len(data[i]) != t.W*tlog.HashSize {
			s.r.failed = fmt.Errorf("%w: %s has %d bytes, expected %d", ErrTile, TilePath(t), len(data[i]), t.W*tlog.HashSize)
			return nil, s.r.failed
		}
	}
	return data, nil
}

// SaveTiles is called with tiles that have been proven to be in the tree.
func (s tileSource) SaveTiles(tiles []tlog.Tile, data [][]byte) {
	if len(s.r.tiles)+len(tiles) > maxCachedTiles {
		clear(s.r.tiles)
	}
	for i, t := range tiles {
		s.r.tiles[t] = data[i]
	}
}

func (r *TileReader) get(path string) ([]byte, error) {
	if err := r.ctx.Err(); err != nil {
		return nil, fmt.Errorf("fetch %s: %w", path, err)
	}
	data, err := r.fetch(r.ctx, path)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", path, err)
	}
	return data, nil
}

// ReadEntry returns the bytes of the entry at index after proving that they
// are in the tree. Errors as of ReadBundle.
func (r *TileReader) ReadEntry(index int64) ([]byte, error) {
	if err := checkIndex(index, r.cp.Size); err != nil {
		return nil, err
	}
	entries, err := r.ReadBundle(index / BundleWidth)
	if err != nil {
		return nil, err
	}
	return entries[index%BundleWidth], nil
}

// ReadBundle returns the n'th bundle's entries (256, fewer at the log's end)
// after proving each of them to be in the tree. Callers must not change the
// bytes. Errors: ErrRange, ErrBundle, ErrInclusion, and those of ReadHashes.
func (r *TileReader) ReadBundle(n int64) ([][]byte, error) {
	if n < 0 || n > MaxSize/BundleWidth {
		return nil, fmt.Errorf("%w: bundle %d", ErrRange, n)
	}
	if err := checkIndex(n*BundleWidth, r.cp.Size); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if entries, cached := r.bundles[n]; cached {
		return entries, nil
	}
	width := int(min(BundleWidth, r.cp.Size-n*BundleWidth))
	data, err := r.get(EntriesPath(n, width))
	if err != nil {
		return nil, err
	}
	entries, err := ParseBundle(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", EntriesPath(n, width), err)
	}
	if len(entries) != width {
		return nil, fmt.Errorf("%w: %s has %d entries", ErrBundle, EntriesPath(n, width), len(entries))
	}
	if err := r.proveEntries(n*BundleWidth, entries); err != nil {
		return nil, err
	}
	if len(r.bundles) >= maxCachedBundles {
		clear(r.bundles)
	}
	r.bundles[n] = entries
	return entries, nil
}

// proveEntries compares the leaf hashes of entries with the tree's from index first on.
func (r *TileReader) proveEntries(first int64, entries [][]byte) error {
	positions := make([]int64, len(entries))
	for i := range entries {
		positions[i] = tlog.StoredHashIndex(0, first+int64(i))
	}
	leaves, err := r.readHashes(positions)
	if err != nil {
		return err
	}
	for i, entry := range entries {
		if LeafHash(entry) != leaves[i] {
			return fmt.Errorf("%w: entry %d of %d is not what the log committed to", ErrInclusion, first+int64(i), r.cp.Size)
		}
	}
	return nil
}

// ReadEntry fetches one entry of the log at cp and proves that it is in the
// tree. For several, make one TileReader: it keeps what it verified.
func ReadEntry(ctx context.Context, cp Checkpoint, index int64, fetch Source) ([]byte, error) {
	return NewTileReader(ctx, cp, fetch).ReadEntry(index)
}
