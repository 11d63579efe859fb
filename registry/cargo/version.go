package cargo

import (
	"cmp"
	"math"
	"strconv"
	"strings"
)

// MaxVersionBytes is the longest version accepted; Cargo itself has no bound.
const MaxVersionBytes = 128

// Version is a SemVer 2.0.0 version. It is comparable with ==; the zero value is 0.0.0.
type Version struct {
	major, minor, patch uint64
	pre, build          string
}

// ParseVersion accepts exactly the grammar of SemVer 2.0.0, with numbers below
// 2^64 as Cargo has them. The error matches ErrVersion.
func ParseVersion(s string) (Version, error) {
	var v Version
	if len(s) > MaxVersionBytes {
		return v, badVersion(s)
	}
	var ok bool
	rest := s
	for i, number := range []*uint64{&v.major, &v.minor, &v.patch} {
		if i > 0 {
			if rest, ok = strings.CutPrefix(rest, "."); !ok {
				return Version{}, badVersion(s)
			}
		}
		if *number, rest, ok = numeric(rest); !ok {
			return Version{}, badVersion(s)
		}
	}
	if v.pre, v.build, rest, ok = suffixes(rest); !ok || rest != "" {
		return Version{}, badVersion(s)
	}
	return v, nil
}

func badVersion(s string) error {
	return problem(ErrVersion, CodeVersion, "%s is not a version; write MAJOR.MINOR.PATCH as SemVer 2.0.0 has it, such as 1.2.3 or 1.2.3-rc.1", quote(s))
}

// String gives back what was parsed, +build included.
func (v Version) String() string {
	s := v.WithoutBuild()
	if v.build != "" {
		s += "+" + v.build
	}
	return s
}

// WithoutBuild is the version's identity: a registry holds at most one of
// those that differ in +build alone.
func (v Version) WithoutBuild() string {
	s := strconv.FormatUint(v.major, 10) + "." + strconv.FormatUint(v.minor, 10) + "." + strconv.FormatUint(v.patch, 10)
	if v.pre != "" {
		s += "-" + v.pre
	}
	return s
}

// IsPrerelease reports whether the version has a pre-release part.
func (v Version) IsPrerelease() bool { return v.pre != "" }

// Compare orders by SemVer precedence (§11), which knows no build metadata:
// -1, 0 or +1.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.major, w.major), cmp.Compare(v.minor, w.minor), cmp.Compare(v.patch, w.patch), comparePre(v.pre, w.pre))
}

// comparePre orders pre-release parts; the empty one, a release, is greatest.
func comparePre(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == "":
		return 1
	case b == "":
		return -1
	}
	for {
		x, restA, moreA := strings.Cut(a, ".")
		y, restB, moreB := strings.Cut(b, ".")
		if c := compareIdentifiers(x, y); c != 0 {
			return c
		}
		if !moreA || !moreB {
			return cmp.Compare(len(restA), len(restB))
		}
		a, b = restA, restB
	}
}

// compareIdentifiers: numbers before words, numbers by value whatever their
// size (they have no leading zeros, so a longer one is greater).
func compareIdentifiers(x, y string) int {
	nx, ny := isDigits(x), isDigits(y)
	switch {
	case nx && ny:
		return cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y))
	case nx:
		return -1
	case ny:
		return 1
	}
	return strings.Compare(x, y)
}

// numeric reads a number without leading zeros from the front of s.
func numeric(s string) (n uint64, rest string, ok bool) {
	i := 0
	for ; i < len(s) && '0' <= s[i] && s[i] <= '9'; i++ {
		digit := uint64(s[i] - '0')
		if i > 0 && n == 0 || n > (math.MaxUint64-digit)/10 {
			return 0, s, false
		}
		n = n*10 + digit
	}
	return n, s[i:], i > 0
}

// suffixes reads an optional -pre and an optional +build from the front of s.
func suffixes(s string) (pre, build, rest string, ok bool) {
	rest = s
	if after, found := strings.CutPrefix(rest, "-"); found {
		if pre, rest, ok = identifiers(after, false); !ok {
			return "", "", s, false
		}
	}
	if after, found := strings.CutPrefix(rest, "+"); found {
		if build, rest, ok = identifiers(after, true); !ok {
			return "", "", s, false
		}
	}
	return pre, build, rest, true
}

// identifiers reads dot-separated, non-empty identifiers of [0-9A-Za-z-].
func identifiers(s string, leadingZeros bool) (found, rest string, ok bool) {
	end := strings.IndexFunc(s, func(r rune) bool {
		return r != '.' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
	if end < 0 {
		end = len(s)
	}
	for id := range strings.SplitSeq(s[:end], ".") {
		if id == "" || !leadingZeros && len(id) > 1 && id[0] == '0' && isDigits(id) {
			return "", s, false
		}
	}
	return s[:end], s[end:], true
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
