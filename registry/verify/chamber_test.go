package verify

import (
	"slices"
	"testing"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
)

// chamber is a scene whose settings change by votes, and in which did:web admins
// lose their keys. It keeps the books as state.Apply does, so that all it logs is
// in order; wantClean proves that.
type chamber struct {
	*scene
	t *testing.T
	// inForce are the settings in force, body what they say, head is the last record about the registry.
	inForce, head *record.Record
	body          *record.Registry
	// members holds the last record about each.
	members map[did.DID]*record.Record
	wants   int
}

// bill is a proposal.
type bill struct {
	record *record.Record
	body   *record.Registry
	base   *record.Record
	voters []did.DID
}

func newChamber(t *testing.T) *chamber {
	s := newScene(t)
	return &chamber{scene: s, t: t, inForce: s.genesis, head: s.genesis, body: s.settings(), members: map[did.DID]*record.Record{
		s.admin.did(): s.member, s.ann.did(): s.annMember, s.bob.did(): s.bobMember,
	}}
}

func (c *chamber) next() int64 { return int64(len(c.items)) }

// admits logs the member record of an admin about p, with p's document.
func (c *chamber) admits(admin, p *person) *record.Record {
	c.t.Helper()
	at := cite{by: c.inForce, prev: c.members[p.did()]}
	if p.document != nil {
		at.attach = [][]byte{p.document}
	}
	r := c.log(admin, record.MemberSubject(p.did()), publisher(p), at)
	if p.document != nil && p.documentRecord == "" {
		p.documentRecord = r.ID()
	}
	c.members[p.did()] = r
	return r
}

// deputy is a did:web member with one key.
func (c *chamber) deputy(host string) *person {
	c.t.Helper()
	p := &person{}
	c.holds(p, did.DID("did:web:"+host), c.person().key)
	c.admits(c.admin, p)
	return p
}

// holds gives p a document of d with key.
func (c *chamber) holds(p *person, d did.DID, key did.PrivateKey) {
	p.key, p.url = key, did.URL{DID: d, Fragment: key.Public().Multikey()}
	p.document = documentOf(c.t, d, key)
}

// enters replaces p's key, as an admin or p says; since < 0: none was compromised.
func (c *chamber) enters(who, p *person, since int64) {
	c.t.Helper()
	signer := *who
	by := c.inForce
	if who == p {
		by = c.byID(p.documentRecord)
	}
	c.holds(p, p.did(), c.person().key)
	body := &record.DIDChange{DIDDocument: p.documentCID()}
	if since >= 0 {
		body.CompromisedSince = &since
	}
	r := c.log(&signer, record.MemberSubject(p.did()), body, cite{prev: c.members[p.did()], by: by, attach: [][]byte{p.document}})
	p.documentRecord, c.members[p.did()] = r.ID(), r
}

func (c *chamber) byID(id record.ID) *record.Record {
	for _, item := range c.items {
		if r, err := record.Parse(item.Envelope); err == nil && r.ID() == id {
			return r
		}
	}
	c.t.Fatalf("no record %s", id)
	return nil
}

// rule is settings by which threshold of the admins decide.
func (c *chamber) rule(threshold int, admins ...*person) *record.Registry {
	s := c.settings()
	s.Admins, s.AdminThreshold, s.MinAgeDays = nil, threshold, len(c.items) // no two alike
	for _, p := range admins {
		s.Admins = append(s.Admins, p.did())
	}
	return s
}

func (c *chamber) propose(p *person, body *record.Registry) *bill {
	c.t.Helper()
	b := &bill{base: c.inForce, body: body, voters: []did.DID{p.did()}}
	b.record = c.log(p, record.RegistrySubject(), body, cite{prev: c.head, by: c.inForce})
	c.head = b.record
	if c.body.AdminThreshold == 1 {
		c.inForce, c.body = b.record, body
	}
	return b
}

func (c *chamber) approve(p *person, b *bill) {
	c.t.Helper()
	c.head = c.log(p, record.RegistrySubject(), &record.Approve{Record: b.record.ID(), Verdict: record.VerdictApprove}, cite{prev: c.head, by: c.inForce})
	if b.voters = append(b.voters, p.did()); len(b.voters) >= c.body.AdminThreshold {
		c.inForce, c.body = b.record, b.body
	}
}

// decide proposes and votes, and demands that this puts the settings in force.
func (c *chamber) decide(body *record.Registry, proposer *person, voters ...*person) {
	c.t.Helper()
	b := c.propose(proposer, body)
	for _, p := range voters {
		c.approve(p, b)
	}
	if c.inForce != b.record {
		c.t.Fatalf("%d of %d votes", len(b.voters), c.body.AdminThreshold)
	}
}

// newcomer publishes what rests on nothing but the admin's word.
func (c *chamber) newcomer(admin *person) Want {
	c.t.Helper()
	p := c.person()
	c.wants++
	name := "new-" + string(rune('a'+c.wants/26)) + string(rune('a'+c.wants%26))
	c.publish(p, name, "1.0.0", nil, c.admits(admin, p))
	return c.want(name, "1.0.0")
}

// why is the first failure, "" if want is proved.
func (c *chamber) why(want Want) string {
	c.t.Helper()
	failed, _ := Artifact(want, c.evidence(), c.pin()).Failure()
	return failed.Detail
}

// detail is what one check says of want.
func (c *chamber) detail(want Want, check string) string {
	c.t.Helper()
	checks := Artifact(want, c.evidence(), c.pin()).Checks
	return checks[slices.IndexFunc(checks, func(c Check) bool { return c.Name == check })].Detail
}

// newCouncil is a chamber where two of admin, ann and a deputy whose key will be stolen decide.
func newCouncil(t *testing.T) (c *chamber, deputy *person) {
	c = newChamber(t)
	deputy = c.deputy("deputy.example")
	c.decide(c.rule(2, c.admin, c.ann, deputy), c.admin)
	return c, deputy
}

func TestADisownedSignatureDoesNotEndTheCouncil(t *testing.T) {
	for name, enact := range map[string]func(c *chamber, deputy *person, body *record.Registry){
		"the deciding vote": func(c *chamber, deputy *person, body *record.Registry) { c.decide(body, c.admin, deputy) },
		"the proposal":      func(c *chamber, deputy *person, body *record.Registry) { c.decide(body, deputy, c.admin) },
	} {
		t.Run(name, func(t *testing.T) {
			c, deputy := newCouncil(t)
			since := c.next()
			enact(c, deputy, c.rule(2, c.admin, c.ann, c.bob, deputy))
			ours, bobs := c.newcomer(c.ann), c.newcomer(c.bob)
			wantVerdict(t, c.why(bobs), "") // until the theft is known
			c.enters(c.ann, deputy, since)
			between, bobsBetween, deputys := c.newcomer(c.ann), c.newcomer(c.bob), c.newcomer(deputy)
			for _, want := range []Want{ours, between, deputys} { // by admins before and after, with good keys
				wantVerdict(t, c.why(want), "")
			}
			for _, want := range []Want{bobs, bobsBetween} { // an admin by the disowned settings alone
				wantVerdict(t, c.why(want), "counts as compromised")
				wantVerdict(t, c.detail(want, CheckAuthority), "the last settings that are, "+c.bob.did().String()+" is no admin")
			}
			c.decide(c.rule(2, c.admin, c.ann, c.bob, deputy), c.ann, c.admin)
			after := c.newcomer(c.bob)
			wantVerdict(t, c.why(after), "")
			wantVerdict(t, c.why(bobs), "counts as compromised")
			c.decide(c.rule(1, c.bob), c.bob, deputy) // and so on, with the new key too
			wantVerdict(t, c.why(c.newcomer(c.bob)), "")
			c.wantClean(t)
		})
	}
}

func TestTheChainOfWhatIsBelievedHoldsNothingDisowned(t *testing.T) {
	c, deputy := newCouncil(t)
	genuine := c.inForce
	since := c.next()
	c.decide(c.rule(2, c.admin, c.ann, deputy), c.admin, deputy)
	disowned := c.inForce
	c.enters(c.ann, deputy, since)
	steps := func(want Want) map[record.ID]bool {
		v := Artifact(want, c.evidence(), c.pin())
		wantOK(t, v)
		in := map[record.ID]bool{}
		for _, step := range v.Chain {
			in[step.Record] = true
		}
		return in
	}
	if in := steps(c.newcomer(c.ann)); in[disowned.ID()] || !in[genuine.ID()] {
		t.Errorf("rests on %v, not on %s", in, genuine.ID())
	}
	c.decide(c.rule(2, c.admin, c.ann, deputy), c.admin, c.ann)
	if in := steps(c.newcomer(deputy)); in[disowned.ID()] || !in[genuine.ID()] || !in[c.inForce.ID()] || !in[c.head.ID()] {
		t.Errorf("rests on %v, not on %s and %s, which %s decided", in, genuine.ID(), c.inForce.ID(), c.head.ID())
	}
}

func TestFewerThanTheBelievedSettingsDemandEnactNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		build func(c *chamber, deputy *person)
		says  string // of what bob's authority rests on, whom the last settings made an admin
	}{
		"one, and a stolen key again": {func(c *chamber, deputy *person) {
			c.decide(c.rule(2, c.ann, c.admin, deputy, c.bob), c.ann, deputy)
		}, "too few"},
		"one, and one whom the disowned settings made an admin": {func(c *chamber, _ *person) {
			c.decide(c.rule(2, c.ann, c.admin, c.bob), c.ann, c.bob)
		}, "too few"},
		"two, but a third proposed": {func(c *chamber, deputy *person) {
			c.decide(c.rule(3, c.ann, c.admin, deputy, c.bob), c.ann, deputy)
			c.decide(c.rule(2, c.ann, c.admin, c.bob), deputy, c.ann, c.admin)
		}, "counts as compromised"},
		"one, where the disowned settings ask no more": {func(c *chamber, deputy *person) {
			c.decide(c.rule(1, c.ann, c.admin, c.bob), c.ann, deputy)
			c.decide(c.rule(2, c.ann, c.admin, c.bob), c.ann)
		}, "too few"},
	} {
		t.Run(name, func(t *testing.T) {
			c, deputy := newCouncil(t)
			since := c.next()
			c.decide(c.rule(2, c.ann, c.admin, deputy, c.bob), c.admin, deputy)
			tt.build(c, deputy)
			want := c.newcomer(c.bob)
			wantVerdict(t, c.why(want), "")
			c.enters(c.ann, deputy, since)
			wantVerdict(t, c.detail(want, CheckAuthority), tt.says)
			// As many as they demand can: at once, or after one of them alone brought the threshold back.
			c.decide(c.rule(2, c.ann, c.admin, c.bob), c.ann, c.admin)
			wantVerdict(t, c.why(c.newcomer(c.bob)), "")
			wantVerdict(t, c.detail(want, CheckAuthority), tt.says)
			c.wantClean(t)
		})
	}
}

// What the settings in force ask for beyond that may come from anybody.
func TestMoreThanTheBelievedSettingsDemandDoNoHarm(t *testing.T) {
	c, deputy := newCouncil(t)
	since := c.next()
	c.decide(c.rule(3, c.ann, c.admin, deputy), c.ann, deputy)
	c.decide(c.rule(1, c.bob), c.ann, deputy, c.admin)
	want := c.newcomer(c.bob)
	c.enters(c.bob, deputy, since)
	wantVerdict(t, c.why(want), "")
	c.wantClean(t)
}

// Settings are believed by their own signatures: those before them need not be.
func TestSettingsAreBelievedThoughThoseTheyCiteAreNot(t *testing.T) {
	c, deputy := newCouncil(t)
	since := c.next()
	c.decide(c.rule(2, c.admin, c.ann, deputy, c.bob), c.admin, deputy)
	c.decide(c.rule(2, c.admin, c.ann, c.bob), c.admin, c.ann)
	c.enters(c.bob, deputy, since)
	wantVerdict(t, c.why(c.newcomer(c.bob)), "")
	c.wantClean(t)
}

// Whom stolen keys made an admin says that others' keys were stolen.
func TestWhatAPuppetSaysOfOthersDoesNotCount(t *testing.T) {
	c := newChamber(t)
	deputy, other := c.deputy("deputy.example"), c.deputy("other.example")
	c.decide(c.rule(2, c.ann, deputy, other), c.admin)
	c.decide(c.rule(2, c.ann, c.admin, deputy, other), c.ann, other)
	genuine := c.newcomer(c.admin)
	since := c.next()
	puppet := c.bob
	c.decide(c.rule(2, c.ann, c.admin, deputy, puppet), c.ann, deputy)
	captured := c.next()
	c.enters(puppet, other, 0)
	wantVerdict(t, c.why(genuine), "counts as compromised from entry 0 on")
	c.enters(c.ann, deputy, since)
	wantVerdict(t, c.why(genuine), "")

	// It says so again while it still can: the last word is that of the admins in force.
	c.enters(puppet, other, 0)
	wantVerdict(t, c.why(genuine), "counts as compromised from entry 0 on")
	c.decide(c.rule(2, c.ann, c.admin, deputy), c.admin, c.ann)
	c.enters(c.ann, other, captured)
	c.enters(c.ann, deputy, since)
	wantVerdict(t, c.why(genuine), "")
	wantVerdict(t, c.why(c.newcomer(c.admin)), "")
	c.wantClean(t)
}

// A stolen key brought a member's document; an admin who is believed repeats it.
func TestADocumentStandsOnceSomebodyBelievedBringsIt(t *testing.T) {
	c, deputy := newCouncil(t)
	since := c.next()
	guest := &person{}
	c.holds(guest, "did:web:guest.example", c.person().key)
	m := c.admits(deputy, guest)
	c.publish(guest, "first", "1.0.0", nil, m)
	c.enters(c.ann, deputy, since)
	c.publish(guest, "second", "1.0.0", nil, m)
	again := c.admits(c.ann, guest)
	c.publish(guest, "third", "1.0.0", nil, again)
	for name, says := range map[string]string{"first": "not believed", "second": "not believed", "third": ""} {
		wantVerdict(t, c.why(c.want(name, "1.0.0")), says)
	}
	c.wantClean(t)
}

// A log key that a disowned vote put first is not believed; nor is the one before
// it, which may have been replaced because it was stolen.
func TestALogKeyByADisownedVoteProvesNothingUntilItIsVotedForAgain(t *testing.T) {
	c, deputy := newCouncil(t)
	since := c.next()
	want := c.want("demo", "0.1.0")
	c.addLogKey()
	c.decide(c.rule(2, c.admin, c.ann, deputy), c.admin, deputy)
	knows := c.pin()
	knows.Keys = c.inForce.ID()
	wantOK(t, Artifact(want, c.evidence(), knows))
	c.enters(c.ann, deputy, since)
	for name, keys := range map[string][]int{"the new key": {1}, "the old key": {0}, "both": {1, 0}} {
		ev := c.evidence()
		ev.Checkpoint = c.noteBy(c.now, keys...)
		t.Run(name, func(t *testing.T) {
			wantFailure(t, Artifact(want, ev, knows), CheckCheckpoint, "nothing that it signs is believed before the admins by")
			_, v := Checkpoint(ev.Checkpoint, ev.Consistency, c.pin(), ev.Items[0], ev.Items[1:]...)
			wantFailure(t, v, CheckCheckpoint, "nothing that it signs is believed")
		})
	}
	c.decide(c.rule(2, c.admin, c.ann, deputy), c.admin, c.ann)
	v := Artifact(want, c.evidence(), knows)
	wantOK(t, v)
	if v.Keys != knows.Keys {
		t.Errorf("the keys come from %s, not %s", v.Keys, knows.Keys)
	}
	c.wantClean(t)
}

// Settings that nothing of the log's keys depends on may be disowned, and its notes hold.
func TestDisownedSettingsWithTheSameLogKeyLeaveNotesProved(t *testing.T) {
	c, deputy := newCouncil(t)
	since := c.next()
	c.decide(c.rule(2, c.admin, c.ann, deputy), c.admin, deputy)
	c.enters(c.ann, deputy, since)
	wantVerdict(t, c.why(c.want("demo", "0.1.0")), "")
}

func TestTooManyRecordsThatCallKeysCompromisedAreRefused(t *testing.T) {
	c, deputy := newCouncil(t)
	c.enters(c.ann, deputy, 0)
	trail := readTrail(c.items, c.origin.did())
	trail.judge()
	told := trail.lines[len(trail.lines)-1]
	for trail.problem == nil && len(trail.lines) < 2*MaxCompromises {
		trail.lines = append(trail.lines, told) // as good as others like it
		trail.disowning()
	}
	if n := len(trail.disowning()); n != 0 || trail.problem == nil || len(trail.lines) != len(c.items)+MaxCompromises {
		t.Errorf("of %d lines %d are taken: %v", len(trail.lines), n, trail.problem)
	}
	if _, err := trail.find(c.version("demo", "0.1.0")); err == nil {
		t.Error("evidence with too many is judged all the same")
	}
}
