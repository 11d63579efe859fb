package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
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
	wantSays(t, must(t, u.aln(folder, "upstream", "locks")).stdout, "ci/main             8       8 ", "needing/Cargo.lock  8       8 ")
	wantSays(t, must(t, u.aln(folder, "upstream", "list")).stdout, "never asked (--offline)")
	mustFail(t, u.cargo(l.needing(u, "absent", `anyhow = "1"`), "fetch"), "no matching package named `anyhow` found")
	must(t, u.aln(folder, "log", "check", "--full"))
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
