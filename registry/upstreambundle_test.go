package registry

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// A bundle holds every import record about the crate, and of the index files, the oldest
// first, as many as fit: whoever wants the others finds them by their records.
func TestUpstreamBundlesAreBounded(t *testing.T) {
	c := newCourt(t)
	var before string
	var all []string
	for i, pad := range []int{3 << 20, 3 << 20, 4 << 20, 1} {
		version := fmt.Sprintf("1.%d.0", i)
		file := before + thereLine("serde", version, "one", notYankedThere+`,"pad":"`+strings.Repeat("p", pad)+`"`)
		before += thereLine("serde", version, "one", notYankedThere)
		c.imported("serde", file)
		all = append(all, file)
	}
	c.imported("rand", thereLine("rand", "1.0.0", "two", notYankedThere))
	items, err := c.r.UpstreamBundle(t.Context(), reader, cratesIO, "serde", "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	var about []BundleItem
	for i, item := range items {
		if i > 0 && item.Index <= items[i-1].Index {
			t.Error("not in order of the log")
		}
		rec, err := record.Parse(item.Envelope)
		if err != nil {
			t.Fatal(err)
		}
		if rec.Subject().Upstream() != "" {
			about = append(about, item)
			if rec.Subject().Crate() != "serde" {
				t.Errorf("it has a record about %s", rec.Subject())
			}
		}
	}
	if len(about) != len(all) || items[0].Index != 0 {
		t.Fatalf("%d records about it, the first of all is %d", len(about), items[0].Index)
	}
	for i, fits := range []bool{true, true, false, false} {
		if got := len(about[i].Attachments) == 1 && storage.CIDOf(about[i].Attachments[0]) == storage.CIDOf([]byte(all[i])); got != fits {
			t.Errorf("%d: attached is %v", i, got)
		}
	}
	for _, of := range [][3]string{{cratesIO, "serde", "9.0.0"}, {cratesIO, "serd", "1.0.0"}, {cratesIO, "Serde", "1.0.0"}, {"bonn", "serde", "1.0.0"}, {"", "serde", "1.0.0"}} {
		if _, err := c.r.UpstreamBundle(t.Context(), reader, of[0], of[1], of[2]); !errors.Is(err, ErrNotFound) {
			t.Errorf("%v: %v", of, err)
		}
	}
}
