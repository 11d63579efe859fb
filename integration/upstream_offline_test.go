package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"phoenix-lab.org/aln-registry/integration/testbed"
)

// A site without a way out is filled from the backup of a registry that has one: what a lock
// pins is held there and kept, resolves anew to the same lock, and the log is the same one.
func TestASiteWithoutAWayOutIsFilledFromABackup(t *testing.T) {
	l := newUpstreamLab(t)
	u := l.operator
	folder := l.needing(u, "offline", "serde = { version = \"1\", features = [\"derive\"] }\nitoa = \"1\"\nringbuffer = { package = \"ryu\", version = \"1\" }")
	must(t, u.cargo(folder, "generate-lockfile"))
	lock := textOf(t, filepath.Join(folder, "Cargo.lock"))
	wantSays(t, must(t, u.aln(folder, "prefetch", "Cargo.lock")).stdout, "8 crates are held", "8 were fetched now", "kept as needing/Cargo.lock until")
	wantSays(t, must(t, u.aln(folder, "prefetch", "Cargo.lock", "--pin", "ci/main")).stdout, "8 were there already", "kept as ci/main until")
	all := len(l.crates.Lines("itoa"))
	wantSays(t, must(t, u.aln(folder, "prefetch", "--all-versions-of", "itoa", "--json")).stdout, `"held": 1,`, fmt.Sprintf(`"fetched": %d,`, all-1), `"kept_as": ""`)
	wantSays(t, must(t, u.aln(folder, "upstream", "locks")).stdout, "ci/main             8 of 8 ", "needing/Cargo.lock  8 of 8 ")
	carried := filepath.Join(t.TempDir(), "carried")
	must(t, u.aln(folder, "backup", "--data", l.data, "--to", carried))

	l.crates.Stop()
	l.stop()
	if err := os.RemoveAll(l.data); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(l.data, os.DirFS(carried)); err != nil {
		t.Fatal(err)
	}
	chmodAll(t, filepath.Join(l.data, "keys"))
	wantSays(t, must(t, u.aln(folder, "fsck", "--data", l.data)).stdout, "nothing is wrong")
	l.flags = append(l.flags, "--offline")
	l.start()
	l.emptied(u, folder)
	must(t, u.cargo(folder, "fetch", "--locked"))
	l.emptied(u, folder)
	if err := os.Remove(filepath.Join(folder, "Cargo.lock")); err != nil {
		t.Fatal(err)
	}
	must(t, u.cargo(folder, "fetch"))
	if again := textOf(t, filepath.Join(folder, "Cargo.lock")); again != lock {
		t.Errorf("another lock came of what is held:\n%s", again)
	}
	wantSays(t, must(t, u.aln(folder, "upstream", "locks")).stdout, "ci/main             8 of 8 ", "needing/Cargo.lock  8 of 8 ")
	wantSays(t, must(t, u.aln(folder, "upstream", "list")).stdout, "never asked (--offline)")
	mustFail(t, u.cargo(l.needing(u, "absent", `anyhow = "1"`), "fetch"), "no matching package named `anyhow` found")
	must(t, u.aln(folder, "log", "check", "--full"))
}

// A registry that asks nobody lists what is held alone: a resolve anew takes that, though newer
// versions are known, and what it takes is had.
func TestOfflineAResolveTakesWhatIsHeld(t *testing.T) {
	t.Parallel()
	l := newUpstreamLab(t)
	u := l.operator
	for i, version := range []string{"1.0.0", "1.2.0", "2.0.0"} {
		l.crates.Add(t, testbed.MakeCrate("inner-part", version, 1<<10, uint64(i)))
		l.crates.Add(t, testbed.MakeCrate("outer-part", version, 1<<10, uint64(10+i), testbed.Needs("inner-part", "1")))
	}
	folder := l.needing(u, "held", `outer-part = "1"`)
	must(t, u.cargo(folder, "generate-lockfile"))
	wantSays(t, lockOf(t, folder), "name = \"outer-part\"\nversion = \"1.2.0\"", "name = \"inner-part\"\nversion = \"1.2.0\"")
	for _, name := range []string{"outer-part", "inner-part"} {
		must(t, u.cargo(folder, "update", name, "--precise", "1.0.0"))
	}
	lock := lockOf(t, folder)
	wantSays(t, must(t, u.aln(folder, "prefetch")).stdout, "2 crates are held", "2 were fetched now")
	l.cutOff(u, folder)
	must(t, u.cargo(folder, "generate-lockfile"))
	if again := lockOf(t, folder); again != lock {
		t.Errorf("another lock came of what is held:\n%s", again)
	}
	must(t, u.cargo(folder, "fetch", "--locked"))
	mustFail(t, u.cargo(l.needing(u, "newer", `outer-part = "2"`), "generate-lockfile"), "failed to select a version", "1.0.0")
	wantSays(t, must(t, u.aln(folder, "prefetch", "--all-versions-of", "Inner_Part")).stdout, "1 crate is held: 1 was there already")
}

// chmodAll gives the copies of a registry's keys the mode that keys have.
func chmodAll(t *testing.T, folder string) {
	t.Helper()
	keys, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if err := os.Chmod(key, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
