package registry

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// Who may not know of a name is told the same of it as of one that there is not,
// also by heads and by the refusal of what they sign about it.
func TestWhoMayNotKnowOfANameIsToldThereIsNone(t *testing.T) {
	c := newCourt(t)
	c.publish("secret")
	offshore := c.member(particle.TierCoreStakeholder, state.RoleReviewer)
	c.grant(c.admin, offshore, func(g *particle.EnvGrant) { g.OffshoreFlag = true })
	offshorePublisher := c.member(particle.TierCoreStakeholder)
	c.grant(c.admin, offshorePublisher, func(g *particle.EnvGrant) { g.OffshoreFlag = true })
	for who, a := range map[string]actor{
		"a guest without a grant": c.member(particle.TierGuest, state.RoleGrantor), "offshore": offshore, "a publisher offshore": offshorePublisher,
	} {
		heads := func(name string) Heads {
			h, err := c.r.HeadsFor(t.Context(), c.asker(a, "publish", ""), "crate/"+name)
			if err != nil {
				t.Fatal(err)
			}
			h.Thing = ""
			return h
		}
		if got, want := heads("secret"), heads("absent"); got != want {
			t.Errorf("%s: heads of a hidden name %+v, of none %+v", who, got, want)
		}
		for change, body := range map[string]record.Body{
			"yank": &record.Yank{Yanked: true}, "own": &record.Own{Add: []did.DID{a.id.DID}, Remove: []did.DID{}},
		} {
			for _, prev := range []record.ID{"", record.ID(strings.Repeat("a", 64))} {
				got, want := c.refused(a, "secret", body, prev), c.refused(a, "absent", body, prev)
				if got = strings.ReplaceAll(got, "secret", "absent"); got != want {
					t.Errorf("%s: %s of a hidden name: %s\nof none: %s", who, change, got, want)
				}
			}
		}
		if got, want := c.intended(a, "secret"), c.intended(a, "absent"); strings.ReplaceAll(got, "secret", "absent") != want {
			t.Errorf("%s: owners of a hidden name: %s\nof none: %s", who, got, want)
		}
		publish := c.refused(a, "secret", &record.Publish{Evidence: []storage.CID{}}, "")
		if strings.Contains(publish, string(c.admin.id.DID)) || strings.Contains(publish, string(c.version("secret").Record)) {
			t.Errorf("%s: publishing a hidden name: %s", who, publish)
		}
	}
}

// signed is body about the crate name, or its version 1.0.0, by a.
func (c *court) signed(a actor, name string, body record.Body, prev record.ID) *record.Record {
	c.t.Helper()
	subject, err := record.VersionSubject(record.KindCrate, name, "1.0.0")
	switch body.(type) {
	case *record.Own, *record.OwnIntent:
		subject, err = record.ArtifactSubject(record.KindCrate, name)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	m, _, err := state.MemberOf(c.r.visible(c.t.Context()), a.id.DID)
	if err != nil {
		c.t.Fatal(err)
	}
	now := c.now().UTC().Truncate(time.Second)
	draft := record.Draft{Subject: subject, Body: body, Header: record.Header{
		Registry: c.r.Origin(), IssuedAt: now, Expires: now.Add(time.Minute), Prev: prev, By: m.Record,
	}}
	if _, ok := body.(*record.Publish); ok {
		draft.Digest = storage.CIDOf([]byte("bytes")).Digest()
	}
	rec, err := record.Sign(draft, a.key.Signer(a.id))
	if err != nil {
		c.t.Fatal(err)
	}
	return rec
}

// refused is why a may not enter body about the crate name, with the identities of records left out.
func (c *court) refused(a actor, name string, body record.Body, prev record.ID) string {
	c.t.Helper()
	rec, asker := c.signed(a, name, body, prev), c.asker(a, "publish", "")
	var err error
	if rec.Type() == record.TypePublish {
		_, err = c.r.Publish(c.t.Context(), asker, rec.Envelope(), rec.Subject(), bytes.NewReader([]byte("bytes")))
	} else {
		_, err = c.r.Submit(c.t.Context(), asker, rec.Envelope(), nil)
	}
	if err == nil {
		c.t.Fatalf("entered: %s", rec.Subject())
	}
	return err.Error()
}

// intended is why a's own-intent about the crate name changes no owners.
func (c *court) intended(a actor, name string) string {
	c.t.Helper()
	intent := c.signed(a, name, &record.OwnIntent{}, "")
	_, err := c.r.ChangeOwners(c.t.Context(), c.asker(a, "publish", ""), name, intent.Envelope(), []did.DID{a.id.DID}, nil)
	if err == nil {
		c.t.Fatalf("owners changed: %s", name)
	}
	return err.Error()
}
