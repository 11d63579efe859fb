package cargo

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// resolvesOf is what a line of these members, beside those that every line has, resolves to.
func resolvesOf(t testing.TB, members string) [sha256.Size]byte {
	t.Helper()
	if members != "" {
		members = "," + members
	}
	line := fmt.Sprintf(`{"name":"a","vers":"1.0.0","cksum":"%s","yanked":false%s}`, strings.Repeat("0a", 32), members)
	f, err := ParseUpstreamFile("a", []byte(line))
	if err != nil || len(f.Lines) != 1 {
		t.Fatalf("%s: %v", line, err)
	}
	return f.Lines[0].Resolves
}

// TestResolvesVectors holds the form that FORMATS §3 tells of.
func TestResolvesVectors(t *testing.T) {
	for members, form := range map[string]string{
		``: `[[],[],null]`,
		`"deps":[{"name":"z","req":"^1","features":["b","a","b"],"optional":true,"default_features":false,"target":"cfg(unix)","kind":"dev","registry":"https://other.example/","package":"y"},` +
			`{"name":"a\u0001\"é","req":">=1, <2"}],"features":{"std":["z/std","a"],"default":["std"]},"features2":{"std":["dep:z"]},"links":"git2"`: `[[["a\u0001\"é","a\u0001\"é",">=1, <2",[],false,true,null,"normal",null],` +
			`["z","y","^1",["a","b"],true,false,"cfg(unix)","dev","https://other.example/"]],[["default",["std"]],["std",["a","dep:z","z/std"]]],"git2"]`,
		`"deps":[{"name":"a","req":"*","artifact":["cdylib","bin"],"bindep_target":"wasm32-wasip1","lib":true}]`: `[[["a","a","*",[],false,true,null,"normal",null,["bin","cdylib"],"wasm32-wasip1",true]],[],null]`,
		`"deps":[7, {}],"features":{"a":[]}`:                          `[{"odd":[7,{}]},[["a",[]]],null]`,
		`"features":{"a":[]},"features2":"x","links":[ "b" , 1.0e+3]`: `[[],[["a",[]]],{"odd":"x"},{"odd":["b",1.0e+3]}]`,
	} {
		if got, want := resolvesOf(t, members), sha256.Sum256([]byte(form)); got != want {
			t.Errorf("%s is not that of %s", members, form)
		}
	}
}

// Whatever a resolve takes from a line is another Resolves where it is another.
func TestWhatAResolveTakesFromALineIsTold(t *testing.T) {
	const dep = `{"name":"b","req":"^1","features":["x"],"optional":true,"default_features":false,"target":"cfg(unix)","kind":"build","registry":"https://other.example/","package":"c","artifact":["bin"],"bindep_target":"t","lib":false}`
	line := `"deps":[` + dep + `,{"name":"d","req":"^2"}],"features":{"e":["d/f"]},"features2":{"g":["dep:b"]},"links":"h"`
	seen := map[[sha256.Size]byte]string{resolvesOf(t, line): "as it is"}
	for _, edit := range [][2]string{
		{`"name":"b"`, `"name":"B"`}, {`"^1"`, `"^1.1"`}, {`["x"]`, `["x","y"]`}, {`["x"]`, `[]`}, {`"optional":true`, `"optional":false`}, {`"default_features":false`, `"default_features":true`},
		{`"cfg(unix)"`, `null`}, {`"cfg(unix)"`, `"cfg(windows)"`}, {`"cfg(unix)"`, `""`}, {`"build"`, `"dev"`}, {`"build"`, `null`}, {`"https://other.example/"`, `null`}, {`"https://other.example/"`, `""`},
		{`"package":"c"`, `"package":"cc"`}, {`"package":"c"`, `"package":null`}, {`"artifact":["bin"]`, `"artifact":["bin","cdylib"]`}, {`"bindep_target":"t"`, `"bindep_target":null`}, {`"lib":false`, `"lib":true`},
		{`,{"name":"d","req":"^2"}`, ``}, {`,{"name":"d","req":"^2"}`, `,{"name":"d","req":"^2"},{"name":"i","req":"*"}`}, {`"e":["d/f"]`, ``}, {`"e":["d/f"]`, `"e":[]`}, {`"e":["d/f"]`, `"e":["d/f"],"j":[]`}, {`["dep:b"]`, `["dep:b","d"]`},
		{`"h"`, `null`}, {`"h"`, `"k"`}, {`"h"`, `7`}, {`["x"]`, `[7]`}, {`"optional":true`, `"optional":"true"`},
	} {
		changed := strings.Replace(line, edit[0], edit[1], 1)
		got := resolvesOf(t, changed)
		if before, ok := seen[got]; ok || changed == line {
			t.Errorf("%s for %s is as %s", edit[1], edit[0], before)
		}
		seen[got] = edit[1] + " for " + edit[0]
	}
}

// However it is written, what cargo reads alike has one Resolves.
func TestHowALineIsWrittenIsNoMatter(t *testing.T) {
	const b, d = `{"name":"b","req":"^1","features":["y","x"],"optional":true}`, `{"name":"d","req":"^2"}`
	want := resolvesOf(t, `"deps":[`+b+`,`+d+`],"features":{"e":["d/f"],"g":["dep:b","e"]},"links":null`)
	for what, members := range map[string]string{
		"other order":         `"features":{"g":["e","dep:b"],"e":["d/f"]},"deps":[` + d + `,{"optional":true,"features":["x","y"],"req":"^1","name":"b"}]`,
		"white space":         "\"deps\" : [ " + b + " ,\t" + d + " ] , \"features\":{\"e\":[\"d/f\"],\"g\":[\"dep:b\",\"e\"]}",
		"escapes":             `"d\u0065ps":[` + b + `,{"name":"\u0064","req":"\u005e2"}],"features":{"e":["d\/f"],"g":["dep:b","e"]}`,
		"absent is given":     `"deps":[` + b + `,{"name":"d","req":"^2","features":[],"optional":false,"default_features":true,"target":null,"kind":"normal","registry":null,"package":null}],"features":{"e":["d/f"],"g":["dep:b","e"]}`,
		"its name as package": `"deps":[` + b + `,{"name":"d","req":"^2","package":"d"}],"features":{"e":["d/f"],"g":["dep:b","e"]}`,
		"a kind there is not": `"deps":[` + b + `,{"name":"d","req":"^2","kind":"odd"}],"features":{"e":["d/f"],"g":["dep:b","e"]}`,
		"twice":               `"deps":[` + b + `,` + d + `,` + d + `],"features":{"e":["d/f","d/f"],"g":["dep:b","e"]}`,
		"features2":           `"deps":[` + b + `,` + d + `],"features":{"e":["d/f"]},"features2":{"g":["dep:b","e"]},"v":2`,
		"a feature in both":   `"deps":[` + b + `,` + d + `],"features":{"e":["d/f"],"g":["e"]},"features2":{"g":["dep:b"]},"v":2`,
		"what came later":     `"deps":[` + b + `,` + d + `],"features":{"e":["d/f"],"g":["dep:b","e"]},"rust_version":"1.70","pubtime":"2026-06-01T08:30:00Z","v":1,"new":{"a":[1]}`,
	} {
		if resolvesOf(t, members) != want {
			t.Errorf("%s: %s", what, members)
		}
	}
}

// A line that cargo does not read is told as such, whatever makes it so.
func TestALineThatCargoDoesNotReadIsToldAsSuch(t *testing.T) {
	const line = `{"name":"a","vers":"1.0.0","cksum":"` + cksumHex + `","deps":[{"name":"b","req":"^1","features":[],"optional":false,"default_features":true,"lib":false,"artifact":["bin"]}],"features":{"e":[]},"features2":{"g":[]}}`
	unread := func(from, to string) bool {
		f, err := ParseUpstreamFile("a", []byte(strings.Replace(line, from, to, 1)))
		if err != nil || len(f.Lines) != 1 || from != to && !strings.Contains(line, from) {
			t.Fatalf("%s for %s: %v", to, from, err)
		}
		return f.Lines[0].Unread
	}
	for _, edit := range [][2]string{
		{`"deps"`, `"was"`}, {`[{`, `null,"was":[{`}, {`[{`, `[7,{`}, {`"name":"b",`, ``}, {`"b"`, `null`}, {`"req":"^1",`, ``}, {`"^1"`, `null`}, {`"features":[]`, `"features":null`}, {`"features":[]`, `"features":[null]`},
		{`"optional":false`, `"optional":null`}, {`"default_features":true`, `"default_features":null`}, {`"lib":false`, `"lib":null`}, {`["bin"]`, `["bin",null]`}, {`"req":`, `"public":"no","req":`},
		{`{"e":[]}`, `null`}, {`{"e":[]}`, `{"e":null}`}, {`{"e":[]}`, `{"e":[null]}`}, {`{"g":[]}`, `{"g":null}`}, {`{"g":[]}`, `7`}, {`"deps"`, `"links":7,"deps"`},
		{`"deps"`, `"rust_version":"x","deps"`}, {`"deps"`, `"rust_version":7,"deps"`}, {`"deps"`, `"pubtime":"x","deps"`}, {`"deps"`, `"pubtime":"9999-12-31T23:59:59Z","deps"`},
	} {
		if !unread(edit[0], edit[1]) {
			t.Errorf("%s for %s is as what can be read", edit[1], edit[0])
		}
	}
	for _, same := range []string{`"links":null,`, `"links":"null",`, `"rust_version":null,`, `"rust_version":" 1.70.2",`, `"rust_version":"1",`, `"pubtime":null,`, `"pubtime":"9998-12-31T23:59:59Z",`, `"new":[null],`} {
		if unread(`"deps"`, same+`"deps"`) {
			t.Errorf("%s is told as such", same)
		}
	}
	for _, same := range []string{`"public":null,"req"`, `"public":true,"req"`, `"target":null,"kind":null,"registry":null,"package":null,"bindep_target":null,"new":[null],"req"`} {
		if unread(`"req"`, same) {
			t.Errorf("%s is told as such", same)
		}
	}
	for _, same := range [][2]string{{`["bin"]`, `null`}, {`{"e":[]}`, `{"null":["nullable"]}`}, {`{"g":[]}`, `null`}} {
		if unread(same[0], same[1]) {
			t.Errorf("%s is told as such", same[1])
		}
	}
}

// cargo crashes on a dependency of a crate without a name, whatever else the file has.
func TestALineThatMakesCargoCrashIsToldAsSuch(t *testing.T) {
	const line = `{"name":"a","vers":"1.0.0","cksum":"` + cksumHex + `","deps":[`
	for deps, crashes := range map[string]bool{
		`{"name":"","req":"*"}`: true, `{"name":"b","package":"","req":"*"}`: true, `{"name":"c","req":"*"},{"package":"","name":"b","req":"*"}`: true,
		`{"name":"c","req":"*"}`: false, `{"name":"","package":"c","req":"*"}`: false, `7,{"name":"","req":"*"}`: false,
	} {
		f, err := ParseUpstreamFile("a", []byte(line+deps+"]}"))
		if err != nil || len(f.Lines) != 1 || f.Lines[0].Crashes != crashes || crashes && !f.Lines[0].Unread {
			t.Errorf("%s: %+v, %v", deps, f.Lines, err)
		}
	}
}

// FuzzResolves: a line that can be gone by has the same Resolves with its members, those of its
// dependencies and features, and the elements of all its lists in another order, and again
// after it was read and written.
func FuzzResolves(f *testing.F) {
	for _, seed := range []string{aLine(), aLine(`"links":null`, `"links":"x","features2":{"a":["b","c"],"yanked":["d"]}`), aLine(`["yanked"]`, `[7,{"a":1}]`), aLine(`[{`, `[{"name":"z","req":"*","artifact":["bin","cdylib"]},{`), aLine(`"deps":[`, `"deps":[[],`)} {
		f.Add([]byte(seed), uint64(1))
	}
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		file, err := ParseUpstreamFile("left-pad", data)
		if err != nil {
			return
		}
		random := rand.New(rand.NewPCG(seed, 1))
		for _, l := range file.Lines {
			for range 3 {
				again, err := ParseUpstreamFile("left-pad", shuffled(t, random, l.Raw))
				if err != nil || len(again.Lines) != 1 {
					t.Fatalf("%q: %v", l.Raw, err)
				}
				if odd := hasOdd(t, l.Raw); !odd && again.Lines[0].Resolves != l.Resolves {
					t.Fatalf("%q is not as %q", again.Lines[0].Raw, l.Raw)
				}
			}
		}
	})
}

// hasOdd reports whether a member of the line is told as it is written.
func hasOdd(t *testing.T, raw []byte) bool {
	var r struct {
		resolution
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	_, _, known := new(knownDeps).texts(jsontext.Value(r.Deps))
	return !known || r.Features.odd != nil || r.Features2.odd != nil || r.Links.odd != nil
}

// shuffled is a value with the members of its objects and the elements of its arrays in
// another order.
func shuffled(t *testing.T, random *rand.Rand, value jsontext.Value) []byte {
	var parts [][]byte
	d := jsontext.NewDecoder(strings.NewReader(string(value)))
	opening, err := d.ReadToken()
	if err != nil {
		t.Fatal(err)
	}
	kind := opening.Kind()
	if kind != '{' && kind != '[' {
		return slices.Clone(value)
	}
	for d.PeekKind() != '}' && d.PeekKind() != ']' {
		var part []byte
		if kind == '{' {
			name, err := d.ReadValue()
			if err != nil {
				t.Fatal(err)
			}
			part = append(slices.Clone(name), ':')
		}
		v, err := d.ReadValue()
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, append(part, shuffled(t, random, slices.Clone(v))...))
	}
	random.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	out := []byte{byte(kind)}
	for i, p := range parts {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, p...)
	}
	return append(out, map[jsontext.Kind]byte{'{': '}', '[': ']'}[kind])
}
