package integration

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"phoenix-lab.org/aln-registry/registry/particle"
)

// A version that is yanked stays what it was for those who locked it, and is
// gone around by everybody else; unyanked, it is back.
func TestYankLeavesLockedBuildsAlone(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	u := l.operator
	for _, version := range []string{"0.1.0", "0.1.1"} {
		must(t, u.publish(l, u.crate("yanked", version, "", "pub fn v() -> &'static str { env!(\"CARGO_PKG_VERSION\") }\n")))
	}
	app := filepath.Join(u.folder, "app")
	writeFiles(t, app, map[string]string{
		"Cargo.toml":  "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\nyanked = { version = \"0.1\", registry = \"aln\" }\n",
		"src/main.rs": "fn main() { println!(\"{}\", yanked::v()); }\n",
	})
	u.login(l, app)
	build := func(who *user, want string) {
		t.Helper()
		os.RemoveAll(filepath.Join(app, "target"))
		args := []string{"run", "-q"}
		if _, err := os.Stat(filepath.Join(app, "Cargo.lock")); err == nil {
			args = append(args, "--locked")
		}
		if got := strings.TrimSpace(must(t, who.cargo(app, args...)).stdout); got != want {
			t.Errorf("built on %s, want %s", got, want)
		}
	}
	build(u, "0.1.1")

	size := l.logSize()
	must(t, u.cargo(app, "yank", "yanked@0.1.1", "--registry", "aln"))
	if l.logSize() != size+1 {
		t.Errorf("a yank appended %d entries", l.logSize()-size)
	}
	again := mustFail(t, u.cargo(app, "yank", "yanked@0.1.1", "--registry", "aln"), "in that state already")
	if l.logSize() != size+1 {
		t.Errorf("a second yank was entered:\n%s", again)
	}
	token := u.session(particle.ScopeRead, 0)
	_, _, lines := l.get("/index/ya/nk/yanked", token)
	if got := strings.Split(strings.TrimSpace(string(lines)), "\n"); len(got) != 2 || !strings.Contains(got[0], `"yanked":false`) || !strings.Contains(got[1], `"yanked":true`) {
		t.Errorf("after the yank the index says\n%s", lines)
	}

	other := l.newMember() // an empty CARGO_HOME, so everything is fetched
	other.login(l, app)
	build(other, "0.1.1")
	verified := must(t, other.aln(app, "verify", "yanked@0.1.1"))
	wantSays(t, verified.stdout, "yanked")
	os.Remove(filepath.Join(app, "Cargo.lock"))
	build(other, "0.1.0")

	mustFail(t, other.cargo(app, "yank", "--undo", "yanked@0.1.1", "--registry", "aln"), other.did()+" is not an owner of yanked", "aln-registry owner add crate/yanked "+other.did())
	must(t, u.cargo(app, "yank", "--undo", "yanked@0.1.1", "--registry", "aln"))
	os.Remove(filepath.Join(app, "Cargo.lock"))
	build(other, "0.1.1")
	mustFail(t, u.cargo(app, "yank", "yanked@7.0.0", "--registry", "aln"), "there is no crate/yanked@7.0.0")
}

// Two publishes of one version with different bytes arrive at the same moment.
func TestOneOfTwoPublishesOfOneVersionWins(t *testing.T) {
	t.Parallel()
	var both sync.WaitGroup
	both.Add(2)
	l := newFrontLab(t, &frontDoor{enter: func(r *http.Request) {
		if r.Method == http.MethodPut { // lets two through together
			both.Done()
			both.Wait()
		}
	}})
	u := l.operator
	folders := []string{u.crate("raced", "1.0.0", "", "pub fn first() {}\n"), filepath.Join(u.folder, "second")}
	writeFiles(t, folders[1], map[string]string{"Cargo.toml": textOf(t, filepath.Join(folders[0], "Cargo.toml")), "src/lib.rs": "pub fn second() {}\n"})
	results := make([]result, len(folders))
	var wait sync.WaitGroup
	for i, folder := range folders {
		u.login(l, folder)
		writer := newUserIn(t, filepath.Join(u.folder, "cargo-of-"+filepath.Base(folder))) // cargo locks its CARGO_HOME
		writer.home = u.home
		writer.login(l, folder)
		wait.Go(func() { results[i] = writer.cargo(folder, "publish", "--registry", "aln", "--no-verify") })
	}
	wait.Wait()
	won, lost := results[0], results[1]
	if won.status != 0 {
		won, lost = lost, won
	}
	must(t, won)
	mustFail(t, lost, "409", "raced@1.0.0 was published by entry 2; a version's bytes never change, publish a new version")
	if size := l.logSize(); size != 3 {
		t.Errorf("the log has %d entries, want 3", size)
	}
	must(t, u.aln(folders[0], "verify", "raced@1.0.0"))
}

func textOf(t testing.TB, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// Many rounds of the same race, below cargo: exactly one wins, the others are
// told, and what the index says is what the winner sent.
func TestRacesOfUploadsHaveOneWinner(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	u := l.operator
	folder := u.crate("race", "1.0.0", "", "pub fn zero() {}\n")
	u.login(l, folder)
	const contenders = 4
	for _, version := range []string{"1.0.0", "1.0.1", "1.0.2"} {
		var uploads []upload
		var crates []string
		for i := range contenders {
			dir := u.crate("race", version, "", "pub fn contender() -> usize { "+string(rune('0'+i))+" }\n")
			crate := u.packaged(dir, "race", version)
			uploads = append(uploads, u.signUpload("race", version, crate))
			crates = append(crates, hexDigest(crate))
		}
		size := l.logSize()
		winner := race(t, l, uploads, "was published by entry")
		if l.logSize() != size+1 {
			t.Errorf("%s: the log grew by %d", version, l.logSize()-size)
		}
		_, _, lines := l.get("/index/ra/ce/race", u.session(particle.ScopeRead, 0))
		all := strings.Split(strings.TrimSpace(string(lines)), "\n")
		if last := all[len(all)-1]; !strings.Contains(last, `"vers":"`+version+`"`) || !strings.Contains(last, crates[winner]) {
			t.Errorf("%s: the winner sent %s, the index says %s", version, crates[winner], last)
		}
	}
	must(t, u.aln(folder, "log", "check", "--full"))
}

// race sends all uploads at once and returns which one won.
func race(t *testing.T, l *lab, uploads []upload, told string) int {
	t.Helper()
	type answer struct {
		status int
		text   string
		err    error
	}
	answers := make([]answer, len(uploads))
	var wait sync.WaitGroup
	for i, p := range uploads {
		wait.Go(func() { answers[i].status, answers[i].text, answers[i].err = p.send(l) })
	}
	wait.Wait()
	winner := -1
	for i, a := range answers {
		switch {
		case a.err != nil:
			t.Fatal(a.err)
		case a.status == http.StatusOK && winner < 0:
			winner = i
		case a.status != http.StatusConflict || !strings.Contains(a.text, told):
			t.Errorf("contender %d: status %d: %s", i, a.status, a.text)
		}
	}
	if winner < 0 {
		t.Fatalf("nobody won: %+v", answers)
	}
	return winner
}

// Who did not get the answer asks again and is told the same: nothing is
// appended, and a yank in between stays.
func TestTheSameBytesAgainChangeNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	u := l.operator
	folder := u.crate("again", "1.0.0+linux", "", "pub fn a() {}\n")
	u.login(l, folder)
	crate := u.packaged(folder, "again", "1.0.0+linux")
	first := u.signUpload("again", "1.0.0+linux", crate)
	replay := u.signUpload("again", "1.0.0+linux", crate) // signed before the first was entered
	send := func(p upload, status int, want ...string) {
		t.Helper()
		got, text, err := p.send(l)
		if err != nil || got != status {
			t.Fatalf("status %d, want %d: %s (%v)", got, status, text, err)
		}
		wantSays(t, text, want...)
	}
	send(first, http.StatusOK, "published as bafkrei", "log index 2")
	must(t, u.cargo(folder, "yank", "again@1.0.0+linux", "--registry", "aln"))
	size := l.logSize()
	for _, p := range []upload{first, replay, u.signUpload("again", "1.0.0+linux", crate)} {
		send(p, http.StatusOK, "was published before, unchanged, as bafkrei", "log index 2")
	}
	_, _, line := l.get("/index/ag/ai/again", u.session(particle.ScopeRead, 0))
	wantSays(t, string(line), `"yanked":true`)

	other := u.crate("again", "1.0.0+linux", "", "pub fn b() {}\n")
	send(u.signUpload("again", "1.0.0+linux", u.packaged(other, "again", "1.0.0+linux")), http.StatusConflict, "bytes never change")
	build := u.crate("again", "1.0.0+windows", "", "pub fn b() {}\n")
	send(u.signUpload("again", "1.0.0+windows", u.packaged(build, "again", "1.0.0+windows")), http.StatusConflict, "again@1.0.0+linux was published by entry 2")
	twin := u.crate("Again", "2.0.0", "", "pub fn b() {}\n")
	send(u.signUpload("Again", "2.0.0", u.packaged(twin, "Again", "2.0.0")), http.StatusConflict, `exists as \"again\"`)
	mustFail(t, u.cargo(folder, "publish", "--registry", "aln", "--no-verify"), "409", "bytes never change")
	if l.logSize() != size {
		t.Errorf("the log grew by %d", l.logSize()-size)
	}
}
