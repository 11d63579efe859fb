package integration

import (
	"path/filepath"
	"testing"
)

// The first path of all, on every pair of engines: a lab begins, a crate is published,
// built with, verified, and all of it is there after a restart.
func TestCargoOnEveryPairOfEngines(t *testing.T) {
	t.Parallel()
	for _, p := range pairsOfEngines {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			publishAndBuild(t, newLabOn(t, p.open(t)))
		})
	}
}

func publishAndBuild(t *testing.T, l *lab) {
	u := l.operator
	dep := u.crate("dep-one", "0.1.0", "", "pub fn one() -> u32 { 1 }")
	must(t, u.aln(dep, "login", l.engines.public))
	must(t, u.cargo(dep, "publish", "--registry", "aln"))
	app := filepath.Join(u.folder, "app")
	writeFiles(t, app, map[string]string{
		"Cargo.toml":  "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\ndep-one = { version = \"0.1\", registry = \"aln\" }\n[workspace]\n",
		"src/main.rs": "fn main() { assert_eq!(dep_one::one(), 1) }",
	})
	must(t, u.aln(app, "login", l.engines.public))
	must(t, u.cargo(app, "run"))
	must(t, u.aln(app, "verify"))
	l.stop()
	l.start()
	must(t, u.aln(app, "log", "check", "--full"))
}
