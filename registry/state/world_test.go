package state

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

var start = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

var sentinels = []error{ErrInvalid, ErrNotEntitled, ErrStale, ErrTaken, ErrNoChange, ErrMissing}

// actor is somebody with a key. doc is the DID document of a did:web.
type actor struct {
	key did.PrivateKey
	url did.URL
	doc []byte
}

func (a actor) id() did.DID { return a.url.DID }

func newKey(seed byte) did.PrivateKey {
	k, err := did.GenerateEd25519(bytes.NewReader(bytes.Repeat([]byte{seed}, 32)))
	if err != nil {
		panic(err)
	}
	return k
}

func keyActor(seed byte) actor {
	k := newKey(seed)
	return actor{key: k, url: k.Public().URL()}
}

// webActor is a did:web whose key may be used for rels.
func webActor(id did.DID, seed byte, rels ...did.Relationship) actor {
	k := newKey(seed)
	url := did.URL{DID: id, Fragment: fmt.Sprintf("key-%d", seed)}
	var b strings.Builder
	fmt.Fprintf(&b, `{"id":%q,"verificationMethod":[{"id":%q,"type":"Multikey","controller":%q,"publicKeyMultibase":%q}]`, id, url, id, k.Public().Multikey())
	for _, rel := range rels {
		fmt.Fprintf(&b, `,%q:[%q]`, rel, url)
	}
	b.WriteString("}")
	return actor{key: k, url: url, doc: []byte(b.String())}
}

var bothUses = []did.Relationship{did.AssertionMethod, did.CapabilityInvocation}

var (
	registry = keyActor(1)
	alice    = keyActor(2)  // the first admin
	pat      = keyActor(3)  // publisher, owner of crate/demo-one
	olga     = keyActor(4)  // publisher
	mallory  = keyActor(5)  // nobody
	bob      = keyActor(6)  // auditor
	anna     = keyActor(20) // an admin where there are several
	arno     = keyActor(21) // another one
	wanda    = webActor("did:web:wanda.example", 7, bothUses...)
	wanda2   = webActor("did:web:wanda.example", 8, bothUses...) // after she rotated
)

// world is a log being made.
type world struct {
	t           testing.TB
	store       Memory
	next        int64
	now         time.Time
	attachments Attachments
	last        *record.Record
	log         []logged
}

type logged struct {
	entry  Entry
	record *record.Record
}

// attempt is a record about to be signed and applied; cases alter it.
type attempt struct {
	draft record.Draft
	who   actor
	entry Entry
	att   Attachments
}

func emptyWorld(t testing.TB) *world {
	return &world{t: t, store: Memory{}, now: start, attachments: Attachments{}}
}

func settings(edit ...func(*record.Registry)) *record.Registry {
	body := &record.Registry{
		DID: registry.id(), LogKeys: []string{newKey(9).Public().Multikey()}, IndexURLs: []string{"sparse+http://127.0.0.1:8585/index/"},
		Admins: []did.DID{alice.id()}, AdminThreshold: 1, ReleaseK: 1,
		TierDefault:          record.TierDefault{CoreStakeholder: record.Allow, Collaborator: record.Allow, Guest: record.Deny},
		DependencyRegistries: []string{}, PrivateNames: []string{},
	}
	for _, e := range edit {
		e(body)
	}
	return body
}

func roles(list ...string) *record.Member {
	return &record.Member{Roles: list, Tier: "collaborator", StakeholderAddrs: []string{}}
}

func (w *world) rolesOf(a actor, list ...string) *record.Member {
	m := roles(list...)
	if a.doc != nil {
		m.DIDDocument = w.attach(a.doc)
	}
	return m
}

func member(a actor) string { return record.MemberSubject(a.id()).String() }

// newWorld is a registry with its first members and crate/demo-one@1.0.0 of pat.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := firstEntries()
	if w == nil {
		t.Fatal("the first entries were refused")
	}
	return &world{
		t: t, store: maps.Clone(w.store), next: w.next, now: w.now,
		attachments: maps.Clone(w.attachments), last: w.last, log: slices.Clone(w.log),
	}
}

// firstEntries makes newWorld's log, once for all tests; nil if it cannot.
var firstEntries = sync.OnceValue(func() *world {
	w := emptyWorld(new(testing.T))
	for _, e := range []struct {
		who  actor
		text string
		body record.Body
	}{
		{registry, "registry", settings()},
		{alice, member(alice), roles(RolePublisher)},
		{alice, member(pat), roles(RolePublisher)},
		{alice, member(olga), roles(RolePublisher)},
		{alice, member(bob), roles(RoleAuditor)},
		{alice, member(wanda), w.rolesOf(wanda, RolePublisher)},
		{pat, "crate/demo-one@1.0.0", &record.Publish{}},
	} {
		if w.try(e.who, e.text, e.body) != nil {
			return nil
		}
	}
	return w
})

func (w *world) attach(blob []byte) *storage.CID {
	id := storage.CIDOf(blob)
	w.attachments[id] = blob
	return &id
}

func (w *world) settings() Settings {
	w.t.Helper()
	s, _, err := SettingsOf(w.store)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) member(d did.DID) Member {
	w.t.Helper()
	m, _, err := MemberOf(w.store, d)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

func (w *world) artifact(s record.Subject) (Artifact, bool) {
	w.t.Helper()
	a, ok, err := ArtifactOf(w.store, s.Kind(), s.Name())
	if err != nil {
		w.t.Fatal(err)
	}
	return a, ok
}

func (w *world) version(text string) Version {
	w.t.Helper()
	v, ok, err := VersionOf(w.store, subject(w.t, text))
	if err != nil || !ok {
		w.t.Fatalf("%s: %v, %v", text, ok, err)
	}
	return v
}

func (w *world) headID(thing string) record.ID {
	w.t.Helper()
	h, _, err := HeadOf(w.store, thing)
	if err != nil {
		w.t.Fatal(err)
	}
	return h.Record
}

func subject(t testing.TB, text string) record.Subject {
	t.Helper()
	s, err := record.ParseSubject(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// by is the citation that entitles who, as /v1/heads would answer it.
func (w *world) by(who actor, s record.Subject, body record.Body) record.ID {
	set := w.settings()
	switch body := body.(type) {
	case *record.Registry:
		return set.Record
	case *record.DIDChange:
		if docs := w.member(who.id()).Documents; who.id() == s.Member() && len(docs) > 0 {
			return docs[len(docs)-1].Record
		}
	case *record.Own:
		if body.Intent != nil {
			if intent, err := record.Parse(w.attachments[*body.Intent]); err == nil {
				return intent.Header().By
			}
		}
	}
	if m := w.member(who.id()); !s.Grant().IsZero() && m.Has(RoleGrantor) || s.Rule() != "" && m.Has(RoleReviewer) {
		return m.Record
	}
	if a, ok := w.artifact(s); ok && s.Kind() != "" {
		if o, is := a.Owner(who.id()); is {
			return o.Record
		}
	} else if _, publish := body.(*record.Publish); publish {
		return w.member(who.id()).Record
	}
	return set.Record
}

// prepare is a right attempt: head, citation, key and document as they are now.
func (w *world) prepare(who actor, text string, body record.Body) *attempt {
	w.t.Helper()
	s := subject(w.t, text)
	at := &attempt{who: who, att: maps.Clone(w.attachments), entry: Entry{Index: w.next, Time: w.now}}
	at.draft = record.Draft{Subject: s, Body: body, Header: record.Header{
		Registry: registry.id(), IssuedAt: w.now, Expires: w.now.Add(time.Hour),
		Prev: w.headID(s.Thing()), By: w.by(who, s, body),
	}}
	switch body.(type) {
	case *record.Publish:
		at.draft.Digest = storage.CIDOf([]byte(text)).Digest()
	case *record.OwnIntent:
		at.draft.Header.Expires = w.now.Add(MaxIntentValidity)
	}
	if who.doc != nil {
		at.entry.DIDDocument = storage.CIDOf(who.doc)
		if docs := w.member(who.id()).Documents; len(docs) > 0 {
			at.draft.Header.Key = docs[len(docs)-1].Record
		} else if set := w.settings(); who.id() == set.Origin {
			at.draft.Header.Key = set.DocumentRecord
		}
	}
	return at
}

func (w *world) sign(at *attempt) *record.Record {
	w.t.Helper()
	r, err := record.Sign(at.draft, at.who.key.Signer(at.who.url))
	if err != nil {
		w.t.Fatalf("sign %s: %v", at.draft.Subject, err)
	}
	return r
}

// try signs and applies a record; edits make it wrong.
func (w *world) try(who actor, text string, body record.Body, edits ...func(*attempt)) error {
	w.t.Helper()
	at := w.prepare(who, text, body)
	for _, edit := range edits {
		edit(at)
	}
	return w.apply(at.entry, w.sign(at), at.att)
}

// apply runs Apply, holds it to what every run promises, and keeps what it accepts.
func (w *world) apply(e Entry, r *record.Record, att Attachments) error {
	w.t.Helper()
	before := maps.Clone(w.store)
	changes, err := Apply(w.store, e, r, att)
	if !maps.EqualFunc(before, w.store, bytes.Equal) {
		w.t.Fatal("Apply wrote to the store")
	}
	if again, againErr := Apply(w.store, e, r, att); !slices.EqualFunc(changes, again, sameChange) || fmt.Sprint(err) != fmt.Sprint(againErr) {
		w.t.Fatalf("Apply is not a function: %v, then %v", err, againErr)
	}
	w.last = r
	if err != nil {
		if len(changes) != 0 {
			w.t.Fatalf("refused (%v), yet changes %v", err, changes)
		}
		if n := countSentinels(err); n != 1 {
			w.t.Fatalf("%v wraps %d sentinels", err, n)
		}
		return err
	}
	w.store.Put(changes)
	w.log = append(w.log, logged{e, r})
	w.next++
	w.now = w.now.Add(time.Second)
	return nil
}

func sameChange(a, b Change) bool { return a.Key == b.Key && bytes.Equal(a.Value, b.Value) }

func countSentinels(err error) int {
	n := 0
	for _, s := range sentinels {
		if errors.Is(err, s) {
			n++
		}
	}
	return n
}

func (w *world) must(who actor, text string, body record.Body, edits ...func(*attempt)) {
	w.t.Helper()
	if err := w.try(who, text, body, edits...); err != nil {
		w.t.Fatalf("%s by %s: %v", text, who.id(), err)
	}
}

// intent signs an own-intent and returns its CID; it is attached from then on.
func (w *world) intent(who actor, text string, edits ...func(*attempt)) *storage.CID {
	w.t.Helper()
	at := w.prepare(who, text, &record.OwnIntent{})
	for _, edit := range edits {
		edit(at)
	}
	return w.attach(w.sign(at).Envelope())
}

func dids(list ...actor) []did.DID {
	out := []did.DID{}
	for _, a := range list {
		out = append(out, a.id())
	}
	return out
}

func own(add, remove []did.DID) *record.Own { return &record.Own{Add: add, Remove: remove} }

func byIntent(id *storage.CID, add, remove []did.DID) *record.Own {
	return &record.Own{Add: add, Remove: remove, Intent: id}
}

// ways of being wrong
func prev(id record.ID) func(*attempt) { return func(a *attempt) { a.draft.Header.Prev = id } }
func by(id record.ID) func(*attempt)   { return func(a *attempt) { a.draft.Header.By = id } }
func key(id record.ID) func(*attempt)  { return func(a *attempt) { a.draft.Header.Key = id } }
func index(i int64) func(*attempt)     { return func(a *attempt) { a.entry.Index = i } }
func signedBy(k did.PrivateKey) func(*attempt) {
	return func(a *attempt) { a.who.key = k }
}
func forRegistry(d did.DID) func(*attempt) {
	return func(a *attempt) { a.draft.Header.Registry = d }
}
func valid(from, until time.Duration) func(*attempt) {
	return func(a *attempt) {
		a.draft.Header.IssuedAt, a.draft.Header.Expires = a.entry.Time.Add(from), a.entry.Time.Add(until)
	}
}
func document(id storage.CID) func(*attempt) { return func(a *attempt) { a.entry.DIDDocument = id } }
func detached(a *attempt)                    { a.att = nil }
func swapped(blob []byte) func(*attempt) {
	return func(a *attempt) {
		for id := range a.att {
			a.att[id] = blob
		}
	}
}

var otherID = record.IDOf([]byte("another record"))
