package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/storage"
)

// The order comes out right however few names are held at a time, and strays
// are told of once.
func TestInventoryHoldsFewNames(t *testing.T) {
	s := open(t, t.TempDir())
	var want []string
	for i := range 40 {
		want = append(want, put(t, s, fmt.Sprint(i)).String())
	}
	slices.Sort(want)
	if err := os.WriteFile(filepath.Join(s.root, blobFolder, "stray"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, most := range []int{1, 2, 7, 39, 40, 41, 1000} {
		var got []string
		strays := 0
		for one, err := range s.all(t.Context(), "", most) {
			switch {
			case errors.Is(err, storage.ErrStray):
				strays++
			case err != nil:
				t.Fatal(err)
			default:
				got = append(got, one.CID.String())
			}
		}
		if !slices.Equal(got, want) || strays != 1 {
			t.Errorf("holding %d: %d blobs, want %d in order; told of %d strays, want 1", most, len(got), len(want), strays)
		}
	}
}

// What Open would not find, or not take for a blob, is none; what is being
// written is not there yet.
func TestInventoryKnowsBlobsFromOthers(t *testing.T) {
	s := open(t, t.TempDir())
	id := put(t, s, "a blob")
	other := storage.CIDOf([]byte("another")).String()
	folder := filepath.Join(s.root, blobFolder, shard(other))
	for _, step := range []error{
		os.MkdirAll(filepath.Join(folder, other), 0o700), // a folder
		os.Mkdir(filepath.Join(s.root, blobFolder, "not-two"), 0o700),
		os.WriteFile(filepath.Join(s.root, blobFolder, "not-two", id.String()), nil, 0o600),
		os.WriteFile(filepath.Join(s.incoming(), "blob-123"), []byte("half a bl"), 0o600),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	var found, strays []string
	for one, err := range s.All(t.Context(), storage.CID{}) {
		if errors.Is(err, storage.ErrStray) {
			strays = append(strays, strings.TrimPrefix(err.Error(), storage.ErrStray.Error()+": "+s.root))
		} else if err != nil {
			t.Fatal(err)
		} else {
			found = append(found, one.CID.String())
		}
	}
	slices.Sort(strays)
	want := []string{filepath.Join("/blobs", shard(other), other), filepath.Join("/blobs/not-two", id.String())}
	slices.Sort(want)
	if !slices.Equal(found, []string{id.String()}) || !slices.Equal(strays, want) {
		t.Errorf("blobs %v, strays %v, want %v and %v", found, strays, id, want)
	}
}
