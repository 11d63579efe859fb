package policy

import (
	"slices"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
)

// Bounds in time (FORMATS §5).
const (
	// MaxSession is the longest life of a session, DefaultSession what is given unasked.
	MaxSession     = 30 * time.Minute
	DefaultSession = 15 * time.Minute
	// MaxAssertion is the longest life of an assertion; ClockSkew is allowed on top.
	MaxAssertion = 60 * time.Second
	ClockSkew    = 120 * time.Second
)

// Assertion is what a holder signs to ask for a session (RFC 7523 §3), with
// what is asked for inside, so that nobody on the way can widen it.
type Assertion struct {
	// Issuer and Subject are the holder's DID.
	Issuer  did.DID `json:"iss"`
	Subject did.DID `json:"sub"`
	// Audience is the URL that the assertion is posted to.
	Audience string `json:"aud"`
	// IssuedAt and Expiry are Unix seconds, at most MaxAssertion apart.
	IssuedAt int64 `json:"iat"`
	Expiry   int64 `json:"exp"`
	// ID is used once.
	ID string `json:"jti"`
	// Lifetime is the session's, in seconds; 0: DefaultSession.
	Lifetime        int64  `json:"lifetime,omitzero"`
	Scope           string `json:"scope"`
	StakeholderAddr string `json:"stakeholder_addr,omitzero"`
	MaxJoules       uint64 `json:"max_joules,omitzero"`
	MaxMemMB        uint64 `json:"max_mem_mb,omitzero"`
	Grant           string `json:"grant,omitzero"`
	Rec             string `json:"rec,omitzero"`
}

// CheckAssertion judges an assertion whose signature has been verified by a key
// of holder: form, audience and time. since is the earliest acceptable issue
// time (no assertion from before this registry's memory of used ones began).
// Whether ID was used before is the caller's to find out, afterwards.
func CheckAssertion(t Token[Assertion], audience string, since, now time.Time) *Denial {
	a := t.Claims
	issued, expires := time.Unix(a.IssuedAt, 0), time.Unix(a.Expiry, 0)
	switch {
	case a.Issuer != a.Subject || a.Subject != t.KeyID.DID:
		return deny(RuleIssuer, "an assertion's iss and sub are the signer's own DID")
	case a.Audience != audience:
		return deny(RuleAudience, "the assertion is for another address than %s; is it the registry's declared URL?", audience)
	case len(a.ID) < 16 || len(a.ID) > 64 || strings.ContainsFunc(a.ID, func(r rune) bool { return r < '!' || r > '~' }):
		return deny(RuleToken, "jti has 16 to 64 visible characters of ASCII")
	case expires.Sub(issued) <= 0 || expires.Sub(issued) > MaxAssertion:
		return deny(RuleLifetime, "an assertion lives at most %s", MaxAssertion)
	case now.After(expires.Add(ClockSkew)) || now.Before(issued.Add(-ClockSkew)):
		return deny(RuleLifetime, "the assertion is not of this time; check the clock")
	case issued.Before(since):
		return deny(RuleLifetime, "the assertion is older than this registry's memory of used ones; sign a new one")
	}
	return nil
}

// Admit decides on a session: the one admission function. mint is the origin,
// which is issuer and audience; id becomes the token's jti.
func Admit(a Assertion, holder Holder, mint did.DID, id string, now time.Time) (particle.SessionToken, *Denial) {
	var none particle.SessionToken
	if holder.DID != a.Subject || (!holder.Member && !holder.Admin) {
		return none, deny(RuleMember, "%s is not a member of this registry; an admin admits it with `aln-registry member add %s --role publisher`", a.Subject, a.Subject)
	}
	scopes := strings.Fields(a.Scope)
	if len(scopes) == 0 || strings.Join(scopes, " ") != a.Scope {
		return none, deny(RuleScope, "scope is a list of scopes, one space between them")
	}
	for _, scope := range scopes {
		if d := admitScope(scope, holder); d != nil {
			return none, d
		}
	}
	lifetime := DefaultSession
	if a.Lifetime != 0 {
		lifetime = time.Duration(a.Lifetime) * time.Second
	}
	if a.Lifetime < 0 || a.Lifetime > int64(MaxSession/time.Second) {
		return none, deny(RuleLifetime, "a session lives at most %s", MaxSession)
	}
	if a.StakeholderAddr != "" && !slices.Contains(holder.StakeholderAddrs, a.StakeholderAddr) {
		return none, deny(RuleAddress, "that stakeholder address is not one of %s", a.Subject)
	}
	if a.Grant != "" {
		if _, _, d := ResolveGrant(a.Grant, holder.Grants, now); d != nil {
			return none, d
		}
	}
	if b := holder.Balances; b != nil && a.MaxJoules > b.Joules {
		return none, deny(RuleBudget, "a session of %d joules was asked for, and %s has %d to spend; ask for less, or for a budget", a.MaxJoules, a.Subject, b.Joules)
	}
	if a.Rec != "" && (len(a.Rec) != 64 || strings.Trim(a.Rec, "0123456789abcdef") != "") {
		return none, deny(RuleToken, "rec is not the identity of a record (64 lower-case hex digits)")
	}
	return particle.SessionToken{
		Issuer: mint, Subject: a.Subject, Audience: mint,
		IssuedAt: now.Unix(), Expiry: now.Add(lifetime).Unix(), ID: id,
		HostDID: string(a.Subject), StakeholderAddr: a.StakeholderAddr,
		Roles: append([]string{}, holder.Roles...), Scope: a.Scope,
		MaxJoules: a.MaxJoules, MaxMemMB: a.MaxMemMB, Grant: a.Grant, Rec: a.Rec,
	}, nil
}

// admitScope says who may have a scope. What a rule does not know it refuses:
// chat and OTA are the platform's, and nothing here can check their budgets.
func admitScope(scope string, holder Holder) *Denial {
	switch scope {
	case particle.ScopeRead, particle.ScopeBuild, particle.ScopePublish:
		return nil
	case particle.ScopeAudit:
		if holder.Admin || slices.Contains(holder.Roles, "auditor") || slices.Contains(holder.Roles, "mirror") {
			return nil
		}
		return deny(RuleRole, "the scope audit needs the role auditor or mirror, or an admin of the registry")
	case particle.ScopeAdmin:
		if holder.Admin {
			return nil
		}
		return deny(RuleRole, "the scope admin needs an admin of the registry")
	}
	if particle.KnownScope(scope) {
		return deny(RuleScope, "this registry does not mint sessions with the scope %s", scope)
	}
	return deny(RuleScope, "a scope that was asked for is unknown")
}

// isHost reports whether host is the DID subject or a DID URL of it.
func isHost(host string, subject did.DID) bool {
	if host == string(subject) {
		return true
	}
	u, err := did.ParseURL(host)
	return err == nil && u.DID == subject
}

// CheckSession judges a session token whose signature has been verified by the
// mint's key: time, issuer, audience, and what the state says of its holder
// now. It is asked on every request; the answer is never cached.
func CheckSession(t Token[particle.SessionToken], holder Holder, mint did.DID, now time.Time) (Asker, *Denial) {
	c := t.Claims
	issued, expires := time.Unix(c.IssuedAt, 0), time.Unix(c.Expiry, 0)
	switch {
	case c.Issuer != mint || t.KeyID.DID != mint:
		return Asker{}, deny(RuleIssuer, "the session was minted by somebody else")
	case c.Audience != mint:
		return Asker{}, deny(RuleAudience, "the session is for another registry")
	case !isHost(c.HostDID, c.Subject):
		return Asker{}, deny(RuleToken, "host_did is not the session's subject")
	case expires.Sub(issued) <= 0 || expires.Sub(issued) > MaxSession:
		return Asker{}, deny(RuleLifetime, "a session lives at most %s", MaxSession)
	case !now.Before(expires):
		return Asker{}, deny(RuleLifetime, "the session has expired")
	case now.Before(issued.Add(-ClockSkew)):
		return Asker{}, deny(RuleLifetime, "the session is from the future")
	case holder.DID != c.Subject || (!holder.Member && !holder.Admin):
		return Asker{}, deny(RuleMember, "%s is not a member of this registry; an admin admits it with `aln-registry member add %s --role publisher`", c.Subject, c.Subject)
	}
	lost := func(role string) bool { return !slices.Contains(holder.Roles, role) }
	asker := Asker{DID: c.Subject, Admin: holder.Admin, Tier: holder.Tier, Rec: c.Rec, Until: expires, GrantNamed: c.Grant, Budget: Budget{Joules: c.MaxJoules, MemMB: c.MaxMemMB}}
	if asker.Roles = c.Roles; slices.ContainsFunc(c.Roles, lost) { // a role lost since then is lost at once
		asker.Roles = slices.DeleteFunc(slices.Clone(c.Roles), lost)
	}
	for scope := range strings.FieldsSeq(c.Scope) {
		if admitScope(scope, holder) == nil {
			asker.Scopes = append(asker.Scopes, scope)
		}
	}
	return asker, nil
}
