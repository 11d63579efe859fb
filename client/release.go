package client

import (
	"context"
	"fmt"

	"phoenix-lab.org/aln-registry/registry/record"
)

// RuleVote is a reviewer's, on the proposal to end a rule.
type RuleVote struct {
	Submitted
	// Ended: the rule is in force no more.
	Ended bool
	// Unsure is why Ended could not be asked for, nil where it was.
	Unsure error
}

// Proposed is a proposal that votes are cast on, by the identity of its record:
// Release is set where it is one to end the rule Rule, otherwise it is one of settings.
type Proposed struct {
	Record  record.ID
	Rule    string
	Release *record.Release
}

// ProposalOf fetches the record of a proposal, and says of what it is one.
func (r *Registry) ProposalOf(ctx context.Context, id record.ID) (Proposed, error) {
	rec, _, err := r.Bare().Record(ctx, string(id))
	if err != nil {
		return Proposed{}, err
	}
	switch body := rec.Body().(type) {
	case *record.Registry:
		return Proposed{Record: id}, nil
	case *record.Release:
		return Proposed{Record: id, Rule: rec.Subject().Rule(), Release: body}, nil
	}
	return Proposed{}, fmt.Errorf("%w: the record %s is no proposal but a %s record", ErrAnswer, id, rec.Type())
}

// ApproveRelease signs and submits a vote on the proposal p to end a rule; reject
// ends the proposal. Of a vote that was entered there is no error, whatever cannot
// be asked for after it. Errors: those of SignAndSubmit.
func (r *Registry) ApproveRelease(ctx context.Context, p Proposed, reject bool, reason string) (RuleVote, error) {
	subject, err := record.RuleSubject(p.Rule)
	if err != nil {
		return RuleVote{}, err
	}
	body := &record.Approve{Record: p.Record, Verdict: record.VerdictApprove, Reason: reason}
	if reject {
		body.Verdict = record.VerdictReject
	}
	var v RuleVote
	if v.Submitted, err = r.SignAndSubmit(ctx, Draft{Subject: subject, Body: body}); err != nil || reject {
		return v, err
	}
	var rule RuleInfo
	rule, v.Unsure = r.Rule(ctx, p.Rule)
	v.Ended = rule.State == RuleEnded
	return v, nil
}
