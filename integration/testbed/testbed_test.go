package testbed

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
)

// What each store promises to the tests: what it has acknowledged is there
// again after it was killed, on the same address.
func TestStoresComeBackAfterAKill(t *testing.T) {
	for name, begin := range map[string]func(testing.TB) *S3Server{"MinIO": MinIO, "Ceph": Ceph} {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			bucket := s.NewBucket(t)
			client, err := s.Client()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := client.PutObject(t.Context(), bucket, "a", strings.NewReader("bytes"), 5, minio.PutObjectOptions{}); err != nil {
				t.Fatal(err)
			}
			s.Kill()
			if err := s.Start(); err != nil {
				t.Fatal(err)
			}
			object, err := client.GetObject(context.Background(), bucket, "a", minio.GetObjectOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if data, err := io.ReadAll(object); err != nil || !bytes.Equal(data, []byte("bytes")) {
				t.Errorf("came back as %q, %v", data, err)
			}
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
			if err := s.Start(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
