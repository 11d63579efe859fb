package verify

import (
	"testing"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
)

// settingsOf judges the records about the registry that the lab's log holds, all
// but those of its last without items.
func settingsOf(l *lab, without int) (InForce, Verdict) {
	ev := l.evidence()
	items := ev.Items[:len(ev.Items)-without]
	in, _, v := Settings(ev.Checkpoint, ev.Consistency, l.pin(), items[0], items[1:]...)
	return in, v
}

func wantInForce(t *testing.T, l *lab, want *record.Record) {
	t.Helper()
	in, v := settingsOf(l, 0)
	wantOK(t, v)
	if in.Record != want.ID() || in.Settings == nil || in.Settings.AdminThreshold != want.Body().(*record.Registry).AdminThreshold {
		t.Errorf("in force is %s, not %s", in.Record, want.ID())
	}
}

func TestSettingsInForceAreTheLastThatAdminsEnacted(t *testing.T) {
	s := newScene(t)
	wantInForce(t, s.lab, s.genesis)

	a := newAssembly(t)
	wantInForce(t, a.lab, a.council)
	p := a.propose(a.admin, a.by(1), a.council)
	wantInForce(t, a.lab, a.council) // one of two
	v := a.vote(a.ann, p, p, record.VerdictApprove)
	wantInForce(t, a.lab, p)
	next := a.log(a.bob, record.RegistrySubject(), a.by(3), cite{prev: v, by: p})
	wantInForce(t, a.lab, next)

	// Nobody who is not entitled puts settings in force, and those do not hide.
	a.council = next
	a.log(a.stranger, record.RegistrySubject(), a.by(1), cite{prev: next, by: next})
	_, verdict := settingsOf(a.lab, 0)
	wantFailure(t, verdict, CheckCheckpoint, "is not an admin")
}

// What was left out at the end no record shows (the caller needs another sign);
// what was left out before it does.
func TestSettingsWithARecordLeftOut(t *testing.T) {
	a := newAssembly(t)
	p := a.propose(a.admin, a.by(1), a.council)
	a.vote(a.ann, p, p, record.VerdictApprove)
	in, v := settingsOf(a.lab, 1)
	wantOK(t, v)
	if in.Record != a.council.ID() {
		t.Errorf("in force is %s", in.Record)
	}
	ev := a.evidence()
	items := append(append([]Item{}, ev.Items[:len(ev.Items)-2]...), ev.Items[len(ev.Items)-1])
	_, _, v = Settings(ev.Checkpoint, ev.Consistency, a.pin(), items[0], items[1:]...)
	wantFailure(t, v, CheckCheckpoint, "no record before it proposes")
}

func TestSettingsOfAStolenKeyAreNotInForceForAnybodyWhoAsks(t *testing.T) {
	s := newScene(t)
	eve := s.webPerson("eve.example", did.CapabilityInvocation, did.Authentication)
	admitted := s.admit(eve, publisher(eve), nil)
	both := s.settings()
	both.Admins = append(both.Admins, eve.did())
	named := s.log(s.admin, record.RegistrySubject(), both, cite{prev: s.genesis, by: s.genesis})
	stolen := s.settings()
	stolen.Admins, stolen.IndexURLs = both.Admins, []string{"sparse+https://thief.example/index/"}
	from := int64(len(s.items))
	theft := s.log(eve, record.RegistrySubject(), stolen, cite{prev: named, by: named})
	wantInForce(t, s.lab, theft)

	now := s.person()
	now.url = eve.url
	now.document = documentFor(now, did.CapabilityInvocation)
	s.log(s.admin, record.MemberSubject(eve.did()), &record.DIDChange{DIDDocument: now.documentCID(), CompromisedSince: &from},
		cite{prev: admitted, by: theft, attach: [][]byte{now.document}})
	_, v := settingsOf(s.lab, 0)
	wantFailure(t, v, CheckAuthority, "count as compromised")

	again := s.log(s.admin, record.RegistrySubject(), both, cite{prev: theft, by: theft})
	wantInForce(t, s.lab, again)
}
