package client

import (
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// admit logs a member record about p, signed by the admin.
func (g *grantor) admit(d did.DID, roles ...string) *record.Record {
	settings := g.records[0].ID()
	rec := g.sign(g.r.identity.Signer(), record.MemberSubject(d), [32]byte{}, record.Header{Prev: g.members[d], By: settings}, &record.Member{Roles: roles, Tier: particle.TierCoreStakeholder})
	g.log(rec)
	return rec
}

// Whatever a registry says of a grant, preflight goes by none that the log does not
// prove to be of somebody entitled.
func TestAGrantThatTheLogDoesNotProveIsNone(t *testing.T) {
	other := must(did.GenerateEd25519(rand.Reader))
	otherDID, otherSigner := other.Public().DID(), other.Signer(other.Public().URL())
	for name, c := range map[string]struct {
		// make tells of a grant of e, whose subject is ours.
		make func(g *grantor, e particle.EnvGrant) storage.CID
		want string // "": it is one
	}{
		"of an admin": {func(g *grantor, e particle.EnvGrant) storage.CID { return g.grant(e) }, ""},
		"of a grantor": {func(g *grantor, e particle.EnvGrant) storage.CID {
			return g.signed(e, otherSigner, g.admit(otherDID, "grantor").ID(), true)
		}, ""},
		"of a stranger": {func(g *grantor, e particle.EnvGrant) storage.CID {
			return g.signed(e, otherSigner, g.records[0].ID(), true)
		}, "is not an admin"},
		"of a member who is no grantor": {func(g *grantor, e particle.EnvGrant) storage.CID {
			return g.signed(e, otherSigner, g.admit(otherDID, "publisher").ID(), true)
		}, "has not got the role grantor"},
		"of one who was a grantor": {func(g *grantor, e particle.EnvGrant) storage.CID {
			was := g.admit(otherDID, "grantor")
			g.admit(otherDID, "publisher")
			g.members[otherDID] = was.ID()
			return g.signed(e, otherSigner, was.ID(), true)
		}, ""}, // that was replaced only the whole log proves
		"by another's member record": {func(g *grantor, e particle.EnvGrant) storage.CID {
			return g.signed(e, otherSigner, g.admit(g.r.identity.DID(), "grantor").ID(), true)
		}, "own member record"},
		"by a record that is not there": {func(g *grantor, e particle.EnvGrant) storage.CID {
			return g.signed(e, otherSigner, record.IDOf(nil), true)
		}, "there is no record"},
		"that was never logged": {func(g *grantor, e particle.EnvGrant) storage.CID {
			return g.signed(e, otherSigner, g.admit(otherDID, "grantor").ID(), false)
		}, "missing from the evidence"},
		"to a grantor's own self": {func(g *grantor, e particle.EnvGrant) storage.CID {
			me := *g.r.identity
			member := g.admit(me.DID(), "grantor")
			settings := cloneSettings(g.records[0].Body().(*record.Registry))
			settings.Admins = []did.DID{otherDID}
			g.log(g.sign(me.Signer(), record.RegistrySubject(), [32]byte{}, record.Header{Prev: g.records[0].ID(), By: g.records[0].ID()}, settings))
			return g.signed(e, me.Signer(), member.ID(), true)
		}, "only an admin makes"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGrantor(t)
			id := c.make(g, g.env())
			charter, findings, ok, err := g.r.Charter(t.Context())
			said := ""
			if err != nil {
				said = err.Error()
			}
			for _, f := range findings {
				said += f.Detail
			}
			if ok != (c.want == "") || !strings.Contains(said, c.want) || ok && (said != "" || charter.CID != id) {
				t.Errorf("%v, %q, want %q", ok, said, c.want)
			}
		})
	}
}

// signed tells of a grant of e by whoever signs it.
func (g *grantor) signed(e particle.EnvGrant, by did.Signer, cites record.ID, logged bool) storage.CID {
	e.Issuer = by.KeyID().DID
	raw := must(e.Marshal())
	id := storage.CIDOf(raw)
	return g.tell(e, raw, g.sign(by, record.GrantSubject(id), id.Digest(), record.Header{By: cites}, &record.Grant{}), logged)
}

// A signature that is not the issuer's makes no grant, nor does a checkpoint that is
// not the log's.
func TestAForgedGrantIsNone(t *testing.T) {
	g := newGrantor(t)
	e := g.env()
	raw := must(e.Marshal())
	id := storage.CIDOf(raw)
	forger := must(did.GenerateEd25519(rand.Reader))
	g.tell(e, raw, g.sign(forger.Signer(g.r.identity.KeyID()), record.GrantSubject(id), id.Digest(), record.Header{By: g.records[0].ID()}, &record.Grant{}), true)
	_, findings, ok, err := g.r.Charter(t.Context())
	if err != nil || ok || len(findings) != 1 || !strings.Contains(findings[0].Detail, "(signature)") {
		t.Errorf("%v, %+v, %v", ok, findings, err)
	}
	g = newGrantor(t)
	g.grant(g.env())
	g.logKey = newFake(t, *g.r.identity).logKey
	if _, findings, ok, err := g.r.Charter(t.Context()); err == nil || ok {
		t.Errorf("%v, %+v", ok, findings)
	}
}

// A registry whose clock is late gives no grant a longer life.
func TestALateClockKeepsNoGrantAlive(t *testing.T) {
	for _, late := range []time.Duration{0, -10 * time.Minute} {
		g := newGrantor(t)
		e := g.env()
		e.NotBefore, e.Expires = particle.At(time.Now().Add(-2*time.Hour)), particle.At(time.Now().Add(-5*time.Minute))
		id := g.grant(e)
		g.info(id).InForce = true
		g.skew = late
		_, findings, ok, err := g.r.Charter(t.Context())
		if err != nil || ok || len(findings) != 1 || findings[0].Clause != ClauseTime {
			t.Errorf("%s: %v, %+v, %v", late, ok, findings, err)
		}
	}
}

// A log that stands still proves no grant: what ended one may be hidden.
func TestAFrozenLogProvesNoGrant(t *testing.T) {
	g := newGrantor(t)
	g.grant(g.env())
	g.frozen(25 * time.Hour)
	if _, findings, ok, err := g.r.Charter(t.Context()); ok || !errors.Is(err, ErrNotFresh) {
		t.Errorf("%v, %+v, %v", ok, findings, err)
	}
}
