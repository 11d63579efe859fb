package client

import (
	"context"
	"fmt"
	"net/http"

	"phoenix-lab.org/aln-registry/registry/record"
)

// Begin completes a log that has entry 0 alone by entry 1, its first admin's own
// member record (FORMATS §4), if that admin is who logged in; otherwise it does
// nothing. begun: the record was entered now.
func (c *Client) Begin(ctx context.Context, e Entered) (begun bool, err error) {
	if e.Refusal != nil || e.log.checkpoint.Size != 1 {
		return false, nil
	}
	r, err := c.Registry(e.Pin)
	if err != nil {
		return false, err
	}
	draft := Draft{Subject: record.MemberSubject(r.identity.DID()), Body: record.FirstMember()}
	h, err := r.Heads(ctx, draft.Subject)
	if err != nil || h.By == "" || h.Prev != "" { // an admin's alone; and who was faster has done it
		return false, err
	}
	_, err = r.signAndSubmit(ctx, h, draft)
	if statusOf(err) == http.StatusConflict {
		return false, nil // another login of theirs came first
	}
	if err != nil {
		return false, fmt.Errorf("enter the first admin in the log: %w", err)
	}
	return true, nil
}
