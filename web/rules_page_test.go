package web

import (
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
)

// admitAs admits somebody new.
func (l *lab) admitAs(roles ...string) did.PrivateKey {
	l.t.Helper()
	key := must(did.GenerateEd25519(rand.Reader))
	l.submit(l.admin, record.MemberSubject(didOf(key)), &record.Member{Roles: roles, Tier: particle.TierCoreStakeholder, StakeholderAddrs: []string{}})
	return key
}

func (l *lab) quarantineBy(who did.PrivateKey, id string, change func(*particle.QuarantineRule)) {
	l.t.Helper()
	rule := particle.QuarantineRule{
		Effect: particle.EffectDeny, Mode: particle.ModeEnforce, Reason: "it is <b>not</b> \u202ewell",
		Match: []particle.RuleMatch{{Names: []string{"secret-*"}, Versions: "<0.2", Hashes: []string{}, Publishers: []did.DID{}, Sources: []string{}, Content: []string{}}},
	}
	change(&rule)
	l.submit(who, must(record.RuleSubject(id)), &record.Quarantine{QuarantineRule: rule})
}

func TestMembersSeeTheRulesWithTheirVotes(t *testing.T) {
	l := newLab(t)
	token := l.session(l.member, "read")
	l.get("/rules", token).want(t, 200, `id="rule-blake3"`, "in force", "shipped", "blake3-*", "holds an implementation of")
	one, two, three := l.admitAs("reviewer"), l.admitAs("reviewer"), l.admitAs("reviewer")
	l.quarantineBy(one, "tried", func(r *particle.QuarantineRule) { r.Mode = particle.ModeDryRun })
	page := l.get("/rules", token).want(t, 200, `id="rule-tried"`, "dry run", "it is &lt;b&gt;not&lt;/b&gt; \ufffdwell", "of version <code>&lt;0.2</code>")
	if strings.Contains(page.Body.String(), "To end it") {
		t.Error("a proposal that nobody made")
	}
	proposal := l.sign(one, must(record.RuleSubject("blake3")), &record.Release{Reason: "audited"})
	l.enter(one, proposal)
	l.get("/rules", token).want(t, 200, "To end it", "0 approvals of 2", "open")
	approve := func(who did.PrivateKey) {
		l.submit(who, must(record.RuleSubject("blake3")), &record.Approve{Record: proposal.ID(), Verdict: record.VerdictApprove, Reason: "read"})
	}
	approve(two)
	l.get("/rules", token).want(t, 200, "1 approval of 2", string(didOf(two)), "aln-registry approve rule/")
	approve(three)
	l.get("/rules", token).want(t, 200, "released", "closed", "2 approvals", "Ended by")
}

// What hosts are judged by they read, also while nothing else is shown to them.
func TestAHostWithoutAGrantSeesTheRulesAndNoCrates(t *testing.T) {
	l := newLab(t)
	l.fill()
	guest := must(did.GenerateEd25519(rand.Reader))
	l.submit(l.admin, record.MemberSubject(didOf(guest)), &record.Member{Roles: []string{"builder"}, Tier: particle.TierGuest, StakeholderAddrs: []string{}})
	token := l.session(guest, "read")
	l.get("/", token).want(t, 200, `href="/rules"`, `href="/grants"`)
	l.get("/rules", token).want(t, 200, "blake3")
	l.get("/grants", token).want(t, 200, "There are none")
	denied := l.get("/artifacts/crate/secret-crate", token).want(t, 403, "only under an EnvGrant")
	if strings.Contains(denied.Body.String(), "secret-crate") {
		t.Error("a name is told")
	}
	l.grant(guest, func(g *particle.EnvGrant) { g.AllowedCrates = []string{particle.AllCrates} })
	l.get("/grants", token).want(t, 200, string(didOf(guest)), "bafkrei", "guest")
	l.get("/artifacts/crate/secret-crate", token).want(t, 200, "hidden words")
}

// A grant's whole identity would be ten lines of a table.
func TestIdentifiersInWhatIsToldAreShort(t *testing.T) {
	for text, want := range map[string]string{
		"grant grant/bafkreia5cc3rfoftrd5s4oochebb5gkwxvrw7fcq5pbi34l4dcka4wdsva": "grant grant/bafkreia5cc3rfof…ka4wdsva",
		"GET /v1/decisions/{kind}/{name}":                                         "GET /v1/decisions/{kind}/{name}", "crate/leaf@0.3.0": "crate/leaf@0.3.0", "": "",
	} {
		if got := brief(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestTheAuditTrailIsForAuditors(t *testing.T) {
	l := newLab(t)
	l.fill()
	auditor, reviewer := l.admitAs("auditor"), l.admitAs("reviewer")
	l.quarantineBy(reviewer, "gone", func(*particle.QuarantineRule) {})
	member := l.session(l.member, "read")
	l.get("/artifacts/crate/secret-crate/0.1.0/download", member).want(t, 403)
	for range perPage + 5 {
		l.registry.Note(registry.Event{Asker: did.DID("did:key:" + time.Now().String()), What: "crate/<i>other", Rule: "quarantine", Outcome: registry.OutcomeDenied})
	}
	read, audit := l.session(auditor, "read"), l.session(auditor, "audit")
	for who, token := range map[string]string{"a member": member, "an auditor's session for reading": read, "nobody": ""} {
		page := l.get("/audit", token)
		if page.Code == 200 || strings.Contains(page.Body.String(), "secret-crate") {
			t.Errorf("%s sees %s", who, page)
		}
		if strings.Contains(l.get("/", token).Body.String(), `href="/audit"`) {
			t.Errorf("%s is led to the audit trail", who)
		}
	}
	l.get("/audit", read).want(t, 403, "--scope audit")
	l.get("/", audit).want(t, 200, `href="/audit"`)
	first := l.get("/audit", audit).want(t, 200, "crate/&lt;i&gt;other", "Older")
	older := first.Body.String()
	older = older[strings.Index(older, `href="/audit?before=`)+6:]
	older = older[:strings.Index(older, `"`)]
	l.get(older, audit).want(t, 200, "crate/secret-crate@0.1.0", string(didOf(l.member)), "gone", "denied", "← Newest")
	l.get("/audit?before=0", audit).want(t, 404)
	l.get("/audit?before=x", audit).want(t, 404)
}
