package cargoconfig

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const proxied = "sparse+http://127.0.0.1:8585/crates-io/index/"

func replaceCratesIO(folder string) (Change, error) { return ReplaceCratesIO(folder, proxied) }

const replacedTables = "[source.crates-io]\nreplace-with = \"aln-crates-io\"\n\n[source.aln-crates-io]\nregistry = \"" + proxied + "\"\n"

func TestReplacingCratesIOKeepsEverythingElse(t *testing.T) {
	for name, test := range map[string]struct{ before, after, restored string }{
		"no file":        {"", replacedTables, ""},
		"other settings": {"# mine\n[build]\njobs = 2 # two\n", "# mine\n[build]\njobs = 2 # two\n\n" + replacedTables, "# mine\n[build]\njobs = 2 # two\n"},
		"a table of it": {
			"[source.crates-io]\n# as it is\nprotocol = \"sparse\" # quick\n", "[source.crates-io]\n# as it is\nprotocol = \"sparse\" # quick\nreplace-with = \"aln-crates-io\"\n\n[source.aln-crates-io]\nregistry = \"" + proxied + "\"\n",
			"[source.crates-io]\n# as it is\nprotocol = \"sparse\" # quick\n",
		},
		"a comment within": {
			"[source.crates-io]\n# why\nreplace-with = \"aln-crates-io\"\n", "[source.crates-io]\n# why\nreplace-with = \"aln-crates-io\"\n\n[source.aln-crates-io]\nregistry = \"" + proxied + "\"\n",
			"[source.crates-io]\n# why\n",
		},
		"another place of ours": {
			"[source.crates-io]\nreplace-with = \"aln-crates-io\"\n[source.aln-crates-io]\nregistry = \"sparse+https://old.example/crates-io/index/\" # old\n[net]\nretry = 1\n",
			"[source.crates-io]\nreplace-with = \"aln-crates-io\"\n[source.aln-crates-io]\nregistry = \"" + proxied + "\" # old\n[net]\nretry = 1\n", "[net]\nretry = 1\n",
		},
		"comments around the place": {
			"[source.crates-io]\nreplace-with = \"aln-crates-io\"\n\n[source.aln-crates-io]\n# the lab's\nregistry = \"" + proxied + "\"\n# ask Ada\n[net]\nretry = 1\n",
			"[source.crates-io]\nreplace-with = \"aln-crates-io\"\n\n[source.aln-crates-io]\n# the lab's\nregistry = \"" + proxied + "\"\n# ask Ada\n[net]\nretry = 1\n",
			"\n# the lab's\n# ask Ada\n[net]\nretry = 1\n",
		},
		"dotted keys": {
			"source.crates-io.replace-with = \"aln-crates-io\"\n", "source.crates-io.replace-with = \"aln-crates-io\"\nsource.aln-crates-io.registry = \"" + proxied + "\"\n", "",
		},
		"there already":     {replacedTables, replacedTables, ""},
		"windows lines":     {"[build]\r\njobs = 2\r\n", "[build]\r\njobs = 2\r\n\r\n[source.crates-io]\r\nreplace-with = \"aln-crates-io\"\r\n\r\n[source.aln-crates-io]\r\nregistry = \"" + proxied + "\"\r\n", "[build]\r\njobs = 2\r\n"},
		"no newline at end": {"[build]\njobs = 2", "[build]\njobs = 2\n\n" + replacedTables, "[build]\njobs = 2\n"},
	} {
		t.Run(name, func(t *testing.T) {
			after, _, err := inFile(t, ".cargo", test.before, replaceCratesIO)
			if err != nil || after != test.after {
				t.Fatalf("%v\n%s\nnot\n%s", err, after, test.after)
			}
			again, change, err := inFile(t, ".cargo", after, replaceCratesIO)
			if err != nil || change.Changed || again != after {
				t.Errorf("again: %v\n%s", err, again)
			}
			restored, _, err := inFile(t, ".cargo", after, RestoreCratesIO)
			if err != nil || restored != test.restored {
				t.Errorf("restored: %v\n%q\nnot\n%q", err, restored, test.restored)
			}
			if _, change, err := inFile(t, ".cargo", restored, RestoreCratesIO); err != nil || change.Changed {
				t.Errorf("restored again: %v, %v", change, err)
			}
		})
	}
}

func TestWhatStandsInThePlaceOfCratesIOAlreadyStays(t *testing.T) {
	vendored := "[source.crates-io]\nreplace-with = \"vendored-sources\"\n\n[source.vendored-sources]\ndirectory = \"vendor\"\n"
	after, _, err := inFile(t, ".cargo", vendored, replaceCratesIO)
	if !errors.Is(err, ErrReplaced) || after != vendored {
		t.Errorf("%v\n%s", err, after)
	}
	if after, change, err := inFile(t, ".cargo", vendored, RestoreCratesIO); err != nil || change.Changed || after != vendored {
		t.Errorf("restored: %v\n%s", err, after)
	}
	inline := "source = { crates-io = { protocol = \"sparse\" } }\n"
	if after, _, err := inFile(t, ".cargo", inline, replaceCratesIO); !errors.Is(err, ErrManual) || after != inline {
		t.Errorf("%v\n%s", err, after)
	}
}

// Cargo ends on two sources of one registry, whatever file each is from, used or not.
func TestASecondSourceOfTheRegistryIsRefused(t *testing.T) {
	corp := "[source.corp]\nregistry = \"" + strings.TrimSuffix(proxied, "/") + "\"\n"
	other := "[source.corp]\nregistry = \"sparse+https://other.example/index/\"\n"
	for name, test := range map[string]struct {
		project, home string
		refused       bool
	}{
		"none":                      {"", "", false},
		"in CARGO_HOME":             {"", corp, true},
		"in the project":            {corp, "", true},
		"of another registry":       {other, other, false},
		"a nearer file says better": {other, corp, false},
		"in place, and there":       {"[source.crates-io]\nreplace-with = \"corp\"\n" + corp, "", true},
		"included":                  {"include = [\"more.toml\"]\n", "", true},
		"our own":                   {replacedTables, replacedTables, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir, home := t.TempDir(), t.TempDir()
			for folder, text := range map[string]string{filepath.Join(dir, ".cargo"): test.project, home: test.home} {
				if err := errors.Join(os.MkdirAll(folder, 0o755), os.WriteFile(filepath.Join(folder, "config.toml"), []byte(text), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(dir, ".cargo", "more.toml"), []byte(corp), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := MayReplaceCratesIO(dir, home, proxied); errors.Is(err, ErrReplaced) != test.refused || err != nil != test.refused {
				t.Error(err)
			}
		})
	}
}

func TestReplacementIsWhatCargoTakes(t *testing.T) {
	dir := t.TempDir()
	home := filepath.Join(dir, "home")
	project := filepath.Join(dir, "project")
	if now, err := Replacement(project, home); err != nil || now.Text() != "" {
		t.Errorf("%+v, %v", now, err)
	}
	change, err := ReplaceCratesIO(project, proxied)
	if err != nil {
		t.Fatal(err)
	}
	if now, err := Replacement(filepath.Join(project, "src"), home); err != nil || now.Text() != proxied || now.Path != change.Path {
		t.Errorf("%+v, %v", now, err)
	}
}
