package content

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Whatever stands before a table in data, and however it is cut into writes, it is found, and
// nothing is where a byte of it is higher.
func TestATableInDataIsFoundWhereverItBegins(t *testing.T) {
	low := rapid.SliceOfN(rapid.ByteRange(0, 20), 0, 40)
	rapid.Check(t, func(t *rapid.T) {
		width := rapid.SampledFrom([]int{1, 2, 4, 8}).Draw(t, "width")
		var table []byte
		for i, v := range permutation {
			table = append(table, v)
			if i < len(permutation)-1 {
				table = append(table, make([]byte, width-1)...)
			}
		}
		spoiled := rapid.Bool().Draw(t, "spoiled")
		if spoiled {
			table[rapid.IntRange(0, len(table)-1).Draw(t, "at")] = 16
		}
		before := append(low.Draw(t, "before"), 16)
		after := append([]byte{16}, low.Draw(t, "after")...)
		all := slices.Concat(before, table, after)
		var d data
		found := false
		for len(all) > 0 && !found {
			n := rapid.IntRange(1, len(all)).Draw(t, "write")
			found = d.write(all[:n])
			all = all[n:]
		}
		if found == spoiled {
			t.Fatalf("found: %v, of %d bytes each, spoiled: %v", found, width, spoiled)
		}
	})
}
