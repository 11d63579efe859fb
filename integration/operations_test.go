package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// operationsBlock are the commands of docs/OPERATIONS.md under the mark of that name.
func operationsBlock(t *testing.T, name string) string {
	t.Helper()
	found := regexp.MustCompile("(?s)<!-- " + name + " -->\n```sh\n(.*?)```\n").FindStringSubmatch(readRepository(t, "docs/OPERATIONS.md"))
	if found == nil {
		t.Fatalf("docs/OPERATIONS.md has no commands marked %s", name)
	}
	return found[1]
}

// host is the computer of docs/OPERATIONS.md: its folders are elsewhere, and its
// systemctl starts and stops the lab's server.
type host struct {
	*lab
	backups string
	folder  string
	// paths are those of the document that are elsewhere here, each followed by where;
	// path is the PATH of who types.
	paths []string
	path  string
	mu    sync.Mutex
	// others are more servers that systemctl starts and stops.
	others []*lab
}

func newHost(t *testing.T, l *lab) *host {
	t.Helper()
	h := &host{lab: l, backups: filepath.Join(t.TempDir(), "backups"), folder: t.TempDir()}
	systemd := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		verb := strings.TrimPrefix(r.URL.Path, "/")
		h.mu.Lock()
		servers := append([]*lab{l}, h.others...)
		h.mu.Unlock()
		for _, l := range servers {
			if verb == "stop" || verb == "restart" {
				l.stop()
			}
			if verb == "start" || verb == "restart" {
				if err := l.tryStart(); err != nil {
					http.Error(w, err.Error()+"\n"+l.log(), http.StatusInternalServerError)
				}
			}
		}
	}))
	t.Cleanup(systemd.Close)
	bin := t.TempDir()
	writeFiles(t, bin, map[string]string{"systemctl": "#!/bin/sh\ntest \"$2\" = aln-registry && curl -fsS " + systemd.URL + "/$1\n"})
	if err := os.Chmod(filepath.Join(bin, "systemctl"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(binary, filepath.Join(bin, "aln-registry")); err != nil {
		t.Fatal(err)
	}
	h.path = bin + ":" + os.Getenv("PATH")
	l.operator.extra = append(l.operator.extra, "PATH="+h.path)
	return h
}

// types runs the commands of a mark as the operator does; between is put between
// the lines.
func (h *host) types(mark, between string) result {
	h.t.Helper()
	block := operationsBlock(h.t.(*testing.T), mark)
	block = strings.NewReplacer(h.paths...).Replace(block)
	block = strings.NewReplacer("/var/lib/aln-registry/data", h.data, "/var/backups/aln-registry", h.backups, "https://registry.example", h.url, "127.0.0.1:8586", steadyAddress(h.t)).Replace(block)
	if between != "" {
		block = strings.ReplaceAll(block, "\n", "\n"+between+"\n")
	}
	return h.operator.run(h.folder, "sh", "-euc", block)
}

// A backup is taken while others publish; what it holds is a whole registry.
func TestABackupOfARunningRegistryIsRestored(t *testing.T) {
	l := newLab(t)
	h, u := newHost(t, l), l.operator
	u.login(l, u.folder)
	put := func(n int) result {
		file := filepath.Join(u.folder, fmt.Sprint("noise-", n))
		writeFiles(t, u.folder, map[string]string{filepath.Base(file): fmt.Sprint("bytes of ", n)})
		return u.aln(u.folder, "publish", file, "--kind", "manifest", "--name", "noise", "--version", fmt.Sprintf("0.%d.0", n))
	}
	must(t, put(0))
	before := l.logSize()
	early := filepath.Join(t.TempDir(), "aln") // an identity that has not seen what comes after
	if err := os.CopyFS(early, os.DirFS(u.home)); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	published := make(chan int)
	go func() {
		n := 0
		for !stop.Load() {
			n++
			if r := put(n); r.status != 0 {
				t.Errorf("%s", r)
			}
		}
		published <- n
	}()
	must(t, h.types("backup", "sleep 0.5"))
	must(t, h.types("backup", "sleep 0.5")) // brings it up to date
	stop.Store(true)
	if n := <-published; n < 4 {
		t.Fatalf("only %d were published meanwhile", n)
	}
	after := l.logSize()

	l.stop()
	if err := os.RemoveAll(l.data); err != nil {
		t.Fatal(err)
	}
	looked := must(t, h.types("restore", ""))
	wantSays(t, looked.stdout, "nothing is wrong")
	restored := l.logSize()
	if restored < before || restored > after {
		t.Errorf("%d entries are restored, of %d before the backup and %d after it\n%s", restored, before, after, looked)
	}
	u.home = early
	chmodKeys(t, early)
	must(t, u.aln(u.folder, "log", "check", "--full"))
	must(t, put(1000))
}

// chmodKeys gives the copies of an identity's keys the mode that keys have.
func chmodKeys(t *testing.T, home string) {
	t.Helper()
	keys, err := filepath.Glob(filepath.Join(home, "keys", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if err := os.Chmod(key, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// The other commands that the guide shows do what it says, in the order in which
// they stand there.
func TestOperationsDoWhatTheGuideSays(t *testing.T) {
	l := newLab(t, "--did", "did:web:registry.example")
	h, u := newHost(t, l), l.operator
	u.login(l, u.folder)
	wantSays(t, must(t, h.types("fsck", "")).stdout, "2 entries with root", "nothing is wrong")
	wantSays(t, must(t, h.types("gc", "")).stdout, "nothing to remove", "0 blobs of 0 bytes removed")
	must(t, h.types("backup", ""))
	wantSays(t, must(t, h.types("drill", "")).stdout, "entry-object-missing  log/entry/0000000000000001: it is not there", "1 finding, 1 repaired", "ready")
	wantSays(t, must(t, h.types("rebuild", "")).stdout, "rebuilt did:web:registry.example: 2 entries replayed")
	must(t, u.aln(u.folder, "log", "check", "--full"))

	wantSays(t, must(t, h.types("log key", "")).stdout, "log_keys")
	must(t, u.aln(u.folder, "log", "check", "--full"))

	_, _, before := l.get("/.well-known/did.json", "")
	must(t, h.types("registry key", ""))
	if _, _, after := l.get("/.well-known/did.json", ""); string(after) == string(before) || string(after) != textOf(t, filepath.Join(h.folder, "next.json")) {
		t.Errorf("the document in force is %s", after)
	}
	info, err := os.Stat(filepath.Join(l.data, "keys", "registry.jwk"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key file: %v, %v", info, err)
	}
	must(t, u.aln(u.folder, "token"))
	must(t, u.aln(u.folder, "log", "check", "--full"))

	wantSays(t, must(t, h.types("move", "")).stdout, "sparse+https://new.example/index/")
}

// Commands that the guide shows exist.
func TestOperationsNamesCommandsThatExist(t *testing.T) {
	u := newUser(t)
	seen := map[string]bool{}
	for _, match := range regexp.MustCompile("(?m)(?:`|^    |^|\\$\\()(?:aln-registry )((?:[a-z-]+ ?){1,2})").FindAllStringSubmatch(readRepository(t, "docs/OPERATIONS.md"), -1) {
		command := strings.Fields(match[1])
		switch command[0] {
		case "key", "member", "log", "settings", "did":
		default:
			command = command[:1]
		}
		if name := strings.Join(command, " "); !seen[name] {
			seen[name] = true
			wantSays(t, must(t, u.aln(u.folder, append(command, "--help")...)).stdout, "aln-registry "+name)
		}
	}
	for _, command := range []string{"serve", "doctor", "rebuild", "token", "login", "key export", "key import", "log check", "log new-key", "settings set"} {
		if !seen[command] {
			t.Errorf("docs/OPERATIONS.md does not show %s", command)
		}
	}
}
