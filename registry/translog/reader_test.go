package translog

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

func TestReaderReturnsWhatTheLogHolds(t *testing.T) {
	log := newTestLog(t, 700, "reader")
	for _, size := range []int64{1, 2, 255, 256, 257, 511, 512, 513, 700} {
		c := log.checkpoint(t, size)
		r := NewTileReader(t.Context(), c, log.source(size, nil))
		for _, index := range []int64{0, size / 2, size - 1} {
			entry, err := r.ReadEntry(index)
			if err != nil || !bytes.Equal(entry, log.entries[index]) {
				t.Fatalf("entry %d of %d: %s, %v", index, size, entry, err)
			}
			proof, err := InclusionProof(size, index, r)
			if err != nil {
				t.Fatal(err)
			}
			if err := CheckInclusion(proof, size, c.Root, index, LeafHash(entry)); err != nil {
				t.Error(err)
			}
			older := log.checkpoint(t, index)
			extends, err := ConsistencyProof(index, size, r)
			if err != nil {
				t.Fatal(err)
			}
			if err := CheckConsistency(extends, older, c); err != nil {
				t.Error(err)
			}
		}
		if root, err := TreeHash(size, r); err != nil || root != c.Root {
			t.Errorf("root of %d: %v, %v", size, root, err)
		}
	}
}

func TestReaderReadsTheWholeLogByBundles(t *testing.T) {
	const size = 700
	log := newTestLog(t, size, "bundles")
	fetched := make(map[string]int)
	source := log.source(size, func(path string, data []byte) []byte { fetched[path]++; return data })
	r := NewTileReader(t.Context(), log.checkpoint(t, size), source)
	var all [][]byte
	for n := range int64(3) {
		entries, err := r.ReadBundle(n)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, entries...)
	}
	if !slices.EqualFunc(all, log.entries, bytes.Equal) {
		t.Errorf("%d entries differ from the log's %d", len(all), size)
	}
	if _, err := r.ReadEntry(300); err != nil {
		t.Fatal(err)
	}
	for path, times := range fetched {
		if times != 1 {
			t.Errorf("%s fetched %d times", path, times)
		}
	}
	if len(fetched) != 7 { // three bundles, three tiles of level 0, one of level 1
		t.Errorf("fetched %v", fetched)
	}
}

func TestReaderOutsideTheLog(t *testing.T) {
	log := newTestLog(t, 300, "outside")
	r := NewTileReader(t.Context(), log.checkpoint(t, 300), log.source(300, nil))
	for _, index := range []int64{-1 << 63, -1, 300, 1<<63 - 1} {
		if _, err := r.ReadEntry(index); !errors.Is(err, ErrRange) {
			t.Errorf("ReadEntry(%d): %v, want ErrRange", index, err)
		}
	}
	for _, n := range []int64{-1, 2, MaxSize, 1<<63 - 1} {
		if _, err := r.ReadBundle(n); !errors.Is(err, ErrRange) {
			t.Errorf("ReadBundle(%d): %v, want ErrRange", n, err)
		}
	}
	for _, p := range []int64{-1, tlog.StoredHashCount(300), 1<<63 - 1} {
		if _, err := r.ReadHashes([]int64{p}); !errors.Is(err, ErrRange) {
			t.Errorf("ReadHashes(%d): %v, want ErrRange", p, err)
		}
	}
	empty := NewTileReader(t.Context(), log.checkpoint(t, 0), log.source(0, nil))
	if hashes, err := empty.ReadHashes(nil); err != nil || len(hashes) != 0 {
		t.Errorf("no hashes of the empty log: %v, %v", hashes, err)
	}
	if _, err := empty.ReadEntry(0); !errors.Is(err, ErrRange) {
		t.Errorf("entry of the empty log: %v, want ErrRange", err)
	}
	for _, c := range []Checkpoint{{}, {Origin: "o", Size: -1}, {Origin: "o", Size: 1<<63 - 1}} {
		if _, err := NewTileReader(t.Context(), c, log.source(300, nil)).ReadHashes([]int64{0}); !errors.Is(err, ErrCheckpoint) {
			t.Errorf("reader at %+v: %v, want ErrCheckpoint", c, err)
		}
	}
}

// Whatever one answer is changed to, no read gives other than the log's bytes.
func TestTamperedAnswersAreNoticed(t *testing.T) {
	const size = 600
	log := newTestLog(t, size, "honest")
	c := log.checkpoint(t, size)
	rapid.Check(t, func(rt *rapid.T) {
		index := rapid.Int64Range(0, size-1).Draw(rt, "index")
		victim := rapid.SampledFrom([]string{"tile/entries/", "tile/0/", "tile/1/"}).Draw(rt, "victim")
		how := rapid.SampledFrom([]string{"flip", "cut", "extend", "empty"}).Draw(rt, "how")
		changed := false
		source := log.source(size, func(path string, data []byte) []byte {
			if changed || !strings.HasPrefix(path, victim) {
				return data
			}
			changed = true
			switch how {
			case "flip":
				return flip(data, rapid.IntRange(0, len(data)*8-1).Draw(rt, "bit"))
			case "cut":
				return data[:rapid.IntRange(0, len(data)-1).Draw(rt, "length")]
			case "extend":
				return append(data, data[:rapid.IntRange(1, len(data)).Draw(rt, "more")]...)
			default:
				return nil
			}
		})
		r := NewTileReader(t.Context(), c, source)
		_, err := r.ReadEntry(index)
		if err == nil {
			rt.Fatalf("entry %d read although %s had been changed", index, victim)
		}
		if !errors.Is(err, ErrTile) && !errors.Is(err, ErrBundle) && !errors.Is(err, ErrInclusion) {
			rt.Fatalf("%v is none of the errors promised", err)
		}
		// Nothing of it was kept: the honest answer is taken afterwards.
		if entry, err := r.ReadEntry(index); err != nil || !bytes.Equal(entry, log.entries[index]) {
			rt.Fatalf("after an honest answer: %s, %v", entry, err)
		}
	})
}

func TestAForkedServerIsNoticed(t *testing.T) {
	log, fork := newTestLog(t, 300, "a"), newTestLog(t, 300, "b")
	c := log.checkpoint(t, 300)
	if _, err := ReadEntry(t.Context(), c, 7, fork.source(300, nil)); !errors.Is(err, ErrTile) {
		t.Errorf("all of another log: %v, want ErrTile", err)
	}
	// Tiles of the true log, bundles of the other.
	mixed := func(ctx context.Context, path string) ([]byte, error) {
		if strings.HasPrefix(path, "tile/entries/") {
			return fork.source(300, nil)(ctx, path)
		}
		return log.source(300, nil)(ctx, path)
	}
	if _, err := ReadEntry(t.Context(), c, 7, mixed); !errors.Is(err, ErrInclusion) {
		t.Errorf("another log's entries: %v, want ErrInclusion", err)
	}
	if entry, err := ReadEntry(t.Context(), c, 7, log.source(300, nil)); err != nil || !bytes.Equal(entry, log.entries[7]) {
		t.Errorf("the log itself: %s, %v", entry, err)
	}
}

func TestAServerWithMoreOrFewerEntriesThanAsked(t *testing.T) {
	log := newTestLog(t, 20, "width")
	for _, served := range []int64{9, 11} {
		source := func(ctx context.Context, path string) ([]byte, error) {
			if path == EntriesPath(0, 10) {
				path = EntriesPath(0, int(served))
			}
			return log.source(20, nil)(ctx, path)
		}
		if _, err := ReadEntry(t.Context(), log.checkpoint(t, 10), 3, source); !errors.Is(err, ErrBundle) {
			t.Errorf("%d entries for 10: %v, want ErrBundle", served, err)
		}
	}
}

func TestReaderPassesOnTheSourcesErrors(t *testing.T) {
	log := newTestLog(t, 300, "errors")
	c := log.checkpoint(t, 300)
	lost := errors.New("connection lost")
	for _, prefix := range []string{"tile/entries/", "tile/0/", "tile/1/"} {
		source := func(ctx context.Context, path string) ([]byte, error) {
			if strings.HasPrefix(path, prefix) {
				return nil, lost
			}
			return log.source(300, nil)(ctx, path)
		}
		_, err := ReadEntry(t.Context(), c, 3, source)
		if !errors.Is(err, lost) || errors.Is(err, ErrTile) || !strings.Contains(err.Error(), prefix) {
			t.Errorf("%s: %v, want %v and the path", prefix, err, lost)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ReadEntry(ctx, c, 3, log.source(300, nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v, want context.Canceled", err)
	}
}

func TestReaderIsSafeForConcurrentUse(t *testing.T) {
	log := newTestLog(t, 700, "concurrent")
	r := NewTileReader(t.Context(), log.checkpoint(t, 700), log.source(700, nil))
	var wg sync.WaitGroup
	for i := range int64(16) {
		wg.Go(func() {
			index := i * 43
			if entry, err := r.ReadEntry(index); err != nil || !bytes.Equal(entry, log.entries[index]) {
				t.Errorf("entry %d: %s, %v", index, entry, err)
			}
			if _, err := InclusionProof(700, index, r); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestReaderForgetsRatherThanGrow(t *testing.T) {
	r := NewTileReader(t.Context(), Checkpoint{}, nil)
	for n := range int64(3 * maxCachedTiles) {
		tileSource{r}.SaveTiles([]tlog.Tile{{H: 8, N: n, W: 1}}, [][]byte{{1}})
	}
	if len(r.tiles) > maxCachedTiles {
		t.Errorf("%d tiles kept, at most %d", len(r.tiles), maxCachedTiles)
	}
}
