package cargoconfig

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// project writes files below a new folder: the project, and home as CARGO_HOME.
func project(t *testing.T, files map[string]string) (root, home string) {
	t.Helper()
	top := t.TempDir()
	for name, text := range files {
		path := filepath.Join(top, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(top, "p"), filepath.Join(top, "home")
}

const crate = "[package]\nname = \"x\"\nversion = \"0.1.0\"\n"

func TestOverrides(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  []string // KIND WHAT -> TO
	}{
		"none":                              {map[string]string{"p/Cargo.toml": crate + "[dependencies]\nserde = \"1\"\n"}, nil},
		"patch":                             {map[string]string{"p/Cargo.toml": crate + "[patch.crates-io]\nserde = { path = \"v\" }\n[patch.aln]\nb = { git = \"https://g\" }\n"}, []string{"patch b -> git https://g", "patch serde -> path v"}},
		"replace":                           {map[string]string{"p/Cargo.toml": crate + "[replace]\n\"serde:1.0.0\" = { git = \"https://g\" }\n"}, []string{"patch serde:1.0.0 -> git https://g"}},
		"a path within":                     {map[string]string{"p/Cargo.toml": crate + "[dependencies]\nv = { path = \"v\" }\n", "p/v/Cargo.toml": crate}, nil},
		"a path without":                    {map[string]string{"p/Cargo.toml": crate + "[dependencies]\nv = { path = \"../v\" }\n", "v/Cargo.toml": crate}, []string{"path dependency v -> ../v"}},
		"a path to none":                    {map[string]string{"p/Cargo.toml": crate + "[dependencies]\nv = { path = \"v\" }\n"}, []string{"path dependency v -> v"}},
		"from a member":                     {map[string]string{"p/Cargo.toml": "[workspace]\nmembers = [\"m/*\"]\n", "p/m/a/Cargo.toml": crate + "[target.'cfg(unix)'.build-dependencies]\nv = { path = \"../../../v\" }\n", "v/Cargo.toml": crate}, []string{"path dependency v -> ../../../v"}},
		"by way of one":                     {map[string]string{"p/Cargo.toml": crate + "[dev_dependencies]\nv = { path = \"v\" }\n", "p/v/Cargo.toml": crate + "[dependencies]\nw = { path = \"../../w\" }\n", "w/Cargo.toml": crate}, []string{"path dependency w -> ../../w"}},
		"shared":                            {map[string]string{"p/Cargo.toml": "[workspace]\n[workspace.dependencies]\nv = { path = \"../v\" }\n", "v/Cargo.toml": crate}, []string{"path dependency v -> ../v"}},
		"a member beside":                   {map[string]string{"p/Cargo.toml": crate + "[workspace]\nmembers = [\"../v\"]\n[dependencies]\nv = { path = \"../v\" }\n", "v/Cargo.toml": crate}, nil},
		"members in circles":                {map[string]string{"p/Cargo.toml": crate + "[dependencies]\nv = { path = \"v\" }\n", "p/v/Cargo.toml": crate + "[dependencies]\nx = { path = \"..\" }\n"}, nil},
		"paths":                             {map[string]string{"p/Cargo.toml": crate, "p/.cargo/config.toml": "paths = [\"/over\"]\n"}, []string{"paths  -> /over"}},
		"patch at home":                     {map[string]string{"p/Cargo.toml": crate, "home/config.toml": "[patch.crates-io]\nserde = { path = \"v\" }\n"}, []string{"patch serde -> path v"}},
		"include":                           {map[string]string{"p/Cargo.toml": crate, "p/.cargo/config.toml": "include = \"more.toml\"\n"}, []string{"include  -> more.toml"}},
		"vendored":                          {map[string]string{"p/Cargo.toml": crate, "p/.cargo/config.toml": "[source.crates-io]\nreplace-with = \"vendored\"\n[source.vendored]\ndirectory = \"vendor\"\n"}, []string{"source replacement crates-io -> directory vendor"}},
		"across files":                      {map[string]string{"p/Cargo.toml": crate, "p/.cargo/config.toml": "[source.crates-io]\nreplace-with = \"a\"\n", "home/config.toml": "[source.a]\nreplace-with = \"b\"\n[source.b]\nregistry = \"sparse+https://r/\"\n"}, []string{"source replacement a -> sparse+https://r/", "source replacement crates-io -> sparse+https://r/"}},
		"by a registry":                     {map[string]string{"p/Cargo.toml": crate, "p/.cargo/config.toml": "[source.crates-io]\nreplace-with = \"r\"\n[registries.r]\nindex = \"sparse+https://r/\"\n"}, []string{"source replacement crates-io -> sparse+https://r/"}},
		"a source before a registry's name": {map[string]string{"p/Cargo.toml": crate, "p/.cargo/config.toml": "[source.crates-io]\nreplace-with = \"r\"\n[registries.r]\nindex = \"sparse+https://r/\"\n", "home/config.toml": "[source.r]\ndirectory = \"vendor\"\n"}, []string{"source replacement crates-io -> directory vendor"}},
		"in a circle":                       {map[string]string{"p/Cargo.toml": crate, "p/.cargo/config.toml": "[source.a]\nreplace-with = \"b\"\n[source.b]\nreplace-with = \"a\"\n"}, []string{"source replacement a -> a", "source replacement b -> b"}},
		"another place":                     {map[string]string{"p/Cargo.toml": crate, "p/.cargo/config.toml": "[source.crates-io]\nregistry = \"https://evil\"\n"}, []string{"source replacement crates-io -> https://evil"}},
		"only defined":                      {map[string]string{"p/Cargo.toml": crate, "p/.cargo/config.toml": "[source.a]\nregistry = \"https://a\"\n"}, nil},
		"no manifest":                       {map[string]string{"p/Cargo.lock": ""}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			root, home := project(t, c.files)
			found, err := Overrides(root, root, home)
			var got []string
			for _, o := range found {
				got = append(got, o.Kind+" "+o.What+" -> "+o.To)
				if o.File == "" {
					t.Errorf("%+v stands in no file", o)
				}
			}
			slices.Sort(got)
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v; %v", got, c.want, err)
			}
		})
	}
}

// What cannot be read is no project without overrides.
func TestOverridesOfWhatCannotBeReadIsAnError(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"manifest":      {"p/Cargo.toml": "[package"},
		"a member's":    {"p/Cargo.toml": "[workspace]\nmembers = [\"a\"]\n", "p/a/Cargo.toml": "[package"},
		"configuration": {"p/Cargo.toml": crate, "p/.cargo/config.toml": "[source"},
		"home":          {"p/Cargo.toml": crate, "home/config.toml": "[source"},
		"too long":      {"p/Cargo.toml": crate + strings.Repeat("#\n", maxFile)},
	} {
		root, home := project(t, files)
		if found, err := Overrides(root, root, home); err == nil {
			t.Errorf("%s: %+v", name, found)
		}
	}
}

// No manifest or configuration makes the walk fail in another way than by an error.
func FuzzOverrides(f *testing.F) {
	f.Add(crate+"[dependencies]\nv = { path = \"..\" }\n[patch.x]\na = 1\n", "[source.x]\nreplace-with = 1\npaths = 3\n")
	f.Add("workspace = 1\npatch = []\nreplace = 2\ntarget = 3\ndependencies = [1]\n", "source = 1\npatch = 2\npaths = [[]]\n")
	f.Fuzz(func(t *testing.T, manifest, config string) {
		root, home := project(t, map[string]string{"p/Cargo.toml": manifest, "home/config.toml": config})
		for _, o := range must(Overrides(root, root, home)) {
			if o.Kind == "" || o.File == "" {
				t.Errorf("%+v", o)
			}
		}
	})
}

// must passes over errors: a text that is no TOML is one.
func must(found []Override, _ error) []Override { return found }

// A package without a source is of a manifest that was looked at, or of none.
func TestStraysAreWhatNoManifestIsOf(t *testing.T) {
	named := func(name string) string { return strings.Replace(crate, `"x"`, `"`+name+`"`, 1) }
	for name, c := range map[string]struct {
		files map[string]string
		local []string
		want  []string
	}{
		"all met":              {map[string]string{"p/Cargo.toml": crate + "[dependencies]\nv = { path = \"v\", package = \"w\" }\n", "p/v/Cargo.toml": named("w")}, []string{"x", "w"}, nil},
		"as of old":            {map[string]string{"p/Cargo.toml": strings.Replace(crate, "[package]", "[project]", 1)}, []string{"x"}, nil},
		"a member":             {map[string]string{"p/Cargo.toml": "[workspace]\nmembers = [\"m/*\"]\n", "p/m/a/Cargo.toml": crate}, []string{"x"}, nil},
		"one too deep":         {map[string]string{"p/Cargo.toml": "[workspace]\nmembers = [\"m/**\"]\n", "p/m/a/b/Cargo.toml": crate + "[dependencies]\nv = { path = \"../../../../v\" }\n", "v/Cargo.toml": named("v")}, []string{"x", "v"}, []string{"stray v", "stray x"}},
		"found already":        {map[string]string{"p/Cargo.toml": crate + "[dependencies]\nv = { path = \"../v\", package = \"w\" }\n", "v/Cargo.toml": named("w")}, []string{"x", "w"}, []string{"path dependency v"}},
		"patched":              {map[string]string{"p/Cargo.toml": crate + "[patch.crates-io]\ns = { path = \"../s\", package = \"serde\" }\n", "s/Cargo.toml": named("serde")}, []string{"x", "serde"}, []string{"patch s"}},
		"by way of one beyond": {map[string]string{"p/Cargo.toml": crate + "[dependencies]\nv = { path = \"../v\" }\n", "v/Cargo.toml": named("v") + "[dependencies]\nw = { path = \"../w\" }\n", "w/Cargo.toml": named("w")}, []string{"x", "v", "w"}, []string{"path dependency v", "stray w"}},
		"a lock alone":         {map[string]string{"p/Cargo.lock": ""}, []string{"x"}, []string{"stray x"}},
	} {
		root, home := project(t, c.files)
		found, err := Overrides(root, root, home, c.local...)
		var got []string
		for _, o := range found {
			got = append(got, o.Kind+" "+o.What)
		}
		slices.Sort(got)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v; %v", name, got, c.want, err)
		}
	}
}
