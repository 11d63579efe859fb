package verify

import (
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/registry/translog"
)

const day = 24 * time.Hour

func TestAgeOfACheckpoint(t *testing.T) {
	for name, c := range map[string]struct {
		age, most time.Duration
		fails     string // "" passes
	}{
		"new":                          {0, day, ""},
		"renewed an hour ago":          {time.Hour, day, ""},
		"just young enough":            {day, day, ""},
		"a second too old":             {day + time.Second, day, "24h0m old, with 24h0m allowed"},
		"a day and an hour":            {25 * time.Hour, day, "25h0m old, with 24h0m allowed (--max-age): the log stands still"},
		"a day and an hour, allowed":   {25 * time.Hour, 48 * time.Hour, ""},
		"a year, any age":              {365 * day, AnyAge, ""},
		"within the skew":              {-state.Skew, day, ""},
		"in the future":                {-state.Skew - time.Second, day, "2m1s in the future of this computer's clock"},
		"in the future, any age":       {-365 * day, AnyAge, ""},
		"no largest age":               {0, 0, "no time and largest age"},
		"a largest age below zero":     {0, -day, "no time and largest age"},
		"far in the future, whole day": {-40 * 365 * day, day, "in the future"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			pin := s.pin()
			pin.Freshness = Freshness{Now: s.now.Add(c.age), MaxAge: c.most}
			v := Artifact(s.want("demo", "0.1.0"), s.evidence(), pin)
			if v.AgeSeconds != int64(c.age/time.Second) || !v.CosignedAt.Equal(s.now) {
				t.Errorf("the verdict says %d s, cosigned at %s", v.AgeSeconds, v.CosignedAt)
			}
			if c.fails == "" {
				wantOK(t, v)
				return
			}
			wantFailure(t, v, CheckFreshness, c.fails)
			_, of := Checkpoint(s.note(), s.evidence().Consistency, pin, s.evidence().Items[0])
			wantFailure(t, of, CheckFreshness, c.fails)
		})
	}
}

// Nobody gets past by leaving out the time, or what is allowed.
func TestNoFreshnessGivenLetsNothingPass(t *testing.T) {
	s := newScene(t)
	pin := s.pin()
	for _, f := range []Freshness{{}, {MaxAge: day}, {Now: s.now}} {
		pin.Freshness = f
		wantFailure(t, Artifact(s.want("demo", "0.1.0"), s.evidence(), pin), CheckFreshness, "no time and largest age")
	}
}

// Ages are told in whole seconds below an hour, in minutes above.
func TestAnAgeIsToldAsPeopleReadIt(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for age, want := range map[time.Duration]string{
		3 * time.Millisecond: ", 0s old", 981 * time.Millisecond: ", 1s old", 59*time.Second + 700*time.Millisecond: ", 1m0s old", 25 * time.Hour: ", 25h0m old",
	} {
		v := Verdict{CosignedAt: at}
		if got := v.said(age); !strings.HasSuffix(got, want) {
			t.Errorf("%v is told as %q, want %q", age, got, want)
		}
	}
}

// Only the key that signs for the log now says how old a checkpoint is.
func TestCosignaturesOfOthersSayNothingOfTheAge(t *testing.T) {
	s := newScene(t)
	s.rotate(s.genesis)
	want, pin := s.want("demo", "0.1.0"), s.pin()
	for name, c := range map[string]struct {
		note []byte
		says string
	}{
		"none":                           {withoutCosignatures(s.noteBy(s.now, 1)), "has not cosigned it"},
		"by the key that was replaced":   {together(withoutCosignatures(s.noteBy(s.now, 1)), s.noteBy(s.now, 0)), "has not cosigned it"},
		"old, and newer by the replaced": {together(s.noteBy(s.now.Add(-25*time.Hour), 1), s.noteBy(s.now, 0)), "26h0m old"},
	} {
		ev := s.evidence()
		ev.Checkpoint = c.note
		pin.Freshness.MaxAge = day
		t.Run(name, func(t *testing.T) { wantFailure(t, Artifact(want, ev, pin), CheckFreshness, c.says) })
		pin.Freshness.MaxAge = AnyAge
		wantOK(t, Artifact(want, ev, pin))
	}
}

// withoutCosignatures leaves of a note the log's own signatures, of 4 + 64 bytes.
func withoutCosignatures(note []byte) []byte {
	text, signatures, _ := strings.Cut(string(note), "\n\n")
	out := text + "\n\n"
	for line := range strings.Lines(signatures) {
		if fields := strings.Fields(line); len(fields[2]) < 96 {
			out += line
		}
	}
	return []byte(out)
}

// together is note with the signatures of other, of the same text, added.
func together(note, other []byte) []byte {
	_, signatures, _ := strings.Cut(string(other), "\n\n")
	return append(slices.Clone(note), signatures...)
}

// tree is a log of n hashes, the first of them those of another where shared.
func tree(t *rapid.T, name byte, shared *translog.Memory, common, n int64) *translog.Memory {
	m := &translog.Memory{}
	for i := range n {
		leaf := translog.LeafHash([]byte{name, byte(i)})
		if shared != nil && i < common {
			hashes, err := shared.ReadHashes([]int64{tlog.StoredHashIndex(0, i)})
			if err != nil {
				t.Fatal(err)
			}
			leaf = hashes[0]
		}
		if err := m.Append(leaf); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func openedAt(t *rapid.T, m *translog.Memory, size int64, at time.Time) translog.Opened {
	root, err := translog.TreeHash(size, m)
	if err != nil {
		t.Fatal(err)
	}
	return translog.Opened{Checkpoint: translog.Checkpoint{Origin: "log", Size: size, Root: root}, CosignedAt: at}
}

// Whatever two checkpoints of one log or of two are compared, in whatever order of
// sizes and times: an honest log is never blamed, and a contradiction never passes.
func TestComparedCheckpointsBlameOnlyALogThatLied(t *testing.T) {
	start := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		first := tree(t, 'a', nil, 0, 40)
		common := rapid.Int64Range(0, 40).Draw(t, "common")
		second := tree(t, 'b', first, common, 40)
		pinnedSize, offeredSize := rapid.Int64Range(1, 40).Draw(t, "pinned"), rapid.Int64Range(1, 40).Draw(t, "offered")
		later := rapid.IntRange(-2, 2).Draw(t, "hours later")
		pinned := openedAt(t, first, pinnedSize, start)
		offered := openedAt(t, second, offeredSize, start.Add(time.Duration(later)*time.Hour))

		larger := second
		if pinnedSize > offeredSize {
			larger = first
		}
		var proof tlog.TreeProof
		if given := rapid.Bool().Draw(t, "proof given"); given && pinnedSize != offeredSize {
			var err error
			if proof, err = translog.ConsistencyProof(min(pinnedSize, offeredSize), max(pinnedSize, offeredSize), larger); err != nil {
				t.Fatal(err)
			}
		}
		samePast := min(pinnedSize, offeredSize) <= common
		name, proven, err := compareCheckpoints(pinned, offered, proof)
		switch {
		case samePast && offeredSize >= pinnedSize && (proof != nil || offeredSize == pinnedSize):
			if err != nil {
				t.Fatalf("an honest log is refused: %s, %v", name, err)
			}
		case err == nil:
			t.Fatalf("passed: %s", name)
		case samePast && (offeredSize > pinnedSize || later <= 0) && proven:
			t.Fatalf("an honest log is blamed: %s, %v", name, err)
		case samePast && offeredSize < pinnedSize && later <= 0 && proof != nil && name != CheckStale:
			t.Fatalf("an older state of the same past is called %s", name)
		case !samePast && proof != nil && name == CheckStale:
			t.Fatal("another past is called an older state of this")
		case offeredSize < pinnedSize && later > 0 && (name != CheckRollback || !proven):
			t.Fatalf("entries taken back: %s, %t", name, proven)
		}
	})
}
