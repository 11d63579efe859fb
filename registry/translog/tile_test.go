package translog

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

func TestTilePathsFollowTlogTiles(t *testing.T) {
	for path, tile := range map[string]Tile{
		"tile/0/x001/067":                {N: 1067, Width: 256},
		"tile/0/x001/067.p/8":            {N: 1067, Width: 8},
		"tile/0/000":                     {Width: 256},
		"tile/0/000.p/255":               {Width: 255},
		"tile/1/999.p/1":                 {Level: 1, N: 999, Width: 1},
		"tile/0/x001/x234/067":           {N: 1234067, Width: 256},
		"tile/6/000.p/31":                {Level: 6, Width: 31},
		"tile/entries/x001/067":          {N: 1067, Width: 256, Entries: true},
		"tile/entries/000.p/8":           {Width: 8, Entries: true},
		"tile/0/x035/x184/x372/x088/830": {N: 35184372088830, Width: 256},
	} {
		if got := tile.Path(); got != path {
			t.Errorf("%+v.Path() = %s, want %s", tile, got, path)
		}
		if got, err := ParseTilePath(path); err != nil || got != tile {
			t.Errorf("ParseTilePath(%s) = %+v, %v, want %+v", path, got, err, tile)
		}
	}
	if got := TilePath(tlog.Tile{H: 8, L: 2, N: 1067, W: 3}); got != "tile/2/x001/067.p/3" {
		t.Errorf("TilePath = %s", got)
	}
	if got := TilePath(tlog.Tile{H: 8, L: -1, N: 1067, W: 256}); got != "tile/entries/x001/067" {
		t.Errorf("TilePath of data = %s", got)
	}
	if got := EntriesPath(1067, 3); got != "tile/entries/x001/067.p/3" {
		t.Errorf("EntriesPath = %s", got)
	}
}

func TestParseTilePathRefusesEveryOtherSpelling(t *testing.T) {
	for _, path := range []string{
		"", "tile", "tile/", "tile/0", "tile/0/", "/tile/0/000", "tile/0/000/", "tile//000", "tile/00/000", "tile/+0/000", "tile/-1/000",
		"tile/7/000.p/1", "tile/64/000", "tile/data/000", "tile/8/0/000", "tile/Entries/000", "tile/0/0", "tile/0/00", "tile/0/0000",
		"tile/0/x000/000", "tile/0/x000/001", "tile/0/001/067", "tile/0/x001/x067", "tile/0/x1/067", "tile/0/X001/067", "tile/0/-01", "tile/0/+01",
		"tile/0/000.p", "tile/0/000.p/", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/257", "tile/0/000.p/08", "tile/0/000.p/+8", "tile/0/000.p/-8",
		"tile/0/000.p/8/", "tile/0/000.p/8.p/8", "tile/0/000.p8", "tile/0/../000", "tile/0/x001//067", "tile/0/000?x", "tile/0/000%2e", "tile/0/000\x00",
		"tile/6/000", "tile/6/000.p/32", "tile/0/x035/x184/x372/x088/832", "tile/0/x999/x999/x999/x999/x999/x999/999",
		"tile/0/x999/x999/x999/x999/x999/x999/x999/x999/x999/x999/x999/x999/999", strings.Repeat("tile/", 1000),
	} {
		if tile, err := ParseTilePath(path); !errors.Is(err, ErrPath) {
			t.Errorf("ParseTilePath(%.80q) = %+v, %v, want ErrPath", path, tile, err)
		}
	}
}

// Every tile that a log's growth makes has a path, and x/mod reads back what ReadTile gives.
func TestTilesOfALogCanBeReadAtItsSize(t *testing.T) {
	const size = 700
	log := newTestLog(t, size, "tiles")
	seen := 0
	for _, want := range tlog.NewTiles(tileHeight, 0, size) {
		tile, err := ParseTilePath(TilePath(want))
		if err != nil {
			t.Fatal(err)
		}
		data, err := ReadTile(tile, size, &log.hashes)
		if err != nil || len(data) != want.W*tlog.HashSize {
			t.Fatalf("%s: %d bytes, %v", tile.Path(), len(data), err)
		}
		hash, err := tlog.HashFromTile(want, data, tlog.StoredHashIndex(want.L*tileHeight, want.N<<tileHeight))
		if err != nil || !bytes.Equal(hash[:], data[:tlog.HashSize]) {
			t.Errorf("%s: %v", tile.Path(), err)
		}
		seen++
	}
	if seen != 4 { // 0/000, 0/001, 0/002.p/188, 1/000.p/2
		t.Errorf("%d tiles, want 4", seen)
	}
}

func TestTilesBeyondThePublishedSizeAreNotServed(t *testing.T) {
	log := newTestLog(t, 600, "beyond")
	for _, path := range []string{"tile/0/001", "tile/0/001.p/45", "tile/0/002.p/1", "tile/1/000.p/2", "tile/1/000", "tile/2/000.p/1", "tile/6/000.p/1"} {
		tile, err := ParseTilePath(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ReadTile(tile, 300, &log.hashes); !errors.Is(err, ErrRange) {
			t.Errorf("ReadTile(%s) of 300 entries: %v, want ErrRange", path, err)
		}
	}
	for _, tile := range []Tile{{Width: 0}, {Width: 257}, {N: -1, Width: 256}, {Level: -1, Width: 1}, {Level: 1 << 30, Width: 1}, {N: 1<<63 - 1, Width: 1}, {Width: 1, Entries: true}} {
		if _, err := ReadTile(tile, 300, &log.hashes); !errors.Is(err, ErrRange) {
			t.Errorf("ReadTile(%+v): %v, want ErrRange", tile, err)
		}
	}
	for _, tile := range []Tile{{N: 1, Width: 45, Entries: true}, {N: 1, Width: 256, Entries: true}, {N: 0, Width: 256}, {N: -1, Width: 1, Entries: true}, {Level: 1, Width: 1, Entries: true}} {
		if _, _, err := tile.EntryRange(300); !errors.Is(err, ErrRange) {
			t.Errorf("EntryRange(%+v): %v, want ErrRange", tile, err)
		}
	}
	if from, to, err := (Tile{N: 1, Width: 44, Entries: true}).EntryRange(300); err != nil || from != 256 || to != 300 {
		t.Errorf("EntryRange = %d, %d, %v", from, to, err)
	}
	for _, size := range []int64{-1, MaxSize + 1} {
		if _, err := ReadTile(Tile{Width: 1}, size, &log.hashes); !errors.Is(err, ErrRange) {
			t.Errorf("ReadTile at size %d: %v, want ErrRange", size, err)
		}
		if _, _, err := (Tile{Width: 1, Entries: true}).EntryRange(size); !errors.Is(err, ErrRange) {
			t.Errorf("EntryRange at size %d: %v, want ErrRange", size, err)
		}
	}
}

func TestTilePathRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		level := rapid.IntRange(0, maxLevel).Draw(t, "level")
		last := (MaxSize>>(tileHeight*level))/BundleWidth - 1
		tile := Tile{Level: level, Width: rapid.IntRange(1, BundleWidth).Draw(t, "width")}
		if level == maxLevel {
			tile.Width = rapid.IntRange(1, 31).Draw(t, "narrow")
		} else {
			tile.N = rapid.Int64Range(0, last).Draw(t, "n")
		}
		tile.Entries = level == 0 && rapid.Bool().Draw(t, "entries")
		if got, err := ParseTilePath(tile.Path()); err != nil || got != tile {
			t.Fatalf("ParseTilePath(%s) = %+v, %v, want %+v", tile.Path(), got, err, tile)
		}
	})
}
