package integration

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
)

// upstreamRounds is how many times all ways are gone, one after another.
var upstreamRounds = flag.Int("upstream-rounds", 11, "rounds of BenchmarkUpstream")

// BenchmarkUpstream: the time of `cargo fetch` of a program's crates from an empty
// CARGO_HOME, directly from a stand-in of crates.io that is 20 ms away; through a
// registry that holds and knows nothing and has the same way to go; through one that
// holds all of it; and from nginx with the same tree, as near as that. Everything is as
// shipped: TLS, HTTP/2, sessions by the credential provider, rules, the log of requests.
// What cargo writes is in memory, where that is: unpacking onto a disk takes as long as
// the disk likes, whoever sends the crates. The registry is on the disk. All of it shares
// all cores: it is the time that counts, and whoever waits leaves them to others.
func BenchmarkUpstream(b *testing.B) {
	if out, err := exec.Command("taskset", "-apc", everyCore, strconv.Itoa(os.Getpid())).CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	for name, args := range map[string][]string{"resolved": nil, "locked": {"--locked"}} {
		b.Run(name, func(b *testing.B) {
			w := newUpstreamWays(b, args)
			for b.Loop() {
				w.rounds()
			}
		})
	}
}

// upstreamWays are the ways to the same crates.
type upstreamWays struct {
	b         *testing.B
	args      []string // of cargo fetch
	crates    *testbed.CratesServer
	far       string // the stand-in's index at a distance
	near      string // nginx's index
	warm      *nearServer
	user      *user
	lock      []byte // nil where cargo resolves
	projects  string // the folder for what cargo writes
	made      int    // folders
	got       int    // crates that a fetch gets
	taken     map[string]series
	cpu       map[string]time.Duration // of the registry
	spent     time.Duration            // CPU time of the last fetches' cargo
	folder    string
	cert, key string
}

func newUpstreamWays(b *testing.B, args []string) *upstreamWays {
	b.Helper()
	w := &upstreamWays{
		b: b, args: args, crates: testbed.CratesIO(b), folder: benchFolder(b),
		taken: map[string]series{}, cpu: map[string]time.Duration{},
	}
	w.projects = w.folder
	if memory, err := os.MkdirTemp("/dev/shm", "aln-bench-*"); err == nil {
		w.projects = memory
		b.Cleanup(func() { os.RemoveAll(memory) })
	}
	w.cert, w.key = filepath.Join(w.folder, "cert.pem"), filepath.Join(w.folder, "key.pem")
	if err := testbed.WriteCertificate(w.cert, w.key); err != nil {
		b.Fatal(err)
	}
	w.user = newUserIn(b, filepath.Join(w.folder, "user"))
	w.far = w.crates.IndexAt(testbed.NewDistance(b, w.crates.Address(), roundTrip).Address())
	w.near = w.crates.Static(b, true).Index
	if len(args) > 0 {
		folder := w.project()
		w.replace(folder, w.crates.Index())
		must(b, w.user.cargo(folder, "generate-lockfile", "--quiet"))
		var err error
		if w.lock, err = os.ReadFile(filepath.Join(folder, "Cargo.lock")); err != nil {
			b.Fatal(err)
		}
	}
	w.warm = w.serve()
	return w
}

// project is the program in a new folder, for a user with an empty CARGO_HOME.
func (w *upstreamWays) project() (folder string) {
	w.b.Helper()
	w.made++
	folder = filepath.Join(w.projects, fmt.Sprint("project-", w.made))
	testbed.CargoProgram(w.b, folder)
	if w.lock != nil {
		writeFiles(w.b, folder, map[string]string{"Cargo.lock": string(w.lock)})
	}
	w.user.cargoHome = filepath.Join(folder, "home")
	if err := os.Mkdir(w.user.cargoHome, 0o755); err != nil {
		w.b.Fatal(err)
	}
	return folder
}

// replace has cargo take crates.io's crates from another index, without more.
func (w *upstreamWays) replace(folder, index string) {
	w.b.Helper()
	writeFiles(w.b, folder, map[string]string{".cargo/config.toml": fmt.Sprintf(
		"[source.crates-io]\nreplace-with = \"other\"\n[source.other]\nregistry = %q\n[http]\ncainfo = %q\n", index, w.crates.CA())})
}

// nearServer is a registry that takes crates from far away.
type nearServer struct {
	*lab
	ways *upstreamWays
}

// serve starts one that holds and knows nothing.
func (w *upstreamWays) serve() *nearServer {
	w.b.Helper()
	w.made++
	folder := filepath.Join(w.folder, fmt.Sprint("server-", w.made))
	operator := newUserIn(w.b, filepath.Join(folder, "operator"))
	log, err := os.Create(filepath.Join(folder, "server.log"))
	if err != nil {
		w.b.Fatal(err)
	}
	address := steadyAddress(w.b)
	l := &lab{
		t: w.b, data: filepath.Join(folder, "data"), url: "http://" + address, logTo: log, operator: operator,
		flags: []string{
			"--tls-cert", w.cert, "--tls-key", w.key, "--public-url", "https://" + address,
			"--upstream", w.far + "?ca=" + w.crates.CA(),
		},
	}
	if err := l.launch(); err != nil {
		w.b.Fatal(err)
	}
	w.b.Cleanup(func() {
		l.stop()
		log.Close()
	})
	awaited(w.b, l.url)
	return &nearServer{l, w}
}

// fetch is how long cargo takes, in folder.
func (w *upstreamWays) fetch(folder string) time.Duration {
	w.b.Helper()
	defer os.RemoveAll(folder)
	cmd := exec.Command("cargo", append([]string{"fetch", "--quiet"}, w.args...)...)
	cmd.Dir, cmd.Env = folder, w.user.environment()
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		w.b.Fatalf("cargo fetch: %v\n%s", err, out)
	}
	took := time.Since(start)
	w.spent += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	fetched, err := filepath.Glob(filepath.Join(w.user.cargoHome, "registry", "cache", "*", "*.crate"))
	if err != nil {
		w.b.Fatal(err)
	}
	if w.got == 0 {
		w.got = len(fetched)
	}
	if w.got < mostCrates || w.got != len(fetched) {
		w.b.Fatalf("%d crates were fetched, and %d before", len(fetched), w.got)
	}
	return took
}

// plainly fetches from an index that asks for no session.
func (w *upstreamWays) plainly(index string) time.Duration {
	w.b.Helper()
	folder := w.project()
	w.replace(folder, index)
	return w.fetch(folder)
}

// fetch fetches through the registry, by a session that its login got.
func (s *nearServer) fetch(name string) time.Duration {
	w := s.ways
	w.b.Helper()
	folder := w.project()
	u := w.user
	u.home = s.operator.home
	must(w.b, u.aln(folder, "login", "https://"+strings.TrimPrefix(s.url, "http://"), "--ca-file", w.cert, "--replace-crates-io"))
	p := s.process()
	before := p.cpu(w.b)
	took := w.fetch(folder)
	w.cpu[name] += p.cpu(w.b) - before
	return took
}

// rounds prints how the ways compare.
func (w *upstreamWays) rounds() {
	b := w.b
	b.Helper()
	const direct, cold, warm, nginx = "direct", "cold", "warm", "nginx"
	w.warm.fetch("filling")
	w.warm.fetch("filling")
	ways := []struct {
		name  string
		fetch func() time.Duration
	}{
		{direct, func() time.Duration { return w.plainly(w.far) }},
		{cold, func() time.Duration {
			s := w.serve()
			defer s.stop() // its files stay: a file system takes up to minutes to forget what was removed
			return s.fetch(cold)
		}},
		{warm, func() time.Duration { return w.warm.fetch(warm) }},
		{nginx, func() time.Duration { return w.plainly(w.near) }},
	}
	for _, way := range ways { // programs and files into memory
		way.fetch()
	}
	clear(w.cpu)
	cargo := map[string]time.Duration{}
	for round := range *upstreamRounds {
		for i := range ways { // nothing is always the first
			way := ways[(i+round)%len(ways)]
			w.spent = 0
			took := way.fetch()
			cargo[way.name] += w.spent
			w.taken[way.name] = append(w.taken[way.name], took.Seconds())
			if testing.Verbose() {
				say(b, "  %d %s %.2f s, cargo's CPU %.2f s", round, way.name, took.Seconds(), w.spent.Seconds())
			}
		}
	}
	say(b, "cargo fetch of %d crates from an empty CARGO_HOME, TLS and HTTP/2, upstream at %s: %s", w.got, roundTrip, strings.Join(append([]string{"fetch"}, w.args...), " "))
	machine(b)
	for _, way := range ways {
		took := w.taken[way.name]
		say(b, "  %-8s %.2f s (%.2f to %.2f), CPU of cargo %.2f s, of the registry %.2f s", way.name, took.median(), slices.Min(took), slices.Max(took),
			cargo[way.name].Seconds()/float64(*upstreamRounds), w.cpu[way.name].Seconds()/float64(*upstreamRounds))
	}
	against(b, "cold, of direct", w.ratio(cold, direct), 1.10, true)
	against(b, "warm, of direct", w.ratio(warm, direct), 0.50, true)
	against(b, "warm, of nginx's", w.ratio(warm, nginx), 1.05, true)
	floor := w.ratio(nginx, direct)
	say(b, "  nginx, of direct: %.2f: what any server near by can reach", floor.median())
}

// ratio is one way's time as a part of another's, round by round.
func (w *upstreamWays) ratio(one, of string) (s series) {
	for i := range w.taken[one] {
		s = append(s, w.taken[one][i]/w.taken[of][i])
	}
	return s
}
