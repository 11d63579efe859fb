package verify

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// CrateVersion is one version of a crate as the replayed log has it.
type CrateVersion struct {
	Name, Version string
	CID           storage.CID
	Yanked        bool
	Index         int64
	// Time is that of the log entry, in whole seconds.
	Time time.Time
	// Settings are those in force before the entry: what its index line follows from besides the .crate.
	Settings cargo.IndexSettings
}

// settingsSince are the settings in force after the entry index.
type settingsSince struct {
	index  int64
	record record.ID
	lines  cargo.IndexSettings
}

// settingsBefore returns the settings that the entry at index was made under.
func (r Replayed) settingsBefore(index int64) cargo.IndexSettings {
	var in cargo.IndexSettings
	for _, s := range r.settings {
		if s.index < index {
			in = s.lines
		}
	}
	return in
}

// Crates returns the versions of every crate by the crate's name, each list in
// the order of publication: what an index has to serve, no more and no less.
func (r Replayed) Crates() (map[string][]CrateVersion, error) {
	prefix := state.VersionPrefix(record.KindCrate, "")
	prefix = strings.TrimSuffix(prefix, "/")
	crates := map[string][]CrateVersion{}
	for key, value := range r.State {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		v, err := state.DecodeVersion(value)
		if err != nil {
			return nil, fmt.Errorf("state %s: %w", key, err)
		}
		crates[v.Name] = append(crates[v.Name], CrateVersion{
			Name: v.Name, Version: v.Version, CID: v.CID, Yanked: v.Yanked,
			Index: v.Index, Time: v.Time, Settings: r.settingsBefore(v.Index),
		})
	}
	for _, versions := range crates {
		sort.Slice(versions, func(i, j int) bool { return versions[i].Index < versions[j].Index })
	}
	return crates, nil
}
