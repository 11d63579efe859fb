package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// What state a log of thousands of records of every type makes does not depend on
// the engines that it is rebuilt on, nor on what their database held before.
func TestRebuildDerivesTheSameOnEachPairOfEngines(t *testing.T) {
	t.Parallel()
	w, program := writeChronicle(t), productBinary(t)
	if err := w.whole(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d entries: %v", w.size, w.made)
	t.Run("SQLite and a folder", func(t *testing.T) {
		t.Parallel()
		l := newCrashLab(t)
		l.program = program
		if err := os.CopyFS(filepath.Join(l.data, "store"), os.DirFS(filepath.Join(w.folder, "store"))); err != nil {
			t.Fatal(err)
		}
		writeFiles(t, l.data, map[string]string{"keys/registry.jwk": readFile(t, w.keys)})
		if err := os.Chmod(filepath.Join(l.data, "keys", "registry.jwk"), 0o600); err != nil {
			t.Fatal(err)
		}
		l.rebuiltAs(w)
	})
	for _, p := range append(slices.Clone(pairsOfEngines), ceph) {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			l := prepareLabOn(t, p.open(t))
			l.program = program
			if err := os.WriteFile(l.engines.key, []byte(readFile(t, w.keys)), 0o600); err != nil {
				t.Fatal(err)
			}
			if l.engines.blobs == "" {
				if err := os.CopyFS(filepath.Join(l.data, "store"), os.DirFS(filepath.Join(w.folder, "store"))); err != nil {
					t.Fatal(err)
				}
			} else {
				uploadStore(t, l.engines.pair, filepath.Join(w.folder, "store"))
			}
			l.rebuiltAs(w)
		})
	}
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// rebuiltAs rebuilds into a database that is empty, serves it, and rebuilds again
// when it has been dropped.
func (l *lab) rebuiltAs(w written) {
	l.t.Helper()
	want := hex.EncodeToString(w.digest[:])
	for range 2 {
		r := l.rebuild()
		digest, size, root := l.stored()
		if r.State != want || digest != want || size != w.size || root != w.root || r.Entries != w.size {
			l.t.Fatalf("rebuilt as state %s, %d entries, root %s; it was %s, %d, %s (%+v)", digest, size, root, want, w.size, w.root, r)
		}
		l.start()
		if status, _, note := l.get("/log/checkpoint", ""); status != http.StatusOK || !strings.Contains(string(note), w.root) {
			l.t.Errorf("/log/checkpoint: %d %s", status, note)
		}
		l.stop()
		l.removeCatalog()
	}
}

// uploadStore puts a store's folder into p's bucket.
func uploadStore(t testing.TB, p pair, store string) {
	t.Helper()
	client, bucket := bucketOf(t, p)
	var keys []string
	err := fs.WalkDir(os.DirFS(store), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && (strings.HasPrefix(path, "blobs/") || strings.HasPrefix(path, "log/")) {
			keys = append(keys, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	many(len(keys), func(i int) {
		data, err := os.ReadFile(filepath.Join(store, keys[i]))
		if err != nil {
			t.Error(err)
			return
		}
		key := keys[i]
		if strings.HasPrefix(key, "blobs/") { // on disk they lie in folders
			key = "blobs/" + filepath.Base(key)
		}
		// Signed as a whole: signed in pieces, Ceph takes no object of no bytes.
		sum, options := sha256.Sum256(data), minio.PutObjectOptions{DisableContentSha256: true}
		core := minio.Core{Client: client}
		if _, err := core.PutObject(t.Context(), bucket, key, bytes.NewReader(data), int64(len(data)), "", hex.EncodeToString(sum[:]), options); err != nil {
			t.Errorf("%s of %d bytes: %v", key, len(data), err)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
}

// bucketOf is the bucket of a pair as its owner reaches it.
func bucketOf(t testing.TB, p pair) (*minio.Client, string) {
	t.Helper()
	named, err := url.Parse(p.blobs)
	if err != nil {
		t.Fatal(err)
	}
	endpoint, err := url.Parse(named.Query().Get("endpoint"))
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string]string{}
	for _, line := range p.env {
		name, value, _ := strings.Cut(line, "=")
		secrets[name] = value
	}
	client, err := minio.New(endpoint.Host, &minio.Options{
		Creds: credentials.NewStaticV4(secrets["AWS_ACCESS_KEY_ID"], secrets["AWS_SECRET_ACCESS_KEY"], ""), Region: "us-east-1", BucketLookup: minio.BucketLookupPath,
	})
	if err != nil {
		t.Fatal(err)
	}
	return client, named.Host
}
