package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// remoteDL is where remote 1.0.0 is to be had.
func remoteDL(base string) string {
	return base + "/dl/remote/1.0.0/" + hashOf(crateFile("remote", "1.0.0"))
}

// prefetching asks for remote and for what there is not.
func prefetchingRemote(l *lab, who int) ask {
	return posting("/v1/upstreams/crates-io/prefetch", `{"crates":[{"name":"remote","version":"1.0.0"},{"name":"none","version":"1.0.0"}]}`)(l, who)
}

func readingAlarms(l *lab, who int) ask {
	return ask{method: http.MethodGet, path: "/v1/upstreams/crates-io/alarms", token: l.token(who, particle.ScopeAudit, nil)}
}

func seeingAlarm(l *lab, who int) ask {
	return ask{method: http.MethodPost, path: "/v1/upstreams/crates-io/alarms/7/seen", token: l.token(who, particle.ScopeAdmin, nil), body: []byte(`{"why":"a mirror was replaced"}`)}
}

// What is said of an alarm is one line that tells something; which alarm it is of stands in the path.
func TestWhatIsSaidOfAnAlarmIsOneLine(t *testing.T) {
	l := newLab(t)
	alarm := catalog.UpstreamAlarm{Upstream: "crates-io", Name: "remote", Kind: "snapshot", Detail: "it is no index file", At: time.Unix(1, 0)}
	if err := l.registry.Catalog.AddUpstreamAlarm(t.Context(), alarm, 9); err != nil {
		t.Fatal(err)
	}
	why := func(text string) string { return `{"why":"` + text + `"}` }
	for _, c := range []struct {
		where, body string
		status      int
	}{
		{"crates-io/alarms/1", why(""), 400}, {"crates-io/alarms/1", why("  "), 400}, {"crates-io/alarms/1", why(strings.Repeat("a", 401)), 400},
		{"crates-io/alarms/1", why(`a\u0000`), 400}, {"crates-io/alarms/1", why(`a\nb`), 400}, {"crates-io/alarms/1", why(`a\u202eb`), 400},
		{"crates-io/alarms/1", why("\xff"), 400}, {"crates-io/alarms/1", `{"why":"a","by":"did:key:z1"}`, 400}, {"crates-io/alarms/1", "null", 400},
		{"crates-io/alarms/1", why(strings.Repeat("a", 5000)), 413},
		{"crates-io/alarms/0", why("a"), 404}, {"crates-io/alarms/9223372036854775808", why("a"), 404}, {"lab/alarms/1", why("a"), 404}, {"none/alarms/1", why("a"), 404},
		{"crates-io/alarms/1", why(strings.Repeat("é", 200)), 200},
	} {
		l.do(ask{method: http.MethodPost, path: "/v1/upstreams/" + c.where + "/seen", token: l.session(l.admin, "admin"), body: []byte(c.body)}).want(t, c.status)
	}
	all, err := l.registry.Catalog.UpstreamAlarms(t.Context(), "crates-io", 9, 9)
	if err != nil || len(all) != 1 || all[0].Seen.Why != strings.Repeat("é", 200) || all[0].Seen.By == "" {
		t.Errorf("%+v, %v", all, err)
	}
}

// lookNowhere ends the rule for which every crate is held and looked into before it is sent.
func (l *lab) lookNowhere() {
	l.t.Helper()
	rule := must(record.RuleSubject("blake3"))
	proposer := l.newHost(particle.TierGuest, "reviewer")
	proposal := l.sign(proposer, rule, &record.Release{Reason: "looked at"})
	l.submitted(proposer, proposal)
	for range 2 {
		who := l.newHost(particle.TierGuest, "reviewer")
		l.submitted(who, l.sign(who, rule, &record.Approve{Record: proposal.ID(), Verdict: record.VerdictApprove, Reason: "read it"}))
	}
}

func TestCratesOfUpstreamsAreServedAsTheyAre(t *testing.T) {
	l := newLab(t)
	l.lookNowhere()
	l.upstreams.offer("remote", "1.0.0", "1.1.0")
	token := l.session(l.member, "read")
	for base, config := range map[string]string{"/crates-io": "crates-io", "/upstream/lab": "upstream/lab"} {
		l.get(base+"/index/config.json", token).want(t, 200, l.url+"/"+config+"/dl/{crate}/{version}/{sha256-checksum}", `"auth-required":true`)
		file := l.get(base+"/index/re/mo/remote", token).want(t, 200)
		if string(file.body) != l.upstreams.files["remote"] {
			t.Errorf("%s: not upstream's lines: %s", base, file)
		}
		again := l.do(ask{method: "GET", path: base + "/index/re/mo/remote", token: token, header: http.Header{"If-None-Match": file.header["Etag"]}})
		again.want(t, 304)
		crate := l.get(remoteDL(base), token).want(t, 200)
		if string(crate.body) != string(crateFile("remote", "1.0.0")) || crate.header.Get("Content-Length") != fmt.Sprint(len(crate.body)) {
			t.Errorf("%s: not the crate: %v", base, crate.header)
		}
	}
	l.get("/upstream/crates-io/index/config.json", token).want(t, 404)
	l.get("/upstream/none/index/config.json", token).want(t, 404)
	l.get("/crates-io/index/re/mo/Remote", token).want(t, 404)
	l.get("/crates-io/index/xx/yy/remote", token).want(t, 404)
	l.get("/crates-io/dl/remote/1.0.0/"+strings.Repeat("0", 64), token).want(t, 404)
	l.get("/crates-io/dl/remote/1.0.0/none", token).want(t, 404)
	l.get("/crates-io/dl/remote/9.0.0/"+hashOf(nil), token).want(t, 404)
}

// Who has a crate locked asks no index: the download asks upstream of it.
func TestADownloadLearnsOfACrateThatNobodyAskedFor(t *testing.T) {
	l := newLab(t)
	l.upstreams.offer("remote", "1.0.0")
	l.get(remoteDL("/crates-io"), l.session(l.member, "read")).want(t, 200)
}

// What was received before a mismatch is of no use: who has begun to send it cuts the
// connection, who has not says so.
func TestACrateThatIsNotWhatTheIndexNamesIsCutOff(t *testing.T) {
	l := newLab(t)
	l.lookNowhere()
	l.upstreams.offer("remote", "1.0.0")
	id := storage.CIDOf(crateFile("remote", "1.0.0"))
	token := l.session(l.member, "read")
	l.upstreams.crates[id] = []part{{err: ErrUpstreamBroken}}
	l.get(remoteDL("/crates-io"), token).want(t, 502, "cannot be used")
	l.upstreams.crates[id] = []part{{data: strings.Repeat("x", 100<<10)}, {err: ErrUpstreamBroken}}
	request := must(http.NewRequest(http.MethodGet, l.url+remoteDL("/crates-io"), nil))
	request.Header.Set("Authorization", token)
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err == nil {
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err == nil {
			t.Errorf("the answer ends as if it were whole: %d, %d bytes", resp.StatusCode, len(got))
		}
	}
	if logged := l.log.String(); !strings.Contains(logged, "cut off") || strings.Contains(logged, "remote") {
		t.Errorf("the log: %s", logged)
	}
}

// An upstream that sends more than it said is no client that went away: it is cut off, and logged.
func TestACrateThatIsLongerThanItWasSaidIsCutOff(t *testing.T) {
	l := newLab(t)
	l.lookNowhere()
	l.upstreams.offer("remote", "1.0.0")
	l.upstreams.crates[storage.CIDOf(crateFile("remote", "1.0.0"))] = []part{{data: strings.Repeat("x", 100<<10), more: -10}}
	request := must(http.NewRequest(http.MethodGet, l.url+remoteDL("/crates-io"), nil))
	request.Header.Set("Authorization", l.session(l.member, "read"))
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err == nil {
		defer resp.Body.Close()
		if got, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("the answer ends as if it were whole: %d, %d bytes", resp.StatusCode, len(got))
		}
	}
	if logged := l.log.String(); !strings.Contains(logged, "cut off") || !strings.Contains(logged, "upstream-broken") {
		t.Errorf("the log: %s", logged)
	}
}

// To a client of HTTP/1.0 an answer without a length that is cut looks whole: it is sent nothing
// before the length is known.
func TestACrateThatBreaksOffIsNotWholeToHTTP10(t *testing.T) {
	l := newLab(t)
	l.lookNowhere()
	l.upstreams.offer("remote", "1.0.0")
	l.upstreams.unsized = true
	data := crateFile("remote", "1.0.0")
	for name, c := range map[string]struct {
		parts []part
		want  string
	}{
		"broken": {[]part{{data: strings.Repeat("x", 100<<10)}, {err: ErrUpstreamBroken}}, "HTTP/1.0 502 "},
		"right":  {[]part{{data: string(data)}}, fmt.Sprintf("\r\nContent-Length: %d\r\n", len(data))},
	} {
		l.upstreams.mu.Lock()
		l.upstreams.crates[storage.CIDOf(data)] = c.parts
		l.upstreams.mu.Unlock()
		conn := must(net.Dial("tcp", strings.TrimPrefix(l.url, "http://")))
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nAuthorization: %s\r\n\r\n", remoteDL("/crates-io"), l.session(l.member, "read"))
		got, _ := io.ReadAll(conn)
		conn.Close()
		if !strings.Contains(string(got), c.want) {
			t.Errorf("%s: %.300q of %d bytes", name, got, len(got))
		}
	}
}

func TestUpstreamsThatFailAreTold(t *testing.T) {
	l := newLab(t)
	l.upstreams.offer("remote", "1.0.0")
	token := l.session(l.member, "read")
	for err, status := range map[error]int{ErrHeldDamaged: 503, ErrUpstreamDown: 503, ErrUpstreamBusy: 503, ErrUpstreamRefused: 502, ErrUpstreamBroken: 502} {
		l.upstreams.down = fmt.Errorf("crates-io: %w", err)
		for _, path := range []string{"/crates-io/index/re/mo/remote", remoteDL("/crates-io")} {
			r := l.get(path, token).want(t, status, err.Error())
			if after := r.header.Get("Retry-After"); (after != "") != (status == 503) {
				t.Errorf("%s: Retry-After %q", path, after)
			}
		}
	}
}

// No upstream is asked for a private name, whatever it is asked by.
func TestPrivateNamesAreNeverAskedUpstream(t *testing.T) {
	l := newLab(t)
	for _, name := range []string{"acme-thing", "acme_thing"} {
		l.upstreams.offer(name, "1.0.0")
	}
	settings := l.registry.Settings().Registry
	settings.PrivateNames = []string{"acme-"}
	l.submit(l.admin, record.RegistrySubject(), &settings)
	token := l.session(l.member, "read")
	l.get("/crates-io/index/ac/me/acme-thing", token).want(t, 404)
	l.get("/crates-io/index/ac/me/acme_thing", token).want(t, 404)
	l.get("/crates-io/dl/acme-thing/1.0.0/"+hashOf(crateFile("acme-thing", "1.0.0")), token).want(t, 404)
	for _, body := range []string{`{"crates":[{"name":"acme-thing","version":"1.0.0"}]}`, `{"all_versions_of":["Acme_Thing"]}`} {
		l.do(ask{method: http.MethodPost, path: "/v1/upstreams/crates-io/prefetch", token: token, body: []byte(body)})
	}
	if len(l.upstreams.asked) > 0 || strings.Contains(l.log.String(), "acme") {
		t.Errorf("asked: %v", l.upstreams.asked)
	}
}

// All routes say of a crate of an upstream what policy says: index, download and prefetch.
func TestRoutesOfUpstreamsAgree(t *testing.T) {
	l := newLab(t)
	l.admitBound()
	for _, name := range []string{"remote", "bad", "hasher"} {
		l.upstreams.offer(name, "1.0.0")
	}
	hasher := crateOf("hasher", blake3Source)
	l.upstreams.files["hasher"] = strings.ReplaceAll(l.upstreams.files["hasher"], hashOf(crateFile("hasher", "1.0.0")), hashOf(hasher))
	l.upstreams.crates[storage.CIDOf(hasher)] = []part{{data: string(hasher)}}
	l.quarantine("bad", func(q *particle.QuarantineRule) {
		q.Match[0].Names, q.Match[0].Sources = []string{"bad"}, []string{particle.SourceCratesIO}
	})
	hashes := map[string]string{"remote": hashOf(crateFile("remote", "1.0.0")), "bad": hashOf(crateFile("bad", "1.0.0")), "hasher": hashOf(hasher)}
	index := map[string]string{"remote": "re/mo/remote", "bad": "3/b/bad", "hasher": "ha/sh/hasher"}
	for who, sees := range map[int]string{member: "ADD", admin: "ADD", offshore: "XXX"} {
		token := l.token(who, particle.ScopeRead, nil)
		for i, name := range []string{"remote", "bad", "hasher"} {
			file, crate, outcome := 200, 200, "fetched"
			switch sees[i] {
			case seesDenied:
				crate, outcome = 403, prefetchDenied
			case seesNothing:
				file, crate, outcome = 404, 404, prefetchAbsent
			}
			dl := "/crates-io/dl/" + name + "/1.0.0/" + hashes[name]
			l.get(dl, token).want(t, crate)
			r := l.get("/crates-io/index/"+index[name], token).want(t, file)
			if denied := strings.Contains(string(r.body), `"yanked":true`); denied != (sees[i] == seesDenied) {
				t.Errorf("%s: %s: %s", askerNames[who], name, r)
			}
			l.do(ask{method: "GET", path: dl, token: token, header: http.Header{"If-None-Match": {"*", `"` + hashes[name] + `"`}}}).want(t, map[bool]int{true: 304, false: crate}[crate == 200])
			r = l.do(ask{method: http.MethodPost, path: "/v1/upstreams/crates-io/prefetch", token: token, body: fmt.Appendf(nil, `{"crates":[{"name":%q,"version":"1.0.0"}]}`, name)}).want(t, 200)
			if got := outcomes(t, r)[name+"@1.0.0"]; got != outcome && !(outcome == "fetched" && got == prefetchHeld) {
				t.Errorf("%s: %s: %s: %s", askerNames[who], name, outcome, r)
			}
		}
	}
}

// outcomes are those of the lines of a prefetch, by name@version; "done" is whether it ended.
func outcomes(t *testing.T, r reply) map[string]string {
	t.Helper()
	found := map[string]string{}
	for line := range strings.Lines(string(r.body)) {
		var l struct {
			Name, Version, Outcome string
			Counts                 *prefetchCount
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if l.Counts == nil {
			found[l.Name+"@"+l.Version] = l.Outcome
		} else if l.Counts.Done {
			found["done"] = fmt.Sprintf("of %d held %d fetched %d denied %d absent %d failed %d pinned %d %s", l.Counts.Of, l.Counts.Held, l.Counts.Fetched, l.Counts.Denied, l.Counts.Absent, l.Counts.Failed, l.Counts.Pinned, l.Counts.Error)
		}
	}
	return found
}

func TestPrefetchFetchesOnceAndPins(t *testing.T) {
	l := newLab(t)
	l.upstreams.offer("remote", "1.0.0", "1.1.0", "2.0.0")
	l.upstreams.offer("other", "1.0.0")
	post := func(token, body string) reply {
		return l.do(ask{method: http.MethodPost, path: "/v1/upstreams/crates-io/prefetch", token: token, body: []byte(body)})
	}
	list := `{"lock":"ci/main","all_versions_of":["remote"],"crates":[{"name":"other","version":"1.0.0","checksum":"` + hashOf(crateFile("other", "1.0.0")) + `"},{"name":"other","version":"1.0.0","checksum":"` + hashOf(nil) + `"}]}`
	post(l.session(l.member, "read"), list).want(t, 403, "scope publish")
	auditor := l.session(l.newHost(particle.TierCoreStakeholder, "auditor"), "publish read") // a scope that every member gets
	post(auditor, list).want(t, 403, `"code":"role"`, "publishers and admins")
	l.do(ask{method: http.MethodDelete, path: "/v1/locks/ci/main", token: auditor}).want(t, 403, `"code":"role"`)
	token := l.session(l.member, "publish read")
	if got := outcomes(t, post(token, list).want(t, 200)); got["done"] != "of 5 held 0 fetched 4 denied 0 absent 1 failed 0 pinned 4 " || got["remote@2.0.0"] != "fetched" {
		t.Errorf("%v", got)
	}
	edited := `{"crates":[{"name":"other","version":"1.0.0","checksum":"` + hashOf(nil) + `"}]}`
	post(token, edited).want(t, 200, `"outcome":"absent"`, "crates-io names another sha256 for it ("+hashOf(crateFile("other", "1.0.0"))+")")
	zeros := `{"crates":[{"name":"other","version":"1.0.0","checksum":"` + strings.Repeat("0", 64) + `"}]}`
	post(token, zeros).want(t, 200, `"outcome":"absent"`, "nothing hashes to zeros")
	if got := outcomes(t, post(token, list).want(t, 200)); got["done"] != "of 5 held 4 fetched 0 denied 0 absent 1 failed 0 pinned 4 " {
		t.Errorf("again: %v", got)
	}
	if got := outcomes(t, post(token, `{"all_versions_of":["none","other"]}`).want(t, 200)); got["done"] != "of 2 held 1 fetched 0 denied 0 absent 1 failed 0 pinned 0 " || got["none@"] != prefetchAbsent {
		t.Errorf("what there is not: %v", got)
	}
	l.get("/v1/locks", token).want(t, 200, `"lock":"ci/main"`, `"pins":4`, string(didOf(l.member)))
	l.do(ask{method: http.MethodDelete, path: "/v1/locks/ci/main?before=2001-01-01T00:00:00Z", token: token}).want(t, 200, `{"unpinned":0}`)
	l.do(ask{method: http.MethodDelete, path: "/v1/locks/ci/main?before=now", token: token}).want(t, 400)
	l.do(ask{method: http.MethodDelete, path: "/v1/locks/ci%20main", token: token}).want(t, 404)
	l.do(ask{method: http.MethodDelete, path: "/v1/locks/ci/main", token: l.session(l.member, "read")}).want(t, 403)
	l.do(ask{method: http.MethodDelete, path: "/v1/locks/ci/main", token: token}).want(t, 200, `{"unpinned":5}`) // and what lacks
	l.upstreams.down = fmt.Errorf("crates-io: %w", ErrUpstreamDown)
	if got := outcomes(t, post(token, `{"crates":[{"name":"remote","version":"1.0.0"},{"name":"third","version":"1.0.0"}]}`).want(t, 200)); got["done"] != "of 2 held 1 fetched 0 denied 0 absent 0 failed 1 pinned 0 " {
		t.Errorf("while upstream is down: %v", got)
	}
	for _, bad := range []string{"", "{}", `{"crates":[]}`, `{"lock":"a b","crates":[{"name":"a","version":"1.0.0"}]}`, `{"crates":[{"name":"a","version":"1.0.0","checksum":"12"}]}`, `{"what":1}`} {
		post(token, bad).want(t, 400)
	}
}

// Offline an index lists what is held alone, so that nobody resolves what cannot be had.
func TestOfflineIndexesListWhatIsHeld(t *testing.T) {
	upstreams := newFakeUpstreams()
	upstreams.offline = true
	l := newLabWith(t, upstreams)
	l.upstreams.offer("remote", "1.0.0", "1.1.0")
	token := l.session(l.member, "read")
	l.get(remoteDL("/crates-io"), token).want(t, 200)
	want := UpstreamCrate{"remote", "1.0.0", storage.CIDOf(crateFile("remote", "1.0.0"))}
	if _, err := l.upstreams.Hold(t.Context(), "crates-io", want); err != nil {
		t.Fatal(err)
	}
	file := l.get("/crates-io/index/re/mo/remote", token).want(t, 200)
	if lines := strings.Count(string(file.body), "\n"); lines != 1 || !strings.Contains(string(file.body), `"vers":"1.0.0"`) {
		t.Errorf("%s", file)
	}
	r := l.do(ask{method: "GET", path: remoteDL("/crates-io"), token: token, header: http.Header{"Range": {"bytes=0-3"}}}).want(t, 206)
	if string(r.body) != string(crateFile("remote", "1.0.0")[:4]) {
		t.Errorf("a part of what is held: %q", r.body)
	}
	for _, list := range []string{`{"crates":[{"name":"third","version":"1.0.0"}]}`, `{"all_versions_of":["third"]}`} {
		l.do(ask{method: http.MethodPost, path: "/v1/upstreams/crates-io/prefetch", token: token, body: []byte(list)}).want(t, 200, `"outcome":"absent"`, "not held, and this registry is offline")
	}
}

// Who lost the right to read while upstream was asked gets nothing.
func TestWhatChangedWhileUpstreamWasAskedHolds(t *testing.T) {
	for _, path := range []string{"/crates-io/index/re/mo/remote", remoteDL("/crates-io")} {
		l := newLab(t)
		l.upstreams.offer("remote", "1.0.0")
		l.admitTo(particle.TierCoreStakeholder, l.guest, "publisher")
		token := l.session(l.guest, "read")
		done := false
		l.upstreams.during = func() {
			if !done {
				done = true
				l.admitTo(particle.TierGuest, l.guest, "publisher")
			}
		}
		l.get(path, token).want(t, 403, string(policy.RuleTier))
	}
}

// So it is with who lost it while a crate was looked into, which may take minutes.
func TestWhatChangedWhileACrateWasLookedIntoHolds(t *testing.T) {
	l := newLab(t)
	l.upstreams.offer("remote", "1.0.0")
	l.admitTo(particle.TierCoreStakeholder, l.guest, "publisher")
	l.upstreams.looked = sync.OnceFunc(func() { l.admitTo(particle.TierGuest, l.guest, "publisher") })
	l.get(remoteDL("/crates-io"), l.session(l.guest, "read")).want(t, 403, string(policy.RuleTier))
}

// So does it where a crate is held first, as for a list: who asks is looked at anew behind the look.
func TestWhatChangedWhileAHeldCrateWasLookedIntoHolds(t *testing.T) {
	l := newLab(t)
	l.upstreams.offer("remote", "1.0.0")
	l.get("/crates-io/index/re/mo/remote", l.session(l.member, "read")).want(t, 200)
	v := must(l.registry.UpstreamVersion(t.Context(), knowing(l.member), "crates-io", "remote", "1.0.0", storage.CIDOf(crateFile("remote", "1.0.0")).Digest()))
	looked, lost := 0, errors.New("lost the right to read")
	who := func() (policy.Asker, error) {
		if looked++; looked > 1 {
			return policy.Asker{}, lost
		}
		return knowing(l.member), nil
	}
	s := &Server{registry: l.registry, upstreams: l.upstreams}
	if _, _, err := s.holdAndLook(t.Context(), "crates-io", who, v); !errors.Is(err, lost) {
		t.Errorf("error %v, want that of who asks by then", err)
	}
}

// A rule that comes while a crate is received, and asks for a look into it, has that looked into: it
// refuses nothing that it does not find.
func TestARuleThatComesWhileACrateIsReceivedHasItLookedInto(t *testing.T) {
	for name, want := range map[string]int{"remote": 200, "hasher": 403} {
		l := newLab(t)
		l.lookNowhere()
		crate := crateFile(name, "1.0.0")
		l.upstreams.offer(name, "1.0.0")
		if name == "hasher" {
			hasher := crateOf(name, blake3Source)
			l.upstreams.files[name] = strings.ReplaceAll(l.upstreams.files[name], hashOf(crate), hashOf(hasher))
			l.upstreams.crates[storage.CIDOf(hasher)] = []part{{data: string(hasher)}}
			crate = hasher
		}
		token := l.session(l.member, "read")
		l.upstreams.during = func() {
			if slices.Contains(l.upstreams.asked, name+"@1.0.0") {
				l.upstreams.during = nil
				l.quarantine("inside", func(q *particle.QuarantineRule) { q.Match[0].Content = []string{"blake3"} })
			}
		}
		l.get("/crates-io/dl/"+name+"/1.0.0/"+hashOf(crate), token).want(t, want)
		if l.upstreams.during != nil {
			t.Errorf("%s: no rule came", name)
		}
	}
}

// unpinning is done by a session that names the role which it takes, for whoever has it.
func unpinning(l *lab, who int) ask {
	token := l.token(who, particle.ScopePublish, nil)
	if who > stranger {
		token = l.forge(l.key(who), particle.ScopePublish, func(t *particle.SessionToken) { t.Roles = []string{"publisher"} })
	}
	return ask{method: http.MethodDelete, path: "/v1/locks/ci/main", token: token}
}

// A version that was published a moment ago may be locked elsewhere already: who asks for it
// need not wait until the index file that is known is old.
func TestWhatIsLockedElsewhereIsFoundAtOnce(t *testing.T) {
	l := newLab(t)
	l.lookNowhere()
	token := l.session(l.member, "read")
	l.upstreams.offer("remote", "0.9.0")
	l.get("/crates-io/index/re/mo/remote", token).want(t, 200)
	l.upstreams.offer("remote", "0.9.0", "1.0.0")
	l.upstreams.mu.Lock()
	l.upstreams.fresh = true
	l.upstreams.mu.Unlock()
	crate := l.get(remoteDL("/crates-io"), token).want(t, 200)
	if string(crate.body) != string(crateFile("remote", "1.0.0")) {
		t.Errorf("not the crate: %v", crate.header)
	}
}

// A list is fetched many at once: sixteen crates are received before the first of them is here,
// the others of it when a place is free.
func TestPrefetchFetchesManyAtOnce(t *testing.T) {
	l := newLab(t)
	l.lookNowhere()
	const crates = 2 * prefetchers
	gate, list := make(chan struct{}), []string{}
	for i := range crates {
		name := fmt.Sprintf("remote-%d", i)
		l.upstreams.offer(name, "1.0.0")
		id := storage.CIDOf(crateFile(name, "1.0.0"))
		l.upstreams.crates[id][0].wait = gate
		list = append(list, fmt.Sprintf(`{"name":%q,"version":"1.0.0","checksum":%q}`, name, id.Hex()))
	}
	asked := func() (n int) {
		l.upstreams.mu.Lock()
		defer l.upstreams.mu.Unlock()
		for _, what := range l.upstreams.asked {
			if strings.Contains(what, "@") {
				n++
			}
		}
		return n
	}
	token, answered := l.session(l.member, "read"), make(chan reply, 1)
	go func() {
		defer close(answered)
		answered <- l.do(ask{method: http.MethodPost, path: "/v1/upstreams/crates-io/prefetch", token: token, body: []byte(`{"crates":[` + strings.Join(list, ",") + `]}`)})
	}()
	for deadline := time.Now().Add(20 * time.Second); asked() < prefetchers && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond) // in which one too many would be asked for
	if n := asked(); n != prefetchers {
		t.Errorf("%d crates are received at once, want %d", n, prefetchers)
	}
	close(gate)
	got := outcomes(t, (<-answered).want(t, 200))
	if want := fmt.Sprintf("of %d held 0 fetched %d denied 0 absent 0 failed 0 pinned 0 ", crates, crates); got["done"] != want || asked() != crates {
		t.Errorf("%v after %d were asked for", got["done"], asked())
	}
}
