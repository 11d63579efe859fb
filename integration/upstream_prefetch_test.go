package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/storage"
)

// lockNaming is a Cargo.lock of a package that needs lines.
func lockNaming(project string, lines ...testbed.IndexLine) string {
	var text strings.Builder
	fmt.Fprintf(&text, "version = 4\n\n[[package]]\nname = %q\nversion = \"0.1.0\"\n", project)
	for _, line := range lines {
		fmt.Fprintf(&text, "\n[[package]]\nname = %q\nversion = %q\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = %q\n", line.Name, line.Vers, line.Cksum)
	}
	return text.String()
}

// typed is a command that runs. What it says goes to files, which may be read meanwhile.
type typed struct {
	*exec.Cmd
	u              *user
	stdout, stderr *os.File
}

// begin runs aln-registry and does not wait.
func (u *user) begin(folder string, args ...string) *typed {
	u.t.Helper()
	c := &typed{Cmd: exec.Command(binary, args...), u: u}
	for _, f := range []**os.File{&c.stdout, &c.stderr} {
		var err error
		if *f, err = os.CreateTemp(u.t.TempDir(), "said"); err != nil {
			u.t.Fatal(err)
		}
	}
	c.Dir, c.Env, c.Stdout, c.Stderr = folder, u.environment(), c.stdout, c.stderr
	if err := c.Start(); err != nil {
		u.t.Fatal(err)
	}
	return c
}

// said is what it has said by now.
func (c *typed) said() string { return textOf(c.u.t, c.stderr.Name()) }

// ends waits for a command that was begun.
func (c *typed) ends() result {
	_ = c.Wait() // the status tells
	c.stdout.Close()
	c.stderr.Close()
	return result{"aln-registry " + strings.Join(c.Args[1:], " "), textOf(c.u.t, c.stdout.Name()), c.said(), c.ProcessState.ExitCode()}
}

// halves are crates of which upstream gives some, and the others not before open is called.
type halves struct {
	*upstreamLab
	given, kept []testbed.IndexLine
	folder      string
	open        func()
	flying      map[string]int // how often each was asked for when it was cut
}

// half offers them, and a lock of all.
func (l *upstreamLab) half(name string) *halves {
	l.t.Helper()
	h := &halves{upstreamLab: l, given: l.offer(name+"-given", 12, 20<<10), kept: l.offer(name+"-kept", 24, 20<<10), folder: filepath.Join(l.operator.folder, name)}
	gate := make(chan struct{})
	h.open = func() { close(gate) }
	l.crates.Use("/crates/"+name+"-kept", testbed.Held(gate), 0)
	writeFiles(l.t, h.folder, map[string]string{"Cargo.lock": lockNaming(name, slices.Concat(h.given, h.kept)...)})
	return h
}

// isHalfWay waits until all of the first half are held, and some of the second are asked for.
func (h *halves) isHalfWay() {
	h.t.Helper()
	db := h.openCatalog()
	defer db.Close()
	eventually(h.t, 60*time.Second, "half of the lock is held", func() bool {
		held := 0
		for _, line := range h.given {
			found, err := db.UpstreamBlobs(h.t.Context(), []storage.CID{cidOf(h.t, line)})
			if err != nil {
				h.t.Fatal(err)
			}
			held += len(found)
		}
		asked := 0
		for _, line := range h.kept {
			asked += h.crates.Requests(testbed.Download(line.Name, line.Vers))
		}
		return held == len(h.given) && asked > 0
	})
}

// cut is when the command, or the server, has ended: what was asked for by then, and is not held.
func (h *halves) cut() {
	h.flying = map[string]int{}
	for _, line := range h.kept {
		h.flying[line.Name] = h.crates.Requests(testbed.Download(line.Name, line.Vers))
	}
	h.open()
}

// once holds that each crate was asked for once, and what was under way when it was cut once more.
func (h *halves) once() {
	h.t.Helper()
	for _, line := range slices.Concat(h.given, h.kept) {
		if n := h.crates.Requests(testbed.Download(line.Name, line.Vers)); n < 1 || n > 1+h.flying[line.Name] {
			h.t.Errorf("%s was fetched %d times, %d of them before it was cut", line.Name, n, h.flying[line.Name])
		}
	}
}

// A prefetch that is cut off half-way, as by Ctrl-C or by a kill, goes on where it was when it is
// typed again: every crate is asked of upstream once in both runs together, but for those that were under
// way. So it does where it is the server that is killed.
func TestAPrefetchThatIsCutGoesOn(t *testing.T) {
	t.Parallel()
	l := newUpstreamLab(t)
	u := l.operator
	u.login(l.lab, u.folder)
	t.Run("by Ctrl-C", func(t *testing.T) {
		h := l.half("stopped")
		c := u.begin(h.folder, "prefetch", "Cargo.lock")
		h.isHalfWay()
		eventually(t, 30*time.Second, "a line of how far it is, though nothing comes", func() bool { return strings.Contains(c.said(), "crates: 12 of 36\n") })
		_ = c.Process.Signal(syscall.SIGINT)
		r := c.ends()
		if want := "aln-registry: interrupted; 12 crates are held by now; type it again to go on\n"; r.status != 1 || !strings.HasSuffix(r.stderr, want) {
			t.Errorf("%s", r)
		}
		if strings.ContainsAny(r.stderr, "\r\x1b") || r.stdout != "" {
			t.Errorf("not plain lines: %q %q", r.stderr, r.stdout)
		}
		h.cut()
		again := must(t, u.aln(h.folder, "prefetch", "Cargo.lock"))
		wantSays(t, again.stdout, "36 crates are held", "kept as stopped/Cargo.lock until")
		h.once()
	})
	t.Run("by a kill", func(t *testing.T) {
		h := l.half("killed")
		c := u.begin(h.folder, "prefetch") // that of the folder
		h.isHalfWay()
		_ = c.Process.Kill()
		c.ends()
		h.cut()
		again := must(t, u.aln(h.folder, "prefetch"))
		wantSays(t, again.stdout, "36 crates are held", "kept as killed/Cargo.lock until")
		h.once()
	})
	t.Run("by a kill of the server", func(t *testing.T) {
		h := l.half("serving")
		c := u.begin(h.folder, "prefetch")
		h.isHalfWay()
		l.kill()
		h.cut()
		l.start()
		r := c.ends()
		if r.status != 0 { // the server was away for longer than the command waits
			r = must(t, u.aln(h.folder, "prefetch"))
		}
		wantSays(t, r.stdout, "36 crates are held", "kept as serving/Cargo.lock until")
		h.once()
	})
	must(t, u.aln(u.folder, "log", "check", "--full"))
	l.stop()
	l.fsck()
}

// All versions of a crate are all that upstream lists, the yanked ones among them, since a lock may
// have one; its name is found however it is spelled. Of what there is not, and of names that no
// upstream is asked for, it is said in the same words.
func TestPrefetchTakesAllVersionsOfACrate(t *testing.T) {
	t.Parallel()
	l := newUpstreamLab(t)
	u := l.operator
	u.login(l.lab, u.folder)
	versions := []string{"0.1.0", "1.0.0-beta.2", "1.0.0", "2.0.0"}
	for i, name := range []string{"Many_Word-crate", "other_words", "lab-secret"} {
		for j, version := range versions {
			l.crates.Add(t, testbed.MakeCrate(name, version, 2<<10, uint64(10*i+j)))
		}
	}
	if err := l.crates.Yank("Many_Word-crate", "1.0.0", true); err != nil {
		t.Fatal(err)
	}
	must(t, u.aln(u.folder, "prefetch", "--all-versions-of", "other-words", "--pin", "ci"))
	for _, c := range []struct {
		name, version string
		says          string
	}{
		{"many-word_Crate", "", "4 crates are held: 0 were there already, 4 were fetched now"},
		{"Many_Word-crate", "", "4 crates are held: 4 were there already, 0 were fetched now"},
		{"OTHER-WORDS", "", "4 crates are held: 4 were there already, 0 were fetched now"},
		{"other_words", "1.0.0", "1 crate is held: 1 was there already, 0 were fetched now"},
		{"Other-Words", "2.0.0", "1 crate is held: 1 was there already, 0 were fetched now"},
	} {
		args := []string{"prefetch", "--all-versions-of", c.name}
		if c.version != "" {
			writeFiles(t, u.folder, map[string]string{"list": c.name + " " + c.version + "\n"})
			args = []string{"prefetch", "list"}
		}
		wantSays(t, must(t, u.aln(u.folder, args...)).stdout, c.says)
	}
	for _, version := range versions {
		if n := l.crates.Requests(testbed.Download("Many_Word-crate", version)); n != 1 {
			t.Errorf("%s was fetched %d times", version, n)
		}
	}
	listed := l.offer("listed-in-words", 1, 1<<10)[0]
	writeFiles(t, u.folder, map[string]string{"list": "listed_in_words_0 " + listed.Vers + "\n"})
	wantSays(t, must(t, u.aln(u.folder, "prefetch", "list")).stdout, "1 crate is held", "1 was fetched now")

	must(t, u.aln(u.folder, "settings", "set", "--add-private-name", "lab-"))
	const absent = ": absent: there is no such crate, or no such version of it, from this upstream"
	for _, name := range []string{"no-such-crate", "lab-secret", "Lab_Secret"} {
		wantSays(t, mustFail(t, u.aln(u.folder, "prefetch", "--all-versions-of", name)).stdout, "FAIL "+name+absent)
	}
	for _, asked := range l.crates.Asked() {
		if strings.Contains(asked.Path, "secret") {
			t.Errorf("upstream was asked for %s", asked.Path)
		}
	}
}

// A lock of which not all is to be had is not shown as held whole: what lacks is told by number and
// by name, outlives a rebuild, and is told no more once it is held.
func TestALockSaysWhatItLacks(t *testing.T) {
	t.Parallel()
	l := newUpstreamLab(t)
	u := l.operator
	u.login(l.lab, u.folder)
	lines := l.offer("lacking", 3, 2<<10)
	late := testbed.MakeCrate("lacking-late", "1.0.0", 2<<10, 9)
	refused := testbed.Download(lines[1].Name, lines[1].Vers)
	l.crates.Use(refused, testbed.Answers(403), 0)
	writeFiles(t, u.folder, map[string]string{"Cargo.lock": lockNaming("partly", append(lines, late.Line)...)})
	prefetch := func() result { return u.aln(u.folder, "prefetch", "Cargo.lock") }
	partly := mustFail(t, prefetch(), "FAIL lacking-1 1.0.0: failed: ", "FAIL lacking-late 1.0.0: absent: ")
	wantSays(t, partly.stdout, "2 of 4 crates are held: 0 were there already, 2 were fetched now", "; 2 lack: 1 absent, 1 failed",
		"kept as partly/Cargo.lock, but for what lacks, until `aln-registry upstream unpin partly/Cargo.lock`")
	told := func() {
		t.Helper()
		wantSays(t, must(t, u.aln(u.folder, "upstream", "locks")).stdout, "partly/Cargo.lock  2 of 4 ", "What lacks, `aln-registry upstream locks partly/Cargo.lock` says")
		wantSays(t, must(t, u.aln(u.folder, "upstream", "locks", "partly/Cargo.lock")).stdout, "lacking-1     1.0.0    crates-io  failed\n", "lacking-late  1.0.0    crates-io  absent\n")
	}
	told()
	wantSays(t, must(t, u.aln(u.folder, "--json", "upstream", "locks", "partly/Cargo.lock")).stdout, `"lacking": [`, `"why": "absent"`)
	l.stop()
	l.rebuild()
	l.start()
	told()
	mustFail(t, prefetch(), "2 of 4 crates are held: 2 were there already")
	told()

	l.crates.Behave()
	l.crates.Add(t, late)
	var whole result
	eventually(t, 3*time.Minute, "all is held", func() bool { // what upstream refused, or had not, is not asked for again at once
		whole = prefetch()
		return whole.status == 0
	})
	wantSays(t, whole.stdout, "4 crates are held: ", "kept as partly/Cargo.lock until")
	if said := must(t, u.aln(u.folder, "upstream", "locks")).stdout; !strings.Contains(said, "partly/Cargo.lock  4 of 4 ") || strings.Contains(said, "What lacks") {
		t.Errorf("%s", said)
	}
	wantSays(t, must(t, u.aln(u.folder, "upstream", "locks", "partly/Cargo.lock")).stdout, "lacks nothing that you may know of")

	// What a rule denies since is held, and no build of the lock gets it.
	must(t, u.aln(u.folder, "quarantine", "add", "later", "--name", "lacking-0", "--reason", "found since"))
	wantSays(t, must(t, u.aln(u.folder, "upstream", "locks")).stdout, "partly/Cargo.lock  4 of 4, 1 denied now ", "a build of that lock fails")
	wantSays(t, must(t, u.aln(u.folder, "upstream", "locks", "partly/Cargo.lock")).stdout, "lacking-0  1.0.0    crates-io  held, and denied now by rule quarantine later\n")
	wantSays(t, must(t, u.aln(u.folder, "--json", "upstream", "locks")).stdout, `"denied": 1`)

	// One of which nothing is to be had has a name, too, by which it is let go.
	writeFiles(t, u.folder, map[string]string{"list": "nobody-has-this 1.0.0\n"})
	mustFail(t, u.aln(u.folder, "prefetch", "list", "--pin", "none"), "0 of 1 crate is held")
	wantSays(t, must(t, u.aln(u.folder, "upstream", "locks")).stdout, "none               0 of 1 ")
	wantSays(t, must(t, u.aln(u.folder, "upstream", "unpin", "none")).stdout, "1 crate is let go")
	mustFail(t, u.aln(u.folder, "upstream", "unpin", "none"), "nothing is kept under the name none")
}
