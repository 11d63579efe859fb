package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/client"
)

// certificate makes one as PEM.
func certificate(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// labHome knows one registry, whose certificate is of a private authority.
func labHome(t *testing.T, authority []byte) client.Home {
	t.Helper()
	h := client.OpenHome(filepath.Join(t.TempDir(), "aln"))
	pin := client.Pin{
		IndexURL: "sparse+https://lab.example/index/", URL: "https://lab.example", Identity: "default",
		Origin: "did:key:z6MkwCaRfavByxt8T3ExNbPsjeJK5Ss7dbcEdJLUtt8eoAQx", CA: authority,
	}
	if _, err := h.SavePin(context.Background(), pin); err != nil {
		t.Fatal(err)
	}
	return h
}

// Cargo trusts the one file that it is told of and nothing else, so it is never
// told of one that holds a lab's authority alone.
func TestCargoKeepsTheComputersCertificates(t *testing.T) {
	lab, own := certificate(t), certificate(t)
	folder := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	full, empty, missing := write("own.pem", own), write("empty.pem", []byte("# none\n")), filepath.Join(folder, "missing.pem")
	h, cargoHome := labHome(t, lab), t.TempDir()
	config := filepath.Join(cargoHome, "config.toml")
	for _, file := range []string{missing, empty} {
		t.Setenv("SSL_CERT_FILE", file)
		change, note, err := trustInCargo(h, cargoHome)
		if err != nil || change.Changed || note == "" || runtime.GOOS == "linux" && !strings.Contains(note, "set SSL_CERT_FILE") {
			t.Errorf("%s: %v, %q, %v", file, change, note, err)
		}
		if _, err := os.Stat(config); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: cargo is told of a file: %v", file, err)
		}
	}
	t.Setenv("SSL_CERT_FILE", full)
	if change, note, err := trustInCargo(h, cargoHome); err != nil || !change.Changed || note != "" {
		t.Fatalf("%v, %q, %v", change, note, err)
	}
	bundle, err := os.ReadFile(h.BundlePath())
	if err != nil || !holdsAll(bundle, own) || !holdsAll(bundle, lab) {
		t.Fatalf("cargo is told of %s: %v", bundle, err)
	}
	t.Setenv("SSL_CERT_FILE", missing)
	if change, note, err := trustInCargo(h, cargoHome); err != nil || change.Changed || !strings.Contains(note, "is left as it is") {
		t.Errorf("%v, %q, %v", change, note, err)
	}
	if kept, err := os.ReadFile(h.BundlePath()); err != nil || string(kept) != string(bundle) {
		t.Errorf("the computer's certificates are gone: %s, %v", kept, err)
	}
}

func TestTheComputersCertificatesAreNotCutShort(t *testing.T) {
	large := filepath.Join(t.TempDir(), "large.pem")
	if err := os.WriteFile(large, append(certificate(t), make([]byte, maxBundleFile)...), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", large)
	if data, err := systemCertificates(); err == nil || len(data) > 0 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	h, cargoHome := labHome(t, certificate(t)), t.TempDir()
	if _, _, err := trustInCargo(h, cargoHome); err == nil || !strings.Contains(err.Error(), large) {
		t.Errorf("%v", err)
	}
}
