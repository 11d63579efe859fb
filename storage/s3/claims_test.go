package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/storage"
)

// What this package relies on, and why it does not do what it does not do, asked
// of each engine with bare requests. Where an engine's next version differs, one
// of these fails: then docs/ARCHITECTURE.md, "Blobs in a bucket", is to be
// looked at again.

// bare sends one PUT as the store would, with changes.
func bare(ctx context.Context, core minio.Core, bucket, key string, data []byte, sum string, change func(*minio.PutObjectOptions)) error {
	options := minio.PutObjectOptions{DisableContentSha256: true}
	if change != nil {
		change(&options)
	}
	_, err := core.PutObject(ctx, bucket, key, bytes.NewReader(data), int64(len(data)), "", sum, options)
	return err
}

func createOnly(o *minio.PutObjectOptions) { o.SetMatchETagExcept("*") }

// differ runs f with a store on each engine, and with what is wanted of that one.
func differ(t *testing.T, want map[string]int, f func(t *testing.T, server *testbed.S3Server, s *Store, want int)) {
	t.Helper()
	for _, engine := range engines {
		t.Run(engine.name, func(t *testing.T) {
			server := engine.start(t)
			f(t, server, open(t, server, server.NewBucket(t)), want[engine.name])
		})
	}
}

// winners is how many of sixteen were told that they created key.
func winners(t *testing.T, create func(data []byte) error) (won int, refused map[string]int) {
	t.Helper()
	var mu sync.Mutex
	var group sync.WaitGroup
	refused = map[string]int{}
	for i := range 16 {
		group.Go(func() {
			err := create(bytes.Repeat([]byte{byte('a' + i)}, 1000))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else {
				refused[fmt.Sprint(minio.ToErrorResponse(err).StatusCode)]++
			}
		})
	}
	group.Wait()
	return won, refused
}

func TestAPutThatMustCreateHasOneWinner(t *testing.T) {
	onEngines(t, func(t *testing.T, server *testbed.S3Server) {
		s := open(t, server, server.NewBucket(t))
		for round := range 8 {
			key := fmt.Sprint("key-", round)
			won, refused := winners(t, func(data []byte) error {
				return bare(t.Context(), s.core, s.place.bucket, key, data, storage.CIDOf(data).Hex(), createOnly)
			})
			if won != 1 || refused["412"] != 15 {
				t.Errorf("%d of 16 won, the others were refused with %v, want one and 412", won, refused)
			}
		}
	})
}

// Why nothing is finished with a conditional multipart upload: RGW ignores the condition.
func TestMultipartUploadsDifferAboutCreation(t *testing.T) {
	differ(t, map[string]int{"MinIO": 1, "Ceph": 16}, func(t *testing.T, _ *testbed.S3Server, s *Store, want int) {
		won, _ := winners(t, func(data []byte) error {
			upload, err := s.core.NewMultipartUpload(t.Context(), s.place.bucket, "key", minio.PutObjectOptions{})
			if err != nil {
				return err
			}
			part, err := s.core.PutObjectPart(t.Context(), s.place.bucket, "key", upload, 1, bytes.NewReader(data), int64(len(data)), minio.PutObjectPartOptions{})
			if err != nil {
				return err
			}
			options := minio.PutObjectOptions{}
			createOnly(&options)
			_, err = s.core.CompleteMultipartUpload(t.Context(), s.place.bucket, "key", upload, []minio.CompletePart{{PartNumber: 1, ETag: part.ETag}}, options)
			return err
		})
		if won != want {
			t.Errorf("%d of 16 won, want %d", won, want)
		}
	})
}

// Why a bucket is probed: with versions RGW ignores the condition of a PUT, too.
func TestVersionedBucketsDifferAboutCreation(t *testing.T) {
	differ(t, map[string]int{"MinIO": 1, "Ceph": 16}, func(t *testing.T, _ *testbed.S3Server, s *Store, want int) {
		if err := s.core.EnableVersioning(t.Context(), s.place.bucket); err != nil {
			t.Fatal(err)
		}
		won, _ := winners(t, func(data []byte) error {
			return bare(t.Context(), s.core, s.place.bucket, "key", data, storage.CIDOf(data).Hex(), createOnly)
		})
		if won != want {
			t.Errorf("%d of 16 won, want %d", won, want)
		}
	})
}

// Over plain HTTP, too: the signed digest is of the bytes that arrive.
func TestASignedDigestIsHeld(t *testing.T) {
	onEngines(t, func(t *testing.T, server *testbed.S3Server) {
		s := open(t, server, server.NewBucket(t))
		for name, data := range map[string][]byte{"short": []byte("short"), "long": bytes.Repeat([]byte("long"), 300_000)} {
			wrong := storage.CIDOf([]byte("others")).Hex()
			err := bare(t.Context(), s.core, s.place.bucket, name, data, wrong, nil)
			if e := minio.ToErrorResponse(err); e.StatusCode != http.StatusBadRequest {
				t.Errorf("%s: bytes of another digest: %v (HTTP %d), want 400", name, err, e.StatusCode)
			}
			if _, err := s.core.StatObject(t.Context(), s.place.bucket, name, minio.StatObjectOptions{}); minio.ToErrorResponse(err).Code != minio.NoSuchKey {
				t.Errorf("%s: what was refused is there: %v", name, err)
			}
		}
	})
}

// Why no x-amz-checksum-sha256 is sent: RGW ignores it.
func TestChecksumHeadersDiffer(t *testing.T) {
	differ(t, map[string]int{"MinIO": http.StatusBadRequest, "Ceph": 0}, func(t *testing.T, _ *testbed.S3Server, s *Store, want int) {
		data, other := []byte("bytes"), sha256.Sum256([]byte("others"))
		err := bare(t.Context(), s.core, s.place.bucket, "key", data, storage.CIDOf(data).Hex(), func(o *minio.PutObjectOptions) {
			o.UserMetadata = map[string]string{"x-amz-checksum-sha256": base64.StdEncoding.EncodeToString(other[:])}
		})
		if status := minio.ToErrorResponse(err).StatusCode; status != want {
			t.Errorf("a wrong checksum: %v (HTTP %d), want %d", err, status, want)
		}
	})
}

// Why TrailingHeaders is false: RGW refuses them.
func TestTrailersDiffer(t *testing.T) {
	differ(t, map[string]int{"MinIO": 0, "Ceph": http.StatusBadRequest}, func(t *testing.T, server *testbed.S3Server, s *Store, want int) {
		client, err := minio.New(s.place.host, &minio.Options{
			Creds: credentials.NewStaticV4(server.AccessKey, server.SecretKey, ""), Region: s.place.region, TrailingHeaders: true, MaxRetries: 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.PutObject(t.Context(), s.place.bucket, "key", strings.NewReader("bytes"), 5, minio.PutObjectOptions{Checksum: minio.ChecksumSHA256})
		if status := minio.ToErrorResponse(err).StatusCode; status != want {
			t.Errorf("a trailer: %v (HTTP %d), want %d", err, status, want)
		}
	})
}

// What a cut download relies on.
func TestRangesAreHeld(t *testing.T) {
	onEngines(t, func(t *testing.T, server *testbed.S3Server) {
		s := open(t, server, server.NewBucket(t))
		rawPut(t, s, "key", []byte("0123456789"), nil)
		for from, want := range map[int64]string{1: "123456789", 9: "9"} {
			options := minio.GetObjectOptions{}
			if err := options.SetRange(from, 0); err != nil {
				t.Fatal(err)
			}
			body, _, header, err := s.core.GetObject(t.Context(), s.place.bucket, "key", options)
			if err != nil {
				t.Fatal(err)
			}
			var data bytes.Buffer
			data.ReadFrom(body)
			body.Close()
			if begin, whole, err := extent(header); data.String() != want || begin != from || whole != 10 || err != nil {
				t.Errorf("from %d: %q, bytes from %d of %d, %v", from, data.String(), begin, whole, err)
			}
		}
		options := minio.GetObjectOptions{}
		if err := options.SetRange(10, 0); err != nil {
			t.Fatal(err)
		}
		_, _, _, err := s.core.GetObject(t.Context(), s.place.bucket, "key", options)
		if e := minio.ToErrorResponse(err); e.StatusCode != http.StatusRequestedRangeNotSatisfiable {
			t.Errorf("beyond the end: %v (HTTP %d), want 416", err, e.StatusCode)
		}
	})
}

// recorder notes which answers lack what an object store's have.
type recorder struct {
	http.RoundTripper
	mu      sync.Mutex
	answers int
	lacking []string
}

func (r *recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	resp, err := r.RoundTripper.RoundTrip(request)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.answers++
		if resp.Header.Get("X-Amz-Request-Id") == "" {
			r.lacking = append(r.lacking, fmt.Sprintf("%s %s: HTTP %d", request.Method, request.URL.Path, resp.StatusCode))
		}
	}
	return resp, err
}

func TestEveryAnswerHasARequestID(t *testing.T) {
	onEngines(t, func(t *testing.T, server *testbed.S3Server) {
		s := open(t, server, server.NewBucket(t))
		r := &recorder{RoundTripper: s.transport}
		s.wire = onlyS3{r}
		core, err := newClient(s.place, credentials.NewStaticV4(server.AccessKey, server.SecretKey, ""), onlyS3{r})
		if err != nil {
			t.Fatal(err)
		}
		s.core = core
		id := storage.CIDOf([]byte("bytes"))
		s.Put(t.Context(), id, 5, strings.NewReader("bytes"))
		s.Put(t.Context(), id, 5, strings.NewReader("bytes"))
		s.Stat(t.Context(), storage.CIDOf(nil))
		s.Create(t.Context(), "log/a", []byte("one"))
		s.Create(t.Context(), "log/a", []byte("two"))
		s.Read(t.Context(), "log/none")
		list(t, s, "", "")
		s.Remove(t.Context(), id)
		s.core.BucketExists(t.Context(), "no-such-bucket")
		bare(t.Context(), s.core, s.place.bucket, "wrong", []byte("bytes"), id.Hex()[1:]+"0", nil)
		if r.answers < 12 || len(r.lacking) > 0 {
			t.Errorf("of %d answers these have no X-Amz-Request-Id: %v", r.answers, r.lacking)
		}
	})
}

func list(t *testing.T, s *Store, prefix, after string) (keys []string) {
	t.Helper()
	for key, err := range s.List(t.Context(), prefix, after) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	return keys
}

func ids(t *testing.T, s *Store) (ids []string) {
	t.Helper()
	for one, err := range s.All(t.Context(), storage.CID{}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, one.CID.String())
	}
	return ids
}

// What answers without being an object store: a page instead of a list is no
// empty list, and a 404 does not mean that there is no blob.
func TestOnlyAnObjectStoreIsBelieved(t *testing.T) {
	for _, status := range []int{200, 204, 302, 404, 412, 502} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("ETag", `"x"`)
				w.Header().Set("Last-Modified", "Thu, 26 Nov 2026 13:11:56 GMT")
				w.WriteHeader(status)
				fmt.Fprint(w, "<html></html>")
			}))
			defer page.Close()
			s := storeAt(t, page.URL)
			s.patience = 300 * time.Millisecond
			id := storage.CIDOf([]byte("bytes"))
			calls := map[string]error{
				"Put":    s.Put(t.Context(), id, 5, strings.NewReader("bytes")),
				"Create": s.Create(t.Context(), "log/a", []byte("bytes")),
				"Remove": s.Remove(t.Context(), id),
				"Probe":  s.Probe(t.Context()),
			}
			_, calls["Open"] = s.Open(t.Context(), id)
			_, calls["Stat"] = s.Stat(t.Context(), id)
			_, calls["Read"] = s.Read(t.Context(), "log/a")
			for _, err := range s.List(t.Context(), "log/", "") {
				calls["List"] = err
			}
			for name, err := range calls {
				if !unavailable(err) {
					t.Errorf("%s: error %v, want ErrUnavailable", name, err)
				}
			}
			if calls["List"] == nil {
				t.Error("List ends as if that were all")
			}
		})
	}
}

// storeAt is a store of little patience at an endpoint, without a look at it.
func storeAt(t *testing.T, endpoint string) *Store {
	t.Helper()
	s, err := newStore("s3://bucket?endpoint="+url.QueryEscape(endpoint), Options{AccessKey: "key", SecretKey: "secret", Spool: t.TempDir(), Patience: patienceOfTests})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
