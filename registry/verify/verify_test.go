package verify

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
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

func newScene(t *testing.T) *scene {
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

// TestWrongEntriesFail logs what must not be logged. Each is found by Artifact
// for its own reason, and by Replay.
func TestWrongEntriesFail(t *testing.T) {
	tests := map[string]struct {
		build         func(s *scene) Want
		check, detail string
	}{
		"a stranger's valid signature citing the owner's entitlement": {func(s *scene) Want {
			s.publish(s.stranger, "demo", "0.2.0", s.addedBob, s.first)
			return s.want("demo", "0.2.0")
		}, CheckAuthority, "did not make"},
		"a stranger's yank after an honest publish": {func(s *scene) Want {
			s.yank(s.stranger, "demo", "0.1.0", true, s.addedBob, s.first)
			return s.want("demo", "0.1.0")
		}, CheckHistory, "is not an owner"},
		"a stranger citing the registry as if an admin": {func(s *scene) Want {
			s.yank(s.stranger, "demo", "0.1.0", true, s.addedBob, s.genesis)
			return s.want("demo", "0.1.0")
		}, CheckHistory, "is not an admin"},
		"a stranger's new name citing another's membership": {func(s *scene) Want {
			s.publish(s.stranger, "mine", "0.1.0", nil, s.annMember)
			return s.want("mine", "0.1.0")
		}, CheckAuthority, "signer's own member record"},
		"a removed owner's later publish": {func(s *scene) Want {
			r := s.own(s.ann, "demo", nil, []*person{s.bob}, s.addedBob, s.first)
			s.publish(s.bob, "demo", "0.2.0", r, s.addedBob)
			return s.want("demo", "0.2.0")
		}, CheckHistory, "removed by entry 6"},
		"a replayed yank in another entry": {func(s *scene) Want {
			y := s.yank(s.ann, "demo", "0.1.0", true, s.addedBob, s.first)
			s.yank(s.ann, "demo", "0.1.0", false, y, s.first)
			s.append(y, storage.CID{})
			return s.want("demo", "0.1.0")
		}, CheckHistory, "repeats the record of entry 6"},
		"a yank signed for an earlier state": {func(s *scene) Want {
			y := s.yank(s.ann, "demo", "0.1.0", true, s.addedBob, s.first)
			s.yank(s.ann, "demo", "0.1.0", false, y, s.first)
			s.now = s.now.Add(time.Second)
			s.yank(s.ann, "demo", "0.1.0", true, s.addedBob, s.first)
			return s.want("demo", "0.1.0")
		}, CheckHistory, "signed for an earlier state"},
		"a version published twice": {func(s *scene) Want {
			s.log(s.ann, s.version("demo", "0.1.0+again"), &record.Publish{Evidence: []storage.CID{}},
				cite{prev: s.addedBob, by: s.first, digest: [32]byte{7}})
			return s.want("demo", "0.1.0")
		}, CheckHistory, "had been published before"},
		"a name taken over in another spelling": {func(s *scene) Want {
			s.publish(s.ann, "Demo", "0.2.0", s.addedBob, s.first)
			return s.want("Demo", "0.2.0")
		}, CheckHistory, "first published as"},
		"a second first publish of one name": {func(s *scene) Want {
			s.publish(s.bob, "demo", "9.0.0", nil, s.bobMember)
			return s.want("demo", "9.0.0")
		}, CheckHistory, "prev does not name"},
		"entitled to another crate": {func(s *scene) Want {
			o := s.publish(s.bob, "other", "1.0.0", nil, s.bobMember)
			s.publish(s.bob, "demo", "0.2.0", s.addedBob, o)
			return s.want("demo", "0.2.0")
		}, CheckAuthority, "entitles nobody to crate/demo"},
		"a self-made member": {func(s *scene) Want {
			m := s.log(s.stranger, record.MemberSubject(s.stranger.did()), publisher(s.stranger), cite{by: s.genesis})
			s.publish(s.stranger, "mine", "0.1.0", nil, m)
			return s.want("mine", "0.1.0")
		}, CheckAuthority, "is not an admin"},
		"a member without the role": {func(s *scene) Want {
			m := s.admit(s.stranger, memberOf(s.stranger, "auditor"), nil)
			s.publish(s.stranger, "mine", "0.1.0", nil, m)
			return s.want("mine", "0.1.0")
		}, CheckAuthority, "role publisher"},
		"a membership that was replaced": {func(s *scene) Want {
			s.admit(s.bob, memberOf(s.bob, "auditor"), s.bobMember)
			s.publish(s.bob, "mine", "0.1.0", nil, s.bobMember)
			return s.want("mine", "0.1.0")
		}, CheckAuthority, "had replaced"},
		"an owner who was removed as a member": {func(s *scene) Want {
			s.admit(s.bob, memberOf(s.bob), s.bobMember)
			s.publish(s.bob, "demo", "0.2.0", s.addedBob, s.addedBob)
			return s.want("demo", "0.2.0")
		}, CheckAuthority, "removed from the members"},
		"an admin of settings that were replaced": {func(s *scene) Want {
			s.log(s.admin, record.RegistrySubject(), s.settings(), cite{prev: s.genesis, by: s.genesis})
			m := s.admit(s.stranger, publisher(s.stranger), nil)
			s.publish(s.stranger, "mine", "0.1.0", nil, m)
			return s.want("mine", "0.1.0")
		}, CheckAuthority, "had replaced"},
		"an expired record": {func(s *scene) Want {
			s.log(s.ann, s.version("demo", "0.2.0"), &record.Publish{Evidence: []storage.CID{}}, cite{
				prev: s.addedBob, by: s.first, digest: [32]byte{1}, change: func(d *record.Draft) {
					d.Header.IssuedAt, d.Header.Expires = s.now.Add(-time.Hour), s.now.Add(-121*time.Second)
				}})
			return Want{Subject: s.version("demo", "0.2.0")}
		}, CheckAuthority, "expired"},
		"a record issued in the future": {func(s *scene) Want {
			s.log(s.ann, s.version("demo", "0.2.0"), &record.Publish{Evidence: []storage.CID{}}, cite{
				prev: s.addedBob, by: s.first, digest: [32]byte{1}, change: func(d *record.Draft) {
					d.Header.IssuedAt, d.Header.Expires = s.now.Add(121*time.Second), s.now.Add(time.Hour)
				}})
			return Want{Subject: s.version("demo", "0.2.0")}
		}, CheckAuthority, "after its entry's time"},
		"a record valid for too long": {func(s *scene) Want {
			s.log(s.ann, s.version("demo", "0.2.0"), &record.Publish{Evidence: []storage.CID{}}, cite{
				prev: s.addedBob, by: s.first, digest: [32]byte{1}, change: func(d *record.Draft) {
					d.Header.Expires = s.now.Add(25 * time.Hour)
				}})
			return Want{Subject: s.version("demo", "0.2.0")}
		}, CheckAuthority, "at most"},
		"a record for another registry": {func(s *scene) Want {
			s.log(s.ann, s.version("demo", "0.2.0"), &record.Publish{Evidence: []storage.CID{}}, cite{
				prev: s.addedBob, by: s.first, digest: [32]byte{1}, change: func(d *record.Draft) {
					d.Header.Registry = s.stranger.did()
				}})
			return Want{Subject: s.version("demo", "0.2.0")}
		}, CheckAuthority, "signed for the registry"},
		"by is null": {func(s *scene) Want {
			s.publish(s.ann, "demo", "0.2.0", s.addedBob, nil)
			return s.want("demo", "0.2.0")
		}, CheckAuthority, "by is null"},
		"by points forward": {func(s *scene) Want {
			later := s.sign(s.admin, record.MemberSubject(s.stranger.did()), publisher(s.stranger), cite{by: s.genesis})
			s.publish(s.stranger, "mine", "0.1.0", nil, later)
			s.append(later, storage.CID{})
			return s.want("mine", "0.1.0")
		}, CheckAuthority, "does not come before it"},
		"an intent used after its time": {func(s *scene) Want {
			intent := s.intend(s.ann, "demo", s.addedBob, s.first)
			s.now = s.now.Add(241 * time.Second)
			o := s.ownFor(intent, "demo", []*person{s.stranger}, nil, s.addedBob, s.first)
			s.publish(s.stranger, "demo", "0.2.0", o, o)
			return s.want("demo", "0.2.0")
		}, CheckAuthority, "own-intent: the record expired"},
		"an intent used after another change": {func(s *scene) Want {
			s.admit(s.stranger, publisher(s.stranger), nil)
			intent := s.intend(s.ann, "demo", s.addedBob, s.first)
			p := s.publish(s.ann, "demo", "0.2.0", s.addedBob, s.first)
			s.ownFor(intent, "demo", []*person{s.stranger}, nil, p, s.first)
			return s.want("demo", "0.2.0")
		}, CheckHistory, "after its own-intent was signed"},
		"an intent that lasts": {func(s *scene) Want {
			s.admit(s.stranger, publisher(s.stranger), nil)
			intent := s.sign(s.ann, s.name("demo"), &record.OwnIntent{}, cite{prev: s.addedBob, by: s.first})
			s.ownFor(intent, "demo", []*person{s.stranger}, nil, s.addedBob, s.first)
			return s.want("demo", "0.1.0")
		}, CheckHistory, "at most 2m0s"},
		"an intent of a stranger": {func(s *scene) Want {
			intent := s.intend(s.stranger, "demo", s.addedBob, s.first)
			s.ownFor(intent, "demo", []*person{s.stranger}, nil, s.addedBob, s.first)
			return s.want("demo", "0.1.0")
		}, CheckHistory, "is not an owner"},
		"an intent for another crate": {func(s *scene) Want {
			o := s.publish(s.ann, "other", "1.0.0", nil, s.annMember)
			intent := s.intend(s.ann, "other", o, o)
			id := intent.CID()
			s.log(s.origin, s.name("demo"), ownBody([]*person{s.admin}, nil, &id),
				cite{prev: s.addedBob, by: o, attach: [][]byte{intent.Envelope()}})
			return s.want("demo", "0.1.0")
		}, CheckHistory, "after its own-intent was signed"},
		"the registry changes owners without an intent": {func(s *scene) Want {
			s.log(s.origin, s.name("demo"), ownBody([]*person{s.admin}, nil, nil), cite{prev: s.addedBob, by: s.first})
			return s.want("demo", "0.1.0")
		}, CheckHistory, "is not an owner"},
		"somebody else uses an owner's intent": {func(s *scene) Want {
			intent := s.intend(s.ann, "demo", s.addedBob, s.first)
			id := intent.CID()
			s.log(s.stranger, s.name("demo"), ownBody([]*person{s.admin}, nil, &id),
				cite{prev: s.addedBob, by: s.first, attach: [][]byte{intent.Envelope()}})
			return s.want("demo", "0.1.0")
		}, CheckHistory, "only the registry signs"},
		"the last owner removed": {func(s *scene) Want {
			s.own(s.ann, "demo", nil, []*person{s.ann, s.bob}, s.addedBob, s.first)
			return s.want("demo", "0.1.0")
		}, CheckHistory, "leaves no owner"},
		"somebody removed who is no owner": {func(s *scene) Want {
			s.own(s.ann, "demo", nil, []*person{s.stranger}, s.addedBob, s.first)
			return s.want("demo", "0.1.0")
		}, CheckHistory, "who is no owner"},
		"somebody added twice": {func(s *scene) Want {
			s.own(s.ann, "demo", []*person{s.bob}, nil, s.addedBob, s.first)
			return s.want("demo", "0.1.0")
		}, CheckHistory, "an owner already"},
		"a yank of what was never published": {func(s *scene) Want {
			s.yank(s.ann, "demo", "7.0.0", true, s.addedBob, s.first)
			return s.want("demo", "0.1.0")
		}, CheckHistory, "there is no version"},
		"a yank that changes nothing": {func(s *scene) Want {
			s.yank(s.ann, "demo", "0.1.0", false, s.addedBob, s.first)
			return s.want("demo", "0.1.0")
		}, CheckHistory, "already"},
		"time that runs back": {func(s *scene) Want {
			s.now = s.now.Add(-3 * time.Minute)
			s.publish(s.ann, "demo", "0.2.0", s.addedBob, s.first)
			return s.want("demo", "0.2.0")
		}, CheckHistory, "has a time before"},
		"a did:key signer who cites a document": {func(s *scene) Want {
			s.log(s.ann, s.version("demo", "0.2.0"), &record.Publish{Evidence: []storage.CID{}}, cite{
				prev: s.addedBob, by: s.first, digest: [32]byte{1}, change: func(d *record.Draft) { d.Header.Key = s.annMember.ID() }})
			return Want{Subject: s.version("demo", "0.2.0")}
		}, CheckSignature, "key does not name"},
		"an entry that names a document for a did:key": {func(s *scene) Want {
			r := s.sign(s.ann, s.version("demo", "0.2.0"), &record.Publish{Evidence: []storage.CID{}},
				cite{prev: s.addedBob, by: s.first, digest: [32]byte{1}})
			s.append(r, storage.CIDOf([]byte("x")))
			return Want{Subject: s.version("demo", "0.2.0")}
		}, CheckSignature, "another DID document"},
		"a did:web key in the wrong relationship": {func(s *scene) Want {
			w := s.webPerson("lab.example", did.CapabilityInvocation, did.Authentication)
			m := s.admit(w, publisher(w), nil)
			s.publish(w, "web", "1.0.0", nil, m)
			return s.want("web", "1.0.0")
		}, CheckSignature, "not allowed for that use"},
		"a did:web key that is not in the document": {func(s *scene) Want {
			w := s.webPerson("lab.example", did.AssertionMethod)
			m := s.admit(w, publisher(w), nil)
			w.key = s.person().key
			s.publish(w, "web", "1.0.0", nil, m)
			return s.want("web", "1.0.0")
		}, CheckSignature, "bad signature"},
		"a did:web nobody admitted": {func(s *scene) Want {
			w := s.webPerson("lab.example", did.AssertionMethod)
			s.publish(w, "web", "1.0.0", nil, s.annMember)
			return s.want("web", "1.0.0")
		}, CheckSignature, "puts a DID document"},
		"a did:web document that was replaced": {func(s *scene) Want {
			w := s.webPerson("lab.example", did.AssertionMethod, did.CapabilityInvocation)
			m := s.admit(w, publisher(w), nil)
			old := *w
			w.key = s.person().key
			w.document = documentFor(w, did.AssertionMethod)
			s.log(&old, record.MemberSubject(w.did()), &record.DIDChange{DIDDocument: w.documentCID()},
				cite{prev: m, by: m, attach: [][]byte{w.document}})
			s.publish(&old, "web", "1.0.0", nil, m)
			return s.want("web", "1.0.0")
		}, CheckSignature, "key does not name the record"},
		"a did:web document changed by somebody else": {func(s *scene) Want {
			w := s.webPerson("lab.example", did.AssertionMethod, did.CapabilityInvocation)
			m := s.admit(w, publisher(w), nil)
			w.key = s.person().key
			w.document = documentFor(w, did.AssertionMethod)
			d := s.log(s.stranger, record.MemberSubject(w.did()), &record.DIDChange{DIDDocument: w.documentCID()},
				cite{prev: m, by: m, attach: [][]byte{w.document}})
			w.documentRecord = d.ID()
			s.publish(w, "web", "1.0.0", nil, m)
			return s.want("web", "1.0.0")
		}, CheckSignature, "key does not name the record"},
		"log keys named by a stranger": {func(s *scene) Want {
			s.log(s.stranger, record.RegistrySubject(), s.settings(), cite{prev: s.genesis, by: s.genesis})
			return s.want("demo", "0.1.0")
		}, CheckCheckpoint, "is not an admin"},
		"settings signed for an earlier state": {func(s *scene) Want {
			s.log(s.admin, record.RegistrySubject(), s.settings(), cite{by: s.genesis})
			return s.want("demo", "0.1.0")
		}, CheckCheckpoint, "prev is not"},
		"settings that name another registry": {func(s *scene) Want {
			next := s.settings()
			next.DID = s.stranger.did()
			s.log(s.admin, record.RegistrySubject(), next, cite{prev: s.genesis, by: s.genesis})
			return s.want("demo", "0.1.0")
		}, CheckCheckpoint, "never changes"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			want := tt.build(s)
			wantFailure(t, Artifact(want, s.evidence(), s.pin()), tt.check, tt.detail)
			r, err := s.replay()
			if err != nil {
				t.Fatal(err)
			}
			if r.Violated == 0 {
				t.Error("replay finds nothing wrong with this log")
			}
		})
	}
}

// TestWrongEvidenceFails alters what an honest registry would show.
func TestWrongEvidenceFails(t *testing.T) {
	tests := map[string]struct {
		alter         func(s *scene, want *Want, ev *Evidence, pin *Pin)
		check, detail string
	}{
		"another crate's record": {func(s *scene, want *Want, ev *Evidence, _ *Pin) {
			s.publish(s.bob, "other", "1.0.0", nil, s.bobMember)
			*ev = s.evidence(0, 3, 6)
		}, CheckRecord, "the evidence has one about crate/other@1.0.0"},
		"another version's record": {func(s *scene, want *Want, _ *Evidence, _ *Pin) {
			want.Subject = s.version("demo", "0.1.1")
		}, CheckRecord, "the evidence has one about crate/demo@0.1.0"},
		"no publish record":        {func(s *scene, _ *Want, ev *Evidence, _ *Pin) { *ev = s.evidence(0, 2) }, CheckRecord, "no record publishes"},
		"a name without a version": {func(s *scene, want *Want, _ *Evidence, _ *Pin) { want.Subject = s.name("demo") }, CheckRecord, "not a version"},
		"nothing wanted":           {func(_ *scene, want *Want, _ *Evidence, _ *Pin) { *want = Want{} }, CheckRecord, "not a version"},
		"wrong bytes": {func(_ *scene, want *Want, _ *Evidence, _ *Pin) {
			want.CID = storage.CIDOf([]byte("something else"))
		}, CheckBytes, "not the same"},
		"a swapped proof": {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) {
			ev.Items[4].Proof, ev.Items[5].Proof = ev.Items[5].Proof, ev.Items[4].Proof
		}, CheckInclusion, "entry 4"},
		"no proof":        {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) { ev.Items[3].Proof = nil }, CheckInclusion, "entry 3"},
		"swapped indexes": {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) { ev.Items[5].Index = 6 }, CheckInclusion, "outside the log"},
		"a swapped envelope": {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) {
			ev.Items[4].Envelope = ev.Items[5].Envelope
		}, CheckRecord, "the entry names"},
		"an item given twice": {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) {
			ev.Items = slices.Insert(ev.Items, 2, ev.Items[2])
		}, CheckRecord, "given once"},
		"an attachment nobody names": {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) {
			ev.Items[4].Attachments = [][]byte{[]byte("hello")}
		}, CheckRecord, "no entry or record names"},
		"too many attachments": {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) {
			ev.Items[4].Attachments = make([][]byte, MaxAttachments+1)
		}, CheckRecord, "at most 64"},
		"an attachment too long": {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) {
			ev.Items[4].Attachments = [][]byte{make([]byte, maxAttachment+1)}
		}, CheckRecord, "at most 65536"},
		"too many items": {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) {
			ev.Items = make([]Item, MaxItems+1)
		}, CheckEntry0, "at most"},
		"the entitling record left out": {func(s *scene, _ *Want, ev *Evidence, _ *Pin) {
			*ev = s.evidence(0, 4, 5)
		}, CheckAuthority, "missing from the evidence"},
		"a record of the history left out": {func(s *scene, want *Want, ev *Evidence, _ *Pin) {
			y := s.yank(s.ann, "demo", "0.1.0", true, s.addedBob, s.first)
			s.yank(s.ann, "demo", "0.1.0", false, y, s.first)
			*ev = s.evidence(0, 2, 4, 5, 7)
		}, CheckHistory, "one is missing"},
		"the first publish left out": {func(s *scene, want *Want, ev *Evidence, _ *Pin) {
			s.publish(s.ann, "demo", "0.2.0", s.addedBob, s.first)
			*ev, *want = s.evidence(0, 2, 6), s.want("demo", "0.2.0")
		}, CheckAuthority, "missing from the evidence"},
		"entry 0 left out": {func(s *scene, _ *Want, ev *Evidence, _ *Pin) { ev.Items = ev.Items[1:] }, CheckEntry0, "missing"},
		"nothing given":    {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) { *ev = Evidence{} }, CheckEntry0, "missing"},
		"another entry 0": {func(_ *scene, _ *Want, _ *Evidence, pin *Pin) {
			pin.Entry0 = flipHash(pin.Entry0)
		}, CheckEntry0, "another log"},
		"another origin pinned": {func(s *scene, _ *Want, _ *Evidence, pin *Pin) {
			pin.Origin = s.stranger.did()
		}, CheckEntry0, "signed for the registry"},
		"another log's checkpoint": {func(s *scene, _ *Want, ev *Evidence, _ *Pin) {
			other := newLab(s.t)
			other.origin = s.stranger
			ev.Checkpoint = other.note()
		}, CheckCheckpoint, "another log"},
		"a checkpoint signed by somebody else": {func(s *scene, _ *Want, ev *Evidence, _ *Pin) {
			s.addLogKey()
			ev.Checkpoint = s.note()
		}, CheckCheckpoint, "not signed by the log"},
		"no checkpoint": {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) { ev.Checkpoint = nil }, CheckCheckpoint, "no signatures"},
		"a checkpoint of another size": {func(s *scene, _ *Want, ev *Evidence, _ *Pin) {
			s.publish(s.ann, "more", "0.1.0", nil, s.annMember)
			ev.Checkpoint, ev.Consistency = s.note(), s.evidence(0).Consistency
		}, CheckInclusion, "entry 0"},
		"a rollback": {func(s *scene, _ *Want, ev *Evidence, pin *Pin) {
			s.publish(s.ann, "more", "0.1.0", nil, s.annMember)
			pin.Checkpoint = s.note()
		}, CheckRollback, "keep both notes"},
		"no consistency proof": {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) { ev.Consistency = nil }, CheckConsistency, "no proof"},
		"a flipped consistency proof": {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) {
			ev.Consistency[0] = flipHash(ev.Consistency[0])
		}, CheckFork, "another past"},
		"an unreadable pin": {func(_ *scene, _ *Want, _ *Evidence, pin *Pin) { pin.Checkpoint = []byte("?") }, CheckConsistency, "unreadable"},
		"a fork": {func(s *scene, _ *Want, ev *Evidence, pin *Pin) {
			s.old = forkedNote(s)
			s.publish(s.ann, "more", "0.1.0", nil, s.annMember)
			s.publish(s.ann, "more", "0.2.0", nil, s.annMember)
			*ev, pin.Checkpoint = s.evidence(), s.old
		}, CheckFork, "another past"},
		"a fork of the same size": {func(s *scene, _ *Want, ev *Evidence, pin *Pin) {
			pin.Checkpoint = forkedNote(s)
			s.publish(s.ann, "more", "0.1.0", nil, s.annMember)
			*ev = s.evidence()
			ev.Consistency = nil
		}, CheckFork, "another past"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			want, ev, pin := s.want("demo", "0.1.0"), s.evidence(), s.pin()
			tt.alter(s, &want, &ev, &pin)
			v := Artifact(want, ev, pin)
			wantFailure(t, v, tt.check, tt.detail)
			if contradicts := tt.check == CheckRollback || tt.check == CheckFork; contradicts != (v.Conflict != nil) {
				t.Fatalf("conflict kept: %v", v.Conflict)
			} else if contradicts && (!bytes.Equal(v.Conflict.Pinned, pin.Checkpoint) || !bytes.Equal(v.Conflict.Offered, ev.Checkpoint)) {
				t.Error("the notes kept are not the two that contradict each other")
			}
		})
	}
}

// forkedNote is a note of the same registry, one entry on from s, over another past.
func forkedNote(s *scene) []byte {
	other := newScene(s.t)
	other.yank(other.ann, "demo", "0.1.0", true, other.addedBob, other.first)
	return other.note()
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

func TestThresholdNeedsFullCheck(t *testing.T) {
	s := newScene(t)
	two := s.settings()
	two.Admins = append(two.Admins, s.ann.did())
	two.AdminThreshold = 2
	a := s.log(s.admin, record.RegistrySubject(), two, cite{prev: s.genesis, by: s.genesis})
	m := s.log(s.admin, record.MemberSubject(s.stranger.did()), publisher(s.stranger), cite{by: a})
	s.publish(s.stranger, "theirs", "1.0.0", nil, m)
	wantOK(t, Artifact(s.want("theirs", "1.0.0"), s.evidence(), s.pin()))

	b := s.log(s.admin, record.RegistrySubject(), s.settings(), cite{prev: a, by: a})
	s.log(s.ann, record.RegistrySubject(), &record.Approve{Record: b.ID(), Verdict: record.VerdictApprove}, cite{prev: b, by: a})
	carl := s.person()
	m = s.log(s.admin, record.MemberSubject(carl.did()), publisher(carl), cite{by: b})
	s.publish(carl, "carls", "1.0.0", nil, m)
	s.wantClean(t)
	wantFailure(t, Artifact(s.want("carls", "1.0.0"), s.evidence(), s.pin()), CheckCheckpoint, "log check --full")
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

// TestEveryBitFlipFails flips one bit in every byte of every item of a small
// piece of evidence that has a DID document and an own-intent.
func TestEveryBitFlipFails(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	w := l.webPerson("a.example", did.AssertionMethod, did.CapabilityInvocation)
	m := l.admit(w, publisher(w), nil)
	p := l.publish(w, "d", "1.0.0", nil, m)
	l.ownFor(l.intend(w, "d", p, p), "d", []*person{l.admin}, nil, p, p)
	want, pin, pristine := l.want("d", "1.0.0"), l.pin(), l.evidence(0, 2, 3, 4)
	wantOK(t, Artifact(want, pristine, pin))

	n := 0
	flip := func(what string, i, at int, b *byte) {
		*b ^= 1 << (at % 8)
		defer func() { *b ^= 1 << (at % 8) }()
		// Most flips make the item unreadable by itself, which fails whatever the
		// others are; all is judged then only once in a while, to save time.
		if n++; n%200 != 0 && readTrail(pristine.Items[i:i+1], pin.Origin).problem != nil {
			return
		}
		if v := Artifact(want, pristine, pin); v.OK() {
			t.Errorf("item %d: a flip in byte %d of %s passes", i, at, what)
		}
	}
	for i := range pristine.Items {
		item := &pristine.Items[i]
		for bit := range 63 {
			item.Index ^= 1 << bit
			if v := Artifact(want, pristine, pin); v.OK() {
				t.Errorf("item %d passes as entry %d", i, item.Index)
			}
			item.Index ^= 1 << bit
		}
		for at := range item.Entry {
			flip("entry", i, at, &item.Entry[at])
		}
		for at := range item.Envelope {
			flip("envelope", i, at, &item.Envelope[at])
		}
		for _, a := range item.Attachments {
			for at := range a {
				flip("attachment", i, at, &a[at])
			}
		}
		for n := range item.Proof {
			for at := range item.Proof[n] {
				flip("proof", i, at, &item.Proof[n][at])
			}
		}
	}
	wantOK(t, Artifact(want, pristine, pin))
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

func FuzzArtifact(f *testing.F) {
	t := &testing.T{}
	s := newScene(t)
	w := s.webPerson("a.example", did.AssertionMethod, did.CapabilityInvocation)
	m := s.admit(w, publisher(w), nil)
	p := s.publish(w, "d", "1.0.0", nil, m)
	s.ownFor(s.intend(w, "d", p, p), "d", []*person{s.ann}, nil, p, p)
	want, pin := s.want("d", "1.0.0"), s.pin()
	for _, ev := range []Evidence{{}, s.evidence(), s.evidence(0, 6, 7, 8), s.evidence(0)} {
		data, err := json.Marshal(ev)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	honest := s.checkpoint()
	f.Fuzz(func(t *testing.T, data []byte) {
		var ev Evidence
		if json.Unmarshal(data, &ev) != nil {
			return
		}
		v := Artifact(want, ev, pin)
		if len(v.Checks) != 9 {
			t.Errorf("%d checks listed", len(v.Checks))
		}
		// What passes can only be what the registry signed: the log, and the record.
		if v.OK() && (v.Size > honest.Size || v.Record != p.ID()) {
			t.Errorf("passed: %+v", v)
		}
		pin := pin
		pin.Checkpoint = data
		_, _ = Checkpoint(ev.Checkpoint, ev.Consistency, pin, Item{Entry: data, Envelope: data}, ev.Items...)
	})
}
