package integration

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/s3"
)

// The policy that the guide gives a server is all that it needs, and does not let
// it take away blobs or the log; with the line for gc it may remove blobs.
func TestTheBucketPolicyOfTheGuide(t *testing.T) {
	guide := readRepository(t, "docs/OPERATIONS.md")
	found := regexp.MustCompile("(?s)<!-- bucket policy -->\n```json\n(.*?)```\n").FindStringSubmatch(guide)
	if found == nil {
		t.Fatal("docs/OPERATIONS.md has no policy of a bucket")
	}
	const blobs = "arn:aws:s3:::aln/blobs/*"
	if !strings.Contains(guide, "`"+blobs+"`") {
		t.Fatalf("docs/OPERATIONS.md does not say that gc deletes %s", blobs)
	}
	ofServer := found[1]
	const probes = `"arn:aws:s3:::aln/.probe-*"`
	ofGC := strings.Replace(ofServer, probes, probes+`, "`+blobs+`"`, 1)
	for name, server := range map[string]*testbed.S3Server{"MinIO": testbed.SharedMinIO(t), "Ceph": testbed.SharedCeph(t)} {
		t.Run(name, func(t *testing.T) {
			bucket := server.NewBucket(t)
			open := func(policy string) *s3.Store {
				for _, variable := range server.EnvOf(t, bucket, strings.NewReplacer(":aln/", ":"+bucket+"/lab/", ":aln", ":"+bucket).Replace(policy)) {
					name, value, _ := strings.Cut(variable, "=")
					t.Setenv(name, value)
				}
				s, err := s3.Open(t.Context(), server.BlobsURL(bucket+"/lab"), s3.Options{Patience: 3 * time.Second})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { s.Close() })
				return s
			}
			s := open(ofServer)
			id := storage.CIDOf([]byte("bytes"))
			for what, err := range map[string]error{
				"Put":    s.Put(t.Context(), id, 5, strings.NewReader("bytes")),
				"Create": s.Create(t.Context(), "log/entry/0", []byte("entry")),
				"Probe":  s.Probe(t.Context()),
			} {
				if err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
			if _, err := s.Stat(t.Context(), storage.CIDOf([]byte("none"))); !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("Stat of what is not there: error %v, want ErrNotFound", err)
			}
			for key, err := range s.List(t.Context(), "log/", "") {
				if key != "log/entry/0" || err != nil {
					t.Errorf("List: %q, %v", key, err)
				}
			}
			if err := s.Remove(t.Context(), id); !errors.Is(err, storage.ErrUnavailable) || !strings.Contains(err.Error(), "403") {
				t.Errorf("Remove: error %v, want a refusal", err)
			}
			if size, err := s.Stat(t.Context(), id); size != 5 || err != nil {
				t.Errorf("Stat: %d, %v", size, err)
			}
			if err := open(ofGC).Remove(t.Context(), id); err != nil {
				t.Errorf("Remove by gc's user: %v", err)
			}
		})
	}
}
