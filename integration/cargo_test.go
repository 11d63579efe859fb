package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/registry/particle"
)

// workspace holds a crate for each way in which one crate can depend on another.
var workspace = map[string]string{
	"Cargo.toml": `[workspace]
members = ["core", "extra", "unix", "windows", "tool", "main", "bench"]
resolver = "2"

[workspace.package]
edition = "2021"
license = "MIT"
rust-version = "1.70"

[workspace.dependencies]
ws-tool = { path = "tool", version = "1.0", registry = "aln", default-features = false }
`,
	"core/Cargo.toml": `[package]
name = "ws-core"
version = "0.2.0"
description = "a crate with links and a build script"
links = "wscore"
edition.workspace = true
license.workspace = true
rust-version.workspace = true

[features]
default = ["std"]
std = []
`,
	"core/build.rs":   "fn main() { println!(\"cargo:flavour=plain\"); }\n",
	"core/src/lib.rs": "pub fn std() -> bool { cfg!(feature = \"std\") }\n",
	"extra/Cargo.toml": `[package]
name = "ws-extra"
version = "1.2.3-beta.1"
description = "a pre-release"
edition.workspace = true
license.workspace = true

[features]
loud = []
`,
	"extra/src/lib.rs": "pub fn word() -> &'static str { if cfg!(feature = \"loud\") { \"EXTRA\" } else { \"extra\" } }\n",
	"unix/Cargo.toml": `[package]
name = "ws-unix"
version = "0.1.7"
description = "for one target"
edition.workspace = true
license.workspace = true
`,
	"unix/src/lib.rs": "pub fn system() -> &'static str { \"unix\" }\n",
	"windows/Cargo.toml": `[package]
name = "WS_Windows"
version = "0.1.0"
description = "for another target"
edition.workspace = true
license.workspace = true
`,
	"windows/src/lib.rs": "pub fn system() -> &'static str { \"windows\" }\n",
	"tool/Cargo.toml": `[package]
name = "ws-tool"
version = "1.0.0+build.5"
description = "for build scripts"
edition.workspace = true
license.workspace = true

[features]
odd = []
`,
	"bench/Cargo.toml": `[package]
name = "ws-bench"
version = "0.0.0"
publish = false
edition.workspace = true
`,
	"bench/src/lib.rs": "",
	"tool/src/lib.rs":  "pub fn number() -> u32 { 42 }\n",
	"main/Cargo.toml": `[package]
name = "ws-main"
version = "0.1.0"
description = "depends on all of them"
links = "wsmain"
keywords = ["whole", "workspace"]
edition.workspace = true
license.workspace = true
rust-version = "1.71.1"
publish = ["aln"]

[features]
default = ["fast"]
fast = []
extra = ["dep:ws-extra"]
loud = ["ws-extra?/loud", "renamed/std"]
everything = ["fast", "extra", "loud"]

[dependencies]
renamed = { package = "ws-core", path = "../core", version = "0.2", registry = "aln", default-features = false }
ws-extra = { path = "../extra", version = "1.2.3-beta.1", registry = "aln", optional = true }

[target.'cfg(unix)'.dependencies]
ws-unix = { path = "../unix", version = ">=0.1.2, <0.2", registry = "aln" }

[target.'cfg(windows)'.dependencies]
system = { package = "WS_Windows", path = "../windows", version = "~0.1", registry = "aln" }

[build-dependencies]
ws-tool = { path = "../tool", version = "1", registry = "aln" }

[dev-dependencies]
ws-tool = { workspace = true, features = ["odd"] }
ws-bench = { path = "../bench" }
`,
	"main/build.rs": `fn main() {
    println!("cargo:rustc-env=FLAVOUR={}", std::env::var("DEP_WSCORE_FLAVOUR").unwrap());
    println!("cargo:rustc-env=NUMBER={}", ws_tool::number());
}
`,
	"main/src/lib.rs": `#[cfg(unix)]
use ws_unix as system;

pub fn describe() -> String {
    #[cfg(feature = "extra")]
    let extra = ws_extra::word();
    #[cfg(not(feature = "extra"))]
    let extra = "none";
    format!("{} {} {} {} {}", renamed::std(), extra, system::system(), env!("FLAVOUR"), env!("NUMBER"))
}
`,
}

// workspaceLines are the index lines that cargo needs for the workspace, as
// crates.io would write them. CKSUM and PUBTIME stand for what differs each time.
var workspaceLines = map[string]string{
	"ws-core@0.2.0":         `{"name":"ws-core","vers":"0.2.0","deps":[],"cksum":"CKSUM","features":{"default":["std"],"std":[]},"yanked":false,"links":"wscore","rust_version":"1.70","pubtime":"PUBTIME","v":1}`,
	"ws-extra@1.2.3-beta.1": `{"name":"ws-extra","vers":"1.2.3-beta.1","deps":[],"cksum":"CKSUM","features":{"loud":[]},"yanked":false,"links":null,"rust_version":null,"pubtime":"PUBTIME","v":1}`,
	"ws-unix@0.1.7":         `{"name":"ws-unix","vers":"0.1.7","deps":[],"cksum":"CKSUM","features":{},"yanked":false,"links":null,"rust_version":null,"pubtime":"PUBTIME","v":1}`,
	"WS_Windows@0.1.0":      `{"name":"WS_Windows","vers":"0.1.0","deps":[],"cksum":"CKSUM","features":{},"yanked":false,"links":null,"rust_version":null,"pubtime":"PUBTIME","v":1}`,
	"ws-tool@1.0.0+build.5": `{"name":"ws-tool","vers":"1.0.0+build.5","deps":[],"cksum":"CKSUM","features":{"odd":[]},"yanked":false,"links":null,"rust_version":null,"pubtime":"PUBTIME","v":1}`,
	"ws-main@0.1.0": `{"name":"ws-main","vers":"0.1.0","deps":[` +
		`{"name":"renamed","req":"^0.2","features":[],"optional":false,"default_features":false,"target":null,"kind":"normal","registry":null,"package":"ws-core"},` +
		`{"name":"ws-extra","req":"^1.2.3-beta.1","features":[],"optional":true,"default_features":true,"target":null,"kind":"normal","registry":null,"package":null},` +
		`{"name":"ws-tool","req":"^1.0","features":["odd"],"optional":false,"default_features":false,"target":null,"kind":"dev","registry":null,"package":null},` +
		`{"name":"ws-tool","req":"^1","features":[],"optional":false,"default_features":true,"target":null,"kind":"build","registry":null,"package":null},` +
		`{"name":"ws-unix","req":">=0.1.2, <0.2","features":[],"optional":false,"default_features":true,"target":"cfg(unix)","kind":"normal","registry":null,"package":null},` +
		`{"name":"system","req":"~0.1","features":[],"optional":false,"default_features":true,"target":"cfg(windows)","kind":"normal","registry":null,"package":"WS_Windows"}` +
		`],"cksum":"CKSUM","features":{"default":["fast"],"fast":[]},` +
		`"features2":{"everything":["fast","extra","loud"],"extra":["dep:ws-extra"],"loud":["ws-extra?/loud","renamed/std"]},"yanked":false,"links":"wsmain","rust_version":"1.71.1","pubtime":"PUBTIME","v":2}`,
}

func TestCargoPublishesAWorkspaceAndBuildsOnIt(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	author := l.operator
	source := filepath.Join(author.folder, "ws")
	writeFiles(t, source, workspace)
	author.login(l, source)
	published := must(t, author.cargo(source, "publish", "--workspace", "--registry", "aln"))
	if said := strings.Count(published.stderr, "published as bafkrei"); said != len(workspaceLines) {
		t.Errorf("%d of %d crates said their CID:\n%s", said, len(workspaceLines), published)
	}
	checkLines(t, l)

	reader := l.newMember()
	app := filepath.Join(reader.folder, "app")
	writeFiles(t, app, map[string]string{
		"Cargo.toml": `[package]
name = "app"
version = "0.1.0"
edition = "2021"

[dependencies]
ws-main = { version = "0.1", registry = "aln", features = ["everything"] }
`,
		"src/main.rs": "fn main() { println!(\"{}\", ws_main::describe()); }\n",
	})
	reader.login(l, app)
	ran := must(t, reader.cargo(app, "run", "-q"))
	if got, want := strings.TrimSpace(ran.stdout), "true EXTRA unix plain 42"; got != want {
		t.Errorf("the app prints %q, want %q", got, want)
	}
	verified := must(t, reader.aln(app, "verify", "Cargo.lock"))
	wantSays(t, verified.stdout, "6 verified, 0 failed")
	checkResolver(t, l, reader, app)
}

// checkLines compares every field of every line of the workspace's crates.
func checkLines(t *testing.T, l *lab) {
	t.Helper()
	token := l.operator.session(particle.ScopeRead, 0)
	for version, want := range workspaceLines {
		name, number, _ := strings.Cut(version, "@")
		status, _, crate := l.get("/api/v1/crates/"+name+"/"+number+"/download", token)
		if status != 200 {
			t.Fatalf("download of %s: status %d: %s", version, status, crate)
		}
		lower := strings.ToLower(name)
		status, _, line := l.get("/index/"+lower[:2]+"/"+lower[2:4]+"/"+lower, token)
		if status != 200 {
			t.Errorf("%s: status %d: %s", name, status, line)
			continue
		}
		want = strings.Replace(want, "CKSUM", hexDigest(crate), 1)
		want = strings.Replace(want, "PUBTIME", l.entryTime(name, number, token), 1) + "\n"
		if string(line) != want {
			t.Errorf("%s:\n got %s\nwant %s", name, line, want)
		}
	}
}

// entryTime is the time of the log entry of a version.
func (l *lab) entryTime(name, version, token string) string {
	l.t.Helper()
	status, _, answer := l.get("/v1/artifacts/crate/"+name+"/"+version, token)
	_, text, _ := strings.Cut(string(answer), `"time":"`)
	text, _, ok := strings.Cut(text, `"`)
	if status != 200 || !ok {
		l.t.Fatalf("%s@%s: status %d: %s", name, version, status, answer)
	}
	return text
}

// checkResolver shows that cargo's resolver reads what is in the lines.
func checkResolver(t *testing.T, l *lab, u *user, app string) {
	t.Helper()
	resolve := func(dependencies string) result {
		folder := filepath.Join(u.folder, "resolve")
		os.Remove(filepath.Join(folder, "Cargo.lock"))
		writeFiles(t, folder, map[string]string{
			"Cargo.toml": "[package]\nname = \"resolve\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\n" + dependencies,
			"src/lib.rs": "",
		})
		u.login(l, folder)
		return u.cargo(folder, "generate-lockfile")
	}
	mustFail(t, resolve(`ws-extra = { version = "1", registry = "aln" }`), "ws-extra", "1.2.3-beta.1")
	must(t, resolve(`ws-tool = { version = "=1.0.0", registry = "aln" }`))
	mustFail(t, resolve(`ws-main = { version = "0.1", registry = "aln", features = ["ws-extra"] }`), "ws-extra")
	mustFail(t, resolve(`ws-main = { version = "0.1", registry = "aln", features = ["nothing"] }`), "nothing")

	rival := l.operator.crate("ws-rival", "0.1.0", "links = \"wscore\"", "")
	writeFiles(t, rival, map[string]string{"build.rs": "fn main() {}\n"})
	must(t, l.operator.publish(l, rival))
	mustFail(t, resolve("ws-core = { version = \"0.2\", registry = \"aln\" }\nws-rival = { version = \"0.1\", registry = \"aln\" }"), "wscore")
}
