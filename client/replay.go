package client

import (
	"context"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/registry/verify"
)

// Replay is LogCheck, and then every entry of the log fetched and run through
// the rules from nothing (verify.Replay): the only proof that nothing was left
// out. progress, unless nil, is told the number of entries done and of all.
// When the verdict is not OK nothing was replayed.
func (r *Registry) Replay(ctx context.Context, progress func(done, all int64)) (verify.Verdict, verify.Replayed, error) {
	v, err := r.View(ctx)
	if err != nil {
		return verify.Verdict{}, verify.Replayed{}, err
	}
	opened, verdict, err := v.Check(ctx)
	if err != nil || !verdict.OK() {
		return verdict, verify.Replayed{}, err
	}
	var done func(int64)
	if progress != nil {
		done = func(n int64) { progress(n, opened.Size) }
	}
	replayed, err := verify.Replay(ctx, opened.Checkpoint, r.client.believed(v.past), remoteLog{v}, done)
	return verdict, replayed, err
}

// remoteLog is a registry's log as verify.Replay reads it.
type remoteLog struct{ *View }

// Entry implements verify.Log.
func (l remoteLog) Entry(_ context.Context, index int64) ([]byte, error) { return l.View.Entry(index) }

// Record implements verify.Log. Bytes that are no record are passed on for the
// replay to report.
func (l remoteLog) Record(ctx context.Context, _ int64, e translog.Entry) ([]byte, [][]byte, error) {
	id := e.Record.String()
	envelope, _, err := l.registry.read(ctx, recordPath(id), record.MaxEnvelope)
	if err != nil {
		return nil, nil, err
	}
	rec, err := record.Parse(envelope)
	if err != nil {
		return envelope, nil, nil
	}
	var attachments [][]byte
	for _, cid := range rec.Attachments() {
		blob, err := l.registry.attachment(ctx, id, cid, rec.MostAttached())
		if err != nil {
			return nil, nil, err
		}
		attachments = append(attachments, blob)
	}
	return envelope, attachments, nil
}
