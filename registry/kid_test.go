package registry

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
)

// documentOf is a did:web's with keys key-1, key-2 … each listed for the uses given.
func documentOf(id did.DID, keys []did.PublicKey, uses ...[]did.Relationship) []byte {
	var methods []string
	listed := map[did.Relationship][]string{}
	for i, key := range keys {
		name := fmt.Sprintf("%s#key-%d", id, i+1)
		methods = append(methods, fmt.Sprintf(`{"id":%q,"type":"Multikey","controller":%q,"publicKeyMultibase":%q}`, name, id, key.Multikey()))
		for _, use := range uses[i] {
			listed[use] = append(listed[use], fmt.Sprintf("%q", name))
		}
	}
	var relationships strings.Builder
	for use, names := range listed {
		fmt.Fprintf(&relationships, `,%q:[%s]`, use, strings.Join(names, ","))
	}
	return fmt.Appendf(nil, `{"id":%q,"verificationMethod":[%s]%s}`, id, strings.Join(methods, ","), relationships.String())
}

// A key signs in under its own name, its own DID, and for that use alone.
func TestAssertionsUnderAnotherKeysName(t *testing.T) {
	r, adminKey := openTest(t)
	admin := actor{t, r, adminKey, adminKey.Public().URL()}
	const host = did.DID("did:web:host.example")
	door, pen, stranger := newKey(t), newKey(t), newKey(t)
	document := documentOf(host, []did.PublicKey{door.Public(), pen.Public()},
		[]did.Relationship{did.Authentication}, []did.Relationship{did.AssertionMethod, did.CapabilityInvocation})
	if _, err := admin.submit(record.MemberSubject(host), &record.Member{
		DIDDocument: cidOf(document), Roles: []string{state.RolePublisher}, Tier: particle.TierGuest, StakeholderAddrs: []string{},
	}, document); err != nil {
		t.Fatal(err)
	}
	url := func(d did.DID, fragment string) did.URL { return did.URL{DID: d, Fragment: fragment} }
	me := adminKey.Public().DID()
	for name, c := range map[string]struct {
		key did.PrivateKey
		kid did.URL
		sub did.DID
		ok  bool
	}{
		"the key for signing in":                  {door, url(host, "key-1"), host, true},
		"an admin's key":                          {adminKey, adminKey.Public().URL(), me, true},
		"a key for other uses":                    {pen, url(host, "key-2"), host, false},
		"a key for other uses, as the other":      {pen, url(host, "key-1"), host, false},
		"the key for signing in, as the other":    {door, url(host, "key-2"), host, false},
		"a name that the document lacks":          {door, url(host, "key-3"), host, false},
		"a name in another case":                  {door, url(host, "Key-1"), host, false},
		"a host that is alike":                    {door, url("did:web:host.example.evil.example", "key-1"), host, false},
		"a path below the host":                   {door, url("did:web:host.example:door", "key-1"), host, false},
		"the key as a did:key":                    {door, door.Public().URL(), host, false},
		"the key as a did:key, for itself":        {door, door.Public().URL(), door.Public().DID(), false},
		"a stranger as the member":                {stranger, url(host, "key-1"), host, false},
		"a stranger's own name for the member":    {stranger, stranger.Public().URL(), host, false},
		"an admin's DID by a stranger":            {stranger, adminKey.Public().URL(), me, false},
		"an admin's DID with another fragment":    {adminKey, url(me, stranger.Public().Multikey()), me, false},
		"an admin's key for the member":           {adminKey, adminKey.Public().URL(), host, false},
		"the member's key for an admin":           {door, url(host, "key-1"), me, false},
		"the registry's name":                     {stranger, url(r.Origin(), strings.TrimPrefix(string(r.Origin()), "did:key:")), r.Origin(), false},
		"the registry's own key, which no member": {r.Keys.key, r.Keys.id, r.Origin(), false},
	} {
		t.Run(name, func(t *testing.T) {
			id := make([]byte, 16)
			rand.Read(id)
			now := time.Now()
			signed, err := policy.SignAssertion(policy.Assertion{
				Issuer: c.sub, Subject: c.sub, Audience: r.SessionURL(), IssuedAt: now.Unix(), Expiry: now.Add(time.Minute).Unix(),
				ID: hex.EncodeToString(id), Scope: "read",
			}, did.EdDSA, c.key.Signer(c.kid))
			if err != nil {
				t.Fatal(err)
			}
			token, _, err := r.Mint(t.Context(), signed)
			if (err == nil) != c.ok || c.ok != (token != "") {
				t.Errorf("minted %t: %v", token != "", err)
			}
			var denial *policy.Denial
			if err != nil && !errors.Is(err, ErrUnauthenticated) && !errors.As(err, &denial) {
				t.Errorf("an error of another kind: %v", err)
			}
		})
	}
}

// Only the registry's own key under its own name signs sessions.
func TestSessionsUnderAnotherKeysName(t *testing.T) {
	folder := t.TempDir()
	r, admin := openTestIn(t, folder)
	stranger, me := newKey(t), admin.Public().DID()
	claims := particle.SessionToken{
		Issuer: r.Origin(), Subject: me, Audience: r.Origin(), IssuedAt: time.Now().Unix(), Expiry: time.Now().Add(time.Minute).Unix(),
		ID: "0123456789abcdef", HostDID: string(me), Roles: []string{}, Scope: "read",
	}
	stored, err := did.ReadKeyFile(filepath.Join(folder, "registry.jwk"))
	if err != nil {
		t.Fatal(err)
	}
	logs := stored[slices.IndexFunc(stored, func(k did.NamedKey) bool { return isLogKey(k.ID) })].Key
	own := r.Keys.id
	for name, c := range map[string]struct {
		key did.PrivateKey
		kid did.URL
		ok  bool
	}{
		"the registry's":                     {r.Keys.key, own, true},
		"the registry's, another fragment":   {r.Keys.key, did.URL{DID: own.DID, Fragment: stranger.Public().Multikey()}, false},
		"the registry's, an admin's name":    {r.Keys.key, admin.Public().URL(), false},
		"the log's key, the registry's name": {logs, own, false},
		"the log's key, its own name":        {logs, logs.Public().URL(), false},
		"an admin's key, the registry's":     {admin, own, false},
		"an admin's own":                     {admin, admin.Public().URL(), false},
		"a stranger's, the registry's name":  {stranger, own, false},
	} {
		t.Run(name, func(t *testing.T) {
			token, err := policy.SignSession(claims, did.EdDSA, c.key.Signer(c.kid))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Authenticate(t.Context(), token); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrUnauthenticated) {
				t.Errorf("%v", err)
			}
		})
	}
}
