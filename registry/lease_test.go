package registry

import (
	"errors"
	"testing"
	"time"
)

// A confirmation holds for five seconds by both clocks, whichever says that they are over.
func TestAConfirmationHoldsByBothClocks(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	for name, c := range map[string]struct {
		elapsed, clock time.Duration
		holds          bool
	}{
		"at once":                      {0, 0, true},
		"after a while":                {4 * time.Second, 4 * time.Second, true},
		"at the end":                   {5 * time.Second, 5 * time.Second, false},
		"the computer slept":           {time.Second, time.Hour, false},
		"the clock was set back":       {time.Second, -time.Hour, false},
		"a bit back":                   {time.Second, -time.Second, true},
		"the clock stands":             {6 * time.Second, 0, false},
		"the steady clock stands":      {0, 6 * time.Second, false},
		"long ago, and the clock lies": {time.Hour, time.Second, false},
	} {
		elapsed, clock := time.Minute, start
		r := &Registry{Config: Config{Elapsed: func() time.Duration { return elapsed }, Clock: func() time.Time { return clock }}, lease: &lease{}}
		if err := r.Current(); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("%s: never confirmed, and %v", name, err)
		}
		at := r.moment()
		r.lease.confirmed.Store(&at)
		elapsed, clock = elapsed+c.elapsed, clock.Add(c.clock)
		if err := r.Current(); (err == nil) != c.holds {
			t.Errorf("%s: %v", name, err)
		}
		r.lease.end()
		if r.Current() == nil {
			t.Errorf("%s: it holds after the end", name)
		}
	}
}

// Times of the process's own clocks carry both, and what lies between two such is told by
// the steady one alone: a moment keeps them apart.
func TestAMomentKeepsItsClocksApart(t *testing.T) {
	c := Config{Clock: time.Now}.withClock()
	at := c.moment()
	if at.clock != at.clock.Round(0) {
		t.Errorf("%s has the steady clock too", at.clock)
	}
	if !c.within(at, time.Minute) {
		t.Error("a minute is over at once")
	}
}

// Where nobody else writes the catalog there is nothing to confirm.
func TestARegistryOfItsOwnIsCurrent(t *testing.T) {
	r, _ := openTest(t)
	if err := r.Current(); err != nil || r.lease != nil || r.Figures().Replica != (ReplicaFigures{}) {
		t.Error(err)
	}
}
