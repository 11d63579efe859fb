package testbed

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// minioPackage is the MinIO that tests run against. Its own versions are no
// longer published as programs, so it is built.
const minioPackage = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"

// MinIO starts a MinIO that ends with the test.
func MinIO(t testing.TB) *S3Server {
	t.Helper()
	return newMinIO(t, false).begin(t, false)
}

// MinIOWithTLS is MinIO behind a certificate that CA is to be trusted for.
func MinIOWithTLS(t testing.TB) *S3Server {
	t.Helper()
	return newMinIO(t, true).begin(t, false)
}

var sharedMinIO shared

// SharedMinIO is one MinIO for all tests of the process, with buckets of their
// own. It must not be stopped.
func SharedMinIO(t testing.TB) *S3Server {
	t.Helper()
	return sharedMinIO.get(t, func(t testing.TB) *S3Server { return newMinIO(t, false).begin(t, true) })
}

func newMinIO(t testing.TB, secure bool) *S3Server {
	t.Helper()
	program := built(t, minioPackage)
	port, release := ports(t)
	d := newDaemons(t, "minio")
	s := &S3Server{
		Endpoint: "http://" + address(port), AccessKey: "testbed-user", SecretKey: "testbed-secret",
		daemons: d, front: "minio", ready: time.Minute, release: release,
	}
	certificates := filepath.Join(d.folder, "certificates")
	if err := os.Mkdir(certificates, 0o755); err != nil {
		t.Fatal(err)
	}
	if secure {
		s.Endpoint = "https://" + address(port)
		s.CA = filepath.Join(certificates, "public.crt")
		if err := WriteCertificate(s.CA, filepath.Join(certificates, "private.key")); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{
		"MINIO_ROOT_USER=" + s.AccessKey, "MINIO_ROOT_PASSWORD=" + s.SecretKey, "MINIO_BROWSER=off", "MINIO_UPDATE=off",
		"HOME=" + d.folder, "MINIO_CI_CD=1", // which lets it keep its data on the system's own disk
	}
	s.user = s.role
	s.start = []func() error{func() error {
		return d.start("minio", env, program, "server", "--quiet", "--certs-dir", certificates,
			"--address", address(port), "--console-address", address(port+1), filepath.Join(d.folder, "data"))
	}}
	return s
}

// role is a session of the owner's that may do what the policy says.
func (s *S3Server) role(_, policy string) ([]string, error) {
	credential, err := credentials.NewSTSAssumeRole(s.Endpoint, credentials.STSAssumeRoleOptions{AccessKey: s.AccessKey, SecretKey: s.SecretKey, Policy: policy})
	if err != nil {
		return nil, err
	}
	v, err := credential.GetWithContext(nil)
	if err != nil {
		return nil, err
	}
	return []string{"AWS_ACCESS_KEY_ID=" + v.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + v.SecretAccessKey, "AWS_SESSION_TOKEN=" + v.SessionToken}, nil
}

// WriteCertificate makes a certificate for 127.0.0.1 that signs itself, and its key,
// in these files.
func WriteCertificate(certificate, key string) error {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "testbed"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	if err := os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return err
	}
	return os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600)
}

// trusting is a transport that trusts what is in a file alone.
func trusting(file string) (http.RoundTripper, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("no certificate in %s", file)
	}
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}, nil
}
