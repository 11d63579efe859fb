package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/record"
)

// serverCA is the certificate (PEM) that httptest's TLS servers sign themselves.
func serverCA(s *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

// newTLSFake is a fake that speaks https.
func newTLSFake(t *testing.T, admin Identity) *fake {
	f := newFake(t, admin)
	f.server.Close()
	f.server = httptest.NewTLSServer(f)
	t.Cleanup(f.server.Close)
	f.server.Config.ErrorLog = nil
	return f
}

func TestCertificatesAreGivenOnceAndKept(t *testing.T) {
	c, id := user(t)
	f := newTLSFake(t, id)
	if _, err := c.Login(t.Context(), f.server.URL, ""); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "--ca-file FILE") {
		t.Fatalf("%v", err)
	}
	login, err := c.LoginOn(t.Context(), f.server.URL, Terms{CA: append([]byte("text before\n"), serverCA(f.server)...)})
	if err != nil || string(login.Pin.CA) != string(serverCA(f.server)) {
		t.Fatalf("%+v, %v", login, err)
	}
	again, err := clientIn(c.Home()).Login(t.Context(), f.server.URL, "")
	if err != nil || string(again.Pin.CA) != string(serverCA(f.server)) {
		t.Fatalf("%+v, %v", again, err)
	}
	if _, _, err := must(clientIn(c.Home()).Open("")).LogCheck(t.Context()); err != nil {
		t.Errorf("later commands: %v", err)
	}
	system := "-----BEGIN CERTIFICATE-----\nsystem\n-----END CERTIFICATE-----"
	if err := c.Home().WriteBundle([]byte(system)); err != nil {
		t.Fatal(err)
	}
	if got := string(must(os.ReadFile(c.Home().BundlePath()))); got != system+"\n"+string(serverCA(f.server)) {
		t.Errorf("cargo is told to trust %q", got)
	}
}

// An authority that is trusted no more, or is not needed any longer, is forgotten
// under every name of the registry.
func TestCertificatesAreForgottenWhenAsked(t *testing.T) {
	c, id := user(t)
	f := newTLSFake(t, id)
	url, other := f.server.URL, "sparse+https://elsewhere.example/index/"
	login, err := c.LoginOn(t.Context(), url, Terms{CA: serverCA(f.server)})
	if err != nil {
		t.Fatal(err)
	}
	named := login.Pin
	named.IndexURL = other
	if _, err := c.home.SavePin(t.Context(), named); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Meet(t.Context(), url, Terms{ForgetCA: true}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("the server was trusted all the same: %v", err)
	}
	// This computer trusts it by now.
	trusting := New(Config{Home: c.home, HTTP: f.server.Client().Transport, Now: time.Now, Rand: rand.Reader})
	met, err := trusting.Meet(t.Context(), url, Terms{ForgetCA: true})
	if err != nil || met.Pin.CA != nil {
		t.Fatalf("%+v, %v", met, err)
	}
	f.settle(id, func(s *record.Registry) { s.IndexURLs = []string{IndexURL(url), other} })
	if e, err := trusting.Enter(t.Context(), met, false); err != nil || len(e.Adopted) != 0 {
		t.Fatalf("%+v, %v", e, err)
	}
	for _, pin := range must(c.home.Pins()) {
		if pin.CA != nil {
			t.Errorf("%s: still trusts %q", pin.IndexURL, pin.CA)
		}
	}
}

func TestWhatIsNoAuthorityIsRefused(t *testing.T) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: must(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))})
	secret := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))})
	for name, data := range map[string]string{
		"empty": "", "text": "hello", "key": string(secret), "key behind": string(cert) + string(secret), "broken": strings.Replace(string(cert), "MI", "AA", 1),
		"too many": strings.Repeat(string(cert), 1+maxCA/len(cert)),
	} {
		if out, err := ParseCA([]byte(data)); !errors.Is(err, ErrCA) || strings.Contains(err.Error(), string(secret[40:60])) {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
	if out, err := ParseCA(append([]byte("# ours\n"), cert...)); err != nil || string(out) != string(cert) {
		t.Errorf("%q, %v", out, err)
	}
}

func FuzzParseCA(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		out, err := ParseCA(data)
		if err != nil {
			return
		}
		again, err := ParseCA(out)
		if err != nil || string(again) != string(out) || len(out) > maxCA {
			t.Errorf("not stable: %v", err)
		}
	})
}

func TestAnExpectedOriginLeavesNothingToTrust(t *testing.T) {
	c, id := user(t)
	f := newFake(t, id)
	if _, err := c.LoginOn(t.Context(), f.server.URL, Terms{Origin: id.DID()}); !errors.Is(err, ErrOrigin) || !strings.Contains(err.Error(), string(f.origin.Public().DID())) {
		t.Errorf("%v", err)
	}
	if files := must(filepath.Glob(filepath.Join(c.Home().Path(), "registries", "*.json"))); len(files) != 0 {
		t.Errorf("pinned all the same: %v", files)
	}
	if login, err := c.LoginOn(t.Context(), f.server.URL, Terms{Origin: f.origin.Public().DID()}); err != nil || !login.New {
		t.Errorf("%+v, %v", login, err)
	}
}
