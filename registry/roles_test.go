package registry

import (
	"context"
	"errors"
	"testing"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

func ruleSubject(t *testing.T, id string) record.Subject {
	t.Helper()
	s, err := record.RuleSubject(id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestWhatEntitlesGrantorsAndReviewers: heads name the record that Apply will want cited.
func TestWhatEntitlesGrantorsAndReviewers(t *testing.T) {
	r, key := openTest(t)
	admin, both, publisher := person{key}, newPerson(t), newPerson(t)
	admit(t, r, admin, both, state.RoleGrantor, state.RoleReviewer)
	admit(t, r, admin, publisher, state.RolePublisher)
	admit(t, r, admin, admin, state.RolePublisher) // genesis gave it the others too
	member := func(p person) record.ID {
		m, _, err := state.MemberOf(r.visible(t.Context()), p.did())
		if err != nil {
			t.Fatal(err)
		}
		return m.Record
	}
	grant, rule := record.GrantSubject(storage.CIDOf(nil)), ruleSubject(t, "blake3")
	check := func(what string, p person, s record.Subject, body record.Body, want record.ID) {
		t.Helper()
		if h := p.sign(t, r, s, body, nil).Header(); h.By != want || h.Prev != "" {
			t.Errorf("%s: by %s, want %s; prev %s", what, h.By, want, h.Prev)
		}
	}
	settings := r.Settings().Record
	check("a grantor", both, grant, &record.Grant{}, member(both))
	check("a reviewer", both, rule, &record.Release{}, member(both))
	check("an admin on grants", admin, grant, &record.Grant{}, settings)
	check("an admin on rules", admin, rule, &record.Release{}, settings)
	check("a publisher on grants", publisher, grant, &record.Grant{}, "")
	check("a publisher on rules", publisher, rule, &record.Release{}, "")
	admit(t, r, admin, admin, state.RoleReviewer)
	check("an admin who reviews", admin, rule, &record.Release{}, member(admin))
	check("an admin who reviews, on grants", admin, grant, &record.Grant{}, settings)
}

// TestReviewersEndARule: with sessions that who is no admin can have.
func TestReviewersEndARule(t *testing.T) {
	ctx := context.Background()
	r, key := openTest(t)
	admin, rita, rolf, pat := person{key}, newPerson(t), newPerson(t), newPerson(t)
	admit(t, r, admin, rita, state.RoleReviewer)
	admit(t, r, admin, rolf, state.RoleReviewer)
	admit(t, r, admin, pat, state.RolePublisher)
	if k := r.Settings().ReleaseK; k != 2 {
		t.Fatalf("release_k is %d", k)
	}
	subject := ruleSubject(t, "left-pad")
	submit := func(p person, body record.Body, scopes ...string) (record.ID, error) {
		rec := p.sign(t, r, subject, body, nil)
		_, err := r.Submit(ctx, p.asker(scopes...), rec.Envelope(), nil)
		return rec.ID(), err
	}
	rule := &record.Quarantine{QuarantineRule: particle.QuarantineRule{
		Effect: particle.EffectDeny, Mode: particle.ModeEnforce, Reason: "seen",
		Match: []particle.RuleMatch{{Names: []string{"left-pad"}, Hashes: []string{}, Publishers: []did.DID{}, Sources: []string{}, Content: []string{}}},
	}}
	var denial *policy.Denial
	if _, err := submit(rita, rule, particle.ScopeRead); !errors.As(err, &denial) || denial.Rule != policy.RuleScope {
		t.Errorf("with a session for reading: %v", err)
	}
	if _, err := submit(pat, rule, particle.ScopePublish); !errors.Is(err, state.ErrNotEntitled) && !errors.Is(err, record.ErrMalformed) {
		t.Errorf("a publisher: %v", err)
	}
	if _, err := submit(rita, rule, particle.ScopePublish); err != nil {
		t.Fatal(err)
	}
	release, err := submit(rita, &record.Release{Reason: "it is back"}, particle.ScopePublish)
	if err != nil {
		t.Fatal(err)
	}
	if open, err := r.OpenProposals(ctx); err != nil || len(open) != 0 {
		t.Errorf("it is told of as a proposal of settings: %+v, %v", open, err)
	}
	vote := &record.Approve{Record: release, Verdict: record.VerdictApprove}
	if _, err := submit(rita, vote, particle.ScopePublish); !errors.Is(err, state.ErrNotEntitled) {
		t.Errorf("the proposer votes: %v", err)
	}
	for i, p := range []person{rolf, admin} {
		held, _, err := state.RuleOf(r.visible(ctx), "left-pad")
		if err != nil || held.Ended != "" || held.Proposal != release {
			t.Errorf("before vote %d: %+v, %v", i+1, held, err)
		}
		if _, err := submit(p, vote, particle.ScopePublish); err != nil {
			t.Fatalf("vote %d: %v", i+1, err)
		}
	}
	if held, _, err := state.RuleOf(r.visible(ctx), "left-pad"); err != nil || held.Ended == "" || held.Proposal != "" {
		t.Errorf("%+v, %v", held, err)
	}
}
