package integration

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A lab's own authority is given once, at login; from then on every command, the
// provider and cargo itself trust it, beside what the computer trusts anyway.
func TestARegistryWithAPrivateAuthority(t *testing.T) {
	t.Parallel()
	l, front := newTLSLab(t, "localhost", "", func(address string) string {
		return "https://localhost" + address[strings.LastIndex(address, ":"):]
	})
	base := "https://localhost" + front.address[strings.LastIndex(front.address, ":"):]
	u := l.operator
	lib := u.crate("behind-tls", "0.1.0", "", "pub fn n() -> u32 { 7 }\n")
	mustFail(t, u.aln(lib, "login", base), "aln-registry login "+base+" --ca-file FILE")
	other := newAuthority(t, t.TempDir())
	mustFail(t, u.aln(lib, "login", base, "--ca-file", other.file), "--ca-file FILE")

	login := must(t, u.aln(lib, "login", base, "--ca-file", front.authority.file))
	wantSays(t, login.stdout, "wrote     "+filepath.Join(u.cargoHome, "config.toml"), "You are a member")
	config := textOf(t, filepath.Join(lib, ".cargo", "config.toml"))
	if strings.Contains(config, "cainfo") {
		t.Errorf("the committed project speaks of this computer's files:\n%s", config)
	}
	must(t, u.cargo(lib, "publish", "--registry", "aln", "--no-verify"))
	must(t, u.aln(lib, "verify", "behind-tls@0.1.0"))
	must(t, u.aln(lib, "log", "check"))
	must(t, u.aln(lib, "login", base)) // the certificates are remembered
	wantSays(t, must(t, u.aln(lib, "doctor")).stdout, "ok   certificates of "+base+": cargo trusts their authority, by "+filepath.Join(u.home, "ca", "cargo.pem"))

	// A second person builds on it; what cargo trusts beside the lab's authority
	// is what the computer trusts.
	builder := newUser(t)
	app := builder.crate("app", "0.1.0", "[dependencies]\nbehind-tls = { version = \"0.1\", registry = \"aln\" }\n", "pub fn m() -> u32 { behind_tls::n() }\n")
	must(t, builder.aln(app, "login", base, "--ca-file", front.authority.file))
	l.admitPublisher(builder)
	must(t, builder.cargo(app, "build"))
	must(t, builder.aln(app, "verify"))
	bundle := textOf(t, filepath.Join(builder.home, "ca", "cargo.pem"))
	if system, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt"); err == nil && !strings.HasPrefix(bundle, string(system)) {
		t.Error("cargo was made to forget the system's authorities")
	}
	if !trusts(bundle, front.authority.cert) {
		t.Error("the file for cargo lacks the lab's authority")
	}
	privateModes(t, builder.home)
}

// trusts reports whether a PEM file holds the certificate.
func trusts(bundle string, cert *x509.Certificate) bool {
	for rest := []byte(bundle); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return false
		}
		if string(block.Bytes) == string(cert.Raw) {
			return true
		}
	}
}

// A file of certificates that somebody named to cargo before stays; they are
// told to add the lab's to it.
func TestAnotherFileOfAuthoritiesIsLeftAlone(t *testing.T) {
	t.Parallel()
	l, front := newTLSLab(t, "localhost", "", func(address string) string {
		return "https://localhost" + address[strings.LastIndex(address, ":"):]
	})
	base := "https://localhost" + front.address[strings.LastIndex(front.address, ":"):]
	u := l.operator
	theirs := filepath.Join(u.folder, "theirs.pem")
	writeFiles(t, u.cargoHome, map[string]string{"config.toml": "[http]\ncainfo = \"" + theirs + "\" # mine\n"})
	writeFiles(t, u.folder, map[string]string{"theirs.pem": textOf(t, newAuthority(t, t.TempDir()).file)})
	lib := u.crate("theirs", "0.1.0", "", "")
	login := must(t, u.aln(lib, "login", base, "--ca-file", front.authority.file))
	wantSays(t, login.stdout, "note: ", theirs, "append the certificates in "+filepath.Join(u.home, "ca", "cargo.pem"))
	wantSays(t, textOf(t, filepath.Join(u.cargoHome, "config.toml")), "cainfo = \""+theirs+"\" # mine\n")
	mustFail(t, u.cargo(lib, "publish", "--registry", "aln", "--no-verify"), "SSL")
	mustFail(t, u.aln(lib, "doctor"), "FAIL certificates of "+base+": cargo trusts "+theirs, "-> append the certificates in "+filepath.Join(u.home, "ca", "cargo.pem")+" to "+theirs)

	appendFile(t, theirs, textOf(t, filepath.Join(u.home, "ca", "cargo.pem")))
	must(t, u.cargo(lib, "publish", "--registry", "aln", "--no-verify"))
}

// Behind an HTTP proxy and under a path, whether the proxy before the server
// takes the path off or not: cargo and this program take the same way.
func TestBehindAProxyUnderAPath(t *testing.T) {
	t.Parallel()
	for name, strip := range map[string]string{"path taken off": "/lab/aln", "path left on": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const base = "https://registry.test/lab/aln"
			l, front := newTLSLab(t, "registry.test", strip, func(string) string { return base })
			proxy := newConnectProxy(t, "registry.test:443", front.address)
			u := l.operator
			u.extra = []string{"https_proxy=http://" + proxy.address, "no_proxy="}
			lib := u.crate("far-away", "0.1.0", "", "pub fn n() -> u32 { 7 }\n")
			must(t, u.aln(lib, "login", base, "--ca-file", front.authority.file))
			wantProxied(t, proxy, "Go-http-client")
			must(t, u.cargo(lib, "publish", "--registry", "aln", "--no-verify"))
			wantProxied(t, proxy, "Go-http-client", "cargo")
			must(t, u.cargo(lib, "owner", "--list", "--registry", "aln", "far-away"))
			must(t, u.cargo(lib, "search", "--registry", "aln", "far"))
			must(t, u.cargo(lib, "yank", "--registry", "aln", "far-away@0.1.0"))
			must(t, u.cargo(lib, "yank", "--undo", "--registry", "aln", "far-away@0.1.0"))

			app := u.crate("app", "0.1.0", "[dependencies]\nfar-away = { version = \"0.1\", registry = \"aln\" }\n", "")
			must(t, u.aln(app, "login", base))
			must(t, u.cargo(app, "build"))
			must(t, u.aln(app, "verify"))
			must(t, u.aln(app, "log", "check", "--full"))

			// The proxy that cargo's configuration names goes before the environment's.
			config := filepath.Join(u.cargoHome, "config.toml")
			before := textOf(t, config)
			writeFiles(t, u.cargoHome, map[string]string{"config.toml": strings.Replace(before, "[http]\n", "[http]\nproxy = \""+proxy.address+"\"\n", 1)})
			u.extra = []string{"https_proxy=http://127.0.0.1:9", "no_proxy="}
			proxy.count()
			must(t, u.aln(app, "log", "check"))
			wantProxied(t, proxy, "Go-http-client")
			must(t, u.cargo(app, "search", "--registry", "aln", "far"))
			wantProxied(t, proxy, "cargo")

			// And who is named in NO_PROXY is asked directly, by both (which fails: the name is nobody's).
			for _, variable := range []string{"no_proxy", "NO_PROXY"} {
				u.extra = []string{"no_proxy=", variable + "=.elsewhere.test,registry.test"}
				mustFail(t, u.aln(app, "log", "check"), "cannot reach the registry at "+base)
				mustFail(t, u.cargo(app, "search", "--registry", "aln", "far"))
				if asked := proxy.count(); len(asked) != 0 {
					t.Errorf("%s: the proxy was asked all the same: %v", variable, asked)
				}
			}
		})
	}
}

// wantProxied checks that each of the programs asked the proxy since the last count.
func wantProxied(t *testing.T, p *connectProxy, agents ...string) {
	t.Helper()
	asked := p.count()
	for _, agent := range agents {
		if asked[agent] == 0 {
			t.Errorf("%s went past the proxy: %v", agent, asked)
		}
	}
}
