package server

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
)

// sample is the figures at a moment, as a scraper reads them: by name and labels.
type sample map[string]float64

// scrape asks as an admin and reads the answer as Prometheus does.
func (l *lab) scrape() sample {
	l.t.Helper()
	l.scrapes++
	token := l.forge(l.admin, particle.ScopeAudit, func(t *particle.SessionToken) { t.ID = fmt.Sprint("scrape-", l.scrapes) })
	return parseFigures(l.t, l.get("/metrics", token).want(l.t, 200))
}

func parseFigures(t testing.TB, r reply) sample {
	t.Helper()
	if got := expfmt.ResponseFormat(r.header).FormatType(); got != expfmt.TypeTextPlain {
		t.Fatalf("the answer is no exposition: %s", r.header)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	s := sample{}
	for name, family := range families {
		for _, m := range family.GetMetric() {
			s.add(name, m)
		}
	}
	return s
}

func (s sample) add(name string, m *dto.Metric) {
	labels := []string{}
	for _, p := range m.GetLabel() {
		labels = append(labels, p.GetName()+"="+p.GetValue())
	}
	series := name + "{" + strings.Join(labels, ",") + "}"
	switch {
	case m.GetHistogram() != nil:
		s[series] = float64(m.GetHistogram().GetSampleCount())
		s[name+"_sum{"+strings.Join(labels, ",")+"}"] = m.GetHistogram().GetSampleSum()
	case m.GetCounter() != nil:
		s[series] = m.GetCounter().GetValue()
	default:
		s[series] = m.GetGauge().GetValue()
	}
}

// requests is how often a route ended in a way.
func requests(method, route, outcome string) string {
	return "aln_http_request_duration_seconds{method=" + method + ",outcome=" + outcome + ",route=" + route + "}"
}

// wantMore checks how much each series named has grown; nothing else of its family has.
func wantMore(t *testing.T, before, after sample, want map[string]float64) {
	t.Helper()
	families := map[string]bool{}
	for series, more := range want {
		families[strings.SplitN(series, "{", 2)[0]] = true
		if got := after[series] - before[series]; got != more {
			t.Errorf("%s: %v more, not %v", series, got, more)
		}
	}
	for series := range after {
		if _, named := want[series]; !named && families[strings.SplitN(series, "{", 2)[0]] && after[series] != before[series] {
			t.Errorf("%s: %v more, not 0", series, after[series]-before[series])
		}
	}
}

func TestFiguresMoveWithWhatHappens(t *testing.T) {
	l := newLab(t)
	l.demo()
	token := l.session(l.member, "read")
	const index = "/index/de/mo/demo-one"
	etag := l.get(index, token).want(t, 200).header.Get("ETag")
	scraped := requests("GET", "/metrics", "ok") // each scrape counts the one before it
	for _, c := range []struct {
		name string
		do   func()
		want map[string]float64
	}{
		{"an index file", func() { l.get(index, token).want(t, 200) }, map[string]float64{
			requests("GET", "/index/*", "ok"): 1, scraped: 1,
		}},
		{"an index file that the client has", func() { l.getWith(index, token, "If-None-Match", etag).want(t, 304) }, map[string]float64{
			requests("GET", "/index/*", "not_modified"): 1, scraped: 1,
		}},
		{"HEAD", func() { l.do(ask{method: http.MethodHead, path: index, token: token}).want(t, 200) }, map[string]float64{
			requests("GET", "/index/*", "ok"): 1, scraped: 1,
		}},
		{"nobody asks", func() { l.get(index, "").want(t, 401) }, map[string]float64{
			requests("GET", "/index/*", "unauthenticated"): 1, scraped: 1, "aln_http_refusals_total{code=anonymous-read}": 1,
		}},
		{"what is not there", func() { l.get("/index/no/th/nothing", token).want(t, 404) }, map[string]float64{
			requests("GET", "/index/*", "not_found"): 1, scraped: 1, "aln_http_refusals_total{code=not-found}": 1,
		}},
		{"a member asks for the figures", func() { l.get("/metrics", l.forge(l.member, particle.ScopeAudit)).want(t, 403) }, map[string]float64{
			requests("GET", "/metrics", "denied"): 1, scraped: 1, "aln_http_refusals_total{code=scope}": 1,
		}},
		{"a session", func() { l.mint(l.assertion(l.member, "read")).want(t, 200) }, map[string]float64{
			requests("POST", "/v1/session", "ok"): 1, scraped: 1, "session_token_issued_total{}": 1,
		}},
		{"no session for a stranger", func() { l.mint(l.assertion(l.stranger, "read")).want(t, 403) }, map[string]float64{
			requests("POST", "/v1/session", "denied"): 1, scraped: 1, "session_token_issued_total{}": 0, "session_token_refused_total{rule=membership}": 1,
		}},
		{"a publish", func() {
			l.put(l.owner, record.KindALNShard, "secret-shard", "0.1.0", []byte("some bytes")).want(t, 200)
		}, map[string]float64{
			requests("PUT", "/v1/artifacts/{kind}/{name}/{version}", "ok"): 1, scraped: 1,
			"aln_log_published_entries{}": 1, "aln_log_committed_entries{}": 1, "aln_log_batch_records{}": 1, "aln_log_batch_records_sum{}": 1, "aln_log_batch_duration_seconds{}": 1,
			"aln_blob_operation_duration_seconds{operation=put,outcome=ok}": 2, "aln_blob_operation_duration_seconds{operation=create,outcome=ok}": 2,
			"aln_blob_operation_duration_seconds{operation=read,outcome=ok}": 2, // that what was published is there
		}},
		{"a publish under another's name", func() {
			l.put(l.member, record.KindALNShard, "secret-shard", "0.2.0", []byte("other bytes")).want(t, 403)
		}, map[string]float64{
			requests("PUT", "/v1/artifacts/{kind}/{name}/{version}", "denied"): 1, scraped: 1,
			"aln_http_refusals_total{code=not-entitled}": 1, "aln_log_published_entries{}": 0, "aln_log_batch_records{}": 0,
		}},
		{"a method that the path does not take", func() { l.do(ask{method: http.MethodPost, path: index, token: token}).want(t, 405) }, map[string]float64{
			requests("other", "none", "refused"): 1, scraped: 1, "aln_http_refusals_total{code=method}": 1,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := l.scrape()
			c.do()
			wantMore(t, before, l.scrape(), c.want)
		})
	}
}

func TestCachesAreCounted(t *testing.T) {
	l := newLab(t)
	l.demo()
	token := l.session(l.member, "read")
	const download = "/api/v1/crates/demo-one/0.1.0/download"
	start := l.scrape()
	l.get(download, token).want(t, 200)
	first := l.scrape()
	l.get(download, token).want(t, 200)
	second := l.scrape()
	for _, c := range []struct {
		series      string
		once, twice float64
	}{
		{"aln_cache_misses_total{cache=artifacts}", 1, 0},
		{"aln_cache_hits_total{cache=artifacts}", 0, 1},
		{"aln_cache_entries{cache=artifacts}", 1, 0},
		{"aln_cache_bytes{cache=artifacts}", float64(len(crateFile("demo-one", "0.1.0"))), 0},
		{"aln_blob_operation_duration_seconds{operation=open,outcome=ok}", 1, 0},
	} {
		if once, twice := first[c.series]-start[c.series], second[c.series]-first[c.series]; once != c.once || twice != c.twice {
			t.Errorf("%s: %v more, then %v, not %v and %v", c.series, once, twice, c.once, c.twice)
		}
	}
	if hits := second["aln_cache_hits_total{cache=sessions}"] - first["aln_cache_hits_total{cache=sessions}"]; hits != 1 {
		t.Errorf("a session that was verified is found %v times", hits)
	}
	if second["aln_cache_hits_total{cache=state}"] <= first["aln_cache_hits_total{cache=state}"] {
		t.Error("the state's cache has no hits")
	}
}

func TestLevelsAreThoseOfTheRegistry(t *testing.T) {
	l := newLab(t)
	s := l.scrape()
	for end := time.Now().Add(10 * time.Second); s["aln_log_batch_age_seconds{}"] != 0 && time.Now().Before(end); { // a batch ends after its records are answered
		s = l.scrape()
	}
	for series, want := range map[string]float64{
		"aln_log_published_entries{}": 4, "aln_log_committed_entries{}": 4, "aln_log_queue_length{}": 0, "aln_log_queue_limit{}": 256, "aln_log_batch_age_seconds{}": 0,
		"aln_uploads_running{}": 0, "aln_uploads_limit{}": maxUploads, "aln_searches_limit{}": maxSearches, "aln_http_requests_in_flight{}": 1,
		"aln_data_free_bytes{}": 1 << 30, "aln_data_size_bytes{}": 1 << 40, "aln_cache_entries_limit{cache=sessions}": 16384,
		"aln_cache_limit_bytes{cache=state}": 32 << 20, "aln_cache_limit_bytes{cache=artifacts}": 32 << 20,
	} {
		if got, ok := s[series]; !ok || got != want {
			t.Errorf("%s is %v (%t), not %v", series, got, ok, want)
		}
	}
	if age := float64(time.Now().Unix()) - s["aln_log_cosigned_timestamp_seconds{}"]; age < 0 || age > 60 {
		t.Errorf("cosigned %v seconds ago", age)
	}
	if s["go_goroutines{}"] == 0 || s["process_open_fds{}"] == 0 {
		t.Error("nothing is said of the process")
	}
}

// An upload under way is seen, and so are those that find no place.
func TestUploadsAreCountedWhileTheyRun(t *testing.T) {
	l := newLab(t)
	crate := crateFile("crate-a", "0.1.0")
	first, end := l.uploading(crate)
	if s := l.scrape(); s["aln_uploads_running{}"] != 1 || s["aln_http_requests_in_flight{}"] != 2 {
		t.Errorf("%v uploads run, %v requests", s["aln_uploads_running{}"], s["aln_http_requests_in_flight{}"])
	}
	ends := []func(){end}
	for range maxUploadsEach - 1 {
		_, end := l.uploading(crate)
		ends = append(ends, end)
	}
	l.put(l.owner, record.KindALNShard, "one-more", "0.1.0", []byte("bytes")).want(t, 503)
	if s := l.scrape(); s["aln_uploads_running{}"] != maxUploadsEach || s["aln_uploads_turned_away_total{}"] != 1 {
		t.Errorf("%v uploads run, %v were turned away", s["aln_uploads_running{}"], s["aln_uploads_turned_away_total{}"])
	}
	for _, end := range ends {
		end()
	}
	first.Close()
	for deadline := time.Now().Add(10 * time.Second); l.scrape()["aln_uploads_running{}"] != 0; {
		if time.Now().After(deadline) {
			t.Fatal("uploads that ended still count")
		}
	}
}

// uploading begins an upload of the owner's and returns when the server reads it.
func (l *lab) uploading(content []byte) (conn net.Conn, end func()) {
	l.t.Helper()
	before := l.scrape()["aln_uploads_running{}"]
	rec := l.signArtifact(l.owner, record.KindALNShard, l.newName(), "0.1.0", content)
	conn = must(net.Dial("tcp", strings.TrimPrefix(l.url, "http://")))
	fmt.Fprintf(conn, "PUT /v1/artifacts/aln-shard/%s/0.1.0 HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n%s",
		rec.Subject().Name(), l.carrying(l.owner, rec), len(content), content[:1])
	for deadline := time.Now().Add(10 * time.Second); l.scrape()["aln_uploads_running{}"] <= before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			l.t.Fatal("the upload does not begin")
		}
	}
	return conn, func() { conn.Close() }
}

// Whatever a client sends, there are no more series than the program has words
// for, and none shows what it sent.
func TestClientsMakeNoSeries(t *testing.T) {
	l := newLab(t, anonymous)
	l.demo()
	token := l.session(l.member, "read")
	shoot := func(tag string) {
		for _, method := range []string{"GET", "PUT", "POST", "DELETE", "PATCH", "PROPFIND", "EVIL" + tag} {
			for _, path := range []string{
				"/index/ev/il/evil" + tag, "/evil" + tag, "/v1/artifacts/crate/evil" + tag + "/1.0.0", "/v1/artifacts/evil" + tag, "/v1/heads/crate%2Fevil" + tag,
				"/api/v1/crates/evil" + tag + "/0.1.0/download", "/log/tile/evil" + tag, "/api/v1/crates?q=evil" + tag, "/%2e%2e/evil" + tag, "/metrics/evil" + tag, "//evil" + tag, "/v1/records/evil" + tag,
			} {
				l.raw(method+" "+path+" HTTP/1.1", "Host: evil"+tag+".example", "X-Forwarded-For: evil"+tag, "User-Agent: evil"+tag, "Authorization: "+token)
				l.raw(method+" "+path+" HTTP/1.1", "Host: x", "Authorization: evil"+tag)
			}
		}
		l.raw("GET http://evil"+tag+".example/index/config.json HTTP/1.1", "Host: x")
		form := url.Values{"grant_type": {"evil" + tag}, "assertion": {"evil" + tag}}.Encode()
		l.raw("POST /v1/session HTTP/1.1", "Host: x", "Content-Type: application/x-www-form-urlencoded", fmt.Sprint("Content-Length: ", len(form)), "", form)
	}
	shoot("1")
	l.scrape() // its own is in the next
	before := l.scrape()
	for n := range 5 {
		shoot(fmt.Sprint("-", n))
	}
	after := l.scrape()
	for series := range after {
		if _, known := before[series]; !known && strings.HasPrefix(series, "aln_") {
			t.Errorf("a new series: %s", series)
		}
		for _, word := range []string{"evil", "did:", "demo", token[len(token)-16:]} {
			if strings.Contains(strings.ToLower(series), word) {
				t.Errorf("a series shows %q: %s", word, series)
			}
		}
	}
}

// raw sends a request as it stands, and reads the answer to its end.
func (l *lab) raw(lines ...string) {
	l.t.Helper()
	conn := must(net.Dial("tcp", strings.TrimPrefix(l.url, "http://")))
	defer conn.Close()
	head, body := lines, ""
	if i := slices.Index(lines, ""); i > 0 {
		head, body = lines[:i], lines[i+1]
	}
	fmt.Fprintf(conn, "%s\r\nConnection: close\r\n\r\n%s", strings.Join(head, "\r\n"), body)
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(conn); err != nil || answer.Len() == 0 {
		l.t.Fatalf("%s: %v", lines[0], err)
	}
}

// Pages are counted by the patterns that their router has.
func TestPagesAreCountedByTheirPatterns(t *testing.T) {
	l := newLab(t)
	pages := chi.NewRouter()
	pages.Get("/artifacts/{kind}/{name}", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	metrics := NewMetrics(MetricsConfig{})
	handler := New(Config{Registry: l.registry, Log: l.registry.Log, Clock: l.now, Pages: pages, Metrics: metrics})
	for _, request := range [][2]string{{"GET", "/artifacts/crate/one"}, {"GET", "/artifacts/crate/two"}, {"GET", "/nowhere"}, {"BREW", "/artifacts/crate/one"}} {
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(request[0], request[1], nil))
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Authorization", l.forge(l.admin, particle.ScopeAdmin))
	handler.ServeHTTP(w, r)
	wantMore(t, sample{}, parseFigures(t, reply{w.Code, w.Header(), w.Body.Bytes()}), map[string]float64{
		requests("GET", "/artifacts/{kind}/{name}", "ok"): 2, requests("other", "none", "not_found"): 1, requests("other", "none", "refused"): 1,
	})
	l.get("/healthz", "").want(t, 200)
}

// The address for scrapers has the figures, the two answers for whoever watches,
// and nothing that a session would be needed for.
func TestTheScrapersAddressHasNothingElse(t *testing.T) {
	l := newLab(t, anonymous)
	l.demo()
	scraper := httptest.NewServer(ForScraper(Config{Registry: l.registry, Log: l.registry.Log, Clock: l.now, Metrics: l.metrics}))
	defer scraper.Close()
	l.url = scraper.URL
	if s := parseFigures(t, l.get("/metrics", "").want(t, 200)); s["aln_log_published_entries{}"] != float64(l.registry.Size()) {
		t.Errorf("published: %v", s["aln_log_published_entries{}"])
	}
	l.get("/healthz", "").want(t, 200, "ok")
	l.get("/readyz", "").want(t, 200, "ready")
	for route := range routesTable {
		method, path, _ := strings.Cut(route, " ")
		if path = strings.ReplaceAll(path, "*", "de/mo/demo-one"); !slices.Contains([]string{"/metrics", "/healthz", "/readyz"}, path) {
			r := must(http.NewRequest(method, scraper.URL+path, nil))
			answer := must(http.DefaultClient.Do(r))
			if answer.Body.Close(); answer.StatusCode != http.StatusNotFound {
				t.Errorf("%s: %s", route, answer.Status)
			}
		}
	}
}

func TestFiguresAreWellNamed(t *testing.T) {
	l := newLab(t)
	l.demo()
	l.mint(l.assertion(l.member, "read")).want(t, 200)
	l.mint("").want(t, 401)
	problems, err := testutil.GatherAndLint(l.metrics.gatherer)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
