package server

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

type auditAnswer struct {
	Entries []auditJSON `json:"entries"`
	Next    *int64      `json:"next"`
}

// auditTrail is what an auditor reads of it, newest first, besides the auditor's own admission.
func (l *lab) auditTrail() []auditJSON {
	l.t.Helper()
	return read[auditAnswer](l.t, l.get("/v1/audit?limit=1000", l.forge(l.admin, particle.ScopeAudit))).Entries
}

// wantTold finds the entry, newest first, that is as want in what want says.
func (l *lab) wantTold(want auditJSON) auditJSON {
	l.t.Helper()
	trail := l.auditTrail()
	i := slices.IndexFunc(trail, func(e auditJSON) bool {
		return e.Asker == want.Asker && e.What == want.What && e.Rule == want.Rule && e.Outcome == want.Outcome && (want.RuleID == "" || e.RuleID == want.RuleID)
	})
	if i < 0 {
		l.t.Fatalf("not told: %+v\nof %+v", want, trail)
	}
	return trail[i]
}

// Every route that denies something says so to the auditors: who, what, by which rule, in which request.
func TestEveryDenialIsInTheAuditTrail(t *testing.T) {
	l := newLab(t)
	l.demo()
	l.admitBound()
	l.quarantine("gone", named("demo-one"))
	member, offshore, guest := l.session(l.member, "read"), l.session(l.offshore, "read"), l.session(l.guest, "read")
	bound, told := l.offshoreGrant().String(), map[auditJSON]bool{}
	for _, c := range []struct {
		path, token string
		status      int
		want        auditJSON
	}{
		{"/api/v1/crates/demo-one/0.1.0/download", member, 403, auditJSON{Asker: string(didOf(l.member)), What: "crate/demo-one@0.1.0", Rule: "quarantine", RuleID: "gone"}},
		{"/v1/artifacts/crate/demo-one/0.1.0/content", member, 403, auditJSON{Asker: string(didOf(l.member)), What: "crate/demo-one@0.1.0", Rule: "quarantine", RuleID: "gone"}},
		{"/v1/artifacts/crate/demo-one/0.1.0", offshore, 404, auditJSON{Asker: string(didOf(l.offshore)), What: "crate/demo-one@0.1.0", Rule: "quarantine", RuleID: "gone"}},
		{"/index/de/mo/demo-one", offshore, 404, auditJSON{Asker: string(didOf(l.offshore)), What: "crate/demo-one"}},
		{"/api/v1/crates/demo-one/owners", offshore, 404, auditJSON{Asker: string(didOf(l.offshore)), What: "crate/demo-one"}},
		{"/v1/records/4", offshore, 404, auditJSON{Asker: string(didOf(l.offshore)), What: "crate/demo-one@0.1.0"}},
		{"/api/v1/crates?q=demo", guest, 403, auditJSON{Asker: string(didOf(l.guest)), What: "GET /api/v1/crates", Rule: "tier-default"}},
		{"/index/de/mo/demo-one", guest, 403, auditJSON{Asker: string(didOf(l.guest)), What: "GET /index/*", Rule: "tier-default"}},
		{"/v1/audit", member, 403, auditJSON{Asker: string(didOf(l.member)), What: "GET /v1/audit", Rule: "scope"}},
		{"/v1/decisions/crate/demo-one?grant=" + bound, member, 403, auditJSON{Asker: string(didOf(l.member)), What: "GET /v1/decisions/{kind}/{name}", Rule: "role"}},
	} {
		r := l.get(c.path, c.token).want(t, c.status)
		c.want.Outcome = "denied"
		if c.want.Rule == "" {
			c.want.Rule, c.want.RuleID = "quarantine", "gone"
		}
		e := l.wantTold(c.want)
		if age := time.Since(e.Time.Time); age < 0 || age > time.Minute || e.Count != 1 {
			t.Errorf("%s: %+v", c.path, e)
		}
		if first := !told[c.want]; first && e.Request != r.header.Get("X-Request-Id") { // the next of its kind are counted
			t.Errorf("%s: request %s, not %s", c.path, e.Request, r.header.Get("X-Request-Id"))
		}
		told[c.want] = true
	}
	revoked := l.grant(l.guest, nil)
	named := l.forge(l.guest, "read", func(s *particle.SessionToken) { s.Grant = revoked.String() })
	l.submit(l.admin, record.GrantSubject(revoked), &record.Revoke{Reason: "over"})
	l.get("/v1/artifacts", named).want(t, 403)
	l.wantTold(auditJSON{Asker: string(didOf(l.guest)), What: "GET /v1/artifacts", Rule: "grant", RuleID: revoked.String(), Outcome: "denied"})
	before := len(l.auditTrail())
	l.get("/v1/artifacts", "").want(t, 401)
	l.get("/v1/artifacts", "a.b.c").want(t, 401)
	l.get("/v1/artifacts/crate/none/1.0.0", member).want(t, 404)
	l.get("/v1/artifacts/crate/none/1.0.0", offshore).want(t, 404)
	if after := l.auditTrail(); len(after) != before {
		t.Errorf("what is no denial is told: %+v", after[:len(after)-before])
	}
}

func TestADryRunTellsWhomItWouldDeny(t *testing.T) {
	l := newLab(t)
	l.demo()
	l.quarantine("tried", func(q *particle.QuarantineRule) { named("demo-one")(q); q.Mode = particle.ModeDryRun })
	token := l.session(l.member, "read")
	l.get("/index/de/mo/demo-one", token).want(t, 200)
	if trail := l.auditTrail(); slices.ContainsFunc(trail, func(e auditJSON) bool { return e.Outcome == "would_deny" }) {
		t.Errorf("before the download: %+v", trail)
	}
	l.get("/api/v1/crates/demo-one/0.1.0/download", token).want(t, 200)
	l.wantTold(auditJSON{Asker: string(didOf(l.member)), What: "crate/demo-one@0.1.0", Rule: "quarantine", RuleID: "tried", Outcome: "would_deny"})
}

// Acts of authority are told, accepted or refused; what everybody does every day is not.
func TestActsOfAuthorityAreInTheAuditTrail(t *testing.T) {
	l := newLab(t)
	reviewer := l.newHost(particle.TierGuest, "reviewer")
	rule := must(record.RuleSubject("mine"))
	body := &record.Quarantine{QuarantineRule: particle.QuarantineRule{
		Effect: particle.EffectDeny, Mode: particle.ModeEnforce, Reason: "so",
		Match: []particle.RuleMatch{{Names: []string{"evil"}, Hashes: []string{}, Publishers: []did.DID{}, Sources: []string{}, Content: []string{}}},
	}}
	made := l.sign(reviewer, rule, body)
	l.submitted(reviewer, made)
	l.wantTold(auditJSON{Asker: string(didOf(reviewer)), What: "quarantine rule/mine", Rule: "record", RuleID: string(made.ID()), Outcome: "accepted"})
	l.submitOver(l.session(l.member, "publish"), l.sign(l.member, rule, body)).want(t, 403)
	l.wantTold(auditJSON{Asker: string(didOf(l.member)), What: "quarantine rule/mine", Rule: "not-entitled", Outcome: "refused"})
	release := l.sign(reviewer, rule, &record.Release{Reason: "wrong"})
	l.submitted(reviewer, release)
	l.wantTold(auditJSON{Asker: string(didOf(reviewer)), What: "release rule/mine", Rule: "record", Outcome: "accepted"})
	l.submitOver(l.session(reviewer, "publish"), l.sign(reviewer, rule, &record.Approve{Record: release.ID(), Verdict: record.VerdictApprove, Reason: "me too"})).want(t, 403)
	l.wantTold(auditJSON{Asker: string(didOf(reviewer)), What: "approve rule/mine", Rule: "not-entitled", Outcome: "refused"})
	raw := l.grantOf(reviewer, l.member, nil)
	id := record.GrantSubject(storage.CIDOf(raw))
	l.submitOver(l.session(reviewer, "publish"), l.sign(reviewer, id, &record.Grant{}), raw).want(t, 403)
	l.wantTold(auditJSON{Asker: string(didOf(reviewer)), What: "grant " + id.String(), Rule: "not-entitled", Outcome: "refused"})
	third := must(did.GenerateEd25519(zeros{77}))
	member := record.MemberSubject(didOf(third))
	l.submitOver(l.session(l.admin, "admin"), l.sign(l.admin, member, &record.Member{Roles: []string{"auditor"}, Tier: "guest", StakeholderAddrs: []string{}})).want(t, 200)
	l.wantTold(auditJSON{Asker: string(didOf(l.admin)), What: "member " + member.String(), Rule: "record", Outcome: "accepted"})
	// Through cargo's routes too.
	l.demo()
	intent := l.sign(l.owner, crateSubject("demo-one"), &record.OwnIntent{})
	l.do(ask{method: http.MethodPut, path: "/api/v1/crates/demo-one/owners", token: l.credentialFor(l.session(l.owner, "publish"), intent), body: fmt.Appendf(nil, `{"users":[%q]}`, didOf(l.member))}).want(t, 200)
	l.wantTold(auditJSON{Asker: string(didOf(l.owner)), What: "own-intent crate/demo-one", Rule: "record", Outcome: "accepted"})
	before := len(l.auditTrail())
	l.put(l.owner, record.KindALNShard, "a-shard", "0.1.0", []byte("first")).want(t, 200)
	l.submitOver(l.session(l.owner, "publish"), l.sign(l.owner, versionSubject("demo-one", "0.1.0"), &record.Yank{Yanked: true})).want(t, 200)
	if after := l.auditTrail(); len(after) != before {
		t.Errorf("told: %+v", after[:len(after)-before])
	}
}

func TestRefusedSessionsAreInTheAuditTrail(t *testing.T) {
	l := newLab(t)
	l.mint(l.assertion(l.member, "admin")).want(t, 403)
	l.wantTold(auditJSON{Asker: string(didOf(l.member)), What: "session", Rule: "role", Outcome: "refused"})
	l.mint(l.assertion(l.stranger, "read")).want(t, 403)
	l.wantTold(auditJSON{Asker: string(didOf(l.stranger)), What: "session", Rule: "membership", Outcome: "refused"})
	l.mint("nonsense").want(t, 401)
	l.wantTold(auditJSON{What: "session", Rule: "unauthenticated", Outcome: "refused"})
	removed := l.newHost(particle.TierGuest, "builder")
	token := l.session(removed, "read")
	l.submit(l.admin, record.MemberSubject(didOf(removed)), &record.Member{Roles: []string{}, Tier: "guest", StakeholderAddrs: []string{}})
	l.get("/v1/rules", token).want(t, 401)
	l.wantTold(auditJSON{Asker: string(didOf(removed)), What: "session", Rule: "membership", Outcome: "refused"})
	l.get("/v1/rules", l.session(l.member, "read")).want(t, 200)
}

// Strangers with a new name for each attempt fill the trail no faster than one member.
func TestStrangersCannotFillTheAuditTrail(t *testing.T) {
	l := newLab(t)
	for n := range 60 {
		l.mint(l.assertion(must(did.GenerateEd25519(zeros{byte(100 + n)})), "read")).want(t, 403)
	}
	l.mint(l.assertion(l.member, "admin")).want(t, 403)
	l.wantTold(auditJSON{Asker: string(didOf(l.member)), What: "session", Rule: "role", Outcome: "refused"})
	if trail := l.auditTrail(); len(trail) > 40 {
		t.Errorf("%d entries", len(trail))
	}
}

func TestTheAuditTrailIsTurnedOver(t *testing.T) {
	l := newLab(t)
	l.demo()
	l.quarantine("gone", named("demo-*"))
	for n := range 7 {
		l.publish(l.owner, "demo-one", fmt.Sprintf("1.%d.0", n))
		l.get(fmt.Sprintf("/api/v1/crates/demo-one/1.%d.0/download", n), l.forge(l.member, "read")).want(t, 403)
	}
	token := l.session(l.admin, "audit")
	var seen []string
	last := int64(1 << 62)
	for query, pages := "?limit=3", 0; query != ""; pages++ {
		page := read[auditAnswer](t, l.get("/v1/audit"+query, token))
		for _, e := range page.Entries {
			if e.ID >= last {
				t.Errorf("%d after %d", e.ID, last)
			}
			last = e.ID
			seen = append(seen, strings.TrimPrefix(e.What, "crate/demo-one@"))
		}
		if query = ""; page.Next != nil {
			query = fmt.Sprint("?limit=3&before=", *page.Next)
		}
		if pages > 5 {
			t.Fatal("it does not end")
		}
	}
	if want := []string{"1.6.0", "1.5.0", "1.4.0", "1.3.0", "1.2.0", "1.1.0", "1.0.0"}; !slices.Equal(seen, want) {
		t.Errorf("%v", seen)
	}
	for _, bad := range []string{"?limit=0", "?limit=1001", "?before=0", "?before=x", "?before=-1"} {
		l.get("/v1/audit"+bad, token).want(t, 400)
	}
}

// The denials are counted by rule, and by nothing that people choose.
func TestDenialsAreCountedByRule(t *testing.T) {
	l := newLab(t)
	l.demo()
	l.admitBound()
	l.quarantine("secret-rule", named("demo-one"))
	before := l.scrape()
	for series, want := range map[string]float64{"envgrnt_denied_total{rule=quarantine}": 0, "envgrnt_denied_total{rule=cooldown}": 0, "aln_audit_waiting_limit{}": 4096, "aln_decisions_limit{}": maxDecisions, "aln_rule_tests_limit{}": maxTests} {
		if got, ok := before[series]; !ok || got != want {
			t.Errorf("%s is %v (%t)", series, got, ok)
		}
	}
	for range 3 {
		l.get("/api/v1/crates/demo-one/0.1.0/download", l.forge(l.member, "read")).want(t, 403)
	}
	l.get("/v1/artifacts", l.forge(l.guest, "read")).want(t, 403)
	l.auditTrail()
	after := l.scrape()
	wantMore(t, before, after, map[string]float64{
		"envgrnt_denied_total{rule=quarantine}": 3, "envgrnt_denied_total{rule=tier-default}": 1, "aln_audit_entries_total{}": 2, requests("GET", "/metrics", "ok"): 1,
		requests("GET", "/v1/audit", "ok"): 1, requests("GET", "/v1/artifacts", "denied"): 1, requests("GET", "/api/v1/crates/{crate}/{version}/download", "denied"): 3,
		"aln_http_refusals_total{code=quarantine}": 3, "aln_http_refusals_total{code=tier-default}": 1,
	})
	for series := range after {
		if strings.Contains(series, "secret") || strings.Contains(series, "demo") || strings.Contains(series, "did:") {
			t.Errorf("a series shows %s", series)
		}
	}
}
