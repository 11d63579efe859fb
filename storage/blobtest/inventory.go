package blobtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

// inventory runs the tests of storage.Inventory.
func inventory(t *testing.T, engine Engine) {
	tests := []struct {
		name string
		run  func(t *testing.T, store Store)
	}{
		{"an empty store has an empty inventory", testNothing},
		{"the inventory has every blob in byte order", testInventory},
		{"an inventory ends when its reader does", testInventoryBreak},
		{"a blob is removed", testRemove},
		{"a cancelled inventory says so", testInventoryCancelled},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, engine.Open(t)) })
	}
	t.Run("strays are told of and end nothing", func(t *testing.T) { testStrays(t, engine) })
}

// all is what the inventory yields, and the strays among it.
func all(t *testing.T, store storage.Inventory, after storage.CID) (found []storage.Stored, strays []error) {
	t.Helper()
	for one, err := range store.All(t.Context(), after) {
		switch {
		case errors.Is(err, storage.ErrStray):
			strays = append(strays, err)
		case err != nil:
			t.Fatalf("All after %q: %v", after, err)
		default:
			found = append(found, one)
		}
	}
	return found, strays
}

func names(stored []storage.Stored) []string {
	var texts []string
	for _, one := range stored {
		texts = append(texts, one.CID.String())
	}
	return texts
}

func testNothing(t *testing.T, store Store) {
	if err := store.Create(t.Context(), "log/entry/0", []byte("no blob")); err != nil {
		t.Fatal(err)
	}
	if found, strays := all(t, store, storage.CID{}); found != nil || strays != nil {
		t.Errorf("All: %v, strays %v", found, strays)
	}
}

func testInventory(t *testing.T, store Store) {
	const count = 1100 // S3 lists at most a thousand at once
	begin := time.Now()
	want := make([]string, count)
	sizes := map[string]int64{}
	for i := range count {
		data := strings.Repeat("x", i)
		want[i] = storage.CIDOf([]byte(data)).String()
		sizes[want[i]] = int64(i)
	}
	failures := inParallel(count, func(i int) error {
		data := strings.Repeat("x", i)
		return store.Put(t.Context(), storage.CIDOf([]byte(data)), int64(i), strings.NewReader(data))
	})
	if err := errors.Join(failures...); err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	found, strays := all(t, store, storage.CID{})
	if strays != nil || !slices.Equal(names(found), want) {
		t.Errorf("All: %d blobs, want %d in order; strays %v", len(found), count, strays)
	}
	for _, one := range found {
		if one.Size != sizes[one.CID.String()] {
			t.Errorf("%s has %d bytes, want %d", one.CID, one.Size, sizes[one.CID.String()])
		}
		if one.Modified.Before(begin.Add(-time.Minute)) || one.Modified.After(time.Now().Add(time.Minute)) {
			t.Errorf("%s was modified at %s; it is now %s", one.CID, one.Modified, time.Now())
		}
	}
	for _, i := range []int{0, 1, 500, count - 2, count - 1} {
		after, err := storage.ParseCID(want[i])
		if err != nil {
			t.Fatal(err)
		}
		if rest, _ := all(t, store, after); !slices.Equal(names(rest), want[i+1:]) {
			t.Errorf("All after blob %d: %d blobs, want %d", i, len(rest), count-i-1)
		}
	}
}

func testInventoryBreak(t *testing.T, store Store) {
	for i := range 5 {
		put(t, store, fmt.Append(nil, i))
	}
	for _, err := range store.All(t.Context(), storage.CID{}) {
		if err != nil {
			t.Error(err)
		}
		break
	}
}

func testRemove(t *testing.T, store Store) {
	kept, gone := put(t, store, []byte("kept")), put(t, store, []byte("gone"))
	for range 2 { // what is not there is removed, too
		if err := store.Remove(t.Context(), gone); err != nil {
			t.Fatalf("Remove: %v", err)
		}
	}
	wantMissing(t, store, gone)
	if found, _ := all(t, store, storage.CID{}); !slices.Equal(names(found), []string{kept.String()}) {
		t.Errorf("All: %v, want %s alone", names(found), kept)
	}
	if err := store.Remove(t.Context(), storage.CID{}); err != nil {
		t.Errorf("Remove of the zero CID: %v", err)
	}
	put(t, store, []byte("gone")) // and comes again
	if found, _ := all(t, store, storage.CID{}); len(found) != 2 {
		t.Errorf("All: %v, want both", names(found))
	}
}

func testInventoryCancelled(t *testing.T, store Store) {
	id := put(t, store, []byte("stored"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var last error
	for one, err := range store.All(ctx, storage.CID{}) {
		if err == nil {
			t.Errorf("All yields %v", one)
		}
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("All: error %v, want context.Canceled", last)
	}
	if err := store.Remove(ctx, id); !errors.Is(err, context.Canceled) {
		t.Errorf("Remove: error %v, want context.Canceled", err)
	}
	if _, err := store.Stat(t.Context(), id); err != nil {
		t.Errorf("Stat after a Remove that was cancelled: %v", err)
	}
}

func testStrays(t *testing.T, engine Engine) {
	store := engine.Open(t)
	var want []string
	for i := range 3 {
		want = append(want, put(t, store, fmt.Append(nil, i)).String())
	}
	slices.Sort(want)
	strays := []string{"0-before-all", "bafkrei-no-cid", strings.ToUpper(want[0]), want[1] + ".part", "zz"}
	for _, name := range strays {
		engine.Stray(t, store, name)
	}
	found, told := all(t, store, storage.CID{})
	if !slices.Equal(names(found), want) {
		t.Errorf("All: %v, want %v", names(found), want)
	}
	if len(told) != len(strays) {
		t.Errorf("All tells of %d strays, want %d: %v", len(told), len(strays), told)
	}
	for _, name := range strays {
		if !slices.ContainsFunc(told, func(err error) bool { return strings.Contains(err.Error(), name) }) {
			t.Errorf("nobody tells of %s: %v", name, told)
		}
	}
	for _, err := range store.All(t.Context(), storage.CID{}) { // ends when its reader does, at a stray too
		if err != nil && !errors.Is(err, storage.ErrStray) {
			t.Error(err)
		}
		break
	}
}
