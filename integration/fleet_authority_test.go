package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
)

// observed is what a server answered to a request that began at a time.
type observed struct {
	began  time.Time
	status int
	retry  string
	server string
}

// siege asks all servers of a fleet for one thing again and again.
type siege struct {
	stop context.CancelFunc
	all  sync.WaitGroup
	mu   sync.Mutex
	seen []observed
}

// besiege asks each server for path by two clients until the siege is lifted.
func (f *fleet) besiege(path, token string) *siege {
	ctx, cancel := context.WithCancel(f.ctx)
	s := &siege{stop: cancel}
	for _, m := range f.servers {
		for range 2 {
			asker := newAsker(f.reached(), m)
			s.all.Go(func() {
				defer asker.client.CloseIdleConnections()
				for ctx.Err() == nil {
					began := time.Now()
					status, retry, _ := asker.get(path, token)
					s.mu.Lock()
					s.seen = append(s.seen, observed{began, status, retry, m.url})
					s.mu.Unlock()
					time.Sleep(2 * time.Millisecond)
				}
			})
		}
	}
	return s
}

// lift ends the siege and returns what was observed.
func (s *siege) lift() []observed {
	s.stop()
	s.all.Wait()
	return s.seen
}

// refusedFrom holds what was observed against the moment of an acknowledgement:
// before it some were let in everywhere, of those that asked later nobody.
func (f *fleet) refusedFrom(what string, acknowledged time.Time, seen []observed) {
	f.t.Helper()
	before, after := map[string]int{}, map[string]int{}
	for _, o := range seen {
		switch {
		case o.began.Before(acknowledged):
			if o.status == http.StatusOK {
				before[o.server]++
			}
		case o.status == http.StatusOK:
			f.t.Errorf("%s: %s after it was acknowledged %s still let somebody in", what, o.began.Sub(acknowledged), o.server)
		case o.status == http.StatusUnauthorized || o.status == http.StatusForbidden:
			after[o.server]++
		}
	}
	for _, m := range f.servers {
		if before[m.url] == 0 || after[m.url] == 0 {
			f.t.Errorf("%s: %s let %d in before, and refused %d afterwards: that shows nothing", what, m.url, before[m.url], after[m.url])
		}
	}
}

// An act of authority holds on all servers once one of them has acknowledged it.
func TestAnActOfAuthorityHoldsOnAllServersAtOnce(t *testing.T) {
	f := newFleet(t, crashSeed(t))
	lab := ruled(f.lab)
	r := packed("judged", "1.0.0", "", nil)
	lab.uploads(r)
	for _, act := range []struct {
		name string
		// prepare returns whose token is let in, and what ends that.
		prepare func(round int) (token string, end func())
	}{
		{"a member is removed", func(int) (string, func()) {
			u := lab.member(particle.TierCoreStakeholder, "visitor")
			return u.token(lab.lab, ""), func() { lab.admit(u, particle.TierCoreStakeholder) }
		}},
		{"a grant is revoked", func(int) (string, func()) {
			u := lab.member(particle.TierGuest, "visitor")
			grant := lab.grant(u, allowing(r))
			return u.token(lab.lab, grant.String()), func() { lab.revoke(grant) }
		}},
		{"a rule is made", func(round int) (string, func()) {
			u := lab.member(particle.TierCoreStakeholder, "visitor")
			return u.token(lab.lab, ""), func() {
				lab.rule(fmt.Sprintf("judged-%d", round), particle.QuarantineRule{Match: named("judged")})
			}
		}},
	} {
		for round := range 3 {
			f.allSettled()
			token, end := act.prepare(round)
			path := downloadPath(r.name, r.version)
			f.awaitLetIn(path, token)
			siege := f.besiege(path, token)
			time.Sleep(150 * time.Millisecond)
			asked := time.Now()
			end()
			acknowledged := time.Now()
			time.Sleep(400 * time.Millisecond)
			f.refusedFrom(act.name, acknowledged, siege.lift())
			t.Logf("%s: acknowledged in %s", act.name, acknowledged.Sub(asked).Round(time.Millisecond))
			if act.name == "a rule is made" {
				lab.release(fmt.Sprintf("judged-%d", round))
			}
			if t.Failed() {
				t.FailNow()
			}
		}
	}
}

// awaitLetIn waits until all servers answer path to token.
func (f *fleet) awaitLetIn(path, token string) {
	f.t.Helper()
	for _, m := range f.servers {
		asker := newAsker(f.reached(), m)
		eventually(f.t, 10*time.Second, m.url+" lets somebody in", func() bool {
			status, _, _ := asker.get(path, token)
			return status == http.StatusOK
		})
		asker.client.CloseIdleConnections()
	}
}

const (
	// unconfirmedMost is how long a server that has lost the database may go on
	// answering by what it knows.
	unconfirmedMost = 5 * time.Second
	// lateBy is what these machines may add to it.
	lateBy = time.Second
	// mostAcknowledging is how long an act of authority may wait for a server that
	// has gone without a word.
	mostAcknowledging = 10 * time.Second
)

// A server that is cut off from the database answers nobody by what it last knew
// for longer than a few seconds; an act of authority waits for just that, and the
// server comes back by itself.
func TestAServerThatIsCutOffFromTheDatabase(t *testing.T) {
	f := newFleet(t, crashSeed(t))
	lab := ruled(f.lab)
	r := packed("judged", "1.0.0", "", nil)
	lab.uploads(r)
	path := downloadPath(r.name, r.version)
	person := f.lab.people(f.ctx, 1)[0]
	for name, cut := range map[string]func(*testbed.Proxy){
		"silently": func(p *testbed.Proxy) { p.Use(testbed.Plan{Apart: true}) },
		"at once": func(p *testbed.Proxy) {
			p.Use(testbed.Plan{Refused: true})
			p.CutAll()
		},
	} {
		t.Run(name, func(t *testing.T) {
			f.allSettled()
			alone := f.servers[2]
			u := lab.member(particle.TierCoreStakeholder, "visitor")
			token, other := u.token(lab.lab, ""), lab.operator.token(lab.lab, "")
			f.awaitLetIn(path, token)
			theirs, ours := f.besiege(path, token), f.besiege(path, other)
			time.Sleep(200 * time.Millisecond)
			cutAt := time.Now()
			cut(alone.database)
			f.remove(f.servers[0], u)
			acknowledged := time.Now()
			t.Logf("the removal was acknowledged %s after the cut", acknowledged.Sub(cutAt).Round(10*time.Millisecond))
			if took := acknowledged.Sub(cutAt); took > mostAcknowledging {
				t.Errorf("the removal took %s", took)
			}
			time.Sleep(time.Until(cutAt.Add(unconfirmedMost + lateBy + 500*time.Millisecond)))
			f.cutOff(alone, person, path, other)
			assertion := lab.operator.assertion(particle.ScopeRead, "", nil)
			alone.mints(assertion, http.StatusServiceUnavailable)
			alone.database.Use(testbed.Plan{})
			back := time.Now()
			f.awaitLetIn(path, other)
			eventually(t, 15*time.Second, "it is ready again", func() bool {
				status, _ := scrape(t, alone.scraped+"/readyz")
				return status == http.StatusOK
			})
			t.Logf("it was back %s after the cut ended", time.Since(back).Round(10*time.Millisecond))
			f.servers[0].mints(assertion, http.StatusOK)
			alone.mints(assertion, http.StatusForbidden) // it was used
			f.awaitRefused(path, token)
			for _, o := range theirs.lift() {
				if o.status == http.StatusOK && o.began.After(acknowledged) {
					t.Errorf("%s let the removed member in %s after that was acknowledged", o.server, o.began.Sub(acknowledged))
				}
			}
			answered := 0
			for _, o := range ours.lift() {
				late := o.began.Sub(cutAt)
				if o.server == alone.url && o.status == http.StatusOK && late > unconfirmedMost+lateBy && o.began.Before(back) {
					t.Errorf("it answered %s after it was cut off", late)
				}
				if o.server != alone.url && o.status == http.StatusOK && o.began.After(cutAt) {
					answered++
				}
			}
			if answered == 0 {
				t.Error("the other servers did not go on")
			}
		})
	}
}

// remove removes u as a member, by one server.
func (f *fleet) remove(m *member, u *user) {
	f.t.Helper()
	admin := newPublisher(f.t, f.reached(), f.operator.home).at(f.t, m)
	registry, err := admin.agent.Open(f.reached())
	if err != nil {
		f.t.Fatal(err)
	}
	body := &record.Member{Roles: []string{}, Tier: particle.TierGuest, StakeholderAddrs: []string{}}
	if _, err := registry.SignAndSubmit(f.ctx, client.Draft{Subject: record.MemberSubject(u.identity().DID()), Body: body}); err != nil {
		f.t.Fatal(err)
	}
}

// cutOff holds what a server without database answers against what it must: reads
// and writes come back later, the log it has shown stays, and it says it is not ready.
func (f *fleet) cutOff(m *member, person *publisher, path, token string) {
	f.t.Helper()
	asker := newAsker(f.reached(), m)
	defer asker.client.CloseIdleConnections()
	for _, path := range []string{path, "/index/" + cargo.IndexPath("judged"), "/api/v1/crates?q=judged", "/v1/members"} {
		if status, retry, body := asker.get(path, token); status != http.StatusServiceUnavailable || retry == "" {
			f.t.Errorf("%s of a server that is cut off: %d, Retry-After %q: %.200s", path, status, retry, body)
		}
	}
	for path, want := range map[string]int{"/log/checkpoint": http.StatusOK, "/healthz": http.StatusOK, "/readyz": http.StatusServiceUnavailable} {
		if status, _, body := asker.get(path, ""); status != want {
			f.t.Errorf("%s of a server that is cut off: %d %s", path, status, body)
		}
	}
	r := newRelease(f.rng, 0, "not-now", "1.0.0", 10)
	var refused *refusal
	if _, err := person.at(f.t, m).publishWith(f.ctx, token, r); !errors.As(err, &refused) || !unavailable(err) {
		f.t.Errorf("a publish to a server that is cut off: %v", err)
	}
}

// mints posts an assertion to this server, which must answer by want: a session, or
// none, and when to come back where it cannot tell.
func (m *member) mints(assertion url.Values, want int) {
	m.t.Helper()
	resp, err := http.PostForm(m.url+"/v1/session", assertion)
	if err != nil {
		m.t.Error(err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != want || strings.Contains(string(body), "access_token") != (want == http.StatusOK) ||
		want == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "" {
		m.t.Errorf("an assertion at %s: %d %s, %v; want %d", m.url, resp.StatusCode, body, err, want)
	}
}

// publishWith is publish with a token that was had before.
func (p *publisher) publishWith(ctx context.Context, token string, r release) (string, error) {
	return p.send(ctx, http.MethodPut, "new", token, frameOf(r))
}

func (f *fleet) awaitRefused(path, token string) {
	f.t.Helper()
	for _, m := range f.servers {
		asker := newAsker(f.reached(), m)
		eventually(f.t, 10*time.Second, m.url+" refuses the removed member", func() bool {
			status, _, _ := asker.get(path, token)
			return status == http.StatusUnauthorized || status == http.StatusForbidden
		})
		asker.client.CloseIdleConnections()
	}
}

// A server whose host sleeps through an act of authority does not let in, when it
// wakes, whom it would have let in before.
func TestAServerThatSlept(t *testing.T) {
	f := newFleet(t, crashSeed(t))
	lab := ruled(f.lab)
	r := packed("judged", "1.0.0", "", nil)
	lab.uploads(r)
	path, alone := downloadPath(r.name, r.version), f.servers[2]
	u := lab.member(particle.TierCoreStakeholder, "visitor")
	token := u.token(lab.lab, "")
	f.awaitLetIn(path, token)
	if err := testbed.Hold(alone.cmd.Process); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	f.remove(f.servers[0], u)
	acknowledged := time.Now()
	t.Logf("the removal was acknowledged in %s", acknowledged.Sub(began).Round(10*time.Millisecond))
	if took := acknowledged.Sub(began); took > mostAcknowledging {
		t.Errorf("the removal took %s", took)
	}
	siege := f.besiege(path, token)
	time.Sleep(200 * time.Millisecond)
	if err := testbed.Release(alone.cmd.Process); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	statuses := map[int]int{}
	for _, o := range siege.lift() {
		if o.status == http.StatusOK {
			t.Errorf("%s let the removed member in", o.server)
		}
		if o.server == alone.url {
			statuses[o.status]++
		}
	}
	t.Logf("it answered %v", statuses)
	if statuses[http.StatusUnauthorized]+statuses[http.StatusForbidden] == 0 {
		t.Error("it does not answer any more")
	}
}
