//go:build unix

package testbed

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
)

// PG is a PostgreSQL server, with fsync as it is in earnest, and a database in it.
type PG struct {
	// URL is of an empty database of the test's own, whose superuser may be
	// anybody who connects as postgres.
	URL    string
	t      testing.TB
	server *pgServer
}

// pgServer is one server. A shell starts and stops it, so that it ends, and its
// folder goes, however the test's process ends.
type pgServer struct {
	folder   string
	port     int
	release  func() // gives the port up
	commands io.WriteCloser
	answers  *bufio.Reader
	shell    *exec.Cmd

	mutex     sync.Mutex
	pid       int // of the postmaster; 0 while it is stopped
	databases int
}

// Postgres starts a server for t alone. It ends with t.
func Postgres(t testing.TB) *PG {
	t.Helper()
	s, err := startPostgres(t)
	if err != nil {
		t.Fatalf("PostgreSQL: %v", err)
	}
	t.Cleanup(s.end)
	return newPG(t, s)
}

var sharedPG struct {
	sync.Mutex
	*pgServer
}

// SharedPostgres is a database of t's own in the one server of the test's
// process, which ends with the process. It is not for Kill or Stop.
func SharedPostgres(t testing.TB) *PG {
	t.Helper()
	sharedPG.Lock()
	defer sharedPG.Unlock()
	if sharedPG.pgServer == nil {
		s, err := startPostgres(t)
		if err != nil {
			t.Fatalf("PostgreSQL: %v", err)
		}
		sharedPG.pgServer = s
	}
	return newPG(t, sharedPG.pgServer)
}

func newPG(t testing.TB, s *pgServer) *PG {
	t.Helper()
	p := &PG{t: t, server: s}
	p.URL = p.NewDatabase(t)
	return p
}

// NewDatabase makes one more empty database in the server and returns its URL.
func (p *PG) NewDatabase(t testing.TB) string {
	t.Helper()
	p.server.mutex.Lock()
	p.server.databases++
	name := "aln" + strconv.Itoa(p.server.databases)
	p.server.mutex.Unlock()
	if err := p.server.exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatalf("PostgreSQL: %v", err)
	}
	return p.server.url(name)
}

// TLSURL is database, a URL of this server's, as whoever wants TLS writes it, by
// way of address: the server's own, or a proxy's on loopback in front of it.
func (p *PG) TLSURL(database, address string) string {
	p.t.Helper()
	parsed, err := url.Parse(database)
	if err != nil {
		p.t.Fatal(err)
	}
	parsed.Host = address
	parsed.RawQuery = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {p.server.certificate()}}.Encode()
	return parsed.String()
}

// Address is where the server listens.
func (p *PG) Address() string { return address(p.server.port) }

// refuseShared keeps one test from ending the server of all others.
func (p *PG) refuseShared() {
	p.t.Helper()
	sharedPG.Lock()
	defer sharedPG.Unlock()
	if p.server == sharedPG.pgServer {
		p.t.Fatal("this PostgreSQL is shared: a test that ends one has its own (testbed.Postgres)")
	}
}

// Kill ends the server and all its processes at once, as a loss of power would
// but for what only the disk's cache has.
func (p *PG) Kill() {
	p.t.Helper()
	p.refuseShared()
	p.server.mutex.Lock()
	defer p.server.mutex.Unlock()
	if err := p.server.kill(); err != nil {
		p.t.Fatalf("kill PostgreSQL: %v", err)
	}
}

// Stop ends the server as its operator would: sessions are cut, nothing is lost.
func (p *PG) Stop() {
	p.t.Helper()
	p.refuseShared()
	p.server.mutex.Lock()
	defer p.server.mutex.Unlock()
	if _, err := p.server.tell("stop"); err != nil {
		p.t.Fatalf("stop PostgreSQL: %v", err)
	}
	p.server.pid = 0
}

// Start starts the server that was killed or stopped, on the same data and
// port, and returns when it answers.
func (p *PG) Start() {
	p.t.Helper()
	p.server.mutex.Lock()
	defer p.server.mutex.Unlock()
	if err := p.server.start(); err != nil {
		p.t.Fatalf("start PostgreSQL: %v", err)
	}
}

// pgShell does what it is told on its input; at its end, which comes with that
// of the test's process, it ends the server and removes its folder.
const pgShell = `
log=$1 folder=$2
shift 2
p=
while read -r command; do
	case $command in
	start) "$@" >>"$log" 2>&1 </dev/null & p=$!; echo "$p" ;;
	stop) kill -INT "$p" 2>/dev/null; wait "$p"; p=; echo stopped ;;
	killed) wait "$p"; p=; echo killed ;;
	esac
done
[ -z "$p" ] || { kill -QUIT "$p"; wait "$p"; }
rm -rf -- "$folder"
`

// startPostgres makes a data folder and starts a server on it.
func startPostgres(t testing.TB) (*pgServer, error) {
	t.Helper()
	binaries, err := pgBinaries(t)
	if err != nil {
		return nil, err
	}
	s := &pgServer{}
	if s.folder, err = pgFolder(); err != nil {
		return nil, err
	}
	data := filepath.Join(s.folder, "data")
	if out, err := asPostgres(filepath.Join(binaries, "initdb"), "-D", data, "-U", "postgres", "-A", "trust",
		"-E", "UTF8", "--locale=C", "-N").CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("initdb: %w: %s", err, out), os.RemoveAll(s.folder))
	}
	if err := s.makeCertificate(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.folder))
	}
	s.port, s.release = ports(t)
	server := asPostgres(filepath.Join(binaries, "postgres"), "-D", data, "-c", "listen_addresses=127.0.0.1",
		"-c", "port="+strconv.Itoa(s.port), "-c", "unix_socket_directories=", "-c", "max_connections=400",
		"-c", "ssl=on", "-c", "ssl_cert_file="+s.certificate(), "-c", "ssl_key_file="+s.certificateKey())
	s.shell = exec.Command("sh", slices.Concat([]string{"-c", pgShell, "sh", s.log(), s.folder}, server.Args)...)
	s.shell.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a Ctrl-C is for the test, the shell cleans up behind it
	if s.commands, err = s.shell.StdinPipe(); err != nil {
		return nil, err
	}
	answers, err := s.shell.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.answers = bufio.NewReader(answers)
	if err := s.shell.Start(); err != nil {
		s.release()
		return nil, errors.Join(err, os.RemoveAll(s.folder))
	}
	if err := s.start(); err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

// end ends the server, whether it runs or not, and removes its folder.
func (s *pgServer) end() {
	s.commands.Close()
	s.shell.Wait() // whose status is that of rm
	s.release()
}

func (s *pgServer) certificate() string { return filepath.Join(s.folder, "server.crt") }

func (s *pgServer) certificateKey() string { return filepath.Join(s.folder, "server.key") }

// makeCertificate makes one whose key the server's user may read, and nobody else.
func (s *pgServer) makeCertificate() error {
	if err := WriteCertificate(s.certificate(), s.certificateKey()); err != nil || os.Geteuid() != 0 {
		return err
	}
	folder, err := os.Stat(s.folder)
	if err != nil {
		return err
	}
	owner := folder.Sys().(*syscall.Stat_t)
	return os.Chown(s.certificateKey(), int(owner.Uid), int(owner.Gid))
}

func (s *pgServer) log() string { return filepath.Join(s.folder, "log") }

// tell gives the shell a command and returns its answer.
func (s *pgServer) tell(command string) (string, error) {
	if _, err := fmt.Fprintln(s.commands, command); err != nil {
		return "", err
	}
	line, err := s.answers.ReadString('\n')
	return strings.TrimSpace(line), err
}

// pgPatience is how long a server may take to answer; after a kill it replays its log first.
const pgPatience = 60 * time.Second

func (s *pgServer) start() error {
	if s.pid != 0 {
		return errors.New("it runs")
	}
	answer, err := s.tell("start")
	if err != nil {
		return err
	}
	if s.pid, err = strconv.Atoi(answer); err != nil {
		return err
	}
	deadline := time.Now().Add(pgPatience)
	for err = errors.New("never asked"); err != nil; err = s.exec(context.Background(), "SELECT 1") {
		if time.Now().After(deadline) || !running(s.pid) {
			text, _ := os.ReadFile(s.log())
			return fmt.Errorf("it does not answer: %w; its log:\n%s", err, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

// kill holds the postmaster still, so that it neither starts a process nor
// tidies up behind one, and kills all there are.
func (s *pgServer) kill() error {
	if s.pid == 0 {
		return errors.New("it does not run")
	}
	if err := syscall.Kill(s.pid, syscall.SIGSTOP); err != nil {
		return err
	}
	pids := append(children(s.pid), s.pid)
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	s.pid = 0
	if _, err := s.tell("killed"); err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); slices.ContainsFunc(pids, running); {
		if time.Now().After(deadline) {
			return errors.New("its processes do not end")
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

func (s *pgServer) url(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", s.port, database)
}

// exec runs a statement in the database that every server has.
func (s *pgServer) exec(ctx context.Context, statement string) error {
	ctx, cancel := context.WithTimeout(ctx, pgPatience)
	defer cancel()
	db, err := sql.Open("pgx", s.url("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, statement)
	return err
}

// pgFolder makes a folder that the user postgres can get to.
func pgFolder() (string, error) {
	for parent := filepath.Clean(os.TempDir()); ; parent = filepath.Dir(parent) {
		info, err := os.Stat(parent)
		if err != nil {
			return "", err
		}
		if os.Geteuid() == 0 && info.Mode()&0o001 == 0 {
			return "", fmt.Errorf("the user postgres cannot get through %s; set TMPDIR to a folder that all may enter", parent)
		}
		if parent == filepath.Dir(parent) {
			break
		}
	}
	folder, err := os.MkdirTemp("", "aln-pg-")
	if err != nil || os.Geteuid() != 0 {
		return folder, err
	}
	owner, err := user.Lookup("postgres")
	if err != nil {
		return "", err
	}
	uid, uidErr := strconv.Atoi(owner.Uid)
	gid, gidErr := strconv.Atoi(owner.Gid)
	return folder, errors.Join(uidErr, gidErr, os.Chown(folder, uid, gid))
}

// asPostgres is a command run by the user postgres where this is root, which
// PostgreSQL refuses to run as.
func asPostgres(command string, args ...string) *exec.Cmd {
	if os.Geteuid() != 0 {
		return exec.Command(command, args...)
	}
	return exec.Command("setpriv", append([]string{"--reuid=postgres", "--regid=postgres", "--init-groups", command}, args...)...)
}

// pgBinaries is the folder of the newest server that is installed, or gets one.
func pgBinaries(t testing.TB) (string, error) {
	t.Helper()
	found, err := pgInstalled()
	if err == nil && len(found) == 0 {
		if err = installPostgres(t); err == nil {
			found, err = pgInstalled()
		}
	}
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", fmt.Errorf("there is none at %s; install Debian's postgresql", pgPattern)
	}
	slices.SortFunc(found, func(a, b string) int { return pgVersion(a) - pgVersion(b) })
	return filepath.Dir(found[len(found)-1]), nil
}

const pgPattern = "/usr/lib/postgresql/*/bin/initdb"

func pgInstalled() ([]string, error) { return filepath.Glob(pgPattern) }

func pgVersion(initdb string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(initdb))))
	return n
}

// installPostgres installs Debian's, unless another process has meanwhile, without
// the cluster that the package would make and start.
func installPostgres(t testing.TB) error {
	t.Helper()
	const noCluster = `set -eu
		mkdir -p /etc/postgresql-common
		[ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf`
	unlock := lockFor(t, "apt")
	defer unlock()
	if found, err := pgInstalled(); err != nil || len(found) > 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "sh", "-c", noCluster).CombinedOutput(); err != nil {
		return fmt.Errorf("install Debian's postgresql (as root: apt-get install postgresql): %w: %s", err, out)
	}
	return install(ctx, "postgresql")
}

// children are the processes that pid has started.
func children(pid int) (pids []int) {
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		if _, parent, ok := processStat(filepath.Base(name)); ok && parent == pid {
			child, _ := strconv.Atoi(filepath.Base(name))
			pids = append(pids, child)
		}
	}
	return pids
}

// running says whether a process is there and more than the memory of one.
func running(pid int) bool {
	state, _, ok := processStat(strconv.Itoa(pid))
	return ok && state != "Z" && state != "X"
}

func processStat(pid string) (state string, parent int, ok bool) {
	text, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return "", 0, false
	}
	_, rest, _ := strings.Cut(string(text), ") ") // behind the name, which may hold anything but this
	fields := strings.Fields(rest)
	if len(fields) < 2 {
		return "", 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return fields[0], parent, err == nil
}
