package web

import (
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/registry/particle"
)

// Of a denied version the page tells rule and reason, and nothing of what is in it,
// also where that is kept in memory for others.
func TestADeniedVersionIsToldOfAndNotShown(t *testing.T) {
	l := newLab(t)
	l.fill()
	token := l.session(l.member, "read")
	const page = "/artifacts/crate/secret-crate/0.2.0"
	l.get(page, token).want(t, 200, "Secret handbook", "cargo add", page+"/download")
	l.get("/artifacts/crate/secret-crate", token).want(t, 200, `<h1>secret-crate</h1> <span class="version">0.2.0</span>`)
	l.quarantine("no-0.2", ">=0.2", "secret_crate")
	denied := l.get(page, token).want(t, 200, "denied to you by rule quarantine <code>no-0.2</code>", "it was &lt;looked&gt; at", "aln-registry why secret-crate@0.2.0", "Identity and proof")
	for _, text := range []string{"Secret handbook", "hidden words", "cargo add", "/download", "home.example"} {
		if strings.Contains(denied.Body.String(), text) {
			t.Errorf("the page of a denied version says %q", text)
		}
	}
	l.get(page+"/download", token).want(t, 403, "secret-crate 0.2.0 is denied by rule quarantine no-0.2")
	l.get("/artifacts/crate/secret-crate", token).want(t, 200, `<h1>secret-crate</h1> <span class="version">0.2.0</span>`, "denied") // the other was yanked
	l.get("/search?q=secret", token).want(t, 200, "secret-crate")
	l.get("/", token).want(t, 200, "secret-crate", `<span class="badge warn">denied</span>`)
}

// Who came first does not decide what the front page shows others.
func TestTheFrontPageShowsEachTheirOwn(t *testing.T) {
	l := newLab(t)
	l.fill()
	l.admitBound()
	hidden := l.get("/", l.forge(l.offshore, "read")).want(t, 200)
	if strings.Contains(hidden.Body.String(), "secret-crate") {
		t.Error("an offshore host reads of what it may not know")
	}
	l.get("/", l.session(l.member, "read")).want(t, 200, "secret-crate")
	l.get("/log", l.forge(l.offshore, "read")).want(t, 200, "not shown to you")
	l.get("/artifacts/crate", l.forge(l.guest, "read")).want(t, 403, "hosts of this tier read only under an EnvGrant")
	l.grant(l.guest, func(g *particle.EnvGrant) { g.AllowedCrates = []string{particle.AllCrates} })
	l.get("/artifacts/crate", l.forge(l.guest, "read")).want(t, 200, "secret-crate")
}
