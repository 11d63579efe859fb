package main

import (
	"path/filepath"
	"slices"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/client/cargoconfig"
	"phoenix-lab.org/aln-registry/registry/cargo"
)

// maxPinStem bounds the part of a lock's name that is the package's: it has 100 bytes in all.
const maxPinStem = 64

// pinOfLock is the name under which a lock is kept that is given none: that of the package
// beside it, or of the first by name of its own packages where it is a workspace's, which
// stays as versions change and is the same in every checkout. /Cargo.lock keeps it apart
// from names that people think of.
func pinOfLock(file string, packages []cargo.Locked) string {
	var own []string
	for _, p := range packages {
		if p.Source == "" {
			own = append(own, p.Name)
		}
	}
	slices.Sort(own)
	stem := "project"
	if len(own) > 0 {
		stem = own[0]
	}
	if beside := cargoconfig.PackageIn(filepath.Dir(file)); slices.Contains(own, beside) {
		stem = beside
	}
	stem = strings.Map(func(c rune) rune { // cargo takes letters of all alphabets
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			return c
		}
		return '_'
	}, stem)
	return stem[:min(len(stem), maxPinStem)] + "/" + lockName
}

const (
	// pinSlack is by how much the clocks of a registry's servers may differ.
	pinSlack = 5 * time.Minute
	// keptBeside is for how long a name keeps what it was given for a lock, when not all is held
	// of those that it was given since: they might never be held whole, and each has other crates.
	keptBeside = 30 * 24 * time.Hour
)

// letGoBefore is when, at the latest, a name was given for the last time what it keeps no more, when
// the registry began at began with a list that is held whole, or is not.
func letGoBefore(began time.Time, whole bool) time.Time {
	if whole {
		return began.Add(-pinSlack)
	}
	return began.Add(-keptBeside)
}
