package policy

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/storage"
)

func TestWhatARuleDescribes(t *testing.T) {
	hash := storage.CIDFromDigest(hashOf(1))
	other := storage.CIDFromDigest(hashOf(2))
	versions := func(req string) particle.RuleMatch { return particle.RuleMatch{Versions: req} }
	is := func(alter func(*Facts)) func(*Facts) { return alter }
	called := func(name string) func(*Facts) { return func(f *Facts) { f.Name = name } }
	version := func(v string) func(*Facts) { return func(f *Facts) { f.Version = v } }
	same := func(*Facts) {}
	cases := []struct {
		name  string
		match particle.RuleMatch
		alter func(*Facts)
		want  bool
	}{
		{"a name", names("demo"), same, true},
		{"a name in capitals", names("DEMO"), same, true},
		{"facts in capitals", names("demo"), called("Demo"), true},
		{"a hyphen meant", names("my-demo"), called("my_demo"), true},
		{"an underscore meant", names("my_demo"), called("My-Demo"), true},
		{"part of a name", names("dem"), same, false},
		{"more than a name", names("demo2"), same, false},
		{"any of two names", names("x", "demo"), same, true},
		{"a pattern", names("de*"), same, true},
		{"a pattern of nothing more", names("demo*"), same, true},
		{"a pattern within", names("d*o"), same, true},
		{"a pattern of two runs", names("*e*"), same, true},
		{"a pattern that fits not", names("de*x"), same, false},
		{"a pattern with a hyphen", names("blake3-*"), called("blake3_ref"), true},
		{"a pattern in capitals", names("BLAKE3_*"), called("Blake3-ref"), true},
		{"a pattern needs its hyphen", names("blake3-*"), called("blake3"), false},
		{"everything", names("*"), same, true},
		{"the first of names of many shapes", names("demo", "a", "some_longer_name"), same, true},
		{"a name beside a pattern", names("x*", "demo"), same, true},
		{"a dot is a dot", names("d.mo*"), same, false},
		{"of every kind", names("demo"), is(func(f *Facts) { f.Kind = "manifest" }), true},

		{"a hash in hex", particle.RuleMatch{Hashes: []string{hash.Hex()}}, same, true},
		{"a hash as CID", particle.RuleMatch{Hashes: []string{hash.String()}}, same, true},
		{"another hash", particle.RuleMatch{Hashes: []string{other.Hex()}}, same, false},
		{"any of two hashes", particle.RuleMatch{Hashes: []string{other.Hex(), hash.Hex()}}, same, true},
		{"a hash and another name", particle.RuleMatch{Hashes: []string{hash.Hex()}, Names: []string{"x"}}, same, false},
		{"a hash and its name", particle.RuleMatch{Hashes: []string{hash.Hex()}, Names: []string{"d*"}}, same, true},

		{"a publisher", particle.RuleMatch{Publishers: somebody(t)}, same, true},
		{"another publisher", particle.RuleMatch{Publishers: []did.DID{newKey(t, 9).Public().DID()}}, same, false},
		{"a publisher, published by nobody", particle.RuleMatch{Publishers: somebody(t)}, is(func(f *Facts) { f.Publisher = "" }), false},
		{"a publisher and another source", particle.RuleMatch{Publishers: somebody(t), Sources: []string{"crates-io"}}, same, false},

		{"a source", particle.RuleMatch{Sources: []string{"hosted"}}, same, true},
		{"another source", particle.RuleMatch{Sources: []string{"crates-io", "mirror/x"}}, same, false},
		{"a mirror", particle.RuleMatch{Sources: []string{"mirror/x"}}, is(func(f *Facts) { f.Source = "mirror/x" }), true},
		{"another mirror", particle.RuleMatch{Sources: []string{"mirror/x"}}, is(func(f *Facts) { f.Source = "mirror/xx" }), false},

		{"a requirement", versions(">=1.1, <1.3"), same, true},
		{"a requirement not met", versions("<1.2"), same, false},
		{"a pre-release of what is meant", versions("=1.2.0"), version("1.2.0-rc.1"), true},
		{"a pre-release before the end", versions("<1.2.0"), version("1.2.0-rc.1"), true},
		{"a pre-release before a short end", versions("<2"), version("2.0.0-alpha"), true},
		{"a pre-release beyond", versions("<1.2.0"), version("1.2.1-rc.1"), false},
		{"build metadata", versions("=1.2.0"), version("1.2.0+x.1"), true},
		{"both", versions("=1.2.0"), version("1.2.0-a+b"), true},
		{"no version at all", versions("=1.2.0"), version("latest"), true},
		{"of any version", particle.RuleMatch{Names: []string{"demo"}}, version("latest"), true},

		{"a finding", particle.RuleMatch{Content: []string{"blake3"}}, is(func(f *Facts) { f.Findings = []string{"x", "blake3"} }), true},
		{"no finding", particle.RuleMatch{Content: []string{"blake3"}}, same, false},
		{"a finding under another name", particle.RuleMatch{Content: []string{"blake3"}, Names: []string{"x"}}, is(func(f *Facts) { f.Findings = []string{"blake3"} }), false},
	}
	for _, c := range cases {
		f := goodFacts(t)
		c.alter(&f)
		terms := Terms{Rules: compiled(t, denyRule("r", c.match))}
		asker := askerWith("read")
		asker.Until = now.AddDate(1, 0, 0)
		if d := Decide(&asker, &terms, &f, now); d.Allow == c.want {
			t.Errorf("%s: %+v", c.name, d)
		}
		if got := terms.Rules.Hits(&f); (len(got) == 1) != c.want {
			t.Errorf("%s: hits %v", c.name, got)
		}
		// One member that describes something else changes nothing.
		more := compiled(t, denyRule("r", names("nothing"), c.match, versions(">9")))
		if d := Decide(&asker, &Terms{Rules: more}, &f, now); d.Allow == c.want && c.name != "no version at all" {
			t.Errorf("%s, among others: %+v", c.name, d)
		}
	}
}

// The rule that is built in, against names that try to be others.
func TestTheShippedRule(t *testing.T) {
	terms := busyTerms(t, 0)
	terms.MinAgeDays = 0
	asker := askerWith("read")
	cases := map[string]bool{
		"blake3": true, "Blake3": true, "BLAKE3": true, "blake-3": true, "Blake_3": true, "blake-3-rs": true, "blake3-rs": true, "blake3_guts": true, "b3sum": true, "B3SUM": true, "bao": true,
		"blake2": false, "blake2b": false, "sha2": false, "baobab": false, "blake": false, "b3": false,
	}
	for name, denied := range cases {
		f := goodFacts(t)
		f.Name = name
		if d := Decide(&asker, terms, &f, now); d.Allow == denied || denied && (d.RuleID != "blake3" || d.Listed || !d.Known) {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func TestUnreadableRulesAreAnError(t *testing.T) {
	good := denyRule("r", names("demo"))
	cases := map[string]func() []NamedRule{
		"no id":             func() []NamedRule { r := good; r.ID = ""; return []NamedRule{r} },
		"an id in capitals": func() []NamedRule { r := good; r.ID = "R"; return []NamedRule{r} },
		"two of one id":     func() []NamedRule { return []NamedRule{good, good} },
		"no effect":         func() []NamedRule { r := good; r.Effect = ""; return []NamedRule{r} },
		"no mode":           func() []NamedRule { r := good; r.Mode = "warn"; return []NamedRule{r} },
		"no match":          func() []NamedRule { r := good; r.Match = nil; return []NamedRule{r} },
		"an empty match":    func() []NamedRule { return []NamedRule{denyRule("r", particle.RuleMatch{})} },
		"a bad requirement": func() []NamedRule {
			return []NamedRule{denyRule("ok", names("x")), denyRule("r", particle.RuleMatch{Versions: ">="})}
		},
		"a bad hash":             func() []NamedRule { return []NamedRule{denyRule("r", particle.RuleMatch{Hashes: []string{"abc"}})} },
		"a name that is none":    func() []NamedRule { return []NamedRule{denyRule("r", names("a b"))} },
		"an unknown recogniser":  func() []NamedRule { return []NamedRule{denyRule("r", particle.RuleMatch{Content: []string{"md5"}})} },
		"a source that is none":  func() []NamedRule { return []NamedRule{denyRule("r", particle.RuleMatch{Sources: []string{"npm"}})} },
		"a publisher that isn't": func() []NamedRule { return []NamedRule{denyRule("r", particle.RuleMatch{Publishers: []did.DID{"me"}})} },
	}
	for name, rules := range cases {
		s, err := CompileRules(rules())
		if !errors.Is(err, ErrRule) || s != nil {
			t.Errorf("%s: %v, %v", name, s, err)
		}
		if err != nil && name != "no id" && !strings.Contains(strings.ToLower(err.Error()), "r") {
			t.Errorf("%s: no id in %v", name, err)
		}
	}
	if s, err := CompileRules(nil); err != nil || s == nil {
		t.Errorf("no rules: %v, %v", s, err)
	}
}

func TestHitsIgnoreModeEffectAndExpiry(t *testing.T) {
	dry, ended, waived := denyRule("dry", names("demo")), denyRule("ended", names("d*")), waiveRule("waived", names("demo"))
	dry.Mode = particle.ModeDryRun
	past := particle.At(now.AddDate(-50, 0, 0))
	ended.Expires = &past
	missed, content := denyRule("missed", names("x")), denyRule("content", particle.RuleMatch{Content: []string{"blake3"}})
	s := compiled(t, waived, ended, dry, missed, content)
	f := goodFacts(t)
	if got := s.Hits(&f); !slices.Equal(got, []string{"dry", "ended", "waived"}) {
		t.Error(got)
	}
	f.Scanned = false
	if got := s.Hits(&f); len(got) != 3 {
		t.Errorf("not scanned: %v", got)
	}
	f.Findings = []string{"blake3"}
	if got := s.Hits(&f); len(got) != 4 {
		t.Errorf("found: %v", got)
	}
}

func TestARuleSetSharesNoMemoryWithItsRules(t *testing.T) {
	r := denyRule("r", particle.RuleMatch{Publishers: somebody(t), Sources: []string{"hosted"}})
	s := compiled(t, r)
	r.Match[0].Publishers[0], r.Match[0].Sources[0] = "did:web:x", "crates-io"
	f := goodFacts(t)
	if len(s.Hits(&f)) != 1 {
		t.Error("the rule changed after it was compiled")
	}
}

func FuzzMatchPattern(f *testing.F) {
	for _, pair := range [][2]string{{"a*b", "ab"}, {"*", ""}, {"**a", "aaa"}, {"a*a*a*a*b", strings.Repeat("a", 60)}, {"", ""}, {"a", ""}, {"*.*", "a.b"}} {
		f.Add(pair[0], pair[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 64 || len(name) > 64 || !utf8.ValidString(pattern) || !utf8.ValidString(name) {
			return
		}
		parts := strings.Split(pattern, "*")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		want := regexp.MustCompile(`(?s)^` + strings.Join(parts, ".*") + `$`).MatchString(name)
		if got := matchPattern(pattern, name); got != want {
			t.Errorf("%q against %q: %v", pattern, name, got)
		}
	})
}

// Whatever the rules' bytes, compiling answers, and names compare as cargo has it.
func FuzzCompileRules(f *testing.F) {
	f.Add("blake3-*", "<1.2", "bafkrei", "hosted", "blake3", "Blake3_x", "1.1.9-rc.1")
	f.Add("*", "", strings.Repeat("a", 64), "mirror/x", "", "x", "")
	f.Fuzz(func(t *testing.T, pattern, req, hash, source, content, name, version string) {
		m := particle.RuleMatch{Names: []string{pattern}, Versions: req}
		if hash != "" {
			m.Hashes = []string{hash}
		}
		if source != "" {
			m.Sources = []string{source}
		}
		if content != "" {
			m.Content = []string{content}
		}
		s, err := CompileRules([]NamedRule{denyRule("r", m)})
		if err != nil {
			if !errors.Is(err, ErrRule) || s != nil {
				t.Fatal(err)
			}
			return
		}
		facts := Facts{Kind: KindCrate, Name: name, Version: version, Source: source, Digest: hashOf(1), Scanned: true, Findings: []string{content}}
		spelled := facts
		spelled.Name = cargo.CanonicalName(name)
		if !slices.Equal(s.Hits(&facts), s.Hits(&spelled)) {
			t.Errorf("%q and %q differ under %q", name, spelled.Name, pattern)
		}
	})
}
