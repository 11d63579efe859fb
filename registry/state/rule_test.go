package state

import (
	"errors"
	"slices"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
)

const (
	leftPad = "rule/left-pad"
	blake3  = "rule/blake3" // shipped
)

func match(edits ...func(*particle.RuleMatch)) particle.RuleMatch {
	m := particle.RuleMatch{Names: []string{"left-pad"}, Hashes: []string{}, Publishers: []did.DID{}, Sources: []string{}, Content: []string{}}
	for _, edit := range edits {
		edit(&m)
	}
	return m
}

// quarantine is a rule that denies left-pad.
func quarantine(edits ...func(*record.Quarantine)) *record.Quarantine {
	q := &record.Quarantine{QuarantineRule: particle.QuarantineRule{
		Effect: particle.EffectDeny, Mode: particle.ModeEnforce, Match: []particle.RuleMatch{match()}, Reason: "it vanished once",
	}}
	for _, edit := range edits {
		edit(q)
	}
	return q
}

func mode(m string) func(*record.Quarantine) { return func(q *record.Quarantine) { q.Mode = m } }
func reason(s string) func(*record.Quarantine) {
	return func(q *record.Quarantine) { q.Reason = s }
}
func matching(m ...particle.RuleMatch) func(*record.Quarantine) {
	return func(q *record.Quarantine) { q.Match = m }
}
func expiring(at time.Time) func(*record.Quarantine) {
	return func(q *record.Quarantine) { t := particle.At(at); q.Expires = &t }
}
func grace(at time.Time) func(*record.Quarantine) {
	return func(q *record.Quarantine) { t := particle.At(at); q.Grace = &t }
}
func waiving(q *record.Quarantine) { q.Effect = particle.EffectWaiveMinAge }

func (w *world) rule(text string) Rule {
	w.t.Helper()
	r, ok, err := RuleOf(w.store, subject(w.t, text).Rule())
	if err != nil || !ok {
		w.t.Fatalf("%s: %v, %v", text, ok, err)
	}
	return r
}

// released proposes to end a rule.
func (w *world) released(who actor, text string) record.ID {
	w.t.Helper()
	w.must(who, text, &record.Release{Reason: "it is back"})
	return w.last.ID()
}

// deciding is staffed with a rule and a release_k of k.
func deciding(w *world, k int) {
	staffed(w)
	w.must(alice, "registry", settings(func(r *record.Registry) { r.ReleaseK = k }))
	w.must(rita, leftPad, quarantine())
}

func TestQuarantineRecords(t *testing.T) {
	make := func(who actor) func(*world) error {
		return func(w *world) error {
			staffed(w)
			return w.try(who, leftPad, quarantine())
		}
	}
	runCases(t, []applyCase{
		{"a reviewer", func(w *world) error {
			err := make(rita)(w)
			if r := w.rule(leftPad); r.ID != "left-pad" || r.Record != w.last.ID() || r.Rule.Match[0].Names[0] != "left-pad" || r.Shipped() || !r.InForce(w.now) {
				w.t.Errorf("%+v", r)
			}
			return err
		}, nil},
		{"an admin", make(alice), nil},
		{"a grantor", make(gina), ErrNotEntitled},
		{"a member", make(pat), ErrNotEntitled},
		{"a stranger", make(mallory), ErrNotEntitled},
		{"the registry", make(registry), ErrNotEntitled},
		{"a reviewer by the settings", func(w *world) error {
			staffed(w)
			return w.try(rita, leftPad, quarantine(), by(w.settings().Record))
		}, ErrNotEntitled},
		{"a reviewer by an older member record", func(w *world) error {
			staffed(w)
			old := w.member(rita.id()).Record
			w.must(alice, member(rita), roles(RoleReviewer, RoleAuditor))
			return w.try(rita, leftPad, quarantine(), by(old))
		}, ErrNotEntitled},
		{"that has expired", func(w *world) error {
			staffed(w)
			return w.try(rita, leftPad, quarantine(expiring(w.now)))
		}, ErrInvalid},
		{"that expires in the next second", func(w *world) error {
			staffed(w)
			w.must(rita, leftPad, quarantine(expiring(w.now.Add(time.Second))))
			if r := w.rule(leftPad); r.InForce(w.now) || !r.InForce(w.now.Add(-time.Second)) {
				w.t.Errorf("%+v at %s", r, w.now)
			}
			return nil
		}, nil},
		{"that says the same", func(w *world) error {
			deciding(w, 1)
			return w.try(rolf, leftPad, quarantine())
		}, ErrNoChange},
		{"about a shipped rule, as it is shipped", func(w *world) error {
			staffed(w)
			shipped, _ := particle.Shipped("blake3")
			w.must(rita, blake3, &record.Quarantine{QuarantineRule: shipped})
			if r := w.rule(blake3); r.Shipped() || r.Record != w.last.ID() {
				w.t.Errorf("%+v", r)
			}
			return nil
		}, nil},
		{"again after it ended", func(w *world) error {
			deciding(w, 1)
			w.must(alice, leftPad, approve(w.released(rita, leftPad)))
			w.must(rolf, leftPad, quarantine())
			if r := w.rule(leftPad); !r.InForce(w.now) || r.Ended != "" {
				w.t.Errorf("%+v", r)
			}
			return nil
		}, nil},
		{"again after it expired, weaker", func(w *world) error {
			staffed(w)
			w.must(rita, leftPad, quarantine(expiring(w.now.Add(time.Minute))))
			w.now = w.now.Add(time.Hour)
			return w.try(rita, leftPad, quarantine(mode(particle.ModeDryRun)))
		}, nil},
	})
}

// TestAmendmentsOnlyAdd: otherwise who may amend a rule could end it alone, which
// takes release_k others.
func TestAmendmentsOnlyAdd(t *testing.T) {
	later := start.Add(30 * 24 * time.Hour)
	wide := matching(match(), match(func(m *particle.RuleMatch) { m.Names = []string{"right-pad"} }))
	for _, c := range []struct {
		name      string
		old, next *record.Quarantine
		want      error
	}{
		{"another reason", quarantine(), quarantine(reason("still gone")), nil},
		{"more to match", quarantine(), quarantine(wide), nil},
		{"less to match", quarantine(wide), quarantine(), ErrNotEntitled},
		{"something else to match", quarantine(), quarantine(matching(match(func(m *particle.RuleMatch) { m.Names = []string{"x"} }))), ErrNotEntitled},
		{"more names", quarantine(), quarantine(matching(match(func(m *particle.RuleMatch) { m.Names = append(m.Names, "x") }))), nil},
		{"only some versions", quarantine(), quarantine(matching(match(func(m *particle.RuleMatch) { m.Versions = "<1" }))), ErrNotEntitled},
		{"all versions", quarantine(matching(match(func(m *particle.RuleMatch) { m.Versions = "<1" }))), quarantine(), nil},
		{"only of a publisher", quarantine(), quarantine(matching(match(func(m *particle.RuleMatch) { m.Publishers = dids(pat) }))), ErrNotEntitled},
		{"only of a source", quarantine(), quarantine(matching(match(func(m *particle.RuleMatch) { m.Sources = []string{particle.SourceHosted} }))), ErrNotEntitled},
		{"only what has contents", quarantine(), quarantine(matching(match(func(m *particle.RuleMatch) { m.Content = []string{particle.ContentBLAKE3} }))), ErrNotEntitled},
		{"a dry run", quarantine(), quarantine(mode(particle.ModeDryRun)), ErrNotEntitled},
		{"a dry run enforced", quarantine(mode(particle.ModeDryRun)), quarantine(), nil},
		{"a dry run of something else", quarantine(wide, mode(particle.ModeDryRun)), quarantine(mode(particle.ModeDryRun)), nil},
		{"another effect", quarantine(), quarantine(waiving), ErrNotEntitled},
		{"a waiver becomes a denial", quarantine(waiving), quarantine(), nil},
		{"an end", quarantine(), quarantine(expiring(later)), ErrNotEntitled},
		{"an earlier end", quarantine(expiring(later)), quarantine(expiring(later.Add(-time.Hour))), ErrNotEntitled},
		{"a later end", quarantine(expiring(later)), quarantine(expiring(later.Add(time.Hour))), nil},
		{"no end", quarantine(expiring(later)), quarantine(), nil},
		{"a grace", quarantine(), quarantine(grace(later)), ErrNotEntitled},
		{"more grace", quarantine(grace(later)), quarantine(grace(later.Add(time.Hour))), ErrNotEntitled},
		{"less grace", quarantine(grace(later)), quarantine(grace(later.Add(-time.Hour))), nil},
		{"no grace", quarantine(grace(later)), quarantine(), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			staffed(w)
			w.must(rita, leftPad, c.old)
			for _, who := range []actor{alice, rolf} { // admins are no exception
				if err := w.try(who, leftPad, c.next); err == nil && c.want == nil {
					break
				} else if !errors.Is(err, c.want) || c.want == nil {
					t.Errorf("%s: got %v, want %v", who.id(), err, c.want)
				}
			}
		})
	}
	w := newWorld(t)
	staffed(w)
	if err := w.try(rita, blake3, quarantine()); !errors.Is(err, ErrNotEntitled) {
		t.Errorf("a shipped rule is replaced by one about something else: %v", err)
	}
}

func TestReleaseRecords(t *testing.T) {
	runCases(t, []applyCase{
		{"a reviewer", func(w *world) error {
			deciding(w, 1)
			id := w.released(rolf, leftPad)
			p, ok, err := ProposalOf(w.store, id)
			if r := w.rule(leftPad); err != nil || !ok || r.Proposal != id || !r.InForce(w.now) || p.By() != rolf.id() || p.Rule != "left-pad" || len(p.Approvals) != 0 || !p.Open || p.Base != r.Record {
				w.t.Errorf("%+v, %+v, %v", r, p, err)
			}
			return nil
		}, nil},
		{"who made it", func(w *world) error {
			deciding(w, 1)
			w.released(rita, leftPad)
			return nil
		}, nil},
		{"an admin", func(w *world) error {
			deciding(w, 1)
			w.released(alice, leftPad)
			return nil
		}, nil},
		{"a grantor", func(w *world) error {
			deciding(w, 1)
			return w.try(gina, leftPad, &record.Release{})
		}, ErrNotEntitled},
		{"a shipped rule", func(w *world) error {
			staffed(w)
			id := w.released(rita, blake3)
			if w.last.Header().Prev != "" {
				w.t.Error("something came before")
			}
			r := w.rule(blake3)
			if shipped, _ := particle.Shipped("blake3"); !r.Shipped() || r.Proposal != id || !r.InForce(w.now) || len(r.Rule.Match) != len(shipped.Match) {
				w.t.Errorf("%+v", r)
			}
			w.must(rolf, blake3, approve(id))
			if r := w.rule(blake3); r.InForce(w.now) || r.Ended != w.last.ID() || !r.Shipped() {
				w.t.Errorf("%+v", r)
			}
			return nil
		}, nil},
		{"of a rule that is none", func(w *world) error {
			staffed(w)
			return w.try(rita, leftPad, &record.Release{})
		}, ErrMissing},
		{"of one that ended", func(w *world) error {
			deciding(w, 1)
			w.must(rolf, leftPad, approve(w.released(rita, leftPad)))
			return w.try(rita, leftPad, &record.Release{})
		}, ErrNoChange},
		{"of one that expired", func(w *world) error {
			staffed(w)
			w.must(rita, leftPad, quarantine(expiring(w.now.Add(time.Minute))))
			w.now = w.now.Add(time.Minute)
			return w.try(rita, leftPad, &record.Release{})
		}, ErrNoChange},
		{"proposed already", func(w *world) error {
			deciding(w, 1)
			w.released(rita, leftPad)
			return w.try(rolf, leftPad, &record.Release{})
		}, ErrNoChange},
		{"proposed anew after it was rejected", func(w *world) error {
			deciding(w, 1)
			w.must(rolf, leftPad, reject(w.released(rita, leftPad)))
			if r := w.rule(leftPad); r.Proposal != "" || !r.InForce(w.now) {
				w.t.Errorf("%+v", r)
			}
			w.released(rolf, leftPad)
			return nil
		}, nil},
	})
}

func TestVotesOnReleases(t *testing.T) {
	ended := func(w *world) bool { return w.rule(leftPad).Ended != "" }
	runCases(t, []applyCase{
		{"k reviewers end it", func(w *world) error {
			deciding(w, 2)
			id := w.released(rita, leftPad)
			w.must(rolf, leftPad, approve(id))
			if ended(w) {
				w.t.Error("ended at the first of two")
			}
			w.must(rosa, leftPad, approve(id))
			p, _, err := ProposalOf(w.store, id)
			if r := w.rule(leftPad); r.Ended != w.last.ID() || r.Proposal != "" || p.Open || !slices.Equal(p.Approvals, dids(rolf, rosa)) {
				w.t.Errorf("%+v, %+v, %v", r, p, err)
			}
			return nil
		}, nil},
		{"an admin's vote is one", func(w *world) error {
			deciding(w, 1)
			w.must(alice, leftPad, approve(w.released(rita, leftPad)))
			if !ended(w) {
				w.t.Error("goes on")
			}
			return nil
		}, nil},
		{"the proposer approves", func(w *world) error {
			deciding(w, 1)
			return w.try(rita, leftPad, approve(w.released(rita, leftPad)))
		}, ErrNotEntitled},
		{"the proposer rejects", func(w *world) error {
			deciding(w, 1)
			return w.try(rita, leftPad, reject(w.released(rita, leftPad)))
		}, ErrNotEntitled},
		{"the proposer as an admin", func(w *world) error {
			deciding(w, 1)
			w.must(alice, member(alice), roles(RoleReviewer))
			id := w.released(alice, leftPad)
			return w.try(alice, leftPad, approve(id), by(w.settings().Record))
		}, ErrNotEntitled},
		{"twice", func(w *world) error {
			deciding(w, 2)
			id := w.released(rita, leftPad)
			w.must(rolf, leftPad, approve(id))
			return w.try(rolf, leftPad, approve(id))
		}, ErrNoChange},
		{"twice, by both entitlements", func(w *world) error {
			deciding(w, 2)
			w.must(alice, member(alice), roles(RoleReviewer))
			id := w.released(rita, leftPad)
			w.must(alice, leftPad, approve(id))
			return w.try(alice, leftPad, approve(id), by(w.settings().Record))
		}, ErrNoChange},
		{"a grantor", func(w *world) error {
			deciding(w, 1)
			return w.try(gina, leftPad, approve(w.released(rita, leftPad)))
		}, ErrNotEntitled},
		{"a stranger", func(w *world) error {
			deciding(w, 1)
			return w.try(mallory, leftPad, approve(w.released(rita, leftPad)))
		}, ErrNotEntitled},
		{"a reviewer who lost the role since counts no more", func(w *world) error {
			deciding(w, 2)
			id := w.released(rita, leftPad)
			w.must(rolf, leftPad, approve(id))
			w.must(alice, member(rolf), roles(RoleAuditor))
			w.must(rosa, leftPad, approve(id))
			if ended(w) {
				w.t.Error("ended by one who holds the role")
			}
			w.must(alice, leftPad, approve(id))
			if !ended(w) {
				w.t.Error("goes on after two who hold it")
			}
			return nil
		}, nil},
		{"after an amendment", func(w *world) error {
			deciding(w, 1)
			id := w.released(rita, leftPad)
			w.must(rolf, leftPad, quarantine(reason("it went again")))
			if r := w.rule(leftPad); r.Proposal != "" {
				w.t.Errorf("%+v", r)
			}
			return w.try(rosa, leftPad, approve(id))
		}, ErrInvalid},
		{"after an amendment of a shipped rule", func(w *world) error {
			staffed(w)
			id := w.released(rita, blake3)
			shipped, _ := particle.Shipped("blake3")
			w.must(rolf, blake3, &record.Quarantine{QuarantineRule: shipped})
			return w.try(rosa, blake3, approve(id))
		}, ErrInvalid},
		{"of a rule that was made again", func(w *world) error {
			deciding(w, 1)
			id := w.released(rita, leftPad)
			w.must(rolf, leftPad, approve(id))
			w.must(rolf, leftPad, quarantine())
			return w.try(rosa, leftPad, approve(id))
		}, ErrInvalid},
		{"after a reject", func(w *world) error {
			deciding(w, 2)
			id := w.released(rita, leftPad)
			w.must(rolf, leftPad, reject(id))
			return w.try(rosa, leftPad, approve(id))
		}, ErrInvalid},
		{"once the rule has expired", func(w *world) error {
			staffed(w)
			w.must(rita, leftPad, quarantine(expiring(w.now.Add(time.Minute))))
			id := w.released(rita, leftPad)
			w.now = w.now.Add(time.Hour)
			return w.try(rolf, leftPad, approve(id))
		}, ErrNoChange},
		{"on the release of another rule", func(w *world) error {
			deciding(w, 1)
			return w.try(rolf, blake3, approve(w.released(rita, leftPad)))
		}, ErrMissing},
		{"on settings, as if they were a rule's end", func(w *world) error {
			staffed(w)
			council(w)
			w.must(rita, leftPad, quarantine())
			id := w.propose(alice)
			return w.try(anna, leftPad, approve(id))
		}, ErrMissing},
		{"on a rule's end, as if it were settings", func(w *world) error {
			deciding(w, 1)
			id := w.released(rita, leftPad)
			return w.try(alice, "registry", approve(id))
		}, ErrMissing},
		{"settings that change k bind the next vote", func(w *world) error {
			deciding(w, 3)
			id := w.released(rita, leftPad)
			w.must(rolf, leftPad, approve(id))
			w.must(alice, "registry", settings(func(r *record.Registry) { r.ReleaseK = 2 }))
			w.must(rosa, leftPad, approve(id))
			if !ended(w) {
				w.t.Error("goes on")
			}
			return nil
		}, nil},
		{"by the settings that were replaced", func(w *world) error {
			deciding(w, 1)
			id, old := w.released(rita, leftPad), w.settings().Record
			w.must(alice, "registry", settings())
			return w.try(alice, leftPad, approve(id), by(old))
		}, ErrNotEntitled},
	})
}

// TestProposalsOfSettingsAreStoredAsEver: catalogs of earlier versions are read
// strictly, and a rebuild gives their very bytes.
func TestProposalsOfSettingsAreStoredAsEver(t *testing.T) {
	w := newWorld(t)
	council(w)
	base := w.settings().Record
	id := w.propose(alice)
	want := `{"record":"` + string(id) + `","base":"` + string(base) + `","approvals":["` + string(alice.id()) + `"],"open":true,"registry":{"did":"did:key:z6Mkon3Necd6NkkyfoGoHxid2znGc59LU3K7mubaRcFbLfLX","did_document":null,"log_keys":`
	got := string(w.store[keyProposal(id)])
	if len(got) < len(want) || got[:len(want)] != want || got[len(got)-len(`"private_names":[]}}`):] != `"private_names":[]}}` {
		t.Errorf("%s", got)
	}
	if p, err := DecodeProposal([]byte(got)); err != nil || p.By() != alice.id() || p.Rule != "" {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestAllRulesHasTheShippedOnes(t *testing.T) {
	w := newWorld(t)
	if r, ok, err := RuleOf(w.store, "blake3"); !ok || err != nil || !r.Shipped() || !r.InForce(w.now) || len(r.Rule.Match) == 0 {
		t.Errorf("%+v, %v, %v", r, ok, err)
	}
	if r, ok, err := RuleOf(w.store, "left-pad"); ok || err != nil || len(r.Rule.Match) != 0 {
		t.Errorf("%+v, %v, %v", r, ok, err)
	}
	staffed(w)
	w.must(rita, leftPad, quarantine())
	w.must(rita, "rule/a", quarantine())
	w.released(rita, blake3)
	ids := func(all []Rule) (list []string) {
		for _, r := range all {
			if len(r.Rule.Match) == 0 {
				t.Errorf("%s says nothing", r.ID)
			}
			list = append(list, r.ID)
		}
		return list
	}
	if got := ids(AllRules([]Rule{w.rule(leftPad), w.rule("rule/a")})); !slices.Equal(got, []string{"a", "blake3", "left-pad"}) {
		t.Error(got)
	}
	stored, err := DecodeRule(w.store[RuleKey("blake3")])
	if err != nil {
		t.Fatal(err)
	}
	if got := AllRules([]Rule{stored}); len(ids(got)) != 1 || got[0].Proposal == "" {
		t.Errorf("%+v", got)
	}
	if value := string(w.store[RuleKey("blake3")]); value != `{"id":"blake3","record":null,"ended":null,"proposal":"`+string(stored.Proposal)+`"}` {
		t.Errorf("the state holds what a version ships: %s", value)
	}
}

func TestThereAreSoManyRules(t *testing.T) {
	w := newWorld(t)
	staffed(w)
	w.must(rita, leftPad, quarantine())
	w.must(rita, leftPad, quarantine(reason("of two records")))
	change, err := put(keyRuleIDs, ruleIDs{Count: MaxRules})
	if err != nil || string(w.store[keyRuleIDs]) != `{"count":1}` {
		t.Fatalf("%s, %v", w.store[keyRuleIDs], err)
	}
	w.store.Put([]Change{change})
	if err := w.try(rita, "rule/one-more", quarantine()); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if err := w.try(rita, leftPad, quarantine(reason("known already"))); err != nil {
		t.Error(err)
	}
}
