package policy

import (
	"slices"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
)

// Read is the gate of every route that yields an artifact or tells of one:
// whether asker may read here at all. What it may see of each, Decide says, which
// asks the gate first.
func Read(asker Asker, s Settings) Decision {
	rule, text, ok := gate(&asker, &s)
	return verdict(&asker, rule, text, ok)
}

// verdict is a Decision about everything at once.
func verdict(asker *Asker, rule Rule, text string, allow bool) Decision {
	d := refused(asker, rule, text)
	d.Known, d.Listed, d.Allow = allow, allow, allow
	return d
}

// gate: first what the session is for, then what bars it, then its tier.
func gate(asker *Asker, s *Settings) (rule Rule, text string, ok bool) {
	rule, text, ok = enters(asker, s.AnonymousRead)
	switch {
	case !ok || asker.audits():
		return rule, text, ok
	case asker.Barred != nil:
		return asker.Barred.Rule, asker.Barred.Reason, false
	case asker.GrantNamed != "" && asker.Grant == nil:
		return RuleGrant, "the session names an EnvGrant of which nothing is known; ask a grantor of this registry", false
	case asker.Grant == nil && !asker.Anonymous() && tierDenied(asker.Tier, s.DenyTiers):
		return RuleTier, "hosts of this tier read only under an EnvGrant, and none is in force for this one; ask a grantor of this registry (aln-registry grant new --subject " + string(asker.DID) + " --from-lockfile Cargo.lock)", false
	}
	return rule, text, true
}

// enters: whether somebody may read because of who they are and what their session is for.
func enters(asker *Asker, open bool) (rule Rule, text string, ok bool) {
	if asker.Anonymous() {
		if open {
			return RuleAnonymous, "this registry lets everybody read", true
		}
		return RuleAnonymous, "this registry answers only its members; type `aln-registry login URL`", false
	}
	for _, scope := range asker.Scopes {
		switch scope {
		case particle.ScopeRead, particle.ScopeBuild, particle.ScopePublish, particle.ScopeAudit, particle.ScopeAdmin:
			return RuleScope, "the session is for reading", true
		}
	}
	return RuleScope, "the session has none of the scopes read, build, publish, audit, admin", false
}

// audits reports whether neither grant nor tier nor cooldown binds the session.
func (a *Asker) audits() bool {
	return !a.Anonymous() && slices.Contains(a.Scopes, particle.ScopeAudit)
}

// ends is when the session, or what binds it, ends; the zero time: never.
func (a *Asker) ends() time.Time {
	if a.audits() {
		return a.Until
	}
	return sooner(a.Until, a.GrantUntil)
}

func tierDenied(tier string, denied []string) bool {
	return len(denied) > 0 && (slices.Contains(denied, tier) || particle.TierMemoryMB(tier) == 0)
}

// ReadRecords decides whether asker may read a record: entry 0 is everybody's,
// since all trust starts there; authority records (of members, owners, grants,
// rules, settings) are every member's, whatever grant or tier they have, for
// there it says what they may do about it; the others auditors', mirrors' and
// admins', and theirs who may read the artifact that the record is about.
func ReadRecords(asker Asker, index int64, artifact bool, s Settings) Decision {
	switch {
	case index == 0:
		return verdict(&Asker{}, RuleAnonymous, "entry 0 is public", true)
	case artifact:
		return Read(asker, s)
	case asker.Anonymous():
		return verdict(&asker, RuleAnonymous, "records of authority are for members; type `aln-registry login URL`", false)
	}
	rule, text, ok := enters(&asker, false)
	return verdict(&asker, rule, text, ok)
}

// ReadFigures decides whether asker may read the figures that the registry's
// operators watch: they tell how much is done here, though not by whom.
func ReadFigures(asker Asker) Decision {
	if asker.Anonymous() {
		return verdict(&asker, RuleAnonymous, "the metrics are for auditors and admins; ask with a session, as `aln-registry token --scope audit` prints it", false)
	}
	if asker.HasScope(particle.ScopeAudit) || asker.HasScope(particle.ScopeAdmin) {
		return verdict(&asker, RuleScope, "the session is for watching", true)
	}
	return verdict(&asker, RuleScope, "the metrics need a session with the scope audit or admin; `aln-registry token --scope audit` prints one to auditors and admins", false)
}
