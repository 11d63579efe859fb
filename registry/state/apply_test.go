package state

import (
	"errors"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// applyCase runs in a fresh newWorld; its last attempt must end as want says (nil: accepted).
type applyCase struct {
	name string
	run  func(w *world) error
	want error
}

func runCases(t *testing.T, cases []applyCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			err := c.run(w)
			if c.want == nil && err != nil || !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			w.checkReplay()
		})
	}
}

// checkReplay derives the state again from the log alone.
func (w *world) checkReplay() {
	w.t.Helper()
	again := Memory{}
	for _, l := range w.log {
		changes, err := Apply(again, l.entry, l.record, w.attachments)
		if err != nil {
			w.t.Fatalf("replay of entry %d: %v", l.entry.Index, err)
		}
		again.Put(changes)
	}
	if len(again) != len(w.store) {
		w.t.Fatalf("replay gives %d keys, not %d", len(again), len(w.store))
	}
	for k, v := range w.store {
		if string(again[k]) != string(v) {
			w.t.Fatalf("replay gives %s = %s, not %s", k, again[k], v)
		}
	}
}

const demo = "crate/demo-one"

func yank(w *world, edits ...func(*attempt)) error {
	return w.try(pat, demo+"@1.0.0", &record.Yank{Yanked: true}, edits...)
}

// TestEveryRecordIsHeldToItsHeader alters what all types share.
func TestEveryRecordIsHeldToItsHeader(t *testing.T) {
	runCases(t, []applyCase{
		{"as it should be", func(w *world) error { return yank(w) }, nil},
		{"for another registry", func(w *world) error { return yank(w, forRegistry(mallory.id())) }, ErrInvalid},
		{"expires when issued", func(w *world) error { return yank(w, valid(0, 0)) }, ErrInvalid},
		{"expires before issued", func(w *world) error { return yank(w, valid(0, -time.Second)) }, ErrInvalid},
		{"valid for a day", func(w *world) error { return yank(w, valid(0, MaxValidity)) }, nil},
		{"valid for more than a day", func(w *world) error { return yank(w, valid(0, MaxValidity+time.Second)) }, ErrInvalid},
		{"valid for ever", func(w *world) error {
			return yank(w, func(a *attempt) { a.draft.Header.Expires = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) })
		}, ErrInvalid},
		{"from the edge of the future", func(w *world) error { return yank(w, valid(Skew, time.Hour)) }, nil},
		{"from the future", func(w *world) error { return yank(w, valid(Skew+time.Second, time.Hour)) }, ErrInvalid},
		{"expired within the skew", func(w *world) error { return yank(w, valid(-time.Hour, -Skew)) }, nil},
		{"expired", func(w *world) error { return yank(w, valid(-time.Hour, -Skew-time.Second)) }, ErrInvalid},
		{"prev null though there is a head", func(w *world) error { return yank(w, prev("")) }, ErrStale},
		{"prev another record", func(w *world) error { return yank(w, prev(otherID)) }, ErrStale},
		{"prev though there is no head", func(w *world) error {
			return w.try(pat, "crate/new@1.0.0", &record.Publish{}, prev(otherID))
		}, ErrStale},
		{"prev of another thing", func(w *world) error { return yank(w, prev(w.headID("registry"))) }, ErrStale},
		{"key cited by a did:key", func(w *world) error { return yank(w, key(otherID)) }, ErrNotEntitled},
		{"signed by another key under this name", func(w *world) error { return yank(w, signedBy(mallory.key)) }, ErrInvalid},
		{"fragment that is not the did:key's", func(w *world) error {
			return yank(w, func(a *attempt) { a.who.url.Fragment = "key-1" })
		}, ErrNotEntitled},
		{"entry names a document of a did:key", func(w *world) error { return yank(w, document(storage.CIDOf(nil))) }, ErrInvalid},
		{"replayed", func(w *world) error {
			w.must(pat, demo+"@1.0.0", &record.Yank{Yanked: true})
			replay := w.last
			w.must(pat, demo+"@1.0.0", &record.Yank{Yanked: false})
			return w.apply(Entry{Index: w.next, Time: w.now}, replay, nil)
		}, ErrStale},
		{"replayed at once", func(w *world) error {
			w.must(pat, demo+"@1.0.0", &record.Yank{Yanked: true})
			return w.apply(Entry{Index: w.next, Time: w.now}, w.last, nil)
		}, ErrStale},
		{"negative index", func(w *world) error { return yank(w, index(-1)) }, ErrInvalid},
		{"entry 0 again", func(w *world) error { return yank(w, index(0)) }, ErrInvalid},
		{"an intent as an entry", func(w *world) error { return w.try(pat, demo, &record.OwnIntent{}) }, ErrInvalid},
	})
}

func TestStaleRefusalSaysWhatCameBetween(t *testing.T) {
	w := newWorld(t)
	err := yank(w, prev(""))
	head, _, headErr := HeadOf(w.store, "crate/demo_one")
	if headErr != nil || head.Type != record.TypePublish || head.Signer != pat.id() || head.Index != 6 {
		t.Errorf("head %+v, %v", head, headErr)
	}
	if want := "signed for an earlier state: crate/demo_one was changed by a publish record of " + pat.id().String(); err == nil || len(err.Error()) < len(want) || err.Error()[:len(want)] != want {
		t.Errorf("%v", err)
	}
}

func TestGenesis(t *testing.T) {
	web := webActor("did:web:registry.example", 30, did.CapabilityInvocation)
	webSettings := func(w *world) *record.Registry {
		return settings(func(r *record.Registry) { r.DID, r.DIDDocument = web.id(), w.attach(web.doc) })
	}
	cases := []applyCase{
		{"the registry's own record", func(w *world) error { return w.try(registry, "registry", settings()) }, nil},
		{"another type first", func(w *world) error { return w.try(alice, member(alice), roles(RolePublisher)) }, ErrInvalid},
		{"signed by an admin", func(w *world) error { return w.try(alice, "registry", settings()) }, ErrNotEntitled},
		{"at another index", func(w *world) error { return w.try(registry, "registry", settings(), index(1)) }, ErrInvalid},
		{"with prev", func(w *world) error { return w.try(registry, "registry", settings(), prev(otherID)) }, ErrStale},
		{"with by", func(w *world) error { return w.try(registry, "registry", settings(), by(otherID)) }, ErrInvalid},
		{"for another origin", func(w *world) error { return w.try(registry, "registry", settings(), forRegistry(alice.id())) }, ErrInvalid},
		{"signed by another key", func(w *world) error { return w.try(registry, "registry", settings(), signedBy(mallory.key)) }, ErrInvalid},
		{"of a did:web", func(w *world) error {
			return w.try(web, "registry", webSettings(w), forRegistry(web.id()))
		}, nil},
		{"of a did:web without its document", func(w *world) error {
			return w.try(web, "registry", webSettings(w), forRegistry(web.id()), detached)
		}, ErrInvalid},
		{"of a did:web with another's document", func(w *world) error {
			body := webSettings(w)
			body.DIDDocument = w.attach(wanda.doc)
			return w.try(web, "registry", body, forRegistry(web.id()), document(*body.DIDDocument))
		}, ErrNotEntitled},
		{"second entry of another type", func(w *world) error {
			w.must(registry, "registry", settings())
			return w.try(alice, "registry", settings())
		}, ErrInvalid},
		{"second entry about another", func(w *world) error {
			w.must(registry, "registry", settings())
			return w.try(alice, member(bob), roles(RolePublisher))
		}, ErrInvalid},
		{"second entry of a stranger about herself", func(w *world) error {
			w.must(registry, "registry", settings())
			return w.try(mallory, member(mallory), roles(RolePublisher))
		}, ErrNotEntitled},
		{"second entry without roles", func(w *world) error {
			w.must(registry, "registry", settings())
			return w.try(alice, member(alice), roles())
		}, ErrNoChange},
		{"second entry of a did:web", func(w *world) error {
			w.must(registry, "registry", settings(func(r *record.Registry) { r.Admins = dids(wanda) }))
			w.must(wanda, member(wanda), w.rolesOf(wanda, RolePublisher))
			return w.try(wanda, "registry", settings(func(r *record.Registry) { r.Admins = dids(wanda) }))
		}, nil},
		{"second entry of a did:web without document", func(w *world) error {
			w.must(registry, "registry", settings(func(r *record.Registry) { r.Admins = dids(wanda) }))
			return w.try(wanda, member(wanda), w.rolesOf(wanda, RolePublisher), detached)
		}, ErrInvalid},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := emptyWorld(t)
			err := c.run(w)
			if c.want == nil && err != nil || !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			w.checkReplay()
		})
	}
}

// TestStateKeepsWholeSecondsOfUTC: an origin that hands Apply another spelling
// of an entry's time makes the state that a replay of the entry makes.
func TestStateKeepsWholeSecondsOfUTC(t *testing.T) {
	w := newWorld(t)
	plain := w.prepare(pat, "crate/t@1.0.0", &record.Publish{})
	r := w.sign(plain)
	want, err := Apply(w.store, plain.entry, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	odd := plain.entry
	odd.Time = odd.Time.Add(123 * time.Millisecond).In(time.FixedZone("elsewhere", 3600))
	got, err := Apply(w.store, odd, r, nil)
	if err != nil || len(got) != len(want) {
		t.Fatal(got, err)
	}
	for i := range got {
		if !sameChange(got[i], want[i]) {
			t.Errorf("%s = %s, want %s", got[i].Key, got[i].Value, want[i].Value)
		}
	}
}

// failingStore fails at the n-th Get.
type failingStore struct {
	Store
	n *int
}

var errStore = errors.New("disk on fire")

func (s failingStore) Get(key string) ([]byte, bool, error) {
	if *s.n--; *s.n < 0 {
		return nil, false, errStore
	}
	return s.Store.Get(key)
}

// TestAFailingStoreIsNoRefusal: at whichever read the store fails, the error is
// the store's, and nobody takes it for a judgement.
func TestAFailingStoreIsNoRefusal(t *testing.T) {
	w := newWorld(t)
	intent := w.intent(pat, demo)
	for name, at := range map[string]*attempt{
		"publish": w.prepare(pat, demo+"@2.0.0", &record.Publish{}),
		"yank":    w.prepare(pat, demo+"@1.0.0", &record.Yank{Yanked: true}),
		"own":     w.prepare(registry, demo, byIntent(intent, dids(olga), dids(pat))),
		"member":  w.prepare(alice, member(mallory), roles(RolePublisher)),
		"setting": w.prepare(alice, "registry", settings()),
		"did":     w.prepare(wanda, member(wanda), &record.DIDChange{DIDDocument: *w.attach(wanda2.doc)}),
	} {
		r := w.sign(at)
		reads := 0
		for ; reads < 100; reads++ {
			n := reads
			changes, err := Apply(failingStore{w.store, &n}, at.entry, r, w.attachments)
			if err == nil {
				break
			}
			if !errors.Is(err, errStore) || countSentinels(err) != 0 || changes != nil {
				t.Fatalf("%s, read %d: %v, %v", name, reads, changes, err)
			}
		}
		if reads < 3 || reads == 100 {
			t.Errorf("%s: accepted after %d reads", name, reads)
		}
	}
}

func TestUnreadableStateIsNoRefusal(t *testing.T) {
	w := newWorld(t)
	for _, broken := range []string{`{}x`, `{"unknown":1}`, `[]`, ``} {
		w.store[keyArtifact(record.KindCrate, "demo-one")] = []byte(broken)
		at := w.prepare(pat, "crate/other@1.0.0", &record.Publish{})
		at.draft.Subject = subject(t, demo+"@2.0.0")
		at.draft.Header.Prev = w.headID("crate/demo_one")
		if changes, err := Apply(w.store, at.entry, w.sign(at), nil); err == nil || countSentinels(err) != 0 || changes != nil {
			t.Errorf("%q: %v, %v", broken, changes, err)
		}
	}
}
