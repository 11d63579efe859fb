package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/integration/testbed"
)

// Rules and grants bind builds with crates of crates.io: a resolver goes around a version that
// is denied, and a lock that has it meets the registry's own words.
func TestRulesAndGrantsBindBuildsWithCratesOfUpstream(t *testing.T) {
	l := newUpstreamLab(t)
	u := l.operator
	older, newer := l.newest("itoa"), testbed.MakeCrate("itoa", "1.99.0", 2<<10, 1)
	l.crates.Add(t, newer)
	folder := l.needing(u, "ruled", `itoa = "1"`)
	must(t, u.cargo(folder, "fetch"))
	lock := lockOf(t, folder)
	if !strings.Contains(lock, "1.99.0") {
		t.Fatalf("it is not the newest:\n%s", lock)
	}

	host := l.newMember()
	must(t, u.aln(folder, "grant", "new", "--subject", host.did(), "--from-lockfile", "Cargo.lock"))
	must(t, u.aln(folder, "quarantine", "add", "watched", "--source", "crates-io", "--name", "itoa", "--version", "=1.99.0", "--reason", "to be looked at"))
	l.emptied(u, folder)
	mustFail(t, u.cargo(folder, "fetch", "--locked"), "403", "itoa 1.99.0 is denied by rule quarantine watched: to be looked at", "--source crates-io")
	if err := os.Remove(filepath.Join(folder, "Cargo.lock")); err != nil {
		t.Fatal(err)
	}
	must(t, u.cargo(folder, "fetch"))
	if lock := lockOf(t, folder); !strings.Contains(lock, older.Vers) || strings.Contains(lock, "1.99.0") {
		t.Errorf("cargo takes what is denied:\n%s", lock)
	}

	// The grant lists 1.99.0 alone, which the rule denies: it has nothing of what is older.
	l.emptied(host, folder)
	mustFail(t, host.cargo(folder, "fetch", "--locked"), "403", "itoa "+older.Vers+" is denied by rule allowed-crates", "--source crates-io")
	if err := os.WriteFile(filepath.Join(folder, "Cargo.lock"), []byte(lock), 0o644); err != nil {
		t.Fatal(err)
	}
	mustFail(t, host.cargo(folder, "fetch", "--locked"), "403", "itoa 1.99.0 is denied by rule quarantine watched")
}

func lockOf(t testing.TB, folder string) string {
	t.Helper()
	lock, err := os.ReadFile(filepath.Join(folder, "Cargo.lock"))
	if err != nil {
		t.Fatal(err)
	}
	return string(lock)
}

// Whoever has nothing but a grant of what a lock names resolves to that lock without having it,
// though there is newer by now.
func TestAGrantOfALockResolvesToItWithoutTheLock(t *testing.T) {
	l := newUpstreamLab(t, "--upstream-fresh", "0s")
	u := l.operator
	folder := l.needing(u, "granted", "serde = { version = \"1\", features = [\"derive\"] }\nitoa = \"1\"")
	must(t, u.cargo(folder, "fetch"))
	lock := lockOf(t, folder)
	host := l.newMember()
	must(t, u.aln(folder, "grant", "new", "--subject", host.did(), "--from-lockfile", "Cargo.lock"))
	for i, name := range []string{"itoa", "serde", "serde_derive", "syn", "quote"} {
		l.crates.Add(t, testbed.MakeCrate(name, "1.99.0", 2<<10, uint64(i)))
	}
	resolved := func(who *user) string {
		l.emptied(who, folder)
		if err := os.Remove(filepath.Join(folder, "Cargo.lock")); err != nil {
			t.Fatal(err)
		}
		must(t, who.cargo(folder, "fetch"))
		return lockOf(t, folder)
	}
	if got := resolved(host); got != lock {
		t.Errorf("under the grant it resolves to\n%s\nand the grant is of\n%s", got, lock)
	}
	if got := resolved(u); !strings.Contains(got, "1.99.0") {
		t.Errorf("without a grant there is nothing newer:\n%s", got)
	}
}
