package policy

import (
	"slices"

	"phoenix-lab.org/aln-registry/registry/particle"
)

// verdict is a Decision about everything at once, its text being constant.
func verdict(allow bool, rule Rule, asker *Asker, text string) Decision {
	d := Decision{Known: allow, Listed: allow, Allow: allow, Rule: rule, say: reason{kind: sayText, text: text}}
	if !asker.Anonymous() {
		d.ValidUntil = asker.Until
	}
	return d
}

// Read is the gate of every route that yields an artifact or tells of one:
// whether asker may read here at all. What it may see of each, Decide says, which
// asks the gate first.
func Read(asker Asker, s Settings) Decision {
	return gate(&asker, &s)
}

// gate: first what the session is for, then what bars it, then its tier.
func gate(asker *Asker, s *Settings) Decision {
	d := member(asker, s.AnonymousRead)
	switch {
	case !d.Allow || asker.HasScope(particle.ScopeAudit):
		return d
	case asker.Barred != nil:
		d = verdict(false, asker.Barred.Rule, asker, asker.Barred.Reason)
	case asker.GrantNamed != "" && asker.Grant == nil:
		d = verdict(false, RuleGrant, asker, "the session names an EnvGrant, and nothing is known of it")
	case asker.Grant == nil && !asker.Anonymous() && tierDenied(asker.Tier, s.DenyTiers):
		d = verdict(false, RuleTier, asker, "hosts of this tier read only under an EnvGrant, and none is in force; ask a grantor of this registry for one")
	}
	return d
}

// member: whether somebody may read because of who they are and what their session is for.
func member(asker *Asker, open bool) Decision {
	if asker.Anonymous() {
		if open {
			return verdict(true, RuleAnonymous, asker, "this registry lets everybody read")
		}
		return verdict(false, RuleAnonymous, asker, "this registry answers only its members; type `aln-registry login URL`")
	}
	for _, scope := range asker.Scopes {
		switch scope {
		case particle.ScopeRead, particle.ScopeBuild, particle.ScopePublish, particle.ScopeAudit, particle.ScopeAdmin:
			return verdict(true, RuleScope, asker, "the session is for reading")
		}
	}
	return verdict(false, RuleScope, asker, "the session has none of the scopes read, build, publish, audit, admin")
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
		return verdict(true, RuleAnonymous, &Asker{}, "entry 0 is public")
	case artifact:
		return Read(asker, s)
	case asker.Anonymous():
		return verdict(false, RuleAnonymous, &asker, "records of authority are for members; type `aln-registry login URL`")
	}
	return member(&asker, false)
}

// ReadFigures decides whether asker may read the figures that the registry's
// operators watch: they tell how much is done here, though not by whom.
func ReadFigures(asker Asker) Decision {
	if asker.Anonymous() {
		return verdict(false, RuleAnonymous, &asker, "the metrics are for auditors and admins; ask with a session, as `aln-registry token --scope audit` prints it")
	}
	if asker.HasScope(particle.ScopeAudit) || asker.HasScope(particle.ScopeAdmin) {
		return verdict(true, RuleScope, &asker, "the session is for watching")
	}
	return verdict(false, RuleScope, &asker, "the metrics need a session with the scope audit or admin; `aln-registry token --scope audit` prints one to auditors and admins")
}
