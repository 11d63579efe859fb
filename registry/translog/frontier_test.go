package translog

import (
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// A frontier comes to the root that the stored hashes give, at every size.
func TestFrontierHasTheRootOfTheTree(t *testing.T) {
	var f Frontier
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(positions []int64) ([]tlog.Hash, error) {
		hashes := make([]tlog.Hash, len(positions))
		for i, p := range positions {
			hashes[i] = stored[p]
		}
		return hashes, nil
	})
	for n := range int64(600) {
		want, err := TreeHash(n, reader)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Root(); got != want || f.Size() != n {
			t.Fatalf("%d leaves have the root %s, want %s", n, got, want)
		}
		leaf := LeafHash([]byte{byte(n), byte(n >> 8)})
		hashes, first, err := StoredHashes(n, leaf, reader)
		if err != nil || first != int64(len(stored)) {
			t.Fatal(first, err)
		}
		stored = append(stored, hashes...)
		f.Add(leaf)
	}
}
