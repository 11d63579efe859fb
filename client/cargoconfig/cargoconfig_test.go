package cargoconfig

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

const index = "sparse+http://127.0.0.1:8585/index/"

// inFile writes before to a configuration file ("": none), runs edit on its
// folder and returns what stands there then.
func inFile(t *testing.T, folder, before string, edit func(folder string) (Change, error)) (string, Change, error) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, folder, "config.toml")
	if before != "" {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(before), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	change, err := edit(dir)
	after, readErr := os.ReadFile(path)
	if readErr != nil && before != "" {
		t.Fatal(readErr)
	}
	if err == nil && change.Path != path {
		t.Errorf("says it looked at %s", change.Path)
	}
	if (string(after) != before) != change.Changed {
		t.Errorf("changed: %v", change.Changed)
	}
	return string(after), change, err
}

func setIndex(folder string) (Change, error) {
	return SetIndex(folder, filepath.Join(folder, "cargo"), "aln", index)
}

func setProvider(binary string) func(string) (Change, error) {
	return func(folder string) (Change, error) { return SetProvider(folder, binary) }
}

func TestSetIndexKeepsEverythingElse(t *testing.T) {
	line := `index = "` + index + `"`
	for name, test := range map[string]struct{ before, after string }{
		"no file":           {"", "[registries.aln]\n" + line + "\n"},
		"other settings":    {"# mine\n[build]\njobs = 2 # two\n", "# mine\n[build]\njobs = 2 # two\n\n[registries.aln]\n" + line + "\n"},
		"no newline at end": {"[build]\njobs = 2", "[build]\njobs = 2\n\n[registries.aln]\n" + line + "\n"},
		"windows lines":     {"[build]\r\njobs = 2\r\n", "[build]\r\njobs = 2\r\n\r\n[registries.aln]\r\n" + line + "\r\n"},
		"its table":         {"[registries.aln] # lab\n# why\ntoken = \"x\" # tok\n\n[build]\njobs = 2\n", "[registries.aln] # lab\n# why\ntoken = \"x\" # tok\n" + line + "\n\n[build]\njobs = 2\n"},
		"its empty table":   {"[registries.aln]\n[build]\njobs = 2\n", "[registries.aln]\n" + line + "\n[build]\njobs = 2\n"},
		"table without end": {"[registries.aln]", "[registries.aln]\n" + line + "\n"},
		"another registry":  {"[registries.other]\nindex = \"x\"\n", "[registries.other]\nindex = \"x\"\n\n[registries.aln]\n" + line + "\n"},
		"the parent table":  {"[registries]\nother = { index = \"x\" }\n", "[registries]\nother = { index = \"x\" }\n\n[registries.aln]\n" + line + "\n"},
		"dotted at the top": {"registries.other.index = \"x\"\n[build]\njobs = 2\n", "registries.other.index = \"x\"\nregistries.aln." + line + "\n[build]\njobs = 2\n"},
		"dotted":            {"[registries]\naln.token = \"x\"\n", "[registries]\naln.token = \"x\"\naln." + line + "\n"},
		"quoted":            {"[\"registries\".'aln']\n'token' = \"\"\"\nx\n[y]\n\"\"\"\n", "[\"registries\".'aln']\n'token' = \"\"\"\nx\n[y]\n\"\"\"\n" + line + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			after, change, err := inFile(t, ".cargo", test.before, setIndex)
			if err != nil || after != test.after || !change.Changed {
				t.Fatalf("%v\n%s", err, after)
			}
			again, change, err := inFile(t, ".cargo", after, setIndex)
			if err != nil || again != after || change.Changed {
				t.Errorf("again: %v\n%s", err, again)
			}
		})
	}
}

func TestSetIndexLeavesWhatItCannotEdit(t *testing.T) {
	for name, before := range map[string]string{
		"malformed":         "[registries\n",
		"inline parent":     "registries = { other = { index = \"x\" } }\n",
		"inline table":      "[registries]\naln = { token = \"x\" }\n",
		"no table":          "registries = 3\n",
		"list of tables":    "[[registries]]\nx = 1\n",
		"a text for itself": "[registries]\naln = \"x\"\n",
		"byte order mark":   "\ufeff[build\n",
	} {
		t.Run(name, func(t *testing.T) {
			after, _, err := inFile(t, ".cargo", before, setIndex)
			var manual *ManualError
			if !errors.Is(err, ErrManual) || !errors.As(err, &manual) || after != before {
				t.Fatalf("%v\n%s", err, after)
			}
			if manual.Lines != "[registries.aln]\nindex = \""+index+"\"\n" || !strings.Contains(err.Error(), manual.Lines) {
				t.Errorf("says %v", err)
			}
		})
	}
	before := "[registries]\naln = { index = \"" + index + "\" }\n"
	if after, change, err := inFile(t, ".cargo", before, setIndex); err != nil || change.Changed || after != before {
		t.Errorf("inline but right: %v", err)
	}
}

func TestSetIndexDoesNotTakeANameOver(t *testing.T) {
	before := "[registries.aln]\nindex = \"sparse+https://other.example/index/\"\n"
	if after, _, err := inFile(t, ".cargo", before, setIndex); !errors.Is(err, ErrNameTaken) || after != before || !strings.Contains(err.Error(), "other.example") {
		t.Errorf("%v\n%s", err, after)
	}
}

// Cargo refuses to work at all where two names stand for one index.
func TestSetIndexGivesOneNameToARegistry(t *testing.T) {
	before := "[registries.other]\nindex = \"" + index + "\"\n"
	if after, _, err := inFile(t, ".cargo", before, setIndex); !errors.Is(err, ErrNameTaken) || after != before || !strings.Contains(err.Error(), `"other"`) {
		t.Errorf("%v\n%s", err, after)
	}
	for name, slash := range map[string]string{"other": "", "aln": "", "slash": "/"} {
		elsewhere := "[registries." + name + "]\nindex = \"" + strings.TrimSuffix(index, "/") + slash + "\"\n"
		if name == "other" {
			elsewhere += "[registries.aln]\nindex = \"sparse+https://other.example/index/\"\n"
		}
		for _, where := range []string{".cargo", "home"} {
			root := t.TempDir()
			project := filepath.Join(root, "group", "project")
			file := filepath.Join(root, where, "config.toml")
			for path, data := range map[string]string{file: elsewhere, filepath.Join(project, "Cargo.toml"): ""} {
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(data), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			change, err := SetIndex(project, filepath.Join(root, "home"), "aln", index)
			if name == "aln" {
				if err != nil || !change.Changed {
					t.Errorf("the same name in %s: %v", where, err)
				}
				continue
			}
			if !errors.Is(err, ErrNameTaken) || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), `"`+name+`"`) {
				t.Errorf("called %s in %s: %v", name, where, err)
			}
			if _, err := os.Stat(filepath.Join(project, ".cargo")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("called %s in %s: something was written", name, where)
			}
		}
	}
	for _, name := range []string{"", "we ird", "a.b", "ä", "a\nb"} {
		if _, err := SetIndex(t.TempDir(), t.TempDir(), name, index); !errors.Is(err, ErrName) {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

// drive makes paths absolute on Windows.
var drive = filepath.VolumeName(os.TempDir())

func TestSetProvider(t *testing.T) {
	ours := drive + "/opt/bin/aln-registry"
	for name, test := range map[string]struct{ binary, before, after string }{
		"no file":       {ours, "", "[registry]\nglobal-credential-providers = [\"cargo:token\", \"" + ours + "\"]\n"},
		"registry":      {ours, "[registry]\ndefault = \"aln\" # x\n", "[registry]\ndefault = \"aln\" # x\nglobal-credential-providers = [\"cargo:token\", \"" + ours + "\"]\n"},
		"behind others": {ours, "[registry]\nglobal-credential-providers = ['cargo:token', \"cargo:libsecret\"] # mine\n", "[registry]\nglobal-credential-providers = ['cargo:token', \"cargo:libsecret\", \"" + ours + "\"] # mine\n"},
		"many lines":    {ours, "[registry]\nglobal-credential-providers = [\n  \"cargo:token\", # the default\n]\n", "[registry]\nglobal-credential-providers = [\n  \"cargo:token\", \"" + ours + "\", # the default\n]\n"},
		"empty list":    {ours, "registry.global-credential-providers = [ ]\n", "registry.global-credential-providers = [\"cargo:token\", \"" + ours + "\"]\n"},
		"older path":    {ours, "[registry]\nglobal-credential-providers = [\"cargo:token\", \"/old/aln-registry\", \"z\"]\n", "[registry]\nglobal-credential-providers = [\"cargo:token\", \"" + ours + "\", \"z\"]\n"},
		"with a space": {drive + "/my bin/aln-registry", "[registry]\nglobal-credential-providers = [\"cargo:token\", \"/old/aln-registry\"]\n",
			"[registry]\nglobal-credential-providers = [\"cargo:token\", \"aln-registry\"]\n\n[credential-alias]\naln-registry = [\"" + drive + "/my bin/aln-registry\"]\n"},
		"older path with a space": {drive + "/my bin/aln-registry", "[credential-alias]\naln-registry = [\"/old bin/aln-registry\"]\n[registry]\nglobal-credential-providers = [\"aln-registry\"]\n",
			"[credential-alias]\naln-registry = [\"" + drive + "/my bin/aln-registry\"]\n[registry]\nglobal-credential-providers = [\"aln-registry\"]\n"},
		"space no longer": {ours, "[registry]\nglobal-credential-providers = [\"cargo:token\", \"aln-registry\"]\n", "[registry]\nglobal-credential-providers = [\"cargo:token\", \"" + ours + "\"]\n"},
		"quotes in path":  {drive + `/a"b\c/aln-registry`, "", "[registry]\nglobal-credential-providers = [\"cargo:token\", \"" + drive + "/a\\\"b\\\\c/aln-registry\"]\n"},
	} {
		t.Run(name, func(t *testing.T) {
			after, _, err := inFile(t, "", test.before, setProvider(test.binary))
			if err != nil || after != test.after {
				t.Fatalf("%v\n%s", err, after)
			}
			if again, change, err := inFile(t, "", after, setProvider(test.binary)); err != nil || change.Changed {
				t.Errorf("again: %v\n%s", err, again)
			}
		})
	}
}

func TestSetProviderLeavesWhatItCannotEdit(t *testing.T) {
	for name, test := range map[string]struct{ binary, before, lines string }{
		"inline":          {drive + "/b/aln-registry", "registry = { default = \"x\" }\n", "[registry]\nglobal-credential-providers = [\"cargo:token\", \"" + drive + "/b/aln-registry\"]\n"},
		"inline, with it": {drive + "/b/aln-registry", "registry = { global-credential-providers = [\"cargo:token\"] }\n", "[registry]\n"},
		"a text":          {drive + "/b/aln-registry", "[registry]\nglobal-credential-providers = \"cargo:token\"\n", "[registry]\n"},
		"alias taken":     {drive + "/b c/aln-registry", "[credential-alias]\naln-registry = \"/usr/bin/else\"\n", "[credential-alias]\naln-registry = [\"" + drive + "/b c/aln-registry\"]\n\n[registry]\nglobal-credential-providers = [\"cargo:token\", \"aln-registry\"]\n"},
	} {
		after, _, err := inFile(t, "", test.before, setProvider(test.binary))
		var manual *ManualError
		if !errors.As(err, &manual) || after != test.before || !strings.HasPrefix(manual.Lines, test.lines) {
			t.Errorf("%s: %v\n%s", name, err, after)
		}
	}
	for _, binary := range []string{"aln-registry", "./aln-registry", drive + "/a\nb/aln-registry", drive + "/\xff/aln-registry", ""} {
		if _, _, err := inFile(t, "", "", setProvider(binary)); !errors.Is(err, ErrBinary) {
			t.Errorf("%q: %v", binary, err)
		}
	}
}

func TestRegistries(t *testing.T) {
	for name, test := range map[string]struct {
		config string
		want   map[string]string
	}{
		"none":     {"[build]\njobs = 1\n", map[string]string{}},
		"two":      {"[registries.aln]\nindex = \"" + index + "\"\n[registries]\nb.index = \"x\"\n", map[string]string{"aln": index, "b": "x"}},
		"no index": {"[registries]\naln = 3\n[registries.b]\ntoken = \"x\"\n", map[string]string{}},
		"no table": {"registries = 3\n", map[string]string{}},
	} {
		folder := t.TempDir()
		if err := os.WriteFile(filepath.Join(folder, "config.toml"), []byte(test.config), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := Registries(folder); err != nil || !maps.Equal(got, test.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	folder := t.TempDir()
	if got, err := Registries(filepath.Join(folder, "none")); err != nil || len(got) != 0 {
		t.Errorf("no folder: %v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(folder, "config"), []byte("[registries"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := Registries(folder); err == nil {
		t.Errorf("broken: %v", got)
	}
}

// FuzzEdit edits any text: the outcome means the same and one thing more, or
// the text is left alone; a second time changes nothing.
func FuzzEdit(f *testing.F) {
	f.Add("[registry]\nglobal-credential-providers = [\"a\"] # x\n[registries.b]\n", false)
	f.Add("registries.b.index = 1\r\n[[x]]\r\ny = {a = [1, {b = 2}]}", true)
	f.Add("a.b.c = 1\n[registry]\n[credential-alias]\naln-registry = \"aln-registry x\"", true)
	f.Fuzz(func(t *testing.T, text string, space bool) {
		d, err := parse([]byte(text))
		if err != nil {
			return
		}
		var before map[string]any
		if err := toml.Unmarshal([]byte(text), &before); err != nil {
			t.Fatal(err)
		}
		if err := d.insertBoth(space); err != nil {
			return
		}
		if d.edited && d.check() != nil {
			return // left alone
		}
		again, err := parse(d.text)
		if err != nil {
			t.Fatalf("%v\n%s", err, d.text)
		}
		if err := again.insertBoth(space); err != nil || again.edited {
			t.Fatalf("again: %v\n%s", err, again.text)
		}
		for key, value := range before {
			if key != "registry" && key != "registries" && key != "credential-alias" && !reflect.DeepEqual(again.decoded[key], value) && value == value {
				t.Fatalf("%s changed from %v to %v", key, value, again.decoded[key])
			}
		}
	})
}

func (d *document) insertBoth(space bool) error {
	if _, found := lookup(d.decoded, "registries", "aln", "index"); !found {
		if err := d.insert([]string{"registries", "aln", "index"}, `"x"`, "x"); err != nil {
			return err
		}
	}
	if space {
		if err := d.setAlias("/a b/aln-registry"); err != nil {
			return err
		}
		return d.setProvider(alias)
	}
	return d.setProvider("/a/aln-registry")
}
