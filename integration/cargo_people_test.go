package integration

import (
	"bytes"
	"encoding/base64"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/registry/particle"
)

// A stranger becomes a publisher, then an owner, and stops being either.
func TestASecondUserIsRefusedUntilMadeAnOwner(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	first := l.operator
	lib := first.crate("shared", "0.1.0", "", "")
	must(t, first.publish(l, lib))

	second := newUser(t)
	next := second.crate("shared", "0.2.0", "", "")
	login := second.login(l, next)
	admission := "aln-registry member add " + second.did() + " --role publisher"
	wantSays(t, login.stdout, second.did(), admission)
	size := l.logSize()
	mustFail(t, second.cargo(next, "publish", "--registry", "aln", "--no-verify"), second.did(), admission)
	mustFail(t, second.cargo(next, "search", "shared", "--registry", "aln"), second.did(), admission)
	mustFail(t, second.aln(next, "member", "add", second.did(), "--role", "publisher"), second.did())

	// The operator types the command word for word.
	must(t, first.aln(lib, strings.Fields(admission)[1:]...))
	mustFail(t, second.aln(next, "member", "add", newUser(t).madeKey(), "--role", "publisher"), "only an admin")
	notOwner := second.did() + " is not an owner of shared; an owner adds you with `aln-registry owner add crate/shared " + second.did() + "`"
	mustFail(t, second.cargo(next, "publish", "--registry", "aln", "--no-verify"), notOwner)
	mustFail(t, second.cargo(next, "owner", "--registry", "aln", "--add", second.did(), "shared"), second.did()+" is not an owner of shared")
	listed := must(t, second.cargo(next, "owner", "--registry", "aln", "--list", "shared"))
	if strings.TrimSpace(listed.stdout) != first.did() {
		t.Errorf("owners listed to a member:\n%s", listed)
	}
	if grown := l.logSize() - size; grown != 1 {
		t.Errorf("the log grew by %d, want only the admission", grown)
	}

	must(t, first.cargo(lib, "owner", "--registry", "aln", "--add", second.did(), "shared"))
	must(t, second.cargo(next, "publish", "--registry", "aln", "--no-verify"))
	must(t, second.aln(next, "verify", "shared@0.2.0"))

	must(t, second.cargo(next, "owner", "--registry", "aln", "--remove", first.did(), "shared"))
	again := first.crate("shared", "0.3.0", "", "")
	mustFail(t, first.publish(l, again), first.did()+" is not an owner of shared")
	mustFail(t, second.cargo(next, "owner", "--registry", "aln", "--remove", second.did(), "shared"), "without an owner")
	must(t, second.aln(next, "verify", "shared@0.1.0"))
	must(t, second.aln(next, "log", "check", "--full"))

	token := second.session(particle.ScopeRead, 0)
	if status, _, body := l.get("/index/config.json", token); status != http.StatusOK {
		t.Fatalf("status %d: %s", status, body)
	}
	must(t, first.aln(lib, "member", "remove", second.did()))
	for _, path := range []string{"/index/config.json", "/index/sh/ar/shared", "/api/v1/crates/shared/0.1.0/download", "/api/v1/crates?q=s", "/v1/members"} {
		if status, _, body := l.get(path, token); status != http.StatusUnauthorized || !bytes.Contains(body, []byte(admission)) {
			t.Errorf("%s by a removed member: status %d: %s", path, status, body)
		}
	}
	third := second.crate("shared", "0.4.0", "", "")
	mustFail(t, second.publish(l, third), second.did(), admission)
	mustFail(t, second.cargo(next, "owner", "--registry", "aln", "--list", "shared"), second.did())
}

// madeKey makes the user an identity without meeting any registry.
func (u *user) madeKey() string {
	u.t.Helper()
	must(u.t, u.aln(u.folder, "key", "new"))
	return u.did()
}

// cargo makes two requests of one token, which carries one own-intent.
func TestOwnersAreAddedAndRemovedInOneCall(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	u := l.operator
	lib := u.crate("many-owners", "0.1.0", "", "")
	must(t, u.publish(l, lib))
	one, two, stranger := l.newMember(), l.newMember(), newUser(t).madeKey()
	owners := func(want ...string) {
		t.Helper()
		listed := must(t, u.cargo(lib, "owner", "--registry", "aln", "--list", "many-owners"))
		if got := strings.Fields(listed.stdout); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("owners are %v, want %v", got, want)
		}
	}
	must(t, u.cargo(lib, "owner", "--registry", "aln", "--add", one.did(), "many-owners"))
	owners(u.did(), one.did())
	size := l.logSize()
	changed := must(t, u.cargo(lib, "owner", "--registry", "aln", "--add", two.did(), "--remove", one.did(), "many-owners"))
	wantSays(t, changed.stderr, "added to the owners of many-owners")
	if l.logSize() != size+2 {
		t.Errorf("the log grew by %d, want 2", l.logSize()-size)
	}
	owners(u.did(), two.did())
	mustFail(t, one.publish(l, one.crate("many-owners", "0.2.0", "", "")), one.did()+" is not an owner of many-owners")
	must(t, two.publish(l, two.crate("many-owners", "0.2.0", "", "")))

	mustFail(t, u.cargo(lib, "owner", "--registry", "aln", "--add", stranger, "many-owners"), stranger+" is not a member", "aln-registry member add "+stranger)
	mustFail(t, u.cargo(lib, "owner", "--registry", "aln", "--add", "alice", "many-owners"), "owners are named by their DID")
	mustFail(t, u.cargo(lib, "owner", "--registry", "aln", "--add", two.did(), "many-owners"), "is an owner of many-owners already")
	mustFail(t, u.cargo(lib, "owner", "--registry", "aln", "--remove", one.did(), "many-owners"), "is not an owner of many-owners")
	mustFail(t, u.cargo(lib, "owner", "--registry", "aln", "--list", "no-such-crate"), `no crate named`)
	must(t, u.aln(lib, "log", "check", "--full"))
	must(t, u.aln(lib, "verify", "many-owners@0.2.0"))
}

// No file of cargo's, no project and no output holds anything that lasts.
func TestNoLastingSecretReachesCargo(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	u := l.operator
	u.extra = []string{"CARGO_LOG=trace"}
	lib := u.crate("secretless", "0.1.0", "", "")
	u.login(l, lib)
	published := must(t, u.cargo(lib, "publish", "--registry", "aln", "--no-verify"))
	u.extra = nil
	app := u.crate("app", "0.1.0", "", "")
	u.login(l, app)
	must(t, u.cargo(app, "add", "--registry", "aln", "secretless"))
	must(t, u.cargo(app, "build"))
	must(t, u.cargo(app, "owner", "--registry", "aln", "--list", "secretless"))
	must(t, u.cargo(app, "yank", "--registry", "aln", "secretless@0.1.0"))

	secrets := u.secrets(l)
	scanned := 0
	for _, folder := range []string{u.cargoHome, lib, app} {
		scanned += scan(t, folder, secrets)
	}
	if scanned < 10 {
		t.Errorf("only %d files were there to scan", scanned)
	}
	for _, secret := range secrets[:1] {
		if strings.Contains(published.stdout+published.stderr+l.log(), secret) {
			t.Error("a key was printed")
		}
	}
	if strings.Contains(l.log(), "eyJ") || strings.Contains(l.log(), "~") {
		t.Errorf("the server's log holds a token:\n%s", l.log())
	}
	if _, err := os.Stat(filepath.Join(u.cargoHome, "credentials.toml")); err == nil {
		t.Error("cargo has a credentials file")
	}
	config := textOf(t, filepath.Join(lib, ".cargo", "config.toml"))
	if strings.Contains(config, "token") || strings.Contains(config, "credential") {
		t.Errorf("the project's configuration, which is committed, says\n%s", config)
	}
	privateModes(t, u.home)
}

var privateMember = regexp.MustCompile(`"d":\s*"([A-Za-z0-9_-]{43})"`)

// secrets are the private keys of u and of the registry, in the encodings in
// which they might turn up, and the sessions that u holds.
func (u *user) secrets(l *lab) []string {
	u.t.Helper()
	var secrets []string
	for _, path := range []string{filepath.Join(u.home, "keys", "default.jwk"), filepath.Join(l.data, "keys", "registry.jwk")} {
		found := privateMember.FindAllStringSubmatch(textOf(u.t, path), -1)
		if len(found) == 0 {
			u.t.Fatalf("no private key in %s", path)
		}
		for _, match := range found {
			raw, err := base64.RawURLEncoding.DecodeString(match[1])
			if err != nil {
				u.t.Fatal(err)
			}
			secrets = append(secrets, match[1], string(raw), base64.StdEncoding.EncodeToString(raw), hexOf(raw))
		}
	}
	sessions, err := filepath.Glob(filepath.Join(u.home, "sessions", "*.json"))
	if err != nil || len(sessions) == 0 {
		u.t.Fatalf("no session is kept in ALN_HOME: %v", err)
	}
	token := regexp.MustCompile(`"token":\s*"([^"]+)"`)
	for _, path := range sessions {
		secrets = append(secrets, token.FindStringSubmatch(textOf(u.t, path))[1])
	}
	return secrets
}

func hexOf(raw []byte) string {
	const digits = "0123456789abcdef"
	var text strings.Builder
	for _, b := range raw {
		text.WriteByte(digits[b>>4])
		text.WriteByte(digits[b&15])
	}
	return text.String()
}

// scan looks for the secrets, and for anything that looks like a session, in
// every file below folder.
func scan(t *testing.T, folder string, secrets []string) (files int) {
	t.Helper()
	session := regexp.MustCompile(`eyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}\.`)
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for _, secret := range secrets {
			if bytes.Contains(raw, []byte(secret)) {
				t.Errorf("%s holds a secret", path)
			}
		}
		if session.Match(raw) {
			t.Errorf("%s holds a session", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// privateModes checks that what is in ALN_HOME is its user's alone.
func privateModes(t *testing.T, home string) {
	t.Helper()
	err := filepath.WalkDir(home, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Who set a token in the environment before keeps using it: cargo:token stays
// among the providers.
func TestATokenInTheEnvironmentStillCounts(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	u := l.operator
	lib := u.crate("from-ci", "0.1.0", "", "")
	must(t, u.publish(l, lib))
	app := u.crate("app", "0.1.0", "", "")
	u.login(l, app)
	must(t, u.cargo(app, "add", "--registry", "aln", "from-ci"))
	token := u.session(particle.ScopeRead, 0)

	runner := newUser(t) // has cargo and a token, but neither an identity nor a provider
	writeFiles(t, runner.folder, map[string]string{"app/.cargo/config.toml": textOf(t, filepath.Join(app, ".cargo", "config.toml")),
		"app/Cargo.toml": textOf(t, filepath.Join(app, "Cargo.toml")), "app/Cargo.lock": textOf(t, filepath.Join(app, "Cargo.lock")), "app/src/lib.rs": ""})
	folder := filepath.Join(runner.folder, "app")
	runner.extra = []string{"CARGO_REGISTRY_GLOBAL_CREDENTIAL_PROVIDERS=cargo:token"} // cargo wants one named where reading takes a token
	mustFail(t, runner.cargo(folder, "fetch"), "no token found for `aln`")
	runner.extra = append(runner.extra, "CARGO_REGISTRIES_ALN_TOKEN="+token)
	must(t, runner.cargo(folder, "fetch"))

	// The provider, where it is set up but was never told of this registry, stands aside.
	writeFiles(t, runner.cargoHome, map[string]string{"config.toml": textOf(t, filepath.Join(u.cargoHome, "config.toml"))})
	runner.extra = nil
	mustFail(t, runner.cargo(folder, "search", "--registry", "aln", "from"), "no token found for `aln`")
	runner.extra = []string{"CARGO_REGISTRIES_ALN_TOKEN=" + token}
	wantSays(t, must(t, runner.cargo(folder, "search", "--registry", "aln", "from")).stdout, `from-ci = "0.1.0"`)

	// A token alone reads, but signs nothing.
	mustFail(t, runner.cargo(folder, "yank", "--registry", "aln", "from-ci@0.1.0"), "403", "aln-registry login URL")
	mustFail(t, runner.cargo(folder, "publish", "--registry", "aln", "--no-verify", "--allow-dirty"), "aln-registry login URL")
}
