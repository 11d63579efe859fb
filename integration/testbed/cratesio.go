package testbed

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// CratesServer stands in for crates.io, on loopback: a sparse index below /index/
// and the crates below /crates/, over https with HTTP/2 under a CA of its own. It
// serves what DebianCrates has, and what is added; it counts what it is asked and
// does, by Use, what registries should not do. It is safe for concurrent use and
// ends with its test.
//
// Where crates are comes from the host that config.json was asked at: who comes
// through a Distance or another proxy stays behind it.
type CratesServer struct {
	host   string // address of the server
	plain  string // address of the same in the clear
	scheme string
	ca     string
	pair   tls.Certificate
	folder string

	mu       sync.Mutex
	stop     func()
	crates   map[string]*indexFile // by lower-case name
	content  map[string]content    // by name-version
	token    string
	template string // of dl, "" for Cargo's own
	tags     bool
	rules    []*rule
	asked    []Asked
	counts   map[string]int
	load     Load // now
	most     Load
}

// Load is how many requests were under way and connections open at once.
type Load struct{ Requests, Connections int }

// Asked is one request that reached the server.
type Asked struct {
	At                      time.Time
	Path, Proto, UserAgent  string
	Authorization           string
	From                    string // the address that its connection came from
	Conditional, Compressed bool   // it came with a validator; it takes gzip
}

// indexFile is a crate's file of the index.
type indexFile struct {
	lines    []IndexLine
	modified time.Time
	plain    []byte // what is served, nil until somebody asks for it
	packed   []byte // the same in gzip
}

// content is a .crate, a file or bytes.
type content struct {
	file string
	data []byte
	sum  string
}

// inMemory is how large what was added may be to be kept there.
const inMemory = 1 << 20

func (c content) read() ([]byte, error) {
	if c.file != "" {
		return os.ReadFile(c.file)
	}
	return c.data, nil
}

// CratesIO starts the stand-in.
func CratesIO(t testing.TB) *CratesServer {
	t.Helper()
	return newCratesServer(t, "https")
}

// PlainCratesIO starts it without TLS, and so without HTTP/2.
func PlainCratesIO(t testing.TB) *CratesServer {
	t.Helper()
	return newCratesServer(t, "http")
}

func newCratesServer(t testing.TB, scheme string) *CratesServer {
	t.Helper()
	set := DebianCrates(t)
	first, release := ports(t)
	t.Cleanup(release)
	s := &CratesServer{
		host: address(first), plain: address(first + 1), scheme: scheme, tags: true,
		crates: map[string]*indexFile{}, content: map[string]content{}, counts: map[string]int{},
	}
	s.folder = t.TempDir()
	s.ca = filepath.Join(s.folder, "ca.pem")
	pair, authority, err := issue("crates")
	if err != nil {
		t.Fatal(err)
	}
	s.pair = pair
	if err := os.WriteFile(s.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority}), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, one := range set.All {
		s.put(one.Line, content{file: one.File, sum: one.Line.Cksum})
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// Address is where it listens, host:port, for what stands before it.
func (s *CratesServer) Address() string { return s.host }

// URL is the server's, without a slash at its end.
func (s *CratesServer) URL() string { return s.scheme + "://" + s.host }

// Index is what registries and sources of Cargo are configured with.
func (s *CratesServer) Index() string { return s.IndexAt(s.host) }

// IndexAt is Index for who comes through another address, host:port.
func (s *CratesServer) IndexAt(address string) string {
	return "sparse+" + s.scheme + "://" + address + "/index/"
}

// CA is the PEM file that has the certificate to trust, "" in the clear.
func (s *CratesServer) CA() string {
	if s.scheme == "http" {
		return ""
	}
	return s.ca
}

// Start makes it listen again at the address it had before Stop.
func (s *CratesServer) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	var servers []*http.Server
	stop := func() {
		cancel()
		for _, one := range servers {
			one.Close()
		}
	}
	for i, at := range []string{s.host, s.plain} {
		listener, err := net.Listen("tcp", at)
		if err != nil {
			stop()
			return fmt.Errorf("testbed: crates.io: %w", err)
		}
		server := &http.Server{
			Handler: s, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute,
			BaseContext: func(net.Listener) context.Context { return ctx },
			ConnState:   s.connection,
		}
		servers = append(servers, server)
		if i == 0 && s.scheme == "https" {
			server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{s.pair}, MinVersion: tls.VersionTLS12}
			go server.ServeTLS(listener, "", "")
		} else {
			go server.Serve(listener)
		}
	}
	s.stop = stop
	return nil
}

// Stop refuses connections and cuts those there are.
func (s *CratesServer) Stop() {
	s.mu.Lock()
	stop := s.stop
	s.stop = nil
	s.mu.Unlock()
	if stop != nil {
		stop()
	}
}

func (s *CratesServer) connection(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.busy(Load{Connections: 1})
	case http.StateClosed, http.StateHijacked:
		s.busy(Load{Connections: -1})
	}
}

// busy notes what has begun, or ended.
func (s *CratesServer) busy(by Load) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.load.Requests += by.Requests
	s.load.Connections += by.Connections
	s.most.Requests = max(s.most.Requests, s.load.Requests)
	s.most.Connections = max(s.most.Connections, s.load.Connections)
}

// Most is the highest load since the start or Forget.
func (s *CratesServer) Most() Load {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most
}

// RequireToken answers 401 to who does not send it as Authorization, and says so
// in config.json; "" ends that.
func (s *CratesServer) RequireToken(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = token
}

// Template sets dl of config.json, with Cargo's markers; {host} becomes scheme,
// host and port that were asked. All of /crates/ takes {crate}/{version}/download,
// {crate}/{version}/{sha256-checksum}, {crate}/{crate}-{version}.crate and, ahead
// of each, any prefix of the name.
func (s *CratesServer) Template(dl string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.template = dl
}

// UseTags says whether answers carry an ETag beside their Last-Modified.
func (s *CratesServer) UseTags(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tags = on
}

// Names are the crates that it serves, sorted.
func (s *CratesServer) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, file := range s.crates {
		names = append(names, file.lines[0].Name)
	}
	slices.Sort(names)
	return names
}

// Lines are a crate's lines as they are served.
func (s *CratesServer) Lines(name string) []IndexLine {
	s.mu.Lock()
	defer s.mu.Unlock()
	if file := s.crates[lower(name)]; file != nil {
		return slices.Clone(file.lines)
	}
	return nil
}

// Add publishes a version; its Cksum is set to that of the crate. A version that
// is there already is replaced where it stands.
func (s *CratesServer) Add(t testing.TB, v Version) {
	t.Helper()
	crate, err := s.keep(v.Crate)
	if err != nil {
		t.Fatal(err)
	}
	v.Line.Cksum = crate.sum
	s.put(v.Line, crate)
}

// keep puts what is large into a file.
func (s *CratesServer) keep(crate []byte) (content, error) {
	c := content{sum: sumOf(crate)}
	if len(crate) <= inMemory {
		c.data = crate
		return c, nil
	}
	c.file = filepath.Join(s.folder, c.sum)
	return c, os.WriteFile(c.file, crate, 0o644)
}

func (s *CratesServer) put(line IndexLine, crate content) {
	s.mu.Lock()
	defer s.mu.Unlock()
	file := s.crates[lower(line.Name)]
	if file == nil {
		file = &indexFile{}
		s.crates[lower(line.Name)] = file
	}
	at := slices.IndexFunc(file.lines, func(l IndexLine) bool { return l.Vers == line.Vers })
	if at < 0 {
		file.lines = append(file.lines, line)
	} else {
		file.lines[at] = line
	}
	file.touch()
	s.content[line.Name+"-"+line.Vers] = crate
}

// touch moves the date on by at least its unit, a second: who compares dates must
// see every change.
func (f *indexFile) touch() {
	now := time.Now().UTC().Truncate(time.Second)
	if f.modified.IsZero() {
		now = now.Add(-24 * time.Hour)
	}
	if !now.After(f.modified) {
		now = f.modified.Add(time.Second)
	}
	f.modified, f.plain, f.packed = now, nil, nil
}

var errNoVersion = errors.New("testbed: no such version")

// change edits one line.
func (s *CratesServer) change(name, version string, edit func(*IndexLine)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if file := s.crates[lower(name)]; file != nil {
		for i := range file.lines {
			if file.lines[i].Vers == version {
				edit(&file.lines[i])
				file.touch()
				return nil
			}
		}
	}
	return fmt.Errorf("%w: %s %s", errNoVersion, name, version)
}

// Yank sets whether a version is yanked.
func (s *CratesServer) Yank(name, version string, yanked bool) error {
	return s.change(name, version, func(l *IndexLine) { l.Yanked = yanked })
}

// Edit changes a version's line in any way; its name and version must stay.
func (s *CratesServer) Edit(name, version string, edit func(*IndexLine)) error {
	return s.change(name, version, edit)
}

// Replace changes what was published: other bytes, and their checksum in the index.
func (s *CratesServer) Replace(name, version string, crate []byte) error {
	if err := s.change(name, version, func(l *IndexLine) { l.Cksum = sumOf(crate) }); err != nil {
		return err
	}
	s.Swap(name, version, crate)
	return nil
}

// Swap serves other bytes under the checksum that the index has.
func (s *CratesServer) Swap(name, version string, crate []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.content[name+"-"+version] = content{data: crate, sum: sumOf(crate)}
}

// Drop takes a version out of the index and its crate away.
func (s *CratesServer) Drop(name, version string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	file := s.crates[lower(name)]
	if file == nil {
		return fmt.Errorf("%w: %s %s", errNoVersion, name, version)
	}
	kept := slices.DeleteFunc(slices.Clone(file.lines), func(l IndexLine) bool { return l.Vers == version })
	if len(kept) == len(file.lines) {
		return fmt.Errorf("%w: %s %s", errNoVersion, name, version)
	}
	delete(s.content, file.lines[0].Name+"-"+version)
	file.lines = kept
	file.touch()
	if len(kept) == 0 {
		delete(s.crates, lower(name))
	}
	return nil
}

// Crate is what it serves as a version's .crate.
func (s *CratesServer) Crate(name, version string) ([]byte, error) {
	s.mu.Lock()
	crate, ok := s.content[name+"-"+version]
	s.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("%w: %s %s", errNoVersion, name, version)
	}
	return crate.read()
}

// Requests is how often path was asked since the start or Forget.
func (s *CratesServer) Requests(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[path]
}

// Asked are all requests since the start or Forget, in the order of their arrival.
func (s *CratesServer) Asked() []Asked {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// Forget begins counting anew.
func (s *CratesServer) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked, s.most = nil, s.load
	clear(s.counts)
}

// IndexFile is the path of a crate's file, as Requests counts it.
func IndexFile(name string) string { return "/index/" + IndexPath(name) }

// Download is the path of a version's crate, as Requests counts it.
func Download(name, version string) string { return "/crates/" + name + "/" + version + "/download" }
