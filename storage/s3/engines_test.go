package s3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/blobtest"
)

// engines are the stores that must do what this package relies on.
var engines = []struct {
	name  string
	start func(testing.TB) *testbed.S3Server
}{
	{"MinIO", testbed.SharedMinIO},
	{"Ceph", testbed.SharedCeph},
}

// onEngines runs a test on each.
func onEngines(t *testing.T, test func(t *testing.T, server *testbed.S3Server)) {
	for _, engine := range engines {
		t.Run(engine.name, func(t *testing.T) { test(t, engine.start(t)) })
	}
}

// open opens a store as its owner.
func open(t *testing.T, server *testbed.S3Server, bucket string) *Store {
	t.Helper()
	return openAt(t, server, server.BlobsURL(bucket))
}

func openAt(t *testing.T, server *testbed.S3Server, address string) *Store {
	t.Helper()
	s, err := Open(t.Context(), address, Options{AccessKey: server.AccessKey, SecretKey: server.SecretKey, Spool: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// rawPut stores bytes as anybody may who has the keys.
func rawPut(t *testing.T, s *Store, key string, data []byte, meta map[string]string) {
	t.Helper()
	_, err := s.core.Client.PutObject(t.Context(), s.place.bucket, key, bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{UserMetadata: meta})
	if err != nil {
		t.Fatal(err)
	}
}

func rawGet(t *testing.T, s *Store, key string) ([]byte, minio.ObjectInfo) {
	t.Helper()
	object, err := s.core.Client.GetObject(t.Context(), s.place.bucket, key, minio.GetObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer object.Close()
	data, err := io.ReadAll(object)
	if err != nil {
		t.Fatal(err)
	}
	info, err := object.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return data, info
}

// corrupt changes a stored bit, and leaves what is said about the bytes.
func corrupt(t *testing.T, s *Store, id storage.CID) {
	t.Helper()
	data, _ := rawGet(t, s, s.blobKey(id))
	data[len(data)/2] ^= 1
	rawPut(t, s, s.blobKey(id), data, map[string]string{metaSum: id.Hex(), metaSize: strconv.Itoa(len(data))})
}

func TestBlobs(t *testing.T) {
	onEngines(t, func(t *testing.T, server *testbed.S3Server) {
		blobtest.Run(t, blobtest.Engine{
			Open: func(t *testing.T) blobtest.Store {
				return open(t, server, server.NewBucket(t)+"/a-lab/registry")
			},
			Corrupt: func(t *testing.T, store blobtest.Store, id storage.CID) { corrupt(t, store.(*Store), id) },
			Stray: func(t *testing.T, store blobtest.Store, name string) {
				s := store.(*Store)
				rawPut(t, s, s.place.prefix+blobFolder+name, []byte("stray"), nil)
			},
		})
	})
}

// patienceOfTests is enough for what succeeds at last, and short for what does not.
const patienceOfTests = 2 * time.Second

func unavailable(err error) bool { return errors.Is(err, storage.ErrUnavailable) }

// Two stores in one bucket, one's prefix being a beginning of the other's in
// letters or in folders, do not see one another.
func TestPrefixesDoNotSeeOneAnother(t *testing.T) {
	onEngines(t, func(t *testing.T, server *testbed.S3Server) {
		bucket := server.NewBucket(t)
		prefixes := []string{"", "lab", "lab/a", "lab-a", "lab/a/b"}
		stores := map[string]*Store{}
		for _, prefix := range prefixes {
			stores[prefix] = open(t, server, bucket+"/"+prefix)
		}
		for _, prefix := range prefixes {
			text := "of " + prefix
			id := storage.CIDOf([]byte(text))
			if err := stores[prefix].Put(t.Context(), id, int64(len(text)), strings.NewReader(text)); err != nil {
				t.Fatal(err)
			}
			if err := stores[prefix].Create(t.Context(), "log/entry/0", []byte(text)); err != nil {
				t.Fatalf("%q: %v", prefix, err)
			}
		}
		for _, prefix := range prefixes {
			s := stores[prefix]
			if data, err := s.Read(t.Context(), "log/entry/0"); err != nil || string(data) != "of "+prefix {
				t.Errorf("%q: Read: %q, %v", prefix, data, err)
			}
			if keys := list(t, s, "log/", ""); !slices.Equal(keys, []string{"log/entry/0"}) {
				t.Errorf("%q: List: %v", prefix, keys)
			}
			for _, other := range prefixes {
				_, err := s.Stat(t.Context(), storage.CIDOf([]byte("of "+other)))
				if (err == nil) != (other == prefix) {
					t.Errorf("%q sees the blob of %q: %v", prefix, other, err)
				}
			}
			for one, err := range s.All(t.Context(), storage.CID{}) {
				if err != nil || one.CID != storage.CIDOf([]byte("of "+prefix)) {
					t.Errorf("%q: All yields %v, %v", prefix, one, err)
				}
			}
		}
	})
}

// A page that the store ends early, and blobs in the way of objects, change
// nothing about a list.
func TestListsInSmallPages(t *testing.T) {
	onEngines(t, func(t *testing.T, server *testbed.S3Server) {
		s := open(t, server, server.NewBucket(t)+"/p")
		want := []string{"a", "blobs-not", "blobs0", "log/1", "log/2", "log/3", "z"}
		for _, key := range want {
			if err := s.Create(t.Context(), key, []byte(key)); err != nil {
				t.Fatal(err)
			}
		}
		var blobs []string
		for i := range 7 {
			data := fmt.Sprint(i)
			id := storage.CIDOf([]byte(data))
			if err := s.Put(t.Context(), id, 1, strings.NewReader(data)); err != nil {
				t.Fatal(err)
			}
			blobs = append(blobs, id.String())
		}
		slices.Sort(blobs)
		rawPut(t, s, s.place.prefix+"NotAKey", []byte("by somebody"), nil)
		rawPut(t, s, "q/after", []byte("another's"), nil)
		for s.pageSize = range 9 {
			if s.pageSize == 0 {
				continue
			}
			if got := list(t, s, "", ""); !slices.Equal(got, want) {
				t.Errorf("in pages of %d: %v, want %v", s.pageSize, got, want)
			}
			if got := ids(t, s); !slices.Equal(got, blobs) {
				t.Errorf("in pages of %d: %d blobs, want %d", s.pageSize, len(got), len(blobs))
			}
		}
	})
}

// With versions MinIO keeps its word and Ceph does not: such a bucket is
// refused, also when it gets its versions while it is used.
func TestABucketThatReplacesIsRefused(t *testing.T) {
	onEngines(t, func(t *testing.T, server *testbed.S3Server) {
		keeps := server != testbed.SharedCeph(t)
		s := open(t, server, server.NewBucket(t))
		if err := s.Create(t.Context(), "log/entry/0", []byte("before")); err != nil {
			t.Fatal(err)
		}
		if err := s.core.EnableVersioning(t.Context(), s.place.bucket); err != nil {
			t.Fatal(err)
		}
		_, opened := Open(t.Context(), server.BlobsURL(s.place.bucket), Options{AccessKey: server.AccessKey, SecretKey: server.SecretKey})
		for what, err := range map[string]error{
			"Create": s.Create(t.Context(), "log/entry/1", []byte("after")),
			"Probe":  s.Probe(t.Context()),
			"Open":   opened,
		} {
			if refused := errors.Is(err, errReplaces); refused == keeps || err != nil && keeps {
				t.Errorf("%s: error %v; the bucket keeps its word: %t", what, err, keeps)
			}
		}
		if err := s.core.SuspendVersioning(t.Context(), s.place.bucket); err != nil {
			t.Fatal(err)
		}
		again := open(t, server, s.place.bucket)
		if err := again.Create(t.Context(), "log/entry/2", []byte("suspended")); err != nil {
			t.Error(err)
		}
		if err := again.Create(t.Context(), "log/entry/0", []byte("other")); !errors.Is(err, storage.ErrExists) {
			t.Errorf("Create of what was there before: error %v, want ErrExists", err)
		}
	})
}

// Bits that change on the store's own disk: MinIO then says that it cannot read
// them now. They are not handed out, and put again they are mended.
func TestBytesThatRotAreMended(t *testing.T) {
	server := testbed.SharedMinIO(t)
	s := open(t, server, server.NewBucket(t))
	s.patience = patienceOfTests
	for _, size := range []int{1000, 3 << 20} {
		data := bytes.Repeat([]byte("rotting "), size/8)
		id := storage.CIDOf(data)
		put := func() error { return s.Put(t.Context(), id, int64(len(data)), bytes.NewReader(data)) }
		if err := put(); err != nil {
			t.Fatal(err)
		}
		rot(t, filepath.Join(server.Folder(), "data", s.place.bucket, "blobs", id.String()), []byte("rotting "))
		if _, err := s.Open(t.Context(), id); !unavailable(err) {
			t.Errorf("Open of %d bytes that rotted: error %v, want ErrUnavailable", size, err)
		}
		if err := put(); err != nil {
			t.Errorf("Put of %d bytes that rotted: %v", size, err)
		}
		blob, err := s.Open(t.Context(), id)
		if err != nil {
			t.Fatalf("Open of %d bytes that were mended: %v", size, err)
		}
		blob.Close()
	}
}

// rot changes a bit in every file below folder that holds the text.
func rot(t *testing.T, folder string, text []byte) {
	t.Helper()
	changed := 0
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if i := bytes.Index(data, text); err == nil && i >= 0 {
			data[i] ^= 1
			changed++
			err = os.WriteFile(path, data, 0o644)
		}
		return err
	})
	if err != nil || changed == 0 {
		t.Fatalf("%d files changed: %v", changed, err)
	}
}

// A bucket that may hold no more is full, and what it holds can be read.
func TestAFullBucketSaysSo(t *testing.T) {
	server := testbed.SharedCeph(t)
	s := open(t, server, server.NewBucket(t))
	server.Limit(t, s.place.bucket, 2)
	failed := 0
	for i := range 20 {
		err := s.Create(t.Context(), fmt.Sprint("log/", i), []byte("x"))
		if err != nil && !errors.Is(err, storage.ErrFull) {
			t.Fatalf("Create %d: error %v, want ErrFull", i, err)
		}
		if err != nil {
			failed++
		}
	}
	if failed == 0 {
		t.Fatal("a bucket for two objects holds twenty")
	}
	if err := s.Probe(t.Context()); !errors.Is(err, storage.ErrFull) {
		t.Errorf("Probe: error %v, want ErrFull", err)
	}
	again := open(t, server, s.place.bucket)
	if data, err := again.Read(t.Context(), "log/0"); err != nil || string(data) != "x" {
		t.Errorf("Read: %q, %v", data, err)
	}
}
