package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/registry/particle"
)

// needing writes a program of u's that needs one crate of crates.io, in a CARGO_HOME that is
// set up for the lab and empty.
func (l *upstreamLab) needing(u *user, name, dependency string) (folder string) {
	l.t.Helper()
	folder = filepath.Join(u.folder, "needing-"+name)
	writeFiles(l.t, folder, map[string]string{
		"Cargo.toml": fmt.Sprintf("[package]\nname = \"needing\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\n%s\n[workspace]\n", dependency),
		"src/lib.rs": "",
	})
	l.emptied(u, folder)
	return folder
}

// alarms are the kinds of those that the operator is shown, newest first, each with its crate.
func (l *upstreamLab) alarms() (all []string) {
	l.t.Helper()
	var shown struct {
		Alarms []struct{ Name, Version, Kind string }
	}
	said := must(l.t, l.operator.aln(l.operator.folder, "--json", "upstream", "alarms"))
	if err := json.Unmarshal([]byte(said.stdout), &shown); err != nil {
		l.t.Fatalf("%v\n%s", err, said)
	}
	for _, a := range shown.Alarms {
		all = append(all, a.Kind+" "+a.Name+" "+a.Version)
	}
	return all
}

// seenOnce has the operator look into the one alarm there is: nobody is warned of it any more, also after
// a restart, and all that it is about stays as it was.
func (l *upstreamLab) seenOnce(folder string) {
	l.t.Helper()
	u := l.operator
	alarms := func() (ids []string) {
		var shown struct{ Alarms []struct{ ID int64 } }
		if err := json.Unmarshal([]byte(must(l.t, u.aln(folder, "--json", "upstream", "alarms")).stdout), &shown); err != nil {
			l.t.Fatal(err)
		}
		for _, a := range shown.Alarms {
			ids = append(ids, strconv.FormatInt(a.ID, 10))
		}
		return ids
	}
	wantSays(l.t, must(l.t, u.aln(folder, "upstream", "list")).stdout, "crates-io has an alarm, changed of ")
	wantSays(l.t, must(l.t, u.aln(folder, "upstream", "list", "--json")).stdout, `"alarms_told": true`, `"kind": "changed"`)
	wantSays(l.t, must(l.t, u.aln(folder, "upstream", "alarms")).stdout, "types `aln-registry upstream seen ID --why TEXT`: ")
	mustFail(l.t, u.aln(folder, "upstream", "alarms", "itoa"), "takes the name of an upstream, not that of a crate")
	mustFail(l.t, u.aln(folder, "upstream", "seen", alarms()[0]), "--why is missing")
	mustFail(l.t, u.aln(folder, "upstream", "seen", "9999", "--why", "none such"), "there is no alarm 9999 of crates-io")
	mustFail(l.t, u.aln(folder, append([]string{"upstream", "seen", "--why", "our mirror was rebuilt"}, append(alarms(), "9999")...)...), "no alarm 9999 of crates-io", "those before it were marked as seen")
	wantSays(l.t, must(l.t, u.aln(folder, "upstream", "seen", "--why", "again", alarms()[0])).stdout, "looked into before, which stands")
	l.stop()
	l.start()
	if said := must(l.t, u.aln(folder, "upstream", "list")).stdout; strings.Contains(said, "alarm") {
		l.t.Errorf("it is warned of after it was looked into:\n%s", said)
	}
	wantSays(l.t, must(l.t, u.aln(folder, "upstream", "list", "--json")).stdout, `"alarm": null`)
	wantSays(l.t, must(l.t, u.aln(folder, "upstream", "alarms")).stdout, "All were looked into.", "what they are about is as it was", "did:key:", "our mirror was rebuilt")
	_, _, trail := l.get("/v1/audit", u.session(particle.ScopeAudit, time.Minute))
	wantSays(l.t, string(trail), `"rule":"upstream-alarm-seen"`, "changed: our mirror was rebuilt")
	wantSays(l.t, must(l.t, u.aln(folder, "why", "itoa", "--source", "crates-io")).stdout, "not believed")
}

// awaitAlarm waits until the operator is shown an alarm: it is noted in nobody's way.
func (l *upstreamLab) awaitAlarm(want string) {
	l.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		all := l.alarms()
		if strings.Contains(strings.Join(all, "\n"), want) {
			break
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("no alarm says %q: %q", want, all)
		}
	}
	token := l.operator.session(particle.ScopeAudit, time.Minute)
	if status, _, trail := l.get("/v1/audit", token); status != 200 || !strings.Contains(string(trail), "upstream-alarm") {
		l.t.Errorf("the audit trail has no alarm: %d %s", status, trail)
	}
}

// newest is the newest version that upstream has of a crate.
func (l *upstreamLab) newest(name string) testbed.IndexLine {
	l.t.Helper()
	one, ok := testbed.DebianCrates(l.t).Find(name, "")
	if !ok {
		l.t.Fatalf("there is no crate %s", name)
	}
	return one.Line
}

// download is a crate as the lab serves it.
func (l *upstreamLab) download(u *user, line testbed.IndexLine) (status int, body []byte) {
	l.t.Helper()
	path := "/crates-io/dl/" + line.Name + "/" + line.Vers + "/" + line.Cksum
	status, _, body = l.get(path, u.session(particle.ScopeRead, time.Minute))
	return status, body
}

// Bytes that are not what the index names reach no build, are not kept, and are told to
// who runs the registry; once upstream serves the right ones, so does the registry.
func TestCratesThatAreNotWhatTheIndexNamesReachNobody(t *testing.T) {
	l := newUpstreamLab(t)
	u := l.operator
	line := l.newest("itoa")
	folder := l.needing(u, "itoa", `itoa = "1"`)
	l.crates.Use("/crates/", testbed.Corrupted(), 0)
	mustFail(t, u.cargo(folder, "fetch"), "itoa")
	l.awaitAlarm("mismatch itoa " + line.Vers)

	l.crates.Behave()
	l.stop() // what failed is left alone for a while
	l.start()
	l.emptied(u, folder)
	must(t, u.cargo(folder, "fetch"))
	want, err := l.crates.Crate("itoa", line.Vers)
	if err != nil {
		t.Fatal(err)
	}
	if status, body := l.download(u, line); status != 200 || string(body) != string(want) {
		t.Errorf("the crate is served with %d, %d bytes", status, len(body))
	}
}

// The first checksum that was seen stands: upstream's new one is an alarm, the resolver goes
// around the version, and a lock that has it gets the bytes that are held.
func TestAChangedChecksumIsNotBelieved(t *testing.T) {
	l := newUpstreamLab(t, "--upstream-fresh", "0s")
	u := l.operator
	line := l.newest("itoa")
	folder := l.needing(u, "itoa", `itoa = "1"`)
	must(t, u.cargo(folder, "fetch"))
	before := string(line.Marshal())

	if err := l.crates.Replace("itoa", line.Vers, []byte("another crate")); err != nil {
		t.Fatal(err)
	}
	l.emptied(u, folder)
	must(t, u.cargo(folder, "fetch", "--locked"))
	status, _, body := l.get("/crates-io/index/"+testbed.IndexPath("itoa"), u.session(particle.ScopeRead, time.Minute))
	if want := strings.Replace(before, `"yanked":false`, `"yanked":true`, 1); status != 200 || !strings.Contains(string(body), want) || strings.Contains(string(body), before) {
		t.Errorf("the index file is %d\n%s\nwant in it\n%s", status, body, want)
	}
	l.awaitAlarm("changed itoa " + line.Vers)
	another := sha256.Sum256([]byte("another crate"))
	wantSays(t, must(t, u.aln(folder, "upstream", "alarms")).stdout, "sha256 "+hex.EncodeToString(another[:])+", and first "+line.Cksum, "last in index file baf", "now in index file baf", ", record ")
	l.seenOnce(folder)

	if err := os.Remove(filepath.Join(folder, "Cargo.lock")); err != nil {
		t.Fatal(err)
	}
	l.emptied(u, folder)
	r := u.cargo(folder, "fetch")
	if lock, err := os.ReadFile(filepath.Join(folder, "Cargo.lock")); err == nil && strings.Contains(string(lock), line.Vers) {
		t.Errorf("a resolver chose what changed:\n%s\n%s", r, lock)
	}
	must(t, u.aln(folder, "log", "check", "--full"))

	// Of an upstream that was taken away no build gets anything, whatever the rules say.
	l.stop()
	l.flags = []string{"--upstream", "none"}
	l.start()
	mustFail(t, u.aln(folder, "why", "itoa", "--source", "crates-io"), "no build gets it: this registry takes crates from no --source crates-io now")
}

// Names that are kept private are asked of no upstream, by whatever way; whoever publishes
// another name for the first time hears that upstream has a crate of that name.
func TestPrivateNamesAreNeverAskedUpstream(t *testing.T) {
	l := newUpstreamLab(t)
	u := l.operator
	must(t, u.aln(u.folder, "settings", "set", "--add-private-name", "lab-"))
	folder := l.needing(u, "private", "lab_secret = \"1\"")
	mustFail(t, u.cargo(folder, "fetch"), "lab_secret")
	must(t, u.publish(l.lab, u.crate("lab-secret", "1.0.0", "", "")))
	for _, asked := range l.crates.Asked() {
		if strings.Contains(asked.Path, "secret") {
			t.Errorf("upstream was asked for %s", asked.Path)
		}
	}
	for name, warned := range map[string]bool{"itoa": true, "nobody-has-this": false} {
		r := must(t, u.publish(l.lab, u.crate(name, "0.0.1", "", "")))
		if said := strings.Contains(r.stderr, "crates-io has a crate named "+name); said != warned {
			t.Errorf("%s: warned %v\n%s", name, said, r)
		}
	}
	token := u.session(particle.ScopeAudit, time.Minute)
	if status, _, trail := l.get("/v1/audit", token); status != 200 || !strings.Contains(string(trail), "known-upstream") {
		t.Errorf("the audit trail does not tell of it: %d %s", status, trail)
	}
}

// What upstream spells otherwise than it did is had under the name that its own line has.
func TestACrateThatUpstreamRespellsIsHadUnderEitherName(t *testing.T) {
	l := newUpstreamLab(t, "--upstream-fresh", "0s")
	u := l.operator
	l.crates.Add(t, testbed.MakeCrate("Odd-One", "1.0.0", 1000, 1))
	must(t, u.cargo(l.needing(u, "before", `Odd-One = "1"`), "fetch"))
	l.crates.Add(t, testbed.MakeCrate("odd-one", "2.0.0", 1000, 2))
	for name, dependency := range map[string]string{"after": `odd-one = "2"`, "still": `Odd-One = "1"`} {
		must(t, u.cargo(l.needing(u, name, dependency), "fetch"))
	}
	l.crates.Add(t, testbed.MakeCrate("Odd-One", "1.1.0", 1000, 3)) // never held under that name
	l.crates.Add(t, testbed.MakeCrate("odd-one", "2.1.0", 1000, 4))
	must(t, u.cargo(l.needing(u, "late", `Odd-One = "=1.1.0"`), "fetch"))
	must(t, u.aln(u.folder, "log", "check", "--full"))
}

// A server that is asked to stop ends soon while upstream does not answer: who has been sent
// nothing yet is told so, and who has been sent a part of a crate that goes on no more is cut off.
func TestAServerEndsWhileUpstreamStalls(t *testing.T) {
	l := newUpstreamLab(t)
	token := l.readers(1)[0]
	l.looksNowhere()
	small, large := l.newest("itoa"), sized(t, 1, 200<<10, 2<<20)[0]
	client := manyClients(t)
	for _, line := range []testbed.IndexLine{small, large} {
		if f := l.fetch(client, filesOf(t, l.crates, "/crates-io", line)[0].path, token); f.status != http.StatusOK {
			t.Fatal(f)
		}
	}
	l.crates.Use("/crates/", testbed.Stalled(), 0)
	l.crates.Use("/index/", testbed.Silent(), 0)
	paths := []string{
		filesOf(t, l.crates, "/crates-io", small)[1].path, filesOf(t, l.crates, "/crates-io", large)[1].path, "/crates-io" + testbed.IndexFile("serde"),
	}
	ended := make(chan gotten, len(paths))
	for _, path := range paths {
		go func() { ended <- l.fetch(client, path, token) }()
	}
	eventually(t, 20*time.Second, "upstream is asked, and sends a part of the crates", func() bool {
		_, spool, _ := strings.Cut(l.figures(), "\naln_upstream_spool_bytes ")
		bytes, err := strconv.ParseFloat(strings.Fields(spool)[0], 64)
		return err == nil && bytes > 200<<10 && l.crates.Requests(testbed.IndexFile("serde")) == 1 && l.crates.Requests(testbed.Download(small.Name, small.Vers)) == 1
	})
	time.Sleep(200 * time.Millisecond) // so that the part is passed on
	begun := time.Now()
	l.cmd.Process.Signal(syscall.SIGTERM)
	for range paths {
		switch f := <-ended; {
		case f.path == paths[1] && (f.status != http.StatusOK || f.err == nil || len(f.body) == 0):
			t.Errorf("a crate of which a part was sent: %s", f)
		case f.path != paths[1] && (f.status != http.StatusServiceUnavailable || f.after == "" || !strings.Contains(string(f.body), "being stopped")):
			t.Errorf("of which nothing was sent: %s", f)
		case f.path == paths[2] && time.Since(begun) > 2*time.Second:
			t.Errorf("who merely waited was told so after %s", time.Since(begun))
		}
	}
	select {
	case <-l.exited: // the drain would last half a minute
	case <-time.After(50 * time.Second):
		l.cmd.Process.Kill()
		<-l.exited
	}
	if took, code := time.Since(begun), l.cmd.ProcessState.ExitCode(); code != 0 || took > 8*time.Second {
		t.Errorf("it ended with status %d after %s\n%s", code, took, l.log())
	}
	l.cmd = nil
}

// Whatever keeps a crate of an upstream away, cargo shows what it is and what to do.
func TestCargoShowsWhatKeepsACrateAway(t *testing.T) {
	l := newUpstreamLab(t, "--upstream-fresh", "0s")
	u := l.operator
	folder := l.needing(u, "locked", `itoa = "1"`)
	must(t, u.cargo(folder, "generate-lockfile"))
	again := func() {
		l.crates.Behave()
		l.stop() // what upstream asked for is this process's alone
		l.start()
		l.emptied(u, folder)
	}
	l.crates.Use("/", testbed.Answers(429, "Retry-After", "120"), 0)
	mustFail(t, u.cargo(folder, "fetch", "--locked"), "503", "upstream is unavailable", "try again later")
	mustFail(t, u.cargo(l.needing(u, "paused", `anyhow = "1"`), "fetch"), "503", "upstream is unavailable", "what is held here is served meanwhile, and this is not: try again later")
	again()
	l.crates.Use("/", testbed.Answers(403), 0)
	mustFail(t, u.cargo(folder, "fetch", "--locked"), "502", "upstream refuses: HTTP 403", "tell the operator of this registry")
	again()
	l.crates.Stop()
	mustFail(t, u.cargo(folder, "fetch", "--locked"), "503", "upstream is unavailable", "try again later")
	mustFail(t, u.cargo(l.needing(u, "down", `anyhow = "1"`), "fetch"), "503", "upstream is unavailable", "try again later")
	l.flags = append(l.flags, "--offline")
	again()
	mustFail(t, u.cargo(folder, "fetch", "--locked"), "no matching package named `itoa` found", "aln-crates-io") // the guide has these words
}
