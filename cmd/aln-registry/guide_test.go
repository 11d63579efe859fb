package main

import (
	"bytes"
	"context"
	"database/sql"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/pflag"
)

// guide is docs/OPERATIONS.md.
func guide(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "docs", "OPERATIONS.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

var flagRow = regexp.MustCompile("(?m)^\\| (`--[^|]*) \\| (`ALN_[^|]*) \\|([^|]*)\\|")

// Every flag of serve has its row in the guide, with its variable and default, and
// the guide names no variable that is none.
func TestTheGuideHasEveryFlag(t *testing.T) {
	a := &app{}
	serve, _, err := a.root().Find([]string{"serve"})
	if err != nil {
		t.Fatal(err)
	}
	flags := map[string]*pflag.Flag{}
	for _, set := range []*pflag.FlagSet{serve.Flags(), serve.InheritedFlags()} {
		set.VisitAll(func(f *pflag.Flag) { flags["--"+f.Name] = f })
	}
	delete(flags, "--help")
	known := map[string]bool{"ALN_HOME": true}
	for name := range flags {
		known["ALN_"+strings.ToUpper(strings.ReplaceAll(name[2:], "-", "_"))] = true
	}
	for _, row := range flagRow.FindAllStringSubmatch(guide(t), -1) {
		names, variables := strings.Split(row[1], ", "), strings.Split(row[2], ", ")
		for i, name := range names {
			name = strings.Trim(name, "`")
			f := flags[name]
			if f == nil {
				t.Errorf("the guide has a row for %s, which serve has not", name)
				continue
			}
			if want := "`ALN_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")) + "`"; i >= len(variables) || variables[i] != want {
				t.Errorf("%s: the guide says %s, not %s", name, row[2], want)
			}
			if f.DefValue != "" && f.DefValue != strings.TrimSpace(row[3]) {
				t.Errorf("%s: the guide says that the default is %s, not %s", name, row[3], f.DefValue)
			}
			delete(flags, name)
		}
	}
	for name := range flags {
		t.Errorf("the guide lacks a row for %s", name)
	}
	for _, variable := range regexp.MustCompile(`ALN_[A-Z_]+`).FindAllString(guide(t), -1) {
		if !known[variable] {
			t.Errorf("the guide names %s, which nothing reads", variable)
		}
	}
}

// refusals are the sentences of the guide's last table, as patterns.
func refusals(t *testing.T) map[string]*regexp.Regexp {
	t.Helper()
	_, table, ok := strings.Cut(guide(t), "## It does not start")
	if !ok {
		t.Fatal("the guide does not say what to do when it does not start")
	}
	found := map[string]*regexp.Regexp{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*`) \\| ").FindAllStringSubmatch(table, -1) {
		for _, sentence := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			pattern := strings.ReplaceAll(regexp.QuoteMeta(sentence[1]), "…", ".*")
			found[sentence[1]] = regexp.MustCompile("^aln-registry: " + pattern + "$")
		}
	}
	return found
}

// elsewhere are sentences that other tests bring about: a full disk, a migration
// without room, a did:web that let its key go, engines that are there.
var elsewhere = []string{
	"open catalog …: … the disk is full…", "… no space left on device",
	"open catalog …: … the catalog cannot be copied before its migration; make room beside it…", "the DID document … of this registry: …",
	"the catalog and the blob storage are empty; …", "open catalog …: its schema is older than this release; …", "open catalog …: there is no schema …", "open catalog …: the database cannot hold a catalog: …",
	"open blobs in …: no credentials for the object store: …",
	"open blobs in …: there is no bucket …", "open blobs in …: … the bucket replaces what is stored …", "open blobs in …: blob storage does not let this server in (…): …",
	"open catalog …: …; the password comes from PGPASSWORD or PGPASSFILE …", "open catalog …: …; is the role in the URL the right one, …",
	"read key file: … permission denied", "open catalog …: …: is one mistyped?", "open catalog …: …; make it with CREATE DATABASE …",
}

// stage is a folder with a registry as it was left, and a copy of it to spoil.
type stage struct {
	t      *testing.T
	folder string
	url    string
}

// newStage makes a registry, starts it once and stops it.
func newStage(t *testing.T) *stage {
	t.Helper()
	folder := t.TempDir()
	t.Setenv("ALN_HOME", filepath.Join(folder, "home"))
	t.Setenv("CARGO_HOME", filepath.Join(folder, "cargo"))
	s := &stage{t: t, folder: folder}
	for _, name := range []string{"kept", "other"} {
		s.url = s.runOnce(filepath.Join(folder, name))
	}
	return s
}

// runOnce starts a server in data and ends it when it answers.
func (s *stage) runOnce(data string) (url string) {
	s.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	var out bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"serve", "--listen", address, "--data", data}, nil, &out, &out)
	}()
	for ctx.Err() == nil {
		if resp, err := http.Get("http://" + address + "/readyz"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				break
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	if status := <-ended; status != 0 {
		s.t.Fatalf("status %d: %s", status, out.String())
	}
	return "http://" + address
}

// serve tries to start on a spoiled copy, and returns the last line that it says.
func (s *stage) serve(spoil func(data string), args ...string) string {
	s.t.Helper()
	data := filepath.Join(s.t.TempDir(), "data")
	if err := os.CopyFS(data, os.DirFS(filepath.Join(s.folder, "kept"))); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(data, "keys", "registry.jwk"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if spoil != nil {
		spoil(data)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	var out, errOut bytes.Buffer
	status := run(ctx, append([]string{"serve", "--listen", "127.0.0.1:0", "--data", data, "--public-url", s.url}, args...), nil, &out, &errOut)
	lines := strings.Split(strings.TrimSpace(errOut.String()), "\n")
	if status == 0 || out.Len() != 0 || len(lines) != 1 {
		s.t.Errorf("status %d, %s%s", status, out.String(), errOut.String())
	}
	return lines[len(lines)-1]
}

// proxied tries to start with that in HTTPS_PROXY, which may hold a password.
func (s *stage) proxied(t *testing.T, proxy string) string {
	t.Helper()
	t.Setenv("HTTPS_PROXY", proxy)
	line := s.serve(nil)
	t.Setenv("HTTPS_PROXY", "")
	if strings.Contains(line, "s3cr3t") {
		t.Errorf("the proxy is shown: %s", line)
	}
	return line
}

// Whatever serve refuses to start with stands in the guide, in the words that are
// said; and the guide has no sentence that is never said.
func TestTheGuideHasEveryRefusalToStart(t *testing.T) {
	s := newStage(t)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	other := filepath.Join(s.folder, "other")
	certificate, key := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	lines := filepath.Join(t.TempDir(), "lines")
	write(t, lines, "one\ntwo\n")
	write(t, certificate, "nothing")
	write(t, key, "nothing")
	remove := func(names ...string) func(string) {
		return func(data string) {
			for _, name := range names {
				if err := os.RemoveAll(filepath.Join(data, name)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "lab")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
	stranger := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(stranger.Close)
	stranger.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	const away = "postgres://lab@127.0.0.1:1/lab"
	entry, keys := filepath.Join("store", "log", "entry", "0000000000000001"), filepath.Join("keys", "registry.jwk")
	said := map[string]string{
		"a busy port":       s.serve(nil, "--listen", busy.Addr().String()),
		"no such address":   s.serve(nil, "--listen", "192.0.2.1:1"),
		"no address":        s.serve(nil, "--metrics-listen", "8585"),
		"not loopback":      s.serve(nil, "--listen", "0.0.0.0:0", "--public-url", ""),
		"an insecure URL":   s.serve(nil, "--public-url", "http://registry.example"),
		"a colliding path":  s.serve(nil, "--public-url", "https://registry.example/v1"),
		"no cache":          s.serve(nil, "--cache-mb", "0"),
		"a future":          s.serve(nil, "--upstream-fresh", "-1s"),
		"less than no room": s.serve(nil, "--upstream-cache-mb", "-1"),
		"a bad upstream":    s.serve(nil, "--upstream", "https://index.crates.io/"),
		"no word":           s.serve(nil, "--upstream", "bonn sparse+https://registry.bonn.example/index/"),
		"no token":          s.serve(nil, "--upstream", "sparse+https://index.crates.io/?token_file="+key+".not"),
		"two tokens":        s.serve(nil, "--upstream", "sparse+https://index.crates.io/?token_file="+lines),
		"no CA":             s.serve(nil, "--upstream", "sparse+https://index.crates.io/?ca="+key+".not"),
		"an empty CA":       s.serve(nil, "--upstream", "sparse+https://index.crates.io/?ca="+key),
		"no proxy":          s.serve(nil, "--upstream", "sparse+https://index.crates.io/?proxy=nonsense"),
		"no HTTPS_PROXY":    s.proxied(t, "http://user:s3cr3t@proxy:port"),
		"half of TLS":       s.serve(nil, "--tls-key", key),
		"no certificate":    s.serve(nil, "--tls-cert", key+".not", "--tls-key", key),
		"no key":            s.serve(nil, "--tls-cert", certificate, "--tls-key", key+".not"),
		"not PEM":           s.serve(nil, "--tls-cert", certificate, "--tls-key", key),
		"no DID":            s.serve(nil, "--did", "nonsense"),
		"no admin":          s.serve(nil, "--admin", "nonsense"),
		"a did:web admin":   s.serve(nil, "--admin", "did:web:lab.example"),
		"no database":       s.serve(nil, "--db", "lab"),
		"no bucket":         s.serve(nil, "--blobs", "lab"),
		"no endpoint":       s.serve(nil, "--blobs", "s3://lab", "--key", filepath.Join(other, keys)),
		"a secret":          s.serve(nil, "--blobs", "s3://a:b@lab", "--key", filepath.Join(other, keys)),
		"no --key":          s.serve(nil, "--db", away),
		"a key itself":      s.serve(nil, "--key", "{}"),
		"a missing --key":   s.serve(nil, "--key", key+".not"),
		"no PostgreSQL":     s.serve(nil, "--db", away, "--key", filepath.Join(other, keys), "--engine-wait", "0s"),
		"no store":          s.serve(nil, "--blobs", "s3://lab?endpoint=http://127.0.0.1:1", "--key", filepath.Join(other, keys), "--engine-wait", "0s"),
		"no authority":      s.serve(nil, "--blobs", "s3://lab?endpoint=https://127.0.0.1:1&ca="+key+".not", "--key", filepath.Join(other, keys)),
		"another authority": s.serve(nil, "--blobs", "s3://lab?endpoint="+stranger.URL, "--key", filepath.Join(other, keys), "--engine-wait", "0s"),
		"no spool": s.serve(func(data string) { remove("spool")(data); write(t, filepath.Join(data, "spool"), "") },
			"--db", away, "--blobs", "s3://lab?endpoint=http://127.0.0.1:1", "--key", filepath.Join(other, keys)),
		"another DID":      s.serve(nil, "--did", "did:web:registry.example"),
		"a did:key":        s.serve(nil, "--data", filepath.Join(t.TempDir(), "new"), "--did", "did:key:z6Mkim9dMZfPc9fftP24XSuKWWuT2zbLceiaV5eAGD61qtJe"),
		"no identity":      s.serve(nil, "--data", filepath.Join(t.TempDir(), "new"), "--identity", "nope"),
		"a file":           s.serve(nil, "--data", certificate),
		"no key file":      s.serve(remove(keys)),
		"another key file": s.serve(func(data string) { copyFile(t, filepath.Join(other, keys), filepath.Join(data, keys)) }),
		"an open key file": s.serve(func(data string) { chmod(t, filepath.Join(data, keys), 0o644) }),
		"a bad key file":   s.serve(func(data string) { write(t, filepath.Join(data, keys), "{}") }),
		"no log key":       s.serve(func(data string) { editKeys(t, filepath.Join(data, keys), "") }),
		"another log key":  s.serve(func(data string) { editKeys(t, filepath.Join(data, keys), filepath.Join(other, keys)) }),
		"no log":           s.serve(remove("store", "catalog.db", "catalog.db-wal", "catalog.db-shm")),
		"no catalog":       s.serve(remove("catalog.db", "catalog.db-wal", "catalog.db-shm")),
		"a damaged catalog": s.serve(func(data string) {
			remove("catalog.db-wal")(data)
			write(t, filepath.Join(data, "catalog.db"), "nothing, at some length")
		}),
		"a newer catalog": s.serve(func(data string) { newer(t, filepath.Join(data, "catalog.db")) }),
		"no entry":        s.serve(remove(entry)),
		"a stray":         s.serve(func(data string) { write(t, filepath.Join(data, "store", "log", "entry", "zzz"), "") }),
		"another store": s.serve(func(data string) {
			remove("store", "catalog.db", "catalog.db-wal", "catalog.db-shm")(data)
			if err := os.CopyFS(filepath.Join(data, "store"), os.DirFS(filepath.Join(other, "store"))); err != nil {
				t.Fatal(err)
			}
		}),
		"a fork": s.serve(func(data string) { write(t, filepath.Join(data, entry), "another entry") }),
		"already running": s.serve(func(data string) {
			_, lock, err := lockFolder(data)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { lock.Close() })
		}),
	}
	sentences := refusals(t)
	unsaid := maps.Clone(sentences)
	for name, line := range said {
		found := false
		for sentence, pattern := range sentences {
			if !slices.Contains(elsewhere, sentence) && pattern.MatchString(line) {
				delete(unsaid, sentence)
				found = true
			}
		}
		if !found {
			t.Errorf("%s: the guide does not have the sentence\n%s", name, line)
		}
	}
	for _, sentence := range elsewhere {
		if unsaid[sentence] == nil {
			t.Errorf("the guide lacks %s", sentence)
		}
		delete(unsaid, sentence)
	}
	for sentence := range unsaid {
		t.Errorf("nothing makes serve say %s", sentence)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, string(raw))
}

// editKeys takes the log's key out of a key file, or puts that of another file in its place.
func editKeys(t *testing.T, path, other string) {
	t.Helper()
	type set struct {
		Keys []map[string]string `json:"keys"`
	}
	read := func(path string) (s set) {
		raw, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(raw, &s)
		}
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	isLog := func(k map[string]string) bool { return k["kid"] == "log" }
	keys := read(path)
	keys.Keys = slices.DeleteFunc(keys.Keys, isLog)
	if other != "" {
		theirs := read(other).Keys
		keys.Keys = append(keys.Keys, theirs[slices.IndexFunc(theirs, isLog)])
	}
	raw, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, string(raw))
}

// newer makes the catalog that of a release to come.
func newer(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)"); err != nil {
		t.Fatal(err)
	}
}
