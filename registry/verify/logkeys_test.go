package verify

import (
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
)

// rotate makes a log key and logs the settings that put it first.
func (l *lab) rotate(prev *record.Record) *record.Record {
	l.t.Helper()
	l.addLogKey()
	return l.log(l.admin, record.RegistrySubject(), l.settings(), cite{prev: prev, by: prev})
}

// noteBy is the newest checkpoint, signed by the keys at these places alone.
func (l *lab) noteBy(at time.Time, keys ...int) []byte {
	l.t.Helper()
	var signers []translog.LogKey
	for _, i := range keys {
		signers = append(signers, l.logKeys[i])
	}
	note, err := translog.Sign(l.checkpoint(), signers, at)
	if err != nil {
		l.t.Fatal(err)
	}
	return note
}

// Rotated twice: a chain of settings leads from entry 0 to the newest key.
func TestALogKeyIsProvedByTheChainFromEntry0(t *testing.T) {
	s := newScene(t)
	first := s.rotate(s.genesis)
	second := s.rotate(first)
	s.wantClean(t)
	ev := s.evidence()
	v := Artifact(s.want("demo", "0.1.0"), ev, s.pin())
	wantOK(t, v)
	if v.Keys != second.ID() {
		t.Errorf("the keys come from %s, not %s", v.Keys, second.ID())
	}
	ev.Checkpoint = s.noteBy(s.now, 2, 1, 0) // for their time the old keys sign too
	wantOK(t, Artifact(s.want("demo", "0.1.0"), ev, s.pin()))

	for name, without := range map[string]int{"the first rotation": 1, "the last rotation": 0} {
		partial := ev
		partial.Items = append(append([]Item{}, ev.Items[:len(ev.Items)-1-without]...), ev.Items[len(ev.Items)-without:]...)
		partial.Checkpoint = s.noteBy(s.now, 2)
		v := Artifact(s.want("demo", "0.1.0"), partial, s.pin())
		if failed, _ := v.Failure(); failed.Name != CheckCheckpoint {
			t.Errorf("without %s: %+v", name, v.Checks)
		}
	}
}

func TestAStolenLogKeyProvesNothingOnceItWasReplaced(t *testing.T) {
	s := newScene(t)
	rotated := s.rotate(s.genesis)
	want, knows := s.want("demo", "0.1.0"), s.pin()
	knows.Keys = rotated.ID()
	wantOK(t, Artifact(want, s.evidence(), knows))

	ev := s.evidence()
	ev.Checkpoint = s.noteBy(s.now, 0)
	wantFailure(t, Artifact(want, ev, knows), CheckCheckpoint, "not signed by the log")

	// The thief leaves the rotation out. Only who has seen it notices: for others
	// that key signs until somebody shows them more.
	ev.Items = ev.Items[:len(ev.Items)-1]
	wantFailure(t, Artifact(want, ev, knows), CheckCheckpoint, "was left out")
	wantOK(t, Artifact(want, ev, s.pin()))

	stranger := newLab(t)
	stranger.addLogKey()
	ev = s.evidence()
	var err error
	if ev.Checkpoint, err = translog.Sign(s.checkpoint(), stranger.logKeys[1:], s.now); err != nil {
		t.Fatal(err)
	}
	wantFailure(t, Artifact(want, ev, s.pin()), CheckCheckpoint, "not signed by the log")
}

func TestSettingsThatBreakTheRulesOfLogKeysProveNothing(t *testing.T) {
	change := func(edit func(l *lab, body *record.Registry)) func(l *lab) {
		return func(l *lab) {
			rotated := l.rotate(l.genesis)
			body := l.settings()
			edit(l, body)
			l.log(l.admin, record.RegistrySubject(), body, cite{prev: rotated, by: rotated})
		}
	}
	for name, c := range map[string]struct {
		log  func(l *lab)
		says string
	}{
		"the current key is dropped": {change(func(l *lab, b *record.Registry) {
			l.addLogKey()
			b.LogKeys = append(l.settings().LogKeys[:1], b.LogKeys[1:]...)
		}), "must go on listing"},
		"the old key is dropped before its time": {change(func(_ *lab, b *record.Registry) { b.LogKeys = b.LogKeys[:1] }), "must go on listing"},
		"a replaced key comes back": {change(func(_ *lab, b *record.Registry) {
			b.LogKeys[0], b.LogKeys[1] = b.LogKeys[1], b.LogKeys[0]
		}), "cannot sign first again"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			c.log(s.lab)
			wantFailure(t, Artifact(s.want("demo", "0.1.0"), s.evidence(), s.pin()), CheckCheckpoint, c.says)
			if replayed, err := s.replay(); err != nil || replayed.Violated != 1 {
				t.Errorf("%d violations, %v", replayed.Violated, err)
			}
		})
	}
}

func TestAReplacedLogKeyMayBeDroppedAfterItsTime(t *testing.T) {
	s := newScene(t)
	rotated := s.rotate(s.genesis)
	s.now = s.now.Add(state.LogKeyOverlap)
	body := s.settings()
	body.LogKeys = body.LogKeys[:1]
	dropped := s.log(s.admin, record.RegistrySubject(), body, cite{prev: rotated, by: rotated})
	s.wantClean(t)
	v := Artifact(s.want("demo", "0.1.0"), s.evidence(), s.pin())
	wantOK(t, v)
	if v.Keys != dropped.ID() {
		t.Errorf("the keys come from %s", v.Keys)
	}
}

// Votes may put a log key in force; without the last of them the old one stays.
func TestALogKeyIsRotatedByVotes(t *testing.T) {
	a := newAssembly(t)
	a.addLogKey()
	p := a.propose(a.admin, a.by(2), a.council)
	a.vote(a.bob, p, p, record.VerdictApprove)
	a.wantClean(t)
	v := Artifact(a.want("demo", "0.1.0"), a.evidence(), a.pin())
	wantOK(t, v)
	if v.Keys != p.ID() {
		t.Errorf("the keys come from %s, not from the proposal voted for, %s", v.Keys, p.ID())
	}
	ev := a.evidence()
	ev.Items = ev.Items[:len(ev.Items)-1]
	wantFailure(t, Artifact(a.want("demo", "0.1.0"), ev, a.pin()), CheckCheckpoint, "not signed by the log")
}

// A proposal that breaks the rules of log keys is no proposal.
func TestNobodyVotesOnLogKeysThatCannotBe(t *testing.T) {
	a := newAssembly(t)
	a.addLogKey()
	body := a.by(2)
	body.LogKeys = body.LogKeys[:1]
	a.propose(a.admin, body, a.council)
	if replayed, err := a.replay(); err != nil || replayed.Violated != 1 {
		t.Errorf("%d violations, %v", replayed.Violated, err)
	}
	wantFailure(t, Artifact(a.want("demo", "0.1.0"), a.evidence(), a.pin()), CheckCheckpoint, "must go on listing")
}
