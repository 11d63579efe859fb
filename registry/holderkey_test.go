package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// actor is somebody at a registry: a key and the name it signs by.
type actor struct {
	t   testing.TB
	r   *Registry
	key did.PrivateKey
	id  did.URL
}

func newKey(t testing.TB) did.PrivateKey {
	t.Helper()
	key, err := did.GenerateEd25519(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a actor) document(t testing.TB) []byte {
	t.Helper()
	raw, err := did.NewDocument(a.id.DID, []did.DocumentKey{{ID: a.id, Key: a.key.Public()}})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// session mints one, or says why not.
func (a actor) session(scope string, rec record.ID) (string, error) {
	id := make([]byte, 16)
	rand.Read(id)
	now := time.Now()
	signed, err := policy.SignAssertion(policy.Assertion{
		Issuer: a.id.DID, Subject: a.id.DID, Audience: a.r.SessionURL(), IssuedAt: now.Unix(), Expiry: now.Add(time.Minute).Unix(),
		ID: hex.EncodeToString(id), Scope: scope, Rec: string(rec),
	}, did.EdDSA, a.key.Signer(a.id))
	if err != nil {
		a.t.Fatal(err)
	}
	token, _, err := a.r.Mint(context.Background(), signed)
	return token, err
}

// submit signs body about subject with the heads of now, and enters it.
func (a actor) submit(subject record.Subject, body record.Body, attachments ...[]byte) (Receipt, error) {
	a.t.Helper()
	heads, err := a.r.HeadsFor(a.t.Context(), policy.Asker{DID: a.id.DID}, subject.Thing())
	if err != nil {
		a.t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	rec, err := record.Sign(record.Draft{Subject: subject, Body: body, Header: record.Header{
		Registry: a.r.Origin(), IssuedAt: now, Expires: now.Add(time.Minute), Prev: heads.Prev, By: heads.By, Key: heads.Key,
	}}, a.key.Signer(a.id))
	if err != nil {
		a.t.Fatal(err)
	}
	token, err := a.session(rec.Scope(), rec.ID())
	if err != nil {
		return Receipt{}, err
	}
	asker, err := a.r.Authenticate(a.t.Context(), token)
	if err != nil {
		return Receipt{}, err
	}
	return a.r.Submit(a.t.Context(), asker, rec.Envelope(), attachments)
}

// publish enters bytes of a kind that has no rules of its own.
func (a actor) publish(subject record.Subject, content []byte) {
	a.t.Helper()
	if _, err := a.tryPublish(subject, content); err != nil {
		a.t.Fatal(err)
	}
}

// tryPublish is publish, with evidence, for what may be refused.
func (a actor) tryPublish(subject record.Subject, content []byte, evidence ...storage.CID) (Published, error) {
	a.t.Helper()
	heads, err := a.r.HeadsFor(a.t.Context(), policy.Asker{DID: a.id.DID}, subject.Thing())
	if err != nil {
		a.t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	rec, err := record.Sign(record.Draft{
		Subject: subject, Digest: storage.CIDOf(content).Digest(), Body: &record.Publish{Evidence: append([]storage.CID{}, evidence...), MediaType: "text/plain"},
		Header: record.Header{
			Registry: a.r.Origin(), IssuedAt: now, Expires: now.Add(time.Minute), Prev: heads.Prev, By: heads.By, Key: heads.Key,
		},
	}, a.key.Signer(a.id))
	if err != nil {
		a.t.Fatal(err)
	}
	token, err := a.session(particle.ScopePublish, rec.ID())
	if err != nil {
		a.t.Fatal(err)
	}
	asker, err := a.r.Authenticate(a.t.Context(), token)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.r.Publish(a.t.Context(), asker, rec.Envelope(), subject, bytes.NewReader(content))
}

func cidOf(raw []byte) *storage.CID {
	id := storage.CIDOf(raw)
	return &id
}

// roommates is a registry with an admin and the did:web member host, key-1.
func roommates(t *testing.T) (admin, host actor) {
	r, key := openTest(t)
	admin = actor{t, r, key, key.Public().URL()}
	host = actor{t, r, newKey(t), did.URL{DID: "did:web:host.example", Fragment: "key-1"}}
	document := host.document(t)
	_, err := admin.submit(record.MemberSubject(host.id.DID), &record.Member{
		DIDDocument: cidOf(document), Roles: []string{state.RolePublisher}, Tier: particle.TierGuest, StakeholderAddrs: []string{},
	}, document)
	if err != nil {
		t.Fatal(err)
	}
	return admin, host
}

func TestAReplacedKeyIsRefusedAtTheNextRequest(t *testing.T) {
	_, old := roommates(t)
	before, err := old.session(particle.ScopeRead, "")
	if err != nil {
		t.Fatal(err)
	}
	if asker, err := old.r.Authenticate(t.Context(), before); err != nil || asker.DID != old.id.DID {
		t.Fatalf("%+v, %v", asker, err)
	}
	next := old
	next.key = newKey(t) // under the same name
	document := next.document(t)
	if _, err := old.submit(record.MemberSubject(old.id.DID), &record.DIDChange{DIDDocument: *cidOf(document)}, document); err != nil {
		t.Fatal(err)
	}
	if _, err := old.r.Authenticate(t.Context(), before); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("a session of the old key: %v", err)
	}
	if _, err := old.session(particle.ScopeRead, ""); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("the old key signs in: %v", err)
	}
	after, err := next.session(particle.ScopeRead, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := next.r.Authenticate(t.Context(), after); err != nil {
		t.Error(err)
	}
}

func TestARemovedMembersSessionsAreRefused(t *testing.T) {
	admin, host := roommates(t)
	token, err := host.session(particle.ScopeRead, "")
	if err != nil {
		t.Fatal(err)
	}
	document := host.document(t)
	_, err = admin.submit(record.MemberSubject(host.id.DID), &record.Member{
		DIDDocument: cidOf(document), Roles: []string{}, Tier: particle.TierGuest, StakeholderAddrs: []string{},
	}, document)
	if err != nil {
		t.Fatal(err)
	}
	_, err = host.r.Authenticate(t.Context(), token)
	wantDenial(t, err, policy.RuleMember)
	if _, err := host.session(particle.ScopeRead, ""); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("signs in: %v", err)
	}
}

func TestSessionsOfOneKeyDoNotServeAnother(t *testing.T) {
	_, host := roommates(t)
	token, err := host.session(particle.ScopeRead, "")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := policy.ParseSession(token)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*particle.SessionToken){
		"no key named":         func(c *particle.SessionToken) { c.HostDID = string(c.Subject) },
		"a key that is not":    func(c *particle.SessionToken) { c.HostDID = string(c.Subject) + "#key-2" },
		"no key held":          func(c *particle.SessionToken) { c.ID = "0123456789abcdef" },
		"another's key held":   func(c *particle.SessionToken) { c.ID = "0123456789abcdef." + newKey(t).Public().Multikey() },
		"nothing behind a dot": func(c *particle.SessionToken) { c.ID = "0123456789abcdef." },
	} {
		claims := parsed.Claims
		change(&claims)
		signed, err := policy.SignSession(claims, did.EdDSA, host.r.Keys.Signer())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := host.r.Authenticate(t.Context(), signed); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStrangersLearnNothingOfWhoIsAMember: by signing in as somebody.
func TestStrangersLearnNothingOfWhoIsAMember(t *testing.T) {
	_, host := roommates(t)
	said := map[string]bool{}
	for _, id := range []did.URL{
		{DID: host.id.DID, Fragment: "key-1"}, {DID: host.id.DID, Fragment: "key-2"}, // a member, by a right and a wrong name
		{DID: "did:web:else.example", Fragment: "key-1"},
	} {
		stranger := actor{t, host.r, newKey(t), id}
		_, err := stranger.session(particle.ScopeRead, "")
		if !errors.Is(err, ErrUnauthenticated) {
			t.Fatal(err)
		}
		said[strings.ReplaceAll(err.Error(), string(id.DID), "DID")] = true
	}
	if len(said) != 1 {
		t.Errorf("they can tell: %v", said)
	}
}

func TestBundleBringsLaterChangesOfKeys(t *testing.T) {
	admin, host := roommates(t)
	subject, err := record.VersionSubject(record.KindManifest, "plan", "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	host.publish(subject, []byte("the plan"))
	next := host
	next.key = newKey(t)
	document := next.document(t)
	since := int64(3)
	changed, err := admin.submit(record.MemberSubject(host.id.DID), &record.DIDChange{DIDDocument: *cidOf(document), CompromisedSince: &since}, document)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := admin.r.Version(t.Context(), reader, record.KindManifest, "plan", "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	items, err := admin.r.Bundle(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	if last := items[len(items)-1]; last.Index != changed.Index || len(last.Attachments) != 1 || string(last.Attachments[0]) != string(document) {
		t.Errorf("the last of %d is entry %d with %d attachments; the change is entry %d", len(items), last.Index, len(last.Attachments), changed.Index)
	}
}
