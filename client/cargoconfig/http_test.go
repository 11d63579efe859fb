package cargoconfig

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSetCAInfo(t *testing.T) {
	const bundle = "/home/ada/aln/ca/cargo.pem"
	setCAInfo := func(folder string) (Change, error) { return SetCAInfo(folder, bundle) }
	for name, test := range map[string]struct{ before, after string }{
		"no file":   {"", "[http]\ncainfo = \"" + bundle + "\"\n"},
		"its table": {"[http]\nproxy = \"p:1\" # mine\n", "[http]\nproxy = \"p:1\" # mine\ncainfo = \"" + bundle + "\"\n"},
		"set":       {"[http]\ncainfo = '" + bundle + "'\n", "[http]\ncainfo = '" + bundle + "'\n"},
	} {
		after, change, err := inFile(t, "", test.before, setCAInfo)
		if err != nil || after != test.after || change.Changed == (name == "set") {
			t.Errorf("%s: %+v, %v\n%s", name, change, err, after)
		}
	}
	other := "[http]\ncainfo = \"/etc/their.pem\"\n"
	after, change, err := inFile(t, "", other, setCAInfo)
	if !errors.Is(err, ErrCAInfo) || after != other || change.Changed || !strings.Contains(err.Error(), "/etc/their.pem") {
		t.Errorf("%v\n%s", err, after)
	}
}

// Cargo reads them from 1.94 on.
func TestWhatAConfigurationIncludesCounts(t *testing.T) {
	home, project := t.TempDir(), t.TempDir()
	for path, text := range map[string]string{
		filepath.Join(project, ".cargo", "config.toml"): "include = [\"a.toml\", { path = \"deep/b.toml\", optional = true }, \"gone.toml\", \"secret.jwk\"]\n[http]\nproxy = \"own\"\n[registry]\nglobal-credential-providers = [\"cargo:token\"]\n",
		filepath.Join(project, ".cargo", "a.toml"):      "[http]\nproxy = \"a\"\ntimeout = \"a\"\ncainfo = \"a\"\n[registries.lab]\nindex = \"" + proxied + "\"\n",
		filepath.Join(project, ".cargo", "deep/b.toml"): "include = \"c.toml\"\n[http]\ncainfo = \"b\"\n[registry]\nglobal-credential-providers = [\"/opt/aln-registry\"]\n",
		filepath.Join(project, ".cargo", "deep/c.toml"): "[http]\ntimeout = \"c\"\n[source.crates-io]\nreplace-with = \"lab\"\n",
		filepath.Join(project, ".cargo", "secret.jwk"):  "[http]\nuser-agent = \"read\"\n",
		filepath.Join(home, "config.toml"):              "[http]\ntimeout = \"home\"\n",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for key, want := range map[string]string{"proxy": "own", "cainfo": "b", "timeout": "c", "user-agent": ""} {
		if setting, _, err := Lookup(project, home, "http", key); err != nil || setting.Text() != want {
			t.Errorf("%s: %+v, %v", key, setting, err)
		}
	}
	if now, err := Replacement(project, home); err != nil || now.Text() != proxied {
		t.Errorf("in the place of crates.io: %+v, %v", now, err)
	}
	if p, err := FindProvider(project, home); err != nil || p.Program != "/opt/aln-registry" {
		t.Errorf("provider: %+v, %v", p, err)
	}
	if _, err := SetIndex(project, home, "aln", proxied); !errors.Is(err, ErrNameTaken) {
		t.Errorf("a second name: %v", err)
	}
	if err := os.WriteFile(filepath.Join(project, ".cargo", "a.toml"), []byte("include = \"a.toml\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Lookup(project, home, "http", "proxy"); err == nil || !strings.Contains(err.Error(), "itself") {
		t.Errorf("one that includes itself: %v", err)
	}
}

func TestLookupFindsWhatCargoFinds(t *testing.T) {
	top := t.TempDir()
	home := filepath.Join(top, "home", ".cargo")
	deep := filepath.Join(top, "home", "work", "member")
	for path, text := range map[string]string{
		filepath.Join(home, "config.toml"):                               "[http]\nproxy = \"home\"\ncainfo = \"home\"\n[net]\nretry = 3\n",
		filepath.Join(top, "home", "work", ".cargo", "config.toml"):      "[http]\nproxy = \"work\"\n",
		filepath.Join(top, "home", "work", "member", ".cargo", "config"): "[build]\njobs = 1\n",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ dir, key, want string }{
		{deep, "proxy", "work"}, {deep, "cainfo", "home"}, {top, "proxy", "home"}, {filepath.Join(top, "home"), "proxy", "home"}, {deep, "nothing", ""},
	} {
		setting, found, err := Lookup(test.dir, home, "http", test.key)
		if err != nil || setting.Text() != test.want || found != (test.want != "") {
			t.Errorf("%s in %s: %+v, %v", test.key, test.dir, setting, err)
		}
	}
	if setting, found, err := Lookup(deep, home, "net", "retry"); err != nil || !found || setting.Text() != "" || setting.Value != int64(3) {
		t.Errorf("a number: %+v, %v", setting, err)
	}
	if err := os.WriteFile(filepath.Join(home, "config.toml"), []byte("[http"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Lookup(top, home, "http", "proxy"); err == nil || !strings.Contains(err.Error(), "not valid TOML") {
		t.Errorf("%v", err)
	}
}

const newIndex = "sparse+https://new.example/index/"

func TestMoveIndexMovesConfigurationAndLock(t *testing.T) {
	dir := t.TempDir()
	lock := "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"" + index + "\"\nchecksum = \"00\"\ndependencies = [\n \"b 0.1.0 (" + index + ")\",\n]\n"
	config := "[registries.lab] # ours\nindex = \"" + index + "\"\n[registries.other]\nindex = \"" + index + "x/\"\n"
	for name, text := range map[string]string{".cargo/config.toml": config, "Cargo.lock": lock} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for round, changed := range []bool{true, false} {
		changes, err := MoveIndex(dir, index, newIndex)
		if err != nil || len(changes) != 2 || changes[0].Changed != changed || changes[1].Changed != changed {
			t.Fatalf("round %d: %+v, %v", round, changes, err)
		}
	}
	if got, want := read1(t, dir, ".cargo/config.toml"), strings.Replace(config, index, newIndex, 1); got != want {
		t.Errorf("configuration is\n%s", got)
	}
	if got, want := read1(t, dir, "Cargo.lock"), strings.ReplaceAll(lock, index, newIndex); got != want {
		t.Errorf("lock file is\n%s", got)
	}
}

func read1(t *testing.T, dir, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestMoveIndexDoesNotGiveOneRegistryTwoNames(t *testing.T) {
	before := "[registries.lab]\nindex = \"" + index + "\"\n[registries.two]\nindex = \"" + newIndex + "\"\n"
	after, _, err := inFile(t, ".cargo", before, func(folder string) (Change, error) {
		changes, err := MoveIndex(folder, index, newIndex)
		return append(changes, Change{})[0], err
	})
	if !errors.Is(err, ErrManual) || after != before {
		t.Errorf("%v\n%s", err, after)
	}
	changes, err := MoveIndex(t.TempDir(), index, newIndex)
	if err != nil || changes[0].Changed || changes[1].Changed {
		t.Errorf("an empty project: %+v, %v", changes, err)
	}
}

func TestFindProviderJoinsListsAsCargoDoes(t *testing.T) {
	dir, home := t.TempDir(), t.TempDir()
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	mine, project := filepath.Join(home, "config.toml"), filepath.Join(dir, ".cargo", "config.toml")
	for _, test := range []struct{ home, project, program, path string }{
		{"", "", "", ""},
		{"[registry]\nglobal-credential-providers = [\"cargo:token\"]\n", "", "", ""},
		{"[registry]\nglobal-credential-providers = [\"cargo:token\", \"/bin/aln-registry\"]\n", "", "/bin/aln-registry", mine},
		{"[registry]\nglobal-credential-providers = [\"/bin/aln-registry\"]\n", "[registry]\nglobal-credential-providers = [\"cargo:token\"]\n", "/bin/aln-registry", mine},
		{"", "[registry]\nglobal-credential-providers = [\"/usr/bin/aln-registry\"]\n", "/usr/bin/aln-registry", project},
		{"[credential-alias]\naln-registry = [\"/with space/aln-registry\"]\n[registry]\nglobal-credential-providers = [\"aln-registry\"]\n", "", "/with space/aln-registry", mine},
	} {
		write(mine, test.home)
		write(project, test.project)
		p, err := FindProvider(dir, home)
		if err != nil || p.Program != test.program || p.Path != test.path {
			t.Errorf("%q and %q: %+v, %v", test.home, test.project, p, err)
		}
	}
}

func TestHasCredentialLooksWhereCargoDoes(t *testing.T) {
	home := t.TempDir()
	for _, test := range []struct {
		file, text string
		want, bad  bool
	}{
		{"credentials.toml", "[registries.other]\ntoken = \"x\"\n", false, false},
		{"credentials.toml", "[registries.aln]\ntoken = \"x\"\n", true, false},
		{"credentials.toml", "[registries.aln]\ntoken = \"hidden\n", false, true},
		{"credentials", "[registries.aln]\ntoken = \"x\"\n", true, false},
	} {
		if err := os.WriteFile(filepath.Join(home, test.file), []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := HasCredential(home, "aln")
		if got != test.want || (err != nil) != test.bad || err != nil && strings.Contains(err.Error(), "hidden") {
			t.Errorf("%q: %v, %v", test.text, got, err)
		}
	}
	if got, err := HasCredential(t.TempDir(), "aln"); got || err != nil {
		t.Errorf("no file: %v, %v", got, err)
	}
}

// FuzzConfig reads any text as cargo's configuration and as its file of
// credentials: what is found is what stands there, and no error repeats a secret.
func FuzzConfig(f *testing.F) {
	f.Add("[http]\ncainfo = \"/ca.pem\"\nproxy = \"p\"\n[registry]\nglobal-credential-providers = [\"cargo:token\", \"aln-registry\"]\n[credential-alias]\naln-registry = [\"/a b/aln-registry\"]\n")
	f.Add("[registries.aln]\ntoken = \"sesame-sesame\"\n")
	f.Add("registry.global-credential-providers = [[\"a\"], {b = 1}, \"x y\", \"\"]\ncredential-alias.x = 1\n")
	f.Add("a = 1\na = 2\nregistries.aln.token = \"sesame-sesame\"")
	f.Add("[registries]\naln = \"sesame-sesame\"\n\x00")
	dir, home := f.TempDir(), f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		for _, path := range []string{filepath.Join(home, "config.toml"), filepath.Join(home, "credentials.toml")} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if s, found, err := Lookup(dir, home, "http", "cainfo"); err == nil && found && s.Path == "" {
			t.Errorf("found %v nowhere", s.Value)
		}
		if p, err := FindProvider(dir, home); err == nil && p.Program != "" && !isOurs(p.Program) {
			t.Errorf("the provider %q", p.Program)
		}
		if _, err := HasCredential(home, "aln"); err != nil && strings.Contains(err.Error(), "sesame") {
			t.Errorf("an error that shows a secret: %v", err)
		}
	})
}
