package testbed

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// S3Server is an object store that runs: MinIO or Ceph.
type S3Server struct {
	// Endpoint is http://127.0.0.1:port, or https.
	Endpoint string
	// AccessKey and SecretKey are the credentials of a user who may do all.
	AccessKey, SecretKey string
	// CA is the file with the certificate to trust, where Endpoint is https.
	CA string

	daemons *daemons
	front   string         // the daemon that clients speak to
	start   []func() error // each starts a daemon that does not run
	ready   time.Duration  // how long until it answers, at most
	release func()         // gives up the ports
	// limit lets a bucket hold so many objects; nil where the store cannot.
	limit func(bucket string, objects int) error
	user  func(bucket, policy string) (env []string, err error)

	mu      sync.Mutex
	buckets int
}

// Start starts what does not run, on the same folder and port, and waits until
// the store answers.
func (s *S3Server) Start() error {
	for _, start := range s.start {
		if err := start(); err != nil {
			return err
		}
	}
	client, err := s.Client()
	if err != nil {
		return err
	}
	return until(s.ready, s.daemons.exited(s.front), func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, err := client.ListBuckets(ctx)
		return err
	})
}

// Kill ends daemons with SIGKILL and waits until they are gone: of Ceph "rgw",
// "osd" or "mon"; without names, everything.
func (s *S3Server) Kill(names ...string) { s.daemons.kill(names...) }

// stopTime is how long a daemon may take to end: RADOS's gateway takes its time on a busy machine.
const stopTime = 2 * time.Minute

// Stop ends everything as an operator would.
func (s *S3Server) Stop() error { return s.daemons.end(syscall.SIGTERM, stopTime, nil) }

// Folder is where the store keeps what it is given.
func (s *S3Server) Folder() string { return s.daemons.folder }

// Client speaks to the store as its owner does; it tries each request once.
func (s *S3Server) Client() (*minio.Client, error) {
	endpoint, err := url.Parse(s.Endpoint)
	if err != nil {
		return nil, err
	}
	options := &minio.Options{
		Creds: credentials.NewStaticV4(s.AccessKey, s.SecretKey, ""), Secure: endpoint.Scheme == "https",
		Region: "us-east-1", BucketLookup: minio.BucketLookupPath, MaxRetries: 1,
	}
	if s.CA != "" {
		if options.Transport, err = trusting(s.CA); err != nil {
			return nil, err
		}
	}
	return minio.New(endpoint.Host, options)
}

// NewBucket makes an empty bucket.
func (s *S3Server) NewBucket(t testing.TB) string {
	t.Helper()
	client, err := s.Client()
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.buckets++
	bucket := fmt.Sprintf("bucket-%d", s.buckets)
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := client.MakeBucket(ctx, bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatalf("testbed: make a bucket: %v", err)
	}
	return bucket
}

// Limit lets a bucket hold so many objects and no more; only Ceph can.
func (s *S3Server) Limit(t testing.TB, bucket string, objects int) {
	t.Helper()
	if err := s.limit(bucket, objects); err != nil {
		t.Fatalf("testbed: limit a bucket: %v", err)
	}
}

// BlobsURL is a bucket, or bucket/prefix, as serve's --blobs takes it.
func (s *S3Server) BlobsURL(bucket string) string {
	address := "s3://" + bucket + "?endpoint=" + s.Endpoint
	if s.CA != "" {
		address += "&ca=" + url.QueryEscape(s.CA)
	}
	return address
}

// Env are the credentials as programs expect them.
func (s *S3Server) Env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + s.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s.SecretKey}
}

// EnvOf are the credentials of a user who may do what a policy says, with a
// bucket that the policy calls by its name, and nothing else.
func (s *S3Server) EnvOf(t testing.TB, bucket, policy string) []string {
	t.Helper()
	env, err := s.user(bucket, policy)
	if err != nil {
		t.Fatalf("testbed: make a user: %v", err)
	}
	return env
}

// begin starts s and sees to its end: with the test, or where shared with the process.
func (s *S3Server) begin(t testing.TB, shared bool) *S3Server {
	t.Helper()
	end := func() {
		s.daemons.remove()
		s.release()
	}
	if err := s.Start(); err != nil {
		said := s.daemons.said(s.front)
		end()
		t.Fatalf("testbed: %v\n%s", err, said)
	}
	if !shared {
		t.Cleanup(end)
	}
	return s
}

// shared is a part that all tests of a process use.
type shared struct {
	once   sync.Once
	server *S3Server
}

func (s *shared) get(t testing.TB, begin func(t testing.TB) *S3Server) *S3Server {
	t.Helper()
	s.once.Do(func() { s.server = begin(t) })
	if s.server == nil {
		t.Fatal(errors.New("testbed: the shared store did not come up for an earlier test"))
	}
	return s.server
}
