package registry

import (
	"fmt"
	"testing"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
)

// A reviewer who amends a rule and proposes its end over and over does not keep
// others from seeing what they vote on.
func TestManyProposalsDoNotHideTheOpenOne(t *testing.T) {
	c := newCourt(t)
	reviewer := c.member(particle.TierCoreStakeholder, state.RoleReviewer)
	var last record.ID
	for i := range 3 {
		c.quarantine(reviewer, "left-pad", func(q *particle.QuarantineRule) {
			for n := range i + 1 {
				q.Match[0].Names = append(q.Match[0].Names, fmt.Sprint("left-pad-", n))
			}
		})
		last = reviewer.enter(c.rule("left-pad"), &record.Release{Reason: "again"}).Record
	}
	rules, err := c.r.Rules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for most, want := range map[int]int{4: 3, 3: 1, 1: 1} {
		found, err := c.r.releases(t.Context(), rules, most)
		if all := found["left-pad"]; err != nil || len(all) != want || all[want-1].Record != last || !all[want-1].Open {
			t.Errorf("of at most %d: %+v, %v", most, found, err)
		}
	}
}
