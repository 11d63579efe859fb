package cargo

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

const (
	maxReqBytes    = 1024
	maxComparators = 32 // as in the Rust semver crate
)

// Req is a version requirement in Cargo's grammar, which is that of the Rust
// crate semver: comparators joined by commas, '^' where no operator stands.
// The zero value is "*".
type Req struct{ comparators []comparator }

// comparator is one term. parts says how many of major, minor, patch were written.
type comparator struct {
	op                  string // "=", ">", ">=", "<", "<=", "~", "^", or "*" for 1.* and 1.2.*
	major, minor, patch uint64
	parts               int
	pre                 string
}

// ParseReq reads a requirement as written in a manifest or an index line. The
// error matches ErrVersion.
func ParseReq(s string) (Req, error) {
	if len(s) > maxReqBytes {
		return Req{}, badReq(s)
	}
	text := strings.TrimLeft(s, " ")
	if rest, ok := cutWildcard(text); ok {
		if strings.TrimLeft(rest, " ") != "" {
			return Req{}, badReq(s) // a lone * matches everything, so nothing may stand beside it
		}
		return Req{}, nil
	}
	var r Req
	for {
		c, rest, ok := parseComparator(text)
		if !ok || len(r.comparators) == maxComparators {
			return Req{}, badReq(s)
		}
		r.comparators = append(r.comparators, c)
		if rest == "" {
			return r, nil
		}
		if text, ok = strings.CutPrefix(rest, ","); !ok {
			return Req{}, badReq(s)
		}
		text = strings.TrimLeft(text, " ")
	}
}

func badReq(s string) error {
	return problem(ErrVersion, CodeRequirement, "%s is not a version requirement; write one as Cargo has it, such as \"1.2\", \">=1.2, <1.5\", \"~1.2.3\" or \"1.*\"", quote(s))
}

func parseComparator(s string) (c comparator, rest string, ok bool) {
	written := false
	c.op = "^"
	for _, op := range []string{"=", ">=", ">", "<=", "<", "~", "^"} {
		if after, found := strings.CutPrefix(s, op); found {
			c.op, s, written = op, after, true
			break
		}
	}
	if c.major, rest, ok = numeric(strings.TrimLeft(s, " ")); !ok {
		return c, s, false
	}
	c.parts = 1
	wildcard := false
	for _, number := range []*uint64{&c.minor, &c.patch} {
		after, found := strings.CutPrefix(rest, ".")
		if !found {
			break
		}
		if afterStar, star := cutWildcard(after); star {
			wildcard, rest = true, afterStar
			continue
		}
		if *number, rest, ok = numeric(after); !ok || wildcard {
			return c, s, false
		}
		c.parts++
	}
	if wildcard && !written {
		c.op = "*"
	}
	if c.parts == 3 {
		if c.pre, _, rest, ok = suffixes(rest); !ok { // build metadata says nothing in a requirement
			return c, s, false
		}
	}
	return c, strings.TrimLeft(rest, " "), true
}

func cutWildcard(s string) (rest string, ok bool) {
	if s != "" && (s[0] == '*' || s[0] == 'x' || s[0] == 'X') {
		return s[1:], true
	}
	return s, false
}

// String writes the requirement as cargo does when it publishes: "1.0" becomes
// "^1.0", terms are joined by ", ".
func (r Req) String() string {
	if len(r.comparators) == 0 {
		return "*"
	}
	terms := make([]string, len(r.comparators))
	for i, c := range r.comparators {
		terms[i] = c.String()
	}
	return strings.Join(terms, ", ")
}

// String writes one term.
func (c comparator) String() string {
	var s strings.Builder
	if c.op != "*" {
		s.WriteString(c.op)
	}
	s.WriteString(strconv.FormatUint(c.major, 10))
	if c.parts > 1 {
		s.WriteString("." + strconv.FormatUint(c.minor, 10))
	}
	if c.parts > 2 {
		s.WriteString("." + strconv.FormatUint(c.patch, 10))
	}
	if c.pre != "" {
		s.WriteString("-" + c.pre)
	}
	if c.op == "*" {
		s.WriteString(".*")
	}
	return s.String()
}

// Matches reports whether v satisfies every term. A pre-release satisfies only
// if some term names a pre-release of the same major.minor.patch.
func (r Req) Matches(v Version) bool {
	named := false
	for _, c := range r.comparators {
		if !c.matches(v) {
			return false
		}
		named = named || c.pre != "" && c.major == v.major && c.minor == v.minor && c.patch == v.patch
	}
	return v.pre == "" || named
}

// Covers reports whether r shuts v out, for rules that deny: like Matches, but no
// pre-release escapes for want of being named. It is covered by its place in the
// order of versions (a number left out of a "<" is 0), and as the release that it precedes.
func (r Req) Covers(v Version) bool {
	release := v
	release.pre = ""
	return r.Matches(release) || !slices.ContainsFunc(r.comparators, func(c comparator) bool {
		return !c.matches(v) && !(c.op == "<" && v.Compare(Version{major: c.major, minor: c.minor, patch: c.patch, pre: c.pre}) < 0)
	})
}

// matches is the Rust crate's rule for one term. A term that leaves out minor
// or patch says nothing of them, and nothing of pre-releases.
func (c comparator) matches(v Version) bool {
	order, pre, full := c.compare(v), comparePre(v.pre, c.pre), c.parts == 3
	exact := order == 0 && pre == 0
	greater := order > 0 || order == 0 && full && pre > 0
	less := order < 0 || order == 0 && full && pre < 0
	switch c.op {
	case "=", "*":
		return exact
	case ">":
		return greater
	case ">=":
		return exact || greater
	case "<":
		return less
	case "<=":
		return exact || less
	case "~":
		return (exact || greater) && v.major == c.major && (c.parts < 2 || v.minor == c.minor)
	default:
		return (exact || greater || order == 0 && !full) && c.caret(v)
	}
}

// compare places v before, in or after the range that c's written numbers span.
func (c comparator) compare(v Version) int {
	order := cmp.Compare(v.major, c.major)
	if order == 0 && c.parts > 1 {
		order = cmp.Compare(v.minor, c.minor)
	}
	if order == 0 && c.parts > 2 {
		order = cmp.Compare(v.patch, c.patch)
	}
	return order
}

// caret: up to the first part that is not zero, nothing may change.
func (c comparator) caret(v Version) bool {
	switch {
	case v.major != c.major:
		return false
	case c.major > 0 || c.parts < 2:
		return true
	case v.minor != c.minor:
		return false
	case c.minor > 0 || c.parts < 3:
		return true
	}
	return v.patch == c.patch
}
