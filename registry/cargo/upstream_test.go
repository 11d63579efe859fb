package cargo

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// aLine is a line as crates.io writes it, altered by edits.
func aLine(edits ...string) string {
	line := `{"name":"Left-pad","vers":"1.0.0","deps":[{"name":"a","req":"^1","features":["yanked"],"optional":false,"default_features":true,"target":null,"kind":"normal"}],` +
		`"cksum":"` + strings.Repeat("0a", 32) + `","features":{"yanked":[]},"yanked":false,"links":null,"pubtime":"2026-06-01T08:30:00Z","v":2,"rust_version":"1.70"}`
	return strings.NewReplacer(edits...).Replace(line)
}

func TestUpstreamFileIsReadAsCargoWould(t *testing.T) {
	published := time.Date(2026, 6, 1, 8, 30, 0, 0, time.UTC)
	good, second := aLine(), aLine("1.0.0", "1.1.0", `"name":"Left-pad"`, `"name":"left_pad"`)
	for name, c := range map[string]struct {
		file    string
		lines   int
		ignored int
	}{
		"as written":          {good + "\n" + second + "\n", 2, 0},
		"no end":              {good + "\n" + second, 2, 0},
		"empty lines":         {"\n" + good + "\r\n\r\n" + second + "\n \n", 2, 0},
		"returns":             {good + "\r\n" + second + "\r\n", 2, 0},
		"nothing":             {"", 0, 0},
		"only an end":         {"\n", 0, 0},
		"a later format":      {good + "\n" + aLine(`"v":2`, `"v":3`), 1, 1},
		"no format":           {aLine(`"v":2,`, ``), 1, 0},
		"format null":         {aLine(`"v":2`, `"v":null`), 1, 0},
		"one version twice":   {good + "\n" + good, 2, 0},
		"no version":          {good + "\n" + aLine(`"vers":"1.0.0",`, ``), 1, 1},
		"not a version":       {good + "\n" + aLine(`"1.0.0"`, `"1.0"`), 1, 1},
		"no cksum":            {good + "\n" + aLine(`"cksum"`, `"sum"`), 1, 1},
		"a short cksum":       {good + "\n" + aLine("0a0a", "0a"), 1, 1},
		"a long cksum":        {good + "\n" + aLine(`"0a`, `"0a0a`), 1, 1},
		"cksum in upper case": {good + "\n" + aLine("0a", "0A"), 1, 1},
		"cksum of no hex":     {good + "\n" + aLine(`"0a`, `"zz`), 1, 1},
		"yanked a string":     {good + "\n" + aLine(`"yanked":false`, `"yanked":"no"`), 1, 1},
		"a name too long":     {good + "\n" + aLine(`"name":"Left-pad",`, ``), 1, 1},
		"no object":           {good + "\n[]\n7\nnull", 1, 3},
		"members unknown":     {aLine(`"links"`, `"also":{"a":[1,2]},"links"`), 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := ParseUpstreamFile("LEFT_pad", []byte(c.file))
			if err != nil || len(f.Lines) != c.lines || f.Ignored != c.ignored {
				t.Fatalf("%d lines, %d ignored, %v", len(f.Lines), f.Ignored, err)
			}
			if c.lines == 0 {
				return
			}
			first, last := f.Lines[0], f.Lines[len(f.Lines)-1]
			if f.Name != last.Name || first.Name != "Left-pad" || first.Version != "1.0.0" || first.Yanked || !first.Published.Equal(published) ||
				fmt.Sprintf("%x", first.Digest) != strings.Repeat("0a", 32) || !bytes.Contains([]byte(c.file), first.Raw) {
				t.Errorf("%+v", first)
			}
		})
	}
}

func TestUpstreamFileRefusesWhatWasNotThatIndex(t *testing.T) {
	good := aLine()
	for name, c := range map[string]struct {
		file string
		kind error
	}{
		"another crate":          {good + "\n" + aLine("Left-pad", "right-pad"), ErrFrame},
		"a page":                 {"<!DOCTYPE html>\n<html></html>\n", ErrFrame},
		"an answer in JSON":      {`{"errors":[{"detail":"try later"}]}`, ErrFrame},
		"cut short":              {good + "\n" + good[:len(good)-9], ErrFrame},
		"cut short and strange":  {good + "\n" + `{"name":7,"vers":"1.0.0"`, ErrFrame},
		"two on a line":          {good + good, ErrFrame},
		"a member twice":         {aLine(`"links":null`, `"yanked":true,"links":null`), ErrFrame},
		"bytes that are no text": {aLine(`"links":null`, "\"links\":\"\xff\""), ErrFrame},
		"only later formats":     {aLine(`"v":2`, `"v":3`), ErrFrame},
		"too large":              {strings.Repeat("\n", MaxUpstreamFile+1), ErrTooLarge},
		"too many lines":         {strings.Repeat("{}\n", MaxUpstreamLines+1), ErrTooLarge},
		"deep":                   {strings.Repeat("[", 1<<20), ErrFrame},
	} {
		f, err := ParseUpstreamFile("left-pad", []byte(c.file))
		if !errors.Is(err, c.kind) || len(f.Lines) > 0 || len(err.Error()) > 1000 {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	if _, err := ParseUpstreamFile("left-pad", []byte(strings.Repeat("\n", MaxUpstreamFile))); err != nil {
		t.Error(err)
	}
	if f, err := ParseUpstreamFile("left-pad", []byte(strings.Repeat(`{"name":"left-pad","vers":"1.0.0","cksum":"`+strings.Repeat("00", 32)+"\"}\n", MaxUpstreamLines))); err != nil || len(f.Lines) != MaxUpstreamLines {
		t.Errorf("%d, %v", len(f.Lines), err)
	}
}

func TestPubtimesThatCargoWouldNotReadAreNone(t *testing.T) {
	for _, pubtime := range []string{`null`, `""`, `"2026-06-01"`, `"2026-06-01T08:30:00+00:00"`, `"2026-06-01T08:30:00.0Z"`, `"2026-06-01T8:30:00Z"`, `"2026-06-01T8:30:00.Z"`, `"2026-13-01T08:30:00Z"`} {
		f, err := ParseUpstreamFile("left-pad", []byte(aLine(`"2026-06-01T08:30:00Z"`, pubtime)))
		if err != nil || len(f.Lines) != 1 || !f.Lines[0].Published.IsZero() {
			t.Errorf("%s: %+v, %v", pubtime, f, err)
		}
	}
}

// Lines go to cargo as they came, whatever stands in them, but for yanked.
func TestUpstreamLineIsVerbatimButForYanked(t *testing.T) {
	const none = `"yanked":false,`
	for name, c := range map[string]struct{ line, yanked, not string }{
		"as crates.io writes it": {aLine(), aLine(`"yanked":false`, `"yanked":true`), aLine()},
		"yanked there":           {aLine(`"yanked":false`, `"yanked":true`), aLine(`"yanked":false`, `"yanked":true`), aLine()},
		"white space":            {aLine(`"yanked":false`, " \"yanked\"\t: false "), aLine(`"yanked":false`, " \"yanked\"\t: true "), aLine(`"yanked":false`, " \"yanked\"\t: false ")},
		"escaped":                {aLine(`"yanked":false`, `"\u0079anked":false`), aLine(`"yanked":false`, `"\u0079anked":true`), aLine(`"yanked":false`, `"\u0079anked":false`)},
		"null":                   {aLine(`"yanked":false`, `"yanked":null`), aLine(`"yanked":false`, `"yanked":true`), aLine(`"yanked":false`, `"yanked":null`)},
		"none":                   {aLine(none, ``), strings.TrimSuffix(aLine(none, ``), "}") + `,"yanked":true}`, aLine(none, ``)},
		"numbers and escapes":    {aLine(`"links":null`, `"links":"\u00e9\/","x":1.0e+3`), aLine(`"links":null`, `"links":"\u00e9\/","x":1.0e+3`, `"yanked":false`, `"yanked":true`), aLine(`"links":null`, `"links":"\u00e9\/","x":1.0e+3`)},
		"a return":               {aLine() + " \r", aLine(`"yanked":false`, `"yanked":true`) + " \r", aLine() + " \r"},
	} {
		f, err := ParseUpstreamFile("left-pad", []byte(c.line))
		if err != nil || len(f.Lines) != 1 {
			t.Fatalf("%s: %v", name, err)
		}
		if got := string(f.Lines[0].Marshal(true)); got != c.yanked+"\n" {
			t.Errorf("%s, yanked:\n%s\nwant\n%s", name, got, c.yanked)
		}
		if got := string(f.Lines[0].Marshal(false)); got != c.not+"\n" {
			t.Errorf("%s, not yanked:\n%s\nwant\n%s", name, got, c.not)
		}
	}
}

func TestUpstreamFileFindsALineByWhatItSays(t *testing.T) {
	f, err := ParseUpstreamFile("left-pad", []byte(aLine()+"\n"+aLine("0a", "0b")+"\n"+aLine("0a", "0b", "false", "true")))
	if err != nil {
		t.Fatal(err)
	}
	if l, ok := f.Line("1.0.0", f.Lines[1].Digest, f.Lines[1].Resolves); !ok || !bytes.Equal(l.Raw, f.Lines[1].Raw) {
		t.Errorf("%+v, %v", l, ok)
	}
	if l, ok := f.Line("1.0.0", f.Lines[0].Digest, [32]byte{}); ok {
		t.Errorf("another line: %+v", l)
	}
	for _, version := range []string{"1.0.0+b", "1.0.1"} {
		if l, ok := f.Line(version, f.Lines[0].Digest, f.Lines[0].Resolves); ok {
			t.Errorf("%s: %+v", version, l)
		}
	}
}

// FuzzUpstreamFile: what is accepted is of that crate, and each line, yanked or not,
// reads as before but for that.
func FuzzUpstreamFile(f *testing.F) {
	for _, seed := range []string{"", aLine(), aLine() + "\n" + aLine("1.0.0", "2.0.0"), aLine(`"yanked":false,`, ``), aLine("Left-pad", "other"), "{}", "[", aLine() + "\r\n\n", aLine("false", "true")} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := ParseUpstreamFile("left-pad", data)
		if err != nil {
			if !errors.Is(err, ErrFrame) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		for _, l := range file.Lines {
			for _, yanked := range []bool{true, false} {
				again, err := ParseUpstreamFile("LEFT_PAD", l.Marshal(yanked))
				if err != nil || len(again.Lines) != 1 {
					t.Fatalf("%q: %v", l.Raw, err)
				}
				got := again.Lines[0]
				if got.Name != l.Name || CanonicalName(got.Name) != "left_pad" || got.Version != l.Version || got.Digest != l.Digest || got.Resolves != l.Resolves || !got.Published.Equal(l.Published) || got.Yanked != yanked {
					t.Fatalf("%q became %+v", l.Raw, got)
				}
			}
		}
	})
}
