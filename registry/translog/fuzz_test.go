package translog

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// Each target demands that what is accepted is written back byte by byte, and
// that what is refused is refused with the error promised.

func FuzzParseEntry(f *testing.F) {
	for _, e := range []Entry{{Time: testTime, Record: recordCID}, {Time: testTime, Record: recordCID, DIDDocument: documentCID}} {
		data, err := e.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := ParseEntry(data)
		if err != nil {
			if !errors.Is(err, ErrEntry) {
				t.Fatal(err)
			}
			return
		}
		if again, err := e.Marshal(); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%q is written back as %q, %v", data, again, err)
		}
	})
}

func FuzzParseBundle(f *testing.F) {
	f.Add([]byte("\x00\x01x\x00\x02yz"))
	f.Add([]byte("\x02\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := ParseBundle(data)
		if err != nil {
			if !errors.Is(err, ErrBundle) {
				t.Fatal(err)
			}
			return
		}
		var again []byte
		for _, entry := range entries {
			if again, err = AppendBundle(again, entry); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(again, data) {
			t.Fatalf("%x is written back as %x", data, again)
		}
	})
}

func FuzzParseTilePath(f *testing.F) {
	for _, path := range []string{"tile/0/x001/067", "tile/0/x001/067.p/8", "tile/entries/000.p/255", "tile/6/000.p/31", "tile/0/x035/x184/x372/x088/830"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		tile, err := ParseTilePath(path)
		if err != nil {
			if !errors.Is(err, ErrPath) {
				t.Fatal(err)
			}
			return
		}
		if tile.Path() != path || tile.N < 0 || tile.N > MaxSize/BundleWidth || tile.Width < 1 || tile.Width > BundleWidth {
			t.Fatalf("%q parsed as %+v", path, tile)
		}
	})
}

func FuzzParseCheckpoint(f *testing.F) {
	f.Add(Checkpoint{Origin: testOrigin, Size: 7, Root: tlog.Hash{1}}.Body())
	f.Add(Checkpoint{Origin: testOrigin, Root: emptyRoot}.Body())
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := ParseCheckpoint(body)
		if err != nil {
			if !errors.Is(err, ErrCheckpoint) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(c.Body(), body) || c.Size < 0 || c.Size > MaxSize {
			t.Fatalf("%q parsed as %+v", body, c)
		}
	})
}

// FuzzOpen holds only one key's signature on one text: nothing else may open.
func FuzzOpen(f *testing.F) {
	key := testKey(f, 1)
	c := newTestLog(f, 3, "fuzz").checkpoint(f, 3)
	signed := mustSign(f, c, testTime, key)
	f.Add(signed)
	f.Add(mustSign(f, c, testTime, testKey(f, 2), key))
	f.Fuzz(func(t *testing.T, data []byte) {
		opened, err := Open(data, testOrigin, publics(key))
		if err != nil {
			if !errors.Is(err, ErrCheckpoint) && !errors.Is(err, ErrOrigin) && !errors.Is(err, ErrSignature) {
				t.Fatal(err)
			}
			return
		}
		if opened.Checkpoint != c || opened.Text != string(c.Body()) || !opened.CosignedAt.IsZero() && !opened.CosignedAt.Equal(testTime) {
			t.Fatalf("opened as %+v", opened)
		}
		if peeked, err := Peek(data); err != nil || peeked != c {
			t.Fatalf("peeked at %+v, %v", peeked, err)
		}
	})
}

func FuzzParseKeys(f *testing.F) {
	f.Add(EntryKey(7))
	f.Add(CheckpointKey(MaxSize))
	f.Fuzz(func(t *testing.T, key string) {
		if n, err := ParseEntryKey(key); err == nil && EntryKey(n) != key || err != nil && !errors.Is(err, ErrKey) {
			t.Fatalf("%q: entry %d, %v", key, n, err)
		}
		if n, err := ParseCheckpointKey(key); err == nil && CheckpointKey(n) != key || err != nil && !errors.Is(err, ErrKey) {
			t.Fatalf("%q: checkpoint %d, %v", key, n, err)
		}
	})
}

// FuzzCheckProofs throws proofs at the checks: no panic, and nothing is proven
// of a root that is not the hash of anything.
func FuzzCheckProofs(f *testing.F) {
	f.Add(int64(7), int64(3), make([]byte, 96))
	f.Add(MaxSize, MaxSize-1, make([]byte, 53*32))
	f.Add(int64(-1), int64(1)<<62, []byte{})
	f.Fuzz(func(t *testing.T, size, index int64, data []byte) {
		var proof []tlog.Hash
		for ; len(data) >= tlog.HashSize; data = data[tlog.HashSize:] {
			proof = append(proof, tlog.Hash(data))
		}
		nothing := tlog.Hash{0xde, 0xad}
		if CheckInclusion(proof, size, nothing, index, tlog.Hash{1}) == nil {
			t.Fatalf("entry %d of %d proven", index, size)
		}
		older := Checkpoint{Origin: "o", Size: index, Root: tlog.Hash{1}}
		if CheckConsistency(proof, older, Checkpoint{Origin: "o", Size: size, Root: nothing}) == nil {
			t.Fatalf("%d proven to extend %d", size, index)
		}
	})
}

// FuzzReadEntry gives every tile and bundle the same changed bytes.
func FuzzReadEntry(f *testing.F) {
	log := newTestLog(f, 300, "fuzz")
	c := log.checkpoint(f, 300)
	f.Add(int64(3), uint16(0), byte(1), false)
	f.Add(int64(299), uint16(8191), byte(0), true)
	f.Fuzz(func(t *testing.T, index int64, at uint16, xor byte, cut bool) {
		source := log.source(300, func(_ string, data []byte) []byte {
			i := int(at) % len(data)
			data[i] ^= xor
			if cut {
				return data[:i]
			}
			return data
		})
		entry, err := ReadEntry(context.Background(), c, index, source)
		if err == nil && !bytes.Equal(entry, log.entries[index]) {
			t.Fatalf("entry %d read as %q", index, entry)
		}
	})
}

// FuzzParseObjectKey: a key names one entry or checkpoint, and has one spelling.
func FuzzParseObjectKey(f *testing.F) {
	for _, key := range []string{EntryKey(0), EntryKey(7), CheckpointKey(MaxSize), "log/entry/7", "log/entry/+000000000000007", "log/entry/0000_0000_000007"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if n, err := ParseEntryKey(key); err == nil && (n < 0 || n >= MaxSize || EntryKey(n) != key) {
			t.Errorf("entry %d by %q", n, key)
		}
		if n, err := ParseCheckpointKey(key); err == nil && (n < 0 || n > MaxSize || CheckpointKey(n) != key) {
			t.Errorf("checkpoint %d by %q", n, key)
		}
	})
}
