package integration

import (
	"encoding/json"
	"strings"
	"testing"
)

// replacedCatalog is what `rebuild --json` says of the catalog before.
type replacedCatalog struct {
	State  string `json:"state"`
	Before string `json:"state_before"`
	Audit  int64  `json:"audit"`
	Kept   string `json:"kept"`
}

// replace rebuilds over the catalog that is there.
func (l *lab) replace() replacedCatalog {
	l.t.Helper()
	var r replacedCatalog
	out := must(l.t, l.mend("rebuild", "--json"))
	if err := json.Unmarshal([]byte(out.stdout), &r); err != nil {
		l.t.Fatalf("%v\n%s", err, out)
	}
	l.engines.tellsNoSecret(l.t, out.stdout+out.stderr)
	return r
}

// A rebuild leaves the catalog in force until the new one is whole, keeps it beside
// that, and takes over what the log does not tell. Servers are not rebuilt under.
func TestRebuildReplacesTheCatalogOfAPair(t *testing.T) {
	t.Parallel()
	for _, p := range pairsOfEngines {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			l := newLabOn(t, p.open(t))
			stranger := newUser(t)
			stranger.login(l, stranger.folder) // who gets no session, which is noted
			inUse := "another aln-registry is working in the data folder"
			if l.data == "" {
				inUse = "these servers run on it"
			}
			mustFail(t, l.mend("rebuild"), inUse)
			l.stop()
			r := l.replace()
			if r.State == "" || r.State != r.Before || r.Audit < 1 || r.Kept == "" {
				t.Errorf("replaced as %+v", r)
			}
			l.start()
			must(t, l.operator.aln(l.operator.folder, "log", "check", "--full"))
			token := strings.TrimSpace(must(t, l.operator.aln(l.operator.folder, "token", "--scope", "audit")).stdout)
			if status, _, trail := l.get("/v1/audit", token); status != 200 || !strings.Contains(string(trail), stranger.did()) {
				t.Errorf("the audit trail: %d %s", status, trail)
			}
			l.kill()
			must(t, l.mend("rebuild")) // once its lease is over
			l.start()
			must(t, l.operator.aln(l.operator.folder, "log", "check", "--full"))
		})
	}
}
