package client

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/registry/verify"
)

// twoNames is a registry that goes by two URLs, and a client that has pinned both.
func twoNames(t *testing.T) (f *fake, c *Client, names [2]string) {
	t.Helper()
	f, c, r := loggedIn(t)
	names = [2]string{f.server.URL, strings.Replace(f.server.URL, "127.0.0.1", "localhost", 1)}
	f.settle(*r.identity, func(s *record.Registry) { s.IndexURLs = []string{IndexURL(names[0]), IndexURL(names[1])} })
	if _, err := enter(t.Context(), c, names[0]); err != nil {
		t.Fatal(err)
	}
	if pins := must(c.home.Pins()); len(pins) != 2 {
		t.Fatalf("%d names are pinned", len(pins))
	}
	return f, c, names
}

// What was seen of a registry by one of its names holds by all of them: also where
// the other's pin was not written then, and for a command that began before.
func TestWhatOneNameHasSeenTheOthersHaveSeen(t *testing.T) {
	for name, c := range map[string]struct {
		see, lie func(f *fake, admin Identity)
		check    string
	}{
		"a replaced key": {func(f *fake, admin Identity) { f.rotate(admin) }, func(f *fake, admin Identity) {
			f.truncate(3)
			for range 3 {
				f.publish(admin, "demo", "1.0.0", []byte("evil"))
			}
		}, verify.CheckCheckpoint},
		"more entries": {func(f *fake, admin Identity) {
			f.publish(admin, "demo", "0.9.0", nil)
			f.publish(admin, "demo", "0.9.1", nil)
		}, func(f *fake, admin Identity) {
			f.truncate(3)
			f.publish(admin, "demo", "1.0.0", []byte("evil"))
			f.cosigned = time.Minute
		}, verify.CheckRollback},
		"another past of the same size": {func(f *fake, admin Identity) { f.publish(admin, "demo", "0.9.0", nil) }, func(f *fake, admin Identity) {
			f.truncate(3)
			f.publish(admin, "demo", "1.0.0", []byte("evil"))
		}, verify.CheckFork},
	} {
		for seer := range 2 {
			for _, written := range []bool{true, false} {
				t.Run(name, func(t *testing.T) {
					f, client, names := twoNames(t)
					before := must(client.home.PinOf(names[1-seer]))
					begun := must(client.Open(names[1-seer]))
					admin, _ := begun.Identity()
					stolen := f.logKey
					c.see(f, admin)
					if _, verdict, err := must(client.Open(names[seer])).LogCheck(t.Context()); err != nil || !verdict.OK() {
						t.Fatalf("%+v, %v", verdict, err)
					}
					saw, other := must(client.home.PinOf(names[seer])), must(client.home.PinOf(names[1-seer]))
					if string(other.Checkpoint) != string(saw.Checkpoint) || other.Keys != saw.Keys || saw.Size() <= before.Size() {
						t.Errorf("pinned %d entries and %d by the other name", saw.Size(), other.Size())
					}
					if !written { // as by a program from before both were
						other = before
						if err := client.home.writePin(before); err != nil {
							t.Fatal(err)
						}
					}
					f.logKey = stolen
					c.lie(f, admin)
					for _, r := range []*Registry{begun, must(client.Open(names[1-seer]))} {
						_, verdict, err := r.LogCheck(t.Context())
						if check, _ := verdict.Failure(); err != nil || check.Name != c.check {
							t.Errorf("log check: %+v, %v", check, err)
						}
						verdict, err = must(r.View(t.Context())).Verify(t.Context(), verify.Want{Subject: crateSubject("demo", "1.0.0"), CID: cidOf("evil")})
						if check, _ := verdict.Failure(); err != nil || check.Name != c.check {
							t.Errorf("verify: %+v, %v", check, err)
						}
					}
					if now := must(client.home.PinOf(names[1-seer])); string(now.Checkpoint) != string(other.Checkpoint) {
						t.Errorf("what was not believed is pinned: %d entries", now.Size())
					}
				})
			}
		}
	}
}

// Of commands that are shown different pasts at once, the later one finds it. One that
// was shown less of the same past finds nothing, and takes nothing back.
func TestCommandsAtOnceAreHeldAgainstEachOther(t *testing.T) {
	fork := func(sizes ...int) func(*fake, Identity) {
		return func(f *fake, id Identity) {
			f.truncate(2)
			for i := range sizes[0] {
				f.publish(id, "fork", "1.0."+string(rune('0'+i)), nil)
			}
		}
	}
	for name, c := range map[string]struct {
		meanwhile func(f *fake, id Identity)
		check     string // "" for OK
	}{
		"another past of the same size": {fork(2), verify.CheckFork},
		"another past, larger":          {fork(3), verify.CheckRollback},
		"another past, smaller":         {fork(1), verify.CheckFork},
		"the same past, grown":          {func(f *fake, id Identity) { f.publish(id, "demo", "1.0.2", nil) }, ""},
		"the same":                      {func(*fake, Identity) {}, ""},
	} {
		for _, way := range []string{"log check", "verify", "login"} {
			t.Run(name+", by "+way, func(t *testing.T) {
				f, client, r := loggedIn(t)
				id, _ := r.Identity()
				f.publish(id, "demo", "1.0.0", []byte("one"))
				f.publish(id, "demo", "1.0.1", []byte("two"))
				view, met := must(r.View(t.Context())), must(client.Meet(t.Context(), f.server.URL, Terms{}))
				want := verify.Want{Subject: crateSubject("demo", "1.0.0"), CID: cidOf("one")}
				ev := must(view.Evidence(t.Context(), want.Subject)) // its tiles are kept
				mine, entries, records := f.mem, slices.Clone(f.entries), slices.Clone(f.records)
				c.meanwhile(f, id)
				if _, verdict, err := r.LogCheck(t.Context()); err != nil || !verdict.OK() {
					t.Fatalf("the other command: %+v, %v", verdict, err)
				}
				pinned := must(client.home.PinOf(f.server.URL))
				if c.check != "" { // one is shown what goes with its past
					f.mem, f.entries, f.records = mine, entries, records
				}

				var verdict verify.Verdict
				var err error
				switch way {
				case "log check":
					_, verdict, err = view.Check(t.Context())
				case "verify":
					verdict, err = view.Verify(t.Context(), want)
				case "login":
					_, err = client.pin(t.Context(), met.log, met.Pin, met.past, client.home.SavePin)
				}
				if refused := (*Unproved)(nil); errors.As(err, &refused) {
					verdict, err = refused.Verdict, nil
				}
				check, _ := verdict.Failure()
				if err != nil || check.Name != c.check || c.check == "" && way != "login" && !verdict.OK() {
					t.Errorf("%+v, %v", check, err)
				}
				kept := must(client.home.Conflicts(pinned))
				if c.check != "" && (len(kept) != 1 || kept[0].Pinned != string(pinned.Checkpoint) || kept[0].Offered != string(ev.Checkpoint)) || c.check == "" && len(kept) != 0 {
					t.Errorf("kept %+v", kept)
				}
				now, _ := translog.Peek(must(client.home.PinOf(f.server.URL)).Checkpoint)
				if was, _ := translog.Peek(pinned.Checkpoint); now != was {
					t.Errorf("pinned %+v, then %+v", was, now)
				}
			})
		}
	}
}
