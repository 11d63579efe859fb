package cratesioproxy

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A name that becomes a private one while upstream is asked for it is not asked for again, nor
// entered or told of.
func TestANameThatBecomesPrivateIsNotAskedForAgain(t *testing.T) {
	var log bytes.Buffer
	l := newLab(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	_, want := crate("lab-files", 1000)
	for path, ask := range map[string]func() error{
		"/la/b-/lab-tools": func() error { return l.refresh("lab-tools") },
		"/la/b-/lab-known": func() error { return l.refresh("lab-known") },
		dlPath(want):       func() error { _, err := l.read(want); return err },
	} {
		known := strings.HasSuffix(path, "known")
		l.evidence.makePrivate("")
		if known {
			l.on(path, text(line("lab-known", "1.0.0")))
			if err := ask(); err != nil {
				t.Fatal(err)
			}
			l.pass(DefaultFresh)
		}
		before, entered := l.requests(path), l.evidence.imports()
		l.on(path, func(w http.ResponseWriter, r *http.Request) {
			l.evidence.makePrivate("lab_")
			w.WriteHeader(503)
		})
		err := ask()
		if !known && !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", path, err)
		}
		if n := l.requests(path) - before; n != 1 || l.evidence.imports() != entered {
			t.Errorf("%s: asked %d times, %d entered", path, n, l.evidence.imports()-entered)
		}
	}
	l.evidence.makePrivate("")
	l.on("/la/b-/lab-gone", text(line("lab-gone", "1.0.0")))
	if err := l.refresh("lab-gone"); err != nil {
		t.Fatal(err)
	}
	l.pass(DefaultFresh)
	l.on("/la/b-/lab-gone", func(w http.ResponseWriter, r *http.Request) {
		l.evidence.makePrivate("lab_")
		w.WriteHeader(410)
	})
	before := l.evidence.imports()
	if err := l.refresh("lab-gone"); l.evidence.imports() != before {
		t.Errorf("what has vanished: %v, %d entered", err, l.evidence.imports()-before)
	}
	l.evidence.makePrivate("")
	l.on("/la/b-/lab-late", func(w http.ResponseWriter, r *http.Request) {
		l.evidence.makePrivate("lab_")
		text(line("lab-late", "1.0.0"))(w, r)
	})
	entered := l.evidence.imports()
	if err := l.refresh("lab-late"); !errors.Is(err, ErrNotFound) || l.evidence.imports() != entered {
		t.Errorf("what came late: %v, %d entered", err, l.evidence.imports()-entered)
	}
	l.proxy.Close()
	if l.facts.kinds() != "" || strings.Contains(log.String(), "cannot be had") {
		t.Errorf("alarms %q, log %s", l.facts.kinds(), log.String())
	}
}

// Crates that have moved, or are for who has a token now, are found where config.json says by now:
// who asks is not refused since it was read some minutes ago.
func TestCratesThatMovedAreFoundAtOnce(t *testing.T) {
	for name, at := range map[string]http.HandlerFunc{"gone": status(404), "closed": status(403), "broken": status(300)} {
		l := newLab(t, nil)
		data, want := crate("some", 1000)
		if err := l.refresh("none"); !errors.Is(err, ErrNotFound) { // config.json is known by then
			t.Fatal(err)
		}
		until(t, "config.json is known", func() bool { _, known, _ := l.upstream.settings.get(l.proxy.Clock()); return known })
		l.on("/config.json", text(`{"dl":"`+l.server.URL+`/moved/{crate}-{version}"}`))
		l.on(dlPath(want), at)
		l.on("/moved/some-1.0.0", sends(data))
		l.pass(time.Minute)
		if got, err := l.read(want); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		for range 3 { // what there is not is no reason to look again and again
			_, absent := crate("absent", 100)
			if _, err := l.read(absent); !errors.Is(err, ErrNotFound) {
				t.Error(err)
			}
		}
		if n := l.requests("/config.json"); n != 2 {
			t.Errorf("%s: config.json was asked for %d times", name, n)
		}
	}
}

// That the host where crates were is dead says nothing of the one where they are now.
func TestCratesThatMovedFromADeadHostAreFoundAtOnce(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	l := newLab(t, nil)
	l.on("/config.json", text(`{"dl":"`+gone.URL+`/dl/{crate}"}`))
	if err := l.refresh("none"); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	until(t, "config.json is known", func() bool { _, known, _ := l.upstream.settings.get(l.proxy.Clock()); return known })
	data, want := crate("some", 1000)
	l.on("/config.json", text(`{"dl":"`+l.server.URL+`/moved/{crate}"}`))
	l.on("/moved/some", sends(data))
	l.pass(time.Minute)
	l.slow.Store(int64(deadAfter))
	if got, err := l.read(want); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// Of a host that asks to be left alone for a while nobody thinks that its crates have moved: the
// index, which may be of the same host, is asked for no config.json for that.
func TestWhoAsksToBeLeftAloneHasNotMoved(t *testing.T) {
	l := newLab(t, nil)
	if err := l.refresh("none"); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	until(t, "config.json is known", func() bool { _, known, _ := l.upstream.settings.get(l.proxy.Clock()); return known })
	for _, name := range []string{"some", "other"} {
		_, want := crate(name, 100)
		l.on(dlPath(want), status(429, "Retry-After", "600"))
		l.pass(time.Minute)
		if _, err := l.read(want); !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
	}
	if n := l.requests("/config.json"); n != 1 {
		t.Errorf("config.json was asked for %d times", n)
	}
}

// Where crates have moved the token goes as far as it went before: to the host of the index, where
// its config.json says so by now, and to no other that this names.
func TestTheTokenGoesNoFurtherWhereCratesMoved(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("s3cr3t"), 0o600); err != nil {
		t.Fatal(err)
	}
	for elsewhere, want := range map[bool]string{false: "s3cr3t", true: ""} {
		data, some := crate("some", 100)
		seen := make(chan string, 1)
		moved := func(w http.ResponseWriter, r *http.Request) {
			seen <- r.Header.Get("Authorization")
			sends(data)(w, r)
		}
		other := httptest.NewServer(http.HandlerFunc(moved))
		t.Cleanup(other.Close)
		l := newLab(t, nil)
		l.upstream.setting.TokenFile = token
		if err := l.refresh("none"); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		until(t, "config.json is known", func() bool { _, known, _ := l.upstream.settings.get(l.proxy.Clock()); return known })
		base := map[bool]string{false: l.server.URL, true: other.URL}[elsewhere]
		l.on("/config.json", text(`{"dl":"`+base+`/moved/{crate}","auth-required":true}`))
		l.on(dlPath(some), status(403))
		l.on("/moved/some", moved)
		l.pass(time.Minute)
		if _, err := l.read(some); err != nil {
			t.Fatal(err)
		}
		if got := <-seen; got != want {
			t.Errorf("elsewhere %v: Authorization was %q", elsewhere, got)
		}
	}
}

// What came from where crates were before is not taken for the beginning of what comes from where
// they are now, whatever both call it.
func TestCratesThatMovedInTheMiddleAreReceivedAnew(t *testing.T) {
	l := newLab(t, nil)
	data, want := crate("some", 1000)
	if err := l.refresh("none"); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	until(t, "config.json is known", func() bool { _, known, _ := l.upstream.settings.get(l.proxy.Clock()); return known })
	l.on("/config.json", text(`{"dl":"`+l.server.URL+`/moved/{crate}-{version}"}`))
	l.on(dlPath(want), func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" {
			w.WriteHeader(404)
			return
		}
		w.Header().Set("ETag", `"1"`)
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(make([]byte, 500)) // and not what it is of
	})
	l.on("/moved/some-1.0.0", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	})
	l.pass(time.Minute)
	if got, err := l.read(want); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	l.proxy.Close()
	if l.facts.kinds() != "" {
		t.Errorf("alarms %q", l.facts.kinds())
	}
}

// Who leaves gives way at once to who waits for the place already.
func TestWhoLeavesGivesWayToWhoWaits(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Stall = time.Minute })
	l.upstream.bulk = make(chan struct{}, 1)
	large, slow := crate("slow", 400_000)
	l.on(dlPath(slow), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(large)))
		w.Write(large[:100_000])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	data, want := crate("some", 1000)
	l.on(dlPath(want), sends(data))
	first, err := l.upstream.Crate(t.Context(), slow)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		got, err := l.read(want)
		if err == nil && !bytes.Equal(got, data) {
			err = errors.New("other bytes")
		}
		done <- err
	}()
	until(t, "somebody waits", func() bool { return l.upstream.short.Load() == 1 })
	first.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
