package registry

import (
	"errors"
	"fmt"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/state"
)

// Outcomes of an Event.
const (
	// OutcomeDenied: somebody did not get what they asked to read.
	OutcomeDenied = "denied"
	// OutcomeWouldDeny: they got it, and a rule that is a dry run would have denied it.
	OutcomeWouldDeny = "would_deny"
	// OutcomeAccepted, OutcomeRefused: an act of authority, or a session.
	OutcomeAccepted = "accepted"
	OutcomeRefused  = "refused"
)

// RuleKnownUpstream is the rule of an accepted Event about the first publish of a name that
// another registry, its RuleID, has too.
const RuleKnownUpstream = "known-upstream"

// RuleUntoldUpstream is the rule of one about such a publish, of which another registry, its
// RuleID, did not tell whether it has that name.
const RuleUntoldUpstream = "untold-upstream"

// RuleUpstreamAlarm is the rule of a refused Event about something that another registry
// should never have done; its RuleID is the kind of the alarm.
const RuleUpstreamAlarm = "upstream-alarm"

// RuleAlarmSeen is the rule of an accepted Event about such an alarm that an admin has looked into;
// its RuleID is the kind of the alarm, and what they say of it.
const RuleAlarmSeen = "upstream-alarm-seen"

// Event is one thing that was decided, for the audit trail.
type Event struct {
	// Asker is who has shown to be that DID, "" for somebody unknown.
	Asker did.DID
	// Stranger: Asker is no member. All of them together have the room of one.
	Stranger bool
	// What is the artifact, the record's subject or the route's pattern.
	What string
	// Rule decided; RuleID is a quarantine rule's id, a grant's CID or a record's identity.
	Rule, RuleID string
	Outcome      string
	// Request is the request's id.
	Request string
}

// DenialOf is what err denied to asker, for Note; false where it denies nothing:
// who has not said who they are is asked to, which is none. route is what it is
// about where that is no artifact.
func DenialOf(err error, asker policy.Asker, route, request string) (Event, bool) {
	e := Event{Asker: asker.DID, What: route, Outcome: OutcomeDenied, Request: request}
	var denied *Denied
	var hidden *Hidden
	var denial *policy.Denial
	switch {
	case errors.As(err, &denied):
		e.What = whatOf(denied.Source, denied.Version)
		e.Rule, e.RuleID = string(denied.Decision.Rule), denied.Decision.RuleID
	case errors.As(err, &hidden):
		e.What, e.Rule, e.RuleID = hidden.What, string(hidden.Decision.Rule), hidden.Decision.RuleID
	case !errors.As(err, &denial), denial.Rule == policy.RuleAnonymous, errors.Is(err, ErrUnauthenticated):
		return Event{}, false
	default:
		e.Rule = string(denial.Rule)
		if denial.Rule == policy.RuleGrant {
			e.RuleID = asker.GrantNamed
		}
	}
	return e, true
}

// DryRunOf is that asker gets the bytes of v, which a rule in dry run would deny,
// for Note; false where none would.
func DryRunOf(v Judged, asker did.DID, request string) (Event, bool) {
	return Event{
		Asker: asker, What: whatOf(v.Source, v.Version), Rule: string(policy.RuleQuarantine), RuleID: v.Decision.DryRun,
		Outcome: OutcomeWouldDeny, Request: request,
	}, v.Decision.DryRun != ""
}

// whatOf is the name of a version from source: kind/name@version of what is hosted
// here, upstream/<upstream>/name@version of another registry's.
func whatOf(source string, v state.Version) string {
	if upstream, ok := particle.UpstreamOf(source); ok {
		return versionName("upstream/"+upstream, v.Name, v.Version)
	}
	return versionName(v.Kind, v.Name, v.Version)
}

func versionName[K ~string](kind K, name, version string) string {
	return fmt.Sprintf("%s/%s@%s", kind, name, version)
}
