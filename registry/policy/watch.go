package policy

import (
	"slices"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
)

// ReadAudit decides whether asker may read the audit trail, which names hosts and
// artifacts whoever asks may not know of otherwise.
func ReadAudit(asker Asker) *Denial {
	switch {
	case asker.Anonymous():
		return deny(RuleAnonymous, "the audit trail and the alarms of upstreams are for auditors and admins; ask with a session, as `aln-registry token --scope audit` prints it")
	case asker.HasScope(particle.ScopeAudit), asker.HasScope(particle.ScopeAdmin):
		return nil
	}
	return deny(RuleScope, "the audit trail and the alarms of upstreams need a session with the scope audit or admin; `aln-registry token --scope audit` prints one to auditors and admins")
}

// JudgeFor decides whether asker may ask what is decided for the host subject:
// for themselves everybody may, for others those who make or watch grants and rules.
func JudgeFor(asker Asker, subject did.DID) *Denial {
	switch {
	case asker.Anonymous():
		return deny(RuleAnonymous, "what is decided for hosts is told to members; type `aln-registry login URL`")
	case asker.DID == subject, asker.Admin, asker.HasScope(particle.ScopeAudit):
		return nil
	case slices.Contains(asker.Roles, "grantor"), slices.Contains(asker.Roles, "reviewer"):
		return nil
	}
	return deny(RuleRole, "what another host's grant allows is told to grantors, reviewers, admins and sessions with the scope audit")
}

// Keep decides whether asker may have crates of other registries kept here: what is
// kept takes room for as long as somebody wants it. The scope alone does not say who may:
// every member gets it, and what it is good for hangs on their roles.
func Keep(asker Asker) *Denial {
	switch {
	case asker.Anonymous():
		return deny(RuleAnonymous, "crates are kept for members; type `aln-registry login URL`")
	case !asker.Admin && !slices.Contains(asker.Roles, "publisher"):
		return deny(RuleRole, "crates are kept under a name for publishers and admins; without one they are fetched all the same, and stay while there is room")
	case asker.HasScope(particle.ScopePublish), asker.HasScope(particle.ScopeAdmin):
		return nil
	}
	return deny(RuleScope, "crates are kept under a name for sessions with the scope publish or admin; without one they are fetched all the same, and stay while there is room")
}

// SeeAlarm decides whether asker may say that an alarm of another registry was looked into: nobody
// is warned of it then.
func SeeAlarm(asker Asker) *Denial {
	switch {
	case asker.Anonymous():
		return deny(RuleAnonymous, "alarms are marked as seen by admins; ask with a session of one")
	case !asker.Admin:
		return deny(RuleRole, "alarms are marked as seen by admins of this registry alone")
	case asker.HasScope(particle.ScopeAdmin):
		return nil
	}
	return deny(RuleScope, "marking alarms as seen needs a session with the scope admin")
}
