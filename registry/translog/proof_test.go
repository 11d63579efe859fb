package translog

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

// The vectors that Certificate Transparency's implementations share.
var (
	ctLeaves = []string{"", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"}
	ctRoots  = []string{
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
		"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
		"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
		"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
		"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
		"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	}
)

func ctHash(t *testing.T, s string) tlog.Hash {
	t.Helper()
	data, err := hex.DecodeString(s)
	if err != nil || len(data) != tlog.HashSize {
		t.Fatalf("%q: %v", s, err)
	}
	return tlog.Hash(data)
}

func ctLog(t *testing.T) (*Memory, []tlog.Hash) {
	t.Helper()
	m := new(Memory)
	var leaves []tlog.Hash
	for _, s := range ctLeaves {
		data, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, LeafHash(data))
		if err := m.Append(LeafHash(data)); err != nil {
			t.Fatal(err)
		}
	}
	return m, leaves
}

func TestRootsAreRFC6962s(t *testing.T) {
	m, _ := ctLog(t)
	for size, want := range ctRoots {
		if got, err := TreeHash(int64(size), m); err != nil || got != ctHash(t, want) {
			t.Errorf("root of %d = %x, %v, want %s", size, got, err, want)
		}
	}
}

func TestProofsAreRFC6962s(t *testing.T) {
	m, leaves := ctLog(t)
	for _, test := range []struct {
		index, size int64
		want        []string
	}{
		{0, 1, nil},
		{0, 8, []string{"96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7", "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e", "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"}},
		{5, 8, []string{"bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b", "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"}},
		{2, 3, []string{"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"}},
	} {
		proof, err := InclusionProof(test.size, test.index, m)
		if err != nil || !equalHex(proof, test.want) {
			t.Errorf("inclusion of %d in %d = %x, %v, want %s", test.index, test.size, proof, err, test.want)
		}
		if err := CheckInclusion(proof, test.size, ctHash(t, ctRoots[test.size]), test.index, leaves[test.index]); err != nil {
			t.Error(err)
		}
	}
	for _, test := range []struct {
		older, newer int64
		want         []string
	}{
		{0, 8, nil}, {1, 1, nil},
		{6, 8, []string{"0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a", "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"}},
		{2, 5, []string{"5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e", "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"}},
	} {
		proof, err := ConsistencyProof(test.older, test.newer, m)
		if err != nil || !equalHex(proof, test.want) {
			t.Errorf("consistency of %d with %d = %x, %v, want %s", test.older, test.newer, proof, err, test.want)
		}
	}
}

func equalHex(hashes []tlog.Hash, want []string) bool {
	return slices.EqualFunc(hashes, want, func(h tlog.Hash, s string) bool { return hex.EncodeToString(h[:]) == s })
}

// At every size: the root is the RFC's, stored hashes lie where they are
// expected, every entry and every past size is provable, and to nothing else.
func TestEverySizeUpTo70(t *testing.T) {
	const n = 70
	log := newTestLog(t, n, "sizes")
	var leaves []tlog.Hash
	for _, entry := range log.entries {
		leaves = append(leaves, LeafHash(entry))
	}
	for size := int64(1); size <= n; size++ {
		c := log.checkpoint(t, size)
		if c.Root != naiveRoot(leaves[:size]) {
			t.Fatalf("root of %d differs from RFC 6962's", size)
		}
		for i := range size {
			proof, err := InclusionProof(size, i, &log.hashes)
			if err != nil {
				t.Fatal(err)
			}
			if err := CheckInclusion(proof, size, c.Root, i, leaves[i]); err != nil {
				t.Fatal(err)
			}
			if other := (i + 1) % size; other != i && CheckInclusion(proof, size, c.Root, other, leaves[i]) == nil {
				t.Fatalf("entry %d of %d is proven at %d", i, size, other)
			}
			older := log.checkpoint(t, i)
			extends, err := ConsistencyProof(i, size, &log.hashes)
			if err != nil {
				t.Fatal(err)
			}
			if err := CheckConsistency(extends, older, c); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestAppendingFindsItsPlace(t *testing.T) {
	log := newTestLog(t, 20, "place")
	for n := range int64(20) {
		hashes, first, err := StoredHashes(n, LeafHash(log.entries[n]), &log.hashes)
		if err != nil {
			t.Fatal(err)
		}
		for i, h := range hashes {
			if log.hashes.hashes[first+int64(i)] != h {
				t.Errorf("entry %d: hash %d is not at %d", n, i, first)
			}
		}
	}
	if size := log.hashes.Size(); size != 20 {
		t.Errorf("Size = %d", size)
	}
	if root, err := log.hashes.Root(); err != nil || root != log.checkpoint(t, 20).Root {
		t.Errorf("Root = %v, %v", root, err)
	}
}

func TestTamperedProofsProveNothing(t *testing.T) {
	log, fork := newTestLog(t, 300, "a"), newTestLog(t, 300, "b")
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.Int64Range(2, 300).Draw(rt, "size")
		index := rapid.Int64Range(0, size-1).Draw(rt, "index")
		older := rapid.Int64Range(1, size-1).Draw(rt, "older")
		c, leaf := log.checkpoint(t, size), LeafHash(log.entries[index])
		proof, err := InclusionProof(size, index, &log.hashes)
		if err != nil {
			rt.Fatal(err)
		}
		bit := rapid.IntRange(0, len(proof)*256-1).Draw(rt, "bit")
		for name, bad := range tamperedWith(proof, bit) {
			if err := CheckInclusion(bad, size, c.Root, index, leaf); !errors.Is(err, ErrInclusion) {
				rt.Fatalf("inclusion, %s: %v, want ErrInclusion", name, err)
			}
		}
		if err := CheckInclusion(proof, size, c.Root, index, LeafHash(fork.entries[index])); !errors.Is(err, ErrInclusion) {
			rt.Fatalf("another leaf: %v, want ErrInclusion", err)
		}
		extends, err := ConsistencyProof(older, size, &log.hashes)
		if err != nil {
			rt.Fatal(err)
		}
		before := log.checkpoint(t, older)
		for name, bad := range tamperedWith(extends, bit%(len(extends)*256)) {
			if err := CheckConsistency(bad, before, c); !errors.Is(err, ErrConsistency) {
				rt.Fatalf("consistency, %s: %v, want ErrConsistency", name, err)
			}
		}
		if err := CheckConsistency(extends, fork.checkpoint(t, older), c); !errors.Is(err, ErrConsistency) {
			rt.Fatalf("fork: %v, want ErrConsistency", err)
		}
	})
}

// tamperedWith returns a proof in the ways an attacker may bend it.
func tamperedWith(proof []tlog.Hash, bit int) map[string][]tlog.Hash {
	flipped := slices.Clone(proof)
	flipped[bit/256][bit%256/8] ^= 1 << (bit % 8)
	bad := map[string][]tlog.Hash{
		"flipped":    flipped,
		"empty":      nil,
		"shortened":  proof[:len(proof)-1],
		"beheaded":   proof[1:],
		"lengthened": append(slices.Clone(proof), tlog.Hash{}),
		"doubled":    append(slices.Clone(proof), proof...),
		"very long":  make([]tlog.Hash, 10000),
	}
	if len(proof) > 1 {
		turned := slices.Clone(proof)
		slices.Reverse(turned)
		bad["turned around"] = turned
	}
	return bad
}

func TestForksAndRollbacksHaveNames(t *testing.T) {
	log, fork := newTestLog(t, 9, "a"), newTestLog(t, 9, "b")
	five, nine := log.checkpoint(t, 5), log.checkpoint(t, 9)
	good, err := ConsistencyProof(5, 9, &log.hashes)
	if err != nil {
		t.Fatal(err)
	}
	forked, err := ConsistencyProof(5, 9, &fork.hashes)
	if err != nil {
		t.Fatal(err)
	}
	foreign, huge := nine, nine
	foreign.Origin, huge.Size = "did:key:zOther", MaxSize+1
	empty := Checkpoint{Origin: testOrigin, Root: emptyRoot}
	for name, test := range map[string]struct {
		proof        tlog.TreeProof
		older, newer Checkpoint
		want         error
	}{
		"extends":                    {good, five, nine, nil},
		"unchanged":                  {nil, nine, nine, nil},
		"from empty":                 {nil, empty, nine, nil},
		"empty twice":                {nil, empty, empty, nil},
		"from empty, proof too many": {good, empty, nine, ErrConsistency},
		"fork at equal size":         {nil, nine, fork.checkpoint(t, 9), ErrConsistency},
		"fork at larger size":        {forked, five, fork.checkpoint(t, 9), ErrConsistency},
		"fork with our proof":        {good, five, fork.checkpoint(t, 9), ErrConsistency},
		"no proof":                   {nil, five, nine, ErrConsistency},
		"rollback":                   {good, nine, five, ErrRollback},
		"rollback to nothing":        {nil, nine, empty, ErrRollback},
		"another log":                {good, five, foreign, ErrOrigin},
		"silly size":                 {good, five, huge, ErrCheckpoint},
		"zero value":                 {nil, Checkpoint{}, nine, ErrCheckpoint},
	} {
		if err := CheckConsistency(test.proof, test.older, test.newer); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

func TestSillyArgumentsAreRefused(t *testing.T) {
	m, leaves := ctLog(t)
	root, err := m.Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{-1 << 63, -1, MaxSize + 1, 1<<63 - 1} {
		if _, err := TreeHash(size, m); !errors.Is(err, ErrRange) {
			t.Errorf("TreeHash(%d): %v, want ErrRange", size, err)
		}
		if _, _, err := StoredHashes(size, leaves[0], m); !errors.Is(err, ErrRange) {
			t.Errorf("StoredHashes(%d): %v, want ErrRange", size, err)
		}
		if _, err := ConsistencyProof(1, size, m); !errors.Is(err, ErrRange) {
			t.Errorf("ConsistencyProof(1, %d): %v, want ErrRange", size, err)
		}
	}
	for _, test := range [][2]int64{{0, 0}, {8, 8}, {8, -1}, {8, 1<<63 - 1}, {-1, -2}, {MaxSize + 1, 0}, {1<<63 - 1, 1<<63 - 2}} {
		if _, err := InclusionProof(test[0], test[1], m); !errors.Is(err, ErrRange) {
			t.Errorf("InclusionProof(%d, %d): %v, want ErrRange", test[0], test[1], err)
		}
		if err := CheckInclusion(nil, test[0], root, test[1], leaves[0]); !errors.Is(err, ErrRange) {
			t.Errorf("CheckInclusion(%d, %d): %v, want ErrRange", test[0], test[1], err)
		}
	}
	for _, older := range []int64{-1, 9, 1<<63 - 1} {
		if _, err := ConsistencyProof(older, 8, m); !errors.Is(err, ErrRange) {
			t.Errorf("ConsistencyProof(%d, 8): %v, want ErrRange", older, err)
		}
	}
	// The largest log there can be is still computed with, though nothing holds it.
	if err := CheckInclusion(make(tlog.RecordProof, 53), MaxSize, root, MaxSize-1, leaves[0]); !errors.Is(err, ErrInclusion) {
		t.Errorf("the largest log: %v, want ErrInclusion", err)
	}
}

func TestErrorsOfTheHashReaderArePassedOn(t *testing.T) {
	lost := errors.New("disk on fire")
	broken := tlog.HashReaderFunc(func([]int64) ([]tlog.Hash, error) { return nil, lost })
	short := tlog.HashReaderFunc(func([]int64) ([]tlog.Hash, error) { return nil, nil })
	for name, call := range map[string]func(tlog.HashReader) error{
		"root":        func(r tlog.HashReader) error { _, err := TreeHash(7, r); return err },
		"append":      func(r tlog.HashReader) error { _, _, err := StoredHashes(7, tlog.Hash{}, r); return err },
		"inclusion":   func(r tlog.HashReader) error { _, err := InclusionProof(7, 3, r); return err },
		"consistency": func(r tlog.HashReader) error { _, err := ConsistencyProof(3, 7, r); return err },
		"tile":        func(r tlog.HashReader) error { _, err := ReadTile(Tile{Width: 7}, 7, r); return err },
	} {
		if err := call(broken); !errors.Is(err, lost) {
			t.Errorf("%s: %v, want %v", name, err, lost)
		}
		if err := call(short); err == nil {
			t.Errorf("%s: no error from a reader that returns too few hashes", name)
		}
	}
	if _, err := new(Memory).ReadHashes([]int64{-1}); !errors.Is(err, ErrRange) {
		t.Errorf("Memory: %v, want ErrRange", err)
	}
}

func ExampleMemory() {
	var log Memory
	for _, entry := range []string{"", "\x00"} {
		if err := log.Append(LeafHash([]byte(entry))); err != nil {
			fmt.Println(err)
		}
	}
	root, err := log.Root()
	fmt.Printf("%x %v\n", root[:4], err)
	// Output: fac54203 <nil>
}
