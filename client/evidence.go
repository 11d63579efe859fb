package client

import (
	"context"
	"fmt"
	"sync/atomic"

	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/registry/verify"
)

// View is the log at the checkpoint that the registry showed when the View was
// made. Its tiles are verified against that checkpoint and kept, so that many
// artifacts can be proved at the cost of a few. The checkpoint itself is judged
// only by package verify: Check, Verify. Safe for concurrent use.
type View struct {
	shown
	registry    *Registry
	past        Pin // what it is judged against
	consistency tlog.TreeProof
	judged      atomic.Bool // found good
}

// View fetches the log's checkpoint and the proof that it extends the largest one
// that is pinned by any name of the registry. Where there can be no such proof (the log shrank) it has none, for
// package verify to say so; a state that is proved to be older than what was seen is
// waited for to pass (lag.go). The View ends with ctx.
func (r *Registry) View(ctx context.Context) (*View, error) {
	past, err := r.client.home.seen(r.pin)
	if err != nil {
		return nil, err
	}
	return r.viewSince(ctx, past)
}

// viewSince is View, to be judged against past.
func (r *Registry) viewSince(ctx context.Context, past Pin) (*View, error) {
	for lag := r.web.patience(); ; {
		v, err := r.viewOnce(ctx, past, lag)
		if err != nil || !r.client.behind(ctx, v) || !lag.pause(ctx) {
			return v, err
		}
	}
}

// behind reports whether v shows an older state than was seen, and proves that it is
// one. It is judged like any other: what contradicts the past is kept. What is no
// smaller is for the caller to judge.
func (c *Client) behind(ctx context.Context, v *View) bool {
	if v.checkpoint.Size >= v.past.Size() {
		return false
	}
	_, verdict, err := c.judge(ctx, v.shown, v.past, v.consistency)
	return err == nil && lags(unproved(v.past.URL, verdict))
}

func (r *Registry) viewOnce(ctx context.Context, past Pin, lag *patience) (*View, error) {
	s, err := r.web.show(ctx, lag)
	if err != nil {
		return nil, err
	}
	s.as = r
	v := &View{registry: r, shown: s, past: past}
	v.consistency, err = s.relation(ctx, past.Checkpoint)
	return v, err
}

// Entry returns the entry at index, proved to be in the tree of the checkpoint,
// which must have been found good: by Check, or Verify.
func (v *View) Entry(index int64) ([]byte, error) {
	if !v.judged.Load() {
		return nil, fmt.Errorf("%w: entry %d of a log whose checkpoint was not judged", ErrUntrusted, index)
	}
	return v.reader.ReadEntry(index)
}

// Evidence gathers what proves the version s: the records about its name up to
// the View's checkpoint, those that entitle their signers, and proofs. It is
// for package verify to judge.
func (v *View) Evidence(ctx context.Context, s record.Subject) (verify.Evidence, error) {
	records, err := v.registry.Bundle(ctx, s)
	if err != nil {
		return verify.Evidence{}, err
	}
	items, err := v.items(records)
	if err != nil {
		return verify.Evidence{}, err
	}
	return verify.Evidence{Checkpoint: v.note, Consistency: v.consistency, Items: items}, nil
}

// Verify gathers the evidence for want and judges it. Of a verdict that is OK
// the checkpoint is pinned; what contradicts the pinned one is kept. The error is
// of gathering, and of a registry whose tiles contradict its checkpoint
// (translog's errors).
func (v *View) Verify(ctx context.Context, want verify.Want) (verify.Verdict, error) {
	ev, err := v.Evidence(ctx, want.Subject)
	if err != nil {
		return verify.Verdict{}, err
	}
	return v.settle(ctx, verify.Artifact(want, ev, v.registry.client.believed(v.past)))
}

// settle keeps what a verdict found that contradicts the past; of one that is OK it pins
// the checkpoint.
func (v *View) settle(ctx context.Context, verdict verify.Verdict) (verify.Verdict, error) {
	v.registry.client.keepConflict(ctx, v.past, &verdict)
	if !verdict.OK() {
		return verdict, nil
	}
	return v.advance(ctx, verdict)
}

// Evidence is View and View.Evidence for one artifact.
func (r *Registry) Evidence(ctx context.Context, s record.Subject) (verify.Evidence, error) {
	v, err := r.View(ctx)
	if err != nil {
		return verify.Evidence{}, err
	}
	return v.Evidence(ctx, s)
}

// LogCheck verifies the log's newest checkpoint: signed by the log, beginning
// with the pinned entry 0, extending the pinned checkpoint, and not too old. If
// all holds the checkpoint is pinned.
func (r *Registry) LogCheck(ctx context.Context) (translog.Opened, verify.Verdict, error) {
	v, err := r.View(ctx)
	if err != nil {
		return translog.Opened{}, verify.Verdict{}, err
	}
	return v.Check(ctx)
}

// Check is LogCheck at the View's checkpoint.
func (v *View) Check(ctx context.Context) (translog.Opened, verify.Verdict, error) {
	opened, verdict, err := v.registry.client.judge(ctx, v.shown, v.past, v.consistency)
	if err != nil || !verdict.OK() {
		return opened, verdict, err
	}
	verdict, err = v.advance(ctx, verdict)
	return opened, verdict, err
}
