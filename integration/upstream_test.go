package integration

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"phoenix-lab.org/aln-registry/integration/testbed"
)

// mostCrates is what a program's lock has to have at least.
const mostCrates = 100

// lockedCrate is a crate that a Cargo.lock has from a registry.
type lockedCrate struct{ Name, Version, Source string }

// lockedCrates are those in folder's.
func lockedCrates(t testing.TB, folder string) (crates []lockedCrate) {
	t.Helper()
	var lock struct{ Package []lockedCrate }
	if err := toml.Unmarshal([]byte(lockOf(t, folder)), &lock); err != nil {
		t.Fatal(err)
	}
	for _, p := range lock.Package {
		if p.Source != "" {
			crates = append(crates, p)
		}
	}
	return crates
}

// Unmodified cargo with an empty CARGO_HOME resolves and fetches what a program needs of
// crates.io through the registry; then again from what is held, when there is no upstream.
func TestCargoFetchesCratesIOThroughTheRegistry(t *testing.T) {
	l := newUpstreamLab(t)
	u := l.operator
	folder := l.program(u)

	began := time.Now()
	must(t, u.cargo(folder, "fetch"))
	l.summary("resolved and fetched", began)
	figures := testbed.FiguresOf(t, folder)
	crates, _ := l.requests()
	if figures.Crates < mostCrates || crates != figures.Crates {
		t.Errorf("%s; upstream was asked for %d", figures, crates)
	}
	lock, err := os.ReadFile(filepath.Join(folder, "Cargo.lock"))
	if err != nil {
		t.Fatal(err)
	}
	l.checkIndex(u, lockedCrates(t, folder))
	must(t, u.aln(folder, "log", "check", "--full"))

	l.crates.Stop()
	l.stop()
	l.start()
	l.emptied(u, folder)
	began = time.Now()
	must(t, u.cargo(folder, "fetch", "--locked"))
	l.summary("fetched again without upstream", began)

	l.emptied(u, folder)
	if err := os.Remove(filepath.Join(folder, "Cargo.lock")); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	must(t, u.cargo(folder, "fetch"))
	l.summary("resolved and fetched without upstream", began)
	if again, err := os.ReadFile(filepath.Join(folder, "Cargo.lock")); err != nil || string(again) != string(lock) {
		t.Errorf("another lock came of what is held: %v\n%s", err, again)
	}
	must(t, u.aln(folder, "log", "check", "--full"))
}

// What was fetched is what builds, and what is built runs; and again, resolved anew, by a
// server that asks no upstream, once all that the lock names is held: cargo fetches what this
// computer builds, and resolves for all computers.
func TestCargoBuildsAProgramThroughTheRegistry(t *testing.T) {
	l := newUpstreamLab(t)
	u := l.operator
	u.extra = append(u.extra, "CARGO_PROFILE_DEV_DEBUG=0")
	folder := l.program(u)
	l.buildAndRun(u, folder)
	figures := testbed.FiguresOf(t, folder)
	if figures.Crates < mostCrates || figures.ProcMacros == 0 || figures.BuildScripts == 0 {
		t.Errorf("the program has lost what it is there to show: %s", figures)
	}
	t.Log(must(t, u.aln(folder, "prefetch", "Cargo.lock")).stdout)
	if crates, _ := l.requests(); crates != figures.Crates {
		t.Errorf("upstream was asked for %d crates of %d", crates, figures.Crates)
	}

	l.cutOff(u, folder)
	l.buildAndRun(u, folder)
	if again := testbed.FiguresOf(t, folder); again != figures {
		t.Errorf("what is held was resolved to %s", again)
	}
	l.checkPruned(u, lockedCrates(t, folder))
	must(t, u.aln(folder, "log", "check", "--full"))
}

// buildAndRun builds the program in folder and looks at what it prints.
func (l *upstreamLab) buildAndRun(u *user, folder string) {
	l.t.Helper()
	began := time.Now()
	said := must(l.t, u.cargo(folder, "run", "--quiet", "--", "--manifest", "Cargo.toml"))
	l.summary("built and run", began)
	if want := testbed.CargoProgramSays(l.t, 0); said.stdout != want {
		l.t.Errorf("the program printed\n%swant\n%s", said.stdout, want)
	}
}
