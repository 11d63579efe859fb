package verify

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// padded is an index file of left-pad with these versions; each is VERSION=BYTE, the byte
// that all of its checksum is.
func padded(versions ...string) []byte {
	var file strings.Builder
	for _, v := range versions {
		version, sum, _ := strings.Cut(v, "=")
		fmt.Fprintf(&file, `{"name":"left-pad","vers":%q,"deps":[],"cksum":"%s","features":{},"yanked":false}`+"\n", version, strings.Repeat(sum, 32))
	}
	return []byte(file.String())
}

// sum is the CID of a checksum as padded has them.
func sum(b byte) storage.CID { return storage.CIDFromDigest([32]byte(slices.Repeat([]byte{b}, 32))) }

func wantPad(t testing.TB, version string, id storage.CID) WantUpstream {
	t.Helper()
	subject, err := record.UpstreamSubject("crates-io", "left-pad")
	if err != nil {
		t.Fatal(err)
	}
	return WantUpstream{Subject: subject, Version: version, CID: id}
}

// newSightings is a scene in which left-pad was seen three times: 1.0.0, then 1.1.0 too, then
// 1.0.0 with another checksum and 1.1.0 no more. They are the entries 6, 7 and 8.
func newSightings(t testing.TB) *scene {
	s := newScene(t)
	a := s.sees(s.origin, padded("1.0.0=01"), cite{by: s.genesis})
	b := s.sees(s.origin, padded("1.0.0=01", "1.1.0=02"), cite{by: s.genesis, prev: a})
	s.sees(s.origin, padded("1.0.0=03", "1.2.0=04"), cite{by: s.genesis, prev: b})
	return s
}

// What was seen first is proved, however it is spelled, and what came of it since is told.
func TestTheFirstDigestSeenIsProved(t *testing.T) {
	s := newSightings(t)
	s.wantClean(t)
	for version, want := range map[string]struct {
		sum   byte
		index int64
		gone  bool
		other int
	}{"1.0.0": {1, 6, true, 1}, "1.1.0": {2, 7, true, 0}, "1.2.0": {4, 8, false, 0}} {
		v := Upstream(wantPad(t, version, sum(want.sum)), s.evidence(), s.pin())
		wantOK(t, v)
		u := v.Upstream
		if v.Index != want.index || v.CID != sum(want.sum) || v.Signer.DID != s.origin.did() || u.Imports != 3 || !u.First.Equal(v.Time) {
			t.Errorf("%s: %+v, %+v", version, v, u)
		}
		if u.Gone.IsZero() == want.gone || len(u.Other) != want.other {
			t.Errorf("%s: told is %+v", version, u)
		}
		if last := v.Chain[len(v.Chain)-1]; v.Chain[0].Record != v.Record || last.Index != 0 {
			t.Errorf("%s: the chain does not lead from the record to entry 0: %+v", version, v.Chain)
		}
		wantOK(t, Upstream(wantPad(t, version, storage.CID{}), s.evidence(), s.pin()))
	}
	spelled, err := record.UpstreamSubject("crates-io", "Left_Pad")
	if err != nil {
		t.Fatal(err)
	}
	wantOK(t, Upstream(WantUpstream{Subject: spelled, Version: "1.0.0", CID: sum(1)}, s.evidence(), s.pin()))
}

// A member of whom a later record says something leaves what the registry saw as it is, and
// so do settings that are replaced in between.
func TestSightingsUnderOtherSettingsAreProved(t *testing.T) {
	s := newScene(t)
	a := s.sees(s.origin, padded("1.0.0=01"), cite{by: s.genesis})
	next := s.settings()
	next.MinAgeDays = 3
	r := s.log(s.admin, record.RegistrySubject(), next, cite{prev: s.genesis, by: s.genesis})
	s.sees(s.origin, padded("1.0.0=01", "1.1.0=02"), cite{by: r, prev: a})
	s.wantClean(t)
	wantOK(t, Upstream(wantPad(t, "1.0.0", sum(1)), s.evidence(), s.pin()))
	wantOK(t, Upstream(wantPad(t, "1.1.0", sum(2)), s.evidence(), s.pin()))
}

// TestWrongEvidenceOfUpstreamFails alters everything that a registry shows of what it saw.
func TestWrongEvidenceOfUpstreamFails(t *testing.T) {
	for name, tt := range map[string]struct {
		alter         func(s *scene, want *WantUpstream, ev *Evidence, pin *Pin)
		check, detail string
	}{
		"other bytes":             {func(_ *scene, want *WantUpstream, _ *Evidence, _ *Pin) { want.CID = sum(9) }, CheckBytes, "not the same"},
		"bytes named later":       {func(_ *scene, want *WantUpstream, _ *Evidence, _ *Pin) { want.CID = sum(3) }, CheckBytes, "only from 2026"},
		"another version's bytes": {func(_ *scene, want *WantUpstream, _ *Evidence, _ *Pin) { want.CID = sum(2) }, CheckBytes, "not the same"},
		"another version":         {func(_ *scene, want *WantUpstream, _ *Evidence, _ *Pin) { want.Version = "1.0.1" }, CheckRecord, "none of the 3 index files"},
		"another build of it":     {func(_ *scene, want *WantUpstream, _ *Evidence, _ *Pin) { want.Version = "1.0.0+b" }, CheckRecord, "none of the 3 index files"},
		"another registry's": {func(s *scene, want *WantUpstream, _ *Evidence, _ *Pin) {
			want.Subject, _ = record.UpstreamSubject("bonn", "left-pad")
		}, CheckRecord, "no record says"},
		"a hosted crate's name": {func(s *scene, want *WantUpstream, _ *Evidence, _ *Pin) {
			want.Subject, want.Version = s.name("demo"), "0.1.0"
		}, CheckRecord, "not about what another registry has"},
		"nothing wanted": {func(_ *scene, want *WantUpstream, _ *Evidence, _ *Pin) { *want = WantUpstream{} }, CheckRecord, "no record says"},
		"the first sighting left out": {func(s *scene, want *WantUpstream, ev *Evidence, _ *Pin) {
			*ev, want.CID = s.evidence(0, 1, 7, 8), storage.CID{}
		}, CheckRecord, "missing from the evidence"},
		"one in between left out": {func(s *scene, _ *WantUpstream, ev *Evidence, _ *Pin) { *ev = s.evidence(0, 1, 6, 8) }, CheckHistory, "one is missing"},
		"all left out":            {func(s *scene, _ *WantUpstream, ev *Evidence, _ *Pin) { *ev = s.evidence(0, 1) }, CheckRecord, "no record says"},
		"an index file withheld":  {func(_ *scene, _ *WantUpstream, ev *Evidence, _ *Pin) { ev.Items[6].Attachments = nil }, CheckRecord, "missing from the evidence"},
		"a later one withheld":    {func(_ *scene, _ *WantUpstream, ev *Evidence, _ *Pin) { ev.Items[8].Attachments = nil }, CheckHistory, "missing from the evidence"},
		"another index file": {func(_ *scene, _ *WantUpstream, ev *Evidence, _ *Pin) {
			ev.Items[6].Attachments = [][]byte{padded("1.0.0=03")}
		}, CheckRecord, "no entry or record names"},
		"an index file too long": {func(_ *scene, _ *WantUpstream, ev *Evidence, _ *Pin) {
			ev.Items[6].Attachments = [][]byte{make([]byte, record.MaxSnapshot+1)}
		}, CheckRecord, "at most"},
		"long bytes with another record": {func(_ *scene, _ *WantUpstream, ev *Evidence, _ *Pin) {
			ev.Items[4].Attachments = [][]byte{make([]byte, maxAttachment+1)}
		}, CheckRecord, "at most 65536"},
		"a swapped envelope": {func(_ *scene, _ *WantUpstream, ev *Evidence, _ *Pin) { ev.Items[6].Envelope = ev.Items[7].Envelope }, CheckRecord, "the entry names"},
		"a swapped entry":    {func(_ *scene, _ *WantUpstream, ev *Evidence, _ *Pin) { ev.Items[6].Entry = ev.Items[7].Entry }, CheckRecord, "the entry names"},
		"a swapped proof": {func(_ *scene, _ *WantUpstream, ev *Evidence, _ *Pin) {
			ev.Items[6].Proof, ev.Items[7].Proof = ev.Items[7].Proof, ev.Items[6].Proof
		}, CheckInclusion, "entry 6"},
		"no proof":      {func(_ *scene, _ *WantUpstream, ev *Evidence, _ *Pin) { ev.Items[7].Proof = nil }, CheckInclusion, "entry 7"},
		"another index": {func(_ *scene, _ *WantUpstream, ev *Evidence, _ *Pin) { ev.Items[8].Index = 9 }, CheckInclusion, "outside the log"},
		"given twice": {func(_ *scene, _ *WantUpstream, ev *Evidence, _ *Pin) {
			ev.Items = slices.Insert(ev.Items, 6, ev.Items[6])
		}, CheckRecord, "given once"},
		"out of order":    {func(_ *scene, _ *WantUpstream, ev *Evidence, _ *Pin) { slices.Reverse(ev.Items[6:8]) }, CheckRecord, "in order"},
		"another entry 0": {func(_ *scene, _ *WantUpstream, _ *Evidence, pin *Pin) { pin.Entry0 = flipHash(pin.Entry0) }, CheckEntry0, "another log"},
		"entry 0 left out": {func(_ *scene, _ *WantUpstream, ev *Evidence, _ *Pin) {
			ev.Items = ev.Items[1:]
		}, CheckEntry0, "missing"},
		"a checkpoint by somebody else": {func(s *scene, _ *WantUpstream, ev *Evidence, _ *Pin) {
			s.addLogKey()
			ev.Checkpoint = s.note()
		}, CheckCheckpoint, "not signed by the log"},
		"no consistency proof": {func(_ *scene, _ *WantUpstream, ev *Evidence, _ *Pin) { ev.Consistency = nil }, CheckConsistency, "no proof"},
		"an old checkpoint": {func(s *scene, _ *WantUpstream, _ *Evidence, pin *Pin) {
			pin.Freshness.Now = pin.Freshness.Now.AddDate(0, 0, 9)
		}, CheckFreshness, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSightings(t)
			want, ev, pin := wantPad(t, "1.0.0", sum(1)), s.evidence(), s.pin()
			tt.alter(s, &want, &ev, &pin)
			wantFailure(t, Upstream(want, ev, pin), tt.check, tt.detail)
		})
	}
}

// Whoever else than the registry says what was seen proves nothing, though the log has it.
func TestWhatALyingLogSawIsNotProved(t *testing.T) {
	for name, tt := range map[string]struct {
		log           func(s *scene)
		check, detail string
	}{
		"by an admin":  {func(s *scene) { s.sees(s.admin, padded("1.0.0=01"), cite{by: s.genesis}) }, CheckRecord, "only the registry itself"},
		"by a member":  {func(s *scene) { s.sees(s.ann, padded("1.0.0=01"), cite{by: s.annMember}) }, CheckRecord, "only the registry itself"},
		"by no record": {func(s *scene) { s.sees(s.origin, padded("1.0.0=01"), cite{}) }, CheckRecord, "by is null"},
		"by a stranger's key": {func(s *scene) {
			thief := *s.stranger
			thief.url = s.origin.url
			subject := wantPad(s.t, "", storage.CID{}).Subject
			s.log(&thief, subject, &record.Import{}, cite{by: s.genesis, digest: storage.CIDOf(padded("1.0.0=01")).Digest(), attach: [][]byte{padded("1.0.0=01")}})
		}, CheckRecord, "signature"},
		"of another crate": {func(s *scene) {
			s.sees(s.origin, []byte(strings.ReplaceAll(string(padded("1.0.0=01")), "left", "right")), cite{by: s.genesis})
		}, CheckRecord, "right-pad"},
		"what is no index file": {func(s *scene) { s.sees(s.origin, []byte("<html>"), cite{by: s.genesis}) }, CheckRecord, "not JSON"},
		"a second beginning": {func(s *scene) {
			s.sees(s.origin, padded("1.0.0=01"), cite{by: s.genesis})
			s.sees(s.origin, padded("1.0.0=02"), cite{by: s.genesis})
		}, CheckHistory, "prev does not name"},
		"the same again": {func(s *scene) {
			a := s.sees(s.origin, padded("1.0.0=01"), cite{by: s.genesis})
			s.sees(s.origin, padded("1.0.0=01"), cite{by: s.genesis, prev: a})
		}, CheckHistory, "last seen so"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			tt.log(s)
			wantFailure(t, Upstream(wantPad(t, "1.0.0", sum(1)), s.evidence(), s.pin()), tt.check, tt.detail)
		})
	}
}

// No byte of the evidence is there for nothing.
func TestAnAlteredByteProvesNothing(t *testing.T) {
	s := newSightings(t)
	want, pin, honest := wantPad(t, "1.0.0", sum(1)), s.pin(), s.evidence()
	wantOK(t, Upstream(want, honest, pin))
	for i := 6; i <= 8; i++ {
		parts := map[string]func(item *Item) []byte{
			"entry":    func(item *Item) []byte { item.Entry = slices.Clone(item.Entry); return item.Entry },
			"envelope": func(item *Item) []byte { item.Envelope = slices.Clone(item.Envelope); return item.Envelope },
			"index file": func(item *Item) []byte {
				item.Attachments = [][]byte{slices.Clone(item.Attachments[0])}
				return item.Attachments[0]
			},
			"proof": func(item *Item) []byte { item.Proof = slices.Clone(item.Proof); return item.Proof[0][:] },
		}
		for name, part := range parts {
			length := len(part(&Item{Entry: honest.Items[i].Entry, Envelope: honest.Items[i].Envelope, Attachments: honest.Items[i].Attachments, Proof: honest.Items[i].Proof}))
			for at := 0; at < length; at += 7 {
				ev := honest
				ev.Items = slices.Clone(honest.Items)
				part(&ev.Items[i])[at] ^= 1
				if Upstream(want, ev, pin).OK() {
					t.Fatalf("byte %d of the %s of entry %d is of no account", at, name, i)
				}
			}
		}
	}
}
