package verify

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
)

// snapshot is an index file of left-pad at crates.io, larger than any other attachment.
func snapshot(version string) []byte {
	return fmt.Appendf(nil, `{"name":"left-pad","vers":%q,"deps":[],"cksum":"%064x","features":{%q:[]},"yanked":false}`+"\n", version, 1, strings.Repeat("x", 2*maxAttachment))
}

// sees logs that p saw file as left-pad's index file.
func (l *lab) sees(p *person, file []byte, c cite) *record.Record {
	l.t.Helper()
	subject, err := record.UpstreamSubject("crates-io", "left-pad")
	if err != nil {
		l.t.Fatal(err)
	}
	c.digest = sha256.Sum256(file)
	if c.attach == nil {
		c.attach = [][]byte{file}
	}
	return l.log(p, subject, &record.Import{}, c)
}

func (l *lab) judged() []*line {
	trail := readTrail(l.items, l.origin.did())
	trail.judge()
	return trail.lines
}

// TestImportsReplay: what the registry saw elsewhere is in the state that a replay finds.
func TestImportsReplay(t *testing.T) {
	s := newScene(t)
	first := s.sees(s.origin, snapshot("1.0.0"), cite{by: s.genesis})
	s.sees(s.origin, snapshot("1.0.1"), cite{by: s.genesis, prev: first})
	s.wantClean(t)
	r, err := s.replay()
	if err != nil {
		t.Fatal(err)
	}
	u, ok, err := state.UpstreamOf(r.State, "crates-io", "left-pad")
	if err != nil || !ok || len(u.Versions) != 2 || u.Versions[0].Gone.IsZero() || !u.Versions[1].Gone.IsZero() {
		t.Errorf("%+v, %v, %v", u, ok, err)
	}
}

// TestALyingLogOfImports: who else but the registry, by its settings in force, says what
// was seen is not believed, by a replay or a verifier; nor is a snapshot that is withheld.
func TestALyingLogOfImports(t *testing.T) {
	for name, c := range map[string]struct {
		log  func(s *scene)
		want string // what a verifier says too, "" where it needs the snapshot for that
	}{
		"by an admin":  {func(s *scene) { s.sees(s.admin, snapshot("1.0.0"), cite{by: s.genesis}) }, "only the registry itself"},
		"by a member":  {func(s *scene) { s.sees(s.ann, snapshot("1.0.0"), cite{by: s.annMember}) }, "only the registry itself"},
		"by no record": {func(s *scene) { s.sees(s.origin, snapshot("1.0.0"), cite{}) }, "by is null"},
		"by another":   {func(s *scene) { s.sees(s.origin, snapshot("1.0.0"), cite{by: s.annMember}) }, "not the settings in force"},
		"by settings of before": {func(s *scene) {
			settings := s.settings()
			settings.ReleaseK = 2
			s.log(s.admin, record.RegistrySubject(), settings, cite{prev: s.genesis, by: s.genesis})
			s.sees(s.origin, snapshot("1.0.0"), cite{by: s.genesis})
		}, "not the settings in force"},
		"withheld": {func(s *scene) { s.sees(s.origin, snapshot("1.0.0"), cite{by: s.genesis, attach: [][]byte{{}}}) }, ""},
		"another crate": {func(s *scene) {
			s.sees(s.origin, []byte(strings.ReplaceAll(string(snapshot("1.0.0")), "left", "right")), cite{by: s.genesis})
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			c.log(s)
			r, err := s.replay()
			if err != nil || r.Violated != 1 || r.Violations[0].Index != r.Size-1 {
				t.Fatalf("%v, %+v", err, r.Violations)
			}
			if u, ok, err := state.UpstreamOf(r.State, "crates-io", "left-pad"); ok || err != nil {
				t.Errorf("known is %+v, %v", u, err)
			}
			if c.want == "" {
				return
			}
			s.items[len(s.items)-1].Attachments = nil // which no bundle has
			lines := s.judged()
			if got := lines[len(lines)-1].authority; got == nil || !strings.Contains(got.Error(), c.want) {
				t.Errorf("a verifier says %v, want %q", got, c.want)
			}
		})
	}
}
