package state

import (
	"errors"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

var (
	gina = keyActor(60) // grantor
	gus  = keyActor(61) // another one
	rita = keyActor(62) // reviewer
	rolf = keyActor(63) // another one
	rosa = keyActor(64) // and another one
)

// staffed is newWorld with grantors and reviewers.
func staffed(w *world) {
	for _, a := range []actor{gina, gus} {
		w.must(alice, member(a), roles(RoleGrantor))
	}
	for _, a := range []actor{rita, rolf, rosa} {
		w.must(alice, member(a), roles(RoleReviewer))
	}
}

// envGrant is a right EnvGrant of issuer for subject, for a day; edits make another.
func (w *world) envGrant(issuer, subject actor, edits ...func(*particle.EnvGrant)) storage.CID {
	w.t.Helper()
	g := particle.EnvGrant{
		Registry: registry.id(), Issuer: issuer.id(), Subject: subject.id(),
		NotBefore: particle.At(w.now), Expires: particle.At(w.now.Add(24 * time.Hour)), MaxMemMB: 100, MaxDiskMB: 100,
		AllowedCrates: []string{}, AllowedProtocols: []string{}, AllowedEndpoints: []string{}, Tier: particle.TierGuest,
	}
	for _, edit := range edits {
		edit(&g)
	}
	raw, err := g.Marshal()
	if err != nil {
		w.t.Fatal(err)
	}
	return *w.attach(raw)
}

func superseding(id storage.CID) func(*particle.EnvGrant) {
	return func(g *particle.EnvGrant) { g.Supersedes = &id }
}

func memory(mb int64) func(*particle.EnvGrant) {
	return func(g *particle.EnvGrant) { g.MaxMemMB = mb }
}

func lasting(d time.Duration) func(*particle.EnvGrant) {
	return func(g *particle.EnvGrant) { g.Expires = particle.At(g.NotBefore.Add(d)) }
}

func grantText(id storage.CID) string { return record.GrantSubject(id).String() }

func (w *world) tryGrant(who actor, id storage.CID, edits ...func(*attempt)) error {
	w.t.Helper()
	return w.try(who, grantText(id), &record.Grant{}, edits...)
}

// granted puts an EnvGrant of issuer for subject in force.
func (w *world) granted(issuer, subject actor, edits ...func(*particle.EnvGrant)) storage.CID {
	w.t.Helper()
	id := w.envGrant(issuer, subject, edits...)
	w.must(issuer, grantText(id), &record.Grant{})
	return id
}

func (w *world) grant(id storage.CID) Grant {
	w.t.Helper()
	g, ok, err := GrantOf(w.store, id)
	if err != nil || !ok {
		w.t.Fatalf("grant %s: %v, %v", id, ok, err)
	}
	return g
}

func (w *world) host(a actor) Host {
	w.t.Helper()
	h, _, err := HostOf(w.store, a.id())
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

func (w *world) revoke(who actor, id storage.CID, edits ...func(*attempt)) error {
	w.t.Helper()
	return w.try(who, grantText(id), &record.Revoke{Reason: "enough"}, edits...)
}

// without is an attempt that does not bring the blob id.
func without(id storage.CID) func(*attempt) { return func(a *attempt) { delete(a.att, id) } }

func TestGrantRecords(t *testing.T) {
	give := func(issuer, subject actor, edits ...func(*particle.EnvGrant)) func(*world) error {
		return func(w *world) error {
			staffed(w)
			return w.tryGrant(issuer, w.envGrant(issuer, subject, edits...))
		}
	}
	runCases(t, []applyCase{
		{"a grantor grants to a member", func(w *world) error {
			staffed(w)
			at := w.now
			id := w.granted(gina, pat)
			g := w.grant(id)
			if g.CID != id || g.Record != w.last.ID() || g.Index != w.next-1 || g.Issuer != gina.id() || g.Subject != pat.id() || g.ByAdmin ||
				!g.NotBefore.Equal(at) || g.Expires.Sub(g.NotBefore) != 24*time.Hour || g.Chain != id || g.Tier != particle.TierGuest {
				w.t.Errorf("%+v", g)
			}
			if h := w.host(pat); len(h.Grants) != 1 || h.Grants[0] != g || h.DID != pat.id() {
				w.t.Errorf("%+v", h)
			}
			return nil
		}, nil},
		{"an admin by the settings", func(w *world) error {
			id := w.granted(alice, pat)
			if !w.grant(id).ByAdmin {
				w.t.Error("not held to be an admin's")
			}
			return nil
		}, nil},
		{"an admin by their member record without the role", func(w *world) error {
			return w.tryGrant(alice, w.envGrant(alice, pat), by(w.member(alice.id()).Record))
		}, ErrNotEntitled},
		{"an admin to themselves", give(alice, alice), nil},
		{"an admin who is a grantor to themselves, by the member record", func(w *world) error {
			w.must(alice, member(alice), roles(RoleGrantor))
			id := w.granted(alice, alice)
			if w.last.Header().By != w.member(alice.id()).Record || !w.grant(id).ByAdmin {
				w.t.Error("it would outlive the adminship")
			}
			return nil
		}, nil},
		{"a grantor to themselves", give(gina, gina), ErrNotEntitled},
		{"a member without the role", give(pat, olga), ErrNotEntitled},
		{"a reviewer", give(rita, olga), ErrNotEntitled},
		{"a stranger", give(mallory, olga), ErrNotEntitled},
		{"the registry", give(registry, olga), ErrNotEntitled},
		{"a grantor who lost the role", func(w *world) error {
			staffed(w)
			w.must(alice, member(gina), roles(RoleAuditor))
			return w.tryGrant(gina, w.envGrant(gina, pat))
		}, ErrNotEntitled},
		{"a grantor by the settings", func(w *world) error {
			staffed(w)
			return w.tryGrant(gina, w.envGrant(gina, pat), by(w.settings().Record))
		}, ErrNotEntitled},
		{"a grantor by an older member record", func(w *world) error {
			staffed(w)
			old := w.member(gina.id()).Record
			w.must(alice, member(gina), roles(RoleGrantor, RoleAuditor))
			return w.tryGrant(gina, w.envGrant(gina, pat), by(old))
		}, ErrNotEntitled},
		{"a grantor by another's member record", func(w *world) error {
			staffed(w)
			return w.tryGrant(gina, w.envGrant(gina, pat), by(w.member(gus.id()).Record))
		}, ErrNotEntitled},
		{"the EnvGrant of another grantor", func(w *world) error {
			staffed(w)
			return w.tryGrant(gus, w.envGrant(gina, pat))
		}, ErrInvalid},
		{"for another registry", give(gina, pat, func(g *particle.EnvGrant) { g.Registry = mallory.id() }), ErrInvalid},
		{"to a stranger", give(gina, mallory), ErrInvalid},
		{"to a removed member", func(w *world) error {
			staffed(w)
			w.must(alice, member(pat), roles())
			return w.tryGrant(gina, w.envGrant(gina, pat))
		}, ErrInvalid},
		{"of the subject's own tier", give(gina, pat, func(g *particle.EnvGrant) { g.Tier = particle.TierCollaborator }), nil},
		{"of a tier above the subject's", give(gina, pat, func(g *particle.EnvGrant) { g.Tier = particle.TierCoreStakeholder }), ErrInvalid},
		{"an admin's of a tier above the subject's", give(alice, pat, func(g *particle.EnvGrant) { g.Tier = particle.TierCoreStakeholder }), ErrInvalid},
		{"that begins later", give(gina, pat, func(g *particle.EnvGrant) { g.NotBefore = particle.At(g.NotBefore.Add(time.Hour)) }), nil},
		{"that expires in this second", func(w *world) error {
			staffed(w)
			return w.tryGrant(gina, w.envGrant(gina, pat, func(g *particle.EnvGrant) {
				g.NotBefore, g.Expires = particle.At(w.now.Add(-time.Hour)), particle.At(w.now)
			}))
		}, ErrInvalid},
		{"that expires in the next second", func(w *world) error {
			staffed(w)
			return w.tryGrant(gina, w.envGrant(gina, pat, lasting(time.Second)))
		}, nil},
		{"without its blob", func(w *world) error {
			staffed(w)
			id := w.envGrant(gina, pat)
			return w.tryGrant(gina, id, without(id))
		}, ErrInvalid},
		{"with other bytes", func(w *world) error {
			staffed(w)
			return w.tryGrant(gina, w.envGrant(gina, pat), swapped([]byte("{}")))
		}, ErrInvalid},
		{"of a blob that is none", func(w *world) error {
			staffed(w)
			return w.tryGrant(gina, *w.attach([]byte(`{"registry":"x"}`)))
		}, ErrInvalid},
		{"granted already", func(w *world) error {
			staffed(w)
			return w.tryGrant(gina, w.granted(gina, pat))
		}, ErrNoChange},
		{"granted anew by a replay of nothing before it", func(w *world) error {
			staffed(w)
			return w.tryGrant(gina, w.granted(gina, pat), prev(""))
		}, ErrStale},
	})
}

func TestSupersedingGrants(t *testing.T) {
	runCases(t, []applyCase{
		{"the head of a chain", func(w *world) error {
			staffed(w)
			first := w.granted(gina, pat)
			second := w.granted(gus, pat, superseding(first))
			third := w.granted(gina, pat, superseding(second))
			other := w.granted(gina, pat, memory(7))
			h := w.host(pat)
			if len(h.Grants) != 2 {
				w.t.Fatalf("%+v", h)
			}
			for _, id := range []storage.CID{first, second, third} {
				if head, ok := h.Head(w.grant(id)); !ok || head.CID != third {
					w.t.Errorf("%s is judged by %s, %v", id, head.CID, ok)
				}
			}
			if head, ok := h.Head(w.grant(other)); !ok || head.CID != other {
				w.t.Errorf("%s is judged by %s, %v", other, head.CID, ok)
			}
			if g := w.grant(first); g.SupersededBy == nil || *g.SupersededBy != second {
				w.t.Errorf("%+v", g)
			}
			if _, ok := w.host(olga).Head(w.grant(first)); ok {
				w.t.Error("another's grant has a head")
			}
			return nil
		}, nil},
		{"a superseded one", func(w *world) error {
			staffed(w)
			first := w.granted(gina, pat)
			w.granted(gina, pat, superseding(first))
			return w.tryGrant(gina, w.envGrant(gina, pat, superseding(first), memory(9)))
		}, ErrInvalid},
		{"a revoked one", func(w *world) error {
			staffed(w)
			first := w.granted(gina, pat)
			if err := w.revoke(gina, first); err != nil {
				return err
			}
			return w.tryGrant(gina, w.envGrant(gina, pat, superseding(first)))
		}, ErrInvalid},
		{"of another host", func(w *world) error {
			staffed(w)
			return w.tryGrant(gina, w.envGrant(gina, olga, superseding(w.granted(gina, pat))))
		}, ErrInvalid},
		{"one that nobody granted", func(w *world) error {
			staffed(w)
			return w.tryGrant(gina, w.envGrant(gina, pat, superseding(w.envGrant(gina, pat, memory(3)))))
		}, ErrMissing},
		{"an expired one, left out of the host's by then", func(w *world) error {
			staffed(w)
			first := w.granted(gina, pat, lasting(time.Minute))
			second := w.granted(gina, pat, superseding(first), lasting(time.Minute))
			w.now = w.now.Add(time.Hour)
			w.granted(gina, pat, memory(5))
			if _, ok := w.host(pat).Head(w.grant(first)); ok {
				w.t.Error("the expired chain still is the host's")
			}
			third := w.granted(gina, pat, superseding(second))
			if head, ok := w.host(pat).Head(w.grant(first)); !ok || head.CID != third {
				w.t.Errorf("%+v, %v", head, ok)
			}
			return nil
		}, nil},
	})
}

func TestRevokeRecords(t *testing.T) {
	runCases(t, []applyCase{
		{"another grantor", func(w *world) error {
			staffed(w)
			id := w.granted(gina, pat)
			err := w.revoke(gus, id)
			if g, h := w.grant(id), w.host(pat); g.Revoked != w.last.ID() || h.Grants[0] != g || !g.Over(w.now) {
				w.t.Errorf("%+v, %+v", g, h)
			}
			return err
		}, nil},
		{"an admin", func(w *world) error {
			staffed(w)
			return w.revoke(alice, w.granted(gina, pat))
		}, nil},
		{"its subject", func(w *world) error {
			staffed(w)
			return w.revoke(pat, w.granted(gina, pat))
		}, ErrNotEntitled},
		{"a reviewer", func(w *world) error {
			staffed(w)
			return w.revoke(rita, w.granted(gina, pat))
		}, ErrNotEntitled},
		{"its issuer without the role", func(w *world) error {
			staffed(w)
			id := w.granted(gina, pat)
			w.must(alice, member(gina), roles(RoleAuditor))
			return w.revoke(gina, id)
		}, ErrNotEntitled},
		{"a superseded one leaves the head", func(w *world) error {
			staffed(w)
			first := w.granted(gina, pat)
			second := w.granted(gina, pat, superseding(first))
			err := w.revoke(gina, first)
			if head, ok := w.host(pat).Head(w.grant(second)); !ok || head.Revoked != "" || w.grant(first).Revoked == "" {
				w.t.Errorf("%+v", head)
			}
			return err
		}, nil},
		{"twice", func(w *world) error {
			staffed(w)
			id := w.granted(gina, pat)
			if err := w.revoke(gina, id); err != nil {
				return err
			}
			return w.revoke(gina, id)
		}, ErrNoChange},
		{"one that nobody granted", func(w *world) error {
			staffed(w)
			return w.revoke(gina, w.envGrant(gina, pat))
		}, ErrMissing},
		{"granted again afterwards", func(w *world) error {
			staffed(w)
			id := w.granted(gina, pat)
			if err := w.revoke(gina, id); err != nil {
				return err
			}
			return w.tryGrant(gina, id)
		}, ErrInvalid},
		{"one that is over for long", func(w *world) error {
			staffed(w)
			id := w.granted(gina, pat, lasting(time.Minute))
			w.now = w.now.Add(time.Hour)
			w.granted(gina, pat, memory(8))
			return w.revoke(gina, id)
		}, nil},
	})
}

// TestWhatItsIssuerHasToBe: nothing is stored when a role is taken away; it is
// found out on reading.
func TestWhatItsIssuerHasToBe(t *testing.T) {
	grantor, admin := Grant{Issuer: gina.id()}, Grant{Issuer: gina.id(), ByAdmin: true}
	as := func(list ...string) Member { return Member{DID: gina.id(), Roles: list} }
	for _, c := range []struct {
		name   string
		grant  Grant
		admins []did.DID
		issuer Member
		holds  bool
	}{
		{"a grantor's while it is one", grantor, dids(alice), as(RoleGrantor), true},
		{"a grantor's who is an admin instead", grantor, dids(gina), as(RoleAuditor), true},
		{"a grantor's who lost the role", grantor, dids(alice), as(RoleAuditor), false},
		{"a grantor's who was removed", grantor, dids(alice), as(), false},
		{"an admin's while it is one", admin, dids(alice, gina), as(RoleAuditor), true},
		{"an admin's who is only a grantor now", admin, dids(alice), as(RoleGrantor), false},
		{"by what is said of another member", grantor, dids(alice), Member{DID: gus.id(), Roles: []string{RoleGrantor}}, false},
	} {
		if got := c.grant.IssuerHolds(Settings{Registry: record.Registry{Admins: c.admins}}, c.issuer); got != c.holds {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestTheTimeOfAGrant(t *testing.T) {
	g := Grant{NotBefore: start, Expires: start.Add(time.Hour)}
	for _, c := range []struct {
		at           time.Time
		inTime, over bool
	}{
		{start.Add(-time.Second), false, false}, {start, true, false},
		{start.Add(time.Hour - time.Second), true, false}, {start.Add(time.Hour), false, true},
	} {
		if g.InTime(c.at) != c.inTime || g.Over(c.at) != c.over {
			t.Errorf("%s: in time %v, over %v", c.at, g.InTime(c.at), g.Over(c.at))
		}
	}
}

// TestAHostHasSoManyGrants: the bound refuses one more, and what is over makes room.
func TestAHostHasSoManyGrants(t *testing.T) {
	w := newWorld(t)
	staffed(w)
	first := w.granted(gina, pat)
	full := w.host(pat)
	for i := range MaxGrants - 1 {
		other := w.grant(first)
		other.CID = storage.CIDOf([]byte{byte(i), byte(i >> 8)})
		other.Chain = other.CID
		full.Grants = append(full.Grants, other)
	}
	change, err := put(HostKey(pat.id()), full)
	if err != nil || len(change.Value) > 1<<18 {
		t.Fatalf("a full host takes %d bytes, %v", len(change.Value), err)
	}
	w.store.Put([]Change{change})
	last := w.envGrant(gina, pat, memory(2))
	if err := w.tryGrant(gina, last); !errors.Is(err, ErrInvalid) {
		t.Fatalf("one more than %d: %v", MaxGrants, err)
	}
	replacing := w.granted(gina, pat, superseding(first))
	if n := len(w.host(pat).Grants); n != MaxGrants {
		t.Errorf("%d grants after one superseded another", n)
	}
	if err := w.revoke(gina, replacing); err != nil {
		t.Fatal(err)
	}
	if err := w.tryGrant(gina, last); err != nil {
		t.Errorf("in the place of a revoked one: %v", err)
	}
	if h := w.host(pat); len(h.Grants) != MaxGrants || h.Grants[MaxGrants-1].CID != last {
		t.Errorf("%d grants, the last %v", len(h.Grants), h.Grants[len(h.Grants)-1].CID)
	}
	if err := w.tryGrant(gina, w.envGrant(gina, olga)); err != nil {
		t.Errorf("another host: %v", err)
	}
}
