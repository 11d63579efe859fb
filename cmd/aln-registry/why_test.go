package main

import (
	"bytes"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/client"
)

// What is to be typed holds nothing but a crate's name and version: a registry that says what it
// likes is not to have commands typed.
func TestWhatIsToBeTypedIsNoRegistrysToSay(t *testing.T) {
	for _, c := range []struct {
		name, version string
		told          bool
	}{
		{"serde", "1.0.0", true},
		{"serde; rm -rf ~", "1.0.0", false},
		{"serde", "1.0.0$(reboot)", false},
		{"", "1.0.0", false},
	} {
		var out bytes.Buffer
		a := &app{out: &out}
		a.printUnscanned("crates-io", []client.Decision{{Name: c.name, Version: c.version, Unscanned: true}})
		if told := strings.Contains(out.String(), "echo "+c.name+" "+c.version+" | aln-registry prefetch -\n"); told != c.told || !c.told && out.Len() > 0 {
			t.Errorf("%q %q: %s", c.name, c.version, out.String())
		}
	}
}
