package s3

import (
	"bytes"
	"io"
	"strconv"
	"testing"

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

