package verify

import (
	"bytes"
	"slices"
	"testing"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/did"
)

func FuzzArtifact(f *testing.F) {
	s := newScene(f)
	w := s.webPerson("a.example", did.AssertionMethod, did.CapabilityInvocation)
	m := s.admit(w, publisher(w), nil)
	p := s.publish(w, "d", "1.0.0", nil, m)
	s.ownFor(s.intend(w, "d", p, p), "d", []*person{s.ann}, nil, p, p)
	want, pin := s.want("d", "1.0.0"), s.pin()
	for _, ev := range []Evidence{{}, s.evidence(), s.evidence(0, 6, 7, 8), s.evidence(0)} {
		data, err := json.Marshal(ev)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	honest := s.checkpoint()
	f.Fuzz(func(t *testing.T, data []byte) {
		var ev Evidence
		if json.Unmarshal(data, &ev) != nil {
			return
		}
		v := Artifact(want, ev, pin)
		if len(v.Checks) != 10 {
			t.Errorf("%d checks listed", len(v.Checks))
		}
		// What passes can only be what the registry signed: the log, and the record.
		if v.OK() && (v.Size > honest.Size || v.Record != p.ID()) {
			t.Errorf("passed: %+v", v)
		}
		pin := pin
		pin.Checkpoint = data
		_, _ = Checkpoint(ev.Checkpoint, ev.Consistency, pin, Item{Entry: data, Envelope: data}, ev.Items...)
	})
}

// FuzzAlteredItems changes single bytes of honest evidence: nothing panics, and
// only the unaltered passes.
func FuzzAlteredItems(f *testing.F) {
	s := newScene(f)
	want, pin, honest := s.want("demo", "0.1.0"), s.pin(), s.evidence()
	f.Add(uint8(0), uint8(0), uint16(0), uint8(1))
	f.Add(uint8(4), uint8(1), uint16(900), uint8(4))
	f.Add(uint8(5), uint8(2), uint16(33), uint8(128))
	f.Fuzz(func(t *testing.T, index, part uint8, at uint16, mask uint8) {
		ev := honest
		ev.Items = slices.Clone(honest.Items)
		item := &ev.Items[int(index)%len(ev.Items)]
		alter := func(b []byte) []byte {
			b = bytes.Clone(b)
			b[int(at)%len(b)] ^= mask
			return b
		}
		switch part % 3 {
		case 0:
			item.Entry = alter(item.Entry)
		case 1:
			item.Envelope = alter(item.Envelope)
		case 2:
			item.Proof = slices.Clone(item.Proof)
			hash := &item.Proof[int(at>>8)%len(item.Proof)]
			copy(hash[:], alter(hash[:]))
		}
		if v := Artifact(want, ev, pin); v.OK() != (mask == 0) {
			t.Errorf("altered by %#x: %+v", mask, v.Checks)
		}
	})
}
