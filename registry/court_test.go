package registry

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// court is a registry with people who grant and quarantine, at a clock that can be set.
type court struct {
	t     testing.TB
	w     *world
	r     *Registry
	blobs *hidingBlobs
	ahead atomic.Int64
	fixed atomic.Pointer[time.Time]
	admin actor
}

// hidingBlobs does not have one blob, as long as it is told so.
type hidingBlobs struct {
	storage.Blobs
	hidden atomic.Pointer[storage.CID]
	why    error // in place of storage.ErrNotFound
}

func (b *hidingBlobs) lacks(id storage.CID) bool {
	hidden := b.hidden.Load()
	return hidden != nil && *hidden == id
}

func (b *hidingBlobs) Stat(ctx context.Context, id storage.CID) (int64, error) {
	if b.lacks(id) {
		return 0, cmp.Or(b.why, storage.ErrNotFound)
	}
	return b.Blobs.Stat(ctx, id)
}

func (b *hidingBlobs) Open(ctx context.Context, id storage.CID) (storage.Blob, error) {
	if b.lacks(id) {
		return nil, cmp.Or(b.why, storage.ErrNotFound)
	}
	return b.Blobs.Open(ctx, id)
}

func newCourt(t testing.TB, change ...func(*Config)) *court {
	t.Helper()
	c := &court{t: t, w: newWorld(t)}
	c.w.stores()
	if err := c.w.genesis(); err != nil {
		t.Fatal(err)
	}
	c.blobs = &hidingBlobs{Blobs: c.w.config.Blobs}
	c.w.config.Blobs, c.w.config.Clock = c.blobs, c.now
	for _, f := range change {
		f(&c.w.config)
	}
	var err error
	if c.r, err = Open(t.Context(), c.w.config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.w.closeAll(c.r) })
	c.admin = actor{t, c.r, c.w.admin, c.w.admin.Public().URL()}
	return c
}

func (c *court) now() time.Time {
	if at := c.fixed.Load(); at != nil {
		return *at
	}
	return time.Now().Add(time.Duration(c.ahead.Load()))
}

// clockAt stops the clock of whoever reads; that of the log is the database's.
func (c *court) clockAt(at time.Time) { c.fixed.Store(&at) }

func (c *court) registrySubject() record.Subject { return record.RegistrySubject() }

// publish enters the crate name, version 1.0.0, as the admin.
func (c *court) publish(name string) {
	c.t.Helper()
	if _, err := c.w.publish(c.r, newUpload(name)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *court) version(name string) state.Version {
	c.t.Helper()
	v, err := c.r.version(c.t.Context(), record.KindCrate, name, "1.0.0")
	if err != nil {
		c.t.Fatal(err)
	}
	return v
}

// member admits somebody new.
func (c *court) member(tier string, roles ...string) actor {
	c.t.Helper()
	key := newKey(c.t)
	a := actor{c.t, c.r, key, key.Public().URL()}
	c.admit(a, tier, roles...)
	return a
}

func (c *court) admit(a actor, tier string, roles ...string) {
	c.t.Helper()
	if len(roles) == 0 {
		roles = []string{state.RolePublisher}
	}
	c.admin.enter(record.MemberSubject(a.id.DID), &record.Member{Roles: roles, Tier: tier, StakeholderAddrs: []string{}})
}

// grantOf is a grant from issuer to host that allows nothing, changed by change.
func (c *court) grantOf(issuer, host actor, change func(*particle.EnvGrant)) []byte {
	c.t.Helper()
	g := particle.EnvGrant{
		Registry: c.r.Origin(), Issuer: issuer.id.DID, Subject: host.id.DID,
		NotBefore: particle.At(time.Now().Add(-time.Hour)), Expires: particle.At(time.Now().Add(1000 * time.Hour)),
		AllowedCrates: []string{}, AllowedProtocols: []string{}, AllowedEndpoints: []string{}, Tier: particle.TierGuest,
	}
	change(&g)
	raw, err := g.Marshal()
	if err != nil {
		c.t.Fatal(err)
	}
	return raw
}

// grant puts a grant in force.
func (c *court) grant(issuer, host actor, change func(*particle.EnvGrant)) storage.CID {
	c.t.Helper()
	raw := c.grantOf(issuer, host, change)
	id := storage.CIDOf(raw)
	issuer.enter(record.GrantSubject(id), &record.Grant{}, raw)
	return id
}

// quarantine makes a rule.
func (c *court) quarantine(by actor, id string, change func(*particle.QuarantineRule)) Receipt {
	c.t.Helper()
	q := particle.QuarantineRule{
		Effect: particle.EffectDeny, Mode: particle.ModeEnforce, Reason: "a test",
		Match: []particle.RuleMatch{{Names: []string{}, Hashes: []string{}, Publishers: []did.DID{}, Sources: []string{}, Content: []string{}}},
	}
	change(&q)
	return by.enter(c.rule(id), &record.Quarantine{QuarantineRule: q})
}

func (c *court) rule(id string) record.Subject {
	c.t.Helper()
	subject, err := record.RuleSubject(id)
	if err != nil {
		c.t.Fatal(err)
	}
	return subject
}

// token mints a session that names grant, "" for none.
func (c *court) token(who actor, scope, grant string) string {
	c.t.Helper()
	id := make([]byte, 16)
	rand.Read(id)
	now := c.now()
	signed, err := policy.SignAssertion(policy.Assertion{
		Issuer: who.id.DID, Subject: who.id.DID, Audience: c.r.SessionURL(), IssuedAt: now.Unix(), Expiry: now.Add(time.Minute).Unix(),
		ID: hex.EncodeToString(id), Scope: scope, Grant: grant,
	}, did.EdDSA, who.key.Signer(who.id))
	if err != nil {
		c.t.Fatal(err)
	}
	token, _, err := c.r.Mint(c.t.Context(), signed)
	if err != nil {
		c.t.Fatal(err)
	}
	return token
}

// asker is who a session made now stands for.
func (c *court) asker(who actor, scope, grant string) policy.Asker {
	c.t.Helper()
	asker, err := c.r.Authenticate(c.t.Context(), c.token(who, scope, grant))
	if err != nil {
		c.t.Fatal(err)
	}
	return asker
}

// publishShard enters raw as the admin's shard name.
func (c *court) publishShard(kind record.Kind, name string, raw []byte) storage.CID {
	c.t.Helper()
	subject, err := record.VersionSubject(kind, name, "1.0.0")
	if err != nil {
		c.t.Fatal(err)
	}
	c.admin.publish(subject, bytes.Clone(raw))
	return storage.CIDOf(raw)
}

// eventually waits until done says nil, at most for a while.
func eventually(t testing.TB, most time.Duration, done func() error) {
	t.Helper()
	begun := time.Now()
	for {
		err := done()
		if err == nil {
			return
		}
		if time.Since(begun) > most {
			t.Fatalf("after %s: %v", most, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
