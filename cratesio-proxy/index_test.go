package cratesioproxy

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/storage"
)

func TestAnIndexFileIsAskedForAgainWithItsValidators(t *testing.T) {
	for _, validator := range []string{"ETag", "Last-Modified"} {
		t.Run(validator, func(t *testing.T) {
			l := newLab(t, nil)
			conditional := map[string]string{"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}[validator]
			// Dates that have been, as they have to be of a Last-Modified.
			values := map[string][]string{"ETag": {`"1"`, `"2"`, `"3"`}, "Last-Modified": {"Tue, 01 Sep 2026 10:00:00 GMT", "Wed, 02 Sep 2026 10:00:00 GMT", "Thu, 03 Sep 2026 10:00:00 GMT"}}[validator]
			body, value := line("some", "1.0.0"), values[0]
			var got []string
			l.on("/so/me/some", func(w http.ResponseWriter, r *http.Request) {
				got = append(got, r.Header.Get(conditional))
				w.Header().Set(validator, value)
				if r.Header.Get(conditional) == value {
					w.WriteHeader(304)
					return
				}
				io.WriteString(w, body)
			})
			check := func(what string, asked, imported int) {
				t.Helper()
				if err := l.refresh("some"); err != nil {
					t.Fatal(err)
				}
				if n, m := l.requests("/so/me/some"), l.evidence.imports(); n != asked || m != imported {
					t.Errorf("%s: asked %d times for %d imports, want %d for %d", what, n, m, asked, imported)
				}
			}
			check("first", 1, 1)
			check("fresh", 1, 1)
			l.pass(DefaultFresh)
			check("unchanged", 2, 1)
			check("unchanged and fresh", 2, 1)
			value, body = values[1], line("some", "1.0.0")+line("some", "1.0.1")
			l.pass(DefaultFresh)
			check("changed", 3, 2)
			value = values[2] // and the bytes are the same
			l.pass(DefaultFresh)
			check("only the validator changed", 4, 2)
			if want := []string{"", values[0], values[0], values[1]}; !slices.Equal(got, want) {
				t.Errorf("%s was %q", conditional, got)
			}
			if l.evidence.imported[1] != body {
				t.Error("the snapshot is not what upstream served, byte for byte")
			}
		})
	}
}

func TestWhatWasNotedSavesRequestsAfterARestart(t *testing.T) {
	l := newLab(t, nil)
	l.on("/so/me/some", tagged(line("some", "1.0.0"), `"1"`))
	if err := l.refresh("some"); err != nil {
		t.Fatal(err)
	}
	until(t, "it is noted", func() bool { f, ok, _ := l.facts.File(t.Context(), CratesIO, "some"); return ok && f.ETag == `"1"` })
	forget := func() {
		l.upstream.entries = newRecent[string, entry](mostEntries)
	}
	forget()
	if err := l.refresh("some"); err != nil || l.requests("/so/me/some") != 1 {
		t.Errorf("what is fresh is asked for again after a restart: %v", err)
	}
	forget()
	l.pass(DefaultFresh)
	if err := l.refresh("some"); err != nil || l.proxy.Figures().Unchanged != 1 {
		t.Errorf("the validator is lost: %v", err)
	}
	// A validator is of one snapshot: with another known, it would hide a change for ever.
	forget()
	l.pass(DefaultFresh)
	l.evidence.crates[CratesIO+" some"] = Known{Name: "some", Snapshot: storage.CIDOf([]byte("another"))}
	if err := l.refresh("some"); err != nil || l.proxy.Figures().Unchanged != 1 || l.evidence.imports() != 2 {
		t.Errorf("a validator of something else was sent: %v", err)
	}
}

func TestAnUpstreamThatDoesNotTellIsServedStale(t *testing.T) {
	for name, bad := range map[string]http.HandlerFunc{
		"403": status(403), "429": status(429, "Retry-After", "100"), "500": status(500), "418": status(418),
		"404":          status(404),
		"not an index": text("<html>"), "another crate": text(line("other", "1.0.0")), "nothing": text(""),
		"truncated": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "99")
			io.WriteString(w, "{")
		},
		"stalled": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "{")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
		"corrupt gzip": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			io.WriteString(w, "xyz")
		},
		"another encoding": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			io.WriteString(w, "xyz")
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, nil)
			l.on("/so/me/some", text(line("some", "1.0.0")))
			if err := l.refresh("some"); err != nil {
				t.Fatal(err)
			}
			l.on("/so/me/some", bad)
			l.on("/ot/he/others", bad)
			l.pass(DefaultFresh)
			if err := l.refresh("some"); err != nil {
				t.Errorf("what is known is not served: %v", err)
			}
			before := l.requests("/so/me/some")
			if err := l.refresh("some"); err != nil || l.requests("/so/me/some") != before {
				t.Errorf("asked again at once: %v", err)
			}
			if err := l.refresh("others"); err == nil {
				t.Error("what is not known is served")
			}
			if l.evidence.imports() != 1 {
				t.Errorf("imported: %q", l.evidence.imported)
			}
		})
	}
}

func TestASnapshotThatTheRegistryRefusesRaisesAnAlarm(t *testing.T) {
	l := newLab(t, nil)
	l.on("/so/me/some", text(line("other", "1.0.0")))
	for range 3 {
		l.pass(time.Minute)
		if err := l.refresh("some"); !errors.Is(err, ErrSnapshot) || !errors.Is(err, ErrBroken) {
			t.Errorf("got %v", err)
		}
	}
	until(t, "the alarm is noted", func() bool { return l.facts.kinds() == AlarmSnapshot })
	if n := l.proxy.Figures().Alarms; n != 1 {
		t.Errorf("the same alarm was raised %d times", n)
	}
	l.evidence.err = errors.New("no database")
	l.on("/th/ir/third", text(line("third", "1.0.0")))
	if err := l.refresh("third"); !errors.Is(err, l.evidence.err) {
		t.Errorf("the registry's own trouble is blamed on upstream: %v", err)
	}
}

func TestACrateThatVanishesIsServedAndBelievedLate(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		config http.HandlerFunc
		after  []int // imports after each look, one in six minutes
	}{
		"gone, says upstream":       {410, nil, []int{2, 2, 2, 2}},
		"not to be shown":           {451, nil, []int{2, 2, 2, 2}},
		"not there":                 {404, nil, []int{1, 1, 2, 2}},
		"nothing is there any more": {404, status(404), []int{1, 1, 1, 1}},
		"upstream is not in order":  {404, text("<html>"), []int{1, 1, 1, 1}},
		"config.json is not served": {404, status(503), []int{1, 1, 1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, nil)
			l.on("/so/me/some", text(line("some", "1.0.0")))
			if err := l.refresh("some"); err != nil {
				t.Fatal(err)
			}
			until(t, "config.json is known", func() bool { _, known, _ := l.upstream.settings.get(l.proxy.Clock()); return known })
			until(t, "nobody asks for it", func() bool {
				l.upstream.configs.mu.Lock()
				defer l.upstream.configs.mu.Unlock()
				return len(l.upstream.configs.all) == 0
			})
			l.on("/so/me/some", status(c.status))
			if c.config != nil {
				l.on("/config.json", c.config)
			}
			for i, want := range c.after {
				l.pass(6 * time.Minute)
				l.upstream.entries = newRecent[string, entry](mostEntries) // as after a restart
				until(t, "it is noted", func() bool {
					f, _, _ := l.facts.File(t.Context(), CratesIO, "some")
					return i == 0 || c.config != nil || f.Status == c.status
				})
				if err := l.refresh("some"); err != nil {
					t.Fatal(err)
				}
				if n := l.evidence.imports(); n != want {
					t.Fatalf("after %d looks, %d imports, want %d", i+1, n, want)
				}
			}
			if c.config != nil { // that is trouble of the upstream, and no crate's
				if trouble, _ := l.upstream.LastTrouble(); l.facts.kinds() != "" || trouble.Over || trouble.What == "" {
					t.Errorf("alarms %q, trouble %+v", l.facts.kinds(), trouble)
				}
			} else {
				until(t, "the alarm is noted", func() bool { return l.facts.kinds() == AlarmVanished })
			}
			if n := l.evidence.imports(); l.evidence.imported[n-1] != "" && n > 1 {
				t.Errorf("imported %q", l.evidence.imported)
			}
			l.on("/so/me/some", text(line("some", "1.0.0")))
			l.pass(6 * time.Minute)
			if err := l.refresh("some"); err != nil || l.evidence.crates[CratesIO+" some"].Snapshot != storage.CIDOf([]byte(line("some", "1.0.0"))) {
				t.Errorf("when it is back: %v", err)
			}
		})
	}
}

// A wrong URL is told as that, not as an upstream that has no crate of any name.
func TestWithoutAConfigNo404IsBelieved(t *testing.T) {
	l := newLab(t, nil)
	config := l.serve["/config.json"]
	l.on("/config.json", status(404))
	for _, name := range []string{"some", "other"} {
		if err := l.refresh(name); !errors.Is(err, ErrBroken) || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "config.json is not there") {
			t.Errorf("%s: %v", name, err)
		}
	}
	trouble, _ := l.upstream.LastTrouble()
	if trouble.Over || !strings.Contains(trouble.What, "is the URL right?") || strings.Contains(trouble.What, "http://") {
		t.Errorf("%+v", trouble)
	}
	l.on("/config.json", config)
	l.pass(time.Minute)
	if err := l.refresh("some"); !errors.Is(err, ErrNotFound) {
		t.Errorf("once there is an index: %v", err)
	}
	if trouble, _ := l.upstream.LastTrouble(); !trouble.Over {
		t.Errorf("still %+v", trouble)
	}
}

func TestWhatTheRegistryFindsInASnapshotRaisesAlarms(t *testing.T) {
	l := newLab(t, nil)
	l.on("/so/me/some", text(line("some", "1.0.0")))
	l.evidence.finds = Imported{Changed: []Difference{{"1.0.0", "sha256 b, and first a"}}, Altered: []Difference{{"1.1.0", ""}}, Dropped: make([]Difference, 100)}
	for i := range l.evidence.finds.Dropped {
		l.evidence.finds.Dropped[i].Version = fmt.Sprintf("2.0.%d", i)
	}
	if err := l.refresh("some"); err != nil {
		t.Fatal(err)
	}
	until(t, "the alarms are noted", func() bool {
		kinds := l.facts.kinds()
		return strings.Count(kinds, AlarmChanged) == 1 && strings.Count(kinds, AlarmAltered) == 1 && strings.Count(kinds, AlarmDropped) == mostAlarms+1
	})
	l.facts.mu.Lock()
	defer l.facts.mu.Unlock()
	for _, a := range l.facts.alarms {
		if a.Kind == AlarmChanged && !strings.HasSuffix(a.Detail, "which is not believed: sha256 b, and first a") || a.Kind == AlarmAltered && !strings.HasSuffix(a.Detail, "not believed") {
			t.Errorf("%+v", a)
		}
	}
}

func TestWhatIsNotThereIsRememberedForAMoment(t *testing.T) {
	l := newLab(t, nil)
	for range 5 {
		if err := l.refresh("nothing"); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
	}
	if n := l.requests("/no/th/nothing"); n != 1 {
		t.Errorf("asked %d times", n)
	}
	l.pass(DefaultNegative)
	l.on("/no/th/nothing", text(line("nothing", "1.0.0")))
	if err := l.refresh("nothing"); err != nil {
		t.Errorf("what was published meanwhile is not found: %v", err)
	}
	for i := range 3 * mostResting / 2 {
		l.upstream.resting.put(strconv.Itoa(i), rest{})
	}
	if n := l.upstream.resting.size(); n > mostResting {
		t.Errorf("%d names are remembered", n)
	}
}

func TestSomeNamesAreNeverAskedUpstream(t *testing.T) {
	l := newLab(t, nil)
	l.evidence.private = "lab_"
	l.on("/so/me/some-name", text(line("some-Name", "1.0.0")))
	if err := l.refresh("some-name"); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"some_name": "/so/me/some_name", // known under another spelling
		"lab-tools": "/la/b-/lab-tools", "lab_tools": "/la/b_/lab_tools",
		"Some-Name": "/so/me/some-name2", "../x": "/..", "": "/", "nul": "/3/n/nul", "a/b": "/a", strings.Repeat("a", 65): "/aa",
	} {
		if err := l.refresh(name); !errors.Is(err, ErrNotFound) || l.requests(path) != 0 {
			t.Errorf("%q: %v, asked %d times", name, err, l.requests(path))
		}
	}
	if _, err := l.read(Want{Name: "lab-tools", Version: "1.0.0", ID: storage.CIDOf([]byte("x"))}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a private crate is asked for: %v", err)
	}
	// An upstream that answers by either spelling with one file.
	l.on("/tw/o_/two_names", text(line("two-names", "1.0.0")))
	if err := l.refresh("two_names"); !errors.Is(err, ErrNotFound) || l.evidence.imports() != 1 {
		t.Errorf("an alias is imported: %v", err)
	}
	if l.proxy.Figures().Alarms != 0 {
		t.Error("an alias raises an alarm")
	}
}

// A crate that upstream has no more may come back under another spelling.
func TestACrateMayComeBackUnderAnotherSpelling(t *testing.T) {
	l := newLab(t, nil)
	l.on("/so/me/some-name", text(line("some-name", "1.0.0")))
	if err := l.refresh("some-name"); err != nil {
		t.Fatal(err)
	}
	both := line("some-name", "1.0.0") + line("some_name", "2.0.0")
	l.on("/so/me/some-name", status(410))
	l.on("/so/me/some_name", text(both))
	l.pass(DefaultFresh)
	if err := l.refresh("some_name"); !errors.Is(err, ErrNotFound) || l.requests("/so/me/some_name") != 0 {
		t.Errorf("another spelling of what is there is asked for: %v", err)
	}
	if err := l.refresh("some-name"); err != nil || l.evidence.imports() != 2 {
		t.Fatalf("it is not entered that it is gone: %v, %d imports", err, l.evidence.imports())
	}
	if err := l.refresh("some_name"); err != nil || l.evidence.imported[2] != both {
		t.Errorf("it is not found where it is now: %v", err)
	}
	if err := l.refresh("some-name"); !errors.Is(err, ErrNotFound) {
		t.Errorf("by its old spelling: %v", err)
	}
}

func TestManyAskersMakeOneRequest(t *testing.T) {
	l := newLab(t, nil)
	release := make(chan struct{})
	l.on("/so/me/some", func(w http.ResponseWriter, r *http.Request) {
		<-release
		text(line("some", "1.0.0"))(w, r)
	})
	leaving, leave := context.WithCancel(t.Context())
	var group sync.WaitGroup
	var left, served atomic.Int64
	for i := range 100 {
		group.Go(func() {
			ctx := t.Context()
			if i == 0 || i%2 == 0 {
				ctx = leaving
			}
			switch err := l.upstream.Refresh(ctx, "some"); {
			case errors.Is(err, context.Canceled):
				left.Add(1)
			case err == nil:
				served.Add(1)
			}
		})
	}
	until(t, "all wait", func() bool { return l.proxy.Figures().Joined >= 99 })
	leave()
	until(t, "half of them leave", func() bool { return left.Load() == 50 })
	close(release)
	group.Wait()
	if n := l.requests("/so/me/some"); n != 1 || served.Load() != 50 {
		t.Errorf("%d requests, %d served", n, served.Load())
	}
}

func TestASlowUpstreamHoldsNobodyWhoHasSomething(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Patience, c.Stall = time.Second, 10*time.Second })
	l.on("/so/me/some", text(line("some", "1.0.0")))
	if err := l.refresh("some"); err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	l.on("/so/me/some", func(w http.ResponseWriter, r *http.Request) {
		<-release
		text(line("some", "1.0.0")+line("some", "1.0.1"))(w, r)
	})
	l.pass(DefaultFresh)
	begun := time.Now()
	for range 10 {
		if err := l.refresh("some"); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begun); took < time.Second || took > 5*time.Second {
		t.Errorf("waited %s in all, and the first should have waited for one second", took)
	}
	close(release)
	until(t, "the news come in", func() bool { return l.evidence.imports() == 2 })
	if n := l.requests("/so/me/some"); n != 2 {
		t.Errorf("asked %d times", n)
	}
}

func TestHugeIndexFilesAndBombsAreCut(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	zeros := make([]byte, 1<<20)
	for range 17 {
		z.Write(zeros)
	}
	z.Close()
	var empty bytes.Buffer // members without anything in them
	for empty.Len() < 1<<16 {
		z.Reset(&empty)
		z.Close()
	}
	huge := bytes.Repeat([]byte("x"), 1<<20)
	for name, h := range map[string]func(w http.ResponseWriter){
		"200 MB that say so": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", strconv.Itoa(200<<20))
			w.Write(huge)
		},
		"200 MB that do not": func(w http.ResponseWriter) {
			for range 200 {
				if _, err := w.Write(huge); err != nil {
					return
				}
			}
		},
		"a gzip bomb": func(w http.ResponseWriter) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(bomb.Bytes())
		},
		"gzip of nothing without end": func(w http.ResponseWriter) {
			w.Header().Set("Content-Encoding", "gzip")
			for range 1000 {
				if _, err := w.Write(empty.Bytes()); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, func(c *Config) { c.Stall = 5 * time.Second })
			l.on("/so/me/some", func(w http.ResponseWriter, _ *http.Request) { h(w) })
			if err := l.refresh("some"); !errors.Is(err, ErrBroken) || l.evidence.imports() != 0 || l.requests("/so/me/some") != 1 {
				t.Errorf("got %v after %d requests", err, l.requests("/so/me/some"))
			}
		})
	}
}

func TestAnIndexFileOfTheGreatestSizeIsTaken(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Stall = 5 * time.Second })
	body := line("some", "1.0.0")
	body += strings.Repeat(" ", MaxIndexBytes-len(body))
	l.on("/so/me/some", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
		if err != nil {
			t.Error(err)
		}
		io.WriteString(z, body)
		z.Close()
	})
	if err := l.refresh("some"); err != nil || l.evidence.imported[0] != body {
		t.Errorf("got %v", err)
	}
}

// A large file that ends too soon, in whole or within its gzip, is not taken for all of it.
func TestALargeIndexFileThatIsCutIsNotTakenForAll(t *testing.T) {
	noise := make([]byte, 3*largeBytes)
	for i := range noise { // lines of spaces and tabs, which do not compress to nothing
		noise[i] = " \t"[rand.IntN(2)]
	}
	whole := append([]byte(line("some", "1.0.0")), noise...)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(whole)
	z.Close()
	for name, h := range map[string]http.HandlerFunc{
		"gzip": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(packed.Bytes()[:packed.Len()*3/4])
		},
		"plain": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(whole)))
			w.Write(whole[:len(whole)*3/4])
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, func(c *Config) { c.Stall = 5 * time.Second })
			l.on("/so/me/some", h)
			if err := l.refresh("some"); !errors.Is(err, ErrUnavailable) || l.evidence.imports() != 0 {
				t.Errorf("got %v", err)
			}
			l.pass(time.Hour)
			l.on("/so/me/some", text(string(whole)))
			if err := l.refresh("some"); err != nil || l.evidence.imported[0] != string(whole) {
				t.Errorf("the whole: %v", err)
			}
		})
	}
}

func TestAnAnswerWithoutAnEndIsNotTakenForAll(t *testing.T) {
	l := newLab(t, nil)
	l.on("/so/me/some", func(w http.ResponseWriter, _ *http.Request) {
		conn, buffer, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		buffer.WriteString("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + line("some", "1.0.0"))
		buffer.Flush()
	})
	if err := l.refresh("some"); !errors.Is(err, ErrBroken) {
		t.Errorf("got %v", err)
	}
}

func TestOfflineNothingIsAsked(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Offline = true })
	l.evidence.crates[CratesIO+" some"] = Known{Name: "some"}
	data, want := crate("some", 100)
	l.blobs.held[want.ID] = data
	if unheld, err := l.facts.PutBlobs(t.Context(), []Blob{{ID: want.ID, Upstream: CratesIO}}); err != nil || len(unheld) > 0 {
		t.Fatal(unheld, err)
	}
	if err := l.refresh("some"); err != nil {
		t.Errorf("what is known is not served: %v", err)
	}
	if got, err := l.read(want); err != nil || !bytes.Equal(got, data) {
		t.Errorf("what is held is not served: %v", err)
	}
	_, other := crate("other", 100)
	if _, err := l.read(other); !errors.Is(err, ErrOffline) || !errors.Is(l.refresh("other"), ErrOffline) {
		t.Errorf("got %v", err)
	}
	if n := l.proxy.Figures().Requests; n != 0 {
		t.Errorf("upstream was asked %d times", n)
	}
}

func TestWhatComesNextIsFetchedAhead(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Ahead = 1 })
	l.evidence.private = "lab_"
	l.on("/ap/p1/app1", text(line("app1", "0.1.0", "old")+line("app1", "1.0.0", "Dep-a")+line("app1", "1.0.1", "dep-b")+line("app1", "1.0.2", "dep-a", "lab-x")))
	l.on("/de/p-/dep-a", text(line("Dep-a", "1.0.0", "deep")))
	l.on("/de/p-/dep-b", text(line("dep-b", "1.0.0")))
	l.on("/de/ep/deep", text(line("deep", "1.0.0")))
	if err := l.refresh("app1"); err != nil {
		t.Fatal(err)
	}
	until(t, "its dependencies are known", func() bool { return l.evidence.imports() == 3 })
	if l.requests("/3/o/old") != 0 || l.requests("/de/ep/deep") != 0 || l.requests("/la/b-/lab-x") != 0 {
		t.Error("more was fetched than what the newest versions need next, or a private name")
	}
	if err := l.refresh("dep-a"); err != nil || l.requests("/de/p-/dep-a") != 1 {
		t.Errorf("what was fetched ahead is asked for again: %v", err)
	}
	until(t, "the next wave is known", func() bool { return l.evidence.imports() == 4 })
}
