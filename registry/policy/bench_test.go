package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/storage"
)

func hashOf(i int) [32]byte {
	return sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
}

// largeGrant is a grant whose list has n hashes, and the list.
func largeGrant(tb testing.TB, n int) (particle.EnvGrant, []byte) {
	hashes := make([][32]byte, n)
	for i := range hashes {
		hashes[i] = hashOf(i)
	}
	list := particle.MarshalList(hashes)
	g := goodGrant(tb)
	id := storage.CIDOf(list)
	g.AllowedCrates, g.AllowedCratesList = nil, &id
	return g, list
}

// busyTerms are the shipped rules and n others.
func busyTerms(tb testing.TB, n int) *Terms {
	var rules []NamedRule
	for _, shipped := range particle.ShippedRules() {
		rules = append(rules, NamedRule{shipped.ID, shipped.QuarantineRule})
	}
	for i := range n {
		rules = append(rules, denyRule(fmt.Sprintf("rule-%d", i), particle.RuleMatch{Names: []string{fmt.Sprintf("bad-%d", i)}, Versions: "<1.2.3"}))
	}
	return &Terms{MinAgeDays: 7, Rules: compiled(tb, rules...)}
}

// busyCase is a decision in which everything is asked and nothing denies.
func busyCase(tb testing.TB) (*Asker, *Terms, []Facts) {
	g, list := largeGrant(tb, 100_000)
	grant := CompileGrant("bafkrei-grant", g, list, true)
	asker := askerWith(particle.ScopeBuild)
	asker.DID, asker.Grant, asker.GrantNamed, asker.GrantUntil = g.Subject, grant, grant.CID, g.Expires.Time
	facts := make([]Facts, 1024)
	for i := range facts {
		f := goodFacts(tb)
		f.Name, f.Digest = fmt.Sprintf("crate_%d", i), hashOf(i*97)
		facts[i] = f
	}
	return &asker, busyTerms(tb, 100), facts
}

func BenchmarkDecide(b *testing.B) {
	asker, terms, facts := busyCase(b)
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if d := Decide(asker, terms, &facts[0], now); !d.Allow {
				b.Fatal(d.Reason())
			}
		}
	})
	b.Run("many", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			i++
			if d := Decide(asker, terms, &facts[i&1023], now); !d.Allow {
				b.Fatal(d.Reason())
			}
		}
	})
}

func BenchmarkCompileGrant(b *testing.B) {
	g, list := largeGrant(b, 100_000)
	b.ReportAllocs()
	for b.Loop() {
		if c := CompileGrant("cid", g, list, true); c.Listed() != 100_000 {
			b.Fatal(c.Unreadable())
		}
	}
}

// A question is answered without allocating: a view asks one for each line.
func TestDecidingAllocatesNothing(t *testing.T) {
	asker, terms, facts := busyCase(t)
	young, denied, listed := facts[1], facts[2], facts[3]
	young.Since = now.Add(-time.Hour)
	denied.Name, listed.Digest = "blake3", hashOf(-1)
	for name, f := range map[string]*Facts{"allowed": &facts[0], "too young": &young, "quarantined": &denied, "not listed": &listed} {
		if n := testing.AllocsPerRun(100, func() { Decide(asker, terms, f, now) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
