package registry

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// What an older release derived is derived anew at the start: an upgraded catalog is the same
// as a rebuilt one, and what changed before is known.
func TestWhatAnOlderReleaseDerivedIsDerivedAnew(t *testing.T) {
	c := newCourt(t)
	line := thereLine("serde", "1.0.0", "bytes", notYankedThere)
	altered := strings.Replace(line, `"deps":[]`, `"deps":[{"name":"evil","req":"*"}]`, 1)
	other := thereLine("serde", "2.0.0", "other", notYankedThere)
	for _, file := range []string{line, line + other, altered + other, other} {
		c.imported("serde", file)
	}
	c.imported("rand", thereLine("rand", "1.0.0", "rand", notYankedThere))
	want, err := c.r.Catalog.StateDigest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.r.Close()
	for _, name := range []string{"serde", "rand"} {
		c.derivedByAnOlderRelease(name)
	}
	if got, err := c.r.Catalog.StateDigest(t.Context()); err != nil || got == want {
		t.Fatalf("it is not as an older release has it: %v", err)
	}
	if c.r, err = Open(t.Context(), c.w.config); err != nil {
		t.Fatal(err)
	}
	if got, err := c.r.Catalog.StateDigest(t.Context()); err != nil || got != want {
		t.Errorf("state %x is derived anew as %x, %v", want, got, err)
	}
	if in := c.imported("serde", altered+other+thereLine("serde", "3.0.0", "three", notYankedThere)); len(in.Altered) > 0 {
		t.Errorf("what was seen before is told again: %+v", in)
	}
	if in := c.imported("serde", strings.Replace(altered, "evil", "more", 1)+other); !slices.Equal(in.Altered, []string{"1.0.0"}) {
		t.Errorf("%+v", in)
	}
	c.w.rebuilds(c.r)
	c.r.Close()
	if c.r, err = Open(t.Context(), c.w.config); err != nil { // finds nothing more to do
		t.Fatal(err)
	}
}

// derivedByAnOlderRelease puts what is known of a crate of crates.io as such a release has it.
func (c *court) derivedByAnOlderRelease(name string) {
	c.t.Helper()
	ctx, key := c.t.Context(), state.UpstreamKey(cratesIO, name)
	resolves := regexp.MustCompile(`"resolves":"[0-9a-f]{64}",`)
	rows, err := c.r.Catalog.StateHistory(ctx, key, maxIndex)
	if err != nil {
		c.t.Fatal(err)
	}
	err = c.r.Catalog.Update(ctx, func(tx *catalog.Tx) error {
		for _, row := range rows {
			value := resolves.ReplaceAll(row.Value, nil)
			value = []byte(strings.ReplaceAll(string(value), `"since"`, `"again":"2026-01-01T00:00:00Z","since"`))
			if _, err := tx.RederiveState(ctx, key, row.Index, value); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = c.r.Catalog.SetMeta(ctx, derivedUpstreams, "0")
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// What cannot be derived anew, since an index file is missing, is once that is there again.
func TestWhatCouldNotBeDerivedAnewIsAtALaterStart(t *testing.T) {
	c := newCourt(t)
	line := thereLine("serde", "1.0.0", "bytes", notYankedThere)
	c.imported("serde", line)
	want, err := c.r.Catalog.StateDigest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.r.Close()
	c.derivedByAnOlderRelease("serde")
	snapshot := (&archive{world: c.w}).blob(storage.CIDOf([]byte(line)))
	for _, there := range []bool{false, true} {
		from, to := snapshot, snapshot+".away"
		if there {
			from, to = to, from
		}
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
		if c.r, err = Open(t.Context(), c.w.config); err != nil {
			t.Fatal(err)
		}
		if got, err := c.r.Catalog.StateDigest(t.Context()); err != nil || (got == want) != there {
			t.Errorf("its index file is there: %v; derived anew: %v, %v", there, got == want, err)
		}
		c.r.Close()
	}
	if c.r, err = Open(t.Context(), c.w.config); err != nil { // for the court's end
		t.Fatal(err)
	}
}
