package integration

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/registry/cargo"
)

const (
	// fetchedCrates is how many crates cargo fetches, of fetchedSize bytes each.
	fetchedCrates = 200
	fetchedSize   = 20 << 10
	// roundTrip is what the line in front of both servers adds.
	roundTrip = 20 * time.Millisecond
)

// BenchmarkFetch: the time of `cargo fetch` of 200 crates from an empty
// CARGO_HOME over TLS and HTTP/2, in comparison with the same tree served by
// nginx, both behind a line with a round-trip time of 20 ms.
func BenchmarkFetch(b *testing.B) {
	folder := benchFolder(b)
	certificate, key := filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	if err := testbed.WriteCertificate(certificate, key); err != nil {
		b.Fatal(err)
	}
	data := filepath.Join(folder, "data")
	if err := os.MkdirAll(filepath.Join(data, "keys"), 0o700); err != nil {
		b.Fatal(err)
	}
	token, err := fillCatalog(data, fetchedCrates, fetchedSize)
	if err != nil {
		b.Fatal(err)
	}
	ours, theirs := newLine(b), newLine(b)
	l := tlsServer(b, data, certificate, key, ours)
	tree := mirrored(b, l, theirs)
	theirs.aim(strings.TrimPrefix(nginxServer(b, tree, certificate, key).url, "https://"))

	for _, line := range []*line{ours, theirs} {
		if answer := trusting(b, line.url+"/public/index/config.json"); answer.ProtoMajor != 2 {
			b.Fatalf("%s speaks %s", line.url, answer.Proto)
		}
	}

	f := fetcher{b: b, user: newUserIn(b, benchFolder(b)), certificate: certificate}
	hosted, public := ours.url+"/index/", ours.url+"/public/index/"
	var anonymous, authenticated series
	for b.Loop() {
		anonymous, authenticated = nil, nil
		f.fetch(theirs.url+"/public/index/", "") // programs and files into memory
		for range benchRounds {
			reference := f.fetch(theirs.url+"/public/index/", "")
			anonymous = append(anonymous, float64(f.fetch(public, ""))/float64(reference))
			authenticated = append(authenticated, float64(f.fetch(hosted, token))/float64(reference))
		}
	}
	say(b, "cargo fetch of %d crates, TLS and HTTP/2, %s of round trip", fetchedCrates, roundTrip)
	machine(b)
	against(b, "time of nginx's, anonymous", anonymous, 1.05, true)
	against(b, "time of nginx's, authenticated", authenticated, 1.05, true)
}

// tlsServer serves data behind line.
func tlsServer(b *testing.B, data, certificate, key string, line *line) *lab {
	b.Helper()
	log, err := os.Create(filepath.Join(filepath.Dir(data), "server.log"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { log.Close() })
	address := steadyAddress(b)
	l := &lab{
		t: b, data: data, url: "http://" + address, pinned: true, logTo: log, operator: newUserIn(b, benchFolder(b)),
		flags: []string{"--anonymous-read", "--tls-cert", certificate, "--tls-key", key, "--public-url", line.url},
	}
	if err := l.launch(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(l.stop)
	awaited(b, l.url)
	line.aim(address)
	return l
}

// mirrored is a folder with the files that cargo asks l for, by the same paths,
// for a server behind line.
func mirrored(b *testing.B, l *lab, line *line) string {
	b.Helper()
	folder := benchFolder(b)
	copied := func(path string) string {
		body, err := io.ReadAll(trusting(b, "https://"+strings.TrimPrefix(l.url, "http://")+path).Body)
		if err != nil {
			b.Fatal(err)
		}
		return string(body)
	}
	files := map[string]string{
		"public/index/config.json": string(cargo.ConfigJSON(line.url+"/api/v1/crates", line.url, false)),
	}
	for i := range fetchedCrates {
		for _, path := range []string{
			"public/index/" + cargo.IndexPath(largeName(i)), "api/v1/crates/" + largeName(i) + "/1.0.0/download",
		} {
			files[path] = copied("/" + path)
		}
	}
	writeFiles(b, folder, files)
	return folder
}

// trusting is the answer of one of our own servers, whoever signed its certificate.
func trusting(b *testing.B, url string) *http.Response {
	b.Helper()
	client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	b.Cleanup(client.CloseIdleConnections)
	resp, err := client.Get(url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		b.Fatalf("%s: %s", url, resp.Status)
	}
	return resp
}

// fetcher runs cargo fetch in a project that depends on all the crates.
type fetcher struct {
	b           *testing.B
	user        *user
	certificate string
	rounds      int
}

// fetch is how long it takes from the registry with that index, with nothing in cargo's home.
func (f *fetcher) fetch(index, token string) time.Duration {
	f.b.Helper()
	f.rounds++
	project := filepath.Join(f.user.folder, fmt.Sprint("project-", f.rounds))
	manifest := "[package]\nname = \"fetches\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n[dependencies]\n"
	for i := range fetchedCrates {
		manifest += fmt.Sprintf("%s = { version = \"1.0.0\", registry = \"aln\" }\n", largeName(i))
	}
	providers := ""
	if token != "" {
		providers = "[registry]\nglobal-credential-providers = [\"cargo:token\"]\n"
	}
	writeFiles(f.b, project, map[string]string{
		"Cargo.toml": manifest, "src/lib.rs": "",
		".cargo/config.toml": fmt.Sprintf("[registries.aln]\nindex = \"sparse+%s\"\n[http]\ncainfo = %q\n%s", index, f.certificate, providers),
	})
	u := *f.user
	u.cargoHome = filepath.Join(project, "home")
	if token != "" {
		u.extra = append(u.extra, "CARGO_REGISTRIES_ALN_TOKEN="+token)
	}
	if err := os.Mkdir(u.cargoHome, 0o755); err != nil {
		f.b.Fatal(err)
	}
	start := time.Now()
	must(f.b, u.cargo(project, "fetch", "--quiet"))
	took := time.Since(start)
	fetched, err := filepath.Glob(filepath.Join(u.cargoHome, "registry", "cache", "*", "*.crate"))
	if err != nil || len(fetched) != fetchedCrates {
		f.b.Fatalf("%d crates were fetched: %v", len(fetched), err)
	}
	os.RemoveAll(project)
	return took
}

// line is a TCP proxy that delays what passes, each way by half a round trip,
// and a connection's beginning by a whole one.
type line struct {
	url    string
	mu     sync.Mutex
	target string
}

func newLine(b *testing.B) *line {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { listener.Close() })
	l := &line{url: "https://" + listener.Addr().String()}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go l.carry(conn)
		}
	}()
	return l
}

// aim says where the line leads.
func (l *line) aim(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target = address
}

func (l *line) carry(near net.Conn) {
	defer near.Close()
	l.mu.Lock()
	target := l.target
	l.mu.Unlock()
	time.Sleep(roundTrip)
	far, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer far.Close()
	var both sync.WaitGroup
	both.Go(func() { delayed(far, near) })
	both.Go(func() { delayed(near, far) })
	both.Wait()
}

// delayed copies what comes, each piece half a round trip after it came.
func delayed(to, from net.Conn) {
	type piece struct {
		data []byte
		due  time.Time
	}
	pieces := make(chan piece, 1024)
	go func() {
		defer close(pieces)
		for {
			data := make([]byte, 64<<10)
			n, err := from.Read(data)
			if n > 0 {
				pieces <- piece{data[:n], time.Now().Add(roundTrip / 2)}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.data); err != nil {
			from.Close()
		}
	}
	to.Close()
}
