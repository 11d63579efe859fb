package cratesioproxy

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
)

func TestPausesHaveJitter(t *testing.T) {
	for tries, d := range map[int]time.Duration{1: firstPause, 2: 2 * firstPause, 3: 4 * firstPause} {
		for random, want := range map[float64]time.Duration{0: d / 2, 0.5: d * 3 / 4, 0.999: d/2 + time.Duration(0.999*float64(d/2))} {
			if got := pause(tries, func() float64 { return random }); got != want || got >= d {
				t.Errorf("after %d tries, %v: %s, want %s", tries, random, got, want)
			}
		}
	}
	random := Config{}.orDefault().Random
	if first, second := random(), random(); first == second {
		t.Errorf("it is always %v", first)
	}
}

func TestTroubleIsTriedAgainWithGrowingPauses(t *testing.T) {
	growing := []time.Duration{150 * time.Millisecond, 300 * time.Millisecond, 600 * time.Millisecond}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   error
		slept  []time.Duration
	}{
		"500":                {status(500), ErrUnavailable, growing},
		"503":                {status(503), ErrUnavailable, growing},
		"429":                {status(429), ErrUnavailable, growing},
		"429 for too long":   {status(429, "Retry-After", "13"), ErrUnavailable, nil},
		"401":                {status(401), ErrRefused, nil},
		"403":                {status(403), ErrRefused, nil},
		"404":                {status(404), ErrNotFound, nil},
		"410":                {status(410), ErrNotFound, nil},
		"451":                {status(451), ErrNotFound, nil},
		"418":                {status(418), ErrBroken, nil},
		"204":                {status(204), ErrBroken, nil},
		"206":                {status(206), ErrBroken, nil},
		"304 for nothing":    {status(304), ErrBroken, nil},
		"a redirect nowhere": {status(302), ErrBroken, nil},
		"a cut connection":   {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, ErrUnavailable, growing},
		"a truncated body": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "{")
		}, ErrUnavailable, growing},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, nil)
			l.on("/so/me/some", c.answer)
			if err := l.refresh("some"); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			// net/http itself sends again what finds a kept connection cut.
			if n, want := l.requests("/so/me/some"), len(c.slept)+1; n != want && (name != "a cut connection" || n < want) {
				t.Errorf("asked %d times, want %d", n, want)
			}
			if !slices.Equal(l.slept, c.slept) {
				t.Errorf("waited %v, want %v", l.slept, c.slept)
			}
		})
	}
}

// An upstream that asks to be left alone for minutes is left alone by everybody, who are told
// for how long, and served what is known.
func TestAPauseOfMinutesIsKeptByAll(t *testing.T) {
	l := newLab(t, nil)
	l.on("/kn/ow/known", text(line("known", "1.0.0")))
	if err := l.refresh("known"); err != nil {
		t.Fatal(err)
	}
	l.on("/so/me/some", status(429, "Retry-After", "600"))
	l.on("/ot/he/other", text(line("other", "1.0.0")))
	if err := l.refresh("some"); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	for _, passed := range []time.Duration{0, 5 * time.Minute, 4 * time.Minute} {
		l.pass(passed)
		l.elapsed.Add(int64(passed))
		if err := l.refresh("other"); !errors.Is(err, ErrUnavailable) || RetryAfter(err) <= 0 {
			t.Errorf("another is told %v, after %s", err, RetryAfter(err))
		}
		if err := l.refresh("known"); err != nil {
			t.Errorf("what is known is not served: %v", err)
		}
	}
	if n := l.requests("/ot/he/other"); n != 0 {
		t.Errorf("upstream is asked %d times during its pause", n)
	}
	l.pass(time.Minute + 10*time.Second)
	l.elapsed.Add(int64(time.Minute + 10*time.Second))
	if err := l.refresh("other"); err != nil {
		t.Errorf("after the pause: %v", err)
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	l := newLab(t, nil)
	l.slow.Store(1)
	first := true
	l.on("/so/me/some", func(w http.ResponseWriter, r *http.Request) {
		if first {
			first = false
			status(429, "Retry-After", "7")(w, r)
			return
		}
		text(line("some", "1.0.0"))(w, r)
	})
	if err := l.refresh("some"); err != nil {
		t.Fatal(err)
	}
	if l.slept[0] != 7*time.Second+7*time.Second/8 { // half of the time in which those come who wait
		t.Errorf("waited %v, and was asked to wait 7s", l.slept)
	}
	for value, want := range map[string]time.Duration{
		"": 0, "3": 3 * time.Second, "-3": 0, "x": 0, "99999999999": 0, "4294967295": 24 * time.Hour,
		"Fri, 15 Jan 2027 08:00:10 GMT": 10 * time.Second, "Fri, 15 Jan 2027 07:00:00 GMT": 0,
	} {
		if got := retryAfter(value, time.Unix(1_800_000_000, 0)); got != want {
			t.Errorf("Retry-After: %s is %s, want %s", value, got, want)
		}
	}
}

// Who waits for the end of a pause comes after it, and not all at once.
func TestWhoWaitsForAPauseComesAfterItAndNotAtOnce(t *testing.T) {
	const pause, askers = 4 * time.Second, 20
	var n, refused atomic.Int64
	l := newLab(t, func(c *Config) {
		c.Random = func() float64 { return float64(n.Add(1)%(2*askers)) / (2 * askers) }
	})
	errs := make(chan error, askers)
	for i := range askers {
		name := fmt.Sprintf("name%d", i)
		l.on("/"+cargo.IndexPath(name), func(w http.ResponseWriter, r *http.Request) {
			if refused.Add(1) <= askers {
				status(429, "Retry-After", "4")(w, r)
				return
			}
			io.WriteString(w, line(name, "1.0.0"))
		})
		go func() { errs <- l.refresh(name) }()
	}
	for range askers {
		<-errs // some, whose tries are over while sleeps take no time, fail
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	different := map[time.Duration]bool{}
	for _, d := range l.slept {
		if d < pause-5*time.Second/2 || d >= pause+pause/4 {
			t.Errorf("waited %s, and was asked to wait %s", d, pause)
		}
		different[d] = true
	}
	if len(l.slept) < askers || len(different) < askers/4 {
		t.Errorf("%d waited, of which %d for as long as no other", len(l.slept), len(different))
	}
}

func TestRedirectsAreFollowedWithinBounds(t *testing.T) {
	l := newLab(t, nil)
	elsewhere := httptest.NewTLSServer(text(line("some", "1.0.0")))
	defer elsewhere.Close()
	l.on("/away", text(line("some", "1.0.0")))
	for i, to := range []string{"/2", "/3", "/4", "/5", "/away"} {
		l.on("/"+string(rune('1'+i)), http.RedirectHandler(to, http.StatusFound).ServeHTTP)
	}
	l.on("/0", http.RedirectHandler("/1", http.StatusFound).ServeHTTP)
	for name, c := range map[string]struct {
		to   string
		want error
	}{
		"five":           {"/2", nil},
		"six":            {"/1", ErrBroken},
		"another scheme": {elsewhere.URL, ErrBroken},
		"a file":         {"file:///etc/passwd", ErrBroken},
		"credentials":    {strings.Replace(l.server.URL, "://", "://u:s3cr3t@", 1) + "/away", ErrBroken},
	} {
		t.Run(name, func(t *testing.T) {
			l.upstream.resting.drop("some")
			l.upstream.entries.drop("some")
			l.on("/so/me/some", http.RedirectHandler(c.to, http.StatusFound).ServeHTTP)
			err := l.refresh("some")
			if !errors.Is(err, c.want) || err != nil && strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("got %v, want %v", err, c.want)
			}
			l.evidence.crates = map[string]Known{}
		})
	}
}

// The rest goes over TLS, with HTTP/2.
func TestTheTokenIsForItsOwnHostAlone(t *testing.T) {
	var mu sync.Mutex
	var seen, elsewhere []string
	other := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		elsewhere = append(elsewhere, r.Header.Get("Authorization")+r.Header.Get("Referer"))
		io.WriteString(w, line("some", "1.0.0"))
	}))
	other.StartTLS()
	defer other.Close()
	server := httptest.NewUnstartedServer(nil)
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, r.Proto+" "+r.Header.Get("Authorization")+" "+r.Header.Get("User-Agent"))
		switch r.URL.Path {
		case "/config.json":
			io.WriteString(w, `{"dl":"`+server.URL+`/{crate}"}`)
		default:
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		}
	})
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	folder := t.TempDir()
	ca, token := filepath.Join(folder, "ca"), filepath.Join(folder, "token")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for path, text := range map[string][]byte{ca: certificate, token: []byte("s3cr3t\n")} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := &lab{t: t}
	l.begin(t, nil, Setting{Name: "acme", Index: server.URL + "/", CA: ca, TokenFile: token})
	if err := l.refresh("some"); err != nil {
		t.Fatal(err)
	}
	l.proxy.Close()
	for _, s := range seen {
		if s != "HTTP/2.0 s3cr3t aln-registry/1.2.3 (+https://registry.example)" {
			t.Errorf("upstream saw %q", s)
		}
	}
	if len(elsewhere) != 1 || elsewhere[0] != "" {
		t.Errorf("another host saw %q", elsewhere)
	}

	l = &lab{t: t} // whose certificate nobody vouches for
	l.begin(t, nil, Setting{Name: "acme", Index: server.URL + "/", TokenFile: token})
	defer l.proxy.Close()
	if err := l.refresh("some"); !errors.Is(err, ErrBroken) || !strings.Contains(err.Error(), "ca=FILE") || len(l.slept) > 0 {
		t.Errorf("got %v after %v", err, l.slept)
	}
}

func TestADeadUpstreamIsNotWaitedFor(t *testing.T) {
	l := newLab(t, nil)
	l.on("/so/me/some", text(line("some", "1.0.0")))
	if err := l.refresh("some"); err != nil {
		t.Fatal(err)
	}
	l.server.Close()
	l.slow.Store(int64(time.Second))
	if err := l.refresh("other"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if dead := l.proxy.Figures().Dead; len(dead) != 1 {
		t.Errorf("taken for dead: %v", dead)
	}
	before := l.proxy.Figures().Requests
	l.pass(time.Hour)
	if err := l.refresh("some"); err != nil {
		t.Errorf("what is known is not served: %v", err)
	}
	if err := l.refresh("third"); !errors.Is(err, ErrUnavailable) || RetryAfter(err) <= 0 {
		t.Errorf("got %v, again after %s", err, RetryAfter(err))
	}
	if after := l.proxy.Figures().Requests; after != before {
		t.Errorf("a dead upstream is asked %d times more", after-before)
	}
}

func TestACrateIsAskedForWithTheTokenWhereTheIndexSaysSo(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("s3cr3t"), 0o600); err != nil {
		t.Fatal(err)
	}
	for required, want := range map[bool]string{true: "s3cr3t", false: ""} {
		l := newLab(t, nil)
		l.upstream.setting.TokenFile = token
		l.on("/config.json", text(fmt.Sprintf(`{"dl":"%s/dl/{crate}/{version}","auth-required":%v}`, l.server.URL, required)))
		data, some := crate("some", 100)
		seen := make(chan string, 1)
		l.on(dlPath(some), func(w http.ResponseWriter, r *http.Request) {
			seen <- r.Header.Get("Authorization")
			sends(data)(w, r)
		})
		if _, err := l.read(some); err != nil {
			t.Fatal(err)
		}
		if got := <-seen; got != want {
			t.Errorf("auth-required %v: Authorization was %q", required, got)
		}
	}
}

func TestABodyThatTricklesForEverIsCut(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	w := watch(ctx, strings.NewReader("more"), time.Minute, cancel)
	w.spent = graceTime - time.Second
	if _, err := w.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	w.n, w.spent = 10*slowest, graceTime+11*time.Second
	if _, err := w.Read(make([]byte, 1)); !errors.Is(err, errSlow) || !errors.Is(err, ErrUnavailable) || !errors.Is(context.Cause(ctx), errSlow) {
		t.Errorf("got %v, %v", err, context.Cause(ctx))
	}
}

// What was last wrong is remembered in words that name no crate and no address asked.
func TestTheLastTroubleIsTold(t *testing.T) {
	l := newLab(t, nil)
	u := l.proxy.Upstream(CratesIO)
	if trouble, ok := u.LastTrouble(); ok {
		t.Errorf("at the start there is %+v", trouble)
	}
	l.on("/so/me/some", status(404))
	if err := l.refresh("some"); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	if trouble, ok := u.LastTrouble(); ok {
		t.Errorf("that something is not there is %+v", trouble)
	}
	l.on("/se/cr/secret", status(503))
	if err := l.refresh("secret"); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	trouble, ok := u.LastTrouble()
	if !ok || !strings.Contains(trouble.What, "503") || strings.Contains(trouble.What, "secret") || strings.Contains(trouble.What, "http://") || trouble.At.IsZero() {
		t.Errorf("%t, %+v", ok, trouble)
	}
}
