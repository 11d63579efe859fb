package registry

import (
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
)

// What reading an index file costs that is in memory: as it is, under no grant, and
// under one whose view differs.
func BenchmarkIndexFile(b *testing.B) {
	c := newCourt(b)
	c.publish("demo")
	r := c.r
	g := particle.EnvGrant{
		Registry: r.Origin(), Issuer: r.Origin(), Subject: "did:web:host.example", NotBefore: particle.At(time.Now().Add(-time.Hour)), Expires: particle.At(time.Now().Add(time.Hour)),
		AllowedCrates: []string{}, AllowedProtocols: []string{}, AllowedEndpoints: []string{}, Tier: particle.TierGuest,
	}
	bound := policy.Asker{DID: g.Subject, Tier: g.Tier, Scopes: []string{particle.ScopeRead}, Grant: policy.CompileGrant("bafkrei", g, nil, true)}
	for name, ask := range map[string]func() error{
		"file":     func() error { _, err := r.indexFile(b.Context(), "demo"); return err },
		"no-grant": func() error { _, err := r.IndexFile(b.Context(), reader, "demo"); return err },
		"grant":    func() error { _, err := r.IndexFile(b.Context(), bound, "demo"); return err },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := ask(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
