package server

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
)

type rulesAnswer struct {
	Rules []ruleJSON `json:"rules"`
	Next  string     `json:"next"`
}

func (l *lab) rule(token, id string) ruleJSON {
	l.t.Helper()
	return read[ruleJSON](l.t, l.get("/v1/rules/"+id, token))
}

func named(names ...string) func(*particle.QuarantineRule) {
	return func(q *particle.QuarantineRule) { q.Match[0].Names = names }
}

// A rule is told with its state and all votes on its end, from shipped to released.
func TestRulesAreToldWithTheirVotes(t *testing.T) {
	l := newLab(t)
	one, two, three := l.newHost(particle.TierGuest, "reviewer"), l.newHost(particle.TierGuest, "reviewer"), l.newHost(particle.TierGuest, "reviewer")
	token := l.session(one, "read") // a guest without a grant
	if r := l.rule(token, "blake3"); !r.Shipped || r.Record != "" || r.State != "in_force" || len(r.Proposals) != 0 || !slices.Contains(r.Rule.Match[0].Names, "b3sum") {
		t.Errorf("as shipped: %+v", r)
	}
	propose := func(who did.PrivateKey) record.ID {
		rec := l.sign(who, must(record.RuleSubject("blake3")), &record.Release{Reason: "audited"})
		l.submitted(who, rec)
		return rec.ID()
	}
	vote := func(who did.PrivateKey, proposal record.ID, verdict string) {
		l.submitted(who, l.sign(who, must(record.RuleSubject("blake3")), &record.Approve{Record: proposal, Verdict: verdict, Reason: "read it"}))
	}
	first := propose(one)
	vote(two, first, record.VerdictReject)
	second := propose(two)
	vote(one, second, record.VerdictApprove)
	r := l.rule(token, "blake3")
	if len(r.Proposals) != 2 || r.Proposals[0].Record != first || r.Proposals[0].Open || r.Proposals[1].Record != second || !r.Proposals[1].Open || r.State != "in_force" || r.Proposals[1].By != didOf(two) || !slices.Equal(r.Proposals[1].Approvals, []did.DID{didOf(one)}) {
		t.Errorf("in the middle: %+v", r)
	}
	vote(three, second, record.VerdictApprove)
	if r := l.rule(token, "blake3"); r.State != "ended" || r.Proposals[1].Open || len(r.Proposals[1].Approvals) != 2 {
		t.Errorf("at the end: %+v", r)
	}
	l.quarantine("mine", func(q *particle.QuarantineRule) {
		named("demo*")(q)
		expires := particle.At(time.Now().Add(time.Hour))
		q.Expires, q.Mode = &expires, particle.ModeDryRun
	})
	answer := read[rulesAnswer](t, l.get("/v1/rules", token))
	if len(answer.Rules) != 2 || answer.Rules[0].ID != "blake3" || answer.Rules[1].ID != "mine" || answer.Rules[1].Shipped || answer.Rules[1].Record == "" || answer.Next != "" {
		t.Errorf("%+v", answer)
	}
	l.ahead.Store(int64(2 * time.Hour))
	if r := l.rule(l.forge(one, "read"), "mine"); r.State != "expired" {
		t.Errorf("after its time: %+v", r)
	}
	token = l.forge(one, "read")
	l.get("/v1/rules/none", token).want(t, 404)
	l.get("/v1/rules/"+strings.Repeat("x", 100), token).want(t, 404)
	l.get("/v1/rules?limit=0", token).want(t, 400)
}

// submitted enters a record as its signer, past HTTP.
func (l *lab) submitted(who did.PrivateKey, rec *record.Record) {
	l.t.Helper()
	if r := l.submitOver(l.session(who, "publish"), rec); r.status != http.StatusOK {
		l.t.Fatal(r)
	}
}

// submitOver posts a record as clients do.
func (l *lab) submitOver(token string, rec *record.Record, attachments ...[]byte) reply {
	l.t.Helper()
	body := must(json.Marshal(struct {
		Record      []byte   `json:"record"`
		Attachments [][]byte `json:"attachments"`
	}{rec.Envelope(), append([][]byte{}, attachments...)}))
	return l.do(ask{method: http.MethodPost, path: "/v1/records", token: token, body: body})
}

func TestRulesAreTurnedOver(t *testing.T) {
	l := newLab(t)
	for n := range 6 {
		l.quarantine(fmt.Sprint("rule-", n), named("demo*"))
	}
	token := l.session(l.member, "read")
	var seen []string
	for after := ""; ; {
		page := read[rulesAnswer](t, l.get("/v1/rules?limit=3&after="+after, token))
		for _, r := range page.Rules {
			seen = append(seen, r.ID)
		}
		if after = page.Next; after == "" {
			break
		}
	}
	if want := []string{"blake3", "rule-0", "rule-1", "rule-2", "rule-3", "rule-4", "rule-5"}; !slices.Equal(seen, want) {
		t.Errorf("%v", seen)
	}
}

type hitsAnswer struct {
	Hits []struct {
		Kind    string `json:"kind"`
		Name    string `json:"name"`
		Version string `json:"version"`
		CID     string `json:"cid"`
	} `json:"hits"`
	Total int `json:"total"`
}

func (l *lab) try(token string, change func(*particle.QuarantineRule)) reply {
	l.t.Helper()
	q := particle.QuarantineRule{Effect: particle.EffectDeny, Mode: particle.ModeEnforce, Reason: "a try", Match: []particle.RuleMatch{{Names: []string{}, Hashes: []string{}, Publishers: []did.DID{}, Sources: []string{}, Content: []string{}}}}
	change(&q)
	body := must(json.Marshal(map[string]any{"rule": q}))
	return l.do(ask{method: http.MethodPost, path: "/v1/rules/test", token: token, body: body})
}

// A rule is tried before it is made: on what the asker may know of, and nothing is changed by it.
func TestARuleIsTriedBeforeItIsMade(t *testing.T) {
	l := newLab(t)
	l.demo()
	l.admitBound()
	l.publish(l.owner, "demo-two", "0.1.0")
	l.publish(l.owner, "demo-two", "0.2.0")
	l.publish(l.owner, "other", "1.0.0")
	l.put(l.owner, record.KindManifest, "demo-list", "1.0.0", []byte("of things")).want(t, 200)
	token := l.session(l.member, "read")
	for name, c := range map[string]struct {
		change func(*particle.QuarantineRule)
		want   []string
	}{
		"a pattern":       {named("DEMO_*"), []string{"crate/demo-one@0.1.0", "crate/demo-two@0.1.0", "crate/demo-two@0.2.0", "manifest/demo-list@1.0.0"}},
		"a requirement":   {func(q *particle.QuarantineRule) { named("demo-two")(q); q.Match[0].Versions = ">=0.2" }, []string{"crate/demo-two@0.2.0"}},
		"a publisher":     {func(q *particle.QuarantineRule) { q.Match[0].Publishers = []did.DID{didOf(l.member)} }, nil},
		"a dry run":       {func(q *particle.QuarantineRule) { named("other")(q); q.Mode = particle.ModeDryRun }, []string{"crate/other@1.0.0"}},
		"another source":  {func(q *particle.QuarantineRule) { q.Match[0].Sources = []string{"crates-io"} }, nil},
		"what bytes hold": {func(q *particle.QuarantineRule) { q.Match[0].Content = []string{particle.ContentBLAKE3} }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			answer := read[hitsAnswer](t, l.try(token, c.change))
			var got []string
			for _, h := range answer.Hits {
				got = append(got, h.Kind+"/"+h.Name+"@"+h.Version)
			}
			if !slices.Equal(got, c.want) || answer.Total != len(c.want) {
				t.Errorf("%v of %d, not %v", got, answer.Total, c.want)
			}
		})
	}
	if hidden := read[hitsAnswer](t, l.try(l.session(l.offshore, "read"), named("*"))); hidden.Total != 0 {
		t.Errorf("an offshore host is told of %+v", hidden)
	}
	l.try(l.session(l.guest, "read"), named("*")).want(t, 403, "tier-default")
	l.try(token, func(*particle.QuarantineRule) {}).want(t, 400, "describes nothing")
	l.try(token, func(q *particle.QuarantineRule) { q.Match[0].Versions = "not a requirement" }).want(t, 400)
	l.do(ask{method: http.MethodPost, path: "/v1/rules/test", token: token, body: []byte(`{"rule":{},"more":1}`)}).want(t, 400)
	if rules := read[rulesAnswer](t, l.get("/v1/rules", token)); len(rules.Rules) != 1 {
		t.Errorf("trying made a rule: %+v", rules)
	}
}
