package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/registry/particle"
)

// commitProject makes a project on the crate shared of the lab, as its first
// developer would commit it, and returns what is committed.
func commitProject(t *testing.T, l *lab) map[string]string {
	t.Helper()
	u := l.operator
	must(t, u.publish(l, u.crate("shared", "0.1.0", "", "pub fn n() -> u32 { 7 }\n")))
	app := u.crate("app", "0.1.0", "", "pub fn m() -> u32 { shared::n() }\n")
	u.login(l, app)
	must(t, u.cargo(app, "add", "--registry", "aln", "shared"))
	must(t, u.cargo(app, "build"))
	committed := map[string]string{}
	for _, name := range []string{".cargo/config.toml", "Cargo.toml", "Cargo.lock", "src/lib.rs"} {
		committed[name] = textOf(t, filepath.Join(app, name))
	}
	return committed
}

// checkout is a person's copy of what was committed.
func (u *user) checkout(committed map[string]string) string {
	u.t.Helper()
	folder := filepath.Join(u.folder, "checkout")
	writeFiles(u.t, folder, committed)
	return folder
}

// A second person clones a committed project: one login, and no file of the
// project changes by it or by the build.
func TestASecondPersonUsesACommittedProject(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	committed := commitProject(t, l)
	second := newUser(t)
	folder := second.checkout(committed)
	login := must(t, second.aln(folder, "login", "--registry", "aln")) // by the name that the project gives it
	wantSays(t, login.stdout, l.url+" is now known to you", "aln-registry member add "+second.did())
	l.admitPublisher(second)
	must(t, second.cargo(folder, "build", "--locked"))
	must(t, second.aln(folder, "verify"))
	must(t, second.aln(folder, "doctor"))
	for name, text := range committed {
		if now := textOf(t, filepath.Join(folder, name)); now != text {
			t.Errorf("%s was changed:\n%s", name, now)
		}
	}
}

// Who has not logged in learns from the end of cargo's output what to type,
// as far as cargo asks us at all.
func TestNobodyIsLoggedIn(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	committed := commitProject(t, l)

	// The provider is there, from another project; the registry is not known.
	u := newUser(t)
	folder := u.checkout(committed)
	writeFiles(t, u.cargoHome, map[string]string{"config.toml": textOf(t, filepath.Join(l.operator.cargoHome, "config.toml"))})
	wantLastLine(t, u.cargo(folder, "build"), "nobody has logged in to "+l.url+" on this computer; type `aln-registry login "+l.url+"`")

	// A token in the environment or in cargo's own file is left to cargo.
	u.extra = []string{"CARGO_REGISTRIES_ALN_TOKEN=" + l.operator.session(particle.ScopeRead, 0)}
	must(t, u.cargo(folder, "build"))
	u.extra = nil
	writeFiles(t, u.cargoHome, map[string]string{"credentials.toml": "[registries.aln]\ntoken = \"not-a-session\"\n"})
	mustFail(t, u.cargo(folder, "search", "--registry", "aln", "shared"), "malformed token")
	if err := os.Remove(filepath.Join(u.cargoHome, "credentials.toml")); err != nil {
		t.Fatal(err)
	}

	// Logged in once, but the key is gone.
	must(t, u.aln(folder, "login", l.url))
	if err := os.RemoveAll(filepath.Join(u.home, "keys")); err != nil {
		t.Fatal(err)
	}
	wantLastLine(t, u.cargo(folder, "search", "--registry", "aln", "shared"), "type `aln-registry login "+l.url+"`")

	// Logged in, but no member.
	stranger := newUser(t)
	folder = stranger.checkout(committed)
	stranger.login(l, folder)
	wantLastLine(t, stranger.cargo(folder, "build"), "an admin admits it with `aln-registry member add "+stranger.did()+" --role publisher`")

	// No provider at all: cargo has words of its own, and doctor says what to type.
	bare := newUser(t)
	folder = bare.checkout(committed)
	mustFail(t, bare.cargo(folder, "build"), "authenticated registries require a credential-provider to be configured")
	mustFail(t, bare.aln(folder, "doctor"), "FAIL credential provider", "-> aln-registry login "+l.url)
}

func wantLastLine(t *testing.T, r result, want string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(r.stderr), "\n")
	if r.status == 0 || !strings.HasSuffix(lines[len(lines)-1], want) {
		t.Errorf("the last line does not end in %q:\n%s", want, r)
	}
}

// A provider that was moved or removed: cargo cannot run it, and doctor tells;
// login from where the program is now mends it.
func TestTheProviderIsGone(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	committed := commitProject(t, l)
	u := l.newMember()
	folder := u.checkout(committed)
	config := filepath.Join(u.cargoHome, "config.toml")
	gone := filepath.Join(u.folder, "gone", "aln-registry")
	writeFiles(t, u.cargoHome, map[string]string{"config.toml": strings.ReplaceAll(textOf(t, config), binary, gone)})
	mustFail(t, u.cargo(folder, "build"), gone, "failed to spawn credential process")
	mustFail(t, u.aln(folder, "doctor"), "FAIL credential provider: cargo runs "+gone+", which is not there", "-> aln-registry login")
	u.login(l, folder)
	must(t, u.cargo(folder, "build"))
}

// CI with a session in the environment, and nothing else: it reads.
func TestCIWithOnlyAToken(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	committed := commitProject(t, l)
	token := strings.TrimSpace(must(t, l.operator.aln(l.operator.folder, "token", "--scope", "read", "--lifetime", "5m")).stdout)
	runner := newUser(t)
	folder := runner.checkout(committed)
	runner.extra = []string{"CARGO_REGISTRY_GLOBAL_CREDENTIAL_PROVIDERS=cargo:token", "CARGO_REGISTRIES_ALN_TOKEN=" + token}
	must(t, runner.cargo(folder, "build", "--locked"))
	mustFail(t, runner.cargo(folder, "yank", "--registry", "aln", "shared@0.1.0"), "403")
	if strings.Contains(l.log(), token) {
		t.Error("the server's log holds the token")
	}
	if list, err := os.ReadDir(runner.home); err == nil {
		t.Errorf("there is an ALN_HOME: %v", list)
	}
}

// CI with a key file, on a machine that has no ALN_HOME: the origin that it
// expects makes the first meeting no matter of trust.
func TestCIWithAKeyFile(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	committed := commitProject(t, l)
	robot := l.newMember()
	key := filepath.Join(robot.home, "keys", "default.jwk")
	origin := string(robot.pins()[0].Origin)

	runner := newUser(t)
	folder := runner.checkout(committed)
	runner.extra = []string{"ALN_KEY_FILE=" + key, "ALN_ORIGIN=" + robot.did(), "ALN_REGISTRY=" + l.url}
	mustFail(t, runner.aln(folder, "login"), "this is not the registry that was expected", origin, robot.did())
	if len(files(t, runner.home, "registries")) != 0 {
		t.Error("pinned all the same")
	}
	runner.extra[1] = "ALN_ORIGIN=" + origin
	wantSays(t, must(t, runner.aln(folder, "login")).stdout, robot.did(), "You are a member")
	must(t, runner.cargo(folder, "build", "--locked"))
	must(t, runner.aln(folder, "verify"))
	must(t, runner.aln(folder, "doctor"))
	lib := runner.crate("by-the-robot", "0.1.0", "", "")
	must(t, runner.aln(lib, "login"))
	must(t, runner.cargo(lib, "publish", "--registry", "aln", "--no-verify"))
	if list := files(t, runner.home, "keys"); len(list) != 0 {
		t.Errorf("a key was made: %v", list)
	}
	runner.extra[0] = "ALN_KEY_FILE=" + filepath.Join(runner.folder, "no.jwk")
	mustFail(t, runner.aln(folder, "login"), "no.jwk")
}
