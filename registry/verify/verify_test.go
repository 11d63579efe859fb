package verify

import (
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
)

// scene is a log with one crate of which the story is told by the test: ann
// published demo 0.1.0 and made bob an owner.
type scene struct {
	*lab
	ann, bob        *person
	annMember       *record.Record
	bobMember       *record.Record
	first, addedBob *record.Record
	stranger        *person
}

func newScene(t testing.TB) *scene {
	t.Helper()
	s := &scene{lab: newLab(t)}
	s.ann, s.bob, s.stranger = s.person(), s.person(), s.person()
	s.annMember = s.admit(s.ann, publisher(s.ann), nil)
	s.bobMember = s.admit(s.bob, publisher(s.bob), nil)
	s.first = s.publish(s.ann, "demo", "0.1.0", nil, s.annMember)
	s.addedBob = s.own(s.ann, "demo", []*person{s.bob}, nil, s.first, s.first)
	return s
}

func (s *scene) wantClean(t *testing.T) {
	t.Helper()
	r, err := s.replay()
	if err != nil || r.Violated != 0 {
		t.Fatalf("an honest log is refused: %v, %+v", err, r.Violations)
	}
}

func TestHonestEvidencePasses(t *testing.T) {
	tests := map[string]func(s *scene) Want{
		"first publish":              func(s *scene) Want { return s.want("demo", "0.1.0") },
		"bytes unknown to the asker": func(s *scene) Want { return Want{Subject: s.version("demo", "0.1.0")} },
		"by an added owner": func(s *scene) Want {
			s.publish(s.bob, "demo", "0.2.0", s.addedBob, s.addedBob)
			return s.want("demo", "0.2.0")
		},
		"before its owner was removed": func(s *scene) Want {
			p := s.publish(s.bob, "demo", "0.2.0", s.addedBob, s.addedBob)
			s.own(s.ann, "demo", nil, []*person{s.bob}, p, s.first)
			return s.want("demo", "0.2.0")
		},
		"an admin changes owners": func(s *scene) Want {
			s.own(s.admin, "demo", nil, []*person{s.bob}, s.addedBob, s.genesis)
			return s.want("demo", "0.1.0")
		},
		"an intent serves two changes": func(s *scene) Want {
			carl := s.person()
			s.admit(carl, publisher(carl), nil)
			intent := s.intend(s.ann, "demo", s.addedBob, s.first)
			a := s.ownFor(intent, "demo", []*person{carl}, nil, s.addedBob, s.first)
			b := s.ownFor(intent, "demo", nil, []*person{s.bob}, a, s.first)
			s.yank(s.ann, "demo", "0.1.0", true, b, s.first)
			return s.want("demo", "0.1.0")
		},
		"a member renewed between": func(s *scene) Want {
			m := s.admit(s.bob, memberOf(s.bob, "publisher", "auditor"), s.bobMember)
			s.publish(s.bob, "other", "1.0.0", nil, m)
			return s.want("other", "1.0.0")
		},
		"a did:web owner whose document changed": func(s *scene) Want {
			w := s.webPerson("lab.example", did.AssertionMethod, did.CapabilityInvocation)
			m := s.admit(w, publisher(w), nil)
			p := s.publish(w, "web", "1.0.0", nil, m)
			old := *w
			w.key = s.person().key
			w.document = documentFor(w, did.AssertionMethod, did.CapabilityInvocation)
			d := s.log(&old, record.MemberSubject(w.did()), &record.DIDChange{DIDDocument: w.documentCID()},
				cite{prev: m, by: m, attach: [][]byte{w.document}})
			w.documentRecord = d.ID()
			s.publish(w, "web", "1.1.0", p, p)
			return s.want("web", "1.1.0")
		},
		"a did:web owner's intent": func(s *scene) Want {
			w := s.webPerson("lab.example%3A8443:team", did.AssertionMethod, did.CapabilityInvocation)
			m := s.admit(w, publisher(w), nil)
			p := s.publish(w, "web", "1.0.0", nil, m)
			intent := s.intend(w, "web", p, p)
			o := s.ownFor(intent, "web", []*person{s.bob}, nil, p, p)
			s.publish(s.bob, "web", "1.0.1", o, o)
			return s.want("web", "1.0.1")
		},
		"settings changed, then a member admitted": func(s *scene) Want {
			next := s.settings()
			next.MinAgeDays = 3
			r := s.log(s.admin, record.RegistrySubject(), next, cite{prev: s.genesis, by: s.genesis})
			carl := s.person()
			m := s.log(s.admin, record.MemberSubject(carl.did()), publisher(carl), cite{by: r})
			s.publish(carl, "carls", "1.0.0", nil, m)
			return s.want("carls", "1.0.0")
		},
	}
	for name, build := range tests {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			want := build(s)
			v := Artifact(want, s.evidence(), s.pin())
			wantOK(t, v)
			s.wantClean(t)
			if v.Record == "" || v.Index < 4 || v.CID.IsZero() || v.Size != int64(len(s.items)) || v.CosignedAt.IsZero() {
				t.Errorf("the verdict does not say what was proved: %+v", v)
			}
			if last := v.Chain[len(v.Chain)-1]; v.Chain[0].Record != v.Record || last.Index != 0 {
				t.Errorf("chain does not lead from the record to entry 0: %+v", v.Chain)
			}
		})
	}
}

func TestYankedIsReadFromTheHistory(t *testing.T) {
	s := newScene(t)
	y := s.yank(s.ann, "demo", "0.1.0", true, s.addedBob, s.first)
	if v := Artifact(s.want("demo", "0.1.0"), s.evidence(), s.pin()); !v.OK() || !v.Yanked {
		t.Fatalf("yanked version: %+v", v)
	}
	s.yank(s.admin, "demo", "0.1.0", false, y, s.genesis)
	if v := Artifact(s.want("demo", "0.1.0"), s.evidence(), s.pin()); !v.OK() || v.Yanked {
		t.Fatalf("version yanked no more: %+v", v)
	}
	s.wantClean(t)
}

func TestSelectedEvidenceSuffices(t *testing.T) {
	s := newScene(t)
	s.publish(s.bob, "other", "1.0.0", nil, s.bobMember)
	s.publish(s.ann, "demo", "0.2.0", s.addedBob, s.first)
	// entry 0, ann's membership, the history of demo; neither the first admin's nor bob's.
	v := Artifact(s.want("demo", "0.2.0"), s.evidence(0, 2, 4, 5, 7), s.pin())
	wantOK(t, v)
	if len(v.Chain) != 4 {
		t.Errorf("chain %+v, want publish, first publish, member, registry", v.Chain)
	}
}

func TestCompromisedKeys(t *testing.T) {
	build := func(t *testing.T, since int64) (*scene, Want) {
		s := newScene(t)
		w := s.webPerson("lab.example", did.AssertionMethod, did.CapabilityInvocation)
		m := s.admit(w, publisher(w), nil)                // entry 6
		p := s.publish(w, "web", "1.0.0", nil, m)         // entry 7
		o := s.own(w, "web", []*person{s.bob}, nil, p, p) // entry 8
		s.publish(s.bob, "web", "1.1.0", o, o)            // entry 9
		w.key = s.person().key
		w.document = documentFor(w, did.AssertionMethod)
		s.log(s.admin, record.MemberSubject(w.did()), &record.DIDChange{DIDDocument: w.documentCID(), CompromisedSince: &since},
			cite{prev: m, by: s.genesis, attach: [][]byte{w.document}})
		s.wantClean(t)
		return s, s.want("web", "1.0.0")
	}
	t.Run("from a later entry on", func(t *testing.T) {
		s, want := build(t, 9)
		wantOK(t, Artifact(want, s.evidence(), s.pin()))
	})
	t.Run("when the record was signed", func(t *testing.T) {
		s, want := build(t, 7)
		wantFailure(t, Artifact(want, s.evidence(), s.pin()), CheckSignature, "compromised from entry 7 on")
	})
	t.Run("when an owner was added", func(t *testing.T) {
		s, _ := build(t, 8)
		wantFailure(t, Artifact(s.want("web", "1.1.0"), s.evidence(), s.pin()), CheckSignature, "compromised from entry 8 on")
	})
	t.Run("as a stranger says", func(t *testing.T) {
		s := newScene(t)
		w := s.webPerson("lab.example", did.AssertionMethod)
		m := s.admit(w, publisher(w), nil)
		s.publish(w, "web", "1.0.0", nil, m)
		since := int64(0)
		s.log(s.stranger, record.MemberSubject(w.did()), &record.DIDChange{DIDDocument: w.documentCID(), CompromisedSince: &since},
			cite{prev: m, by: s.genesis})
		wantOK(t, Artifact(s.want("web", "1.0.0"), s.evidence(), s.pin()))
	})
}

func TestEntry0MustBeTheRegistrysOwn(t *testing.T) {
	change := func(f func(*record.Draft)) func(l *lab) cite {
		return func(*lab) cite { return cite{change: f} }
	}
	tests := map[string]struct {
		signer func(l *lab) *person
		cite   func(l *lab) cite
		detail string
	}{
		"signed by another": {func(l *lab) *person { return l.admin }, change(nil), "signed by"},
		"with a wrong key":  {func(l *lab) *person { return &person{key: l.admin.key, url: l.origin.url} }, change(nil), "bad signature"},
		"citing something": {func(l *lab) *person { return l.origin }, change(func(d *record.Draft) {
			d.Header.By = record.IDOf(nil)
		}), "of which there are none"},
		"expired": {func(l *lab) *person { return l.origin }, change(func(d *record.Draft) {
			d.Header.IssuedAt, d.Header.Expires = d.Header.IssuedAt.Add(-time.Hour), d.Header.Expires.Add(-2*time.Hour)
		}), "before it is issued"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			fresh := &lab{t: t, rand: l.rand, now: l.now, origin: l.origin, admin: l.admin, logKeys: l.logKeys}
			fresh.genesis = fresh.log(tt.signer(fresh), record.RegistrySubject(), fresh.settings(), tt.cite(fresh))
			fresh.old = fresh.note()
			ev := fresh.evidence()
			_, v := Checkpoint(ev.Checkpoint, nil, fresh.pin(), ev.Items[0])
			wantFailure(t, v, CheckEntry0, tt.detail)
		})
	}
	t.Run("another type of record", func(t *testing.T) {
		l := newLab(t)
		fresh := &lab{t: t, rand: l.rand, now: l.now, origin: l.origin, admin: l.admin, logKeys: l.logKeys}
		fresh.genesis = fresh.log(fresh.origin, record.MemberSubject(l.admin.did()), publisher(l.admin), cite{})
		fresh.old = fresh.note()
		ev := fresh.evidence()
		_, v := Checkpoint(ev.Checkpoint, nil, fresh.pin(), ev.Items[0])
		wantFailure(t, v, CheckEntry0, "not the registry's own")
	})
}

func TestRotatedLogKey(t *testing.T) {
	s := newScene(t)
	s.addLogKey()
	wantFailure(t, Artifact(s.want("demo", "0.1.0"), s.evidence(), s.pin()), CheckCheckpoint, "not signed by the log")
	s.log(s.admin, record.RegistrySubject(), s.settings(), cite{prev: s.genesis, by: s.genesis})
	s.wantClean(t)
	wantOK(t, Artifact(s.want("demo", "0.1.0"), s.evidence(), s.pin()))

	ev := s.evidence()
	opened, v := Checkpoint(ev.Checkpoint, ev.Consistency, s.pin(), ev.Items[0], ev.Items[6])
	wantOK(t, v)
	if opened.Size != 7 || opened.CosignedAt.IsZero() {
		t.Errorf("opened %+v", opened)
	}
	s.logKeys = s.logKeys[:1] // the old key signs on, though it was rotated out
	wantFailure(t, Artifact(s.want("demo", "0.1.0"), s.evidence(), s.pin()), CheckCheckpoint, "not signed by the log")
}

func TestCheckpoint(t *testing.T) {
	s := newScene(t)
	ev, pin := s.evidence(0), s.pin()
	opened, v := Checkpoint(ev.Checkpoint, ev.Consistency, pin, ev.Items[0])
	wantOK(t, v)
	if opened.Checkpoint != s.checkpoint() {
		t.Errorf("opened %+v", opened)
	}
	pin.Checkpoint = nil
	_, v = Checkpoint(ev.Checkpoint, nil, pin, ev.Items[0])
	wantOK(t, v)
	pin.Checkpoint = ev.Checkpoint
	_, v = Checkpoint(ev.Checkpoint, nil, pin, ev.Items[0])
	wantOK(t, v)

	unproved := ev.Items[0]
	unproved.Proof = nil
	_, v = Checkpoint(ev.Checkpoint, nil, pin, unproved)
	wantFailure(t, v, CheckInclusion, "not proven")
	_, v = Checkpoint(ev.Checkpoint, nil, pin, Item{})
	wantFailure(t, v, CheckEntry0, "missing")
}

func TestGenesisOfADidWeb(t *testing.T) {
	l := &lab{t: t, rand: newLab(t).rand, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	l.origin = l.webPerson("registry.example", did.CapabilityInvocation, did.AssertionMethod)
	l.admin = l.webPerson("admin.example", did.CapabilityInvocation, did.AssertionMethod)
	l.addLogKey()
	settings := l.settings()
	settings.DIDDocument = l.origin.documentPointer()
	l.genesis = l.log(l.origin, record.RegistrySubject(), settings, cite{attach: [][]byte{l.origin.document}})
	l.origin.documentRecord = l.genesis.ID()
	l.member = l.log(l.admin, record.MemberSubject(l.admin.did()), publisher(l.admin), cite{by: l.genesis, attach: [][]byte{l.admin.document}})
	l.admin.documentRecord = l.member.ID()
	l.old = l.note()
	p := l.publish(l.admin, "demo", "0.1.0", nil, l.member)
	bob := l.person()
	l.admit(bob, publisher(bob), nil)
	intent := l.intend(l.admin, "demo", p, p)
	l.ownFor(intent, "demo", []*person{bob}, nil, p, p)
	wantOK(t, Artifact(l.want("demo", "0.1.0"), l.evidence(), l.pin()))
	if r, err := l.replay(); err != nil || r.Violated != 0 {
		t.Fatalf("%v, %+v", err, r.Violations)
	}
	ev := l.evidence()
	ev.Items[0].Attachments = nil
	wantFailure(t, Artifact(l.want("demo", "0.1.0"), ev, l.pin()), CheckEntry0, "missing from the evidence")
}

func TestVerdictAndEvidenceAsJSON(t *testing.T) {
	s := newScene(t)
	data, err := json.Marshal(s.evidence())
	if err != nil {
		t.Fatal(err)
	}
	var ev Evidence
	if err := json.Unmarshal(data, &ev, json.RejectUnknownMembers(true)); err != nil {
		t.Fatal(err)
	}
	wantOK(t, Artifact(s.want("demo", "0.1.0"), ev, s.pin()))
	for _, v := range []Verdict{Artifact(s.want("demo", "0.1.0"), ev, s.pin()), {}} {
		if _, err := json.Marshal(v); err != nil {
			t.Error(err)
		}
	}
	if (Verdict{}).OK() {
		t.Error("a verdict without checks is OK")
	}
}
