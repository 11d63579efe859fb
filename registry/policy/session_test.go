package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
)

func checkRule(t *testing.T, name string, d *Denial, want Rule) {
	t.Helper()
	switch {
	case want == "" && d != nil:
		t.Errorf("%s: %v", name, d)
	case want != "" && (d == nil || d.Rule != want):
		t.Errorf("%s: %v, want rule %s", name, d, want)
	case d != nil && (d.Reason == "" || !strings.Contains(d.Error(), string(want)) || strings.Contains(d.Error(), secretID)):
		t.Errorf("%s: message %q", name, d)
	}
}

func TestCheckSessionRefuses(t *testing.T) {
	other := newKey(t, 9).Public().DID()
	secs := func(d time.Duration) int64 { return now.Add(d).Unix() }
	cases := []struct {
		name  string
		alter func(*Token[particle.SessionToken], *Holder)
		want  Rule
	}{
		{"as it should be", func(*Token[particle.SessionToken], *Holder) {}, ""},
		{"minted by another", func(s *Token[particle.SessionToken], _ *Holder) { s.Claims.Issuer = other }, RuleIssuer},
		{"minted by the host", func(s *Token[particle.SessionToken], _ *Holder) { s.Claims.Issuer = s.Claims.Subject }, RuleIssuer},
		{"no issuer", func(s *Token[particle.SessionToken], _ *Holder) { s.Claims.Issuer = "" }, RuleIssuer},
		{"signed by another's key", func(s *Token[particle.SessionToken], _ *Holder) { s.KeyID = newKey(t, 9).Public().URL() }, RuleIssuer},
		{"for another registry", func(s *Token[particle.SessionToken], _ *Holder) { s.Claims.Audience = other }, RuleAudience},
		{"for nobody", func(s *Token[particle.SessionToken], _ *Holder) { s.Claims.Audience = "" }, RuleAudience},
		{"host_did another's", func(s *Token[particle.SessionToken], _ *Holder) { s.Claims.HostDID = other.String() }, RuleToken},
		{"host_did a DID URL of another", func(s *Token[particle.SessionToken], _ *Holder) { s.Claims.HostDID = other.String() + "#node-7" }, RuleToken},
		{"host_did empty", func(s *Token[particle.SessionToken], _ *Holder) { s.Claims.HostDID = "" }, RuleToken},
		{"host_did longer than the subject", func(s *Token[particle.SessionToken], _ *Holder) { s.Claims.HostDID += "x" }, RuleToken},
		{"host_did with an empty fragment", func(s *Token[particle.SessionToken], _ *Holder) { s.Claims.HostDID += "#" }, RuleToken},
		{"host_did with two fragments", func(s *Token[particle.SessionToken], _ *Holder) { s.Claims.HostDID += "#a#b" }, RuleToken},
		{"host_did with a path", func(s *Token[particle.SessionToken], _ *Holder) { s.Claims.HostDID += "/x#a" }, RuleToken},
		{"host_did a DID URL", func(s *Token[particle.SessionToken], _ *Holder) { s.Claims.HostDID += "#node-7" }, ""},
		{"thirty minutes", func(s *Token[particle.SessionToken], _ *Holder) { s.Claims.Expiry = secs(MaxSession) }, ""},
		{"longer than thirty minutes", func(s *Token[particle.SessionToken], _ *Holder) { s.Claims.Expiry = secs(MaxSession + time.Second) }, RuleLifetime},
		{"expires as issued", func(s *Token[particle.SessionToken], _ *Holder) { s.Claims.Expiry = s.Claims.IssuedAt }, RuleLifetime},
		{"expires before issued", func(s *Token[particle.SessionToken], _ *Holder) { s.Claims.Expiry = s.Claims.IssuedAt - 1 }, RuleLifetime},
		{"expired this second", func(s *Token[particle.SessionToken], _ *Holder) {
			s.Claims.IssuedAt, s.Claims.Expiry = secs(-time.Minute), secs(0)
		}, RuleLifetime},
		{"from within the skew", func(s *Token[particle.SessionToken], _ *Holder) {
			s.Claims.IssuedAt, s.Claims.Expiry = secs(ClockSkew), secs(ClockSkew+time.Minute)
		}, ""},
		{"from the future", func(s *Token[particle.SessionToken], _ *Holder) {
			s.Claims.IssuedAt, s.Claims.Expiry = secs(ClockSkew+time.Second), secs(ClockSkew+time.Minute)
		}, RuleLifetime},
		{"times that overflow", func(s *Token[particle.SessionToken], _ *Holder) {
			s.Claims.IssuedAt, s.Claims.Expiry = -1<<63, 1<<63-1
		}, RuleLifetime},
		{"times that wrap around", func(s *Token[particle.SessionToken], _ *Holder) {
			s.Claims.IssuedAt, s.Claims.Expiry = 1<<63-61, 1<<63-1
		}, RuleLifetime},
		{"membership lost", func(_ *Token[particle.SessionToken], h *Holder) { h.Member = false }, RuleMember},
		{"an admin who is no member", func(_ *Token[particle.SessionToken], h *Holder) { h.Member, h.Admin = false, true }, ""},
		{"facts about another", func(_ *Token[particle.SessionToken], h *Holder) { h.DID = other }, RuleMember},
		{"no facts", func(_ *Token[particle.SessionToken], h *Holder) { *h = Holder{} }, RuleMember},
	}
	for _, c := range cases {
		mint := newKey(t, 1).Public()
		token, holder := Token[particle.SessionToken]{KeyID: mint.URL(), Claims: goodSession(t)}, goodHolder(t)
		c.alter(&token, &holder)
		asker, d := CheckSession(token, holder, mint.DID(), now)
		checkRule(t, c.name, d, c.want)
		if d != nil && !asker.Anonymous() {
			t.Errorf("%s: denied, yet an asker", c.name)
		}
	}
}

func TestASessionOnlyNarrows(t *testing.T) {
	mint := newKey(t, 1).Public()
	token := Token[particle.SessionToken]{KeyID: mint.URL(), Claims: goodSession(t)}
	token.Claims.Roles = []string{"publisher", "auditor", "king"}
	token.Claims.Scope = "read audit admin chat OTA everything"
	token.Claims.Rec = strings.Repeat("a", 64)
	asker, d := CheckSession(token, goodHolder(t), mint.DID(), now)
	if d != nil {
		t.Fatal(d)
	}
	if !slices.Equal(asker.Roles, []string{"publisher"}) || !slices.Equal(asker.Scopes, []string{"read"}) || asker.Admin ||
		asker.Rec != token.Claims.Rec || !asker.Until.Equal(now.Add(10*time.Minute)) || asker.DID != token.Claims.Subject {
		t.Errorf("%+v", asker)
	}
}

func TestCheckAssertionRefuses(t *testing.T) {
	secs := func(d time.Duration) int64 { return now.Add(d).Unix() }
	times := func(iat, exp time.Duration) func(*Token[Assertion]) {
		return func(a *Token[Assertion]) { a.Claims.IssuedAt, a.Claims.Expiry = secs(iat), secs(exp) }
	}
	since := now.Add(-150 * time.Second)
	cases := []struct {
		name  string
		alter func(*Token[Assertion])
		want  Rule
	}{
		{"as it should be", func(*Token[Assertion]) {}, ""},
		{"of another subject", func(a *Token[Assertion]) { a.Claims.Subject = newKey(t, 9).Public().DID() }, RuleIssuer},
		{"of another issuer", func(a *Token[Assertion]) { a.Claims.Issuer = newKey(t, 9).Public().DID() }, RuleIssuer},
		{"signed by another", func(a *Token[Assertion]) { a.KeyID = newKey(t, 9).Public().URL() }, RuleIssuer},
		{"for another address", func(a *Token[Assertion]) { a.Claims.Audience = "https://evil.example/v1/session" }, RuleAudience},
		{"for the address with a slash", func(a *Token[Assertion]) { a.Claims.Audience += "/" }, RuleAudience},
		{"for no address", func(a *Token[Assertion]) { a.Claims.Audience = "" }, RuleAudience},
		{"without jti", func(a *Token[Assertion]) { a.Claims.ID = "" }, RuleToken},
		{"short jti", func(a *Token[Assertion]) { a.Claims.ID = strings.Repeat("j", 15) }, RuleToken},
		{"long jti", func(a *Token[Assertion]) { a.Claims.ID = strings.Repeat("j", 65) }, RuleToken},
		{"lives too long", times(0, MaxAssertion+time.Second), RuleLifetime},
		{"lives not at all", times(0, 0), RuleLifetime},
		{"lives backwards", times(0, -time.Second), RuleLifetime},
		{"expired at the edge", times(-ClockSkew-30*time.Second, -ClockSkew), ""},
		{"expired", times(-ClockSkew-29*time.Second, -ClockSkew-time.Second), RuleLifetime},
		{"from the edge of the future", times(ClockSkew, ClockSkew+MaxAssertion), ""},
		{"from the future", times(ClockSkew+time.Second, ClockSkew+MaxAssertion), RuleLifetime},
		{"from before the memory of used ones", times(-151*time.Second, -ClockSkew+29*time.Second), RuleLifetime},
		{"times that overflow", func(a *Token[Assertion]) { a.Claims.IssuedAt, a.Claims.Expiry = -1<<63, 1<<63-1 }, RuleLifetime},
	}
	for _, c := range cases {
		token := Token[Assertion]{KeyID: newKey(t, 2).Public().URL(), Claims: goodAssertion(t)}
		c.alter(&token)
		checkRule(t, c.name, CheckAssertion(token, testURL, since, now), c.want)
	}
	// A moment too early for this registry's memory, in its time otherwise.
	token := Token[Assertion]{KeyID: newKey(t, 2).Public().URL(), Claims: goodAssertion(t)}
	checkRule(t, "issued before the start", CheckAssertion(token, testURL, now.Add(time.Second), now), RuleLifetime)
	checkRule(t, "issued at the start", CheckAssertion(token, testURL, now, now), "")
}

func TestAdmissionByScopeAndRole(t *testing.T) {
	cases := []struct {
		scope string
		roles []string
		admin bool
		want  Rule
	}{
		{"read", nil, false, ""},
		{"build", nil, false, ""},
		{"publish", nil, false, ""}, // an owner may have no role publisher
		{"read build publish", []string{"publisher"}, false, ""},
		{"audit", []string{"publisher"}, false, RuleRole},
		{"audit", []string{"auditor"}, false, ""},
		{"audit", []string{"mirror"}, false, ""},
		{"audit", nil, true, ""},
		{"audit", []string{"Auditor"}, false, RuleRole},
		{"admin", []string{"publisher", "auditor", "admin"}, false, RuleRole},
		{"admin", nil, true, ""},
		{"read admin", []string{"publisher"}, false, RuleRole},
		{"chat", nil, true, RuleScope},
		{"OTA", nil, true, RuleScope},
		{"ota", nil, true, RuleScope},
		{"root", nil, true, RuleScope},
		{"READ", nil, true, RuleScope},
		{"", nil, true, RuleScope},
		{" ", nil, true, RuleScope},
		{"read ", nil, true, RuleScope},
		{" read", nil, true, RuleScope},
		{"read  build", nil, true, RuleScope},
		{"read\tbuild", nil, true, RuleScope},
		{"read\u00a0build", nil, true, RuleScope},
		{"read,build", nil, true, RuleScope},
		{"read\x00admin", nil, true, RuleScope},
		{"read\nadmin", nil, true, RuleScope},
		{"read read", nil, false, ""},
	}
	for _, c := range cases {
		a, holder := goodAssertion(t), goodHolder(t)
		a.Scope, holder.Roles, holder.Admin = c.scope, c.roles, c.admin
		token, d := Admit(a, holder, newKey(t, 1).Public().DID(), "jti", now)
		checkRule(t, c.scope, d, c.want)
		if d != nil && token.ID != "" {
			t.Errorf("%q: denied, yet a token", c.scope)
		}
	}
}

func TestAdmissionRefuses(t *testing.T) {
	cases := []struct {
		name  string
		alter func(*Assertion, *Holder)
		want  Rule
	}{
		{"as it should be", func(*Assertion, *Holder) {}, ""},
		{"no member", func(_ *Assertion, h *Holder) { h.Member = false }, RuleMember},
		{"facts about another", func(_ *Assertion, h *Holder) { h.DID = newKey(t, 9).Public().DID() }, RuleMember},
		{"thirty minutes", func(a *Assertion, _ *Holder) { a.Lifetime = 1800 }, ""},
		{"longer than thirty minutes", func(a *Assertion, _ *Holder) { a.Lifetime = 1801 }, RuleLifetime},
		{"negative lifetime", func(a *Assertion, _ *Holder) { a.Lifetime = -1 }, RuleLifetime},
		{"lifetime that overflows", func(a *Assertion, _ *Holder) { a.Lifetime = 1 << 62 }, RuleLifetime},
		{"lifetime that overflows to little", func(a *Assertion, _ *Holder) { a.Lifetime = 1<<55 + 60 }, RuleLifetime},
		{"own address", func(a *Assertion, _ *Holder) { a.StakeholderAddr = "addr:1" }, ""},
		{"another's address", func(a *Assertion, _ *Holder) { a.StakeholderAddr = "addr:2" }, RuleAddress},
		{"a grant", func(a *Assertion, _ *Holder) { a.Grant = "bafkreia" }, RuleGrant},
		{"a budget, and no ledger", func(a *Assertion, _ *Holder) { a.MaxJoules = 1<<64 - 1 }, ""},
		{"all that is on the ledger", func(a *Assertion, h *Holder) { a.MaxJoules, h.Balances = 500, &Balances{Joules: 500} }, ""},
		{"more than is on the ledger", func(a *Assertion, h *Holder) { a.MaxJoules, h.Balances = 501, &Balances{Joules: 500} }, RuleBudget},
		{"something of nothing", func(a *Assertion, h *Holder) { a.MaxJoules, h.Balances = 1, &Balances{} }, RuleBudget},
		{"a record", func(a *Assertion, _ *Holder) { a.Rec = strings.Repeat("0a", 32) }, ""},
		{"a grant that is no CID", func(a *Assertion, _ *Holder) { a.Grant = "../FORGED" }, RuleGrant},
		{"an identity cut short", func(a *Assertion, _ *Holder) { a.Rec = strings.Repeat("0a", 31) }, RuleToken},
		{"an identity too long", func(a *Assertion, _ *Holder) { a.Rec = strings.Repeat("0a", 33) }, RuleToken},
		{"an identity with a break", func(a *Assertion, _ *Holder) { a.Rec = strings.Repeat("0a", 31) + "0\n" }, RuleToken},
		{"an identity of NULs", func(a *Assertion, _ *Holder) { a.Rec = strings.Repeat("\x00", 64) }, RuleToken},
		{"a CID for an identity", func(a *Assertion, _ *Holder) { a.Rec = "bafkrei" + strings.Repeat("a", 57) }, RuleToken},
		{"no identity of a record", func(a *Assertion, _ *Holder) { a.Rec = "FORGED" }, RuleToken},
		{"an identity in capitals", func(a *Assertion, _ *Holder) { a.Rec = strings.Repeat("0A", 32) }, RuleToken},
	}
	for _, c := range cases {
		a, holder := goodAssertion(t), goodHolder(t)
		c.alter(&a, &holder)
		token, d := Admit(a, holder, newKey(t, 1).Public().DID(), "jti", now)
		checkRule(t, c.name, d, c.want)
		if d != nil && (token.ID != "" || strings.Contains(d.Error(), "FORGED")) {
			t.Errorf("%s: %v, token %+v", c.name, d, token)
		}
	}
}

// TestWhatIsAdmittedIsAccepted walks from assertion to asker.
func TestWhatIsAdmittedIsAccepted(t *testing.T) {
	mint := newKey(t, 1)
	a := goodAssertion(t)
	a.Lifetime, a.Scope, a.MaxJoules, a.MaxMemMB, a.StakeholderAddr = 0, "read publish", 1<<64-1, 7, "addr:1"
	claims, d := Admit(a, goodHolder(t), mint.Public().DID(), "fresh-jti", now.Add(500*time.Millisecond))
	if d != nil {
		t.Fatal(d)
	}
	if claims.Expiry-claims.IssuedAt != int64(DefaultSession/time.Second) || claims.MaxJoules != 1<<64-1 || claims.MaxMemMB != 7 || claims.ID != "fresh-jti" || claims.ID == a.ID {
		t.Errorf("%+v", claims)
	}
	token, err := SignSession(claims, did.EdDSA, signer(mint))
	if err != nil {
		t.Fatal(err)
	}
	if err := session(t, token, goodHolder(t), now.Add(DefaultSession-time.Second)); err != nil {
		t.Error(err)
	}
	if err := session(t, token, goodHolder(t), now.Add(DefaultSession)); err == nil {
		t.Error("accepted when it had expired")
	}
}

func TestAdmissionSharesNoMemoryWithTheFacts(t *testing.T) {
	holder := goodHolder(t)
	claims, d := Admit(goodAssertion(t), holder, newKey(t, 1).Public().DID(), "jti", now)
	if d != nil {
		t.Fatal(d)
	}
	claims.Roles[0] = "king"
	if holder.Roles[0] != "publisher" {
		t.Error("a token's roles are the state's slice")
	}
	holder.Roles = nil
	if claims, d = Admit(goodAssertion(t), holder, newKey(t, 1).Public().DID(), "jti", now); d != nil || claims.Roles == nil {
		t.Errorf("a holder without roles: %v, %v", claims.Roles, d)
	}
}
