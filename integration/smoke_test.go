package integration

import (
	"strings"
	"testing"
)

// The shortest way through everything: publish, resolve, build, verify.
func TestPublishedCrateBuildsAndVerifies(t *testing.T) {
	l := newLab(t)
	u := l.operator
	lib := u.crate("demo-one", "0.1.0", "", "pub fn one() -> u32 { 1 }\n")
	u.login(l, lib)
	published := must(t, u.cargo(lib, "publish", "--registry", "aln"))
	for _, want := range []string{"published as bafkrei", "record ", "log index 2"} {
		if !strings.Contains(published.stderr, want) {
			t.Errorf("cargo publish does not say %q:\n%s", want, published)
		}
	}
	app := u.crate("app", "0.1.0", "", "")
	u.login(l, app)
	must(t, u.cargo(app, "add", "--registry", "aln", "demo-one"))
	must(t, u.cargo(app, "build"))
	verified := must(t, u.aln(app, "verify", "Cargo.lock"))
	if !strings.Contains(verified.stdout, "1 verified, 0 failed") {
		t.Errorf("%s", verified)
	}
	must(t, u.aln(app, "log", "check", "--full"))
}
