package integration

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// proved is a registry behind a proxy with a small history of every kind that
// verify looks at, and a reader who pinned it in the middle of that.
type proved struct {
	*lab
	proxy  *proxy
	reader *user
	// app is the reader's project, with a Cargo.lock; crateFile a .crate by name.
	app, crateFile string
	// pins is a copy of the reader's pins as of their login.
	pins map[string][]byte
	// before are answers from before that login: genuine, but of a smaller log.
	before []exchange
}

func newProved(t *testing.T) *proved {
	p := &proved{proxy: newProxy(t)}
	p.lab = newLab(t, "--public-url", p.proxy.URL)
	p.proxy.aim(p.url)
	operator := p.operator
	p.reader = newUser(t)
	publish := func(name, version string) string {
		folder := operator.crate(name, version, "", "pub fn it() {}\n")
		must(t, operator.aln(folder, "login", p.proxy.URL))
		must(t, operator.cargo(folder, "publish", "--registry", "aln", "--no-verify"))
		return folder
	}
	first := publish("demo-one", "0.1.0")
	p.proxy.begin(nil)
	p.fetch("/log/checkpoint", "/log/tile/0/000.p/3", "/log/tile/entries/000.p/3")
	p.before = p.proxy.exchanges()

	p.app = p.reader.crate("app", "0.1.0", "[dependencies]\ndemo-one = { version = \"0.1.0\", registry = \"aln\" }\nother-one = { version = \"0.1.0\", registry = \"aln\" }\n", "")
	must(t, p.reader.aln(p.app, "key", "new"))
	must(t, operator.aln(first, "member", "add", p.reader.did(), "--role", "publisher"))
	must(t, p.reader.aln(p.app, "login", p.proxy.URL))
	p.pins = readFolder(t, filepath.Join(p.reader.home, "registries"))

	publish("other-one", "0.1.0")
	must(t, operator.cargo(first, "owner", "--registry", "aln", "--add", p.reader.did(), "demo-one"))
	publish("demo-one", "0.2.0")
	must(t, operator.cargo(first, "yank", "--registry", "aln", "--version", "0.2.0", "demo-one"))
	must(t, p.reader.cargo(p.app, "fetch"))
	found, err := filepath.Glob(filepath.Join(p.reader.cargoHome, "registry", "cache", "*", "demo-one-0.1.0.crate"))
	if err != nil || len(found) != 1 {
		t.Fatalf("cargo fetched %q, %v", found, err)
	}
	p.crateFile = found[0]
	return p
}

// fetch asks for public paths through the proxy.
func (p *proved) fetch(paths ...string) {
	p.t.Helper()
	for _, path := range paths {
		resp, err := http.Get(p.proxy.URL + path)
		if err != nil {
			p.t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			p.t.Fatalf("%s: %s", path, resp.Status)
		}
	}
}

// forget puts the reader's home back to what it was after login, without sessions.
func (p *proved) forget() {
	p.t.Helper()
	for _, folder := range []string{"sessions", "registries", "evidence"} {
		if err := os.RemoveAll(filepath.Join(p.reader.home, folder)); err != nil {
			p.t.Fatal(err)
		}
	}
	folder := filepath.Join(p.reader.home, "registries")
	if err := os.Mkdir(folder, 0o700); err != nil {
		p.t.Fatal(err)
	}
	for name, data := range p.pins {
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
}

func readFolder(t testing.TB, folder string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if files[e.Name()], err = os.ReadFile(filepath.Join(folder, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// fits says what a failure over an altered answer of a kind may give as reason.
var fits = map[string]*regexp.Regexp{
	"checkpoint": regexp.MustCompile(`checkpoint|FAIL +(stale|rollback|fork|consistency|freshness)|signature|origin`),
	"keys":       regexp.MustCompile(`/log/keys|without entry 0|FAIL +(entry-0|checkpoint|inclusion)`),
	"tile":       regexp.MustCompile(`tile/0/.*has \d+ bytes, expected|not in the log's tree|tile|fork|consisten`),
	"entries":    regexp.MustCompile(`tile/entries/|not what the log committed to|bundle`),
	"record":     regexp.MustCompile(`asked for the record|record .*: malformed|record|instead of`),
	"attachment": regexp.MustCompile(`asked for .*, got bytes that are`),
	"bundle":     regexp.MustCompile(`FAIL +(entry-0|record|bytes|signature|authority|history|inclusion)|unexpected answer of the registry`),
	"download":   regexp.MustCompile(`FAIL +bytes +the bytes have sha256|FAIL +index: .*: the download is`),
	"index":      regexp.MustCompile(`FAIL +index: |the index differs in [1-9]`),
	"session":    regexp.MustCompile(`session|not a session`),
}

// TestVerifyThroughALyingProxy alters every answer of every run in turn. What
// may pass all the same, irrelevant lists.
func TestVerifyThroughALyingProxy(t *testing.T) {
	p := newProved(t)
	foreign := newLab(t)
	commands := [][]string{
		{"verify", "demo-one@0.1.0"}, {"verify", p.crateFile}, {"verify", "Cargo.lock"},
		{"log", "check"}, {"log", "check", "--full"},
	}
	most := []int{6, 1, 1, 4, 1} // the second and third ask the same questions as the first
	clean := make([]result, len(commands))
	runs := make([][]exchange, len(commands))
	others := map[string][][]byte{}
	add := func(list []exchange) {
		for _, e := range list {
			others[e.kind()] = append(others[e.kind()], e.body)
		}
	}
	add(p.before)
	for _, path := range []string{"/log/checkpoint", "/log/tile/0/000.p/2", "/log/tile/entries/000.p/2"} {
		_, _, body := foreign.get(path, "")
		e := exchange{path: path, body: body}
		others[e.kind()] = append(others[e.kind()], body)
	}
	for i, args := range commands {
		p.forget()
		p.proxy.begin(nil)
		clean[i] = must(t, p.reader.aln(p.app, args...))
		runs[i] = p.proxy.exchanges()
		add(runs[i])
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for i, args := range commands {
		t.Run(strings.Join(args[:len(args)-1], " ")+" "+filepath.Base(args[len(args)-1]), func(t *testing.T) {
			altered, passed := 0, 0
			for _, e := range runs[i] {
				for _, a := range alterations(e, distinct(others[e.kind()]), most[i], random) {
					altered++
					if p.withAlteration(t, args, clean[i], e, a) {
						passed++
					}
				}
			}
			t.Logf("%d alterations of %d answers; %d of them irrelevant to what is proved", altered, len(runs[i]), passed)
			if altered < 8*len(runs[i]) {
				t.Errorf("only %d alterations of %d answers", altered, len(runs[i]))
			}
		})
	}
}

func distinct(bodies [][]byte) [][]byte {
	seen := map[string]bool{}
	var list [][]byte
	for _, b := range bodies {
		if !seen[string(b)] {
			seen[string(b)] = true
			list = append(list, b)
		}
	}
	return list
}

// counts say how much evidence there was, which differs where some was left out,
// and how old the checkpoint is, which differs from run to run.
var counts = regexp.MustCompile(`\d+ (entries are in the log|records about)|\S+ old`)

// withAlteration runs the command with one answer altered, and holds it to its
// outcome. passed: it succeeded, rightly.
func (p *proved) withAlteration(t *testing.T, args []string, clean result, e exchange, a alteration) (passed bool) {
	t.Helper()
	p.forget()
	met, again := false, false
	p.proxy.begin(func(got exchange) exchange {
		if met && got.method == e.method && got.path == e.path {
			again = true
		}
		if got.String() != e.String() || met {
			return got
		}
		met = true
		got.status, got.body, got.cut = a.status, a.body, a.cut
		if a.status != e.status {
			got.header = http.Header{"Content-Type": {"text/plain"}}
		}
		return got
	})
	r := p.reader.aln(p.app, args...)
	say := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s: %s: %s\n%s", e, a.name, fmt.Sprintf(format, args...), r)
	}
	why := irrelevant(e, a.answer)
	if why == "" && again && askedAgain(e, a.answer) {
		why = "a server that is behind for a moment is asked again; what it says then is what is judged"
	}
	switch {
	case !met:
		say("the request was not made")
	case r.status == 0 && why == "":
		say("succeeded")
	case r.status == 0 && counts.ReplaceAllString(r.stdout, "") != counts.ReplaceAllString(clean.stdout, ""):
		say("says otherwise than the unaltered run, though %s", why)
	case r.status == 0:
		return true
	case r.status != 1:
		say("status %d", r.status)
	case strings.Contains(r.stderr+r.stdout, "goroutine "):
		say("panics")
	case a.status != e.status:
		if want := strings.TrimSpace(string(a.body)); !strings.Contains(r.stdout+r.stderr, want) && !strings.Contains(r.stdout, "in the log (entry") {
			say("does not pass on %q", want)
		}
	case a.cut:
		if !strings.Contains(r.stdout+r.stderr, "EOF") {
			say("does not say that the answer was cut off")
		}
	case !fits[e.kind()].MatchString(r.stdout + r.stderr):
		say("the reason does not fit")
	}
	return false
}
