package client

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/registry/verify"
)

// contradictions are what a log (or what shows it) does after it was pinned at
// four entries, and what is to be kept of it.
var contradictions = map[string]struct {
	do     func(f *fake, id Identity)
	check  string
	kept   int
	proven bool
	file   string
}{
	"an older state, by a relay before the log": {func(f *fake, id Identity) {
		old := f.olderNote(3, -time.Minute)
		f.tamper = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/log/checkpoint" {
				return false
			}
			w.Write(old)
			return true
		}
	}, verify.CheckStale, 0, false, ""},
	"an older state, by a mirror that has no more": {func(f *fake, id Identity) {
		f.truncate(3)
		f.cosigned = -time.Minute
	}, verify.CheckRollback, 1, false, "suspected-rollback-"},
	"entries taken back": {func(f *fake, id Identity) {
		f.truncate(3)
		f.cosigned = time.Minute
	}, verify.CheckRollback, 1, true, "rollback-"},
	"another past of the same size": {func(f *fake, id Identity) {
		f.truncate(3)
		f.publish(id, "fork", "1.0.0", nil)
	}, verify.CheckFork, 1, true, "fork-"},
	"another past, larger": {func(f *fake, id Identity) {
		f.truncate(3)
		f.publish(id, "fork", "1.0.0", nil)
		f.publish(id, "fork", "1.0.1", nil)
	}, verify.CheckFork, 1, true, "fork-"},
	"another past, smaller, with the tiles of the first": {func(f *fake, id Identity) {
		other := &fake{t: f.t, origin: f.origin, logKey: f.logKey, members: f.members, cosigned: -time.Minute}
		other.entries, other.records = slices.Clone(f.entries), slices.Clone(f.records)
		other.truncate(2)
		other.publish(id, "fork", "1.0.0", nil)
		forked := other.note()
		f.tamper = func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case r.URL.Path == "/log/checkpoint":
				w.Write(forked)
			case strings.HasSuffix(r.URL.Path, ".p/3"):
				other.serveTile(w, strings.TrimPrefix(r.URL.Path, "/log/"))
			default:
				return false
			}
			return true
		}
	}, verify.CheckFork, 1, true, "fork-"},
	"a note that nobody signed": {func(f *fake, id Identity) {
		forged := flip(f.note())
		f.tamper = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/log/checkpoint" {
				return false
			}
			w.Write(forged)
			return true
		}
	}, verify.CheckCheckpoint, 0, false, ""},
}

// olderNote is the log's checkpoint of that size, as it was cosigned then.
func (f *fake) olderNote(size int64, ago time.Duration) []byte {
	cp := translog.Checkpoint{Origin: string(f.origin.Public().DID()), Size: size, Root: must(translog.TreeHash(size, &f.mem))}
	return must(translog.Sign(cp, []translog.LogKey{f.logKey}, f.now().Add(ago)))
}

func TestContradictionsAreKeptWithBothNotes(t *testing.T) {
	for name, c := range contradictions {
		t.Run(name, func(t *testing.T) {
			f, known, r := loggedIn(t)
			f.publish(*r.identity, "demo", "1.0.0", []byte("one"))
			f.publish(*r.identity, "demo", "1.0.1", []byte("two"))
			if _, err := known.Login(t.Context(), f.server.URL, ""); err != nil {
				t.Fatal(err)
			}
			r = must(known.Open(""))
			f.mu.Lock()
			c.do(f, *r.identity)
			f.mu.Unlock()

			_, verdict, err := r.LogCheck(t.Context())
			check, _ := verdict.Failure()
			if err != nil || check.Name != c.check {
				t.Fatalf("%+v, %v", check, err)
			}
			kept := must(known.home.Conflicts(r.pin))
			if len(kept) != c.kept {
				t.Fatalf("kept %+v", kept)
			}
			if c.kept > 0 {
				wantKept(t, f, r, verdict, kept[0], c.proven, c.file)
			} else if verdict.Conflict != nil {
				t.Errorf("a conflict: %+v", verdict.Conflict)
			}
			// Other ways to the same: it is kept once.
			_, login := known.Login(t.Context(), f.server.URL, "")
			if !errors.Is(login, ErrUntrusted) || c.kept > 0 && !strings.Contains(login.Error(), kept[0].Path) {
				t.Errorf("login: %v", login)
			}
			if view, err := r.View(t.Context()); err == nil {
				if _, err := view.Verify(t.Context(), verify.Want{Subject: crateSubject("demo", "1.0.0")}); err != nil && c.kept > 0 {
					t.Errorf("verify: %v", err)
				}
			}
			if again := must(known.home.Conflicts(r.pin)); len(again) != c.kept {
				t.Errorf("%d files are kept", len(again))
			}
			if now := must(known.home.PinOf(f.server.URL)); string(now.Checkpoint) != string(r.pin.Checkpoint) || now.Size() != 4 {
				t.Errorf("the pin changed to %d entries", now.Size())
			}
		})
	}
}

// wantKept holds a kept conflict to what was pinned and shown.
func wantKept(t *testing.T, f *fake, r *Registry, verdict verify.Verdict, kept Conflict, proven bool, file string) {
	t.Helper()
	if kept.Pinned != string(r.pin.Checkpoint) || kept.Offered != string(verdict.Conflict.Offered) || verdict.Conflict.File != kept.Path {
		t.Errorf("kept %+v of %+v", kept, verdict.Conflict)
	}
	if kept.Proven != proven || verdict.Conflict.Proven != proven || !strings.HasPrefix(filepath.Base(kept.Path), file) {
		t.Errorf("proven: %t, in %s", kept.Proven, kept.Path)
	}
	if kept.Origin != r.pin.Origin || kept.Entry0 != r.pin.Entry0 || kept.URL != r.pin.URL {
		t.Errorf("about %+v", kept)
	}
	for _, note := range []string{kept.Pinned, kept.Offered} {
		if _, err := translog.Open([]byte(note), string(kept.Origin), []translog.VerifierKey{f.logKey.Public()}); err != nil {
			t.Errorf("a note that proves nothing: %v", err)
		}
	}
	check, _ := verdict.Failure()
	if !strings.Contains(check.Detail, kept.Path) || !strings.Contains(check.Detail, "Do not log in again") {
		t.Errorf("it says %s", check.Detail)
	}
	for _, path := range []string{kept.Path, filepath.Dir(kept.Path)} {
		if err := ownerOnly(t, path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Who lies anew every time does not fill the disk, nor push out what was kept first.
func TestConflictsAreKeptInBoundedNumber(t *testing.T) {
	f, c, r := loggedIn(t)
	f.publish(*r.identity, "demo", "1.0.0", []byte("one"))
	if _, _, err := r.LogCheck(t.Context()); err != nil {
		t.Fatal(err)
	}
	r = must(c.Open(""))
	var first string
	for i := range maxConflicts + 3 {
		f.mu.Lock()
		f.truncate(2)
		f.publish(*r.identity, "fork", fmt.Sprintf("1.0.%d", i), nil)
		f.mu.Unlock()
		_, verdict, err := r.LogCheck(t.Context())
		check, _ := verdict.Failure()
		switch {
		case err != nil || check.Name != verify.CheckFork:
			t.Fatalf("%+v, %v", check, err)
		case i == 0:
			first = verdict.Conflict.File
		case i >= maxConflicts && (verdict.Conflict.File != "" || !strings.Contains(check.Detail, "no more are kept")):
			t.Errorf("fork %d: in %q; %s", i, verdict.Conflict.File, check.Detail)
		}
	}
	kept := must(c.home.Conflicts(r.pin))
	if _, err := os.Stat(first); err != nil || len(kept) != maxConflicts {
		t.Errorf("%d are kept, %v", len(kept), err)
	}
}

// A folder that cannot be written hides nothing.
func TestAContradictionIsToldThoughItCannotBeKept(t *testing.T) {
	f, c, r := loggedIn(t)
	f.publish(*r.identity, "demo", "1.0.0", []byte("one"))
	if _, _, err := r.LogCheck(t.Context()); err != nil {
		t.Fatal(err)
	}
	r = must(c.Open(""))
	if err := os.WriteFile(filepath.Join(c.home.Path(), folderConflicts), []byte("in the way"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.truncate(2)
	f.publish(*r.identity, "fork", "1.0.0", nil)
	_, verdict, err := r.LogCheck(t.Context())
	check, _ := verdict.Failure()
	if err != nil || check.Name != verify.CheckFork || verdict.Conflict == nil || verdict.Conflict.File != "" || !strings.Contains(check.Detail, "could not be done here") {
		t.Errorf("%+v, %+v, %v", check, verdict.Conflict, err)
	}
}
