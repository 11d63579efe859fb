package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// placed is a server with two places of each kind for crates of upstreams, one for each member.
type placed struct {
	*lab
	s       *Server
	handler http.Handler
}

func newPlaced(t *testing.T) placed {
	l := newLab(t)
	l.lookNowhere()
	s := newServer(Config{Registry: l.registry, Log: slog.New(slog.DiscardHandler), Clock: l.now, Upstreams: l.upstreams})
	brief := func() *places {
		p := patientPlaces(2, 1)
		p.wait = 10 * time.Millisecond
		return p
	}
	s.sends, s.upstreamQuestions = brief(), brief()
	for name := range s.fetches {
		s.fetches[name] = brief()
	}
	return placed{l, s, s.routes()}
}

func (p placed) ask(ctx context.Context, path, token string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	r.Header.Set("Authorization", token)
	w := httptest.NewRecorder()
	p.handler.ServeHTTP(w, r)
	return w
}

func (p placed) taken(t *testing.T) {
	t.Helper()
	for name, of := range map[string]*places{"sends": p.s.sends, "questions": p.s.upstreamQuestions, "fetches": p.s.fetches[cratesIO], "fetches of lab": p.s.fetches["lab"]} {
		if len(of.free) != 0 || len(of.taken) != 0 {
			t.Errorf("places are not given back: %s: %d, %v", name, len(of.free), of.taken)
		}
	}
}

// eventually fails when is does not come true.
func eventually(t *testing.T, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never is so")
		}
	}
}

// What is held waits for nothing that is being received, other members and other upstreams
// wait for nobody's slow one, and who has theirs waits for a while.
func TestWhatIsReceivedSlowlyHoldsNobodyElse(t *testing.T) {
	p := newPlaced(t)
	for _, name := range []string{"remote", "other", "third"} {
		p.upstreams.offer(name, "1.0.0")
	}
	held := UpstreamCrate{"third", "1.0.0", storage.CIDOf(crateFile("third", "1.0.0"))}
	if _, err := p.upstreams.Hold(t.Context(), cratesIO, held); err != nil {
		t.Fatal(err)
	}
	release, began := make(chan struct{}), make(chan struct{})
	crate := crateFile("remote", "1.0.0")
	p.upstreams.crates[storage.CIDOf(crate)] = []part{{data: string(crate[:10])}, {data: string(crate[10:]), wait: release}}
	member, owner := p.session(p.member, "read"), p.session(p.owner, "read")
	dl := func(base, name string) string {
		return base + "/dl/" + name + "/1.0.0/" + hashOf(crateFile(name, "1.0.0"))
	}
	slow := make(chan int, 1)
	p.upstreams.during = func() {
		if n := len(p.upstreams.asked); p.upstreams.asked[n-1] == "remote@1.0.0" {
			close(began)
		}
	}
	go func() { slow <- p.ask(t.Context(), dl("/crates-io", "remote"), member).Code }()
	<-began
	if w := p.ask(t.Context(), dl("/crates-io", "other"), member); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("a second one of two places for one member: HTTP %d: %s", w.Code, w.Body)
	}
	for what, w := range map[string]*httptest.ResponseRecorder{
		"what is held":     p.ask(t.Context(), dl("/crates-io", "third"), member),
		"another upstream": p.ask(t.Context(), dl("/upstream/lab", "other"), member),
		"another member":   p.ask(t.Context(), dl("/crates-io", "other"), owner),
	} {
		if w.Code != http.StatusOK {
			t.Errorf("%s: HTTP %d: %s", what, w.Code, w.Body)
		}
	}
	close(release)
	if code := <-slow; code != http.StatusOK {
		t.Errorf("the slow one: HTTP %d", code)
	}
	p.taken(t)
}

// Who reads slowly what has arrived keeps no place of what is received, as long as there is one of those
// for what is held.
func TestWhoReadsSlowlyKeepsNoPlaceOfWhatIsReceived(t *testing.T) {
	for name, full := range map[string]bool{"there is a place": false, "there is none": true} {
		t.Run(name, func(t *testing.T) {
			p := newPlaced(t)
			p.upstreams.offer("remote", "1.0.0")
			release, arrived := make(chan struct{}), make(chan struct{})
			p.upstreams.arrived = arrived
			crate := crateFile("remote", "1.0.0")
			p.upstreams.crates[storage.CIDOf(crate)] = []part{{data: string(crate[:10])}, {data: string(crate[10:]), wait: release}}
			member := p.session(p.member, "read")
			slow := make(chan *httptest.ResponseRecorder, 1)
			go func() { slow <- p.ask(t.Context(), "/crates-io/dl/remote/1.0.0/"+hashOf(crate), member) }()
			fetches, sends := p.s.fetches[cratesIO].free, p.s.sends.free
			eventually(t, func() bool { return len(fetches) == 1 && len(sends) == 0 })
			leave := func() {}
			if full {
				leave = must(p.s.sends.take(t.Context(), didOf(p.member)))
				before := p.s.sends.turnedAway.Load()
				close(arrived)
				eventually(t, func() bool { return p.s.sends.turnedAway.Load() > before })
				if len(fetches) != 1 {
					t.Error("it has no place at all")
				}
			} else {
				close(arrived)
				eventually(t, func() bool { return len(fetches) == 0 && len(sends) == 1 })
			}
			close(release)
			if w := <-slow; w.Code != http.StatusOK || w.Body.String() != string(crate) {
				t.Errorf("HTTP %d, %d bytes", w.Code, w.Body.Len())
			}
			leave()
			p.taken(t)
		})
	}
}

// Nobody has an upstream asked for more unknown names at once than a member may; what is known
// waits for none of that.
func TestQuestionsAboutUnknownNamesAreBounded(t *testing.T) {
	p := newPlaced(t)
	p.upstreams.offer("remote", "1.0.0")
	p.upstreams.offer("other", "1.0.0")
	member, owner := p.session(p.member, "read"), p.session(p.owner, "read")
	if w := p.ask(t.Context(), "/crates-io/index/re/mo/remote", member); w.Code != http.StatusOK {
		t.Fatalf("HTTP %d: %s", w.Code, w.Body)
	}
	if p.upstreams.asker != didOf(p.member) {
		t.Errorf("upstream is asked for %q", p.upstreams.asker)
	}
	leave := must(p.s.upstreamQuestions.take(t.Context(), didOf(p.member)))
	asked := len(p.upstreams.asked)
	if w := p.ask(t.Context(), "/crates-io/index/ot/he/other", member); w.Code != http.StatusServiceUnavailable || len(p.upstreams.asked) != asked {
		t.Errorf("one more than a member has: HTTP %d: %s", w.Code, w.Body)
	}
	if w := p.ask(t.Context(), "/crates-io/index/re/mo/remote", member); w.Code != http.StatusOK {
		t.Errorf("what is known: HTTP %d: %s", w.Code, w.Body)
	}
	if w := p.ask(t.Context(), "/crates-io/index/ot/he/other", owner); w.Code != http.StatusOK {
		t.Errorf("another member: HTTP %d: %s", w.Code, w.Body)
	}
	leave()
	p.taken(t)
}

// Attachments may be large: few are in memory at once, and of one member fewer.
func TestAttachmentsHavePlaces(t *testing.T) {
	p := newPlaced(t)
	p.upstreams.offer("remote", "1.0.0")
	token := p.session(p.admin, "read")
	if w := p.ask(t.Context(), "/crates-io/index/re/mo/remote", token); w.Code != http.StatusOK {
		t.Fatalf("HTTP %d: %s", w.Code, w.Body)
	}
	known, ok, err := p.registry.UpstreamCrate(t.Context(), cratesIO, "remote")
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	path := fmt.Sprintf("/v1/records/%s/attachments/%s", known.Record, known.Snapshot)
	p.s.attachments.wait = 10 * time.Millisecond
	var all []func()
	for range maxAttachmentsEach {
		all = append(all, must(p.s.attachments.take(t.Context(), didOf(p.admin))))
	}
	if w := p.ask(t.Context(), path, token); w.Code != http.StatusServiceUnavailable {
		t.Errorf("without a place: HTTP %d", w.Code)
	}
	for _, release := range all {
		release()
	}
	if w := p.ask(t.Context(), path, token); w.Code != http.StatusOK || w.Body.String() != p.upstreams.files["remote"] {
		t.Errorf("HTTP %d: %s", w.Code, w.Body)
	}
	if len(p.s.attachments.free) != 0 || len(p.s.attachments.taken) != 0 {
		t.Errorf("places are not given back: %v", p.s.attachments.taken)
	}
}

// What is hidden from whoever asks, is not there, or has a private name, is told in the same
// words, by every route.
func TestWhatIsHiddenOfUpstreamsIsToldAsWhatIsNotThere(t *testing.T) {
	l := newLab(t)
	l.admitBound()
	settings := l.registry.Settings().Registry
	settings.PrivateNames = []string{"acme-"}
	l.submit(l.admin, record.RegistrySubject(), &settings)
	l.upstreams.offer("remote", "1.0.0")
	l.get("/crates-io/index/re/mo/remote", l.session(l.member, "read")).want(t, 200)
	token := l.token(offshore, particle.ScopeRead, nil)
	index := map[string]string{"remote": "re/mo/remote", "nothere": "no/th/nothere", "acme-thing": "ac/me/acme-thing"}
	told := map[string]map[string]string{}
	for name, path := range index {
		answers := map[string]string{}
		answers["index"] = string(l.get("/crates-io/index/"+path, token).want(t, 404).body)
		answers["dl"] = string(l.get("/crates-io/dl/"+name+"/1.0.0/"+hashOf(crateFile(name, "1.0.0")), token).want(t, 404).body)
		for how, body := range map[string]string{"prefetch": `{"crates":[{"name":%q,"version":"1.0.0"}]}`, "prefetch all": `{"all_versions_of":[%q]}`, "other checksum": `{"crates":[{"name":%q,"version":"1.0.0","checksum":"` + hashOf(nil) + `"}]}`} {
			r := l.do(ask{method: http.MethodPost, path: "/v1/upstreams/crates-io/prefetch", token: token, body: fmt.Appendf(nil, body, name)}).want(t, 200)
			line, _, _ := strings.Cut(string(r.body), "\n")
			answers[how] = strings.ReplaceAll(line, name, "NAME")
		}
		told[name] = answers
	}
	for name, answers := range told {
		for how, text := range answers {
			if text != told["nothere"][how] {
				t.Errorf("%s, %s: %s\nand of what is not there: %s", name, how, text, told["nothere"][how])
			}
		}
	}
}
