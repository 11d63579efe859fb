package cargo

import (
	"fmt"
	"slices"
	"strings"
)

// MaxLockBytes bounds a Cargo.lock; the largest real ones have some megabytes.
const MaxLockBytes = 16 << 20

// Locked is one package of a Cargo.lock.
type Locked struct {
	Name, Version string
	// Source is where cargo takes it from, "" for a package of the project itself.
	Source string
	// Checksum is the SHA-256 of its bytes, in hex; "" where the lock has none.
	Checksum string
}

// The versions that are understood, which are those of cargo 1.53 and later, and
// the keys that cargo reads: every other one it ignores. metadata and root it
// reads for the sake of older locks.
var (
	lockVersions = []int64{3, 4}
	lockKeys     = []string{"version", "package", "root", "metadata", "patch"}
	lockedKeys   = []string{"name", "version", "source", "checksum", "dependencies", "replace"}
)

// ParseLock reads what cargo builds from out of a Cargo.lock. It takes only
// locks of which there is one reading: versions that cargo writes today, at
// least one package (every project is one itself), no key that looks like one
// of cargo's and is none, and nothing by which older locks said what newer ones
// say elsewhere. Errors match ErrLock or ErrTooLarge.
func ParseLock(data []byte) ([]Locked, error) {
	if len(data) > MaxLockBytes {
		return nil, problem(ErrTooLarge, CodeTooLarge, "Cargo.lock has %d bytes; at most %d are allowed", len(data), MaxLockBytes)
	}
	root, err := lockFile.parse(data)
	if err != nil {
		return nil, err
	}
	if err := root.checkLock(); err != nil {
		return nil, err
	}
	list, _, err := lookup[[]any](root, "package", "an array of tables")
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, problem(ErrLock, CodeLock, "Cargo.lock holds no package, though every project is one itself; write it with `cargo generate-lockfile`")
	}
	packages := make([]Locked, len(list))
	for i, element := range list {
		values, ok := element.(map[string]any)
		if !ok {
			return nil, root.wrong("package", "an array of tables")
		}
		t := table{file: lockFile, at: fmt.Sprintf("package[%d]", i), values: values}
		if packages[i], err = t.locked(); err != nil {
			return nil, err
		}
	}
	return packages, nil
}

// checkLock refuses a lock that is none, or has more than one reading.
func (t table) checkLock() error {
	if err := t.noLookalike(lockKeys); err != nil {
		return err
	}
	version, found, err := lookup[int64](t, "version", "a number")
	if err != nil {
		return err
	}
	if !found || !slices.Contains(lockVersions, version) {
		return problem(ErrLock, CodeLock, "Cargo.lock is of no version that is understood (%v); write it anew with `cargo generate-lockfile`", lockVersions)
	}
	if _, found := t.values["root"]; found { // to cargo one more package
		return problem(ErrLock, CodeLock, "Cargo.lock has %q, as locks of 2017 had, beside today's version; write it anew with `cargo generate-lockfile`", "root")
	}
	metadata, err := t.sub("metadata")
	if err != nil {
		return err
	}
	for _, key := range metadata.keys() { // to cargo they count for more than those of the packages
		if strings.HasPrefix(key, "checksum ") {
			return problem(ErrLock, CodeLock, "Cargo.lock has checksums in two places, beside a package and in %s; remove the latter", quote(metadata.path(key)))
		}
	}
	return nil
}

// noLookalike refuses a key that is one of known but for the case of its letters:
// cargo ignores it, other readers may not, and a person overlooks it.
func (t table) noLookalike(known []string) error {
	for _, key := range t.keys() {
		for _, k := range known {
			if key != k && strings.EqualFold(key, k) {
				return problem(t.file.kind, t.file.code, "%s: cargo does not read %s, it is spelled %q; somebody may want it to be misread", t.file.name, quote(t.path(key)), k)
			}
		}
	}
	return nil
}

func (t table) locked() (p Locked, err error) {
	if err := t.noLookalike(lockedKeys); err != nil {
		return p, err
	}
	fields := []struct {
		key    string
		into   *string
		needed bool
	}{{"name", &p.Name, true}, {"version", &p.Version, true}, {"source", &p.Source, false}, {"checksum", &p.Checksum, false}}
	for _, f := range fields {
		if *f.into, err = t.str(f.key); err != nil {
			return p, err
		}
		if _, found := t.values[f.key]; *f.into == "" && (found || f.needed) {
			return p, t.wrong(f.key, "a string that is not empty")
		}
	}
	return p, nil
}
