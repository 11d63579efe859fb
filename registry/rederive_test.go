package registry

import (
	"errors"
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
	c.asOlder("serde", 100)
	c.asOlder("rand", 100)
	if got, err := c.r.Catalog.StateDigest(t.Context()); err != nil || got == want {
		t.Fatalf("it is not as an older release has it: %v", err)
	}
	if err := c.r.Catalog.SetMeta(t.Context(), derivedUpstreams, "0"); err != nil {
		t.Fatal(err)
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
	if in := c.imported("serde", strings.Replace(altered, "evil", "more", 1)+other); !slices.Equal(versionsOf(in.Altered), []string{"1.0.0"}) {
		t.Errorf("%+v", in)
	}
	c.w.rebuilds(c.r)
	c.r.Close()
	if c.r, err = Open(t.Context(), c.w.config); err != nil { // finds nothing more to do
		t.Fatal(err)
	}
}

// asOlder has the first most values of a crate be as an older release derived them.
func (c *court) asOlder(name string, most int) {
	c.t.Helper()
	keep, key := regexp.MustCompile(`"resolves":"[0-9a-f]{64}",`), state.UpstreamKey(cratesIO, name)
	rows, err := c.r.Catalog.StateHistory(c.t.Context(), key, maxIndex)
	if err != nil {
		c.t.Fatal(err)
	}
	err = c.r.Catalog.Update(c.t.Context(), func(tx *catalog.Tx) error {
		for _, row := range rows[:min(most, len(rows))] {
			value := keep.ReplaceAll(row.Value, nil)
			value = []byte(strings.ReplaceAll(string(value), `"since"`, `"again":"2026-01-01T00:00:00Z","since"`))
			if _, err := tx.RederiveState(c.t.Context(), key, row.Index, value); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// Where an index file cannot be read, or the start is broken off, all servers serve on, and a later
// start derives the crate anew: also where another server went on from what the older release made.
func TestWhatCannotBeDerivedAnewIsDerivedLater(t *testing.T) {
	for _, trouble := range []error{storage.ErrNotFound, storage.ErrCorrupt, storage.ErrUnavailable} {
		c := newCourt(t)
		line := thereLine("serde", "1.0.0", "bytes", notYankedThere)
		altered := strings.Replace(line, `"deps":[]`, `"deps":[{"name":"evil","req":"*"}]`, 1)
		c.imported("serde", line)
		c.imported("serde", altered)
		want, err := c.r.Catalog.StateDigest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.asOlder("serde", 1)
		// What another server made of that: it believes what was said last.
		key := state.UpstreamKey(cratesIO, "serde")
		rows, err := c.r.Catalog.StateHistory(t.Context(), key, maxIndex)
		if err != nil {
			t.Fatal(err)
		}
		mixed := regexp.MustCompile(`"resolves":"[0-9a-f]{64}"`).ReplaceAll(rows[1].Value, []byte(`"resolves":"`+strings.Repeat("0", 64)+`"`))
		err = c.r.Catalog.Update(t.Context(), func(tx *catalog.Tx) error {
			_, err := tx.RederiveState(t.Context(), key, rows[1].Index, mixed)
			return err
		})
		if err == nil {
			err = c.r.Catalog.SetMeta(t.Context(), derivedUpstreams, "0")
		}
		if err != nil {
			t.Fatal(err)
		}
		c.r.Close()

		id := storage.CIDOf([]byte(altered))
		c.blobs.hidden.Store(&id)
		c.blobs.why = trouble
		r, err := Open(t.Context(), c.w.config)
		if errors.Is(trouble, storage.ErrUnavailable) != errors.Is(err, trouble) {
			t.Errorf("%v: the start says %v", trouble, err)
		}
		if err == nil {
			if u, ok, err := r.UpstreamCrate(t.Context(), cratesIO, "serde"); err != nil || !ok || u.Versions != 1 {
				t.Errorf("%v: %+v, %v", trouble, u, err)
			}
			r.Close()
		}
		c.blobs.hidden.Store(nil)
		if c.r, err = Open(t.Context(), c.w.config); err != nil {
			t.Fatal(err)
		}
		if got, err := c.r.Catalog.StateDigest(t.Context()); err != nil || got != want {
			t.Errorf("%v: state %x is derived anew as %x, %v", trouble, want, got, err)
		}
	}
}

// What an older release made can be read, as long as it is not derived anew.
func TestWhatAnOlderReleaseDerivedCanBeRead(t *testing.T) {
	c := newCourt(t)
	c.imported("serde", thereLine("serde", "1.0.0", "bytes", notYankedThere))
	c.asOlder("serde", 1)
	if u, ok, err := c.r.upstreamAt(t.Context(), state.UpstreamKey(cratesIO, "serde"), maxIndex); err != nil || !ok || len(u.Versions) != 1 {
		t.Errorf("%+v, %v", u, err)
	}
	c.imported("serde", thereLine("serde", "1.0.0", "bytes", notYankedThere)+thereLine("serde", "2.0.0", "other", notYankedThere))
}
