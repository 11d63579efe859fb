package verify

import (
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

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
		"an intent that is another kind of record": {func(s *scene) Want {
			yank := s.sign(s.ann, s.version("demo", "0.1.0"), &record.Yank{Yanked: true}, cite{prev: s.addedBob, by: s.first})
			id := yank.CID()
			s.log(s.origin, s.name("demo"), ownBody([]*person{s.admin}, nil, &id),
				cite{prev: s.addedBob, by: s.first, attach: [][]byte{yank.Envelope()}})
			return s.want("demo", "0.1.0")
		}, CheckHistory, "is a yank record"},
		"an intent for another registry": {func(s *scene) Want {
			intent := s.sign(s.ann, s.name("demo"), &record.OwnIntent{}, cite{prev: s.addedBob, by: s.first, change: func(d *record.Draft) {
				d.Header.Expires, d.Header.Registry = d.Header.IssuedAt.Add(time.Minute), s.stranger.did()
			}})
			s.ownFor(intent, "demo", []*person{s.admin}, nil, s.addedBob, s.first)
			return s.want("demo", "0.1.0")
		}, CheckHistory, "is for the registry"},
		"an intent that cites something else": {func(s *scene) Want {
			intent := s.intend(s.ann, "demo", s.addedBob, s.first)
			s.ownFor(intent, "demo", []*person{s.admin}, nil, s.addedBob, s.addedBob)
			return s.want("demo", "0.1.0")
		}, CheckHistory, "not that of its own-intent"},
		"an intent that nobody has": {func(s *scene) Want {
			intent := s.intend(s.ann, "demo", s.addedBob, s.first)
			id := intent.CID()
			s.log(s.origin, s.name("demo"), ownBody([]*person{s.admin}, nil, &id), cite{prev: s.addedBob, by: s.first})
			return s.want("demo", "0.1.0")
		}, CheckHistory, "own-intent is missing"},
		"an intent signed by another's key": {func(s *scene) Want {
			w := s.webPerson("lab.example", did.AssertionMethod, did.CapabilityInvocation)
			m := s.admit(w, publisher(w), nil)
			p := s.publish(w, "web", "1.0.0", nil, m)
			w.key = s.stranger.key
			s.ownFor(s.intend(w, "web", p, p), "web", []*person{s.bob}, nil, p, p)
			return s.want("web", "1.0.0")
		}, CheckHistory, "own-intent: signature"},
		"the registry admitted as a member": {func(s *scene) Want {
			m := s.log(s.admin, record.MemberSubject(s.origin.did()), publisher(s.origin), cite{by: s.genesis})
			s.publish(s.origin, "mine", "0.1.0", nil, m)
			return s.want("mine", "0.1.0")
		}, CheckAuthority, "not its own member"},
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
		}, CheckSignature, "which does not hold: by names entry 6"},
		"log keys named by a stranger": {func(s *scene) Want {
			s.log(s.stranger, record.RegistrySubject(), s.settings(), cite{prev: s.genesis, by: s.genesis})
			return s.want("demo", "0.1.0")
		}, CheckCheckpoint, "is not an admin"},
		"settings signed for an earlier state": {func(s *scene) Want {
			s.log(s.admin, record.RegistrySubject(), s.settings(), cite{by: s.genesis})
			return s.want("demo", "0.1.0")
		}, CheckCheckpoint, "prev does not name entry 0"},
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
