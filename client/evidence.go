package client

import (
	"context"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/translog"
	"phoenix-lab.org/aln-registry/registry/verify"
)

// Verify returns what of p package verify starts from.
func (p Pin) Verify() verify.Pin {
	return verify.Pin{Origin: p.Origin, Entry0: p.Entry0, Checkpoint: p.Checkpoint}
}

// View is the log at the checkpoint that the registry showed when the View was
// made. Its tiles are verified against that checkpoint and kept, so that many
// artifacts can be proved at the cost of a few. The checkpoint itself is judged
// only by package verify. Safe for concurrent use.
type View struct {
	registry    *Registry
	note        []byte
	checkpoint  translog.Checkpoint
	consistency tlog.TreeProof
	reader      *translog.TileReader
}

// View fetches the log's checkpoint and the proof that it extends the pinned
// one. Where there can be no such proof (the log shrank) it has none, for
// package verify to say so. The View ends with ctx.
func (r *Registry) View(ctx context.Context) (*View, error) {
	note, err := r.Checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	v := &View{registry: r, note: note}
	if v.checkpoint, err = noteCheckpoint(note); err != nil {
		return nil, fmt.Errorf("checkpoint of %s: %w", r.pin.URL, err)
	}
	v.reader = translog.NewTileReader(ctx, v.checkpoint, r.Tile)
	if size := r.pin.Size(); size > 0 && size < v.checkpoint.Size {
		if v.consistency, err = translog.ConsistencyProof(size, v.checkpoint.Size, v.reader); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// Checkpoint returns what the note says; it is not verified.
func (v *View) Checkpoint() translog.Checkpoint { return v.checkpoint }

// Note returns the signed note.
func (v *View) Note() []byte { return v.note }

// Entry returns the entry at index, proved to be in the tree of the checkpoint.
func (v *View) Entry(index int64) ([]byte, error) { return v.reader.ReadEntry(index) }

// Evidence gathers what proves the version s: the records about its name up to
// the View's checkpoint, those that entitle their signers, and proofs. It is
// for package verify to judge.
func (v *View) Evidence(ctx context.Context, s record.Subject) (verify.Evidence, error) {
	records, err := v.registry.Bundle(ctx, s)
	if err != nil {
		return verify.Evidence{}, err
	}
	ev := verify.Evidence{Checkpoint: v.note, Consistency: v.consistency}
	for _, r := range records {
		if r.Index >= v.checkpoint.Size {
			break // logged since; what comes before stands without it
		}
		item, err := v.item(r)
		if err != nil {
			return verify.Evidence{}, err
		}
		ev.Items = append(ev.Items, item)
	}
	return ev, nil
}

func (v *View) item(r BundleRecord) (verify.Item, error) {
	entry, err := v.reader.ReadEntry(r.Index)
	if err != nil {
		return verify.Item{}, err
	}
	proof, err := translog.InclusionProof(v.checkpoint.Size, r.Index, v.reader)
	if err != nil {
		return verify.Item{}, err
	}
	return verify.Item{Index: r.Index, Entry: entry, Envelope: r.Envelope, Attachments: r.Attachments, Proof: proof}, nil
}

// Verify gathers the evidence for want and judges it. Of a verdict that is OK
// the checkpoint is pinned. The error is of gathering, and of a registry whose
// tiles contradict its checkpoint (translog's errors).
func (v *View) Verify(ctx context.Context, want verify.Want) (verify.Verdict, error) {
	ev, err := v.Evidence(ctx, want.Subject)
	if err != nil {
		return verify.Verdict{}, err
	}
	verdict := verify.Artifact(want, ev, v.registry.pin.Verify())
	if !verdict.OK() {
		return verdict, nil
	}
	return verdict, v.registry.advance(ctx, v.note)
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
// with the pinned entry 0, extending the pinned checkpoint. If all holds the
// checkpoint is pinned.
func (r *Registry) LogCheck(ctx context.Context) (translog.Opened, verify.Verdict, error) {
	v, err := r.View(ctx)
	if err != nil {
		return translog.Opened{}, verify.Verdict{}, err
	}
	return v.Check(ctx)
}

// Check is LogCheck at the View's checkpoint.
func (v *View) Check(ctx context.Context) (translog.Opened, verify.Verdict, error) {
	entry0, err := v.entry0(ctx)
	if err != nil {
		return translog.Opened{}, verify.Verdict{}, err
	}
	opened, verdict := verify.Checkpoint(v.note, v.consistency, v.registry.pin.Verify(), entry0)
	if !verdict.OK() {
		return opened, verdict, nil
	}
	return opened, verdict, v.registry.advance(ctx, v.note)
}

// entry0 fetches the log's first entry with its public record and attachments.
func (v *View) entry0(ctx context.Context) (verify.Item, error) {
	line, err := v.reader.ReadEntry(0)
	if err != nil {
		return verify.Item{}, err
	}
	entry, err := translog.ParseEntry(line)
	if err != nil {
		return verify.Item{}, err
	}
	rec, _, err := v.registry.web.record(ctx, entry.Record.String())
	if err != nil {
		return verify.Item{}, err
	}
	r := BundleRecord{Index: 0, Envelope: rec.Envelope()}
	if !entry.DIDDocument.IsZero() {
		document, err := v.registry.web.attachment(ctx, entry.Record.String(), entry.DIDDocument)
		if err != nil {
			return verify.Item{}, err
		}
		r.Attachments = [][]byte{document}
	}
	return v.item(r)
}

// advance pins a note that has been verified, unless a larger one is pinned meanwhile.
func (r *Registry) advance(ctx context.Context, note []byte) error {
	pin := r.pin
	pin.Checkpoint = note
	_, err := r.client.home.SavePin(ctx, pin)
	return err
}
