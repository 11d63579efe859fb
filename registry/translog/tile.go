package translog

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	// tileHeight is fixed by C2SP tlog-tiles.
	tileHeight = 8
	// maxLevel is the highest level with hashes in a tree of MaxSize entries.
	maxLevel = 6
)

// Tile names a tile or an entry bundle of a log as tlog-tiles does.
type Tile struct {
	Level   int   // 0 to 6; of a bundle, 0
	N       int64 // number within the level
	Width   int   // hashes or entries, 1 to BundleWidth (full)
	Entries bool  // an entry bundle
}

// Path returns the tile's URL below the log: tile/0/x001/067, partial
// tile/0/x001/067.p/8, of a bundle tile/entries/x001/067.
func (t Tile) Path() string {
	level := strconv.Itoa(t.Level)
	if t.Entries {
		level = "entries"
	}
	n := t.N
	number := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		number = fmt.Sprintf("x%03d/%s", n%1000, number)
	}
	path := "tile/" + level + "/" + number
	if t.Width != BundleWidth {
		path += ".p/" + strconv.Itoa(t.Width)
	}
	return path
}

// TilePath returns the tlog-tiles path of t, whose height must be 8 (data tiles
// are entry bundles). It differs from t.Path, which is the go.sum database's.
func TilePath(t tlog.Tile) string {
	return Tile{Level: max(t.L, 0), N: t.N, Width: t.W, Entries: t.L < 0}.Path()
}

// EntriesPath returns the path of the n'th entry bundle, holding width entries.
func EntriesPath(n int64, width int) string {
	return Tile{N: n, Width: width, Entries: true}.Path()
}

// ParseTilePath accepts exactly the paths of tiles and bundles that a log of
// up to MaxSize entries can have; anything else is ErrPath.
func ParseTilePath(path string) (Tile, error) {
	bad := fmt.Errorf("%w: %.80q", ErrPath, path)
	rest, found := strings.CutPrefix(path, "tile/")
	if !found || len(path) > 64 {
		return Tile{}, bad
	}
	level, rest, _ := strings.Cut(rest, "/")
	number, width, partial := strings.Cut(rest, ".p/")
	t := Tile{Width: BundleWidth, Entries: level == "entries"}
	var err error
	if !t.Entries {
		if t.Level, err = strconv.Atoi(level); err != nil {
			return Tile{}, bad
		}
	}
	if partial {
		if t.Width, err = strconv.Atoi(width); err != nil || t.Width >= BundleWidth {
			return Tile{}, bad
		}
	}
	digits := strings.NewReplacer("x", "", "/", "").Replace(number)
	if t.N, err = strconv.ParseInt(digits, 10, 64); err != nil {
		return Tile{}, bad
	}
	// Whatever the leniency above let through is caught by spelling it again.
	if !t.within(MaxSize) || t.Path() != path {
		return Tile{}, bad
	}
	return t, nil
}

// within reports whether every hash or entry of t exists in a tree of size entries.
func (t Tile) within(size int64) bool {
	if t.Level < 0 || t.Level > maxLevel || t.Entries && t.Level != 0 || t.Width < 1 || t.Width > BundleWidth {
		return false
	}
	hashes := size >> (tileHeight * t.Level) // complete subtrees of that level
	return t.N >= 0 && t.N <= hashes/BundleWidth && t.N*BundleWidth+int64(t.Width) <= hashes
}

// EntryRange returns the indexes from ≤ i < to of the entries in a bundle, or
// ErrRange when a log of size entries does not have all of them.
func (t Tile) EntryRange(size int64) (from, to int64, err error) {
	if checkSize(size) != nil || !t.Entries || !t.within(size) {
		return 0, 0, fmt.Errorf("%w: bundle %s of %d entries", ErrRange, t.Path(), size)
	}
	return t.N * BundleWidth, t.N*BundleWidth + int64(t.Width), nil
}

// ReadTile returns the bytes of a hash tile, Width hashes of 32 bytes, or
// ErrRange when a log of size entries (the published one) does not have it.
func ReadTile(t Tile, size int64, r tlog.HashReader) ([]byte, error) {
	if checkSize(size) != nil || t.Entries || !t.within(size) {
		return nil, fmt.Errorf("%w: tile %s of %d entries", ErrRange, t.Path(), size)
	}
	data, err := tlog.ReadTileData(tlog.Tile{H: tileHeight, L: t.Level, N: t.N, W: t.Width}, r)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", t.Path(), err)
	}
	return data, nil
}
