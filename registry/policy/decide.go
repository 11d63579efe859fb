package policy

import (
	"time"

	"phoenix-lab.org/aln-registry/did"
)

// Facts are what is known of one version of an artifact.
type Facts struct {
	// Kind is the artifact's kind, Name its canonical name, Version as published.
	Kind, Name, Version string
	// Digest is the sha256 of its bytes: Cargo's cksum.
	Digest [32]byte
	// Publisher is who published it, "" where nobody of this registry did.
	Publisher did.DID
	// Source is particle.SourceHosted, SourceCratesIO, upstream/<name> or mirror/<name>.
	Source string
	// Since is when its age begins: its publication (missing: when it was first seen), or, of
	// what upstreams have, the last look before that at which it was not there, where that
	// is later. The zero time: not known, which no cooldown forgives.
	Since time.Time
	// Scanned: the recognisers have looked at its bytes; Findings are those that hit.
	Scanned  bool
	Findings []string
}

// FindingUnreadable among Facts.Findings: the bytes could not be looked through.
// It hits every content rule that denies.
const FindingUnreadable = "unreadable"

// Terms are what binds everybody: the registry's settings and its rules.
type Terms struct {
	Settings
	// MinAgeDays is the registry's cooldown.
	MinAgeDays int64
	// Rules are all that are in force; nil: they could not be read, and nothing is allowed.
	Rules *RuleSet
}

// Rule names of decisions about artifacts. That of a quarantine names its id besides.
const (
	RuleQuarantine Rule = "quarantine"
	RuleCooldown   Rule = "cooldown"
	RuleTier       Rule = "tier-default"
	RuleAllowed    Rule = "allowed-crates"
	RuleUnknown    Rule = "unknown"
)

// KindCrate is the kind that allowed_crates is about.
const KindCrate = "crate"

const day = 24 * 60 * 60 // seconds

// Decide is the one function that says what asker may see of f, now
// (docs/FORMATS.md §7): first the gate, which is Read; then what denies, in the
// order quarantine, grant, cooldown, and the first names the rule; last, whether
// the bytes have been scanned.
func Decide(asker *Asker, t *Terms, f *Facts, now time.Time) (d Decision) {
	if rule, text, ok := admits(asker, t, f, now); !ok {
		return refused(asker, rule, text)
	}
	var q question
	q.pose(asker, t, f, now.Unix())
	d.Known = true
	if q.found.dry != nil {
		d.DryRun = q.found.dry.id
	}
	q.settle(&d)
	if q.until != never {
		d.ValidUntil = time.Unix(q.until, 0).UTC()
	}
	if d.Allow {
		d.Budget = asker.Budget
	}
	return d
}

// refused is the decision where the gate does not open.
func refused(asker *Asker, rule Rule, text string) Decision {
	d := Decision{Rule: rule, say: reason{kind: sayText, text: text}}
	if asker != nil {
		d.ValidUntil = asker.ends()
	}
	return d
}

// question is one artifact before one asker at one time.
type question struct {
	asker *Asker
	terms *Terms
	facts *Facts
	name  string
	// grant judges; nil where none does: an auditor is not bound by one.
	grant *Grant
	audit bool
	found findings
	// due is when it is days old, in Unix seconds; waiver is what that was waived by.
	due, days int64
	waiver    *rule
	// at is now, until when the answer may change, in Unix seconds.
	at, until int64
}

func (q *question) pose(asker *Asker, t *Terms, f *Facts, at int64) {
	q.asker, q.terms, q.facts, q.name, q.at, q.until = asker, t, f, canonical(f.Name), at, never
	if q.audit = asker.audits(); !q.audit {
		q.grant = asker.Grant
		q.ends(asker.GrantUntil)
	}
	q.ends(asker.Until)
	t.Rules.judge(&q.found, f, q.name, at)
	q.until = min(q.until, q.found.until)
}

// ends lowers until to t, which may never come.
func (q *question) ends(t time.Time) {
	if !t.IsZero() {
		q.until = min(q.until, t.Unix())
	}
}

// settle fills in what decided.
func (q *question) settle(d *Decision) {
	byGrant := sayNothing
	if q.grant != nil {
		byGrant = q.grant.judge(q.asker.DID, q.facts, q.at)
		d.Known = byGrant == sayNothing || !q.grant.OffshoreFlag
		q.until = min(q.until, q.grant.until(q.at))
	}
	switch {
	case q.found.denied != nil:
		d.quarantined(sayRule, q.found.denied)
	case byGrant != sayNothing:
		d.Rule, d.RuleID, d.say.kind, d.say.grant = byGrant.grantRule(), q.grant.CID, byGrant, q.grant
	case q.young():
		d.Rule, d.say.kind, d.say.at, d.say.days = RuleCooldown, sayYoung, q.due, q.days
	case q.found.unscanned != nil:
		d.quarantined(sayUnscanned, q.found.unscanned)
		d.Listed, d.Unscanned = q.found.graced == nil, true
	case q.found.graced != nil:
		d.quarantined(sayGrace, q.found.graced)
		d.Allow = true
	default:
		d.Listed, d.Allow = true, true
		d.Rule, d.say.kind = q.allowedBy()
		if q.grant != nil {
			d.RuleID = q.grant.CID
		}
	}
}

func (d *Decision) quarantined(kind say, r *rule) {
	d.Rule, d.RuleID, d.say.kind, d.say.rule = RuleQuarantine, r.id, kind, r
}

// allowedBy is what allows, where nothing denies.
func (q *question) allowedBy() (Rule, say) {
	switch {
	case q.audit:
		return RuleScope, sayAudit
	case q.asker.Anonymous():
		return RuleAnonymous, sayEverybody
	case q.grant != nil:
		return RuleAllowed, sayListed
	}
	return RuleTier, sayTier
}

// young reports whether the artifact is too young and no rule waives that. It
// lowers until to when that may change.
func (q *question) young() bool {
	q.days = q.terms.MinAgeDays
	if q.grant != nil {
		q.days = max(q.days, q.grant.MinAgeDays)
	}
	if q.days <= 0 || q.audit {
		return false
	}
	q.due = dueAt(q.facts.Since, q.days)
	if q.at >= q.due {
		return false
	}
	q.waiver = q.terms.Rules.waiver(q.facts, q.name, q.at)
	switch {
	case q.waiver == nil:
		q.until = min(q.until, q.due)
		return true
	case q.waiver.expires < q.due:
		q.until = min(q.until, q.waiver.expires)
	}
	return false
}

// dueAt is when what began its age at since is that many days old, in Unix
// seconds; never if since is not known, or for more days than a rule may say.
func dueAt(since time.Time, days int64) int64 {
	const most = 1 << 20
	if since.IsZero() || days > most {
		return never
	}
	begin := since.Unix()
	if since.Nanosecond() > 0 {
		begin++
	}
	return begin + days*day
}

// admits is the gate, and what nobody can judge.
func admits(asker *Asker, t *Terms, f *Facts, now time.Time) (rule Rule, text string, ok bool) {
	switch {
	case asker == nil || t == nil || t.Rules == nil || f == nil:
		return RuleUnknown, "this registry cannot read its own rules now; tell whoever runs it", false
	case f.Kind == "" || f.Name == "" || f.Version == "" || f.Source == "" || f.Digest == [32]byte{}:
		return RuleUnknown, "too little is known of this artifact to allow it", false
	case !asker.Until.IsZero() && !now.Before(asker.Until):
		return RuleLifetime, "the session has expired", false
	case !asker.GrantUntil.IsZero() && !now.Before(asker.GrantUntil) && !asker.audits():
		return RuleGrant, "which EnvGrant binds the session has changed meanwhile; ask again", false
	}
	return gate(asker, &t.Settings)
}
