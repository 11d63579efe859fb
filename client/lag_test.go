package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/verify"
)

// behindBy is f as a replica shows it that knows only size entries.
func (f *fake) behindBy(size int, cosigned time.Duration) *fake {
	other := &fake{t: f.t, origin: f.origin, logKey: f.logKey, members: f.members, cosigned: cosigned}
	other.entries, other.records = slices.Clone(f.entries), slices.Clone(f.records)
	other.truncate(size)
	return other
}

// isLog: what replicas that are behind answer otherwise.
func isLog(r *http.Request, prefix string) bool { return strings.HasPrefix(r.URL.Path, "/log/"+prefix) }

// Five entries are pinned, and a sixth is there. Each answer of the log is one of those
// that a replica may give which is behind, or one that none may.
var laggards = map[string]struct {
	// tampers makes what answers in place of f; asked counts the checkpoints asked for.
	tampers func(f *fake, id Identity) func(asked int, w http.ResponseWriter, r *http.Request) bool
	// check is the one that fails, "": none does; most bounds how often the checkpoint is asked for.
	check string
	most  int
	kept  int
}{
	"behind, with the others' tiles": {func(f *fake, _ Identity) func(int, http.ResponseWriter, *http.Request) bool {
		old := f.behindBy(4, -time.Minute).note()
		return func(asked int, w http.ResponseWriter, r *http.Request) bool {
			return asked <= 3 && isLog(r, "checkpoint") && answer(w, old)
		}
	}, "", 4, 0},
	"behind, alone, until it has caught up": {func(f *fake, _ Identity) func(int, http.ResponseWriter, *http.Request) bool {
		old, tiles := f.behindBy(4, -time.Minute), 0
		return func(asked int, w http.ResponseWriter, r *http.Request) bool {
			switch {
			case asked == 1 && isLog(r, "checkpoint"):
				return answer(w, old.note())
			case isLog(r, "tile/") && tiles < 5:
				tiles++
				old.serveTile(w, strings.TrimPrefix(r.URL.Path, "/log/"))
				return true
			}
			return false
		}
	}, "", 2, 0},
	"the newest checkpoint, but tiles of one that is behind": {func(f *fake, _ Identity) func(int, http.ResponseWriter, *http.Request) bool {
		old, tiles := f.behindBy(4, -time.Minute), 0
		return func(_ int, w http.ResponseWriter, r *http.Request) bool {
			if !isLog(r, "tile/") || tiles == 7 {
				return false
			}
			tiles++
			old.serveTile(w, strings.TrimPrefix(r.URL.Path, "/log/"))
			return true
		}
	}, "", 1, 0},
	"for ever behind": {func(f *fake, _ Identity) func(int, http.ResponseWriter, *http.Request) bool {
		old := f.behindBy(4, -time.Minute).note()
		return func(_ int, w http.ResponseWriter, r *http.Request) bool {
			return isLog(r, "checkpoint") && answer(w, old)
		}
	}, verify.CheckStale, int(lagBound/lagPause) + 1, 0},
	"for ever without the tiles of what was seen": {func(f *fake, _ Identity) func(int, http.ResponseWriter, *http.Request) bool {
		old := f.behindBy(4, -time.Minute)
		return func(_ int, w http.ResponseWriter, r *http.Request) bool {
			switch {
			case isLog(r, "checkpoint"):
				return answer(w, old.note())
			case isLog(r, "tile/"):
				old.serveTile(w, strings.TrimPrefix(r.URL.Path, "/log/"))
				return true
			}
			return false
		}
	}, verify.CheckRollback, 1, 1},
	"once cosigned after what was seen": {func(f *fake, _ Identity) func(int, http.ResponseWriter, *http.Request) bool {
		old := f.behindBy(4, time.Minute).note()
		return func(asked int, w http.ResponseWriter, r *http.Request) bool {
			return asked == 1 && isLog(r, "checkpoint") && answer(w, old)
		}
	}, verify.CheckRollback, 1, 1},
	"once another past, smaller, with the tiles of the first": {func(f *fake, id Identity) func(int, http.ResponseWriter, *http.Request) bool {
		other := f.behindBy(3, -time.Minute)
		other.publish(id, "fork", "1.0.0", nil)
		return func(asked int, w http.ResponseWriter, r *http.Request) bool {
			switch {
			case asked == 1 && isLog(r, "checkpoint"):
				return answer(w, other.note())
			case asked == 1 && strings.HasSuffix(r.URL.Path, ".p/4"):
				other.serveTile(w, strings.TrimPrefix(r.URL.Path, "/log/"))
				return true
			}
			return false
		}
	}, verify.CheckFork, 1, 1},
	"behind, and then another past": {func(f *fake, id Identity) func(int, http.ResponseWriter, *http.Request) bool {
		old, other := f.behindBy(4, -time.Minute).note(), f.behindBy(4, 0)
		other.publish(id, "fork", "1.0.0", nil)
		other.publish(id, "fork", "1.0.1", nil)
		return func(asked int, w http.ResponseWriter, r *http.Request) bool {
			switch {
			case asked == 1 && isLog(r, "checkpoint"):
				return answer(w, old)
			case asked > 1 && isLog(r, "checkpoint"):
				return answer(w, other.note())
			case asked > 1 && isLog(r, "tile/"):
				other.serveTile(w, strings.TrimPrefix(r.URL.Path, "/log/"))
				return true
			}
			return false
		}
	}, verify.CheckFork, 2, 1},
}

func answer(w http.ResponseWriter, data []byte) bool {
	w.Write(data)
	return true
}

// Each is asked through two of the ways in which a checkpoint comes to be believed.
func TestAReplicaThatIsBehindIsAskedAgainAndOneThatLiesIsNot(t *testing.T) {
	for name, c := range laggards {
		for way, ask := range map[string]func(ctx context.Context, k *Client, url string) error{
			"log check": func(ctx context.Context, k *Client, _ string) error {
				_, verdict, err := must(k.Open("")).LogCheck(ctx)
				if err != nil {
					return err
				}
				return unproved("", verdict)
			},
			"login": func(ctx context.Context, k *Client, url string) error {
				_, err := k.Login(ctx, url, "")
				return err
			},
			"verify": func(ctx context.Context, k *Client, _ string) error {
				v, err := must(k.Open("")).View(ctx)
				if err != nil {
					return err
				}
				verdict, err := v.Verify(ctx, verify.Want{Subject: crateSubject("demo", "1.0.0")})
				if err != nil {
					return err
				}
				return unproved("", verdict)
			},
		} {
			t.Run(name+"/"+way, func(t *testing.T) {
				f, known, r := loggedIn(t)
				for _, version := range []string{"1.0.0", "1.0.1", "1.0.2"} {
					f.publish(*r.identity, "demo", version, []byte(version))
				}
				must(known.Login(t.Context(), f.server.URL, ""))
				f.publish(*r.identity, "demo", "1.0.3", []byte("six"))
				f.cosigned = time.Second
				tamper, asked := c.tampers(f, *r.identity), 0
				f.tamper = func(w http.ResponseWriter, r *http.Request) bool {
					if isLog(r, "checkpoint") {
						asked++
					}
					return tamper(asked, w, r)
				}

				err := ask(t.Context(), known, f.server.URL)
				failed := ""
				if refused := (*Unproved)(nil); errors.As(err, &refused) {
					check, _ := refused.Verdict.Failure()
					failed = check.Name
				} else if err != nil {
					t.Fatal(err)
				}
				if failed != c.check || asked > c.most {
					t.Errorf("%q fails, with %d checkpoints asked for; want %q and at most %d: %v", failed, asked, c.check, c.most, err)
				}
				pin := must(known.home.PinOf(f.server.URL))
				if c.check == "" && pin.Size() != 6 || c.check != "" && pin.Size() != 5 {
					t.Errorf("%d entries are pinned", pin.Size())
				}
				if kept := must(known.home.Conflicts(pin)); len(kept) != c.kept {
					t.Errorf("%d contradictions are kept, want %d", len(kept), c.kept)
				}
			})
		}
	}
}

// waits is a client in home that notes how long it would have waited.
func waits(home Home) (*Client, *[]time.Duration) {
	var waited []time.Duration
	c := clientIn(home)
	c.web.sleep = func(ctx context.Context, d time.Duration) error {
		waited = append(waited, d)
		return ctx.Err()
	}
	return c, &waited
}

func unready(w http.ResponseWriter, after, code string) bool {
	if after != "" {
		w.Header().Set("Retry-After", after)
	}
	refuse(w, http.StatusServiceUnavailable, code, "not now")
	return true
}

func TestARegistryThatCannotAnswerNowIsAskedAgainWhenItSays(t *testing.T) {
	for name, c := range map[string]struct {
		after  string
		times  int // that it cannot
		ok     bool
		waited time.Duration
	}{
		"at once":                {"2", 0, true, 0},
		"soon":                   {"2", 2, true, 4 * time.Second},
		"never":                  {"2", 1000, false, busyBound},
		"much later":             {"3600", 1, false, 0},
		"without saying when":    {"", 1, false, 0},
		"at some day, in words":  {"Fri, 31 Dec 1999 23:59:59 GMT", 1, false, 0},
		"before it was asked":    {"-1", 1, false, 0},
		"now, and again, and so": {"0", 1, false, 0},
	} {
		for way, ask := range map[string]func(r *Registry) error{
			"a read":    func(r *Registry) error { _, err := r.Checkpoint(t.Context()); return err },
			"a session": func(r *Registry) error { _, err := r.NewSession(t.Context(), "publish", 0); return err },
			"a submission": func(r *Registry) error {
				_, err := r.SignAndSubmit(t.Context(), Draft{Subject: record.MemberSubject(r.identity.DID()), Body: &record.Member{Roles: []string{"publisher"}, Tier: "guest"}})
				return err
			},
		} {
			t.Run(name+"/"+way, func(t *testing.T) {
				f, known, _ := loggedIn(t)
				k, waited := waits(known.home)
				r := must(k.Open(""))
				must(r.Session(t.Context(), "read", "", 0))
				paths := map[string]string{"a read": "/log/checkpoint", "a session": sessionPath, "a submission": "/v1/records"}
				left, assertions := c.times, map[string]bool{}
				f.tamper = func(w http.ResponseWriter, req *http.Request) bool {
					if req.URL.Path != paths[way] {
						return false
					}
					if assertion := req.PostFormValue("assertion"); assertions[assertion] && assertion != "" {
						t.Error("an assertion is used twice")
					} else {
						assertions[assertion] = true
					}
					left--
					return left >= 0 && unready(w, c.after, "unavailable")
				}
				if err := ask(r); (err == nil) != c.ok || !c.ok && statusOf(err) != http.StatusServiceUnavailable {
					t.Errorf("%v", err)
				}
				var sum time.Duration
				for _, d := range *waited {
					sum += d
				}
				if sum != c.waited {
					t.Errorf("waited %s, want %s", sum, c.waited)
				}
			})
		}
	}
}

// A registry that answered that nothing is certain may have taken the record.
func TestARecordThatWentInUnansweredIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		enters, refusedFirst, ok bool
	}{
		"it went in":                    {true, false, true},
		"it did not, another's did":     {false, false, false},
		"refused at once, nothing sent": {false, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			f, known, r := loggedIn(t)
			sent := 0
			f.requests = nil
			f.tamper = func(w http.ResponseWriter, req *http.Request) bool {
				if req.URL.Path != "/v1/records" {
					return false
				}
				sent++
				if sent > 1 || c.refusedFirst {
					refuse(w, http.StatusConflict, "stale", "a record came between")
					return true
				}
				if c.enters {
					f.log(submitted(req))
				}
				return unready(w, "2", "unpublished")
			}
			done, err := must(known.Open("")).SignAndSubmit(t.Context(), Draft{Subject: record.MemberSubject(r.identity.DID()), Body: &record.Member{Roles: []string{"publisher"}, Tier: "guest"}})
			if c.ok != (err == nil) || !c.ok && statusOf(err) != http.StatusConflict || c.ok && (done.Index != 2 || done.Record != f.records[2].ID()) {
				t.Errorf("%+v, %v", done, err)
			}
			if c.refusedFirst && f.count("GET /v1/records/") != 0 {
				t.Error("a record that nobody may have taken is looked for")
			}
		})
	}
}

func submitted(req *http.Request) *record.Record {
	var s submissionJSON
	must(0, json.NewDecoder(req.Body).Decode(&s))
	return must(record.Parse(must(base64.StdEncoding.DecodeString(s.Record))))
}

// Heads may come from a replica that does not know the last change yet.
func TestARecordSignedForHeadsOfTheDayBeforeIsSignedAnew(t *testing.T) {
	subject := must(record.VersionSubject(record.KindCrate, "demo", "1.0.0"))
	for name, c := range map[string]struct {
		// between is who changed the crate, of which the heads do not tell times times.
		mine, twice bool
		times       int
		ok          bool
	}{
		"after a change of our own":           {true, false, 1, true},
		"told of only after a moment":         {true, false, 5, true},
		"never told of":                       {true, false, 1000, false},
		"after somebody else's":               {false, false, 1, false},
		"after two of our own, one not known": {true, true, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			f, known, r := loggedIn(t)
			other, _ := user(t)
			f.publish(*r.identity, "demo", "1.0.0", []byte("one"))
			old := f.heads(subject.Thing(), r.identity.DID())
			by := must(other.Identity(""))
			if c.mine {
				by = *r.identity
			}
			for range map[bool]int{true: 2, false: 1}[c.twice] {
				h := f.heads(subject.Thing(), r.identity.DID())
				f.log(f.sign(by.Signer(), subject, [32]byte{}, record.Header{Prev: h.Prev, By: h.By}, &record.Yank{Yanked: true}))
			}
			told := 0
			f.tamper = func(w http.ResponseWriter, req *http.Request) bool {
				switch {
				case strings.HasPrefix(req.URL.Path, "/v1/heads/"):
					told++
					if told <= c.times {
						writeJSON(w, map[string]any{"thing": old.Thing, "prev": old.Prev, "by": old.By, "key": nil, "origin": old.Origin})
						return true
					}
				case req.URL.Path == "/v1/records":
					rec := submitted(req)
					if rec.Header().Prev != f.heads(subject.Thing(), r.identity.DID()).Prev {
						refuse(w, http.StatusConflict, "stale", "a record came between")
						return true
					}
					f.log(rec)
					writeJSON(w, map[string]any{"record": rec.ID(), "index": len(f.records) - 1})
					return true
				}
				return false
			}
			before := f.mem.Size()
			done, err := must(known.Open("")).SignAndSubmit(t.Context(), Draft{Subject: subject, Body: &record.Yank{Yanked: false}})
			if c.ok != (err == nil) || !c.ok && statusOf(err) != http.StatusConflict || c.ok && done.Index != before {
				t.Errorf("%+v, %v", done, err)
			}
			if want := before + int64(map[bool]int{true: 1}[c.ok]); f.mem.Size() != want {
				t.Errorf("the log has %d entries, want %d", f.mem.Size(), want)
			}
			if told > int(lagBound/lagPause)+2 {
				t.Errorf("heads were asked for %d times", told)
			}
		})
	}
}
