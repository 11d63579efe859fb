package policy

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/storage"
)

func TestCompilingAGrant(t *testing.T) {
	g, list := largeGrant(t, 1000)
	cases := []struct {
		name       string
		alter      func(*particle.EnvGrant)
		list       []byte
		obtained   bool
		listed     int
		unreadable string
	}{
		{"a list", nil, list, true, 1000, ""},
		{"a list that was not obtained", nil, list, false, 0, "could not be had"},
		{"a list cut short", nil, list[:len(list)-65], true, 0, "not the one"},
		{"no list", nil, nil, true, 0, "not the one"},
		{"an empty list", func(g *particle.EnvGrant) { id := storage.CIDOf(nil); g.AllowedCratesList = &id }, nil, true, 0, ""},
		{"a list out of order", func(g *particle.EnvGrant) {
			id := storage.CIDOf(bytes.Repeat(list[:65], 2))
			g.AllowedCratesList = &id
		}, bytes.Repeat(list[:65], 2), true, 0, "line 2"},
		{"hashes within", func(g *particle.EnvGrant) {
			g.AllowedCratesList, g.AllowedCrates = nil, []string{storage.CIDFromDigest(hashOf(1)).String(), strings.Repeat("a", 64)}
		}, nil, false, 2, ""},
		{"every crate", func(g *particle.EnvGrant) { g.AllowedCratesList, g.AllowedCrates = nil, []string{"*"} }, nil, false, 0, ""},
		{"both lists", func(g *particle.EnvGrant) { g.AllowedCrates = []string{"*"} }, list, true, 0, "exactly one"},
		{"memory beyond the tier", func(g *particle.EnvGrant) { g.MaxMemMB = 257 }, list, true, 0, "max_mem_mb"},
	}
	for _, c := range cases {
		altered := g
		if c.alter != nil {
			c.alter(&altered)
		}
		got := CompileGrant("cid", altered, c.list, c.obtained)
		if got.Listed() != c.listed || got.CID != "cid" || (got.Unreadable() == "") != (c.unreadable == "") || !strings.Contains(got.Unreadable(), c.unreadable) {
			t.Errorf("%s: %d listed, unreadable %q", c.name, got.Listed(), got.Unreadable())
		}
	}
}

func TestTheZeroGrantAllowsNothing(t *testing.T) {
	a := goodAsked(t)
	a.compile(t)
	a.asker.Grant = &Grant{}
	if d := Decide(&a.asker, &a.terms, &a.facts, now); d.Allow || d.Rule != RuleGrant {
		t.Errorf("%+v", d)
	}
}

// host is a grant in force now, altered.
func host(cid string, alter ...func(*HostGrant)) HostGrant {
	g := HostGrant{CID: cid, NotBefore: now.Add(-time.Hour), Expires: now.Add(time.Hour), Entitled: true}
	for _, f := range alter {
		f(&g)
	}
	return g
}

func followedBy(cid string) func(*HostGrant) { return func(g *HostGrant) { g.SupersededBy = cid } }

func TestWhichGrantJudgesAHost(t *testing.T) {
	revoked := func(g *HostGrant) { g.Revoked = true }
	unentitled := func(g *HostGrant) { g.Entitled = false }
	from := func(d time.Duration) func(*HostGrant) {
		return func(g *HostGrant) { g.NotBefore, g.Expires = now.Add(d), now.Add(d+2*time.Hour) }
	}
	to := func(d time.Duration) func(*HostGrant) { return func(g *HostGrant) { g.Expires = now.Add(d) } }
	list := func(g ...HostGrant) []HostGrant { return g }
	hour := time.Hour
	cases := []struct {
		name   string
		named  string
		grants []HostGrant
		cid    string
		until  time.Duration // 0: never
		denied string        // words of the denial, "" for none
	}{
		{"no grants", "", nil, "", 0, ""},
		{"no grants, one named", "a", nil, "", 0, "not granted to this host"},
		{"the only one", "", list(host("a")), "a", hour, ""},
		{"the only one, named", "a", list(host("a")), "a", hour, ""},
		{"another's named", "b", list(host("a")), "", 0, "not granted to this host"},
		{"two, none named", "", list(host("a"), host("b", to(time.Minute))), "", time.Minute, "name one with ALN_GRANT=<cid>"},
		{"two, one named", "b", list(host("a"), host("b", to(time.Minute))), "b", time.Minute, ""},
		{"a second that has ended", "", list(host("a"), host("b", to(0))), "a", hour, ""},
		{"a second in its last second", "", list(host("a"), host("b", to(time.Second))), "", time.Second, "2 EnvGrants"},
		{"a second that begins later", "", list(host("a"), host("b", from(time.Minute))), "a", time.Minute, ""},
		{"a second that begins now", "", list(host("a"), host("b", from(0))), "", hour, "2 EnvGrants"},
		{"only one that begins later", "", list(host("b", from(time.Minute))), "", time.Minute, ""},
		{"one that begins later, named", "b", list(host("b", from(time.Minute))), "", time.Minute, "only from 2026-07-01T12:01:00Z on"},
		{"one that has ended", "", list(host("a", to(0))), "", 0, ""},
		{"one that has ended, named", "a", list(host("a", to(0))), "", 0, "ended at 2026-07-01T12:00:00Z"},
		{"a revoked one", "", list(host("a", revoked)), "", 0, ""},
		{"a revoked one, named", "a", list(host("a", revoked)), "", 0, "revoked"},
		{"a second that is revoked", "", list(host("a"), host("b", revoked)), "a", hour, ""},
		{"of somebody who lost the role", "", list(host("a", unentitled)), "", 0, ""},
		{"of somebody who lost the role, named", "a", list(host("a", unentitled)), "", 0, "may no longer grant"},
		{"a chain", "", list(host("a", followedBy("b")), host("b", followedBy("c")), host("c", to(time.Minute))), "c", time.Minute, ""},
		{"a chain, its first named", "a", list(host("a", followedBy("b")), host("x"), host("b", followedBy("c")), host("c", to(time.Minute))), "c", time.Minute, ""},
		{"a chain, its middle named", "b", list(host("a", followedBy("b")), host("b", followedBy("c")), host("c")), "c", hour, ""},
		{"a chain, its head named", "c", list(host("a", followedBy("c")), host("c")), "c", hour, ""},
		{"a chain whose named link has ended", "a", list(host("a", followedBy("b"), to(0)), host("b")), "b", hour, ""},
		{"a chain whose named link is revoked", "a", list(host("a", followedBy("b"), revoked), host("b")), "", 0, "revoked"},
		{"a chain whose head is revoked", "a", list(host("a", followedBy("b")), host("b", revoked)), "", 0, "took the place of the one the session names is not in force: it was revoked"},
		{"a chain whose head is revoked, none named", "", list(host("a", followedBy("b")), host("b", revoked)), "", 0, ""},
		{"a chain whose head has ended", "a", list(host("a", followedBy("b")), host("b", to(0))), "", 0, "took the place"},
		{"a chain whose head begins later", "a", list(host("a", followedBy("b")), host("b", from(time.Minute))), "", time.Minute, "took the place"},
		{"a chain that breaks off", "a", list(host("a", followedBy("b"))), "", 0, "not in force"},
		{"a chain that breaks off, none named", "", list(host("a", followedBy("b"))), "", 0, ""},
		{"a chain out of order", "a", list(host("b"), host("a", followedBy("b"))), "", 0, "not in force"},
		{"a chain in a ring", "a", list(host("a", followedBy("b")), host("b", followedBy("a"))), "", 0, "not in force"},
		{"one that follows itself", "a", list(host("a", followedBy("a"))), "", 0, "not in force"},
	}
	for _, c := range cases {
		cid, until, denial := ResolveGrant(c.named, c.grants, now)
		if cid != c.cid || (denial == nil) != (c.denied == "") {
			t.Errorf("%s: %q, %v", c.name, cid, denial)
		}
		if denial != nil && (denial.Rule != RuleGrant || !strings.Contains(denial.Reason, c.denied)) {
			t.Errorf("%s: %v, want %q", c.name, denial, c.denied)
		}
		if want := now.Add(c.until); c.until == 0 && !until.IsZero() || c.until != 0 && !until.Equal(want) {
			t.Errorf("%s: until %v, want %v", c.name, until, c.until)
		}
	}
}

func TestAdmissionUnderAGrant(t *testing.T) {
	grants := []HostGrant{host("old", followedBy("new")), host("new"), host("gone", func(g *HostGrant) { g.Revoked = true }), host("past", func(g *HostGrant) { g.Expires = now })}
	for named, want := range map[string]Rule{"": "", "old": "", "new": "", "gone": RuleGrant, "past": RuleGrant, "FORGED": RuleGrant} {
		a, holder := goodAssertion(t), goodHolder(t)
		a.Grant, holder.Grants = named, grants
		token, d := Admit(a, holder, newKey(t, 1).Public().DID(), "jti", now)
		checkRule(t, "grant "+named, d, want)
		if d == nil && token.Grant != named || d != nil && (token.ID != "" || strings.Contains(d.Error(), "FORGED")) {
			t.Errorf("%s: %v, token %+v", named, d, token)
		}
	}
}

func TestASessionTellsWhichGrantItNames(t *testing.T) {
	mint := newKey(t, 1).Public()
	token := Token[particle.SessionToken]{KeyID: mint.URL(), Claims: goodSession(t)}
	token.Claims.Grant = "bafkrei"
	holder := goodHolder(t)
	holder.Tier = particle.TierGuest
	asker, d := CheckSession(token, holder, mint.DID(), now)
	if d != nil || asker.GrantNamed != "bafkrei" || asker.Tier != particle.TierGuest || asker.Grant != nil {
		t.Fatalf("%+v, %v", asker, d)
	}
	if d := Read(asker, Settings{}); d.Allow || d.Rule != RuleGrant {
		t.Errorf("a grant that nobody resolved: %+v", d)
	}
	asker.Grant = CompileGrant("bafkrei", goodGrant(t), nil, false)
	if d := Read(asker, Settings{DenyTiers: []string{particle.TierGuest}}); !d.Allow {
		t.Errorf("%+v", d)
	}
}

func TestAGrantNamesBytesByTheirHash(t *testing.T) {
	listed, pool := storage.CIDFromDigest(hashOf(1)), storage.CIDFromDigest(hashOf(2))
	for name, test := range map[string]struct {
		crates []string
		want   bool
	}{
		"a CID": {[]string{listed.String()}, true}, "a digest": {[]string{listed.Hex()}, true}, "none": {[]string{}, false}, "every crate": {[]string{"*"}, false},
	} {
		altered := goodGrant(t)
		altered.AllowedCrates, altered.MemoryPool = test.crates, &pool
		g := CompileGrant("cid", altered, nil, true)
		if g.Names(listed.Digest()) != test.want || !g.Names(pool.Digest()) || g.Names(hashOf(3)) {
			t.Errorf("%s: %v; its shard: %v; another: %v", name, g.Names(listed.Digest()), g.Names(pool.Digest()), g.Names(hashOf(3)))
		}
	}
}
