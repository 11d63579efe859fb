package cratesioproxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"phoenix-lab.org/aln-registry/storage"
)

// What one upstream has served is not held of another: an index names what it likes, and nobody
// gets the bytes of the first by that. What both have served is held of both, stored once.
func TestWhatOneUpstreamServedIsHeldOfThatOneAlone(t *testing.T) {
	var config Config
	l := newLab(t, func(c *Config) { config = *c })
	l.on("/other/config.json", text(`{"dl":"`+l.server.URL+`/otherdl/{crate}/{version}"}`))
	proxy, err := New(config, []Setting{{Name: CratesIO, Index: l.server.URL + "/"}, {Name: "other", Index: l.server.URL + "/other/"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	data, want := crate("some", 100_000)
	path := "/other" + dlPath(want)[1:]
	first, other := proxy.Upstream(CratesIO), proxy.Upstream("other")
	l.on(dlPath(want), sends(data))
	if err := first.Hold(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	read := func(u *Upstream) ([]byte, error) {
		c, err := u.Crate(t.Context(), want)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return io.ReadAll(c)
	}
	if _, err := other.Open(t.Context(), want); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("what the first served is opened as the other's: %v", err)
	}
	if got, err := read(other); !errors.Is(err, ErrNotFound) || len(got) > 0 {
		t.Errorf("of the other come %d bytes, %v", len(got), err)
	}
	if err := other.Hold(t.Context(), want); !errors.Is(err, ErrNotFound) {
		t.Errorf("held of the other, which has not got it: %v", err)
	}
	l.pass(2 * DefaultNegative)
	l.on(path, sends(data))
	for range 2 {
		for _, u := range []*Upstream{other, first} {
			if got, err := read(u); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s: %d bytes, %v", u.Name(), len(got), err)
			}
			until(t, "it is stored", func() bool { return proxy.Figures().Receiving == 0 })
		}
	}
	if n := l.requests(dlPath(want)); n != 1 {
		t.Errorf("the first was asked %d times", n)
	}
	if n := l.requests(path); n != 2 { // and once in vain
		t.Errorf("the other was asked %d times", n)
	}
	if f := proxy.Figures(); f.Damaged != 0 || f.Alarms != 0 {
		t.Errorf("%+v", f)
	}
}

// A flood of alarms of one upstream makes nobody forget that another's was raised a moment ago.
func TestAFloodOfAlarmsIsItsUpstreamsOwn(t *testing.T) {
	var config Config
	l := newLab(t, func(c *Config) { config = *c })
	proxy, err := New(config, []Setting{{Name: CratesIO, Index: l.server.URL + "/"}, {Name: "other", Index: l.server.URL + "/other/"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	first, other := proxy.Upstream(CratesIO), proxy.Upstream("other")
	raised := func() int64 { return proxy.Figures().Alarms }
	same := Alarm{Name: "some", Version: "1.0.0", Kind: AlarmChanged, At: proxy.Clock()}
	first.alarm(same)
	for n := range mostAlarmed + 10 {
		other.alarm(Alarm{Name: fmt.Sprint("crate", n), Kind: AlarmMismatch, At: proxy.Clock()})
	}
	before := raised()
	if first.alarm(same); raised() != before {
		t.Error("an alarm is raised again after another upstream's flood")
	}
	if other.alarm(same); raised() != before+1 {
		t.Error("an alarm of one upstream is taken for another's")
	}
	until(t, "all are noted", func() bool {
		l.facts.mu.Lock()
		defer l.facts.mu.Unlock()
		return int64(len(l.facts.alarms)) == raised()
	})
}
