package integration

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// firstRelease is a data folder with the homes of its two people, as the first
// release (commit 3224c0e) wrote them by its own commands: alice published
// old-one 0.1.0, 0.1.1 and 0.2.0, the operator Old_Two 1.0.0, which depends on
// it; alice yanked 0.1.0 and made the operator an owner of old-one. The keys in it
// are of use for nothing else.
const firstRelease = "testdata/upgrade/first-release-test-keys-only.tar.gz"

// oldLab is a lab on a copy of that folder, not yet running, and alice.
func oldLab(t *testing.T) (l *lab, alice *user) {
	t.Helper()
	folder := t.TempDir()
	unpack(t, firstRelease, folder)
	folder = filepath.Join(folder, "test-keys-only")
	l = &lab{t: t, data: filepath.Join(folder, "data"), url: "http://127.0.0.1:18591"} // as its log says
	for name, u := range map[string]**user{"operator": &l.operator, "alice": &alice} {
		*u = newUserIn(t, filepath.Join(folder, "home-"+name))
		if err := os.Rename(filepath.Join(folder, name), (*u).home); err != nil {
			t.Fatal(err)
		}
	}
	return l, alice
}

// unpack writes the folders and files of a .tar.gz of ours below folder.
func unpack(t *testing.T, archive, folder string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeDir {
			err = root.MkdirAll(strings.TrimSuffix(h.Name, "/"), 0o700)
		} else {
			var data []byte
			if data, err = io.ReadAll(r); err == nil {
				err = root.WriteFile(h.Name, data, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// What the first release wrote is served, continued, verified and rebuilt by this one.
func TestFolderOfTheFirstReleaseGoesOn(t *testing.T) {
	l, alice := oldLab(t)
	l.start()
	t.Cleanup(l.stop)

	app := l.operator.crate("app", "0.1.0", "[dependencies]\nOld_Two = { version = \"1\", registry = \"aln\" }\n", "")
	l.operator.login(l, app)
	log := must(t, l.operator.aln(app, "log", "show")).stdout
	for _, want := range []string{"size      9", "crate/old-one@0.1.0", "crate/old-one@0.1.1", "crate/old-one@0.2.0", "crate/Old_Two@1.0.0", "7      2026", "8      2026"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not show %q:\n%s", want, log)
		}
	}
	if members := must(t, l.operator.aln(app, "member", "list")).stdout; !strings.Contains(members, alice.did()) {
		t.Errorf("alice is no member:\n%s", members)
	}
	if owners := must(t, l.operator.cargo(app, "owner", "--registry", "aln", "--list", "old-one")).stdout; !strings.Contains(owners, alice.did()) || !strings.Contains(owners, l.operator.did()) {
		t.Errorf("the owners of old-one are:\n%s", owners)
	}
	must(t, l.operator.cargo(app, "build"))
	if verified := must(t, l.operator.aln(app, "verify", "Cargo.lock")); !strings.Contains(verified.stdout, "2 verified, 0 failed") {
		t.Errorf("%s", verified)
	}
	yanked := l.operator.crate("yanked", "0.1.0", "[dependencies]\nold-one = { version = \"=0.1.0\", registry = \"aln\" }\n", "")
	l.operator.login(l, yanked)
	mustFail(t, l.operator.cargo(yanked, "build"), "yanked")

	// The log goes on: the co-owner made then publishes now.
	next := l.operator.crate("old-one", "0.3.0", "", "pub fn it() -> u32 { 5 }\n")
	l.operator.login(l, next)
	if published := must(t, l.operator.cargo(next, "publish", "--registry", "aln")); !strings.Contains(published.stderr, "log index 9") {
		t.Errorf("%s", published)
	}
	must(t, l.operator.aln(app, "log", "check", "--full"))

	l.stop()
	rebuilt := must(t, l.operator.aln(app, "rebuild", "--data", l.data)).stdout
	if !strings.Contains(rebuilt, "10 entries") || stateOf(t, rebuilt, "state ") != stateOf(t, rebuilt, "before ") {
		t.Errorf("what is rebuilt is something else:\n%s", rebuilt)
	}
	l.start()
	must(t, l.operator.aln(app, "log", "check", "--full"))
}

// stateOf is the digest that rebuild printed behind label.
func stateOf(t *testing.T, printed, label string) string {
	t.Helper()
	for line := range strings.Lines(printed) {
		if rest, ok := strings.CutPrefix(line, label); ok {
			return strings.Fields(rest)[0]
		}
	}
	t.Fatalf("rebuild does not print %q:\n%s", label, printed)
	return ""
}
