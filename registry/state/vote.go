package state

import (
	"slices"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/record"
)

// This file is the one k-of-n mechanism: a proposal waits until enough of those
// who hold a role approve it. What it is for says who votes, how many are enough,
// what voids it and what it does (motion).

// motion is what proposals of settings and those to end a rule differ in.
type motion struct {
	// void is why the proposal cannot be voted on any more, nil if it can.
	void error
	// entitled demands that the signer may vote now.
	entitled func() error
	// holds reports whether d may vote now: approvals of who may not any more do not count.
	holds func(d did.DID) (bool, error)
	// needed is how many approvals execute it.
	needed int
	// execute does what was proposed; ended is called when it was rejected.
	execute, ended func() error
}

// propose opens p, made by the record that is applied.
func (a *application) propose(p Proposal) error {
	p.Record, p.Open = a.record.ID(), true
	return a.put(keyProposal(p.Record), p)
}

// applyApprove counts a vote: on settings, of which the proposer's own is one, or
// on the end of a rule, of which it is not.
func (a *application) applyApprove(body *record.Approve) error {
	p, ok, err := ProposalOf(a.store, body.Record)
	if err != nil {
		return err
	}
	switch {
	case !ok || p.Rule != a.record.Subject().Rule():
		return refuse(ErrMissing, "no proposal %s about %s", body.Record, a.record.Subject())
	case !p.Open:
		return refuse(ErrInvalid, "the proposal %s is closed", body.Record)
	}
	m := a.settingsMotion(p)
	if p.Rule != "" {
		if m, err = a.releaseMotion(p); err != nil {
			return err
		}
	}
	if m.void != nil {
		return m.void
	}
	if err := m.entitled(); err != nil {
		return err
	}
	return a.vote(p, m, body.Verdict)
}

// vote enters the signer's verdict on p, and executes p if that decides it.
func (a *application) vote(p Proposal, m motion, verdict string) error {
	signer := a.record.Header().Signer.DID
	switch {
	case signer == p.Proposer:
		return refuse(ErrNotEntitled, "%s proposed it; others decide", signer)
	case slices.Contains(p.Approvals, signer):
		return refuse(ErrNoChange, "%s has approved already", signer)
	}
	if verdict == record.VerdictReject {
		p.Open = false
		if err := a.put(keyProposal(p.Record), p); err != nil {
			return err
		}
		return m.ended()
	}
	p.Approvals = append(slices.Clone(p.Approvals), signer)
	count := 0
	for _, d := range p.Approvals {
		holds, err := m.holds(d)
		if err != nil {
			return err
		}
		if holds {
			count++
		}
	}
	p.Open = count < m.needed
	if err := a.put(keyProposal(p.Record), p); err != nil || p.Open {
		return err
	}
	return m.execute()
}

// settingsMotion is of proposed settings: today's admins vote, the proposer's own
// vote counts, and other settings in force void it.
func (a *application) settingsMotion(p Proposal) motion {
	m := motion{
		entitled: a.requireAdmin,
		holds:    func(d did.DID) (bool, error) { return slices.Contains(a.settings.Admins, d), nil },
		needed:   a.settings.AdminThreshold,
		execute: func() error {
			// They were members when it was proposed; that may have changed since.
			if err := a.requireMembers(p.Registry.Admins); err != nil {
				return err
			}
			return a.enactRegistry(p.Record, p.Registry)
		},
		ended: func() error { return nil },
	}
	if p.Base != a.settings.Record {
		m.void = refuse(ErrInvalid, "the proposal %s was made for settings that are no longer in force; propose anew", p.Record)
	}
	return m
}

// releaseMotion is of a proposal to end a rule: today's reviewers and admins vote,
// the proposer does not, and an amendment of the rule voids it.
func (a *application) releaseMotion(p Proposal) (motion, error) {
	rule, ok, err := RuleOf(a.store, p.Rule)
	if err != nil {
		return motion{}, err
	}
	m := motion{
		entitled: func() error { return a.requireRole(RoleReviewer) },
		holds: func(d did.DID) (bool, error) {
			if slices.Contains(a.settings.Admins, d) {
				return true, nil
			}
			member, _, err := MemberOf(a.store, d)
			return member.Has(RoleReviewer), err
		},
		needed: a.settings.ReleaseK,
		execute: func() error {
			rule.Ended, rule.Proposal = a.record.ID(), ""
			return a.putRule(rule)
		},
		ended: func() error {
			rule.Proposal = ""
			return a.putRule(rule)
		},
	}
	switch {
	case !ok || p.Base != rule.Record:
		m.void = refuse(ErrInvalid, "the proposal %s was made before the rule %s was amended; propose its release anew", p.Record, p.Rule)
	case !rule.InForce(a.entry.Time):
		m.void = refuse(ErrNoChange, "the rule %s is not in force any more", p.Rule)
	}
	return m, nil
}
