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
	// Source is particle.SourceHosted, SourceCratesIO or mirror/<name>.
	Source string
	// Since is when its age begins: the later of its publication (missing: first
	// seen) and of when it was first seen again after a disappearance. The zero
	// time: not known, which no cooldown forgives.
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
func Decide(asker *Asker, t *Terms, f *Facts, now time.Time) Decision {
	if d, ok := admits(asker, t, f, now); !ok {
		return d
	}
	c := caseOf(asker, t, f, now.Unix())
	d := Decision{Known: true, DryRun: idOf(c.found.dry)}
	c.until = min(c.until, c.found.until)
	var byGrant reason
	if c.grant != nil {
		byGrant = c.grant.judge(asker.DID, f, c.at)
		d.Known = byGrant.kind == sayNothing || !c.grant.OffshoreFlag
		c.until = min(c.until, c.grant.until(c.at))
	}
	c.settle(&d, byGrant)
	if c.until != never {
		d.ValidUntil = time.Unix(c.until, 0).UTC()
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
	grant  *Grant
	audit  bool
	found  findings
	at     int64
	until  int64
	waiver *rule
}

func caseOf(asker *Asker, t *Terms, f *Facts, at int64) question {
	q := question{asker: asker, terms: t, facts: f, name: canonical(f.Name), at: at, until: never}
	if end := asker.ends(); !end.IsZero() {
		q.until = end.Unix()
	}
	if q.audit = asker.audits(); !q.audit {
		q.grant = asker.Grant
	}
	q.found = t.Rules.judge(f, q.name, at)
	return q
}

// settle fills in what decided.
func (q *question) settle(d *Decision, byGrant reason) {
	if r := q.found.denied; r != nil {
		d.Rule, d.RuleID, d.say = RuleQuarantine, r.id, reason{kind: sayText, text: r.reason}
		return
	}
	if byGrant.kind != sayNothing {
		d.Rule, d.RuleID, d.say = ruleOf(byGrant), q.grant.CID, byGrant
		return
	}
	if young := q.cooldown(); young.kind != sayNothing {
		d.Rule, d.say = RuleCooldown, young
		return
	}
	d.Listed = q.found.graced == nil
	switch {
	case q.found.unscanned != nil:
		r := q.found.unscanned
		d.Unscanned, d.Rule, d.RuleID, d.say = true, RuleQuarantine, r.id, reason{kind: sayUnscanned}
		return
	case q.found.graced != nil:
		r := q.found.graced
		d.Rule, d.RuleID, d.say = RuleQuarantine, r.id, reason{kind: sayGrace, text: r.reason, at: r.grace}
	default:
		d.Rule, d.RuleID, d.say = q.allowedBy()
	}
	d.Allow = true
}

// allowedBy is what allows, where nothing denies.
func (q *question) allowedBy() (Rule, string, reason) {
	switch {
	case q.audit:
		return RuleScope, "", reason{kind: sayText, text: "the session is for an audit"}
	case q.asker.Anonymous():
		return RuleAnonymous, "", reason{kind: sayText, text: "this registry lets everybody read"}
	case q.grant != nil:
		return RuleAllowed, q.grant.CID, reason{kind: sayText, text: "the EnvGrant allows it"}
	}
	return RuleTier, "", reason{kind: sayText, text: "hosts of this tier read without an EnvGrant"}
}

// cooldown says why the artifact is too young, zero if it is not, or if a rule
// waives that. It lowers until to when that may change.
func (q *question) cooldown() reason {
	days := q.terms.MinAgeDays
	if q.grant != nil {
		days = max(days, q.grant.MinAgeDays)
	}
	if days <= 0 || q.audit {
		return reason{}
	}
	due := dueAt(q.facts.Since, days)
	if q.at >= due {
		return reason{}
	}
	q.waiver = q.terms.Rules.waiver(q.facts, q.name, q.at)
	switch {
	case q.waiver == nil:
		q.until = min(q.until, due)
		return reason{kind: sayYoung, at: due, days: days}
	case q.waiver.expires < due:
		q.until = min(q.until, q.waiver.expires)
	}
	return reason{}
}

// dueAt is when what began its age at since is that many days old, in Unix
// seconds; never if since is not known.
func dueAt(since time.Time, days int64) int64 {
	if since.IsZero() {
		return never
	}
	const most = 1 << 32 // days: whatever is more does not come either
	begin := since.Unix()
	if since.Nanosecond() > 0 {
		begin++
	}
	return begin + min(days, most)*day
}

// admits is the gate, and what nobody can judge.
func admits(asker *Asker, t *Terms, f *Facts, now time.Time) (Decision, bool) {
	switch {
	case asker == nil || t == nil || t.Rules == nil || f == nil:
		return Decision{Rule: RuleUnknown, say: reason{kind: sayText, text: "this registry cannot read its own rules now; tell whoever runs it"}}, false
	case f.Kind == "" || f.Name == "" || f.Version == "" || f.Source == "" || f.Digest == [32]byte{}:
		return Decision{Rule: RuleUnknown, say: reason{kind: sayText, text: "too little is known of this artifact to allow it"}}, false
	case !asker.Until.IsZero() && !now.Before(asker.Until):
		return Decision{Rule: RuleLifetime, say: reason{kind: sayText, text: "the session has expired"}}, false
	case !asker.GrantUntil.IsZero() && !now.Before(asker.GrantUntil) && !asker.audits():
		return Decision{Rule: RuleGrant, say: reason{kind: sayText, text: "which EnvGrant binds the session has changed meanwhile; ask again"}}, false
	}
	rule, text, ok := gate(asker, &t.Settings)
	if ok {
		return Decision{}, true
	}
	return verdict(asker, rule, text, false), false
}

func idOf(r *rule) string {
	if r == nil {
		return ""
	}
	return r.id
}
