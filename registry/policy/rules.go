package policy

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
)

// ErrRule: a rule cannot be read, or two have one id.
var ErrRule = errors.New("unreadable rule")

// NamedRule is a rule with its id.
type NamedRule struct {
	ID string
	particle.QuarantineRule
}

// RuleSet is rules made ready to be asked, by CompileRules. It does not change
// any more: any number may ask it at once.
type RuleSet struct {
	// deny holds those that deny, in dry_run too, waive those that waive and are enforced.
	deny, waive index
	// all is every member of every rule, for Hits and Explain.
	all []*member
}

// index finds the members that may describe an artifact: by its name or hash or
// publisher where they say one, which costs the same however many rules there are.
type index struct {
	names map[string][]*member
	// shapes has a bit for the shape of each of names: most others need no look at the map.
	shapes     uint64
	hashes     map[[32]byte][]*member
	publishers map[did.DID][]*member
	// rest are those that a map cannot find: patterns, sources, versions, content.
	rest []*member
}

// never is a time that does not come, in Unix seconds.
const never = math.MaxInt64

// rule is what the members of one rule share.
type rule struct {
	id, reason string
	deny       bool
	enforced   bool
	// expires and grace are Unix seconds: never, and 0 for no grace.
	expires, grace int64
}

// member is one particle.RuleMatch.
type member struct {
	*rule
	names, patterns []string // canonical
	versions        *cargo.Req
	hashes          [][32]byte
	publishers      []did.DID
	sources         []string
	content         []string
}

// CompileRules makes rules ready, and none at all too. The error names the rule
// and wraps ErrRule.
func CompileRules(rules []NamedRule) (*RuleSet, error) {
	s, seen := &RuleSet{}, make(map[string]bool, len(rules))
	for _, named := range rules {
		if seen[named.ID] {
			return nil, fmt.Errorf("%w %s: there are two of that id", ErrRule, named.ID)
		}
		seen[named.ID] = true
		members, err := compileRule(named)
		if err != nil {
			return nil, fmt.Errorf("%w %q: %w", ErrRule, named.ID, err)
		}
		s.all = append(s.all, members...)
	}
	for _, m := range s.all {
		switch {
		case m.deny:
			s.deny.add(m)
		case m.enforced:
			s.waive.add(m)
		}
	}
	return s, nil
}

func compileRule(n NamedRule) ([]*member, error) {
	if err := particle.CheckRuleID(n.ID); err != nil {
		return nil, err
	}
	if err := n.Check(); err != nil {
		return nil, err
	}
	r := &rule{id: n.ID, reason: n.Reason, deny: n.Effect == particle.EffectDeny, enforced: n.Mode == particle.ModeEnforce, expires: never}
	if n.Expires != nil {
		r.expires = n.Expires.Unix()
	}
	if n.Grace != nil {
		r.grace = n.Grace.Unix()
	}
	var members []*member
	for _, described := range n.Match {
		m, err := compileMember(r, described)
		if err != nil {
			return nil, err
		}
		members = append(members, m)
	}
	return members, nil
}

func compileMember(r *rule, d particle.RuleMatch) (*member, error) {
	m := &member{rule: r, publishers: slices.Clone(d.Publishers), sources: slices.Clone(d.Sources), content: slices.Clone(d.Content)}
	for _, name := range d.Names {
		if name = cargo.CanonicalName(name); strings.Contains(name, "*") {
			m.patterns = append(m.patterns, name)
		} else {
			m.names = append(m.names, name)
		}
	}
	for _, text := range d.Hashes {
		hash, err := particle.ParseHash(text)
		if err != nil {
			return nil, err
		}
		m.hashes = append(m.hashes, hash)
	}
	if d.Versions == "" {
		return m, nil
	}
	req, err := cargo.ParseReq(d.Versions)
	if err != nil {
		return nil, err
	}
	m.versions = &req
	return m, nil
}

func (x *index) add(m *member) {
	named := len(m.names)+len(m.patterns) > 0
	switch {
	case len(m.hashes) > 0:
		put(&x.hashes, m.hashes, m)
	case named:
		put(&x.names, m.names, m)
		for _, name := range m.names {
			x.shapes |= shape(name)
		}
	case len(m.publishers) > 0:
		put(&x.publishers, m.publishers, m)
	}
	if len(m.hashes) == 0 && (len(m.patterns) > 0 || !named && len(m.publishers) == 0) {
		x.rest = append(x.rest, m)
	}
}

// shape is one bit, the same for the same name.
func shape(name string) uint64 {
	if name == "" {
		return 0
	}
	return 1 << ((len(name)*31 + int(name[0])*7 + int(name[len(name)-1])*13) & 63)
}

func put[K comparable](to *map[K][]*member, keys []K, m *member) {
	if *to == nil {
		*to = map[K][]*member{}
	}
	for _, key := range keys {
		(*to)[key] = append((*to)[key], m)
	}
}

// lists is how many lists of members there are to look through.
const lists = 4

// list are members that may describe f; some stand in two lists.
func (x *index) list(by int, f *Facts, name string) []*member {
	switch {
	case by == 0 && x.shapes&shape(name) != 0:
		return x.names[name]
	case by == 1 && len(x.hashes) > 0:
		return x.hashes[f.Digest]
	case by == 2 && len(x.publishers) > 0:
		return x.publishers[f.Publisher]
	case by == 3:
		return x.rest
	}
	return nil
}

// match is what a member says of an artifact.
type match uint8

const (
	misses match = iota
	// unscanned: all else fits, and whether the content does is not known.
	unscanned
	hits
)

// match compares f, whose canonical name is name, with all that m says. What
// cannot be read of f fits a rule that denies, and no rule that waives.
func (m *member) match(f *Facts, name string) match {
	switch {
	case len(m.names)+len(m.patterns) > 0 && !slices.Contains(m.names, name) && !matchesAny(m.patterns, name),
		len(m.hashes) > 0 && !slices.Contains(m.hashes, f.Digest),
		len(m.publishers) > 0 && !slices.Contains(m.publishers, f.Publisher),
		len(m.sources) > 0 && !slices.Contains(m.sources, f.Source),
		m.versions != nil && !m.matchVersion(f.Version):
		return misses
	}
	return m.matchContent(f)
}

func (m *member) matchVersion(text string) bool {
	v, err := cargo.ParseVersion(text)
	switch {
	case err != nil:
		return m.deny
	case m.deny:
		return m.versions.Covers(v)
	}
	return m.versions.Matches(v)
}

func (m *member) matchContent(f *Facts) match {
	if len(m.content) == 0 {
		return hits
	}
	for _, found := range f.Findings {
		if slices.Contains(m.content, found) || m.deny && found == FindingUnreadable {
			return hits
		}
	}
	if f.Scanned || f.Kind != KindCrate || !m.deny {
		return misses
	}
	return unscanned
}

func matchesAny(patterns []string, name string) bool {
	for _, pattern := range patterns {
		if matchPattern(pattern, name) {
			return true
		}
	}
	return false
}

// matchPattern: each * of pattern is any run of characters, also none. Going
// back to the last * alone suffices, so that the work is at most the product of the lengths.
func matchPattern(pattern, name string) bool {
	star, from, p, n := -1, 0, 0, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, n
			p++
		case p < len(pattern) && pattern[p] == name[n]:
			p++
			n++
		case star >= 0:
			from++
			p, n = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// canonical is cargo.CanonicalName, which most names are already.
func canonical(name string) string {
	for i := range len(name) {
		if c := name[i]; c == '-' || 'A' <= c && c <= 'Z' || c >= 0x80 {
			return cargo.CanonicalName(name)
		}
	}
	return name
}

// findings are what the rules that deny say of an artifact at one time: of each
// kind the rule with the least id.
type findings struct {
	denied, graced, unscanned, dry *rule
	// until is when that may change, in Unix seconds.
	until int64
}

// judge fills in found.
func (s *RuleSet) judge(found *findings, f *Facts, name string, at int64) {
	found.until = never
	for by := range lists {
		for _, m := range s.deny.list(by, f, name) {
			if at < m.expires {
				found.add(m.rule, m.match(f, name), at)
			}
		}
	}
}

func (s *findings) add(r *rule, m match, at int64) {
	if m == misses {
		return
	}
	inGrace := at < r.grace
	switch {
	case !r.enforced && m == unscanned:
		return
	case !r.enforced:
		least(&s.dry, r)
	case !inGrace && m == unscanned:
		least(&s.unscanned, r)
	case !inGrace:
		least(&s.denied, r)
	case m == hits:
		least(&s.graced, r)
	}
	if r.enforced && inGrace {
		s.until = min(s.until, r.grace)
	} else {
		s.until = min(s.until, r.expires)
	}
}

func least(best **rule, r *rule) {
	if *best == nil || r.id < (*best).id {
		*best = r
	}
}

// waiver is the rule that waives f's cooldown for longest, nil if there is none.
func (s *RuleSet) waiver(f *Facts, name string, at int64) *rule {
	var best *rule
	for by := range lists {
		for _, m := range s.waive.list(by, f, name) {
			if at >= m.expires || m.match(f, name) != hits {
				continue
			}
			if best == nil || m.expires > best.expires || m.expires == best.expires && m.id < best.id {
				best = m.rule
			}
		}
	}
	return best
}

// Hits are the ids of the rules that describe f, in order, whatever their mode,
// effect and expiry. A content rule describes what was scanned and found.
func (s *RuleSet) Hits(f *Facts) []string {
	var ids []string
	for _, r := range s.describing(f) {
		if r.match == hits {
			ids = append(ids, r.id)
		}
	}
	return ids
}

// described is a rule and the most that a member of it says of an artifact.
type described struct {
	*rule
	match match
}

// describing are the rules that describe f, or may, in the order of their ids.
func (s *RuleSet) describing(f *Facts) []described {
	var all []described
	name := canonical(f.Name)
	for _, m := range s.all {
		if match := m.match(f, name); match != misses {
			all = append(all, described{m.rule, match})
		}
	}
	slices.SortStableFunc(all, func(a, b described) int {
		if byID := strings.Compare(a.id, b.id); byID != 0 {
			return byID
		}
		return int(b.match) - int(a.match)
	})
	return slices.CompactFunc(all, func(a, b described) bool { return a.id == b.id })
}

// lookedInto are the rules that deny, by their ids, of which f would be described if its bytes
// held what they are about: they were looked through, and do not.
func (s *RuleSet) lookedInto(f *Facts) []*rule {
	if !f.Scanned {
		return nil
	}
	var clean []*rule
	hit, unknown, name := s.describing(f), *f, canonical(f.Name)
	unknown.Scanned, unknown.Findings = false, nil
	for _, m := range s.all {
		is := func(r *rule) bool { return r.id == m.rule.id }
		if m.match(&unknown, name) == unscanned && !slices.ContainsFunc(clean, is) && !slices.ContainsFunc(hit, func(d described) bool { return is(d.rule) }) {
			clean = append(clean, m.rule)
		}
	}
	slices.SortStableFunc(clean, func(a, b *rule) int { return strings.Compare(a.id, b.id) })
	return clean
}
