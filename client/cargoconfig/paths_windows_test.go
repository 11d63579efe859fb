package cargoconfig

import (
	"strings"
	"testing"
)

// Windows paths have backslashes, which TOML escapes, and often spaces, at which
// cargo splits what is no array.
func TestProvidersAndBundlesOfWindows(t *testing.T) {
	for binary, want := range map[string]string{
		`C:\bin\aln-registry.exe`:           `["cargo:token", "C:\\bin\\aln-registry.exe"]`,
		`C:\Program Files\aln-registry.exe`: `aln-registry = ["C:\\Program Files\\aln-registry.exe"]`,
		`\\lab\tools\aln-registry.exe`:      `["cargo:token", "\\\\lab\\tools\\aln-registry.exe"]`,
	} {
		home := t.TempDir()
		if _, err := SetProvider(home, binary); err != nil {
			t.Fatal(err)
		}
		if _, data, _, err := read(home + `\config.toml`); err != nil || !strings.Contains(string(data), want) {
			t.Errorf("%s: %v\n%s", binary, err, data)
		}
		if p, err := FindProvider(t.TempDir(), home); err != nil || p.Program != binary {
			t.Errorf("cargo finds %+v, %v; want %s", p, err, binary)
		}
		const bundle = `C:\Users\ada\AppData\Roaming\aln-registry\ca\cargo.pem`
		if _, err := SetCAInfo(home, bundle); err != nil {
			t.Fatal(err)
		}
		if change, err := SetCAInfo(home, bundle); err != nil || change.Changed {
			t.Errorf("again: %+v, %v", change, err)
		}
	}
}
