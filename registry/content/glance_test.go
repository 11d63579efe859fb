package content

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// closely is what text finds in data, without a glance before.
func closely(data string) string {
	var t text
	if t.write([]byte(data)) || t.end() {
		return t.reason
	}
	return ""
}

// glances reports whether a glance at data, part by part, asks for text to look at it.
func glances(data string, part int) bool {
	var g glance
	for len(data) > 0 {
		n := min(len(data), part)
		if g.write([]byte(data[:n])) {
			return true
		}
		data = data[n:]
	}
	return g.end()
}

// FuzzGlance: of nothing that text finds does a glance say that there is nothing.
func FuzzGlance(f *testing.F) {
	f.Add(source1, uint8(3))
	f.Add(escaped(permutation, true), uint8(1))
	f.Add("CHUNK_START = 1, CHUNK_END = 2, PARENT = 4, ROOT = 8", uint8(200))
	f.Add("0x263a704d1bc59ef8", uint8(9))
	f.Fuzz(func(t *testing.T, data string, part uint8) {
		if by := closely(data); by != "" && !glances(data, int(part)+1) {
			t.Fatalf("%q is %s, which a glance in parts of %d does not see", data, by, int(part)+1)
		}
	})
}

// The same of texts of which much is found: rows in any spelling, one number of it sometimes
// another, mixed with others, comments and flags.
func TestAGlanceLetsNothingPass(t *testing.T) {
	forms := []string{
		"%d", "%02d", "0x%x", "0X%02X", "0b%04b", "0o%o", "0%o", "0%xh", "%du8", "m[%d]", "m%d", "v%02d", "\\x%x", "\\x%02X", "\\%o", "%dn", "0x%02x000000", "0x%d0b",
	}
	between := []string{", ", "", " ", "\n", " /* 3 */ ", " // 9\n", " # 4\n", " ; 2\n", " then_k ", "\\", ": 99, ", "\x00"}
	words := []string{"CHUNK_START = 1, ", "ChunkEnd: 1 << 1,\n", "derive_key_ctx", "PARENT=4 ", "root 8", `\n\r\t\a\b\v\f`, "0x263a704d1bc59ef8 ", "0x0203060a, ", "k", "_", "a_9", "\\"}
	hits := 0
	rapid.Check(t, func(t *rapid.T) {
		var b strings.Builder
		for range rapid.IntRange(1, 4).Draw(t, "pieces") {
			if rapid.Bool().Draw(t, "words") {
				for range rapid.IntRange(0, 12).Draw(t, "n") {
					b.WriteString(rapid.SampledFrom(words).Draw(t, "word"))
				}
				continue
			}
			row := permutation
			for range rapid.IntRange(0, 6).Draw(t, "round") {
				row = compose(row, permutation)
			}
			if rapid.Bool().Draw(t, "spoiled") {
				row[rapid.IntRange(0, 15).Draw(t, "at")] = byte(rapid.IntRange(0, 16).Draw(t, "other"))
			}
			more := byte(rapid.IntRange(0, 1).Draw(t, "from one"))
			form, sep := rapid.SampledFrom(forms).Draw(t, "form"), rapid.SampledFrom(between).Draw(t, "between")
			for _, v := range row {
				fmt.Fprintf(&b, form, v+more)
				b.WriteString(sep)
			}
		}
		data, part := b.String(), rapid.IntRange(1, 64).Draw(t, "part")
		by := closely(data)
		if by == "" {
			return
		}
		hits++
		if !glances(data, part) {
			t.Fatalf("%q is %s, which a glance in parts of %d does not see", data, by, part)
		}
	})
	if hits == 0 {
		t.Error("nothing was to be found in any of them")
	}
}

// Most files of real code are passed over at a glance: it is what makes it worth while.
func TestAGlanceIsEnoughForMostCode(t *testing.T) {
	for name, test := range map[string]struct {
		data   string
		closer bool
	}{
		"code":            {strings.Repeat("let total: u32 = values.iter().map(|v| v.len() as u32 + 17).sum(); // 1 or 2 of all \\n\n", 100), false},
		"a key":           {"fn keep(token: &Key) -> Chunk { \\x1b[0m }", false},
		"numbers to 15":   {"0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", false},
		"a row":           {"2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8", true},
		"one is another":  {"2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 9", false},
		"behind a name":   {"a0 a1 a2 a3 a4 a5 a6 a7 a8 a9 a10 a11 a12 a13 a14 a15", true},
		"but one":         {"a0 a1 a2 a3 a4 a5 a6 a7 a8 a9 a10 a11 a12 a13 a14 a16", false},
		"a telling name":  {"self.chunk_start = 3", true},
		"a name like it":  {"self.chunk_size = 3; root = 8; parent = 4", false},
		"a word too long": {strings.Repeat("x", mostWord+1), true},
		"a long text":     {strings.Repeat("word ", mostHeld/5+1), true},
		"UTF-16":          {"a\x00b\x00", true},
	} {
		if got := glances(test.data, 4096); got != test.closer {
			t.Errorf("%s: looked at closer: %v", name, got)
		}
	}
}
