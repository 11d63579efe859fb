// Package integration tests the whole system from outside: the real binary,
// built with the race detector, under real cargo, over real files. What a test
// needs it starts itself, on loopback, in throw-away folders, and ends by pid.
// A part that is missing fails the run.
package integration

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// binary is aln-registry, built once for all tests.
var binary string

func TestMain(m *testing.M) {
	if role, ok := os.LookupEnv(bareRole); ok {
		fmt.Fprintln(os.Stderr, "integration:", serveBare(role))
		os.Exit(1)
	}
	status, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		os.Exit(1)
	}
	os.Exit(status)
}

func buildAndRun(m *testing.M) (int, error) {
	folder, err := os.MkdirTemp("", "aln-integration-*")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(folder)
	for _, tool := range []string{"cargo", "rustc"} {
		if _, err := exec.LookPath(tool); err != nil {
			return 0, fmt.Errorf("%s is needed for these tests: %w", tool, err)
		}
	}
	binary = filepath.Join(folder, "aln-registry")
	flag.Parse()
	mode := "-race=true"
	if flag.Lookup("test.bench").Value.String() != "" {
		mode = "-race=false" // measured is what users run
	}
	build := exec.Command("go", "build", mode, "-o", binary, "phoenix-lab.org/aln-registry/cmd/aln-registry")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build: %w\n%s", err, out)
	}
	return m.Run(), nil
}

// lab is a data folder with its operator, and the server when it runs.
type lab struct {
	t    testing.TB
	url  string
	data string
	// operator is the first admin, on the server's own ALN_HOME; with engines (newLabOn)
	// the server's is apart, and holds nothing.
	operator *user
	engines  *onEngines
	flags    []string
	// program is run instead of binary, where a test measures what users run.
	program string
	// pinned keeps the server on one core, logTo gets what it prints: as benchmarks want it.
	pinned bool
	logTo  *os.File

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	output bytes.Buffer
}

// newLab makes a lab on a free port and starts its server.
func newLab(t testing.TB, flags ...string) *lab {
	t.Helper()
	folder := t.TempDir()
	l := &lab{t: t, data: filepath.Join(folder, "data"), flags: flags, url: "http://" + steadyAddress(t)}
	l.operator = newUserIn(t, filepath.Join(folder, "operator"))
	l.start()
	t.Cleanup(l.stop)
	return l
}

// steadyPort goes round; where it begins differs from run to run.
var steadyPort = func() *atomic.Int64 {
	var port atomic.Int64
	port.Store(rand.Int64N(5000))
	return &port
}()

// steadyAddress is a loopback address that was free a moment ago, and is nobody else's soon: its port
// is not one that the system gives to connections or listeners that want any, nor one of package
// testbed, nor one that this run has given before. Two servers of tests side by side would
// otherwise meet now and then, and each test take the other's for its own.
func steadyAddress(t testing.TB) string {
	t.Helper()
	for range 5000 {
		address := fmt.Sprintf("127.0.0.1:%d", 15000+steadyPort.Add(1)%5000)
		if listener, err := net.Listen("tcp", address); err == nil {
			listener.Close()
			return address
		}
	}
	t.Fatal("no free port on 127.0.0.1")
	return ""
}

// reached is the URL that people use: the server's own, or that of all servers of
// a lab on engines.
func (l *lab) reached() string {
	if l.engines != nil {
		return l.engines.public
	}
	return l.url
}

// start runs the server and waits until it answers.
func (l *lab) start() {
	l.t.Helper()
	if err := l.tryStart(); err != nil {
		l.t.Fatalf("start: %v\n%s", err, l.log())
	}
}

// tryStart is start for a server that may refuse.
func (l *lab) tryStart() error {
	if err := l.launch(); err != nil {
		return err
	}
	return l.awaitUp()
}

// awaitUp waits until a server that was launched answers what is asked, not only that it starts.
func (l *lab) awaitUp() error {
	cmd, exited := l.cmd, l.exited
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		select {
		case <-exited:
			return fmt.Errorf("the server ended: %s", cmd.ProcessState)
		default:
		}
		resp, err := http.Get(l.url + "/healthz")
		if err == nil {
			said, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err == nil && string(said) == "ok\n" {
				return nil
			}
		}
	}
	return errors.New("the server does not answer")
}

// launch runs the server and waits for nothing.
func (l *lab) launch() error {
	args := append([]string{"serve", "--listen", strings.TrimPrefix(l.url, "http://")}, l.flags...)
	if l.data != "" {
		args = append(args, "--data", l.data)
	}
	cmd := exec.Command(cmp.Or(l.program, binary), args...)
	if l.pinned {
		cmd = pinned(cmd.Path, args...)
	}
	cmd.Env = l.environment()
	cmd.Stdout, cmd.Stderr = (*lockedOutput)(l), (*lockedOutput)(l)
	if l.logTo != nil {
		cmd.Stderr = l.logTo
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	l.cmd, l.exited = cmd, exited
	go func() { cmd.Wait(); close(exited) }()
	return nil
}

// environment is what the server sees.
func (l *lab) environment() []string {
	if l.engines != nil {
		return l.engines.server.environment()
	}
	return l.operator.environment()
}

// stop ends the server as an operator would; it must end well.
func (l *lab) stop() {
	l.t.Helper()
	if l.cmd == nil {
		return
	}
	l.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-l.exited:
	case <-time.After(30 * time.Second):
		l.cmd.Process.Kill()
		l.t.Errorf("the server did not stop\n%s", l.log())
	}
	if code := l.cmd.ProcessState.ExitCode(); code != 0 {
		l.t.Errorf("the server ended with status %d\n%s", code, l.log())
	}
	l.cmd = nil
}

// kill ends the server as a power cut would, as far as its process goes.
func (l *lab) kill() {
	l.cmd.Process.Kill()
	<-l.exited
	l.cmd = nil
}

// log is everything the server printed.
func (l *lab) log() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.output.String()
}

type lockedOutput lab

func (o *lockedOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.output.Write(p)
}

// user is a person with an ALN_HOME and a CARGO_HOME of their own.
type user struct {
	t         testing.TB
	folder    string
	home      string
	cargoHome string
	extra     []string
}

func newUser(t testing.TB) *user { return newUserIn(t, t.TempDir()) }

func newUserIn(t testing.TB, folder string) *user {
	t.Helper()
	u := &user{t: t, folder: folder, home: filepath.Join(folder, "aln"), cargoHome: filepath.Join(folder, "cargo")}
	if err := os.MkdirAll(u.cargoHome, 0o755); err != nil {
		t.Fatal(err)
	}
	return u
}

// environment is what the user's programs see. crates.io and everything else
// beyond loopback is unreachable: the proxy named refuses connections, and a server
// takes crates from no upstream unless a flag names one. The race
// detector would otherwise sleep for a second at every program's end.
func (u *user) environment() []string {
	env := []string{
		"ALN_HOME=" + u.home, "ALN_UPSTREAM=none", "CARGO_HOME=" + u.cargoHome, "HOME=" + u.folder,
		"http_proxy=http://127.0.0.1:9", "https_proxy=http://127.0.0.1:9", "no_proxy=127.0.0.1,localhost",
		"CARGO_NET_RETRY=0", "CARGO_TERM_COLOR=never", "CARGO_INCREMENTAL=0", "GORACE=halt_on_error=1 atexit_sleep_ms=0",
	}
	for _, name := range []string{"PATH", "TMPDIR", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	if _, ok := os.LookupEnv("RUSTUP_HOME"); !ok { // rustup's cargo looks there
		if home, err := os.UserHomeDir(); err == nil {
			env = append(env, "RUSTUP_HOME="+filepath.Join(home, ".rustup"))
		}
	}
	return append(env, u.extra...)
}

// result is how a program ended.
type result struct {
	command        string
	stdout, stderr string
	status         int
}

func (r result) String() string {
	return fmt.Sprintf("$ %s\n%s%s[status %d]", r.command, r.stdout, r.stderr, r.status)
}

// run runs a program in folder, with an end in time.
func (u *user) run(folder, program string, args ...string) result {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = folder, u.environment()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Stdin = &stdout, &stderr, nil
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		u.t.Fatalf("%s %s: %v", program, strings.Join(args, " "), err)
	}
	return result{filepath.Base(program) + " " + strings.Join(args, " "), stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// aln runs aln-registry, cargo runs cargo; whatever the outcome.
func (u *user) aln(folder string, args ...string) result { return u.run(folder, binary, args...) }

func (u *user) cargo(folder string, args ...string) result { return u.run(folder, "cargo", args...) }

// must fails the test unless the program ended well.
func must(t testing.TB, r result) result {
	t.Helper()
	if r.status != 0 {
		t.Fatalf("%s", r)
	}
	return r
}

// mustFail fails the test unless the program failed saying want.
func mustFail(t testing.TB, r result, want ...string) result {
	t.Helper()
	if r.status == 0 {
		t.Fatalf("succeeded, but must not:\n%s", r)
	}
	for _, w := range want {
		if !strings.Contains(r.stdout+r.stderr, w) {
			t.Fatalf("does not say %q:\n%s", w, r)
		}
	}
	return r
}

// crate writes a small library crate and returns its folder. toml is appended
// to the manifest's [package] table and after.
func (u *user) crate(name, version, toml, lib string) string {
	u.t.Helper()
	folder := filepath.Join(u.folder, "src", name+"-"+version)
	manifest := fmt.Sprintf("[package]\nname = %q\nversion = %q\nedition = \"2021\"\ndescription = \"test crate %s\"\nlicense = \"MIT\"\n%s\n[workspace]\n", name, version, name, toml)
	writeFiles(u.t, folder, map[string]string{"Cargo.toml": manifest, "src/lib.rs": lib})
	return folder
}

func writeFiles(t testing.TB, folder string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// login sets the project in folder up for the lab.
func (u *user) login(l *lab, folder string) result {
	u.t.Helper()
	return must(u.t, u.aln(folder, "login", l.reached()))
}

// did is the user's DID.
func (u *user) did() string {
	u.t.Helper()
	fields := strings.Fields(must(u.t, u.aln(u.folder, "key", "show")).stdout)
	return fields[1]
}

// get fetches a URL of the lab as u (nil: as nobody), with a fresh read session.
func (l *lab) get(path, token string) (int, http.Header, []byte) {
	l.t.Helper()
	req, err := http.NewRequest(http.MethodGet, l.url+path, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, body
}
