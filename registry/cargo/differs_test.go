package cargo

import (
	"fmt"
	"strings"
	"testing"
	"unicode"
)

// What was added and removed is named, in an order that does not change, bounded, and fit to be shown.
func TestLinesSayWhatTheyResolveToThatAnotherDoesNot(t *testing.T) {
	const dep = `{"name":"a","req":"^1","features":["yanked"],"optional":false,"default_features":true,"target":null,"kind":"normal"}`
	many := strings.Repeat(dep+",", 1)
	for i := range 20 {
		many += fmt.Sprintf(`{"name":"d%02d","req":"*"},`, i)
	}
	for name, c := range map[string]struct{ later, want string }{
		"the same":             {aLine(`"req":"^1"`, `"req" : "^1"`), ``},
		"a dependency":         {aLine(dep, dep+`,{"name":"evil","req":"*","kind":"build","optional":true,"target":"cfg(unix)","default_features":false,"features":["y","x"]}`), `dependencies added: "evil *, build, optional, no default features, on cfg(unix), with x y"`},
		"none any more":        {aLine(dep, ``), `dependencies removed: "a ^1, with yanked"`},
		"another package":      {aLine(dep, dep+`,{"name":"b","req":"1","package":"evil","registry":"https://x"}`), `dependencies added: "b 1, package evil, from https://x"`},
		"another requirement":  {aLine("^1", "=1.0.3"), `dependencies added: "a =1.0.3, with yanked"; dependencies removed: "a ^1, with yanked"`},
		"many":                 {aLine(dep, strings.TrimSuffix(many, ",")), `dependencies added: "d00 *", "d01 *", "d02 *", "d03 *", "d04 *", "d05 *" and 14 more`},
		"a feature":            {aLine(`{"yanked":[]}`, `{"yanked":[],"b":[]}`), `features added: "b"`},
		"a feature of the new": {aLine(`"links":null`, `"features2":{"yanked":["dep:evil"]},"links":null`), `feature "yanked" also enables "dep:evil"`},
		"another feature":      {aLine(`{"yanked":[]}`, `{"c":["a"]}`), `features added: "c"; features removed: "yanked"`},
		"links":                {aLine(`"links":null`, `"links":"z"`), `links was none and is "z"`},
		"what is to be shown":  {aLine(dep, dep+`,{"name":"\u001b[31m\u202e\n<b>\"","req":"*"}`), `dependencies added: "\x1b[31m\u202e\n<b>\" *"`},
		"a form not known":     {aLine(`"deps":[`, `"deps":[7,`), `it is nothing that has a name: compare the lines`},
	} {
		f, err := ParseUpstreamFile("left-pad", []byte(aLine()+"\n"+c.later))
		if err != nil || len(f.Lines) != 2 {
			t.Fatalf("%s: %v", name, err)
		}
		if got := f.Lines[0].Differs(f.Lines[1]); got != c.want {
			t.Errorf("%s: it says\n%s\nwant\n%s", name, got, c.want)
		}
	}
}

// FuzzDiffers: whatever lines say, what is said of them is bounded and can be shown, and is
// something where they resolve to different things.
func FuzzDiffers(f *testing.F) {
	for _, seed := range []string{aLine("^1", "^2"), aLine(`"deps":[`, `"deps":[null,`), aLine(`"deps":`, `"d":`), aLine(`[]}`, `["`+strings.Repeat(`x","`, 99)+`"]}`), aLine(`"links":null`, `"links":7`), aLine("false", "true")} {
		f.Add([]byte(aLine() + "\n" + seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := ParseUpstreamFile("left-pad", data)
		if err != nil || len(file.Lines) < 2 {
			return
		}
		a, b := file.Lines[0], file.Lines[1]
		says := a.Differs(b)
		if (says == "") != (a.Resolves == b.Resolves) || len(says) > 32<<10 || strings.ContainsFunc(says, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q", says)
		}
	})
}
