package registry

import (
	"errors"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// ask is what the holder of token sees of demo 1.0.0: "" for the bytes, else the
// rule that keeps them away; all ways to ask must agree.
func (c *court) ask(token string) string {
	c.t.Helper()
	ctx := c.t.Context()
	asker, err := c.r.Authenticate(ctx, token)
	if err != nil {
		if !errors.Is(err, ErrUnauthenticated) {
			c.t.Fatal(err)
		}
		return "unauthenticated"
	}
	file, fileErr := c.r.IndexFile(ctx, asker, "demo")
	v, err := c.r.Version(ctx, asker, record.KindCrate, "demo", "1.0.0")
	var denial *policy.Denial
	if errors.As(err, &denial) {
		if !errors.As(fileErr, &denial) {
			c.t.Errorf("the version is denied by %v, its index file is not: %v", denial, fileErr)
		}
		return string(denial.Rule)
	}
	if err != nil || fileErr != nil {
		c.t.Fatal(err, fileErr)
	}
	_, err = c.r.OpenArtifact(ctx, v)
	if (err == nil) != v.Decision.Allow || v.Decision.Listed == isYanked(file) {
		c.t.Errorf("decided %+v, opened: %v, yanked: %v", v.Decision, err, isYanked(file))
	}
	if err == nil {
		return ""
	}
	if !errors.As(err, &denial) || denial.Rule != v.Decision.Rule || !strings.HasPrefix(err.Error(), "demo 1.0.0 is denied by rule ") {
		c.t.Errorf("refused by %v", err)
	}
	return string(v.Decision.Rule)
}

// What was seen a moment ago is judged anew at the next request, whatever is kept.
func TestAChangeBindsTheVeryNextRequest(t *testing.T) {
	c := newCourt(t)
	c.publish("demo")
	grantor := c.member(particle.TierCoreStakeholder, state.RoleGrantor)
	host := c.member(particle.TierGuest)
	reviewers := []actor{c.member(particle.TierGuest, state.RoleReviewer), c.member(particle.TierGuest, state.RoleReviewer)}
	listed := func(g *particle.EnvGrant) { g.AllowedCrates = []string{c.version("demo").CID.Hex()} }
	core, plain := c.member(particle.TierCoreStakeholder), c.token(host, "read", "")
	open := c.token(core, "read", "")
	want := func(step, token, rule string) {
		t.Helper()
		for range 2 { // as it is made, and as it is kept
			if got := c.ask(token); got != rule {
				t.Errorf("%s: %q decides, not %q", step, got, rule)
			}
		}
	}
	want("without a grant", plain, "tier-default")
	first := c.grant(grantor, host, listed)
	want("granted", plain, "")
	named := c.token(host, "read", first.String())
	want("by name", named, "")
	second := c.grant(grantor, host, func(g *particle.EnvGrant) { g.Supersedes = &first })
	want("superseded by one that lists nothing", named, "allowed-crates")
	want("the same without a name", plain, "allowed-crates")
	third := c.grant(grantor, host, func(g *particle.EnvGrant) { listed(g); g.Supersedes = &second })
	want("superseded again", named, "")
	c.admit(grantor, particle.TierCoreStakeholder, state.RoleAuditor)
	want("its issuer lost the role", named, "grant")
	want("its issuer lost the role, no name", plain, "tier-default")
	c.admit(grantor, particle.TierCoreStakeholder, state.RoleGrantor)
	want("the issuer has it again", named, "")

	c.quarantine(reviewers[0], "no-demo", func(q *particle.QuarantineRule) { q.Match[0].Names = []string{"DEMO"} })
	want("quarantined", named, "quarantine")
	want("quarantined for everybody", open, "quarantine")
	proposal := c.admin.enter(c.rule("no-demo"), &record.Release{Reason: "looked at"})
	for _, by := range reviewers {
		want("not released yet", open, "quarantine")
		by.enter(c.rule("no-demo"), &record.Approve{Record: proposal.Record, Verdict: record.VerdictApprove, Reason: "fine"})
	}
	want("released", open, "")
	want("released, under the grant", named, "")

	another := c.grant(grantor, host, func(g *particle.EnvGrant) { listed(g); g.MaxDiskMB = 1 })
	want("of two grants one has to be named", plain, "grant")
	want("which it was", named, "")
	c.admin.enter(record.GrantSubject(another), &record.Revoke{Reason: "enough"})
	want("one again", plain, "")
	c.admin.enter(record.GrantSubject(third), &record.Revoke{Reason: "enough"})
	want("revoked", named, "grant")
	want("none left", plain, "tier-default")
	settings := c.r.Settings().Registry
	settings.TierDefault.Guest = record.Allow
	c.admin.enter(record.RegistrySubject(), &settings)
	want("guests may read without one now", plain, "")
	want("but not under what was revoked", named, "grant")
	c.admin.enter(record.MemberSubject(host.id.DID), &record.Member{Roles: []string{}, Tier: particle.TierGuest, StakeholderAddrs: []string{}})
	want("removed", plain, "unauthenticated")
}

// A list that is not there allows nothing, is not asked for at every request, and
// is tried again soon.
func TestAListThatCannotBeHadAllowsNothingUntilItCan(t *testing.T) {
	c := newCourt(t)
	c.publish("demo")
	list := c.publishShard(record.KindALNShard, "crates", particle.MarshalList([][32]byte{c.version("demo").CID.Digest()}))
	host := c.member(particle.TierGuest)
	c.blobs.hidden.Store(&list)
	raw := c.grantOf(c.admin, host, func(g *particle.EnvGrant) { g.AllowedCrates, g.AllowedCratesList = nil, &list })
	if _, err := c.admin.submit(record.GrantSubject(storage.CIDOf(raw)), &record.Grant{}, raw); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("granted all the same: %v", err)
	}
	c.blobs.hidden.Store(nil)
	grant := c.grant(c.admin, host, func(g *particle.EnvGrant) { g.AllowedCrates, g.AllowedCratesList = nil, &list })
	c.blobs.hidden.Store(&list)
	token := c.token(host, "read", "")
	if got := c.ask(token); got != "allowed-crates" {
		t.Errorf("without the list %q decides", got)
	}
	c.blobs.hidden.Store(nil)
	if got := c.ask(token); got != "allowed-crates" {
		t.Errorf("it is asked for at every request: %q", got)
	}
	c.ahead.Add(int64(grantRetry))
	if got := c.ask(token); got != "" {
		t.Errorf("the list is back, and %q decides", got)
	}
	// The grant itself.
	c.r.grants = newGrantCache(1 << 20)
	c.blobs.hidden.Store(&grant)
	if got := c.ask(token); got != "grant" {
		t.Errorf("without the grant's own blob %q decides", got)
	}
	c.blobs.hidden.Store(nil)
	c.ahead.Add(int64(grantRetry))
	if got := c.ask(token); got != "" {
		t.Errorf("the grant is back, and %q decides", got)
	}
}

func TestGrantsMadeReadyAreBounded(t *testing.T) {
	cache, now := newGrantCache(20*grantBytes), time.Now()
	for i := range 1000 {
		h, first := cache.hold(storage.CIDOf([]byte{byte(i), byte(i >> 8)}).String(), now)
		if !first {
			t.Fatal("held before it was asked for")
		}
		cache.filled(h, policy.CompileGrant(h.cid, particle.EnvGrant{}, nil, true), true, now)
	}
	if s := cache.stats(); s.CacheBytes > s.CacheLimit || s.CacheEvictions != 980 {
		t.Errorf("%+v", s)
	}
}

// What a grant names must be here, and be what it is named as.
func TestAGrantNamesWhatIsPublishedHere(t *testing.T) {
	c := newCourt(t)
	c.publish("demo")
	host := c.member(particle.TierGuest)
	pool := c.publishShard(record.KindALNShard, "pool", []byte(`{"pool_id":"p","owner_did":"`+string(c.admin.id.DID)+`","stakeholder_addrs":[],"max_bytes":1,"encryption_scheme":"none","jurisdiction":"EU"}`))
	domain := c.publishShard(record.KindALNShard, "domain", []byte(`{"name":"PhoenixLab.Safe","code_origins":[],"networking":[],"syscalls":[],"attestation":"none"}`))
	asManifest := c.publishShard(record.KindManifest, "pool", []byte(`{"pool_id":"q","owner_did":"`+string(c.admin.id.DID)+`","stakeholder_addrs":[],"max_bytes":1,"encryption_scheme":"none","jurisdiction":"EU"}`))
	list := c.publishShard(record.KindManifest, "crates", particle.MarshalList([][32]byte{c.version("demo").CID.Digest()}))
	missing := storage.CIDOf([]byte("nowhere"))
	crate := c.version("demo").CID
	for _, step := range []struct {
		name   string
		change func(*particle.EnvGrant)
		says   string
	}{
		{"no pool", func(g *particle.EnvGrant) { g.MemoryPool = &missing }, "memory_pool names"},
		{"a pool of another kind", func(g *particle.EnvGrant) { g.MemoryPool = &asManifest }, "not published here as an aln-shard"},
		{"a domain as pool", func(g *particle.EnvGrant) { g.MemoryPool = &domain }, "not what belongs there"},
		{"no domain", func(g *particle.EnvGrant) { g.ExecutionDomain = &missing }, "execution_domain names"},
		{"a pool as domain", func(g *particle.EnvGrant) { g.ExecutionDomain = &pool }, "not what belongs there"},
		{"no list", func(g *particle.EnvGrant) { g.AllowedCrates, g.AllowedCratesList = nil, &missing }, "allowed_crates_list names"},
		{"a crate as list", func(g *particle.EnvGrant) { g.AllowedCrates, g.AllowedCratesList = nil, &crate }, "not what belongs there"},
	} {
		raw := c.grantOf(c.admin, host, step.change)
		_, err := c.admin.submit(record.GrantSubject(storage.CIDOf(raw)), &record.Grant{}, raw)
		if !errors.Is(err, ErrRequest) || !strings.Contains(err.Error(), step.says) {
			t.Errorf("%s: %v", step.name, err)
		}
	}
	c.grant(c.admin, host, func(g *particle.EnvGrant) {
		g.MemoryPool, g.ExecutionDomain, g.AllowedCrates, g.AllowedCratesList = &pool, &domain, nil, &list
	})
	if got := c.ask(c.token(host, "read", "")); got != "" {
		t.Errorf("%q decides", got)
	}
	raw := c.grantOf(c.admin, host, func(g *particle.EnvGrant) { g.MaxDiskMB = 1 })
	if _, err := c.admin.submit(record.GrantSubject(storage.CIDOf(raw)), &record.Grant{}); err == nil {
		t.Error("a grant without its blob was taken in")
	}
}

// Under is what somebody else's session would see: for whoever has to say why.
func TestUnderIsWhatAnothersSessionSees(t *testing.T) {
	c := newCourt(t)
	c.publish("demo")
	host := c.member(particle.TierGuest)
	grant := c.grant(c.admin, host, func(*particle.EnvGrant) {})
	as, err := c.r.Under(t.Context(), c.asker(c.admin, "audit", ""), host.id.DID, grant.String())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := c.r.Judge(t.Context(), c.asker(host, "read", grant.String()), c.version("demo"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.r.Judge(t.Context(), as, c.version("demo"))
	if err != nil || d.Allow || d.Rule != policy.RuleAllowed || d.RuleID != grant.String() || theirs.Rule != d.Rule || theirs.Allow {
		t.Errorf("%+v, theirs %+v, %v", d, theirs, err)
	}
	facts, err := c.r.inside(t.Context(), c.version("demo"), plainFacts(c.version("demo")))
	if err != nil || !facts.Scanned || facts.Digest != c.version("demo").CID.Digest() {
		t.Errorf("%+v, %v", facts, err)
	}
}
