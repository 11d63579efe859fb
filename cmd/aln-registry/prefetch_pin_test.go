package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// A lock is kept under a name that stays while its crates change, and that the registry takes.
func TestALockHasANameOfItsProject(t *testing.T) {
	registry := cargo.Locked{Name: "aaa", Version: "1.0.0", Source: "registry+https://example.org"}
	for name, c := range map[string]struct {
		beside, want string
		own          []string
	}{
		"a package":                   {"", "app/Cargo.lock", []string{"app"}},
		"the root of a workspace":     {"zoo", "zoo/Cargo.lock", []string{"app", "zoo"}},
		"a workspace without one":     {"", "app/Cargo.lock", []string{"zoo", "app"}},
		"a Cargo.toml of another one": {"other", "app/Cargo.lock", []string{"app"}},
		"letters that are not taken":  {"", "_pp/Cargo.lock", []string{"äpp"}},
		"a long name":                 {"", strings.Repeat("a", 64) + "/Cargo.lock", []string{strings.Repeat("a", 200)}},
		"nobody's":                    {"", "project/Cargo.lock", nil},
	} {
		dir, packages := t.TempDir(), []cargo.Locked{registry}
		if c.beside != "" {
			if err := os.WriteFile(filepath.Join(dir, "Cargo.toml"), []byte("[package]\nname = \""+c.beside+"\"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, own := range c.own {
			packages = append(packages, cargo.Locked{Name: own, Version: "0.1.0"})
		}
		if got := pinOfLock(filepath.Join(dir, "Cargo.lock"), packages); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// What is said to be kept is: a lock's name keeps nothing that was asked for beside it.
func TestWhatIsKeptIsSaid(t *testing.T) {
	for _, c := range []struct {
		result prefetchResult
		want   string
	}{
		{prefetchResult{}, ""},
		{prefetchResult{LockAlone: []string{"serde"}}, ""},
		{prefetchResult{NotKept: "why"}, "not kept, and may be evicted one day: why"},
		{prefetchResult{KeptAs: "ci"}, "kept as ci until `aln-registry upstream unpin ci`"},
		{prefetchResult{KeptAs: "ci", Missing: make([]client.PrefetchOutcome, 1)}, "kept as ci, but for what lacks, until `aln-registry upstream unpin ci`"},
		{
			prefetchResult{KeptAs: "ci", LockAlone: []string{"serde", "rand"}},
			"what the lock pins is kept as ci until `aln-registry upstream unpin ci`; all versions of serde, rand are not, and may be evicted one day: with --pin NAME both are",
		},
	} {
		if got := c.result.kept(); got != c.want {
			t.Errorf("%+v: %s, want %s", c.result, got, c.want)
		}
	}
}

// A crate is counted once, however a list spells it and whether it says its checksum.
func TestACrateIsCountedOnceInAllSpellings(t *testing.T) {
	var r prefetchResult
	for _, o := range []client.PrefetchOutcome{
		{Name: "Leafy", Version: "1.0.0", Outcome: client.PrefetchFetched, Bytes: 5},
		{Name: "leafy", Version: "1.0.0", Outcome: client.PrefetchHeld, Bytes: 5},
		{Name: "leafy", Version: "1.0.0", Outcome: client.PrefetchHeld, Bytes: 5, Checksum: "1"},
		{Name: "leafy", Version: "1.0.0", Outcome: client.PrefetchAbsent, Checksum: "2"},
		{Name: "leafy", Version: "2.0.0", Outcome: client.PrefetchHeld},
		{Name: "a-b", Version: "1.0.0", Outcome: client.PrefetchDenied},
		{Name: "A_b", Version: "1.0.0", Outcome: client.PrefetchDenied},
	} {
		r.add("crates-io", o)
	}
	r.add("bonn", client.PrefetchOutcome{Name: "leafy", Version: "1.0.0", Outcome: client.PrefetchHeld})
	if r.Fetched != 1 || r.Held != 2 || r.Denied != 1 || r.Absent != 1 || r.Bytes != 5 || len(r.Missing) != 2 {
		t.Errorf("%+v", r)
	}
}

// The list that the guide shows is one.
func TestTheGuidesListIsOne(t *testing.T) {
	guide, err := os.ReadFile("../../docs/USING.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(guide), "for the standard input:\n\n")
	text, _, _ = strings.Cut(text, "\n\na line each of")
	list, err := parseList("the list", []byte(text+"\n\n"))
	if err != nil || len(list) != 3 || list[1] != (client.Prefetched{Name: "serde", Version: "1.0.228"}) || len(list[2].Checksum) != 64 {
		t.Errorf("%+v, %v", list, err)
	}
}

// A name that is asked for again and again, each time with another lock, keeps those of five minutes,
// or of thirty days where none is held whole, and no more; what is over goes with the next one.
func TestWhatANameKeepsDoesNotGrowWithoutEnd(t *testing.T) {
	t.Parallel()
	db, err := catalog.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for name, test := range map[string]struct {
		whole       bool
		every       time.Duration
		times, most int
	}{
		"whole, every minute":     {true, time.Minute, 20, 6},
		"never whole, every day":  {false, 24 * time.Hour, 70, 31},
		"whole, once in an hour":  {true, time.Hour, 5, 1},
		"never whole, each month": {false, 31 * 24 * time.Hour, 5, 1},
	} {
		at := time.Unix(1_800_000_000, 0)
		kept := func() (pins int64) {
			t.Helper()
			locks, err := db.UpstreamLocks(t.Context(), "", 10)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range locks {
				if l.Lock == name {
					pins = l.Pins
				}
			}
			return pins
		}
		prefetch := func(n int) {
			t.Helper()
			own, stays := storage.CIDOf(fmt.Append(nil, name, n)), storage.CIDOf([]byte(name))
			if err := db.PinUpstream(t.Context(), name, "did:key:a", []storage.CID{own, stays}, at); err != nil {
				t.Fatal(err)
			}
			if _, err := db.UnpinUpstream(t.Context(), name, letGoBefore(at, test.whole)); err != nil {
				t.Fatal(err)
			}
		}
		for n := range test.times {
			at = at.Add(test.every)
			prefetch(n)
			if got, want := kept(), int64(min(n+1, test.most)+1); got != want {
				t.Errorf("%s: after %d times %d are kept, want %d", name, n+1, got, want)
			}
		}
		at = at.Add(keptBeside + time.Second)
		if prefetch(-1); kept() != 2 {
			t.Errorf("%s: the last one keeps %d, want its own", name, kept())
		}
	}
}
