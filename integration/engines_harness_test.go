package integration

import (
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
)

// pair is what a registry keeps its catalog and its blobs in.
type pair struct {
	// db and blobs are serve's flags of those names, "" for SQLite and a folder.
	db, blobs string
	// env is what the server's environment has besides: credentials.
	env []string
}

// onPostgres keeps the catalog in a database of t's own.
func (p pair) onPostgres(t testing.TB) pair {
	t.Helper()
	p.db = withSecret(testbed.SharedPostgres(t).URL)
	return p
}

// dbSecret is a password that any of the databases takes, and nobody may tell.
const dbSecret = "s3cret-of-the-database"

func withSecret(db string) string {
	return strings.Replace(db, "postgres@", "postgres:"+dbSecret+"@", 1)
}

// tellsNoSecret fails the test where text holds a password or key of the engines.
func (p pair) tellsNoSecret(t testing.TB, text string) {
	t.Helper()
	secrets := []string{dbSecret}
	for _, variable := range p.env {
		if name, value, _ := strings.Cut(variable, "="); name == "AWS_SECRET_ACCESS_KEY" {
			secrets = append(secrets, value)
		}
	}
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("%q is told:\n%s", secret, text)
		}
	}
}

// onMinIO keeps the blobs in a bucket of t's own.
func (p pair) onMinIO(t testing.TB) pair {
	t.Helper()
	return p.onBucket(t, testbed.SharedMinIO(t))
}

// onCeph keeps the blobs in a bucket of t's own.
func (p pair) onCeph(t testing.TB) pair {
	t.Helper()
	return p.onBucket(t, testbed.SharedCeph(t))
}

// onBucket keeps the blobs in a new bucket of s.
func (p pair) onBucket(t testing.TB, s *testbed.S3Server) pair {
	t.Helper()
	p.blobs = s.BlobsURL(s.NewBucket(t))
	p.env = append(p.env, s.Env()...)
	return p
}

// namedPair is how to get a pair.
type namedPair struct {
	name string
	open func(t testing.TB) pair
}

// pairsOfEngines are the pairs beside that of SQLite and a folder.
var pairsOfEngines = []namedPair{
	{"SQLite and MinIO", func(t testing.TB) pair { return pair{}.onMinIO(t) }},
	{"PostgreSQL and a folder", func(t testing.TB) pair { return pair{}.onPostgres(t) }},
	{"PostgreSQL and MinIO", func(t testing.TB) pair { return pair{}.onPostgres(t).onMinIO(t) }},
}

// ceph is a pair for few tests: it takes 8 seconds to come up.
var ceph = namedPair{"PostgreSQL and Ceph", func(t testing.TB) pair { return pair{}.onPostgres(t).onCeph(t) }}

// onEngines is what the servers of a lab on engines have in common.
type onEngines struct {
	pair
	// key is the registry's key file, public the URL that all servers go by.
	key, public string
	// server is whom they run as: somebody without an identity.
	server *user
	front  *front
}

// flags name the engines, as every command on the stores takes them.
func (e *onEngines) flags() []string {
	flags := []string{"--key", e.key}
	if e.db != "" {
		flags = append(flags, "--db", e.db)
	}
	if e.blobs != "" {
		flags = append(flags, "--blobs", e.blobs)
	}
	return flags
}

// newLabOn makes a lab on a pair of engines and starts its first server. Its url is
// that server's own; people come in by engines.public, which goes to any server that
// runs. The operator has logged in and so completed the log's first two entries.
func newLabOn(t testing.TB, p pair, flags ...string) *lab {
	t.Helper()
	l := prepareLabOn(t, p, flags...)
	t.Cleanup(l.stop)
	l.start()
	must(t, l.operator.aln(l.operator.folder, "login", l.engines.public))
	return l
}

// prepareLabOn is newLabOn without a server that runs.
func prepareLabOn(t testing.TB, p pair, flags ...string) *lab {
	t.Helper()
	folder := t.TempDir()
	e := &onEngines{pair: p, key: filepath.Join(folder, "registry.jwk"), server: newUserIn(t, filepath.Join(folder, "server")), front: newFront(t)}
	e.public = "http://" + e.front.listener.Addr().String()
	e.server.extra = p.env
	must(t, e.server.aln(folder, "key", "registry", "--out", e.key))
	l := &lab{t: t, operator: newUserIn(t, filepath.Join(folder, "operator")), engines: e, url: "http://" + steadyAddress(t)}
	if p.db == "" || p.blobs == "" {
		l.data = filepath.Join(folder, "data")
	}
	must(t, l.operator.aln(l.operator.folder, "key", "new"))
	l.flags = append(append(e.flags(), "--public-url", e.public, "--admin", l.operator.did()), flags...)
	e.front.add(l.url)
	t.Cleanup(func() { p.tellsNoSecret(t, l.log()) })
	return l
}

// replica is one more server on the lab's engines, which must both be shared. It
// runs once it is started, and is stopped at the test's end.
func (l *lab) replica() *lab {
	l.t.Helper()
	r := &lab{t: l.t, operator: l.operator, engines: l.engines, flags: l.flags, url: "http://" + steadyAddress(l.t)}
	l.engines.front.add(r.url)
	l.t.Cleanup(func() { r.stop(); l.engines.tellsNoSecret(l.t, r.log()) })
	return r
}

// front is one address before several servers: each connection goes to the next of
// them that takes it.
type front struct {
	listener net.Listener

	mu      sync.Mutex
	servers []string
	next    int
}

func newFront(t testing.TB) *front {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{listener: listener}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go f.pass(conn)
		}
	}()
	return f
}

func (f *front) add(url string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.servers = append(f.servers, strings.TrimPrefix(url, "http://"))
}

// dial connects to the next server that takes a connection, nil where none does.
func (f *front) dial() net.Conn {
	f.mu.Lock()
	defer f.mu.Unlock()
	for range f.servers {
		f.next = (f.next + 1) % len(f.servers)
		if conn, err := net.DialTimeout("tcp", f.servers[f.next], time.Second); err == nil {
			return conn
		}
	}
	return nil
}

func (f *front) pass(client net.Conn) {
	defer client.Close()
	server := f.dial()
	if server == nil {
		return
	}
	defer server.Close()
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		go func() {
			io.Copy(way[0], way[1])
			way[0].(*net.TCPConn).CloseWrite()
			done <- struct{}{}
		}()
	}
	<-done
	<-done
}
