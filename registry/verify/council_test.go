package verify

import (
	"testing"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
)

// assembly is a scene in which two of three admins decide: the scene's admin,
// ann and bob. Its council record is the last about the registry.
type assembly struct {
	*scene
	council *record.Record
}

func newAssembly(t *testing.T) *assembly {
	a := &assembly{scene: newScene(t)}
	a.council = a.log(a.admin, record.RegistrySubject(), a.by(2), cite{prev: a.genesis, by: a.genesis})
	return a
}

// by is settings by which threshold of the three decide.
func (a *assembly) by(threshold int) *record.Registry {
	settings := a.settings()
	settings.Admins = []did.DID{a.admin.did(), a.ann.did(), a.bob.did()}
	settings.AdminThreshold = threshold
	return settings
}

func (a *assembly) propose(p *person, settings *record.Registry, prev *record.Record) *record.Record {
	return a.log(p, record.RegistrySubject(), settings, cite{prev: prev, by: a.council})
}

func (a *assembly) vote(p *person, on, prev *record.Record, verdict string) *record.Record {
	return a.log(p, record.RegistrySubject(), &record.Approve{Record: on.ID(), Verdict: verdict}, cite{prev: prev, by: a.council})
}

// newcomer admits somebody by the settings given, and publishes as them.
func (a *assembly) newcomer(by *record.Record) Want {
	carl := a.person()
	m := a.log(a.admin, record.MemberSubject(carl.did()), publisher(carl), cite{by: by})
	a.publish(carl, "carls", "1.0.0", nil, m)
	return a.want("carls", "1.0.0")
}

func TestSettingsThatSeveralAdminsEnacted(t *testing.T) {
	a := newAssembly(t)
	wantOK(t, Artifact(a.newcomer(a.council), a.evidence(), a.pin()))

	p := a.propose(a.admin, a.by(1), a.council)
	v := a.vote(a.ann, p, p, record.VerdictApprove)
	want := a.newcomerNamed("others", p)
	a.wantClean(t)
	verdict := Artifact(want, a.evidence(), a.pin())
	wantOK(t, verdict)
	voted := false
	for _, step := range verdict.Chain {
		voted = voted || step.Record == v.ID()
	}
	if !voted {
		t.Errorf("the vote is no part of what it rests on: %+v", verdict.Chain)
	}

	// One admin is enough from then on; prev is the vote.
	next := a.log(a.bob, record.RegistrySubject(), a.by(1), cite{prev: v, by: p})
	want = a.newcomerNamed("latest", next)
	a.wantClean(t)
	wantOK(t, Artifact(want, a.evidence(), a.pin()))
}

// newcomerNamed is newcomer for a crate of another name.
func (a *assembly) newcomerNamed(name string, by *record.Record) Want {
	carl := a.person()
	m := a.log(a.admin, record.MemberSubject(carl.did()), publisher(carl), cite{by: by})
	a.publish(carl, name, "1.0.0", nil, m)
	return a.want(name, "1.0.0")
}

func TestSettingsThatTooFewEnacted(t *testing.T) {
	for name, tt := range map[string]struct {
		build         func(a *assembly) Want
		check, detail string
	}{
		"nobody but the proposer": {func(a *assembly) Want {
			return a.newcomer(a.propose(a.admin, a.by(1), a.council))
		}, CheckAuthority, "had replaced"},
		"the proposer twice": {func(a *assembly) Want {
			p := a.propose(a.admin, a.by(1), a.council)
			a.vote(a.admin, p, p, record.VerdictApprove)
			return a.newcomer(p)
		}, CheckCheckpoint, "voted already"},
		"a member who is no admin": {func(a *assembly) Want {
			p := a.propose(a.admin, a.by(1), a.council)
			a.vote(a.stranger, p, p, record.VerdictApprove)
			return a.newcomer(p)
		}, CheckCheckpoint, "is not an admin"},
		"after a rejection": {func(a *assembly) Want {
			p := a.propose(a.admin, a.by(1), a.council)
			no := a.vote(a.ann, p, p, record.VerdictReject)
			a.vote(a.bob, p, no, record.VerdictApprove)
			return a.newcomer(p)
		}, CheckCheckpoint, "was decided"},
		"a rejection left out": {func(a *assembly) Want {
			p := a.propose(a.admin, a.by(1), a.council)
			no := a.sign(a.ann, record.RegistrySubject(), &record.Approve{Record: p.ID(), Verdict: record.VerdictReject}, cite{prev: p, by: a.council})
			a.vote(a.bob, p, no, record.VerdictApprove)
			return a.newcomer(p)
		}, CheckCheckpoint, "one is missing"},
		"on another proposal": {func(a *assembly) Want {
			p := a.propose(a.admin, a.by(1), a.council)
			other := a.sign(a.bob, record.RegistrySubject(), a.by(1), cite{prev: p, by: a.council})
			a.vote(a.ann, other, p, record.VerdictApprove)
			return a.newcomer(p)
		}, CheckCheckpoint, "which no record before it proposes"},
		"for settings replaced meanwhile": {func(a *assembly) Want {
			p := a.propose(a.admin, a.by(1), a.council)
			q := a.propose(a.ann, a.by(3), p)
			v := a.vote(a.bob, q, q, record.VerdictApprove)
			a.council = q
			a.vote(a.bob, p, v, record.VerdictApprove)
			return a.newcomer(p)
		}, CheckCheckpoint, "had voided"},
		"two of three where three decide": {func(a *assembly) Want {
			p := a.propose(a.admin, a.by(3), a.council)
			v := a.vote(a.bob, p, p, record.VerdictApprove)
			a.council = p
			q := a.propose(a.admin, a.by(1), v)
			a.vote(a.ann, q, q, record.VerdictApprove)
			return a.newcomer(q)
		}, CheckAuthority, "had replaced"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAssembly(t)
			want := tt.build(a)
			wantFailure(t, Artifact(want, a.evidence(), a.pin()), tt.check, tt.detail)
		})
	}
}
