package integration

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/registry/particle"
)

// upstreamFile is a path of a lab, and what has to come of it.
type upstreamFile struct {
	path string
	want []byte
}

// filesOf are the index file and the crate of a version, below base.
func filesOf(t testing.TB, crates *testbed.CratesServer, base string, line testbed.IndexLine) []upstreamFile {
	t.Helper()
	var index bytes.Buffer
	for _, l := range crates.Lines(line.Name) {
		index.Write(l.Marshal())
	}
	crate, err := crates.Crate(line.Name, line.Vers)
	if err != nil {
		t.Fatal(err)
	}
	return []upstreamFile{
		{base + "/index/" + testbed.IndexPath(strings.ToLower(line.Name)), index.Bytes()},
		{base + "/dl/" + line.Name + "/" + line.Vers + "/" + line.Cksum, crate},
	}
}

// sized are the newest versions of so many crates whose .crate has from least to most bytes,
// spread over all names.
func sized(t testing.TB, n int, least, most int64) (lines []testbed.IndexLine) {
	t.Helper()
	last := map[string]testbed.Crate{}
	for _, one := range testbed.DebianCrates(t).All {
		last[one.Line.Name] = one
	}
	var fitting []testbed.IndexLine
	for _, one := range last {
		if info, err := os.Stat(one.File); err == nil && info.Size() >= least && info.Size() <= most {
			fitting = append(fitting, one.Line)
		}
	}
	if len(fitting) < n {
		t.Fatalf("%d crates have from %d to %d bytes, and %d are wanted", len(fitting), least, most, n)
	}
	slices.SortFunc(fitting, func(a, b testbed.IndexLine) int { return strings.Compare(a.Name, b.Name) })
	for i := range n {
		lines = append(lines, fitting[i*len(fitting)/n])
	}
	return lines
}

// manyClients is an HTTP client for many at once, each with a connection of its own.
func manyClients(t testing.TB) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 300}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 2 * time.Minute}
}

// gotten is what came of a path of a lab.
type gotten struct {
	path, id string
	status   int
	after    string // Retry-After
	body     []byte
	err      error // the answer was cut
	took     time.Duration
}

func (f gotten) String() string {
	return fmt.Sprintf("%s: %d, %d bytes, %v, after %s: %.400q", f.path, f.status, len(f.body), f.err, f.took.Round(time.Millisecond), f.body)
}

// fetch asks a lab for a path.
func (l *lab) fetch(client *http.Client, path, token string) gotten {
	f, begun := gotten{path: path}, time.Now()
	defer func() { f.took = time.Since(begun) }()
	r, err := http.NewRequest(http.MethodGet, l.url+path, nil)
	if err != nil {
		f.err = err
		return f
	}
	r.Header.Set("Authorization", token)
	resp, err := client.Do(r)
	if err != nil {
		f.err = err
		return f
	}
	defer resp.Body.Close()
	f.status, f.id, f.after = resp.StatusCode, resp.Header.Get("X-Request-Id"), resp.Header.Get("Retry-After")
	f.body, f.err = io.ReadAll(resp.Body)
	f.took = time.Since(begun)
	return f
}

// throng has many clients ask at once, the tokens' owners in turn, each for each files in a
// row of its own, and holds every answer against its bytes.
func (l *upstreamLab) throng(clients, each int, tokens []string, files [][]upstreamFile) {
	l.t.Helper()
	client, begin := manyClients(l.t), make(chan struct{})
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			<-begin
			for j := range each {
				for _, file := range files[(i*len(files)/clients+j)%len(files)] {
					f := l.fetch(client, file.path, tokens[i%len(tokens)])
					if f.status != http.StatusOK || f.err != nil || !bytes.Equal(f.body, file.want) {
						l.t.Errorf("client %d: %s; not the %d bytes of upstream", i, f, len(file.want))
						return
					}
				}
			}
		})
	}
	close(begin)
	all.Wait()
}

// readers are sessions of n members, the operator among them.
func (l *upstreamLab) readers(n int) (tokens []string) {
	l.t.Helper()
	l.operator.login(l.lab, l.operator.folder)
	tokens = append(tokens, l.operator.session(particle.ScopeRead, 10*time.Minute))
	for len(tokens) < n {
		tokens = append(tokens, l.newMember().session(particle.ScopeRead, 10*time.Minute))
	}
	return tokens
}

// However many clients ask for what is not held, upstream is asked once for each file, and all
// of them get its bytes; also where these come slowly.
func TestTwoHundredClientsMakeOneRequestForEachFile(t *testing.T) {
	const clients, crates, each = 200, 50, 6
	l := newUpstreamLab(t)
	tokens := l.readers(4)
	lines := sized(t, 2*crates, 2<<10, 300<<10)
	sets := map[string][]testbed.IndexLine{}
	for i, line := range lines { // small and large ones in both
		name := []string{"at once", "trickling"}[i%2]
		sets[name] = append(sets[name], line)
	}
	for _, how := range []string{"at once", "trickling"} {
		t.Run(how, func(t *testing.T) {
			if how == "trickling" {
				l.crates.Use("/", testbed.Slow(8<<10, 20*time.Millisecond), 0)
				defer l.crates.Behave()
			}
			var files [][]upstreamFile
			for _, line := range sets[how] {
				files = append(files, filesOf(t, l.crates, "/crates-io", line))
			}
			began := time.Now()
			l.throng(clients, each, tokens, files)
			t.Logf("%d requests in %.1f s", 2*clients*each, time.Since(began).Seconds())
			for _, line := range sets[how] {
				index, crate := l.crates.Requests(testbed.IndexFile(strings.ToLower(line.Name))), l.crates.Requests(testbed.Download(line.Name, line.Vers))
				if index != 1 || crate != 1 {
					t.Errorf("%s: upstream was asked for the index file %d times, for the crate %d times", line.Name, index, crate)
				}
			}
		})
	}
	asked, _ := l.requests()
	if asked != len(lines) {
		t.Errorf("upstream was asked for %d crates, and has %d that were asked for", asked, len(lines))
	}
	for _, one := range l.crates.Asked() {
		if n := l.crates.Requests(one.Path); n != 1 {
			t.Errorf("upstream was asked for %s %d times", one.Path, n)
		}
	}
	must(t, l.operator.aln(l.operator.folder, "log", "check", "--full"))
}

// An upstream that says nothing holds nobody but those who need what only it has, and these
// not for as long as cargo waits: what is known and held is served, and other upstreams are
// asked as ever.
func TestADeadUpstreamHoldsNobodyElse(t *testing.T) {
	other := testbed.CratesIO(t)
	l := newUpstreamLab(t, "--upstream-fresh", "0s",
		"--upstream", "other="+other.Index()+"?ca="+url.QueryEscape(other.CA()))
	token := l.readers(1)[0]
	lines := sized(t, 60, 2<<10, 100<<10)
	known, cold := lines[:10], lines[10:]
	var held [][]upstreamFile
	for _, line := range known {
		held = append(held, filesOf(t, l.crates, "/crates-io", line))
	}
	l.throng(1, len(held), []string{token}, held)
	l.awaitHeld(token, held)

	l.crates.Use("/", testbed.Silent(), 0)
	cold = slices.DeleteFunc(cold, func(line testbed.IndexLine) bool { // what was fetched ahead is known
		return l.crates.Requests(testbed.IndexFile(strings.ToLower(line.Name))) > 0
	})
	client := manyClients(t)
	waiting := make(chan gotten, 2*len(cold))
	for _, line := range cold {
		for _, file := range filesOf(t, l.crates, "/crates-io", line) {
			go func() { waiting <- l.fetch(client, file.path, token) }()
		}
	}
	eventually(t, 20*time.Second, "upstream is asked", func() bool { return len(l.crates.Asked()) > 2*len(held)+10 })
	var took []time.Duration
	for i, line := range cold[:20] {
		for _, file := range slices.Concat(held[i%len(held)], filesOf(t, other, "/upstream/other", line)) {
			f := l.fetch(client, file.path, token)
			if f.status != http.StatusOK || f.err != nil || !bytes.Equal(f.body, file.want) {
				t.Errorf("%s", f)
			}
			took = append(took, f.took)
		}
	}
	slices.Sort(took)
	// Who is the first to ask for news of what is known waits five seconds for them.
	if most, nearly := took[len(took)-1], took[len(took)*9/10]; most > 8*time.Second || nearly > 2*time.Second {
		t.Errorf("of %d answers most took %s at most, and all %s", len(took), nearly, most)
	}
	for range cap(waiting) {
		if f := <-waiting; f.status != http.StatusServiceUnavailable || f.after == "" || f.took > 28*time.Second || f.err != nil {
			t.Errorf("of what only that upstream has: %s", f)
		}
	}
	// Who publishes a name for the first time hears of the one that tells, and admins of the other.
	u := l.operator
	wantSays(t, must(t, u.publish(l.lab, u.crate(cold[0].Name, "0.0.1", "", ""))).stderr, "other has a crate named "+cold[0].Name)
	if _, _, trail := l.get("/v1/audit", u.session(particle.ScopeAudit, time.Minute)); !strings.Contains(string(trail), `"untold-upstream"`) {
		t.Errorf("the audit trail does not say who did not tell: %s", trail)
	}
	wantSays(t, l.figures(), `aln_upstream_down{upstream="crates-io"} 1`, `aln_upstream_down{upstream="other"} 0`)
}

// figures are the lab's metrics.
func (l *upstreamLab) figures() string {
	l.t.Helper()
	status, _, figures := l.get("/metrics", l.operator.session(particle.ScopeAudit, time.Minute))
	if status != http.StatusOK {
		l.t.Fatalf("/metrics: %d %s", status, figures)
	}
	return string(figures)
}

// awaitHeld waits until crates are held: nobody who reads one waits for that.
func (l *upstreamLab) awaitHeld(token string, files [][]upstreamFile) {
	l.t.Helper()
	for _, pair := range files {
		eventually(l.t, 20*time.Second, pair[1].path+" is held", func() bool {
			r, err := http.NewRequest(http.MethodHead, l.url+pair[1].path, nil)
			if err != nil {
				l.t.Fatal(err)
			}
			r.Header.Set("Authorization", token)
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				l.t.Fatal(err)
			}
			resp.Body.Close()
			return resp.Header.Get("Accept-Ranges") == "bytes"
		})
	}
}

// A cold resolve of hundreds of crates waits for a few entries' worth of publication: the index
// files that come meanwhile are entered together.
func TestIndexFilesThatComeTogetherAreEnteredTogether(t *testing.T) {
	const crates, most = 300, 60
	l := newUpstreamLab(t)
	token, client := l.readers(1)[0], manyClients(t)
	lines := slices.DeleteFunc(sized(t, crates+1, 0, 1<<30), func(line testbed.IndexLine) bool {
		return line.Name == "blake3" // the quarantine that every registry begins with yanks it
	})
	_, before := l.batches()
	var all sync.WaitGroup
	for _, line := range lines {
		all.Go(func() {
			file := filesOf(t, l.crates, "/crates-io", line)[0]
			if f := l.fetch(client, file.path, token); f.status != http.StatusOK || f.err != nil || !bytes.Equal(f.body, file.want) {
				t.Errorf("%s; not the %d bytes of upstream", f, len(file.want))
			}
		})
	}
	all.Wait()
	records, after := l.batches()
	t.Logf("%d records in %d batches", records, after-before)
	if records < len(lines) || after-before > most {
		t.Errorf("%d index files were asked for at once; %d records were entered in %d batches, want at most %d", len(lines), records, after-before, most)
	}
}

// batches says how many records the lab has entered since it started, and in how many batches.
func (l *upstreamLab) batches() (records, batches int) {
	l.t.Helper()
	for line := range strings.Lines(l.figures()) {
		fmt.Sscanf(line, "aln_log_batch_records_sum %d", &records)
		fmt.Sscanf(line, "aln_log_batch_records_count %d", &batches)
	}
	return records, batches
}
