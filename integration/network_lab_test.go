package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// authority is a lab's own certificate authority, as a test makes it.
type authority struct {
	file string // its certificate, PEM
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, folder string) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Lab CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a := authority{file: filepath.Join(folder, "lab-ca.pem"), key: key}
	if a.cert, err = x509.ParseCertificate(raw); err != nil {
		t.Fatal(err)
	}
	writeFiles(t, folder, map[string]string{"lab-ca.pem": "# our own\n" + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}))})
	return a
}

// issue makes a server's certificate for a host name.
func (a authority) issue(t testing.TB, host string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

// tlsFront is a TLS proxy before a lab's server, on loopback, for a host name of
// a private authority. Where strip is given, that path is taken off requests.
type tlsFront struct {
	server    *httptest.Server
	authority authority
	address   string
}

// newTLSLab is a lab behind a tlsFront, under the public URL that url makes of
// the front's address.
func newTLSLab(t *testing.T, host, strip string, publicURL func(address string) string) (*lab, *tlsFront) {
	t.Helper()
	f := &tlsFront{authority: newAuthority(t, t.TempDir())}
	var target *url.URL
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			if strip != "" {
				r.Out.URL.Path = strings.TrimPrefix(r.Out.URL.Path, strip)
				r.Out.URL.RawPath = strings.TrimPrefix(r.Out.URL.RawPath, strip)
			}
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	f.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { proxy.ServeHTTP(w, r) }))
	f.server.TLS = &tls.Config{Certificates: []tls.Certificate{f.authority.issue(t, host)}, MinVersion: tls.VersionTLS12}
	f.server.EnableHTTP2 = true
	f.server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that do not trust it
	f.address = f.server.Listener.Addr().String()
	l := newLab(t, "--public-url", publicURL(f.address))
	var err error
	if target, err = url.Parse(l.url); err != nil {
		t.Fatal(err)
	}
	f.server.StartTLS()
	t.Cleanup(f.server.Close)
	return l, f
}

// connectProxy is an HTTP proxy that leads CONNECT for one host name to an
// address, and counts who asked by the first word of their User-Agent.
type connectProxy struct {
	address string
	host    string
	target  string

	mu    sync.Mutex
	asked map[string]int
	// dialled are the addresses from which it reached the target.
	dialled map[string]bool
}

func newConnectProxy(t *testing.T, host, target string) *connectProxy {
	t.Helper()
	p := &connectProxy{host: host, target: target, asked: map[string]int{}, dialled: map[string]bool{}}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	p.address = server.Listener.Addr().String()
	return p
}

// ServeHTTP implements http.Handler.
func (p *connectProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	agent, _, _ := strings.Cut(r.UserAgent(), "/")
	p.mu.Lock()
	p.asked[agent]++
	p.mu.Unlock()
	if r.Method != http.MethodConnect || r.Host != p.host {
		http.Error(w, "this proxy leads to "+p.host+" only", http.StatusForbidden)
		return
	}
	far, err := net.Dial("tcp", p.target)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer far.Close()
	p.mu.Lock()
	p.dialled[far.LocalAddr().String()] = true
	p.mu.Unlock()
	near, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer near.Close()
	if _, err := io.WriteString(near, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		io.Copy(far, buffered)
		far.Close()
		close(done)
	}()
	io.Copy(near, far)
	near.Close()
	<-done
}

// count returns how often each program asked since the last count.
func (p *connectProxy) count() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked := p.asked
	p.asked = map[string]int{}
	return asked
}

// reached reports whether it was the proxy that made a connection from address.
func (p *connectProxy) reached(address string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dialled[address]
}

// listenOn takes an address that was free a moment ago.
func listenOn(t testing.TB, address string) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// newLabAt is newLab at a URL that was free a moment ago.
func newLabAt(t testing.TB, url string) *lab {
	t.Helper()
	folder := t.TempDir()
	l := &lab{t: t, data: filepath.Join(folder, "data"), url: url}
	l.operator = newUserIn(t, filepath.Join(folder, "operator"))
	l.start()
	t.Cleanup(l.stop)
	return l
}

func appendFile(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}
