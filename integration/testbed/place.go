package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/durable"
)

// Ports for the parts lie below what systems give out for outgoing connections,
// so that a part that was killed finds its own free when it comes back.
const (
	firstPort     = 20000
	lastPort      = 32000
	portsPerBlock = 20
)

// ports takes portsPerBlock consecutive free ports of 127.0.0.1 until release is
// called or this process ends, and returns the first.
func ports(t testing.TB) (first int, release func()) {
	t.Helper()
	folder := filepath.Join(os.TempDir(), "aln-testbed-ports")
	if err := os.MkdirAll(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	for first := firstPort; first < lastPort; first += portsPerBlock {
		lock, err := durable.Lock(filepath.Join(folder, strconv.Itoa(first)))
		if errors.Is(err, durable.ErrLocked) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if free(first) {
			return first, func() { lock.Close() }
		}
		lock.Close()
	}
	t.Fatal("testbed: no free ports on 127.0.0.1")
	return 0, nil
}

// free reports whether nobody listens on a block's ports.
func free(first int) bool {
	for port := first; port < first+portsPerBlock; port++ {
		listener, err := net.Listen("tcp", address(port))
		if err != nil {
			return false
		}
		listener.Close()
	}
	return true
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// tools is the folder of programs that were built once for all tests.
func tools() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("testbed: where to keep built programs: %w", err)
	}
	folder := filepath.Join(cache, "aln-registry", "tools")
	return folder, os.MkdirAll(folder, 0o755)
}

var errNoEngine = errors.New("the engines of the tests do not run on Windows")

// lockPoll is how often a lock that somebody else has is asked for.
const lockPoll = 50 * time.Millisecond

// lockFor waits until this process holds the lock of that name, of all tests'
// processes.
func lockFor(t testing.TB, name string) (unlock func()) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Fatal(errNoEngine)
	}
	folder, err := tools()
	if err != nil {
		t.Fatal(err)
	}
	for {
		lock, err := durable.Lock(filepath.Join(folder, name+".lock"))
		if err == nil {
			return func() { lock.Close() }
		}
		if !errors.Is(err, durable.ErrLocked) {
			t.Fatal(err)
		}
		time.Sleep(lockPoll)
	}
}

// built returns the program of a Go module at a version (package@version),
// which is built where it is not yet; under a lock, so that tests that run at
// once build it once.
func built(t testing.TB, pkg string) string {
	t.Helper()
	path, version, _ := strings.Cut(pkg, "@")
	name := filepath.Base(path)
	unlock := lockFor(t, name)
	defer unlock()
	folder, err := tools()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(folder, name+"-"+version)
	if _, err := os.Stat(program); err == nil {
		return program
	}
	fresh, err := os.MkdirTemp(folder, "build-*")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(fresh)
	build := exec.Command("go", "install", "-trimpath", pkg)
	build.Dir = fresh
	build.Env = append(os.Environ(), "GOBIN="+fresh, "GOFLAGS=", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("testbed: build %s: %v\n%s", pkg, err, out)
	}
	if err := os.Rename(filepath.Join(fresh, name), program); err != nil {
		t.Fatal(err)
	}
	return program
}

// debian installs packages of Debian where one of programs is missing.
func debian(t testing.TB, programs, packages []string) {
	t.Helper()
	if have(programs) {
		return
	}
	unlock := lockFor(t, "apt")
	defer unlock()
	if have(programs) {
		return
	}
	if err := install(t.Context(), packages...); err != nil {
		t.Fatalf("testbed: %v", err)
	}
	if !have(programs) {
		t.Fatalf("testbed: %s are installed, and not all of %s are there", strings.Join(packages, " "), strings.Join(programs, " "))
	}
}

// install installs packages of Debian. Whoever calls it has the lock "apt".
func install(ctx context.Context, packages ...string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("not root; as root, run: apt-get install --no-install-recommends %s", strings.Join(packages, " "))
	}
	args := append([]string{"install", "--no-install-recommends"}, packages...)
	out, err := apt(ctx, args...)
	if err != nil { // the lists of a fresh machine may be absent or old
		if out, err := apt(ctx, "update"); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		out, err = apt(ctx, args...)
	}
	if err != nil {
		return fmt.Errorf("%s cannot be had: %w\n%s", strings.Join(packages, " "), err, out)
	}
	return nil
}

func have(programs []string) bool {
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			return false
		}
	}
	return true
}

// apt waits for others that install at the same time.
func apt(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "-y", "-o", "DPkg::Lock::Timeout=300"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	return cmd.CombinedOutput()
}

// until asks for ready every few milliseconds until it is nil, and gives up
// with what it said last when ended is closed or limit is over.
func until(limit time.Duration, ended <-chan struct{}, ready func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("it has ended: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready within %s: %w", limit, err)
		}
	}
}
