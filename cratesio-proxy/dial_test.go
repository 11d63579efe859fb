package cratesioproxy

import (
	"errors"
	"testing"
	"time"
)

// Who finds out whether a dead host lives again may take long, as where a proxy keeps silent: nobody
// waits behind them, neither who is told at once that it is dead nor who finds out next.
func TestNobodyWaitsBehindWhoLooksWhetherADeadHostLives(t *testing.T) {
	l := newLab(t, nil)
	host := l.upstream.index
	for range mostOpening { // they are under way
		host.opening <- struct{}{}
		host.dialling <- struct{}{}
	}
	dead := func(until time.Duration) {
		host.mu.Lock()
		defer host.mu.Unlock()
		host.rest, host.until = time.Hour, until
	}
	l.upstream.patience = 5 * time.Second
	dead(l.proxy.Elapsed() + time.Hour)
	if err := l.refresh("some"); !errors.As(err, new(*openError)) {
		t.Errorf("while it is dead: %v", err)
	}
	l.on("/so/me/some", text(line("some", "1.0.0")))
	l.pass(time.Minute)
	dead(0)
	if err := l.refresh("some"); err != nil {
		t.Errorf("at the end of a rest: %v", err)
	}
}
