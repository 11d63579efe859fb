package integration

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
)

// misdeed is what upstream does, and what comes of it downstream.
type misdeed struct {
	testbed.Misdeed
	status int
	code   string // "" where status is 200
	words  string
	cut    cutoff // of a large crate
}

// cutoff is whether the connection is cut, since a part had been sent when it showed.
type cutoff int

const (
	neverCut cutoff = iota
	mayBeCut        // where somebody was quick enough to read it
	isCut
)

const (
	mib       = 1 << 20
	noAnswer  = "upstream is unavailable"
	tooLarge  = "it has more than 16777216 bytes"
	noMatch   = "its bytes do not hash to what the index names"
	noGoing   = "its redirect is not followed"
	isRefused = "upstream refuses: HTTP 403 Forbidden"
	notFound  = "not found: there is no such crate, or no such version of it, from this upstream"
)

// indexMisdeeds are those of index files; the last two leave the host for dead.
var indexMisdeeds = []misdeed{
	{testbed.Truncated(), 503, "upstream-down", noAnswer, neverCut},
	{testbed.Shortened(), 503, "upstream-down", "its answer is damaged", neverCut},
	{testbed.Corrupted(), 503, "upstream-down", "its answer is damaged", neverCut},
	{testbed.Lengthened(10), 502, "upstream-broken", "more behind its gzip", neverCut},
	{testbed.RedirectsHere(), 200, "", "", neverCut},
	{testbed.RedirectsElsewhere(), 200, "", "", neverCut},
	{testbed.RedirectsToHTTP(), 502, "upstream-broken", noGoing, neverCut},
	{testbed.RedirectsForEver(), 502, "upstream-broken", noGoing, neverCut},
	{testbed.Answers(403), 502, "upstream-refused", isRefused, neverCut},
	{testbed.Answers(404), 404, "not-found", notFound, neverCut},
	{testbed.Answers(451), 404, "not-found", notFound, neverCut},
	{testbed.Answers(418), 502, "upstream-broken", "HTTP 418", neverCut},
	{testbed.Answers(500), 503, "upstream-down", "HTTP 500", neverCut},
	{testbed.Huge(200 * mib), 502, "upstream-broken", tooLarge, neverCut},
	{testbed.Bomb(200 * mib), 502, "upstream-broken", "more behind its gzip", neverCut},
	{testbed.BombInOne(200 * mib), 502, "upstream-broken", tooLarge, neverCut},
	{testbed.Stalled(), 503, "upstream-down", "its answer stopped", neverCut},
	{testbed.Reset(), 503, "upstream-down", noAnswer, neverCut},
	{testbed.Silent(), 503, "upstream-down", noAnswer, neverCut},
}

// crateMisdeeds are those of crates.
var crateMisdeeds = []misdeed{
	{testbed.Truncated(), 503, "upstream-down", noAnswer, isCut},
	{testbed.Shortened(), 502, "upstream-broken", noMatch, mayBeCut},
	{testbed.Corrupted(), 502, "upstream-broken", noMatch, mayBeCut},
	{testbed.Lengthened(10), 502, "upstream-broken", noMatch, mayBeCut},
	{testbed.RedirectsHere(), 200, "", "", neverCut},
	{testbed.RedirectsElsewhere(), 200, "", "", neverCut},
	{testbed.RedirectsToHTTP(), 502, "upstream-broken", noGoing, neverCut},
	{testbed.RedirectsForEver(), 502, "upstream-broken", noGoing, neverCut},
	{testbed.Answers(403), 502, "upstream-refused", isRefused, neverCut},
	{testbed.Answers(404), 404, "not-found", "HTTP 404", neverCut},
	{testbed.Answers(410), 404, "not-found", "HTTP 410", neverCut},
	{testbed.Answers(500), 503, "upstream-down", "HTTP 500", neverCut},
	{testbed.Stalled(), 503, "upstream-down", "its answer stopped", isCut},
	{testbed.Reset(), 503, "upstream-down", noAnswer, neverCut},
	{testbed.Silent(), 503, "upstream-down", noAnswer, neverCut},
}

// misbehaved is a lab whose upstream does what it should not, with crates for each misdeed.
type misbehaved struct {
	*upstreamLab
	client *http.Client
	token  string
	small  []testbed.IndexLine
	large  []testbed.IndexLine
	used   []testbed.IndexLine // of which something was asked for
}

// unknown is a crate that upstream has besides, and that nothing is known of: no other depends on
// it, or it would be fetched ahead of who asks for it.
func (l *misbehaved) unknown() testbed.IndexLine {
	l.t.Helper()
	made := testbed.MakeCrate(fmt.Sprintf("unknown-%d", len(l.used)), "1.0.0", 4<<10, 1)
	l.crates.Add(l.t, made)
	l.used = append(l.used, made.Line)
	return made.Line
}

// take is a crate that was not taken before.
func (l *misbehaved) take(from *[]testbed.IndexLine) testbed.IndexLine {
	line := (*from)[0]
	*from = (*from)[1:]
	l.used = append(l.used, line)
	return line
}

// wants holds an answer against what has to come of a misdeed; sent is the right one.
func (l *misbehaved) wants(m misdeed, f gotten, sent []byte, cut cutoff) {
	l.t.Helper()
	switch {
	case cut == isCut, cut == mayBeCut && f.status == http.StatusOK:
		if f.status != http.StatusOK || f.err == nil || len(f.body) >= len(sent) {
			l.t.Errorf("%s: %s; want it cut off", m, f)
		}
	case m.status == http.StatusOK:
		if f.status != http.StatusOK || f.err != nil || !bytes.Equal(f.body, sent) {
			l.t.Errorf("%s: %s; want what upstream has", m, f)
		}
	case f.status != m.status || f.err != nil || !strings.Contains(string(f.body), m.words) || (f.after != "") != (m.status == http.StatusServiceUnavailable):
		l.t.Errorf("%s: %s, Retry-After %q; want %d that says %q", m, f, f.after, m.status, m.words)
	default:
		l.logged(m, f)
	}
	if f.took > 28*time.Second {
		l.t.Errorf("%s: answered after %s, when cargo waits no longer", m, f.took)
	}
	if said := string(f.body); f.status != http.StatusOK && strings.Contains(said, "127.0.0.1") && !strings.Contains(said, noAnswer) {
		l.t.Errorf("%s: it says an address: %s", m, said)
	}
}

// logged holds the log's line of an answer to the misdeed's code.
func (l *misbehaved) logged(m misdeed, f gotten) {
	l.t.Helper()
	eventually(l.t, 10*time.Second, m.String()+" is in the log with the code "+m.code, func() bool {
		for line := range strings.Lines(l.log()) {
			if strings.Contains(line, f.id) && strings.Contains(line, m.code) {
				return true
			}
		}
		return false
	})
}

// How upstream misbehaves is told to who asks; nothing wrong is kept, and once it behaves all
// that it has is served as it has it. Most of it is waiting, hence beside one another.
func TestMisdeedsOfUpstreamReachNobody(t *testing.T) {
	for _, part := range []struct {
		name         string
		small, large int // crates that it takes
		do           func(l *misbehaved)
		alarms       []string
	}{
		{"index files", len(indexMisdeeds), 0, func(l *misbehaved) { l.each(indexMisdeeds, l.ofIndex) }, []string{"vanished"}},
		{"crates", len(crateMisdeeds), len(crateMisdeeds), func(l *misbehaved) { l.each(crateMisdeeds, l.ofCrate) }, []string{"mismatch"}},
		{"pauses", 8, 0, (*misbehaved).pauses, nil},
		{"what is taken back", 4, 0, (*misbehaved).takesBack, []string{"mismatch", "changed", "dropped"}},
	} {
		t.Run(part.name, func(t *testing.T) {
			t.Parallel()
			l := &misbehaved{upstreamLab: newUpstreamLab(t, "--upstream-fresh", "0s"), client: manyClients(t)}
			l.token = l.readers(1)[0]
			l.looksNowhere()
			l.small, l.large = sized(t, part.small, 2<<10, 50<<10), sized(t, part.large, 200<<10, 8<<20)
			part.do(l)
			for _, kind := range part.alarms {
				l.awaitAlarm(kind + " ")
			}
			l.asItShould()
		})
	}
}

// each does one misdeed after the other.
func (l *misbehaved) each(misdeeds []misdeed, do func(misdeed)) {
	for _, m := range misdeeds {
		do(m)
	}
}

// asItShould holds all that something was asked for against what upstream has, which behaves
// from then on, and the registry against its log and its storage.
func (l *misbehaved) asItShould() {
	l.t.Helper()
	l.again()
	for _, line := range l.used {
		for i, file := range filesOf(l.t, l.crates, "/crates-io", line) {
			if f := l.fetch(l.client, file.path, l.token); f.status != http.StatusOK || f.err != nil || !bytes.Equal(f.body, file.want) {
				l.t.Errorf("once upstream behaves (%d): %s", i, f)
			}
		}
	}
	must(l.t, l.operator.aln(l.operator.folder, "log", "check", "--full"))
	l.stop()
	l.fsck()
}

// again lets upstream behave, and starts the server anew: what failed is left alone for a while.
func (l *misbehaved) again() {
	l.t.Helper()
	l.crates.Behave()
	l.stop()
	l.start()
}

// ofIndex asks for the index files of a crate that nothing is known of, and of one that is known.
func (l *misbehaved) ofIndex(m misdeed) {
	l.t.Helper()
	unknown, known := l.unknown(), l.take(&l.small)
	first, second := filesOf(l.t, l.crates, "/crates-io", unknown)[0], filesOf(l.t, l.crates, "/crates-io", known)[0]
	l.learn(second)
	for _, line := range []testbed.IndexLine{unknown, known} {
		l.crates.Use(testbed.IndexFile(strings.ToLower(line.Name)), m.Misdeed, 0)
	}
	var both sync.WaitGroup
	both.Go(func() { l.wants(m, l.fetch(l.client, first.path, l.token), first.want, neverCut) })
	if m.status == http.StatusNotFound && m.String() == "451" { // that is believed at once
		second.want = bytes.ReplaceAll(second.want, []byte(`"yanked":false`), []byte(`"yanked":true`))
	}
	both.Go(func() {
		l.wants(misdeed{Misdeed: m.Misdeed, status: http.StatusOK}, l.fetch(l.client, second.path, l.token), second.want, neverCut)
	})
	both.Wait()
}

// learn asks for an index file until it is there: a host that was taken for dead is left alone.
func (l *misbehaved) learn(file upstreamFile) {
	l.t.Helper()
	eventually(l.t, 20*time.Second, file.path+" is there", func() bool {
		return l.fetch(l.client, file.path, l.token).status == http.StatusOK
	})
}

// ofCrate asks for a small crate, of which nothing is sent before all is there, and a large one.
func (l *misbehaved) ofCrate(m misdeed) {
	l.t.Helper()
	var both sync.WaitGroup
	for _, from := range []*[]testbed.IndexLine{&l.small, &l.large} {
		line, large := l.take(from), from == &l.large
		files := filesOf(l.t, l.crates, "/crates-io", line)
		l.learn(files[0])
		l.crates.Use(testbed.Download(line.Name, line.Vers), m.Misdeed, 0)
		cut := neverCut
		if large {
			cut = m.cut
		}
		both.Go(func() { l.wants(m, l.fetch(l.client, files[1].path, l.token), files[1].want, cut) })
	}
	both.Wait()
}

// pauses that upstream asks for are kept, for all that it is asked for: a short one is waited
// for, a long one told on.
func (l *misbehaved) pauses() {
	l.t.Helper()
	for _, of := range []int{0, 1} { // the index file, the crate
		for _, inDate := range []bool{false, true} {
			line := l.take(&l.small)
			files := filesOf(l.t, l.crates, "/crates-io", line)
			if of == 1 {
				l.fetch(l.client, files[0].path, l.token)
			}
			path := []string{testbed.IndexFile(strings.ToLower(line.Name)), testbed.Download(line.Name, line.Vers)}[of]
			after := "3"
			if inDate {
				after = time.Now().Add(4 * time.Second).UTC().Format(http.TimeFormat)
			}
			before := l.crates.Requests(path)
			l.crates.Use(path, testbed.Answers(429, "Retry-After", after), 1)
			f := l.fetch(l.client, files[of].path, l.token)
			if f.status != http.StatusOK || !bytes.Equal(f.body, files[of].want) || f.took < 2*time.Second || l.crates.Requests(path) < before+2 {
				l.t.Errorf("429, Retry-After: %s: %s, %d requests", after, f, l.crates.Requests(path))
			}
		}
		l.again()
		line, other := l.take(&l.small), l.take(&l.small)
		files, others := filesOf(l.t, l.crates, "/crates-io", line), filesOf(l.t, l.crates, "/crates-io", other)
		if of == 1 {
			l.fetch(l.client, files[0].path, l.token)
			l.fetch(l.client, others[0].path, l.token)
		}
		l.crates.Use([]string{"/index/", "/crates/"}[of], testbed.Answers(429, "Retry-After", "45"), 0)
		l.wants(misdeed{testbed.Answers(429), 503, "upstream-down", "HTTP 429", neverCut}, l.pausing(files[of].path, 40, 60), nil, neverCut)
		before := l.asked(of)
		l.wants(misdeed{testbed.Answers(429), 503, "upstream-down", "it asked to be asked again in", neverCut}, l.pausing(others[of].path, 25, 60), nil, neverCut)
		if asked := l.asked(of); asked != before {
			l.t.Errorf("upstream asked for a pause, and was asked %d times more", asked-before)
		}
		l.again()
	}
}

// asked is how often upstream was asked for index files, or for crates.
func (l *misbehaved) asked(of int) int {
	crates, files := l.requests()
	return []int{files, crates}[of]
}

// pausing asks for a path, which has to be answered at once, with a Retry-After in bounds.
func (l *misbehaved) pausing(path string, least, most int) gotten {
	l.t.Helper()
	f := l.fetch(l.client, path, l.token)
	if after, err := strconv.Atoi(f.after); err != nil || after < least || after > most || f.took > 5*time.Second {
		l.t.Errorf("%s; Retry-After %q, want from %d to %d", f, f.after, least, most)
	}
	return f
}

// takesBack has upstream change what it published, or drop it: what was seen first is served
// if it is held, and nothing else is.
func (l *misbehaved) takesBack() {
	l.t.Helper()
	for _, held := range []bool{true, false} {
		changed, dropped := l.take(&l.small), l.take(&l.small)
		crate, err := l.crates.Crate(changed.Name, changed.Vers)
		if err != nil {
			l.t.Fatal(err)
		}
		gone, err := l.crates.Crate(dropped.Name, dropped.Vers)
		if err != nil {
			l.t.Fatal(err)
		}
		stays := testbed.MakeCrate(dropped.Name, "99.0.0", 100, 1) // or the whole crate would be gone
		l.crates.Add(l.t, stays)
		before := [][]upstreamFile{filesOf(l.t, l.crates, "/crates-io", changed), filesOf(l.t, l.crates, "/crates-io", dropped)}
		for _, files := range before {
			l.fetch(l.client, files[0].path, l.token)
			if held {
				l.fetch(l.client, files[1].path, l.token)
			}
		}
		if held {
			l.awaitHeld(l.token, before)
		}
		if err := l.crates.Replace(changed.Name, changed.Vers, []byte("another crate")); err != nil {
			l.t.Fatal(err)
		}
		if err := l.crates.Drop(dropped.Name, dropped.Vers); err != nil {
			l.t.Fatal(err)
		}
		for i, files := range before {
			line := []testbed.IndexLine{changed, dropped}[i].Marshal()
			want := bytes.Replace(files[0].want, line, bytes.Replace(line, []byte(`"yanked":false`), []byte(`"yanked":true`), 1), 1)
			f := l.fetch(l.client, files[0].path, l.token)
			if f.status != http.StatusOK || !bytes.Equal(f.body, want) {
				l.t.Errorf("held %v, %d: the index file is %s\nwant %s", held, i, f, want)
			}
			f = l.fetch(l.client, files[1].path, l.token)
			switch {
			case held && (f.status != http.StatusOK || !bytes.Equal(f.body, files[1].want)):
				l.t.Errorf("what is held of what upstream took back: %s", f)
			case !held && i == 0:
				l.wants(misdeed{testbed.Corrupted(), 502, "upstream-broken", noMatch, neverCut}, f, nil, neverCut)
			case !held && i == 1:
				l.wants(misdeed{testbed.Answers(404), 404, "not-found", "HTTP 404", neverCut}, f, nil, neverCut)
			}
		}
		if err := l.crates.Replace(changed.Name, changed.Vers, crate); err != nil {
			l.t.Fatal(err)
		}
		l.crates.Add(l.t, testbed.Version{Line: dropped, Crate: gone})
		if err := l.crates.Drop(stays.Line.Name, stays.Line.Vers); err != nil {
			l.t.Fatal(err)
		}
		l.crates.Add(l.t, stays) // in the place that it had
	}
}

// However large what upstream answers is, what it takes of memory is bounded.
func TestHugeAnswersOfUpstreamTakeLittleMemory(t *testing.T) {
	const atOnce, most = 16, 450 * mib
	l := newUpstreamLab(t)
	l.stop()
	l.lab.program = productBinary(t) // the race detector takes many times what is used
	l.start()
	token, client := l.readers(1)[0], manyClients(t)
	lines := sized(t, 3*atOnce, 2<<10, 50<<10)
	for i, m := range []testbed.Misdeed{testbed.Huge(200 * mib), testbed.Bomb(200 * mib), testbed.BombInOne(200 * mib)} {
		l.crates.Use("/index/", m, 0)
		resetPeak(t, l.cmd.Process.Pid)
		before := peak(t, l.cmd.Process.Pid)
		var all sync.WaitGroup
		for _, line := range lines[i*atOnce : (i+1)*atOnce] {
			all.Go(func() {
				f := l.fetch(client, "/crates-io/index/"+testbed.IndexPath(strings.ToLower(line.Name)), token)
				late := f.status == http.StatusServiceUnavailable && bytes.Contains(f.body, []byte("has not answered within"))
				if f.status != http.StatusBadGateway && !late { // a busy machine is slow to make and to read so much
					t.Errorf("%s: %s", m, f)
				}
			})
		}
		all.Wait()
		after := peak(t, l.cmd.Process.Pid)
		t.Logf("%s: from %d to %d MiB", m, before/mib, after/mib)
		if after > most { // 384 MiB with its garbage is what the process aims at; sixteen such files have 3 GiB
			t.Errorf("%d times %s took %d MiB of memory", atOnce, m, after/mib)
		}
	}
}

// Unmodified cargo shows who builds what is wrong, and what to do.
func TestCargoSaysWhatUpstreamDid(t *testing.T) {
	l := newUpstreamLab(t)
	u := l.operator
	for _, c := range []struct {
		crate   string
		at      string
		misdeed testbed.Misdeed
		words   []string
	}{
		{"itoa", "crate", testbed.Corrupted(), []string{noMatch, "nothing of it was kept", "tell this registry's operator", "aln-registry upstream alarms"}},
		{"ryu", "crate", testbed.Answers(403), []string{isRefused, "tell the operator of this registry"}},
		{"semver", "crate", testbed.Answers(500), []string{"HTTP 500 Internal Server Error", "try again later"}},
		{"base64", "crate", testbed.Stalled(), []string{"its answer stopped", "try again later"}},
		{"autocfg", "index", testbed.Answers(403), []string{isRefused, "tell the operator of this registry"}},
		{"cfg-if", "index", testbed.Answers(429, "Retry-After", "40"), []string{"HTTP 429 Too Many Requests", "try again later"}},
	} {
		t.Run(c.crate+" "+c.misdeed.String(), func(t *testing.T) {
			l.crates.Behave()
			line := l.newest(c.crate)
			path := testbed.Download(line.Name, line.Vers)
			if c.at == "index" {
				path = testbed.IndexFile(line.Name)
			}
			l.crates.Use(path, c.misdeed, 0)
			folder := l.needing(u, c.crate, c.crate+` = "*"`)
			r := mustFail(t, u.cargo(folder, "fetch"), c.words...)
			for _, secret := range []string{l.data, l.crates.CA(), l.crates.Address()} {
				if strings.Contains(r.stderr, secret) {
					t.Errorf("it says what is nobody's to see: %s", r)
				}
			}
		})
	}
}
