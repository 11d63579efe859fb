package verify

import (
	"bytes"
	"slices"
	"testing"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/storage"
)

// TestWrongEvidenceFails alters what an honest registry would show.
func TestWrongEvidenceFails(t *testing.T) {
	tests := map[string]struct {
		alter         func(s *scene, want *Want, ev *Evidence, pin *Pin)
		check, detail string
	}{
		"another crate's record": {func(s *scene, want *Want, ev *Evidence, _ *Pin) {
			s.publish(s.bob, "other", "1.0.0", nil, s.bobMember)
			*ev = s.evidence(0, 3, 6)
		}, CheckRecord, "the evidence has one about crate/other@1.0.0"},
		"another version's record": {func(s *scene, want *Want, _ *Evidence, _ *Pin) {
			want.Subject = s.version("demo", "0.1.1")
		}, CheckRecord, "the evidence has one about crate/demo@0.1.0"},
		"no publish record":        {func(s *scene, _ *Want, ev *Evidence, _ *Pin) { *ev = s.evidence(0, 2) }, CheckRecord, "no record publishes"},
		"a name without a version": {func(s *scene, want *Want, _ *Evidence, _ *Pin) { want.Subject = s.name("demo") }, CheckRecord, "not a version"},
		"nothing wanted":           {func(_ *scene, want *Want, _ *Evidence, _ *Pin) { *want = Want{} }, CheckRecord, "not a version"},
		"wrong bytes": {func(_ *scene, want *Want, _ *Evidence, _ *Pin) {
			want.CID = storage.CIDOf([]byte("something else"))
		}, CheckBytes, "not the same"},
		"a swapped proof": {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) {
			ev.Items[4].Proof, ev.Items[5].Proof = ev.Items[5].Proof, ev.Items[4].Proof
		}, CheckInclusion, "entry 4"},
		"no proof":        {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) { ev.Items[3].Proof = nil }, CheckInclusion, "entry 3"},
		"swapped indexes": {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) { ev.Items[5].Index = 6 }, CheckInclusion, "outside the log"},
		"a swapped envelope": {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) {
			ev.Items[4].Envelope = ev.Items[5].Envelope
		}, CheckRecord, "the entry names"},
		"an item given twice": {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) {
			ev.Items = slices.Insert(ev.Items, 2, ev.Items[2])
		}, CheckRecord, "given once"},
		"an attachment nobody names": {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) {
			ev.Items[4].Attachments = [][]byte{[]byte("hello")}
		}, CheckRecord, "no entry or record names"},
		"too many attachments": {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) {
			ev.Items[4].Attachments = make([][]byte, MaxAttachments+1)
		}, CheckRecord, "at most 64"},
		"an attachment too long": {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) {
			ev.Items[4].Attachments = [][]byte{make([]byte, maxAttachment+1)}
		}, CheckRecord, "at most 65536"},
		"too many items": {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) {
			ev.Items = make([]Item, MaxItems+1)
		}, CheckEntry0, "at most"},
		"the entitling record left out": {func(s *scene, _ *Want, ev *Evidence, _ *Pin) {
			*ev = s.evidence(0, 4, 5)
		}, CheckAuthority, "missing from the evidence"},
		"a record of the history left out": {func(s *scene, want *Want, ev *Evidence, _ *Pin) {
			y := s.yank(s.ann, "demo", "0.1.0", true, s.addedBob, s.first)
			s.yank(s.ann, "demo", "0.1.0", false, y, s.first)
			*ev = s.evidence(0, 2, 4, 5, 7)
		}, CheckHistory, "one is missing"},
		"the first publish left out": {func(s *scene, want *Want, ev *Evidence, _ *Pin) {
			s.publish(s.ann, "demo", "0.2.0", s.addedBob, s.first)
			*ev, *want = s.evidence(0, 2, 6), s.want("demo", "0.2.0")
		}, CheckAuthority, "missing from the evidence"},
		"entry 0 left out": {func(s *scene, _ *Want, ev *Evidence, _ *Pin) { ev.Items = ev.Items[1:] }, CheckEntry0, "missing"},
		"nothing given":    {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) { *ev = Evidence{} }, CheckEntry0, "missing"},
		"another entry 0": {func(_ *scene, _ *Want, _ *Evidence, pin *Pin) {
			pin.Entry0 = flipHash(pin.Entry0)
		}, CheckEntry0, "another log"},
		"another origin pinned": {func(s *scene, _ *Want, _ *Evidence, pin *Pin) {
			pin.Origin = s.stranger.did()
		}, CheckEntry0, "signed for the registry"},
		"another log's checkpoint": {func(s *scene, _ *Want, ev *Evidence, _ *Pin) {
			other := newLab(s.t)
			other.origin = s.stranger
			ev.Checkpoint = other.note()
		}, CheckCheckpoint, "another log"},
		"a checkpoint signed by somebody else": {func(s *scene, _ *Want, ev *Evidence, _ *Pin) {
			s.addLogKey()
			ev.Checkpoint = s.note()
		}, CheckCheckpoint, "not signed by the log"},
		"no checkpoint": {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) { ev.Checkpoint = nil }, CheckCheckpoint, "no signatures"},
		"a checkpoint of another size": {func(s *scene, _ *Want, ev *Evidence, _ *Pin) {
			s.publish(s.ann, "more", "0.1.0", nil, s.annMember)
			ev.Checkpoint, ev.Consistency = s.note(), s.evidence(0).Consistency
		}, CheckInclusion, "entry 0"},
		"a rollback": {func(s *scene, _ *Want, ev *Evidence, pin *Pin) {
			s.publish(s.ann, "more", "0.1.0", nil, s.annMember)
			pin.Checkpoint, ev.Consistency = s.note(), nil
		}, CheckRollback, "keep both notes"},
		"no consistency proof": {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) { ev.Consistency = nil }, CheckConsistency, "no proof"},
		"a flipped consistency proof": {func(_ *scene, _ *Want, ev *Evidence, _ *Pin) {
			ev.Consistency[0] = flipHash(ev.Consistency[0])
		}, CheckFork, "another past"},
		"an unreadable pin": {func(_ *scene, _ *Want, _ *Evidence, pin *Pin) { pin.Checkpoint = []byte("?") }, CheckConsistency, "unreadable"},
		"a fork": {func(s *scene, _ *Want, ev *Evidence, pin *Pin) {
			s.old = forkedNote(s)
			s.publish(s.ann, "more", "0.1.0", nil, s.annMember)
			s.publish(s.ann, "more", "0.2.0", nil, s.annMember)
			*ev, pin.Checkpoint = s.evidence(), s.old
		}, CheckFork, "another past"},
		"a fork of the same size": {func(s *scene, _ *Want, ev *Evidence, pin *Pin) {
			pin.Checkpoint = forkedNote(s)
			s.publish(s.ann, "more", "0.1.0", nil, s.annMember)
			*ev = s.evidence()
			ev.Consistency = nil
		}, CheckFork, "another past"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			want, ev, pin := s.want("demo", "0.1.0"), s.evidence(), s.pin()
			tt.alter(s, &want, &ev, &pin)
			v := Artifact(want, ev, pin)
			wantFailure(t, v, tt.check, tt.detail)
			if contradicts := tt.check == CheckRollback || tt.check == CheckFork; contradicts != (v.Conflict != nil) {
				t.Fatalf("conflict kept: %v", v.Conflict)
			} else if contradicts && (!bytes.Equal(v.Conflict.Pinned, pin.Checkpoint) || !bytes.Equal(v.Conflict.Offered, ev.Checkpoint)) {
				t.Error("the notes kept are not the two that contradict each other")
			}
		})
	}
}

// forkedNote is a note of the same registry, one entry on from s, over another past.
func forkedNote(s *scene) []byte {
	other := newScene(s.t)
	other.yank(other.ann, "demo", "0.1.0", true, other.addedBob, other.first)
	return other.note()
}

// TestEveryBitFlipFails flips every bit in every byte of every item of a small
// piece of evidence that has a DID document and an own-intent, and one in every
// byte of the checkpoint that it rests on (translog flips them all) and of the
// proof that this extends the one seen before.
func TestEveryBitFlipFails(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	w := l.webPerson("a.example", did.AssertionMethod, did.CapabilityInvocation)
	m := l.admit(w, publisher(w), nil)
	p := l.publish(w, "d", "1.0.0", nil, m)
	l.ownFor(l.intend(w, "d", p, p), "d", []*person{l.admin}, nil, p, p)
	want, pin, pristine := l.want("d", "1.0.0"), l.pin(), l.evidence(0, 2, 3, 4)
	wantOK(t, Artifact(want, pristine, pin))

	n := 0
	cp := l.checkpoint()
	flipBit := func(what string, i, at, bit int, b *byte) {
		*b ^= 1 << bit
		defer func() { *b ^= 1 << bit }()
		// Most flips make the item by itself unreadable or unproved, which fails
		// whatever the others are; all is judged then only once in a while, to save time.
		if n++; n%200 != 0 && readTrail(pristine.Items[i:i+1], pin.Origin).checkInclusion(cp) != nil {
			return
		}
		if v := Artifact(want, pristine, pin); v.OK() {
			t.Errorf("item %d: a flip of bit %d in byte %d of %s passes", i, bit, at, what)
		}
	}
	flip := func(what string, i, at int, b *byte) {
		for bit := range 8 {
			flipBit(what, i, at, bit, b)
		}
	}
	for i := range pristine.Items {
		item := &pristine.Items[i]
		for _, bit := range []int{0, 1, 2, 3, 31, 62} {
			item.Index ^= 1 << bit
			if v := Artifact(want, pristine, pin); v.OK() {
				t.Errorf("item %d passes as entry %d", i, item.Index)
			}
			item.Index ^= 1 << bit
		}
		for at := range item.Entry {
			flip("entry", i, at, &item.Entry[at])
		}
		for at := range item.Envelope {
			flip("envelope", i, at, &item.Envelope[at])
		}
		for _, a := range item.Attachments {
			for at := range a {
				flip("attachment", i, at, &a[at])
			}
		}
		for n := range item.Proof {
			for at := range item.Proof[n] {
				flip("proof", i, at, &item.Proof[n][at])
			}
		}
	}
	honest := Artifact(want, pristine, pin)
	wantOK(t, honest)
	for at := range pristine.Checkpoint {
		altered := pristine
		altered.Checkpoint = bytes.Clone(pristine.Checkpoint)
		altered.Checkpoint[at] ^= 1 << (at % 8)
		// What is no key's line of the log's is not looked at; then all that is proved is as before.
		if v := Artifact(want, altered, pin); v.OK() && (v.Size != honest.Size || v.Record != honest.Record || v.CID != honest.CID || !v.CosignedAt.IsZero() && !v.CosignedAt.Equal(honest.CosignedAt)) {
			t.Errorf("a flip in byte %d of the checkpoint proves %+v", at, v)
		}
	}
	for n := range pristine.Consistency {
		for at := range pristine.Consistency[n] {
			pristine.Consistency[n][at] ^= 1 << (at % 8)
			if v := Artifact(want, pristine, pin); v.OK() || v.Conflict == nil {
				t.Errorf("a flip in byte %d of hash %d of the consistency proof passes", at, n)
			}
			pristine.Consistency[n][at] ^= 1 << (at % 8)
		}
	}
	if len(pristine.Consistency) == 0 {
		t.Error("there is no consistency proof to alter")
	}
}
