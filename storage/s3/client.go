package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// newTransport is how requests travel: bounded in connections, in headers and
// in the time that each step before the body takes. How long bodies take is
// watched by try.
func newTransport(p place) (*http.Transport, error) {
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:    5 * time.Second,
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    64,
		MaxConnsPerHost:        256,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
		ReadBufferSize:         16 << 10,
		WriteBufferSize:        16 << 10,
		DisableCompression:     true, // a blob's bytes are its own
	}
	if !p.secure {
		return t, nil
	}
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if p.ca == "" {
		return t, nil
	}
	text, err := os.ReadFile(p.ca)
	if err != nil {
		return nil, fmt.Errorf("the certificates to trust for the blobs (ca): %w", err)
	}
	t.TLSClientConfig.RootCAs = x509.NewCertPool()
	if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("the certificates to trust for the blobs (ca): %s has none in PEM", p.ca)
	}
	return t, nil
}

// onlyS3 lets through what an object store answered to what was asked. A proxy
// in front of it, a page of a network's door, a load balancer without anything
// behind it answer 200 and 404 too: their empty list would be a log without
// checkpoints. Nor does it follow to another place, signed anew.
type onlyS3 struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (o onlyS3) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := o.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if !isContent(r, resp.StatusCode) {
		resp.Body = &boundedBody{resp.Body, maxAnswer, maxTags}
	}
	switch {
	case resp.StatusCode >= 500: // whoever says so
		return resp, nil
	case resp.Header.Get("X-Amz-Request-Id") == "":
		err = fmt.Errorf("HTTP %d is not an object store's answer: it has no X-Amz-Request-Id", resp.StatusCode)
	case resp.StatusCode >= 400 || expected(r, resp.StatusCode):
		return resp, nil
	default:
		err = fmt.Errorf("HTTP %d is no answer to %s", resp.StatusCode, r.Method)
	}
	resp.Body.Close()
	return nil, err
}

// expected reports whether a status below 400 is how this request succeeds.
func expected(r *http.Request, status int) bool {
	switch status {
	case http.StatusOK:
		return true
	case http.StatusNoContent:
		return r.Method == http.MethodDelete
	case http.StatusPartialContent:
		return r.Header.Get("Range") != ""
	}
	return false
}

// newClient is minio-go's client that tries every request once: try does the rest.
func newClient(p place, keys *credentials.Credentials, wire onlyS3) (minio.Core, error) {
	client, err := minio.NewCore(p.host, &minio.Options{
		Creds: keys, Secure: p.secure, Transport: wire, Region: p.region, BucketLookup: p.style,
		MaxRetries:      1,
		TrailingHeaders: false, // RGW refuses what it has not signed itself
	})
	if err != nil {
		return minio.Core{}, fmt.Errorf("%w: %w", ErrAddress, err)
	}
	return *client, nil
}

// keys are the credentials: those given, or from where such programs look.
func keys(o Options) *credentials.Credentials {
	if o.AccessKey != "" || o.SecretKey != "" {
		return credentials.NewStaticV4(o.AccessKey, o.SecretKey, "")
	}
	return credentials.New(&usual{credentials.Chain{Providers: []credentials.Provider{
		&credentials.EnvAWS{},
		&credentials.FileAWSCredentials{},
		&credentials.IAM{Client: &http.Client{Timeout: 3 * time.Second}},
	}}})
}

// usual is a chain that knows when it has nothing: minio-go's own would go on
// as nobody, whom the store then refuses without saying why.
type usual struct{ credentials.Chain }

var errNoKeys = errors.New("no credentials for the object store: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, " +
	"or AWS_SHARED_CREDENTIALS_FILE (and AWS_PROFILE), or give this machine a role")

// RetrieveWithCredContext implements credentials.Provider.
func (u *usual) RetrieveWithCredContext(c *credentials.CredContext) (credentials.Value, error) {
	v, err := u.Chain.RetrieveWithCredContext(c)
	if err == nil && (v.AccessKeyID == "" || v.SecretAccessKey == "") {
		return credentials.Value{}, errNoKeys
	}
	return v, err
}

// Retrieve implements credentials.Provider.
func (u *usual) Retrieve() (credentials.Value, error) { return u.RetrieveWithCredContext(nil) }

// checkBucket asks whether the bucket is there and may be listed.
func (s *Store) checkBucket(ctx context.Context) error {
	if _, err := s.core.GetCreds(); err != nil {
		return err
	}
	there := false
	var last error
	err := s.try(ctx, "look for the bucket", 0, func(ctx context.Context, _ *pace) error {
		there, last = s.core.BucketExists(ctx, s.place.bucket)
		return s.answer(last)
	})
	switch {
	case err != nil && isShut(last): // again and again, so no byte of it has changed on the way
		return fmt.Errorf("blob storage does not let this server in (%s): the keys are wrong, or may not list the bucket", words(last))
	case err == nil && !there:
		return fmt.Errorf("there is no bucket %s; make it, for instance: aws s3api create-bucket --bucket %s --endpoint-url %s", s.place.bucket, s.place.bucket, s.place.endpoint())
	}
	return err
}

// isShut: the store knows the keys not, or does not let them do this. To wait does not help.
func isShut(err error) bool {
	var e minio.ErrorResponse
	if !errors.As(err, &e) || e.StatusCode != http.StatusForbidden {
		return false
	}
	return e.Code == "SignatureDoesNotMatch" || e.Code == "InvalidAccessKeyId" || e.Code == minio.AccessDenied
}
