package client

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
)

// maxCA bounds the certificates of a private CA, in bytes.
const maxCA = 32 << 10

// ParseCA returns the certificates in data, PEM blocks one after the other, in
// their one spelling, without what else stands there. ErrCA when there is none,
// one is malformed, or together they are longer than 32 KiB: a lab's own
// authorities are meant, not all of the world's.
func ParseCA(data []byte) ([]byte, error) {
	var out bytes.Buffer
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%w: it holds a %.40q; give the authority's certificate alone, never its key", ErrCA, block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCA, err)
		}
		if err := pem.Encode(&out, &pem.Block{Type: block.Type, Bytes: block.Bytes}); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCA, err)
		}
	}
	switch {
	case out.Len() == 0:
		return nil, fmt.Errorf("%w: no certificate in PEM form in it (it begins with -----BEGIN CERTIFICATE-----)", ErrCA)
	case out.Len() > maxCA:
		return nil, fmt.Errorf("%w: longer than %d bytes; give the certificate of your authority alone", ErrCA, maxCA)
	}
	return out.Bytes(), nil
}

// webOf sends requests to base, trusting the CA's certificates beside the
// computer's own ones. Connections are shared by all that trust the same.
func (c *Client) webOf(base string, ca []byte) (web, error) {
	if len(ca) == 0 {
		return c.web.of(base), nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	w, ok := c.trusting[string(ca)]
	if !ok {
		transport, err := trusting(c.web.client.Transport, ca)
		if err != nil {
			return web{}, err
		}
		w = newWeb(transport, c.web.now, c.web.sleep, c.web.version)
		c.trusting[string(ca)] = w
	}
	return w.of(base), nil
}

// trusting returns a transport like base that also trusts ca.
func trusting(base http.RoundTripper, ca []byte) (*http.Transport, error) {
	if base == nil {
		base = http.DefaultTransport
	}
	like, ok := base.(*http.Transport)
	if !ok {
		return nil, fmt.Errorf("%w: this client's connections take none", ErrCA)
	}
	roots, err := x509.SystemCertPool()
	if err != nil { // a computer without any
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%w: no certificate in it", ErrCA)
	}
	transport := like.Clone()
	if transport.TLSClientConfig == nil {
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	transport.TLSClientConfig.RootCAs = roots
	return transport, nil
}

// isUntrustedCert reports whether err is of a certificate that nobody trusted has signed.
func isUntrustedCert(err error) bool {
	var unknown x509.UnknownAuthorityError
	return errors.As(err, &unknown)
}
