package registry

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/storage"
)

// toldLine is what an upstream says of a version.
type toldLine struct {
	of     string // whose digest it names
	yanked bool
}

func (l toldLine) text(name, version string) string {
	more := notYankedThere
	if l.yanked {
		more = yankedThere
	}
	return thereLine(name, version, l.of, more)
}

// toldCrate is what is to be known of a crate of an upstream, whatever it said one after the other.
type toldCrate struct {
	name  string
	order []string            // of versions, as first seen
	last  map[string]toldLine // the last line with the digest that was said first
	gone  map[string]bool     // the last file has no such line
}

// told takes in an index file, which is returned.
func (c *toldCrate) told(t *rapid.T, empty bool) string {
	file, listed := "", map[string]toldLine{}
	if !empty {
		for _, version := range []string{"1.0.0", "1.1.0", "2.0.0-rc.1", "2.0.0"} {
			if rapid.Bool().Draw(t, "listed") {
				listed[version] = toldLine{rapid.SampledFrom([]string{"one", "two", "three"}).Draw(t, "bytes"), rapid.Bool().Draw(t, "yanked")}
				file += listed[version].text(c.name, version)
				if _, known := c.last[version]; !known {
					c.order, c.last[version] = append(c.order, version), listed[version]
				}
			}
		}
	}
	for _, version := range c.order {
		l, ok := listed[version]
		if c.gone[version] = !ok || l.of != c.last[version].of; !c.gone[version] {
			c.last[version] = l
		}
	}
	return file
}

// seen is the index file that somebody sees to whom only some bytes are allowed (nil: all): of
// others the version is yanked, or, where they are hidden, not there.
func (c *toldCrate) seen(allowed map[string]bool, hidden bool) string {
	var file strings.Builder
	for _, version := range c.order {
		l := c.last[version]
		denied := allowed != nil && !allowed[l.of]
		if denied && hidden {
			continue
		}
		l.yanked = l.yanked || c.gone[version] || denied
		file.WriteString(l.text(c.name, version))
	}
	return file.String()
}

// Whatever an upstream says one after the other: each version that was ever seen is listed, with the
// digest that was said first, none that policy denies is to be had, and none shows that is hidden.
func TestAnUpstreamsIndexListsWhatIsKnownAndNothingDenied(t *testing.T) {
	c := newCourt(t)
	under := func(offshore bool) policy.Asker {
		host := c.member(particle.TierGuest)
		c.grant(c.admin, host, func(g *particle.EnvGrant) {
			g.OffshoreFlag, g.AllowedCrates = offshore, []string{storage.CIDOf([]byte("one")).Hex(), storage.CIDOf([]byte("two")).Hex()}
		})
		return c.asker(host, "read", "")
	}
	allowed := map[string]bool{"one": true, "two": true}
	near, far := under(false), under(true)
	crates := 0
	rapid.Check(t, func(t *rapid.T) {
		crates++
		told := &toldCrate{name: fmt.Sprintf("crate%d", crates), last: map[string]toldLine{}, gone: map[string]bool{}}
		for range rapid.IntRange(1, 4).Draw(t, "files") {
			empty := len(told.order) > 0 && rapid.IntRange(0, 5).Draw(t, "empty") == 0
			file := told.told(t, empty)
			if file == "" && len(told.order) == 0 {
				continue // that nothing is gone is no news
			}
			c.imported(told.name, file)
			for who, see := range map[string]struct {
				asker  policy.Asker
				want   string
				denied bool
			}{
				"under no grant":       {reader, told.seen(nil, false), false},
				"under one":            {near, told.seen(allowed, false), true},
				"under one that hides": {far, told.seen(allowed, true), true},
			} {
				if got := c.there(see.asker, told.name); got != see.want {
					t.Fatalf("%s it is\n%swant\n%s", who, got, see.want)
				}
				for _, version := range told.order {
					of := told.last[version].of
					v, err := c.thereVersion(see.asker, told.name, version, of)
					may := err == nil && v.Refusal() == nil
					if may != (!see.denied || allowed[of]) || err != nil && !errors.Is(err, ErrNotFound) {
						t.Fatalf("%s %s, of %s, is to be had: %t, %v", who, version, of, may, err)
					}
				}
			}
		}
	})
	c.w.rebuilds(c.r)
}
