package verify

import (
	"errors"
	"fmt"
	"slices"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
)

// council is how settings come into force, as state.Apply has it: at once where
// one admin is enough, otherwise at the vote that makes enough of them.
type council struct {
	registry *line // settings in force
	// believed is registry, or where that is disowned the last settings that are not.
	believed *line
	// last is the last sound record about the registry, a vote too: what the next has as prev.
	last      *line
	proposals map[record.ID]*proposal
}

// proposal is a registry record that waits, or waited, for votes.
type proposal struct {
	line *line
	// base was in force when it was made; other settings void it.
	base   *line
	votes  []*line
	voters []did.DID
	open   bool
}

func (c *council) settings() *record.Registry { return c.registry.record.Body().(*record.Registry) }

// propose enters a sound registry record; enacted: it is in force at once.
func (c *council) propose(l *line) (enacted bool) {
	c.last = l
	if c.registry == nil || c.settings().AdminThreshold == 1 {
		c.registry, c.believed = l, l
		return true
	}
	c.proposals[l.record.ID()] = &proposal{line: l, base: c.registry, voters: []did.DID{l.record.Header().Signer.DID}, open: true}
	return false
}

// vote enters a sound vote and returns the line that it puts in force, if it does.
func (c *council) vote(l *line, body *record.Approve) (enacted *line) {
	c.last = l
	p := c.proposals[body.Record]
	if body.Verdict == record.VerdictReject {
		p.open = false
		return nil
	}
	p.votes = append(p.votes, l)
	p.voters = append(p.voters, l.record.Header().Signer.DID)
	admins, count := c.settings().Admins, 0
	for _, d := range p.voters {
		if slices.Contains(admins, d) {
			count++
		}
	}
	if count < c.settings().AdminThreshold {
		return nil
	}
	p.open = false
	p.line.votes, c.registry, c.believed = p.votes, p.line, p.line
	return p.line
}

// disown enters a record about the registry that a compromised key signed: what
// it did stays done, but lends nobody authority.
func (c *council) disown(l *line) {
	if l.record.Subject() != record.RegistrySubject() {
		return
	}
	c.last = l
	if l.record.Type() == record.TypeRegistry && c.settings().AdminThreshold == 1 {
		c.registry = l
	}
}

// checkBelieved judges an admin d of the disowned settings by, which are in force
// and so have to be cited: one of the last believed settings may set them right.
func (c *council) checkBelieved(by *line, d did.DID) error {
	before := c.believed.record.Body().(*record.Registry)
	if before.AdminThreshold > 1 || !slices.Contains(before.Admins, d) {
		return fmt.Errorf("it rests on %s, signed by a compromised key, and %s alone had no authority by %s before it", by, d, c.believed)
	}
	return nil
}

// checkPrev demands that nothing about the registry is missing between l and the line before it.
func (c *council) checkPrev(l *line) error {
	if l.record.Header().Prev != c.last.record.ID() {
		return fmt.Errorf("prev does not name %s, the record about the registry before it: it was signed for an earlier state, or one is missing", c.last)
	}
	return nil
}

// checkRegistry judges settings after entry 0, or the proposal of settings.
func (j *judge) checkRegistry(l *line, body *record.Registry, by *line) error {
	if err := j.checkAdmin(by, l.record.Header().Signer.DID); err != nil {
		return err
	}
	if body.DID != j.trail.origin {
		return fmt.Errorf("it names the registry %s; that never changes", body.DID)
	}
	return j.checkPrev(l)
}

// checkApprove judges a vote on proposed settings.
func (j *judge) checkApprove(l *line, body *record.Approve, by *line) error {
	voter := l.record.Header().Signer.DID
	if err := j.checkAdmin(by, voter); err != nil {
		return err
	}
	p := j.proposals[body.Record]
	switch {
	case p == nil:
		return fmt.Errorf("it votes on %s, which no record before it proposes", body.Record)
	case !p.open:
		return fmt.Errorf("it votes on %s, which was decided", p.line)
	case p.base != j.registry:
		return fmt.Errorf("it votes on %s, which %s had voided", p.line, j.registry)
	case slices.Contains(p.voters, voter):
		return errors.New("its signer had voted already")
	}
	return j.checkPrev(l)
}
