package verify

import (
	"errors"
	"fmt"
	"slices"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/state"
)

// council is how settings come into force, as state.Apply has it: at once where
// one admin is enough, otherwise at the vote that makes enough of them. Which of
// them are believed is another matter (belief).
type council struct {
	registry *line // settings in force
	// last is the last sound record about the registry, a vote too: what the next has as prev.
	last      *line
	proposals map[record.ID]*proposal
	// keys is how the log's keys came to be those of registry, inForce all records
	// that were in force so far.
	keys    state.LogKeys
	inForce map[record.ID]bool
}

// proposal is a registry record that waits, or waited, for votes, or needed none.
type proposal struct {
	line *line
	// base was in force when it was made; other settings void it.
	base   *line
	votes  []*line
	voters []did.DID
	open   bool
}

func (c *council) settings() *record.Registry { return c.registry.record.Body().(*record.Registry) }

// propose enters a sound registry record, and returns it if it is in force at once.
func (c *council) propose(l *line) (enacted *proposal) {
	c.last = l
	p := &proposal{line: l, base: c.registry, voters: []did.DID{l.record.Header().Signer.DID}}
	if c.registry == nil || c.settings().AdminThreshold == 1 {
		c.settle(l, l)
		return p
	}
	p.open = true
	c.proposals[l.record.ID()] = p
	return nil
}

// vote enters a sound vote and returns what it puts in force, if it does.
func (c *council) vote(l *line, body *record.Approve) (enacted *proposal) {
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
	c.settle(p.line, l)
	return p
}

// settle puts the settings of l in force by the line at, l itself or the vote that decides.
func (c *council) settle(l, at *line) {
	if keys, err := c.nextKeys(l, at); err == nil { // it was judged before
		c.keys = keys
	}
	c.registry = l
	c.inForce[l.record.ID()] = true
}

// nextKeys is what becomes of the log's keys when the line at puts the settings of l in force.
func (c *council) nextKeys(l, at *line) (state.LogKeys, error) {
	if c.registry == nil { // entry 0
		return state.LogKeys{}, nil
	}
	next := l.record.Body().(*record.Registry)
	return c.keys.Next(c.settings().LogKeys, next.LogKeys, l.record.ID(), at.item.Index, at.entry.Time)
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
	if err := j.checkAdmin(l, by, l.record.Header().Signer.DID); err != nil {
		return err
	}
	if body.DID != j.trail.origin {
		return fmt.Errorf("it names the registry %s; that never changes", body.DID)
	}
	if _, err := j.nextKeys(l, l); err != nil {
		return err
	}
	return j.checkPrev(l)
}

// checkApprove judges a vote on proposed settings.
func (j *judge) checkApprove(l *line, body *record.Approve, by *line) error {
	voter := l.record.Header().Signer.DID
	if err := j.checkAdmin(l, by, voter); err != nil {
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
	if _, err := j.nextKeys(p.line, l); err != nil {
		return err
	}
	return j.checkPrev(l)
}
