package web

import (
	"testing"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/state"
)

func TestAVersionIsCalledNewerOnlyWhereItIs(t *testing.T) {
	for _, c := range []struct {
		this, better string
		want         bool
	}{
		{"0.1.0", "0.2.0", true},
		{"0.9.0", "0.10.0", true},
		{"1.0.0-rc.1", "1.0.0", true},
		{"0.2.0", "0.1.0", false}, // 0.2.0 was yanked
		{"1.0.0", "1.0.0", false},
	} {
		page := artifactPage{Judged: registry.Judged{Version: state.Version{Version: c.this}}, Newer: registry.Judged{Version: state.Version{Version: c.better}}}
		if got := page.Later(); got != c.want {
			t.Errorf("%s beside %s: %v", c.better, c.this, got)
		}
	}
}
