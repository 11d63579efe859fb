package state

import (
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

func TestPublishRecords(t *testing.T) {
	publish := &record.Publish{}
	runCases(t, []applyCase{
		{"a new name", func(w *world) error {
			w.must(olga, "crate/new_one@0.1.0", publish)
			a, ok := w.artifact(subject(w.t, "crate/New-One"))
			if !ok || a.Name != "new_one" || len(a.Owners) != 1 || a.Owners[0] != (Owner{olga.id(), w.last.ID()}) {
				w.t.Errorf("%+v", a)
			}
			v := w.version("crate/new_one@0.1.0")
			if v.CID != storage.CIDFromDigest(w.last.Digest()) || v.Publisher != olga.id() || v.Record != w.last.ID() ||
				v.Index != w.next-1 || !v.Time.Equal(w.now.Add(-time.Second)) || v.Yanked {
				w.t.Errorf("%+v", v)
			}
			return nil
		}, nil},
		{"another version of the owner's", func(w *world) error { return w.try(pat, demo+"@1.0.1", publish) }, nil},
		{"a shard", func(w *world) error {
			return w.try(olga, "aln-shard/a.b@1.0.0", &record.Publish{MediaType: "application/json", Evidence: []storage.CID{storage.CIDOf(nil)}})
		}, nil},
		{"a shard of a crate's name", func(w *world) error {
			return w.try(olga, "aln-shard/demo-one@1.0.0", &record.Publish{MediaType: "application/json"})
		}, nil},
		{"a new name by a member without the role", func(w *world) error { return w.try(bob, "crate/b@1.0.0", publish) }, ErrNotEntitled},
		{"a new name by a stranger", func(w *world) error { return w.try(mallory, "crate/m@1.0.0", publish) }, ErrNotEntitled},
		{"a new name by the registry", func(w *world) error { return w.try(registry, "crate/m@1.0.0", publish) }, ErrNotEntitled},
		{"a new name by an older member record", func(w *world) error {
			old := w.member(olga.id()).Record
			w.must(alice, member(olga), roles(RolePublisher, RoleAuditor))
			return w.try(olga, "crate/o@1.0.0", publish, by(old))
		}, ErrNotEntitled},
		{"a new name by another's member record", func(w *world) error {
			return w.try(olga, "crate/o@1.0.0", publish, by(w.member(pat.id()).Record))
		}, ErrNotEntitled},
		{"by nothing", func(w *world) error { return w.try(olga, "crate/o@1.0.0", publish, by("")) }, ErrNotEntitled},
		{"a version by one who is not an owner", func(w *world) error {
			return w.try(olga, demo+"@1.0.1", publish, by(w.member(olga.id()).Record))
		}, ErrNotEntitled},
		{"a version by one who cites the owner's record", func(w *world) error {
			a, _ := w.artifact(subject(w.t, demo))
			return w.try(olga, demo+"@1.0.1", publish, by(a.Owners[0].Record))
		}, ErrNotEntitled},
		{"a version by an admin who is not an owner", func(w *world) error { return w.try(alice, demo+"@1.0.1", publish) }, ErrNotEntitled},
		{"a version by the owner's member record", func(w *world) error {
			return w.try(pat, demo+"@1.0.1", publish, by(w.member(pat.id()).Record))
		}, ErrNotEntitled},
		{"the same version again", func(w *world) error { return w.try(pat, demo+"@1.0.0", publish) }, ErrTaken},
		{"the same version with other bytes", func(w *world) error {
			return w.try(pat, demo+"@1.0.0", publish, func(a *attempt) { a.draft.Digest = [32]byte{1} })
		}, ErrTaken},
		{"the same version with build metadata", func(w *world) error { return w.try(pat, demo+"@1.0.0+b", publish) }, ErrTaken},
		{"the same version with other build metadata", func(w *world) error {
			w.must(pat, demo+"@2.0.0+linux", publish)
			return w.try(pat, demo+"@2.0.0+windows", publish)
		}, ErrTaken},
		{"a pre-release is another version", func(w *world) error { return w.try(pat, demo+"@1.0.0-rc.1", publish) }, nil},
		{"a yanked version again", func(w *world) error {
			w.must(pat, demo+"@1.0.0", &record.Yank{Yanked: true})
			return w.try(pat, demo+"@1.0.0", publish)
		}, ErrTaken},
		{"the name with an underscore", func(w *world) error { return w.try(pat, "crate/demo_one@2.0.0", publish) }, ErrTaken},
		{"the name in capitals", func(w *world) error { return w.try(pat, "crate/Demo-One@2.0.0", publish) }, ErrTaken},
		{"the name in capitals by another", func(w *world) error { return w.try(olga, "crate/DEMO_ONE@1.0.0", publish) }, ErrTaken},
	})
}

func TestYankRecords(t *testing.T) {
	y, n := &record.Yank{Yanked: true}, &record.Yank{Yanked: false}
	runCases(t, []applyCase{
		{"by the owner, and back", func(w *world) error {
			before := w.version(demo + "@1.0.0")
			w.must(pat, demo+"@1.0.0", y)
			after := w.version(demo + "@1.0.0")
			if !after.Yanked || after.CID != before.CID || after.Record != before.Record || !after.Time.Equal(before.Time) {
				w.t.Errorf("%+v became %+v", before, after)
			}
			w.must(pat, demo+"@1.0.0", n)
			if w.version(demo + "@1.0.0").Yanked {
				w.t.Error("still yanked")
			}
			return nil
		}, nil},
		{"by an admin", func(w *world) error { return w.try(alice, demo+"@1.0.0", y) }, nil},
		{"by an admin who cites the member record", func(w *world) error {
			return w.try(alice, demo+"@1.0.0", y, by(w.member(alice.id()).Record))
		}, ErrNotEntitled},
		{"by another publisher", func(w *world) error { return w.try(olga, demo+"@1.0.0", y) }, ErrNotEntitled},
		{"by a stranger", func(w *world) error { return w.try(mallory, demo+"@1.0.0", y) }, ErrNotEntitled},
		{"by the registry", func(w *world) error { return w.try(registry, demo+"@1.0.0", y) }, ErrNotEntitled},
		{"by a removed owner", func(w *world) error {
			was := w.last.ID()
			w.must(pat, demo, own(dids(olga), dids(pat)))
			return w.try(pat, demo+"@1.0.0", y, by(was))
		}, ErrNotEntitled},
		{"yanked already", func(w *world) error {
			w.must(pat, demo+"@1.0.0", y)
			return w.try(pat, demo+"@1.0.0", y)
		}, ErrNoChange},
		{"not yanked", func(w *world) error { return w.try(pat, demo+"@1.0.0", n) }, ErrNoChange},
		{"no such version", func(w *world) error { return w.try(pat, demo+"@9.0.0", y) }, ErrMissing},
		{"no such artifact", func(w *world) error { return w.try(pat, "crate/nothing@1.0.0", y) }, ErrMissing},
		{"of another kind", func(w *world) error { return w.try(pat, "manifest/demo-one@1.0.0", y) }, ErrMissing},
		{"the name spelled otherwise", func(w *world) error { return w.try(pat, "crate/demo_one@1.0.0", y) }, ErrMissing},
		{"the version spelled with build metadata", func(w *world) error { return w.try(pat, demo+"@1.0.0+b", y) }, ErrMissing},
	})
}

func TestOwnRecords(t *testing.T) {
	runCases(t, []applyCase{
		{"an owner adds, who publishes by it", func(w *world) error {
			w.must(pat, demo, own(dids(olga), nil))
			return w.try(olga, demo+"@2.0.0", &record.Publish{}, by(w.last.ID()))
		}, nil},
		{"an owner hands over", func(w *world) error {
			w.must(pat, demo, own(dids(olga), dids(pat)))
			a, _ := w.artifact(subject(w.t, demo))
			if len(a.Owners) != 1 || a.Owners[0] != (Owner{olga.id(), w.last.ID()}) {
				w.t.Errorf("%+v", a)
			}
			return w.try(pat, demo+"@2.0.0", &record.Publish{})
		}, ErrNotEntitled},
		{"re-added, but citing the first record", func(w *world) error {
			first := w.last.ID()
			w.must(pat, demo, own(dids(olga), dids(pat)))
			w.must(olga, demo, own(dids(pat), nil))
			return w.try(pat, demo+"@2.0.0", &record.Publish{}, by(first))
		}, ErrNotEntitled},
		{"an admin adds", func(w *world) error { return w.try(alice, demo, own(dids(olga), nil)) }, nil},
		{"a publisher adds herself", func(w *world) error { return w.try(olga, demo, own(dids(olga), nil)) }, ErrNotEntitled},
		{"a stranger adds herself", func(w *world) error { return w.try(mallory, demo, own(dids(mallory), nil)) }, ErrNotEntitled},
		{"the registry adds without an intent", func(w *world) error { return w.try(registry, demo, own(dids(olga), nil)) }, ErrNotEntitled},
		{"a stranger as owner", func(w *world) error { return w.try(pat, demo, own(dids(mallory), nil)) }, ErrInvalid},
		{"a removed member as owner", func(w *world) error {
			w.must(alice, member(olga), roles())
			return w.try(pat, demo, own(dids(olga), nil))
		}, ErrInvalid},
		{"the registry as owner", func(w *world) error { return w.try(pat, demo, own(dids(registry), nil)) }, ErrInvalid},
		{"an owner already", func(w *world) error { return w.try(pat, demo, own(dids(pat), nil)) }, ErrNoChange},
		{"not an owner removed", func(w *world) error { return w.try(pat, demo, own(nil, dids(olga))) }, ErrNoChange},
		{"the last owner removed", func(w *world) error { return w.try(pat, demo, own(nil, dids(pat))) }, ErrInvalid},
		{"the last owner removed by an admin", func(w *world) error { return w.try(alice, demo, own(nil, dids(pat))) }, ErrInvalid},
		{"the last owner who is a member removed", func(w *world) error {
			w.must(pat, demo, own(dids(olga), nil))
			w.must(alice, member(olga), roles())
			return w.try(pat, demo, own(nil, dids(pat)))
		}, ErrInvalid},
		{"an admin replaces an owner who left", func(w *world) error {
			w.must(alice, member(pat), roles())
			return w.try(alice, demo, own(dids(olga), dids(pat)))
		}, nil},
		{"no such artifact", func(w *world) error { return w.try(pat, "crate/nothing", own(dids(olga), nil)) }, ErrMissing},
		{"the name spelled otherwise", func(w *world) error { return w.try(pat, "crate/Demo_One", own(dids(olga), nil)) }, ErrMissing},
	})
}

func TestOwnersAreBounded(t *testing.T) {
	w := newWorld(t)
	key := keyArtifact(record.KindCrate, "demo-one")
	a, _ := w.artifact(subject(t, demo))
	for len(a.Owners) < MaxOwners {
		a.Owners = append(a.Owners, a.Owners[0])
	}
	c, err := put(key, a)
	if err != nil {
		t.Fatal(err)
	}
	w.store.Put([]Change{c})
	if err := w.try(pat, demo, own(dids(olga), nil)); countSentinels(err) != 1 {
		t.Errorf("%d owners and one more: %v", MaxOwners, err)
	}
}

func TestOwnRecordsByIntent(t *testing.T) {
	noDIDs := []did.DID{}
	runCases(t, []applyCase{
		{"the registry signs for the owner", func(w *world) error {
			id := w.intent(pat, demo)
			return w.try(registry, demo, byIntent(id, dids(olga), noDIDs))
		}, nil},
		{"twice within its time", func(w *world) error {
			id := w.intent(pat, demo)
			w.must(registry, demo, byIntent(id, dids(olga), noDIDs))
			w.must(registry, demo, byIntent(id, dids(bob), noDIDs))
			return w.try(registry, demo, byIntent(id, noDIDs, dids(olga)))
		}, nil},
		{"the owner removes himself last", func(w *world) error {
			id := w.intent(pat, demo)
			w.must(registry, demo, byIntent(id, dids(olga), noDIDs))
			w.must(registry, demo, byIntent(id, noDIDs, dids(pat)))
			return w.try(registry, demo, byIntent(id, dids(bob), noDIDs))
		}, ErrNotEntitled},
		{"for an admin", func(w *world) error {
			return w.try(registry, demo, byIntent(w.intent(alice, demo), dids(olga), noDIDs))
		}, nil},
		{"after a publish came between", func(w *world) error {
			id := w.intent(pat, demo)
			w.must(pat, demo+"@2.0.0", &record.Publish{})
			return w.try(registry, demo, byIntent(id, dids(olga), noDIDs))
		}, ErrStale},
		{"after a yank came between two uses", func(w *world) error {
			id := w.intent(pat, demo)
			w.must(registry, demo, byIntent(id, dids(olga), noDIDs))
			w.must(pat, demo+"@1.0.0", &record.Yank{Yanked: true})
			return w.try(registry, demo, byIntent(id, dids(bob), noDIDs))
		}, ErrStale},
		{"after an own record without intent", func(w *world) error {
			id := w.intent(pat, demo)
			w.must(registry, demo, byIntent(id, dids(olga), noDIDs))
			w.must(pat, demo, own(dids(bob), nil))
			return w.try(registry, demo, byIntent(id, noDIDs, dids(bob)))
		}, ErrStale},
		{"after another intent was used", func(w *world) error {
			id := w.intent(pat, demo)
			w.must(registry, demo, byIntent(id, dids(olga), noDIDs))
			w.must(registry, demo, byIntent(w.intent(alice, demo), dids(bob), noDIDs))
			return w.try(registry, demo, byIntent(id, noDIDs, dids(bob)))
		}, ErrStale},
		{"signed for an earlier state", func(w *world) error {
			return w.try(registry, demo, byIntent(w.intent(pat, demo, prev(otherID)), dids(olga), noDIDs))
		}, ErrStale},
		{"at the edge of its time", func(w *world) error {
			id := w.intent(pat, demo)
			w.now = w.now.Add(MaxIntentValidity + Skew)
			return w.try(registry, demo, byIntent(id, dids(olga), noDIDs))
		}, nil},
		{"expired", func(w *world) error {
			id := w.intent(pat, demo)
			w.now = w.now.Add(MaxIntentValidity + Skew + time.Second)
			return w.try(registry, demo, byIntent(id, dids(olga), noDIDs))
		}, ErrInvalid},
		{"valid for too long", func(w *world) error {
			id := w.intent(pat, demo, valid(0, MaxIntentValidity+time.Second))
			return w.try(registry, demo, byIntent(id, dids(olga), noDIDs))
		}, ErrInvalid},
		{"for another registry", func(w *world) error {
			id := w.intent(pat, demo, forRegistry(mallory.id()))
			return w.try(registry, demo, byIntent(id, dids(olga), noDIDs))
		}, ErrInvalid},
		{"for another artifact", func(w *world) error {
			w.must(pat, "crate/two@1.0.0", &record.Publish{})
			return w.try(registry, demo, byIntent(w.intent(pat, "crate/two"), dids(olga), noDIDs))
		}, ErrInvalid},
		{"for another kind", func(w *world) error {
			return w.try(registry, demo, byIntent(w.intent(pat, "manifest/demo-one"), dids(olga), noDIDs))
		}, ErrInvalid},
		{"an own record instead", func(w *world) error {
			other := w.sign(w.prepare(pat, demo, own(dids(olga), nil)))
			return w.try(registry, demo, byIntent(w.attach(other.Envelope()), dids(olga), noDIDs))
		}, ErrInvalid},
		{"no record at all", func(w *world) error {
			return w.try(registry, demo, byIntent(w.attach([]byte("{}")), dids(olga), noDIDs))
		}, ErrInvalid},
		{"not attached", func(w *world) error {
			return w.try(registry, demo, byIntent(w.intent(pat, demo), dids(olga), noDIDs), detached)
		}, ErrInvalid},
		{"other bytes attached", func(w *world) error {
			id, other := w.intent(pat, demo), w.intent(alice, demo)
			return w.try(registry, demo, byIntent(id, dids(olga), noDIDs), swapped(w.attachments[*other]))
		}, ErrInvalid},
		{"signed with another key", func(w *world) error {
			return w.try(registry, demo, byIntent(w.intent(pat, demo, signedBy(mallory.key)), dids(olga), noDIDs))
		}, ErrInvalid},
		{"of a stranger", func(w *world) error {
			return w.try(registry, demo, byIntent(w.intent(mallory, demo), dids(mallory), noDIDs))
		}, ErrNotEntitled},
		{"of a publisher who is not an owner", func(w *world) error {
			return w.try(registry, demo, byIntent(w.intent(olga, demo), dids(olga), noDIDs))
		}, ErrNotEntitled},
		{"that cites another's record", func(w *world) error {
			a, _ := w.artifact(subject(w.t, demo))
			return w.try(registry, demo, byIntent(w.intent(olga, demo, by(a.Owners[0].Record)), dids(olga), noDIDs))
		}, ErrNotEntitled},
		{"with another by than the own record", func(w *world) error {
			return w.try(registry, demo, byIntent(w.intent(pat, demo), dids(olga), noDIDs), by(w.settings().Record))
		}, ErrNotEntitled},
		{"that cites a key", func(w *world) error {
			return w.try(registry, demo, byIntent(w.intent(pat, demo, key(otherID)), dids(olga), noDIDs))
		}, ErrNotEntitled},
		{"signed by the owner, not the registry", func(w *world) error {
			return w.try(pat, demo, byIntent(w.intent(pat, demo), dids(olga), noDIDs))
		}, ErrNotEntitled},
		{"signed by a thief of the intent", func(w *world) error {
			return w.try(mallory, demo, byIntent(w.intent(pat, demo), dids(olga), noDIDs))
		}, ErrNotEntitled},
		{"of a did:web owner", func(w *world) error {
			w.must(wanda, "crate/w@1.0.0", &record.Publish{})
			return w.try(registry, "crate/w", byIntent(w.intent(wanda, "crate/w"), dids(olga), noDIDs))
		}, nil},
		{"of a did:web owner with a replaced key", func(w *world) error {
			w.must(wanda, "crate/w@1.0.0", &record.Publish{})
			id := w.intent(wanda, "crate/w")
			w.must(wanda, member(wanda), change(w, wanda2.doc))
			return w.try(registry, "crate/w", byIntent(id, dids(olga), noDIDs))
		}, ErrNotEntitled},
	})
}
