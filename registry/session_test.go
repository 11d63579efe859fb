package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/storage/catalog"
	"phoenix-lab.org/aln-registry/storage/disk"
)

// openTest opens a new registry in a folder of its own; admin is its first admin.
func openTest(t testing.TB) (r *Registry, admin did.PrivateKey) {
	t.Helper()
	return openTestIn(t, t.TempDir())
}

func openTestIn(t testing.TB, folder string) (r *Registry, admin did.PrivateKey) {
	t.Helper()
	ctx := context.Background()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	admin, err := did.GenerateEd25519(rand.Reader)
	check(err)
	keys, err := OpenKeys(filepath.Join(folder, "registry.jwk"), "", rand.Reader)
	check(err)
	db, err := catalog.OpenSQLite(ctx, filepath.Join(folder, "catalog.db"))
	check(err)
	t.Cleanup(func() { db.Close() })
	store, err := disk.Open(filepath.Join(folder, "store"))
	check(err)
	t.Cleanup(func() { store.Close() })
	config := Config{
		Catalog: db, Blobs: store, Keys: keys, PublicURL: "http://127.0.0.1:8585",
		Clock: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	}
	check(Genesis(ctx, config, admin.Signer(admin.Public().URL())))
	r, err = Open(ctx, config)
	check(err)
	t.Cleanup(r.Close)
	return r, admin
}

func assert(t *testing.T, r *Registry, who did.PrivateKey, change func(*policy.Assertion)) string {
	t.Helper()
	id := make([]byte, 16)
	rand.Read(id)
	me, now := who.Public().DID(), time.Now()
	a := policy.Assertion{
		Issuer: me, Subject: me, Audience: r.SessionURL(), IssuedAt: now.Unix(), Expiry: now.Add(time.Minute).Unix(),
		ID: hex.EncodeToString(id), Scope: particle.ScopeRead,
	}
	if change != nil {
		change(&a)
	}
	signed, err := policy.SignAssertion(a, did.EdDSA, who.Signer(who.Public().URL()))
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func wantDenial(t *testing.T, err error, rule policy.Rule) {
	t.Helper()
	var denial *policy.Denial
	if !errors.As(err, &denial) || denial.Rule != rule {
		t.Errorf("%v, not a denial by %s", err, rule)
	}
}

func TestMintAdmitsAnAssertionOnce(t *testing.T) {
	ctx := context.Background()
	r, admin := openTest(t)
	assertion := assert(t, r, admin, nil)
	token, life, err := r.Mint(ctx, assertion)
	if err != nil || life != policy.DefaultSession {
		t.Fatal(life, err)
	}
	asker, err := r.Authenticate(ctx, token)
	if err != nil || asker.DID != admin.Public().DID() || !asker.Admin || !asker.HasScope("read") || asker.HasScope("admin") {
		t.Errorf("%+v, %v", asker, err)
	}
	_, _, err = r.Mint(ctx, assertion)
	wantDenial(t, err, policy.RuleToken)
}

func TestMintRefuses(t *testing.T) {
	ctx := context.Background()
	r, admin := openTest(t)
	stranger, err := did.GenerateEd25519(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		who    did.PrivateKey
		change func(*policy.Assertion)
		rule   policy.Rule
	}{
		"a stranger":                    {stranger, nil, policy.RuleMember},
		"another registry's address":    {admin, func(a *policy.Assertion) { a.Audience = "https://else.example/v1/session" }, policy.RuleAudience},
		"another's name":                {admin, func(a *policy.Assertion) { a.Issuer = stranger.Public().DID() }, policy.RuleIssuer},
		"a long life":                   {admin, func(a *policy.Assertion) { a.Expiry += 60 }, policy.RuleLifetime},
		"one from before this registry": {admin, func(a *policy.Assertion) { a.IssuedAt -= 100; a.Expiry -= 100 }, policy.RuleLifetime},
		"a session of an hour":          {admin, func(a *policy.Assertion) { a.Lifetime = 3600 }, policy.RuleLifetime},
		"a scope that nobody knows":     {admin, func(a *policy.Assertion) { a.Scope = "everything" }, policy.RuleScope},
		"a grant that is not in force":  {admin, func(a *policy.Assertion) { a.Grant = "bafkrei" }, policy.RuleGrant},
		"a record that is none":         {admin, func(a *policy.Assertion) { a.Rec = "x" }, policy.RuleToken},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := r.Mint(ctx, assert(t, r, c.who, c.change))
			wantDenial(t, err, c.rule)
		})
	}
	good := assert(t, r, admin, nil)
	for name, bad := range map[string]string{
		"nothing": "", "no token": "a.b.c", "signature cut": good[:len(good)-4], "another signature": good[:len(good)-86] + strings.Repeat("A", 86),
	} {
		if _, _, err := r.Mint(ctx, bad); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A registry that cannot remember used assertions mints nothing.
func TestMintFailsClosed(t *testing.T) {
	r, admin := openTest(t)
	assertion := assert(t, r, admin, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if token, _, err := r.Mint(ctx, assertion); err == nil || token != "" {
		t.Errorf("minted %q without its memory: %v", token, err)
	}
	r.Rand = io.LimitReader(rand.Reader, 3)
	if token, _, err := r.Mint(context.Background(), assertion); err == nil || token != "" {
		t.Errorf("minted %q without randomness: %v", token, err)
	}
}

func TestOnlyASessionsSignatureIsRemembered(t *testing.T) {
	ctx := context.Background()
	r, admin := openTest(t)
	token, _, err := r.Mint(ctx, assert(t, r, admin, nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Authenticate(ctx, token); err != nil {
		t.Fatal(err)
	}
	if len(r.verified.tokens) != 1 {
		t.Errorf("%d tokens remembered", len(r.verified.tokens))
	}
	r.Clock = func() time.Time { return time.Now().Add(policy.DefaultSession) }
	_, err = r.Authenticate(ctx, token)
	wantDenial(t, err, policy.RuleLifetime)
	if !errors.Is(err, ErrUnauthenticated) {
		t.Error(err)
	}
	// What does not verify is not remembered, and never under another's hash.
	r.Clock = time.Now
	flipped := []byte(token)
	flipped[len(flipped)-10] ^= 'A' ^ 'B' // stays in the alphabet, or leaves it
	for _, bad := range []string{string(flipped), token + "A", " " + token} {
		if _, err := r.Authenticate(ctx, bad); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%q: %v", bad[len(bad)-4:], err)
		}
	}
	if len(r.verified.tokens) != 1 {
		t.Errorf("%d tokens remembered", len(r.verified.tokens))
	}
}

func TestSessionCacheIsBounded(t *testing.T) {
	c := newSessionCache()
	for i := range 2*mostCached + 1 {
		c.put(strconv.Itoa(i), session{})
		if len(c.tokens) > mostCached {
			t.Fatalf("%d tokens", len(c.tokens))
		}
	}
}

func TestSplitCredential(t *testing.T) {
	most := bytes.Repeat([]byte{7}, 4<<10)
	for credential, want := range map[string]struct {
		session  string
		envelope string
		ok       bool
	}{
		"":            {"", "", true},
		"a.b.c":       {"a.b.c", "", true},
		"a.b.c~e30":   {"a.b.c", "{}", true},
		"~e30":        {"", "{}", true},
		"a.b.c~":      {"a.b.c", "", false},
		"a.b.c~e30=":  {"a.b.c", "", false},
		"a.b.c~e31":   {"a.b.c", "", false}, // stray bits
		"a.b.c~e30~a": {"a.b.c", "", false},
		"a.b.c~" + base64.RawURLEncoding.EncodeToString(most):            {"a.b.c", string(most), true},
		"a.b.c~" + base64.RawURLEncoding.EncodeToString(append(most, 7)): {"a.b.c", "", false},
	} {
		session, envelope, err := SplitCredential(credential)
		if session != want.session || string(envelope) != want.envelope || (err == nil) != want.ok {
			t.Errorf("%.20q: %q, %.20q, %v", credential, session, envelope, err)
		}
		if err != nil && !errors.Is(err, ErrRequest) {
			t.Errorf("%.20q: %v", credential, err)
		}
	}
}

func FuzzSplitCredential(f *testing.F) {
	f.Add("a.b.c~e30")
	f.Add("a.b.c~e3\n0")
	f.Fuzz(func(t *testing.T, credential string) {
		session, envelope, err := SplitCredential(credential)
		if err != nil || envelope == nil {
			return
		}
		if again := session + "~" + base64.RawURLEncoding.EncodeToString(envelope); again != credential {
			t.Errorf("%q is another spelling of %q", credential, again)
		}
	})
}
