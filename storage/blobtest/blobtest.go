// Package blobtest is the one suite that every storage.Blobs has to pass. It
// asks for what the interface promises and for nothing else; what happens when
// power fails, and what only one implementation does, is tested beside it.
package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"phoenix-lab.org/aln-registry/storage"
)

// Store is what every store is.
type Store interface {
	storage.Blobs
	storage.Inventory
}

// Engine is a store under test.
type Engine struct {
	// Open returns a new, empty store that lives as long as the test given to it.
	Open func(t *testing.T) Store
	// Corrupt changes the stored bytes of a blob behind the store's back, without
	// changing how many they are.
	Corrupt func(t *testing.T, store Store, id storage.CID)
	// Stray lays bytes that are no blob among the blobs, under that name.
	Stray func(t *testing.T, store Store, name string)
}

// Run runs the suite.
func Run(t *testing.T, engine Engine) {
	tests := []struct {
		name string
		run  func(t *testing.T, store storage.Blobs)
	}{
		{"a blob comes back as it went in", testRoundTrip},
		{"a blob can be read from anywhere", testSeek},
		{"a blob is streamed", testBig},
		{"a blob that is not there is not found", testMissing},
		{"the same blob twice succeeds", testTwice},
		{"bytes that do not match are refused and leave nothing", testMismatch},
		{"a failing source leaves nothing", testBrokenSource},
		{"the zero CID names nothing", testZeroCID},
		{"one blob stored by many at once", testConcurrentPut},
		{"a large blob takes little memory", testMemory},
		{"an object comes back as it went in", testObject},
		{"an object is never changed", testObjectExists},
		{"of many creators one wins", testOneWinner},
		{"an object has at most 1 MiB", testObjectSize},
		{"bad keys are refused", testBadKeys},
		{"keys are listed in byte order", testList},
		{"thousands of keys are listed in byte order", testLongList},
		{"a list ends when its reader does", testListBreak},
		{"blobs are not objects", testBlobsApart},
		{"a cancelled context is obeyed", testCancelled},
		{"a probe leaves nothing behind", testProbe},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, engine.Open(t)) })
	}
	inventory(t, engine)
	t.Run("corrupt bytes are never handed out", func(t *testing.T) {
		store := engine.Open(t)
		testCorrupt(t, store, func(id storage.CID) { engine.Corrupt(t, store, id) })
	})
}

func put(t *testing.T, store storage.Blobs, data []byte) storage.CID {
	t.Helper()
	id := storage.CIDOf(data)
	if err := store.Put(t.Context(), id, int64(len(data)), bytes.NewReader(data)); err != nil {
		t.Fatalf("Put %d bytes: %v", len(data), err)
	}
	return id
}

func get(t *testing.T, store storage.Blobs, id storage.CID) []byte {
	t.Helper()
	blob, err := store.Open(t.Context(), id)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	data, err := io.ReadAll(blob)
	if err != nil {
		t.Fatalf("read the blob: %v", err)
	}
	if err := blob.Close(); err != nil {
		t.Fatalf("close the blob: %v", err)
	}
	return data
}

// wantMissing checks that nothing is stored under id.
func wantMissing(t *testing.T, store storage.Blobs, id storage.CID) {
	t.Helper()
	if _, err := store.Stat(t.Context(), id); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("Stat: error %v, want ErrNotFound", err)
	}
	if blob, err := store.Open(t.Context(), id); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("Open: %v, error %v, want ErrNotFound", blob, err)
	}
}

func testRoundTrip(t *testing.T, store storage.Blobs) {
	for _, data := range [][]byte{{}, {0}, []byte("a crate"), bytes.Repeat([]byte("0123456789abcdef"), 10_000)} {
		id := put(t, store, data)
		if got := get(t, store, id); !bytes.Equal(got, data) {
			t.Errorf("%d bytes came back as %d others", len(data), len(got))
		}
		if size, err := store.Stat(t.Context(), id); err != nil || size != int64(len(data)) {
			t.Errorf("Stat: %d, %v, want %d", size, err, len(data))
		}
	}
}

func testSeek(t *testing.T, store storage.Blobs) {
	blob, err := store.Open(t.Context(), put(t, store, []byte("0123456789")))
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	if blob.Size() != 10 {
		t.Errorf("Size is %d, want 10", blob.Size())
	}
	for _, step := range []struct {
		offset int64
		whence int
		want   string
	}{{7, io.SeekStart, "789"}, {-2, io.SeekEnd, "89"}, {0, io.SeekStart, "0123456789"}} {
		if _, err := blob.Seek(step.offset, step.whence); err != nil {
			t.Fatalf("Seek(%d, %d): %v", step.offset, step.whence, err)
		}
		if got, err := io.ReadAll(blob); err != nil || string(got) != step.want {
			t.Errorf("after Seek(%d, %d): %q, %v, want %q", step.offset, step.whence, got, err, step.want)
		}
	}
}

// source yields size seeded bytes and notes the largest read asked of it.
type source struct {
	random  *rand.ChaCha8
	left    int
	largest int
}

func newSource(size int) *source {
	return &source{random: rand.NewChaCha8([32]byte{1}), left: size}
}

func (s *source) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	s.largest = max(s.largest, len(p))
	n, err := s.random.Read(p[:min(len(p), s.left)])
	s.left -= n
	return n, err
}

func testBig(t *testing.T, store storage.Blobs) {
	const size = 20 << 20
	data, err := io.ReadAll(newSource(size))
	if err != nil {
		t.Fatal(err)
	}
	id := storage.CIDOf(data)
	r := newSource(size)
	if err := store.Put(t.Context(), id, size, r); err != nil {
		t.Fatalf("Put: %v", err)
	}
	if r.largest > size/2 {
		t.Errorf("Put asked for %d bytes at once: it does not stream", r.largest)
	}
	if got := get(t, store, id); !bytes.Equal(got, data) {
		t.Error("the bytes came back changed")
	}
}

func testMissing(t *testing.T, store storage.Blobs) {
	wantMissing(t, store, storage.CIDOf([]byte("never stored")))
	if data, err := store.Read(t.Context(), "log/entry/0000000000000000"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("Read: %q, error %v, want ErrNotFound", data, err)
	}
	for key, err := range store.List(t.Context(), "log/", "") {
		t.Errorf("List yields %q, %v", key, err)
	}
}

func testTwice(t *testing.T, store storage.Blobs) {
	data := []byte("the same bytes")
	for range 3 {
		put(t, store, data)
	}
	if got := get(t, store, storage.CIDOf(data)); !bytes.Equal(got, data) {
		t.Errorf("came back as %q", got)
	}
}

func testMismatch(t *testing.T, store storage.Blobs) {
	right := []byte("what was announced")
	id := storage.CIDOf(right)
	for _, test := range []struct {
		name  string
		size  int
		bytes string
	}{
		{"other bytes of that size", len(right), "what was ANNOUNCED"},
		{"fewer bytes", len(right), "what was"},
		{"none", len(right), ""},
		{"more bytes", len(right), "what was announced, and more"},
		{"a smaller size than there are bytes", len(right) - 1, string(right)},
		{"a greater size than there are bytes", len(right) + 1, string(right)},
		{"a negative size", -1, string(right)},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := store.Put(t.Context(), id, int64(test.size), strings.NewReader(test.bytes))
			if !errors.Is(err, storage.ErrMismatch) {
				t.Errorf("Put: error %v, want ErrMismatch", err)
			}
			wantMissing(t, store, id)
		})
	}
	put(t, store, right)
}

var errBroken = errors.New("the source broke")

func testBrokenSource(t *testing.T, store storage.Blobs) {
	data := bytes.Repeat([]byte("x"), 100_000)
	id := storage.CIDOf(data)
	broken := io.MultiReader(bytes.NewReader(data[:70_000]), failingReader{})
	if err := store.Put(t.Context(), id, int64(len(data)), broken); !errors.Is(err, errBroken) {
		t.Errorf("Put: error %v, want the source's", err)
	}
	wantMissing(t, store, id)
	put(t, store, data)
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errBroken }

func testZeroCID(t *testing.T, store storage.Blobs) {
	wantMissing(t, store, storage.CID{})
	if err := store.Put(t.Context(), storage.CID{}, 0, strings.NewReader("")); !errors.Is(err, storage.ErrMismatch) {
		t.Errorf("Put: error %v, want ErrMismatch", err)
	}
}

// parallel runs f n times at once and returns their errors.
func parallel(n int, f func(i int) error) []error {
	failures := make([]error, n)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { failures[i] = f(i) })
	}
	group.Wait()
	return failures
}

func testConcurrentPut(t *testing.T, store storage.Blobs) {
	data := bytes.Repeat([]byte("shared"), 20_000)
	id := storage.CIDOf(data)
	failures := parallel(16, func(i int) error {
		if i%4 == 3 { // among them some that lie
			err := store.Put(t.Context(), id, int64(len(data)), bytes.NewReader(make([]byte, len(data))))
			if err == nil || errors.Is(err, storage.ErrMismatch) {
				return nil // nil: it was there already, nobody looked at these bytes
			}
			return err
		}
		return store.Put(t.Context(), id, int64(len(data)), bytes.NewReader(data))
	})
	if err := errors.Join(failures...); err != nil {
		t.Errorf("Put: %v", err)
	}
	if got := get(t, store, id); !bytes.Equal(got, data) {
		t.Error("the blob came back changed")
	}
}

func testObject(t *testing.T, store storage.Blobs) {
	for key, data := range map[string][]byte{
		"log/entry/0000000000000000":      []byte(`{"v":1}`),
		"log/checkpoint/0000000000000001": []byte("note\n"),
		"log/empty":                       {},
		"x":                               {0, 1, 2},
		strings.Repeat("deep/", 20) + "-": []byte("a long way down"),
	} {
		if err := store.Create(t.Context(), key, data); err != nil {
			t.Errorf("Create %s: %v", key, err)
		}
		if got, err := store.Read(t.Context(), key); err != nil || !bytes.Equal(got, data) {
			t.Errorf("Read %s: %q, %v, want %q", key, got, err, data)
		}
	}
}

func testObjectExists(t *testing.T, store storage.Blobs) {
	const key = "log/entry/0000000000000001"
	first := []byte("first")
	for range 2 {
		if err := store.Create(t.Context(), key, first); err != nil {
			t.Fatalf("Create with the same bytes: %v", err)
		}
	}
	for _, other := range []string{"other", "", "first and more", "FIRST"} {
		if err := store.Create(t.Context(), key, []byte(other)); !errors.Is(err, storage.ErrExists) {
			t.Errorf("Create with %q: error %v, want ErrExists", other, err)
		}
	}
	if got, err := store.Read(t.Context(), key); err != nil || !bytes.Equal(got, first) {
		t.Errorf("Read: %q, %v, want %q", got, err, first)
	}
}

func testOneWinner(t *testing.T, store storage.Blobs) {
	const callers = 16
	for round := range 4 {
		key := fmt.Sprintf("log/entry/%016d", round)
		content := func(i int) []byte { return bytes.Repeat([]byte{byte('a' + i)}, 1000+i) }
		failures := parallel(callers, func(i int) error { return store.Create(t.Context(), key, content(i)) })
		winner := -1
		for i, err := range failures {
			switch {
			case err == nil && winner >= 0:
				t.Errorf("both %d and %d were told that they created %s", winner, i, key)
			case err == nil:
				winner = i
			case !errors.Is(err, storage.ErrExists):
				t.Errorf("Create: error %v, want ErrExists", err)
			}
		}
		if winner < 0 {
			t.Fatal("nobody won")
		}
		if got, err := store.Read(t.Context(), key); err != nil || !bytes.Equal(got, content(winner)) {
			t.Errorf("Read: not the bytes of the winner (%v)", err)
		}
	}
}

func testObjectSize(t *testing.T, store storage.Blobs) {
	largest := bytes.Repeat([]byte("x"), 1<<20)
	if err := store.Create(t.Context(), "log/largest", largest); err != nil {
		t.Errorf("Create with 1 MiB: %v", err)
	}
	if got, err := store.Read(t.Context(), "log/largest"); err != nil || !bytes.Equal(got, largest) {
		t.Errorf("Read of 1 MiB: %d bytes, %v", len(got), err)
	}
	if err := store.Create(t.Context(), "log/larger", append(largest, 'x')); err == nil {
		t.Error("Create takes what Read would not give back")
	}
	if _, err := store.Read(t.Context(), "log/larger"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("Read of what was refused: error %v, want ErrNotFound", err)
	}
}

func testBadKeys(t *testing.T, store storage.Blobs) {
	for _, key := range []string{
		"", "/", "/log", "log/", "log//entry", "..", "../escape", "log/../../escape", "log/./entry", ".", ".hidden",
		"log/.hidden", "log/Entry", "log/entry_1", "log/entry.1", "log\\entry", "log/entry ", "log/entry\n", "log/\x00",
		"log/é", "log/%2e", "log/*", "C:/x", strings.Repeat("a", 4096),
	} {
		if err := store.Create(t.Context(), key, []byte("x")); !errors.Is(err, storage.ErrBadKey) {
			t.Errorf("Create %q: error %v, want ErrBadKey", key, err)
		}
		if data, err := store.Read(t.Context(), key); !errors.Is(err, storage.ErrBadKey) {
			t.Errorf("Read %q: %q, error %v, want ErrBadKey", key, data, err)
		}
	}
	for _, prefix := range []string{"../", "/", "./", "log/../"} {
		for key, err := range store.List(t.Context(), prefix, "") {
			if err == nil {
				t.Errorf("List %q yields %q", prefix, key)
			}
		}
	}
}

func list(t *testing.T, store storage.Blobs, prefix, after string) []string {
	t.Helper()
	var keys []string
	for key, err := range store.List(t.Context(), prefix, after) {
		if err != nil {
			t.Fatalf("List %q after %q: %v", prefix, after, err)
		}
		keys = append(keys, key)
	}
	return keys
}

func testList(t *testing.T, store storage.Blobs) {
	keys := []string{
		// The slash sorts between the hyphen and the digits.
		"a-b/x", "a/b", "a/b-c", "a0/x", "ab/c/d/e",
		"log/checkpoint/0000000000000002", "log/entry-x", "log/entry/0000000000000000", "log/entry/0000000000000001",
		"log/entry/0000000000000009", "log/entry/0000000000000010", "log/entry0", "m",
	}
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(len(keys)) {
		if err := store.Create(t.Context(), keys[i], []byte(keys[i])); err != nil {
			t.Fatalf("Create %s: %v", keys[i], err)
		}
	}
	slices.Sort(keys)
	prefixes := []string{"", "a", "a/", "a/b", "a-", "log/", "log/e", "log/entry", "log/entry/", "log/entry/00000000000000",
		"log/entry/0000000000000001", "log/none/", "none", "m", "m/", "z"}
	afters := append([]string{"", "a/", "a/zz", "b", "log", "log/", "log/entry/", "log/entry/0000000000000005", "zz", "~"}, keys...)
	for _, prefix := range prefixes {
		for _, after := range afters {
			var want []string
			for _, key := range keys {
				if strings.HasPrefix(key, prefix) && key > after {
					want = append(want, key)
				}
			}
			if got := list(t, store, prefix, after); !slices.Equal(got, want) {
				t.Errorf("List %q after %q:\n got %q\nwant %q", prefix, after, got, want)
			}
		}
	}
}

func testListBreak(t *testing.T, store storage.Blobs) {
	for i := range 5 {
		if err := store.Create(t.Context(), fmt.Sprintf("log/entry/%d", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	for key, err := range store.List(t.Context(), "", "") {
		if key != "log/entry/0" || err != nil {
			t.Errorf("first is %q, %v", key, err)
		}
		break
	}
}

func testBlobsApart(t *testing.T, store storage.Blobs) {
	data := []byte("only a blob")
	id := put(t, store, data)
	for key, err := range store.List(t.Context(), "", "") {
		t.Errorf("a store without objects lists %q, %v", key, err)
	}
	if err := store.Create(t.Context(), id.String(), []byte("other")); err != nil {
		t.Errorf("Create under a CID: %v", err)
	}
	if got := get(t, store, id); !bytes.Equal(got, data) {
		t.Errorf("the object took the blob's place: %q", got)
	}
}

func testProbe(t *testing.T, store storage.Blobs) {
	for range 3 {
		if err := store.Probe(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if keys := list(t, store, "", ""); len(keys) != 0 {
		t.Errorf("a probe left %v", keys)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := store.Probe(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("a probe when nobody waits: %v", err)
	}
}

func testCancelled(t *testing.T, store storage.Blobs) {
	data := []byte("stored before")
	id := put(t, store, data)
	if err := store.Create(t.Context(), "log/before", data); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	other := []byte("stored never")
	calls := map[string]func() error{
		"Put":         func() error { return store.Put(ctx, storage.CIDOf(other), 12, bytes.NewReader(other)) },
		"Put present": func() error { return store.Put(ctx, id, int64(len(data)), bytes.NewReader(data)) },
		"Open":        func() error { _, err := store.Open(ctx, id); return err },
		"Stat":        func() error { _, err := store.Stat(ctx, id); return err },
		"Create":      func() error { return store.Create(ctx, "log/never", other) },
		"Read":        func() error { _, err := store.Read(ctx, "log/before"); return err },
		"List": func() error {
			var last error
			for _, err := range store.List(ctx, "", "") {
				last = err
			}
			return last
		},
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: error %v, want context.Canceled", name, err)
		}
	}
	wantMissing(t, store, storage.CIDOf(other))
	if keys := list(t, store, "", ""); !slices.Equal(keys, []string{"log/before"}) {
		t.Errorf("objects are %q", keys)
	}

	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	midway := io.MultiReader(strings.NewReader("stored"), callReader{cancel}, strings.NewReader(" never"))
	if err := store.Put(ctx, storage.CIDOf(other), 12, midway); !errors.Is(err, context.Canceled) {
		t.Errorf("Put cancelled midway: error %v, want context.Canceled", err)
	}
	wantMissing(t, store, storage.CIDOf(other))
}

// callReader is an empty reader that calls f when read.
type callReader struct{ f func() }

func (c callReader) Read([]byte) (int, error) {
	c.f()
	return 0, io.EOF
}

func testCorrupt(t *testing.T, store storage.Blobs, corrupt func(storage.CID)) {
	for _, size := range []int{1, 1000, 3 << 20} {
		data := bytes.Repeat([]byte("b"), size)
		id := put(t, store, data)
		corrupt(id)
		if blob, err := store.Open(t.Context(), id); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("Open of %d bytes: %v, error %v, want ErrCorrupt", size, blob, err)
		}
		if _, err := store.Stat(t.Context(), id); err != nil {
			t.Errorf("Stat of %d bytes: %v: it does not read them", size, err)
		}
		put(t, store, data) // which mends it
		if got := get(t, store, id); !bytes.Equal(got, data) {
			t.Errorf("%d bytes that were put again came back changed", size)
		}
	}
}
