package integration

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/registry/particle"
)

// upstreamLab is a lab that takes crates from a stand-in of crates.io.
type upstreamLab struct {
	*lab
	crates *testbed.CratesServer
}

// newUpstreamLab starts both.
func newUpstreamLab(t testing.TB, flags ...string) *upstreamLab {
	t.Helper()
	crates := testbed.CratesIO(t)
	return &upstreamLab{newLab(t, append([]string{"--upstream", upstreamSetting(crates)}, flags...)...), crates}
}

// upstreamSetting is what --upstream takes.
func upstreamSetting(crates *testbed.CratesServer) string {
	setting := crates.Index()
	if ca := crates.CA(); ca != "" {
		setting += "?ca=" + url.QueryEscape(ca)
	}
	return setting
}

// program writes the program that is built of upstream's crates, for who has logged in
// with an empty CARGO_HOME.
func (l *upstreamLab) program(u *user) (folder string) {
	l.t.Helper()
	folder = filepath.Join(u.folder, "program")
	testbed.CargoProgram(l.t, folder)
	l.replace(u, folder)
	return folder
}

// replace has cargo take crates.io's crates from the lab, for u in folder.
func (l *upstreamLab) replace(u *user, folder string) {
	l.t.Helper()
	must(l.t, u.aln(folder, "login", l.reached(), "--replace-crates-io"))
}

// emptied gives u a new, empty CARGO_HOME, and folder nothing that cargo made, but for its
// lock.
func (l *upstreamLab) emptied(u *user, folder string) {
	l.t.Helper()
	u.cargoHome = l.t.TempDir()
	u.extra = append(u.extra, "CARGO_TARGET_DIR="+l.t.TempDir())
	l.replace(u, folder)
}

// cutOff ends upstream, has the server ask nobody, and leaves u nothing in folder of what cargo made there.
func (l *upstreamLab) cutOff(u *user, folder string) {
	l.t.Helper()
	l.crates.Stop()
	l.stop()
	l.flags = append(l.flags, "--offline")
	l.start()
	l.emptied(u, folder)
	if err := os.Remove(filepath.Join(folder, "Cargo.lock")); err != nil {
		l.t.Fatal(err)
	}
}

// said is a crate's index file as upstream serves it.
func (l *upstreamLab) said(name string) string {
	var text strings.Builder
	for _, line := range l.crates.Lines(name) {
		text.Write(line.Marshal())
	}
	return text.String()
}

// checkIndex holds what the lab serves of crates against what upstream does.
func (l *upstreamLab) checkIndex(u *user, crates []lockedCrate) {
	l.t.Helper()
	token := u.session(particle.ScopeRead, time.Minute)
	for _, c := range crates {
		name := c.Name
		status, _, body := l.get("/crates-io/index/"+testbed.IndexPath(name), token)
		if want := l.said(name); status != 200 || string(body) != want {
			l.t.Errorf("the index file of %s: %d\n%.2000s\nupstream's is\n%.2000s", name, status, body, want)
		}
	}
}

// checkPruned holds the index files that the lab serves of crates in folder's lock to what
// is held: upstream's lines, verbatim and in their order, of no version but those.
func (l *upstreamLab) checkPruned(u *user, locked []lockedCrate) {
	l.t.Helper()
	token := u.session(particle.ScopeRead, time.Minute)
	held := map[string]string{}
	for _, c := range locked {
		for _, line := range l.crates.Lines(c.Name) {
			if line.Vers == c.Version {
				held[c.Name] += string(line.Marshal())
			}
		}
	}
	for name, want := range held {
		if status, _, body := l.get("/crates-io/index/"+testbed.IndexPath(name), token); status != 200 || string(body) != want {
			l.t.Errorf("the index file of %s: %d\n%.2000s\nheld are\n%.2000s", name, status, body, want)
		}
	}
}

// looksNowhere ends the rule for which every crate is received and looked into before any of it
// is sent: without one, it is sent while it comes.
func (l *upstreamLab) looksNowhere() {
	l.t.Helper()
	ruled(l.lab).release("blake3")
}

// requests are how many crates and index files upstream was asked for.
func (l *upstreamLab) requests() (crates, files int) {
	for _, asked := range l.crates.Asked() {
		switch {
		case strings.HasPrefix(asked.Path, "/crates/"):
			crates++
		case asked.Path != "/index/config.json":
			files++
		}
	}
	return crates, files
}

// summary tells what a step took.
func (l *upstreamLab) summary(step string, began time.Time) {
	l.t.Helper()
	crates, files := l.requests()
	l.t.Logf("%s in %.1f s: %s", step, time.Since(began).Seconds(),
		fmt.Sprintf("upstream was asked for %d index files and %d crates, the log has %d entries", files, crates, l.logSize()))
}
