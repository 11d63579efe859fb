package verify

import (
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// envGrant is an EnvGrant's blob.
func (l *lab) envGrant(issuer, subject *person) []byte {
	l.t.Helper()
	raw, err := particle.EnvGrant{
		Registry: l.origin.did(), Issuer: issuer.did(), Subject: subject.did(),
		NotBefore: particle.At(l.now), Expires: particle.At(l.now.Add(24 * time.Hour)), AllowedCrates: []string{},
		AllowedProtocols: []string{}, AllowedEndpoints: []string{}, Tier: particle.TierGuest,
	}.Marshal()
	if err != nil {
		l.t.Fatal(err)
	}
	return raw
}

func (l *lab) rule(id string) record.Subject {
	l.t.Helper()
	s, err := record.RuleSubject(id)
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

func quarantineOf(name string) *record.Quarantine {
	return &record.Quarantine{QuarantineRule: particle.QuarantineRule{
		Effect: particle.EffectDeny, Mode: particle.ModeEnforce, Reason: "seen",
		Match: []particle.RuleMatch{{Names: []string{name}, Hashes: []string{}, Publishers: []did.DID{}, Sources: []string{}, Content: []string{}}},
	}}
}

func approving(r *record.Record) *record.Approve {
	return &record.Approve{Record: r.ID(), Verdict: record.VerdictApprove}
}

// office is a scene with a grantor and two reviewers, who made a rule.
type office struct {
	*scene
	grantor, reviewer, other                   *person
	grantorMember, reviewerMember, otherMember *record.Record
	made                                       *record.Record
}

func newOffice(t *testing.T) *office {
	o := &office{scene: newScene(t)}
	o.grantor, o.reviewer, o.other = o.person(), o.person(), o.person()
	o.grantorMember = o.admit(o.grantor, memberOf(o.grantor, state.RoleGrantor), nil)
	o.reviewerMember = o.admit(o.reviewer, memberOf(o.reviewer, state.RoleReviewer), nil)
	o.otherMember = o.admit(o.other, memberOf(o.other, state.RoleReviewer), nil)
	o.made = o.log(o.reviewer, o.rule("pad"), quarantineOf("pad"), cite{by: o.reviewerMember})
	return o
}

func (o *office) grants(by *person, member *record.Record) storage.CID {
	o.t.Helper()
	raw := o.envGrant(by, o.ann)
	o.log(by, record.GrantSubject(storage.CIDOf(raw)), &record.Grant{}, cite{by: member, attach: [][]byte{raw}})
	return storage.CIDOf(raw)
}

// last is what a verifier says of the last line of the log, given all of it.
func (o *office) last() string {
	o.t.Helper()
	t := readTrail(o.items, o.origin.did())
	t.judge()
	if t.problem != nil {
		o.t.Fatal(t.problem)
	}
	l := t.lines[len(t.lines)-1]
	for _, err := range []error{l.signature, l.authority} {
		if err != nil {
			return err.Error()
		}
	}
	return ""
}

// TestGrantsAndRulesInTheLog: they replay, and stand in nobody's way.
func TestGrantsAndRulesInTheLog(t *testing.T) {
	o := newOffice(t)
	granted := o.grants(o.grantor, o.grantorMember)
	byAdmin := o.grants(o.admin, o.genesis)
	grant, err := record.Parse(o.items[len(o.items)-2].Envelope)
	if err != nil {
		t.Fatal(err)
	}
	o.log(o.grantor, record.GrantSubject(granted), &record.Revoke{Reason: "sold"}, cite{prev: grant, by: o.grantorMember})
	release := o.log(o.other, o.rule("pad"), &record.Release{}, cite{prev: o.made, by: o.otherMember})
	vote := o.log(o.reviewer, o.rule("pad"), approving(release), cite{prev: release, by: o.reviewerMember})
	again := o.log(o.admin, o.rule("pad"), quarantineOf("pad-2"), cite{prev: vote, by: o.genesis})
	shipped := o.log(o.reviewer, o.rule("blake3"), &record.Release{}, cite{by: o.reviewerMember})
	o.log(o.admin, o.rule("blake3"), &record.Approve{Record: shipped.ID(), Verdict: record.VerdictReject}, cite{prev: shipped, by: o.genesis})
	o.publish(o.bob, "demo", "0.2.0", o.addedBob, o.addedBob)
	o.wantClean(t)
	wantOK(t, Artifact(o.want("demo", "0.2.0"), o.evidence(), o.pin()))

	trail := readTrail(o.items, o.origin.did())
	trail.judge()
	for _, l := range trail.lines {
		if !l.sound() {
			t.Errorf("%s does not hold: %v, %v", l, l.signature, l.authority)
		}
	}
	r, err := o.replay()
	if err != nil {
		t.Fatal(err)
	}
	if g, _, err := state.GrantOf(r.State, granted); err != nil || g.Revoked == "" {
		t.Errorf("%+v, %v", g, err)
	}
	if h, _, err := state.HostOf(r.State, o.ann.did()); err != nil || len(h.Grants) != 2 || h.Grants[0].Revoked == "" || h.Grants[1].CID != byAdmin || !h.Grants[1].ByAdmin {
		t.Errorf("%+v, %v", h, err)
	}
	if rule, _, err := state.RuleOf(r.State, "pad"); err != nil || rule.Record != again.ID() || rule.Ended != "" {
		t.Errorf("%+v, %v", rule, err)
	}
	if rule, _, err := state.RuleOf(r.State, "blake3"); err != nil || rule.Ended != "" || !rule.Shipped() {
		t.Errorf("%+v, %v", rule, err)
	}
}

// TestALyingLogOfGrantsAndRules: what a registry logs against the table of FORMATS §2
// is void in a replay, and does not hold for a verifier either.
func TestALyingLogOfGrantsAndRules(t *testing.T) {
	release := func(o *office) *record.Record {
		return o.log(o.other, o.rule("pad"), &record.Release{}, cite{prev: o.made, by: o.otherMember})
	}
	for name, c := range map[string]struct {
		lie            func(o *office)
		replay, judged string
	}{
		"a member grants":                         {func(o *office) { o.grants(o.bob, o.bobMember) }, "has not got the role grantor", "has not got the role grantor"},
		"a stranger grants by the settings":       {func(o *office) { o.grants(o.stranger, o.genesis) }, "is not an admin", "is not an admin"},
		"a stranger grants by a grantor's record": {func(o *office) { o.grants(o.stranger, o.grantorMember) }, "is not a member", "needs the signer's own member record"},
		"a reviewer grants":                       {func(o *office) { o.grants(o.reviewer, o.reviewerMember) }, "has not got the role grantor", "has not got the role grantor"},
		"a grantor who was removed": {func(o *office) {
			o.admit(o.grantor, memberOf(o.grantor), o.grantorMember)
			o.grants(o.grantor, o.grantorMember)
		}, "is not a member", "had replaced"},
		"a grantor makes a rule":         {func(o *office) { o.log(o.grantor, o.rule("x"), quarantineOf("x"), cite{by: o.grantorMember}) }, "has not got the role reviewer", "has not got the role reviewer"},
		"the registry makes a rule":      {func(o *office) { o.log(o.origin, o.rule("x"), quarantineOf("x"), cite{by: o.genesis}) }, "is not an admin", "is not an admin"},
		"a publisher proposes a release": {func(o *office) { o.log(o.bob, o.rule("pad"), &record.Release{}, cite{prev: o.made, by: o.bobMember}) }, "has not got the role reviewer", "has not got the role reviewer"},
		"the proposer approves": {func(o *office) {
			r := release(o)
			o.log(o.other, o.rule("pad"), approving(r), cite{prev: r, by: o.otherMember})
		}, "others decide", "others decide"},
		"a vote after it was rejected": {func(o *office) {
			r := release(o)
			no := o.log(o.admin, o.rule("pad"), &record.Approve{Record: r.ID(), Verdict: record.VerdictReject}, cite{prev: r, by: o.genesis})
			o.log(o.reviewer, o.rule("pad"), approving(r), cite{prev: no, by: o.reviewerMember})
		}, "is closed", "was rejected"},
		"a vote without the role": {func(o *office) {
			r := release(o)
			o.log(o.bob, o.rule("pad"), approving(r), cite{prev: r, by: o.bobMember})
		}, "has not got the role reviewer", "has not got the role reviewer"},
		"a vote on another rule": {func(o *office) {
			r := release(o)
			o.log(o.reviewer, o.rule("blake3"), approving(r), cite{by: o.reviewerMember})
		}, "no proposal", "no record before it proposes about rule/blake3"},
		"a vote on nothing": {func(o *office) {
			o.log(o.reviewer, o.rule("pad"), approving(o.made), cite{prev: o.made, by: o.reviewerMember})
		}, "no proposal", "no record before it proposes about rule/pad"},
		"a release as settings": {func(o *office) {
			r := release(o)
			o.log(o.admin, record.RegistrySubject(), approving(r), cite{prev: o.genesis, by: o.genesis})
		}, "no proposal", "which no record before it proposes"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t)
			c.lie(o)
			r, err := o.replay()
			if err != nil || r.Violated != 1 || r.Violations[0].Index != int64(len(o.items)-1) || !strings.Contains(r.Violations[0].Reason, c.replay) {
				t.Errorf("replayed: %v, %+v; want %q", err, r.Violations, c.replay)
			}
			if got := o.last(); !strings.Contains(got, c.judged) {
				t.Errorf("judged: %q; want %q", got, c.judged)
			}
		})
	}
}

// TestAVoteOnARuleIsNoneOnSettings: a registry that passes it off as one puts
// nothing in force for a verifier.
func TestAVoteOnARuleIsNoneOnSettings(t *testing.T) {
	a := newAssembly(t)
	proposal := a.propose(a.admin, a.by(1), a.council)
	pad := a.rule("pad")
	made := a.log(a.ann, pad, quarantineOf("pad"), cite{by: a.council})
	vote := a.log(a.ann, pad, approving(proposal), cite{prev: made, by: a.council})
	want := a.newcomer(proposal) // as if two of three had approved
	wantFailure(t, Artifact(want, a.evidence(), a.pin()), CheckAuthority, "had replaced")
	r, err := a.replay()
	if err != nil || r.Violated != 3 || r.Violations[0].Record != vote.ID() {
		t.Errorf("%v, %+v", err, r.Violations)
	}
}

// TestRulesLeaveTheCouncilAlone: records about rules between those about the
// registry are neither votes nor missed by prev, and a proposal is not voided by them.
func TestRulesLeaveTheCouncilAlone(t *testing.T) {
	a := newAssembly(t)
	proposal := a.propose(a.admin, a.by(1), a.council)
	pad := a.rule("pad")
	made := a.log(a.ann, pad, quarantineOf("pad"), cite{by: a.council})
	release := a.log(a.ann, pad, &record.Release{}, cite{prev: made, by: a.council})
	a.log(a.bob, pad, approving(release), cite{prev: release, by: a.council})
	a.vote(a.ann, proposal, proposal, record.VerdictApprove)
	want := a.newcomer(proposal)
	a.wantClean(t)
	wantOK(t, Artifact(want, a.evidence(), a.pin()))
}

// TestAStolenReviewersKey: what it signed stays in the state, and is not believed.
func TestAStolenReviewersKey(t *testing.T) {
	o := newOffice(t)
	web := o.webPerson("reviewer.example", did.AssertionMethod, did.CapabilityInvocation)
	webMember := o.admit(web, memberOf(web, state.RoleReviewer), nil)
	release := o.log(web, o.rule("pad"), &record.Release{}, cite{prev: o.made, by: webMember})
	o.log(o.other, o.rule("pad"), approving(release), cite{prev: release, by: o.otherMember})
	stolen, since := *web, int64(len(o.items)-2)
	next := o.webPerson("reviewer.example", did.AssertionMethod, did.CapabilityInvocation)
	o.log(o.admin, record.MemberSubject(web.did()), &record.DIDChange{DIDDocument: next.documentCID(), CompromisedSince: &since},
		cite{prev: webMember, by: o.genesis, attach: [][]byte{next.document}})
	o.wantClean(t)
	trail := readTrail(o.items, o.origin.did())
	trail.judge()
	for _, l := range trail.lines {
		if l.disowned != (l.record.ID() == release.ID()) {
			t.Errorf("%s: disowned %v: %v, %v", l, l.disowned, l.signature, l.authority)
		}
	}
	wantOK(t, Artifact(o.want("demo", "0.1.0"), o.evidence(), o.pin()))
	r, err := o.replay()
	if err != nil {
		t.Fatal(err)
	}
	if rule, _, err := state.RuleOf(r.State, "pad"); err != nil || rule.Ended == "" {
		t.Errorf("%+v, %v", rule, err)
	}
	o.log(&stolen, o.rule("pad"), quarantineOf("pad"), cite{by: webMember})
	if got := o.last(); !strings.Contains(got, "DID document") {
		t.Errorf("the stolen key goes on: %q", got)
	}
}

// TestOnlyAGrantBringsItsBlob: nothing else may be attached unread.
func TestOnlyAGrantBringsItsBlob(t *testing.T) {
	o := newOffice(t)
	raw := o.envGrant(o.grantor, o.ann)
	o.log(o.reviewer, o.rule("x"), quarantineOf("x"), cite{by: o.reviewerMember, attach: [][]byte{raw}})
	verdict := Artifact(o.want("demo", "0.1.0"), o.evidence(), o.pin())
	if failed, any := verdict.Failure(); !any || !strings.Contains(failed.Detail, "which no entry or record names") {
		t.Errorf("%+v", verdict.Checks)
	}
}

// TestTheAuthorityOfARecord: one record of any type is proved with what it rests on,
// and not without.
func TestTheAuthorityOfARecord(t *testing.T) {
	o := newOffice(t)
	o.grants(o.grantor, o.grantorMember)
	at := int64(len(o.items) - 1)
	grant, err := record.Parse(o.items[at].Envelope)
	if err != nil {
		t.Fatal(err)
	}
	member := int64(-1)
	for i, item := range o.items {
		if rec, err := record.Parse(item.Envelope); err == nil && rec.ID() == o.grantorMember.ID() {
			member = int64(i)
		}
	}
	v := Authority(grant.ID(), o.evidence(0, member, at), o.pin())
	wantOK(t, v)
	if v.Record != grant.ID() || v.Index != at || len(v.Chain) != 3 || v.Signer.DID != o.grantor.did() || v.Subject != grant.Subject().String() {
		t.Errorf("%+v", v)
	}
	wantOK(t, Authority(o.made.ID(), o.evidence(), o.pin()))
	wantFailure(t, Authority(grant.ID(), o.evidence(0, at), o.pin()), CheckAuthority, "missing from the evidence")
	wantFailure(t, Authority(grant.ID(), o.evidence(0, member), o.pin()), CheckRecord, "missing from the evidence")
	wantFailure(t, Authority(grant.ID(), o.evidence(member, at), o.pin()), CheckEntry0, "entry 0")
	wantFailure(t, Authority(grant.ID(), Evidence{}, o.pin()), CheckEntry0, "entry 0")

	ev := o.evidence(0, member, at)
	ev.Items[2].Proof = slices.Clone(ev.Items[2].Proof)
	ev.Items[2].Proof[0] = flipHash(ev.Items[2].Proof[0])
	wantFailure(t, Authority(grant.ID(), ev, o.pin()), CheckInclusion, "")
	pin := o.pin()
	pin.Origin = o.grantor.did()
	wantFailure(t, Authority(grant.ID(), o.evidence(), pin), CheckEntry0, "")

	o.log(o.reviewer, record.GrantSubject(storage.CIDOf(nil)), &record.Revoke{Reason: "x"}, cite{by: o.reviewerMember})
	last, err := record.Parse(o.items[len(o.items)-1].Envelope)
	if err != nil {
		t.Fatal(err)
	}
	wantFailure(t, Authority(last.ID(), o.evidence(), o.pin()), CheckAuthority, "has not got the role grantor")
}
