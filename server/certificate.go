package server

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"phoenix-lab.org/aln-registry/durable"
)

// Bounds on a certificate's files.
const (
	maxCertificateFile = 1 << 20
	// certificatePoll is how often the files are looked at, at most, and only when somebody connects.
	certificatePoll = 5 * time.Second
)

// Certificate is a TLS certificate with its key in two PEM files, read again
// when they change, so that renewing it needs no restart and drops no
// connection. A pair that cannot be used leaves the one before in force. It is
// safe for concurrent use.
type Certificate struct {
	certFile, keyFile string
	log               *slog.Logger
	clock             func() time.Time

	mu      sync.Mutex
	current *tls.Certificate
	// read is what the files held when they were last looked at, at looked.
	read   pemPair
	looked time.Time
}

type pemPair struct{ cert, key []byte }

func (p pemPair) equal(o pemPair) bool {
	return bytes.Equal(p.cert, o.cert) && bytes.Equal(p.key, o.key)
}

// OpenCertificate reads the pair for the first time.
func OpenCertificate(certFile, keyFile string, log *slog.Logger, clock func() time.Time) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, log: log, clock: clock, looked: clock()}
	var err error
	if c.read, err = readPair(certFile, keyFile); err != nil {
		return nil, err
	}
	c.current, err = parsePair(c.read)
	return c, err
}

// TLSConfig serves the certificate by TLS 1.2 and later.
func (c *Certificate) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.get(), nil },
	}
}

// get returns the certificate in force, after a look at the files if the last one is old.
func (c *Certificate) get() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.clock(); now.Sub(c.looked) >= certificatePoll || now.Before(c.looked) {
		c.reload(now)
	}
	return c.current
}

// Reload looks at the files now.
func (c *Certificate) Reload() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reload(c.clock())
}

// NotAfter is when the certificate ends that whoever connects now is served.
func (c *Certificate) NotAfter() time.Time { return c.get().Leaf.NotAfter }

// reload says once of each content that it cannot be used.
func (c *Certificate) reload(now time.Time) {
	c.looked = now
	pair, err := readPair(c.certFile, c.keyFile)
	if err == nil && pair.equal(c.read) {
		return
	}
	if err != nil && c.read.cert == nil {
		return // unreadable as before
	}
	c.read = pair // zero where it cannot be read
	var fresh *tls.Certificate
	if err == nil {
		fresh, err = parsePair(pair)
	}
	if err != nil {
		c.log.Error("the new TLS certificate is not used; the one before stays in force", "until", c.current.Leaf.NotAfter.UTC(), "error", err)
		return
	}
	c.current = fresh
	c.log.Info("the new TLS certificate is in force", "until", fresh.Leaf.NotAfter.UTC())
}

func readPair(certFile, keyFile string) (pemPair, error) {
	cert, err := readPEM(certFile, false)
	if err != nil {
		return pemPair{}, fmt.Errorf("TLS certificate: %w", err)
	}
	key, err := readPEM(keyFile, true)
	if err != nil {
		return pemPair{}, fmt.Errorf("TLS key: %w", err)
	}
	return pemPair{cert, key}, nil
}

// readPEM reads a file. One that is secret must not be readable by everybody; its
// group may be a certificate tool's.
func readPEM(path string, secret bool) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	if secret {
		err := durable.NotPublic(f)
		if exposed := (*durable.ExposedError)(nil); errors.As(err, &exposed) {
			err = fmt.Errorf("everybody on this computer may read %s; type: %s", path, exposed.Mend)
		}
		if err != nil {
			return nil, err
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxCertificateFile+1))
	if err == nil && len(data) > maxCertificateFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxCertificateFile)
	}
	return data, err
}

func parsePair(p pemPair) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(p.cert, p.key)
	if err != nil {
		return nil, fmt.Errorf("the TLS certificate and key cannot be used: %w", err)
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, errors.New("the TLS certificate cannot be read")
		}
	}
	return &pair, nil
}
