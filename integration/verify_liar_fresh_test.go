package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
)

// withoutCosignature leaves of a note its text and the log's own signature.
func withoutCosignature(note []byte) []byte {
	lines := strings.SplitAfter(string(note), "\n")
	return []byte(strings.Join(lines[:5], "")) // three lines, an empty one, the first signature
}

// A log whose newest checkpoint is too old, of the future, or of no known age is
// believed by no command, and no pin moves.
func TestALogThatStandsStillIsBelievedByNoCommand(t *testing.T) {
	for name, c := range map[string]struct {
		age      time.Duration
		alter    func([]byte) []byte
		says     string
		lenient  string // passes with this
		strict   string // "" where 24h is the reason
		accepted bool
	}{
		"25 hours old":         {25 * time.Hour, nil, "25h0m old, with 24h0m allowed (--max-age): the log stands still, somebody shows you an old state of it, or this computer's clock", "48h", "", false},
		"23 hours old":         {23 * time.Hour, nil, "23h0m old, with 2h0m allowed", "24h", "2h", true},
		"of the future":        {-10 * time.Minute, nil, "in the future of this computer's clock", "off", "", false},
		"within the skew":      {-time.Minute, nil, "", "24h", "", true},
		"not cosigned":         {0, withoutCosignature, "the key that signs for the log now has not cosigned it", "off", "", false},
		"cosigned by a relay":  {0, cosignedByAnother(t), "the key that signs for the log now has not cosigned it", "off", "", false},
		"a year old, any date": {365 * 24 * time.Hour, nil, "8760h0m old", "8761h", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLiar(t)
			u, app := l.reader()
			l.publish(l.admin, "demo-one", "0.1.0", nil, l.member)
			l.cosigned(c.age, c.alter)
			pinned := readFolder(t, filepath.Join(u.home, "registries"))
			if c.accepted {
				must(t, u.aln(app, "log", "check"))
				must(t, u.aln(app, "login", l.server.URL))
				pinned = readFolder(t, filepath.Join(u.home, "registries"))
			}
			if c.says != "" {
				if c.strict != "" {
					u.extra = []string{"ALN_MAX_AGE=" + c.strict}
				}
				for _, args := range [][]string{{"verify", "demo-one@0.1.0"}, {"log", "check"}, {"log", "check", "--full"}, {"log", "show"}} {
					wantFailedCheck(t, u.aln(app, args...), "freshness", c.says)
				}
				mustFail(t, u.aln(app, "login", l.server.URL), "is not believed (freshness): ", c.says)
				mustFail(t, u.aln(app, "get", "crate/demo-one@0.1.0"), "was not kept: freshness: ", c.says)
				mustFail(t, u.aln(app, "doctor"), "FAIL log of "+l.server.URL, c.says)
				other := newUser(t)
				other.extra = u.extra
				mustFail(t, other.aln(app, "login", l.server.URL), "is not believed (freshness): ", c.says)
				if _, err := os.Stat(filepath.Join(other.home, "registries")); err == nil {
					t.Error("a registry of unknown age was pinned")
				}
				for name, data := range readFolder(t, filepath.Join(u.home, "registries")) {
					if string(pinned[name]) != string(data) {
						t.Errorf("the pin was changed by what is not believed: %s", data)
					}
				}
			}
			must(t, u.aln(app, "log", "check", "--max-age", c.lenient))
			must(t, u.aln(app, "verify", "demo-one@0.1.0", "--max-age", c.lenient))
			must(t, u.aln(app, "login", l.server.URL, "--max-age", c.lenient))
			if _, err := os.Stat(filepath.Join(u.home, "evidence")); err == nil {
				t.Error("age alone is no evidence against a log")
			}
		})
	}
}

// cosignedByAnother puts in place of the log's cosignature one by another key
// under the log's name.
func cosignedByAnother(t *testing.T) func([]byte) []byte {
	private, _ := newKey(t).Ed25519()
	key, err := translog.NewLogKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return func(note []byte) []byte {
		cp, err := translog.Peek(note)
		if err != nil {
			return nil
		}
		theirs, err := translog.Sign(cp, []translog.LogKey{key}, time.Now())
		if err != nil {
			return nil
		}
		signatures := strings.SplitAfter(string(theirs), "\n")[4:]
		return append(withoutCosignature(note), strings.Join(signatures, "")...)
	}
}

// keptConflict is a file of evidence, as others read it.
type keptConflict struct {
	Kind            string
	Proven          bool
	Pinned, Offered string
	Origin, URL     string
}

// kept reads the evidence in u's home.
func kept(t *testing.T, u *user) (files []string, conflicts []keptConflict) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(u.home, "evidence", "*", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var c keptConflict
		if err := json.Unmarshal(raw, &c); err != nil {
			t.Fatal(err)
		}
		conflicts = append(conflicts, c)
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", path, info.Mode(), err)
		}
	}
	return files, conflicts
}

// What was pinned may not be taken back, nor another past be shown: both notes are
// kept, and the pin stays.
func TestRollbackAndForkAfterPinning(t *testing.T) {
	for name, c := range map[string]struct {
		then   func(l *liar, first *record.Record)
		check  string
		proven bool
	}{
		"rollback, as the log itself says": {func(l *liar, _ *record.Record) {
			l.rewind(3)
			l.cosigned(-time.Minute, nil)
		}, "rollback", true},
		"rollback, or a mirror that is behind": {func(l *liar, _ *record.Record) {
			l.rewind(3)
			l.cosigned(time.Hour, nil)
		}, "rollback", false},
		"fork of the same size": {func(l *liar, first *record.Record) {
			l.rewind(3)
			l.publish(l.admin, "demo-one", "0.2.1", first, first)
		}, "fork", true},
		"fork of a larger size": {func(l *liar, first *record.Record) {
			l.rewind(3)
			second := l.publish(l.admin, "demo-one", "0.2.1", first, first)
			l.publish(l.admin, "demo-one", "0.2.2", second, first)
		}, "fork", true},
		"fork, of an old checkpoint": {func(l *liar, first *record.Record) {
			l.rewind(3)
			l.publish(l.admin, "demo-one", "0.2.1", first, first)
			l.cosigned(25*time.Hour, nil)
		}, "fork", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLiar(t)
			first := l.publish(l.admin, "demo-one", "0.1.0", nil, l.member)
			l.publish(l.admin, "demo-one", "0.2.0", first, first)
			u, app := l.reader()
			must(t, u.aln(app, "verify", "demo-one@0.1.0"))
			must(t, u.aln(app, "log", "check"))
			pinned := readFolder(t, filepath.Join(u.home, "registries"))
			c.then(l, first)
			wantFailedCheck(t, u.aln(app, "verify", "demo-one@0.1.0"), c.check, "keep both notes")
			files, conflicts := kept(t, u)
			if len(conflicts) != 1 {
				t.Fatalf("kept %q", files)
			}
			wantFailedCheck(t, u.aln(app, "log", "check"), c.check, files[0])
			wantFailedCheck(t, u.aln(app, "log", "check", "--full"), c.check, files[0])
			mustFail(t, u.aln(app, "login", l.server.URL), "is not believed ("+c.check+")", files[0], "Do not log in again")
			for name, data := range readFolder(t, filepath.Join(u.home, "registries")) {
				if string(pinned[name]) != string(data) {
					t.Errorf("the pin was changed by what contradicts it: %s", data)
				}
			}
			wantSameEvidence(t, l, u, files, conflicts[0], c.check, c.proven)
		})
	}
}

// wantSameEvidence holds what is kept to the two notes, and doctor and --json to what is kept.
func wantSameEvidence(t *testing.T, l *liar, u *user, files []string, found keptConflict, kind string, proven bool) {
	t.Helper()
	if again, _ := kept(t, u); !slices.Equal(again, files) {
		t.Errorf("kept more than once: %q", again)
	}
	if found.Kind != kind || found.Proven != proven || found.Origin != string(didOf(l.origin)) || found.URL != l.server.URL {
		t.Errorf("kept %+v", found)
	}
	for _, note := range []string{found.Pinned, found.Offered} {
		if _, err := translog.Open([]byte(note), found.Origin, []translog.VerifierKey{l.logKey.Public()}); err != nil {
			t.Errorf("a note that proves nothing: %v", err)
		}
	}
	if found.Pinned == found.Offered {
		t.Error("one note is kept twice")
	}
	status := map[bool]string{true: "FAIL", false: "warn"}[proven]
	mustFail(t, u.aln(u.folder, "doctor"), status+" evidence about "+l.server.URL, files[0])
	said := mustFail(t, u.aln(u.folder, "log", "check", "--json"))
	var verdict struct {
		Conflict struct {
			Kind, File      string
			Proven          bool
			Pinned, Offered []byte
		}
	}
	if err := json.Unmarshal([]byte(said.stdout), &verdict); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if v := verdict.Conflict; v.File != files[0] || v.Kind != kind || v.Proven != proven || string(v.Pinned) != found.Pinned {
		t.Errorf("--json says %+v", v)
	}
}

// A relay that replays an honest old checkpoint before the registry is no evidence
// against its log, and is found out all the same.
func TestAnOlderStateOfTheSamePastIsOnlyStale(t *testing.T) {
	p := newProved(t)
	older := ""
	for _, e := range p.before {
		if e.kind() == "checkpoint" {
			older = string(e.body)
		}
	}
	p.proxy.begin(func(got exchange) exchange {
		if got.kind() == "checkpoint" {
			got.body = []byte(older)
		}
		return got
	})
	for _, args := range [][]string{{"verify", "demo-one@0.1.0"}, {"log", "check"}} {
		wantFailedCheck(t, p.reader.aln(p.app, args...), "stale", "an older state of the log than you have seen, of 3 entries instead of ")
	}
	mustFail(t, p.reader.aln(p.app, "login", p.proxy.URL), "is not believed (stale)")
	if files, _ := kept(t, p.reader); len(files) != 0 {
		t.Errorf("kept %q", files)
	}
}
