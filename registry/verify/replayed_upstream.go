package verify

import (
	"fmt"
	"slices"
	"strings"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// UpstreamCrate is a crate of another registry as the replayed log has it.
type UpstreamCrate struct {
	// Upstream is the other registry, Name the crate as last spelled there.
	Upstream, Name string
	// Private: by the settings in force the name is nobody's but this registry's, so that
	// nothing of it is served as another one's.
	Private bool
	// Versions are in the order first seen: that of its index file here.
	Versions []UpstreamVersion
}

// UpstreamVersion is one version of an UpstreamCrate.
type UpstreamVersion struct {
	Version string
	CID     storage.CID // of the bytes first named
	// Resolves is of what its line was first said to resolve to.
	Resolves state.Digest
	// Gone: it is not listed there any more as it first was, and is served as yanked.
	Gone bool
	// Snapshot is the index file in which its line stands, Record one that names that.
	Snapshot storage.CID
	Record   record.ID
}

// Upstreams returns all crates of other registries, sorted by those and by their names:
// what the indexes have to serve that stand in these registries' places.
func (r Replayed) Upstreams() ([]UpstreamCrate, error) {
	settings, _, err := state.SettingsOf(r.State)
	if err != nil {
		return nil, err
	}
	var keys []string
	for key := range r.State {
		if strings.HasPrefix(key, state.UpstreamsPrefix()) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	crates := make([]UpstreamCrate, 0, len(keys))
	for _, key := range keys {
		u, err := state.DecodeUpstream(r.State[key])
		if err != nil {
			return nil, fmt.Errorf("state %s: %w", key, err)
		}
		c := UpstreamCrate{Upstream: u.Upstream, Name: u.Name, Private: isPrivate(settings.PrivateNames, u.Name)}
		for _, v := range u.Versions {
			c.Versions = append(c.Versions, UpstreamVersion{
				Version: v.Version, CID: storage.CIDFromDigest(v.Digest), Resolves: v.Resolves, Gone: !v.Gone.IsZero(), Snapshot: v.Line, Record: r.imports[v.Line],
			})
		}
		crates = append(crates, c)
	}
	return crates, nil
}

func isPrivate(prefixes []string, name string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool {
		return strings.HasPrefix(cargo.CanonicalName(name), cargo.CanonicalName(prefix))
	})
}
