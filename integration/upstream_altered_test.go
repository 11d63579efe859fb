package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/integration/testbed"
)

// Upstream's index comes to name another dependency of a version that is in a lock: the next
// resolve does not take it along, and the auditor sees what was said when.
func TestALockTakesNothingFromALineThatWasAltered(t *testing.T) {
	l := newUpstreamLab(t, "--upstream-fresh", "0s")
	u := l.operator
	for _, name := range []string{"victim", "evil", "harmless"} {
		l.crates.Add(t, testbed.MakeCrate(name, "1.0.0", 1<<10, 1))
	}
	folder := l.needing(u, "altered", `victim = "1"`)
	must(t, u.cargo(folder, "fetch"))
	if lock := lockOf(t, folder); !strings.Contains(lock, `"victim"`) {
		t.Fatalf("the lock is\n%s", lock)
	}
	err := l.crates.Edit("victim", "1.0.0", func(line *testbed.IndexLine) { line.Deps = append(line.Deps, testbed.Needs("evil", "1")) })
	if err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(folder, "Cargo.toml")
	text, err := os.ReadFile(manifest)
	if err == nil {
		err = os.WriteFile(manifest, []byte(strings.Replace(string(text), "victim = ", "harmless = \"1\"\nvictim = ", 1)), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	must(t, u.cargo(folder, "fetch")) // resolves anew, as a dependency is new
	if lock := lockOf(t, folder); strings.Contains(lock, `"evil"`) || !strings.Contains(lock, `"victim"`) || !strings.Contains(lock, `"harmless"`) {
		t.Errorf("the lock is\n%s", lock)
	}
	l.awaitAlarm("altered victim")
	wantSays(t, must(t, u.aln(folder, "upstream", "alarms")).stdout, `dependencies added: "evil `, "first as in index file baf", "now in index file baf", ", record ")
	proved := must(t, u.aln(folder, "verify", "victim@1.0.0", "--source", "crates-io"))
	if all := proved.stdout + proved.stderr; !strings.Contains(all, "other dependencies or features were named there for the same bytes") {
		t.Errorf("verify says nothing of it:\n%s", all)
	}
	wantSays(t, must(t, u.aln(folder, "why", "victim@1.0.0", "--source", "crates-io")).stdout,
		"  listed as yanked here since 20", ": upstream gives it other dependencies or features, which are not believed (an alarm)\n", "it was said to have other dependencies or features of the same bytes")
	must(t, u.aln(folder, "log", "check", "--full"))

	l.emptied(u, folder)
	must(t, u.cargo(folder, "fetch", "--locked"))
	if err := os.Remove(filepath.Join(folder, "Cargo.lock")); err != nil {
		t.Fatal(err)
	}
	mustFail(t, u.cargo(folder, "fetch"), "victim") // to who has no lock it is yanked
}
