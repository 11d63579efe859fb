package main

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"runtime"
	"strings"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/client/cargoconfig"
)

// cargoSetting is what cargo, run here, takes for a setting: the environment's
// (CARGO_HTTP_PROXY for http.proxy), or that of its configuration files.
func cargoSetting(variable string, path ...string) (cargoconfig.Setting, error) {
	if value := os.Getenv(variable); value != "" {
		return cargoconfig.Setting{Value: value, Path: variable}, nil
	}
	home, err := cargoHome()
	if err != nil {
		return cargoconfig.Setting{}, err
	}
	folder, err := workingFolder()
	if err != nil {
		return cargoconfig.Setting{}, err
	}
	setting, _, err := cargoconfig.Lookup(folder, home, path...)
	return setting, err
}

// transport sends requests by the proxy that cargo takes. Where cargo's
// configuration cannot be read, cargo itself will say so; the environment counts.
func transport() (*http.Transport, error) {
	setting, err := cargoSetting("CARGO_HTTP_PROXY", "http", "proxy")
	if err != nil {
		setting = cargoconfig.Setting{}
	}
	proxy, err := client.ProxySetting{Cargo: setting.Text(), Lookup: os.LookupEnv}.Proxy()
	if err != nil && setting.Text() != "" {
		return nil, fmt.Errorf("http.proxy in %s: %w", setting.Path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("the proxy in the environment: %w", err)
	}
	own := http.DefaultTransport.(*http.Transport).Clone()
	own.Proxy = proxy
	return own, nil
}

// systemBundles are where systems keep all certificates that they trust in one
// file, as Go's crypto/x509 looks for them.
var systemBundles = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
	"/etc/pki/tls/cacert.pem", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
}

// maxBundleFile bounds such a file, in bytes.
const maxBundleFile = 8 << 20

// systemCertificates reads that file; none where the system has no such file, or
// no certificate is in it.
func systemCertificates() ([]byte, error) {
	candidates := systemBundles
	if path := os.Getenv("SSL_CERT_FILE"); path != "" {
		candidates = []string{path}
	}
	for _, path := range candidates {
		data, err := readRegular(path, maxBundleFile)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("this computer's own certificates: %w", err)
		}
		if block, _ := pem.Decode(data); block != nil {
			return data, nil
		}
	}
	return nil, nil
}

// trustInCargo makes cargo trust the private authorities of the registries that
// are known. Where it cannot, it says in a note what to do.
func trustInCargo(h client.Home, cargoHome string) (cargoconfig.Change, string, error) {
	system, err := systemCertificates()
	if err != nil {
		return cargoconfig.Change{}, "", err
	}
	if len(system) == 0 {
		set, _, err := cargoconfig.Lookup(cargoHome, cargoHome, "http", "cainfo")
		if err != nil {
			return cargoconfig.Change{}, "", err
		}
		if ours := set.Text() == h.BundlePath(); ours || set.Text() == "" {
			return trustByHand(h, ours)
		}
	}
	if err := h.WriteBundle(system); err != nil {
		return cargoconfig.Change{}, "", err
	}
	change, err := cargoconfig.SetCAInfo(cargoHome, h.BundlePath())
	if errors.Is(err, cargoconfig.ErrCAInfo) {
		return change, change.Path + ": " + err.Error(), nil
	}
	return change, "", err
}

// trustByHand says what to do where this computer's own certificates are in no
// file that is known: told of one without them, cargo would trust crates.io no
// more. The file that it is told of already, and that has them, stays as it is.
func trustByHand(h client.Home, told bool) (cargoconfig.Change, string, error) {
	const found = "this computer keeps its own certificates in no file that is known; set SSL_CERT_FILE to that file and log in again"
	if told {
		return cargoconfig.Change{}, h.BundlePath() + " is left as it is: " + found, nil
	}
	if err := h.WriteBundle(nil); err != nil {
		return cargoconfig.Change{}, "", err
	}
	if runtime.GOOS == "linux" {
		return cargoconfig.Change{}, "cargo does not trust the registry's authority yet: " + found, nil
	}
	return cargoconfig.Change{}, "cargo trusts what this system trusts: " + trustInSystem(h.BundlePath()), nil
}

// trustInSystem is what to type where cargo uses the system's own certificates.
func trustInSystem(path string) string {
	if runtime.GOOS == "windows" {
		return "type `certutil -addstore -user Root \"" + path + "\"`"
	}
	return "type `security add-trusted-cert -r trustRoot -k ~/Library/Keychains/login.keychain-db \"" + path + "\"`"
}

// tokenVariable is where cargo's own provider looks for the token of a registry.
func tokenVariable(registry string) string {
	return "CARGO_REGISTRIES_" + strings.ToUpper(strings.ReplaceAll(registry, "-", "_")) + "_TOKEN"
}

// cargoHasToken reports whether cargo:token has one for the registry that cargo
// calls so. Where that cannot be found out, it may.
func cargoHasToken(registry string) bool {
	if registry == "" || os.Getenv(tokenVariable(registry)) != "" {
		return true
	}
	home, err := cargoHome()
	if err != nil {
		return true
	}
	named, err := cargoconfig.HasCredential(home, registry)
	return named || err != nil
}
