package web

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// changing is what differs from one run to the next.
var changing = []struct {
	form  *regexp.Regexp
	stand string
}{
	{regexp.MustCompile(`did:key:z[1-9A-HJ-NP-Za-km-z]+(…[1-9A-HJ-NP-Za-km-z]+)?(#z[1-9A-HJ-NP-Za-km-z]+)?`), "DID"},
	{regexp.MustCompile(`bafkrei[a-z2-7]+`), "CID"},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "HEX"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`), "TIME"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d UTC`), "TIME"},
	{regexp.MustCompile(`(style|icon)-[0-9a-f]{16}`), "$1-HASH"},
	{regexp.MustCompile(`<dd><code class="id">[A-Za-z0-9+/&#;]+=</code></dd>`), `<dd><code class="id">ROOT</code></dd>`},
	{regexp.MustCompile(`(?s)<details><summary>The signed checkpoint.*?</details>`), "CHECKPOINT"},
	{regexp.MustCompile(`\d+ bytes`), "N bytes"},
	{regexp.MustCompile(`, \d+ minutes from now`), ", N minutes from now"},
}

// The main pages as they are sent; `go test ./web -update` writes them anew, to be read.
func TestPagesAreAsTheyWereRead(t *testing.T) {
	l := newLab(t)
	l.fill()
	token := l.session(l.member, "read")
	for name, page := range map[string][2]string{
		"front-nobody": {"/", ""}, "front-member": {"/", token}, "closed": {"/artifacts/crate/secret-crate", ""}, "me": {"/me", token},
		"crates": {"/artifacts/crate", token}, "crate": {"/artifacts/crate/secret-crate", token}, "yanked": {"/artifacts/crate/secret-crate/0.1.0", token},
		"log": {"/log", token}, "missing": {"/artifacts/crate/other-crate", token},
	} {
		got := l.get(page[0], page[1]).Body.String()
		for _, c := range changing {
			got = c.form.ReplaceAllString(got, c.stand)
		}
		path := filepath.Join("testdata", name+".golden.html")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s differs from %s where it says\n%s", page[0], path, difference(string(want), got))
		}
	}
}

// difference is the first line of got that is not in its place.
func difference(want, got string) string {
	lines := strings.Split(want, "\n")
	for i, line := range strings.Split(got, "\n") {
		if i >= len(lines) || lines[i] != line {
			return line
		}
	}
	return "(its end is missing)"
}
