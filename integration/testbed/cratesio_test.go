package testbed

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

type response struct {
	status int
	header http.Header
	body   []byte
	proto  string
	err    error // of the body or of the request
}

// clientOf trusts s alone, follows no redirect, and unpacks nothing.
func clientOf(t *testing.T, s *CratesServer) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	if s.CA() != "" {
		text, err := os.ReadFile(s.CA())
		if err != nil || !pool.AppendCertsFromPEM(text) {
			t.Fatalf("the CA's file: %v", err)
		}
	}
	transport := &http.Transport{ForceAttemptHTTP2: true, DisableCompression: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func ask(t *testing.T, client *http.Client, url string, header ...string) response {
	t.Helper()
	return askWithin(t, client, time.Minute, url, header...)
}

func askWithin(t *testing.T, client *http.Client, limit time.Duration, url string, header ...string) response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := client.Do(r)
	if err != nil {
		return response{err: err}
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 64<<20))
	return response{answer.StatusCode, answer.Header, body, answer.Proto, err}
}

func TestTheIndexIsRevalidatedAndCompressed(t *testing.T) {
	s := CratesIO(t)
	client, url := clientOf(t, s), s.URL()+IndexFile("serde")
	first := ask(t, client, url)
	tag, date := first.header.Get("ETag"), first.header.Get("Last-Modified")
	if first.status != 200 || first.proto != "HTTP/2.0" || !strings.HasPrefix(tag, `"`) || date == "" || !bytes.Contains(first.body, []byte(`"name":"serde"`)) {
		t.Fatalf("%d over %s, ETag %s, %s: %.200s", first.status, first.proto, tag, date, first.body)
	}
	packed := ask(t, client, url, "Accept-Encoding", "gzip")
	unpacked, err := gzip.NewReader(bytes.NewReader(packed.body))
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(unpacked); err != nil || !bytes.Equal(body, first.body) || packed.header.Get("ETag") != "W/"+tag {
		t.Errorf("compressed it is %.200s under %s, %v", body, packed.header.Get("ETag"), err)
	}
	for _, header := range [][]string{{"If-None-Match", tag}, {"If-None-Match", "W/" + tag}, {"If-Modified-Since", date}} {
		if again := ask(t, client, url, header...); again.status != 304 || len(again.body) > 0 {
			t.Errorf("%v: %d", header, again.status)
		}
	}
	if err := s.Yank("serde", s.Lines("serde")[0].Vers, true); err != nil {
		t.Fatal(err)
	}
	for _, header := range [][]string{{"If-None-Match", tag}, {"If-Modified-Since", date}} {
		if again := ask(t, client, url, header...); again.status != 200 || !bytes.Contains(again.body, []byte(`"yanked":true`)) {
			t.Errorf("after a change, %v: %d %.200s", header, again.status, again.body)
		}
	}
	s.UseTags(false)
	if again := ask(t, client, url); again.header.Get("ETag") != "" || again.header.Get("Last-Modified") == "" {
		t.Errorf("told to go without ETags: %v", again.header)
	}
	if got := s.Requests(IndexFile("serde")); got != 8 {
		t.Errorf("%d requests were counted, not 8", got)
	}
}

func TestWhoAsksHasToSay(t *testing.T) {
	s := CratesIO(t)
	client := clientOf(t, s)
	if got := ask(t, client, s.URL()+"/index/config.json", "User-Agent", ""); got.status != 403 {
		t.Errorf("without a User-Agent: %d", got.status)
	}
	s.RequireToken("secret")
	if got := ask(t, client, s.URL()+"/index/config.json"); got.status != 401 {
		t.Errorf("without the token: %d", got.status)
	}
	if got := ask(t, client, s.URL()+"/index/config.json", "Authorization", "secret"); got.status != 200 || !bytes.Contains(got.body, []byte(`"auth-required":true`)) {
		t.Errorf("with it: %d %s", got.status, got.body)
	}
}

// Every form of dl that Cargo has markers for leads to the crate.
func TestCratesAreFoundUnderEveryTemplate(t *testing.T) {
	s := CratesIO(t)
	client := clientOf(t, s)
	one, _ := DebianCrates(t).Find("serde", "")
	v := one.Line.Vers
	for _, path := range []string{"serde/" + v + "/download", "se/rd/serde/" + v + "/download", "serde/serde-" + v + ".crate", "serde/" + v + "/" + one.Line.Cksum} {
		if got := ask(t, client, s.URL()+"/crates/"+path); got.status != 200 || sumOf(got.body) != one.Line.Cksum {
			t.Errorf("%s: %d", path, got.status)
		}
	}
	s.Template("{host}/crates/{lowerprefix}/{crate}/{version}/download")
	if got := ask(t, client, s.URL()+"/index/config.json"); !bytes.Contains(got.body, []byte(`"dl":"`+s.URL()+`/crates/{lowerprefix}/{crate}/{version}/download"`)) {
		t.Errorf("config.json is %s", got.body)
	}
	for _, path := range []string{"/crates/serde", "/crates/", "/crates/serde/0.0.1/download", "/index/serde", "/index/se/rd/Serde", "/"} {
		if got := ask(t, client, s.URL()+path); got.status != 404 {
			t.Errorf("%s: %d", path, got.status)
		}
	}
}

func TestLoadIsCounted(t *testing.T) {
	s := CratesIO(t)
	client, gate := clientOf(t, s), make(chan struct{})
	s.Use("/index/", Held(gate), 0)
	var asking sync.WaitGroup
	for range 5 {
		asking.Go(func() { ask(t, client, s.URL()+"/index/config.json") })
	}
	if err := until(time.Minute, nil, func() error {
		if s.Requests("/index/config.json") < 5 {
			return errors.New("they have not all come")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	close(gate)
	asking.Wait()
	if most := s.Most(); most.Requests != 5 || most.Connections < 1 {
		t.Errorf("at most %+v", most)
	}
	s.Forget()
	if most := s.Most(); most.Requests > 1 || s.Requests("/index/config.json") != 0 {
		t.Errorf("forgotten, at most %+v", most)
	}
}

func TestVersionsComeAndGo(t *testing.T) {
	s := CratesIO(t)
	client := clientOf(t, s)
	one, _ := DebianCrates(t).Find("itoa", "")
	older, err := Rerelease(one, "0.9.0", time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	s.Add(t, older)
	made := MakeCrate("made-here", "0.1.0", 3_000_000, 7)
	s.Add(t, made)
	for name, versions := range map[string][]string{"itoa": {one.Line.Vers, "0.9.0"}, "made-here": {"0.1.0"}} {
		for i, version := range versions {
			got := ask(t, client, s.URL()+Download(name, version))
			if line := s.Lines(name)[i]; got.status != 200 || sumOf(got.body) != line.Cksum || line.Vers != version {
				t.Errorf("%s %s: %d, its line says %+v", name, version, got.status, line)
			}
		}
	}
	before := s.Lines("itoa")[0].Cksum
	if err := s.Replace("itoa", one.Line.Vers, []byte("others")); err != nil {
		t.Fatal(err)
	}
	if after := s.Lines("itoa")[0].Cksum; after == before || after != sumOf([]byte("others")) {
		t.Errorf("the checksum of what was replaced is %s", after)
	}
	if err := s.Drop("itoa", one.Line.Vers); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, client, s.URL()+Download("itoa", one.Line.Vers)); got.status != 404 || len(s.Lines("itoa")) != 1 {
		t.Errorf("dropped, it is answered with %d", got.status)
	}
	if err := s.Drop("itoa", "0.9.0"); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, client, s.URL()+IndexFile("itoa")); got.status != 404 {
		t.Errorf("with no version left, its file is answered with %d", got.status)
	}
	if err := s.Yank("itoa", "0.9.0", true); !errors.Is(err, errNoVersion) {
		t.Errorf("yanked what is not there: %v", err)
	}
}

func TestMisdeeds(t *testing.T) {
	s := CratesIO(t)
	one, _ := DebianCrates(t).Find("serde", "")
	crate, err := os.ReadFile(one.File)
	if err != nil {
		t.Fatal(err)
	}
	client, path := clientOf(t, s), Download("serde", one.Line.Vers)
	right := func(r response) bool { return r.status == 200 && r.err == nil && bytes.Equal(r.body, crate) }
	status := func(want int) func(response) bool { return func(r response) bool { return r.status == want } }
	leads := func(prefix string) func(response) bool {
		return func(r response) bool { return r.status == 302 && strings.HasPrefix(r.header.Get("Location"), prefix) }
	}
	open := make(chan struct{})
	close(open)
	for _, c := range []struct {
		misdeed Misdeed
		is      func(response) bool
	}{
		{Truncated(), func(r response) bool { return r.status == 200 && r.err != nil && bytes.HasPrefix(crate, r.body) }},
		{Shortened(), func(r response) bool { return r.status == 200 && r.err == nil && len(r.body) == len(crate)/2 }},
		{Corrupted(), func(r response) bool { return r.err == nil && len(r.body) == len(crate) && !bytes.Equal(r.body, crate) }},
		{Lengthened(5), func(r response) bool { return r.err == nil && len(r.body) == len(crate)+5 }},
		{Stalled(), func(r response) bool { return r.status == 200 && errors.Is(r.err, context.DeadlineExceeded) }},
		{Silent(), func(r response) bool { return r.status == 0 && errors.Is(r.err, context.DeadlineExceeded) }},
		{Late(10 * time.Millisecond), right},
		{Slow(len(crate)/4, time.Millisecond), right},
		{Held(open), right},
		{Reset(), func(r response) bool { return r.status == 0 && r.err != nil }},
		{Answers(403), status(403)},
		{Answers(404), status(404)},
		{Answers(410), status(410)},
		{Answers(429, "Retry-After", "3"), func(r response) bool { return r.status == 429 && r.header.Get("Retry-After") == "3" }},
		{Answers(500), status(500)},
		{RedirectsHere(), leads("/moved/crates/")},
		{RedirectsElsewhere(), leads("https://localhost:")},
		{RedirectsToHTTP(), leads("http://127.0.0.1:")},
		{RedirectsForEver(), leads("/loop/")},
		{Huge(3 << 20), func(r response) bool { return r.err == nil && len(r.body) >= 3<<20 }},
		{Bomb(64 << 20), func(r response) bool { return r.header.Get("Content-Encoding") == "gzip" && len(r.body) < 1<<20 }},
	} {
		t.Run(c.misdeed.String(), func(t *testing.T) {
			s.Use(path, c.misdeed, 1)
			limit := time.Minute
			if name := c.misdeed.String(); name == "stalled" || name == "silent" {
				limit = time.Second
			}
			if got := askWithin(t, client, limit, s.URL()+path); !c.is(got) {
				t.Errorf("%d, %d bytes, %v, %v", got.status, len(got.body), got.header, got.err)
			}
			if got := ask(t, client, s.URL()+path); !right(got) {
				t.Errorf("it was to happen once, and then came %d, %v", got.status, got.err)
			}
		})
	}
}

// Where redirects lead to has what was asked, but for a loop.
func TestRedirectsLeadSomewhere(t *testing.T) {
	s := CratesIO(t)
	client := clientOf(t, s)
	client.CheckRedirect = nil
	for _, c := range []struct {
		misdeed Misdeed
		whole   bool
	}{{RedirectsHere(), true}, {RedirectsElsewhere(), true}, {RedirectsToHTTP(), true}, {RedirectsForEver(), false}} {
		s.Use("/index/", c.misdeed, 0)
		got := ask(t, client, s.URL()+IndexFile("serde"))
		if whole := got.err == nil && bytes.Contains(got.body, []byte(`"name":"serde"`)); whole != c.whole {
			t.Errorf("%s: %d %.200s %v", c.misdeed, got.status, got.body, got.err)
		}
	}
	s.Behave()
	if got := ask(t, client, s.URL()+IndexFile("serde")); got.status != 200 || s.Requests("/moved"+IndexFile("serde")) != 3 {
		t.Errorf("afterwards %d; %d requests were led elsewhere", got.status, s.Requests("/moved"+IndexFile("serde")))
	}
}

func TestTheStandInStopsAndComesBack(t *testing.T) {
	s := CratesIO(t)
	client := clientOf(t, s)
	for range 2 {
		if got := ask(t, client, s.URL()+"/index/config.json"); got.status != 200 {
			t.Fatalf("it is there: %d, %v", got.status, got.err)
		}
		s.Stop()
		if got := ask(t, client, s.URL()+"/index/config.json"); got.err == nil {
			t.Errorf("stopped, it answers %d", got.status)
		}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
	}
}
