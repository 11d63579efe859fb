package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writeCertificate makes a certificate for name that is good for life, with its key, in folder.
func writeCertificate(t testing.TB, folder, name string, life time.Duration) (certFile, keyFile string) {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))
	certFile, keyFile = filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	must(0, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644))
	must(0, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))}), 0o600))
	return certFile, keyFile
}

// newCertificate opens one in a folder of its own, which it returns.
func newCertificate(t testing.TB, name string, life time.Duration) (c *Certificate, folder string) {
	t.Helper()
	folder = t.TempDir()
	certFile, keyFile := writeCertificate(t, folder, name, life)
	return must(OpenCertificate(certFile, keyFile, slog.New(slog.DiscardHandler), time.Now)), folder
}

func TestACertificateIsReadAgainWhenItChanges(t *testing.T) {
	now, log := time.Now(), new(safeBuffer)
	folder := t.TempDir()
	certFile, keyFile := writeCertificate(t, folder, "first", time.Hour)
	c := must(OpenCertificate(certFile, keyFile, slog.New(slog.NewTextHandler(log, nil)), func() time.Time { return now }))
	served := func() string {
		t.Helper()
		return must(c.TLSConfig().GetCertificate(nil)).Leaf.Subject.CommonName
	}
	writeCertificate(t, folder, "second", 2*time.Hour)
	if served() != "first" {
		t.Error("the files are read at every connection")
	}
	if now = now.Add(certificatePoll); served() != "second" {
		t.Errorf("%s is served after a renewal", served())
	}
	if until := time.Until(c.NotAfter()); until < 90*time.Minute {
		t.Errorf("it ends in %s", until)
	}
	writeCertificate(t, folder, "third", time.Hour)
	if c.Reload(); served() != "third" {
		t.Errorf("%s is served after Reload", served())
	}
	if strings.Contains(log.String(), "level=ERROR") {
		t.Error(log.String())
	}
}

// What cannot be used leaves the certificate before in force, and is said once.
func TestABrokenRenewalChangesNothing(t *testing.T) {
	other, _ := writeCertificate(t, t.TempDir(), "other", time.Hour)
	for name, spoil := range map[string]func(certFile, keyFile string) error{
		"the certificate of another key": func(certFile, _ string) error { return os.WriteFile(certFile, must(os.ReadFile(other)), 0o600) },
		"half a file":                    func(certFile, _ string) error { return os.Truncate(certFile, 100) },
		"no certificate":                 func(certFile, _ string) error { return os.Remove(certFile) },
		"no key":                         func(_, keyFile string) error { return os.Remove(keyFile) },
		"a key for everybody":            func(_, keyFile string) error { return os.Chmod(keyFile, 0o644) },
		"a folder":                       func(certFile, _ string) error { return errors.Join(os.Remove(certFile), os.Mkdir(certFile, 0o700)) },
		"a file without end":             func(certFile, _ string) error { return os.Truncate(certFile, maxCertificateFile+1) },
	} {
		t.Run(name, func(t *testing.T) {
			log, folder := new(safeBuffer), t.TempDir()
			certFile, keyFile := writeCertificate(t, folder, "first", time.Hour)
			c := must(OpenCertificate(certFile, keyFile, slog.New(slog.NewTextHandler(log, nil)), time.Now))
			if err := spoil(certFile, keyFile); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				c.Reload()
			}
			if got := must(c.TLSConfig().GetCertificate(nil)).Leaf.Subject.CommonName; got != "first" {
				t.Errorf("%s is served", got)
			}
			if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
				t.Errorf("said %d times: %s", n, log)
			}
			if _, err := OpenCertificate(certFile, keyFile, slog.New(slog.DiscardHandler), time.Now); err == nil {
				t.Error("a start takes it")
			}
			os.RemoveAll(certFile)
			writeCertificate(t, folder, "second", time.Hour)
			must(0, os.Chmod(keyFile, 0o600))
			if c.Reload(); must(c.TLSConfig().GetCertificate(nil)).Leaf.Subject.CommonName != "second" {
				t.Errorf("the next good one is not served: %s", log)
			}
		})
	}
}
