package cargo

import (
	"slices"
	"strings"
)

// MaxNameBytes is the longest crate name that crates.io allows.
const MaxNameBytes = 64

// reserved are names that no crate may have, in canonical form: the device
// names of Windows, where such a folder cannot be made, and the crates that
// come with the compiler.
var reserved = map[string]bool{
	"con": true, "prn": true, "aux": true, "nul": true,
	"com0": true, "com1": true, "com2": true, "com3": true, "com4": true,
	"com5": true, "com6": true, "com7": true, "com8": true, "com9": true,
	"lpt0": true, "lpt1": true, "lpt2": true, "lpt3": true, "lpt4": true,
	"lpt5": true, "lpt6": true, "lpt7": true, "lpt8": true, "lpt9": true,
	"alloc": true, "core": true, "std": true, "test": true, "proc_macro": true,
}

// ValidateName checks a crate name by crates.io's rule: an ASCII letter, then
// ASCII letters, digits, '-' and '_', at most MaxNameBytes, and no reserved
// name. The error matches ErrName.
func ValidateName(s string) error {
	if !isIdent(s, false) {
		return problem(ErrName, CodeName, "%s is not a crate name; use a letter followed by letters, digits, '-' or '_', at most %d characters", quote(s), MaxNameBytes)
	}
	if reserved[CanonicalName(s)] {
		return problem(ErrName, CodeReservedName, "%q is a reserved name; choose another name for the crate", s)
	}
	return nil
}

// CanonicalName is the form in which names are compared (DESIGN invariant 10):
// lower case, with '-' replaced by '_'.
func CanonicalName(s string) string {
	return strings.ReplaceAll(strings.ToLower(s), "-", "_")
}

// mostSeparators is how many of a name are tried in either spelling, each of which doubles the
// spellings: nearly no crate has more.
const mostSeparators = 3

// Spellings are those of a crate's name in lower case, under which an index may have it:
// all of them, or of a name of many words the usual ones.
func Spellings(name string) []string {
	lower, canonical := strings.ToLower(name), CanonicalName(name)
	all := []string{lower, canonical, strings.ReplaceAll(lower, "_", "-")}
	if strings.Count(canonical, "_") <= mostSeparators {
		all = respelled(canonical)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// respelled are all names that are canonical where every - of them is a _.
func respelled(canonical string) []string {
	before, after, found := strings.Cut(canonical, "_")
	if !found {
		return []string{canonical}
	}
	var all []string
	for _, rest := range respelled(after) {
		all = append(all, before+"_"+rest, before+"-"+rest)
	}
	return all
}

// IndexPath is the path of a crate's file in an index, without a leading
// slash (Cargo reference, "Index files"): 1/a, 2/ab, 3/a/abc, ca/rg/cargo-x.
// name must be a valid crate name.
func IndexPath(name string) string {
	name = strings.ToLower(name)
	switch len(name) {
	case 0:
		return ""
	case 1, 2:
		return string(rune('0'+len(name))) + "/" + name
	case 3:
		return "3/" + name[:1] + "/" + name
	default:
		return name[:2] + "/" + name[2:4] + "/" + name
	}
}

// isIdent is the rule for crate names; the name by which a manifest renames a
// dependency may also begin with '_'.
func isIdent(s string, underscoreFirst bool) bool {
	if s == "" || len(s) > MaxNameBytes {
		return false
	}
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		switch {
		case letter, i > 0 && ('0' <= c && c <= '9' || c == '-' || c == '_'), underscoreFirst && c == '_':
		default:
			return false
		}
	}
	return true
}
