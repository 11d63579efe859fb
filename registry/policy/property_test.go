package policy

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/storage"
)

// moments are few, so that boundaries meet.
func moment(t *rapid.T, label string) time.Time {
	return now.Add(time.Duration(rapid.IntRange(-6, 6).Draw(t, label)) * 12 * time.Hour)
}

func maybeMoment(t *rapid.T, label string) *particle.Time {
	if rapid.Bool().Draw(t, label+" is there") {
		at := particle.At(moment(t, label))
		return &at
	}
	return nil
}

func anyOf[T any](t *rapid.T, label string, from ...T) []T {
	list := []T{}
	for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(0, len(from)-1), 0, 2, rapid.ID[int]).Draw(t, label) {
		list = append(list, from[i])
	}
	return list
}

var people = []did.DID{"did:web:a.example", "did:web:b.example"}

func anyMatch(t *rapid.T) particle.RuleMatch {
	m := particle.RuleMatch{
		Names: anyOf(t, "names", "demo", "Other-One", "d*", "*"), Versions: rapid.SampledFrom([]string{"", "", "<1.2", "*", "=1.2.0"}).Draw(t, "versions"),
		Hashes:     anyOf(t, "hashes", storage.CIDFromDigest(hashOf(0)).Hex(), storage.CIDFromDigest(hashOf(1)).String()),
		Publishers: anyOf(t, "publishers", people...), Sources: anyOf(t, "sources", "hosted", "crates-io"), Content: anyOf(t, "content", "blake3"),
	}
	// Mostly few of them, or hardly anything would hit.
	for i, clear := range []func(){func() { m.Names = []string{} }, func() { m.Hashes = []string{} }, func() { m.Publishers = []did.DID{} }, func() { m.Sources = []string{} }, func() { m.Content = []string{} }} {
		if rapid.IntRange(0, 3).Draw(t, "keep") != i%4 {
			clear()
		}
	}
	if len(m.Names)+len(m.Versions)+len(m.Hashes)+len(m.Publishers)+len(m.Sources)+len(m.Content) == 0 {
		m.Names = []string{"demo"}
	}
	return m
}

func anyRule(t *rapid.T, id string) NamedRule {
	r := NamedRule{ID: id, QuarantineRule: particle.QuarantineRule{
		Effect: rapid.SampledFrom([]string{particle.EffectDeny, particle.EffectDeny, particle.EffectWaiveMinAge}).Draw(t, "effect"),
		Mode:   rapid.SampledFrom([]string{particle.ModeEnforce, particle.ModeEnforce, particle.ModeDryRun}).Draw(t, "mode"),
		Reason: id, Expires: maybeMoment(t, "expires"),
	}}
	for range rapid.IntRange(1, 2).Draw(t, "members") {
		r.Match = append(r.Match, anyMatch(t))
	}
	if r.Effect == particle.EffectDeny {
		if grace := maybeMoment(t, "grace"); grace != nil && (r.Expires == nil || grace.Before(r.Expires.Time)) {
			r.Grace = grace
		}
	}
	return r
}

func anyRules(t *rapid.T) []NamedRule {
	var rules []NamedRule
	for _, id := range []string{"a", "b", "c", "d"}[:rapid.IntRange(0, 4).Draw(t, "rules")] {
		rules = append(rules, anyRule(t, id))
	}
	return rules
}

func anyGrant(t *rapid.T, subject did.DID) *Grant {
	from := moment(t, "not before")
	g := particle.EnvGrant{
		Registry: people[0], Issuer: people[0], Subject: subject, NotBefore: particle.At(from),
		Expires: particle.At(from.Add(time.Duration(rapid.IntRange(1, 8).Draw(t, "lasts")) * 12 * time.Hour)),
		Tier:    particle.TierGuest, OffshoreFlag: rapid.Bool().Draw(t, "offshore"), MinAgeDays: int64(rapid.IntRange(0, 3).Draw(t, "grant days")),
		AllowedProtocols: []string{}, AllowedEndpoints: []string{},
	}
	list := particle.MarshalList([][32]byte{hashOf(0)})
	id := storage.CIDOf(list)
	switch rapid.IntRange(0, 3).Draw(t, "lists") {
	case 0:
		g.AllowedCrates = []string{particle.AllCrates}
	case 1:
		g.AllowedCratesList = &id
	case 2:
		g.AllowedCratesList = &id
		return CompileGrant("grant", g, nil, false)
	default:
		g.AllowedCrates = anyOf(t, "hashes", storage.CIDFromDigest(hashOf(0)).Hex(), storage.CIDFromDigest(hashOf(1)).Hex())
	}
	return CompileGrant("grant", g, list, true)
}

func anyAsker(t *rapid.T) Asker {
	if rapid.IntRange(0, 9).Draw(t, "anonymous") == 0 {
		return Asker{}
	}
	a := Asker{
		DID: people[0], Scopes: []string{rapid.SampledFrom([]string{"read", "read", "build", "audit", "chat"}).Draw(t, "scope")},
		Tier: rapid.SampledFrom([]string{particle.TierGuest, particle.TierCoreStakeholder, ""}).Draw(t, "tier"),
	}
	if until := maybeMoment(t, "until"); until != nil {
		a.Until = until.Time
	}
	if until := maybeMoment(t, "grant until"); until != nil && rapid.Bool().Draw(t, "grant ends") {
		a.GrantUntil = until.Time
	}
	switch rapid.IntRange(0, 9).Draw(t, "bound") {
	case 0:
		a.Barred = deny(RuleGrant, "barred")
	case 1:
		a.GrantNamed = "grant"
	case 2, 3, 4, 5:
		a.GrantNamed, a.Grant = "grant", anyGrant(t, rapid.SampledFrom([]did.DID{people[0], people[0], people[0], people[1]}).Draw(t, "subject"))
	}
	return a
}

func anyFacts(t *rapid.T) Facts {
	f := Facts{
		Kind: rapid.SampledFrom([]string{KindCrate, KindCrate, "aln-shard"}).Draw(t, "kind"), Name: rapid.SampledFrom([]string{"demo", "Demo", "other_one"}).Draw(t, "name"),
		Version: rapid.SampledFrom([]string{"1.2.0", "1.2.0-rc.1", "1.1.0+x", "?"}).Draw(t, "version"), Digest: hashOf(rapid.IntRange(0, 2).Draw(t, "hash")),
		Publisher: rapid.SampledFrom(append(people, "")).Draw(t, "publisher"), Source: rapid.SampledFrom([]string{"hosted", "crates-io"}).Draw(t, "source"),
		Since: moment(t, "since"), Scanned: rapid.Bool().Draw(t, "scanned"),
	}
	if f.Scanned {
		f.Findings = anyOf(t, "findings", "blake3", FindingUnreadable)
	}
	if rapid.IntRange(0, 9).Draw(t, "age unknown") == 0 {
		f.Since = time.Time{}
	}
	return f
}

type scene struct {
	asker Asker
	terms Terms
	facts Facts
	rules []NamedRule
	now   time.Time
}

func anyScene(t *rapid.T) scene {
	s := scene{asker: anyAsker(t), facts: anyFacts(t), rules: anyRules(t), now: moment(t, "now")}
	s.terms = Terms{MinAgeDays: int64(rapid.IntRange(0, 2).Draw(t, "days")), Settings: Settings{AnonymousRead: rapid.Bool().Draw(t, "open")}}
	if rapid.Bool().Draw(t, "tier denied") {
		s.terms.DenyTiers = []string{particle.TierGuest}
	}
	return s
}

func (s *scene) decide(t *rapid.T, rules []NamedRule) Decision {
	set, err := CompileRules(rules)
	if err != nil {
		t.Fatal(err)
	}
	s.terms.Rules = set
	return Decide(&s.asker, &s.terms, &s.facts, s.now)
}

// wider: a lets the asker do what b does not.
func wider(a, b Decision) bool {
	return a.Known && !b.Known || a.Listed && !b.Listed || a.Allow && !b.Allow
}

func TestTheOrderOfRulesDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anyScene(t)
		want := s.decide(t, s.rules)
		shuffled := rapid.Permutation(s.rules).Draw(t, "order")
		for i := range shuffled {
			shuffled[i].Match = slices.Clone(shuffled[i].Match)
			slices.Reverse(shuffled[i].Match)
		}
		if got := s.decide(t, shuffled); !alike(got, want) {
			t.Fatalf("%+v\nand in another order %+v", want, got)
		}
	})
}

// alike: the same to everybody who can ask.
func alike(a, b Decision) bool {
	words := a.Reason() == b.Reason()
	a.say, b.say = reason{}, reason{}
	return words && a == b
}

func TestARuleThatDeniesNeverWidens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anyScene(t)
		before := s.decide(t, s.rules)
		more := anyRule(t, "more")
		more.Effect = particle.EffectDeny
		if after := s.decide(t, append(slices.Clone(s.rules), more)); wider(after, before) {
			t.Fatalf("%+v\nand with %+v\n%+v", before, more, after)
		}
		if after := s.decide(t, append(slices.Clone(s.rules), denyRule("all", names("*")))); after.Allow || after.Listed || after.Known != before.Known {
			t.Fatalf("%+v\nand with a rule about everything %+v", before, after)
		}
	})
}

func TestAWaiverOnlyWaivesTheCooldown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anyScene(t)
		before := s.decide(t, s.rules)
		after := s.decide(t, append(slices.Clone(s.rules), waiveRule("more", names("*"))))
		if before.Rule != RuleCooldown && !alike(before, withoutWaiverTime(after, before)) {
			t.Fatalf("%+v\nand waived %+v", before, after)
		}
		if after.Rule == RuleCooldown {
			t.Fatalf("waived, and yet %+v", after)
		}
		s.terms.MinAgeDays = 0
		if s.asker.Grant != nil {
			g := *s.asker.Grant
			g.MinAgeDays = 0
			s.asker.Grant = &g
		}
		if never := s.decide(t, s.rules); never.Allow != after.Allow || never.Listed != after.Listed || never.Known != after.Known {
			t.Fatalf("waived %+v\nwithout a cooldown %+v", after, never)
		}
	})
}

// withoutWaiverTime: a waiver that never ends makes a decision valid for longer.
func withoutWaiverTime(d, as Decision) Decision {
	if d.ValidUntil.IsZero() || !as.ValidUntil.IsZero() && as.ValidUntil.Before(d.ValidUntil) {
		d.ValidUntil = as.ValidUntil
	}
	return d
}

func TestValidUntilIsRight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anyScene(t)
		first := s.decide(t, s.rules)
		if !first.ValidUntil.IsZero() && !first.ValidUntil.After(s.now) {
			return // good for now only
		}
		for _, after := range []time.Duration{time.Second, 12*time.Hour - time.Second, 12 * time.Hour, 36 * time.Hour, 1000 * 24 * time.Hour} {
			later := s
			if later.now = s.now.Add(after); !first.ValidUntil.IsZero() && !later.now.Before(first.ValidUntil) {
				later.now = first.ValidUntil.Add(-time.Nanosecond)
			}
			if got := Decide(&later.asker, &later.terms, &later.facts, later.now); !alike(got, first) {
				t.Fatalf("at %v %+v %s\nat %v %+v %s", s.now, first, first.Reason(), later.now, got, got.Reason())
			}
		}
	})
}

func TestExplainAgreesWithDecide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anyScene(t)
		d := s.decide(t, s.rules)
		steps := Explain(&s.asker, &s.terms, &s.facts, s.now)
		i := slices.IndexFunc(steps, func(s Step) bool { return s.Outcome == OutcomeDeny })
		if d.Allow != (i < 0) {
			t.Fatalf("%+v, steps %+v", d, steps)
		}
		if i >= 0 && (steps[i].Rule != d.Rule || steps[i].ID != d.RuleID || steps[i].Reason != d.Reason()) {
			t.Fatalf("%+v %s, first %+v", d, d.Reason(), steps[i])
		}
		if j := slices.IndexFunc(steps, func(s Step) bool { return s.Outcome == OutcomeWouldDeny }); (d.DryRun != "") != (j >= 0) || j >= 0 && steps[j].ID != d.DryRun {
			t.Fatalf("dry run %q, steps %+v", d.DryRun, steps)
		}
	})
}

func TestWhatIsAllowedIsKnownAndWhatIsListedIsAllowedOrUnscanned(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anyScene(t)
		d := s.decide(t, s.rules)
		if d.Allow && !d.Known || d.Listed && !d.Known || d.Listed && !d.Allow && !d.Unscanned || d.Unscanned && d.Allow || d.Rule == "" || d.Reason() == "" {
			t.Fatalf("%+v", d)
		}
		if audit := slices.Contains(s.asker.Scopes, "audit"); !audit && s.asker.Grant != nil && d.Allow {
			if g := s.asker.Grant; g.Unreadable() != "" || g.Subject != s.asker.DID || s.now.Before(g.NotBefore.Time) || !s.now.Before(g.Expires.Time) {
				t.Fatalf("allowed by a grant that allows nothing: %+v", d)
			}
		}
		s.facts.Scanned = true
		if again := s.decide(t, s.rules); d.Unscanned && !again.Allow {
			t.Fatalf("scanned without a finding, and yet %+v", again)
		}
	})
}

// What judges is in force, and until says for how long the answer holds.
func TestResolvingKeepsItsUntil(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var grants []HostGrant
		for _, cid := range []string{"a", "b", "c", "d"}[:rapid.IntRange(0, 4).Draw(t, "grants")] {
			from := moment(t, "from")
			g := HostGrant{CID: cid, NotBefore: from, Expires: from.Add(time.Duration(rapid.IntRange(1, 6).Draw(t, "lasts")) * 12 * time.Hour), Revoked: rapid.IntRange(0, 4).Draw(t, "revoked") == 0, Entitled: rapid.IntRange(0, 4).Draw(t, "entitled") > 0}
			if n := len(grants); n > 0 && grants[n-1].SupersededBy == "" && rapid.Bool().Draw(t, "supersedes") {
				grants[n-1].SupersededBy = cid
			}
			grants = append(grants, g)
		}
		named, at := rapid.SampledFrom([]string{"", "", "a", "b", "c", "x"}).Draw(t, "named"), moment(t, "now")
		cid, until, denial := ResolveGrant(named, grants, at)
		if denial != nil && cid != "" {
			t.Fatalf("%q and %v", cid, denial)
		}
		if cid != "" {
			i := slices.IndexFunc(grants, func(g HostGrant) bool { return g.CID == cid })
			if ok, why := grants[i].InForce(at); !ok {
				t.Fatalf("%s judges, and %s", cid, why)
			}
		}
		later := at.Add(time.Duration(rapid.IntRange(0, 500).Draw(t, "later")) * time.Hour)
		if !until.IsZero() && !later.Before(until) {
			later = until.Add(-time.Second)
		}
		again, _, denied := ResolveGrant(named, grants, later)
		if !until.IsZero() && !until.After(at) || again != cid || (denied == nil) != (denial == nil) {
			t.Fatalf("%q %v until %v; at %v %q %v", cid, denial, until, later, again, denied)
		}
	})
}
