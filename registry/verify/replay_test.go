package verify

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/storage"
)

func TestReplayGivesTheState(t *testing.T) {
	s := newScene(t)
	y := s.yank(s.bob, "demo", "0.1.0", true, s.addedBob, s.addedBob)
	s.own(s.bob, "demo", nil, []*person{s.ann}, y, s.addedBob)
	var done []int64
	r, err := Replay(context.Background(), s.checkpoint(), s.pin(), labLog{s.lab}, func(n int64) { done = append(done, n) })
	if err != nil || r.Violated != 0 {
		t.Fatalf("%v, %+v", err, r.Violations)
	}
	if r.Size != 8 || r.Root != s.checkpoint().Root || !slices.Equal(done, []int64{1, 2, 3, 4, 5, 6, 7, 8}) {
		t.Errorf("size %d, root %s, progress %v", r.Size, r.Root, done)
	}
	v, ok, err := state.VersionOf(r.State, s.version("demo", "0.1.0"))
	if err != nil || !ok || !v.Yanked || v.Publisher != s.ann.did() {
		t.Errorf("version %+v %v %v", v, ok, err)
	}
	crates, err := r.Crates()
	if err != nil || len(crates) != 1 || len(crates["demo"]) != 1 || !crates["demo"][0].Yanked || crates["demo"][0].CID != v.CID {
		t.Errorf("crates %+v %v", crates, err)
	}
	a, _, err := state.ArtifactOf(r.State, record.KindCrate, "demo")
	if err != nil || len(a.Owners) != 1 || a.Owners[0].DID != s.bob.did() {
		t.Errorf("owners %+v %v", a.Owners, err)
	}
}

func TestReplayReportsViolationsAndGoesOn(t *testing.T) {
	s := newScene(t)
	s.yank(s.stranger, "demo", "0.1.0", true, s.addedBob, s.first) // entry 6
	s.appendRaw([]byte(`{"no":"record"}`), storage.CID{})          // entry 7
	s.publish(s.ann, "demo", "0.2.0", s.addedBob, s.first)         // entry 8: good
	r, err := s.replay()
	if err != nil {
		t.Fatal(err)
	}
	if r.Violated != 2 || len(r.Violations) != 2 {
		t.Fatalf("%+v", r.Violations)
	}
	stranger, malformed := r.Violations[0], r.Violations[1]
	if stranger.Index != 6 || stranger.Record == "" || !strings.Contains(stranger.Reason, "not a member") {
		t.Errorf("%+v", stranger)
	}
	if malformed.Index != 7 || malformed.Record != "" || !strings.Contains(malformed.Reason, "malformed") {
		t.Errorf("%+v", malformed)
	}
	if v, ok, err := state.VersionOf(r.State, s.version("demo", "0.2.0")); !ok || err != nil || v.Index != 8 {
		t.Errorf("the good entry after them is lost: %+v %v", v, err)
	}
}

func TestReplayCountsMoreViolationsThanItKeeps(t *testing.T) {
	s := newScene(t)
	for range MaxViolations + 5 {
		s.appendRaw([]byte(`{}`), storage.CID{})
	}
	r, err := s.replay()
	if err != nil || r.Violated != MaxViolations+5 || len(r.Violations) != MaxViolations {
		t.Errorf("%d of %d kept, %v", len(r.Violations), r.Violated, err)
	}
}

// alteredLog is a lab's log through hands that alter it.
type alteredLog struct {
	labLog
	entry  func(index int64, b []byte) ([]byte, error)
	record func(index int64, envelope []byte, attachments [][]byte) ([]byte, [][]byte, error)
}

func (l alteredLog) Entry(ctx context.Context, index int64) ([]byte, error) {
	b, err := l.labLog.Entry(ctx, index)
	if err != nil || l.entry == nil {
		return b, err
	}
	return l.entry(index, bytes.Clone(b))
}

func (l alteredLog) Record(ctx context.Context, index int64, e translog.Entry) ([]byte, [][]byte, error) {
	envelope, attachments, err := l.labLog.Record(ctx, index, e)
	if err != nil || l.record == nil {
		return envelope, attachments, err
	}
	return l.record(index, bytes.Clone(envelope), attachments)
}

func TestReplayStopsAtWhatIsNotTheLog(t *testing.T) {
	withheld := errors.New("withheld")
	tests := map[string]struct {
		log  func(s *scene, l *alteredLog, cp *translog.Checkpoint, pin *Pin)
		want error
		at   int64
	}{
		"another entry 0": {func(_ *scene, _ *alteredLog, _ *translog.Checkpoint, pin *Pin) { pin.Entry0 = flipHash(pin.Entry0) }, ErrEntry0, 0},
		"another origin":  {func(s *scene, _ *alteredLog, _ *translog.Checkpoint, pin *Pin) { pin.Origin = s.ann.did() }, ErrEntry0, 0},
		"an empty log":    {func(_ *scene, _ *alteredLog, cp *translog.Checkpoint, _ *Pin) { cp.Size = 0 }, ErrEntry0, 0},
		"another root":    {func(_ *scene, _ *alteredLog, cp *translog.Checkpoint, _ *Pin) { cp.Root = flipHash(cp.Root) }, ErrRoot, 6},
		"fewer entries":   {func(_ *scene, _ *alteredLog, cp *translog.Checkpoint, _ *Pin) { cp.Size-- }, ErrRoot, 5},
		"swapped entries": {func(s *scene, l *alteredLog, _ *translog.Checkpoint, _ *Pin) {
			l.entry = func(i int64, b []byte) ([]byte, error) {
				if i == 2 || i == 3 {
					i = 5 - i
				}
				return s.items[i].Entry, nil
			}
			l.record = func(i int64, e []byte, a [][]byte) ([]byte, [][]byte, error) {
				if i == 2 || i == 3 {
					i = 5 - i
				}
				return s.items[i].Envelope, nil, nil
			}
		}, ErrRoot, 6},
		"no entry at all": {func(_ *scene, l *alteredLog, _ *translog.Checkpoint, _ *Pin) {
			l.entry = func(i int64, b []byte) ([]byte, error) {
				if i == 3 {
					return []byte("?"), nil
				}
				return b, nil
			}
		}, translog.ErrEntry, 4},
		"an altered record": {func(_ *scene, l *alteredLog, _ *translog.Checkpoint, _ *Pin) {
			l.record = func(i int64, e []byte, a [][]byte) ([]byte, [][]byte, error) {
				e[len(e)/2] ^= byte(i)
				return e, a, nil
			}
		}, ErrContent, 2},
		"a withheld entry": {func(_ *scene, l *alteredLog, _ *translog.Checkpoint, _ *Pin) {
			l.entry = func(i int64, b []byte) ([]byte, error) { return nil, withheld }
		}, withheld, 0},
		"a withheld record": {func(_ *scene, l *alteredLog, _ *translog.Checkpoint, _ *Pin) {
			l.record = func(i int64, e []byte, a [][]byte) ([]byte, [][]byte, error) { return nil, nil, withheld }
		}, withheld, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			log, cp, pin := alteredLog{labLog: labLog{s.lab}}, s.checkpoint(), s.pin()
			tt.log(s, &log, &cp, &pin)
			r, err := Replay(context.Background(), cp, pin, log, nil)
			if !errors.Is(err, tt.want) || r.Size != tt.at {
				t.Errorf("error %v after %d entries, want %v after %d", err, r.Size, tt.want, tt.at)
			}
		})
	}
}

func TestReplayStopsAtUnknownRecordTypes(t *testing.T) {
	s := newScene(t)
	s.appendRaw(withPredicateType(t, s.first.Envelope(), "urn:aln-registry:publish:v1", "urn:aln-registry:fulfil1:v1"), storage.CID{})
	_, err := s.replay()
	if !errors.Is(err, record.ErrUnknownType) || !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("error %v", err)
	}
}

func TestReplayEndsWithItsContext(t *testing.T) {
	s := newScene(t)
	ctx, cancel := context.WithCancel(context.Background())
	r, err := Replay(ctx, s.checkpoint(), s.pin(), labLog{s.lab}, func(done int64) {
		if done == 3 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || r.Size != 3 {
		t.Errorf("%v after %d", err, r.Size)
	}
}

func TestReplayKeepsDocumentsOfAppliedRecordsOnly(t *testing.T) {
	s := newScene(t)
	w := s.webPerson("lab.example", did.AssertionMethod, did.CapabilityInvocation)
	m := s.admit(w, publisher(w), nil)
	s.publish(w, "web", "1.0.0", nil, m) // its item has no attachment: the document came with w's admission
	refused := s.webPerson("evil.example", did.AssertionMethod)
	s.log(s.stranger, record.MemberSubject(refused.did()), publisher(refused), cite{by: s.genesis, attach: [][]byte{refused.document}})
	r := replay{log: labLog{s.lab}, attachments: state.Attachments{}, found: Replayed{State: state.Memory{}}}
	for i := range s.items {
		if err := r.entry(context.Background(), int64(i), s.pin()); err != nil {
			t.Fatal(err)
		}
	}
	if r.found.Violated != 1 || len(r.attachments) != 1 || r.attachments[w.documentCID()] == nil {
		t.Errorf("violations %+v, %d attachments kept", r.found.Violations, len(r.attachments))
	}
}

// TestArtifactAgreesWithReplay lets people do random things to one crate, right
// and wrong ones. On the whole log, Artifact passes iff Replay finds nothing
// against the records about the crate.
func TestArtifactAgreesWithReplay(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s := newScene(t)
		people := []*person{s.ann, s.bob, s.admin, s.stranger}
		records := []*record.Record{s.genesis, s.annMember, s.bobMember, s.first, s.addedBob}
		last := s.addedBob
		versions := []string{"0.1.0", "0.2.0"}
		for range rapid.IntRange(1, 4).Draw(rt, "steps") {
			p := rapid.SampledFrom(people).Draw(rt, "who")
			by := rapid.SampledFrom(records).Draw(rt, "by")
			if rapid.Bool().Draw(rt, "sensible") {
				by = map[*person]*record.Record{s.ann: s.first, s.bob: s.addedBob, s.admin: s.genesis, s.stranger: s.first}[p]
			}
			prev := last
			if rapid.IntRange(0, 9).Draw(rt, "stale") == 0 {
				prev = s.first
			}
			version := rapid.SampledFrom(versions).Draw(rt, "version")
			switch rapid.IntRange(0, 3).Draw(rt, "what") {
			case 0:
				last = s.publish(p, "demo", version, prev, by)
			case 1:
				last = s.yank(p, "demo", version, rapid.Bool().Draw(rt, "yanked"), prev, by)
			case 2:
				// A stranger is never added: that an added owner is a member stands in no record cited.
				last = s.own(p, "demo", []*person{rapid.SampledFrom(people[:3]).Draw(rt, "add")}, nil, prev, by)
			case 3:
				last = s.own(p, "demo", nil, []*person{rapid.SampledFrom(people[:3]).Draw(rt, "remove")}, prev, by)
			}
			records = append(records, last)
		}
		r, err := s.replay()
		if err != nil {
			rt.Fatal(err)
		}
		v := Artifact(s.want("demo", "0.1.0"), s.evidence(), s.pin())
		if v.OK() != (r.Violated == 0) {
			rt.Fatalf("artifact says %+v, replay %+v", v.Checks, r.Violations)
		}
		if v.OK() {
			if st, _, _ := state.VersionOf(r.State, s.version("demo", "0.1.0")); st.Yanked != v.Yanked {
				rt.Fatalf("yanked %t, by replay %t", v.Yanked, st.Yanked)
			}
		}
	})
}
