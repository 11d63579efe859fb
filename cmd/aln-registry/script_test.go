package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/rogpeppe/go-internal/testscript"

	"phoenix-lab.org/aln-registry/durable"
)

// TestMain lets the test binary itself be aln-registry in the scripts.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"aln-registry": main})
}

// TestScripts runs testdata/script: what each command says and how it ends, as
// a person at a shell meets it. $LISTEN and $LISTEN2 are free addresses, $URL and
// $URL2 their URLs.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                filepath.Join("testdata", "script"),
		Setup:              setUpScript,
		RequireUniqueNames: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await":  await,
			"exits":  exits,
			"json":   isJSON,
			"setenv": setFromOutput,
			"mode":   hasMode,
			"host":   webHost,
			"sql":    execSQL,
		},
	})
}

func setUpScript(env *testscript.Env) error {
	for _, suffix := range []string{"", "2"} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer listener.Close()
		address := listener.Addr().String()
		env.Setenv("LISTEN"+suffix, address)
		env.Setenv("URL"+suffix, "http://"+address)
	}
	env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
	env.Setenv("ALN_HOME", filepath.Join(env.WorkDir, "aln"))
	env.Setenv("CARGO_HOME", filepath.Join(env.WorkDir, "cargo"))
	env.Setenv("https_proxy", "http://127.0.0.1:9") // nothing beyond loopback
	env.Setenv("ALN_UPSTREAM", "none")
	env.Setenv("GORACE", "halt_on_error=1 atexit_sleep_ms=0")
	rustup := os.Getenv("RUSTUP_HOME")
	if home, err := os.UserHomeDir(); rustup == "" && err == nil {
		rustup = filepath.Join(home, ".rustup")
	}
	env.Setenv("RUSTUP_HOME", rustup)
	return nil
}

// await waits until the server at the URL answers.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await URL")
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get(args[0] + "/healthz")
		if err == nil {
			said, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(said) != "starting\n" {
				return
			}
		}
	}
	ts.Fatalf("%s does not answer", args[0])
}

// exits runs a program that must end with the status given.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS PROGRAM [ARGUMENT...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%s ended with status %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// isJSON checks that the last output is one JSON value, and that it holds each
// of the texts given.
func isJSON(ts *testscript.TestScript, neg bool, args []string) {
	out := ts.ReadFile("stdout")
	if neg || !jsontext.Value(out).IsValid() {
		ts.Fatalf("not JSON: %s", out)
	}
	for _, want := range args {
		if !strings.Contains(out, want) {
			ts.Fatalf("does not hold %s: %s", want, out)
		}
	}
}

// webHost serves the folder given over https, as localhost, whose did:web is
// $WEB; $WORK/ca.pem is its authority.
func webHost(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: host FOLDER")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), 0o600))
	server := httptest.NewUnstartedServer(http.FileServer(http.Dir(ts.MkAbs(args[0]))))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}}}
	server.StartTLS()
	ts.Defer(server.Close)
	ts.Setenv("WEB", fmt.Sprintf("did:web:localhost%%3A%d", server.Listener.Addr().(*net.TCPAddr).Port))
}

// execSQL changes a database that nobody has open.
func execSQL(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: sql FILE STATEMENT")
	}
	db, err := sql.Open("sqlite", ts.MkAbs(args[0]))
	ts.Check(err)
	_, err = db.Exec(args[1])
	ts.Check(errors.Join(err, db.Close()))
}

// setFromOutput sets a variable to a field of the last output's first line.
func setFromOutput(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: setenv NAME FIELD")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	line, _, _ := strings.Cut(ts.ReadFile("stdout"), "\n")
	fields := strings.Fields(line)
	if n < 1 || n > len(fields) {
		ts.Fatalf("%q has no field %d", line, n)
	}
	ts.Setenv(args[0], fields[n-1])
}

// hasMode checks a file's permissions; on Windows, which has none, 600 and 700
// mean that it is its owner's alone.
func hasMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode OCTAL FILE")
	}
	f, err := durable.Open(ts.MkAbs(args[1]))
	ts.Check(err)
	defer f.Close()
	if runtime.GOOS == "windows" {
		ts.Check(durable.OwnerOnly(f))
		return
	}
	info, err := f.Stat()
	ts.Check(err)
	if got := strconv.FormatInt(int64(info.Mode().Perm()), 8); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}
