package verify

import (
	"bytes"
	"context"
	"reflect"
	"slices"
	"testing"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/translog"
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

// replacedLog hands out a lab's log with one part of one entry replaced.
type replacedLog struct {
	labLog
	index int64
	part  uint8
	data  []byte
}

func (l replacedLog) Entry(ctx context.Context, index int64) ([]byte, error) {
	if index == l.index && l.part%3 == 0 {
		return l.data, nil
	}
	return l.labLog.Entry(ctx, index)
}

func (l replacedLog) Record(ctx context.Context, index int64, e translog.Entry) ([]byte, [][]byte, error) {
	envelope, attachments, err := l.labLog.Record(ctx, index, e)
	if index == l.index && l.part%3 == 1 {
		envelope = l.data
	}
	if index == l.index && l.part%3 == 2 {
		attachments = append([][]byte{l.data}, attachments...)
	}
	return envelope, attachments, err
}

// FuzzReplay replays a log of which one part is whatever a hostile registry
// hands out: it ends with an error, or the state is the honest log's.
func FuzzReplay(f *testing.F) {
	s := newScene(f)
	w := s.webPerson("a.example", did.AssertionMethod, did.CapabilityInvocation)
	m := s.admit(w, publisher(w), nil)
	p := s.publish(w, "d", "1.0.0", nil, m)
	s.ownFor(s.intend(w, "d", p, p), "d", []*person{s.ann}, nil, p, p)
	honest, err := s.replay()
	if err != nil || honest.Violated != 0 {
		f.Fatalf("%v, %+v", err, honest.Violations)
	}
	for i, item := range s.items {
		f.Add(uint8(i), uint8(0), item.Entry)
		f.Add(uint8(i), uint8(1), item.Envelope)
		for _, a := range item.Attachments {
			f.Add(uint8(i), uint8(2), a)
		}
	}
	checkpoint, pin := s.checkpoint(), s.pin()
	f.Fuzz(func(t *testing.T, index, part uint8, data []byte) {
		log := replacedLog{labLog{s.lab}, int64(index) % int64(len(s.items)), part, data}
		r, err := Replay(t.Context(), checkpoint, pin, log, nil)
		if err == nil && (r.Violated != 0 || r.Root != honest.Root || r.Size != honest.Size || !reflect.DeepEqual(r.State, honest.State)) {
			t.Errorf("entry %d, part %d: %d violations, another state or root", log.index, part%3, r.Violated)
		}
	})
}
