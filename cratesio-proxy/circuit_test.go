package cratesioproxy

import (
	"errors"
	"testing"
	"time"
)

func TestADeadHostHoldsNobody(t *testing.T) {
	now := time.Duration(0)
	c := newCircuit(func() time.Duration { return now })
	begin := func() bool {
		_, err := c.begin()
		if err != nil && (!errors.Is(err, ErrUnavailable) || RetryAfter(err) <= 0) {
			t.Fatalf("refused with %v, try again after %s", err, RetryAfter(err))
		}
		return err == nil
	}
	c.failed(0)
	c.failed(0)
	c.failed(0)
	if !begin() {
		t.Fatal("failures of one moment, as when a server is restarted, count as death")
	}
	now = deadAfter
	c.failed(now)
	if begin() || !c.isDead() {
		t.Fatal("a host that fails and fails is still asked")
	}
	now += shortestRest
	begun, err := c.begin()
	if err != nil || begin() {
		t.Fatal("after the rest, exactly one finds out whether it is alive")
	}
	c.failed(begun)
	now += shortestRest
	if begin() {
		t.Fatal("a host that is still dead rests no longer")
	}
	c.failed(0) // an attempt of long ago
	now += shortestRest
	if !begin() {
		t.Fatal("an attempt that began before prolongs the rest")
	}
	c.succeeded()
	for range 2 {
		if !begin() || c.isDead() {
			t.Fatal("a host that answers is taken for dead")
		}
	}
	for range 20 { // one failure after the other
		now += time.Hour
		c.failed(now - 10*time.Second)
		if c.rest > longestRest {
			t.Fatalf("rests %s", c.rest)
		}
	}
}

func TestAHostThatAsksForAPauseGetsIt(t *testing.T) {
	now := time.Duration(0)
	c := newCircuit(func() time.Duration { return now })
	c.leave(24 * time.Hour)
	now = longestWait - 1
	if _, err := c.begin(); RetryAfter(err) != 1 {
		t.Errorf("asked again during the pause: %v", err)
	}
	now = longestWait
	if _, err := c.begin(); err != nil {
		t.Errorf("the pause is not bounded: %v", err)
	}
}
