package content

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// File looks at one file, which may be an archive.
func File(r io.Reader, l Limits) ([]Finding, error) {
	return look(r, l, func(w *walk, in io.Reader) error { return w.file(in, "", 0) })
}

// find looks at one file and returns what gave it away, "" for nothing.
func find(t testing.TB, data string) string {
	t.Helper()
	found, err := File(strings.NewReader(data), Limits{})
	if err != nil {
		t.Fatalf("%.60q: %v", data, err)
	}
	if len(found) == 0 {
		return ""
	}
	if len(found) != 1 || found[0].Name != BLAKE3 {
		t.Fatalf("%.60q: found %v", data, found)
	}
	return found[0].By
}

// spelled writes a row with each number in a form, and between between them.
func spelled(row [16]byte, form, between string) string {
	var b strings.Builder
	for i, v := range row {
		if i > 0 {
			b.WriteString(between)
		}
		if strings.Contains(form, "%") {
			fmt.Fprintf(&b, form, v)
		}
	}
	return b.String()
}

func TestTheScheduleIsThatOfTheSpecification(t *testing.T) {
	// The third row, as the specification's own tables have it.
	if row := compose(permutation, permutation); row != [16]byte{3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1} {
		t.Errorf("the third row is %v", row)
	}
	if compose(permutation, inverse(permutation)) != [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} {
		t.Error("the inverse is none")
	}
}

func TestPermutationIsFoundHoweverItIsSpelled(t *testing.T) {
	p := permutation
	for name, form := range map[string]string{
		"decimal": "%d", "padded": "%02d", "hexadecimal": "0x%x", "capital hexadecimal": "0X%02X", "binary": "0b%04b", "octal of Rust": "0o%o",
		"octal of C": "0%o", "an assembler's": "0%xh", "u8": "%du8", "underscored": "0x0_%x_usize", "UL": "%dUL", "cast before": "(uint8_t)%d",
		"cast behind": "%d as usize", "conversion": "u8::from(%d)", "commented": "/* word 3 */ %d", "character": `b'\x%02x'`, "quoted": `"%d"`,
		"indexed": "m[%d]", "variables": "m%d", "macro": "W(%d)", "BigInt": "%dn",
	} {
		for sep, between := range map[string]string{
			"comma": ", ", "tight": ",", "lines": ",\r\n\t", "comment": ", // and 7 more\n", "block comment": ", /* 1, 2 */ ", "spaces": "    ", "sharp": ", # 5\n",
			"semicolon": " ; 9\n", "bars": "|", "nested": "], [", "arrow": " -> ", "words": " then ", "lone star": ", /* * / 3 **/",
		} {
			if strings.Contains(between, "9") && strings.Contains(form, "word") {
				continue // two kinds of comments in one text
			}
			if strings.Contains(between, "5") && strings.Contains(form, "word") {
				continue
			}
			if by := find(t, "static P[16] = {"+spelled(p, form, between)+"};"); by == "" {
				t.Errorf("%s, %s: not found", name, sep)
			}
		}
	}
}

func TestPermutationIsFoundInOtherForms(t *testing.T) {
	p := permutation
	schedule := func(from int) string {
		row, text := [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, ""
		for r := range rounds {
			if r >= from {
				text += "    [" + spelled(row, "%d", ", ") + "],\n"
			}
			row = compose(row, p)
		}
		return "pub const S: [[usize; 16]; 7] = [\n" + text + "];\n"
	}
	wide := func(order binary.AppendByteOrder, row [16]byte) string {
		var words []string
		for i := 0; i < 16; i += 4 {
			words = append(words, fmt.Sprintf("0x%08x", order.AppendUint32(nil, binary.BigEndian.Uint32(row[i:]))))
		}
		return strings.Join(words, ", ")
	}
	var unrolled, steps, assigned, designated, arms strings.Builder
	for i, v := range p {
		fmt.Fprintf(&assigned, "to[%d] = from[%d];\n", i, v)
		fmt.Fprintf(&designated, "[%d] = 0x%x,\n", i, v)
		fmt.Fprintf(&arms, "%d => Some(%d),\n", i, v)
		if i%2 == 0 {
			fmt.Fprintf(&unrolled, "mix(&mut v, %d, %d, %d, %d, words[%d], words[%d]);\n", i/2%4, 4+i/2%4, 8+i/2%4, 12+i/2%4, v, p[i+1])
			fmt.Fprintf(&steps, "(a%d, b%d) = step(a%d, b%d, m%d, m%d, 0x7f);\n", i, i, i, i, v, p[i+1])
		}
	}
	digits := ""
	for _, v := range p {
		digits += fmt.Sprintf("%02x", v)
	}
	nibbles := fmt.Sprintf("%x", uint64(pack(p)))
	for name, text := range map[string]string{
		"a schedule": schedule(0), "later rows of a schedule": schedule(2), "the last row": schedule(6),
		"the inverse": spelled(inverse(p), "%d", ","), "backwards": spelled(reversed(p), "%d", ","), "counted from one": spelled(addOne(p), "%d", ","),
		"in the order of vectors": spelled(compose(p, columns), "%d", ","),
		"unrolled":                unrolled.String(), "unrolled with variables": steps.String(), "assigned one by one": assigned.String(),
		"designated": designated.String(), "a match": arms.String(),
		"digits": `hex!("` + digits + `")`, "digits in a longer text": `"` + strings.Repeat("e7", 150) + digits + strings.Repeat("a9", 99) + `"`,
		"digits at an odd place": `"f` + digits + `f"`, "one word": "0x" + nibbles + "u64", "one word, parted": "0x" + nibbles[:4] + "_" + nibbles[4:],
		"words, big end first": wide(binary.BigEndian, p), "words, little end first": wide(binary.LittleEndian, p),
		"a byte string": `b"` + escaped(p, false) + `"`, "a byte string as it is printed": fmt.Sprintf("%q", string(p[:])), "with short escapes": `b"` + escaped(p, true) + `"`,
		"octal escapes": `"` + spelled(p, `\%03o`, "") + `"`,
		"directives":    ".byte " + spelled(p, "%d", "\n.byte "),
	} {
		if by := find(t, text); by == "" {
			t.Errorf("%s: not found in\n%s", name, text)
		}
	}
}

func addOne(row [16]byte) [16]byte {
	for i := range row {
		row[i]++
	}
	return row
}

// escaped is row in the escapes of a string, some of them as letters where short.
func escaped(row [16]byte, short bool) string {
	letters := map[byte]string{0: `\0`, 7: `\a`, 8: `\b`, 9: `\t`, 10: `\n`, 11: `\v`, 12: `\f`, 13: `\r`}
	var b strings.Builder
	for _, v := range row {
		if letter := letters[v]; short && letter != "" {
			b.WriteString(letter)
		} else {
			fmt.Fprintf(&b, `\x%02x`, v)
		}
	}
	return b.String()
}

func TestPermutationIsFoundInData(t *testing.T) {
	le, be := binary.LittleEndian, binary.BigEndian
	for name, put := range map[string]func([]byte, byte) []byte{
		"bytes":  func(b []byte, v byte) []byte { return append(b, v) },
		"u16 le": func(b []byte, v byte) []byte { return le.AppendUint16(b, uint16(v)) },
		"u16 be": func(b []byte, v byte) []byte { return be.AppendUint16(b, uint16(v)) },
		"u32 le": func(b []byte, v byte) []byte { return le.AppendUint32(b, uint32(v)) },
		"u32 be": func(b []byte, v byte) []byte { return be.AppendUint32(b, uint32(v)) },
		"u64 le": func(b []byte, v byte) []byte { return le.AppendUint64(b, uint64(v)) },
		"u64 be": func(b []byte, v byte) []byte { return be.AppendUint64(b, uint64(v)) },
	} {
		for _, row := range [][16]byte{permutation, inverse(permutation), compose(permutation, permutation)} {
			for before := range 19 {
				for _, around := range []string{"\x00", "\x01", "\xff", "x"} {
					var table []byte
					for _, v := range row {
						table = put(table, v)
					}
					if by := find(t, strings.Repeat(around, 300+before)+string(table)+strings.Repeat(around, 7)); by == "" {
						t.Errorf("%s: not found behind %d of %q", name, before, around)
					}
				}
			}
		}
	}
	if by := find(t, "\xff\xfe"+string(slices.Concat(utf16le("["+spelled(permutation, "%d", ", ")+"]")))); by != byRow {
		t.Errorf("UTF-16: found by %q", by)
	}
}

func utf16le(s string) (b []byte) {
	for _, c := range []byte(s) {
		b = append(b, c, 0)
	}
	return b
}

func TestFlagsAreFoundHoweverTheyAreSpelled(t *testing.T) {
	names := []string{"CHUNK_START", "CHUNK_END", "PARENT", "ROOT", "KEYED_HASH", "DERIVE_KEY_CONTEXT", "DERIVE_KEY_MATERIAL"}
	camel := []string{"ChunkStart", "ChunkEnd", "Parent", "Root", "KeyedHash", "DeriveKeyContext", "DeriveKeyMaterial"}
	for name, test := range map[string]struct {
		names []string
		form  func(name string, bit int) string
	}{
		"Rust":              {names, func(n string, bit int) string { return fmt.Sprintf("const %s: u8 = 1 << %d;\n", n, bit) }},
		"Rust, typed":       {names, func(n string, bit int) string { return fmt.Sprintf("pub const %s: u32 = 1u32 << %du32;\n", n, bit) }},
		"numbers":           {names, func(n string, bit int) string { return fmt.Sprintf("#define B3_%s %d\n", n, 1<<bit) }},
		"C, cast":           {names, func(n string, bit int) string { return fmt.Sprintf("#define %s ((uint8_t)1 << %d) // no 9\n", n, bit) }},
		"an enumeration":    {camel, func(n string, bit int) string { return fmt.Sprintf("  %s = 0x%02x,\n", n, 1<<bit) }},
		"binary":            {camel, func(n string, bit int) string { return fmt.Sprintf("const %s = 0b%07b\n", n, 1<<bit) }},
		"BIT":               {names, func(n string, bit int) string { return fmt.Sprintf("%s = BIT(%d),\n", n, bit) }},
		"an assembler's":    {names, func(n string, bit int) string { return fmt.Sprintf(".set %s, %d\n", n, 1<<bit) }},
		"a dictionary":      {names, func(n string, bit int) string { return fmt.Sprintf("%q: %d, ", n, 1<<bit) }},
		"bitflags":          {names, func(n string, bit int) string { return fmt.Sprintf("const %s = Self::raw(0o%o);", n, 1<<bit) }},
		"snake case":        {names, func(n string, bit int) string { return fmt.Sprintf("let f_%s = %d;", strings.ToLower(n), 1<<bit) }},
		"a suffix":          {names, func(n string, bit int) string { return fmt.Sprintf("%s_FLAG = %d\n", n, 1<<bit) }},
		"values to be told": {camel, func(n string, bit int) string { return "flag" + n + "\n" }},
	} {
		all := ""
		for bit, n := range test.names {
			all += test.form(n, bit)
		}
		if by := find(t, all); by != byFlags {
			t.Errorf("%s: found by %q in\n%s", name, by, all)
		}
		some := ""
		for bit, n := range test.names[:4] {
			some += test.form(n, bit)
		}
		if by := find(t, some); by != byFlags {
			t.Errorf("%s, the first four: found by %q in\n%s", name, by, some)
		}
		if name == "values to be told" {
			continue
		}
		other := ""
		for bit, n := range test.names {
			other += test.form(n, (bit+2)%7)
		}
		if by := find(t, other); by != "" {
			t.Errorf("%s with other values: found by %q in\n%s", name, by, other)
		}
	}
}

func TestWhatIsNoImplementationIsNotFound(t *testing.T) {
	blake2 := [][16]byte{
		{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
		{11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
	}
	sigma := ""
	for _, row := range blake2 {
		sigma += spelled(row, "%d", ", ") + ",\n"
	}
	almost := permutation
	almost[3], almost[4] = almost[4], almost[3]
	for name, text := range map[string]string{
		"nothing": "", "the IV of SHA-256": "0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19",
		"sigma of BLAKE2": sigma, "its rows as data": string(blake2[1][:]) + string(blake2[2][:]), "two numbers exchanged": spelled(almost, "%d", ","),
		"one number less": spelled(permutation, "%d", ",")[2:], "the name": "# blake3\nuses BLAKE3, blake3::hash and its KEYED_HASH mode with the flags CHUNK_START and ROOT = 8",
		"a tree":       "enum Node { Root = 8, Parent = 4, Child = 2 } const CHUNK_START: usize = 0; const CHUNK_END: usize = 4096;",
		"a long digit": strings.Repeat("7", 5000), "a long word": strings.Repeat("a_", 5000), "zeros": strings.Repeat("\x00", 5000), "numbers": spelled(permutation, "%d", ", 255, 3, "),
		"counting": strings.Repeat(spelled(blake2[0], "%d", ","), 9), "use of flags": strings.Repeat("f(CHUNK_START | CHUNK_END | ROOT, 1); g(PARENT | ROOT, 4);\n", 9),
	} {
		if by := find(t, text); by != "" {
			t.Errorf("%s: found by %q", name, by)
		}
	}
}

// What is found does not depend on how the bytes arrive, nor on what is around.
func TestAnyRowInAnySpellingIsFound(t *testing.T) {
	all := make([]window, 0, len(rows))
	for w := range rows {
		all = append(all, w)
	}
	slices.Sort(all)
	forms := []string{"%d", "0x%x", "0b%b", "0o%o", "%02d", "%du8", "%d as u32", "(int)%d", "0x%02X_u8"}
	betweens := []string{",", " ", "\n", ", ", "\t|\t", " => ", "; ", ", // x\n", " /**/ ", "}, {"}
	rapid.Check(t, func(t *rapid.T) {
		w := rapid.SampledFrom(all).Draw(t, "row")
		var b strings.Builder
		b.WriteString(rapid.StringMatching(`[ -~\n]{0,80}`).Draw(t, "before") + "\n 99 ")
		for i := range 16 {
			fmt.Fprintf(&b, rapid.SampledFrom(forms).Draw(t, "form"), w>>(60-4*i)&15)
			b.WriteString(rapid.SampledFrom(betweens).Draw(t, "between"))
		}
		b.WriteString(rapid.StringMatching(`[ -~\n]{0,80}`).Draw(t, "after"))
		var x text
		hit := false
		for rest := []byte(b.String()); len(rest) > 0 && !hit; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "part")
			hit = x.write(rest[:n])
			rest = rest[n:]
		}
		if hit = x.end() || hit; !hit {
			t.Fatalf("not found in %q", b.String())
		}
	})
}

func TestNoOtherOrderIsFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		numbers := rapid.Permutation([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}).Draw(t, "order")
		row := [16]byte(numbers)
		if rows[pack(row)] {
			return
		}
		for _, text := range []string{spelled(row, "%d", ", "), string(numbers), escaped(row, true)} {
			found, err := File(strings.NewReader(text), Limits{})
			if err != nil || len(found) > 0 {
				t.Fatalf("%q: %v, %v", text, found, err)
			}
		}
	})
}
