package state

import (
	"slices"
	"testing"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

func admins(threshold int, list ...actor) func(*record.Registry) {
	return func(r *record.Registry) { r.Admins, r.AdminThreshold = dids(list...), threshold }
}

func TestRegistryRecords(t *testing.T) {
	runCases(t, []applyCase{
		{"an admin changes settings", func(w *world) error {
			w.must(alice, "registry", settings(func(r *record.Registry) { r.MinAgeDays = 7 }))
			if s := w.settings(); s.MinAgeDays != 7 || s.Record != w.last.ID() || s.Origin != registry.id() {
				w.t.Errorf("%+v", s)
			}
			return nil
		}, nil},
		{"a member who is no admin", func(w *world) error { return w.try(pat, "registry", settings()) }, ErrNotEntitled},
		{"a stranger", func(w *world) error { return w.try(mallory, "registry", settings(admins(1, mallory))) }, ErrNotEntitled},
		{"the registry itself after entry 0", func(w *world) error { return w.try(registry, "registry", settings()) }, ErrNotEntitled},
		{"by an older registry record", func(w *world) error {
			old := w.settings().Record
			w.must(alice, "registry", settings())
			return w.try(alice, "registry", settings(), by(old))
		}, ErrNotEntitled},
		{"another did", func(w *world) error {
			return w.try(alice, "registry", settings(func(r *record.Registry) { r.DID = mallory.id() }))
		}, ErrInvalid},
		{"an admin who is no member", func(w *world) error { return w.try(alice, "registry", settings(admins(1, alice, mallory))) }, ErrInvalid},
		{"an admin who was a member", func(w *world) error {
			w.must(alice, member(olga), roles())
			return w.try(alice, "registry", settings(admins(1, alice, olga)))
		}, ErrInvalid},
		{"a replaced admin", func(w *world) error {
			w.must(alice, "registry", settings(admins(1, pat)))
			return w.try(alice, "registry", settings())
		}, ErrNotEntitled},
	})
}

func TestARegistryOfADIDWebRotatesItsDocument(t *testing.T) {
	one := webActor("did:web:registry.example", 30, did.CapabilityInvocation)
	two := webActor("did:web:registry.example", 31, did.CapabilityInvocation)
	w := emptyWorld(t)
	with := func(a actor) *record.Registry {
		return settings(func(r *record.Registry) { r.DID, r.DIDDocument = a.id(), w.attach(a.doc) })
	}
	here := forRegistry(one.id())
	w.must(one, "registry", with(one), here)
	first := w.last.ID()
	w.must(alice, member(alice), roles(RolePublisher), here)
	w.must(alice, "registry", with(one), here)
	if got := w.settings().DocumentRecord; got != first {
		t.Errorf("a record that keeps the document became the one that brought it: %s", got)
	}
	w.must(alice, "registry", with(two), here)
	if got := w.settings().DocumentRecord; got != w.last.ID() {
		t.Errorf("the document's record is %s", got)
	}
	w.must(alice, demo+"@1.0.0", &record.Publish{}, here)
	intent := w.intent(alice, demo, here)
	if err := w.try(one, demo, byIntent(intent, dids(alice), nil), here); countSentinels(err) != 1 {
		t.Errorf("signed by the replaced key: %v", err)
	}
	w.must(alice, member(pat), roles(RolePublisher), here)
	w.must(two, demo, byIntent(intent, dids(pat), []did.DID{}), here)
	w.checkReplay()
}

// council is newWorld with three admins, two of whom decide.
func council(w *world) {
	w.must(alice, member(anna), roles(RoleReviewer))
	w.must(alice, member(arno), roles(RoleReviewer))
	w.must(alice, "registry", settings(admins(2, alice, anna, arno)))
}

func (w *world) propose(who actor, edit ...func(*record.Registry)) record.ID {
	w.t.Helper()
	w.must(who, "registry", settings(append([]func(*record.Registry){admins(2, alice, anna, arno)}, edit...)...))
	return w.last.ID()
}

func approve(id record.ID) *record.Approve {
	return &record.Approve{Record: id, Verdict: record.VerdictApprove}
}

func reject(id record.ID) *record.Approve {
	return &record.Approve{Record: id, Verdict: record.VerdictReject}
}

func aged(days int) func(*record.Registry) {
	return func(r *record.Registry) { r.MinAgeDays = days }
}

func TestApproveRecords(t *testing.T) {
	runCases(t, []applyCase{
		{"the second of two enacts", func(w *world) error {
			council(w)
			before := w.settings()
			p := w.propose(alice, aged(3))
			if s := w.settings(); s.Record != before.Record || s.MinAgeDays != 0 {
				w.t.Errorf("one admin of two changed the settings: %+v", s)
			}
			w.must(arno, "registry", approve(p))
			if s := w.settings(); s.Record != p || s.MinAgeDays != 3 {
				w.t.Errorf("two admins of two did not: %+v", s)
			}
			return w.try(arno, "registry", approve(p)) // it is done
		}, ErrInvalid},
		{"three of three", func(w *world) error {
			council(w)
			w.must(anna, "registry", approve(w.propose(alice, admins(3, alice, anna, arno))))
			p := w.propose(alice, aged(3))
			w.must(anna, "registry", approve(p))
			if s := w.settings(); s.MinAgeDays != 0 {
				w.t.Error("two of three enacted")
			}
			w.must(arno, "registry", approve(p))
			if s := w.settings(); s.MinAgeDays != 3 {
				w.t.Error("three of three did not enact")
			}
			return nil
		}, nil},
		{"the proposer again", func(w *world) error {
			council(w)
			return w.try(alice, "registry", approve(w.propose(alice)))
		}, ErrNoChange},
		{"the same admin twice", func(w *world) error {
			council(w)
			w.must(anna, "registry", approve(w.propose(alice, admins(3, alice, anna, arno))))
			p := w.propose(alice)
			w.must(anna, "registry", approve(p))
			return w.try(anna, "registry", approve(p))
		}, ErrNoChange},
		{"a member who is no admin", func(w *world) error {
			council(w)
			return w.try(pat, "registry", approve(w.propose(alice)))
		}, ErrNotEntitled},
		{"a stranger", func(w *world) error {
			council(w)
			return w.try(mallory, "registry", approve(w.propose(alice)))
		}, ErrNotEntitled},
		{"a stranger rejects", func(w *world) error {
			council(w)
			return w.try(mallory, "registry", reject(w.propose(alice)))
		}, ErrNotEntitled},
		{"by another record", func(w *world) error {
			council(w)
			return w.try(anna, "registry", approve(w.propose(alice)), by(otherID))
		}, ErrNotEntitled},
		{"no such proposal", func(w *world) error { council(w); return w.try(anna, "registry", approve(otherID)) }, ErrMissing},
		{"settings in force are no proposal", func(w *world) error {
			council(w)
			return w.try(anna, "registry", approve(w.settings().Record))
		}, ErrMissing},
		{"a reject ends it", func(w *world) error {
			council(w)
			p := w.propose(alice)
			w.must(anna, "registry", reject(p))
			return w.try(arno, "registry", approve(p))
		}, ErrInvalid},
		{"other settings came between", func(w *world) error {
			council(w)
			first, second := w.propose(alice, aged(1)), w.propose(anna, aged(2))
			w.must(arno, "registry", approve(second))
			return w.try(arno, "registry", approve(first))
		}, ErrInvalid},
		{"the admin-to-be was removed since", func(w *world) error {
			council(w)
			p := w.propose(alice, admins(2, alice, anna, arno, olga))
			w.must(alice, member(olga), roles())
			return w.try(anna, "registry", approve(p))
		}, ErrInvalid},
	})
}

func TestMemberRecords(t *testing.T) {
	runCases(t, []applyCase{
		{"an admin admits", func(w *world) error {
			w.must(alice, member(mallory), roles(RolePublisher, "free-role"))
			m := w.member(mallory.id())
			if !m.Active() || !m.Has("free-role") || m.Has(RoleAuditor) || m.Record != w.last.ID() || len(m.Documents) != 0 {
				w.t.Errorf("%+v", m)
			}
			return nil
		}, nil},
		{"a member admits", func(w *world) error { return w.try(pat, member(mallory), roles(RolePublisher)) }, ErrNotEntitled},
		{"a stranger admits herself", func(w *world) error { return w.try(mallory, member(mallory), roles(RolePublisher)) }, ErrNotEntitled},
		{"the registry admits", func(w *world) error { return w.try(registry, member(mallory), roles(RolePublisher)) }, ErrNotEntitled},
		{"by the admin's own member record", func(w *world) error {
			return w.try(alice, member(mallory), roles(RolePublisher), by(w.member(alice.id()).Record))
		}, ErrNotEntitled},
		{"the registry as a member", func(w *world) error { return w.try(alice, member(registry), roles(RolePublisher)) }, ErrInvalid},
		{"an admin removes", func(w *world) error {
			w.must(alice, member(pat), roles())
			if w.member(pat.id()).Active() {
				w.t.Error("still a member")
			}
			return yank(w)
		}, ErrNotEntitled},
		{"a removed owner publishes", func(w *world) error {
			w.must(alice, member(pat), roles())
			return w.try(pat, demo+"@2.0.0", &record.Publish{})
		}, ErrNotEntitled},
		{"an owner who lost only the role publishes a version", func(w *world) error {
			w.must(alice, member(pat), roles(RoleAuditor))
			return w.try(pat, demo+"@2.0.0", &record.Publish{})
		}, nil},
		{"removed twice", func(w *world) error {
			w.must(alice, member(pat), roles())
			return w.try(alice, member(pat), roles())
		}, ErrNoChange},
		{"a stranger removed", func(w *world) error { return w.try(alice, member(mallory), roles()) }, ErrNoChange},
		{"an admin removed", func(w *world) error { return w.try(alice, member(alice), roles()) }, ErrInvalid},
		{"document not attached", func(w *world) error {
			return w.try(alice, member(wanda), w.rolesOf(wanda, RolePublisher), detached)
		}, ErrInvalid},
		{"document of other bytes", func(w *world) error {
			return w.try(alice, member(wanda), w.rolesOf(wanda, RolePublisher), swapped(wanda2.doc))
		}, ErrInvalid},
		{"document of somebody else", func(w *world) error {
			body := w.rolesOf(wanda, RolePublisher)
			return w.try(alice, record.MemberSubject("did:web:other.example").String(), body)
		}, ErrInvalid},
		{"document that is none", func(w *world) error {
			body := roles(RolePublisher)
			body.DIDDocument = w.attach([]byte("{}"))
			return w.try(alice, member(wanda), body)
		}, ErrInvalid},
		{"the same document again", func(w *world) error {
			before := w.member(wanda.id()).Documents
			w.must(alice, member(wanda), w.rolesOf(wanda, RoleReviewer))
			if after := w.member(wanda.id()).Documents; !slices.Equal(before, after) {
				w.t.Errorf("%v became %v", before, after)
			}
			return w.try(wanda, "crate/w@1.0.0", &record.Publish{})
		}, ErrNotEntitled},
	})
}

func change(w *world, doc []byte) *record.DIDChange {
	return &record.DIDChange{DIDDocument: *w.attach(doc)}
}

func TestDIDRecords(t *testing.T) {
	since := func(w *world, i int64) *record.DIDChange {
		c := change(w, wanda2.doc)
		c.CompromisedSince = &i
		return c
	}
	runCases(t, []applyCase{
		{"the member rotates, the new key signs", func(w *world) error {
			w.must(wanda, member(wanda), change(w, wanda2.doc))
			docs := w.member(wanda.id()).Documents
			if len(docs) != 2 || docs[1].Record != w.last.ID() || docs[1].Since != w.next-1 || docs[0].CompromisedSince != nil {
				w.t.Errorf("%+v", docs)
			}
			return w.try(wanda2, "crate/w@1.0.0", &record.Publish{})
		}, nil},
		{"the replaced key signs", func(w *world) error {
			w.must(wanda, member(wanda), change(w, wanda2.doc))
			return w.try(wanda, "crate/w@1.0.0", &record.Publish{})
		}, ErrInvalid},
		{"the replaced key under the new document", func(w *world) error {
			w.must(wanda, member(wanda), change(w, wanda2.doc))
			return w.try(wanda, "crate/w@1.0.0", &record.Publish{}, document(storage.CIDOf(wanda2.doc)))
		}, ErrNotEntitled},
		{"the new key before its document", func(w *world) error {
			w.attach(wanda2.doc)
			return w.try(wanda2, "crate/w@1.0.0", &record.Publish{})
		}, ErrInvalid},
		{"the new key brings its own document", func(w *world) error {
			return w.try(wanda2, member(wanda), change(w, wanda2.doc), document(storage.CIDOf(wanda.doc)))
		}, ErrNotEntitled},
		{"an admin rotates", func(w *world) error { return w.try(alice, member(wanda), change(w, wanda2.doc)) }, nil},
		{"another member rotates", func(w *world) error { return w.try(pat, member(wanda), change(w, wanda2.doc)) }, ErrNotEntitled},
		{"a stranger rotates", func(w *world) error { return w.try(mallory, member(wanda), change(w, wanda2.doc)) }, ErrNotEntitled},
		{"by another record", func(w *world) error {
			return w.try(wanda, member(wanda), change(w, wanda2.doc), by(w.settings().Record))
		}, ErrNotEntitled},
		{"an admin by another record", func(w *world) error {
			return w.try(alice, member(wanda), change(w, wanda2.doc), by(w.member(wanda.id()).Record))
		}, ErrNotEntitled},
		{"key cites another record", func(w *world) error {
			return w.try(wanda, member(wanda), change(w, wanda2.doc), key(otherID))
		}, ErrNotEntitled},
		{"key not cited", func(w *world) error { return w.try(wanda, member(wanda), change(w, wanda2.doc), key("")) }, ErrNotEntitled},
		{"the document in force", func(w *world) error { return w.try(wanda, member(wanda), change(w, wanda.doc)) }, ErrNoChange},
		{"the document in force, called compromised", func(w *world) error {
			body := since(w, 3)
			body.DIDDocument = storage.CIDOf(wanda.doc)
			return w.try(wanda, member(wanda), body)
		}, ErrNoChange},
		{"the document in force, the replaced key called compromised after all", func(w *world) error {
			w.must(wanda, member(wanda), change(w, wanda2.doc))
			before := w.member(wanda.id()).Documents
			w.must(wanda2, member(wanda), since(w, 3))
			after := w.member(wanda.id()).Documents
			if len(after) != 2 || after[0].CompromisedSince == nil || *after[0].CompromisedSince != 3 || after[1] != before[1] || before[0].CompromisedSince != nil {
				w.t.Errorf("%+v", after)
			}
			w.must(alice, member(wanda), since(w, 0)) // an admin knows of more
			if docs := w.member(wanda.id()).Documents; *docs[0].CompromisedSince != 0 {
				w.t.Errorf("%+v", docs)
			}
			return w.try(wanda2, "crate/w@1.0.0", &record.Publish{}) // its record is still what the key rests on
		}, nil},
		{"that is said again", func(w *world) error {
			w.must(wanda, member(wanda), since(w, 3))
			return w.try(wanda2, member(wanda), since(w, 3))
		}, ErrNoChange},
		{"that is taken back in part", func(w *world) error {
			w.must(wanda, member(wanda), since(w, 3))
			return w.try(wanda2, member(wanda), since(w, 4))
		}, ErrNoChange},
		{"called compromised once the key was replaced", func(w *world) error {
			w.must(wanda, member(wanda), change(w, wanda2.doc))
			return w.try(wanda2, member(wanda), since(w, w.next-1))
		}, ErrNoChange},
		{"the document in force, since the future", func(w *world) error {
			w.must(wanda, member(wanda), change(w, wanda2.doc))
			return w.try(wanda2, member(wanda), since(w, w.next+1))
		}, ErrInvalid},
		{"the replaced key called compromised by itself", func(w *world) error {
			w.must(wanda, member(wanda), change(w, wanda2.doc))
			return w.try(wanda, member(wanda), since(w, 3), document(storage.CIDOf(wanda2.doc)))
		}, ErrNotEntitled},
		{"by another member", func(w *world) error {
			w.must(wanda, member(wanda), change(w, wanda2.doc))
			return w.try(pat, member(wanda), since(w, 3))
		}, ErrNotEntitled},
		{"compromised since an earlier entry", func(w *world) error {
			w.must(alice, member(wanda), since(w, 3))
			if docs := w.member(wanda.id()).Documents; docs[0].CompromisedSince == nil || *docs[0].CompromisedSince != 3 || docs[1].CompromisedSince != nil {
				w.t.Errorf("%+v", docs)
			}
			return nil
		}, nil},
		{"compromised since now", func(w *world) error { return w.try(alice, member(wanda), since(w, w.next)) }, nil},
		{"compromised since the future", func(w *world) error { return w.try(alice, member(wanda), since(w, w.next+1)) }, ErrInvalid},
		{"of no member", func(w *world) error {
			other := webActor("did:web:other.example", 33, bothUses...)
			return w.try(alice, member(other), change(w, other.doc))
		}, ErrMissing},
		{"of a removed member", func(w *world) error {
			w.must(alice, member(wanda), w.rolesOf(wanda))
			return w.try(wanda, member(wanda), change(w, wanda2.doc))
		}, ErrMissing},
		{"document of another DID", func(w *world) error {
			return w.try(wanda, member(wanda), change(w, webActor("did:web:other.example", 33).doc))
		}, ErrInvalid},
		{"document not attached", func(w *world) error {
			return w.try(alice, member(wanda), change(w, wanda2.doc), detached)
		}, ErrInvalid},
	})
}

// TestRelationshipsDecide: a key counts for publish only as assertionMethod, for
// everything else only as capabilityInvocation.
func TestRelationshipsDecide(t *testing.T) {
	only := func(rel ...did.Relationship) actor { return webActor("did:web:rel.example", 40, rel...) }
	runCases(t, []applyCase{
		{"publish with assertionMethod", func(w *world) error {
			a := only(did.AssertionMethod)
			w.must(alice, member(a), w.rolesOf(a, RolePublisher))
			return w.try(a, "crate/w@1.0.0", &record.Publish{})
		}, nil},
		{"publish with capabilityInvocation alone", func(w *world) error {
			a := only(did.CapabilityInvocation, did.Authentication)
			w.must(alice, member(a), w.rolesOf(a, RolePublisher))
			return w.try(a, "crate/w@1.0.0", &record.Publish{})
		}, ErrNotEntitled},
		{"yank with assertionMethod alone", func(w *world) error {
			a := only(did.AssertionMethod, did.Authentication)
			w.must(alice, member(a), w.rolesOf(a, RolePublisher))
			w.must(a, "crate/w@1.0.0", &record.Publish{})
			return w.try(a, "crate/w@1.0.0", &record.Yank{Yanked: true})
		}, ErrNotEntitled},
		{"a key in no relationship", func(w *world) error {
			a := only()
			w.must(alice, member(a), w.rolesOf(a, RolePublisher))
			return w.try(a, "crate/w@1.0.0", &record.Publish{})
		}, ErrNotEntitled},
		{"a did:web nobody admitted", func(w *world) error {
			a := only(bothUses...)
			w.attach(a.doc)
			return w.try(a, "crate/w@1.0.0", &record.Publish{})
		}, ErrNotEntitled},
	})
}
