package policy

import (
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/storage"
)

const aDay = 24 * time.Hour

// outcome is what a case expects: k, l and a for Known, Listed and Allow, u for
// Unscanned, and the rule with its id.
type outcome struct {
	flags string
	rule  Rule
	id    string
}

func outcomeOf(d Decision) outcome {
	flags := ""
	for _, f := range []struct {
		set bool
		as  string
	}{{d.Known, "k"}, {d.Listed, "l"}, {d.Allow, "a"}, {d.Unscanned, "u"}} {
		if f.set {
			flags += f.as
		}
	}
	return outcome{flags, d.Rule, d.RuleID}
}

type decideCase struct {
	name  string
	alter func(*asked)
	want  outcome
	// until is ValidUntil as seconds after now, 0 for never.
	until time.Duration
}

func checkDecisions(t *testing.T, cases []decideCase) {
	t.Helper()
	for _, c := range cases {
		a := goodAsked(t)
		c.alter(a)
		d := a.decide(t)
		if got := outcomeOf(d); got != c.want {
			t.Errorf("%s: %+v, want %+v (%s)", c.name, got, c.want, d.Reason())
		}
		if want := a.now.Add(c.until); c.until == 0 && !d.ValidUntil.IsZero() || c.until != 0 && !d.ValidUntil.Equal(want) {
			t.Errorf("%s: valid until %v, want %v", c.name, d.ValidUntil, c.until)
		}
		if d.Reason() == "" || d.Rule == "" {
			t.Errorf("%s: no words: %+v", c.name, d)
		}
		if (d.Denial() == nil) != d.Allow {
			t.Errorf("%s: denial %v", c.name, d.Denial())
		}
	}
}

func grantCase(t testing.TB, alter func(*particle.EnvGrant)) func(*asked) {
	return func(a *asked) { a.under(t, alter) }
}

func TestTheGateComesFirst(t *testing.T) {
	no := func(rule Rule) outcome { return outcome{"", rule, ""} }
	checkDecisions(t, []decideCase{
		{"a member of a tier that is allowed", func(*asked) {}, outcome{"kla", RuleTier, ""}, 0},
		{"nobody", func(a *asked) { a.asker = Asker{} }, no(RuleAnonymous), 0},
		{"nobody, anonymous reading", func(a *asked) { a.asker, a.terms.AnonymousRead = Asker{}, true }, outcome{"kla", RuleAnonymous, ""}, 0},
		{"no scope for reading", func(a *asked) { a.asker.Scopes = []string{"chat", "OTA"} }, no(RuleScope), 0},
		{"a tier that is denied", func(a *asked) { a.terms.DenyTiers = []string{particle.TierGuest} }, no(RuleTier), 0},
		{"another tier is denied", func(a *asked) { a.terms.DenyTiers = []string{particle.TierCollaborator} }, outcome{"kla", RuleTier, ""}, 0},
		{"an unknown tier, where one is denied", func(a *asked) {
			a.asker.Tier, a.terms.DenyTiers = "king", []string{particle.TierGuest}
		}, no(RuleTier), 0},
		{"no tier, where one is denied", func(a *asked) { a.asker.Tier, a.terms.DenyTiers = "", []string{particle.TierGuest} }, no(RuleTier), 0},
		{"a tier that is denied, for an audit", func(a *asked) {
			a.asker.Scopes, a.terms.DenyTiers = []string{"audit"}, []string{particle.TierGuest}
		}, outcome{"kla", RuleScope, ""}, 0},
		{"barred", func(a *asked) { a.asker.Barred = deny(RuleGrant, "revoked") }, no(RuleGrant), 0},
		{"barred, for an audit", func(a *asked) { a.asker.Scopes, a.asker.Barred = []string{"audit"}, deny(RuleGrant, "revoked") }, outcome{"kla", RuleScope, ""}, 0},
		{"barred, anonymous reading", func(a *asked) {
			a.asker, a.terms.AnonymousRead = Asker{Barred: deny(RuleGrant, "revoked"), Scopes: []string{"audit"}}, true
		}, no(RuleGrant), 0},
		{"a grant named and not resolved", func(a *asked) { a.asker.GrantNamed = "bafkrei" }, no(RuleGrant), 0},
		{"a session in its last second", func(a *asked) { a.asker.Until = now.Add(time.Second) }, outcome{"kla", RuleTier, ""}, time.Second},
		{"a session that has expired this second", func(a *asked) {
			a.asker.Until, a.now = now.Add(time.Second), now.Add(time.Second+time.Millisecond)
		}, no(RuleLifetime), -time.Millisecond},
		{"a grant that was to be resolved again", func(a *asked) {
			a.asker.GrantUntil, a.now = now.Add(time.Second), now.Add(2*time.Second)
		}, no(RuleGrant), -time.Second},
		{"a grant to resolve again", func(a *asked) { a.asker.GrantUntil = now.Add(3 * time.Second) }, outcome{"kla", RuleTier, ""}, 3 * time.Second},
		{"the sooner of session and grant", func(a *asked) {
			a.asker.Until, a.asker.GrantUntil = now.Add(5*time.Second), now.Add(4*time.Second)
		}, outcome{"kla", RuleTier, ""}, 4 * time.Second},
		{"an audit waits for no grant", func(a *asked) {
			a.asker.Scopes, a.asker.Until, a.asker.GrantUntil = []string{"audit"}, now.Add(5*time.Second), now.Add(-time.Second)
		}, outcome{"kla", RuleScope, ""}, 5 * time.Second},
	})
}

func TestWhatCannotBeJudgedIsDenied(t *testing.T) {
	a := goodAsked(t)
	a.compile(t)
	for name, alter := range map[string]func(*Facts){
		"no kind":    func(f *Facts) { f.Kind = "" },
		"no name":    func(f *Facts) { f.Name = "" },
		"no version": func(f *Facts) { f.Version = "" },
		"no source":  func(f *Facts) { f.Source = "" },
		"no hash":    func(f *Facts) { f.Digest = [32]byte{} },
	} {
		f := a.facts
		alter(&f)
		if d := Decide(&a.asker, &a.terms, &f, now); outcomeOf(d) != (outcome{"", RuleUnknown, ""}) {
			t.Errorf("%s: %+v", name, d)
		}
	}
	for name, d := range map[string]Decision{
		"no asker":        Decide(nil, &a.terms, &a.facts, now),
		"no terms":        Decide(&a.asker, nil, &a.facts, now),
		"no facts":        Decide(&a.asker, &a.terms, nil, now),
		"no rules at all": Decide(&a.asker, &Terms{}, &a.facts, now),
	} {
		if outcomeOf(d) != (outcome{"", RuleUnknown, ""}) || d.Reason() == "" {
			t.Errorf("%s: %+v", name, d)
		}
	}
	if steps := Explain(&a.asker, &Terms{}, &a.facts, now); len(steps) != 1 || steps[0].Outcome != OutcomeDeny {
		t.Errorf("%+v", steps)
	}
}

func TestNothingIsAllowedFromTheSecondOnInWhichASessionEnds(t *testing.T) {
	for name, alter := range map[string]func(*Asker){
		"lifetime": func(a *Asker) { a.Until = now },
		"grant":    func(a *Asker) { a.GrantUntil = now },
	} {
		a := goodAsked(t)
		alter(&a.asker)
		if d := a.decide(t); outcomeOf(d) != (outcome{"", Rule(name), ""}) {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func TestWhatAGrantAllows(t *testing.T) {
	const cid = "bafkrei-grant"
	allowed, unlisted := outcome{"kla", RuleAllowed, cid}, outcome{"k", RuleAllowed, cid}
	hidden := outcome{"", RuleAllowed, cid}
	out := func(rule Rule, flags string) outcome { return outcome{flags, rule, cid} }
	hour := time.Hour
	under := func(alter func(*particle.EnvGrant), more func(*asked)) func(*asked) {
		return func(a *asked) { a.under(t, alter); more(a) }
	}
	nothing := func(*asked) {}
	offshore := func(g *particle.EnvGrant) { g.OffshoreFlag = true }
	other := func(a *asked) { a.facts.Digest = hashOf(9) }
	kind := func(n int) func(*asked) {
		return func(a *asked) { a.facts.Kind, a.facts.Digest = "aln-shard", hashOf(n) }
	}
	shards := func(g *particle.EnvGrant) {
		offshore(g)
		pool, domain := storage.CIDFromDigest(hashOf(5)), storage.CIDFromDigest(hashOf(6))
		g.MemoryPool, g.ExecutionDomain = &pool, &domain
	}
	all := func(g *particle.EnvGrant) { g.AllowedCrates = []string{particle.AllCrates} }
	list := particle.MarshalList([][32]byte{hashOf(1), hashOf(2)})
	listed := func(g *particle.EnvGrant) {
		id := storage.CIDOf(list)
		g.AllowedCrates, g.AllowedCratesList = nil, &id
	}
	have := func(b []byte) func(*asked) { return func(a *asked) { a.list = b } }
	both := func(of ...func(*asked)) func(*asked) {
		return func(a *asked) {
			for _, f := range of {
				f(a)
			}
		}
	}
	shore := func(of ...func(*particle.EnvGrant)) func(*particle.EnvGrant) {
		return func(g *particle.EnvGrant) {
			for _, f := range of {
				f(g)
			}
		}
	}
	at := func(d time.Duration) func(*asked) { return func(a *asked) { a.now = now.Add(d) } }
	checkDecisions(t, []decideCase{
		{"a crate that is listed", under(nil, nothing), allowed, hour},
		{"a crate that is not listed", under(nil, other), unlisted, hour},
		{"a crate listed as a CID", under(func(g *particle.EnvGrant) { g.AllowedCrates = []string{storage.CIDFromDigest(hashOf(1)).String()} }, nothing), allowed, hour},
		{"an empty list", under(func(g *particle.EnvGrant) { g.AllowedCrates = []string{} }, nothing), unlisted, hour},
		{"neither list", under(func(g *particle.EnvGrant) { g.AllowedCrates = nil }, nothing), unlisted, hour},
		{"every crate", under(all, other), allowed, hour},
		{"a star among hashes", under(func(g *particle.EnvGrant) { g.AllowedCrates = append(g.AllowedCrates, "*") }, nothing), unlisted, hour},
		{"a shard on shore", under(nil, kind(9)), allowed, hour},
		{"a list blob that names the crate", under(listed, have(list)), allowed, hour},
		{"a list blob that does not", under(listed, both(have(list), other)), unlisted, hour},
		{"a list that cannot be had", under(listed, nothing), unlisted, hour},
		{"a list that cannot be had, for a shard", under(listed, kind(9)), unlisted, hour},
		{"another list", under(listed, have(particle.MarshalList([][32]byte{hashOf(1)}))), unlisted, hour},
		{"an unreadable list", under(func(g *particle.EnvGrant) {
			id := storage.CIDOf([]byte("x"))
			g.AllowedCrates, g.AllowedCratesList = nil, &id
		}, have([]byte("x"))), unlisted, hour},
		{"an unreadable grant", under(func(g *particle.EnvGrant) { g.Tier = "king" }, nothing), unlisted, hour},

		{"offshore, listed", under(offshore, nothing), allowed, hour},
		{"offshore, not listed", under(offshore, other), hidden, hour},
		{"offshore, the list cannot be had", under(shore(offshore, listed), nothing), hidden, hour},
		{"offshore, every crate", under(shore(offshore, all), other), allowed, hour},
		{"offshore, every crate, a shard", under(shore(offshore, all), kind(1)), hidden, hour},
		{"offshore, a shard that is listed", under(offshore, kind(1)), allowed, hour},
		{"offshore, a shard that is not", under(offshore, kind(9)), hidden, hour},
		{"offshore, the memory pool", under(shards, kind(5)), allowed, hour},
		{"offshore, the execution domain", under(shards, kind(6)), allowed, hour},
		{"offshore, every crate, the memory pool", under(shore(shards, all), kind(5)), allowed, hour},
		{"offshore, a crate that is the memory pool", under(shards, func(a *asked) { a.facts.Digest = hashOf(5) }), hidden, hour},
		{"offshore, the list itself", under(shore(offshore, listed), both(have(list), func(a *asked) {
			a.facts.Kind, a.facts.Digest = "evidence-bundle", storage.CIDOf(list).Digest()
		})), allowed, hour},

		{"the second before", under(nil, at(-hour-time.Second)), out(RuleGrant, "k"), time.Second},
		{"the first second", under(nil, at(-hour)), allowed, 2 * hour},
		{"within the last second", under(nil, at(hour-time.Millisecond)), allowed, time.Millisecond},
		{"the second after", under(nil, at(hour)), out(RuleGrant, "k"), 0},
		{"offshore, the second after", under(offshore, at(hour)), out(RuleGrant, ""), 0},
		{"another host's", under(nil, func(a *asked) { a.asker.DID = newKey(t, 9).Public().DID() }), out(RuleGrant, "k"), hour},
		{"over nobody", under(nil, func(a *asked) { a.asker, a.terms.AnonymousRead = Asker{}, true }), out(RuleGrant, "k"), hour},
		{"over an audit", under(nil, func(a *asked) { other(a); a.asker.Scopes = []string{"read", "audit"} }), outcome{"kla", RuleScope, ""}, 0},
		{"in a tier that is denied", under(nil, func(a *asked) { a.terms.DenyTiers = []string{particle.TierGuest} }), allowed, hour},
	})
}

func TestCooldown(t *testing.T) {
	young := outcome{"k", RuleCooldown, ""}
	old := outcome{"kla", RuleTier, ""}
	aged := func(age time.Duration, days int64, more ...func(*asked)) func(*asked) {
		return func(a *asked) {
			a.facts.Since, a.terms.MinAgeDays = now.Add(-age), days
			for _, f := range more {
				f(a)
			}
		}
	}
	waived := func(expires time.Duration, match particle.RuleMatch) func(*asked) {
		return func(a *asked) {
			r := waiveRule("waive", match)
			if expires != 0 {
				at := particle.At(now.Add(expires))
				r.Expires = &at
			}
			a.rules = append(a.rules, r)
		}
	}
	dry := func(a *asked) { a.rules[len(a.rules)-1].Mode = particle.ModeDryRun }
	demo := names("demo")
	grantDays := func(days int64) func(*asked) {
		return grantCase(t, func(g *particle.EnvGrant) { g.MinAgeDays = days })
	}
	underGrant := outcome{"kla", RuleAllowed, "bafkrei-grant"}
	checkDecisions(t, []decideCase{
		{"a second too young", aged(7*aDay-time.Second, 7), young, time.Second},
		{"old enough this second", aged(7*aDay, 7), old, 0},
		{"part of a second too young", aged(7*aDay-time.Millisecond, 7), young, time.Second},
		{"no cooldown", aged(0, 0), old, 0},
		{"published in the future", aged(-time.Hour, 1), young, aDay + time.Hour},
		{"of an unknown age", aged(0, 1, func(a *asked) { a.facts.Since = time.Time{} }), young, 0},
		{"of an unknown age, no cooldown", aged(0, 0, func(a *asked) { a.facts.Since = time.Time{} }), old, 0},
		{"more days than time has", aged(0, 1<<62), young, 0},
		{"a shard", aged(0, 1, func(a *asked) { a.facts.Kind = "aln-shard" }), young, aDay},
		{"nobody", aged(0, 1, func(a *asked) { a.asker, a.terms.AnonymousRead = Asker{}, true }), young, aDay},
		{"an audit", aged(0, 1, func(a *asked) { a.asker.Scopes = []string{"audit"} }), outcome{"kla", RuleScope, ""}, 0},
		{"the grant's is longer", aged(2*aDay, 1, grantDays(3)), young, time.Hour},
		{"the registry's is longer", aged(2*aDay, 3, grantDays(1)), young, time.Hour},
		{"both are over", aged(3*aDay, 3, grantDays(3)), underGrant, time.Hour},
		{"waived", aged(0, 1, waived(0, demo)), old, 0},
		{"waived until a second", aged(0, 1, waived(time.Minute, demo)), old, time.Minute},
		{"waived until after it is old", aged(0, 1, waived(2*aDay, demo)), old, 0},
		{"a waiver that ends this second", aged(0, 1, waived(time.Second, demo), func(a *asked) { a.now = now.Add(time.Second) }), young, aDay - time.Second},
		{"waived by two, until the last ends", aged(0, 1, waived(time.Minute, demo), waived(time.Hour, demo), func(a *asked) { a.rules[1].ID = "a-second" }), old, time.Hour},
		{"waived by two, the first ends last", aged(0, 1, waived(time.Hour, demo), waived(time.Minute, demo), func(a *asked) { a.rules[1].ID = "z-second" }), old, time.Hour},
		{"waived by two, one of them for ever", aged(0, 1, waived(time.Hour, demo), waived(0, demo), func(a *asked) { a.rules[1].ID = "z-second" }), old, 0},
		{"a waiver of another", aged(0, 1, waived(0, names("demon"))), young, aDay},
		{"a waiver in dry_run", aged(0, 1, waived(0, demo), dry), young, aDay},
		{"a waiver of a publisher", aged(0, 1, waived(0, particle.RuleMatch{Publishers: somebody(t)})), old, 0},
		{"a waiver of the hash", aged(0, 1, waived(0, particle.RuleMatch{Hashes: []string{storage.CIDFromDigest(hashOf(1)).Hex()}})), old, 0},
		{"a waiver of what was found", aged(0, 1, waived(0, particle.RuleMatch{Content: []string{"blake3"}}), func(a *asked) { a.facts.Findings = []string{"blake3"} }), old, 0},
		{"a waiver of what could not be read", aged(0, 1, waived(0, particle.RuleMatch{Content: []string{"blake3"}}), func(a *asked) { a.facts.Findings = []string{FindingUnreadable} }), young, aDay},
		{"a waiver of what was not scanned", aged(0, 1, waived(0, particle.RuleMatch{Content: []string{"blake3"}}), func(a *asked) { a.facts.Scanned = false }), young, aDay},
		{"a waiver of releases, for a pre-release", aged(0, 1, waived(0, particle.RuleMatch{Versions: "*"}), func(a *asked) { a.facts.Version = "1.0.0-rc.1" }), young, aDay},
		{"a waiver of versions, for none", aged(0, 1, waived(0, particle.RuleMatch{Versions: "*"}), func(a *asked) { a.facts.Version = "one" }), young, aDay},
		{"a waiver does not beat a denial", aged(0, 1, waived(0, demo), func(a *asked) { a.rules = append(a.rules, denyRule("no", demo)) }), outcome{"k", RuleQuarantine, "no"}, 0},
	})
}

func TestQuarantine(t *testing.T) {
	demo := names("demo")
	type times struct{ grace, expires time.Duration }
	rule := func(id, mode string, at times, match particle.RuleMatch) NamedRule {
		r := denyRule(id, match)
		r.Mode = mode
		if at.grace != 0 {
			end := particle.At(now.Add(at.grace))
			r.Grace = &end
		}
		if at.expires != 0 {
			end := particle.At(now.Add(at.expires))
			r.Expires = &end
		}
		return r
	}
	const enforce, dry = particle.ModeEnforce, particle.ModeDryRun
	with := func(more func(*asked), rules ...NamedRule) func(*asked) {
		return func(a *asked) {
			a.rules = rules
			if more != nil {
				more(a)
			}
		}
	}
	at := func(d time.Duration) func(*asked) { return func(a *asked) { a.now = now.Add(d) } }
	scanned := func(yes bool, found ...string) func(*asked) {
		return func(a *asked) { a.facts.Scanned, a.facts.Findings = yes, found }
	}
	content := particle.RuleMatch{Content: []string{"blake3"}}
	no := func(id string) outcome { return outcome{"k", RuleQuarantine, id} }
	yes, grace := outcome{"kla", RuleTier, ""}, outcome{"ka", RuleQuarantine, "r"}
	unknown := outcome{"klu", RuleQuarantine, "r"}
	audit := func(a *asked) { a.asker.Scopes = []string{"audit"} }
	s, m := time.Second, time.Minute
	checkDecisions(t, []decideCase{
		{"hit", with(nil, rule("r", enforce, times{}, demo)), no("r"), 0},
		{"missed", with(nil, rule("r", enforce, times{}, names("other"))), yes, 0},
		{"until it expires", with(nil, rule("r", enforce, times{expires: m}, demo)), no("r"), m},
		{"in its last second", with(at(m-s), rule("r", enforce, times{expires: m}, demo)), no("r"), s},
		{"expired this second", with(at(m), rule("r", enforce, times{expires: m}, demo)), yes, 0},
		{"in grace", with(nil, rule("r", enforce, times{grace: m}, demo)), grace, m},
		{"in the last second of grace", with(at(m-s), rule("r", enforce, times{grace: m, expires: 2 * m}, demo)), grace, s},
		{"grace over this second", with(at(m), rule("r", enforce, times{grace: m, expires: 2 * m}, demo)), no("r"), m},
		{"dry run", with(nil, rule("r", dry, times{}, demo)), yes, 0},
		{"dry run that expires", with(nil, rule("r", dry, times{expires: m}, demo)), yes, m},
		{"enforced before grace", with(nil, rule("a", enforce, times{grace: m}, demo), rule("z", enforce, times{}, demo)), no("z"), m},
		{"by id", with(nil, rule("z", enforce, times{}, demo), rule("b", enforce, times{}, names("d*")), rule("c", enforce, times{}, demo)), no("b"), 0},
		{"an audit", with(audit, rule("r", enforce, times{}, demo)), no("r"), 0},
		{"an audit in grace", with(audit, rule("r", enforce, times{grace: m}, demo)), grace, m},
		{"nobody", with(func(a *asked) { a.asker, a.terms.AnonymousRead = Asker{}, true }, rule("r", enforce, times{}, demo)), no("r"), 0},
		{"in grace and too young", with(func(a *asked) { a.facts.Since, a.terms.MinAgeDays = now, 1 }, rule("r", enforce, times{grace: m}, demo)), outcome{"k", RuleCooldown, ""}, m},
		{"in grace and not listed", with(func(a *asked) { a.under(t, nil); a.facts.Digest = hashOf(9) }, rule("r", enforce, times{grace: m}, demo)), outcome{"k", RuleAllowed, "bafkrei-grant"}, m},
		{"hit and not listed", with(func(a *asked) { a.under(t, nil); a.facts.Digest = hashOf(9) }, rule("r", enforce, times{}, demo)), no("r"), time.Hour},
		{"hit and hidden offshore", with(func(a *asked) {
			a.under(t, func(g *particle.EnvGrant) { g.OffshoreFlag = true })
			a.facts.Digest = hashOf(9)
		}, rule("r", enforce, times{}, demo)), outcome{"", RuleQuarantine, "r"}, time.Hour},

		{"content found", with(scanned(true, "blake3"), rule("r", enforce, times{}, content)), no("r"), 0},
		{"content not found", with(scanned(true), rule("r", enforce, times{}, content)), yes, 0},
		{"something else found", with(scanned(true, "other"), rule("r", enforce, times{}, content)), yes, 0},
		{"content unreadable", with(scanned(true, FindingUnreadable), rule("r", enforce, times{}, content)), no("r"), 0},
		{"not scanned", with(scanned(false), rule("r", enforce, times{}, content)), unknown, 0},
		{"not scanned, until the rule ends", with(scanned(false), rule("r", enforce, times{expires: m}, content)), unknown, m},
		{"not scanned, in dry run", with(scanned(false), rule("r", dry, times{}, content)), yes, 0},
		{"not scanned, in grace", with(scanned(false), rule("r", enforce, times{grace: m}, content)), yes, m},
		{"not scanned, grace over", with(func(a *asked) { scanned(false)(a); at(m)(a) }, rule("r", enforce, times{grace: m}, content)), unknown, 0},
		{"not scanned, no crate", with(func(a *asked) { scanned(false)(a); a.facts.Kind = "manifest" }, rule("r", enforce, times{}, content)), yes, 0},
		{"not scanned, another name meant", with(scanned(false), rule("r", enforce, times{}, particle.RuleMatch{Names: []string{"x"}, Content: []string{"blake3"}})), yes, 0},
		{"not scanned, hit by name", with(scanned(false), rule("r", enforce, times{}, demo), rule("c", enforce, times{}, content)), no("r"), 0},
		{"not scanned, in grace by name", with(scanned(false), rule("g", enforce, times{grace: m}, demo), rule("r", enforce, times{}, content)), outcome{"ku", RuleQuarantine, "r"}, m},
		{"not scanned and not listed", with(func(a *asked) { scanned(false)(a); a.under(t, nil); a.facts.Digest = hashOf(9) }, rule("r", enforce, times{}, content)), outcome{"k", RuleAllowed, "bafkrei-grant"}, time.Hour},
		{"not scanned and too young", with(func(a *asked) {
			scanned(false)(a)
			a.facts.Since, a.terms.MinAgeDays = now, 1
		}, rule("r", enforce, times{}, content)), outcome{"k", RuleCooldown, ""}, aDay},
	})
}

func TestADryRunIsTold(t *testing.T) {
	a := goodAsked(t)
	for _, id := range []string{"z", "b", "c"} {
		r := denyRule(id, names("demo"))
		r.Mode = particle.ModeDryRun
		a.rules = append(a.rules, r)
	}
	if d := a.decide(t); d.DryRun != "b" || !d.Allow {
		t.Errorf("%+v", d)
	}
	a.rules = append(a.rules, denyRule("a", names("demo")))
	if d := a.decide(t); d.DryRun != "b" || d.RuleID != "a" {
		t.Errorf("%+v", d)
	}
}

func TestTheRefusalSaysRuleReasonAndWhomToAsk(t *testing.T) {
	a := goodAsked(t)
	a.rules = []NamedRule{denyRule("blake3", names("demo"))}
	const want = "Demo 1.2.0 is denied by rule quarantine blake3: because of blake3; ask a reviewer of this registry (aln-registry why Demo@1.2.0 says more)"
	if got := a.decide(t).Refusal("Demo", "1.2.0"); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	ask := map[string]func(*asked){
		"ask a grantor":                       func(a *asked) { a.under(t, nil); a.facts.Digest = hashOf(9) },
		"wait, or ask a reviewer":             func(a *asked) { a.facts.Since, a.terms.MinAgeDays = now, 1 },
		"log in":                              func(a *asked) { a.asker = Asker{} },
		"ask an admin":                        func(a *asked) { a.facts.Source = "" },
		"rule cooldown: it has to be 1 ":      func(a *asked) { a.facts.Since, a.terms.MinAgeDays = now, 1 },
		"which it is at 2026-07-02T12:00:00Z": func(a *asked) { a.facts.Since, a.terms.MinAgeDays = now, 1 },
		"ended at 2026-07-01T13:00:00Z":       func(a *asked) { a.under(t, nil); a.now = now.Add(time.Hour) },
		"from 2026-07-01T11:00:00Z on":        func(a *asked) { a.under(t, nil); a.now = now.Add(-2 * time.Hour) },
	}
	for text, alter := range ask {
		a := goodAsked(t)
		alter(a)
		if got := a.decide(t).Refusal("demo", "1.2.0"); !strings.Contains(got, text) || !strings.HasPrefix(got, "demo 1.2.0 is denied by rule ") {
			t.Errorf("no %q in %s", text, got)
		}
	}
}
