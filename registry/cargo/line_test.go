package cargo

import (
	"bytes"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

const cksumHex = "abababababababababababababababababababababababababababababababab"

func ptr[T any](v T) *T { return &v }

// testdata/line.json holds every field, written byte for byte as clients get it.
func TestLineMarshalsAsCargoReadsIt(t *testing.T) {
	want, err := os.ReadFile("testdata/line.json")
	if err != nil {
		t.Fatal(err)
	}
	l := Line{
		Name: "demo-one", Vers: "1.0.0-rc.1+b",
		Deps: []Dep{
			{Name: "serde", Req: "^1.0", Features: []string{"std"}, Optional: true, Kind: KindNormal, Registry: ptr(cratesIO)},
			{Name: "near", Req: "*", Features: []string{}, DefaultFeatures: true, Target: ptr("cfg(target_os = \"linux\")"), Kind: KindBuild, Package: ptr("near-core")},
		},
		Cksum:     cksumHex,
		Features:  map[string][]string{"b": {}, "a": {"b"}},
		Features2: map[string][]string{"s": {"dep:serde"}},
		Links:     ptr("z"), RustVersion: ptr("1.70"), Pubtime: "2026-01-02T03:04:05Z", V: 2,
	}
	if got := l.Marshal(); !bytes.Equal(got, want) {
		t.Errorf("got  %swant %s", got, want)
	}
	back, err := ParseLine(want)
	if err != nil || !reflect.DeepEqual(back, l) {
		t.Errorf("ParseLine = %+v, %v", back, err)
	}
}

func TestParseLineGivesAbsentMembersCargosDefaults(t *testing.T) {
	l, err := ParseLine([]byte(`{"name":"a","vers":"1.0.0","deps":[{"name":"b","req":"^1"}],"cksum":"` + cksumHex + `","new_member":{"x":1}}`))
	if err != nil {
		t.Fatal(err)
	}
	if l.V != 1 || l.Yanked || l.Features == nil || l.Deps[0].Kind != KindNormal || !l.Deps[0].DefaultFeatures || l.Deps[0].PackageName() != "b" {
		t.Errorf("%+v", l)
	}
}

func TestParseLineRefuses(t *testing.T) {
	good := `{"name":"a","vers":"1.0.0","deps":[{"name":"b","req":"^1","kind":"dev"}],"cksum":"` + cksumHex + `","pubtime":"2026-01-02T03:04:05Z","v":2}`
	if _, err := ParseLine([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		old, new string
		want     error
	}{
		"a duplicate name":         {`"v":2`, `"v":2,"v":2`, ErrFrame},
		"a nested duplicate":       {`"v":2`, `"v":2,"x":{"a":1,"a":2}`, ErrFrame},
		"trailing data":            {`"v":2}`, `"v":2}{}`, ErrFrame},
		"two lines":                {`"v":2}`, "\"v\":2}\n\n", ErrFrame},
		"an unknown v":             {`"v":2`, `"v":3`, ErrFrame},
		"no deps":                  {`"deps"`, `"deqs"`, ErrFrame},
		"null deps":                {`[{"name":"b","req":"^1","kind":"dev"}]`, `null`, ErrFrame},
		"an upper-case checksum":   {"ab", "AB", ErrFrame},
		"a short checksum":         {cksumHex, cksumHex[2:], ErrFrame},
		"a bad name":               {`"name":"a"`, `"name":"a/b"`, ErrName},
		"a name in another case":   {`"name":"a"`, `"Name":"a"`, ErrName},
		"a bad version":            {"1.0.0", "1.0", ErrVersion},
		"a bad requirement":        {"^1", "^^1", ErrVersion},
		"a bad dependency name":    {`"name":"b"`, `"name":"../b"`, ErrFrame},
		"an unknown kind":          {`"dev"`, `"test"`, ErrFrame},
		"a pubtime with an offset": {"05Z", "05+00:00", ErrFrame},
		"a pubtime with fractions": {"05Z", "05.1Z", ErrFrame},
		"a pubtime out of range":   {"2026-01", "2026-13", ErrFrame},
		"invalid UTF-8":            {`"v":2`, "\"v\":2,\"x\":\"\xff\"", ErrFrame},
	} {
		line := strings.Replace(good, c.old, c.new, 1)
		if line == good {
			t.Fatalf("%s: nothing replaced", name)
		}
		if l, err := ParseLine([]byte(line)); !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v; want %v", name, l, err, c.want)
		}
	}
	if _, err := ParseLine(make([]byte, maxReadBytes+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("an over-long line: %v", err)
	}
}

func TestYankedIsTheOnlyDifferenceBetweenTwoLinesOfAVersion(t *testing.T) {
	c := &Crate{Name: "a", Version: mustVersion(t, "1.0.0"), Features: map[string][]string{}}
	at := time.Date(2026, 1, 2, 3, 4, 5, 999, time.FixedZone("", 3600))
	var lines [2]string
	for i, yanked := range []bool{false, true} {
		l, err := c.Line([32]byte{1}, at, yanked, IndexSettings{})
		if err != nil {
			t.Fatal(err)
		}
		lines[i] = string(l.Marshal())
	}
	if !strings.Contains(lines[0], `"pubtime":"2026-01-02T02:04:05Z"`) || strings.Replace(lines[0], `"yanked":false`, `"yanked":true`, 1) != lines[1] {
		t.Errorf("%s%s", lines[0], lines[1])
	}
}

func TestConfigJSON(t *testing.T) {
	for want, got := range map[string][]byte{
		`{"dl":"http://h/dl/{crate}","api":"http://h","auth-required":true}` + "\n": ConfigJSON("http://h/dl/{crate}", "http://h", true),
		`{"dl":"http://h/dl","auth-required":false}` + "\n":                         ConfigJSON("http://h/dl", "", false),
	} {
		if string(got) != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	seed, err := os.ReadFile("testdata/line.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"name":"a","vers":"1.0.0","deps":[{"name":"b","req":"^1"}],"cksum":"` + cksumHex + `"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ParseLine(data)
		if err != nil {
			var p *Problem
			if !errors.As(err, &p) {
				t.Errorf("not a Problem: %v", err)
			}
			return
		}
		out := l.Marshal()
		again, err := ParseLine(out)
		if err != nil || !bytes.Equal(again.Marshal(), out) {
			t.Errorf("%s does not survive a round trip: %v", out, err)
		}
	})
}
