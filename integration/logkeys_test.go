package integration

import (
	"crypto/rand"
	"path/filepath"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/record"
)

// The log's key is replaced: members who pinned a checkpoint of the old one and who come
// new both follow the chain of settings, and the cosignature that counts is the new key's.
func TestClientsFollowALogKeyThatWasReplaced(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	folder := l.operator.crate("demo-one", "0.1.0", "", "pub fn it() {}\n")
	l.operator.login(l, folder)
	must(t, l.operator.publish(l, folder))
	member := l.newMember()
	app := member.crate("app", "0.1.0", "", "")
	member.login(l, app)
	must(t, member.aln(app, "log", "check"))

	l.stop()
	multikey, err := registry.AddLogKey(filepath.Join(l.data, "keys", "registry.jwk"), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	l.start()
	_, _, changed, err := l.operator.registry().ChangeSettings(t.Context(), nil, func(s *record.Registry) error {
		s.LogKeys = append([]string{multikey}, s.LogKeys...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"verify", "demo-one@0.1.0"}, {"log", "check"}, {"log", "check", "--full"}, {"log", "show"}, {"login", l.url}, {"doctor"}} {
		must(t, member.aln(app, args...))
	}
	for name, pin := range readFolder(t, filepath.Join(member.home, "registries")) {
		if strings.HasSuffix(name, ".json") && !strings.Contains(string(pin), `"keys": "`+string(changed.Record)+`"`) {
			t.Errorf("the keys were not pinned: %s", pin)
		}
	}
	stranger := newUser(t)
	wantSays(t, must(t, stranger.aln(app, "login", l.url)).stdout, "to members only")
	mustFail(t, stranger.aln(app, "log", "check"), "for members", "is not a member")
}
