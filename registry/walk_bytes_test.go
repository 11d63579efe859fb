package registry

import (
	"fmt"
	"strings"
	"testing"
)

// However large the index files are that the log has evidence of, only so many of them are in
// memory at once, for whoever walks the log: and none for who asks only what entries name.
func TestAWalkKeepsFewSnapshotsAtOnce(t *testing.T) {
	c := newCourt(t)
	const each = 2 << 20
	for n := range 20 {
		name := fmt.Sprint("crate-", n)
		c.sees(name, seenLine(name, "1.0.0", strings.Repeat("x", each)))
	}
	for _, names := range []bool{false, true} {
		w := &walk{catalog: c.r.Catalog, blobs: c.r.Blobs, names: names}
		next, most, all := int64(0), int64(0), int64(0)
		var before []*walked
		err := w.run(t.Context(), 0, c.r.Size(), func(page []*walked) error {
			for _, l := range before {
				if l != nil {
					t.Error("what was looked at is kept")
					break
				}
			}
			held := int64(0)
			for _, l := range page {
				if l.index != next || len(l.problems) > 0 || l.rec == nil {
					t.Errorf("entry %d comes after %d: %v", l.index, next-1, l.problems)
				}
				next++
				held += l.brings()
			}
			most, all, before = max(most, held), all+held, page
			return nil
		})
		if err != nil || next != c.r.Size() {
			t.Errorf("%d entries of %d, %v", next, c.r.Size(), err)
		}
		switch {
		case names && all >= each:
			t.Errorf("%d bytes of index files were read for nothing", all)
		case !names && (all < 20*each || most > walkBytes+walkAtOnce*(each+1<<10)):
			t.Errorf("%d bytes at once, of %d", most, all)
		}
	}
}
