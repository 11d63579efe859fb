package verify

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
)

// This file judges the records of grantors and reviewers. No artifact rests on
// one, so its evidence needs none; where it has some, they are held to who may sign
// them. What a grant or a rule then is, is state.Apply's to say (Replay).

// Authority judges the evidence for one record, of whatever type: that it is in the
// log, and rests, each step signed by who was entitled, on entry 0. What it brought
// about, and whether that still holds, is not concluded.
func Authority(want record.ID, ev Evidence, pin Pin) Verdict {
	v := Verdict{Subject: string(want), Index: -1}
	t := readTrail(ev.Items, pin.Origin)
	opened, ok := v.checkLog(t, ev.Checkpoint, ev.Consistency, pin)
	if !ok {
		v.skip(CheckRecord, CheckSignature, CheckAuthority, CheckInclusion)
		return v
	}
	target, err := t.record(want)
	v.add(CheckRecord, err, "%s is the record wanted", short(target))
	if err != nil {
		v.skip(CheckSignature, CheckAuthority)
		v.checkInclusion(t, opened)
		return v
	}
	v.Subject = target.record.Subject().String()
	v.describe(target)
	chain := t.restsOn(target)
	v.Chain = steps(chain)
	v.add(CheckSignature, firstError(chain, func(l *line) error { return l.signature }), "%d records signed; this one by %s", len(chain), v.Signer)
	v.add(CheckAuthority, firstError(chain, func(l *line) error { return l.authority }), "%d steps from %s to entry 0", len(chain), target)
	v.checkInclusion(t, opened)
	return v
}

// record returns the line of the record id.
func (t *trail) record(id record.ID) (*line, error) {
	if err := cmp.Or(t.problem, t.duplicate); err != nil {
		return nil, err
	}
	if err := t.checkTimes(); err != nil {
		return nil, err
	}
	l, ok := t.byID[id]
	if !ok {
		return nil, fmt.Errorf("the record %s is missing from the evidence, or logged after its checkpoint", id)
	}
	return l, nil
}

// release is a proposal to end a rule.
type release struct {
	line   *line
	voters []did.DID
	open   bool
}

func (p *release) vote(l *line, body *record.Approve) {
	p.voters = append(p.voters, l.record.Header().Signer.DID)
	p.open = p.open && body.Verdict == record.VerdictApprove
}

// checkRole demands that by entitles l's signer: the settings in force an admin,
// the member record in force of its own who holds role.
func (j *judge) checkRole(l, by *line, role string) error {
	signer := l.record.Header().Signer.DID
	if by.record.Type() == record.TypeRegistry {
		return j.checkAdmin(l, by, signer)
	}
	return j.checkHolder("it", by, signer, role)
}

// checkHolder demands that by is d's own member record in force and says role,
// which what needs.
func (j *judge) checkHolder(what string, by *line, d did.DID, role string) error {
	body, ok := by.record.Body().(*record.Member)
	switch {
	case !ok || by.record.Subject().Member() != d:
		return fmt.Errorf("%s needs the signer's own member record; by names %s", what, by)
	case by != j.members[d]:
		return fmt.Errorf("by names %s, which %s had replaced", by, j.members[d])
	case !slices.Contains(body.Roles, role):
		return fmt.Errorf("%s has not got the role %s by %s", d, role, by)
	}
	return nil
}

// checkReleaseVote judges a vote on the end of a rule. That it ended is not
// concluded: an amendment that voids the proposal may be missing here.
func (j *judge) checkReleaseVote(l *line, body *record.Approve, by *line) error {
	voter := l.record.Header().Signer.DID
	p := j.releases[body.Record]
	switch {
	case p == nil || p.line.record.Subject().Thing() != l.record.Subject().Thing():
		return fmt.Errorf("it votes on %s, which no record before it proposes about %s", body.Record, l.record.Subject())
	case !p.open:
		return fmt.Errorf("it votes on %s, which was rejected", p.line)
	case p.line.record.Header().Signer.DID == voter:
		return errors.New("its signer proposed it; others decide")
	case slices.Contains(p.voters, voter):
		return errors.New("its signer had voted already")
	}
	return j.checkRole(l, by, state.RoleReviewer)
}
